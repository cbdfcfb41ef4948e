"""Routing: which links the flows of a step take through a fat tree, and the rates they then get.

A flow goes from one NIC port to another: up to a leaf switch and, if the other port is under another leaf, over one of
the leaf's uplinks to a switch of tier 2, and from there, if in another pod, over one of its uplinks to tier 3; the way
down has choices only where two switches are joined by several cables. Who chooses::

    ecmp      a hash of the flow, drawn by `seed`: flows that meet on one uplink share it while others are idle
    static    the destination's number (d-mod-k, as InfiniBand's subnet managers do): no chance, but patterns may collide
    adaptive  packets are sprayed evenly over all paths: then all uplinks of a switch are as one link of their summed rate

Rates are max-min fair, by progressive filling: the link that offers its flows least is found, they get that and are
settled; the rest shares what is left (Bertsekas and Gallager, Data Networks, 6.5.2). Congestion control aims at these
rates; how long it takes to get there and what it wastes are not modelled.

Closed forms. A permutation under leaves of m ports and u uplinks, all flows leaving their leaf, loads an uplink with
Binomial(m, 1/u) flows. If they only met there, their mean rate would be u/m (1 - (1 - 1/u)^m), 1 - 1/e = 63 % for large
m = u (`hashed_mean`); the way down collides as well, so the tree gives less. The slowest flow, which a collective waits
for, gets 1 / (largest load): `hashed_max_load`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from ...errors import UserError

ROUTINGS = ("ecmp", "static", "adaptive")
HOPS = 6  # links on the longest path: port, leaf, tier 2, tier 2, leaf, port
NO_LINK = -1


class FatTree(NamedTuple):
    """A fat tree of up to three tiers; ports are numbered leaf by leaf, leaves pod by pod.

    A leaf has `ports` NIC ports below and `middles * cables` uplinks, `cables` to each of the `middles` tier-2 switches
    of its pod. A tier-2 switch has `tops` uplinks to tier 3; the i-th of them meets the i-th of the same tier-2 switch of
    every other pod. Rates are bytes a second of one link.
    """

    ports: int
    leaves: int  # of a pod
    pods: int
    middles: int = 1
    cables: int = 1
    tops: int = 1
    port_rate: float = 1.0
    up_rate: float = 1.0
    top_rate: float = 1.0

    @property
    def ends(self) -> int:
        """NIC ports in all."""
        return self.ports * self.leaves * self.pods

    @property
    def uplinks(self) -> int:
        """Of one leaf."""
        return self.middles * self.cables

    def firsts(self) -> tuple[int, int, int, int]:
        """Where each kind of link begins in the numbering: ports, leaf uplinks, tier-2 uplinks, the end. Up and down
        alternate: link 2 i goes up, 2 i + 1 down."""
        leaf = 2 * self.ends
        top = leaf + 2 * self.leaves * self.pods * self.uplinks
        return 0, leaf, top, top + 2 * self.pods * self.middles * self.tops

    def capacities(self) -> np.ndarray:
        """float64 [links] bytes a second."""
        _, leaf, top, end = self.firsts()
        out = np.empty(end)
        out[:leaf], out[leaf:top], out[top:] = self.port_rate, self.up_rate, self.top_rate
        return out

    def pooled(self) -> FatTree:
        """The tree with all uplinks of a leaf, and of a pod, joined into one: what spraying makes of it."""
        return self._replace(
            middles=1,
            cables=1,
            tops=1,
            up_rate=self.up_rate * self.uplinks,
            top_rate=self.top_rate * self.tops * self.middles,
        )


@dataclass(frozen=True)
class Rates:
    """rates: float64 [flows] bytes a second; tier: int64 [flows], switches on the way: 1, 3 or 5; loads: int64 [links]
    flows on each link (sprayed: on each pool)."""

    rates: np.ndarray
    tier: np.ndarray
    loads: np.ndarray

    @property
    def mean(self) -> float:
        return float(self.rates.mean())

    @property
    def slowest(self) -> float:
        """What a step that waits for all its flows runs at."""
        return float(self.rates.min())


def route(
    tree: FatTree, sources: np.ndarray, destinations: np.ndarray, routing: str, *, seed: int = 0, paths: int = 1
) -> Rates:
    """Max-min fair rates of flows between NIC ports.

    sources, destinations: int64 [flows]. paths: with ecmp, equal parts that a flow is cut into and that are hashed one by
    one (queue pairs a connection); it ends with its slowest part. Raises UserError for an unknown routing, ValueError for
    ports that do not exist.
    """
    if routing not in ROUTINGS:
        raise UserError(f"routing {routing!r}; accepted: {', '.join(ROUTINGS)}")
    if paths < 1:
        raise UserError(f"{paths} paths a flow; accepted: 1 or more")
    sources = np.ascontiguousarray(sources, np.int64)
    destinations = np.ascontiguousarray(destinations, np.int64)
    if sources.shape != destinations.shape or sources.ndim != 1:
        raise ValueError(f"{sources.shape} sources and {destinations.shape} destinations; accepted: as many of each")
    for ends in (sources, destinations):
        if len(ends) and (ends.min() < 0 or ends.max() >= tree.ends):
            raise ValueError(f"port {ends.min()} or {ends.max()}; accepted: 0 to {tree.ends - 1}")
    if routing == "adaptive":
        tree = tree.pooled()
    parts = paths if routing == "ecmp" else 1
    if parts > 1:
        sources, destinations = np.repeat(sources, parts), np.repeat(destinations, parts)
    firsts = np.array(tree.firsts(), np.int64)
    links = _paths(tree, firsts, sources, destinations, routing == "static", np.uint64(seed % (1 << 64)))
    rates, loads = max_min(links, tree.capacities())
    hops = np.count_nonzero(links != NO_LINK, axis=1)
    tier = np.maximum(hops - 1, 0)[::parts]
    if parts > 1:
        rates = parts * rates.reshape(-1, parts).min(axis=1)
    return Rates(rates, tier, loads)


@njit(cache=True, nogil=True)
def _mix(x):
    # splitmix64 (Steele, Lea and Flood 2014), as in network.py.
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True, nogil=True)
def _choice(key, stage, n):
    """One of n, unrelated between flows and stages."""
    return np.int64(_mix(key ^ (np.uint64(stage) << np.uint64(56))) % np.uint64(n))


@njit(cache=True, nogil=True)
def _paths(tree, firsts, sources, destinations, static, seed):
    """int32 [flows, HOPS]: the links of each flow, NO_LINK after the last. A flow from a port to itself has none."""
    out = np.full((len(sources), HOPS), NO_LINK, np.int32)
    uplinks = tree.middles * tree.cables
    for f in range(len(sources)):
        a, b = sources[f], destinations[f]
        if a == b:
            continue
        key = _mix(_mix(seed) ^ np.uint64(f))
        leaf_a, leaf_b = a // tree.ports, b // tree.ports
        pod_a, pod_b = leaf_a // tree.leaves, leaf_b // tree.leaves
        out[f, 0] = 2 * a
        hop = 1
        if leaf_a != leaf_b:
            # d-mod-k: the port's place under its leaf chooses the uplink, its leaf the top, so the way down is its own.
            up = (b % tree.ports) % uplinks if static else _choice(key, 1, uplinks)
            middle = up // tree.cables
            out[f, hop] = firsts[1] + 2 * (leaf_a * uplinks + up)
            hop += 1
            if pod_a != pod_b:
                if static:
                    top = (leaf_b + (b % tree.ports) // uplinks) % tree.tops
                else:
                    top = _choice(key, 2, tree.tops)
                for pod, down in ((pod_a, 0), (pod_b, 1)):
                    out[f, hop] = firsts[2] + 2 * ((pod * tree.middles + middle) * tree.tops + top) + down
                    hop += 1
            cable = up % tree.cables if static else _choice(key, 3, tree.cables)
            out[f, hop] = firsts[1] + 2 * (leaf_b * uplinks + middle * tree.cables + cable) + 1
            hop += 1
        out[f, hop] = 2 * b + 1
    return out


@njit(cache=True, nogil=True)
def max_min(links, capacity):
    """Max-min fair rates of flows, and how many flows pass each link.

    links: int32 [flows, hops], NO_LINK where a flow has fewer; capacity: float64 [links] bytes a second. Returns
    float64 [flows] (inf for a flow that passes no link) and int64 [links].
    """
    flows, hops = links.shape
    count = np.zeros(len(capacity), np.int64)
    for f in range(flows):
        for h in range(hops):
            if links[f, h] != NO_LINK:
                count[links[f, h]] += 1
    loads = count.copy()
    starts = np.zeros(len(capacity) + 1, np.int64)
    for i in range(len(capacity)):
        starts[i + 1] = starts[i] + count[i]
    users = np.empty(starts[-1], np.int32)
    fill = starts[:-1].copy()
    for f in range(flows):
        for h in range(hops):
            link = links[f, h]
            if link != NO_LINK:
                users[fill[link]] = f
                fill[link] += 1

    # A heap of links by what they offered a flow when last looked at. Offers only grow as flows are settled elsewhere at
    # less, so an old offer is never too high, and a link whose offer has grown is put back.
    heap = np.empty(len(capacity), np.int32)
    offer = np.empty(len(capacity), np.float64)
    size = 0
    for i in range(len(capacity)):
        if count[i] > 0:
            heap[size] = i
            offer[i] = capacity[i] / count[i]
            size += 1
    for i in range(size // 2 - 1, -1, -1):
        _sift(heap, offer, size, i)
    left = capacity.copy()
    rates = np.full(flows, np.inf)
    while size > 0:
        link = heap[0]
        if count[link] > 0:
            now = max(left[link], 0.0) / count[link]
            if now > offer[link]:
                offer[link] = now
                _sift(heap, offer, size, 0)
                continue
            rate = offer[link]
            for i in range(starts[link], starts[link + 1]):
                f = users[i]
                if rates[f] == np.inf:
                    rates[f] = rate
                    for h in range(hops):
                        other = links[f, h]
                        if other != NO_LINK:
                            left[other] -= rate
                            count[other] -= 1
        size -= 1
        heap[0] = heap[size]
        _sift(heap, offer, size, 0)
    return rates, loads


@njit(cache=True, nogil=True)
def _sift(heap, offer, size, i):
    while True:
        child = 2 * i + 1
        if child >= size:
            return
        if child + 1 < size and offer[heap[child + 1]] < offer[heap[child]]:
            child += 1
        if offer[heap[i]] <= offer[heap[child]]:
            return
        heap[i], heap[child] = heap[child], heap[i]
        i = child


def ring_flows(ends: int, stride: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Every port sends to the one `stride` further, and the last ones to the first."""
    sources = np.arange(ends, dtype=np.int64)
    return sources, (sources + stride) % ends


