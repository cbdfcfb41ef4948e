"""The timed loop: one all-reduce size, from warm-up to a median that can be trusted."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from ..transports.session import Job, Session
from .pattern import Pattern, pattern
from .record import Timing
from .statistics import median_interval, relative_half_width, settled

SAMPLE_SECONDS = 20e-6  # a sample is at least this long, so that reading the clock (about 30 ns) does not show
INNER_MAX = 2000
FIRST_SAMPLES = 16
SAMPLES_MIN = 7  # fewer give no 95 % interval
PRECISION = 0.05  # half width of the interval, of the median


@dataclass(frozen=True)
class Effort:
    """How long to measure. iterations, warmup: fixed counts, or None to go on until steady; budget: seconds for one
    mode of one size; across: how the ranks' times make one ("max", "mean", "min" or "first"); check: verify results; fresh:
    every rank rewrites its input before each sample, so that the caches hold what they would in a program."""

    iterations: int | None = None
    warmup: int | None = None
    budget: float = 0.25
    across: str = "max"
    check: bool = True
    fresh: bool = False


@dataclass(frozen=True)
class Measured:
    timing: Timing
    late: int  # samples that some rank began after the agreed start


def measure(session: Session, job: Job, effort: Effort) -> Measured:
    """Measure one mode of one size; called by all processes of the session together. Raises Unavailable, Stalled."""
    data, wrong = check_before(session, job, effort)
    estimate, warmups = _warm_up(session, effort)
    inner = 1 if effort.fresh else _repeats(estimate)
    samples, late, stopped = _samples(session, effort, inner, estimate)
    if effort.check:
        wrong += check_after(session, job, data)
    median, low, high = median_interval(samples)
    timing = Timing(
        seconds=median, ci_low=low, ci_high=high, samples=[float(s) for s in samples], inner=inner, warmup=warmups,
        stopped=stopped, wrong=wrong,
    )  # fmt: skip
    return Measured(timing, late)


def _repeats(seconds: float) -> int:
    """How many all-reduces of that length make a sample."""
    return max(1, min(INNER_MAX, math.ceil(SAMPLE_SECONDS / max(seconds, 1e-9))))


def _warm_up(session: Session, effort: Effort) -> tuple[float, int]:
    """Run until block medians no longer fall (or the fixed count is done).

    Returns (seconds an all-reduce, how many were run).
    """
    if effort.warmup is not None:
        count = max(1, effort.warmup)
        samples, _ = session.time(count, 1)
        return session.crew.agree(float(np.median(samples))), count
    blocks: list[float] = []
    done, size, samples_each = 0, 1, 1
    until = time.perf_counter() + effort.budget / 4
    while True:
        samples, _ = session.time(samples_each, size)
        done += samples_each * size
        blocks.append(float(np.median(samples)))
        enough = settled(blocks) or time.perf_counter() > until
        enough, estimate = session.crew.agree([enough, blocks[-1]])
        if enough:
            return estimate, done
        # Blocks last at least as long as a sample will, so small sizes are warm in the same way; large ones are costly.
        size = _repeats(estimate)
        samples_each = 4 if 16 * size * estimate < effort.budget else 1


def _samples(session: Session, effort: Effort, inner: int, estimate: float) -> tuple[np.ndarray, int, str]:
    """(samples, late starts, why it stopped)."""
    if effort.iterations is not None:
        samples, late = session.time(effort.iterations, inner, effort.across, effort.fresh)
        return samples, late, "iterations"
    taken: list[np.ndarray] = []
    late_starts = 0
    until = time.perf_counter() + effort.budget
    size = int(max(SAMPLES_MIN, min(FIRST_SAMPLES, effort.budget / max(estimate * inner, 1e-9))))
    while True:
        samples, late = session.time(session.crew.agree(size), inner, effort.across, effort.fresh)
        taken.append(samples)
        late_starts += late
        everything = np.concatenate(taken)
        stopped = None
        if len(everything) >= FIRST_SAMPLES and relative_half_width(everything) <= PRECISION:
            stopped = "confidence"
        elif time.perf_counter() > until:
            stopped = "budget"
        if stopped := session.crew.agree(stopped):
            return everything, late_starts, stopped
        # Half as many again as there are, and no more than the time left has room for.
        room = (until - time.perf_counter()) / max(float(np.median(samples)) * inner, 1e-9)
        size = int(max(1, min(len(everything) // 2 + 1, room, 1000)))


def check_before(session: Session, job: Job, effort: Effort) -> tuple[Pattern, int | None]:
    """Prepare the job and fill the inputs; (their pattern, wrong elements of a first all-reduce or None: not checked)."""
    session.prepare(job)
    wrong = None
    data = pattern(job.dtype, job.op, session.ranks, seed=1)
    session.fill(data.table)
    if effort.check:
        session.run()
        wrong = session.check(data)
    # In-place results feed the next all-reduce, which must not slow down on denormals or overflow to nan.
    if job.in_place:
        session.fill(lambda rank: np.zeros_like(data.table(rank)))
    return data, wrong


def check_after(session: Session, job: Job, data: Pattern) -> int:
    """Wrong elements after timing: of the last timed result where its input still stands, and of a fresh all-reduce."""
    wrong = 0
    if not job.in_place:
        wrong += session.check(data)
    fresh = pattern(job.dtype, job.op, session.ranks, seed=2)
    session.fill(fresh.table, start=1)
    session.run()
    return wrong + session.check(fresh, start=1)
