"""Hierarchical: inside the node first, then one message's part a rail between the nodes, then inside the node again.

The ranks of a node cut the message into a part for each of its *rails* (nodes.py), and reduce-scatter it; every rail joins the
parts of all nodes by itself; an all-gather inside the node brings the parts together. For 3 nodes of 2 ranks, where rank 2k + j has
part j (of the rail j) after the first phase, of which chunk k is its own after the second::

                  rail 0            rail 1
    node 0        rank 0   <->      rank 1       1. inside the node (<->): each rank reduces its rail's part
    node 1        rank 2   <->      rank 3       2. along the rail: reduce-scatter and all-gather of that part among the nodes
    node 2        rank 4   <->      rank 5       3. inside the node: everybody gets the other rails' parts

Out of a node go 2 (N-1)/N of the message for N nodes, the least there is, over all of its network cards at once; a double tree
between the nodes makes it up to 2 (NCCL's figure), recursive doubling lg N. Inside, every rank sends to every other directly,
which is one pass over shared memory and one hop over NVLink. (The scheme is that of hierarchical all-reduce in Horovod and of
MPI libraries' two-level modules; e.g. Jia et al. 2018, Highly scalable deep learning training system with mixed-precision.)

A reduce-scatter is the first half and an all-gather the second: the part of rail j is then the blocks of the ranks of rail j. Where
nodes differ in size, ranks beyond the last rail have their blocks carried by rail (place mod rails), and get them inside the node.

Nothing waits for a send to be taken: what comes back to a place holds what was sent from there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from . import recursive_doubling, ring, tree
from .nodes import Layout, Nodes, layout
from .schedule import INPUT, OUTPUT, SCRATCH, StepList, split

Spans = list[tuple[int, int]]
"""Pieces of a message, (offset, elements) each."""


@dataclass(frozen=True)
class Group:
    """Ranks that run a phase together. members: who; place: this rank's number among them; chunks: what each of them owns."""

    members: Sequence[int]
    place: int
    chunks: list[Spans]

    @property
    def others(self) -> list[int]:
        """The places of the others, the next one first."""
        n = len(self.members)
        return [(self.place + d) % n for d in range(1, n)]


Into = Callable[[np.ndarray], tuple]
"""Offsets within the message -> (buffers, offsets) of complete sums."""


class Direct:
    """Everybody sends to everybody. Of every phase the groups are those of the channels."""

    def reduce_scatter(self, groups: list[Group], have: int, sums: int, into: Into, final: bool) -> np.ndarray:
        """Rows after which the own chunk's sum lies where `into` says. have: the buffer of the own contribution; sums: where
        partial sums may lie, at their offset in the message; final: whether the sum is of all ranks."""
        table = StepList()
        for channel, group in enumerate(groups):
            for peer in group.others:
                for span in group.chunks[peer]:
                    table.send(group.members[peer], have, *span, channel=channel)
        for channel, group in enumerate(groups):
            for start, length in group.chunks[group.place]:
                own, to = (have, start), tuple(map(int, into(np.int64(start))))
                for peer in group.others:
                    last = peer == group.others[-1]
                    table.recv_reduce(group.members[peer], own, to, length, final=final and last, channel=channel)
                    own = to
        return table.table()

    def all_gather(self, groups: list[Group]) -> np.ndarray:
        """Rows after which all chunks lie in OUTPUT at their offsets, where the own one lies already."""
        table = StepList()
        for channel, group in enumerate(groups):
            for peer in group.others:
                for span in group.chunks[group.place]:
                    table.send(group.members[peer], OUTPUT, *span, channel=channel)
        for channel, group in enumerate(groups):
            for peer in group.others[::-1]:  # who sends to us first is the one before us
                for span in group.chunks[peer]:
                    table.recv(group.members[peer], OUTPUT, *span, channel=channel)
        return table.table()


@dataclass(frozen=True)
class Rings:
    """Rings among the members, in place order; odd channels turn the other way. Methods as Direct's."""

    slices: int = 1

    def _rings(self, groups: list[Group]) -> list[ring.Ring]:
        """Of each channel a ring for the first span of every chunk, another for the second, ..."""
        out = []
        for channel, group in enumerate(groups):
            n, turn = len(group.members), 1 if channel % 2 == 0 else -1
            left, right = (group.members[(group.place + d) % n] for d in (-turn, turn))
            for layer in range(max(map(len, group.chunks))):
                spans = [spans[layer] if layer < len(spans) else (0, 0) for spans in group.chunks]
                starts, counts = np.array([spans[q * turn % n] for q in range(n)], np.int64).T
                out.append(ring.Ring(channel, group.place * turn % n, n, left, right, starts, counts, self.slices))
        return out

    def reduce_scatter(self, groups: list[Group], have: int, sums: int, into: Into, final: bool) -> np.ndarray:
        def place(number, at):
            last = number == len(groups[0].members) - 2
            buffer, offset = into(at)
            return np.where(last, buffer, sums), np.where(last, offset, at)

        return ring.in_order([ring.reduce_scatter_rows(r, place, have, final) for r in self._rings(groups)])

    def all_gather(self, groups: list[Group]) -> np.ndarray:
        return ring.in_order([ring.all_gather_rows(r) for r in self._rings(groups)])


