"""The ring's recurrence in vector registers: many ranks, many stages, no memory traffic to speak of.

The recurrence (ring_recurrence.py) is begin[r] <- max(begin[r] + stay[r], begin[r-1] + pass[r]), once a stage. A segment of
the ring is cut into lanes of `core` ranks each, and a vector holds the same row of LANES lanes, so a rank's left neighbour is
the vector of the row above and no lane ever shifts::

                lane 0   lane 1   lane 2  ...        H rows of halo: the last ranks of the lane to the left, once more.
    row 0       . . . . . . . . . . . . .            Each stage spoils one of them (its left neighbour is not there),
    ...         halo     halo     halo               so after H stages they are copied anew.
    row H       0        core     2 core
    row H+1     1        core+1   2 core+1
    ...

Down the rows, STAGES stages are taken at once in registers (x is the row being worked on, l[s] the row above after s stages)::

    x = begin[row];   for s in 0 ... STAGES-1:   x, l[s] = max(x + stay[row], l[s] + pass[row]), x;   begin[row] = x

which is two additions and a maximum a message. A row costs the same at all stages as long as its chunks are of one
length; where a chunk of the other length passes (two places of the ring, moving one rank a stage), the `mixed` variant
chooses costs by the chunk's number. Ranks whose left neighbours are not in the segment at all hold EMPTY.

The vectors are LLVM IR, since no loop in Numba keeps l[s] in registers. LLVM splits them where the machine's are narrower.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit
from numba.core import cgutils
from numba.extending import intrinsic

from ..physics.network import delay_slot

LANES = 8  # int64 in a vector of 64 bytes
STAGES = 8  # taken at once in registers; 8 left neighbours, a row and its costs fit AVX-512's 32 registers
HALO = 64  # rows; stages between two refreshes of the halo
CORE = 2048  # ranks a lane, about: begin, stay and pass of a group of LANES lanes are 0.4 MiB, for a core's own cache
BLOCK = 64  # rows that are judged together, whether one length of chunk is all they meet
NOISY_ROWS = 16  # rows whose delays are drawn together: with the quantiles they stay in the first cache
EMPTY = -(1 << 60)  # begins of ranks that have not begun; far below any time, far above the overflow

_I64 = ir.IntType(64)
_VECTOR = ir.VectorType(_I64, LANES)


def _splat(builder, value):
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)


def _maximum(builder, a, b):
    return builder.select(builder.icmp_signed(">", a, b), a, b)


def _kernel(mixed: bool, noisy: bool):
    """The intrinsic that takes STAGES stages over rows row0 ... row1-1 of one group.

    begin, stay, pass_: int64 [rows, LANES]; left: int64 [STAGES, LANES], the row above row0 after each stage, and on return
    row1-1; lengths: int64 [6, rows, LANES] (after, own and pass for a long, then a short chunk; read if mixed); rank: int64
    [rows, LANES] (if mixed); delays: int64 [STAGES, NOISY_ROWS, LANES] (if noisy), for rows row0, row0+1, ...; stage: of the first.
    """

    @intrinsic
    def take_stages(typing, begin, stay, pass_, left, lengths, rank, delays, row0, row1, stage, ranks, longer):
        signature = row0(begin, stay, pass_, left, lengths, rank, delays, row0, row1, stage, ranks, longer)

        def generate(context, builder, signature, arguments):
            def vectors(k):
                array = context.make_array(signature.args[k])(context, builder, arguments[k])
                return builder.bitcast(array.data, _VECTOR.as_pointer())

            def load(base, index):
                return builder.load(builder.gep(base, [index]), align=8)

            def store(value, base, index):
                builder.store(value, builder.gep(base, [index]), align=8)

            at_begin, at_stay, at_pass, at_left, at_lengths, at_rank, at_delays = (vectors(k) for k in range(7))
            row0, row1, stage, ranks, longer = arguments[7:]
            rows = builder.extract_value(context.make_array(signature.args[0])(context, builder, arguments[0]).shape, 0)
            if mixed:
                ranks_v, longer_v = _splat(builder, ranks), _splat(builder, longer)
                shift = _splat(builder, builder.srem(builder.add(stage, _I64(1)), ranks))
                zero, one = ir.Constant(_VECTOR, [0] * LANES), ir.Constant(_VECTOR, [1] * LANES)
            above = [cgutils.alloca_once(builder, _VECTOR) for _ in range(STAGES)]
            for s in range(STAGES):
                builder.store(load(at_left, _I64(s)), above[s])
            with cgutils.for_range_slice(builder, row0, row1, _I64(1), inc=True) as (row, _):
                x = load(at_begin, row)
                if mixed:
                    costs = [load(at_lengths, builder.add(builder.mul(rows, _I64(k)), row)) for k in range(6)]
                    chunk = builder.sub(load(at_rank, row), shift)
                    chunk = builder.select(builder.icmp_signed("<", chunk, zero), builder.add(chunk, ranks_v), chunk)
                    before = builder.add(chunk, one)
                    before = builder.select(builder.icmp_signed("==", before, ranks_v), zero, before)
                    long_before = builder.icmp_signed("<", before, longer_v)
                else:
                    stay_v, pass_v = load(at_stay, row), load(at_pass, row)
                for s in range(STAGES):
                    if mixed:
                        long = builder.icmp_signed("<", chunk, longer_v)
                        after, own, pass_v = (
                            builder.select(which, costs[k], costs[k + 3])
                            for k, which in ((0, long), (1, long_before), (2, long))
                        )
                        stay_v = _maximum(builder, after, own)
                        long_before = long
                        chunk = builder.sub(chunk, one)
                        chunk = builder.select(
                            builder.icmp_signed("<", chunk, zero), builder.add(chunk, ranks_v), chunk
                        )
                    arrives = builder.add(builder.load(above[s]), pass_v)
                    if noisy:
                        place = builder.add(builder.sub(row, row0), _I64(s * NOISY_ROWS))
                        arrives = builder.add(arrives, load(at_delays, place))
                    builder.store(x, above[s])
                    x = _maximum(builder, builder.add(x, stay_v), arrives)
                store(x, at_begin, row)
            for s in range(STAGES):
                store(builder.load(above[s]), at_left, _I64(s))
            return row1

        return signature, generate

    return take_stages


_plain = _kernel(mixed=False, noisy=False)
_mixed = _kernel(mixed=True, noisy=False)
_plain_noisy = _kernel(mixed=False, noisy=True)
_mixed_noisy = _kernel(mixed=True, noisy=True)


class Lanes(NamedTuple):
    """A segment of the ring in lanes: int64 arrays [groups, rows, LANES], lengths [groups, 6, rows, LANES]."""

    begin: np.ndarray
    stay: np.ndarray
    pass_: np.ndarray
    lengths: np.ndarray
    rank: np.ndarray
    ends: np.ndarray  # int64 [groups * LANES]: where each lane ends in the segment; its last row is the place before


def lanes(size: int) -> Lanes | None:
    """Room for a segment of `size` ranks; None if it is too short to be cut into lanes."""
    groups = max(1, round(size / (LANES * CORE)))
    cuts = np.arange(1, groups * LANES + 1, dtype=np.int64) * size // (groups * LANES)
    core = -(-size // (groups * LANES))
    if core < HALO + 3:
        return None
    rows = HALO + core

    def room(*shape):
        # On cache lines: a vector that straddles two of them is loaded twice.
        flat = np.empty(int(np.prod(shape)) + LANES, np.int64)
        start = -(flat.ctypes.data // 8) % LANES
        return flat[start : start + int(np.prod(shape))].reshape(shape)

    shape = (groups, rows, LANES)
    return Lanes(room(*shape), room(*shape), room(*shape), room(groups, 6, rows, LANES), room(*shape), cuts)


@njit(cache=True, nogil=True)
def is_long(rank, stage, ranks, longer):
    """Whether the chunk that `rank` sends in `stage` is one of the `longer` first."""
    return (rank - stage - 1) % ranks < longer


@njit(cache=True, nogil=True)
def receive_index(rank, stage, ranks, filled):
    """How many receives precede the one of `stage` in the rank's table, if chunks 0 ... filled-1 are not empty."""
    # They brought the chunks rank-2, rank-3, ... rank-stage, which are counted over whole turns from far enough below.
    high, low = rank - 1 + 2 * ranks, rank - stage + 2 * ranks
    to_high = high // ranks * filled + min(high % ranks, filled)
    to_low = low // ranks * filled + min(low % ranks, filled)
    return to_high - to_low


