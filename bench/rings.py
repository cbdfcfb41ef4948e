"""Ring all-reduces among some of the ranks and in other orders, timed in turns so that they can be held against one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..collectives import build
from ..collectives.among import among, side_by_side
from ..collectives.collective import ALL_REDUCE
from ..collectives.schedule import Schedule
from ..transports.interface import Job, Session
from ..transports.tuning import CPU_SLICES, SliceSizes, default_slices
from .pairs import DTYPE, ITEMSIZE, Player

TURNS = 5
LEVEL = 0.85  # of a faster one: a ring below it is slower
RANKS_MAX = 512  # what one rank learns of all others' messages grows with the cube

Ring = Sequence[Player]
"""Players in the order of the ring; the ranks of one lie side by side."""


def ring_schedule(rings: Sequence[Ring], size_bytes: int, ranks: int, slice_sizes: SliceSizes = CPU_SLICES) -> Schedule:
    """Rings of different players, at once."""
    count = size_bytes // ITEMSIZE
    parts = []
    for ring in rings:
        members = [rank for player in ring for rank in player.ranks]
        slices = default_slices("ring", len(members), size_bytes, slice_sizes)
        parts.append(among(build("ring", len(members), count, slices=slices), members, ranks))
    return side_by_side(parts)


def time_rings(
    session: Session, candidates: Mapping[str, Sequence[Ring]], size_bytes: int, turns: int = TURNS
) -> dict[str, list[float]]:
    """Bus bandwidth (bytes a second) of each ring of each candidate, whose rings run at once: the median of `turns` samples of its
    slowest rank. Called by all processes of the session together. Raises Stalled."""
    taken: dict[str, list[list[float]]] = {name: [] for name in candidates}
    schedules = {
        name: ring_schedule(rings, size_bytes, session.ranks, session.slice_sizes) for name, rings in candidates.items()
    }
    for _ in range(turns):
        for name, rings in candidates.items():
            session.crew.activity = f"all-reduce, {name}"
            session.prepare(Job("ring", size_bytes // ITEMSIZE, DTYPE, "sum"), schedules[name])
            session.time_each(1, 1)
            seconds = session.time_each(1, 1)[:, 0]
            taken[name].append([float(seconds[_ranks(ring)].max()) for ring in rings])
    return {
        name: [
            ALL_REDUCE.busbw_factor(len(_ranks(ring)))
            * size_bytes
            / float(np.median([turn[i] for turn in taken[name]]))
            for i, ring in enumerate(rings)
        ]
        for name, rings in candidates.items()
    }


def _ranks(ring: Ring) -> list[int]:
    return [rank for player in ring for rank in player.ranks]


def bisect(session: Session, who: Sequence[Player], size_bytes: int) -> list[dict[str, float]]:
    """Where an all-reduce is slow although all pairs are well: {players, as "a b c": bus bandwidth} of each step.

    The whole, then its halves at once, then the halves of a half that is slower than the other, down to three players or fewer; of
    these, all the others and each of them in turn left out.
    """
    group = list(who)
    steps: list[dict[str, float]] = []
    while len(group) >= 4:
        halves = [group[: len(group) // 2], group[len(group) // 2 :]]
        asked = {"the whole": [who], "halves": halves} if len(group) == len(who) else {"halves": halves}
        found = time_rings(session, asked, size_bytes)
        here = dict(zip((names(h) for h in halves), found["halves"]))
        if "the whole" in found:
            here = {names(who): found["the whole"][0], **here}
        steps.append(here)
        first, second = found["halves"]
        if min(first, second) >= LEVEL * max(first, second):
            return steps
        group = halves[first > second]
    if len(who) > len(group) >= 2:
        left_out = {f"without {p.name}": [[q for q in who if q != p]] for p in group}
        found = time_rings(session, left_out, size_bytes)
        steps.append({name: values[0] for name, values in found.items()})
    return steps


def names(group: Sequence[Player]) -> str:
    return " ".join(p.name for p in group)
