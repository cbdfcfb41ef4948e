"""Jumps in a curve of time over size: what can be seen of a run without knowing its machine.

Between two neighbouring sizes a collective's rate (size / time) rises, or stays; a change of algorithm or protocol costs it
a third at most. A rate that falls by more than 40 % is something else: a *spike* where the curve comes back within three sizes, a
*dip* where it comes back later, a *collapse* where it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

HALF = 0.6  # of the rate before: beyond what healthy logs show at a change of protocol
BACK = 0.8  # of the rate before: the curve has come back
SPIKE_SIZES = 3


class Jump(NamedTuple):
    """kind: spike, dip or collapse; first, last: index of the slow rows; factor: by how much the rate fell at the first."""

    kind: str
    first: int
    last: int
    factor: float


def jumps(sizes: Sequence[int], seconds: Sequence[float]) -> list[Jump]:
    """Jumps of a curve, in order. sizes: bytes, rising; seconds: above 0."""
    rates = [s / t for s, t in zip(sizes, seconds)]
    found: list[Jump] = []
    i = 1
    while i < len(rates):
        before = rates[i - 1]
        if rates[i] >= HALF * before:
            i += 1
            continue
        back = next((j for j in range(i + 1, len(rates)) if rates[j] >= BACK * before), len(rates))
        kind = "collapse" if back == len(rates) else "spike" if back - i <= SPIKE_SIZES else "dip"
        found.append(Jump(kind, i, back - 1, before / rates[i]))
        i = back + 1
    return found
