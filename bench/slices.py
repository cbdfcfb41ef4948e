"""Which slices suit the ranks of an MPI job: short ones that its library sends unasked, or long ones that stay in the cache.

No rule says it for every library and network: over TCP a message above the library's limit waits for an answer that queues behind
others' data, on a fast fabric short messages cost more than the question. So a ring runs in both a few times, before anything is
timed. docs/performance.md, "Over hosts", has figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from ..collectives.collective import ALL_REDUCE
from ..kernels.dtypes import find_device_dtype
from ..transports.interface import REFERENCES, Job, Session
from ..transports.tuning import CPU_SLICES, UNASKED_SLICES, SliceSizes, default_slices
from .options import Options, ops_for

TURNS, SAMPLES = 2, 4
FASTER = 0.9  # of the long slices' time: above, the short ones' is noise
CHUNK, MESSAGE = CPU_SLICES.ring, 1 << 20  # what is tried has at least both, where the sweep has
QUICK_SECONDS = 5e-3
DEEP = 4  # so much larger a message, of which long slices overlap too, where that is quick


def suiting(options: Options, session: Session) -> SliceSizes:
    """The session's slice sizes, after a trial where its ranks send MPI messages and no slices are given. Called by all
    processes of the session together. Raises Stalled."""
    if options.slices or session.clock or session.crew.transport not in ("mpi", "hybrid"):
        return session.slice_sizes
    if set(options.algorithms) <= set(REFERENCES):
        return session.slice_sizes
    ranks, most = session.ranks, options.sizes()[-1]
    size = min(most, max(MESSAGE, ranks * CHUNK))
    if size // ranks < 2 * UNASKED_SLICES.ring:
        return session.slice_sizes
    dtype, op = options.dtypes[0], ops_for(options, ALL_REDUCE)[0]
    session.crew.activity = "choosing slices"

    def seconds(sizes: SliceSizes) -> list[float]:
        """Of the slowest rank, so the same on all; without the first sample, to which all come rested."""
        count, slices = size // find_device_dtype(dtype).itemsize, default_slices("ring", ranks, size, sizes)
        session.prepare(Job("ring", count, dtype, op, slices=slices))
        return session.time(SAMPLES, 1)[0][1:].tolist()

    if median(seconds(CPU_SLICES)) < QUICK_SECONDS:
        size = min(most, DEEP * size)
    long, short = [], []
    for _ in range(TURNS):
        long += seconds(CPU_SLICES)
        short += seconds(UNASKED_SLICES)
    return chosen(long, short)


def chosen(long: Sequence[float], short: Sequence[float]) -> SliceSizes:
    """From seconds of a ring in long slices and in short ones. By their medians: waiting for answers is a matter of chance, and the
    quickest of the long may have had to wait for none."""
    return UNASKED_SLICES if median(short) < FASTER * median(long) else CPU_SLICES
