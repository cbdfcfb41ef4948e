"""Which rank is on which node: the argument of the algorithms that treat a node's own links and those between nodes differently.

A layout is said as a plain value: the number of ranks a node (rank r is on node r // n; the last node may have fewer), or the
node of each rank, in any order and of any sizes. A *rail* is one rank of every node; where nodes differ in size there are as many
rails as the smallest node has ranks, so that every rail passes through every node. For nodes of 3 and 2 ranks::

    node 0    rank 0    rank 1    rank 2
    node 1    rank 3    rank 4
              rail 0    rail 1
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

Nodes = int | Sequence[int] | None
"""Ranks a node, or the node of each rank; None: all ranks on one node."""


@dataclass(frozen=True, eq=False)
class Layout:
    """members: the ranks of each node, ascending; node, place: of each rank, its node (numbered by its first rank) and its number
    there."""

    members: tuple[tuple[int, ...], ...]
    node: tuple[int, ...]
    place: tuple[int, ...]

    @property
    def nodes(self) -> int:
        return len(self.members)

    @property
    def rails(self) -> int:
        return min(map(len, self.members))

    def rail(self, number: int) -> list[int]:
        """The ranks of a rail, node by node."""
        return [ranks[number] for ranks in self.members]


def layout(nodes: Nodes | Layout, ranks: int) -> Layout:
    """One object for all who say the same. Raises ValueError for ranks a node below 1, or not the node of each of `ranks`."""
    if isinstance(nodes, Layout):
        return nodes
    if nodes is None or isinstance(nodes, int):
        if nodes is not None and nodes < 1:
            raise ValueError(f"nodes is {nodes}: accepted are 1 or more ranks a node, or the node of each rank")
        return _layout(tuple(r // (nodes or ranks) for r in range(ranks)))
    if len(nodes) != ranks:
        raise ValueError(f"nodes says where {len(nodes)} ranks are; accepted: the node of each of the {ranks} ranks")
    return _layout(tuple(nodes))


@lru_cache(maxsize=8)
def _layout(node_of: tuple[int, ...]) -> Layout:
    members: dict[int, list[int]] = {}
    for rank, node in enumerate(node_of):
        members.setdefault(node, []).append(rank)
    number = {node: i for i, node in enumerate(members)}
    place = [0] * len(node_of)
    for found in members.values():
        for i, rank in enumerate(found):
            place[rank] = i
    return Layout(tuple(map(tuple, members.values())), tuple(number[n] for n in node_of), tuple(place))
