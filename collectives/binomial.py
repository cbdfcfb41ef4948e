"""Binomial tree: reduce to rank 0, then broadcast from it, each in ceil(log2 p) rounds.

In round j of the reduction the ranks whose bit j is set, and whose lower bits are clear, send all they have to the rank
without that bit and are done. The broadcast runs the same tree backwards. For p = 4 (p = 6 would add 4 and 5)::

    reduce   round 0   0 <- 1     2 <- 3            0
             round 1   0 <------- 2                / \\
    bcast    round 1   0 -------> 2               1   2
             round 0   0 -> 1     2 -> 3               \\
                                                        3

2 ceil(log2 p) messages one after the other, each of the whole message: few steps for small messages, far too many bytes for
large ones (Thakur, Rabenseifner and Gropp 2005, Optimization of collective communication operations in MPICH).

A rank's partial sum is overwritten by the result only after its parent has read it.
"""

from __future__ import annotations

import numpy as np

from .schedule import INPUT, OUTPUT, StepList
from .single import single_rank


def steps(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table; the same table serves in-place and out-of-place."""
    if ranks == 1:
        return single_rank(count, in_place)
    table = StepList()
    children = []
    parent, bit = None, 1
    while bit < ranks and parent is None:
        if rank & bit:
            parent = rank ^ bit
        elif rank | bit < ranks:
            children.append(rank | bit)
        bit <<= 1

    have = INPUT
    for child in children:
        final = rank == 0 and child == children[-1]
        table.recv_reduce(child, (have, 0), (OUTPUT, 0), count, final=final)
        have = OUTPUT
    if parent is not None:
        table.send(parent, have, 0, count)
        table.recv(parent, OUTPUT, 0, count)
    for child in reversed(children):  # the largest subtree first
        table.send(child, OUTPUT, 0, count)
    return table.table()
