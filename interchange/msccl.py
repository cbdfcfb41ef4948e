"""MSCCL XML, the programs that MSCCL's and RCCL's interpreters run on GPUs, written from our schedules.

A step becomes one step of a thread block: SEND s, RECV r, RECV_REDUCE rrc, REDUCE re, COPY cpy, NOP nop. Buffers are i, o and
s (in place i for both); offsets and counts are in chunks, of which the message has `nchunksperloop` equal ones.

Thread blocks. One has at most one peer to send to and one to receive from, and runs its steps in order. So the steps of a
channel are dealt out by their peers, and a step that has to follow one in another block waits for it (depid, deps): the last
receive or local step of its channel, and its `after`. A send has read its source when it is over, for MSCCL sends through
buffers, so waiting for it is what `after` asks for. A step waits for one other only; what it needs beyond that stands in nop
steps before it.

What cannot be expressed is refused: a message that is not cut in equal chunks, and what exceeds the interpreter's limits
(msccl's msccl_struct.h).
"""

from __future__ import annotations

import math
from xml.sax.saxutils import quoteattr

from ..collectives.collective import ALL_REDUCE
from ..collectives.schedule import (
    COPY,
    INPUT,
    NOP,
    OUTPUT,
    RECV,
    RECV_REDUCE,
    REDUCE,
    SCRATCH,
    SEND,
    Schedule,
)
from ..errors import UserError

STEPS_LIMIT = 256  # of a thread block (MSCCL_MAX_NUM_STEPS)
BLOCKS_LIMIT = 32  # of a channel (MSCCL_MAX_NUM_THREAD_BLOCKS_PER_CHANNEL)
COUNT_LIMIT = 72  # chunks of a step (MSCCL_MAX_COUNT)
CHANNELS_LIMIT = 32  # NCCL's MAXCHANNELS
PROTOCOLS = ("Simple", "LL", "LL128")

COLLECTIVES = {
    "all_reduce": "allreduce", "reduce_scatter": "reduce_scatter", "all_gather": "allgather", "broadcast": "broadcast",
    "reduce": "reduce", "alltoall": "alltoall",
}  # fmt: skip
"""MSCCL's names of those it has."""

TYPES = {SEND: "s", RECV: "r", RECV_REDUCE: "rrc", REDUCE: "re", COPY: "cpy", NOP: "nop"}


def write(schedule: Schedule, *, name: str | None = None, proto: str = "Simple", least=0, most=(1 << 63) - 1) -> str:
    """The XML of a schedule. name: of the program (None: the algorithm's); proto: Simple, LL or LL128; least, most: the sizes
    in bytes it is to be used for.

    Raises UserError for schedules that MSCCL cannot express, an unknown proto, or a bad range of sizes.
    """
    if proto not in PROTOCOLS:
        raise UserError(f"protocol {proto!r}; accepted: {', '.join(PROTOCOLS)}")
    if not 0 <= least <= most:
        raise UserError(f"sizes from {least} to {most} bytes; accepted: 0 <= least <= most")
    what = f"{schedule.name} over {schedule.ranks} ranks"
    if schedule.collective.name not in COLLECTIVES or (schedule.in_place and schedule.collective != ALL_REDUCE):
        where = "in place " if schedule.in_place else ""
        raise UserError(
            f"{what} {where}is no program of MSCCL's; accepted: all_reduce, and out of place {', '.join(COLLECTIVES)}"
        )
    if schedule.ranks < 2:
        raise UserError(f"{what} sends nothing; MSCCL programs need 2 ranks or more")
    if schedule.channels > CHANNELS_LIMIT:
        raise UserError(f"{what} has {schedule.channels} channels; MSCCL has {CHANNELS_LIMIT}")
    chunk = _chunk(schedule, what)
    gpus = [_gpu(schedule, rank, chunk, what) for rank in range(schedule.ranks)]
    given, taken = schedule.input_count // chunk, schedule.output_count // chunk
    head = {
        "name": name or schedule.name, "proto": proto, "nchannels": schedule.channels, "nchunksperloop": max(given, taken),
        "ngpus": schedule.ranks, "coll": COLLECTIVES[schedule.collective.name], "inplace": int(schedule.in_place),
        "outofplace": int(not schedule.in_place), "minBytes": least, "maxBytes": most,
    }  # fmt: skip
    lines = [f"<algo {_attributes(head)}>"]
    for rank, blocks in enumerate(gpus):
        scratch = max((s["srcoff"] + s["cnt"] for b in blocks for s in b.steps if s["srcbuf"] == "s"), default=0)
        scratch = max((s["dstoff"] + s["cnt"] for b in blocks for s in b.steps if s["dstbuf"] == "s"), default=scratch)
        gpu = {"id": rank, "i_chunks": given, "o_chunks": taken, "s_chunks": scratch}
        lines.append(f"  <gpu {_attributes(gpu)}>")
        for number, block in enumerate(blocks):
            ends = {"id": number, "send": block.send, "recv": block.recv, "chan": block.channel}
            lines.append(f"    <tb {_attributes(ends)}>")
            lines += [f"      <step {_attributes(step)}/>" for step in block.steps]
            lines.append("    </tb>")
        lines.append("  </gpu>")
    lines.append("</algo>")
    return "\n".join(lines) + "\n"


