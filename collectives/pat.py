"""PAT, parallel aggregated trees: log2 p rounds whose farthest messages are the smallest.

Every rank is the root of a binomial tree, the same for all but for its place. In the all-gather the far half comes first: a
round of distance d hands on what has gone a multiple of 2d so far, so that the first round sends one block half the ranks
away, and the last one half of all blocks to the neighbour. For p = 8, what rank r sends in each round, by how far the block
has come already::

    to r + 4    0
    to r + 2    0 4
    to r + 1    0 2 4 6

Bruck's algorithm has the rounds the other way round, and its longest messages go farthest. The reduce-scatter is the
all-gather backwards. Blocks that travel together do not lie together, so small ones are packed in SCRATCH, up to AGGREGATED
elements a message; larger ones go one by one, from where they lie to where they belong (S. Jeaugey 2025, PAT: a new
algorithm for all-gather and reduce-scatter operations at scale; NCCL has it since 2.23).
"""

from __future__ import annotations

import numpy as np

from .schedule import INPUT, OUTPUT, SCRATCH, StepList

AGGREGATED = 1 << 13
"""Elements of the longest message that is packed."""


def _rounds(ranks: int, count: int) -> list[tuple[int, list[list[int]]]]:
    """(distance d, how far the blocks of each message have come) of each round of the all-gather."""
    together = max(1, AGGREGATED // max(count, 1))
    out = []
    for k in reversed(range((ranks - 1).bit_length())):
        d = 1 << k
        gone = list(range(0, ranks - d, 2 * d))
        out.append((d, [gone[i : i + together] for i in range(0, len(gone), together)]))
    return out


def all_gather(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table."""
    table = StepList()
    if not in_place:
        table.copy((INPUT, 0), (OUTPUT, rank * count), count)
    free = 0

    def block(gone):
        return (OUTPUT, (rank - gone) % ranks * count)

    for d, messages in _rounds(ranks, count):
        to, of = (rank + d) % ranks, (rank - d) % ranks
        for gone in messages:
            n = len(gone) * count
            if len(gone) == 1:
                table.send(to, *block(gone[0]), count)
                continue
            for i, g in enumerate(gone):
                table.copy(block(g), (SCRATCH, free + i * count), count)
            table.send(to, SCRATCH, free, n)
            free += n
        for gone in messages:
            n = len(gone) * count
            if len(gone) == 1:
                table.recv(of, *block(gone[0] + d), count)
                continue
            table.recv(of, SCRATCH, free, n)
            for i, g in enumerate(gone):
                table.copy((SCRATCH, free + i * count), block(g + d), count)
            free += n
    return table.table()


def reduce_scatter(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table. A partial sum lies in SCRATCH at its block's offset in the message; what is packed, behind them all."""
    table = StepList()
    free = ranks * count
    own = (OUTPUT, rank * count if in_place else 0)
    lies = [(INPUT, (rank - gone) % ranks * count) for gone in range(ranks)]
    rounds = _rounds(ranks, count)[::-1]
    for d, messages in rounds:
        to, of = (rank - d) % ranks, (rank + d) % ranks
        for gone in messages:
            n = len(gone) * count
            if len(gone) == 1:
                table.send(to, *lies[gone[0] + d], count)
                continue
            for i, g in enumerate(gone):
                table.copy(lies[g + d], (SCRATCH, free + i * count), count)
            table.send(to, SCRATCH, free, n)
            free += n
        for gone in messages:
            n = len(gone) * count
            packed = len(gone) > 1
            if packed:
                table.recv(of, SCRATCH, free, n)
            for i, g in enumerate(gone):
                last = d == rounds[-1][0]
                into = own if last else (SCRATCH, (rank - g) % ranks * count)
                if not packed:
                    table.recv_reduce(of, lies[g], into, count, final=last)
                elif lies[g] == into:
                    table.reduce((SCRATCH, free + i * count), into, count)
                else:
                    table.copy(lies[g], into, count)
                    table.reduce((SCRATCH, free + i * count), into, count)
                lies[g] = into
            free += n * packed
    return table.table()
