"""LogGOPS: a schedule of sends, receives and calculations under the LogGOPSim model, event by event, in whole units of time.

The letters are those of Hoefler, Schneider and Lumsdaine (LogGOPSim, HPDC 2010): latency L, CPU overhead a message o, gap
between messages g, gap a byte G, CPU overhead a byte O, and S, above which a message waits for its receiver (rendezvous).
With x = size - 1, and for each host the time its CPU is free (cpu) and its NIC may send (out) and receive (in)::

    calc       waits for cpu;           cpu = t + duration
    send       waits for cpu and out;   cpu = t + o + x O;   out = t + g + x G;   the message gets there at t + o + L
    message    waits for cpu and in;    cpu = t + o + x max(O, G);   in = t + g + x G; then it meets its receive
    receive    takes no time of its own

A send of up to S bytes is done when it begins; a larger one when it meets its receive, which also holds the sender's CPU and
NIC until then. Note that a receiving CPU is busy for x G: this is LogGOPSim's reading, kept here so that results agree to
the last unit. `replay` models a fabric, where it is not.

Events are taken by (time, order of creation), as LogGOPSim does, for ties decide results. Many events share a time, so the
queue is a heap of runs: lists of events of one time, in order of creation. An event joins the run of its time if it is
younger than the run's last, and starts a run otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from ...collectives.growing import grown_rows
from ...errors import UserError
from .replay import StuckError

GOAL_SEND, GOAL_RECV, GOAL_CALC = 1, 2, 3
ANY = -1
LIMIT = 1 << 62


class LogGOPS(NamedTuple):
    """Whole numbers >= 0 of one unit of time (ns, ps); G and O a byte; S bytes. No S: all messages are eager."""

    L: int
    o: int
    g: int
    G: int
    O: int = 0  # noqa: E741
    S: int = (1 << 31) - 1


class Goal(NamedTuple):
    """A GOAL schedule: the operations of all ranks end to end; rank r's are starts[r] : starts[r + 1].

    edges: who depends on operation i stands in edges[first_edge[i] : first_edge[i + 1]]; on its start from there to
    start_edge[i], on its end after that. needs: how many edges point at each operation.
    """

    starts: np.ndarray  # int64 [ranks + 1]
    kind: np.ndarray  # uint8: GOAL_SEND, GOAL_RECV, GOAL_CALC
    size: np.ndarray  # int64: bytes, or the duration of a calculation
    peer: np.ndarray  # int32; ANY at a receive from anyone; -1 for calculations
    tag: np.ndarray  # int64; ANY at a receive of any tag
    cpu: np.ndarray  # int32
    nic: np.ndarray  # int32
    first_edge: np.ndarray  # int64 [operations + 1]
    start_edge: np.ndarray  # int64 [operations]
    edges: np.ndarray  # int32
    needs: np.ndarray  # int32

    @property
    def ranks(self) -> int:
        return len(self.starts) - 1


def goal(starts, kind, size, peer, tag, cpu, nic, before, after, at_start) -> Goal:
    """A Goal from its operations and edges: operation after[i] waits for before[i]: its start where at_start[i], else its end.

    Edges keep the order in which they are given. Raises UserError for peers or edges that do not exist, sizes, CPUs or
    NICs out of range.
    """
    starts = np.ascontiguousarray(starts, np.int64)
    kind, size = np.ascontiguousarray(kind, np.uint8), np.ascontiguousarray(size, np.int64)
    peer, tag = np.ascontiguousarray(peer, np.int32), np.ascontiguousarray(tag, np.int64)
    cpu, nic = np.ascontiguousarray(cpu, np.int32), np.ascontiguousarray(nic, np.int32)
    before, after = np.ascontiguousarray(before, np.int64), np.ascontiguousarray(after, np.int64)
    at_start = np.ascontiguousarray(at_start, bool)
    n = len(kind)
    owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    _require((kind >= GOAL_SEND) & (kind <= GOAL_CALC), owner, "is neither send, recv nor calc")
    _require(size >= 0, owner, "has a negative size")
    _require((cpu >= 0) & (cpu < 256) & (nic >= 0) & (nic < 256), owner, "has a CPU or NIC outside 0 ... 255")
    exists = (peer >= 0) & (peer < len(starts) - 1)
    _require(
        exists | (kind == GOAL_CALC) | ((kind == GOAL_RECV) & (peer == ANY)), owner, "names a rank that does not exist"
    )
    if n >= 1 << 31:
        raise UserError(f"{n} operations; accepted: fewer than 2^31")
    if len(before) and (min(before.min(), after.min()) < 0 or max(before.max(), after.max()) >= n):
        raise UserError("a dependency names an operation that does not exist")
    if len(before) and np.any(owner[before] != owner[after]):
        raise UserError("a dependency joins operations of two ranks; accepted: of one rank")
    first_edge, start_edge, edges, needs = _by_operation(n, before, after, at_start)
    return Goal(starts, kind, size, peer, tag, cpu, nic, first_edge, start_edge, edges, needs)


@njit(cache=True, nogil=True)
def _by_operation(n, before, after, at_start):
    """Edges sorted by the operation waited for, those on its start first, else in the given order."""
    first_edge = np.zeros(n + 1, np.int64)
    start_edge = np.zeros(n, np.int64)
    needs = np.zeros(n, np.int32)
    for e in range(len(before)):
        first_edge[before[e] + 1] += 1
        needs[after[e]] += 1
        if at_start[e]:
            start_edge[before[e]] += 1
    for i in range(n):
        first_edge[i + 1] += first_edge[i]
        start_edge[i] += first_edge[i]
    edges = np.empty(len(before), np.int32)
    next_start, next_end = first_edge[:-1].copy(), start_edge.copy()
    for e in range(len(before)):
        b = before[e]
        if at_start[e]:
            edges[next_start[b]] = after[e]
            next_start[b] += 1
        else:
            edges[next_end[b]] = after[e]
            next_end[b] += 1
    return first_edge, start_edge, edges, needs


def _require(good, owner, what):
    if not good.all():
        raise UserError(f"an operation of rank {int(owner[np.flatnonzero(~good)[0]])} {what}")


@dataclass(frozen=True)
class RingGoal:
    """The ring all-reduce LogGOPSim's figures are for, without writing it out.

    Each rank, for s in 0 ... 2(p-1)-1: sends floor(nbytes / p) bytes to its right with tag s, receives as many from its left;
    send s requires receive s-1, and receives require nothing.
    """

    ranks: int
    nbytes: int

    def __post_init__(self):
        if self.ranks < 2 or self.nbytes < self.ranks:
            raise ValueError(f"{self.ranks} ranks and {self.nbytes} bytes; accepted: 2 ranks or more, a byte for each")


@dataclass(frozen=True)
class Finish:
    """finish: int64 [ranks], when each rank's last CPU is free, in the unit of the parameters; messages; events taken."""

    finish: np.ndarray
    messages: int
    events: int

    @property
    def time(self) -> int:
        return int(self.finish.max())


