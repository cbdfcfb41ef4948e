"""The compiled walker: executes a program (program.py) and times it. No Python, no GIL, no locks.

One function serves threads and MPI processes: rows that talk to MPI call the library through addresses in `mpi`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .interface import ABORTED, MPI_FAILED, OK
from .machine import (
    call2,
    call3,
    call7,
    call12,
    call_kernel,
    clock_ns,
    load_acquire,
    prefetch_to_write,
    spin_hint,
    store_release,
    yield_core,
)
from .memory import ABORT, ARRIVED, DOING, EPOCH_WORD, LINE, RANK_CONTROL, RANK_LINES, START, WAITS_FOR
from .program import (
    AHEAD,
    AHEAD_END,
    CLOCK_AFTER,
    CLOCK_BEGIN,
    CLOCK_HOLD,
    CLOCK_INDEX,
    CLOCK_LATENCY,
    CLOCK_OVERHEAD,
    CLOCK_PORT,
    CLOCK_RECV,
    CLOCK_SEND,
    CLOCK_VALUE,
    CLOCK_WORK,
    CLOCK_WORK_PS,
    COUNT,
    DST,
    DST2,
    EPOCH_SHIFT,
    FN,
    IRECV,
    ISEND,
    KIND,
    LOCAL,
    MPI_WAIT,
    NEXT,
    PARAM,
    PEER,
    POST,
    POST2,
    POST2_K,
    POST_K,
    SLOT,
    WAIT,
    WAIT_K,
    A,
    B,
)

# Fields of a rank's `state`, int64: constants of the session.
BASE, INDEX, RANKS_HERE, SPINS, WINDOW_NS = range(5)
# Fields of a rank's `clock`, int64, where the session has a virtual clock (clock.py): the time, ps; wall-clock ns a virtual
# second, 0 where it is not paced; the agreed start and how long the all-reduce took in wall-clock time, ns; the address of
# the delays; then for each port when it is free to send and to receive, ps. Else `clock` is None, and Numba compiles nothing
# of it.
TIME, PACE, PACED_START, PACED_NS, DELAYS, PORTS_FREE = range(6)
# Fields of `mpi`, int64: addresses of library functions and handles; all 0 without MPI.
(M_ISEND, M_IRECV, M_WAIT, M_TEST, M_IBARRIER, M_COMM, M_BYTE, M_REQUESTS, M_STATUS, M_FLAG,
 M_BARRIER_COMM, M_BARRIER_REQUEST, M_NEVER, MPI_FIELDS) = range(14)  # fmt: skip
# M_NEVER: the address of a request that never completes. To test it drives all that is under way, however many requests those are;
# the test of a completed one returns at once and drives nothing.

LIBRARY_ARGUMENTS = 12  # of MPI_Sendrecv, the longest
# Of their type on purpose: for a literal -1 Numba would compile once more whatever takes it.
NOBODY = np.int64(-1)
SOMEBODY = np.int64(-2)  # in WAITS_FOR: not one rank, but whoever comes last
NOTHING = np.int64(0)  # as the address of a request
# Tests before it is said who is waited for: each may give the core away, on a busy machine for 10 ms and more.
TURNS_UNSAID = 16
REQUEST_BYTES = 8  # room for one MPI_Request of any library


@njit(nogil=True, cache=True)
def _wait(address, target, state, mpi, driven, peer):
    """Poll until the word reaches `target`; give the core away when it takes long. Returns OK, ABORTED or MPI_FAILED."""
    spins = state[SPINS]
    for _ in range(spins):
        if load_acquire(address) >= target:
            return OK
        spin_hint()
    base = state[BASE]
    doing = base + RANK_LINES + state[INDEX] * RANK_CONTROL + DOING
    store_release(doing + WAITS_FOR, peer)
    turn = 0
    while load_acquire(address) < target:
        if load_acquire(base + ABORT) != 0:
            return ABORTED
        if driven != 0 and turn % 16 == 0:
            # A library makes progress only inside its calls; our own sends may be what the other side waits for.
            if call3(mpi[M_TEST], driven, mpi[M_FLAG], mpi[M_STATUS]) != 0:
                return MPI_FAILED
        if turn % 64 == 63 or spins < 1000:
            yield_core()
        else:
            spin_hint()
        turn += 1
    store_release(doing + WAITS_FOR, NOBODY)
    return OK


@njit(nogil=True, cache=True)
def _finish(request, state, mpi, flag, peer):
    """Wait for the MPI request at an address by testing it, so that an abort is noticed. `flag`: int32 [1] the library writes;
    peer: whom it waits for."""
    base = state[BASE]
    doing = base + RANK_LINES + state[INDEX] * RANK_CONTROL + DOING
    turn = 0
    while True:
        if call3(mpi[M_TEST], request, mpi[M_FLAG], mpi[M_STATUS]) != 0:
            return MPI_FAILED
        if flag[0] != 0:
            break
        turn += 1
        if turn == TURNS_UNSAID:
            store_release(doing + WAITS_FOR, peer)
        if turn >= 256:
            if load_acquire(base + ABORT) != 0:
                return ABORTED
            if state[SPINS] < 1000 or turn % 64 == 0:
                yield_core()
    if turn >= TURNS_UNSAID:
        store_release(doing + WAITS_FOR, NOBODY)
    return OK


@njit(nogil=True, cache=True)
def _hold(until, driven, state, mpi):
    """Let wall-clock time pass up to `until`, ns. Returns OK, ABORTED or MPI_FAILED."""
    turn = 0
    while clock_ns() < until:
        if load_acquire(state[BASE] + ABORT) != 0:
            return ABORTED
        if driven != 0 and turn % 16 == 0:
            if call3(mpi[M_TEST], driven, mpi[M_FLAG], mpi[M_STATUS]) != 0:
                return MPI_FAILED
        if state[SPINS] < 1000:
            yield_core()
        else:
            spin_hint()
        turn += 1
    return OK


@njit(nogil=True, cache=True)
def _tick(row, stamp, driven, state, mpi, clock):
    """One instruction of the virtual clock (clock.py). Returns OK, ABORTED or MPI_FAILED."""
    kind = row[KIND]
    t = clock[TIME]
    if kind == CLOCK_WORK:
        clock[TIME] = t + row[CLOCK_WORK_PS]
        return OK
    if kind == CLOCK_BEGIN:
        clock[TIME] = 0
        for i in range(PORTS_FREE, len(clock)):
            clock[i] = 0
        if clock[PACE] == 0:
            return OK
        if clock[PACED_START] == 0:
            clock[PACED_START] = clock_ns()
        return _hold(clock[PACED_START], driven, state, mpi)
    if row[WAIT] != 0:
        target = stamp + row[WAIT_K]
        if load_acquire(row[WAIT]) < target:
            status = _wait(row[WAIT], target, state, mpi, driven, row[PEER])
            if status != OK:
                return status
    out_free = PORTS_FREE + 2 * row[CLOCK_PORT]
    in_free = out_free + 1
    said = t
    if kind == CLOCK_SEND:
        t = max(t + row[CLOCK_OVERHEAD], clock[out_free])
        clock[out_free] = t + row[CLOCK_HOLD]
        said = t + row[CLOCK_LATENCY]
    elif kind == CLOCK_RECV:
        arrived = max(load_acquire(row[CLOCK_VALUE]), clock[in_free]) + row[CLOCK_HOLD]
        clock[in_free] = arrived
        if clock[DELAYS] != 0:
            arrived += load_acquire(clock[DELAYS] + 8 * row[CLOCK_INDEX])
        if clock[PACE] != 0:
            status = _hold(_due(arrived, clock), driven, state, mpi)
            if status != OK:
                return status
        t = max(t, arrived) + row[CLOCK_OVERHEAD] + row[CLOCK_WORK_PS]
        said = t
    elif kind == CLOCK_AFTER:
        t = max(t, load_acquire(row[CLOCK_VALUE]) + row[CLOCK_LATENCY])
    elif clock[PACE] != 0:  # CLOCK_END
        status = _hold(_due(t, clock), driven, state, mpi)
        if status != OK:
            return status
        clock[PACED_NS] = clock_ns() - clock[PACED_START]
    clock[TIME] = t
    if row[POST] != 0:
        store_release(row[POST], said)
        if row[POST_K] != 0:
            store_release(row[POST] + 8, stamp + row[POST_K])
    return OK


@njit(nogil=True, cache=True)
def _due(virtual, clock):
    """The wall-clock ns at which the virtual time, ps, has come."""
    return clock[PACED_START] + np.int64(np.ceil(virtual * 1e-12 * clock[PACE]))


@njit(nogil=True, cache=True)
def walk(code, epoch, state, mpi, flag, clock):
    """Run one collective. code: int64 [rows, COLUMNS] of this epoch's turn; returns OK, ABORTED or MPI_FAILED."""
    stamp = epoch << EPOCH_SHIFT
    posted = False  # since the last wait
    driven = NOTHING  # M_NEVER once a send may be under way, to be driven while we wait for something else
    for i in range(code.shape[0]):
        row = code[i]
        kind = row[KIND]
        if kind == LOCAL:
            if row[WAIT] != 0:
                if posted:
                    # The other side posts at about the same time. To look before it has would take its line away from it, and
                    # its post would wait until the line is back.
                    spin_hint()
                    posted = False
                target = stamp + row[WAIT_K]
                if load_acquire(row[WAIT]) < target:
                    status = _wait(row[WAIT], target, state, mpi, driven, row[PEER])
                    if status != OK:
                        return status
            if row[FN] != 0:
                call_kernel(row[FN], row[DST], row[DST2], row[A], row[B], row[COUNT], row[PARAM])
            if row[POST] != 0:
                store_release(row[POST], stamp + row[POST_K])
                posted = True
            if row[POST2] != 0:
                store_release(row[POST2], stamp + row[POST2_K])
            if row[NEXT] != 0:
                prefetch_to_write(row[NEXT])
                for line in range(row[AHEAD], row[AHEAD_END], LINE):
                    prefetch_to_write(line)
        elif kind == ISEND or kind == IRECV:
            request = mpi[M_REQUESTS] + row[SLOT] * REQUEST_BYTES
            fn = mpi[M_ISEND] if kind == ISEND else mpi[M_IRECV]
            if call7(fn, row[A], row[COUNT], mpi[M_BYTE], row[PEER], row[PARAM], mpi[M_COMM], request) != 0:
                return MPI_FAILED
            if kind == ISEND:
                driven = mpi[M_NEVER]
        elif kind == MPI_WAIT:
            status = _finish(mpi[M_REQUESTS] + row[SLOT] * REQUEST_BYTES, state, mpi, flag, row[PEER])
            if status != OK:
                return status
        elif clock is not None:
            status = _tick(row, stamp, driven, state, mpi, clock)
            if status != OK:
                return status
    return OK


