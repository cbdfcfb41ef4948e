"""Broadcast as a scatter and an all-gather, and reduce as a reduce-scatter and a gather: for long messages.

The root cuts the message into p chunks; a binomial tree brings each to its rank, and a ring brings all of them to everybody::

    scatter      0 -> 2: chunks 2 3     0 -> 1: chunk 1     2 -> 3: chunk 3
    all-gather   the ring's three steps

About 2 (p-1)/p of the message in and out of each rank, where a tree's root sends the whole log2 p times (van de Geijn's
broadcast; for the reduction, Rabenseifner's: Thakur, Rabenseifner and Gropp 2005, Optimization of collective communication
operations in MPICH).
"""

from __future__ import annotations

import numpy as np

from . import binomial
from .ring import Ring, all_gather_rows, chunks, in_order, in_output, reduce_scatter_rows, ring
from .schedule import INPUT, OUTPUT, SCRATCH, StepList


def _one_ring(rank: int, ranks: int, count: int, slices: int, root: int) -> tuple[Ring, list[int]]:
    """The ring over chunks counted from the root, and where these begin."""
    starts, counts = chunks(0, count, ranks)
    return ring(rank, ranks, 0, starts, counts, slices, root), [*starts.tolist(), count]


def broadcast(
    rank: int, ranks: int, count: int, *, root: int = 0, slices: int = 1, in_place: bool = False
) -> np.ndarray:
    """One rank's table."""
    one, edges = _one_ring(rank, ranks, count, slices, root)
    table = StepList()
    if rank == root and not in_place:
        table.copy((INPUT, 0), (OUTPUT, 0), count)
    binomial.scatter_phase(table, binomial.node(rank, ranks, root), edges, OUTPUT)
    return np.concatenate([table.table(), in_order([all_gather_rows(one)])])


def reduce(rank: int, ranks: int, count: int, *, root: int = 0, slices: int = 1, in_place: bool = False) -> np.ndarray:
    """One rank's table; a rank that has no output adds in SCRATCH."""
    one, edges = _one_ring(rank, ranks, count, slices, root)
    into = OUTPUT if rank == root else SCRATCH
    table = StepList()
    binomial.gather_phase(table, binomial.node(rank, ranks, root), edges, into)
    sums = in_output if rank == root else (lambda number, at: (SCRATCH, at))
    return np.concatenate([in_order([reduce_scatter_rows(one, sums)]), table.table()])
