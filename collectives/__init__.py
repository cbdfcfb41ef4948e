"""Algorithms as schedules. Each file has one, as a pure function that returns a rank's table (schedule.py)."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import binomial, direct, halving_doubling, recursive_doubling, ring, tree
from .schedule import Schedule


@dataclass(frozen=True)
class Algorithm:
    """An all-reduce. steps(rank, ranks, count, *, in_place, [channels], [slices]) returns one rank's table."""

    name: str
    title: str
    steps: Callable[..., np.ndarray]
    takes_channels: bool
    takes_slices: bool
    summary: str

    def table(
        self, rank: int, ranks: int, count: int, *, channels: int = 1, slices: int = 1, in_place: bool = False
    ) -> np.ndarray:
        """One rank's table; channels and slices are dropped where the algorithm has none."""
        options: dict = {"in_place": in_place}
        if self.takes_channels:
            options["channels"] = channels
        if self.takes_slices:
            options["slices"] = slices
        return self.steps(rank, ranks, count, **options)


ALGORITHMS: dict[str, Algorithm] = {
    a.name: a
    for a in (
        Algorithm("ring", "ring", ring.steps, True, True, "least bytes, latency grows with p"),
        Algorithm("tree", "double binary tree", tree.steps, True, True, "pipelined, latency grows with log p"),
        Algorithm("binomial", "binomial tree", binomial.steps, False, False, "reduce then broadcast, whole messages"),
        Algorithm(
            "recursive-doubling", "recursive doubling", recursive_doubling.steps, False, False, "fewest rounds, whole messages"
        ),
        Algorithm(
            "halving-doubling", "recursive halving and doubling", halving_doubling.steps, False, False,
            "least bytes in log p rounds",
        ),
        Algorithm("one-shot", "direct exchange, one shot", direct.one_shot, False, False, "one latency, p-1 times the bytes"),
        Algorithm("two-shot", "direct exchange, two shots", direct.two_shot, False, True, "two latencies, least bytes"),
    )
}  # fmt: skip


def build(name: str, ranks: int, count: int, *, channels: int = 1, slices: int = 1, in_place: bool = False) -> Schedule:
    """The schedule of all ranks. Options an algorithm does not have are left out.

    Raises ValueError for an unknown algorithm, ranks, channels or slices below 1, or count below 0.
    """
    if name not in ALGORITHMS:
        near = difflib.get_close_matches(name, ALGORITHMS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ValueError(f"algorithm {name!r} is not known; {hint}accepted: {', '.join(ALGORITHMS)}")
    for what, value, least in (
        ("ranks", ranks, 1),
        ("count", count, 0),
        ("channels", channels, 1),
        ("slices", slices, 1),
    ):
        if value < least:
            raise ValueError(f"{what} is {value}; accepted: {least} or more")
    algorithm = ALGORITHMS[name]
    tables = tuple(
        algorithm.table(r, ranks, count, channels=channels, slices=slices, in_place=in_place) for r in range(ranks)
    )
    return Schedule(name, ranks, count, in_place, tables)