@njit(nogil=True, cache=True)
def barrier(turn, state, mpi, flag):
    """All ranks meet. Returns (status, start): the agreed start in ns where the session has a window, else 0.

    Inside a host the first rank collects arrivals and publishes a start time a little ahead, so that all ranks leave at
    the same instant of their common clock. Across hosts it is MPI_Ibarrier, from which an abort gets us back.
    """
    if mpi[M_BARRIER_COMM] != 0:
        if call2(mpi[M_IBARRIER], mpi[M_BARRIER_COMM], mpi[M_BARRIER_REQUEST]) != 0:
            return MPI_FAILED, 0
        return _finish(mpi[M_BARRIER_REQUEST], state, mpi, flag, SOMEBODY), 0
    base, n, index = state[BASE], state[RANKS_HERE], state[INDEX]
    if index == 0:
        for r in range(1, n):
            status = _wait(base + RANK_LINES + r * RANK_CONTROL + ARRIVED, turn, state, mpi, NOTHING, r)
            if status != OK:
                return status, 0
        start = clock_ns() + state[WINDOW_NS] if state[WINDOW_NS] > 0 else 0
        store_release(base + START + 8, start)
        store_release(base + START, turn)
    else:
        store_release(base + RANK_LINES + index * RANK_CONTROL + ARRIVED, turn)
        status = _wait(base + START, turn, state, mpi, NOTHING, np.int64(0))
        if status != OK:
            return status, 0
        start = load_acquire(base + START + 8)
    return OK, start


