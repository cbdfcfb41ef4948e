"""Ring all-reduce: reduce-scatter, then all-gather, each in p-1 steps between neighbours.

The message is cut into p chunks. In the reduce-scatter every rank passes a partial sum to its right and adds its own
part to what comes from its left; after p-1 steps rank r holds chunk r complete. In the all-gather the complete chunks go
round once more. For p = 4, the chunk that rank r sends (>) and the one it then reduces or receives (<)::

                     rank 0      rank 1      rank 2      rank 3
    reduce-  step 0   >3 <2       >0 <3       >1 <0       >2 <1     the diagonal moves down by one a step:
    scatter  step 1   >2 <1       >3 <2       >0 <3       >1 <0     what a rank reduced it sends next
             step 2   >1 <0*      >2 <1*      >3 <2*      >0 <3*    * complete
    all-     step 3   >0 <3       >1 <0       >2 <1       >3 <2
    gather   step 4   >3 <2       >0 <3       >1 <0       >2 <1
             step 5   >2 <1       >3 <2       >0 <3       >1 <0

Every rank sends 2(p-1)/p of the message in 2(p-1) steps: the least bytes possible, at a latency that grows with p
(Patarasuk and Yuan 2009, Bandwidth optimal all-reduce algorithms for clusters of workstations).

Channels cut the message into independent rings; odd ones turn the other way, so that both directions of a link carry
data. Slices cut a chunk, so that slice k+1 travels while slice k is reduced.

No step waits for a SEND to be taken: a chunk comes back to a rank only after every other rank has read it.
"""

from __future__ import annotations

import numpy as np

from .schedule import INPUT, OUTPUT, RECV, RECV_REDUCE, SEND, STEP, split
from .single import single_rank


def steps(
    rank: int, ranks: int, count: int, *, channels: int = 1, slices: int = 1, in_place: bool = False
) -> np.ndarray:
    """One rank's table: int elements; the same table serves in-place and out-of-place."""
    if ranks == 1:
        return single_rank(count, in_place)
    parts = []
    for channel, (start, length) in enumerate(split(count, channels)):
        parts.append(_one_ring(rank, ranks, start, length, slices, channel))
    rows = np.concatenate([r for r, _ in parts])
    # Stage by stage and slice by slice over all channels, so that one thread walking the table serves them alike.
    stage, piece, half = np.concatenate([keys for _, keys in parts]).T
    order = np.lexsort((half, rows["channel"], piece, stage))
    rows = rows[order]
    return rows[rows["count"] > 0]


def _one_ring(rank, ranks, start, length, slices, channel):
    """(STEP rows, int64 keys [rows, 3]: stage, slice, 0 receive or 1 send) of one channel.

    Stage 0 is the first send. Stage s = 1 ... 2(p-1) receives what the left neighbour sent in stage s-1 and sends it on.
    """
    direction = 1 if channel % 2 == 0 else -1
    place = rank * direction % ranks  # along this ring
    stages = 2 * (ranks - 1)
    base, longer = divmod(length, ranks)

    stage, piece = (a.ravel() for a in np.meshgrid(np.arange(stages), np.arange(slices), indexing="ij"))

    def rows(op, chunk, peer):
        chunk_count = base + (chunk < longer)
        chunk_start = start + chunk * base + np.minimum(chunk, longer)
        slice_base, slice_longer = np.divmod(chunk_count, slices)
        out = np.zeros(len(chunk), STEP)
        out["op"], out["peer"], out["channel"], out["after"] = op, peer, channel, -1
        out["count"] = slice_base + (piece < slice_longer)
        out["src_offset"] = out["dst_offset"] = chunk_start + piece * slice_base + np.minimum(piece, slice_longer)
        return out

    sends = rows(SEND, (place - stage - 1) % ranks, (rank + direction) % ranks)
    sends["src_buffer"] = np.where(stage == 0, INPUT, OUTPUT)
    sends["dst_offset"] = 0

    reducing = stage < ranks - 1
    receives = rows(np.where(reducing, RECV_REDUCE, RECV), (place - stage - 2) % ranks, (rank - direction) % ranks)
    receives["src_buffer"] = INPUT
    receives["src_offset"][~reducing] = 0
    receives["dst_buffer"] = OUTPUT
    receives["final"] = stage == ranks - 2

    keys = [np.stack([stage, piece, np.ones_like(stage)], 1), np.stack([stage + 1, piece, np.zeros_like(stage)], 1)]
    return np.concatenate([sends, receives]), np.concatenate(keys)
