"""The model held against points that others have measured.

Every point gets a machine (published.py) and a prediction (predict.py). Errors are relative, (model - measured) /
measured, of busbw for messages of 64 MiB and more and of time for shorter ones: above, bandwidth is what a user asks
about; below 64 KiB, latency.
"""

from __future__ import annotations

import csv
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from . import predict, published
from .band import Band
from .published import Machine, Point

SMALL, LARGE = 64 << 10, 64 << 20  # bytes
REGIMES = ("small", "between", "large")
# Median absolute errors aimed at, each system counted once: time below 64 KiB and between, busbw from 64 MiB up.
TARGETS = {"small": 0.10, "between": 0.15, "large": 0.05}


def regime(size: int) -> str:
    """Which of REGIMES a message of `size` bytes is in."""
    return "small" if size < SMALL else "large" if size >= LARGE else "between"


@dataclass(frozen=True)
class Compared:
    """One point and its prediction; seconds, and busbw in bytes a second."""

    point: Point
    machine: Machine
    algorithm: str  # what was taken, as in nccl.ALGORITHMS
    protocol: str
    measured: float
    measured_busbw: float
    modelled: float
    band: Band | None = None  # of the fabric model: seconds that hold 50 % and 90 % of measurements
    kind: str = ""  # one of band.KINDS

    @property
    def inside90(self) -> bool:
        return self.band is not None and self.band.low90 <= self.measured <= self.band.high90

    @property
    def inside50(self) -> bool:
        return self.band is not None and self.band.low50 <= self.measured <= self.band.high50

    @property
    def modelled_busbw(self) -> float:
        return self.measured_busbw * self.measured / self.modelled

    @property
    def regime(self) -> str:
        return regime(self.point.size)

    @property
    def error(self) -> float:
        """Relative: of busbw in the large regime, of time in the others. Above 0: the model says more."""
        if self.regime == "large":
            return self.modelled_busbw / self.measured_busbw - 1
        return self.modelled / self.measured - 1


class Summary(NamedTuple):
    """What a group of points says. Medians by regime; None where the group has no such point."""

    name: str
    points: int
    absolute: dict[str, float | None]
    signed: dict[str, float | None]
    worst: Compared | None
    chosen: tuple[str, ...]  # algorithms that were taken, most frequent first


class Report(NamedTuple):
    model: str
    compared: tuple[Compared, ...]
    skipped: Counter  # points by reason


def compare(points: Iterable[Point], model: str = "fabric", system: str | None = None) -> Report:
    """Predict every point that has a machine. system: only those that published.named finds.

    Raises UserError for an unknown model, or a system that no point names.
    """
    if model not in predict.MODELS:
        raise UserError(f"model {model!r}; accepted: {', '.join(predict.MODELS)}")
    points = list(points)
    if system is not None:
        points = published.named(points, system)
    compared, skipped = [], Counter()
    for point in points:
        try:
            machine = published.machine(point)
        except published.Skipped as e:
            skipped[str(e)] += 1
            continue
        measured = point.measured()
        if measured is None:
            skipped["no size, or neither time nor busbw above 0"] += 1
            continue
        try:
            compared.append(_compared(point, machine, measured, model))
        except UserError as e:
            skipped[str(e)] += 1
    return Report(model, tuple(compared), skipped)


def _compared(point: Point, machine: Machine, measured: tuple[float, float], model: str) -> Compared:
    if model != "fabric":
        guess = predict.explain(machine.platform, point.ranks, point.size, machine.run, model)
        return Compared(point, machine, guess.algorithm, guess.protocol, *measured, guess.seconds)
    told = predict.expect(machine.platform, point.ranks, point.size, machine.run)
    return Compared(
        point, machine, told.choice.algorithm, told.choice.protocol, *measured, told.seconds, told.band, told.kind
    )


class Coverage(NamedTuple):
    """What the bands of a range of sizes hold. width: median of the 90 % band's upper end over its lower one."""

    points: int
    inside90: float
    inside50: float
    width: float


def coverage(compared: Sequence[Compared]) -> dict[str, Coverage]:
    """By range of sizes, of the points that have a band."""
    told = {}
    for name in REGIMES:
        rows = [c for c in compared if c.regime == name and c.band]
        if rows:
            told[name] = Coverage(
                len(rows),
                sum(c.inside90 for c in rows) / len(rows),
                sum(c.inside50 for c in rows) / len(rows),
                statistics.median(c.band.high90 / c.band.low90 for c in rows),
            )
    return told


def summary(name: str, compared: Sequence[Compared]) -> Summary:
    errors = {regime: [c.error for c in compared if c.regime == regime] for regime in REGIMES}
    return Summary(
        name,
        len(compared),
        {r: statistics.median(map(abs, e)) if e else None for r, e in errors.items()},
        {r: statistics.median(e) if e else None for r, e in errors.items()},
        max(compared, key=lambda c: abs(c.error), default=None),
        tuple(name for name, _ in Counter(c.algorithm for c in compared).most_common()),
    )


def summaries(compared: Sequence[Compared], by_series: bool = False) -> list[Summary]:
    """One summary a system (or a series), in the order of the file."""
    groups: dict[str, list[Compared]] = {}
    for c in compared:
        groups.setdefault(c.point.series if by_series else c.point.system, []).append(c)
    return [summary(name, group) for name, group in groups.items()]


def defaults(compared: Sequence[Compared]) -> Counter:
    """How often each (algorithm, protocol) was assumed where the library chose for itself."""
    return Counter((c.algorithm, c.protocol) for c in compared if c.machine.run.algorithm == "auto")


def assumptions(compared: Sequence[Compared]) -> Counter:
    """What was assumed because the source does not say, and for how many points."""
    return Counter(text for c in compared for text in c.machine.assumed)


COLUMNS = (
    "line",
    "id",
    "system",
    "nodes",
    "ranks",
    "algorithm",
    "modelled_algorithm",
    "modelled_protocol",
    "size_bytes",
    "measured_us",
    "modelled_us",
    "measured_busbw_GBps",
    "modelled_busbw_GBps",
    "error",
    "error_of",
    "low90_us",
    "low50_us",
    "high50_us",
    "high90_us",
    "kind",
    "assumed",
)


def write(report: Report, path: str | Path) -> Path:
    """One row a compared point, as CSV. Raises UserError for a path that cannot be written."""
    path = Path(path)
    try:
        with path.open("w", newline="", encoding="utf-8") as f:
            out = csv.writer(f, lineterminator="\n")
            out.writerow(COLUMNS)
            for c in report.compared:
                p = c.point
                out.writerow(
                    (
                        p.line,
                        p.series,
                        p.system,
                        p.nodes,
                        p.ranks,
                        p.algorithm,
                        c.algorithm,
                        c.protocol,
                        p.size,
                        f"{c.measured * 1e6:.6g}",
                        f"{c.modelled * 1e6:.6g}",
                        f"{c.measured_busbw / 1e9:.6g}",
                        f"{c.modelled_busbw / 1e9:.6g}",
                        f"{c.error:.4f}",
                        "busbw" if c.regime == "large" else "time",
                        *([f"{v * 1e6:.6g}" for v in c.band] if c.band else [""] * 4),
                        c.kind,
                        "; ".join(c.machine.assumed),
                    )
                )
    except OSError as e:
        raise UserError(f"{path}: cannot be written: {e.strerror}") from None
    return path
