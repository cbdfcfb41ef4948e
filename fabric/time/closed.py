r"""Closed forms: what an all-reduce takes, as a formula.

Three kinds:

- `ring_ps`: exact. The ring under the rules of network.py, to the picosecond, where the hops repeat around it (all alike, or
  node after node of the same hops) and there is no noise.
- `loggp_ps`: LogGP with the reduction, for one class of hop: each algorithm's chain of overheads, latencies and bytes. Exact for
  some algorithms and sizes of world, as its docstring says, and an estimate elsewhere.
- `hockney`: alpha + n beta + n gamma for each message of each algorithm's longest chain: the textbook's figures.

p is the number of ranks, S the message's bytes, q the largest power of two up to p, lg the logarithm to base 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...errors import UserError
from ..physics.network import Network


class Hop(NamedTuple):
    """What a message to the next rank costs, as in network.py. reduce_ps: ps a byte, of the rank that receives."""

    latency: int  # ps
    byte_ps: float  # ps a byte
    send_overhead: int = 0  # ps
    recv_overhead: int = 0  # ps
    gap: int = 0  # ps
    slow: float = 1.0
    reduce_ps: float = 0.0

    def wire(self, nbytes: int) -> int:
        """network.wire_ps: the bytes' time on the link, ps."""
        return int(nbytes * self.byte_ps * self.slow + 0.5)

    def busy(self, nbytes: int) -> int:
        """How long a send keeps its port, ps."""
        return max(self.gap, self.wire(nbytes))

    def reduce(self, nbytes: int) -> int:
        return int(nbytes * self.reduce_ps + 0.5)

    def through(self, nbytes: int) -> int:
        """From a sender that is ready to a receiver that has the data, ps: o + L + nG + o."""
        return self.send_overhead + self.latency + self.wire(nbytes) + self.recv_overhead


def hop(net: Network, sender: int, receiver: int) -> Hop:
    """The hop between two ranks of a network."""
    a, b = sender, receiver
    k = next(
        (level for level in range(len(net.groups)) if net.groups[level, a] == net.groups[level, b]), len(net.groups)
    )
    q = int(net.port[k])
    return Hop(
        int(net.latency[k]),
        float(net.byte_ps[k]),
        int(net.send_overhead[k]),
        int(net.recv_overhead[k]),
        int(net.gap[k]),
        max(float(net.slow[q, a]), float(net.slow[q, b])),
        float(net.reduce_ps[b]),
    )


def ring_ps(
    ranks: int, count: int, itemsize: int, hops: Sequence[Hop] | Hop, halves: tuple[bool, ...] = (True, False)
) -> int | None:
    """When the last rank of a ring (one channel, one slice, no noise) is finished, ps; None where there is no closed form.

    halves: whether each half reduces: an all-reduce's two, a reduce-scatter's or an all-gather's (in place) one.

    hops: the hop from rank i to rank i+1 for i = 0 ... g-1, repeated p/g times around the ring: one Hop where all are alike,
    g where nodes of g ranks are joined by a slower hop. Exact for p a multiple of g and, with g > 1, chunks of equal length.

    With equal chunks the begins are the longest paths of ring_passage.py, and repeat every g ranks. A path of l steps right
    and K-l steps down costs, for l = m g + t >= g, m times a node's hops + t hops + (K-l) times the largest `stay`: linear in
    m, so only the least and the largest m count; and all l < g are tried. With hops alike and chunks of two lengths, a path
    that stays in one long chunk costs the most, K pass, unless the gap between messages is longer than a hop, which then
    counts alone.
    """
    hops = [hops] if isinstance(hops, Hop) else list(hops)
    g, p = len(hops), ranks
    if p < 2 or count == 0 or not hops or p % g:
        return 0 if count == 0 and hops else None
    base, longer = divmod(count, p)
    if g == 1 and longer and len(halves) == 2:
        return _uneven_ring_ps(p, base, longer, itemsize, hops[0])
    if longer:
        return None
    n = base * itemsize
    begin = [h.send_overhead for h in hops]
    for half, reducing in enumerate(halves):
        stages = p - 1 if half + 1 < len(halves) else p - 2
        after, stay, step = [], [], []
        for r in range(g):
            left, own = hops[r - 1], hops[r]
            after.append(left.recv_overhead + (left.reduce(n) if reducing else 0) + own.send_overhead)
            stay.append(max(after[r], own.busy(n)))
            step.append(left.latency + left.wire(n) + after[r])
        begin = [_longest(begin, stay, step, r, stages) for r in range(g)]
    last = [max(begin[r], begin[r - 1] + hops[r - 1].latency + hops[r - 1].wire(n)) for r in range(g)]
    return max(t + hops[r - 1].recv_overhead + halves[-1] * hops[r - 1].reduce(n) for r, t in enumerate(last))


