"""The memory that ranks of one host share: where flags, mailboxes and buffers lie.

An arena is one block of memory that every rank of the host can address (threads: the process's own; processes: a shared
window, mapped at a different address in each). Everything is an offset from its start, so that each rank adds its own
base. n is the number of ranks on the host::

    control     abort word, start line, one line a rank for arrivals and one for what the rank is doing
    connections n * n blocks: announcements, acks, inline slots, two mailboxes
    samples     float64, seconds, written by each rank after timing
    stamps      virtual times of the messages each rank sends, where the session has a virtual clock (clock.py)
    buffers     INPUT, OUTPUT, SCRATCH of each rank, 2 MiB aligned

A flag has a cache line to itself, so that polling it disturbs nothing else.
"""

from __future__ import annotations

import ctypes
import mmap
from dataclasses import dataclass

import numpy as np

from ..collectives.schedule import INPUT, OUTPUT, SCRATCH

LINE = 64
PAGE = 2 << 20
INLINE_BYTES = LINE - 8
INLINE_SLOTS = 16
FLAGS_BYTES = (2 + 2 * INLINE_SLOTS) * LINE  # of a connection, before its mailboxes
BULK = 64 << 10  # bytes of one mailbox of two, for few ranks
BULK_TOTAL = 512 << 20  # all mailboxes of a host together
SAMPLES_MAX = 4096  # samples of one timed block
# Words of a stamp: when the message's first byte arrives and the flag that says so; when it was received, and its flag.
ARRIVES, ARRIVES_FLAG, RECEIVED, RECEIVED_FLAG, STAMP_BYTES = 0, 8, 16, 24, 32

# Words of the control area.
ABORT = 0
START = LINE  # [0] release of the barrier, [8] the agreed start, ns
RANK_LINES = 2 * LINE
ARRIVED, DOING = 0, LINE  # lines of one rank
RANK_CONTROL = 2 * LINE
# Words of a rank's DOING line: the epoch it is in, the rank it waits for (or -1).
EPOCH_WORD, WAITS_FOR = 0, 8


@dataclass(frozen=True)
class Connection:
    """The words and mailboxes of the messages from one rank to another; addresses in this process."""

    base: int
    bulk_bytes: int
    acks_at: int = 0  # a line of its own for acks; 0: beside the announcements
    depth: int = 2  # epochs that have inline slots and a mailbox of their own, in turn; a power of two

    @property
    def slots(self) -> int:
        """Inline slots of an epoch."""
        return 2 * INLINE_SLOTS // self.depth

    @property
    def mailbox_bytes(self) -> int:
        """Of an epoch's mailbox."""
        return 2 * self.bulk_bytes // self.depth // LINE * LINE

    @property
    def avail(self) -> int:
        """Written by the sender: how many messages it has announced."""
        return self.base

    @property
    def ack(self) -> int:
        """Written by the receiver: how many messages it has taken."""
        return self.acks_at or self.base + LINE

    @property
    def done(self) -> int:
        """Written by the receiver: which epoch it has finished, where the sender cannot know it otherwise."""
        return self.base + LINE + 8

    def inline_flag(self, turn: int, slot: int) -> int:
        """turn: the epoch's number mod depth."""
        return self.base + (2 + turn * self.slots + slot) * LINE

    def mailbox(self, turn: int) -> int:
        return self.base + FLAGS_BYTES + turn * self.mailbox_bytes


