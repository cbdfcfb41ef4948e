"""The persistent walk as it was compiled for sm_90, one thread of this machine a CUDA thread, under ThreadSanitizer.

No two accesses may be unordered, no flag may go back, every all-reduce of a launch must come out right, with random delays before
flags and between polls. That the harness can fail is shown by breaking walk.cu in one place at a time: each must be caught.
A sample by default; BUSBW_GPU_COMPILE=all, as `.ci/gpu all` runs it, tries every mutation and more jobs.
"""

import os
import shutil
from functools import cache

import ptx_machine as machine
import pytest
from busbw.bench.pattern import pattern
from busbw.collectives import ALGORITHMS
from busbw.kernels import cuda_source, offline
from busbw.transports import device, program
from busbw.transports.cupy_device import walk_options, walk_source
from busbw.transports.device import DeviceSession
from busbw.transports.session import Job, Stalled

REASON = machine.unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ALL = os.environ.get("BUSBW_GPU_COMPILE") == "all"

BLOCK_0_POSTS = (
    "a row without a call is posted by block 0, which does not wait for the last block's post",
    "  if (++me.row == me.rows) {",
    "  me.posts = blockIdx.x % (unsigned)me.blocks == 0;\n  if (++me.row == me.rows) {",
)
NO_ACQUIRE = ("a wait does not acquire", '"ld.acquire."', '"ld.relaxed."')
MUTATIONS = [
    NO_ACQUIRE,
    ("a flag publishes nothing", 'asm volatile("fence.acq_rel." BUSBW_SCOPE ";" ::: "memory");', ""),
    ("blocks arrive in no order", '"atom.add.acq_rel."', '"atom.add.relaxed."'),
    ("no barrier before a call", "    __syncthreads();\n    if (row.kind == STOP)", "    if (row.kind == STOP)"),
    ("no barrier after a call", "      execute(row, share);\n      __syncthreads();", "      execute(row, share);"),
    (
        "blocks do not wait for one another",
        "me.failed = !wait_for(me.arrived, me.meeting, abort, limit_ns)",
        "me.failed = 0",
    ),
    ("a row is used before it has come", 'asm volatile("cp.async.wait_all;" ::: "memory");', ""),
    ("a row is fetched over one in use", "enum { HELD = 4 };", "enum { HELD = 2 };"),
]


@pytest.fixture(scope="module")
def arena():
    found = machine.Arena()
    yield found
    found.close()


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ptx_walk")

    @cache
    def build(dtype="float32", op="sum", mutation=None, sanitize=True):
        sources = folder / f"sources{len(list(folder.iterdir()))}"
        shutil.copytree(cuda_source.FOLDER, sources)
        (sources / "walk.cu").write_text(walk_source())
        if mutation:
            name, old, new = mutation
            (file,) = [f for f in sources.iterdir() if f.read_text().count(old)]
            assert file.read_text().count(old) == 1, f"{name}: {old!r} is more than once in {file.name}"
            file.write_text(file.read_text().replace(old, new))
        options = [o.replace(str(cuda_source.FOLDER), str(sources)) for o in walk_options(dtype, op)]
        ptx = offline.compile_cuda_cpp((sources / "walk.cu").read_text(), options, "sm_90").ptx
        return machine.build(ptx, "walk", folder / f"walk{len(list(folder.iterdir()))}", sanitize=sanitize)

    return build


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(device, "BYTES_A_BLOCK", (256,))  # so that small calls take several blocks


def all_reduce(arena, path, job, *, ranks, blocks, threads, inner, delay_us=0, seed=1, timeout=60.0):
    """Two launches of `inner` all-reduces. Raises machine.Caught or Stalled, or AssertionError for a wrong result."""
    arena.clear()
    launched = machine.Program(path, arena, delay_us, seed, patience=4 * timeout)
    gpu = machine.PtxDevice(launched, resident=ranks * blocks, threads=threads)
    s = DeviceSession([gpu], ranks, 1 << 16, 1 << 17, way="walk", timeout=timeout, flush=False)
    data = pattern(job.dtype, job.op, ranks, seed=1)
    s.prepare(job)
    s.fill(data.table)
    s.time(1 if job.in_place else 2, 1 if job.in_place else inner)  # in place, a second one would reduce results
    assert s.check(data) == 0


