"""Choices that depend on how caches behave, not on what a schedule means. Figures: docs/performance.md."""

from __future__ import annotations

from .program import CACHED, STREAM_ALL, STREAM_AWAY

SLICE_BYTES = 256 << 10  # a slice that one rank writes and the next reads should still be in the cache between
TREE_SLICE_BYTES = 64 << 10
SLICES_MAX = 64
# Working set of all ranks of a host, in last-level caches, from which results are written around the cache.
STREAM_AWAY_FROM, STREAM_ALL_FROM = 0.75, 2.0


def default_slices(algorithm: str, ranks: int, nbytes: int) -> int:
    """Into how many slices to cut a chunk of a message of `nbytes` so that slices pipeline without drowning in steps."""
    if algorithm == "tree":
        chunk, slice_bytes = nbytes // 2, TREE_SLICE_BYTES
    elif algorithm in ("ring", "two-shot"):
        if ranks <= 2:
            return 1  # nothing is forwarded, so nothing is gained
        chunk, slice_bytes = nbytes // ranks, SLICE_BYTES
    else:
        return 1
    return max(1, min(SLICES_MAX, chunk // slice_bytes))


def streaming(working_set: int, cache_bytes: int) -> int:
    """Which results of an all-reduce go around the cache (program.py); both in bytes, over all ranks of the host."""
    if working_set > STREAM_ALL_FROM * cache_bytes:
        return STREAM_ALL
    return STREAM_AWAY if working_set > STREAM_AWAY_FROM * cache_bytes else CACHED
