"""What a rule about a cause gets to see, and what it says."""

from __future__ import annotations

import functools
import math
import statistics
from dataclasses import dataclass
from itertools import pairwise

from ...bench.log import Log, System
from ..situation import nics_seen
from ..verdict import BAD, COLLAPSES, HEALTHY, LARGE, Answer, Judged


@dataclass(frozen=True)
class Finding:
    """A likely cause. weight: 0 to 1, how much the evidence says (0.9: the log states it; 0.5: its figures are as that cause's;
    0.3: they do not speak against it). evidence: what in this log; would_show: what else would be seen if it is so;
    confirm: the command or setting that decides."""

    title: str
    weight: float
    evidence: tuple[str, ...]
    would_show: str
    confirm: str


@dataclass(frozen=True)
class Case:
    """One table with its answer, and the log around it."""

    log: Log
    answer: Answer

    @property
    def system(self) -> System:
        return self.answer.table.system

    @property
    def environment(self) -> dict[str, str]:
        return self.system.environment

    @property
    def nodes(self) -> int:
        return self.answer.situation.nodes or 1

    @property
    def several_nodes(self) -> bool:
        return (self.answer.situation.nodes or 0) > 1

    @property
    def bad(self) -> bool:
        """Whether anything is wrong, or not known to be right."""
        return self.answer.verdict in BAD or self.answer.verdict != HEALTHY

    @functools.cached_property
    def large(self) -> tuple[Judged, ...]:
        """Sizes that tell bandwidth: before a collapse, where there is one, else all from LARGE."""
        rows = [r for r in self.answer.rows if r.size >= LARGE]
        return tuple(rows)

    @functools.cached_property
    def share(self) -> float | None:
        """Of the modelled bandwidth, at the sizes that tell it; None without a model or such sizes."""
        shares = [r.share for r in self.large if r.share is not None]
        return statistics.median(shares) if shares else None

    @functools.cached_property
    def tight(self) -> float:
        """How closely the model knows the share: half of its 90 % band, of the modelled time; infinite without a band."""
        widths = [
            (r.modelled.band.high90 / r.modelled.seconds - 1) for r in self.large if r.modelled and r.modelled.band
        ]
        return statistics.median(widths) if widths else math.inf

    @functools.cached_property
    def scatter(self) -> str:
        """Large sizes whose times disagree, in words: out of place and in place by a fifth, or a rate that falls by 15 % to
        the next size, at a third of them and at two; "" for a steady curve."""
        halves = [
            (r.out_of_place.seconds, r.in_place.seconds)
            for r in self.answer.table.rows
            if r.size_bytes >= LARGE and r.out_of_place and r.in_place and r.out_of_place.seconds and r.in_place.seconds
        ]
        apart = sum(max(h) > 1.2 * min(h) for h in halves)
        rates = [r.size / r.seconds for r in self.large]
        falls = sum(b < 0.85 * a for a, b in pairwise(rates))
        if apart >= max(2, len(halves) / 3):
            return f"out of place and in place differ by a fifth and more at {apart} of {len(halves)} large sizes"
        if falls >= max(2, len(rates) / 3):
            return f"the rate falls at {falls} of {len(rates)} large sizes, and rises again"
        return ""

    @functools.cached_property
    def peak(self) -> float:
        """The highest bus bandwidth, bytes a second; 0 where none is known."""
        return max((r.busbw for r in self.answer.rows if r.busbw), default=0.0)

    @functools.cached_property
    def small_share(self) -> float | None:
        """Modelled over measured time where time is latency."""
        shares = [r.share for r in self.answer.rows if r.modelled and r.modelled.latency_bound]
        return statistics.median(shares) if shares else None

    @property
    def low(self) -> bool:
        """Whether bandwidth is low over the sizes that tell it, collapsed or not."""
        return self.share is not None and self.share < 0.8

    @property
    def collapsed(self) -> Judged | None:
        """The first size of a collapse."""
        return next((r for r in self.answer.rows if r.verdict == COLLAPSES), None) or (
            self.answer.rows[jump.first] if (jump := self.answer.collapse) else None
        )

    @functools.cached_property
    def nics(self) -> list[str]:
        return nics_seen(self.answer.table)

    def said(self, *words: str) -> str:
        """The first fact, path line or warning of the log that has one of the words (any case); "" for none."""
        texts = [
            *self.system.facts.values(),
            *self.system.topology,
            *(n.text for n in self.log.all_notes if n.kind == "warning"),
        ]
        return next((t for t in texts if any(w.lower() in t.lower() for w in words)), "")
