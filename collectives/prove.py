"""Proves a schedule right for given p, without moving any data.

``prove(schedule)`` checks, and says in words what is wrong:

well formed    fields in range, regions inside their buffers, `after` before its own step, peers that exist
matched        the k-th send from a to b on a channel meets the k-th receive there, of the same count; none is left over
no deadlock    with a process for each channel of each rank, and with one thread a rank that walks its table in order and
               blocks in every wait; a step `after` a send waits until the receiver has finished taking it
contributions  every rank's OUTPUT holds what the collective says (collective.py), each contribution exactly once
final          a reduction is marked final if and only if its result is complete
hazards        two accesses of a rank's memory that overlap, one of them a write, are ordered by happens-before, however
               fast any rank or channel is; a send reads its region until its receiver has finished

How. Elements that all steps treat alike form a segment. A walk to the end in any legal order shows freedom from
deadlock: no step ever chooses, so every order gets equally far. Along that order each segment of each buffer carries
a tag, the place in the input that its elements come from, and a bit mask of the ranks whose contributions are in it;
and each process (rank, channel) a vector clock: for each other process how many of its steps are known
to be over. A segment remembers its last write and the reads since; an access has to know of
those it conflicts with. This is the race detector of C. Flanagan, S. Freund, "FastTrack", PLDI 2009, with the reads
kept in full.

``Proof.identical`` says in addition whether all ranks that get the same sum get the same bits in floating-point arithmetic, where
the order counts: every segment carries a hash of its expression, equal for a+b and b+a only.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numba import njit

from . import algorithms as algorithms_of
from . import build
from .collective import ALL, ALL_REDUCE, Collective
from .growing import grown, grown_rows
from .schedule import (
    BUFFER_NAMES,
    COPY,
    INPUT,
    NOP,
    OP_NAMES,
    OUTPUT,
    RECV,
    RECV_REDUCE,
    REDUCE,
    SCRATCH,
    SEND,
    STEP,
    Schedule,
)

SHOWN = 20
"""At most so many problems of a kind are put in words."""

SEGMENTS = 1 << 20
"""More segments than this are refused: a table that shifts data by odd offsets can cut a message into single elements."""

CHANNEL_IDS = 1 << 16
"""Channels are numbered from 0; the limit keeps (src, dst, channel, number) in 64 bits."""

FORM = "well formed"
MATCH = "sends and receives match"
CHANNELS = "no deadlock, a process a channel"
THREAD = "no deadlock, one thread a rank"
ONCE = "every output holds each contribution it should exactly once"
FINAL = "final marks are exact"
HAZARD = "no hazard: conflicting accesses are ordered"


@dataclass(frozen=True)
class Proof:
    """What was proven of one schedule.

    algorithm, ..., collective, root: as the schedule's; steps, messages: over all ranks; proven: the checks that passed;
    problems: what is wrong, in words, empty if all is proven; identical: whether all ranks' results of one sum are the same
    expression up to commutation, so the same bits in floating-point arithmetic.
    """

    algorithm: str
    ranks: int
    count: int
    in_place: bool
    steps: int
    messages: int
    proven: tuple[str, ...]
    problems: tuple[str, ...]
    identical: bool
    collective: str = ALL_REDUCE.name
    root: int = 0

    @property
    def ok(self) -> bool:
        return not self.problems


def prove(schedule: Schedule) -> Proof:
    """Checks `schedule`; finds, never raises, what is wrong with it.

    Raises ValueError only if the tables cut the message into more than SEGMENTS pieces: prove a smaller count then.
    """
    form = _malformed(schedule)
    if form:
        return _proof(schedule, [], form, False)
    flat = _Flat(schedule)
    partner, unmatched = _match(flat)
    if unmatched:
        return _proof(schedule, [FORM], unmatched, False)
    proven, problems = [FORM, MATCH], []

    table = flat.table
    order, stuck = _run(flat, partner, flat.rank * flat.channels + table["channel"])
    if stuck:
        problems += [f"deadlock, a process a channel: {text}" for text in stuck]
    else:
        proven.append(CHANNELS)
        _, stuck = _run(flat, partner, flat.rank)
        if stuck:
            problems += [f"deadlock, one thread a rank: {text}" for text in stuck]
        else:
            proven.append(THREAD)

    found, missing, identical = _follow(flat, partner, order)
    if len(order) == len(table):
        found[ONCE] += missing
        for what in (ONCE, FINAL, HAZARD):
            if not found[what]:
                proven.append(what)
    for texts in found.values():
        problems += _shorten(texts)
    return _proof(schedule, proven, problems, identical and len(order) == len(table))


def prove_all(
    max_ranks: int,
    *,
    collective: Collective = ALL_REDUCE,
    algorithms: Iterable[str] | None = None,
    min_ranks: int = 1,
) -> Iterator[tuple[str, int, dict, Proof]]:
    """Proves every algorithm of a collective for every p up to `max_ranks`; yields (algorithm, ranks, options, proof) one by one.

    options: count (0, 1, p-1, p and 3p+1), in_place where the collective has it, root (0, p/2 and p-1) where it has one, and
    where the algorithm has them channels (1, 2), slices (1, 2, 3) and nodes (of 2 ranks, of 3, and two by turns):
    the keywords of ``build``.
    """
    known = algorithms_of(collective)
    for name in known if algorithms is None else algorithms:
        for ranks in range(min_ranks, max_ranks + 1):
            choices: dict[str, Iterable] = {
                "count": sorted({0, 1, ranks - 1, ranks, 3 * ranks + 1}),
                "in_place": (False, True) if collective.in_place else (False,),
            }
            if known[name].takes_channels:
                choices["channels"] = (1, 2)
            if known[name].takes_slices:
                choices["slices"] = (1, 2, 3)
            if known[name].takes_nodes:
                choices["nodes"] = (2, 3, tuple(r % 2 for r in range(ranks)))
            if collective.rooted:
                choices["root"] = sorted({0, ranks // 2, ranks - 1})
            for values in itertools.product(*choices.values()):
                options = dict(zip(choices, values))
                yield name, ranks, options, prove(build(name, ranks, collective=collective, **options))


def _proof(schedule: Schedule, proven: list[str], problems: list[str], identical: bool) -> Proof:
    return Proof(
        algorithm=schedule.algorithm,
        ranks=schedule.ranks,
        count=schedule.count,
        in_place=schedule.in_place,
        steps=sum(len(t) for t in schedule.tables),
        messages=sum(int(np.count_nonzero(t["op"] == SEND)) for t in schedule.tables if t.dtype == STEP),
        proven=tuple(proven),
        problems=tuple(problems),
        identical=identical,
        collective=schedule.collective.name,
        root=schedule.root,
    )


def _shorten(texts: list[str]) -> list[str]:
    return texts if len(texts) <= SHOWN else [*texts[:SHOWN], f"... and {len(texts) - SHOWN} more of this kind"]


class _Flat:
    """All tables in one, with what every check needs: each row's rank and its index in that rank's table."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        lengths = np.array([len(t) for t in schedule.tables], np.int64)
        self.start = np.concatenate([[0], np.cumsum(lengths)])
        self.table = np.concatenate(schedule.tables)
        # A table of one row has contiguous columns: as they are, they would be of two types to Numba.
        self.op, self.final = self.table["op"].copy(), self.table["final"].copy()
        self.rank = np.repeat(np.arange(schedule.ranks), lengths)
        self.index = np.arange(len(self.table)) - self.start[self.rank]
        self.channels = schedule.channels
        after = self.table["after"].astype(np.int64)
        self.after = np.where(after < 0, -1, after + self.start[self.rank])

    def name(self, row: int) -> str:
        return _name(self.rank[row], self.index[row], self.table[row])


