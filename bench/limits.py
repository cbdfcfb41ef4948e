"""What this machine's memory allows, measured in the same run as the all-reduce it is compared with.

Every rank that has a core of its own streams through arrays far larger than the last-level cache with the very kernels
that all-reduce uses. Each figure is the bytes read and written a second, over all ranks together (STREAM's way of
counting: what the program asks for, not what a write may cost a cache in addition).
"""

from __future__ import annotations

import numpy as np
from numba import carray, njit

from ..kernels import cpu
from ..transports.compiling import in_turn
from ..transports.machine import address_as_void_pointer, call_kernel, clock_ns
from ..transports.program import COUNT, FN, KIND, LOCAL
from ..transports.session import Session
from ..transports.walker import OK, barrier
from .environment import last_level_cache

ROUNDS, PASSES = 5, 3
# name: (kernel of kernels.cpu.Pointers, arrays touched)
KERNELS = {
    "copy": ("copy", 2),
    "copy_nt": ("copy_nt", 2),
    "add": ("reduce", 3),
    "add_nt": ("reduce_nt", 3),
    "reduce_both": ("reduce_both", 4),
    "reduce_both_nt": ("reduce_both_nt", 4),
    "reduce_both_nt2": ("reduce_both_nt2", 4),
}


@njit(nogil=True, cache=True)
def _stream(fn, dst, dst2, a, b, count, passes, turn, seconds, state, mpi, flag):
    """Time `passes` calls of a kernel (fn 0: of reading `count` words at a) after each of len(seconds) barriers.

    Returns (status, a sum that keeps the reads from being optimised away).
    """
    total = np.uint64(0)
    for i in range(len(seconds)):
        status, start = barrier(turn + i, state, mpi, flag)
        if status != OK:
            return status, total
        start = clock_ns()
        for _ in range(passes):
            if fn != 0:
                call_kernel(fn, dst, dst2, a, b, count, 1)
            else:
                words = carray(address_as_void_pointer(a), count, np.uint64)
                for j in range(count):
                    total += words[j]
        seconds[i] = (clock_ns() - start) * 1e-9
    return OK, total


def array_bytes(active: int) -> int:
    """Bytes of one of four arrays of each of `active` ranks: together well beyond the last-level cache."""
    return max(4 << 20, min(64 << 20, 4 * last_level_cache() // active)) // 4096 * 4096


def measure_limits(session: Session) -> dict[str, float]:
    """Bytes a second over all ranks, by kernel: "read" and the KERNELS; the median of ROUNDS.

    In a round all ranks start together and the slowest one's time counts. Ranks without a core of their own only wait.
    Called by all processes of the session; the same answer in each.
    """
    kernels = cpu.pointers("sum", "float32")
    crew = session.crew
    active = min(crew.ranks_here, len(set().union(*crew.masks)))
    size = array_bytes(active)
    blocks: dict[int, np.ndarray] = {}

    def allocate(post):
        if post.index < active:
            blocks[post.index] = np.full(4 * size + 4096, 1, np.uint8)

    def run(name):
        turn = session.turn
        session.turn += ROUNDS
        kernel, touched = KERNELS.get(name, ("", 1))
        fn = getattr(kernels, kernel) if kernel else 0
        count = size // 8 if not kernel else size if kernel.startswith("copy") else size // 4

        def work(post):
            seconds = np.zeros(ROUNDS)
            here = post.index in blocks
            base = (blocks[post.index].ctypes.data + 63) // 64 * 64 if here else 0
            where = [base + i * size for i in range(4)]  # a, b, dst, dst2
            status, _ = _stream(
                fn, where[2], where[3], where[0], where[1], count, PASSES if here else 0, turn, seconds,
                post.state, post.mpi, post.flag,
            )  # fmt: skip
            return status, seconds

        statuses, seconds = zip(*crew.each(work))
        session.all_ok(statuses)
        slowest = crew.combine(np.max(seconds, axis=0), "max")
        return active * PASSES * touched * size / float(np.median(slowest))

    post = crew.posts[0]
    with in_turn("limits"):
        for kernel, _ in KERNELS.values():
            getattr(kernels, kernel)
        _stream(0, 0, 0, 0, 0, 0, 0, 0, np.zeros(0), post.state, post.mpi, post.flag)
    try:
        crew.each(allocate)
        run("read")  # the first round pays for page tables and compiling
        return {name: run(name) for name in ("read", *KERNELS)}
    finally:
        blocks.clear()


def least_seconds(session: Session, limits: dict[str, float]) -> float | None:
    """The least time the prepared job's own memory traffic takes at these limits; None if it is not all local copies.

    Every instruction of every rank's program is charged its bytes at the measured rate of its kernel, and the ranks'
    sum is what the memory has to carry.
    """
    kernels = cpu.pointers(session.job.op, session.job.dtype)
    like = {kernel: (name, touched) for name, (kernel, touched) in KERNELS.items()}
    kind_of = {address: like[kernel.replace("_final", "")] for kernel, address in kernels.compiled.items()}
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
