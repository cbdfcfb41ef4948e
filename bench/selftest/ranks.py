"""The self-test of MPI ranks, one GPU each. All ranks go through it together, in their own processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...collectives import ALGORITHMS
from ...errors import UserError
from ...transports.session import Job, Unavailable
from ..gpu import missing
from .closing import closing
from .figures import rate
from .findings import Finding, Group, Part, tally
from .rig import JOBS
from .trials import TRY_LIMIT, check_job

DESCRIBE_LIMIT = 60.0
COUNTS = (1, 1000, 100_003)


def job_findings(session, name: str, counts: Sequence[int], large_bytes: int) -> Iterator[Finding]:
    """MPI ranks: the same findings on every rank. Closes the session."""
    jobs = [
        Job(algorithm, count, dtype, op, in_place=bool(j % 2), slices=1 + j % 2)
        for algorithm in ALGORITHMS
        for dtype, op in JOBS
        for j, count in enumerate(counts)
    ]
    with closing(session):
        yield tally(f"all-reduce, {name}", (lambda job=job: check_job(session, job) for job in jobs))
        yield rate(session, "ring", large_bytes, f"ring, {name}")


def rank_groups(large_bytes: int) -> list[Group]:
    """What this MPI job can try. CUDA-aware MPI is last: a library that says it can and cannot ends the process.

    Raises UserError without CuPy.
    """
    if reason := missing("cupy"):
        raise UserError(f"under mpirun GPUs are driven through CuPy: {reason}")
    from ...transports import gpu_ipc, mpi, nccl
    from ...transports.cupy_device import open_device_of
    from ...transports.cupy_streams import open_gpu
    from ...transports.device import DeviceSession
    from ...transports.device_mpi import DeviceMpiSession, mpi_takes_device_addresses

    MPI = mpi.load()
    world = MPI.COMM_WORLD
    aware, how = mpi_takes_device_addresses(MPI)
    aware = bool(world.allreduce(int(aware), MPI.MIN))
    here = world.Split_type(MPI.COMM_TYPE_SHARED).rank

    def session(is_aware: bool):
        gpu = open_gpu(here)
        return DeviceMpiSession(
            world,
            gpu,
            large_bytes,
            large_bytes,
            aware=is_aware,
            timeout=10.0,
            open_nccl=lambda: nccl.of_a_job(world, gpu.device.describe().get("pci_bus_id")),
        )

    def describe():
        gpu = open_gpu(here)
        with closing(gpu):
            yield Finding("GPUs", True, f"{world.size} ranks", {"devices": world.allgather(gpu.device.describe())})

    def staged():
        yield from job_findings(session(False), "MPI ranks, staged through the host", COUNTS, large_bytes)

    def reference():
        with closing(session(False)) as s:
            try:
                s.prepare(Job("nccl", 1, "float32", "sum"))
            except Unavailable as error:
                yield Finding("NCCL, MPI ranks", None, str(error))
                return
            jobs = [Job("nccl", count, dtype, op) for dtype, op in JOBS for count in COUNTS]
            yield tally("NCCL, MPI ranks", (lambda job=job: check_job(s, job) for job in jobs))

    def ipc():
        device = open_device_of(here)
        try:
            crew = gpu_ipc.crew_of(world, device)
        except Unavailable as error:
            device.close()
            yield Finding("MPI ranks, CUDA IPC", None, str(error))
            return
        s = DeviceSession(
            [device],
            world.size,
            large_bytes,
            max(large_bytes, 8 * max(COUNTS) * world.size),
            way="walk",
            timeout=3.0,
            crew=crew,
        )
        yield from job_findings(s, "MPI ranks, CUDA IPC", COUNTS, large_bytes)

    def direct():
        if not aware:
            yield Finding("MPI ranks, device addresses", None, how)
            return
        yield from job_findings(session(True), "MPI ranks, device addresses", COUNTS, large_bytes)

    parts = (
        Part("GPUs", DESCRIBE_LIMIT, describe),
        Part("MPI ranks, staged through the host", TRY_LIMIT, staged),
        Part("NCCL, MPI ranks", TRY_LIMIT, reference),
        Part("MPI ranks, CUDA IPC", TRY_LIMIT, ipc),
        Part("MPI ranks, device addresses", TRY_LIMIT, direct),
    )
    return [Group("MPI ranks", parts)]
