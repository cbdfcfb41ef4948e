"""All-to-alls of collectives/direct.py, every message evaluated without writing the schedule out.

In stage d = 1 ... p-1 rank s sends to rank s+d (mod p), in **direct** and **pairwise** alike, and the k-th receive of rank r is of
its k-th stage, from rank r-d. So whatever a stage needs of a rank is its clock and when its ports are free, and all of p^2 messages
pass through memory for p ranks. The walk is that of physics/network.py (o is send_overhead, o' recv_overhead, W the time on the
wire)::

    begin(d, s)   = max( clock(s) + o, port free to send )             which is free again after max(gap, W)
    arrives(d, r) = max( begin(d, r-d) + L, port free to receive ) + W + delay
    clock(r)      = max( clock(r), arrives(d, r) ) + o'

A pairwise rank copies its own block first, and its receive of a stage comes before its send of the next. A direct one has sent all
before it copies, and then receives: its sends are walked twice, once for the clock that they leave, and again beside the receives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from ..physics.network import Network, delay_slot, pair_class, wire_ps, work_ps

SOME_MESSAGES = 5_000_000  # between two calls of `progress`


# Within the loops: a call that takes a network counts references to all its arrays, which costs more than a message.
_class, _wire, _delay_slot = (njit(f.py_func, inline="always") for f in (pair_class, wire_ps, delay_slot))


class _Ranks(NamedTuple):
    """int64 ps [p], or [ports, p]: clock, that of the receives where sends are walked apart; sender, that of the sends."""

    clock: np.ndarray
    sender: np.ndarray
    out_free: np.ndarray
    in_free: np.ndarray
    begin: np.ndarray
    wire: np.ndarray


@njit(inline="always")
def _send(net, clock, out_free, k, wire, rank):
    """When a message's first byte leaves; the clock stands there then."""
    port = net.port[k]
    begin = max(clock[rank] + net.send_overhead[k], out_free[port, rank])
    out_free[port, rank] = begin + max(net.gap[k], wire)
    clock[rank] = begin
    return begin


@njit(inline="always")
def _receive(net, noisy, clock, in_free, k, begin, wire, rank, number):
    port = net.port[k]
    arrived = max(begin + net.latency[k], in_free[port, rank]) + wire
    in_free[port, rank] = arrived
    if noisy:
        arrived += net.noise[_delay_slot(net.seed, rank, number)]
    clock[rank] = max(clock[rank], arrived) + net.recv_overhead[k]


@njit(cache=True, nogil=True, _nrt=False)
def _sends(net, of, nbytes, stage, end):
    """Stages stage ... end-1 of the sends alone."""
    ranks = len(net.reduce_ps)
    for d in range(stage, end):
        for s in range(ranks):
            r = s + d if s + d < ranks else s + d - ranks
            k = _class(net, s, r)
            _send(net, of.sender, of.out_free, k, _wire(net, k, s, r, nbytes), s)


@njit(cache=True, nogil=True, _nrt=False)
def _stages(net, noisy, of, pairwise, nbytes, stage, end):
    """Stages stage ... end-1. Pairwise, `sender` and `clock` are one array."""
    ranks = len(net.reduce_ps)
    for d in range(stage, end):
        for s in range(ranks):
            r = s + d if s + d < ranks else s + d - ranks
            k = _class(net, s, r)
            wire = _wire(net, k, s, r, nbytes)
            begin = _send(net, of.sender, of.out_free, k, wire, s)
            if pairwise:
                of.begin[s], of.wire[s] = begin, wire
            else:
                _receive(net, noisy, of.clock, of.in_free, k, begin, wire, r, d - 1)
        for s in range(ranks if pairwise else 0):
            r = s + d if s + d < ranks else s + d - ranks
            _receive(net, noisy, of.clock, of.in_free, _class(net, s, r), of.begin[s], of.wire[s], r, d - 1)


def exchange(
    net: Network, algorithm: str, nbytes: int, *, progress: Callable[[float], None] | None = None
) -> np.ndarray:
    """finish of each rank, int64 [p] ps, of an all-to-all of blocks of `nbytes`. algorithm: "direct" or "pairwise"."""
    ranks, ports = net.ranks, len(net.slow)
    pairwise = algorithm == "pairwise"
    copy = np.array([work_ps(ps, nbytes) for ps in net.copy_ps])
    of = _Ranks(
        *np.zeros((2, ranks), np.int64), *np.zeros((2, ports, ranks), np.int64), *np.zeros((2, ranks), np.int64)
    )
    parts, done = 1 if pairwise else 2, 0
    some = max(1, SOME_MESSAGES // ranks)

    def walk(run):
        nonlocal done
        for stage in range(1, ranks, some):
            end = min(ranks, stage + some)
            run(stage, end)
            done += end - stage
            if progress is not None:
                progress(done / (parts * (ranks - 1)))

    if pairwise:
        of.clock[:] = copy
        of = of._replace(sender=of.clock)
    else:
        walk(lambda stage, end: _sends(net, of, nbytes, stage, end))
        of.clock[:] = of.sender + copy
        of.sender[:], of.out_free[:] = 0, 0
    walk(lambda stage, end: _stages(net, net.noisy, of, pairwise, nbytes, stage, end))
    return of.clock
