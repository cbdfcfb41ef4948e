"""Programs for GPUs: the same lowering as for threads, with small codes where a CPU program has kernel addresses.

``walk.cu`` interprets the rows. ``steps_of`` sorts them into steps instead: rows of all ranks whose waits are over by the
end of the step before, so that one launch a step needs no flags at all.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from .program import COUNT, FN, KIND, LOCAL, POST, POST2, POST2_K, POST_K, WAIT, WAIT_K, Program

REDUCE, REDUCE_FINAL, COPY = 1, 2, 3  # FN of a row; walk.cu's
OPS = {
    "sum": ("Sum", "Sum"), "prod": ("Prod", "Prod"), "min": ("Min", "Min"), "max": ("Max", "Max"),
    "avg": ("Sum", "AvgFinal"),
}  # fmt: skip


@dataclass(frozen=True)
class Codes:
    """Stands where `lower` wants kernels.cpu.Pointers. GPUs have no use for non-temporal variants here."""

    reduce: int = REDUCE
    reduce_nt: int = REDUCE
    reduce_both: int = REDUCE
    reduce_both_nt: int = REDUCE
    reduce_both_nt2: int = REDUCE
    reduce_final: int = REDUCE_FINAL
    reduce_final_nt: int = REDUCE_FINAL
    reduce_final_both: int = REDUCE_FINAL
    reduce_final_both_nt: int = REDUCE_FINAL
    reduce_final_both_nt2: int = REDUCE_FINAL
    copy: int = COPY
    copy_nt: int = COPY


def calls(program: Program) -> int:
    """How many rows of one all-reduce call something; the same for even and odd epochs."""
    return int(np.count_nonzero(program.code[0][:, FN]))


def steps_of(codes: list[np.ndarray]) -> list[np.ndarray]:
    """The calling rows of all ranks, step by step: int64 [rows, COLUMNS] each. codes: one epoch's rows of each rank.

    A row is in the first step that begins after all it waits for, and after its rank's row before, has ended. Raises
    ValueError for rows that talk to other hosts, and where ranks wait for one another for ever.
    """
    posted: dict[int, list[tuple[int, int]]] = defaultdict(list)  # word -> (value, first step that sees it), ascending
    position = [0] * len(codes)
    ready = [0] * len(codes)
    steps: dict[int, list[np.ndarray]] = defaultdict(list)
    moved = True
    while moved:
        moved = False
        for rank, code in enumerate(codes):
            while position[rank] < len(code):
                row = code[position[rank]]
                if row[KIND] != LOCAL:
                    raise ValueError("a program with messages between hosts has no steps on one device")
                if row[WAIT] and row[WAIT_K] > 0:  # else for an earlier epoch's: launches are in order
                    seen = [step for value, step in posted[int(row[WAIT])] if value >= row[WAIT_K]]
                    if not seen:
                        break
                    ready[rank] = max(ready[rank], seen[0])
                if row[FN]:
                    steps[ready[rank]].append(row)
                    ready[rank] += 1
                for word, value in ((POST, POST_K), (POST2, POST2_K)):
                    if row[word]:
                        posted[int(row[word])].append((int(row[value]), ready[rank]))
                position[rank] += 1
                moved = True
    if any(at < len(code) for at, code in zip(position, codes)):
        raise ValueError("the programs wait for one another for ever")
    return [np.stack(steps[s]) for s in sorted(steps)]


def largest_call(rows: np.ndarray, itemsize: int) -> int:
    """Bytes of the largest result among rows, to choose how many blocks run them."""
    if not len(rows):
        return 0
    sizes = np.where(rows[:, FN] == COPY, rows[:, COUNT], rows[:, COUNT] * itemsize)
    return int(sizes.max())
