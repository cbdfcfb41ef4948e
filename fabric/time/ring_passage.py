r"""The ring without noise as a longest path: the same picoseconds as stage by stage, without walking the stages.

In the recurrence of ring_recurrence.py a begin is the longest of many sums, one for each path through the grid of ranks and
chunks: a message's begin either follows the one of the same chunk at the rank to the left (a step right, costing pass[r]) or the
one of the chunk before at the same rank (a step down, costing stay[r])::

             rank   0   1   2   3   4   5
    chunk 2         o---o---o               o   stage 0: where the walk starts, with begins known
    chunk 1             o---o---o           from any o a path goes right and down, one stage a step,
    chunk 0                 o---o---o       and after K steps it has come to the last o of a row

While costs depend on the rank alone, a path from rank a to rank r does K - (r - a) steps down, best all at the rank
where they cost most, so begin(K, r) = max over a of begin(0, a) + pass[a+1] + ... + pass[r] + (K - (r - a)) max(stay[a ... r]):
last-passage percolation with weights of rows. For each value v that stay takes, the best a is a maximum over a window that
moves with r (a from r-K to the last rank that costs v or more), so all r cost O(p) a value.

Long and short chunks (they differ by an element) are two bands of rows. A path changes band where it steps from row 0 down to
row p-1 or from row `longer` to the one below; the best sums at these two lines are computed first, band by band.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from .ring_lanes import EMPTY


@njit(cache=True, nogil=True)
def _band(begin, stay, pass_, values, bottom, top, one_band, level, crossing, stage, stages, line, ends):
    """The best sums in one band of rows, bottom ... top-1.

    begin: int64 [p], at `stage`; stay, pass_: int64 [p]; values: the values of stay. crossing: int64 [p], the cost of the step
    to the row below. level: int64 [stages], the sums just below the line above, by rank from top+stage+1. Puts the sums
    just below the band's bottom into line [stages] (by rank from bottom+stage+1) and those after all `stages` into ends [p].
    one_band: no lines; the rows go on for ever.
    """
    ranks = len(begin)
    start = bottom + stage + 1
    size = top - bottom + stages
    source, path, queue = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64)
    best = np.full(size, EMPTY * 2)
    total = 0
    rank = start % ranks
    for i in range(size):
        if i:
            total += pass_[rank]
        path[i] = total
        if one_band or i < top - bottom:
            source[i] = begin[rank] - total
        else:
            source[i] = level[i - (top - bottom)] - total
        rank = rank + 1 if rank + 1 < ranks else 0
    for v in values:
        head = tail = waiting = 0
        rank = start % ranks
        for i in range(size):
            if stay[rank] >= v:
                # All up to here have now met a rank that costs v.
                while waiting <= i:
                    row = waiting if one_band else min(waiting, top - bottom - 1)
                    key = source[waiting] + row * v
                    while tail > head:
                        last = queue[tail - 1]
                        if source[last] + (last if one_band else min(last, top - bottom - 1)) * v > key:
                            break
                        tail -= 1
                    queue[tail] = waiting
                    tail += 1
                    waiting += 1
            while head < tail and queue[head] < i - stages:
                head += 1
            if head < tail:
                first = queue[head]
                row = first if one_band else min(first, top - bottom - 1)
                best[i] = max(best[i], source[first] + path[i] + (row - max(0, i - stages)) * v)
            rank = rank + 1 if rank + 1 < ranks else 0
    rank = start % ranks
    for i in range(size):
        if i >= stages:
            ends[rank] = best[i]
        elif not one_band:
            line[i] = best[i] + crossing[rank]
        rank = rank + 1 if rank + 1 < ranks else 0


@njit(cache=True, nogil=True)
def _empty_band(begin, bottom, top, level, crossing, stage, stages, line, ends):
    """As _band, for chunks that are empty: nothing goes right, and the steps down cost nothing."""
    ranks = len(begin)
    start = bottom + stage + 1
    for i in range(top - bottom + stages):
        rank = (start + i) % ranks
        value = begin[rank] if i < top - bottom else level[i - (top - bottom)]
        if i >= stages:
            ends[rank] = value
        else:
            line[i] = value + crossing[rank]


def passage(begin, after, own, pass_, longer: int, filled: int, stage: int, stages: int) -> np.ndarray:
    """The begins (int64 [p]) at `stage` + `stages` < `stage` + p, from those at `stage`; costs as in ring_recurrence.Costs."""
    ranks = len(begin)
    ends = np.empty(ranks, np.int64)
    nothing = np.full(stages, 2 * EMPTY)
    if stages == 0:
        return begin.copy()
    if longer == 0:
        stay = np.maximum(after[1], own[1])
        _band(
            begin,
            stay,
            pass_[1],
            np.unique(stay),
            0,
            ranks,
            True,
            nothing,
            stay,
            stage,
            stages,
            np.empty(0, np.int64),
            ends,
        )
        return ends
    stays = [np.maximum(after[k], own[k]) for k in range(2)]
    to_short, to_long = np.maximum(after[1], own[0]), np.maximum(after[0], own[1])
    values = [np.unique(s) for s in stays]

    def long_band(level):
        line = np.empty(stages, np.int64)
        _band(begin, stays[0], pass_[0], values[0], 0, longer, False, level, to_short, stage, stages, line, ends)
        return line

    def short_band(level):
        line = np.empty(stages, np.int64)
        if filled < ranks:
            _empty_band(begin, longer, ranks, level, to_long, stage, stages, line, ends)
        else:
            _band(begin, stays[1], pass_[1], values[1], longer, ranks, False, level, to_long, stage, stages, line, ends)
        return line

    # A path crosses each line once at most, so the second round knows all that can come over a line.
    level = long_band(nothing)
    level = short_band(level)
    level = long_band(level)
    short_band(level)
    return ends


def distinct_costs(after, own) -> int:
    """How many values `passage` has to go through, over both lengths of chunk."""
    return sum(len(np.unique(np.maximum(after[k], own[k]))) for k in range(2))