def simulate(schedule: Goal | RingGoal, parameters: LogGOPS) -> Finish:
    """Run a schedule to its end.

    Raises StuckError if operations remain that can never run (cyclic dependencies, a receive that nobody sends to) or
    messages that nobody receives, and ValueError for parameters out of range.
    """
    for letter, value in parameters._asdict().items():
        if not 0 <= value < LIMIT or int(value) != value:
            raise ValueError(f"{letter} is {value}; accepted: whole numbers from 0 to 2^62")
    letters = LogGOPS(*(int(v) for v in parameters))
    if isinstance(schedule, RingGoal):
        ring_steps, size = 2 * (schedule.ranks - 1), schedule.nbytes // schedule.ranks
        goal_ = _EMPTY
        ranks, operations, roots, margin = schedule.ranks, 2 * ring_steps * schedule.ranks, schedule.ranks, 4
        largest, first = size, np.zeros(0, np.int64)
    else:
        ring_steps, size, goal_ = 0, 0, schedule
        ranks, operations = schedule.ranks, len(schedule.kind)
        largest = int(schedule.size.max(initial=0))
        owner = np.repeat(np.arange(ranks), np.diff(schedule.starts))
        free = np.flatnonzero(schedule.needs == 0)
        first = free[np.lexsort((schedule.kind[free], owner[free]))]
        roots = len(first)
        margin = 3 * int(np.diff(schedule.first_edge).max(initial=0)) + 4
    if largest * max(letters.G, letters.O, 1) >= LIMIT:
        raise ValueError(
            f"a size of {largest} at G = {letters.G}, O = {letters.O} overflows; use a larger unit of time"
        )
    done, finish, messages, events, lost = _simulate(goal_, first, roots, ranks, ring_steps, size, letters, margin)
    if lost[0] >= 0:
        raise StuckError(f"a message from rank {lost[1]} to rank {lost[0]} with tag {lost[2]} is never received")
    if done < operations:
        raise StuckError(f"{operations - done} of {operations} operations never run; the first is of rank {lost[3]}")
    return Finish(finish, messages, events)


