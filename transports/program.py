"""From a schedule to a program: what one rank's compiled walker executes, with every address filled in.

A program is an int64 table, one row an instruction, and one shape serves all messages inside a host::

    wait until *WAIT >= epoch + WAIT_K   ->   call FN(DST, DST2, A, B, COUNT, PARAM)   ->   *POST = epoch + POST_K

each third optional. How a message from rank a to rank b moves is chosen here, per message:

    inline   56 bytes beside their own flag: one cache line carries both; longer ones take some such lines, where asked
    eager    a copy into a mailbox of the connection; b reads it there. Where mailboxes are more than two, each has its own flag
    pull     a announces, b reads a's buffer where it lies (one copy); a waits for b's ack only where nothing else
             in the schedule already tells it that b has read
    push     a writes into b's buffer, allowed only where a provably knows that b no longer needs what is there
    mpi      b is on another host: MPI_Isend and MPI_Irecv

A reduction whose result is pushed at once is fused into one pass that writes both places.

Epoch: collectives are numbered, and a flag holds (number << EPOCH_SHIFT) + k, so flags only grow and are never reset.
Mailboxes exist twice and alternate. They need no ack where the sender, when it finishes collective n, has heard of its
receiver having begun it: the receiver has then finished n-1 and has taken what was in the other half. In an all-reduce every
rank hears from all. Where causality does not say so (a broadcast's root hears from nobody), mailboxes exist `depth` times, in two
halves: the receiver says that it has finished the last collective of a half, and the sender waits for that before it writes to
that half again. It may run `depth` collectives ahead, and they speak of it once in depth/2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numba import njit

from ..collectives.schedule import COPY, INPUT, NOP, OUTPUT, RECV, RECV_REDUCE, REDUCE, SCRATCH, SEND, Schedule
from .memory import INLINE_BYTES, Connection

COLUMNS = 16
(KIND, WAIT, WAIT_K, FN, DST, DST2, A, B, COUNT, PARAM, POST, POST_K, POST2, POST2_K, PEER, SLOT) = range(COLUMNS)
# Of rows without MPI: the line that the next collective posts on, to be asked for while waiting in this one. And of those that
# copy into a mailbox, which leave B and PARAM alone, the lines of the next one's mailbox, from the first to before the last.
NEXT, AHEAD, AHEAD_END = SLOT, B, PARAM
LOCAL, ISEND, IRECV, MPI_WAIT, CLOCK_BEGIN, CLOCK_SEND, CLOCK_RECV, CLOCK_AFTER, CLOCK_WORK, CLOCK_END = range(10)
# What the columns hold in instructions of the virtual clock (clock.py): there is nothing to call.
CLOCK_PORT, CLOCK_OVERHEAD, CLOCK_HOLD, CLOCK_VALUE, CLOCK_WORK_PS, CLOCK_LATENCY, CLOCK_INDEX = (
    FN,
    DST,
    DST2,
    A,
    B,
    COUNT,
    PARAM,
)
EPOCH_SHIFT = 24
MPI_MESSAGE_MAX = 2**31 - 1
ONE_WAY = 2  # times eager_bytes go through a mailbox where the sender need not wait for the receiver then
RECEIVES_AHEAD = 4  # MPI receives posted before their turn, so that data arrives while the rank reduces

CACHED, STREAM_AWAY, STREAM_ALL = range(3)
INLINE, EAGER, PULL, PUSH, MPI = range(5)
MODE_NAMES = ("inline", "eager", "pull", "push", "mpi")


@dataclass(frozen=True)
class Peers:
    """Where everything lies, seen from one rank.

    buffers: int64 [ranks, 3], address of INPUT, OUTPUT, SCRATCH of each rank on this host, 0 for ranks elsewhere;
    connection: (sender, receiver) -> Connection, both on this host; stamp: (rank on this host, number of a message it sends,
    parity of the epoch) -> address of that message's virtual times, where the session has a virtual clock.
    """

    rank: int
    buffers: np.ndarray
    connection: Callable[[int, int], Connection]
    stamp: Callable[[int, int, int], int] | None = None

    def here(self, rank: int) -> bool:
        return bool(self.buffers[rank, OUTPUT])


@dataclass(frozen=True)
class Tuning:
    """What the planner may choose. eager_bytes: the largest message through a mailbox (ONE_WAY times that where mailboxes are
    more than two); inline_lines: the most cache lines that carry an inline message; streaming: which results are written around
    the cache (non-temporal stores): CACHED none, STREAM_AWAY those in other ranks' outputs, STREAM_ALL all of them. Never those
    that overwrite what was just read, as in place: their lines are in the cache already. mailbox_saves_ack: lines and mailboxes
    only for messages that cannot be pushed and, if they were pulled, would need an ack: else one copy less costs less time. depth:
    how many times mailboxes exist at most, where a sender does not hear of its receiver, a power of two. ahead: where mailboxes are
    two, who has written to one asks for the lines of the other, to write them: its receiver's core has them."""

    eager_bytes: int = 512
    streaming: int = CACHED
    inline_lines: int = 1
    mailbox_saves_ack: bool = False
    depth: int = 2
    ahead: bool = False