class Here:
    """Where a rank is: its node's members, and its rail if it is on one."""

    def __init__(self, at: Layout, rank: int):
        self.layout = at
        self.node, self.place = at.node[rank], at.place[rank]
        self.members = at.members[self.node]
        self.on_rail = self.place < at.rails and at.nodes > 1

    def inside(self, parts: list[Spans]) -> Group:
        """The node's ranks with a part of each rail; those on none own nothing."""
        return Group(self.members, self.place, parts + [[]] * (len(self.members) - len(parts)))

    def along_rail(self, chunks: list[Spans]) -> Group:
        return Group(self.layout.rail(self.place), self.node, chunks)

    def blocks(self, node: int, rail: int, piece: tuple[int, int], count: int) -> Spans:
        """What rail `rail` carries for a node: a piece (offset, elements) of its rank's block, and of those of ranks on no rail."""
        start, length = piece
        return [(r * count + start, length) for r in self.layout.members[node][rail :: self.layout.rails]]

    def block_groups(self, count: int, channels: int) -> tuple[list[Group], list[Group]]:
        """Inside, where a rail's rank owns its blocks of all nodes, and along the rail, where it owns those of its own."""
        nodes, inside, along = range(self.layout.nodes), [], []
        for piece in split(count, channels):
            parts = [[b for n in nodes for b in self.blocks(n, j, piece, count)] for j in range(self.layout.rails)]
            inside.append(self.inside([_joined(part) for part in parts]))
            if self.on_rail:
                along.append(self.along_rail([self.blocks(n, self.place, piece, count) for n in nodes]))
        return inside, along


def _joined(spans: Spans) -> Spans:
    """The same elements in as few spans as can be."""
    out: Spans = []
    for start, length in sorted(spans):
        if out and sum(out[-1]) == start:
            out[-1] = (out[-1][0], out[-1][1] + length)
        else:
            out.append((start, length))
    return out


def _in_output(at) -> tuple:
    return OUTPUT, at


def _in_scratch(at) -> tuple:
    return SCRATCH, at


def all_reduce_by(
    rank: int, ranks: int, count: int, nodes: Nodes, inside, rail, in_place: bool, channels: int = 1
) -> np.ndarray:
    """One rank's table. inside, rail: Direct or Rings; rail may be an all-reduce of `collectives` too, which takes so many
    channels, run on a rail's part."""
    here = Here(layout(nodes, ranks), rank)
    parts = [split(length, channels, start) for start, length in split(count, here.layout.rails)]
    node = [here.inside([[part[channel]] for part in parts]) for channel in range(channels)]
    rows, have = [], INPUT
    if len(here.members) > 1:
        rows.append(inside.reduce_scatter(node, INPUT, OUTPUT, _in_output, here.layout.nodes == 1))
        have = OUTPUT
    if here.on_rail and callable(rail):
        start, length = parts[here.place][0][0], sum(n for _, n in parts[here.place])
        rows.append(_embedded(rail, here, have, start, length, in_place or have == OUTPUT))
    elif here.on_rail:
        pieces = [split(length, here.layout.nodes, start) for start, length in parts[here.place]]
        chunks = [here.along_rail([[chunk] for chunk in piece]) for piece in pieces]
        rows.append(rail.reduce_scatter(chunks, have, OUTPUT, _in_output, True))
        rows.append(rail.all_gather(chunks))
    if len(here.members) > 1:
        rows.append(inside.all_gather(node))
    return _together(rows)


def _embedded(steps: Callable[..., np.ndarray], here: Here, have: int, start: int, length: int, in_place: bool):
    """The table of an all-reduce along the rail, of `length` elements from `start` on, that the buffer `have` holds."""
    table = steps(here.node, here.layout.nodes, length, in_place=in_place)
    talks = table["peer"] >= 0
    table["peer"][talks] = np.array(here.layout.rail(here.place))[table["peer"][talks]]
    for side in ("src", "dst"):
        buffer, offset = table[f"{side}_buffer"], table[f"{side}_offset"]
        offset += np.where(buffer == SCRATCH, 0, start)
        buffer[buffer == INPUT] = have
    return table


