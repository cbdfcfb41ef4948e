"""Measured curves on a card, and how they bend the model: a calibrated card keeps the model's structure.

A curve is measured times over sizes at one scale. The model's time is multiplied by measured / modelled: at a size between
two of the curve's, their ratios are joined by a straight line in log size and log ratio; beyond its ends the end's ratio
holds. At another scale the nearest curve's ratios do (in log ranks), taken only where the curve's own run had the same
algorithm and protocol: what an LL ring lost to its transport says nothing of a tree of Simple chunks. So a curve passes a
protocol's switch, which a form of two to four parameters cannot, and a prediction at a measured point is the measurement.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..cards.curves import Curve


class Bent(NamedTuple):
    """What the curves say at one point. exact: the scale is a curve's own; ratio: measured / modelled."""

    ratio: float
    exact: bool
    curve: Curve


class Point(NamedTuple):
    """One point of a curve: log bytes, log(measured / modelled), and the pair that the model takes to have run."""

    place: float
    log: float
    pair: tuple[str, str]


def bend(
    curves: Sequence[Curve], ranks: int, size: int, collective: str, algorithms: Sequence[str], pair: tuple[str, str],
    points: Callable[[Curve], Sequence[Point]],
) -> Bent | None:  # fmt: skip
    """The ratio of the nearest curve of this collective and the first of `algorithms` that has any; None for none.

    pair: the algorithm and protocol that run; points(curve): what the model says of the curve's own run.
    """
    mine = [c for c in curves if c.collective == collective]
    for algorithm in algorithms:
        some = [c for c in mine if c.algorithm == algorithm]
        if some:
            curve = min(some, key=lambda c: (abs(math.log(c.ranks / ranks)), c.ranks))
            exact = curve.ranks == ranks
            some = [(p.place, p.log) for p in points(curve) if exact or p.pair == pair]
            return Bent(math.exp(_between(some, math.log(size))) if some else 1.0, exact, curve)
    return None


def _between(points: list[tuple[float, float]], x: float) -> float:
    """The height at x of the line through the points, level beyond its ends."""
    right = bisect.bisect_left(points, (x, -math.inf))
    if right == 0 or right == len(points):
        return points[min(right, len(points) - 1)][1]
    (a, low), (b, high) = points[right - 1], points[right]
    return low + (x - a) / (b - a) * (high - low)
