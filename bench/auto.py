"""Resolving "auto": the fastest algorithm at each size."""

from __future__ import annotations

import numpy as np

from ..collectives import distinct
from ..transports.session import Job, Session
from .opening import job_for
from .options import Options


class Chooser:
    """Resolves "auto": tries every algorithm briefly and keeps the fastest; the answer is remembered for each size."""

    ROUNDS = 3
    FAR_BEHIND = 3.0

    def __init__(self, options: Options, session: Session):
        self.options, self.session = options, session
        self.offered = {c: distinct(c, session.ranks, session.nodes) for c in options.collectives}
        self.candidates = {(c, mode): self.offered[c] for c in options.collectives for mode in options.modes}

    def choose(self, collective: str, algorithm: str, count: int, dtype: str, op: str, mode: str) -> str:
        if algorithm != "auto":
            return algorithm
        if self.session.clock:
            return self._fastest_on_the_fabric(collective, count, dtype, op, mode)
        times: dict[str, list[float]] = {name: [] for name in self.candidates[collective, mode]}
        for round_ in range(self.ROUNDS):
            for name in times:
                self.session.prepare(self.job(collective, name, count, dtype, op, mode))
                if round_ == 0:
                    self.session.run()
                first, _ = self.session.time(1, 1)
                inner = max(1, min(1000, int(20e-6 / max(float(first[0]), 1e-9))))
                inner = self.session.crew.agree(inner)
                samples, _ = self.session.time(5 if inner > 1 else 1, inner)
                times[name].append(float(np.min(samples)))
        best = {name: float(np.median(t)) for name, t in times.items()}
        fastest = min(best, key=best.get)
        # Who is far behind at this size is not tried at the next; sizes grow, and the order changes slowly.
        keep = [n for n in best if best[n] <= self.FAR_BEHIND * best[fastest] or n in ("ring", "tree", "two-shot")]
        fastest, self.candidates[collective, mode] = self.session.crew.agree([fastest, keep])
        return fastest

    def _fastest_on_the_fabric(self, collective: str, count: int, dtype: str, op: str, mode: str) -> str:
        times = {}
        for name in self.offered[collective]:
            self.session.prepare(self.job(collective, name, count, dtype, op, mode))
            times[name] = int(self.session.virtual(1).finish.max())
        return min(times, key=times.get)

    def job(self, collective: str, name: str, count: int, dtype: str, op: str, mode: str) -> Job:
        """Of an algorithm, cut as the session says."""
        s = self.session
        return job_for(self.options, collective, name, count, dtype, op, mode, s.ranks, s.clock, s.nodes, s.slice_sizes)
