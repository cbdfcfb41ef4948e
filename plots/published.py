"""Points that others have published, beside measured and modelled curves, and the ratios of what may be held side by side.

A published point is never one of the measured ones: it has a hollow mark, no line, and its series and source by name.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ..bench.record import Record, busbw_factor
from ..bench.summary import WALL, plain
from ..errors import UserError
from ..fabric.library.published import Point

MOST_SERIES = 8  # in one figure: as many as there are marks to tell apart
ROWS_A_PAIR = 6  # sizes of one pair of curves that are listed
MOST_PAIRS = 8


class Published(NamedTuple):
    """One series over sizes. points: (bytes, seconds), ascending; algorithm: as busbw names it, "auto" for the library's choice,
    "" where its words mean none that busbw knows."""

    name: str
    system: str
    source: str
    words: str  # the source's own, for the algorithm
    algorithm: str
    ranks: int
    points: tuple[tuple[int, float], ...]

    @property
    def label(self) -> str:
        about = plain(f"published: {self.name} ({self.system}, {self.ranks} ranks, {self.words or 'default'})", 80)
        where = plain(self.source.split(" ")[0].split("://")[-1], 45)
        return f"{about}, {where}" if where else about

    def bandwidth(self, size: int, seconds: float, bus: bool) -> float:
        """GB/s."""
        return size / seconds * (busbw_factor(self.ranks) if bus else 1.0) / 1e9


class Pair(NamedTuple):
    """Times at one size, ranks and algorithm. rows: (bytes, seconds of `what`, seconds modelled)."""

    what: str
    model: str
    algorithm: str
    ranks: int
    rows: tuple[tuple[int, float, float], ...]

    @property
    def median(self) -> float:
        """Of the ratios what / model."""
        return statistics.median(real / model for _, real, model in self.rows)

    @property
    def listed(self) -> tuple[tuple[int, float, float], ...]:
        """At most ROWS_A_PAIR rows, evenly from the first to the last."""
        n = len(self.rows)
        if n <= ROWS_A_PAIR:
            return self.rows
        return tuple(self.rows[round(i * (n - 1) / (ROWS_A_PAIR - 1))] for i in range(ROWS_A_PAIR))


def published(points: Sequence[Point]) -> list[Published]:
    """The points by series, ranks and algorithm. Raises UserError for none that can be drawn, or for too many series."""
    groups: dict[tuple, dict[int, float]] = {}
    for p in points:
        measured = p.measured()
        if measured and math.isfinite(measured[0]) and measured[0] > 0:
            key = (p.series, p.system, p.source, p.algorithm, p.algorithm_name, p.ranks)
            groups.setdefault(key, {})[p.size] = measured[0]
    found = [Published(*key, tuple(sorted(times.items()))) for key, times in groups.items()]
    if not found:
        raise UserError("--published: the source gives no size and time there; accepted: a series with both")
    if len(found) > MOST_SERIES:
        names = ", ".join(list(dict.fromkeys(f.name for f in found))[:12])
        raise UserError(
            f"--published: {len(found)} series match; accepted: up to {MOST_SERIES}, such as one of {names}"
        )
    return found


def pairs(records: Sequence[Record], others: Sequence[Published]) -> list[Pair]:
    """Measured and published times against modelled ones at equal sizes, ranks and algorithm; measured ones come first."""
    modelled: dict[tuple[str, str, int], dict[int, float]] = {}
    real: dict[tuple[str, str, int], dict[int, float]] = {}
    for r in records:
        if r.size_bytes > 0 and r.best.seconds > 0:
            wall = r.clock == WALL
            name = (
                f"measured ({plain(r.transport, 20)})"
                if wall
                else f"{plain(r.clock.removeprefix('fabric:'), 30)}, {plain(r.transport, 20)}"
            )
            times = (real if wall else modelled).setdefault((name, r.algorithm, r.ranks), {})
            times[r.size_bytes] = r.best.seconds
    for p in others:
        if p.algorithm:
            real.setdefault((f"published: {plain(p.name, 40)}", p.algorithm, p.ranks), {}).update(p.points)
    found = []
    for (what, algorithm, ranks), times in real.items():
        for (model, other, many), theirs in modelled.items():
            both = sorted(times.keys() & theirs.keys())
            if (algorithm, ranks) == (other, many) and both:
                found.append(Pair(what, model, algorithm, ranks, tuple((s, times[s], theirs[s]) for s in both)))
    return found
