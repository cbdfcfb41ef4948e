"""Few-parameter forms fitted to measured curves: Hockney's alpha, beta, gamma, and LogGP's letters from them.

    T = messages * alpha + bytes * beta + reduced * gamma

with the messages, the bytes and the reduced bytes on the longest chain of the algorithm. For a ring over p ranks those are
2 (p-1), 2 (p-1)/p S and (p-1)/p S (Hockney 1994; Thakur, Rabenseifner and Gropp 2005); an algorithm that is not known counts as
a ring. Least squares of relative errors, so that every size counts alike. alpha is LogGP's L + 2o and beta its G (Alexandrov et
al. 1995): an all-reduce cannot tell L from o, and a chain of single messages says nothing of g.

Two to four parameters cannot follow a library that changes protocol: `Fit.residuals` says by how much, and calibration.py
what to do instead.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from ...errors import UserError
from ..cards.curves import Curve

NAMES = ("alpha", "beta", "gamma")
CONFIDENCE = 0.95


class Parameter(NamedTuple):
    """A fitted figure and its 95 % confidence interval: seconds, or seconds a byte."""

    value: float
    low: float
    high: float


class Fit(NamedTuple):
    """parameters by name; joined: names that the curves cannot tell from another, which holds them too. residuals: float64
    [points], modelled / measured - 1, in the order of curves and sizes."""

    parameters: dict[str, Parameter]
    joined: dict[str, str]
    residuals: np.ndarray
    curves: tuple[Curve, ...]

    @property
    def median_error(self) -> float:
        return float(np.median(np.abs(self.residuals)))


class Crossing(NamedTuple):
    """Below `size` bytes `first` is faster, above it `second`."""

    first: str
    second: str
    ranks: int
    size: float


def terms(curve: Curve, size: int) -> tuple[float, float, float]:
    """Messages, bytes and reduced bytes of one run of the curve's algorithm."""
    p, depth = curve.ranks, max(1, (curve.ranks - 1).bit_length())
    reduces = curve.collective in ("all_reduce", "reduce_scatter", "reduce")
    if curve.collective in ("broadcast", "reduce"):
        return p - 1, float(size), float(size) * reduces
    if curve.collective in ("all_gather", "reduce_scatter"):
        return p - 1, (p - 1) / p * size, (p - 1) / p * size * reduces
    if curve.algorithm == "tree":
        return 2 * depth, 2.0 * size, float(size)
    if curve.algorithm == "recursive-doubling":
        return depth, depth * float(size), depth * float(size)
    if curve.algorithm == "halving-doubling":
        return 2 * depth, 2 * (p - 1) / p * size, (p - 1) / p * size
    return 2 * (p - 1), 2 * (p - 1) / p * size, (p - 1) / p * size


def hockney(curves: Sequence[Curve], parameters: Sequence[str] = NAMES) -> Fit:
    """The form fitted to all curves at once. Raises UserError for fewer points than it needs."""
    curves = tuple(curves)
    rows = [(terms(c, s), t) for c in curves for s, t in zip(c.sizes, c.seconds)]
    wanted = [n for n in NAMES if n in parameters]
    if len(rows) < len(wanted) + 1:
        raise UserError(
            f"{len(rows)} points cannot fit {', '.join(wanted)}; accepted: {len(wanted) + 1} or more sizes, or fewer parameters"
        )
    design = np.array([[x[NAMES.index(n)] / t for n in wanted] for x, t in rows])
    kept, joined = _told_apart(design, wanted)
    free = list(kept)
    while True:  # a parameter below 0 is one that the curves do not show
        solved = np.linalg.lstsq(design[:, [wanted.index(n) for n in free]], np.ones(len(rows)), rcond=None)[0]
        worst = int(np.argmin(solved))
        if solved[worst] >= 0 or len(free) == 1:
            break
        joined[free.pop(worst)] = ""
    part = design[:, [wanted.index(n) for n in free]]
    residuals = part @ solved - 1
    spare = max(1, len(rows) - len(free))
    spread = np.sqrt(np.diag(np.linalg.inv(part.T @ part)) * (residuals @ residuals) / spare)
    t = student(spare)
    found = {n: Parameter(v, max(0.0, v - t * e), v + t * e) for n, v, e in zip(free, solved.tolist(), spread.tolist())}
    return Fit(found, joined, residuals, curves)


def _told_apart(design: np.ndarray, names: list[str]) -> tuple[list[str], dict[str, str]]:
    """The parameters that the points tell apart, and for the others the one that holds them too."""
    kept, joined = [names[0]], {}
    for name in names[1:]:
        columns = design[:, [names.index(n) for n in (*kept, name)]]
        scaled = columns / np.linalg.norm(columns, axis=0)
        if np.linalg.svd(scaled, compute_uv=False)[-1] < 1e-6:
            joined[name] = kept[-1]
        else:
            kept.append(name)
    return kept, joined


def student(degrees: int) -> float:
    """Student's t for a two-sided 95 % interval (Cornish and Fisher's expansion; within 1 % from three degrees on)."""
    if degrees < 3:
        return (12.706, 4.303)[degrees - 1]
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    return z + (z**3 + z) / (4 * degrees) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * degrees**2) + (
        3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z
    ) / (384 * degrees**3)  # fmt: skip


def half_size(curve: Curve) -> float | None:
    """n 1/2: the size at which the curve first has half of its best size / time; None where it begins above that."""
    rates = [s / t for s, t in zip(curve.sizes, curve.seconds)]
    half = max(rates) / 2
    for k, rate in enumerate(rates):
        if rate >= half:
            if k == 0:
                return None
            low, high = rates[k - 1], rate
            part = math.log(half / low) / math.log(high / low)
            return math.exp(math.log(curve.sizes[k - 1]) + part * math.log(curve.sizes[k] / curve.sizes[k - 1]))
    return None


def crossings(curves: Sequence[Curve]) -> list[Crossing]:
    """Where the curves of two algorithms at the same ranks cross, between sizes that both have."""
    found = []
    for i, a in enumerate(curves):
        for b in curves[i + 1 :]:
            if (a.ranks, a.collective) != (b.ranks, b.collective) or a.algorithm == b.algorithm:
                continue
            of_b = dict(zip(b.sizes, b.seconds))
            both = [(s, math.log(t / of_b[s])) for s, t in zip(a.sizes, a.seconds) if s in of_b]
            for (low, x), (high, y) in itertools.pairwise(both):
                if x * y < 0:
                    size = math.exp(math.log(low) + x / (x - y) * math.log(high / low))
                    names = (a.algorithm, b.algorithm) if x < 0 else (b.algorithm, a.algorithm)
                    found.append(Crossing(*names, a.ranks, size))
    return found


def switches(curve: Curve, jump: float = 1.6) -> list[int]:
    """Sizes at which time falls, or grows `jump` times faster than the size: the library changed protocol or algorithm there."""
    found = []
    for k in range(1, len(curve.sizes)):
        grown = curve.seconds[k] / curve.seconds[k - 1]
        if grown < 0.95 or grown > jump * curve.sizes[k] / curve.sizes[k - 1]:
            found.append(curve.sizes[k])
    return found