SHAPES = [(2, 1, 3), (3, 2, 2), (5, 2, 2), (4, 3, 2)]  # ranks, blocks a rank, threads a block
COUNTS = [(2, False, 1), (37, True, 2), (1500, False, 1), (4100, False, 2)]  # elements, in place, slices


@pytest.mark.parametrize("delay_us", [0, 400])
@pytest.mark.parametrize(
    ("dtype", "op"), [("float32", "sum"), ("bfloat16", "avg"), ("int8", "sum")] if ALL else [("float32", "sum")]
)
def test_no_access_is_a_race_and_no_flag_goes_back(arena, build, dtype, op, delay_us):
    path = build(dtype, op)
    for seed, shape in enumerate(SHAPES if ALL else SHAPES[1:2]):
        for algorithm in ALGORITHMS:
            for count, in_place, slices in COUNTS if ALL else COUNTS[::3]:
                ranks, blocks, threads = shape
                job = Job(algorithm, count, dtype, op, in_place, slices=slices)
                all_reduce(
                    arena,
                    path,
                    job,
                    ranks=ranks,
                    blocks=blocks,
                    threads=threads,
                    inner=3,
                    delay_us=delay_us,
                    seed=100 * seed,
                )


MANY = [("tree", 5), ("halving-doubling", 4), ("two-shot", 2)]  # where a late post was once overtaken


def launch_many(arena, path, algorithm, ranks, seed):
    job = Job(algorithm, 4100, "float32", "sum")
    all_reduce(arena, path, job, ranks=ranks, blocks=2, threads=2, inner=40 if ALL else 12, delay_us=400, seed=seed)


@pytest.mark.parametrize(("algorithm", "ranks"), MANY)
def test_many_all_reduces_a_launch_end_whatever_is_late(arena, build, algorithm, ranks):
    for seed in range(12 if ALL else 1):
        launch_many(arena, build(sanitize=False), algorithm, ranks, 1000 * seed)


def test_posts_out_of_order_are_caught(arena, build):
    path = build(mutation=BLOCK_0_POSTS, sanitize=False)
    with pytest.raises(machine.Caught, match="a flag went back"):
        for seed in range(20):
            for algorithm, ranks in MANY:
                launch_many(arena, path, algorithm, ranks, 1000 * seed)


def first_caught(arena, path, tries):
    """What the harness says of a broken walk, or None."""
    for seed in range(tries):
        for ranks, blocks, threads in ((3, 2, 2), (2, 1, 3)):
            for algorithm in ALGORITHMS:
                for count, in_place, slices in COUNTS:
                    job = Job(algorithm, count, "float32", "sum", in_place, slices=slices)
                    try:
                        all_reduce(
                            arena, path, job, ranks=ranks, blocks=blocks, threads=threads, inner=4, delay_us=seed % 2 * 400,
                            seed=seed * 1000, timeout=5.0,
                        )  # fmt: skip
                    except (machine.Caught, Stalled, AssertionError) as caught:
                        return f"{algorithm}, {count} elements: {caught}"
    return None


@pytest.mark.skipif(not ALL, reason="with BUSBW_GPU_COMPILE=all")
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m[0])
def test_a_broken_walk_is_caught(arena, build, mutation):
    assert first_caught(arena, build(mutation=mutation), tries=4) is not None


@pytest.mark.skipif(not ALL, reason="with BUSBW_GPU_COMPILE=all")
def test_a_plan_without_acks_is_caught(arena, build, monkeypatch):
    messages = program._messages

    def without_acks(*arguments):
        found = messages(*arguments)
        for message in found.values():
            message.ack_k = 0
        return found

    monkeypatch.setattr(program, "_messages", without_acks)
    assert first_caught(arena, build(), tries=4) is not None
