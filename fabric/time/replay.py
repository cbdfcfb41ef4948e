"""Replay: a schedule walked message by message under the rules of network.py.

Every rank walks its table until it meets a receive whose message has not been sent; the send that comes later puts it back on
the list. All times are maxima and sums along the tables, so the order does not matter; the one used here (first woken,
first walked) keeps one rank's state hot for many steps. Messages under way lie in a pool that is as large as their
largest number; the pool and the ranks' clocks are all the memory that is used beside the schedule itself. A ring or tree
given as `Generated` has no tables at all.

Where `links` are given, messages also pass links that they share with others, first come, first served, by the time
their first byte gets there (contention.py says what links are). Then events are taken in the order of time, and ties
in the order (sending rank, its step).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import carray, from_dtype, njit, types
from numba.extending import intrinsic

from ...collectives.growing import grown_rows
from ...collectives.schedule import COPY, NOP, RECV, RECV_REDUCE, REDUCE, SEND, STEP, Schedule
from ...errors import UserError
from ..physics.network import PS, Network, delay_ps, pair_class, wire_ps, work_ps
from .generated import NO_FORMULA, TABLE, Generated, step

_STEP = from_dtype(STEP)

SPAN_SEND, SPAN_RECV, SPAN_WAIT, SPAN_REDUCE, SPAN_COPY, SPAN_OVERHEAD = range(6)
SPAN_FIELDS = ("rank", "channel", "kind", "start", "end", "peer", "bytes", "port")
MESSAGE_FIELDS = ("sender", "receiver", "channel", "start", "arrival", "bytes")

FINISHED, STUCK, LEFT_OVER, MISMATCH, BAD_STEP, GROW_POOL, GROW_QUEUES, GROW_TRACE = range(8)


class StuckError(UserError):
    """A schedule that cannot run to its end: a rank waits for what never comes, or a message is never received."""


@dataclass(frozen=True)
class Trace:
    """What happened, unordered.

    spans: int64 [n, 8], columns SPAN_FIELDS, times in ps. SPAN_SEND and SPAN_RECV say how long a port (column port)
    carried a message; the other kinds say what the rank's walk did: waited (for a message, a port or an `after`),
    reduced, copied, or spent a message's overhead. The spans of one rank's walk never overlap, nor do those of one port
    in one direction. messages: int64 [messages, 6], columns MESSAGE_FIELDS: first byte out and last byte in, ps.
    """

    spans: np.ndarray
    messages: np.ndarray


@dataclass(frozen=True)
class Replay:
    """finish: int64 [ranks] ps, when each rank's table ends; messages: how many were sent; in_flight: the most that
    were sent and not received at one moment of the walk."""

    finish: np.ndarray
    messages: int
    in_flight: int
    trace: Trace | None = None

    @property
    def picoseconds(self) -> int:
        return int(self.finish.max())

    @property
    def seconds(self) -> float:
        return self.picoseconds / PS


class Links(NamedTuple):
    """Links that messages share, and the way of each pair of ranks over them.

    byte_ps: float64 [links]; the pairs are sorted by sender * ranks + receiver, and pair i passes
    hops[starts[i] : starts[i + 1]] in this order. A pair that is not in the list shares no link.
    """

    byte_ps: np.ndarray
    pairs: np.ndarray  # int64 [pairs]
    starts: np.ndarray  # int64 [pairs + 1]
    hops: np.ndarray  # int32


NO_LINKS = Links(np.zeros(0), np.zeros(0, np.int64), np.zeros(1, np.int64), np.zeros(0, np.int32))


def replay(
    schedule: Schedule | Generated, net: Network, itemsize: int, *, links: Links = NO_LINKS, trace: bool = False
) -> Replay:
    """Walk `schedule` over `net`; `itemsize` is bytes an element.

    Raises StuckError if the schedule cannot run to its end, and ValueError for steps that make no sense, or where the
    network does not have the schedule's number of ranks.
    """
    if schedule.ranks != net.ranks:
        raise ValueError(f"the schedule has {schedule.ranks} ranks and the network {net.ranks}")
    if itemsize < 1:
        raise ValueError(f"itemsize is {itemsize}; accepted: 1 or more")
    if isinstance(schedule, Generated):
        formula, tables = schedule.formula(), ()
        addresses = np.zeros(0, np.int64)
        lengths = np.full(schedule.ranks, formula.positions, np.int64)
    else:
        formula = NO_FORMULA
        tables = [np.ascontiguousarray(t, STEP) for t in schedule.tables]  # kept until the walk is over
        addresses = np.array([t.ctypes.data for t in tables], np.int64)
        lengths = np.array([len(t) for t in tables], np.int64)
    problem, state, finish, spans, messages = _walk(
        formula, addresses, lengths, _plain(net), int(itemsize), _plain(links), bool(trace)
    )
    if problem != FINISHED:
        _complain(problem, state, schedule)
    traced = Trace(spans, messages) if trace else None
    return Replay(finish, int(state[SENT]), int(state[MOST]), traced)


def _plain(figures):
    """The same with every array writable and contiguous, so that there is one compiled walk for all."""
    arrays = (np.require(x, requirements=["C", "W"]) if isinstance(x, np.ndarray) else int(x) for x in figures)
    return type(figures)(*arrays)


def _complain(problem, state, schedule):
    rank, position, peer, channel = (int(state[i]) for i in (WHERE, WHERE_STEP, WHERE_PEER, WHERE_CHANNEL))
    where = f"{schedule.algorithm} over {schedule.ranks} ranks: rank {rank}"
    if problem == STUCK:
        raise StuckError(f"{where} waits at step {position} for rank {peer} on channel {channel} for ever")
    if problem == LEFT_OVER:
        raise StuckError(f"{where} sends a message to rank {peer} on channel {channel} that is never received")
    if problem == MISMATCH:
        raise ValueError(f"{where}, step {position}: the receive's count is not that of the message of rank {peer}")
    raise ValueError(f"{where}, step {position}: an unknown op, a peer that does not exist, or a wrong `after`")


@intrinsic
def _pointer(typing_context, address):
    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(_STEP)(types.int64), generate


@njit(cache=True, nogil=True)
def _table(address, length):
    return carray(_pointer(address), (length,))


# Compiled with _nrt=False below: what does not allocate need not count references to arrays, which costs more than a step.
# The pool of messages under way, and the queues they wait in.
# A message: when its first byte can be at the receiver (-1: not known yet), ps on the wire, elements, the one behind it,
# its sender's step, when it was sent, its queue, the next link it comes to.
READY, WIRE, COUNT, NEXT, NUMBER, START, QUEUE, HOP = range(8)
# A queue: first and last message, its ends, the class, whether its receiver stands still for it, its key, its first link and
# the end of its links.
HEAD, TAIL, FROM, TO, CHANNEL, CLASS, WAITING, KEY, HOPS, HOPS_END = range(10)
CHANNEL_BITS, POSITION_BITS = 20, 40


@njit(cache=True, nogil=True, _nrt=False)
def _hash(key, mask):
    return np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask


@njit(cache=True, nogil=True, _nrt=False)
def _before(times, keys, a, b):
    return times[a] < times[b] or (times[a] == times[b] and keys[a] < keys[b])


@njit(cache=True, nogil=True, _nrt=False)
def _push(heap, size, times, keys, item):
    """A binary heap of message numbers, earliest first."""
    at = size
    heap[at] = item
    while at > 0:
        up = (at - 1) >> 1
        if not _before(times, keys, item, heap[up]):
            break
        heap[at] = heap[up]
        at = up
    heap[at] = item
    return size + 1


@njit(cache=True, nogil=True, _nrt=False)
def _pop(heap, size, times, keys):
    """Takes heap[0] out (the caller has read it)."""
    size -= 1
    item = heap[size]
    at = 0
    while True:
        down = 2 * at + 1
        if down >= size:
            break
        if down + 1 < size and _before(times, keys, heap[down + 1], heap[down]):
            down += 1
        if not _before(times, keys, heap[down], item):
            break
        heap[at] = heap[down]
        at = down
    heap[at] = item
    return size


@njit(cache=True, nogil=True)
def _open(queue, q, sender, receiver, channel, key, net, links):
    """Fill in a queue that is seen for the first time."""
    queue[q, HEAD] = queue[q, TAIL] = -1
    queue[q, FROM], queue[q, TO], queue[q, CHANNEL], queue[q, KEY] = sender, receiver, channel, key
    queue[q, CLASS] = pair_class(net, sender, receiver)
    queue[q, WAITING] = 0
    queue[q, HOPS] = queue[q, HOPS_END] = 0
    if len(links.pairs):
        pair = sender * len(net.reduce_ps) + receiver
        i = np.searchsorted(links.pairs, pair)
        if i < len(links.pairs) and links.pairs[i] == pair:
            queue[q, HOPS], queue[q, HOPS_END] = links.starts[i], links.starts[i + 1]


@njit(cache=True, nogil=True, _nrt=False)
def _find(slots, queue, key):
    """The slot of a key, or the empty slot where it belongs."""
    mask = len(slots) - 1
    at = _hash(key, mask)
    while slots[at] >= 0 and queue[slots[at], KEY] != key:
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True)
def _rehashed(slots, queue, queues):
    out = np.full(2 * len(slots), -1, np.int64)
    for q in range(queues):
        out[_find(out, queue, queue[q, KEY])] = q
    return out


@njit(cache=True, nogil=True)
def _any_awaited(addresses, lengths):
    """Whether a step waits for a SEND to be complete: only then are completions kept."""
    for r in range(len(addresses)):
        table = _table(addresses[r], lengths[r])
        for i in range(lengths[r]):
            after = table[i].after
            if 0 <= after < i and table[after].op == SEND:
                return True
    return False


@njit(cache=True, nogil=True, _nrt=False)
def _segment(latency, hops, i):
    """The part of the latency up to the i-th of `hops` links, i = hops: up to the receiver."""
    return latency * (i + 1) // (hops + 1)


# What the walk remembers between calls of _advance.
(
    QUEUES,
    FREE,
    USED,
    EVENTS,
    SPANS,
    SENT,
    FLYING,
    MOST,
    TODO,
    TODO_SIZE,
    WHERE,
    WHERE_STEP,
    WHERE_PEER,
    WHERE_CHANNEL,
) = range(14)
MORE_SPANS = 6  # rows that one step may add


class _Ranks(NamedTuple):
    """The state of each rank."""

    clock: np.ndarray
    at: np.ndarray
    receives: np.ndarray
    out_free: np.ndarray  # [ranks, ports]
    in_free: np.ndarray  # [ranks, ports]
    awaited: np.ndarray  # the send whose completion it stands still for, -1
    todo: np.ndarray  # the list of ranks to walk, a circle
    first_step: np.ndarray  # steps of all ranks are numbered end to end
    complete: np.ndarray  # when each send was taken, -1; empty where nobody waits for one


@njit(cache=True, nogil=True, _nrt=False)
def _advance(state, of, queue, slots, pool, heap, event_time, event_key, link_free, spans, log,
             formula, addresses, lengths, net, itemsize, links):  # fmt: skip
    """Walk until nothing can go on (FINISHED, which may still be STUCK), an error, or an array is full (GROW_...)."""
    ranks = len(net.reduce_ps)
    kind, channels, slices, single = formula.kind, formula.channels, formula.slices, formula.single
    elements, nodes = formula.elements, formula.nodes
    written = kind == TABLE
    linked = len(links.pairs) > 0
    trace = len(log) > 0
    awaits = len(of.complete) > 0
    noisy = net.noise[-1] > 0
    todo, todo_size, events = state[TODO], state[TODO_SIZE], state[EVENTS]
    free, used, flying, most, sent = state[FREE], state[USED], state[FLYING], state[MOST], state[SENT]
    problem = FINISHED
    table = _table(np.int64(0), np.int64(0))

    while problem == FINISHED and (todo_size > 0 or events > 0):
        if todo_size == 0:
            # The earliest message comes to its next link.
            m = heap[0]
            events = _pop(heap, events, event_time, event_key)
            q = pool[m, QUEUE]
            hop = pool[m, HOP]
            link = links.hops[hop]
            busy = work_ps(links.byte_ps[link], pool[m, COUNT] * itemsize)
            begin = max(event_time[m], link_free[link])
            link_free[link] = begin + busy
            pool[m, WIRE] = max(pool[m, WIRE], busy)
            passed = hop - queue[q, HOPS] + 1
            total = queue[q, HOPS_END] - queue[q, HOPS]
            latency = net.latency[queue[q, CLASS]]
            begin += _segment(latency, total, passed) - _segment(latency, total, passed - 1)
            if passed < total:
                pool[m, HOP] = hop + 1
                event_time[m] = begin
                events = _push(heap, events, event_time, event_key, m)
            else:
                pool[m, READY] = begin
                if queue[q, WAITING] and queue[q, HEAD] == m:
                    queue[q, WAITING] = 0
                    todo = 0
                    of.todo[0] = queue[q, TO]
                    todo_size = 1
            continue

        r = of.todo[todo]
        t = of.clock[r]
        position = of.at[r]
        end = lengths[r]
        if written:
            table = _table(addresses[r], end)
        peer, channel = np.int64(-1), np.int64(0)
        while position < end:
            after = -1
            if written:
                op, peer, channel = (
                    np.int64(table[position].op),
                    np.int64(table[position].peer),
                    np.int64(table[position].channel),
                )
                count, after = table[position].count, np.int64(table[position].after)
                q = np.int64(-1)
            else:
                op, peer, channel, count, q = step(kind, ranks, channels, slices, single, elements, nodes, r, position)
                if count == 0:
                    position += 1
                    continue
            if trace and (state[SPANS] + MORE_SPANS > len(spans) or sent >= len(log)):
                problem = GROW_TRACE
                break

            if after >= 0:
                if after >= position:
                    problem = BAD_STEP
                    break
                if table[after].op == SEND:
                    done = of.complete[of.first_step[r] + after]
                    if done < 0:
                        of.awaited[r] = of.first_step[r] + after
                        break
                    done += net.latency[pair_class(net, r, table[after].peer)]
                    if trace:
                        _span(spans, state, r, channel, SPAN_WAIT, t, done, table[after].peer, 0, -1)
                    t = max(t, done)

            nbytes = count * itemsize
            if op == SEND or op == RECV or op == RECV_REDUCE:
                if written:
                    if peer < 0 or peer >= ranks or peer == r or channel < 0 or channel >> CHANNEL_BITS or count < 0:
                        problem = BAD_STEP
                        break
                    sender, receiver = (r, peer) if op == SEND else (peer, r)
                    key = ((sender * ranks + receiver) << CHANNEL_BITS) | channel
                    slot = _find(slots, queue, key)
                    q = slots[slot]
                    if q < 0:
                        q = state[QUEUES]
                        if q == len(queue):
                            problem = GROW_QUEUES
                            break
                        slots[slot] = q
                        state[QUEUES] = q + 1
                        _open(queue, q, sender, receiver, channel, key, net, links)
                elif queue[q, TO] < 0:
                    sender, receiver = (r, peer) if op == SEND else (peer, r)
                    _open(queue, q, sender, receiver, channel, 0, net, links)
                k = queue[q, CLASS]
                port = net.port[k]

                if op == SEND:
                    if free >= 0:
                        m = free
                        free = pool[m, NEXT]
                    elif used < len(pool):
                        m = used
                        used += 1
                    else:
                        problem = GROW_POOL
                        break
                    wire = wire_ps(net, k, r, peer, nbytes)
                    posted = t + net.send_overhead[k]
                    begin = max(posted, of.out_free[r, port])
                    of.out_free[r, port] = begin + max(net.gap[k], wire)
                    if trace:
                        _span(spans, state, r, channel, SPAN_OVERHEAD, t, posted, peer, nbytes, -1)
                        _span(spans, state, r, channel, SPAN_WAIT, posted, begin, peer, nbytes, -1)
                        _span(spans, state, r, channel, SPAN_SEND, begin, begin + wire, peer, nbytes, port)
                    t = begin

                    pool[m, WIRE] = wire
                    pool[m, COUNT] = count
                    pool[m, NEXT] = -1
                    pool[m, NUMBER] = position
                    pool[m, START] = begin
                    if queue[q, HEAD] < 0:
                        queue[q, HEAD] = m
                    else:
                        pool[queue[q, TAIL], NEXT] = m
                    queue[q, TAIL] = m
                    sent += 1
                    flying += 1
                    most = max(most, flying)
                    total = queue[q, HOPS_END] - queue[q, HOPS] if linked else 0
                    if total == 0:
                        pool[m, READY] = begin + net.latency[k]
                        if queue[q, WAITING]:
                            queue[q, WAITING] = 0
                            tail = todo + todo_size
                            of.todo[tail if tail < ranks else tail - ranks] = peer
                            todo_size += 1
                    else:
                        pool[m, READY] = -1
                        pool[m, QUEUE] = q
                        pool[m, HOP] = queue[q, HOPS]
                        event_time[m] = begin + _segment(net.latency[k], total, 0)
                        event_key[m] = (r << POSITION_BITS) | position
                        events = _push(heap, events, event_time, event_key, m)
                else:
                    m = queue[q, HEAD]
                    if m < 0 or pool[m, READY] < 0:
                        queue[q, WAITING] = 1
                        break
                    if pool[m, COUNT] != count:
                        problem = MISMATCH
                        break
                    wire = pool[m, WIRE]
                    first = max(pool[m, READY], of.in_free[r, port])
                    of.in_free[r, port] = first + wire
                    arrived = first + wire
                    if noisy:
                        arrived += delay_ps(net, r, of.receives[r])
                        of.receives[r] += 1
                    if trace:
                        _span(spans, state, r, channel, SPAN_RECV, first, first + wire, peer, nbytes, port)
                        _span(spans, state, r, channel, SPAN_WAIT, t, arrived, peer, nbytes, -1)
                        n = sent - flying
                        log[n, 0], log[n, 1], log[n, 2] = peer, r, channel
                        log[n, 3], log[n, 4], log[n, 5] = pool[m, START], first + wire, nbytes
                    t = max(t, arrived) + net.recv_overhead[k]
                    if trace:
                        _span(spans, state, r, channel, SPAN_OVERHEAD, t - net.recv_overhead[k], t, peer, nbytes, -1)
                    if op == RECV_REDUCE:
                        work = work_ps(net.reduce_ps[r], nbytes)
                        if trace:
                            _span(spans, state, r, channel, SPAN_REDUCE, t, t + work, -1, nbytes, -1)
                        t += work
                    if awaits:
                        number = of.first_step[peer] + pool[m, NUMBER]
                        of.complete[number] = t
                        if of.awaited[peer] == number:
                            of.awaited[peer] = -1
                            tail = todo + todo_size
                            of.todo[tail if tail < ranks else tail - ranks] = peer
                            todo_size += 1
                    queue[q, HEAD] = pool[m, NEXT]
                    pool[m, NEXT] = free
                    free = m
                    flying -= 1
            elif op == REDUCE or op == COPY:
                work = work_ps(net.reduce_ps[r] if op == REDUCE else net.copy_ps[r], nbytes)
                if trace:
                    _span(
                        spans,
                        state,
                        r,
                        channel,
                        SPAN_REDUCE if op == REDUCE else SPAN_COPY,
                        t,
                        t + work,
                        -1,
                        nbytes,
                        -1,
                    )
                t += work
            elif op != NOP:
                problem = BAD_STEP
                break
            position += 1
        of.clock[r] = t
        of.at[r] = position
        if problem == FINISHED:
            todo = todo + 1 if todo + 1 < ranks else 0
            todo_size -= 1
        elif problem < GROW_POOL:
            state[WHERE], state[WHERE_STEP], state[WHERE_PEER], state[WHERE_CHANNEL] = r, position, peer, channel
    state[TODO], state[TODO_SIZE], state[EVENTS] = todo, todo_size, events
    state[FREE], state[USED], state[FLYING], state[MOST], state[SENT] = free, used, flying, most, sent
    return problem


@njit(cache=True, nogil=True, _nrt=False)
def _span(spans, state, rank, channel, kind, start, end, peer, nbytes, port):
    """Add a row unless it is empty."""
    if end > start:
        n = state[SPANS]
        spans[n, 0], spans[n, 1], spans[n, 2], spans[n, 3] = rank, channel, kind, start
        spans[n, 4], spans[n, 5], spans[n, 6], spans[n, 7] = end, peer, nbytes, port
        state[SPANS] = n + 1


@njit(cache=True, nogil=True)
def _walk(formula, addresses, lengths, net, itemsize, links, trace):
    """(problem, state, finish, spans, messages)."""
    ranks = len(net.reduce_ps)
    ports = net.slow.shape[0]
    written = formula.kind == TABLE
    state = np.zeros(14, np.int64)
    state[FREE] = -1
    state[TODO_SIZE] = ranks

    first_step = np.zeros(ranks + 1, np.int64)
    for r in range(ranks):
        first_step[r + 1] = first_step[r] + lengths[r]
    awaits = written and _any_awaited(addresses, lengths)
    of = _Ranks(
        np.zeros(ranks, np.int64),
        np.zeros(ranks, np.int64),
        np.zeros(ranks, np.int64),
        np.zeros((ranks, ports), np.int64),
        np.zeros((ranks, ports), np.int64),
        np.full(ranks, -1, np.int64),
        np.arange(ranks),
        first_step,
        np.full(first_step[ranks] if awaits else 0, -1, np.int64),
    )

    queue = np.full((1024 if written else formula.queues, 10), -1, np.int64)
    slots = np.full(2048 if written else 1, -1, np.int64)
    pool = np.zeros((1024, 8), np.int64)
    linked = len(links.pairs) > 0
    heap = np.zeros(len(pool) if linked else 1, np.int64)
    event_time = np.zeros(len(pool) if linked else 1, np.int64)
    event_key = np.zeros(len(pool) if linked else 1, np.int64)
    link_free = np.zeros(len(links.byte_ps), np.int64)
    spans = np.zeros((1024 if trace else 0, 8), np.int64)
    log = np.zeros((256 if trace else 0, 6), np.int64)

    while True:
        problem = _advance(
            state, of, queue, slots, pool, heap, event_time, event_key, link_free, spans, log,
            formula, addresses, lengths, net, itemsize, links,
        )  # fmt: skip
        if problem == GROW_POOL:
            pool = grown_rows(pool)
            if linked:
                heap = np.concatenate((heap, np.zeros_like(heap)))
                event_time = np.concatenate((event_time, np.zeros_like(event_time)))
                event_key = np.concatenate((event_key, np.zeros_like(event_key)))
        elif problem == GROW_QUEUES:
            queue = grown_rows(queue)
            slots = _rehashed(slots, queue, state[QUEUES])
        elif problem == GROW_TRACE:
            spans = grown_rows(spans)
            log = grown_rows(log)
        else:
            break

    if problem == FINISHED:
        for r in range(ranks):
            if of.at[r] < lengths[r] and problem == FINISHED:
                problem = STUCK
                state[WHERE], state[WHERE_STEP] = r, of.at[r]
                if written:
                    table = _table(addresses[r], lengths[r])
                    i = of.at[r]
                    if of.awaited[r] >= 0:
                        i = np.int64(table[i].after)
                    state[WHERE_PEER], state[WHERE_CHANNEL] = table[i].peer, table[i].channel
    if problem == FINISHED and state[FLYING] > 0:
        for q in range(len(queue)):
            if queue[q, TO] >= 0 and queue[q, HEAD] >= 0:
                problem = LEFT_OVER
                state[WHERE], state[WHERE_STEP] = queue[q, FROM], pool[queue[q, HEAD], NUMBER]
                state[WHERE_PEER], state[WHERE_CHANNEL] = queue[q, TO], queue[q, CHANNEL]
    return problem, state, of.clock, spans[: state[SPANS]], log[: state[SENT] if trace else 0]