def _longest(begin: list[int], stay: list[int], step: list[int], r: int, stages: int) -> int:
    """max over l = 0 ... stages of begin(r-l) + the last l steps right + (stages-l) max(stay on the way)."""
    g = len(begin)
    best, right, largest = None, 0, stay[r]
    node, dearest = sum(step), max(stay)
    for length in range(min(g - 1, stages) + 1):
        largest = max(largest, stay[(r - length) % g])
        cost = begin[(r - length) % g] + right + (stages - length) * largest
        # The same with whole nodes more on the way: with one, or with as many as there are stages.
        for m in {1, (stages - length) // g} if length + g <= stages else ():
            cost = max(cost, begin[(r - length) % g] + right + m * node + (stages - length - m * g) * dearest)
        best = cost if best is None else max(best, cost)
        right += step[(r - length) % g]
    return best


def _uneven_ring_ps(p: int, base: int, longer: int, itemsize: int, h: Hop) -> int | None:
    """One class of hop; `longer` of the chunks have base + 1 elements."""
    n = (base + 1) * itemsize
    passes, held = [], []
    for reducing in (True, False):
        after = h.recv_overhead + (h.reduce(n) if reducing else 0) + h.send_overhead
        passes.append(h.latency + h.wire(n) + after)
        held.append(max(after, h.busy(n)) > passes[-1])  # only the gap can be longer
    if any(held) and base == 0:
        return None  # while its chunks are empty a rank neither sends nor waits
    if held == [False, True] and not any((j + 2) % p < longer for j in range(longer)):
        return None  # the last receive of whoever is last is a short chunk's
    first, second = (h.gap if waits else step for waits, step in zip(held, passes))
    return h.send_overhead + (p - 1) * first + (p - 2) * second + h.latency + h.wire(n) + h.recv_overhead


def _rounds(p: int) -> tuple[int, int]:
    """(lg q, 1 if p is no power of two)."""
    return p.bit_length() - 1, int(p & (p - 1) > 0)


def loggp_ps(algorithm: str, ranks: int, count: int, itemsize: int, h: Hop, *, slices: int = 1) -> int:
    """LogGP's time of an algorithm of `collectives` between ranks that are all alike, ps.

    A message of n bytes takes o + L + n G + o (Alexandrov, Ionescu, Schauser and Scheiman 1995, LogGP; without their "- 1" byte,
    as in network.py), and a rank's messages are max(o, g, n G) apart. With F(n) that time, R(n) the reduction::

        ring                p-1 (F + R)(S/p) + p-1 F(S/p)              exact if gap <= F, for one slice
        tree                H (2 F + R)(m) + (H-1) second + (k-1) tick an estimate; k slices, m = S/2k, H = ceil(lg p)
        binomial            ceil(lg p) (2 F(S) + R(S))                 exact for p = q if gap <= F; no less than true elsewhere
        recursive-doubling  lg q (F + R)(S) [+ (2 F + R)(S) if p > q]  the same
        halving-doubling    sum over j of (2 F + R)(S/2^j) [the same]  the same, for S/q whole
        one-shot            (p-2) apart + F(S) + ...                   of rank p-1, which waits for the farthest first: exact
        two-shot            the same twice, for messages of S/p         exact for chunks of one length

    The rounds of the tree-like ones: Thakur, Rabenseifner and Gropp 2005, Optimization of collective communication operations in
    MPICH, section 4; of the double tree: Sanders, Speck and Traeff 2009, Two-tree algorithms, section 3.
    """
    p, n = ranks, count * itemsize
    _known(algorithm)
    if p == 1 or count == 0:
        return 0
    lg, folded = _rounds(p)
    chunk = -(-count // p) * itemsize
    if algorithm == "ring":
        return (p - 1) * (2 * h.through(chunk) + h.reduce(chunk))
    if algorithm == "tree":
        slices = min(slices, -(-count // 2))
        height, piece = ceil_log2(p), -(-count // (2 * slices)) * itemsize
        # An inner node's second child waits for the first, up and down. In a tick it receives and reduces two pieces and
        # one comes down; as a leaf of the other tree two more pass; its port sends four. (Of two or three ranks none has two
        # children.)
        second = max(h.wire(piece), h.recv_overhead + h.reduce(piece)) + max(h.send_overhead, h.busy(piece))
        pieces, twice = min(p, 4), height - 1 if p > 3 else 0
        clock = pieces * (h.send_overhead + h.recv_overhead) + pieces // 2 * h.reduce(piece)
        busiest = max(clock, pieces * h.busy(piece))
        return height * (2 * h.through(piece) + h.reduce(piece)) + twice * second + (slices - 1) * busiest
    fold = folded * (2 * h.through(n) + h.reduce(n))
    if algorithm == "binomial":
        return ceil_log2(p) * (2 * h.through(n) + h.reduce(n))
    if algorithm == "recursive-doubling":
        return lg * (h.through(n) + h.reduce(n)) + fold
    if algorithm == "halving-doubling":
        q = 1 << lg
        halves = [-(-count * (q >> j) // q) * itemsize for j in range(1, lg + 1)]
        return sum(2 * h.through(m) + h.reduce(m) for m in halves) + fold
    apart = max(h.send_overhead, h.busy(n))
    if algorithm == "one-shot":
        # From rank 0, which sends to rank p-1 last; then the others' messages, which wait at the port.
        arrived = h.send_overhead + (p - 2) * apart + h.latency + h.wire(n)
        each = h.recv_overhead + h.reduce(n)
        if p == 2:
            return arrived + each
        clock = max(h.recv_overhead + (p - 2) * each, h.wire(n) + (p - 2) * each, (p - 2) * h.wire(n) + each)
        return arrived + clock + h.reduce(n)
    # Two-shot. Everybody's first receive is of the message that was sent last; then the others', which wait at the port.
    apart, wire = max(h.send_overhead, h.busy(chunk)), h.wire(chunk)
    shot = h.send_overhead + (p - 2) * apart + h.latency + wire
    each = h.recv_overhead + h.reduce(chunk)
    reducing = max((p - 1) * each, (p - 2) * wire + each)
    gathering = max((p - 1) * h.recv_overhead, (p - 2) * wire + h.recv_overhead)
    return 2 * shot + reducing + gathering


def hockney(
    algorithm: str, ranks: int, nbytes: float, alpha: float, beta: float, gamma: float = 0.0, *, slices: int = 1
) -> float:
    """Seconds by Hockney's model: a message of n bytes takes alpha + n beta, reducing them n gamma (s, s/byte, s/byte).

    ==================  ==========================  =======================  ====================  ======
    algorithm           alpha                       S beta                   S gamma               source
    ==================  ==========================  =======================  ====================  ======
    ring                2(p-1)                      2(p-1)/p                 (p-1)/p               1, 2
    tree                2 H                         (2 H/k + 4 (k-1)/k)/2    (H/k + 2 (k-1)/k)/2   3
    binomial            2 ceil(lg p)                2 ceil(lg p)             ceil(lg p)            1
    recursive-doubling  lg q [+ 2]                  lg q [+ 2]               lg q [+ 1]            1
    halving-doubling    2 lg q [+ 2]                2(q-1)/q [+ 2]           (q-1)/q [+ 1]         1
    one-shot            1                           p-1                      p-1                   counted
    two-shot            2                           2(p-1)/p                 (p-1)/p               counted
    ==================  ==========================  =======================  ====================  ======

    [...] where p is no power of two. tree: k slices, H = ceil(lg p); in a tick a port carries four pieces of S/2k each way, so
    it is 2 S beta for large k. One- and two-shot: the messages of a shot leave together, their bytes one after the other.

    Sources: 1 Thakur, Rabenseifner and Gropp 2005, Optimization of collective communication operations in MPICH, section 4 (a
    reduce followed by a broadcast for binomial); 2 Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms; 3 Sanders,
    Speck and Traeff 2009, Two-tree algorithms for full bandwidth broadcast, reduction and scan.
    """
    p, k = ranks, slices
    _known(algorithm)
    if p == 1:
        return 0.0
    lg, folded = _rounds(p)
    q, height = 1 << lg, ceil_log2(p)
    terms: dict[str, Callable[[], tuple[float, float, float]]] = {
        "ring": lambda: (2 * (p - 1), 2 * (p - 1) / p, (p - 1) / p),
        "tree": lambda: (2 * height, (height / k + 2 * (k - 1) / k), (height / k + 2 * (k - 1) / k) / 2),
        "binomial": lambda: (2 * height, 2 * height, height),
        "recursive-doubling": lambda: (lg + 2 * folded, lg + 2 * folded, lg + folded),
        "halving-doubling": lambda: (2 * lg + 2 * folded, 2 * (q - 1) / q + 2 * folded, (q - 1) / q + folded),
        "one-shot": lambda: (1, p - 1, p - 1),
        "two-shot": lambda: (2, 2 * (p - 1) / p, (p - 1) / p),
    }
    a, b, c = terms[algorithm]()
    return a * alpha + nbytes * (b * beta + c * gamma)


def ceil_log2(p: int) -> int:
    return (p - 1).bit_length()


FORMULAS = ("ring", "tree", "binomial", "recursive-doubling", "halving-doubling", "one-shot", "two-shot")
"""The all-reduce algorithms that loggp_ps and hockney know."""


def _known(algorithm: str) -> None:
    if algorithm not in FORMULAS:
        raise UserError(f"{algorithm!r} has no closed form; accepted: --model replay, or {', '.join(FORMULAS)}")
