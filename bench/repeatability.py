"""How far two measurements of one thing lie apart when nothing changed: for times without samples.

The published data holds one pair of runs with the same settings on the same nodes: 16 A100 (ALCF Sophia), nccl-tests, two jobs
seven minutes apart. The scatter is taken from it by range of sizes, never typed in: a few percent up to 64 KiB, most between 64 KiB
and 4 MiB where algorithms and protocols change, a few tenths of a percent from 64 MiB. It is one system, and few sizes a
range, which Student's distribution allows for; a noisier system needs samples of its own.
"""

from __future__ import annotations

import functools
import math

from ..fabric.library.published import read

TWINS = ("sophia-a100-16r-(version not stated)-s6-112115", "sophia-a100-16r-(version not stated)-s6-112816")
EDGES = (64 << 10, 4 << 20, 64 << 20)  # bytes; the ranges between them have their own scatter
SOURCE = "two runs of one setting seven minutes apart, 16 A100 of ALCF Sophia"


@functools.cache
def _scatters() -> tuple[tuple[float, int], ...]:
    times = [{p.size: p.seconds for p in read() if p.series == name and p.size and p.seconds} for name in TWINS]
    apart: list[list[float]] = [[] for _ in range(len(EDGES) + 1)]
    for size in times[0].keys() & times[1].keys():
        apart[_range(size)].append(math.log(times[1][size] / times[0][size]))
    # The difference of two has twice the variance of one.
    return tuple((math.sqrt(sum(x * x for x in a) / len(a) / 2), len(a)) for a in apart)


def scatter(size_bytes: int) -> tuple[float, int]:
    """(standard deviation of log(time) of one measurement of that size, how many pairs of times it is from)."""
    return _scatters()[_range(size_bytes)]


def _range(size: int) -> int:
    return sum(size >= e for e in EDGES)