@dataclass(frozen=True)
class Program:
    """code: int64 [depth, rows, COLUMNS], of epochs by their number mod depth; requests: MPI request slots it needs;
    modes: how many messages this rank sends in each of MODE_NAMES; staging: the buffer MPI receives land in; done: addresses of
    the words (Connection.done) that this rank writes at its end. They say nothing of another program's epochs, so who starts
    this one first writes (first epoch - 1 << EPOCH_SHIFT) + 1 there."""

    code: np.ndarray
    requests: int
    modes: tuple[int, ...]
    staging: np.ndarray
    done: tuple[int, ...] = ()


@dataclass(frozen=True)
class Causality:
    """What follows from a schedule alone, whichever transport runs it.

    All arrays are over the steps of all ranks laid end to end; rank r's are starts[r] : starts[r+1].
    mate: the step a SEND or RECV meets (-1: none). pushable: at this SEND the sender knows that the receiver has entered
    the collective and is done with the bytes that the matching RECV will overwrite. known: when the sender's table ends
    it already knows that this SEND was received. heard: bool [ranks, ranks], whether the one, when its table ends, knows that the
    other has begun.
    """

    steps: np.ndarray
    starts: np.ndarray
    mate: np.ndarray
    pushable: np.ndarray
    known: np.ndarray
    heard: np.ndarray


def causality(schedule: Schedule) -> Causality:
    """Analyse a schedule (proved sound by collectives/prove.py; a stuck one raises ValueError)."""
    steps = np.concatenate([t for t in schedule.tables if len(t)] or schedule.tables[:1])
    starts = np.concatenate([[0], np.cumsum([len(t) for t in schedule.tables])]).astype(np.int64)
    owner = np.repeat(np.arange(schedule.ranks), np.diff(starts))
    mate = np.full(len(steps), -1, np.int64)
    sends = np.flatnonzero(steps["op"] == SEND)
    receives = np.flatnonzero((steps["op"] == RECV) | (steps["op"] == RECV_REDUCE))
    if len(sends) != len(receives):
        raise ValueError(f"{schedule.algorithm}: {len(sends)} sends but {len(receives)} receives")
    channel = steps["channel"]
    by_send = sends[np.lexsort((sends, channel[sends], steps["peer"][sends], owner[sends]))]
    by_receive = receives[np.lexsort((receives, channel[receives], owner[receives], steps["peer"][receives]))]
    if not (
        np.array_equal(steps["peer"][by_send], owner[by_receive])
        and np.array_equal(owner[by_send], steps["peer"][by_receive])
        and np.array_equal(steps["count"][by_send], steps["count"][by_receive])
    ):
        raise ValueError(f"{schedule.algorithm}: sends and receives do not match")
    mate[by_send], mate[by_receive] = by_receive, by_send
    # Ranks without a step know nothing and nobody knows of them; clocks of those who have some are enough.
    busy = np.flatnonzero(np.diff(starts))
    clocks_of = np.searchsorted(busy, owner)
    pushable, known, seen, stuck = _walk(steps, np.append(starts[busy], len(steps)), clocks_of, mate, schedule.in_place)
    if stuck:
        raise ValueError(f"{schedule.algorithm}: the schedule for {schedule.ranks} ranks gets stuck")
    heard = np.zeros((schedule.ranks, schedule.ranks), np.bool_)
    heard[np.ix_(busy, busy)] = seen > 0
    return Causality(steps, starts, mate, pushable, known, heard)


