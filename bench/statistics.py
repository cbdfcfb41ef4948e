"""What samples say: the median, how sure of it we are, and whether they have settled."""

from __future__ import annotations

import math

import numpy as np

CONFIDENCE = 0.95


def median_interval(samples) -> tuple[float, float, float]:
    """(median, low, high): the median and its 95 % confidence interval by order statistics.

    Assumes nothing of the distribution: the true median lies between the l-th smallest and l-th largest sample with a
    probability that the binomial distribution gives (David and Nagaraja, Order Statistics, 7.1). With fewer than six samples no
    such pair reaches 95 %, and the interval is the whole range.
    """
    ordered = np.sort(np.asarray(samples, float))
    n = len(ordered)
    if n == 0:
        raise ValueError("no samples")
    k = _interval_rank(n)
    return float(np.median(ordered)), float(ordered[k]), float(ordered[n - 1 - k])


def _interval_rank(n: int) -> int:
    """The largest k (from 0) with P(k-th smallest < median < k-th largest) >= 95 %."""
    if n > 200:
        return max(0, math.floor((n - 1.959964 * math.sqrt(n)) / 2) - 1)
    outside, k = 0.0, -1
    for i in range(n):
        outside += 2 * math.comb(n, i) / 2.0**n
        if outside > 1 - CONFIDENCE:
            break
        k = i
    return max(0, k)


def relative_half_width(samples) -> float:
    """Half the width of the median's interval, as a fraction of the median; infinite where nothing can be said."""
    if len(samples) < 6:
        return math.inf
    median, low, high = median_interval(samples)
    return (high - low) / 2 / median if median > 0 else math.inf


def settled(blocks: list[float], tolerance: float = 0.05) -> bool:
    """Whether the last of a row of block medians no longer falls: within `tolerance` of the one before, or above it."""
    return len(blocks) >= 2 and blocks[-1] >= (1 - tolerance) * blocks[-2]


def student_two_sided(t: float, freedom: int) -> float:
    """The chance of |T| >= |t| with that many degrees of freedom (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle = math.atan(abs(t) / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = term if freedom > 1 else 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return max(0.0, 1.0 - inside)


def student_quantile(freedom: int) -> float:
    """The t that |T| stays below with CONFIDENCE."""
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if student_two_sided(middle, freedom) > 1 - CONFIDENCE else (low, middle)
    return high
