"""Virtual time: every message carries a virtual time, every rank a virtual clock that a network's costs move.

Data moves and is reduced as ever. Beside it, a rank's program has instructions, in table order, that keep its clock t and,
for each of its ports, when the port is free to send and to receive::

    BEGIN            t = 0, all ports free
    SEND             begin = max(t + overhead, out_free[port]);   out_free[port] = begin + hold;   t = begin
                     the message carries begin + latency, when its first byte arrives
    RECV             first = max(what the message carries, in_free[port]);   in_free[port] = first + hold
                     t = max(t, first + hold + delay) + overhead + work
                     t goes back to the sender where a step of its table waits for that (`after`)
    AFTER            t = max(t, when that message was received + latency)
    WORK             t = t + work
    END

All times are int64 picoseconds. A maximum or a sum along the table does not depend on when the instructions run, so neither
threads, processes nor hosts change the result. What each step costs comes from a ``Clock``, which knows the network.

Inside a host the virtual times lie in the arena, one *stamp* a message with a flag of its own, and as mailboxes do they
alternate with the epoch's parity. Between hosts they travel as MPI messages of 8 bytes, on tags of their own.

Paced, a RECV also lasts until t has come in wall-clock time (times a dilation), and so does END.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np

from ..collectives.schedule import COPY, NOP, RECV, RECV_REDUCE, REDUCE, SEND
from .memory import ARRIVES, RECEIVED
from .program import (
    CLOCK_AFTER,
    CLOCK_BEGIN,
    CLOCK_END,
    CLOCK_HOLD,
    CLOCK_INDEX,
    CLOCK_LATENCY,
    CLOCK_OVERHEAD,
    CLOCK_PORT,
    CLOCK_RECV,
    CLOCK_SEND,
    CLOCK_VALUE,
    CLOCK_WORK,
    CLOCK_WORK_PS,
    COUNT,
    IRECV,
    ISEND,
    KIND,
    MPI_WAIT,
    PARAM,
    PEER,
    POST,
    POST_K,
    SLOT,
    WAIT,
    WAIT_K,
    A,
    Causality,
    Peers,
)

CHANNELS_MAX = 1 << 12  # a channel is a tag; MPI promises tags below 32768
STAMP_TAG, RECEIVED_TAG = CHANNELS_MAX, 2 * CHANNELS_MAX
WORD = 8


class Costs(NamedTuple):
    """What the steps of one rank's table cost; int64 [steps], ps. Unused entries are 0.

    port: which of the rank's ports a SEND or RECV uses; overhead: the rank's own time for it; hold: how long it keeps the
    port; latency: of a SEND, from this rank to the peer and back; work: of a reduction or copy, of a RECV_REDUCE too.
    """

    port: np.ndarray
    overhead: np.ndarray
    hold: np.ndarray
    latency: np.ndarray
    work: np.ndarray


class Clock(Protocol):
    """A network as the ranks' virtual clocks see it.

    name: for records; ranks: how many it has; ports: of a rank; noisy: whether delays differ between samples.
    """

    name: str
    ranks: int
    ports: int
    noisy: bool

    def costs(self, algorithm: str, rank: int, table: np.ndarray, itemsize: int) -> Costs:
        """algorithm: the schedule's name, for how it uses the network; table: the rank's STEP array; itemsize: bytes an element."""

    def delays(self, rank: int, receives: int, sample: int) -> np.ndarray:
        """int64 [receives] ps: the noise of each receive of a rank, in table order, in sample number `sample`."""


@dataclass
class _Instruction:
    """One row of a program; `alternating`: columns whose value depends on the epoch's parity."""

    columns: dict[int, int]
    alternating: dict[int, tuple[int, int]] = field(default_factory=dict)

    def write(self, line: np.ndarray, parity: int) -> None:
        for column, value in self.columns.items():
            line[column] = value
        for column, values in self.alternating.items():
            line[column] = values[parity]


