"""The modelled time of one size in a situation, with its band."""

from __future__ import annotations

import functools
from typing import NamedTuple

from ..fabric.library import predict
from ..fabric.library.band import Band
from ..fabric.library.predict import Expected, Prediction
from .situation import Situation

SMALL = 8  # bytes: all latency
MEMORY, SCHEDULE = "memory", "schedule"  # kinds of own.py


class Modelled(NamedTuple):
    """band, choice: None where nothing tells how far times usually lie from it, or no library chose. kind: of band.KINDS, how well
    the class of the run is known, or of own.py; latency_bound: the time is less than twice that of a message of 8 bytes."""

    seconds: float
    band: Band | None
    choice: Prediction | None
    kind: str
    latency_bound: bool


def modelled(situation: Situation, size: int) -> Modelled:
    """Raises UserError for a job that the machine cannot run."""
    found = _expect(situation.platform, situation.ranks, size, situation.run)
    least = _expect(situation.platform, situation.ranks, SMALL, situation.run)
    return Modelled(found.seconds, found.band, found.choice, found.kind, found.seconds < 2 * least.seconds)


@functools.lru_cache(maxsize=4096)
def _expect(platform, ranks, size, run) -> Expected:
    return predict.expect(platform, ranks, size, run)
