r"""Double binary tree: two trees, each reducing and broadcasting one half of the message, in a pipeline of slices.

In one binary tree the leaves, half of all ranks, only ever send: their reduction bandwidth lies idle. So a second tree is
built in which they are inner nodes and the inner nodes leaves. Tree 0 for p = 8, built on the lowest set bit of a rank, and
tree 1, its mirror image (rank -> p-1-rank); for odd p tree 1 is tree 0 shifted by one rank::

    tree 0      0                        tree 1      7
                 \                                 /
                  4                               3
                /   \                           /   \
               2     6                         5     1
              / \   / \                       / \   / \
             1   3 5   7                     6   4 2   0

Each rank sends and receives the whole message once up and once down at most, at a latency of about 2 log2 p hops: close to a ring's
bandwidth for large messages, close to the best latency for small ones (Sanders, Speck and Traeff 2009, Two-tree algorithms for full
bandwidth broadcast, reduction and scan; the construction is NCCL's).

A slice goes up while the one before comes down. The table's order is that of a clock in which a slice takes one tick a level:
slice k is reduced at a node of height h at tick k + h, and comes down at depth d at tick k + H + d, where H is the tree's height.
Every message goes from a smaller tick to a larger one, so one thread may walk the table in order.

A broadcast or reduce of its own leaves the root out of the trees, and joins it to both: the other p-1 ranks make the trees, so that
the root sends (receives) each half once (Sanders, Speck and Traeff, section 2).

A node's partial sum is overwritten by the result only after its parent has read it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .schedule import INPUT, OUTPUT, SCRATCH, StepList, split


def parent(rank: int, ranks: int) -> int | None:
    """A rank's parent in tree 0; None for rank 0, the root."""
    if rank == 0:
        return None
    bit = rank & -rank
    up = (rank ^ bit) | (bit << 1)
    return up if up < ranks else rank ^ bit


def children(rank: int, ranks: int) -> list[int]:
    """A rank's children in tree 0, none to two."""
    if rank == 0:
        # The root has one child, the rank that is the largest power of two.
        return [1 << ((ranks - 1).bit_length() - 1)] if ranks > 1 else []
    reach = (rank & -rank) >> 1
    if reach == 0:
        return []
    found = [rank - reach]
    while reach and rank + reach >= ranks:  # move the right child in until it exists
        reach >>= 1
    return [*found, rank + reach] if reach else found


def to_tree_0(tree: int, rank: int, ranks: int) -> int:
    if tree == 0:
        return rank
    return ranks - 1 - rank if ranks % 2 == 0 else (rank - 1) % ranks


def from_tree_0(tree: int, node: int, ranks: int) -> int:
    if tree == 0:
        return node
    return ranks - 1 - node if ranks % 2 == 0 else (node + 1) % ranks


@lru_cache(maxsize=4096)
def _levels(node: int, ranks: int) -> tuple[int, int, int]:
    """(height of the subtree below a node of tree 0, depth of the node, height of the tree)."""
    depth, up = 0, parent(node, ranks)
    while up is not None:
        depth, up = depth + 1, parent(up, ranks)
    return _height(node, ranks), depth, _height(0, ranks)


@lru_cache(maxsize=1 << 16)
def _height(node: int, ranks: int) -> int:
    return max((1 + _height(child, ranks) for child in children(node, ranks)), default=0)


class Place(NamedTuple):
    """A rank's place in one tree. above: its parent, None at the root; below: its children, all as ranks; height: of the subtree
    below it; depth: below the root; top: the tree's height."""

    above: int | None
    below: list[int]
    height: int
    depth: int
    top: int


def _place(tree: int, rank: int, ranks: int) -> Place:
    node = to_tree_0(tree, rank, ranks)
    up = parent(node, ranks)
    below = [from_tree_0(tree, child, ranks) for child in children(node, ranks)]
    return Place(None if up is None else from_tree_0(tree, up, ranks), below, *_levels(node, ranks))


