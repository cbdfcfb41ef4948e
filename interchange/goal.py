"""GOAL, the schedule text of LogGOPSim and ATLAHS: written from our schedules, read for simulation.

What a step becomes::

    SEND                send
    RECV                recv
    RECV_REDUCE         recv, then calc
    REDUCE, COPY, NOP   calc

The calc of a reduction that takes no time is left out. Steps of one channel follow one another: an operation requires the
last recv or calc before it, and `irequires` the last send (a send does not block). `after` becomes `requires`; an eager send
of GOAL is over once it has begun, so there it says less than ours.

Tags. LogGOPSim delivers messages of one tag between two ranks in the order in which they happen to be taken, and gets
stuck, silently, where that is not the order they were meant in. So the k-th message from a to b on a channel has tag
channel + k * channels, which no other message from a to b has.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numba import njit

from ..collectives.schedule import COPY, RECV, RECV_REDUCE, REDUCE, SEND, STEP, Schedule
from ..errors import UserError
from ..fabric.time.loggops import ANY, GOAL_CALC, GOAL_RECV, GOAL_SEND, Goal, goal

FILE_LIMIT = 64 << 20  # bytes of text; parsed, they take some ten times as much
RANKS_LIMIT = 1 << 22
NUMBER_LIMIT = 1 << 62
TAG_LIMIT = (1 << 32) - 1  # LogGOPSim's tags are uint32, and the last one means any


def from_schedule(
    schedule: Schedule, itemsize: int, *, reduce_per_byte: float = 0.0, copy_per_byte: float = 0.0
) -> Goal:
    """A schedule as a Goal; itemsize in bytes, reduction and copy time in the GOAL's unit of time a byte.

    Raises UserError where a tag would not fit 32 bits.
    """
    tables = [np.ascontiguousarray(t, STEP) for t in schedule.tables]
    steps = np.concatenate(tables) if tables else np.zeros(0, STEP)
    first = np.concatenate([[0], np.cumsum([len(t) for t in tables])]).astype(np.int64)
    channels = schedule.channels
    owner = np.repeat(np.arange(schedule.ranks), np.diff(first))
    number = _message_numbers(steps, owner)
    tag = steps["channel"].astype(np.int64) + number * channels
    if len(tag) and tag.max() >= TAG_LIMIT:
        raise UserError(f"{schedule.algorithm}: {tag.max()} messages between two ranks; GOAL has {TAG_LIMIT} tags")
    nbytes = steps["count"] * itemsize
    work = np.zeros(len(steps))
    work[np.isin(steps["op"], (RECV_REDUCE, REDUCE))] = reduce_per_byte
    work[steps["op"] == COPY] = copy_per_byte
    duration = np.floor(nbytes * work + 0.5).astype(np.int64)
    columns = (steps["op"].astype(np.int64), steps["peer"].astype(np.int64), steps["channel"].astype(np.int64))
    starts, ops, edges = _lower(first, *columns, steps["after"].astype(np.int64), nbytes, duration, tag, channels)
    zeros = np.zeros(len(ops), np.int32)
    return goal(starts, ops[:, 0], ops[:, 1], ops[:, 2], ops[:, 3], zeros, zeros, edges[:, 0], edges[:, 1], edges[:, 2])


def _message_numbers(steps, owner):
    """For each SEND and receive, how many of its (sender, receiver, channel) came before it; both ends agree."""
    number = np.zeros(len(steps), np.int64)
    for ops in ((SEND,), (RECV, RECV_REDUCE)):
        rows = np.flatnonzero(np.isin(steps["op"], ops))
        if not len(rows):
            continue
        keys = np.stack([owner[rows], steps["peer"][rows], steps["channel"][rows]])
        order = np.lexsort((rows, *keys))
        new = np.ones(len(rows), bool)
        new[1:] = (np.diff(keys[:, order], axis=1) != 0).any(axis=0)
        begin = np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))
        number[rows[order]] = np.arange(len(rows)) - begin
    return number


@njit(cache=True)
def _lower(first, op, peer, channel, after, nbytes, duration, tag, channels):
    """(starts, int64 [operations, 4]: kind, size, peer, tag; int64 [edges, 3]: before, after, at start)."""
    ranks = len(first) - 1
    steps = len(op)
    ops = np.zeros((2 * steps, 4), np.int64)
    edges = np.zeros((4 * steps, 3), np.int64)  # at most four a step; pages that are not written cost nothing
    n, e = 0, 0
    starts = np.zeros(ranks + 1, np.int64)
    end_of = np.full(steps, -1, np.int64)  # the operation whose end is the step's
    over = np.full(channels, -1, np.int64)
    sent = np.full(channels, -1, np.int64)
    for r in range(ranks):
        over[:] = -1
        sent[:] = -1
        for i in range(first[r], first[r + 1]):
            c = channel[i]
            begin = n
            if op[i] == SEND or op[i] == RECV or op[i] == RECV_REDUCE:
                ops[n, 0] = GOAL_SEND if op[i] == SEND else GOAL_RECV
                ops[n, 1], ops[n, 2], ops[n, 3] = nbytes[i], peer[i], tag[i]
                n += 1
                if op[i] == RECV_REDUCE and duration[i] > 0:
                    ops[n, 0], ops[n, 1], ops[n, 2] = GOAL_CALC, duration[i], -1
                    edges[e, 0], edges[e, 1] = n - 1, n
                    e += 1
                    n += 1
            else:
                ops[n, 0], ops[n, 1], ops[n, 2] = GOAL_CALC, duration[i], -1
                n += 1
            if over[c] >= 0:
                edges[e, 0], edges[e, 1] = over[c], begin
                e += 1
            if sent[c] >= 0:
                edges[e, 0], edges[e, 1], edges[e, 2] = sent[c], begin, 1
                e += 1
            if after[i] >= 0:
                edges[e, 0], edges[e, 1] = end_of[first[r] + after[i]], begin
                e += 1
            end_of[i] = n - 1
            if op[i] == SEND:
                sent[c] = begin
            else:
                over[c] = n - 1
                sent[c] = -1
        starts[r + 1] = n
    return starts, ops[:n], edges[:e]


def write(schedule: Goal) -> str:
    """The text. Labels are o0, o1, ... in each rank."""
    lines = [f"num_ranks {schedule.ranks}"]
    starts = schedule.starts.tolist()
    kind, size, peer, tag = (a.tolist() for a in (schedule.kind, schedule.size, schedule.peer, schedule.tag))
    cpu, nic = schedule.cpu.tolist(), schedule.nic.tolist()
    first_edge, start_edge, edges = (a.tolist() for a in (schedule.first_edge, schedule.start_edge, schedule.edges))
    for r in range(schedule.ranks):
        lines += ["", f"rank {r} {{"]
        base = starts[r]
        needs = [[] for _ in range(starts[r + 1] - base)]
        for i in range(base, starts[r + 1]):
            for j in range(first_edge[i], first_edge[i + 1]):
                word = "irequires" if j < start_edge[i] else "requires"
                needs[edges[j] - base].append(f"o{edges[j] - base} {word} o{i - base}")
        for i in range(base, starts[r + 1]):
            where = (f" cpu {cpu[i]}" if cpu[i] else "") + (f" nic {nic[i]}" if nic[i] and kind[i] != GOAL_CALC else "")
            if kind[i] == GOAL_CALC:
                what = f"calc {size[i]}"
            elif kind[i] == GOAL_SEND:
                what = f"send {size[i]}b to {peer[i]} tag {tag[i]}"
            else:
                what = f"recv {size[i]}b from {peer[i]} tag {tag[i]}"
            lines.append(f"o{i - base}: {what}{where}")
            lines += needs[i - base]
        lines.append("}")
    return "\n".join(lines) + "\n"


_SPACE = r"[ \t]+"
_LABEL = r"[A-Za-z][A-Za-z0-9_]*"
_WHERE = rf"(?:{_SPACE}cpu{_SPACE}(?P<cpu>\d+))?(?:{_SPACE}nic{_SPACE}(?P<nic>\d+))?"
_OPERATION = re.compile(
    rf"(?:(?P<label>{_LABEL})[ \t]*:[ \t]*)?"
    rf"(?:(?P<way>send|recv){_SPACE}(?P<size>\d+)[ \t]*b{_SPACE}(?P<preposition>to|from){_SPACE}(?P<peer>-1|\d+)"
    rf"(?:{_SPACE}tag{_SPACE}(?P<tag>-1|\d+))?|calc{_SPACE}(?P<duration>\d+)){_WHERE}"
)
_DEPENDENCY = re.compile(rf"(?P<after>{_LABEL}){_SPACE}(?P<word>i?requires){_SPACE}(?P<before>{_LABEL})")
_RANKS = re.compile(rf"num_ranks{_SPACE}(\d+)")
_RANK = re.compile(rf"rank{_SPACE}(\d+)[ \t]*\{{")


def read(path: str | Path) -> Goal:
    """A GOAL file; see `parse`. Raises UserError for a file that is missing, too large or not text."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > FILE_LIMIT:
            raise UserError(f"{path} has {size} bytes; accepted: up to {FILE_LIMIT}")
        text = path.read_bytes()[: FILE_LIMIT + 1].decode("ascii")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not ASCII; accepted: GOAL text") from None
    return parse(text, str(path))


