"""Which end of a list of pairs is slow.

A pair is slow where it lies below SLOW of the median of the better half. The end of most slow pairs is named, then that of most of
those that are left; ends that one slow pair alone shows are said together, since either may be it.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..bench.log import Pair

SLOW = 0.75


class Suspects(NamedTuple):
    """good: the usual figure (bytes a second); slow: pairs below it; ends: (name, slow pairs, pairs), most suspect first;
    unexplained: slow pairs of none of these."""

    good: float
    slow: tuple[Pair, ...]
    ends: tuple[tuple[str, int, int], ...]
    unexplained: tuple[Pair, ...]


def suspects(pairs: Sequence[Pair]) -> Suspects | None:
    """None for fewer than three pairs with a bandwidth."""
    usable = [p for p in pairs if p.bandwidth]
    if len(usable) < 3:
        return None
    ordered = sorted((p.bandwidth for p in usable), reverse=True)
    good = statistics.median(ordered[: max(1, len(ordered) // 2)])
    left = slow = [p for p in usable if p.bandwidth < SLOW * good]
    of = Counter(end for p in usable for end in (p.source, p.target))
    found = []
    while left:
        bad = Counter(end for p in left for end in (p.source, p.target))
        name, n = max(bad.items(), key=lambda item: (item[1], item[1] / of[item[0]]))
        if n < 2:
            break
        found.append((name, n, of[name]))
        left = [p for p in left if name not in (p.source, p.target)]
    return Suspects(good, tuple(slow), tuple(found), tuple(left))


def words(found: Suspects) -> list[str]:
    """What the pairs say, a sentence each."""
    if not found.slow:
        return [f"no pair is below {100 * SLOW:.0f} % of the usual {found.good / 1e9:.1f} GB/s"]
    out = [f"{len(found.slow)} pairs are below {100 * SLOW:.0f} % of the usual {found.good / 1e9:.1f} GB/s"]
    out += [f"{name} is slow: {n} of its {of} pairs" for name, n, of in found.ends]
    out += [
        f"{p.source} or {p.target}, or the path between them: {p.bandwidth / 1e9:.1f} GB/s, and no other pair tells which"
        for p in found.unexplained
    ]
    return out
