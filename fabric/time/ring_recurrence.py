r"""The ring all-reduce of collectives/ring.py, evaluated without writing it out.

One channel, one slice. Let begin(s, r) be when the port of rank r begins to transmit its stage-s message, and n the bytes
of the chunk j = r-s-1 (mod p) that it then sends, n' those of chunk j+1 that it sent the stage before. The walk of network.py
comes to (o is send_overhead, o' recv_overhead, left the hop from r-1 to r, own the hop from r to r+1)::

    begin(0, r) = o[own]
    begin(s, r) = max( begin(s-1, r)   + stay,    stay  = max(after, gap[own], W[own](n'))
                       begin(s-1, r-1) + pass )   pass  = L[left] + W[left](n) + delay + after
                                                  after = o'[left] + reduce(n) in the first half + o[own]
    finish(r)   = max(begin(S, r), begin(S, r-1) + L[left] + W[left](n) + delay) + o'[left]        S = 2p-3

since a rank's clock stands at begin(s-1, r) when it comes to the receive of stage s. The time in_free at which a port can
receive again never counts: the left rank's begins are max(gap, W) apart, so by induction in_free is at most begin + L.
Chunks differ by one element at most, so a hop has two sets of costs, and at any stage the ranks that send a long chunk
stand side by side; the place where the lengths change moves on by one rank a stage.

Where there are fewer elements than ranks the empty chunks' messages do not exist: at those stages stay is 0 and pass minus
infinity, and a rank's clock stands still. A rank that has sent nothing yet holds EMPTY, minus infinity.

Several channels or slices share a rank's clock and its ports, so `many_rings` walks each rank's stage message by message, all
ranks abreast.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from numba import njit

from ...collectives.schedule import split
from ...errors import UserError
from ..physics.network import Network, delay_slot, pair_class, wire_ps, work_ps
from .ring_lanes import EMPTY, STAGES, fill, is_long, lanes, receive_index, take
from .ring_passage import passage

LEAST_RANKS = 1024  # from here on a ring is cut into lanes
SEGMENT_RANKS = 4096  # fewest that are worth a thread
SEGMENT_HALO = 4096  # stages between two meetings of the threads, at most
CHECK_STAGES = 512  # stages of the simple walk between two calls of `progress`


class Costs(NamedTuple):
    """int64 ps [2, ranks of the segment]: of a long and of a short chunk. The letters are this file's docstring's."""

    after: np.ndarray
    own: np.ndarray  # max(gap[own], W[own])
    pass_: np.ndarray


@njit(cache=True, nogil=True)
def _costs(net, long_bytes, short_bytes, reducing, first, after, own, pass_):
    ranks = len(net.reduce_ps)
    for i in range(after.shape[1]):
        rank = (first + i) % ranks
        left, right = (rank - 1) % ranks, (rank + 1) % ranks
        k_left, k_own = pair_class(net, left, rank), pair_class(net, rank, right)
        for length in range(2):
            nbytes = long_bytes if length == 0 else short_bytes
            reduced = work_ps(net.reduce_ps[rank], nbytes) if reducing else 0
            after[length, i] = net.recv_overhead[k_left] + reduced + net.send_overhead[k_own]
            own[length, i] = max(net.gap[k_own], wire_ps(net, k_own, rank, right, nbytes))
            pass_[length, i] = net.latency[k_left] + wire_ps(net, k_left, left, rank, nbytes) + after[length, i]
            if nbytes == 0:
                after[length, i], own[length, i], pass_[length, i] = 0, 0, EMPTY
        if short_bytes == 0:
            # Chunks that are not empty have one length then: all of `stay` stands in `after`.
            after[0, i] = max(after[0, i], own[0, i])
            own[0, i] = 0


def ring_costs(net: Network, count: int, itemsize: int, reducing: bool, first: int, size: int) -> Costs:
    """The costs of ranks first, first+1, ... first+size-1 (mod p) in the first half (reducing) or the second."""
    base = count // net.ranks
    costs = Costs(*(np.empty((2, size), np.int64) for _ in range(3)))
    _costs(net, (base + 1) * itemsize, base * itemsize, reducing, first, *costs)
    return costs


@njit(cache=True, nogil=True)
def walk(net, noisy, begin, after, own, pass_, first, longer, filled, closed, stage, stages):
    """Advance begin (int64 [size], in place; ranks first, first+1, ...) from `stage` by `stages`, plainly.

    closed: the segment is the whole ring. Otherwise nothing comes from its left.
    """
    ranks, noise, seed = len(net.reduce_ps), net.noise, net.seed
    size = len(begin)
    for s in range(stage + 1, stage + stages + 1):
        before = begin[size - 1] if closed else EMPTY
        long_before = is_long(first, s - 1, ranks, longer)
        chunk = (first - s - 1) % ranks
        for i in range(size):
            long = chunk < longer
            k = 0 if long else 1
            stay = max(after[k, i], own[0 if long_before else 1, i])
            arrives = before + pass_[k, i]
            if noisy:
                rank = (first + i) % ranks
                arrives += noise[delay_slot(seed, rank, receive_index(rank, s, ranks, filled))]
            before = begin[i]
            begin[i] = max(before + stay, arrives)
            # The next rank now sends chunk + 1, and sent chunk + 2 in the stage before.
            chunk = chunk + 1 if chunk + 1 < ranks else 0
            following = chunk + 1 if chunk + 1 < ranks else 0
            long_before = following < longer


@njit(cache=True, nogil=True)
def first_begins(net, filled):
    ranks = len(net.reduce_ps)
    begin = np.empty(ranks, np.int64)
    for rank in range(ranks):
        k = pair_class(net, rank, (rank + 1) % ranks)
        begin[rank] = net.send_overhead[k] if (rank - 1) % ranks < filled else EMPTY
    return begin


@njit(cache=True, nogil=True)
def finish_times(net, noisy, begin, long_bytes, short_bytes, longer, filled):
    """The last receive, that no send follows."""
    ranks = len(net.reduce_ps)
    finish = np.empty(ranks, np.int64)
    stage = 2 * ranks - 2
    for rank in range(ranks):
        nbytes = long_bytes if is_long(rank, stage, ranks, longer) else short_bytes
        if nbytes == 0:
            finish[rank] = begin[rank]
            continue
        left = (rank - 1) % ranks
        k = pair_class(net, left, rank)
        arrival = begin[left] + net.latency[k] + wire_ps(net, k, left, rank, nbytes)
        if noisy:
            arrival += net.noise[delay_slot(net.seed, rank, receive_index(rank, stage, ranks, filled))]
        finish[rank] = max(begin[rank], arrival) + net.recv_overhead[k]
    return finish


@njit(cache=True, nogil=True)
def half_finish_times(net, noisy, begin, nbytes, reducing, copied):
    """The last receive of a half alone, stage p-1, and the copy of a rank's own block at its end. All blocks have nbytes."""
    ranks = len(net.reduce_ps)
    finish = np.empty(ranks, np.int64)
    for rank in range(ranks):
        left = (rank - 1) % ranks
        k = pair_class(net, left, rank)
        arrival = begin[left] + net.latency[k] + wire_ps(net, k, left, rank, nbytes)
        if noisy:
            arrival += net.noise[delay_slot(net.seed, rank, receive_index(rank, ranks - 1, ranks, ranks))]
        finish[rank] = max(begin[rank], arrival) + net.recv_overhead[k]
        if reducing:
            finish[rank] += work_ps(net.reduce_ps[rank], nbytes)
        if copied:
            finish[rank] += work_ps(net.copy_ps[rank], nbytes)
    return finish