@njit(cache=True, nogil=True)
def fill(room, first, ranks, longer, stage, after, own, pass_):
    """Put the costs (int64 [2, size]: long, short chunk) of ranks first, first+1, ... into the lanes, at `stage`."""
    groups, rows = room.begin.shape[:2]
    for g in range(groups):
        for lane in range(LANES):
            start = room.ends[g * LANES + lane] - rows
            for row in range(rows):
                i = start + row
                rank = (first + i) % ranks
                room.rank[g, row, lane] = rank
                for length in range(2):
                    room.lengths[g, 3 * length, row, lane] = after[length, i] if i >= 0 else 0
                    room.lengths[g, 3 * length + 1, row, lane] = own[length, i] if i >= 0 else 0
                    room.lengths[g, 3 * length + 2, row, lane] = pass_[length, i] if i >= 0 else 0
        _settle(room, g, 0, rows, ranks, longer, stage)


@njit(cache=True, nogil=True)
def _settle(room, g, row0, row1, ranks, longer, stage):
    """Set the costs of rows that will meet chunks of one length from `stage` + 1 on."""
    for row in range(row0, row1):
        for lane in range(LANES):
            k = 0 if is_long(room.rank[g, row, lane], stage + 1, ranks, longer) else 3
            room.stay[g, row, lane] = max(room.lengths[g, k, row, lane], room.lengths[g, k + 1, row, lane])
            room.pass_[g, row, lane] = room.lengths[g, k + 2, row, lane]


