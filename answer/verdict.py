"""Measured against modelled, size by size, then by ranges of sizes that have one verdict.

healthy        inside the band that holds 90 % of systems that the model had not seen, or faster
low            below it, where the time grows with the size; below half of what is allowed, where there is no band (own.py)
high latency   below it, where it does not
collapses      the rate falls by 40 % and more and does not come back (shape.py); no model is needed to say so
impossible     above what the wires allow (limits.py)
wrong data     the log counts wrong elements: such a time has no bandwidth
cannot say     nothing to hold it against, or only a machine that was assumed

A size alone outside the band, beside sizes inside it, is a remark and no verdict: one in ten is expected there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ..bench.log import Figures, Row, Table
from ..bench.record import TIME_MAX, busbw_factor
from ..bench.summary import size_words
from ..fabric.library.nccl import COLLECTIVES
from .limits import TOLERANCE, Limits, limits
from .model import Modelled, modelled
from .shape import Jump, jumps
from .situation import MPI_TOOLS, OWN_TOOL, Situation

HEALTHY, LOW, LATENCY, COLLAPSES, IMPOSSIBLE, WRONG, UNKNOWN = (
    "healthy", "low", "high latency", "collapses", "impossible", "wrong data", "cannot say",
)  # fmt: skip
VERDICTS = (WRONG, IMPOSSIBLE, COLLAPSES, LOW, LATENCY, HEALTHY, UNKNOWN)
"""Worst first; what cannot be said of some sizes does not outweigh what can be said of others."""
LARGE = 32 << 20  # bytes from which a time is bandwidth
MANY = 1 << 20  # ranks
TIME_MIN = 1e-12  # seconds; what is below, or above TIME_MAX, is no time of a collective
ANY_TYPE = 0.1  # a relative deviation ("error" of nccl-tests before 2.12) that no type's rounding explains
HALF = 0.5  # of what is allowed, below which a size is low where no band is known
BAD = frozenset((WRONG, IMPOSSIBLE, COLLAPSES, LOW, LATENCY))


@dataclass(frozen=True)
class Judged:
    """One size. seconds, busbw (bytes a second; None where p is not known): measured, out of place where there
    is such a time; modelled: None without a model."""

    size: int
    seconds: float
    busbw: float | None
    line: int
    wrong: float
    modelled: Modelled | None
    verdict: str

    @property
    def share(self) -> float | None:
        """Of the modelled bandwidth."""
        return None if self.modelled is None else self.modelled.seconds / self.seconds


@dataclass(frozen=True)
class Range:
    """Neighbouring sizes of one verdict."""

    verdict: str
    rows: tuple[Judged, ...]


@dataclass(frozen=True)
class Answer:
    """What can be said of one table. verdict: the worst of its ranges, UNKNOWN where none has one."""

    table: Table
    situation: Situation
    rows: tuple[Judged, ...]
    ranges: tuple[Range, ...]
    jumps: tuple[Jump, ...]
    limits: Limits | None
    verdict: str
    remarks: tuple[str, ...] = ()

    @property
    def slow_quarter(self) -> bool:
        """Healthy, and slower than three quarters of systems are, at half of the sizes and more that tell bandwidth."""
        found = [
            r.seconds > r.modelled.band.high50 for r in self.rows if r.size >= LARGE and r.modelled and r.modelled.band
        ]
        return self.verdict == HEALTHY and bool(found) and 2 * sum(found) >= len(found)

    @property
    def collapse(self) -> Jump | None:
        """The jump from which the curve does not come back."""
        return next((j for j in self.jumps if j.kind == "collapse"), None)


def judge(
    table: Table,
    situation: Situation,
    threshold: float | None = None,
    model: Callable[[int], Modelled | None] | None = None,
) -> Answer:
    """Hold a table against the model. threshold: a share of the modelled bandwidth below which a size is low, instead of the band;
    model: of a size, where it is not the library's.

    Raises UserError where the machine cannot run the table's job.
    """
    measured = _measured(table, situation)
    bounds = _limits(situation)
    predictions = [model(size) if model else _model(situation, size) for size, *_ in measured]
    rows = [
        Judged(size, seconds, busbw, line, wrong, m, _verdict(seconds, busbw, wrong, m, bounds, threshold))
        for (size, seconds, busbw, line, wrong), m in zip(measured, predictions)
    ]
    found = jumps([r.size for r in rows], [r.seconds for r in rows])
    if table.tool == OWN_TOOL and (situation.nodes or 1) == 1:  # leaving the caches, it falls to the memory's rate
        found = [j for j in found if j.kind != "collapse"]
    rows = _collapsed(rows, found)
    rows, remarks = _alone(rows)
    remarks += _jump_words(rows, found)
    if situation.platform is None and not table.tool.startswith((*MPI_TOOLS, OWN_TOOL)):
        remarks += _nic_words(rows)
    if table.average and len(rows) > 1:
        remarks.append("the log's average is over all its sizes: it is no peak, and falls with the smallest size")
    if table.host_time:
        rows = [replace(r, verdict=UNKNOWN) for r in rows]
    elif situation.assumed:
        rows, more = _only_assumed(rows, situation)
        remarks += more
    ranges = tuple(Range(v, tuple(g)) for v, g in groupby(rows, key=lambda r: r.verdict))
    seen = {r.verdict for r in rows}
    if table.wrong and not any(r.verdict == WRONG for r in rows):
        seen.add(WRONG)
    worst = next((v for v in VERDICTS if v in seen), UNKNOWN)
    return Answer(table, situation, tuple(rows), ranges, tuple(found), bounds, worst, tuple(remarks))


def _measured(table: Table, situation: Situation) -> list[tuple[int, float, float | None, int, float]]:
    """(size, seconds, busbw, line, wrong elements) by size, each size once (the median of its times)."""
    by_size: dict[int, list[tuple]] = {}
    printed = False  # bus bandwidths stand in the table
    for row in table.rows:
        half = _half(row)
        seconds = None if half is None else _seconds(half, row, situation)
        if seconds and TIME_MIN < seconds < TIME_MAX and row.size_bytes > 0:
            printed = printed or bool(half.busbw and not half.seconds)
            wrong = sum(h.wrong or (h.deviation or 0) > ANY_TYPE for h in (row.out_of_place, row.in_place) if h)
            by_size.setdefault(row.size_bytes, []).append((seconds, row.line, wrong, half.busbw))
    out = []
    for size in sorted(by_size):
        found = sorted(by_size[size], key=lambda f: f[0])
        seconds, line, _, busbw = found[len(found) // 2]
        if situation.ranks or printed:
            busbw = size / seconds * _factor(situation)
        out.append((size, seconds, busbw, line, max(f[2] for f in found)))
    return out


def _half(row: Row) -> Figures | None:
    halves = [h for h in (row.out_of_place, row.in_place) if h and (h.seconds or h.algbw or h.busbw)]
    return halves[0] if halves else None


def _seconds(half: Figures, row: Row, situation: Situation) -> float | None:
    if half.seconds:
        return half.seconds
    if half.algbw:
        return row.size_bytes / half.algbw
    if half.busbw and (factor := _factor(situation)):
        return row.size_bytes * factor / half.busbw
    return None


def _factor(situation: Situation) -> float:
    """busbw / algbw; of many ranks where p is not known, which leaves a curve's shape as it is."""
    return busbw_factor(situation.ranks or MANY, situation.collective)


