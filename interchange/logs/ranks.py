"""How many ranks a table's figures allow.

busbw = algbw * factor(p), both printed with two decimals or three digits. Each row gives an interval of factors, so one of p; the
rows' intervals must meet. algbw is taken from size / time where that says it more closely.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ...bench.log import UNBOUNDED, Figures, Row
from .collective import ranks_of_factor, tells_ranks

SLACK = 1e-6  # relative: what printing a product of rounded doubles may lose


@dataclass(frozen=True)
class Interval:
    """low to high ranks, both included; high UNBOUNDED: no upper end. rows: how many halves said something. clash: the first row
    line whose interval does not meet those before it, 0 for none."""

    low: int = 1
    high: int = UNBOUNDED
    rows: int = 0
    clash: int = 0

    @property
    def known(self) -> int | None:
        return self.low if self.low == self.high else None

    def holds(self, ranks: int) -> bool:
        return self.low <= ranks <= self.high


def interval(collective: str, rows: Iterable[Row], by_time: bool = True) -> Interval:
    """The ranks that all rows allow. by_time: whether algbw was computed from the time that the row prints. Where rows clash, the
    interval is that of the rows before the clash."""
    if not tells_ranks(collective):
        return Interval()
    low, high, said, clash = 0.0, math.inf, 0, 0
    for row in rows:
        for half in (row.out_of_place, row.in_place):
            found = _allowed(collective, row.size_bytes if by_time else 0, half) if half else None
            if found is None:
                continue
            new_low, new_high = max(low, found[0]), min(high, found[1])
            # p is whole: the interval must hold a whole number. A ratio above the factor's limit fits none.
            if new_low > UNBOUNDED or math.ceil(new_low - 1e-9) > new_high + 1e-9:
                clash = clash or row.line
                continue
            low, high, said = new_low, new_high, said + 1
    return Interval(
        max(1, math.ceil(low - 1e-9)), UNBOUNDED if high > UNBOUNDED else max(1, math.floor(high + 1e-9)), said, clash
    )


def _allowed(collective: str, size: int, half: Figures) -> tuple[float, float] | None:
    timed = bool(size and half.seconds and half.seconds > half.seconds_error)
    if half.busbw is None or (half.algbw is None and not timed):
        return None
    a_low, a_high = 0.0, math.inf
    if half.algbw is not None:
        a_low, a_high = max(0.0, half.algbw - half.algbw_error), half.algbw + half.algbw_error
    if timed:
        by_time = size / (half.seconds + half.seconds_error), size / (half.seconds - half.seconds_error)
        # Only where the two tell of the same size; a table whose size column means something else keeps to algbw.
        if by_time[0] <= a_high and by_time[1] >= a_low:
            a_low, a_high = max(a_low, by_time[0]), min(a_high, by_time[1])
        elif half.algbw == half.busbw and 0.45 * by_time[0] < half.busbw < 2.1 * by_time[1]:
            a_low, a_high = by_time  # all_gather's releases before 2.0.1 print busbw in both columns
    b_low, b_high = max(0.0, half.busbw - half.busbw_error), half.busbw + half.busbw_error
    if a_high <= 0 or b_high <= 0:
        return None
    f_low, f_high = b_low / a_high * (1 - SLACK), (b_high / a_low if a_low > 0 else math.inf) * (1 + SLACK)
    p_low, p_high = ranks_of_factor(collective, f_low), ranks_of_factor(collective, f_high)
    return None if p_low is None or p_high is None else (p_low, p_high)