@dataclass(frozen=True)
class Layout:
    """Offsets within an arena for `ranks` ranks on one host.

    buffer_bytes: capacity of INPUT and of OUTPUT; scratch_bytes: of SCRATCH; stamps: messages that one rank may send in an
    all-reduce under a virtual clock.
    """

    ranks: int
    buffer_bytes: int
    scratch_bytes: int
    stamps: int = 0

    @property
    def bulk_bytes(self) -> int:
        share = BULK_TOTAL // (2 * self.ranks * self.ranks)
        return max(LINE, min(BULK, share // LINE * LINE))

    @property
    def _connection_bytes(self) -> int:
        return FLAGS_BYTES + 2 * self.bulk_bytes

    @property
    def _connections(self) -> int:
        return RANK_LINES + self.ranks * RANK_CONTROL

    @property
    def _samples(self) -> int:
        return self._connections + self.ranks * self.ranks * self._connection_bytes

    @property
    def _stamps(self) -> int:
        return self._samples + self.ranks * SAMPLES_MAX * 8

    @property
    def _buffers(self) -> int:
        return _round(self._stamps + self.ranks * 2 * self.stamps * STAMP_BYTES)

    @property
    def _rank_bytes(self) -> int:
        # A page more than needed keeps equal offsets of two buffers from falling on the same cache sets.
        return 2 * (_round(self.buffer_bytes) + PAGE) + _round(self.scratch_bytes)

    @property
    def total_bytes(self) -> int:
        return self._buffers + self.ranks * self._rank_bytes

    def rank_control(self, index: int) -> int:
        return RANK_LINES + index * RANK_CONTROL

    def connection(self, sender: int, receiver: int) -> int:
        return self._connections + (sender * self.ranks + receiver) * self._connection_bytes

    def samples(self, index: int) -> int:
        return self._samples + index * SAMPLES_MAX * 8

    def stamp(self, index: int, number: int, parity: int) -> int:
        """The stamp of message `number` that a rank sends, from 0 in its table's order."""
        return self._stamps + ((2 * index + parity) * self.stamps + number) * STAMP_BYTES

    def buffer(self, index: int, which: int) -> int:
        start = self._buffers + index * self._rank_bytes
        step = _round(self.buffer_bytes) + PAGE
        return start + {INPUT: 0, OUTPUT: step + 4096, SCRATCH: 2 * step}[which]


def _round(n: int) -> int:
    return (n + PAGE - 1) // PAGE * PAGE


@dataclass(frozen=True)
class Arena:
    """A mapped arena: its address in this process and its layout. `owner` keeps the memory alive."""

    base: int
    layout: Layout
    owner: object

    def connection(self, sender: int, receiver: int) -> Connection:
        """Indices on the host."""
        return Connection(self.base + self.layout.connection(sender, receiver), self.layout.bulk_bytes)

    def stamp(self, index: int, number: int, parity: int) -> int:
        return self.base + self.layout.stamp(index, number, parity)

    def buffer(self, index: int, which: int) -> int:
        return self.base + self.layout.buffer(index, which)

    def clear(self) -> None:
        """Set every flag to zero, before anybody looks: a library may hand out memory that was used before."""
        layout = self.layout
        flags = [(0, layout.connection(0, 0)), (layout.stamp(0, 0, 0), layout.buffer(0, INPUT) - layout.stamp(0, 0, 0))]
        for sender in range(layout.ranks):
            for receiver in range(layout.ranks):
                flags.append((layout.connection(sender, receiver), FLAGS_BYTES))
        for offset, nbytes in flags:
            ctypes.memset(self.base + offset, 0, nbytes)

    def word(self, offset: int) -> ctypes.c_int64:
        """A control word, to read and write from Python; not for synchronising."""
        return ctypes.c_int64.from_address(self.base + offset)

    def doing(self, index: int, word: int) -> ctypes.c_int64:
        return self.word(self.layout.rank_control(index) + DOING + word)

    def array(self, index: int, which: int, dtype, count: int) -> np.ndarray:
        """A rank's buffer as a NumPy array."""
        raw = (ctypes.c_char * (count * np.dtype(dtype).itemsize)).from_address(self.buffer(index, which))
        return np.frombuffer(raw, dtype=dtype, count=count)

    def samples(self, index: int) -> np.ndarray:
        raw = (ctypes.c_double * SAMPLES_MAX).from_address(self.base + self.layout.samples(index))
        return np.frombuffer(raw, dtype=np.float64)


def private_arena(layout: Layout) -> Arena:
    """An arena for threads of this process; untouched pages take no memory.

    Small pages on purpose: buffers in huge pages fall on the same cache sets (8 MiB over 2 ranks: 340 us, 510 in huge
    pages), and a shared MPI window has small ones too, so both transports stay comparable.

    Raises MemoryError if the address space for it is refused.
    """
    try:
        block = mmap.mmap(-1, layout.total_bytes + PAGE)  # shared, so of small pages
    except (OSError, ValueError, OverflowError) as e:
        raise MemoryError(f"{layout.total_bytes} bytes for {layout.ranks} ranks were refused: {e}") from None
    start = ctypes.addressof(ctypes.c_char.from_buffer(block))
    return Arena(_round(start), layout, block)
