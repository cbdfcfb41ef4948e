"""Collectives as values: what lies where before and after, and how its bandwidth is counted.

A collective moves *blocks* of ``count`` elements, the count that MPI and NCCL take as their argument. A rank's input is
one block or one for each rank, and so is its output::

                     input     output    after it, block b of rank r's output is
    all_reduce       1         1         the sum of all inputs
    reduce_scatter   p         1         the sum of all ranks' blocks r
    all_gather       1         p         rank b's input
    broadcast        1         1         the root's input
    reduce           1         1         at the root: the sum of all inputs
    alltoall         p         p         rank b's block r
    gather           1         p         at the root: rank b's input
    scatter          p         1         the root's block r
    sendrecv         1         1         the input of rank r-1, around the ring
    pingpong         1         1         in pairs 2i, 2i+1: the input of rank 2i, which has come back

``postcondition`` is that last column as data, and all that the prover, the check of results, and the references know of a
collective. In place, the smaller buffer is block r of the larger one (MPI_IN_PLACE and NCCL's rule); where both are of one
size, they are the same.

Sizes and bandwidths are counted as nccl-tests counts them (doc/PERFORMANCE.md): the size is that of the larger buffer.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

ALL = -1
"""As a contributor: the sum over all ranks."""


class Part(NamedTuple):
    """One block of a rank's output, and what it must hold: block `source` of the contributor's input (ALL: of the sum)."""

    block: int
    source: int
    contributor: int


@dataclass(frozen=True)
class Collective:
    """input_blocks, output_blocks: whether a rank's input and output are one block ("one") or a block a rank ("each");
    postcondition: (rank, ranks, root) -> the blocks of that rank's output, none where it has no output; precondition:
    (rank, ranks, root) -> whether the rank has an input; busbw_factor: busbw / algbw of p ranks; spellings: other names, as
    `find` reduces them."""

    name: str
    title: str
    input_blocks: str
    output_blocks: str
    postcondition: Callable[[int, int, int], list[Part]]
    busbw_factor: Callable[[int], float]
    precondition: Callable[[int, int, int], bool] = lambda rank, ranks, root: True
    reduces: bool = False
    rooted: bool = False
    in_place: bool = True
    spellings: tuple[str, ...] = ()

    def input_count(self, ranks: int, count: int) -> int:
        """Elements of a rank's input."""
        return count * (ranks if self.input_blocks == "each" else 1)

    def output_count(self, ranks: int, count: int) -> int:
        """Elements of a rank's output."""
        return count * (ranks if self.output_blocks == "each" else 1)

    def size_count(self, ranks: int, count: int) -> int:
        """Elements of the larger buffer, whose bytes are the message size."""
        return max(self.input_count(ranks, count), self.output_count(ranks, count))

    def count_of(self, ranks: int, elements: int) -> int:
        """The count of the largest collective whose larger buffer has no more than `elements`."""
        return elements // self.size_count(ranks, 1)

    def offsets(self, rank: int, ranks: int, count: int) -> tuple[int, int]:
        """Where INPUT and OUTPUT begin in the larger buffer, in place."""
        inner = self.input_count(ranks, count) - self.output_count(ranks, count)
        return (rank * count if inner < 0 else 0), (rank * count if inner > 0 else 0)

    def inputs(self, ranks: int, count: int, root: int = 0, in_place: bool = False) -> np.ndarray:
        """int64 [regions, 3]: rank, offset, elements of what each rank gives. Offsets are into INPUT, or into the larger buffer
        in place."""
        n = self.input_count(ranks, count)
        rows = [
            (r, self.offsets(r, ranks, count)[0] * in_place, n)
            for r in range(ranks)
            if n and self.precondition(r, ranks, root)
        ]
        return np.array(rows, np.int64).reshape(-1, 3)

    def outputs(self, ranks: int, count: int, root: int = 0, in_place: bool = False) -> np.ndarray:
        """int64 [regions, 5]: rank, offset, elements, source, contributor: what must lie where in the end.

        Offsets are into OUTPUT, or into the larger buffer in place; the source is an offset into the contributor's input.
        """
        rows = []
        for r in range(ranks if count else 0):
            shift = self.offsets(r, ranks, count)[1] * in_place
            for part in self.postcondition(r, ranks, root):
                rows.append((r, shift + part.block * count, count, part.source * count, part.contributor))
        return np.array(rows, np.int64).reshape(-1, 5)


