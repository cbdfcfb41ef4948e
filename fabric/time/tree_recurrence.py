r"""The double binary tree of collectives/tree.py, evaluated without writing it out.

A rank's table follows a clock: at tick k + h a node of height h reduces slice k and sends it up, at tick k + H + d a node of
depth d receives slice k and sends it down, H being the tree's height. Both trees of a pair share the ranks, their clocks and
their ports, so no rank can be walked to its end before another. But every message goes from a smaller tick to a larger one, so
all ranks can be walked abreast, tick by tick, in any order and by several threads::

    tick      0        1        2        3       ...        what a rank does in one tick, in this order:
    rank 0    steps    steps    steps                       up:   of each channel's slice k = tick - h
    rank 1    steps    steps    steps                       down: of each channel's slice k = tick - H - d
    ...

What waits between two ticks is when a message's port began to transmit it. On the way down that is read one tick later; on the
way up when the parent, which may be several levels higher, comes to that slice, so each rank keeps a ring of one begin more
than its parent is higher.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

from ...collectives.schedule import split
from ..physics.network import Network, delay_slot, pair_class, wire_ps, work_ps

SEGMENT_RANKS = 8192  # fewest that are worth a thread

# Columns of a tree's nodes, int32 [p, 8]. SECOND: 1 if the node is its parent's second child. SLOT: where its begins on the
# way up lie; SLOTS: how many.
PARENT, FIRST, LAST, HEIGHT, DEPTH, SECOND, SLOT, SLOTS = range(8)
# Columns of a tree's hops, int64 ps [p, 8]: from each rank to its parent, and the same back. One cache line each. W is
# wire_ps and BUSY max(gap, W), of a message of the smaller and of the larger size.
SEND_OVERHEAD, RECV_OVERHEAD, LATENCY, PORT, W, W_LARGER, BUSY, BUSY_LARGER = range(8)
# Columns of the ranks' clocks, int64 ps [p, 2 + 2 ports]; then out_free and in_free of each port.
CLOCK, RECEIVED, FREE = range(3)


@njit(cache=True, nogil=True)
def _rank_at(tree, node, ranks):
    if tree == 0:
        return node
    return ranks - 1 - node if ranks % 2 == 0 else (node + 1) % ranks


@njit(cache=True, nogil=True)
def tree_nodes(tree, ranks):
    """The nodes of tree 0 or 1 over `ranks` >= 2 ranks, int32 [ranks, 8]; -1 where there is no parent or child."""
    nodes = np.zeros((ranks, 8), np.int32)
    nodes[:, PARENT : LAST + 1] = -1
    # Nodes by their lowest bit, so that all children come before their parents; the root, node 0, comes last.
    bit = 1
    while bit < ranks:
        for node in range(bit, ranks, 2 * bit):
            up = (node ^ bit) | (2 * bit)
            if up >= ranks:
                up = node ^ bit
            rank, above = _rank_at(tree, node, ranks), _rank_at(tree, up, ranks)
            second = 0 if node < up or up == 0 else 1
            nodes[rank, PARENT], nodes[rank, SECOND] = above, second
            nodes[above, FIRST + second] = rank
            nodes[above, HEIGHT] = max(nodes[above, HEIGHT], nodes[rank, HEIGHT] + 1)
        bit *= 2
    while bit > 1:
        bit //= 2
        for node in range(bit, ranks, 2 * bit):
            rank = _rank_at(tree, node, ranks)
            nodes[rank, DEPTH] = nodes[nodes[rank, PARENT], DEPTH] + 1
    slot = 0
    for rank in range(ranks):
        nodes[rank, SLOT] = slot
        if nodes[rank, PARENT] >= 0:
            nodes[rank, SLOTS] = nodes[nodes[rank, PARENT], HEIGHT] - nodes[rank, HEIGHT] + 1
        slot += nodes[rank, SLOTS]
    return nodes


@njit(cache=True, nogil=True)
def _hops(net, nodes, smaller, larger):
    """int64 [p, 8]; smaller, larger: the two sizes of a message in bytes."""
    ranks = len(nodes)
    hops = np.zeros((ranks, 8), np.int64)
    for rank in range(ranks):
        above = nodes[rank, PARENT]
        if above < 0:
            continue
        k = pair_class(net, rank, above)
        hop = hops[rank]
        hop[SEND_OVERHEAD], hop[RECV_OVERHEAD] = net.send_overhead[k], net.recv_overhead[k]
        hop[LATENCY], hop[PORT] = net.latency[k], net.port[k]
        hop[W], hop[W_LARGER] = wire_ps(net, k, rank, above, smaller), wire_ps(net, k, rank, above, larger)
        hop[BUSY], hop[BUSY_LARGER] = max(net.gap[k], hop[W]), max(net.gap[k], hop[W_LARGER])
    return hops


@njit(cache=True, nogil=True)
def _reductions(net, smaller, larger):
    """int64 ps [p, 2]"""
    out = np.empty((len(net.reduce_ps), 2), np.int64)
    for rank in range(len(out)):
        out[rank, 0], out[rank, 1] = work_ps(net.reduce_ps[rank], smaller), work_ps(net.reduce_ps[rank], larger)
    return out


@njit(cache=True, nogil=True)
def _send(clocks, rank, hops, tree, child, size):
    """When the port begins to transmit, on the hop between `child` and its parent."""
    q = FREE + 2 * hops[tree, child, PORT]
    begin = max(clocks[rank, CLOCK] + hops[tree, child, SEND_OVERHEAD], clocks[rank, q])
    clocks[rank, q] = begin + hops[tree, child, BUSY + size]
    clocks[rank, CLOCK] = begin
    return begin


@njit(cache=True, nogil=True)
def _receive(noise, seed, noisy, clocks, rank, hops, tree, child, size, begin):
    q = FREE + 2 * hops[tree, child, PORT] + 1
    arrival = max(begin + hops[tree, child, LATENCY], clocks[rank, q]) + hops[tree, child, W + size]
    clocks[rank, q] = arrival
    if noisy:
        arrival += noise[delay_slot(seed, rank, clocks[rank, RECEIVED])]
        clocks[rank, RECEIVED] += 1
    clocks[rank, CLOCK] = max(clocks[rank, CLOCK], arrival) + hops[tree, child, RECV_OVERHEAD]


@njit(cache=True, nogil=True)
def _one_tick(noise, seed, noisy, nodes, hops, reductions, clocks, sizes, up, down, tick, rank0, rank1):
    """One tick of ranks rank0 ... rank1-1.

    nodes: int32 [2, p, 8]; hops: int64 [2, p, 8]; reductions: int64 [p, 2]; clocks: int64 [p, 2 + 2 ports]; sizes:
    int8 [channels, slices], 0 smaller, 1 larger, -1 empty; up: int64 [channels, slots], begins on the way up; down: int64
    [2, channels, p, 2], begins of the sends to the first and the last child, of even and of odd ticks.
    """
    channels, slices = sizes.shape
    top = nodes[0, 0, HEIGHT]  # rank 0 is the root of tree 0, and both trees have one shape
    now, before = tick % 2, (tick + 1) % 2
    for rank in range(rank0, rank1):
        for channel in range(channels):
            tree = channel % 2
            k = tick - nodes[tree, rank, HEIGHT]
            if k < 0 or k >= slices:
                continue
            size = sizes[channel, k]
            if size < 0:
                continue
            for which in range(FIRST, LAST + 1):
                child = nodes[tree, rank, which]
                if child >= 0:
                    begin = up[channel, nodes[tree, child, SLOT] + k % nodes[tree, child, SLOTS]]
                    _receive(noise, seed, noisy, clocks, rank, hops, tree, child, size, begin)
                    clocks[rank, CLOCK] += reductions[rank, size]
            if nodes[tree, rank, PARENT] >= 0:
                slot = nodes[tree, rank, SLOT] + k % nodes[tree, rank, SLOTS]
                up[channel, slot] = _send(clocks, rank, hops, tree, rank, size)
        for channel in range(channels):
            tree = channel % 2
            k = tick - top - nodes[tree, rank, DEPTH]
            if k < 0 or k >= slices:
                continue
            size = sizes[channel, k]
            if size < 0:
                continue
            above = nodes[tree, rank, PARENT]
            if above >= 0:
                begin = down[before, channel, above, nodes[tree, rank, SECOND]]
                _receive(noise, seed, noisy, clocks, rank, hops, tree, rank, size, begin)
            for which in range(2):
                child = nodes[tree, rank, FIRST + which]
                if child >= 0:
                    down[now, channel, rank, which] = _send(clocks, rank, hops, tree, child, size)


def double_tree(
    net: Network,
    count: int,
    itemsize: int,
    channels: int,
    slices: int,
    *,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """finish of each rank, int64 [p] ps, p >= 2, of `channels` pairs of trees, every message evaluated."""
    ranks = net.ranks
    smaller = count // (2 * channels * slices)  # cut twice as evenly as can be: two sizes in all
    pieces = np.array([[n for _, n in split(length, slices)] for _, length in split(count, 2 * channels)], np.int64)
    sizes = np.where(pieces == 0, -1, pieces - smaller).astype(np.int8)
    nodes = np.stack([tree_nodes(tree, ranks) for tree in range(2)])
    two = (smaller * itemsize, (smaller + 1) * itemsize)
    hops = np.stack([_hops(net, tree, *two) for tree in nodes])
    reductions = _reductions(net, *two)
    clocks = np.zeros((ranks, FREE + 2 * len(net.slow)), np.int64)
    up = np.zeros((2 * channels, int(nodes[:, :, SLOTS].sum(axis=1, dtype=np.int64).max())), np.int64)
    down = np.zeros((2, 2 * channels, ranks, 2), np.int64)
    ticks = slices + int(nodes[0, 0, HEIGHT] + nodes[0, :, DEPTH].max())
    segments = max(1, min(threads, ranks // SEGMENT_RANKS))
    cuts = [ranks * k // segments for k in range(segments + 1)]
    figures = (net.noise, net.seed, net.noisy, nodes, hops, reductions, clocks, sizes, up, down)
    with ThreadPoolExecutor(segments) as pool:
        for tick in range(ticks):
            if segments == 1:
                _one_tick(*figures, tick, 0, ranks)
            else:
                list(pool.map(lambda k, t=tick: _one_tick(*figures, t, cuts[k], cuts[k + 1]), range(segments)))
            if progress is not None:
                progress((tick + 1) / ticks)
    return clocks[:, CLOCK].copy()
