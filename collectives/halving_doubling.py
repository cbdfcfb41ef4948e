"""Recursive halving and doubling: a reduce-scatter by halves, an all-gather by doubling; together Rabenseifner's all-reduce.

In round j of the all-reduce's reduce-scatter a rank and the one that differs in bit j split the range they share: each sends
the half it gives up and reduces the half it keeps. After log2 p rounds every rank holds one chunk complete; the all-gather runs
the rounds backwards. For p = 4, the chunks a rank keeps after each round::

                       rank 0    rank 1    rank 2    rank 3
    round 0 (0-1,2-3)   0 1       2 3       0 1       2 3
    round 1 (0-2,1-3)   0         2         1         3        complete
    round 1             0 1       2 3       0 1       2 3
    round 0             0 1 2 3   0 1 2 3   0 1 2 3   0 1 2 3

The halves are largest between neighbours, so ranks numbered host by host exchange the most inside a host. A reduce-scatter or
all-gather of its own must end or begin with chunk r at rank r, so it takes the bits in the other order: the halves are largest
between the ranks that are farthest apart.

As few bytes as a ring, (p-1)/p of the message a rank and phase, in log2 p steps; but partners are far apart and share a network's
links (Thakur, Rabenseifner and Gropp 2005). Where p is no power of two, fold.py adds a round before and one after.

A half that a rank gave up comes back from the very partner that read it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .fold import Fold, fold
from .schedule import INPUT, OUTPUT, SCRATCH, StepList, split

Spans = list[tuple[int, int]]
"""Pieces of a message, (offset, elements) each."""


def rounds(f: Fold, bits: Sequence[int]) -> list[tuple[int, tuple[int, int], tuple[int, int]]]:
    """(partner, the chunks kept, those given up) of each round; chunks as (first, last + 1)."""
    low, high = 0, f.size
    out = []
    for bit in bits:
        middle = (low + high) // 2
        keep, give = ((middle, high), (low, middle)) if f.place & bit else ((low, middle), (middle, high))
        out.append((f.rank_at(f.place ^ bit), keep, give))
        low, high = keep
    return out


def halving(
    table: StepList, rounds, spans: Callable[[tuple[int, int]], Spans], have: int, sums: int, result=None
) -> None:
    """Reduce-scatter: partial sums, of the buffer `have` at first, collect in the buffer `sums`. spans: chunks -> where they lie;
    result: offset -> (buffer, offset) of the last round's sums, where these go elsewhere."""
    for j, (peer, keep, give) in enumerate(rounds):
        last = j == len(rounds) - 1
        for span in spans(give):
            table.send(peer, have, *span)
        for start, length in spans(keep):
            to = result(start) if last and result else (sums, start)
            table.recv_reduce(peer, (have, start), to, length, final=last)
        have = sums


def doubling(table: StepList, rounds, spans: Callable[[tuple[int, int]], Spans]) -> None:
    """All-gather in OUTPUT, the rounds of `halving` backwards."""
    for peer, keep, give in reversed(rounds):
        for span in spans(keep):
            table.send(peer, OUTPUT, *span)
        for span in spans(give):
            table.recv(peer, OUTPUT, *span)


def all_reduce(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table; the same table serves in-place and out-of-place."""
    f = fold(rank, ranks)
    table = StepList()
    if f.place is None:
        table.send(f.partner, INPUT, 0, count)
        table.recv(f.partner, OUTPUT, 0, count)
        return table.table()
    have = INPUT
    if f.partner is not None:
        table.recv_reduce(f.partner, (INPUT, 0), (OUTPUT, 0), count)
        have = OUTPUT
    starts = [start for start, _ in split(count, f.size)] + [count]

    def spans(chunks):
        return [(starts[chunks[0]], starts[chunks[1]] - starts[chunks[0]])]

    plan = rounds(f, [1 << j for j in range(f.rounds)])
    halving(table, plan, spans, have, OUTPUT)
    doubling(table, plan, spans)
    if f.partner is not None:
        table.send(f.partner, OUTPUT, 0, count)
    return table.table()


def _edges(f: Fold, count: int) -> list[int]:
    """Where the chunk of each place begins: a block, or two where the place stands for a pair of ranks."""
    return [(2 * place if place < f.extra else place + f.extra) * count for place in range(f.size + 1)]


def reduce_scatter(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table; partial sums lie in SCRATCH, at their offset in the message."""
    f = fold(rank, ranks)
    table = StepList()
    own = (OUTPUT, rank * count if in_place else 0)
    if f.place is None:
        table.send(f.partner, INPUT, 0, ranks * count)
        table.recv(f.partner, *own, count)
        return table.table()
    have, edges = INPUT, _edges(f, count)
    if f.partner is not None:
        last = f.rounds == 0
        for start, length in split(ranks * count, 2 if last else 1):
            to = own if last and start == rank * count else (SCRATCH, start)
            table.recv_reduce(f.partner, (INPUT, start), to, length, final=last)
        have = SCRATCH

    def spans(chunks):
        start, end = edges[chunks[0]], edges[chunks[1]]
        # The last round's chunk is cut where it belongs to two ranks.
        return split(end - start, (end - start) // count if chunks[1] - chunks[0] == 1 else 1, start) if count else []

    plan = rounds(f, [1 << j for j in reversed(range(f.rounds))])
    halving(table, plan, spans, have, SCRATCH, lambda start: own if start == rank * count else (SCRATCH, start))
    if f.partner is not None:
        table.send(f.partner, SCRATCH, f.partner * count, count)
    return table.table()


def all_gather(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table."""
    f = fold(rank, ranks)
    table = StepList()
    own = (OUTPUT, rank * count) if in_place else (INPUT, 0)
    if f.place is None:
        table.send(f.partner, *own, count)
        table.recv(f.partner, OUTPUT, 0, ranks * count)
        return table.table()
    edges = _edges(f, count)
    if not in_place:
        table.copy(own, (OUTPUT, rank * count), count)
    if f.partner is not None:
        table.recv(f.partner, OUTPUT, f.partner * count, count)

    def spans(chunks):
        return [(edges[chunks[0]], edges[chunks[1]] - edges[chunks[0]])]

    doubling(table, rounds(f, [1 << j for j in reversed(range(f.rounds))]), spans)
    if f.partner is not None:
        table.send(f.partner, OUTPUT, 0, ranks * count)
    return table.table()
