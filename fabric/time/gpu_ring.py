r"""The ring recurrence of ring_recurrence.py on a GPU: every message of a ring of one channel and one slice, noise and all.

A block of threads takes a tile of the ring through `halo` stages by itself, one rank a thread, and passes begins on by shared
memory; the tile's first `halo` ranks come out too early, as nothing came from their left, and are thrown away::

    block b        |<- halo ->|<------- core ------->|
    block b + 1                          |<- halo ->|<------- core ------->|
    stage + 1      x..........|......................|         x: wrong, wider by one rank a stage
    stage + 3      xxx........|......................|

Between two launches, of `halo` stages each, the begins lie in the GPU's memory. Times are int64 picoseconds, and the maximum and
the sum of them are exact: the results are those of the CPU to the last bit.

A tile's threads hold their rank's six costs (of a long and of a short chunk) in registers; a stage is two accesses to shared
memory, a barrier and, where there is noise, one hash and one look-up. Numba's CUDA packages are needed
(``kernels.numba_cuda``), or NUMBA_ENABLE_CUDASIM=1, which runs the same kernel on the CPU for tests.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import cuda, int64

from ...errors import UserError
from ...kernels import numba_cuda
from ..physics.network import Network, delay_slot
from .ring_lanes import EMPTY, receive_index
from .ring_recurrence import filled_chunks, finish_times, first_begins, phases, ring_costs

THREADS = 1024  # of a block: the widest tile, as a quarter of it is halo
HALO = 256  # stages a launch
SIMULATED_THREADS, SIMULATED_HALO = 6, 2
LAUNCHES_A_REPORT = 64  # between two calls of `progress`, each of which waits for the GPU


def available() -> str | None:
    """None if a GPU can take the recurrence here, else why not, in one line."""
    return numba_cuda.available()


def kernel(threads: int) -> Callable:
    """The Python function for `cuda.jit`; a block has `threads` threads. Its arguments:

    begin, after: int64 [p] ps: begins at `stage`, and at `stage` + `stages` (written)
    costs: int64 [2, 3, p] ps: of a long and a short chunk, `after`, `own` and `pass_` of ring_recurrence.Costs
    noise: int64 [NOISE_ENTRIES] ps; noisy: whether it is to be read; seed: its seed
    longer, filled: chunks 0 ... longer-1 are long, 0 ... filled-1 not empty
    halo: ranks of a tile that are thrown away, at least `stages`, or 0: the one block holds the whole ring
    """
    if numba_cuda.simulated():
        slot_of, received = delay_slot.py_func, receive_index.py_func
    else:
        slot_of, received = (cuda.jit(device=True)(f.py_func) for f in (delay_slot, receive_index))

    def advance(begin, after, costs, noise, noisy, seed, longer, filled, stage, stages, halo):
        passed = cuda.shared.array((2, threads), int64)  # what each thread's rank began with, stage by stage in turn
        ranks = begin.shape[0]
        width = cuda.blockDim.x
        me = cuda.threadIdx.x
        place = cuda.blockIdx.x * (width - halo) - halo + me  # along the ring, from rank 0; tiles may go round it
        rank = (place + ranks * (halo // ranks + 1)) % ranks
        left = me - 1 if me > 0 else width - 1
        long_after, long_own, long_pass = costs[0, 0, rank], costs[0, 1, rank], costs[0, 2, rank]
        short_after, short_own, short_pass = costs[1, 0, rank], costs[1, 1, rank], costs[1, 2, rank]
        mine = begin[rank]
        chunk = (rank - stage - 1) % ranks  # that this rank sent in `stage`
        was_long = chunk < longer
        index = received(rank, stage + 1, ranks, filled)
        cut_off = me == 0 and halo > 0
        for s in range(stages):
            passed[s & 1, me] = mine
            cuda.syncthreads()
            before = EMPTY if cut_off else passed[s & 1, left]
            chunk = chunk - 1 if chunk > 0 else ranks - 1
            is_long = chunk < longer
            stay = max(long_after if is_long else short_after, long_own if was_long else short_own)
            arrives = before + (long_pass if is_long else short_pass)
            if noisy:
                arrives += noise[slot_of(seed, rank, index)]
                if chunk < filled:
                    index += 1
            was_long = is_long
            mine = max(mine + stay, arrives)
        if me >= halo and place < ranks:
            after[rank] = mine

    return advance


def signature():
    """Numba's signature of the kernel, for compiling it without a GPU."""
    from numba import types

    return types.void(
        types.int64[::1],
        types.int64[::1],
        types.int64[:, :, ::1],
        types.int64[::1],
        types.boolean,
        *[types.int64] * 6,
    )


@cache
def _compiled(threads: int, device_id: int):
    if numba_cuda.simulated():
        return cuda.jit(kernel(threads))
    return cuda.jit([signature()], launch_bounds=threads)(kernel(threads))


def one_ring_steps(
    net: Network,
    count: int,
    itemsize: int,
    *,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """finish of each rank, int64 [p] ps, exactly as `ring_recurrence.one_ring_steps`; p >= 2.

    Raises UserError where there is no GPU to take it.
    """
    reason = available()
    if reason:
        raise UserError(f"the ring cannot be evaluated on a GPU: {reason}")
    ranks = net.ranks
    filled, (base, longer) = filled_chunks(count, ranks), divmod(count, ranks)
    threads = SIMULATED_THREADS if numba_cuda.simulated() else THREADS
    advance = _compiled(threads, 0 if numba_cuda.simulated() else cuda.get_current_device().id)
    halo = 0 if ranks <= threads else SIMULATED_HALO if numba_cuda.simulated() else HALO
    width = ranks if halo == 0 else threads
    blocks = 1 if halo == 0 else -(-ranks // (threads - halo))
    noise = cuda.to_device(np.ascontiguousarray(net.noise))
    begin, spare = cuda.to_device(first_begins(net, filled)), cuda.to_device(np.empty(ranks, np.int64))
    launches, everything = 0, 2 * ranks - 3
    for reducing, stage, stages in phases(ranks):
        costs = np.stack(ring_costs(net, count, itemsize, reducing, 0, ranks), axis=1)
        costs = cuda.to_device(np.ascontiguousarray(costs))
        end = stage + stages
        while stage < end:
            now = min(halo or HALO, end - stage)
            arguments = (noise, net.noisy, net.seed, longer, filled, stage, now, halo)
            advance[blocks, width](begin, spare, costs, *arguments)
            begin, spare = spare, begin
            stage += now
            launches += 1
            if progress is not None and (launches % LAUNCHES_A_REPORT == 0 or stage == end):
                cuda.synchronize()
                progress(stage / everything)
    begin = begin.copy_to_host()
    return finish_times(net, net.noisy, begin, (base + 1) * itemsize, base * itemsize, longer, filled)