@njit(cache=True)
def _same_memory(buffer, other, in_place):
    return buffer == other or (in_place and buffer != SCRATCH and other != SCRATCH)


@njit(cache=True)
def _touches(step, buffer, offset, count, in_place):
    """Whether a step reads or writes [offset, offset + count) of a buffer of its own rank."""
    op = step.op
    reads = op == SEND or op == RECV_REDUCE or op == REDUCE or op == COPY
    writes = op == RECV or op == RECV_REDUCE or op == REDUCE or op == COPY
    n = step.count
    if reads and _same_memory(step.src_buffer, buffer, in_place):
        if step.src_offset < offset + count and offset < step.src_offset + n:
            return True
    if writes and _same_memory(step.dst_buffer, buffer, in_place):
        if step.dst_offset < offset + count and offset < step.dst_offset + n:
            return True
    return False


def _walk(steps, starts, owner, mate, in_place):
    """Walk all tables in a legal order with vector clocks. Returns (pushable, known, the last clocks, whether it got stuck)."""
    p, n = len(starts) - 1, len(steps)
    seen, position, done = np.zeros((p, p), np.int64), starts[:-1].copy(), np.zeros(n, np.bool_)
    pushable, known = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    # Clocks travel with messages; rows of `carried` are handed out and taken back, so that memory follows what is in flight.
    carried, row_of = np.zeros((max(p, 16), p), np.int64), np.full(n, -1, np.int64)
    free = np.arange(len(carried))
    n_free = len(free)
    while True:
        n_free = _advance(
            steps, starts, owner, mate, in_place, seen, position, done, pushable, carried, row_of, free, n_free
        )
        if n_free > 0:
            break
        more = np.arange(len(carried), 2 * len(carried))
        carried = np.concatenate([carried, np.zeros_like(carried)])
        n_free, free = (
            len(more),
            np.concatenate([more, np.zeros_like(more)]),
        )  # room for the old rows, once they come back
    sends = np.flatnonzero(steps["op"] == SEND)
    meets = mate[sends]
    known[sends] = seen[owner[sends], owner[meets]] >= meets - starts[owner[meets]] + 1
    return pushable, known, seen, not done.all()


# What follows allocates nothing and assigns no slices: NumPy's functions would be compiled with it, for seconds.


@njit(cache=True)
def _advance(steps, starts, owner, mate, in_place, seen, position, done, pushable, carried, row_of, free, n_free):
    """Go on until nothing moves any more. seen[r, q] = steps of q that r knows to be finished; free[:n_free]: unused rows of
    `carried`. Returns n_free, or 0 where a message finds none: then call again with more."""
    p = len(starts) - 1
    moved = True
    while moved:
        moved = False
        for r in range(p):
            while position[r] < starts[r + 1]:
                i = position[r]
                op = steps[i].op
                if op == SEND:
                    if n_free == 0:
                        return 0
                    m = mate[i]
                    if steps[m].op == RECV:
                        pushable[i] = _may_push(steps, starts, owner, mate, in_place, seen, r, m)
                    n_free -= 1
                    row = free[n_free]
                    row_of[i] = row
                    for q in range(p):
                        carried[row, q] = seen[r, q]
                    carried[row, r] = i - starts[r] + 1
                elif op == RECV or op == RECV_REDUCE:
                    m = mate[i]
                    if not done[m]:
                        break
                    row = row_of[m]
                    for q in range(p):
                        seen[r, q] = max(seen[r, q], carried[row, q])
                    free[n_free] = row
                    n_free += 1
                seen[r, r] = i - starts[r] + 1
                done[i] = True
                position[r] += 1
                moved = True
    return n_free


