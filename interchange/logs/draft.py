"""A table while it is being read, and what is concluded once it is whole: its collective and its ranks, each with its reason."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

from ...bench.log import UNBOUNDED, Note, Row, System, Table
from ...kernels.dtypes import DEVICE_DTYPES
from .collective import POINT_TO_POINT, tells_ranks
from .info import SystemBuilder
from .ranks import Interval, interval

MAX_ROWS = 50_000  # of one log; further rows are counted, not kept

ITEMSIZE = {d.nccl: d.itemsize for d in DEVICE_DTYPES.values()} | {"fp8_e4m3": 1, "fp8_e5m2": 1, "uint32": 4, "char": 1}


@dataclass
class Draft:
    """As ``Table``, to be filled. stated_ranks: (p, where that stands), in the order in which they are believed."""

    format: str
    tool: str
    builder: SystemBuilder
    line: int
    collective: str = ""
    collective_from: str = ""
    version: str = ""
    label: str = ""
    last_line: int = 0
    rows: list[Row] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    host_time: bool = False
    parameters: dict[str, str] = field(default_factory=dict)
    average: float | None = None
    out_of_bounds: int | None = None
    stated_ranks: list[tuple[int, str]] = field(default_factory=list)
    room: int = MAX_ROWS  # rows that may still be kept
    dropped: int = 0
    devices_hold: int = 1  # GPUs that each entry of the device list stands for

    def note(self, line: int, kind: str, text: str) -> None:
        if len(self.notes) < 200:
            self.notes.append(Note(line, kind, text))


def finish(draft: Draft, system: System) -> Table:
    """The table, with its conclusions and the notes that give their reasons."""
    if draft.dropped:
        draft.note(draft.last_line, "limit", f"{draft.dropped} further rows are not kept: a log may have {MAX_ROWS}")
    _name_collective(draft)
    # PARAM prints another mean of the time than the one its algbw is of; JSON does not show how many digits its times have.
    found = interval(draft.collective, draft.rows, by_time=draft.format not in ("param", "nccl-tests-json"))
    runs = _separate_runs(draft, system, found)
    if runs > 1:
        p, why = 1, f"{runs} times rank 0 in the list of devices"
    else:
        p, why = _ranks(draft, system, found)
    if found.clash:
        draft.note(
            found.clash,
            "ranks",
            f"busbw/algbw of this row and those after it fit another p than the rows before it ({_range(found)})",
        )
    _check_wrong(draft)
    if not draft.rows and runs == 1 and draft.average is None and not draft.notes:
        draft.note(draft.last_line, "torn", "a table begins here, and the log has none of its rows")
    if draft.collective in POINT_TO_POINT:
        draft.note(
            draft.line,
            "collective",
            f"{draft.collective} is between two ranks: no all-reduce, and not compared with one",
        )
    return Table(
        draft.format, draft.tool, draft.collective, tuple(draft.rows), system, draft.line, max(draft.last_line, draft.line),
        draft.version, draft.collective_from, draft.label, p, found.low, found.high, why, runs, draft.host_time,
        dict(draft.parameters), draft.average, draft.out_of_bounds, tuple(draft.notes),
    )  # fmt: skip


def _name_collective(draft: Draft) -> None:
    """From the command line, else from what the columns hold; an assumption is noted."""
    if draft.collective:
        return
    if name := draft.builder.command_collective():
        draft.collective, draft.collective_from = name, "the command line"
        return
    kinds = Counter(_shape(r) for r in draft.rows)
    kinds.pop(None, None)
    shape = kinds.most_common(1)[0][0] if kinds else ""
    draft.collective = shape or "all_reduce"
    if draft.format == "nccl-tests" and (shape in ("all_reduce", "reduce_scatter", "reduce", "broadcast")):
        draft.collective_from = "the columns redop, root and count"
        draft.note(
            draft.line,
            "collective",
            f"nothing names the collective; {draft.collective_from} are those of {draft.collective}",
        )
        return
    draft.collective_from = "assumed"
    if shape == "all_gather":
        why = "redop none and a count of size / p are those of all_gather (alltoall prints the same)"
    else:
        why = f"nothing in the log names the collective; read as {draft.collective}"
    draft.note(draft.line, "collective", why)


def _shape(row: Row) -> str | None:
    """The collective of nccl-tests that prints such a row; None where it says nothing."""
    item = ITEMSIZE.get(row.dtype)
    if not item or not row.count or not row.size_bytes:
        return None
    whole = row.count * item == row.size_bytes
    if not row.op:  # before 2.10, all_gather had no such column
        return None if whole or row.size_bytes % (row.count * item) else "all_gather"
    rooted = row.root is not None and row.root >= 0
    if row.op == "none":
        if rooted:
            return "broadcast" if whole else "gather"
        return "sendrecv" if whole else "all_gather"
    if rooted:
        return "reduce"
    return "all_reduce" if whole else "reduce_scatter"


def _separate_runs(draft: Draft, system: System, found: Interval) -> int:
    """How many jobs of one rank each the list of devices shows; 1 for one job."""
    zeros = [d for d in system.devices if d.rank == 0]
    apart = {(d.host, d.pid, d.device) for d in zeros}
    if len(apart) < 2 or any(d.rank for d in system.devices) or not found.holds(1):
        return 1
    hosts = ", ".join(list(dict.fromkeys(d.host for d in zeros))[:4])
    draft.note(
        zeros[1].line, "ranks",
        f"{len(apart)} separate runs of 1 rank ({hosts}), not one run of {len(apart)}: nccl-tests built without MPI=1, or "
        "started by another MPI's mpirun than it was built with; busbw of one rank is 0",
    )  # fmt: skip
    return len(apart)


def _ranks(draft: Draft, system: System, found: Interval) -> tuple[int | None, str]:
    """(p, by what), and notes on what disagrees. Figures decide over what is written, for they come from the run itself."""
    stated = [*draft.stated_ranks, *_by_count(draft), *_by_devices(draft, system)]
    if system.comm_ranks:
        stated.append((system.comm_ranks, "the communicator in NCCL INFO"))
    if (n := draft.builder.command_ranks()) and (draft.tool.startswith(("OSU", "IMB")) or not stated):
        stated.append((n, "the command line"))
    if draft.average == 0 and not draft.rows:
        stated.append((1, "an average bus bandwidth of 0"))
        draft.note(
            draft.line,
            "ranks",
            "an average of 0 and no rows: one rank, whose bus bandwidth is 0 by definition, or no size was run",
        )
    by_figures = f"busbw/algbw of {found.rows} figures"
    fits = [(p, why) for p, why in stated if found.holds(p)]
    for p, why in stated:
        if not found.holds(p):
            draft.note(
                draft.line,
                "ranks",
                f"{why} says {p} ranks, but {by_figures} says {_range(found)}: the figures are taken",
            )
    if fits:
        p, why = fits[0]
        for other, other_why in fits[1:]:
            if other != p:
                draft.note(draft.line, "ranks", f"{why} says {p} ranks, {other_why} says {other}: {p} is taken")
        return p, why + (f", and {by_figures}" if found.rows and found.high < UNBOUNDED else "")
    if found.known:
        if found.known == 1:
            draft.note(
                draft.line, "ranks", "busbw is 0 where algbw is not: one rank, whose bus bandwidth is 0 by definition"
            )
        _name_check(draft, found.known)
        return found.known, by_figures
    if draft.rows and not found.rows and tells_ranks(draft.collective):
        draft.note(draft.line, "ranks", "nothing in the log tells p: name it with --ranks")
    elif tells_ranks(draft.collective) and draft.rows:
        eights = list(range(found.low + -found.low % 8, min(found.high, found.low + 64) + 1, 8))
        likely = (
            f"; the only multiple of 8 among them is {eights[0]}"
            if found.high < UNBOUNDED and len(eights) == 1 and found.low > 1
            else ""
        )
        draft.note(
            draft.line, "ranks", f"p is not in the log; its figures allow {_range(found)}{likely}: name it with --ranks"
        )
    elif draft.rows and draft.collective not in POINT_TO_POINT:
        draft.note(
            draft.line, "ranks", "p is not in the log, and the figures do not depend on it: name it with --ranks"
        )
    return None, ""


def _by_count(draft: Draft) -> list[tuple[int, str]]:
    """size / (count * element): exactly p for collectives that print the count of one rank."""
    if not tells_ranks(draft.collective) or draft.collective == "all_reduce":
        return []
    found = set()
    for r in draft.rows[:200]:
        item = ITEMSIZE.get(r.dtype)
        if item and r.count and r.size_bytes % (r.count * item) == 0:
            found.add(r.size_bytes // (r.count * item))
    # alltoall prints the count of one rank too; gather and scatter of some releases the whole, which gives 1 and says nothing.
    return [(found.pop(), "size over count")] if len(found) == 1 and 1 not in found else []


def _by_devices(draft: Draft, system: System) -> list[tuple[int, str]]:
    if not system.devices:
        return []
    groups = Counter(d.group for d in system.devices)
    listed = len({d.rank for d in system.devices})
    largest = max(d.rank for d in system.devices) + 1
    if len(groups) > 1:
        sizes = set(groups.values())
        if len(sizes) == 1:
            n = sizes.pop() * draft.devices_hold
            draft.note(draft.line, "ranks", f"{len(groups)} groups (NCCL_TESTS_SPLIT): p is that of a group")
            return [(n, "the ranks of a group in the list of devices")]
    if draft.devices_hold > 1:
        return [
            (
                listed * draft.devices_hold,
                f"{listed} processes in the list of devices with {draft.devices_hold} GPUs each",
            )
        ]
    if draft.builder.cut:
        draft.note(draft.line, "ranks", f"the list of devices is cut after {listed} lines, and so tells no p")
        return []
    if listed == largest:
        return [(largest, "the list of devices")]
    return [
        (
            largest,
            f"the last rank in the list of devices, of which {listed} {'line is' if listed == 1 else 'lines are'} here",
        )
    ]


def _name_check(draft: Draft, ranks: int) -> None:
    """A number in the job's name that p contradicts is worth a word: people quote it."""
    name = draft.parameters.get("launcher", "")
    for number in re.findall(r"(?<![\w.])\d{1,5}(?![\w.])", re.sub(r"[-_/]", " ", name)):
        if int(number) >= 2 and int(number) != ranks and int(number) % 2 == 0:
            draft.note(draft.line, "ranks", f"the job is called {name}, but p is {ranks} by its figures, not {number}")
            return


def _range(found: Interval) -> str:
    if found.known:
        return f"{found.known}"
    if found.high >= UNBOUNDED:
        return f"{found.low} or more" if found.low > 1 else "any number"
    return f"{found.low} to {found.high}"


def _check_wrong(draft: Draft) -> None:
    bad = [r for r in draft.rows if any(h and h.wrong for h in (r.out_of_place, r.in_place))]
    if bad:
        draft.note(
            bad[0].line,
            "warning",
            f"wrong results at {len(bad)} of {len(draft.rows)} sizes: such a time has no bandwidth",
        )
    elif draft.out_of_bounds:
        draft.note(draft.last_line, "warning", f"the log counts {draft.out_of_bounds} values out of bounds")
