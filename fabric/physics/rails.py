"""Rails: how many ranks of a domain share its NICs, for a given algorithm.

The table of network.py gives every rank a network port of its own. But the NICs belong to the domain, and what a port
may have of them depends on who else sends. In a ring of one channel one rank of a domain sends out, and has all its
NICs; in a direct exchange all do, and each has one's share. `sharing` counts it from the schedule's own tables: the
bytes that leave (or enter) the busiest domain over those of the busiest rank. A domain's ports together then bring
exactly what its NICs do. For domains of 8 ranks::

    ring, 1 channel       1        all-to-all exchanges, recursive doubling, halving-doubling    8
    ring, 2 channels      2        odd channels run backwards, so both ends of a domain send
    double binary tree    2        3/2 S out of the busiest rank, 3 S out of its domain: built over ranks, not over hosts
                          4        where the domain is no power of two, more subtrees cross its border

The pattern repeats along the ranks, so a sample stands for many. Recursive doubling and halving-doubling leave ranks out
where there is no power of two of them; how many differs between sample and whole, so there the count may be off by up
to two.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...collectives import build
from ...collectives.collective import ALL_REDUCE, Collective
from ...collectives.schedule import SEND, Schedule

RANKS = 256  # up to so many are counted as they are, or four domains; of more a sample of that size


def sharing(algorithm: str, ranks: int, domain: int, channels: int = 1, collective: Collective = ALL_REDUCE) -> float:
    """Ranks of a domain of `domain` that share its NICs when `algorithm` runs over `ranks`: 1 ... domain.

    For build(rails=...). Raises ValueError for an unknown algorithm.
    """
    domains = -(-ranks // domain)
    if domains == 1 or domain == 1:
        return 1.0
    most = max(4, RANKS // domain)
    return _sharing(collective, algorithm, domain, min(domains, most), channels)


@lru_cache(maxsize=256)
def _sharing(collective: Collective, algorithm: str, domain: int, domains: int, channels: int) -> float:
    ranks = domain * domains
    count = 4 * channels * ranks // collective.size_count(ranks, 1)
    schedule = build(algorithm, ranks, count, collective=collective, channels=channels, nodes=domain)
    return sharing_of(schedule, domain)


def sharing_of(schedule: Schedule, domain: int) -> float:
    """The same for a schedule at hand: bytes over the border of the busiest domain, over those of the busiest rank."""
    out, into = crossing_elements(schedule, domain)
    busiest = max(out.max(), into.max())
    if busiest == 0:
        return 1.0
    of_domain = [np.add.reduceat(x, np.arange(0, schedule.ranks, domain)).max() for x in (out, into)]
    return float(max(of_domain) / busiest)


def crossing_elements(schedule: Schedule, domain: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [ranks] each: elements that a rank sends to, and receives from, other domains of `domain` ranks."""
    out, into = np.zeros(schedule.ranks, np.int64), np.zeros(schedule.ranks, np.int64)
    for rank, table in enumerate(schedule.tables):
        far = table[(table["op"] == SEND) & (table["peer"] // domain != rank // domain)]
        out[rank] = far["count"].sum()
        np.add.at(into, far["peer"], far["count"])
    return out, into