@njit(cache=True)
def _may_push(steps, starts, owner, mate, in_place, seen, sender, receive):
    """Whether a sender may already write what `receive` will hold."""
    b = owner[receive]
    finished = seen[sender, b]  # steps of b that the sender knows to be finished
    if finished < 1:
        return False
    to = steps[receive]
    for s in range(starts[b], receive):
        step = steps[s]
        if s - starts[b] + 1 <= finished and step.op != SEND:
            continue
        if not _touches(step, to.dst_buffer, to.dst_offset, to.count, in_place):
            continue
        if s - starts[b] + 1 > finished:
            return False
        m = mate[s]
        if seen[sender, owner[m]] < m - starts[owner[m]] + 1:
            return False
    return True


@dataclass
class _Message:
    """One message of a connection that this rank sends or receives, with the place of its flag."""

    mode: int
    connection: Connection | None
    k: int = 1  # position of its announcement on the connection
    ack_k: int = 0  # 0: no ack
    slot: int = 0  # inline slot, or offset in the mailbox
    flag: int = -1  # inline slot whose flag alone announces it, instead of the connection's announcements


def _depth(c: Causality, owner: np.ndarray, peers: Peers, itemsize: int, tuning: Tuning) -> int:
    """How many times mailboxes exist on this host: twice, or as often as all messages find room where somebody is not heard of."""
    here = peers.buffers[:, OUTPUT] != 0
    sends = np.flatnonzero((c.steps["op"] == SEND) & here[owner] & here[c.steps["peer"]])
    sender, receiver, nbytes = owner[sends], c.steps["peer"][sends], c.steps["count"][sends] * itemsize
    if tuning.depth == 2 or c.heard[sender, receiver].all():
        return 2
    lines = -(-nbytes // INLINE_BYTES)
    inline, eager = lines <= tuning.inline_lines, nbytes <= ONE_WAY * tuning.eager_bytes
    if not (inline | eager).any():
        return 2
    pair = np.unique(sender * len(here) + receiver, return_inverse=True)[1]
    most_lines = np.bincount(pair, np.where(inline, np.maximum(lines, 1), eager)).max()
    most_bytes = np.bincount(pair, (nbytes + 63) // 64 * 64 * (eager & ~inline)).max()
    depth, connection = tuning.depth, peers.connection(int(sender[0]), int(receiver[0]))
    while depth > 2:
        room = replace(connection, depth=depth)
        if most_lines <= room.slots and most_bytes <= room.mailbox_bytes:
            break
        depth //= 2
    return depth


def _messages(c: Causality, peers: Peers, itemsize: int, tuning: Tuning) -> dict[int, _Message]:
    """The messages of this rank by the step index of their SEND; both ends arrive at the same answer."""
    me = peers.rank
    owner = np.repeat(np.arange(len(c.starts) - 1), np.diff(c.starts))
    depth = _depth(c, owner, peers, itemsize, tuning)
    eager_bytes = tuning.eager_bytes * (ONE_WAY if depth > 2 else 1)
    is_send = c.steps["op"] == SEND
    mine = np.flatnonzero(is_send & ((owner == me) | (c.steps["peer"] == me)))
    awaited = {
        int(c.starts[r] + a)
        for r in {me, *(int(owner[i]) for i in mine)}
        for a in c.steps["after"][c.starts[r] : c.starts[r + 1]]
        if a >= 0
    }
    out: dict[int, _Message] = {}
    announced: dict[tuple[int, int], int] = {}
    inline_used: dict[tuple[int, int], int] = {}
    bulk_used: dict[tuple[int, int], int] = {}
    pulls_to_ack: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for i in map(int, mine):
        a, b = int(owner[i]), int(c.steps["peer"][i])
        pair = (a, b)
        if not (peers.here(a) and peers.here(b)):
            out[i] = _Message(MPI, None)
            continue
        n = int(c.steps["count"][i]) * itemsize
        message = _Message(PULL, replace(peers.connection(a, b), depth=depth))
        needs_ack = not c.known[i] or i in awaited
        mailbox = not tuning.mailbox_saves_ack or (needs_ack and not c.pushable[i])
        used, lines = inline_used.get(pair, 0), -(-n // INLINE_BYTES)
        if mailbox and lines <= tuning.inline_lines and used + lines <= message.connection.slots:
            message.mode, message.slot, message.flag = INLINE, used, used
            inline_used[pair] = used + max(1, lines)
            out[i] = message
            continue
        room = bulk_used.get(pair, 0)
        if mailbox and n <= eager_bytes and room + n <= message.connection.mailbox_bytes:
            message.mode, message.slot = EAGER, room
            bulk_used[pair] = room + (n + 63) // 64 * 64
            if (depth > 2 or tuning.ahead) and used < message.connection.slots:
                message.flag = used
                inline_used[pair] = used + 1
                out[i] = message
                continue
        elif c.pushable[i]:
            message.mode = PUSH
        elif needs_ack:
            pulls_to_ack.setdefault(pair, []).append((int(c.mate[i]), i))
        message.k = announced[pair] = announced.get(pair, 0) + 1
        out[i] = message
    for pulls in pulls_to_ack.values():
        for k, (_, i) in enumerate(sorted(pulls), 1):  # in the receiver's order
            out[i].ack_k = k
    return out


def lower(
    schedule: Schedule, c: Causality, peers: Peers, kernels, itemsize: int, tuning: Tuning, timekeeper=None
) -> Program:
    """The program of rank ``peers.rank``.

    kernels: kernels.cpu.Pointers for the op and dtype; itemsize: bytes an element; timekeeper: clock.Timekeeper of this
    rank, whose instructions move its virtual clock beside the data, or None.
    Raises ValueError for an MPI message of 2 GiB or more.
    """
    me = peers.rank
    start = int(c.starts[me])
    table = c.steps[start : c.starts[me + 1]]
    messages = _messages(c, peers, itemsize, tuning)
    rows: list[_Row] = []
    mpi = _MpiSide(table, peers.here, itemsize, schedule.in_place)
    acks_waited: dict[int, int] = {}
    modes = [0] * len(MODE_NAMES)

    def address(rank, buffer, offset):
        return int(peers.buffers[rank, OUTPUT if schedule.in_place and buffer == INPUT else buffer]) + offset * itemsize

    def wait_until_taken(index):
        message = messages[start + index]
        peer = int(table["peer"][index])
        if message.mode == MPI:
            mpi.finish_send(rows, index)
        elif message.ack_k > acks_waited.get(peer, 0):
            rows.append(_Row(wait=message.connection.ack, wait_k=message.ack_k, peer=peer))
            acks_waited[peer] = message.ack_k

    # Whose mailboxes of this rank's, and whose that this rank writes, are not known to be empty two epochs later.
    unheard: dict[int, Connection] = {}
    done: dict[int, Connection] = {}
    for i, message in messages.items():
        if message.mode in (INLINE, EAGER):
            if c.mate[i] >= start and c.mate[i] < start + len(table):
                sender = int(c.steps["peer"][c.mate[i]])
                if not c.heard[sender, me]:
                    done[sender] = message.connection
            elif not c.heard[me, int(c.steps["peer"][i])]:
                unheard[int(c.steps["peer"][i])] = message.connection

    if timekeeper:
        rows += timekeeper.begin()
    skip = -1
    for i, step in enumerate(table):
        if timekeeper:
            rows += timekeeper.step(i, mpi.take_slot)
        mpi.post_receives(rows, i, lambda o: address(me, int(table["dst_buffer"][o]), int(table["dst_offset"][o])))
        if i == skip:
            continue
        op, n, peer = int(step["op"]), int(step["count"]), int(step["peer"])
        if step["after"] >= 0 and table["op"][step["after"]] == SEND:
            wait_until_taken(int(step["after"]))
        src = address(me, int(step["src_buffer"]), int(step["src_offset"]))
        dst = address(me, int(step["dst_buffer"]), int(step["dst_offset"]))
        final = bool(step["final"])
        result = final or (op in (RECV, COPY) and step["dst_buffer"] == OUTPUT)
        overwrites_source = op == REDUCE or (op == RECV_REDUCE and dst == src)
        stream = tuning.streaming == STREAM_ALL and result and not overwrites_source
        stream_away = tuning.streaming >= STREAM_AWAY and not overwrites_source
        row = _Row(peer=peer)
        if op == SEND:
            message = messages[start + i]
            modes[message.mode] += 1
            if message.mode == MPI:
                rows.append(mpi.send(i, src))
                continue
            row.announce(message)
            if message.mode in (INLINE, EAGER) and peer in unheard:
                row.wait_taken(unheard.pop(peer))
            if message.mode != PULL:
                to = c.steps[c.mate[start + i]]
                target = address(peer, int(to["dst_buffer"]), int(to["dst_offset"])) if message.mode == PUSH else 0
                row.call(
                    kernels.copy_nt if stream_away and message.mode == PUSH else kernels.copy,
                    dst=target,
                    a=src,
                    count=n * itemsize,
                )
                row.into_mailbox(message)
                row.ahead = tuning.ahead and message.mode == EAGER and message.connection.depth <= 2
        elif op in (RECV, RECV_REDUCE):
            message = messages[int(c.mate[start + i])]
            incoming = 0
            if message.mode == MPI:
                mpi.finish_receive(rows, i)
                incoming = mpi.landing.get(i, 0)
            else:
                row.expect(message)
                if message.mode == PULL:
                    sent = c.steps[c.mate[start + i]]
                    incoming = address(peer, int(sent["src_buffer"]), int(sent["src_offset"]))
                    if message.ack_k:
                        row.post, row.post_k = message.connection.ack, message.ack_k
            if op == RECV_REDUCE:
                forward = _pushed_next(table, i, messages, start)
                if forward:
                    to = c.steps[c.mate[start + i + 1]]
                    modes[PUSH] += 1
                    skip, next_peer = i + 1, int(table["peer"][i + 1])
                    row.dst2 = address(next_peer, int(to["dst_buffer"]), int(to["dst_offset"]))
                    row.post2, row.post2_k = forward.connection.avail, forward.k
                reduction = _reduction(kernels, final, stream, bool(forward), stream_away)
                row.call(reduction, dst, src, incoming, n, schedule.ranks)
                row.from_mailbox(message, operand="b")
            elif message.mode in (INLINE, EAGER, PULL):
                row.call(kernels.copy_nt if stream else kernels.copy, dst=dst, a=incoming, count=n * itemsize)
                row.from_mailbox(message, operand="a")
            elif message.mode == MPI:
                continue  # it landed in place
        elif op == REDUCE:
            row.call(_reduction(kernels, final, stream), dst, src, dst, n, schedule.ranks)
        elif op == COPY:
            row.call(kernels.copy_nt if stream else kernels.copy, dst=dst, a=src, count=n * itemsize)
        elif op == NOP:
            continue
        if row.wait or row.fn or row.post:
            rows += row.lines(1 if op in (SEND, RECV, COPY) else itemsize)

    for i in np.flatnonzero(table["op"] == SEND):
        if messages[start + int(i)].mode in (PULL, MPI):
            wait_until_taken(int(i))
    rows += [_Row(post=of.done, post_k=1, peer=sender, post_every=of.depth // 2) for sender, of in done.items()]
    if timekeeper:
        rows += timekeeper.end()
    depth = next((message.connection.depth for message in messages.values() if message.connection), 2)
    code = np.zeros((depth, len(rows), COLUMNS), np.int64)
    for turn in range(depth):
        for line, row in zip(code[turn], rows):
            row.write(line, turn)
    return Program(code, mpi.slots, tuple(modes), mpi.staging, tuple(connection.done for connection in done.values()))


def _reduction(kernels, final: bool, stream: bool, both: bool = False, stream_away: bool = False) -> int:
    """The kernel (kernels.cpu.Pointers) for a reduction; both: into a second place too, which stream_away is about."""
    how = "_nt" if stream else "_nt2" if both and stream_away else ""
    return getattr(kernels, "reduce" + "_final" * final + "_both" * both + how)


def _pushed_next(table, i, messages, start) -> _Message | None:
    """The message of step i+1 if it pushes exactly what step i reduces."""
    if i + 1 >= len(table):
        return None
    here, after = table[i], table[i + 1]
    same = (
        after["op"] == SEND
        and after["after"] < 0
        and after["src_buffer"] == here["dst_buffer"]
        and after["src_offset"] == here["dst_offset"]
        and after["count"] == here["count"]
    )
    message = messages[start + i + 1] if same else None
    return message if message and message.mode == PUSH else None


@dataclass
class _Row:
    """One instruction; `mailbox` names the operand that lies in a connection's slots or mailboxes. wait_every, post_every: it waits
    in the first epoch of so many only, and posts in the last."""

    kind: int = LOCAL
    wait: int = 0
    wait_k: int = 0
    fn: int = 0
    dst: int = 0
    dst2: int = 0
    a: int = 0
    b: int = 0
    count: int = 0
    param: int = 0
    post: int = 0
    post_k: int = 0
    post2: int = 0
    post2_k: int = 0
    peer: int = -1
    slot: int = 0
    mailbox: tuple[str, Connection, int, int] | None = None
    flag: int = -1
    wait_every: int = 1
    post_every: int = 1
    ahead: bool = False

    def wait_taken(self, connection: Connection):
        """Wait until what was in this half of the connection's mailboxes was taken."""
        self.wait_every = connection.depth // 2
        self.wait, self.wait_k = connection.done, 1 - (self.wait_every + 1 << EPOCH_SHIFT)

    def call(self, fn, dst=0, a=0, b=0, count=0, param=0):
        self.fn, self.dst, self.a, self.b, self.count, self.param = fn, dst, a, b, count, param

    def announce(self, message: _Message):
        self.post, self.post_k = message.connection.avail, message.k

    def expect(self, message: _Message):
        self.wait, self.wait_k = message.connection.avail, message.k

    def into_mailbox(self, message: _Message):
        if message.mode in (INLINE, EAGER):
            self.mailbox, self.flag = ("dst", message.connection, message.mode, message.slot), message.flag

    def from_mailbox(self, message: _Message, operand: str):
        if message.mode in (INLINE, EAGER):
            self.mailbox, self.flag = (operand, message.connection, message.mode, message.slot), message.flag

    def lines(self, unit: int) -> list[_Row]:
        """This row, or one for each line of a longer inline message. unit: bytes that a count of 1 stands for."""
        if not self.mailbox or self.mailbox[2] != INLINE or self.count * unit <= INLINE_BYTES:
            return [self]
        operand, connection, mode, slot = self.mailbox
        each = INLINE_BYTES // unit
        rows = []
        for line, start in enumerate(range(0, self.count, each)):
            moved = {
                name: getattr(self, name) + start * unit
                for name in ("dst", "dst2", "a", "b")
                if name != operand and getattr(self, name)
            }
            row = replace(self, **moved, count=min(each, self.count - start))
            row.mailbox, row.flag = (operand, connection, mode, slot + line), self.flag + line
            if operand != "dst" and start + each < self.count:
                row.post = row.post2 = 0
            rows.append(row)
        return rows

    def write(self, line: np.ndarray, turn: int):
        """turn: the epoch's number mod depth."""
        wait = self.wait if turn % self.wait_every == 0 else 0
        post = self.post if (turn + 1) % self.post_every == 0 else 0
        where = {"dst": self.dst, "a": self.a, "b": self.b}
        slot_or_next, param = self.slot, self.param
        if self.mailbox:
            operand, connection, mode, slot = self.mailbox
            where[operand] = (
                connection.inline_flag(turn, slot) + 8 if mode == INLINE else connection.mailbox(turn) + slot
            )
            if self.ahead:
                where["b"] = connection.mailbox((turn + 1) % connection.depth) + slot
                param = where["b"] + self.count
            if self.flag >= 0:
                flag = connection.inline_flag(turn, self.flag)
                if operand == "dst":
                    post = flag
                    slot_or_next = connection.inline_flag((turn + 1) % connection.depth, self.flag)
                else:
                    wait = flag
        line[:] = (
            self.kind, wait, self.wait_k, self.fn, where["dst"], self.dst2, where["a"], where["b"], self.count,
            param, post, self.post_k, self.post2, self.post2_k, self.peer, slot_or_next,
        )  # fmt: skip


class _MpiSide:
    """The MPI messages of one rank's program: request slots, receives posted ahead, landing places.

    A RECV_REDUCE lands in one of RECEIVES_AHEAD staging slots; a RECV lands in its own destination, so it is posted
    only when no step between still uses that place.
    """

    def __init__(self, table, here, itemsize, in_place):
        self.table, self.itemsize, self.in_place = table, itemsize, in_place
        self.slots = 0
        self.send_slot: dict[int, int] = {}
        self.unfinished: set[int] = set()
        self.receive_slot: dict[int, int] = {}
        self.landing: dict[int, int] = {}
        receives = (table["op"] == RECV) | (table["op"] == RECV_REDUCE)
        self.receives = [int(i) for i in np.flatnonzero(receives) if not here(int(table["peer"][i]))]
        self.next = 0
        staged = [i for i in self.receives if table["op"][i] == RECV_REDUCE]
        self.stage_bytes = (max((int(table["count"][i]) for i in staged), default=0) * itemsize + 63) // 64 * 64
        self.staging = np.empty(self.stage_bytes * RECEIVES_AHEAD + 64, np.uint8)
        self.base = (self.staging.ctypes.data + 63) // 64 * 64
        for n, i in enumerate(staged):
            self.landing[i] = self.base + (n % RECEIVES_AHEAD) * self.stage_bytes
        self.staged_order = {i: n for n, i in enumerate(staged)}
        self.reduced = 0  # staged receives already reduced by the rows so far

    def _row(self, kind, i, where, slot):
        n = int(self.table["count"][i]) * self.itemsize
        if n > MPI_MESSAGE_MAX:
            raise ValueError(f"an MPI message of {n} bytes; at most {MPI_MESSAGE_MAX} are accepted: use more --slices")
        # The channel is the tag, so that messages of one channel meet in order whatever the other channels do.
        return _Row(kind=kind, a=where, count=n, param=int(self.table["channel"][i]), peer=int(self.table["peer"][i]),
                    slot=slot)  # fmt: skip

    def take_slot(self) -> int:
        self.slots += 1
        return self.slots - 1

    def send(self, i, src):
        self.send_slot[i] = self.take_slot()
        self.unfinished.add(i)
        return self._row(ISEND, i, src, self.send_slot[i])

    def finish_send(self, rows, i):
        if i in self.unfinished:
            self.unfinished.discard(i)
            rows.append(_Row(kind=MPI_WAIT, slot=self.send_slot[i], peer=int(self.table["peer"][i])))

    def post_receives(self, rows, now, destination):
        """Post the receives whose turn is near; all that the step `now` needs are posted for certain."""
        while self.next < len(self.receives):
            i = self.receives[self.next]
            if i > now:
                ahead = sum(1 for j in self.receive_slot if j >= now)
                if ahead >= RECEIVES_AHEAD:
                    return
                if i in self.staged_order:
                    if self.staged_order[i] - self.reduced >= RECEIVES_AHEAD:
                        return
                elif self._in_use(i, now):
                    return
            elif i not in self.staged_order:
                for j in sorted(self.unfinished):
                    if self._overwrites(i, j):
                        self.finish_send(rows, j)
            self.receive_slot[i] = self.take_slot()
            where = self.landing[i] if i in self.landing else destination(i)
            rows.append(self._row(IRECV, i, where, self.receive_slot[i]))
            self.next += 1

    def _in_use(self, i, now) -> bool:
        """Whether a step in [now, i), or a send not known to be finished, uses the place that receive i writes."""
        to = self.table[i]
        region = (int(to["dst_buffer"]), int(to["dst_offset"]), int(to["count"]))
        between = any(_touches(self.table[j], *region, self.in_place) for j in range(now, i))
        # A peer may still be reading what we sent it: only when our turn comes does the schedule say that it has.
        return between or any(self.table[j]["op"] == SEND and self._overwrites(i, j) for j in range(now))

    def finish_receive(self, rows, i):
        rows.append(_Row(kind=MPI_WAIT, slot=self.receive_slot[i], peer=int(self.table["peer"][i])))
        if i in self.staged_order:
            self.reduced += 1

    def _overwrites(self, receive, send) -> bool:
        to = self.table[receive]
        region = (int(to["dst_buffer"]), int(to["dst_offset"]), int(to["count"]))
        return bool(_touches(self.table[send], *region, self.in_place))