def _attributes(values: dict) -> str:
    return " ".join(f"{key}={quoteattr(str(value))}" for key, value in values.items())


def _chunk(schedule, what) -> int:
    """Elements of the largest chunk in which all offsets and counts are whole."""
    size = schedule.count
    for table in schedule.tables:
        for field in ("src_offset", "dst_offset", "count"):
            size = math.gcd(size, math.gcd(*map(int, table[field]))) if len(table) else size
    if size == 0:
        raise UserError(f"{what} of 0 elements; accepted: 1 or more")
    largest = max(int(t["count"].max()) for t in schedule.tables if len(t))
    if largest // size > COUNT_LIMIT:
        raise UserError(
            f"{what}: {schedule.count} elements cut in unequal parts, so a step has {largest // size} chunks and MSCCL takes "
            f"{COUNT_LIMIT}; accepted: a count that ranks x channels x slices divides"
        )
    return size


class _Block:
    """A thread block under construction."""

    def __init__(self, channel: int):
        self.channel, self.send, self.recv = channel, -1, -1
        self.steps: list[dict] = []


def _gpu(schedule, rank, chunk, what) -> list[_Block]:
    table = schedule.tables[rank].tolist()
    blocks: list[_Block] = []
    of_send: dict[tuple[int, int], int] = {}
    of_recv: dict[tuple[int, int], int] = {}
    current: dict[int, int] = {}  # channel -> the block of its last step
    last: dict[int, tuple[int, int]] = {}  # channel -> (block, step) of its last receive or local step
    place: list[tuple[int, int]] = []  # of each step of the table: (block, step)
    buffers = {INPUT: "i", OUTPUT: "i" if schedule.in_place else "o", SCRATCH: "s"}

    def block_for(op, channel, peer) -> int:
        """The block with this end; a new end goes to a block of the channel that has none of its kind."""
        if op not in (SEND, RECV, RECV_REDUCE):
            if channel not in current:
                blocks.append(_Block(channel))
                current[channel] = len(blocks) - 1
            return current[channel]
        ends, end = (of_send, "send") if op == SEND else (of_recv, "recv")
        if (channel, peer) not in ends:
            own = [n for n, b in enumerate(blocks) if b.channel == channel and getattr(b, end) < 0]
            if not own:
                blocks.append(_Block(channel))
                own = [len(blocks) - 1]
            setattr(blocks[own[0]], end, peer)
            ends[channel, peer] = own[0]
        return ends[channel, peer]

    for op, _, src_buffer, dst_buffer, channel, peer, after, src_offset, dst_offset, count in table:
        number = block_for(op, channel, peer)
        block = blocks[number]
        waits = {last.get(channel), place[after] if after >= 0 else None} - {None}
        # Within a block order is enough; of two steps of another block the later will do.
        waits = {b: max(s for o, s in waits if o == b) for b, _ in waits if b != number}
        waits = sorted(waits.items())
        for wait in waits[:-1]:
            block.steps.append(_step("nop", wait))
        wait = waits[-1] if waits else None
        reads, writes = op in (SEND, RECV_REDUCE, REDUCE, COPY), op in (RECV, RECV_REDUCE, REDUCE, COPY)
        src = (buffers[src_buffer], src_offset // chunk) if reads else None
        dst = (buffers[dst_buffer], dst_offset // chunk) if writes else None
        block.steps.append(_step(TYPES[op], wait, src or dst, dst or src, count // chunk))
        for b, s in waits:
            blocks[b].steps[s]["hasdep"] = 1
        place.append((number, len(block.steps) - 1))
        current[channel] = number
        if op != SEND:
            last[channel] = place[-1]

    for number, block in enumerate(blocks):
        for s, step in enumerate(block.steps):
            step["s"] = s
        if len(block.steps) > STEPS_LIMIT:
            raise UserError(
                f"{what}: rank {rank} has {len(block.steps)} steps in one thread block and MSCCL takes {STEPS_LIMIT}; accepted: "
                "fewer ranks or slices"
            )
        if sum(b.channel == block.channel for b in blocks) > BLOCKS_LIMIT:
            raise UserError(
                f"{what}: rank {rank} needs more than {BLOCKS_LIMIT} thread blocks on channel {blocks[number].channel}; "
                "accepted: an algorithm with fewer peers"
            )
    return blocks


def _step(kind, wait, src=None, dst=None, count=0) -> dict:
    src, dst = src or ("i", 0), dst or ("i", 0)
    return {
        "s": 0, "type": kind, "srcbuf": src[0], "srcoff": src[1], "dstbuf": dst[0], "dstoff": dst[1],
        "cnt": max(count, 0), "depid": wait[0] if wait else -1, "deps": wait[1] if wait else -1, "hasdep": 0,
    }  # fmt: skip
