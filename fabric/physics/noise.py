"""Noise: how late a receive may be, drawn from a table of quantiles.

A cause is a distribution of delays in seconds. Written as text, causes are joined by "+" and add up, independent of one
another::

    exponential:mean=2us                             a queue in the network
    lognormal:median=1us,sigma=1                     software: most are short, some are ten times longer
    pareto:shape=1.5,least=1us,most=1ms              a heavy tail, cut off (bounded Pareto)
    os:period=10ms,duration=20us[,exposed=5us]       operating system noise: a detour of `duration` every `period`

For "os" a receive comes at a random moment. With probability duration / period the processor is away and comes back
after a time that is uniform in 0 ... duration; with probability exposed / period the detour begins while the receive
needs the processor (`exposed` seconds) and costs all of `duration`. The mean is duration^2 / 2 period + duration
exposed / period. This is the periodic injection of Ferreira, Bridges and Brightwell 2008 and Hoefler, Schneider and
Lumsdaine 2010.

**The table** (network.NOISE_ENTRIES equally likely delays). Entry i is the mean of the distribution over its i-th slice
of probability, so the table's mean is the distribution's, tail included. It follows from the Lorenz integral L(u) =
integral of the quantile function up to u: entry i is (L((i+1)/n) - L(i/n)) n. For a sum of causes each is drawn in
OVERSAMPLE n equally likely slices, shuffled by the seed, added, sorted and averaged again to n: a Latin hypercube
(McKay, Beckman and Conover 1979), which keeps the mean exact.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ...errors import UserError
from ..cards import units
from .network import NOISE_ENTRIES, PS

OVERSAMPLE = 16
LONGEST = 3600.0  # seconds: no delay in a table is longer


@dataclass(frozen=True)
class Cause:
    """name; figures: its parameters in SI, in order; lorenz: the integral of the quantile function from 0 to u (array)."""

    name: str
    figures: tuple[float, ...]
    lorenz: Callable[[np.ndarray], np.ndarray]

    @property
    def mean(self) -> float:
        """Seconds."""
        return float(self.lorenz(np.array([1.0]))[0])


def exponential(mean: float) -> Cause:
    """Mean `mean` seconds. Quantile -mean ln(1 - u)."""
    _positive("exponential", mean=mean)

    def lorenz(u):
        rest = 1 - u
        with np.errstate(divide="ignore", invalid="ignore"):
            return mean * (u + np.where(rest > 0, rest * np.log(rest), 0.0))

    return Cause("exponential", (mean,), lorenz)


def lognormal(median: float, sigma: float) -> Cause:
    """exp of a normal of standard deviation `sigma`; mean = median exp(sigma^2 / 2) seconds."""
    _positive("lognormal", median=median, sigma=sigma)
    if sigma > 4:
        raise UserError(f"lognormal sigma={sigma:g}; accepted: at most 4 (a mean 3,000 times the median)")
    normal = NormalDist()
    mean = median * math.exp(sigma * sigma / 2)

    def at(u):
        return 0.0 if u <= 0 else 1.0 if u >= 1 else normal.cdf(normal.inv_cdf(u) - sigma)

    return Cause("lognormal", (median, sigma), lambda u: mean * np.array([at(x) for x in u]))


def pareto(shape: float, least: float, most: float) -> Cause:
    """Bounded Pareto on least ... most seconds: survival falls as x^-shape."""
    _positive("pareto", shape=shape, least=least, most=most)
    if not least < most:
        raise UserError(f"pareto least={least:g} s, most={most:g} s; accepted: least below most")
    cut = -math.expm1(shape * math.log(least / most))  # 1 - (least / most)^shape

    def lorenz(u):
        left = 1 - u * cut  # quantile = least * left^(-1 / shape)
        if shape == 1:
            return -least / cut * np.log(left)
        power = 1 - 1 / shape
        return least / cut * (1 - left**power) / power

    return Cause("pareto", (shape, least, most), lorenz)


def os_noise(period: float, duration: float, exposed: float = 0.0) -> Cause:
    """A detour of `duration` seconds every `period`; a receive needs the processor for `exposed` seconds."""
    _positive("os", period=period, duration=duration)
    if exposed < 0 or duration + exposed > period:
        raise UserError(
            f"os period={period:g} s, duration={duration:g} s, exposed={exposed:g} s; "
            "accepted: duration + exposed within the period"
        )
    away, begins = duration / period, exposed / period

    def lorenz(u):
        inside = np.clip(u - (1 - away - begins), 0, away)
        full = np.clip(u - (1 - begins), 0, begins)
        return duration * (inside**2 / (2 * away) + full)

    return Cause("os", (period, duration, exposed), lorenz)


_KINDS = {
    "exponential": (exponential, {"mean": "time"}),
    "lognormal": (lognormal, {"median": "time", "sigma": "ratio"}),
    "pareto": (pareto, {"shape": "ratio", "least": "time", "most": "time"}),
    "os": (os_noise, {"period": "time", "duration": "time", "exposed": "time"}),
}
ACCEPTED = (
    "causes joined by +, each one of exponential:mean=2us, lognormal:median=1us,sigma=1, "
    "pareto:shape=1.5,least=1us,most=1ms, os:period=10ms,duration=20us[,exposed=5us]"
)


def parse(text: str) -> tuple[Cause, ...]:
    """Causes from words (above); "none" and "" are no cause. Raises UserError that says what is accepted."""
    if len(text) > 1000:
        raise UserError(f"noise of {len(text)} characters; accepted: {ACCEPTED}")
    if text.strip() in ("", "none"):
        return ()
    return tuple(_cause(part.strip()) for part in text.split("+"))


def _cause(text: str) -> Cause:
    name, _, rest = text.partition(":")
    if name.strip() not in _KINDS:
        raise UserError(f"noise {text[:60]!r}; accepted: {ACCEPTED}")
    make, kinds = _KINDS[name.strip()]
    figures = {}
    for word in filter(None, (w.strip() for w in rest.split(","))):
        key, equals, value = (s.strip() for s in word.partition("="))
        if key not in kinds or not equals or key in figures:
            raise UserError(f"noise {name}: {word[:60]!r}; accepted: each once, {', '.join(f'{k}=...' for k in kinds)}")
        try:
            figures[key] = units.parse(value, kinds[key])
        except UserError as e:
            raise UserError(f"noise {name}: {key}: {e}") from None
    missing = [k for k in kinds if k not in figures and k != "exposed"]
    if missing:
        raise UserError(f"noise {name}: no {missing[0]}; accepted: {ACCEPTED}")
    return make(**figures)


def _positive(cause: str, **figures: float) -> None:
    for name, value in figures.items():
        if not (math.isfinite(value) and 0 < value <= LONGEST):
            raise UserError(f"noise {cause}: {name}={value:g}; accepted: above 0 and at most {LONGEST:g}")


def slices(cause: Cause, n: int) -> np.ndarray:
    """float64 [n] seconds, ascending: the means of the cause's n equally likely slices."""
    return np.diff(cause.lorenz(np.linspace(0, 1, n + 1))) * n


def table(causes: tuple[Cause, ...], seed: int = 0) -> np.ndarray:
    """int64 [NOISE_ENTRIES] ps, ascending: for Network.noise. The sum of the causes; `seed` shuffles them against each other.

    Raises UserError where the longest delay is above an hour.
    """
    if not causes:
        return np.zeros(NOISE_ENTRIES, np.int64)
    if len(causes) == 1:
        delays = slices(causes[0], NOISE_ENTRIES)
    else:
        random = np.random.default_rng(seed)
        n = NOISE_ENTRIES * OVERSAMPLE
        total = np.zeros(n)
        for cause in causes:
            total += random.permutation(slices(cause, n))
        delays = np.sort(total).reshape(NOISE_ENTRIES, OVERSAMPLE).mean(axis=1)
    if delays[-1] > LONGEST:
        raise UserError(f"noise with delays of {delays[-1]:g} s; accepted: at most {LONGEST:g} s")
    # Rounding of the slices' differences can leave neighbours out of order by some 1e-16.
    return np.maximum.accumulate(np.rint(np.maximum(delays, 0) * PS).astype(np.int64))