def _limits(situation: Situation) -> Limits | None:
    if situation.platform is None or not situation.nodes:
        return None
    return limits(situation.platform, situation.ranks, situation.nodes, situation.collective)


def _model(situation: Situation, size: int) -> Modelled | None:
    if situation.platform is None or situation.collective not in COLLECTIVES:
        return None
    return modelled(situation, size)


def _verdict(seconds, busbw, wrong, m: Modelled | None, bounds: Limits | None, threshold: float | None) -> str:
    if wrong:
        return WRONG
    if bounds and busbw and busbw > TOLERANCE * bounds.helped:
        return IMPOSSIBLE
    if m is None:
        return UNKNOWN
    slowest = m.band.high90 if m.band and not threshold else m.seconds / (threshold or HALF)
    if seconds <= slowest:
        return HEALTHY
    return LATENCY if m.latency_bound else LOW


def _collapsed(rows: list[Judged], found: Sequence[Jump]) -> list[Judged]:
    """Sizes after a collapse, unless the model finds them healthy."""
    out = list(rows)
    for jump in found:
        if jump.kind != "collapse":
            continue
        for i in range(jump.first, jump.last + 1):
            if out[i].verdict in (LOW, LATENCY, UNKNOWN):
                out[i] = replace(out[i], verdict=COLLAPSES)
    return out


def _alone(rows: list[Judged]) -> tuple[list[Judged], list[str]]:
    """Sizes outside the band whose neighbours are inside it become healthy, with a remark."""
    out, remarks = list(rows), []
    if sum(r.verdict in (LOW, LATENCY) for r in rows) > max(1, len(rows) // 6):
        return out, remarks
    for i, row in enumerate(rows):
        beside = [rows[j].verdict for j in (i - 1, i + 1) if 0 <= j < len(rows)]
        if row.verdict in (LOW, LATENCY) and beside and all(v == HEALTHY for v in beside):
            out[i] = replace(row, verdict=HEALTHY)
            remarks.append(
                f"{size_words(row.size)} alone is at {100 * row.share:.0f} % of the model, its neighbours are inside the band"
            )
    return out, remarks


def _jump_words(rows: list[Judged], found: Sequence[Jump]) -> list[str]:
    """A sentence for each spike and dip: sizes that are slow and come back."""
    out = []
    for j in found:
        if j.kind != "collapse":
            first, last = size_words(rows[j.first].size), size_words(rows[j.last].size)
            span = first if first == last else f"{first} to {last}"
            out.append(f"{j.kind} at {span}: the rate falls {j.factor:.1f} times and comes back")
    return out


def _nic_words(rows: list[Judged]) -> list[str]:
    """Which NICs a node the peak is the usual one of: 24 GB/s of each 200 Gb/s (nccl-tests issue 119), where it is so to 3 %."""
    peak = max((r.busbw for r in rows if r.busbw), default=0.0)
    fits = [
        f"{n} of {rate} Gb/s"
        for n in (1, 2, 4, 8)
        for rate in (100, 200, 400, 800)
        if abs(peak / (n * rate * 0.12e9) - 1) < 0.03
    ]
    if not fits or peak < 10e9:
        return []
    return [
        f"its peak of {peak / 1e9:.1f} GB/s is what NICs of a node usually give at best where there are {' or '.join(fits)}"
    ]


def _only_assumed(rows: list[Judged], situation: Situation) -> tuple[list[Judged], list[str]]:
    """What is low against a machine that was assumed may be a smaller machine; a collapse is one on any."""
    if not any(r.verdict in (LOW, LATENCY, IMPOSSIBLE) for r in rows):
        return rows, []
    out = [replace(r, verdict=UNKNOWN) if r.verdict in (LOW, LATENCY, IMPOSSIBLE) else r for r in rows]
    return out, [
        "outside what the assumed machine gives, which may be another: say what it has (--nics, --nodes, or --system)"
    ]
