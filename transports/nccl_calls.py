"""What one rank asks of NCCL for each collective, through CuPy's communicators; as nccl-tests calls it.

Collectives that NCCL has no call for are groups of sends and receives, a rank's own block among them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .interface import Job, Unavailable


@dataclass(frozen=True)
class Call:
    """communicator: CuPy's; send, receive: addresses of the rank's input and output; block: bytes; dtype, op: NCCL's numbers."""

    communicator: Any
    rank: int
    ranks: int
    root: int
    send: int
    receive: int
    count: int
    block: int
    dtype: int
    op: int
    stream: int

    def to(self, peer: int, block: int = 0) -> None:
        self.communicator.send(self.send + block * self.block, self.count, self.dtype, peer, self.stream)

    def of(self, peer: int, block: int = 0) -> None:
        self.communicator.recv(self.receive + block * self.block, self.count, self.dtype, peer, self.stream)


def _alltoall(c: Call) -> None:
    for peer in range(c.ranks):
        c.to(peer, peer)
        c.of(peer, peer)


def _gather(c: Call) -> None:
    c.to(c.root)
    for peer in range(c.ranks) if c.rank == c.root else ():
        c.of(peer, peer)


def _scatter(c: Call) -> None:
    for peer in range(c.ranks) if c.rank == c.root else ():
        c.to(peer, peer)
    c.of(c.root)


def _sendrecv(c: Call) -> None:
    c.to((c.rank + 1) % c.ranks)
    c.of((c.rank - 1) % c.ranks)


CALLS: dict[str, Callable[[Call], None]] = {
    "all_reduce": lambda c: c.communicator.allReduce(c.send, c.receive, c.count, c.dtype, c.op, c.stream),
    "reduce_scatter": lambda c: c.communicator.reduceScatter(c.send, c.receive, c.count, c.dtype, c.op, c.stream),
    "all_gather": lambda c: c.communicator.allGather(c.send, c.receive, c.count, c.dtype, c.stream),
    "broadcast": lambda c: c.communicator.broadcast(c.send, c.receive, c.count, c.dtype, c.root, c.stream),
    "reduce": lambda c: c.communicator.reduce(c.send, c.receive, c.count, c.dtype, c.op, c.root, c.stream),
    "alltoall": _alltoall,
    "gather": _gather,
    "scatter": _scatter,
    "sendrecv": _sendrecv,
}
GROUPED = ("alltoall", "gather", "scatter", "sendrecv")
"""Those of several calls a rank."""


def check(job: Job) -> None:
    """Raises Unavailable for what NCCL has not."""
    if job.collective not in CALLS:
        raise Unavailable(f"--algo nccl: NCCL has no {job.collective}; accepted: {', '.join(CALLS)}")


def call_of(
    job: Job, communicator, rank: int, ranks: int, input_: int, output: int, itemsize: int, codes, stream: int
) -> Call:
    """input_, output: addresses of the rank's buffers, of which only `output` counts in place."""
    given, taken = (at * itemsize for at in job.of.offsets(rank, ranks, job.count))
    send, receive = (output + given, output + taken) if job.in_place else (input_, output)
    return Call(communicator, rank, ranks, job.root, send, receive, job.count, job.count * itemsize, *codes, stream)
