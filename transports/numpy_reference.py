"""NumPy as the reference: one thread that makes every rank's output, the naive floor."""

from __future__ import annotations

import time

import numpy as np

from ..collectives.collective import ALL
from ..collectives.schedule import INPUT, OUTPUT
from ..kernels.dtypes import find_dtype
from .interface import OK, Job, Unavailable

REDUCE = {"sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}


class NumpyReference:
    def __init__(self, crew):
        self.crew = crew
        self.job: Job | None = None

    def prepare(self, job: Job) -> None:
        if self.crew.ranks_here != self.crew.ranks:
            raise Unavailable("numpy works in one process, so it needs all ranks on one host")
        if find_dtype(job.dtype).name == "bfloat16":
            raise Unavailable("numpy has no bfloat16; accepted with --algo numpy: every other dtype")
        self.job = job

    def time(self, samples: int, inner: int, turn: int, fresh: bool) -> list[tuple[int, int, np.ndarray]]:
        moves = self._moves()
        out = np.zeros(samples)

        def work(post):
            if post.rank != 0:
                return
            with np.errstate(all="ignore"):
                for s in range(samples):
                    start = time.perf_counter()
                    for _ in range(inner):
                        for to, of in moves:
                            self._make(to, of)
                    out[s] = (time.perf_counter() - start) / inner

        self.crew.each(work)
        return [(OK, 0, out)]

    def _moves(self) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        """(a region of an output, the regions of inputs that it is the sum of) in order; of one sum, all but the first copy it."""
        job, ranks = self.job, self.crew.ranks
        storage = find_dtype(job.dtype).storage
        into, of = (
            [self.crew.arena.array(i, b, storage, job.elements(ranks)) for i in range(ranks)] for b in (OUTPUT, INPUT)
        )
        if job.in_place:
            of = into
        given = {int(r): int(at) for r, at, _ in job.inputs(ranks)}
        made: dict[int, np.ndarray] = {}
        moves = []
        for rank, at, n, source, contributor in job.outputs(ranks).tolist():
            to = into[rank][at : at + n]
            # The rank's own part first: in place the sum goes there.
            who = sorted(range(ranks), key=lambda r: r != rank) if contributor == ALL else [contributor]
            parts = [of[r][given[r] + source : given[r] + source + n] for r in who]
            if contributor == ALL:
                parts = [made[source]] if source in made else parts
                made.setdefault(source, to)
            moves.append((to, parts))
        return moves

    def _make(self, to: np.ndarray, of: list[np.ndarray]) -> None:
        if len(of) == 1:
            np.copyto(to, of[0])
            return
        reduce = REDUCE[self.job.op]
        reduce(of[0], of[1], out=to)
        for x in of[2:]:
            reduce(to, x, out=to)
        if self.job.op == "avg":
            kind = np.floor_divide if to.dtype.kind in "iu" else np.divide
            kind(to, self.crew.ranks, out=to)