def _name(rank: int, index: int, s: np.void) -> str:
    """One step in words: rank, index, what it does."""
    op = int(s["op"])
    src = _region(s["src_buffer"], s["src_offset"], s["count"])
    dst = _region(s["dst_buffer"], s["dst_offset"], s["count"])
    what = {
        SEND: f"send {src} to rank {s['peer']}",
        RECV: f"recv {dst} from rank {s['peer']}",
        RECV_REDUCE: f"recv_reduce {src} with rank {s['peer']} into {dst}",
        REDUCE: f"reduce {src} into {dst}",
        COPY: f"copy {src} to {dst}",
        NOP: "nop",
    }.get(op, f"op {op}")
    return f"rank {rank} step {index} ({what}, channel {s['channel']})"


def _region(buffer: int, offset: int, count: int) -> str:
    first, n = int(offset), int(count)
    return f"{BUFFER_NAMES.get(int(buffer), f'buffer {buffer}')}[{first}:{first + n}]"


READS_SRC = (SEND, RECV_REDUCE, REDUCE, COPY)
WRITES_DST = (RECV, RECV_REDUCE, REDUCE, COPY)


def _malformed(schedule: Schedule) -> list[str]:
    if schedule.ranks < 1 or len(schedule.tables) != schedule.ranks:
        return [f"{len(schedule.tables)} tables for {schedule.ranks} ranks: there must be one a rank, at least one"]
    found = []
    collective = schedule.collective.name
    # What a rank may write of OUTPUT: in place, its part of the larger buffer.
    first, size = np.zeros((2, schedule.ranks), np.int64)
    alone = schedule.collective.output_count(schedule.ranks, schedule.count)
    for rank in np.unique(schedule.outputs[:, 0]):
        size[rank] = alone
        first[rank] = schedule.collective.offsets(rank, schedule.ranks, schedule.count)[1] * schedule.in_place
    for rank, t in enumerate(schedule.tables):
        if t.dtype != STEP or t.ndim != 1:
            found.append(f"rank {rank}: the table is a {t.ndim}-dimensional array of {t.dtype}, not one of STEP rows")
            continue
        op = t["op"]
        index = np.arange(len(t))
        talks = np.isin(op, (SEND, RECV, RECV_REDUCE))
        reduces = np.isin(op, (RECV_REDUCE, REDUCE))
        reads, writes = np.isin(op, READS_SRC), np.isin(op, WRITES_DST)
        peer = t["peer"]
        checks = [
            (~np.isin(op, list(OP_NAMES)), "unknown op"),
            (t["final"] > reduces, "final must be 0 or 1, and 0 on a step that reduces nothing"),
            ((t["channel"] < 0) | (t["channel"] >= CHANNEL_IDS), f"channel must be 0 ... {CHANNEL_IDS - 1}"),
            (talks & ((peer < 0) | (peer >= schedule.ranks) | (peer == rank)), "no such peer"),
            (~talks & (peer != -1), "a local step has a peer: it must be -1"),
            ((t["after"] < -1) | (t["after"] >= index), "after must be -1 or the index of an earlier step"),
            ((t["count"] < 1) & (op != NOP), "moves no elements: leave the step out"),
        ]
        for side, used in (("src", reads), ("dst", writes)):
            buffer, offset = t[f"{side}_buffer"], t[f"{side}_offset"]
            # Of an unused side too: a walker may form both addresses before it looks at op.
            checks.append((buffer > SCRATCH, f"no such {side}_buffer"))
            for which, room in ((INPUT, schedule.input_count), (OUTPUT, schedule.output_count), (SCRATCH, 1 << 62)):
                outside = (offset < 0) | (offset > room - t["count"])
                text = f"{side} lies outside its buffer of {room} elements"
                checks.append((used & (buffer == which) & outside, text))
        if not schedule.in_place:
            checks.append((writes & (t["dst_buffer"] == INPUT), f"writes INPUT of an out-of-place {collective}"))
        stray = (t["dst_offset"] < first[rank]) | (t["dst_offset"] > first[rank] + size[rank] - t["count"])
        checks.append(
            (writes & (t["dst_buffer"] != SCRATCH) & stray, f"writes what is not the rank's output of {collective}")
        )
        src, dst = _memory(t["src_buffer"], schedule.in_place), _memory(t["dst_buffer"], schedule.in_place)
        shift = np.abs(t["src_offset"] - t["dst_offset"])
        overlap = reads & writes & (src == dst) & (shift > 0) & (shift < t["count"])
        checks.append((overlap, "src and dst overlap without being the same"))
        for bad, text in checks:
            found += [f"{_name(rank, i, t[i])}: {text}" for i in np.flatnonzero(bad)]
    return _shorten(found)


