"""Ring: what a rank gets from its left it passes on to its right, p-1 times.

The message is cut into p chunks. In the reduce-scatter every rank passes a partial sum to its right and adds its own
part to what comes from its left; after p-1 steps rank r holds chunk r complete. In the all-gather the complete chunks go
round. An all-reduce is the one and then the other. For p = 4, the chunk that rank r sends (>) and the one it then reduces
or receives (<)::

                     rank 0      rank 1      rank 2      rank 3
    reduce-  step 0   >3 <2       >0 <3       >1 <0       >2 <1     the diagonal moves down by one a step:
    scatter  step 1   >2 <1       >3 <2       >0 <3       >1 <0     what a rank reduced it sends next
             step 2   >1 <0*      >2 <1*      >3 <2*      >0 <3*    * complete
    all-     step 3   >0 <3       >1 <0       >2 <1       >3 <2
    gather   step 4   >3 <2       >0 <3       >1 <0       >2 <1
             step 5   >2 <1       >3 <2       >0 <3       >1 <0

Each phase sends (p-1)/p of the message in p-1 steps: the least bytes possible, at a latency that grows with p
(Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations).

Channels cut the message into independent rings; odd ones turn the other way, so that both directions of a link carry
data. Slices cut a chunk, so that slice k+1 travels while slice k is reduced.

No step waits for a SEND to be taken: a chunk comes back to a rank only after every other rank has read it. A reduce-scatter
of its own has no place for partial sums but SCRATCH, where each step has a block to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .schedule import COPY, INPUT, OUTPUT, RECV, RECV_REDUCE, SCRATCH, SEND, STEP, split

Place = Callable[[np.ndarray, np.ndarray], tuple]
"""(number of the receive, from 0; offsets within the message) -> (buffers, offsets) of what it holds then."""


@dataclass(frozen=True)
class Ring:
    """One channel's ring as one rank sees it.

    place: the rank's number along the ring; left, right: whom it hears and to whom it speaks; starts, counts: int64 [ranks],
    elements of the chunk of each place; slices: into how many pieces a chunk is cut.
    """

    channel: int
    place: int
    ranks: int
    left: int
    right: int
    starts: np.ndarray
    counts: np.ndarray
    slices: int

    def stages(self) -> tuple[np.ndarray, np.ndarray]:
        """(stage, slice) of every message of a phase."""
        stage, piece = np.meshgrid(np.arange(self.ranks - 1), np.arange(self.slices), indexing="ij")
        return stage.ravel(), piece.ravel()

    def rows(self, op, place, peer: int, piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """STEP rows that move a slice of the chunk of `place`, and the offset of each slice."""
        place = place % self.ranks
        base, longer = np.divmod(self.counts[place], self.slices)
        out = np.zeros(len(piece), STEP)
        out["op"], out["peer"], out["channel"], out["after"] = op, peer, self.channel, -1
        out["count"] = base + (piece < longer)
        return out, self.starts[place] + piece * base + np.minimum(piece, longer)


def ring(
    rank: int, ranks: int, channel: int, starts: np.ndarray, counts: np.ndarray, slices: int, root: int = 0
) -> Ring:
    """The ring of one channel, on which `root` has place 0."""
    direction = 1 if channel % 2 == 0 else -1
    place = (rank - root) * direction % ranks
    return Ring(channel, place, ranks, (rank - direction) % ranks, (rank + direction) % ranks, starts, counts, slices)


def chunks(start: int, length: int, ranks: int) -> tuple[np.ndarray, np.ndarray]:
    """`split` into a chunk a rank: (starts, counts)."""
    base, longer = divmod(length, ranks)
    place = np.arange(ranks)
    return start + place * base + np.minimum(place, longer), base + (place < longer)


def reduce_scatter_rows(ring: Ring, sums: Place, have: int = INPUT, final: bool = True):
    """STEP rows after which every rank holds the sum of its own chunk where `sums` says, and their keys (see `in_order`).

    have: the buffer of what the rank itself contributes; final: whether that sum is of all ranks.
    """
    stage, piece = ring.stages()
    sends, at = ring.rows(SEND, ring.place - stage - 1, ring.right, piece)
    buffer, offset = sums(stage - 1, at)
    sends["src_buffer"] = np.where(stage == 0, have, buffer)
    sends["src_offset"] = np.where(stage == 0, at, offset)
    receives, at = ring.rows(RECV_REDUCE, ring.place - stage - 2, ring.left, piece)
    receives["src_buffer"], receives["src_offset"] = have, at
    receives["dst_buffer"], receives["dst_offset"] = sums(stage, at)
    receives["final"] = final & (stage == ring.ranks - 2)
    return np.concatenate([sends, receives]), _keys(stage, piece)


def all_gather_rows(ring: Ring, first_stage: int = 0, own: Callable[[np.ndarray], tuple] | None = None):
    """STEP rows after which every chunk lies in OUTPUT, at its offset; as `reduce_scatter_rows`.

    own: offsets within the message -> (buffer, offsets) of the rank's own chunk, to be copied to OUTPUT too; None where it
    lies there already.
    """
    stage, piece = ring.stages()
    sends, at = ring.rows(SEND, ring.place - stage, ring.right, piece)
    sends["src_buffer"], sends["src_offset"] = OUTPUT, at
    receives, at = ring.rows(RECV, ring.place - stage - 1, ring.left, piece)
    receives["dst_buffer"], receives["dst_offset"] = OUTPUT, at
    keys = _keys(stage + first_stage, piece)
    if own is None:
        return np.concatenate([sends, receives]), keys
    first = sends[: ring.slices]
    first["src_buffer"], first["src_offset"] = own(first["src_offset"])
    copies, at = ring.rows(COPY, np.full(1, ring.place), -1, np.zeros(1, int))
    copies["count"] = ring.counts[ring.place]
    copies["src_buffer"], copies["src_offset"] = own(at)
    copies["dst_buffer"], copies["dst_offset"] = OUTPUT, at
    keys = np.concatenate([keys, [[first_stage + ring.ranks, 0, 2]]])  # nobody waits for it
    return np.concatenate([sends, receives, copies]), keys


def _keys(stage, piece):
    """Stage 0 is the first send. Stage s receives what the left neighbour sent in stage s-1 and sends it on."""
    zero = np.zeros_like(stage)
    return np.concatenate([np.stack([stage, piece, zero + 1], 1), np.stack([stage + 1, piece, zero], 1)])


def in_order(parts: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """One table of the rows of all channels and phases. keys: int64 [rows, 3]: stage, slice, 0 receive, 1 send or 2 copy.

    Stage by stage and slice by slice over all channels, so that one thread walking the table serves them alike.
    """
    rows = np.concatenate([r for r, _ in parts])
    stage, piece, half = np.concatenate([keys for _, keys in parts]).T
    order = np.lexsort((half, rows["channel"], piece, stage))
    rows = rows[order]
    return rows[rows["count"] > 0]


def in_output(number: np.ndarray, at: np.ndarray) -> tuple:
    """A `Place`: at its offset in OUTPUT."""
    return OUTPUT, at


def all_reduce(
    rank: int, ranks: int, count: int, *, channels: int = 1, slices: int = 1, in_place: bool = False
) -> np.ndarray:
    """One rank's table: int elements; the same table serves in-place and out-of-place."""
    parts = []
    for channel, (start, length) in enumerate(split(count, channels)):
        one = ring(rank, ranks, channel, *chunks(start, length, ranks), slices)
        parts.append(reduce_scatter_rows(one, in_output))
        parts.append(all_gather_rows(one, first_stage=ranks - 1))
    return in_order(parts)