def _together(parts: list[np.ndarray]) -> np.ndarray:
    """Tables one after the other."""
    done = 0
    for part in parts:
        part["after"] += np.where(part["after"] >= 0, done, 0).astype(np.int32)
        done += len(part)
    return np.concatenate(parts)


def reduce_scatter_by(
    rank: int, ranks: int, count: int, nodes: Nodes, inside, rail, in_place: bool, channels: int = 1
) -> np.ndarray:
    """One rank's table; sums that are not yet complete, or another's, lie in SCRATCH at their offset in the message."""
    here = Here(layout(nodes, ranks), rank)
    rails, alone = here.layout.rails, here.layout.nodes == 1
    node, along = here.block_groups(count, channels)

    def result(at):
        own = at // max(count, 1) == rank
        return np.where(own, OUTPUT, SCRATCH), np.where(own & (not in_place), at - rank * count, at)

    rows, have = [], INPUT
    if len(here.members) > 1:
        rows.append(inside.reduce_scatter(node, INPUT, SCRATCH, result if alone else _in_scratch, alone))
        have = SCRATCH
    if here.on_rail:
        rows.append(rail.reduce_scatter(along, have, SCRATCH, result, True))
    handed = StepList()
    for channel, (start, length) in enumerate(split(count, channels)):
        if here.place >= rails:
            at = rank * count * in_place + start
            handed.recv(here.members[here.place % rails], OUTPUT, at, length, channel=channel)
            continue
        for other in here.members[here.place :: rails][1:]:
            handed.send(other, SCRATCH, other * count + start, length, channel=channel)
    return _together([*rows, handed.table()])


def all_gather_by(
    rank: int, ranks: int, count: int, nodes: Nodes, inside, rail, in_place: bool, channels: int = 1
) -> np.ndarray:
    """One rank's table."""
    here = Here(layout(nodes, ranks), rank)
    rails = here.layout.rails
    node, along = here.block_groups(count, channels)
    handed = StepList()
    for channel, (start, length) in enumerate(split(count, channels)):
        if not in_place:
            handed.copy((INPUT, start), (OUTPUT, rank * count + start), length, channel=channel)
        if here.place >= rails:
            to = here.members[here.place % rails]
            handed.send(to, OUTPUT, rank * count + start, length, channel=channel)
            continue
        for other in here.members[here.place :: rails][1:]:
            handed.recv(other, OUTPUT, other * count + start, length, channel=channel)
    rows = [handed.table()]
    if here.on_rail:
        rows.append(rail.all_gather(along))
    if len(here.members) > 1:
        rows.append(inside.all_gather(node))
    return _together(rows)


def all_reduce(rank: int, ranks: int, count: int, *, nodes: Nodes = None, in_place: bool = False) -> np.ndarray:
    """One rank's table, with a ring a rail; the same table serves in-place and out-of-place."""
    return all_reduce_by(rank, ranks, count, nodes, Direct(), Rings(), in_place)


def with_trees(rank: int, ranks: int, count: int, *, nodes: Nodes = None, in_place: bool = False) -> np.ndarray:
    """The same with a double binary tree a rail."""
    return all_reduce_by(rank, ranks, count, nodes, Direct(), tree.all_reduce, in_place, channels=2)


def with_doubling(rank: int, ranks: int, count: int, *, nodes: Nodes = None, in_place: bool = False) -> np.ndarray:
    """The same with recursive doubling along each rail."""
    return all_reduce_by(rank, ranks, count, nodes, Direct(), recursive_doubling.all_reduce, in_place)


def reduce_scatter(rank: int, ranks: int, count: int, *, nodes: Nodes = None, in_place: bool = False) -> np.ndarray:
    """One rank's table, with a ring a rail."""
    return reduce_scatter_by(rank, ranks, count, nodes, Direct(), Rings(), in_place)


def all_gather(rank: int, ranks: int, count: int, *, nodes: Nodes = None, in_place: bool = False) -> np.ndarray:
    """One rank's table, with a ring a rail."""
    return all_gather_by(rank, ranks, count, nodes, Direct(), Rings(), in_place)


def reduce_scatter_direct(
    rank: int, ranks: int, count: int, *, nodes: Nodes = None, in_place: bool = False
) -> np.ndarray:
    """The same with a direct exchange along each rail."""
    return reduce_scatter_by(rank, ranks, count, nodes, Direct(), Direct(), in_place)


def all_gather_direct(rank: int, ranks: int, count: int, *, nodes: Nodes = None, in_place: bool = False) -> np.ndarray:
    """The same with a direct exchange along each rail."""
    return all_gather_by(rank, ranks, count, nodes, Direct(), Direct(), in_place)
