"""What a message costs: the one table of figures that every simulator and the emulation read.

A `Network` says who is near whom and what each kind of link costs; `build.py` makes one from a system card. Times are int64
picoseconds, so that simulators that add them in another order agree to the last bit; costs a byte are float64 picoseconds.

How time passes (the *table-order walk*; replay, recurrences and emulated ranks all follow it). Each rank walks its table in
order, as the transports do, with a clock t and, for each port, a time at which the port is free to send and to receive. For
a message of n bytes from a to b of class k (``pair_class``), over port q = port[k], with W = ``wire_ps``::

    SEND at a            begin = max(t + send_overhead[k], out_free[a, q])
                         out_free[a, q] = begin + max(gap[k], W);   t = begin
    RECV at b            first = max(begin + latency[k], in_free[b, q]);   in_free[b, q] = first + W
                         t = max(t, first + W + delay) + recv_overhead[k]
    RECV_REDUCE at b     as RECV, then t += n * reduce_ps[b]
    REDUCE, COPY         t += n * reduce_ps[rank], n * copy_ps[rank]
    after (a SEND)       t = max(t, the clock at which the receiver finished that message + latency[k])

A SEND holds the walk until its port begins to transmit: a queue of depth one. ``delay`` is the seeded noise of the rank's
i-th receive. Everything is a maximum or a sum along the table, so the order in which ranks are advanced does not matter.
The all-reduce is finished when the last rank's clock stops.

The letters are LogGP's: send_overhead and recv_overhead are o, gap is g, latency L, byte_ps G (Alexandrov et al. 1995).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

PS = 1_000_000_000_000  # picoseconds in a second
NOISE_ENTRIES = 4096  # quantiles of the delay's distribution


class Network(NamedTuple):
    """Figures of `ranks` ranks over `levels` levels of nearness; k = 0 ... levels is a message's class.

    Two ranks are of the first class whose level has them in one group, of class `levels` where none has.
    """

    groups: np.ndarray  # int32 [levels, ranks]: the group of each rank; level 0 is the tightest (one NVLink domain)
    send_overhead: np.ndarray  # int64 [levels + 1] ps
    recv_overhead: np.ndarray  # int64 [levels + 1] ps
    gap: np.ndarray  # int64 [levels + 1] ps: least time between two messages of a port (1 / message rate)
    latency: np.ndarray  # int64 [levels + 1] ps
    byte_ps: np.ndarray  # float64 [levels + 1] ps a byte
    port: np.ndarray  # int64 [levels + 1]: which of a rank's ports the class uses
    slow: np.ndarray  # float64 [ports, ranks]: >= 1, multiplies byte_ps at that rank's port, sending and receiving
    reduce_ps: np.ndarray  # float64 [ranks] ps a byte of the result
    copy_ps: np.ndarray  # float64 [ranks] ps a byte
    noise: np.ndarray  # int64 [NOISE_ENTRIES] ps: quantiles of the delay of a receive, ascending; all 0: no noise
    seed: int  # of the noise

    @property
    def ranks(self) -> int:
        return len(self.reduce_ps)

    @property
    def noisy(self) -> bool:
        return bool(self.noise.any())


def network(
    groups: np.ndarray,
    *,
    latency,
    byte_ps,
    send_overhead=0,
    recv_overhead=0,
    gap=0,
    port=None,
    slow=None,
    reduce_ps=0.0,
    copy_ps=0.0,
    noise=None,
    seed: int = 0,
) -> Network:
    """A checked Network. Scalars are taken for all classes (or ranks); `groups` may have no level: one class.

    port None: port 0 for class 0 and port 1 for the others (NVLink and the NIC), or port 0 where there is one class.
    Raises ValueError for shapes that do not fit, negative or non-finite figures.
    """
    # All arrays are copies: what is read-only or not contiguous is another type to Numba, which would compile anew for it.
    groups = np.array(groups, np.int32, order="C")
    if groups.ndim != 2:
        raise ValueError(f"groups has {groups.ndim} dimensions; accepted: [levels, ranks]")
    levels, ranks = groups.shape
    classes = levels + 1

    def spread(name, value, length, dtype):
        out = np.array(np.broadcast_to(np.asarray(value, dtype), (length,)))
        if not np.all(np.isfinite(out)) or np.any(out < 0):
            raise ValueError(f"{name} must be finite and >= 0")
        return out

    if port is None:
        port = np.minimum(np.arange(classes), 1)
    port = spread("port", port, classes, np.int64)
    ports = int(port.max()) + 1
    slow = np.ones((ports, ranks)) if slow is None else np.array(slow, np.float64, order="C")
    if slow.shape != (ports, ranks) or not np.all(slow >= 1) or not np.all(np.isfinite(slow)):
        raise ValueError(f"slow must be finite, >= 1 and of shape {(ports, ranks)}")
    noise = np.zeros(NOISE_ENTRIES, np.int64) if noise is None else np.array(noise, np.int64, order="C")
    if noise.shape != (NOISE_ENTRIES,) or np.any(noise < 0) or np.any(np.diff(noise) < 0):
        raise ValueError(f"noise must be {NOISE_ENTRIES} ascending delays >= 0")
    return Network(
        groups,
        spread("send_overhead", send_overhead, classes, np.int64),
        spread("recv_overhead", recv_overhead, classes, np.int64),
        spread("gap", gap, classes, np.int64),
        spread("latency", latency, classes, np.int64),
        spread("byte_ps", byte_ps, classes, np.float64),
        port,
        slow,
        spread("reduce_ps", reduce_ps, ranks, np.float64),
        spread("copy_ps", copy_ps, ranks, np.float64),
        noise,
        int(seed),
    )


def flat(ranks: int, **figures) -> Network:
    """A network of one class: every pair of ranks alike."""
    return network(np.zeros((0, ranks), np.int32), **figures)


@njit(cache=True, nogil=True)
def pair_class(net, a, b):
    """The class of a message between ranks a and b."""
    for level in range(net.groups.shape[0]):
        if net.groups[level, a] == net.groups[level, b]:
            return level
    return net.groups.shape[0]


@njit(cache=True, nogil=True)
def wire_ps(net, k, a, b, nbytes):
    """Picoseconds that `nbytes` occupy the link from a to b, of class k: the slower of the two ports counts."""
    q = net.port[k]
    return np.int64(nbytes * net.byte_ps[k] * max(net.slow[q, a], net.slow[q, b]) + 0.5)


@njit(cache=True, nogil=True)
def work_ps(byte_ps, nbytes):
    """Picoseconds of local work on `nbytes`."""
    return np.int64(nbytes * byte_ps + 0.5)


@njit(cache=True, nogil=True)
def delay_slot(seed, rank, index):
    """Which of the NOISE_ENTRIES quantiles the delay of a rank's receive number `index` is."""
    x = np.uint64(seed) ^ (np.uint64(rank) << np.uint64(40)) ^ np.uint64(index)
    # splitmix64 (Steele, Lea and Flood 2014): consecutive inputs give unrelated outputs.
    x += np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return np.int64(x >> np.uint64(52))


@njit(cache=True, nogil=True)
def delay_ps(net, rank, index):
    """The noise of a rank's receive number `index` (from 0, in table order): the same for every simulator."""
    return net.noise[delay_slot(net.seed, rank, index)]
