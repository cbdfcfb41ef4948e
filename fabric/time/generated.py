"""Ring and double binary tree as formulas: step k of rank r, without the table.

A ring over p ranks has 2p(p-1) messages a channel and slice, so from some thousands of ranks on its tables do not fit.
Here a step is computed from its position: the same steps, in the same order, as `collectives/ring.py` and
`collectives/tree.py` write down (a test compares them). Positions are those of a full grid; where the table leaves a step
out, the count is 0::

    ring    position = 2 ((stage slices + slice) channels + channel) + half        half 0 receives, 1 sends
    tree    position = 3 ((2 tick + down) channels + channel) + part               part: the two children and the parent

A message also has a queue number, one for each (sender, receiver, channel), so that no table of queues is searched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from ...collectives.schedule import COPY, RECV, RECV_REDUCE, SEND

TABLE, RING, TREE = range(3)
ALGORITHMS = ("ring", "tree")

PARENT, LEFT, RIGHT, HEIGHT, DEPTH = range(5)


class Formula(NamedTuple):
    """What the compiled functions read. kind: TABLE (no formula), RING or TREE."""

    kind: int
    ranks: int
    channels: int  # of the table: twice the pairs of trees for a tree
    slices: int
    positions: int  # of each rank
    queues: int
    elements: (
        np.ndarray
    )  # int64 [channels, 2]: ring: elements of a shorter chunk, number of longer ones; tree: elements, 0
    nodes: np.ndarray  # int32 [ranks, 5]: PARENT ... DEPTH of each node of tree 0, -1 for none; [0, 5] for a ring
    single: int  # p = 1: elements to copy


NO_FORMULA = Formula(TABLE, 0, 0, 0, 0, 0, np.zeros((0, 2), np.int64), np.zeros((0, 5), np.int32), 0)


@dataclass(frozen=True)
class Generated:
    """A ring or tree all-reduce whose steps are computed where they are needed; takes what `collectives.build` takes.

    Raises ValueError for another algorithm, ranks, channels or slices below 1, or count below 0.
    """

    algorithm: str
    ranks: int
    count: int
    channels: int = 1
    slices: int = 1
    in_place: bool = False

    def __post_init__(self):
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f"{self.algorithm!r} has no formula; accepted: {', '.join(ALGORITHMS)}")
        for what, value, least in (
            ("ranks", self.ranks, 1),
            ("count", self.count, 0),
            ("channels", self.channels, 1),
            ("slices", self.slices, 1),
        ):
            if value < least:
                raise ValueError(f"{what} is {value}; accepted: {least} or more")

    def formula(self) -> Formula:
        ring = self.algorithm == "ring"
        channels = self.channels if ring else 2 * self.channels
        base, longer = divmod(self.count, channels)
        elements = np.zeros((channels, 2), np.int64)
        elements[:, 0] = base
        elements[:longer, 0] += 1
        if ring:
            elements = np.stack(np.divmod(elements[:, 0], self.ranks), 1)
        nodes = np.zeros((0, 5), np.int32) if ring else tree_nodes(self.ranks)
        if self.ranks == 1:
            single = 0 if self.in_place else self.count
            positions = 1
        else:
            single = 0
            if ring:
                positions = 2 * self.slices * channels * (2 * self.ranks - 1)
            else:
                top = int(nodes[0, HEIGHT])
                positions = 6 * channels * (self.slices + top + int(nodes[:, DEPTH].max()))
        queues = self.ranks * channels * (1 if ring else 2)
        kind = RING if ring else TREE
        return Formula(kind, self.ranks, channels, self.slices, positions, queues, elements, nodes, single)


@njit(cache=True, nogil=True)
def tree_nodes(ranks):
    """int32 [ranks, 5]: PARENT, LEFT, RIGHT, HEIGHT, DEPTH of each node of tree 0 (see collectives/tree.py)."""
    nodes = np.full((ranks, 5), -1, np.int32)
    nodes[:, HEIGHT] = 0
    nodes[0, DEPTH] = 0
    largest = 1
    while 2 * largest < ranks:
        largest *= 2
    if ranks > 1:
        nodes[0, LEFT] = largest
    # A parent's lowest set bit is larger than its child's, so depths go down the bits and heights up.
    bit = largest
    while bit >= 1:
        for node in range(bit, ranks, 2 * bit):
            up = (node ^ bit) | (bit << 1)
            if up >= ranks:
                up = node ^ bit
            nodes[node, PARENT] = up
            nodes[node, DEPTH] = nodes[up, DEPTH] + 1
            reach = bit >> 1
            if reach > 0:
                nodes[node, LEFT] = node - reach
                while reach > 0 and node + reach >= ranks:
                    reach >>= 1
                if reach > 0:
                    nodes[node, RIGHT] = node + reach
        bit >>= 1
    bit = 1
    while bit <= largest and ranks > 1:
        for node in range(bit, ranks, 2 * bit):
            up = nodes[node, PARENT]
            nodes[up, HEIGHT] = max(nodes[up, HEIGHT], nodes[node, HEIGHT] + 1)
        bit <<= 1
    return nodes


@njit(cache=True, nogil=True)
def tree_mirror(tree, rank, ranks, back):
    """The node of tree 0 that `rank` is in a tree; back: the rank that a node is."""
    if tree == 0:
        return rank
    if ranks % 2 == 0:
        return ranks - 1 - rank
    return (rank + 1) % ranks if back else (rank - 1 + ranks) % ranks


@njit(cache=True, nogil=True, inline="always")
def _piece(length, slices, k):
    if slices == 1:
        return length
    return length // slices + (k < length % slices)


@njit(cache=True, nogil=True, inline="always")
def _ring_step(p, channels, slices, elements, rank, position):
    half = position & 1
    place = position >> 1
    channel = 0
    if channels > 1:
        channel = place % channels
        place //= channels
    piece = 0
    if slices > 1:
        piece = place % slices
        place //= slices
    stage = place
    right = channel % 2 == 0  # which way the ring turns
    where = rank if right or rank == 0 else p - rank
    chunk = where - stage - 1
    if chunk < 0:
        chunk += p
    if chunk < 0:
        chunk += p
    count = _piece(elements[channel, 0] + (chunk < elements[channel, 1]), slices, piece)
    after = rank + 1 if rank + 1 < p else 0
    before = rank - 1 if rank > 0 else p - 1
    if not right:
        after, before = before, after
    if half == 1:
        if stage == 2 * p - 2:
            count = 0
        return SEND, after, channel, count, channel * p + rank
    if stage == 0:
        count = 0
    return RECV_REDUCE if stage < p else RECV, before, channel, count, channel * p + before


@njit(cache=True, nogil=True)
def _tree_step(p, channels, slices, elements, nodes, rank, position):
    part = position % 3
    place = position // 3
    channel = place % channels
    place //= channels
    down = place & 1
    tick = place >> 1
    tree = channel & 1
    node = tree_mirror(tree, rank, p, False)
    if down:
        k = tick - nodes[0, HEIGHT] - nodes[node, DEPTH]
    else:
        k = tick - nodes[node, HEIGHT]
    op = SEND
    # Up: left child, right child, parent. Down: parent, left child, right child.
    if down:
        relation = PARENT if part == 0 else (LEFT if part == 1 else RIGHT)
    else:
        relation = LEFT if part == 0 else (RIGHT if part == 1 else PARENT)
    if down and part == 0:
        op = RECV
    elif not down and part < 2:
        op = RECV_REDUCE
    other = np.int64(nodes[node, relation])
    count = np.int64(0)
    if 0 <= k < slices and other >= 0:
        count = _piece(elements[channel, 0], slices, k)
    # An edge is named by its lower end.
    lower = node if relation == PARENT else other
    peer = tree_mirror(tree, other, p, True) if other >= 0 else np.int64(-1)
    return op, peer, channel, count, (channel * p + lower) * 2 + down


@njit(cache=True, nogil=True, inline="always")
def step(kind, p, channels, slices, single, elements, nodes, rank, position):
    """(op, peer, channel, elements, queue) at a position of a rank; 0 elements: no such step.

    Takes a Formula's fields one by one: taking arrays out of a tuple for every step costs more than the step.
    """
    if p == 1:
        return COPY, -1, 0, single, 0
    if kind == RING:
        return _ring_step(p, channels, slices, elements, rank, position)
    return _tree_step(p, channels, slices, elements, nodes, rank, position)


@njit(cache=True, nogil=True)
def steps(f, rank):
    """int64 [steps, 5]: op, peer, channel, elements, queue of each step of one rank, in table order."""
    out = np.zeros((f.positions, 5), np.int64)
    n = 0
    for position in range(f.positions):
        op, peer, channel, count, queue = step(
            f.kind, f.ranks, f.channels, f.slices, f.single, f.elements, f.nodes, rank, position
        )
        if count > 0:
            out[n, 0], out[n, 1], out[n, 2], out[n, 3], out[n, 4] = op, peer, channel, count, queue
            n += 1
    return out[:n]
