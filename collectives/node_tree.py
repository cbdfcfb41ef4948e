"""Node tree: a double binary tree of nodes, and in each node a chain of its ranks that hangs from the one in the tree.

Partial sums come along the chain to its head, go up the tree of the heads, and the result comes down the same way. For 3 nodes of
3 ranks, tree 0 and the chains that end in it::

    0 <- 1 <- 2              heads of tree 0: 0, 3, 6; of tree 1: 1, 4, 7, so that two network cards of a node carry
    |                        one tree each; of further channels the next ones
    6 <- 7 <- 8
    |
    3 <- 4 <- 5

A node sends each half of the message up once and down to two nodes where it is an inner node of that tree, which it is of one of
the two: 2 S at most, where a tree over all ranks may send 3 S out of a host, as its edges pay no heed to nodes. The latency is
2 (lg N + R) hops for N nodes of R ranks. This is NCCL's tree (S. Jeaugey 2019, Massively scale your deep learning training with
NCCL 2.4); the trees and the order of steps are those of tree.py. Nodes may be of any sizes.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from . import tree
from .nodes import Layout, Nodes, layout


@lru_cache(maxsize=16)
def _levels(at: Layout, mirrored: int) -> tuple[list[int], list[int]]:
    """(height, depth) of each node's head."""
    n = at.nodes
    below = [
        [tree.from_tree_0(mirrored, c, n) for c in tree.children(tree.to_tree_0(mirrored, k, n), n)] for k in range(n)
    ]
    root = tree.from_tree_0(mirrored, 0, n)
    depth = [0] * n
    order = [root]
    for k in order:
        for child in below[k]:
            depth[child] = depth[k] + 1
            order.append(child)
    height = [len(ranks) - 1 for ranks in at.members]
    for k in reversed(order):
        height[k] = max([height[k], *(1 + height[child] for child in below[k])])
    return height, depth


def _place(at: Layout, number: int, rank: int) -> tree.Place:
    """A rank's place in tree `number`."""
    node, n = at.node[rank], at.nodes
    members = at.members[node]
    height, depth = _levels(at, number % 2)
    top = max(height)
    along = (at.place[rank] - number) % len(members)  # how far from the head

    def chained(distance: int) -> int:
        return members[(number + distance) % len(members)]

    def head(of: int) -> int:
        return at.members[of][number % len(at.members[of])]

    below = [chained(along + 1)] if along + 1 < len(members) else []
    if along:
        return tree.Place(chained(along - 1), below, len(members) - 1 - along, depth[node] + along, top)
    own = tree.to_tree_0(number % 2, node, n)
    up = tree.parent(own, n)
    below += [head(tree.from_tree_0(number % 2, child, n)) for child in tree.children(own, n)]
    above = None if up is None else head(tree.from_tree_0(number % 2, up, n))
    return tree.Place(above, below, height[node], depth[node], top)


def all_reduce(
    rank: int,
    ranks: int,
    count: int,
    *,
    nodes: Nodes = None,
    channels: int = 1,
    slices: int = 1,
    in_place: bool = False,
) -> np.ndarray:
    """One rank's table; the same table serves in-place and out-of-place. Each channel is a pair of trees, and takes channel
    numbers 2c and 2c + 1."""
    at = layout(nodes, ranks)
    return tree.up_and_down([_place(at, number, rank) for number in range(2 * channels)], count, slices)
