"""How far a measured time may lie from the model's: intervals that hold 50 % and 90 % of what was measured.

The residuals are those of systems that the fit had not seen (fitting.leave_one_out), by what is known of the run's class and
by range of sizes; between the ranges the quantiles are joined by straight lines over log size. data/bands.yaml holds them,
written by benchmarks/fit_clock.py.

    known        another system of the class (GPU generation, and network where several nodes take part) was fitted
    unseen       none was: the constants are those of the nearest class, estimated
    rendezvous   protocol LL over a transport that asks first (Slingshot), beyond eager messages: its settings move it threefold
    calibrated   measured at this scale, at other sizes
    scaled       measured at another scale
"""

from __future__ import annotations

import bisect
import functools
import math
from pathlib import Path
from typing import NamedTuple

DATA = Path(__file__).parent / "data" / "bands.yaml"
KINDS = ("known", "unseen", "rendezvous", "calibrated", "scaled")
QUANTILES = (0.05, 0.25, 0.75, 0.95)
# log2 of the sizes at which the quantiles of the three ranges of sizes hold.
ANCHORS = ((0, 14), (18, 24), (28, 60))


class Band(NamedTuple):
    """Seconds that hold 90 % and 50 % of measurements, low to high."""

    low90: float
    low50: float
    high50: float
    high90: float


@functools.lru_cache(maxsize=1)
def table() -> dict[str, dict[str, list[float]]]:
    """By kind and range of sizes: log(measured / modelled) at QUANTILES."""
    import yaml

    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    return {kind: {name: row["log"] for name, row in rows.items()} for kind, rows in data["bands"].items()}


@functools.lru_cache(maxsize=1)
def seen() -> frozenset[tuple[str, ...]]:
    """The classes that a fitted system has."""
    import yaml

    return frozenset(tuple(c) for c in yaml.safe_load(DATA.read_text(encoding="utf-8"))["classes"])


@functools.lru_cache(maxsize=1)
def left_out() -> dict[str, dict[str, float]]:
    """What was found on systems left out of the fit, by range of sizes: error, holds90, holds50, width."""
    import yaml

    return yaml.safe_load(DATA.read_text(encoding="utf-8"))["left_out"]


def class_of(generation: str, nodes: int, network: str, rack: bool) -> tuple[str, ...]:
    """What a run is known by: the GPU's generation, the network where several nodes take part, a rack's NVLink where it has one."""
    return (generation, *((network,) if nodes > 1 else ()), *(("rack",) if rack else ()))


def quantiles(rows: dict[str, list[float]], size: int) -> list[float]:
    """log(measured / modelled) at QUANTILES for a size."""
    names = [n for n in ("small", "between", "large") if n in rows]
    xs, ys = [], []
    for name, (first, last) in zip(("small", "between", "large"), ANCHORS):
        if name in names:
            xs += [first, last]
            ys += [rows[name], rows[name]]
    x = min(max(math.log2(max(1, size)), xs[0]), xs[-1])
    right = min(max(1, bisect.bisect_left(xs, x)), len(xs) - 1)
    part = (x - xs[right - 1]) / (xs[right] - xs[right - 1])
    return [a + part * (b - a) for a, b in zip(ys[right - 1], ys[right])]


def band(seconds: float, size: int, kind: str) -> Band:
    """The intervals around a modelled time."""
    q = quantiles(table()[kind], size)
    return Band(*(seconds * math.exp(v) for v in q))
