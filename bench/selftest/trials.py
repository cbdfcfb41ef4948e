"""Everything there is to try on the GPUs of one process: every kernel and every way to walk a schedule, checked.

``groups`` has it in order, with what is measured (figures.py) behind it: what is likeliest to hang comes late.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...collectives import ALGORITHMS
from ...kernels import selftest as kernels_selftest
from ...transports.device import DeviceSession
from ...transports.session import Job, Unavailable
from ..pattern import pattern
from .closing import closing, quietly_closed
from .figures import bandwidth, latency, rate, ring
from .findings import Finding, Group, Part, tally
from .rig import JOBS, DeviceRig, KernelRig, Rig

REPEATS = 7  # all-reduces in one launch, where a launch has several
COMPILE_LIMIT, TRY_LIMIT, MEASURE_LIMIT = 900.0, 300.0, 180.0  # seconds of a part


def groups(rig: Rig) -> list[Group]:
    """All of it. A part's findings begin with its name, or are several of its kind."""
    found = []
    if rig.lacks:
        lacking = tuple(
            Part(what, MEASURE_LIMIT, lambda what=what, why=why: [Finding(what, None, why)]) for what, why in rig.lacks
        )
        found.append(Group("what is missing", lacking))
    for devices in rig.devices:
        if devices.programs:
            parts = tuple(
                Part(
                    f"compile walk.cu {d}, {devices.name}",
                    COMPILE_LIMIT,
                    lambda d=d, devices=devices: _compile(devices, d),
                )
                for d in dict.fromkeys(dtype for dtype, _ in devices.programs)
            )
            found.append(Group(f"compile, {devices.name}", parts, beside=True))
    for backend in rig.kernels:
        parts = tuple(
            Part(f"kernels {d}, {backend.name}", TRY_LIMIT, lambda d=d, backend=backend: _kernels(rig, backend, d))
            for d in backend.dtypes
        )
        found.append(Group(f"kernels, {backend.name}", parts, beside=True))
    for devices in rig.devices:
        for way in devices.ways:
            parts = tuple(
                Part(
                    f"all-reduce of {n} ranks, {devices.name}, {way}",
                    TRY_LIMIT,
                    lambda n=n, devices=devices, way=way: _transport(rig, devices, way, n),
                )
                for n in rig.ranks
            )
            found.append(Group(f"all-reduce, {devices.name}, {way}", parts))
    for devices in rig.devices:
        parts = [Part(f"bandwidth, {devices.name}", MEASURE_LIMIT, lambda devices=devices: bandwidth(rig, devices))]
        for way in devices.ways:
            for name, find in ((f"8 bytes, {devices.name}, {way}", latency), (f"ring, {devices.name}, {way}", ring)):
                parts.append(
                    Part(name, MEASURE_LIMIT, lambda find=find, devices=devices, way=way: find(rig, devices, way))
                )
        found.append(Group(f"measure, {devices.name}", tuple(parts)))
    for devices in rig.devices:
        if devices.open_nccl is not None:
            name = f"NCCL, {devices.name}"
            found.append(Group(name, (Part(name, TRY_LIMIT, lambda devices=devices: _nccl(rig, devices)),)))
    return found


def _compile(rig: DeviceRig, dtype: str) -> Iterator[Finding]:
    def trial(op: str):
        def compile_one():
            resident = min(device.resident_blocks(dtype, op) for device in devices)
            return None if resident else f"{dtype} {op}: no block of walk can run with others"

        return compile_one

    devices = rig.open()
    with closing(*devices):
        yield tally(f"compile walk.cu {dtype}, {rig.name}", (trial(op) for d, op in rig.programs if d == dtype))


def _kernels(rig: Rig, backend: KernelRig, dtype: str) -> Iterator[Finding]:
    def trials():
        for case in kernels_selftest.cases([dtype], backend.workers):
            yield lambda case=case: kernels_selftest.run_case(backend.functions, backend.memory, case)
        for count, offset, start in rig.patterns:
            yield lambda c=count, o=offset, s=start: kernels_selftest.run_pattern(
                backend.functions, backend.memory, dtype, c, o, s
            )

    yield tally(f"kernels {dtype}, {backend.name}", trials())


def _transport(rig: Rig, devices: DeviceRig, way: str, ranks: int) -> Iterator[Finding]:
    largest = 8 * max(rig.counts) + 256
    session = None

    def check(job: Job):
        nonlocal session
        if session is None:
            session = DeviceSession(devices.open(), ranks, largest, ranks * largest, way=way, timeout=rig.timeout)
        try:
            return check_job(session, job)
        except Exception:
            session = quietly_closed(session)  # what is left of it may say anything
            raise

    def trials():
        for algorithm in ALGORITHMS:
            for i, (dtype, op) in enumerate(JOBS):
                for j, count in enumerate(rig.counts):
                    job = Job(algorithm, count, dtype, op, in_place=bool((i + j) % 2), slices=1 + j % 2)
                    yield lambda job=job: check(job)

    yield tally(f"all-reduce of {ranks} ranks, {devices.name}, {way}", trials())
    if session is not None:
        session.close()


def check_job(session, job: Job) -> str | None:
    """None if the session does the job right, on data of two kinds and several times in one launch; else what was wrong."""
    session.prepare(job)
    for seed in (1, 2):
        data = pattern(job.dtype, job.op, session.ranks, seed=seed)
        session.fill(data.table, start=seed)
        session.run()
        if not job.in_place:  # else each takes the result of the one before
            session.time(1, REPEATS)
        wrong = session.check(data, start=seed)
        if wrong:
            return f"{job}: {wrong} of {session.ranks * job.count} elements wrong"
    return None


def _nccl(rig: Rig, devices: DeviceRig) -> Iterator[Finding]:
    what = f"NCCL, {devices.name}"
    opened = devices.open()
    largest = max(rig.large_bytes, 8 * max(rig.counts))
    with closing(DeviceSession(opened, len(opened), largest, 256, open_nccl=devices.open_nccl)) as session:
        jobs = [Job("nccl", count, dtype, op) for dtype, op in JOBS for count in rig.counts]
        try:
            session.prepare(jobs[0])
        except Unavailable as error:
            yield Finding(what, None, str(error))
            return
        yield tally(what, (lambda job=job: check_job(session, job) for job in jobs))
        if len(opened) > 1:
            yield rate(session, "nccl", rig.large_bytes, f"{what}, bandwidth")