@njit(nogil=True, cache=True)
def _rewrite(fresh):
    """Copy a buffer onto itself: its owner's core then holds it modified, as after computing it."""
    if fresh[0] != 0:
        call_kernel(fresh[0], fresh[1], 0, fresh[1], 0, fresh[2], 0)


@njit(nogil=True, cache=True)
def time_block(code, epoch, turn, samples, n, inner, fresh, state, mpi, flag, clock):
    """Time `n` samples of `inner` back-to-back collectives each.

    code: int64 [depth, rows, COLUMNS] (program.Program); epoch: number of the first collective; turn: number of the first barrier;
    samples: float64, receives seconds a collective on this rank; fresh: int64 [copy kernel or 0, address, bytes], what
    this rank rewrites before each sample. Returns (status, late): how many samples this rank began after the agreed start.
    """
    doing = state[BASE] + RANK_LINES + state[INDEX] * RANK_CONTROL + DOING
    late, turns = 0, code.shape[0] - 1
    for s in range(n):
        store_release(doing + EPOCH_WORD, epoch)
        _rewrite(fresh)
        status, start = barrier(turn + s, state, mpi, flag)
        if status != OK:
            return status, late
        now = clock_ns()
        if start == 0:
            start = now
        elif now > start:
            late += 1
        while now < start:
            spin_hint()
            now = clock_ns()
        for _ in range(inner):
            status = walk(code[epoch & turns], epoch, state, mpi, flag, clock)
            if status != OK:
                return status, late
            epoch += 1
        samples[s] = (clock_ns() - start) / inner * 1e-9
    return OK, late


