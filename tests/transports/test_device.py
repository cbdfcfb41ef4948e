"""Emulated ranks on a GPU, without one: walk.cu compiled as C++ and run on threads, driven by the real session."""

import numpy as np
import pytest
import shim_device
from busbw.bench.measure import Effort, measure
from busbw.bench.pattern import pattern
from busbw.collectives import ALGORITHMS, algorithms
from busbw.collectives.collective import COLLECTIVES
from busbw.collectives.schedule import INPUT, OUTPUT
from busbw.transports import device
from busbw.transports.device import DeviceSession
from busbw.transports.program import COLUMNS, POST, POST2, WAIT
from busbw.transports.session import Job, Stalled, Unavailable
from hypothesis import given, settings
from hypothesis import strategies as st

CAPACITY = 1 << 16


def session(shim_folder, ranks, *, devices=1, way="auto", resident=8, timeout=20.0, **options):
    gpus = [shim_device.ShimDevice(shim_folder, resident=resident) for _ in range(devices)]
    return DeviceSession(gpus, ranks, CAPACITY, CAPACITY, way=way, timeout=timeout, **options)


def reduce_with(s, job, inputs):
    s.prepare(job)
    for rank, values in enumerate(inputs):
        s.write(rank, OUTPUT if job.in_place else INPUT, values)
    s.run()
    return np.array([s.read(rank, OUTPUT) for rank in range(s.ranks)])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(device, "BYTES_A_BLOCK", (128,))  # so that small calls take several blocks too


@settings(max_examples=40, deadline=None)
@given(
    ranks=st.integers(1, 5),
    algorithm=st.sampled_from(list(ALGORITHMS)),
    count=st.sampled_from([0, 1, 2, 7, 100, 1023, 4099]),
    in_place=st.booleans(),
    way=st.sampled_from(["walk", "steps"]),
    blocks=st.integers(1, 3),
    slices=st.integers(1, 3),
    seed=st.integers(0, 2**32),
)
def test_every_rank_holds_the_sum(shim_folder, ranks, algorithm, count, in_place, way, blocks, slices, seed):
    inputs = np.random.default_rng(seed).integers(-1000, 1000, (ranks, count)).astype(np.float32)
    s = session(shim_folder, ranks, way=way, resident=blocks * ranks)
    outputs = reduce_with(s, Job(algorithm, count, "float32", "sum", in_place, slices=slices), inputs)
    assert np.array_equal(outputs, np.broadcast_to(inputs.sum(axis=0), outputs.shape))
    assert s.devices[0].misaligned == 0


@settings(max_examples=25, deadline=None)
@given(
    ranks=st.integers(2, 6),
    algorithm=st.sampled_from(list(ALGORITHMS)),
    count=st.sampled_from([2, 100, 1500]),
    blocks=st.integers(1, 3),
    slices=st.integers(1, 3),
    inner=st.integers(2, 5),
    dtype=st.sampled_from(["float32", "int8"]),
)
def test_a_launch_of_many_all_reduces_leaves_the_last_ones_sum(
    shim_folder, ranks, algorithm, count, blocks, slices, inner, dtype
):
    s = session(shim_folder, ranks, way="walk", resident=blocks * ranks)
    data = pattern(dtype, "sum", ranks, seed=inner)
    s.prepare(Job(algorithm, count, dtype, "sum", slices=slices))
    s.fill(data.table)
    s.time(2, inner)
    assert s.check(data) == 0
    assert s.devices[0].launches["walk"] == 2


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_back_to_back_all_reduces_never_see_stale_data(shim_folder, algorithm):
    rng = np.random.default_rng(1)
    s = session(shim_folder, 3, way="walk", resident=6)
    for count in (3, 500):
        for _ in range(6):
            inputs = rng.integers(-(2**20), 2**20, (3, count)).astype(np.float32)
            outputs = reduce_with(s, Job(algorithm, count, "float32", "sum"), inputs)
            assert np.array_equal(outputs, np.broadcast_to(inputs.sum(axis=0), outputs.shape))


@pytest.mark.parametrize("way", ["walk", "steps"])
def test_every_collective_is_right(shim_folder, way):
    s = session(shim_folder, 3, way=way)
    data = pattern("float32", "sum", 3)
    for collective in COLLECTIVES.values():
        for n, algorithm in enumerate(algorithms(collective)):
            for in_place in (False, True) if collective.in_place else (False,):
                s.prepare(Job(algorithm, 300, "float32", "sum", in_place, 2, 2, collective.name, n % 3))
                s.fill(data.table)
                if in_place:
                    s.run()
                else:
                    s.time(2, 3)
                assert s.check(data) == 0, (collective.name, algorithm, in_place)