def _at_root(parts: Callable[[int, int], list[Part]]) -> Callable[[int, int, int], list[Part]]:
    return lambda rank, ranks, root: parts(rank, ranks) if rank == root else []


def _pingpong(rank: int, ranks: int, root: int) -> list[Part]:
    return [Part(0, 0, rank & ~1)] if rank | 1 < ranks else []


def _all_but_own(p: int) -> float:
    return (p - 1) / p


def _one(p: int) -> float:
    return 1.0


# fmt: off
ALL_REDUCE = Collective(
    "all_reduce", "all-reduce", "one", "one", lambda rank, ranks, root: [Part(0, 0, ALL)],
    lambda p: 2 * (p - 1) / p, reduces=True,
)
REDUCE_SCATTER = Collective(
    "reduce_scatter", "reduce-scatter", "each", "one", lambda rank, ranks, root: [Part(0, rank, ALL)],
    _all_but_own, reduces=True, spellings=("reducescatterblock",),
)
ALL_GATHER = Collective(
    "all_gather", "all-gather", "one", "each", lambda rank, ranks, root: [Part(b, 0, b) for b in range(ranks)],
    _all_but_own,
)
BROADCAST = Collective(
    "broadcast", "broadcast", "one", "one", lambda rank, ranks, root: [Part(0, 0, root)],
    _one, lambda rank, ranks, root: rank == root, rooted=True, spellings=("bcast",),
)
REDUCE = Collective(
    "reduce", "reduce", "one", "one", _at_root(lambda rank, ranks: [Part(0, 0, ALL)]),
    _one, reduces=True, rooted=True,
)
ALLTOALL = Collective(
    "alltoall", "all-to-all", "each", "each", lambda rank, ranks, root: [Part(b, rank, b) for b in range(ranks)],
    _all_but_own, in_place=False,
)
GATHER = Collective(
    "gather", "gather", "one", "each", _at_root(lambda rank, ranks: [Part(b, 0, b) for b in range(ranks)]),
    _all_but_own, rooted=True,
)
SCATTER = Collective(
    "scatter", "scatter", "each", "one", lambda rank, ranks, root: [Part(0, rank, root)],
    _all_but_own, lambda rank, ranks, root: rank == root, rooted=True,
)
SENDRECV = Collective(
    "sendrecv", "ring shift", "one", "one", lambda rank, ranks, root: [Part(0, 0, (rank - 1) % ranks)],
    _one, in_place=False,
)
# Both ways one after the other, so that the bus bandwidth is that of one way, as a ping-pong's is given.
PINGPONG = Collective(
    "pingpong", "ping-pong", "one", "one", _pingpong,
    lambda p: 2.0 * (p > 1), lambda rank, ranks, root: rank % 2 == 0 and rank + 1 < ranks, in_place=False,
)
# fmt: on

COLLECTIVES: dict[str, Collective] = {
    c.name: c
    for c in (
        ALL_REDUCE, REDUCE_SCATTER, ALL_GATHER, BROADCAST, REDUCE, ALLTOALL, GATHER, SCATTER, SENDRECV, PINGPONG,
    )
}  # fmt: skip


def find(name: str) -> Collective:
    """The collective of that name in our spelling, nccl-tests' (all_gather_perf) or MPI's (MPI_Allgather).

    Raises ValueError with the nearest name.
    """
    if name in COLLECTIVES:
        return COLLECTIVES[name]
    plain = _plain(name)
    for collective in COLLECTIVES.values():
        if plain in (_plain(collective.name), *collective.spellings):
            return collective
    near = difflib.get_close_matches(name[:60].lower(), COLLECTIVES, 1, 0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"collective {name[:60]!r} is not known; {hint}accepted: {', '.join(COLLECTIVES)}")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", re.sub(r"^(mpi|nccl|osu)[_-]?|_perf$", "", name.strip().lower()))