@njit(nogil=True, cache=True)
def time_library(calls, turn, samples, n, inner, fresh, state, mpi, flag):
    """Time calls of the MPI library as `time_block` times ours.

    calls: int64 [calls, 1 + LIBRARY_ARGUMENTS], one after the other: a function's address and its arguments. Those that it does not
    take are passed all the same, which C's calling conventions on x86-64 and AArch64 allow.
    """
    doing = state[BASE] + RANK_LINES + state[INDEX] * RANK_CONTROL + DOING
    for s in range(n):
        _rewrite(fresh)
        status, start = barrier(turn + s, state, mpi, flag)
        if status != OK:
            return status, 0
        store_release(doing + EPOCH_WORD, turn + s)
        store_release(doing + WAITS_FOR, SOMEBODY)
        now = clock_ns()
        if start == 0:
            start = now
        while now < start:
            spin_hint()
            now = clock_ns()
        for _ in range(inner):
            for i in range(calls.shape[0]):
                c = calls[i]
                failed = call12(c[0], c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10], c[11], c[12])
                if failed != 0:
                    return MPI_FAILED, 0
        samples[s] = (clock_ns() - start) / inner * 1e-9
        store_release(doing + WAITS_FOR, NOBODY)
    return OK, 0


@njit(nogil=True, cache=True)
def publish(addresses, value):
    """Write `value` to the words at `addresses`, after everything before it."""
    for i in range(len(addresses)):
        store_release(addresses[i], value)


def new_state(base: int, index: int, ranks_here: int, spins: int, window_ns: int) -> np.ndarray:
    """A rank's session constants for the functions above."""
    return np.array([base, index, ranks_here, spins, window_ns], np.int64)