_EMPTY = Goal(
    starts=np.zeros(1, np.int64), kind=np.zeros(0, np.uint8), size=np.zeros(0, np.int64), peer=np.zeros(0, np.int32),
    tag=np.zeros(0, np.int64), cpu=np.zeros(0, np.int32), nic=np.zeros(0, np.int32), first_edge=np.zeros(1, np.int64),
    start_edge=np.zeros(0, np.int64), edges=np.zeros(0, np.int32), needs=np.zeros(0, np.int32),
)  # fmt: skip

# An event, a run of events, and what the queue remembers.
EVENT, AGE, NEXT = range(3)
TIME, HEAD, TAIL, HEAD_AGE, TAIL_AGE = range(5)
FREE_EVENT, USED_EVENTS, FREE_RUN, USED_RUNS, HEAP, LIVE = range(6)
RING_BITS = 32  # an operation of a ring is (rank << RING_BITS) + send
RECENT = 256  # times whose run is remembered


# Compiled with _nrt=False: nothing here allocates, and counting references to arrays at every small function they are
# passed to costs more than an event does.
@njit(cache=True, nogil=True, _nrt=False)
def _earlier(runs, a, b):
    return runs[a, TIME] < runs[b, TIME] or (runs[a, TIME] == runs[b, TIME] and runs[a, HEAD_AGE] < runs[b, HEAD_AGE])


@njit(cache=True, nogil=True, _nrt=False)
def _sink(heap, size, runs, at):
    """Move heap[at] down to its place."""
    run = heap[at]
    while True:
        down = 2 * at + 1
        if down >= size:
            break
        if down + 1 < size and _earlier(runs, heap[down + 1], heap[down]):
            down += 1
        if not _earlier(runs, heap[down], run):
            break
        heap[at] = heap[down]
        at = down
    heap[at] = run


