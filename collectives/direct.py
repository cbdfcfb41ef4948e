"""Direct exchange: every rank talks to every other, in one or in two shots.

**one-shot**: everybody sends everything to everybody, and each rank reduces all p inputs itself. One latency, p-1 times the
message in and out of each rank: for the smallest messages. All ranks add in the order of the ranks, so that their results are
equal bit by bit::

    p = 4   rank 0: (0 + 1) + 2 + 3      rank 2: (0 + 1) + 2 + 3      with its own input where its number stands

**two-shot**: a reduce-scatter and an all-gather, each in one exchange. Rank r collects chunk r from everybody, reduces it, and
sends it to everybody::

    p = 4   shot 1   rank r sends chunk q to rank q, for all q     r reduces chunk r
            shot 2   rank r sends chunk r to everybody             r receives the others

Two latencies and a ring's bytes, 2(p-1)/p a rank; but p-1 messages meet at each rank at once. On shared memory
the two exchanges are one pass: a rank reads its chunk of everybody's input and writes the sum to everybody's output. (The
names are those of GPU libraries that do this over NVLink, such as TensorRT-LLM's custom all-reduce; for MPI it is the
reduce-scatter and all-gather of Thakur, Rabenseifner and Gropp 2005 with a pairwise exchange.)
"""

from __future__ import annotations

import numpy as np

from .schedule import INPUT, OUTPUT, SCRATCH, StepList, split
from .single import single_rank


def one_shot(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table. In place the sum is collected in SCRATCH, as the input is being read by the others."""
    if ranks == 1:
        return single_rank(count, in_place)
    table = StepList()
    others = [(rank + d) % ranks for d in range(1, ranks)]
    sent = [table.send(peer, INPUT, 0, count) for peer in others]
    into = SCRATCH if in_place else OUTPUT
    last = ranks - 1
    if rank >= 2:
        table.recv(0, into, 0, count)
        have, first = into, 1
    else:
        table.recv_reduce(1 - rank, (INPUT, 0), (into, 0), count, final=last == 1)
        have, first = into, 2
    for peer in range(first, ranks):
        if peer == rank:
            table.reduce((INPUT, 0), (into, 0), count, final=peer == last)
        else:
            table.recv_reduce(peer, (have, 0), (into, 0), count, final=peer == last)
    if in_place:
        for s in sent[:-1]:
            table.nop(after=s)
        table.copy((SCRATCH, 0), (OUTPUT, 0), count, after=sent[-1])
    return table.table()


def two_shot(rank: int, ranks: int, count: int, *, slices: int = 1, in_place: bool = False) -> np.ndarray:
    """One rank's table; the same table serves in-place and out-of-place.

    With slices, each is reduced and at once sent to everybody, while it is in the cache.
    """
    if ranks == 1:
        return single_rank(count, in_place)
    table = StepList()
    others = [(rank + d) % ranks for d in range(1, ranks)]
    chunks = [split(length, slices, start) for start, length in split(count, ranks)]
    for k in range(slices):
        for peer in others:
            table.send(peer, INPUT, *chunks[peer][k])
    for k in range(slices):
        start, length = chunks[rank][k]
        have = INPUT
        for peer in others:
            table.recv_reduce(peer, (have, start), (OUTPUT, start), length, final=peer == others[-1])
            have = OUTPUT
        for peer in others:
            table.send(peer, OUTPUT, start, length)
    for k in range(slices):
        for peer in others:
            table.recv(peer, OUTPUT, *chunks[peer][k])
    return table.table()
