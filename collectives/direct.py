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

The other collectives in one exchange: every block goes from who has it to who wants it, in one message. An all-to-all issues
all its sends at once (**direct**), or one after each receive, so that no rank has more than one message under way (**pairwise**).
"""

from __future__ import annotations

import numpy as np

from .schedule import COPY, INPUT, OUTPUT, RECV, SCRATCH, SEND, STEP, StepList, split


def one_shot(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table. In place the sum is collected in SCRATCH, as the input is being read by the others."""
    table = StepList()
    others = _others(rank, ranks)
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
    table = StepList()
    others = _others(rank, ranks)
    chunks = [split(length, slices, start) for start, length in split(count, ranks)]
    for k in range(slices):
        for peer in others:
            table.send(peer, INPUT, *chunks[peer][k])
    for k in range(slices):
        start, length = chunks[rank][k]
        _collect(table, others, (INPUT, start), (OUTPUT, start), length)
        for peer in others:
            table.send(peer, OUTPUT, start, length)
    for k in range(slices):
        for peer in others:
            table.recv(peer, OUTPUT, *chunks[peer][k])
    return table.table()


def _others(rank: int, ranks: int) -> list[int]:
    return [(rank + d) % ranks for d in range(1, ranks)]


def _collect(table: StepList, others: list[int], own: tuple[int, int], into: tuple[int, int], count: int) -> None:
    """The sum of what everybody sent, and of `own`, both (buffer, offset)."""
    have = own
    for peer in others:
        table.recv_reduce(peer, have, into, count, final=peer == others[-1])
        have = into


def reduce_scatter(rank: int, ranks: int, count: int, *, slices: int = 1, in_place: bool = False) -> np.ndarray:
    """One rank's table. In place the first partial sum overwrites the rank's own block, which nobody else reads."""
    table = StepList()
    others = _others(rank, ranks)
    pieces = split(count, slices)
    for start, length in pieces:
        for peer in others:
            table.send(peer, INPUT, peer * count + start, length)
    for start, length in pieces:
        into = (OUTPUT, rank * count * in_place + start)
        _collect(table, others, (INPUT, rank * count + start), into, length)
    return table.table()


def all_gather(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table."""
    table = StepList()
    own = (OUTPUT, rank * count) if in_place else (INPUT, 0)
    for peer in _others(rank, ranks):
        table.send(peer, *own, count)
    if not in_place:
        table.copy(own, (OUTPUT, rank * count), count)
    for peer in _others(rank, ranks)[::-1]:  # who sends to us first is the one before us
        table.recv(peer, OUTPUT, peer * count, count)
    return table.table()


def alltoall(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table, made as a whole: it has two rows a rank."""
    if count == 0:
        return StepList().table()
    n = ranks - 1
    table = np.zeros(2 * n + 1, STEP)
    table["count"], table["after"] = count, -1
    send, own, receive = table[:n], table[n : n + 1], table[n + 1 :]
    send["op"], send["src_buffer"], send["peer"] = SEND, INPUT, (rank + 1 + np.arange(n)) % ranks
    send["src_offset"] = send["peer"] * np.int64(count)
    own["op"], own["src_buffer"], own["dst_buffer"], own["peer"] = COPY, INPUT, OUTPUT, -1
    own["src_offset"] = own["dst_offset"] = rank * count
    receive["op"], receive["dst_buffer"], receive["peer"] = RECV, OUTPUT, (rank - 1 - np.arange(n)) % ranks
    receive["dst_offset"] = receive["peer"] * np.int64(count)
    return table


def pairwise(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table of an all-to-all: in step d everybody sends d ranks on, and waits for what comes from d ranks before."""
    table = StepList()
    table.copy((INPUT, rank * count), (OUTPUT, rank * count), count)
    for d in range(1, ranks):
        to, of = (rank + d) % ranks, (rank - d) % ranks
        table.send(to, INPUT, to * count, count)
        table.recv(of, OUTPUT, of * count, count)
    return table.table()


def gather(rank: int, ranks: int, count: int, *, root: int = 0, in_place: bool = False) -> np.ndarray:
    """One rank's table."""
    table = StepList()
    own = (OUTPUT, rank * count) if in_place else (INPUT, 0)
    if rank != root:
        table.send(root, *own, count)
        return table.table()
    if not in_place:
        table.copy(own, (OUTPUT, rank * count), count)
    for peer in _others(rank, ranks):
        table.recv(peer, OUTPUT, peer * count, count)
    return table.table()


def scatter(rank: int, ranks: int, count: int, *, root: int = 0, in_place: bool = False) -> np.ndarray:
    """One rank's table."""
    table = StepList()
    own = (OUTPUT, rank * count * in_place)
    if rank != root:
        table.recv(root, *own, count)
        return table.table()
    for peer in _others(rank, ranks):
        table.send(peer, INPUT, peer * count, count)
    if not in_place:
        table.copy((INPUT, rank * count), own, count)
    return table.table()