def parse(text: str, name: str = "GOAL") -> Goal:
    """GOAL text as a Goal. Ranks may come in any order and may be left out (they do nothing).

    Raises UserError naming the line for anything else than GOAL, labels that are unknown or given twice, ranks that do not
    exist or come twice, and numbers too large. A dependency may name a label of its rank that comes later.
    """
    if len(text) > FILE_LIMIT:
        raise UserError(f"{name} has {len(text)} characters; accepted: up to {FILE_LIMIT}")
    ranks, rank = -1, -1
    blocks: dict[int, _Block] = {}
    comment = False
    line = 0
    for line, raw in enumerate(text.split("\n"), 1):
        words, comment = _without_comments(raw, comment)
        if not words:
            continue
        if rank >= 0:
            if words == "}":
                blocks[rank].close(name)
                rank = -1
            else:
                blocks[rank].add(words, name, line, ranks)
        elif found := _RANKS.fullmatch(words):
            if ranks >= 0:
                raise _wrong(name, line, "num_ranks a second time", "once")
            ranks = _number(found[1], name, line, RANKS_LIMIT, 1)
        elif found := _RANK.fullmatch(words):
            if ranks < 0:
                raise _wrong(name, line, "a rank before num_ranks", "num_ranks first")
            rank = _number(found[1], name, line, ranks - 1)
            if rank in blocks:
                raise _wrong(name, line, f"rank {rank} a second time", "each rank once")
            blocks[rank] = _Block()
        else:
            raise _wrong(name, line, repr(words[:60]), "'num_ranks N' or 'rank R {'")
    if comment:
        raise _wrong(name, line, "the end inside a comment", "*/")
    if rank >= 0:
        raise _wrong(name, line, f"the end inside rank {rank}", "}")
    if ranks < 0:
        raise UserError(f"{name}: no 'num_ranks N'")

    starts = np.zeros(ranks + 1, np.int64)
    rows, edges = [], []
    for r in range(ranks):
        base = len(rows)
        if r in blocks:
            rows += blocks[r].rows
            edges += [(before + base, after + base, at_start) for before, after, at_start in blocks[r].edges]
        starts[r + 1] = len(rows)
    kind, size, peer, tag, cpu, nic = np.array(rows, np.int64).reshape(-1, 6).T
    before, after, at_start = np.array(edges, np.int64).reshape(-1, 3).T
    return goal(starts, kind, size, peer, tag, cpu, nic, before, after, at_start)


