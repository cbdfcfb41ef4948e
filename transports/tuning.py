"""Choices that depend on how caches behave, not on what a schedule means. Figures: docs/performance.md."""

from __future__ import annotations

from dataclasses import dataclass

from .program import CACHED, STREAM_ALL, STREAM_AWAY

SLICES_MAX = 64
INLINE_LINES = 2  # of one message: with more the rows cost more than a trip between the cores saves
DEPTH = 16  # of the mailboxes of who only sends: so many collectives may be under way to a rank that is late
# Working set of all ranks of a host, in last-level caches, from which results are written around the cache.
STREAM_AWAY_FROM, STREAM_ALL_FROM = 0.75, 2.0


@dataclass(frozen=True)
class SliceSizes:
    """Bytes: what a slice of a ring's chunk and of a tree's should at least have, and from which message on there is more than
    one; most: slices times ranks of the longest message that is cut so, above it CPU_SLICES hold (None: SLICES_MAX slices)."""

    ring: int
    tree: int
    from_message: int
    most: int | None = None


# A slice that one rank writes and the next reads should still be in the cache between.
CPU_SLICES = SliceSizes(256 << 10, 64 << 10, 0)
# Over TCP MPI libraries send short messages unasked and ask before long ones (Open MPI from 64 KiB on with its headers); request
# and answer then queue behind the data of others. Which of the two an MPI job takes, it measures: bench/slices.py.
UNASKED_SLICES = SliceSizes(32 << 10, 32 << 10, 0, most=2048)
# A GPU's flags cost 2 us, in which it copies some MB, and the start and end of a call leave part of it idle: on an H100 slices of
# 32 MiB and more are as fast as one, of 8 MiB 2 to 7 % slower.
GPU_SLICES = SliceSizes(32 << 20, 32 << 20, 64 << 20)


def default_slices(algorithm: str, ranks: int, nbytes: int, sizes: SliceSizes = CPU_SLICES) -> int:
    """Into how many slices to cut a chunk of a message of `nbytes` so that slices pipeline without drowning in steps."""
    if nbytes < sizes.from_message:
        return 1
    if algorithm in ("tree", "node-tree"):
        chunk, slice_bytes = nbytes // 2, sizes.tree
    elif ranks <= 2 and sizes.most is None:
        return 1  # nothing is forwarded, so nothing is gained
    elif algorithm == "chain":
        chunk, slice_bytes = nbytes, sizes.ring
    elif algorithm in ("ring", "two-shot", "direct", "scatter-allgather", "reduce-scatter-gather"):
        chunk, slice_bytes = nbytes // ranks, sizes.ring
    else:
        return 1
    slices = max(1, chunk // slice_bytes)
    if sizes.most is None:
        return min(SLICES_MAX, slices)
    return slices if slices * ranks <= sizes.most else default_slices(algorithm, ranks, nbytes)


def streaming(working_set: int, cache_bytes: int) -> int:
    """Which results of an all-reduce go around the cache (program.py); both in bytes, over all ranks of the host."""
    if working_set > STREAM_ALL_FROM * cache_bytes:
        return STREAM_ALL
    return STREAM_AWAY if working_set > STREAM_AWAY_FROM * cache_bytes else CACHED