def _memory(buffer: np.ndarray, in_place: bool) -> np.ndarray:
    """The buffer, INPUT and OUTPUT being one in place."""
    return np.where(in_place & (buffer == INPUT), OUTPUT, buffer)


def _match(flat: _Flat) -> tuple[np.ndarray, list[str]]:
    """Each send's receive and each receive's send, by row (-1 for other steps), and what does not match."""
    t = flat.table
    sends = np.flatnonzero(t["op"] == SEND)
    receives = np.flatnonzero(np.isin(t["op"], (RECV, RECV_REDUCE)))
    p = flat.schedule.ranks
    lane_of_send = (flat.rank[sends] * p + t["peer"][sends]) * flat.channels + t["channel"][sends]
    lane_of_receive = (t["peer"][receives] * np.int64(p) + flat.rank[receives]) * flat.channels
    lane_of_receive += t["channel"][receives]

    sends, lane_of_send, nth_send = _number(sends, lane_of_send)
    receives, lane_of_receive, nth_receive = _number(receives, lane_of_receive)
    many = 1 + max(len(sends), len(receives))
    key_send, key_receive = lane_of_send * many + nth_send, lane_of_receive * many + nth_receive

    partner = np.full(len(t), -1, np.int64)
    _, i, j = np.intersect1d(key_send, key_receive, assume_unique=True, return_indices=True)
    partner[sends[i]], partner[receives[j]] = receives[j], sends[i]

    lonely_sends, lonely_receives = sends[partner[sends] < 0], receives[partner[receives] < 0]
    problems = _shorten([f"{flat.name(i)}: rank {t['peer'][i]} has no receive for it" for i in lonely_sends])
    problems += _shorten([f"{flat.name(i)}: rank {t['peer'][i]} has no send for it" for i in lonely_receives])
    i, j = sends[i], receives[j]
    unequal = t["count"][i] != t["count"][j]
    problems += _shorten(
        [
            f"{flat.name(a)} meets {flat.name(b)}: {t['count'][a]} elements against {t['count'][b]}"
            for a, b in zip(i[unequal], j[unequal])
        ]
    )
    return partner, problems


