"""Stragglers: one rank, or one of its links, at a part of its speed.

``RANK:SPEED`` slows all of a rank, ``RANK:PART:SPEED`` one part: "link" (node.link, port 0), "nic" (port 1) or "memory"
(reduce and copy). SPEED is a part of the normal speed: ``17:50%``, ``17:nic:0.25``. Ranks may be a range:
``0-7:nic:50%`` is a host whose NICs run at half rate. A factor 1 / SPEED multiplies what a byte costs; latency stays.

A link at x % speed sets the pace of a ring: all 2(p-1) chunks pass it, so where bytes decide, the whole all-reduce
takes 1 / x times as long, however many ranks are healthy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ...errors import UserError

PARTS = ("link", "nic", "memory")
_TEXT = re.compile(r"(\d{1,9})(?:-(\d{1,9}))?(?::([a-z]+))?:(\d*\.?\d+)\s*(%?)")
ACCEPTED = "RANK:SPEED or RANK:PART:SPEED, such as 17:50% or 0-7:nic:0.5, with PART one of " + ", ".join(PARTS)


@dataclass(frozen=True)
class Straggler:
    """Ranks first ... last run `parts` at `speed` (0 < speed <= 1) times the normal speed."""

    first: int
    last: int
    parts: tuple[str, ...]
    speed: float

    def __post_init__(self):
        if not 0 <= self.first <= self.last:
            raise UserError(f"straggler ranks {self.first}-{self.last}; accepted: FIRST-LAST, ascending")
        if not set(self.parts) <= set(PARTS):
            raise UserError(f"straggler part {', '.join(map(repr, self.parts))}; accepted: {', '.join(PARTS)}")
        if not 0 < self.speed <= 1:
            raise UserError(f"straggler speed {self.speed:g}; accepted: above 0 and at most 1 (or 100%)")


def parse(text: str) -> Straggler:
    """A Straggler from words. Raises UserError that says what is accepted."""
    match = _TEXT.fullmatch(text.strip()) if len(text) <= 64 else None
    if match is None:
        raise UserError(f"straggler {text[:64]!r}; accepted: {ACCEPTED}")
    first, last, part, speed, percent = match.groups()
    parts = PARTS if part is None else (part,)
    return Straggler(int(first), int(last or first), parts, float(speed) / (100 if percent else 1))


def factors(stragglers: Iterable[Straggler | str], ranks: int) -> dict[str, np.ndarray]:
    """For each of PARTS a float64 [ranks] of factors >= 1 by which a byte costs more; several on one rank: the worst counts.

    Raises UserError for a rank that does not exist.
    """
    out = {part: np.ones(ranks) for part in PARTS}
    for item in stragglers:
        s = parse(item) if isinstance(item, str) else item
        if s.last >= ranks:
            raise UserError(f"straggler rank {s.last}; accepted: 0 to {ranks - 1}")
        for part in s.parts:
            of = out[part][s.first : s.last + 1]
            np.maximum(of, 1 / s.speed, out=of)
    return out


def ring_slowdown(speed: float) -> float:
    """How much longer a ring takes where bytes decide, with one link at `speed`: every chunk passes that link."""
    return 1 / speed
