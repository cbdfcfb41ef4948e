"""Which of several algorithms to take at which size, from their curves: what a tuner's file says, whoever reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from .record import Timing
from .statistics import median_interval


@dataclass(frozen=True)
class Choice:
    """Take `name` from size `first` to size `last` (bytes, both of them sizes with a time). gains: time of the default over time
    of the choice at each size, None without a default; least, most: over the sizes."""

    name: str
    first: int
    last: int
    after: int | None  # the size before `first`, where there is one
    gains: tuple[float | None, ...]

    @property
    def least(self) -> float | None:
        return min((g for g in self.gains if g is not None), default=None)

    @property
    def most(self) -> float | None:
        return max((g for g in self.gains if g is not None), default=None)


def choose(
    curves: Mapping[str, Mapping[int, Timing]], default: Mapping[int, Timing] | None = None, threshold: float = 0.05
) -> list[Choice]:
    """The fastest of the curves by ranges of sizes, ascending; sizes that are left out stay with the default.

    curves: time by size, of each algorithm. default: of what the library chooses by itself: an algorithm is taken only where it is
    faster by more than `threshold` of the time and their confidence intervals are apart. A choice is kept from one size to the next
    as long as it is within `threshold` of the fastest there, so that noise does not change it back and forth.
    """
    taken: list[tuple[int, str, float | None]] = []
    held = None
    for size in sorted({s for c in curves.values() for s in c}):
        here = {name: c[size] for name, c in curves.items() if size in c and c[size].seconds > 0 and not c[size].wrong}
        own = default.get(size) if default else None
        fit = {n: t for n, t in here.items() if own is None or _faster(t, own, threshold)}
        held = _best(fit, held, threshold) if fit else None
        if held is not None:
            taken.append((size, held, own.seconds / here[held].seconds if own else None))
        else:
            taken.append((size, "", None))
    return _joined(taken)


def pooled(timings: Sequence[Timing]) -> Timing:
    """Several measurements of one size as one: the median of all samples, with its interval (of the times where
    one has no samples)."""
    if len(timings) == 1:
        return timings[0]
    whole = all(t.samples for t in timings)
    samples = [s for t in timings for s in (t.samples if whole else [t.seconds])]
    seconds, low, high = median_interval(samples)
    wrong = max((t.wrong for t in timings if t.wrong is not None), default=None)
    return replace(timings[0], seconds=seconds, ci_low=low, ci_high=high, samples=samples, wrong=wrong)


def _faster(t: Timing, own: Timing, threshold: float) -> bool:
    return t.seconds * (1 + threshold) < own.seconds and t.ci_high < own.ci_low


def _best(fit: Mapping[str, Timing], held: str | None, threshold: float) -> str:
    best = min(fit, key=lambda n: (fit[n].seconds, n))
    return held if held in fit and fit[held].seconds <= (1 + threshold) * fit[best].seconds else best


def _joined(taken: list[tuple[int, str, float | None]]) -> list[Choice]:
    """Neighbours of one name together; "" stands for the default and is left out."""
    found: list[Choice] = []
    before, after = "", None
    for size, name, gain in taken:
        if name and name == before:
            found[-1] = replace(found[-1], last=size, gains=(*found[-1].gains, gain))
        elif name:
            found.append(Choice(name, size, size, after, (gain,)))
        before, after = name, size
    return found