def all_reduce(
    rank: int, ranks: int, count: int, *, channels: int = 1, slices: int = 1, in_place: bool = False
) -> np.ndarray:
    """One rank's table; the same table serves in-place and out-of-place. Each channel is a pair of trees, and takes channel
    numbers 2c and 2c + 1."""
    return up_and_down([_place(channel % 2, rank, ranks) for channel in range(2 * channels)], count, slices)


def up_and_down(places: list[Place], count: int, slices: int) -> np.ndarray:
    """The table of a rank that has those places in as many trees, each of its own channel and part of the message."""
    work = []  # (tick, 0 up or 1 down, channel, slice, start, length)
    for channel, (start, length) in enumerate(split(count, len(places))):
        _, _, height, depth, top = places[channel]
        for k, piece in enumerate(split(length, slices, start)):
            work.append((k + height, 0, channel, k, *piece))
            work.append((k + top + depth, 1, channel, k, *piece))

    table = StepList()
    for _, coming_down, channel, _, start, length in sorted(work):
        above, below, *_ = places[channel]
        if coming_down:
            if above is not None:
                table.recv(above, OUTPUT, start, length, channel=channel)
            for child in below:
                table.send(child, OUTPUT, start, length, channel=channel)
            continue
        have = INPUT
        for child in below:
            final = above is None and child == below[-1]
            table.recv_reduce(child, (have, start), (OUTPUT, start), length, final=final, channel=channel)
            have = OUTPUT
        if above is not None:
            table.send(above, have, start, length, channel=channel)
    return table.table()


def _rooted(rank: int, ranks: int, count: int, root: int, slices: int):
    """The rank's part in two trees over the ranks without `root`, which stands above both: for each tree (channel, parent, children
    as ranks, height, depth, slices as (start, elements)). The parent of a tree's root is `root`, at depth 0."""
    n = ranks - 1

    def to_rank(tree: int, node: int) -> int:
        return (from_tree_0(tree, node, n) + root + 1) % ranks

    for tree, (start, length) in enumerate(split(count, 2)):
        pieces = split(length, slices, start)
        if rank == root:
            yield tree, None, [to_rank(tree, 0)], 1 + _height(0, n), 0, pieces
            continue
        node = to_tree_0(tree, (rank - root - 1) % ranks, n)
        up = parent(node, n)
        height, depth, _ = _levels(node, n)
        below = [to_rank(tree, child) for child in children(node, n)]
        yield tree, root if up is None else to_rank(tree, up), below, height, depth + 1, pieces


def broadcast(
    rank: int, ranks: int, count: int, *, root: int = 0, slices: int = 1, in_place: bool = False
) -> np.ndarray:
    """One rank's table: slice k passes depth d at tick k + d."""
    table, work = StepList(), []
    for tree, above, below, _, depth, pieces in _rooted(rank, ranks, count, root, slices):
        work += [(k + depth, tree, above, below, piece) for k, piece in enumerate(pieces)]
    for _, tree, above, below, piece in sorted(work, key=lambda w: w[:2]):
        if above is not None:
            table.recv(above, OUTPUT, *piece, channel=tree)
        for child in below:
            table.send(child, INPUT if rank == root else OUTPUT, *piece, channel=tree)
    if rank == root and not in_place:
        table.copy((INPUT, 0), (OUTPUT, 0), count)
    return table.table()


def reduce(rank: int, ranks: int, count: int, *, root: int = 0, slices: int = 1, in_place: bool = False) -> np.ndarray:
    """One rank's table: slice k is reduced at height h at tick k + h; a rank that has no output collects in SCRATCH."""
    table, work = StepList(), []
    for tree, above, below, height, _, pieces in _rooted(rank, ranks, count, root, slices):
        work += [(k + height, tree, above, below, piece) for k, piece in enumerate(pieces)]
    into = OUTPUT if rank == root else SCRATCH
    for _, tree, above, below, (start, length) in sorted(work, key=lambda w: w[:2]):
        have = INPUT
        for child in below:
            table.recv_reduce(child, (have, start), (into, start), length, final=rank == root, channel=tree)
            have = into
        if above is not None:
            table.send(above, have, start, length, channel=tree)
    return table.table()