@njit(cache=True, nogil=True)
def _one_length(room, g, row0, row1, ranks, longer, stage, stages):
    """Whether rows row0 ... row1-1 of all lanes meet chunks of one length only in the `stages` stages after `stage`."""
    for lane in range(LANES):
        # They meet, and have sent in `stage`, the chunks lowest ... lowest+many-1 of the circle.
        lowest = (room.rank[g, row0, lane] - stage - stages - 1) % ranks
        many = row1 - row0 + stages
        if not (lowest + many <= longer or (lowest >= longer and lowest + many <= ranks)):
            return False
    return True


@njit(cache=True, nogil=True)
def _draw(noise, seed, ranks, rank, stage, filled, index, chunk, delays):
    """The delays of some ranks (int64 [n]) in STAGES stages, the first of them `stage`: delays, int64 [STAGES, >= n].

    index, chunk: int64 [>= n] to work in. The loops run over ranks so that LLVM makes vectors of them.
    """
    n = len(rank)
    if filled == ranks:
        for s in range(STAGES):
            for i in range(n):
                delays[s, i] = delay_slot(seed, rank[i], stage + s - 1)
    else:
        for i in range(n):
            index[i] = receive_index(rank[i], stage, ranks, filled)
            chunk[i] = (rank[i] - stage - 1) % ranks
        for s in range(STAGES):
            for i in range(n):
                delays[s, i] = delay_slot(seed, rank[i], index[i])
                index[i] += chunk[i] < filled
                chunk[i] = chunk[i] - 1 if chunk[i] > 0 else ranks - 1
    # Looked up apart: the loops above become vectors only without it.
    for s in range(STAGES):
        for i in range(n):
            delays[s, i] = noise[delays[s, i]]


@njit(cache=True, nogil=True)
def take(net, noisy, room, begin, longer, filled, stage, stages):
    """Advance the begins (int64 [size], in place) of a segment from `stage` by `stages`, a multiple of STAGES.

    `filled`: how many chunks are not empty, the first ones. The first `stages` ranks of the segment come out too early, as
    if nothing had come from their left.
    """
    ranks = len(net.reduce_ps)
    groups, rows = room.begin.shape[:2]
    blocks = -(-rows // BLOCK)
    single = np.empty(blocks, np.bool_)
    left = np.empty((STAGES, LANES), np.int64)
    delays = np.empty((STAGES, NOISY_ROWS * LANES), np.int64)
    index, chunk = np.empty(NOISY_ROWS * LANES, np.int64), np.empty(NOISY_ROWS * LANES, np.int64)
    for g in range(groups):
        for lane in range(LANES):
            start = room.ends[g * LANES + lane] - rows
            for row in range(rows):
                room.begin[g, row, lane] = begin[start + row] if start + row >= 0 else EMPTY
    done = 0
    while done < stages:
        now = min(HALO, stages - done)
        for g in range(groups):
            for k in range(blocks):
                single[k] = _one_length(
                    room, g, k * BLOCK, min(rows, (k + 1) * BLOCK), ranks, longer, stage + done, now
                )
            b, c, w, lengths, rank = room.begin[g], room.stay[g], room.pass_[g], room.lengths[g], room.rank[g]
            for first in range(stage + done + 1, stage + done + now + 1, STAGES):
                left[:] = EMPTY
                k = 0
                while k < blocks:
                    end = k + 1
                    while not noisy and end < blocks and single[end] == single[k]:
                        end += 1
                    row0, row1 = k * BLOCK, min(rows, end * BLOCK)
                    if noisy:
                        for row in range(row0, row1, NOISY_ROWS):
                            end_row = min(row1, row + NOISY_ROWS)
                            some = rank[row:end_row].reshape(-1)
                            _draw(net.noise, net.seed, ranks, some, first, filled, index, chunk, delays)
                            if single[k]:
                                _plain_noisy(b, c, w, left, lengths, rank, delays, row, end_row, first, ranks, longer)
                            else:
                                _mixed_noisy(b, c, w, left, lengths, rank, delays, row, end_row, first, ranks, longer)
                    elif single[k]:
                        _plain(b, c, w, left, lengths, rank, delays, row0, row1, first, ranks, longer)
                    else:
                        _mixed(b, c, w, left, lengths, rank, delays, row0, row1, first, ranks, longer)
                    k = end
            for k in range(blocks):
                if not single[k]:
                    _settle(room, g, k * BLOCK, min(rows, (k + 1) * BLOCK), ranks, longer, stage + done + now)
        done += now
        if done < stages:
            _refresh(room)
    for g in range(groups):
        for lane in range(LANES):
            end = room.ends[g * LANES + lane]
            start = room.ends[g * LANES + lane - 1] if g + lane else 0
            for i in range(start, end):
                begin[i] = room.begin[g, rows - end + i, lane]


@njit(cache=True, nogil=True)
def _refresh(room):
    """Copy into each lane's halo what the lane to its left holds of the same ranks."""
    groups, rows = room.begin.shape[:2]
    for g in range(groups):
        for lane in range(LANES):
            k = g * LANES + lane
            if k == 0:
                continue
            from_group, from_lane = (k - 1) // LANES, (k - 1) % LANES
            core = room.ends[k] - room.ends[k - 1]
            for row in range(rows - core):
                room.begin[g, row, lane] = room.begin[from_group, row + core, from_lane]
