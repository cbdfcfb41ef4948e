"""Ring, tree and all-to-all at any number of ranks: exact finishing times without a schedule written out.

All give, to the picosecond, what replay of the schedule of collectives/ring.py, tree.py or direct.py gives on the same
Network. docs/recurrences.md says how, and how fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ...errors import UserError
from ..physics.network import Network, work_ps
from .exchange_recurrence import exchange
from .ring_lanes import STAGES, fill, lanes, take
from .ring_passage import distinct_costs
from .ring_recurrence import (
    check_range,
    filled_chunks,
    finish_times,
    first_begins,
    half_ring,
    many_rings,
    one_ring_passage,
    one_ring_steps,
    phases,
    ring_costs,
    walk,
)
from .tree_recurrence import double_tree

METHODS = ("auto", "steps", "passage", "gpu")
BLOCK_STAGES = 4096  # stages between two meetings of the blocks of `ring_blocks`, at most
# The longest path costs about as much a value and rank as this many messages evaluated one by one.
MESSAGES_A_VALUE = 300


def ring_finish(
    net: Network,
    count: int,
    itemsize: int,
    *,
    channels: int = 1,
    slices: int = 1,
    in_place: bool = False,
    method: str = "auto",
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """When each rank of a ring all-reduce is finished, int64 [net.ranks] ps.

    count: elements of `itemsize` bytes. method: "steps" evaluates every message; "passage" finds the longest path through
    them, for one channel, one slice and no noise; "gpu" evaluates every message on a GPU, for one channel and one slice;
    "auto" takes the faster of the first two. All give the same times. threads None: as many as there are processors.
    progress: called between blocks of work with the part done, 0 to 1; what it raises ends the work. Raises UserError for
    figures below their least, for a method that does not apply, and where times would leave the int64 picoseconds.
    """
    _check(net, count, itemsize, channels, slices)
    if method not in METHODS:
        raise UserError(f"method {method!r} is not known; accepted: {', '.join(METHODS)}")
    plain = channels == 1 and slices == 1
    if method == "passage" and (net.noisy or not plain):
        raise UserError("method 'passage' needs one channel, one slice and a network without noise; accepted: 'steps'")
    if method == "gpu" and not plain:
        raise UserError("method 'gpu' needs one channel and one slice; accepted: 'steps'")
    if net.ranks == 1 or count == 0:
        return _alone(net, count, itemsize, in_place)
    check_range(net, count, itemsize, 2 * net.ranks * channels * slices)
    if method == "gpu":
        from . import gpu_ring

        return gpu_ring.one_ring_steps(net, count, itemsize, progress=progress)
    threads = threads or processors()
    if not plain:
        return many_rings(net, count, itemsize, channels, slices, threads=threads, progress=progress)
    if method == "passage" or (method == "auto" and not is_stepped(net, count, itemsize)):
        return one_ring_passage(net, count, itemsize)
    return one_ring_steps(net, count, itemsize, threads=threads, progress=progress)


REDUCING = {"reduce_scatter": True, "all_gather": False}
"""The collectives that are one half of a ring all-reduce, and whether they reduce."""


def half_ring_finish(
    net: Network,
    collective: str,
    count: int,
    itemsize: int,
    *,
    in_place: bool = False,
    method: str = "auto",
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """When each rank of a ring reduce-scatter or all-gather of one channel and one slice is finished, int64 [net.ranks] ps.

    collective: of REDUCING; count: elements of a block; method, threads, progress, errors: as for ring_finish.
    """
    _check(net, count, itemsize, 1, 1)
    if method not in ("auto", "steps", "passage"):
        raise UserError(f"method {method!r} is not known; accepted: auto, steps, passage")
    if net.ranks == 1 or count == 0:
        return _alone(net, count, itemsize, in_place)
    reducing = REDUCING[collective]
    check_range(net, count * net.ranks, itemsize, 2 * net.ranks)
    by_passage = method == "passage"
    if method == "auto" and not net.noisy:
        costs = ring_costs(net, count * net.ranks, itemsize, reducing, 0, net.ranks)
        by_passage = distinct_costs(costs.after, costs.own) * MESSAGES_A_VALUE < 2 * net.ranks
    return half_ring(
        net, count, itemsize, reducing, not reducing and not in_place, by_passage, threads=threads or processors(),
        progress=progress,
    )  # fmt: skip


EXCHANGES = ("direct", "pairwise")
"""The all-to-alls that need not be written out."""


def exchange_finish(
    net: Network, algorithm: str, count: int, itemsize: int, *, progress: Callable[[float], None] | None = None
) -> np.ndarray:
    """When each rank of an all-to-all is finished, int64 [net.ranks] ps, every message evaluated.

    algorithm: of EXCHANGES; count: elements of a block; progress, errors: as for ring_finish.
    """
    _check(net, count, itemsize, 1, 1)
    if algorithm not in EXCHANGES:
        raise UserError(f"algorithm {algorithm!r} is not known; accepted: {', '.join(EXCHANGES)}")
    if net.ranks == 1 or count == 0:
        return _alone(net, count, itemsize, False)
    check_range(net, count * net.ranks, itemsize, 4 * net.ranks)
    return exchange(net, algorithm, count * itemsize, progress=progress)


def ring_ps(net: Network, count: int, itemsize: int, **options) -> int:
    """When the last rank of a ring all-reduce is finished, ps; options as for ring_finish."""
    return int(ring_finish(net, count, itemsize, **options).max())


def tree_finish(
    net: Network,
    count: int,
    itemsize: int,
    *,
    channels: int = 1,
    slices: int = 1,
    in_place: bool = False,
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """When each rank of a double binary tree all-reduce is finished, int64 [net.ranks] ps; as ring_finish.

    channels: pairs of trees, as collectives/tree.py counts them.
    """
    _check(net, count, itemsize, channels, slices)
    if net.ranks == 1 or count == 0:
        return _alone(net, count, itemsize, in_place)
    # No chain is longer than one rank's work on all its messages and the way up and down.
    check_range(net, count, itemsize, 2 * channels * slices * 6 + 4 * net.ranks.bit_length())
    threads = threads or processors()
    return double_tree(net, count, itemsize, channels, slices, threads=threads, progress=progress)


def tree_ps(net: Network, count: int, itemsize: int, **options) -> int:
    """When the last rank of a double binary tree all-reduce is finished, ps; options as for tree_finish."""
    return int(tree_finish(net, count, itemsize, **options).max())


def ring_segment(net: Network, count: int, itemsize: int, begin: np.ndarray, first: int, stage: int, stages: int):
    """Some ranks of a ring (one channel, one slice), advanced from `stage` by `stages`: for rings spread over processes.

    begin: int64 [stages + n] ps, when ranks first - stages, ... first + n - 1 (mod p) begin their stage-`stage` send: the
    first `stages` of them are the halo. Returns int64 [n], the begins of ranks first, ... first + n - 1 at `stage` + `stages`.
    The stages may not reach over the end of a half: stage p-1 ends the first, 2p-3 the second. Pure: begin is not changed.
    ring_starts gives the begins at stage 0, ring_ends the finish after stage 2p-3.
    """
    ranks = net.ranks
    halves = [
        (reducing, start) for reducing, start, many in phases(ranks) if start <= stage <= stage + stages <= start + many
    ]
    if not halves or stages < 0 or len(begin) < stages:
        raise ValueError(
            f"stages {stage} to {stage + stages} of {len(begin)} begins: not within one half of a ring of {ranks}"
        )
    reducing = halves[-1][0] if stage == ranks - 1 else halves[0][0]
    if stages == 0:
        return begin.copy()
    low = (first - stages) % ranks
    longer, filled = count % ranks, filled_chunks(count, ranks)
    costs = ring_costs(net, count, itemsize, reducing, low, len(begin))
    mine = np.array(begin, np.int64)
    in_lanes = stages // STAGES * STAGES
    room = lanes(len(mine)) if in_lanes else None
    if room is None:
        in_lanes = 0
    walk(net, net.noisy, mine, *costs, low, longer, filled, False, stage, stages - in_lanes)
    if in_lanes:
        stage += stages - in_lanes
        fill(room, low, ranks, longer, stage, *costs)
        take(net, net.noisy, room, mine, longer, filled, stage, in_lanes)
    return mine[stages:]


def ring_starts(net: Network, count: int) -> np.ndarray:
    """int64 [p]: when each rank begins to send in stage 0; far below zero for a rank whose first chunk is empty."""
    return first_begins(net, filled_chunks(count, net.ranks))


def ring_ends(net: Network, count: int, itemsize: int, begin: np.ndarray) -> np.ndarray:
    """finish, int64 [p], from the begins of all ranks at the last send, stage 2p-3."""
    base, longer = divmod(count, net.ranks)
    sizes = ((base + 1) * itemsize, base * itemsize)
    return finish_times(net, net.noisy, begin, *sizes, longer, filled_chunks(count, net.ranks))


def ring_blocks(
    net: Network,
    count: int,
    itemsize: int,
    blocks: int,
    advance: Callable[[list[tuple[np.ndarray, int, int, int]]], Sequence[np.ndarray]],
    *,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """`ring_finish` for one channel and one slice, its ranks cut into `blocks` that `advance` may spread over processes.

    advance: takes ring_segment's last arguments (begin, first, stage, stages) of each block, and returns what ring_segment
    gives for each, in order. It is called once for as many stages as an eighth of a block has ranks, 4096 at most: the halo.
    progress, errors: as for ring_finish.
    """
    _check(net, count, itemsize, 1, 1)
    ranks = net.ranks
    if ranks == 1 or count == 0:
        return _alone(net, count, itemsize, False)
    check_range(net, count, itemsize, 2 * ranks)
    blocks = max(1, min(blocks, ranks))
    halo = min(BLOCK_STAGES, ranks // blocks // 8)
    halo = halo // STAGES * STAGES if halo >= STAGES else max(1, halo)
    cuts = [ranks * k // blocks for k in range(blocks + 1)]
    begin, everything = ring_starts(net, count), 2 * ranks - 3
    for _, start, stages in phases(ranks):
        for stage in range(start, start + stages, halo):
            now = min(halo, start + stages - stage)
            tasks = [(begin[np.arange(low - now, high) % ranks], low, stage, now) for low, high in pairwise(cuts)]
            begin = np.concatenate(advance(tasks))
            if progress is not None:
                progress((stage + now) / everything)
    return ring_ends(net, count, itemsize, begin)


def is_stepped(net: Network, count: int, itemsize: int) -> bool:
    """Whether `ring_finish` steps through every message of one channel and one slice: longest paths would not be faster."""
    return net.noisy or not _few_costs(net, count, itemsize)


def processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check(net, count, itemsize, channels, slices):
    for what, value, least in (
        ("count", count, 0),
        ("itemsize", itemsize, 1),
        ("channels", channels, 1),
        ("slices", slices, 1),
        ("ranks", net.ranks, 1),
    ):
        if value < least:
            raise UserError(f"{what} is {value}; accepted: {least} or more")


def _alone(net, count, itemsize, in_place) -> np.ndarray:
    finish = np.zeros(net.ranks, np.int64)
    if net.ranks == 1 and not in_place:
        finish[0] = work_ps(net.copy_ps[0], count * itemsize)
    return finish


def _few_costs(net, count, itemsize) -> bool:
    """Whether longest paths are the faster way: they take as long a value that `stay` has as some hundred messages a rank."""
    ranks = net.ranks
    costs = [ring_costs(net, count, itemsize, reducing, 0, ranks) for reducing in (True, False)]
    return max(distinct_costs(c.after, c.own) for c in costs) * MESSAGES_A_VALUE < 2 * ranks
