"""Lower bounds: an all-reduce faster than these is a mistake of the model.

They hold for every algorithm in which ranks do the adding, on a `Network` without noise. For a group of ranks that
share no link with the others, what must pass its border is counted; G groups of a level exchange at least 2(G-1) S
bytes in all, since each element needs G-1 partial results to come together and its result to reach G-1 groups
(docs/concepts.md). The ranks' ports carry that between them, each at the best rate of a class that reaches another
group. Every rank, too, must send its S bytes and receive S. For p ranks alike this is the well-known 2(p-1)/p S / rate.

No information travels faster than the cheapest message that leaves the group.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .network import PS, Network


class Bounds(NamedTuple):
    """Seconds. bandwidth: bytes over ports; work: additions over ranks; latency: one message of any size between the ranks
    farthest apart. `seconds` is the largest: they may overlap in time."""

    bandwidth: float
    work: float
    latency: float

    @property
    def seconds(self) -> float:
        return max(self)


def bounds(net: Network, size: float) -> Bounds:
    """Lower bounds for an all-reduce of `size` bytes over `net`, whatever the algorithm (without in-network reduction)."""
    ranks = net.ranks
    if ranks == 1:
        return Bounds(0.0, 0.0, 0.0)
    classes = len(net.latency)
    bandwidth = latency = 0
    for level in range(-1, classes - 1):  # -1: every rank a group
        count = ranks if level < 0 else len(np.unique(net.groups[level]))
        if count < 2:
            continue
        reach = [k for k in range(max(level, -1) + 1, classes) if _used(net, k)]
        rate = np.zeros(ranks)  # bytes a ps out of the group, all ports of a rank together
        for q in np.unique(net.port[reach]):
            with np.errstate(divide="ignore"):
                rate += 1 / (net.byte_ps[[k for k in reach if net.port[k] == q]].min() * net.slow[q])
        bandwidth = max(bandwidth, 2 * (count - 1) * size / rate.sum())
        if level < 0:
            bandwidth = max(bandwidth, size / rate.min())
        latency = max(latency, (net.send_overhead + net.latency + net.recv_overhead)[reach].min())
    with np.errstate(divide="ignore"):
        work = (ranks - 1) * size / (1 / net.reduce_ps).sum()
    return Bounds(float(bandwidth) / PS, float(work) / PS, float(latency) / PS)


def _used(net: Network, k: int) -> bool:
    """Whether any two ranks are of class k: of one group at level k, and of several at the level below."""
    if k == 0:
        return len(net.groups) == 0 or len(np.unique(net.groups[0])) < net.ranks
    below = len(np.unique(net.groups[k - 1]))
    return below > (1 if k == len(net.groups) else len(np.unique(net.groups[k])))


def ring_latency(net: Network, reduce_bytes: float = 0.0) -> float:
    """Seconds of the ring's longest chain of empty messages: 2(p-1) hops in a row, all but two neighbouring ones twice.

    A chunk goes p-1 hops to be reduced and p-1 more to be handed on. `reduce_bytes`: of a chunk, added p-1 times.
    """
    ranks = net.ranks
    if ranks == 1:
        return 0.0
    here = np.arange(ranks)
    there = (here + 1) % ranks
    k = np.full(ranks, len(net.groups))
    for level in range(len(net.groups) - 1, -1, -1):
        k[net.groups[level, here] == net.groups[level, there]] = level
    hop = (net.send_overhead + net.latency + net.recv_overhead)[k]
    pairs = hop + np.roll(hop, -1)
    chain = 2 * int(hop.sum()) - int(pairs.min())
    return (chain + (ranks - 1) * reduce_bytes * float(net.reduce_ps.min())) / PS