class Timekeeper:
    """The clock instructions of one rank, in table order; `program.lower` asks for them step by step.

    It owns the words that virtual times from and to other hosts pass through, so it must live as long as the program.
    """

    def __init__(self, algorithm: str, c: Causality, peers: Peers, clock: Clock, itemsize: int):
        """Raises ValueError for more channels than there are MPI tags."""
        self.c, self.peers = c, peers
        start, end = int(c.starts[peers.rank]), int(c.starts[peers.rank + 1])
        self.start, self.table = start, c.steps[start:end]
        if len(self.table) and self.table["channel"].max() >= CHANNELS_MAX:
            raise ValueError(f"{self.table['channel'].max() + 1} channels; at most {CHANNELS_MAX} are accepted")
        self.costs = clock.costs(algorithm, peers.rank, self.table, itemsize)
        self.owner = np.repeat(np.arange(len(c.starts) - 1), np.diff(c.starts))
        is_send = c.steps["op"] == SEND
        sent_before = np.concatenate([[0], np.cumsum(is_send)])
        self.number = sent_before[:-1] - sent_before[c.starts[self.owner]] if len(c.steps) else sent_before[:0]
        after = np.flatnonzero(c.steps["after"] >= 0)
        named = c.steps["after"][after] + c.starts[self.owner[after]]
        self.awaited = set(named[is_send[named]].tolist())
        self.receives = 0
        self._words = np.zeros(2 * len(self.table) + 1, np.int64)
        self._used = 0
        self._unfinished: list[tuple[int, int]] = []  # request slots of sends, and to whom
        self._answers: dict[int, tuple[int, int]] = {}  # SEND's index -> (request slot, address) of its receipt

    def begin(self) -> list[_Instruction]:
        return [_Instruction({KIND: CLOCK_BEGIN})]

    def step(self, i: int, take_slot) -> list[_Instruction]:
        """The instructions of step i of the table; take_slot() -> the number of a fresh MPI request."""
        step = self.table[i]
        op, peer = int(step["op"]), int(step["peer"])
        rows = self._after(int(step["after"])) if step["after"] >= 0 else []
        if op == SEND:
            rows += self._send(i, peer, take_slot)
        elif op in (RECV, RECV_REDUCE):
            rows += self._receive(i, peer, take_slot)
        elif op in (REDUCE, COPY):
            rows.append(_Instruction({KIND: CLOCK_WORK, CLOCK_WORK_PS: int(self.costs.work[i])}))
        else:
            assert op == NOP
        return rows

    def end(self) -> list[_Instruction]:
        rows = [_Instruction({KIND: MPI_WAIT, SLOT: slot, PEER: peer}) for slot, peer in self._unfinished]
        rows += [_Instruction({KIND: MPI_WAIT, SLOT: s, PEER: int(self.table["peer"][i])})
                 for i, (s, _) in self._answers.items()]  # fmt: skip
        return [*rows, _Instruction({KIND: CLOCK_END})]

    def _send(self, i: int, peer: int, take_slot) -> list[_Instruction]:
        row = _Instruction(
            {
                KIND: CLOCK_SEND,
                PEER: peer,
                CLOCK_PORT: int(self.costs.port[i]),
                CLOCK_OVERHEAD: int(self.costs.overhead[i]),
                CLOCK_HOLD: int(self.costs.hold[i]),
                CLOCK_LATENCY: int(self.costs.latency[i]),
            }
        )
        if self.peers.here(peer):
            self._announce(row, self.start + i, ARRIVES)
            return [row]
        row.columns[POST] = word = self._word()
        rows = [row, self._transfer(ISEND, i, STAMP_TAG, word, take_slot())]
        self._unfinished.append((rows[-1].columns[SLOT], peer))
        if self.start + i in self.awaited:
            # Posted now, so that receipts of one channel meet these receives in the order of the messages.
            rows.append(self._transfer(IRECV, i, RECEIVED_TAG, self._word(), take_slot()))
            self._answers[i] = (rows[-1].columns[SLOT], rows[-1].columns[A])
        return rows

    def _receive(self, i: int, peer: int, take_slot) -> list[_Instruction]:
        mate = int(self.c.mate[self.start + i])
        row = _Instruction(
            {
                KIND: CLOCK_RECV,
                PEER: peer,
                CLOCK_PORT: int(self.costs.port[i]),
                CLOCK_OVERHEAD: int(self.costs.overhead[i]),
                CLOCK_HOLD: int(self.costs.hold[i]),
                CLOCK_WORK_PS: int(self.costs.work[i]),
                CLOCK_INDEX: self.receives,
            }
        )
        self.receives += 1
        if self.peers.here(peer):
            self._expect(row, mate, ARRIVES)
            if mate in self.awaited:
                self._announce(row, mate, RECEIVED)
            return [row]
        row.columns[CLOCK_VALUE] = word = self._word()
        slot = take_slot()
        rows = [
            self._transfer(IRECV, i, STAMP_TAG, word, slot),
            _Instruction({KIND: MPI_WAIT, SLOT: slot, PEER: peer}),
            row,
        ]
        if mate in self.awaited:
            row.columns[POST] = answer = self._word()
            rows.append(self._transfer(ISEND, i, RECEIVED_TAG, answer, take_slot()))
            self._unfinished.append((rows[-1].columns[SLOT], peer))
        return rows

    def _after(self, awaited: int) -> list[_Instruction]:
        if self.table["op"][awaited] != SEND:
            return []  # finished before, in table order
        peer = int(self.table["peer"][awaited])
        row = _Instruction({KIND: CLOCK_AFTER, PEER: peer, CLOCK_LATENCY: int(self.costs.latency[awaited])})
        if self.peers.here(peer):
            self._expect(row, self.start + awaited, RECEIVED)
            return [row]
        slot, row.columns[CLOCK_VALUE] = self._answers[awaited]
        return [_Instruction({KIND: MPI_WAIT, SLOT: slot, PEER: peer}), row]

    def _stamp(self, send: int, word: int) -> tuple[int, int]:
        """Addresses, for even and odd epochs, of a word in the stamp of the message of that SEND."""
        rank, number = int(self.owner[send]), int(self.number[send])
        even, odd = (self.peers.stamp(rank, number, parity) + word for parity in (0, 1))
        return even, odd

    def _announce(self, row: _Instruction, send: int, word: int) -> None:
        row.alternating[POST] = self._stamp(send, word)
        row.columns[POST_K] = 1

    def _expect(self, row: _Instruction, send: int, word: int) -> None:
        row.alternating[CLOCK_VALUE] = self._stamp(send, word)
        row.alternating[WAIT] = self._stamp(send, word + WORD)
        row.columns[WAIT_K] = 1

    def _word(self) -> int:
        self._used += 1
        return self._words.ctypes.data + (self._used - 1) * WORD

    def _transfer(self, kind: int, i: int, tag: int, address: int, slot: int) -> _Instruction:
        step = self.table[i]
        return _Instruction(
            {
                KIND: kind,
                A: address,
                COUNT: WORD,
                PARAM: tag + int(step["channel"]),
                PEER: int(step["peer"]),
                SLOT: slot,
            }
        )


def stamps_needed(tables) -> int:
    """Messages that the busiest rank of a schedule sends: `stamps` of memory.Layout."""
    return max((int(np.count_nonzero(t["op"] == SEND)) for t in tables), default=0)
