"""Recursive halving and doubling (Rabenseifner): reduce-scatter by halves, then all-gather by doubling.

In round j of the reduce-scatter a rank and the one that differs in bit j split the range they share: each sends the half it
gives up and reduces the half it keeps. After log2 p rounds every rank holds one chunk complete; the all-gather runs the rounds
backwards. For p = 4, the chunks a rank keeps after each round::

                       rank 0    rank 1    rank 2    rank 3
    round 0 (0-1,2-3)   0 1       2 3       0 1       2 3
    round 1 (0-2,1-3)   0         2         1         3        complete
    round 1             0 1       2 3       0 1       2 3
    round 0             0 1 2 3   0 1 2 3   0 1 2 3   0 1 2 3

The halves are largest between neighbours, so ranks numbered host by host exchange the most inside a host. As few bytes as a
ring, 2(p-1)/p of the message a rank, in 2 log2 p steps; but later partners are far apart and share a network's links (Thakur,
Rabenseifner and Gropp 2005, on all-reduce). Where p is no power of two, fold.py adds a round before and one after.

A half that a rank gave up comes back from the very partner that read it.
"""

from __future__ import annotations

import numpy as np

from .fold import fold
from .schedule import INPUT, OUTPUT, StepList, split
from .single import single_rank


def steps(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table; the same table serves in-place and out-of-place."""
    if ranks == 1:
        return single_rank(count, in_place)
    f = fold(rank, ranks)
    table = StepList()
    if f.place is None:
        table.send(f.partner, INPUT, 0, count)
        table.recv(f.partner, OUTPUT, 0, count)
        return table.table()
    have = INPUT
    if f.partner is not None:
        table.recv_reduce(f.partner, (INPUT, 0), (OUTPUT, 0), count)
        have = OUTPUT

    starts = [start for start, _ in split(count, f.size)] + [count]
    low, high = 0, f.size
    rounds = []
    for bit in (1 << j for j in range(f.rounds)):
        middle = (low + high) // 2
        keep, give = ((middle, high), (low, middle)) if f.place & bit else ((low, middle), (middle, high))
        rounds.append((f.rank_at(f.place ^ bit), keep, give))
        low, high = keep

    def span(chunks):
        return starts[chunks[0]], starts[chunks[1]] - starts[chunks[0]]

    for j, (peer, keep, give) in enumerate(rounds):
        table.send(peer, have, *span(give))
        start, length = span(keep)
        table.recv_reduce(peer, (have, start), (OUTPUT, start), length, final=j == len(rounds) - 1)
        have = OUTPUT
    for peer, keep, give in reversed(rounds):
        table.send(peer, OUTPUT, *span(keep))
        table.recv(peer, OUTPUT, *span(give))
    if f.partner is not None:
        table.send(f.partner, OUTPUT, 0, count)
    return table.table()
