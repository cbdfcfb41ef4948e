"""CUDA IPC: the ranks of one host, a process and a GPU each, reach into one another's memory, over NVLink where there is any.

Every rank allocates one block, with its buffers and the words of the messages to it, and opens those of all others; then
device.DeviceSession walks the schedule as over the GPUs of one process, with flags in device memory at the scope of the system.
The host only says when to begin. Memory is given back after all have let go of it.
"""

from __future__ import annotations

import numpy as np

from .device import BLOCK_UNIT, Device
from .gpu_crew import JobCrew
from .session import Unavailable

TOKEN = 0x6275736277  # a word that memory does not hold by chance


def obstacle(crew: JobCrew, device: Device) -> str | None:
    """None where all ranks reach one another's memory, which is tried; else why not, the same on all ranks."""
    from mpi4py import MPI

    if crew.comm.Split_type(MPI.COMM_TYPE_SHARED).size != crew.ranks:
        return "the ranks are on several hosts"
    buses = crew.comm.allgather(device.describe().get("pci_bus_id"))
    if len(set(buses)) != crew.ranks:
        return f"{crew.ranks} ranks share {len(set(buses))} GPUs"
    problem, block, handle = None, 0, b""
    try:
        block = device.allocate(BLOCK_UNIT)
        device.upload(block, np.array([TOKEN + crew.comm.rank], np.int64))
        handle = device.share(block)
    except Exception as error:  # whatever a driver says to it
        problem = _words(crew, error)
    handles = crew.comm.allgather(handle)
    if all(handles):
        problem = problem or _tried(crew, device, handles)
    problems = [p for p in crew.comm.allgather(problem) if p]  # and all have looked
    if block:
        device.release(block)
    return problems[0] if problems else None


def _tried(crew: JobCrew, device: Device, handles: list[bytes]) -> str | None:
    for rank, handle in enumerate(handles):
        if rank == crew.comm.rank:
            continue
        try:
            at = device.reach(handle)
            (found,) = device.download(at, np.dtype(np.int64), 1)
            device.let_go(at)
        except Exception as error:  # no peer access, or a container's wall
            return _words(crew, error)
        if found != TOKEN + rank:
            return f"rank {crew.comm.rank} finds other bytes in rank {rank}'s memory than are there"
    return None


def _words(crew: JobCrew, error: Exception) -> str:
    return f"rank {crew.comm.rank}: {' '.join(str(error).split())[:200]}"


def crew_of(comm, device: Device) -> JobCrew:
    """A crew whose ranks reach one another's memory. Raises Unavailable where they cannot."""
    crew = JobCrew(comm, "gpu-ipc")
    if reason := obstacle(crew, device):
        raise Unavailable(f"no CUDA IPC between the ranks: {reason}")
    crew.introduce(device.describe())
    return crew