@njit(cache=True, nogil=True, _nrt=False)
def _add(queue, pool, runs, heap, recent, time, event, age):
    """Put an event in. The arrays have room (see LIVE)."""
    e = queue[FREE_EVENT]
    if e >= 0:
        queue[FREE_EVENT] = pool[e, NEXT]
    else:
        e = queue[USED_EVENTS]
        queue[USED_EVENTS] += 1
    pool[e, EVENT] = event
    pool[e, AGE] = age
    pool[e, NEXT] = -1
    queue[LIVE] += 1
    slot = np.int64((np.uint64(time) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(56))
    run = recent[slot]
    if run >= 0 and runs[run, TIME] == time and runs[run, TAIL_AGE] < age:
        pool[runs[run, TAIL], NEXT] = e
        runs[run, TAIL] = e
        runs[run, TAIL_AGE] = age
        return
    run = queue[FREE_RUN]
    if run >= 0:
        queue[FREE_RUN] = runs[run, HEAD]
    else:
        run = queue[USED_RUNS]
        queue[USED_RUNS] += 1
    recent[slot] = run
    runs[run, TIME] = time
    runs[run, HEAD] = runs[run, TAIL] = e
    runs[run, HEAD_AGE] = runs[run, TAIL_AGE] = age
    at = queue[HEAP]
    queue[HEAP] += 1
    while at > 0:
        up = (at - 1) >> 1
        if not _earlier(runs, run, heap[up]):
            break
        heap[at] = heap[up]
        at = up
    heap[at] = run


@njit(cache=True, nogil=True, _nrt=False)
def _take(queue, pool, runs, heap):
    """Remove the first event; (time, event, age)."""
    run = heap[0]
    e = runs[run, HEAD]
    time, event, age = runs[run, TIME], pool[e, EVENT], pool[e, AGE]
    after = pool[e, NEXT]
    pool[e, NEXT] = queue[FREE_EVENT]
    queue[FREE_EVENT] = e
    queue[LIVE] -= 1
    if after >= 0:
        runs[run, HEAD] = after
        runs[run, HEAD_AGE] = pool[after, AGE]
    else:
        runs[run, TIME] = -1  # nobody joins it any more
        runs[run, HEAD] = queue[FREE_RUN]
        queue[FREE_RUN] = run
        queue[HEAP] -= 1
        heap[0] = heap[queue[HEAP]]
    if queue[HEAP] > 0:
        _sink(heap, queue[HEAP], runs, 0)
    return time, event, age


@njit(cache=True, nogil=True, _nrt=False)
def _matches(source, tag, want_source, want_tag):
    return (want_source == ANY or source == want_source) and (want_tag == ANY or tag == want_tag)


STARTED, AGES, DONE, MESSAGES, EVENTS, ROOTS_DONE = range(6)


@njit(cache=True, nogil=True, _nrt=False)
def _events(
    count, queue, pool, runs, heap, recent, freed, cpu_free, out_free, in_free, waiting, arrived, link, needs,
    starts, kind, sizes, peers, tags, cpus, nics, first_edge, start_edge, edges, owner,
    first, roots, ranks, ring_steps, ring_size, L, o, g, G, O, S, margin,  # noqa: E741
):  # fmt: skip
    """Take events until none is left (True) or the queue needs more room (False).

    An event is 2 * operation, + 1 for the message of a send. waiting and arrived: [ranks, 2], first and last receive
    without message and message without receive of each rank, chained by link.
    """
    ring = ring_steps > 0
    while True:
        if queue[LIVE] + margin > len(pool):
            return False
        if count[ROOTS_DONE] < roots:
            # All of these are at time 0 and older than any other event.
            i = count[ROOTS_DONE]
            count[ROOTS_DONE] += 1
            time, age = np.int64(0), i
            event = 2 * (i << RING_BITS if ring else first[i])
        elif queue[HEAP] > 0:
            time, event, age = _take(queue, pool, runs, heap)
        else:
            return True
        count[EVENTS] += 1
        at = event >> 1
        if ring:
            host = at >> RING_BITS
            what, size, cpu, nic = GOAL_SEND, ring_size, 0, 0
            peer = host + 1 if host + 1 < ranks else 0
        else:
            host = owner[at]
            what, size, peer, cpu, nic = np.int64(kind[at]), sizes[at], np.int64(peers[at]), cpus[at], nics[at]
        x = max(size - 1, 0)
        n_freed = 0
        other = np.int64(-1)  # a send that is now done
        own = np.int64(-1)  # an operation of `here` that is now done
        here = host
        if event & 1:
            here = peer
            ready = max(cpu_free[peer, cpu], in_free[peer, nic])
            if ready > time:
                _add(queue, pool, runs, heap, recent, ready, event, age)
                continue
            cpu_free[peer, cpu] = time + o + x * max(O, G)
            in_free[peer, nic] = time + g + x * G
            if ring:
                # Receive s is posted at time 0 and has a tag of its own, so it is there. It frees send s + 1.
                count[DONE] += 1
                s = at - (host << RING_BITS)
                if size > S:
                    count[DONE] += 1
                    cpu_free[host, 0] = max(cpu_free[host, 0], time)
                    out_free[host, 0] = max(out_free[host, 0], time)
                if s + 1 < ring_steps:
                    ready = max(cpu_free[peer, 0], out_free[peer, 0])
                    _add(queue, pool, runs, heap, recent, ready, 2 * ((peer << RING_BITS) + s + 1), count[AGES])
                    count[AGES] += 1
                continue
            before, found = np.int64(-1), waiting[peer, 0]
            while found >= 0 and not _matches(host, tags[at], peers[found], tags[found]):
                before, found = found, np.int64(link[found])
            if found >= 0:
                _unlink(waiting, link, peer, before, found)
                if size > S:
                    other = at
                    cpu_free[host, cpu] = max(cpu_free[host, cpu], time)
                    out_free[host, nic] = max(out_free[host, nic], time)
                own = found
            else:
                _append(arrived, link, peer, at)
        elif what == GOAL_SEND:
            ready = max(cpu_free[host, cpu], out_free[host, nic])
            if ready > time:
                _add(queue, pool, runs, heap, recent, ready, event, age)
                continue
            cpu_free[host, cpu] = time + o + x * O
            out_free[host, nic] = time + g + x * G
            count[MESSAGES] += 1
            _add(queue, pool, runs, heap, recent, time + o + L, event + 1, count[AGES])
            count[AGES] += 1
            if ring:
                if size <= S:
                    count[DONE] += 1
                continue
            n_freed = _free(freed, n_freed, needs, edges, first_edge[at], start_edge[at])
            if size <= S:
                own = at
        elif what == GOAL_RECV:
            n_freed = _free(freed, n_freed, needs, edges, first_edge[at], start_edge[at])
            before, found = np.int64(-1), arrived[host, 0]
            while found >= 0 and not _matches(owner[found], tags[found], peer, tags[at]):
                before, found = found, np.int64(link[found])
            if found >= 0:
                _unlink(arrived, link, host, before, found)
                if size > S:
                    other = found
                    sender = owner[found]
                    cpu_free[sender, cpu] = max(cpu_free[sender, cpu], time)
                    out_free[sender, nic] = max(out_free[sender, nic], time)
                own = at
            else:
                _append(waiting, link, host, at)
        else:
            if cpu_free[host, cpu] > time:
                _add(queue, pool, runs, heap, recent, cpu_free[host, cpu], event, age)
                continue
            cpu_free[host, cpu] = time + size
            n_freed = _free(freed, n_freed, needs, edges, first_edge[at], start_edge[at])
            own = at

        # Newly free operations get their ages host by host, sends first; on one host the send's before the receive's.
        n_own = n_freed
        same = other >= 0 and owner[other] == here
        if same:
            count[DONE] += 1
            n_own = _free(freed, n_own, needs, edges, start_edge[other], first_edge[other + 1])
        if own >= 0:
            count[DONE] += 1
            n_own = _free(freed, n_own, needs, edges, start_edge[own], first_edge[own + 1])
        n_all = n_own
        if other >= 0 and not same:
            count[DONE] += 1
            n_all = _free(freed, n_own, needs, edges, start_edge[other], first_edge[other + 1])
        own_first = other < 0 or here <= owner[other]
        for part in range(2):
            own_part = (part == 0) == own_first
            low, high = (0, n_own) if own_part else (n_own, n_all)
            if low == high:
                continue
            for now in (GOAL_SEND, GOAL_RECV, GOAL_CALC):
                for j in range(low, high):
                    a = freed[j]
                    if kind[a] == now:
                        h = owner[a]
                        ready = cpu_free[h, cpus[a]]
                        if now == GOAL_SEND:
                            ready = max(ready, out_free[h, nics[a]])
                        _add(queue, pool, runs, heap, recent, ready, 2 * a, count[AGES])
                        count[AGES] += 1


@njit(cache=True, nogil=True, _nrt=False)
def _free(freed, n, needs, edges, low, high):
    """Count down what waits on an operation; those that need nothing any more are added to `freed`."""
    for i in range(low, high):
        needs[edges[i]] -= 1
        if needs[edges[i]] == 0:
            freed[n] = edges[i]
            n += 1
    return n


@njit(cache=True, nogil=True, _nrt=False)
def _append(lists, link, rank, operation):
    link[operation] = -1
    if lists[rank, 0] < 0:
        lists[rank, 0] = operation
    else:
        link[lists[rank, 1]] = operation
    lists[rank, 1] = operation


@njit(cache=True, nogil=True, _nrt=False)
def _unlink(lists, link, rank, before, operation):
    if before < 0:
        lists[rank, 0] = link[operation]
    else:
        link[before] = link[operation]
    if lists[rank, 1] == operation:
        lists[rank, 1] = before


@njit(cache=True, nogil=True)
def _simulate(goal_, first, roots, ranks, ring_steps, ring_size, letters, margin):
    """(operations done, finish, messages, events, (receiver, sender, tag of a message left over or -1; a stuck rank))."""
    operations = len(goal_.kind)
    owner = np.zeros(operations, np.int32)
    n_cpu, n_nic = 1, 1
    for r in range(len(goal_.starts) - 1):
        owner[goal_.starts[r] : goal_.starts[r + 1]] = r
    for i in range(operations):
        n_cpu = max(n_cpu, goal_.cpu[i] + 1)
        n_nic = max(n_nic, goal_.nic[i] + 1)
    count = np.zeros(6, np.int64)
    count[AGES] = roots
    queue = np.zeros(6, np.int64)
    queue[FREE_EVENT] = queue[FREE_RUN] = -1
    size = max(1024, 2 * margin)
    pool, runs, heap = np.zeros((size, 3), np.int64), np.zeros((size, 5), np.int64), np.zeros(size, np.int64)
    recent = np.full(RECENT, -1, np.int64)
    freed = np.zeros(margin, np.int64)
    cpu_free = np.zeros((ranks, n_cpu), np.int64)
    out_free, in_free = np.zeros((ranks, n_nic), np.int64), np.zeros((ranks, n_nic), np.int64)
    waiting, arrived = np.full((ranks, 2), -1, np.int64), np.full((ranks, 2), -1, np.int64)
    link = np.full(operations, -1, np.int64)
    needs = goal_.needs.copy()
    while not _events(
        count, queue, pool, runs, heap, recent, freed, cpu_free, out_free, in_free, waiting, arrived, link, needs,
        goal_.starts, goal_.kind, goal_.size, goal_.peer, goal_.tag, goal_.cpu, goal_.nic,
        goal_.first_edge, goal_.start_edge, goal_.edges, owner, first, roots, ranks, ring_steps, ring_size,
        letters.L, letters.o, letters.g, letters.G, letters.O, letters.S, margin,
    ):  # fmt: skip
        pool, runs = grown_rows(pool), grown_rows(runs)
        heap = np.concatenate((heap, np.zeros_like(heap)))
    finish = np.zeros(ranks, np.int64)
    lost = np.full(4, -1, np.int64)
    for r in range(ranks):
        finish[r] = cpu_free[r].max()
        if arrived[r, 0] >= 0 and lost[0] < 0:
            a = arrived[r, 0]
            lost[0], lost[1], lost[2] = r, owner[a], goal_.tag[a]
        if waiting[r, 0] >= 0 and lost[3] < 0:
            lost[3] = r
    for i in range(operations):
        if needs[i] > 0 and lost[3] < 0:
            lost[3] = owner[i]
    return count[DONE], finish, count[MESSAGES], count[EVENTS], lost