@pytest.mark.parametrize(
    "dtype, op",
    [
        ("float8_e4m3", "avg"),
        ("float8_e5m2", "sum"),
        ("float64", "prod"),
        ("bfloat16", "sum"),
        ("float16", "avg"),
        ("int8", "avg"),
        ("uint64", "max"),
    ],
)
@pytest.mark.parametrize("way", ["walk", "steps"])
def test_dtypes_and_ops_give_the_pattern(shim_folder, dtype, op, way):
    s = session(shim_folder, 3, way=way)
    data = pattern(dtype, op, 3, seed=3)
    s.prepare(Job("ring", 777, dtype, op))
    s.fill(data.table)
    s.run()
    assert s.check(data) == 0
    s.write(1, OUTPUT, np.full(1, 77, np.uint8))
    assert s.check(data) > 0


def test_ranks_over_several_devices_pull_from_one_another(shim_folder):
    for ranks in (2, 3, 4):
        s = session(shim_folder, ranks, devices=1)
        assert s.crew.transport == "device"
    # Devices of the shim run one launch after the other, so ranks of two devices would wait for ever: only the layout shows.
    s = session(shim_folder, 4, devices=2, way="walk")
    assert s.device_of == {0: 0, 1: 0, 2: 1, 3: 1} and s.crew.transport == "peer"
    with pytest.raises(Unavailable, match="all ranks on one device"):
        session(shim_folder, 2, devices=2, way="steps")


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_a_rank_waits_on_memory_of_its_own_gpu_alone(shim_folder, algorithm):
    s = session(shim_folder, 4, devices=4, way="walk")
    s.prepare(Job(algorithm, 5000, "float32", "sum", slices=3))
    words = set()
    for rank, program in s.programs.items():
        mine = [(at, at + len(block)) for at, block in s.devices[rank].kept.items()]
        for row in program.code.reshape(-1, COLUMNS):
            assert not row[WAIT] or any(low <= row[WAIT] < high for low, high in mine)
            words |= {(int(row[word]), rank) for word in (POST, POST2) if row[word]}
    assert len({word for word, _ in words}) == len(words)  # a word is posted by one rank alone


def test_the_timed_loop_measures_a_device_as_it_measures_threads(shim_folder):
    s = session(shim_folder, 2)
    found = measure(s, Job("ring", 256, "float32", "sum"), Effort(iterations=3, warmup=1))
    assert found.timing.wrong == 0 and len(found.timing.samples) == 3 and min(found.timing.samples) > 0
    assert s.chosen in ("walk", "steps")


def test_a_device_that_cannot_hold_all_ranks_at_once_takes_steps(shim_folder):
    s = session(shim_folder, 4, resident=3)
    s.prepare(Job("ring", 100, "float32", "sum"))
    assert s.chosen == "steps"
    s = session(shim_folder, 4, resident=3, way="walk")
    with pytest.raises(Unavailable, match="4 ranks on one device"):
        s.prepare(Job("ring", 100, "float32", "sum"))


def test_calls_take_as_many_blocks_as_run_at_a_time_and_long_ones_more(shim_folder, monkeypatch):
    monkeypatch.setattr(device, "BYTES_A_BLOCK", (256, 512, 1024))
    s = session(shim_folder, 2)

    def blocks(nbytes, rows):
        return s._blocks(nbytes, rows, resident=16)

    assert [blocks(n, 4) for n in (4, 256, 512, 1024)] == [1, 1, 2, 4]
    assert [blocks(n, 4) for n in (2048, 4096)] == [4, 4]  # no more than run at a time, of two and four vectors
    assert blocks(8192, 4) == 8  # more than that, each block with all that it has in flight
    assert blocks(2048, 1) == 8


def test_a_walk_that_is_chosen_after_steps_were_tried_goes_on(shim_folder, monkeypatch):
    tried = DeviceSession._trial
    monkeypatch.setattr(DeviceSession, "_trial", lambda s, way: (tried(s, way), way == "steps")[1])
    s = session(shim_folder, 3, timeout=2.0, eager_bytes=4096)
    for name in ("binomial", "chain"):
        s.prepare(Job(name, 30, "float32", "sum", collective="broadcast", root=1))
        assert s.chosen == "walk" and s.message_modes.keys() <= {"inline", "eager"}
        for _ in range(5):  # a root that hears from nobody waits until its mailboxes of two broadcasts ago are empty
            s.run()


def test_mailboxes_are_for_messages_that_would_need_an_ack(shim_folder):
    def modes(way, algorithm):
        s = session(shim_folder, 4, way=way)
        s.prepare(Job(algorithm, 100, "float32", "sum"))
        return set(s.message_modes)

    assert modes("walk", "recursive-doubling") == {"eager"}  # nobody hears at the end that its last message was read
    assert modes("walk", "ring") == {"pull", "push"}
    assert modes("steps", "recursive-doubling") == {"pull"}


def test_a_rank_that_never_posts_ends_the_walk_in_time(shim_folder):
    s = session(shim_folder, 2, way="walk", timeout=0.3)
    s.prepare(Job("ring", 5000, "float32", "sum"))
    job = s._loaded[0]
    s.devices[0].upload(job.rows, np.array([0], np.int64))  # rank 0 has nothing to do, and rank 1 waits for it
    with pytest.raises(Stalled, match=r"0\.3 s"):
        s.run()