def _number(rows: np.ndarray, lane: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by lane, their lanes, and each one's number within its lane."""
    by = np.argsort(lane, kind="stable")
    rows, lane = rows[by], lane[by]
    first = np.searchsorted(lane, lane, side="left")
    return rows, lane, np.arange(len(rows)) - first


def _run(flat: _Flat, partner: np.ndarray, process: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Walks all tables, `process` naming each row's process; returns the order and, if stuck, who waits for what."""
    _, process = np.unique(process, return_inverse=True)
    rows = np.argsort(process, kind="stable")
    first = np.searchsorted(process[rows], np.arange(process.max(initial=-1) + 2))
    order, at = _walk(flat.op, flat.after, partner, rows, first)
    if len(order) == len(flat.table):
        return order, []
    done = np.zeros(len(flat.table), bool)
    done[order] = True
    stuck = []
    for q in np.flatnonzero(first[:-1] + at < first[1:]):
        row = rows[first[q] + at[q]]
        other = int(flat.after[row])
        if other >= 0 and flat.table["op"][other] == SEND and not done[partner[other]]:
            why = f"its send {flat.index[other]} to be taken by {flat.name(partner[other])}"
        elif other >= 0 and not done[other]:
            why = f"step {flat.index[other]}"
        else:
            why = flat.name(partner[row])
        stuck.append(f"{flat.name(row)} waits for {why}")
    return order, _shorten(stuck)


def _follow(flat: _Flat, partner: np.ndarray, order: np.ndarray) -> tuple[dict[str, list[str]], list[str], bool]:
    """Clocks and contributions along `order`: the problems by check, what is missing in the end, and `identical`."""
    schedule, t = flat.schedule, flat.table
    edges = _edges(flat, partner)
    segments = len(edges) - 1
    src = np.searchsorted(edges, t["src_offset"])
    dst = np.searchsorted(edges, t["dst_offset"])
    # Where a side is unused its offset may be no edge; its end then is not looked at either.
    reads, writes = np.isin(t["op"], READS_SRC), np.isin(t["op"], WRITES_DST)
    src_end = np.searchsorted(edges, t["src_offset"] + t["count"])
    dst_end = np.searchsorted(edges, t["dst_offset"] + t["count"])
    width = np.where(reads, src_end - src, np.where(writes, dst_end - dst, 0))

    # Only buffers in use get state: memory[b] is the place of buffer b among them.
    buffers = 2 - schedule.in_place + (schedule.scratch > 0)
    memory = np.array([0, 0, 1] if schedule.in_place else [0, 1, 2])
    place_src = (flat.rank * buffers + memory[np.where(reads, t["src_buffer"], 0)]) * segments + src
    place_dst = (flat.rank * buffers + memory[np.where(writes, t["dst_buffer"], 0)]) * segments + dst

    _, process = np.unique(flat.rank * flat.channels + t["channel"], return_inverse=True)
    # Which places hold an input at first, and which must hold what in the end: one row a segment.
    starts = _by_segment(edges, schedule.inputs[:, [0, 1, 2]], schedule.inputs[:, 2] * 0)
    ends = _by_segment(edges, schedule.outputs[:, [0, 1, 2]], schedule.outputs[:, 3])
    who = schedule.outputs[ends[:, 3], 4]
    given = (starts[:, 0] * buffers + memory[INPUT]) * segments + starts[:, 1]
    goal = (ends[:, 0] * buffers + memory[OUTPUT]) * segments + ends[:, 1]
    found, tag, lacking, value = _check(
        flat.op,
        flat.final,
        flat.after,
        partner,
        process,
        order,
        place_src,
        place_dst,
        width,
        schedule.ranks,
        buffers,
        segments,
        given,
        starts[:, 2].copy(),
        starts[:, 0].copy(),
        goal,
        who,
        SHOWN,
    )

    # Hazards first: what else is wrong may come of them.
    problems: dict[str, list[str]] = {HAZARD: [], ONCE: [], FINAL: []}
    for kind, row, other, place in found:
        buffer = next(b for b in (OUTPUT, INPUT, SCRATCH) if memory[b] == place // segments % buffers)
        g = place % segments
        where = _region(buffer, edges[g], edges[g + 1] - edges[g])
        of = flat.rank[row]
        text, what = {
            _UNWRITTEN: (f"{where} was never written", ONCE),
            _TWICE: (f"{where}: the two operands share a contribution", ONCE),
            _SHIFTED: (f"{where}: the operands belong to different elements", ONCE),
            _NOT_FINAL: (f"marked final, but {where} lacks contributions", FINAL),
            _UNMARKED: (f"{where} is complete, but not marked final", FINAL),
            _READ_EARLY: (f"reads {where} of rank {of} unordered with the write by {flat.name(other)}", HAZARD),
            _WRITE_WRITE: (f"writes {where} of rank {of} unordered with the write by {flat.name(other)}", HAZARD),
            _WRITE_READ: (f"writes {where} of rank {of} unordered with the read by {flat.name(other)}", HAZARD),
        }[kind]
        problems[what].append(f"{flat.name(row)}: {text}")

    missing = []
    wrong = np.flatnonzero((tag != ends[:, 2]) | (lacking >= 0))
    for (rank, g, source, _), i in zip(ends[wrong], wrong):
        where = _region(OUTPUT, edges[g], edges[g + 1] - edges[g])
        if tag[i] < 0:
            missing.append(f"rank {rank}: {where} is never written")
        elif tag[i] != source:
            missing.append(f"rank {rank}: {where} ends with the elements from {edges[tag[i]]} on")
        elif who[i] == ALL:
            missing.append(f"rank {rank}: {where} ends without the contribution of rank {lacking[i]}")
        else:
            missing.append(f"rank {rank}: {where} ends with something else than the input of rank {who[i]}")
    # Sums of the same elements must be the same expression, wherever they are.
    sums = ends[:, 2][who == ALL]
    order = np.argsort(sums, kind="stable")
    same = sums[order][1:] == sums[order][:-1]
    values = value[who == ALL][order]
    return problems, missing, bool((values[1:] == values[:-1])[same].all())


def _by_segment(edges: np.ndarray, regions: np.ndarray, source: np.ndarray) -> np.ndarray:
    """int64 [rows, 4]: rank, segment, segment of the source, and number of the region, for each segment of each region (rank,
    offset, elements) whose elements come from `source` on."""
    first, last = np.searchsorted(edges, regions[:, 1]), np.searchsorted(edges, regions[:, 1] + regions[:, 2])
    width = last - first
    number = np.repeat(np.arange(len(regions)), width)
    within = np.arange(len(number)) - np.repeat(np.cumsum(width) - width, width)
    from_ = np.searchsorted(edges, source)[number] + within
    return np.stack([regions[number, 0], first[number] + within, from_, number], 1)


def _edges(flat: _Flat, partner: np.ndarray) -> np.ndarray:
    """Where segments begin and end, the same in all buffers of all ranks: no step's region is cut inside a segment."""
    t = flat.table
    reads, writes = np.isin(t["op"], READS_SRC), np.isin(t["op"], WRITES_DST)
    src, dst, n = t["src_offset"], t["dst_offset"], t["count"]
    ends = [src[reads], (src + n)[reads], dst[writes], (dst + n)[writes]]
    schedule = flat.schedule
    given, wanted = schedule.inputs, schedule.outputs
    for offset, k in (
        (given[:, 1], given[:, 2]),
        (given[:, 1] * 0, given[:, 2]),
        (wanted[:, 1], wanted[:, 2]),
        (wanted[:, 3], wanted[:, 2]),
    ):
        ends += [offset, offset + k]
    edges = np.unique(np.concatenate([[0, schedule.input_count, schedule.output_count], *ends]))
    # Data that lands at another offset carries the cuts of one place to the other, and so on until none is new.
    came_from = partner[writes & (partner >= 0)]
    moves = np.unique(
        np.concatenate(
            [
                np.stack([src, dst, n], 1)[reads & writes],
                np.stack([src[came_from], dst[writes & (partner >= 0)], n[came_from]], 1),
                np.stack([given[:, 1] * 0, given[:, 1], given[:, 2]], 1),
                wanted[:, [3, 1, 2]],
            ]
        ),
        axis=0,
    )
    moves = moves[moves[:, 0] != moves[:, 1]]
    while len(moves):
        cuts = [edges]
        for a, b, k in moves:
            cuts.append(edges[(edges > a) & (edges < a + k)] + (b - a))
            cuts.append(edges[(edges > b) & (edges < b + k)] + (a - b))
        more = np.unique(np.concatenate(cuts))
        if len(more) > SEGMENTS:
            raise ValueError(
                f"{flat.schedule.algorithm}: its offsets cut {flat.schedule.count} elements into more than {SEGMENTS} "
                "segments; prove it for a smaller count"
            )
        if len(more) == len(edges):
            break
        edges = more
    if len(edges) < 2:
        edges = np.array([0, 1])
    return edges


@njit(cache=True)
def _walk(op, after, partner, rows, first):
    """Runs every process as far as it gets; returns the order of the rows run and how many each process has run.

    Process q has rows[first[q]:first[q+1]]. A process waits for at most one thing, so waiters are a list per row: heads
    in `issued` (for a send to be issued) and `over` (for a step to be complete), links in `next_waiter`.
    """
    processes = len(first) - 1
    n = len(rows)
    at = np.zeros(processes, np.int64)
    order = np.empty(n, np.int64)
    ran = 0
    is_issued = np.zeros(n, np.bool_)
    is_over = np.zeros(n, np.bool_)
    head = np.full(2 * n, -1, np.int64)
    next_waiter = np.full(processes, -1, np.int64)
    ready = np.empty(processes, np.int64)
    for q in range(processes):
        ready[q] = processes - 1 - q
    count = processes
    while count:
        count -= 1
        q = ready[count]
        while first[q] + at[q] < first[q + 1]:
            row = rows[first[q] + at[q]]
            if after[row] >= 0 and not is_over[after[row]]:
                event = 2 * after[row] + 1
                next_waiter[q], head[event] = head[event], q
                break
            takes = op[row] == RECV or op[row] == RECV_REDUCE
            if takes and not is_issued[partner[row]]:
                event = 2 * partner[row]
                next_waiter[q], head[event] = head[event], q
                break
            order[ran] = row
            ran += 1
            at[q] += 1
            is_issued[row] = True
            is_over[row] = op[row] != SEND
            if takes:
                is_over[partner[row]] = True
            for event in (
                2 * row,
                2 * row + 1 if is_over[row] else 2 * row,
                2 * partner[row] + 1 if takes else 2 * row,
            ):
                while head[event] >= 0:
                    ready[count] = head[event]
                    head[event] = next_waiter[ready[count]]
                    count += 1
    return order[:ran], at


_UNWRITTEN, _TWICE, _SHIFTED, _NOT_FINAL, _UNMARKED, _READ_EARLY, _WRITE_WRITE, _WRITE_READ = range(8)


@njit(cache=True)
def _mix(x):
    """A 64-bit finaliser (splitmix64's), so that hashes of sums do not cancel."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@njit(cache=True)
def _check(
    op,
    final,
    after,
    partner,
    process,
    order,
    place_src,
    place_dst,
    width,
    ranks,
    buffers,
    segments,
    given,
    given_tag,
    given_rank,
    goal,
    goal_rank,
    shown,
):
    """Follows contributions and clocks along `order`.

    A place is (rank * buffers + buffer) * segments + segment. `given` places hold the segment given_tag of the input of given_rank
    at first; `goal` places are to hold contributions of goal_rank (ALL: of everybody). Returns the problems, one of a kind a
    row, as (kind, row, other row, place), and for each goal place: the tag (which segment's elements it holds, -1 for none), a
    rank whose contribution it lacks or has too much (-1: none), and the hash of its expression.
    """
    n = len(op)
    places = ranks * buffers * segments
    words = (ranks + 63) // 64
    full = np.zeros(words, np.uint64)
    for r in range(ranks):
        full[r // 64] |= np.uint64(1) << np.uint64(r % 64)
    tag = np.full(places, -1, np.int32)
    mask = np.zeros((places, words), np.uint64)
    value = np.zeros(places, np.uint64)
    for i in range(len(given)):
        place, r = given[i], given_rank[i]
        tag[place] = given_tag[i]
        mask[place, r // 64] = np.uint64(1) << np.uint64(r % 64)
        value[place] = _mix(np.uint64(r + 1))

    # Clocks. A process keeps its clock in slot[process]; a send passes the slot on, without a copy, together with its own
    # number; who wants to change a slot that others hold makes a copy first. clock[.., q] = steps of q known to be over.
    processes = 0
    for row in range(n):
        processes = max(processes, process[row] + 1)
    clock = np.zeros((2 * processes + 2, processes), np.int32)
    holders = np.zeros(len(clock), np.int32)
    free = np.arange(len(clock) - 1, -1, -1)
    frees = len(clock)
    slot = np.empty(processes, np.int64)
    for q in range(processes):
        frees -= 1
        slot[q] = free[frees]
        holders[slot[q]] = 1
    number = np.zeros(n, np.int32)  # 1, 2, ... within the process
    steps = np.zeros(processes, np.int32)
    sent_slot = np.full(n, -1, np.int64)
    over_slot = np.full(n, -1, np.int64)
    is_over = np.zeros(n, np.bool_)
    waited_for = np.zeros(n, np.int32)
    for row in range(n):
        if after[row] >= 0:
            waited_for[after[row]] += 1

    # Accesses of a place: the last write's row, and the list of the rows that read since.
    wrote = np.full(places, -1, np.int32)
    read_head = np.full(places, -1, np.int32)
    read_row = np.empty(1024, np.int32)
    read_next = np.empty(1024, np.int32)
    reads = 0
    read_free = -1

    kinds = np.zeros(8, np.int64)
    last_row = np.full(8, -1, np.int64)
    found = np.empty((8 * (shown + 1), 4), np.int64)
    problems = 0

    for row in order:
        q = process[row]
        steps[q] += 1
        number[row] = steps[q]
        takes = op[row] == RECV or op[row] == RECV_REDUCE
        came = partner[row]

        # What this step knows: all before it in its process, what it waited for, and what its message's sender knew.
        for join in range(2):
            other, theirs = -1, -1
            if join == 0 and after[row] >= 0:
                other = after[row]
                if op[other] == SEND:
                    other = partner[other]
                theirs = over_slot[other]
                if process[other] == q:
                    theirs = -1
            elif join == 1 and takes:
                other = came
                theirs = sent_slot[other]
            if theirs >= 0:
                mine = slot[q]
                if holders[mine] > 1:
                    if frees == 0:
                        frees = len(clock)
                        clock, holders = grown_rows(clock), grown(holders)
                        free = np.arange(len(clock) - 1, -1, -1)
                    frees -= 1
                    new = free[frees]
                    holders[new] = 1
                    holders[mine] -= 1
                    for i in range(processes):
                        clock[new, i] = max(clock[mine, i], clock[theirs, i])
                    slot[q] = new
                else:
                    for i in range(processes):
                        clock[mine, i] = max(clock[mine, i], clock[theirs, i])
                clock[slot[q], process[other]] = max(clock[slot[q], process[other]], number[other])
                if join == 1:
                    holders[theirs] -= 1
                    sent_slot[other] = -1
                    if holders[theirs] == 0:
                        free[frees] = theirs
                        frees += 1
            if join == 0 and after[row] >= 0:
                waited_for[after[row]] -= 1
                if waited_for[after[row]] == 0:
                    if op[after[row]] == SEND:
                        other = partner[after[row]]
                    else:
                        other = after[row]
                    # A receive's slot may be wanted as itself and as its send's completion.
                    still = waited_for[other]
                    if partner[other] >= 0:
                        still += waited_for[partner[other]]
                    if over_slot[other] >= 0 and still == 0:
                        holders[over_slot[other]] -= 1
                        if holders[over_slot[other]] == 0:
                            free[frees] = over_slot[other]
                            frees += 1
                        over_slot[other] = -1
        now = slot[q]

        reads_src = op[row] == SEND or op[row] == RECV_REDUCE or op[row] == REDUCE or op[row] == COPY
        writes = op[row] == RECV or op[row] == RECV_REDUCE or op[row] == REDUCE or op[row] == COPY
        for g in range(width[row]):
            s, d = place_src[row] + g, place_dst[row] + g
            for side in range(2):
                # Side 0 is what src reads, side 1 what dst writes (and REDUCE reads).
                place = s if side == 0 else d
                if (side == 0 and not reads_src) or (side == 1 and not writes):
                    continue
                kind, other = -1, -1
                if tag[place] < 0 and (side == 0 or op[row] == REDUCE):
                    kind = _UNWRITTEN
                else:
                    w = wrote[place]
                    if w >= 0 and process[w] != q and clock[now, process[w]] < number[w]:
                        kind, other = (_READ_EARLY if side == 0 else _WRITE_WRITE), w
                    elif side == 1:
                        e = read_head[place]
                        while e >= 0:
                            r = read_row[e]
                            # A send reads until its receive is over.
                            by = partner[r] if op[r] == SEND else r
                            if op[r] == SEND and not is_over[r]:
                                # Its receive may be this very step only if it were its own peer, which form excludes.
                                kind, other = _WRITE_READ, r
                            elif process[by] != q and clock[now, process[by]] < number[by]:
                                kind, other = _WRITE_READ, r
                            e = read_next[e]
                if kind >= 0 and last_row[kind] != row:
                    last_row[kind] = row
                    kinds[kind] += 1
                    if kinds[kind] <= shown + 1:
                        found[problems, 0], found[problems, 1], found[problems, 2] = kind, row, other
                        found[problems, 3] = place
                        problems += 1

            if reads_src and not (writes and s == d):
                if read_free >= 0:
                    e = read_free
                    read_free = read_next[e]
                else:
                    if reads == len(read_row):
                        read_row, read_next = grown(read_row), grown(read_next)
                    e = reads
                    reads += 1
                read_row[e] = row
                read_next[e] = read_head[s]
                read_head[s] = e
            if writes:
                wrote[d] = row
                e = read_head[d]
                while e >= 0:
                    gone = e
                    e = read_next[e]
                    read_next[gone] = read_free
                    read_free = gone
                read_head[d] = -1

                # Zero-copy: a message is what lies at the sender when it is taken.
                a = place_src[came] + g if takes else s
                if op[row] == RECV or op[row] == COPY:
                    tag[d] = tag[a]
                    value[d] = value[a]
                    for i in range(words):
                        mask[d, i] = mask[a, i]
                else:
                    b = s if takes else d
                    kind = -1
                    if tag[a] >= 0 and tag[b] >= 0 and tag[a] != tag[b]:
                        kind = _SHIFTED
                    complete = True
                    for i in range(words):
                        if mask[a, i] & mask[b, i]:
                            kind = _TWICE
                        union = mask[a, i] | mask[b, i]
                        mask[d, i] = union
                        if union != full[i]:
                            complete = False
                    tag[d] = tag[a] if tag[a] >= 0 else tag[b]
                    value[d] = _mix(value[a] + value[b])
                    for _ in range(2):
                        if kind >= 0 and last_row[kind] != row:
                            last_row[kind] = row
                            kinds[kind] += 1
                            if kinds[kind] <= shown + 1:
                                found[problems, 0], found[problems, 1], found[problems, 2] = kind, row, -1
                                found[problems, 3] = d
                                problems += 1
                        kind = -1
                        if complete != (final[row] != 0):
                            kind = _UNMARKED if complete else _NOT_FINAL

        if op[row] == SEND:
            sent_slot[row] = now
            holders[now] += 1
        else:
            is_over[row] = True
            wanted = waited_for[row]
            if takes:
                is_over[came] = True
                wanted += waited_for[came]
            if wanted > 0:
                over_slot[row] = now
                holders[now] += 1

    out_tag = np.full(len(goal), -1, np.int32)
    lacking = np.full(len(goal), -1, np.int32)
    out_value = np.zeros(len(goal), np.uint64)
    for w in range(len(goal)):
        place = goal[w]
        out_tag[w] = tag[place]
        out_value[w] = value[place]
        for r in range(ranks - 1, -1, -1):
            has = (mask[place, r // 64] >> np.uint64(r % 64)) & np.uint64(1)
            if has != (goal_rank[w] == ALL or goal_rank[w] == r):
                lacking[w] = r
    return found[:problems], out_tag, lacking, out_value