def reduce_scatter(
    rank: int, ranks: int, count: int, *, channels: int = 1, slices: int = 1, in_place: bool = False
) -> np.ndarray:
    """One rank's table; SCRATCH holds p-2 blocks of partial sums."""

    def sums(number, at):
        last = number == ranks - 2
        within = at % max(count, 1)
        return np.where(last, OUTPUT, SCRATCH), np.where(last, at if in_place else within, number * count + within)

    return in_order([reduce_scatter_rows(r, sums) for r in _block_rings(rank, ranks, count, channels, slices)])


def all_gather(
    rank: int, ranks: int, count: int, *, channels: int = 1, slices: int = 1, in_place: bool = False
) -> np.ndarray:
    """One rank's table."""
    own = None if in_place else (lambda at: (INPUT, at - rank * count))
    return in_order([all_gather_rows(r, own=own) for r in _block_rings(rank, ranks, count, channels, slices)])


def _block_rings(rank: int, ranks: int, count: int, channels: int, slices: int) -> list[Ring]:
    """Each channel's ring over a block a rank: a channel takes its part of every block."""
    rings = []
    for channel, (start, length) in enumerate(split(count, channels)):
        owners = np.arange(ranks) * (1 if channel % 2 == 0 else -1) % ranks
        rings.append(ring(rank, ranks, channel, owners * count + start, np.full(ranks, length), slices))
    return rings
