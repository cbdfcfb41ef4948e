"""Recursive doubling: in round j exchange everything with the rank that differs in bit j, and reduce.

After j rounds a rank holds the sum of its 2^j neighbours; after log2 p rounds, of all. For p = 4::

    round 0   0 <-> 1    2 <-> 3        each holds 2 contributions
    round 1   0 <-> 2    1 <-> 3        each holds 4

The fewest rounds possible, ceil(log2 p), each of the whole message: for small messages (Thakur, Rabenseifner and Gropp
2005, on all-reduce). Where p is no power of two, fold.py adds a round before and one after.

What is sent must stay until the partner has read it, and the partner reads while reducing, so a round never reduces into
what it sends: results alternate between OUTPUT and SCRATCH, and a round that comes back to a buffer waits until what was sent
from it two rounds ago has been taken (``after``). Both partners compute the same sum, so all ranks' results are equal bit by bit.
"""

from __future__ import annotations

import numpy as np

from .fold import fold
from .schedule import INPUT, OUTPUT, SCRATCH, StepList


def all_reduce(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table. In place with an odd number of rounds, a copy back from SCRATCH ends it."""
    f = fold(rank, ranks)
    table = StepList()
    if f.place is None:
        table.send(f.partner, INPUT, 0, count)
        table.recv(f.partner, OUTPUT, 0, count)
        return table.table()

    # Where the partial result lies before round j; the last is OUTPUT, unless in place the first must be.
    starts_at_output = in_place or f.rounds % 2 == 0
    places = [OUTPUT if (j % 2 == 0) == starts_at_output else SCRATCH for j in range(f.rounds + 1)]
    if f.partner is not None:
        table.recv_reduce(f.partner, (INPUT, 0), (places[0], 0), count)
    elif not in_place:
        places[0] = INPUT

    sent: list[int] = []
    for j in range(f.rounds):
        peer = f.rank_at(f.place ^ (1 << j))
        here, there = places[j], places[j + 1]
        busy = sent[j - 1] if j and places[j - 1] == there else -1
        sent.append(table.send(peer, here, 0, count))
        table.recv_reduce(peer, (here, 0), (there, 0), count, final=j == f.rounds - 1, after=busy)
    if places[-1] != OUTPUT:
        table.copy((SCRATCH, 0), (OUTPUT, 0), count, after=sent[-1])
    if f.partner is not None:
        table.send(f.partner, OUTPUT, 0, count)
    return table.table()
