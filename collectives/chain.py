"""Pipelined chain: broadcast along the ranks, or reduce against them, slice by slice.

Each rank hears from one and speaks to one; while slice k goes to rank v+1, slice k+1 comes from rank v-1. For p = 4, root 0, the
slice that each rank passes on at each tick::

                tick 0   1   2   3   4
    rank 0           0   1   2              0 -> 1 -> 2 -> 3     broadcast
    rank 1               0   1   2          0 <- 1 <- 2 <- 3     reduce
    rank 2                   0   1   2

With k slices it takes k + p - 2 of them, so nearly the time of one message for large ones; the latency grows with p. This is NCCL's
ring for broadcast and reduce.
"""

from __future__ import annotations

import numpy as np

from .schedule import INPUT, OUTPUT, SCRATCH, StepList, split


def broadcast(
    rank: int, ranks: int, count: int, *, root: int = 0, slices: int = 1, in_place: bool = False
) -> np.ndarray:
    """One rank's table."""
    table = StepList()
    v = (rank - root) % ranks
    for piece in split(count, slices):
        if v > 0:
            table.recv((rank - 1) % ranks, OUTPUT, *piece)
        if v < ranks - 1:
            table.send((rank + 1) % ranks, OUTPUT if v else INPUT, *piece)
    if v == 0 and not in_place:
        table.copy((INPUT, 0), (OUTPUT, 0), count)
    return table.table()


def reduce(rank: int, ranks: int, count: int, *, root: int = 0, slices: int = 1, in_place: bool = False) -> np.ndarray:
    """One rank's table; a rank that has no output adds in SCRATCH."""
    table = StepList()
    v = (rank - root) % ranks
    into = SCRATCH if v else OUTPUT
    for start, length in split(count, slices):
        if v < ranks - 1:
            table.recv_reduce((rank + 1) % ranks, (INPUT, start), (into, start), length, final=v == 0)
        if v > 0:
            table.send((rank - 1) % ranks, into if v < ranks - 1 else INPUT, start, length)
    return table.table()
