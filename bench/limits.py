"""What this machine's memory allows, measured in the same run as the all-reduce it is compared with.

Every rank that has a core of its own streams through arrays far larger than the last-level cache with the very kernels
that all-reduce uses. Each figure is the bytes read and written a second, over all ranks together (STREAM's way of
counting: what the program asks for, not what a write may cost a cache in addition).
"""

from __future__ import annotations

import time

import numpy as np
from numba import njit

from ..kernels import cpu
from ..transports.machine import call_kernel
from ..transports.program import COUNT, FN, KIND, LOCAL
from ..transports.session import Session
from ..transports.shared import cores
from .environment import last_level_cache

SECONDS = 0.06  # for each kernel
# name: (kernel of kernels.cpu.Pointers, arrays touched)
KERNELS = {
    "copy": ("copy", 2),
    "copy_nt": ("copy_nt", 2),
    "add": ("reduce", 3),
    "add_nt": ("reduce_nt", 3),
    "reduce_both": ("reduce_both", 4),
    "reduce_both_nt": ("reduce_both_nt", 4),
}


@njit(nogil=True, cache=True)
def _pass(fn, dst, dst2, a, b, count):
    call_kernel(fn, dst, dst2, a, b, count, 1)


@njit(nogil=True, cache=True)
def _read(words):
    total = np.uint64(0)
    for i in range(len(words)):
        total += words[i]
    return total


def array_bytes(active: int) -> int:
    """Bytes of one of four arrays of each of `active` ranks: together well beyond the last-level cache."""
    return max(4 << 20, min(64 << 20, 4 * last_level_cache() // active)) // 4096 * 4096


def measure_limits(session: Session) -> dict[str, float]:
    """Bytes a second over all ranks, by kernel: read, copy, copy_nt, add, add_nt, reduce_both, reduce_both_nt.

    Called by all processes of the session; the same answer in each.
    """
    kernels = cpu.pointers("sum", "float32")
    arrays: dict[int, np.ndarray] = {}
    active = min(session.crew.ranks_here, len(cores()))  # ranks without a core of their own add nothing
    size = array_bytes(active)

    def allocate(post):
        if post.index >= active:
            return
        block = np.empty(4 * size + 4096, np.uint8)
        block.fill(1)
        arrays[post.rank] = block

    def rate(work_once, bytes_once):
        start = time.perf_counter()
        passes = []
        while time.perf_counter() - start < SECONDS or len(passes) < 3:
            before = time.perf_counter()
            work_once()
            passes.append(time.perf_counter() - before)
        return bytes_once / float(np.median(passes))

    def run(name):
        kernel, touched = KERNELS[name]

        def work(post):
            if post.rank not in arrays:
                return 0.0
            base = (arrays[post.rank].ctypes.data + 63) // 64 * 64
            a, b, dst, dst2 = (base + i * size for i in range(4))
            count = size if kernel.startswith("copy") else size // 4
            fn = getattr(kernels, kernel)
            return rate(lambda: _pass(fn, dst, dst2, a, b, count), touched * size)

        return work

    def read(post):
        if post.rank not in arrays:
            return 0.0
        words = arrays[post.rank][:size].view(np.uint64)
        return rate(lambda: _read(words), words.nbytes)

    try:
        session.crew.each(allocate)
        limits = {}
        for name, work in [("read", read), *((name, run(name)) for name in KERNELS)]:
            here = sum(session.crew.each(work))
            limits[name] = float(session.crew.combine(np.array([here]), "sum")[0])
    finally:
        arrays.clear()
    return limits


def least_seconds(session: Session, limits: dict[str, float]) -> float | None:
    """The least time the prepared job's own memory traffic takes at these limits; None if it is not all local copies.

    Every instruction of every rank's program is charged its bytes at the measured rate of its kernel, and the ranks'
    sum is what the memory has to carry.
    """
    kernels = cpu.pointers(session.job.op, session.job.dtype)
    kind_of = {}
    for name, (kernel, touched) in KERNELS.items():
        kind_of[getattr(kernels, kernel)] = (name, touched)
        if kernel.startswith("reduce"):
            kind_of[getattr(kernels, kernel.replace("reduce", "reduce_final"))] = (name, touched)
    itemsize = session.itemsize
    total = 0.0
    for program in session.programs:
        for row in program.code[0]:
            if row[KIND] != LOCAL:
                return None
            if row[FN] == 0:
                continue
            name, touched = kind_of[int(row[FN])]
            size = int(row[COUNT]) * (1 if name.startswith("copy") else itemsize)
            total += size * touched / limits[name]
    return float(session.crew.combine(np.array([total]), "sum")[0])