def half_ring(
    net: Network,
    count: int,
    itemsize: int,
    reducing: bool,
    copied: bool,
    by_passage: bool,
    *,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """finish of each rank, int64 [p] ps, of one half of a ring alone: blocks of `count` elements, one channel, one slice."""
    ranks, everything = net.ranks, count * net.ranks
    begin, stages = first_begins(net, ranks), ranks - 2
    if by_passage:
        begin = passage(begin, *ring_costs(net, everything, itemsize, reducing, 0, ranks), 0, ranks, 0, stages)
    else:
        done = 0
        for now, advanced in _advance(net, everything, itemsize, begin, reducing, 0, stages, threads):
            begin, done = advanced, done + now
            if progress is not None:
                progress(done / stages)
    return half_finish_times(net, net.noisy, begin, count * itemsize, reducing, copied)


def phases(ranks: int) -> tuple[tuple[bool, int, int], ...]:
    """(reducing, stage before, stages) of the two halves, up to the last send."""
    return ((True, 0, ranks - 1), (False, ranks - 1, ranks - 2))


def filled_chunks(count: int, ranks: int) -> int:
    """Chunks 0 ... filled-1 have elements."""
    return min(count, ranks)


def check_range(net: Network, count: int, itemsize: int, messages_in_a_row: int) -> None:
    """Raises UserError if times might leave the int64 picoseconds."""
    nbytes = count * itemsize
    slowest = float(np.max(net.byte_ps)) * float(np.max(net.slow)) + float(np.max(net.reduce_ps))
    figures = (net.latency, net.gap, net.send_overhead, net.recv_overhead, net.noise)
    most = sum(float(np.max(f)) for f in figures) * messages_in_a_row
    most += slowest * min(nbytes * messages_in_a_row, (nbytes / net.ranks + itemsize) * messages_in_a_row)
    if most > -EMPTY / 2:
        raise UserError(
            f"{nbytes} bytes over {net.ranks} ranks may take {most / 1e12:.3g} s on this network; accepted: up to "
            f"{-EMPTY / 2e12:.3g} s, the range of times in picoseconds"
        )


def one_ring_steps(
    net: Network,
    count: int,
    itemsize: int,
    *,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """finish of each rank, int64 [p] ps, by evaluating every message of a ring of one channel and one slice."""
    ranks = net.ranks
    filled = filled_chunks(count, ranks)
    begin = first_begins(net, filled)
    done, everything = 0, 2 * ranks - 3
    for reducing, stage, stages in phases(ranks):
        for stages_now, advanced in _advance(net, count, itemsize, begin, reducing, stage, stages, threads):
            begin = advanced
            done += stages_now
            if progress is not None:
                progress(done / everything)
    base, longer = divmod(count, ranks)
    return finish_times(net, net.noisy, begin, (base + 1) * itemsize, base * itemsize, longer, filled)


def _advance(net, count, itemsize, begin, reducing, stage, stages, threads):
    """Advance the whole ring, and yield now and then: (stages taken since, begins)."""
    ranks = net.ranks
    longer, filled = count % ranks, filled_chunks(count, ranks)
    costs = ring_costs(net, count, itemsize, reducing, 0, ranks)
    begin = begin.copy()
    in_lanes = stages // STAGES * STAGES if ranks >= LEAST_RANKS else 0
    alone, end = stage, stage + stages - in_lanes
    while alone < end:
        now = min(CHECK_STAGES, end - alone)
        walk(net, net.noisy, begin, *costs, 0, longer, filled, True, alone, now)
        alone += now
        yield now, begin
    if not in_lanes:
        return
    segments = max(1, min(threads, ranks // SEGMENT_RANKS))
    halo = min(SEGMENT_HALO, ranks // segments // 8) // STAGES * STAGES
    cuts = [ranks * k // segments for k in range(segments + 1)]
    parts = [_Part(net, costs, cuts[k] - halo, cuts[k + 1], longer, filled, end) for k in range(segments)]
    with ThreadPoolExecutor(segments) as pool:
        stage, last = end, end + in_lanes
        while stage < last:
            now = min(halo, last - stage)

            def work(part, begin=begin, stage=stage, now=now):
                return part.take(begin, stage, now)[halo:]

            begin = np.concatenate(list(pool.map(work, parts) if segments > 1 else map(work, parts)))
            stage += now
            yield now, begin


class _Part:
    """A segment of the ring in lanes, which keeps its costs from one block of stages to the next."""

    def __init__(self, net, costs, first, end, longer, filled, stage):
        self.net, self.longer, self.filled = net, longer, filled
        self.at = np.arange(first, end) % net.ranks
        self.room = lanes(end - first)
        pieces = (np.ascontiguousarray(c[:, self.at]) for c in costs)
        fill(self.room, first % net.ranks, net.ranks, longer, stage, *pieces)

    def take(self, begin, stage, stages):
        mine = begin[self.at]
        take(self.net, self.net.noisy, self.room, mine, self.longer, self.filled, stage, stages)
        return mine


class _Hops(NamedTuple):
    """int64 figures of the hop from each rank to the next, [p], or [2, p] for messages of the smaller and the larger size."""

    send_overhead: np.ndarray
    recv_overhead: np.ndarray
    latency: np.ndarray
    port: np.ndarray
    wire: np.ndarray
    busy: np.ndarray  # max(gap, W): how long a send keeps its port
    reduce: np.ndarray  # of the rank, not the hop


class _Clocks(NamedTuple):
    """int64 ps [p] (or [ports, p]): each rank's state between two stages; received: how many messages, for the noise."""

    clock: np.ndarray
    out_free: np.ndarray
    in_free: np.ndarray
    received: np.ndarray


@njit(cache=True, nogil=True)
def _fill_hops(net, sizes, hops):
    ranks = len(net.reduce_ps)
    for rank in range(ranks):
        right = (rank + 1) % ranks
        k = pair_class(net, rank, right)
        hops.send_overhead[rank], hops.recv_overhead[rank] = net.send_overhead[k], net.recv_overhead[k]
        hops.latency[rank], hops.port[rank] = net.latency[k], net.port[k]
        for i in range(2):
            hops.wire[i, rank] = wire_ps(net, k, rank, right, sizes[i])
            hops.busy[i, rank] = max(net.gap[k], hops.wire[i, rank])
            hops.reduce[i, rank] = work_ps(net.reduce_ps[rank], sizes[i])


@njit(cache=True, nogil=True)
def _one_stage(net, noisy, hops, clocks, longer, size, stage, before, begin, rank0, rank1):
    """One stage of ranks rank0 ... rank1-1, message by message in the table's order.

    longer: int64 [channels], long chunks; size: int8 [channels, 2, slices], which of the two sizes a slice of a long or
    short chunk has, -1 where it is empty; before, begin: int64 [channels, slices, p], of the stage before and of this one.
    """
    ranks, noise, seed = len(net.reduce_ps), net.noise, net.seed
    channels, _, slices = size.shape
    last = 2 * ranks - 2
    for rank in range(rank0, rank1):
        left, right = rank - 1 if rank else ranks - 1, rank + 1 if rank + 1 < ranks else 0
        even, odd = (rank - stage - 1) % ranks, (-rank - stage - 1) % ranks  # the chunk of even and of odd channels
        t = clocks.clock[rank]
        for piece in range(slices):
            for channel in range(channels):
                # An odd channel turns the other way: its hops are those of the even ones, run backwards.
                forward = channel % 2 == 0
                which = size[channel, 0 if (even if forward else odd) < longer[channel] else 1, piece]
                if which < 0:
                    continue
                if stage > 0:
                    hop, peer = (left, left) if forward else (rank, right)
                    q, wire = hops.port[hop], hops.wire[which, hop]
                    first = max(before[channel, piece, peer] + hops.latency[hop], clocks.in_free[q, rank])
                    clocks.in_free[q, rank] = first + wire
                    arrival = first + wire
                    if noisy:
                        arrival += noise[delay_slot(seed, rank, clocks.received[rank])]
                        clocks.received[rank] += 1
                    t = max(t, arrival) + hops.recv_overhead[hop]
                    if stage < ranks:
                        t += hops.reduce[which, rank]
                if stage < last:
                    hop = rank if forward else left
                    q = hops.port[hop]
                    t = max(t + hops.send_overhead[hop], clocks.out_free[q, rank])
                    clocks.out_free[q, rank] = t + hops.busy[which, hop]
                    begin[channel, piece, rank] = t
        clocks.clock[rank] = t


@njit(cache=True, nogil=True)
def _some_stages(net, noisy, hops, clocks, longer, size, stage, stages, begins):
    for s in range(stage, stage + stages):
        _one_stage(net, noisy, hops, clocks, longer, size, s, begins[(s + 1) % 2], begins[s % 2], 0, len(net.reduce_ps))


def many_rings(
    net: Network,
    count: int,
    itemsize: int,
    channels: int,
    slices: int,
    *,
    threads: int = 1,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """finish of each rank, int64 [p] ps, of a ring of any channels and slices, every message evaluated."""
    ranks = net.ranks
    smaller = count // (channels * ranks * slices)  # cut three times as evenly as can be: two sizes in all
    longer = np.empty(channels, np.int64)
    size = np.full((channels, 2, slices), -1, np.int8)
    for channel, (_, length) in enumerate(split(count, channels)):
        base, longer[channel] = divmod(length, ranks)
        for short in range(2):
            for piece, (_, n) in enumerate(split(base + 1 - short, slices)):
                # A channel without long chunks may have none of that size.
                size[channel, short, piece] = min(n - smaller, 1) if n else -1
    ports = len(net.slow)
    hops = _Hops(*(np.empty(ranks, np.int64) for _ in range(4)), *(np.empty((2, ranks), np.int64) for _ in range(3)))
    _fill_hops(net, np.array([smaller, smaller + 1]) * itemsize, hops)
    clocks = _Clocks(np.zeros(ranks, np.int64), *np.zeros((2, ports, ranks), np.int64), np.zeros(ranks, np.int64))
    begins = np.zeros((2, channels, slices, ranks), np.int64)
    segments = max(1, min(threads, ranks // SEGMENT_RANKS))
    cuts = [ranks * k // segments for k in range(segments + 1)]
    # Between two calls of `progress`: about a tenth of a second.
    some = max(1, 10**7 // (ranks * channels * slices))
    stages = 2 * ranks - 1
    with ThreadPoolExecutor(segments) as pool:
        for stage in range(0, stages, some):
            now = min(some, stages - stage)
            if segments == 1:
                _some_stages(net, net.noisy, hops, clocks, longer, size, stage, now, begins)
            for s in range(stage, stage + now) if segments > 1 else ():

                def work(k, s=s):
                    before, begin = begins[(s + 1) % 2], begins[s % 2]
                    _one_stage(net, net.noisy, hops, clocks, longer, size, s, before, begin, cuts[k], cuts[k + 1])

                list(pool.map(work, range(segments)))
            if progress is not None:
                progress((stage + now) / stages)
    return clocks.clock


def one_ring_passage(net: Network, count: int, itemsize: int) -> np.ndarray:
    """As one_ring_steps, for a network without noise, by longest paths (ring_passage.py)."""
    ranks = net.ranks
    base, longer = divmod(count, ranks)
    filled = filled_chunks(count, ranks)
    begin = first_begins(net, filled)
    for reducing, stage, stages in phases(ranks):
        costs = ring_costs(net, count, itemsize, reducing, 0, ranks)
        begin = passage(begin, *costs, longer, filled, stage, stages)
    return finish_times(net, False, begin, (base + 1) * itemsize, base * itemsize, longer, filled)