def permutation_flows(ends: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Every port sends to another one and receives from one: a random cycle through all of them (Sattolo 1986)."""
    order = np.random.default_rng(seed).permutation(ends)
    destinations = np.empty(ends, np.int64)
    destinations[order] = np.roll(order, -1)
    return np.arange(ends, dtype=np.int64), destinations


def step_flows(tables, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k-th send of every rank of a schedule, where it has one: int64 ranks that send, and their peers.

    tables: one STEP array a rank (collectives/schedule.py).
    """
    from ...collectives.schedule import SEND

    pairs = []
    for rank, table in enumerate(tables):
        peers = table["peer"][table["op"] == SEND]
        if k < len(peers):
            pairs.append((rank, int(peers[k])))
    out = np.array(pairs, np.int64).reshape(-1, 2)
    return out[:, 0].copy(), out[:, 1].copy()


def hashed_mean(flows: int, links: int) -> float:
    """Mean rate, in parts of a link, of `flows` flows hashed over `links` links that nothing else slows: (l/f)(1 - (1 - 1/l)^f).

    The expected number of links in use, shared out over the flows, which all end on a link in use.
    """
    return links / flows * -math.expm1(flows * math.log1p(-1 / links)) if links > 1 else 1 / flows


def hashed_max_load(flows: int, links: int) -> float:
    """Expected flows on the fullest of `links` links, of `flows` hashed: sum over k of P(fullest > k).

    P(fullest <= k) = f! / l^f [x^f] (sum_{i <= k} x^i / i!)^l: the multinomial counts that stay within k (exact, in float64).
    """
    expected = 0.0
    for k in range(flows):
        # Probabilities of the first j links' total, scaled as independent Poisson loads of mean f/l to keep them near 1.
        mean = flows / links
        one = np.array([math.exp(i * math.log(mean) - mean - math.lgamma(i + 1)) for i in range(min(k, flows) + 1)])
        total = np.array([1.0])
        for _ in range(links):
            total = np.convolve(total, one)[: flows + 1]
        exactly = math.exp(flows * math.log(flows) - flows - math.lgamma(flows + 1))
        within = total[flows] / exactly if len(total) > flows else 0.0
        expected += 1 - min(within, 1.0)
        if within > 1 - 1e-15:
            break
    return expected
