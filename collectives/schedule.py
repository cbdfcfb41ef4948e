"""The schedule: a collective as a table of steps for each rank.

An algorithm is a pure function ``steps(rank, ranks, count, ...)`` that returns the table of one rank, a NumPy array of
``STEP``. The table knows nothing of MPI, threads, GPUs or time; provers, transports, the fabric and exporters walk it.

Buffers. Every rank has an ``INPUT`` and an ``OUTPUT`` as large as the collective says (collective.py) and a ``SCRATCH`` as
large as its table needs (``scratch_elements``). In place, INPUT and OUTPUT both name the larger of the two, of which the
smaller is a part (``Collective.offsets``); only OUTPUT's part of it is written.

One step, by ``op``::

    SEND         src -> peer                    src_buffer[src_offset : src_offset + count] goes to `peer`
    RECV         peer -> dst                    dst_buffer[dst_offset : ...] = what `peer` sent
    RECV_REDUCE  src (+) peer -> dst            dst = op(src, what `peer` sent); src may be dst
    REDUCE       src (+) dst -> dst             dst = op(src, dst), both local
    COPY         src -> dst                     both local
    NOP          waits for `after`, does nothing

Order. The steps of one channel of one rank run in table order, each starting when the one before has finished. A SEND
does not block: it counts as finished once issued, and is *complete* only when the receiver has taken the data (so its
source may not be overwritten before; the strictest, zero-copy reading). ``after`` names an earlier step of the same
rank, on any channel, that must be complete first. Steps on different channels of a rank may run at the same time or in
table order; a valid schedule is right either way (``prove.py`` says whether it is).

Matching. The k-th SEND from a to b on a channel meets the k-th RECV or RECV_REDUCE at b from a on that channel, and
their counts are equal. There are no tags. Steps that would move zero elements are left out on both sides.

``final`` marks the reductions whose result holds every rank's contribution: the op ``avg`` is a sum that divides there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .collective import ALL_REDUCE, Collective

SEND, RECV, RECV_REDUCE, REDUCE, COPY, NOP = 1, 2, 3, 4, 5, 6
OP_NAMES = {SEND: "send", RECV: "recv", RECV_REDUCE: "recv_reduce", REDUCE: "reduce", COPY: "copy", NOP: "nop"}

INPUT, OUTPUT, SCRATCH = 0, 1, 2
BUFFER_NAMES = {INPUT: "input", OUTPUT: "output", SCRATCH: "scratch"}

# fmt: off
STEP = np.dtype(
    [
        ("op", np.uint8),          # SEND ... NOP
        ("final", np.uint8),       # 1: the reduction's result holds all contributions
        ("src_buffer", np.uint8),  # INPUT, OUTPUT or SCRATCH; read by SEND, RECV_REDUCE, REDUCE, COPY
        ("dst_buffer", np.uint8),  # written by RECV, RECV_REDUCE, REDUCE, COPY
        ("channel", np.int32),     # 0 ... channels-1
        ("peer", np.int32),        # the other rank; -1 for local steps
        ("after", np.int32),       # index of an earlier step of this rank to wait for; -1: none
        ("src_offset", np.int64),  # elements
        ("dst_offset", np.int64),  # elements
        ("count", np.int64),       # elements
    ],
    align=True,
)
# fmt: on


@dataclass(frozen=True)
class Schedule:
    """The tables of all ranks.

    algorithm: its name; ranks: world size p; count: elements of a block (collective.py), of the whole message in an
    all-reduce; in_place: whether INPUT and OUTPUT are the same memory; tables: one ``STEP`` array a rank.
    """

    algorithm: str
    ranks: int
    count: int
    in_place: bool
    tables: tuple[np.ndarray, ...]
    collective: Collective = ALL_REDUCE
    root: int = 0

    @property
    def name(self) -> str:
        return schedule_name(self.collective, self.algorithm)

    @property
    def input_count(self) -> int:
        """Elements of INPUT; in place, of the one memory that INPUT and OUTPUT name."""
        return self._elements(self.collective.input_count)

    @property
    def output_count(self) -> int:
        """Elements of OUTPUT; in place, of the one memory that INPUT and OUTPUT name."""
        return self._elements(self.collective.output_count)

    def _elements(self, alone) -> int:
        return (self.collective.size_count if self.in_place else alone)(self.ranks, self.count)

    @property
    def inputs(self) -> np.ndarray:
        """``Collective.inputs`` of this schedule."""
        return self.collective.inputs(self.ranks, self.count, self.root, self.in_place)

    @property
    def outputs(self) -> np.ndarray:
        """``Collective.outputs`` of this schedule."""
        return self.collective.outputs(self.ranks, self.count, self.root, self.in_place)

    @property
    def scratch(self) -> int:
        """Elements of SCRATCH that the neediest rank uses."""
        return max((scratch_elements(t) for t in self.tables if len(t)), default=0)

    @property
    def channels(self) -> int:
        return max((int(t["channel"].max()) + 1 for t in self.tables if len(t)), default=1)

    @property
    def messages(self) -> int:
        return int(sum(np.count_nonzero(t["op"] == SEND) for t in self.tables))


def schedule_name(collective: Collective, algorithm: str) -> str:
    """An algorithm's name, with its collective's where that is no all-reduce: all_gather/ring."""
    return algorithm if collective == ALL_REDUCE else f"{collective.name}/{algorithm}"


class StepList:
    """Collects steps in table order and turns them into a ``STEP`` array; steps of zero elements are dropped.

    Each method returns the step's index, for ``after``, or -1 if the step was dropped.
    """

    def __init__(self) -> None:
        self._rows: list[tuple] = []

    def _add(self, op, final, src_buffer, dst_buffer, channel, peer, after, src_offset, dst_offset, count) -> int:
        if count == 0 and op != NOP:
            return -1
        self._rows.append((op, final, src_buffer, dst_buffer, channel, peer, after, src_offset, dst_offset, count))
        return len(self._rows) - 1

    def send(self, peer, buffer, offset, count, *, channel=0, after=-1) -> int:
        return self._add(SEND, 0, buffer, 0, channel, peer, after, offset, 0, count)

    def recv(self, peer, buffer, offset, count, *, channel=0, after=-1) -> int:
        return self._add(RECV, 0, 0, buffer, channel, peer, after, 0, offset, count)

    def recv_reduce(self, peer, src, dst, count, *, final=False, channel=0, after=-1) -> int:
        """`src` and `dst` are (buffer, offset) pairs."""
        return self._add(RECV_REDUCE, final, src[0], dst[0], channel, peer, after, src[1], dst[1], count)

    def reduce(self, src, dst, count, *, final=False, channel=0, after=-1) -> int:
        return self._add(REDUCE, final, src[0], dst[0], channel, -1, after, src[1], dst[1], count)

    def copy(self, src, dst, count, *, channel=0, after=-1) -> int:
        return self._add(COPY, 0, src[0], dst[0], channel, -1, after, src[1], dst[1], count)

    def nop(self, *, channel=0, after=-1) -> int:
        return self._add(NOP, 0, 0, 0, channel, -1, after, 0, 0, 0)

    def table(self) -> np.ndarray:
        return np.array(self._rows, dtype=STEP)


def one_rank(collective: Collective, count: int, in_place: bool) -> np.ndarray:
    """The table for p = 1: copies of what the output holds, or nothing where the buffers are the same memory."""
    table = StepList()
    for _, offset, n, source, _ in collective.outputs(1, count).tolist() if not in_place else ():
        table.copy((INPUT, source), (OUTPUT, offset), n)
    return table.table()


def split(count: int, parts: int, offset: int = 0) -> list[tuple[int, int]]:
    """Cut `count` elements into `parts` contiguous (offset, count) pieces whose counts differ by one at most.

    The longer pieces come first; with fewer elements than parts the last pieces are empty.
    """
    base, longer = divmod(count, parts)
    pieces = []
    for i in range(parts):
        n = base + (i < longer)
        pieces.append((offset, n))
        offset += n
    return pieces


def scratch_elements(table: np.ndarray) -> int:
    """Elements of SCRATCH that one rank's table touches."""
    used = 0
    for side in ("src", "dst"):
        rows = table[(table[f"{side}_buffer"] == SCRATCH)]
        if len(rows):
            used = max(used, int((rows[f"{side}_offset"] + rows["count"]).max()))
    return used


def describe(table: np.ndarray) -> str:
    """One line a step, for people."""
    lines = []
    for i, s in enumerate(table):
        op = int(s["op"])
        src = f"{BUFFER_NAMES[int(s['src_buffer'])]}[{s['src_offset']}:{s['src_offset'] + s['count']}]"
        dst = f"{BUFFER_NAMES[int(s['dst_buffer'])]}[{s['dst_offset']}:{s['dst_offset'] + s['count']}]"
        text = {
            SEND: f"{src} -> rank {s['peer']}",
            RECV: f"rank {s['peer']} -> {dst}",
            RECV_REDUCE: f"{src} (+) rank {s['peer']} -> {dst}",
            REDUCE: f"{src} (+) {dst} -> {dst}",
            COPY: f"{src} -> {dst}",
            NOP: "",
        }[op]
        tail = (f"  after {s['after']}" if s["after"] >= 0 else "") + ("  final" if s["final"] else "")
        lines.append(f"{i:4d}  ch{s['channel']}  {OP_NAMES[op]:<11} {text}{tail}")
    return "\n".join(lines)
