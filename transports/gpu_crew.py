"""The processes of an MPI job that have a GPU each, as a session asks for them."""

from __future__ import annotations

import json
import os

import numpy as np

from . import watchdog
from .session import Stalled


class JobCrew:
    """Called by all ranks together. comm: an mpi4py intracommunicator; transport: how their messages move."""

    kind = "MPI ranks"
    pinned = False

    def __init__(self, comm, transport: str):
        self.comm, self.transport = comm, transport
        self.ranks, self.is_root = comm.size, comm.rank == 0
        self.mine = (comm.rank,)
        self.ranks_here = 1
        self.activity = "start-up"
        self.posts: list = []
        self.hosts = comm.allgather(os.uname().nodename)
        self.devices: list[str] = []  # the names of all GPUs
        self.gpus: list[dict] = []  # each rank's, as Device.describe tells it
        self.library: str | None = None
        self._reached: list = []  # (device, address) of other processes' memory

    def blocks(self, here: dict) -> list[int]:
        """The address in this process of every rank's block of memory, over CUDA IPC; here: {rank: (its device, its block)} of
        the one rank of this process. Kept until `leave`."""
        ((_, (device, block)),) = here.items()
        found = []
        for rank, handle in enumerate(self.comm.allgather(device.share(block))):
            if rank != self.comm.rank:
                found.append(device.reach(handle))
                self._reached.append((device, found[-1]))
            else:
                found.append(block)  # CUDA opens no handle in the process that made it
        self.barrier()
        return found

    def introduce(self, gpu: dict) -> None:
        """Let all ranks know every rank's GPU. gpu: this one's, as Device.describe tells it."""
        self.gpus = self.comm.allgather(gpu)
        apart = {
            (host, g.get("pci_bus_id", rank)): g["name"] for rank, (host, g) in enumerate(zip(self.hosts, self.gpus))
        }
        self.devices = list(apart.values())

    def barrier(self) -> None:
        self.comm.Barrier()

    def all_of(self, value: bool) -> bool:
        """Whether all ranks say so."""
        from mpi4py import MPI

        return bool(self.comm.allreduce(int(value), MPI.MIN))

    def total(self, values):
        """The sum over the ranks, of a number or an array."""
        return self.comm.allreduce(values)

    def combine(self, values: np.ndarray, how: str) -> np.ndarray:
        from mpi4py import MPI

        if how == "first":
            return self.comm.bcast(values)
        out = np.empty_like(values)
        op = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN, "mean": MPI.SUM}[how]
        self.comm.Allreduce(np.ascontiguousarray(values), out, op)
        return out / self.ranks if how == "mean" else out

    def agree(self, value):
        return json.loads(self.comm.bcast(json.dumps(value) if self.is_root else None))

    def leave(self, error: BaseException | None) -> None:
        """Let go of what others share, all of us before anybody gives memory back. error: a rank that cannot go on ends the job,
        as the others wait for it."""
        if error is not None:
            code = watchdog.EXIT_STALLED if isinstance(error, Stalled) else 1
            watchdog.of_this_process().end(f"busbw: {error} during {self.activity}", code)
        self.barrier()
        for device, address in self._reached:
            device.let_go(address)
        self._reached.clear()
        self.barrier()