class _Block:
    """The operations and dependencies of one rank."""

    def __init__(self):
        self.rows: list[tuple] = []
        self.edges: list[tuple] = []
        self.labels: dict[str, int] = {}
        self.wanted: list[tuple] = []

    def add(self, words, name, line, ranks):
        if found := _OPERATION.fullmatch(words):
            label, way = found["label"], found["way"]
            if label is not None:
                if label in self.labels:
                    raise _wrong(name, line, f"label {label} a second time", "each label once a rank")
                self.labels[label] = len(self.rows)
            cpu, nic = (_number(found[w] or "0", name, line, 255) for w in ("cpu", "nic"))
            if way is None:
                if found["nic"] is not None:
                    raise _wrong(name, line, "a calc with a nic", "cpu")
                self.rows.append((GOAL_CALC, _number(found["duration"], name, line, NUMBER_LIMIT), -1, 0, cpu, 0))
                return
            if (way == "send") != (found["preposition"] == "to"):
                raise _wrong(name, line, f"{way} ... {found['preposition']}", "send ... to, recv ... from")
            peer = self._any(found["peer"], way, name, line, ranks - 1)
            tag = self._any(found["tag"] or "0", way, name, line, TAG_LIMIT - 1)
            size = _number(found["size"], name, line, NUMBER_LIMIT)
            self.rows.append((GOAL_SEND if way == "send" else GOAL_RECV, size, peer, tag, cpu, nic))
        elif found := _DEPENDENCY.fullmatch(words):
            self.wanted.append((found["before"], found["after"], found["word"] == "irequires", line))
        else:
            raise _wrong(name, line, repr(words[:60]), "[label:] send Nb to R [tag T], recv Nb from R [tag T], calc N; "
                         "label requires label, label irequires label; }")  # fmt: skip

    def close(self, name):
        for before, after, at_start, line in self.wanted:
            for label in (before, after):
                if label not in self.labels:
                    raise _wrong(name, line, f"label {label[:60]} is not in this rank", "a label of this rank")
            self.edges.append((self.labels[before], self.labels[after], at_start))

    def _any(self, digits, way, name, line, largest):
        if digits == "-1":
            if way == "send":
                raise _wrong(name, line, "a send with -1", "-1 (any) at a recv")
            return ANY
        return _number(digits, name, line, largest)


def _without_comments(raw, inside):
    """(the line without // and /* */ comments and outer blanks, whether a comment goes on)."""
    if not inside and "/" not in raw:
        return raw.strip(), False
    out = []
    while raw:
        if inside:
            end = raw.find("*/")
            if end < 0:
                break
            raw, inside = raw[end + 2 :], False
            continue
        marks = [at for at in (raw.find("//"), raw.find("/*")) if at >= 0]
        if not marks:
            out.append(raw)
            break
        at = min(marks)
        out.append(raw[:at])
        if raw[at + 1] == "/":
            break
        raw, inside = raw[at + 2 :], True
    return " ".join(out).strip(), inside


def _number(digits, name, line, largest, least=0):
    if len(digits) > 20 or not least <= int(digits) <= largest:
        raise _wrong(name, line, f"{digits[:30]}", f"{least} to {largest}")
    return int(digits)


def _wrong(name, line, what, accepted):
    return UserError(f"{name}, line {line}: {what}; accepted: {accepted}")
