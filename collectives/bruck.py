"""Bruck's algorithms: ceil(log2 p) rounds for any p, between ranks 1, 2, 4, ... apart.

**all-gather**. After each round a rank holds twice as many blocks, those from its own on; what it holds it sends to the rank
that lies as many before it. For p = 5, the blocks that each rank holds::

                    rank 0      rank 1      rank 2      rank 3      rank 4
    at first        0           1           2           3           4
    round 0 (1)     0 1         1 2         2 3         3 4         4 0
    round 1 (2)     0 1 2 3     1 2 3 4     2 3 4 0     3 4 0 1     4 0 1 2
    round 2 (4)     all, one block from the rank 4 further on

Blocks are received where they belong in OUTPUT, so a round is one message, or two where its blocks go past block p-1. The
**reduce-scatter** is the same backwards: where a block was received its partial sum is sent.

**alltoall**. Block j at rank r, for rank r + j, travels the distances of the bits of j: in round k every block whose bit k is set
goes 2^k ranks on, all in one message, collected in SCRATCH: p log2(p) / 2 blocks in log2 p messages a rank, where a direct exchange
sends p - 1 blocks in p - 1 messages (Bruck, Ho, Kipnis, Upfal and Weathersby 1997, Efficient algorithms for all-to-all
communications in multiport message-passing systems). Each round has SCRATCH of its own.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .schedule import INPUT, OUTPUT, SCRATCH, StepList


def _rounds(ranks: int) -> list[tuple[int, int]]:
    """(distance m, blocks exchanged) of each round of the all-gather: min(m, p - m) of them."""
    return [(1 << k, min(1 << k, ranks - (1 << k))) for k in range((ranks - 1).bit_length())]


def _runs(first: int, last: int, ranks: int, cuts: tuple[int, ...]) -> list[tuple[int, int]]:
    """Blocks first ... last-1 (mod p) as runs (block, how many) cut at block p and at `cuts`."""
    edges = sorted({first, last, *(c for c in (ranks, 2 * ranks, *cuts) if first < c < last)})
    return [(a % ranks, b - a) for a, b in pairwise(edges)]


def all_gather(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table."""
    table = StepList()
    if not in_place:
        table.copy((INPUT, 0), (OUTPUT, rank * count), count)
    for m, blocks in _rounds(ranks):
        to, of = (rank - m) % ranks, (rank + m) % ranks
        for block, n in _runs(rank, rank + blocks, ranks, ()):
            table.send(to, OUTPUT, block * count, n * count)
        for block, n in _runs(of, of + blocks, ranks, ()):
            table.recv(of, OUTPUT, block * count, n * count)
    return table.table()


def reduce_scatter(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table; partial sums lie in SCRATCH, each at its block's offset in the message."""
    table = StepList()
    summed = 0  # blocks from the rank's own on that hold more than its own contribution
    for m, blocks in reversed(_rounds(ranks)):
        to, of = (rank + m) % ranks, (rank - m) % ranks
        # The receiver's own blocks from `to` on are summed as far as ours are, so both ends cut there.
        for block, n in _runs(to, to + blocks, ranks, (to + summed, to + summed - m)):
            have = SCRATCH if (block - rank) % ranks < summed else INPUT
            table.send(to, have, block * count, n * count)
        for block, n in _runs(rank, rank + blocks, ranks, (rank + summed, rank + summed - m)):
            have = SCRATCH if (block - rank) % ranks < summed else INPUT
            into = (SCRATCH, block * count) if m > 1 else (OUTPUT, block * count if in_place else 0)
            table.recv_reduce(of, (have, block * count), into, n * count, final=m == 1)
        summed = max(summed, blocks)
    return table.table()


def alltoall(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table; SCRATCH holds what is sent and what is received in each round."""
    table = StepList()
    lies = [(INPUT, (rank + j) % ranks * count) for j in range(ranks)]  # what goes j ranks on, or has come so far
    free = 0
    for k in range((ranks - 1).bit_length()):
        moved = [j for j in range(ranks) if j >> k & 1]
        for i, j in enumerate(moved):
            table.copy(lies[j], (SCRATCH, free + i * count), count)
        n = len(moved) * count
        table.send((rank + (1 << k)) % ranks, SCRATCH, free, n)
        table.recv((rank - (1 << k)) % ranks, SCRATCH, free + n, n)
        for i, j in enumerate(moved):
            lies[j] = (SCRATCH, free + n + i * count)
        free += 2 * n
    for j in range(ranks):
        table.copy(lies[j], (OUTPUT, (rank - j) % ranks * count), count)
    return table.table()
