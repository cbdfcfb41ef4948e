"""Binomial tree: reduce to the root, or broadcast from it, in ceil(log2 p) rounds; gather and scatter likewise.

In round j of a reduction the ranks whose bit j is set, and whose lower bits are clear, send all they have to the rank
without that bit and are done. A broadcast runs the same tree backwards, and an all-reduce is the one and then the other. For
p = 4 (p = 6 would add 4 and 5)::

    reduce   round 0   0 <- 1     2 <- 3            0
             round 1   0 <------- 2                / \\
    bcast    round 1   0 -------> 2               1   2
             round 0   0 -> 1     2 -> 3               \\
                                                        3

ceil(log2 p) messages one after the other, each of the whole message: few steps for small messages, far too many bytes for
large ones (Thakur, Rabenseifner and Gropp 2005, Optimization of collective communication operations in MPICH).

In a gather a message carries the blocks of the sender's whole subtree, ranks v ... v + 2^j - 1, and each block travels up to
log2 p times; a scatter is the gather backwards. Ranks are counted from the root: v = rank - root (mod p).

A rank's partial sum is overwritten by the result only after its parent has read it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .schedule import INPUT, OUTPUT, SCRATCH, StepList


@dataclass(frozen=True)
class Node:
    """A rank's place in the tree. v: its number from the root; parent, children: ranks, the largest subtree last; sizes: ranks
    in each child's subtree; size: in its own."""

    v: int
    parent: int | None
    children: tuple[int, ...]
    sizes: tuple[int, ...]
    size: int


def node(rank: int, ranks: int, root: int = 0) -> Node:
    v = (rank - root) % ranks
    children, sizes = [], []
    parent, bit = None, 1
    while bit < ranks and parent is None:
        if v & bit:
            parent = (v ^ bit) + root
        elif v | bit < ranks:
            children.append(((v | bit) + root) % ranks)
            sizes.append(min(bit, ranks - (v | bit)))
        bit <<= 1
    return Node(v, None if parent is None else parent % ranks, tuple(children), tuple(sizes), 1 + sum(sizes))


def reduce_phase(table: StepList, tree: Node, count: int, into: int) -> None:
    """Sums of INPUT, collected in the buffer `into`, to the root's."""
    have = INPUT
    for child in tree.children:
        final = tree.parent is None and child == tree.children[-1]
        table.recv_reduce(child, (have, 0), (into, 0), count, final=final)
        have = into
    if tree.parent is not None:
        table.send(tree.parent, have, 0, count)


def broadcast_phase(table: StepList, tree: Node, count: int, source: int = OUTPUT) -> None:
    """The root's `source` to everybody's OUTPUT."""
    if tree.parent is not None:
        table.recv(tree.parent, OUTPUT, 0, count)
    for child in reversed(tree.children):  # the largest subtree first
        table.send(child, source if tree.parent is None else OUTPUT, 0, count)


def all_reduce(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table; the same table serves in-place and out-of-place."""
    table, tree = StepList(), node(rank, ranks)
    reduce_phase(table, tree, count, OUTPUT)
    broadcast_phase(table, tree, count)
    return table.table()


def reduce(rank: int, ranks: int, count: int, *, root: int = 0, in_place: bool = False) -> np.ndarray:
    """One rank's table; a rank that has no output collects in SCRATCH."""
    table = StepList()
    reduce_phase(table, node(rank, ranks, root), count, OUTPUT if rank == root else SCRATCH)
    return table.table()


def broadcast(rank: int, ranks: int, count: int, *, root: int = 0, in_place: bool = False) -> np.ndarray:
    """One rank's table."""
    table = StepList()
    broadcast_phase(table, node(rank, ranks, root), count, INPUT)
    if rank == root and not in_place:
        table.copy((INPUT, 0), (OUTPUT, 0), count)
    return table.table()


def _runs(first: int, blocks: int, ranks: int, root: int) -> list[tuple[int, int, int]]:
    """Blocks v = first ... first + blocks - 1 as (blocks before, rank of the first, blocks) that lie side by side by rank."""
    start = (first + root) % ranks
    before = min(blocks, ranks - start)
    return [(0, start, before), (before, 0, blocks - before)]


def gather(rank: int, ranks: int, count: int, *, root: int = 0, in_place: bool = False) -> np.ndarray:
    """One rank's table; inner ranks collect their subtree's blocks in SCRATCH."""
    table, tree = StepList(), node(rank, ranks, root)
    own = (OUTPUT, rank * count) if in_place else (INPUT, 0)
    at_root = tree.parent is None
    if at_root and not in_place:
        table.copy(own, (OUTPUT, rank * count), count)
    elif not at_root and tree.children:
        table.copy(own, (SCRATCH, 0), count)
    first = 1
    for child, blocks in zip(tree.children, tree.sizes):
        for before, start, n in _runs(tree.v + first, blocks, ranks, root):
            to = (OUTPUT, start * count) if at_root else (SCRATCH, (first + before) * count)
            table.recv(child, *to, n * count)
        first += blocks
    if not at_root:
        buffer, offset = (SCRATCH, 0) if tree.children else own
        for before, _, n in _runs(tree.v, tree.size, ranks, root):
            table.send(tree.parent, buffer, offset + before * count, n * count)
    return table.table()


def scatter(rank: int, ranks: int, count: int, *, root: int = 0, in_place: bool = False) -> np.ndarray:
    """One rank's table; inner ranks keep their subtree's blocks in SCRATCH."""
    table, tree = StepList(), node(rank, ranks, root)
    own = (OUTPUT, rank * count if in_place else 0)
    at_root = tree.parent is None
    if not at_root:
        buffer, offset = (SCRATCH, 0) if tree.children else own
        for before, _, n in _runs(tree.v, tree.size, ranks, root):
            table.recv(tree.parent, buffer, offset + before * count, n * count)
    first = tree.size
    for child, blocks in zip(reversed(tree.children), reversed(tree.sizes)):  # the largest subtree first
        first -= blocks
        for before, start, n in _runs(tree.v + first, blocks, ranks, root):
            buffer, offset = (INPUT, start * count) if at_root else (SCRATCH, (first + before) * count)
            table.send(child, buffer, offset, n * count)
    if at_root and not in_place:
        table.copy((INPUT, rank * count), own, count)
    elif not at_root and tree.children:
        table.copy((SCRATCH, 0), own, count)
    return table.table()


def scatter_phase(table: StepList, tree: Node, edges: list[int], source: int) -> None:
    """The root's `source` cut at `edges` (offsets of the chunks of v = 0, 1, ...), each chunk to its rank's OUTPUT; ranks
    between hold their subtree's too."""
    first = tree.v + tree.size
    if tree.parent is not None:
        table.recv(tree.parent, OUTPUT, edges[tree.v], edges[first] - edges[tree.v])
    for child, blocks in zip(reversed(tree.children), reversed(tree.sizes)):
        buffer = OUTPUT if tree.parent is not None else source
        table.send(child, buffer, edges[first - blocks], edges[first] - edges[first - blocks])
        first -= blocks


def gather_phase(table: StepList, tree: Node, edges: list[int], buffer: int) -> None:
    """Each rank's chunk, in `buffer`, to the root's, at the chunk's offset."""
    first = tree.v + 1
    for child, blocks in zip(tree.children, tree.sizes):
        table.recv(child, buffer, edges[first], edges[first + blocks] - edges[first])
        first += blocks
    if tree.parent is not None:
        table.send(tree.parent, buffer, edges[tree.v], edges[first] - edges[tree.v])
