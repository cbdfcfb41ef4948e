"""Ranks on GPUs that reach one another's memory: the schedule's bytes in device memory, moved by the device itself.

Every rank has its buffers on a device (several ranks may share one), and the flags, inline lines and mailboxes of program.py
lie in device memory too. A message is pulled where it lies, one copy, over NVLink or PCIe where its ranks are on two devices.
Two ways to walk the programs:

    walk    one cooperative launch runs whole all-reduces; ranks wait for one another by flags in memory (cuda/walk.cu)
    steps   one launch a step, in a graph; the launches' order stands for the flags (one device only)

All ranks are emulated by one process, or each is a process of its own (gpu_ipc.py). The reference NCCL (nccl.py) is measured by
the same session, with one rank a GPU.

``DeviceSession`` has the methods of ``session.Session``, so that the same timed loop measures both. What a device can do is
behind ``Device``: CuPy's is cupy_device.py; tests bring one that runs walk.cu on the CPU.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..collectives import build
from ..collectives.schedule import INPUT, OUTPUT, SCRATCH, Schedule
from ..kernels.cuda_source import THREADS
from ..kernels.dtypes import find_device_dtype
from . import nccl_calls
from .device_programs import Codes, calls, largest_call, steps_of
from .gate import Gate, in_parts
from .interface import Answers, Job, Stalled, Unavailable
from .memory import Connection, Layout
from .nccl import Group, How
from .nvtx import nvtx_range
from .program import EPOCH_SHIFT, MODE_NAMES, Peers, Program, Tuning, causality, lower
from .tuning import GPU_SLICES

# Into a mailbox and out of it are two calls, where a push or a pull is one; but a pull may need an ack, which is as long a wait.
# Steps wait for nothing.
WALK_TUNING, STEPS_TUNING = Tuning(4096, mailbox_saves_ack=True), Tuning(0, inline_lines=0)
# Bytes of a call's result that a block has: a vector a thread, or where that would be more blocks than run at a time two, or all
# four that a thread has in flight (vector.cuh). On an H100 one is 7 to 22 % faster than four at 256 KiB to 1 MiB, and 20 % slower
# at 8 MiB.
BYTES_A_BLOCK = tuple(THREADS * 16 * vectors for vectors in (1, 2, 4))
STEP_BLOCKS_MAX = 1024  # of one row
GOOD_STEPS_MAX = 4096  # more launches than that are not tried
BLOCK_UNIT = 2 << 20  # what CUDA shares with another process is whole allocations of this size
TRIALS = 5
COST_SECONDS, COST_REPEATS_MAX = 50e-6, 64  # of the runs that `costs` compares: at least so long, at most so many


class Device(Protocol):
    """One GPU. Addresses are ints; all work is in the order of one stream, and nothing waits but `download` and `seconds`."""

    name: str
    holds: bool
    """Whether it has `hold`, `pinned` and `fired`: else its times have the host's launches in them."""
    patience: float
    """Seconds that `download` and `seconds` wait for the device before they raise Stalled."""
    id: int
    """Its CUDA ordinal."""
    stream_address: int
    """The CUstream of all its work, for NCCL."""

    def allocate(self, nbytes: int) -> int:
        """Zeroed memory, aligned to 256 bytes, kept until `close`. Raises MemoryError."""

    def release(self, address: int) -> None:
        """Give back what `allocate` gave, when all work is done."""

    def upload(self, address: int, values: np.ndarray) -> None: ...

    def download(self, address: int, dtype: np.dtype, count: int) -> np.ndarray: ...

    def zero(self, address: int, nbytes: int) -> None: ...

    def copy(self, dst: int, src: int, nbytes: int) -> None:
        """The driver's own copy, to compare kernels with."""

    def describe(self) -> dict:
        """What a result's reader must know of the GPU, JSON-ready; has name."""

    def launch(self, kernel: str, dtype: str, arguments: Sequence[int], nbytes: int) -> None:
        """A kernel of the backend by name (kernels/device.py)."""

    def resident_blocks(self, dtype: str, op: str) -> int:
        """Blocks of `walk` that run at the same time; 0 where the device has no cooperative launch."""

    def walk(self, dtype: str, op: str, blocks: int, arguments: Sequence[int]) -> None: ...

    def graph(self, dtype: str, op: str, steps: Sequence[tuple[int, int, int]]) -> Any:
        """Steps of (address of rows, how many, blocks a row), to be launched as one."""

    def launch_graph(self, graph: Any) -> None: ...

    def event(self) -> Any:
        """A point in the stream."""

    def seconds(self, start: Any, end: Any) -> float:
        """Waits for `end`."""

    def fired(self, event: Any) -> bool:
        """Whether the device has come to the event."""

    def pinned(self, nbytes: int) -> int:
        """Host memory that every device reads at the same address, kept until `close`."""

    def hold(self, word: int, turn: int, limit_ns: int) -> None:
        """What follows in the stream begins when the pinned int64 at `word` is `turn` or more, or after `limit_ns`."""

    def here(self) -> AbstractContextManager:
        """A context in which it is the current device, for what other libraries do."""

    def begin_capture(self) -> None:
        """What follows in the stream is kept, not done, until `end_capture`."""

    def end_capture(self) -> Any:
        """A graph for `launch_graph`."""

    def share(self, address: int) -> bytes:
        """A handle of memory of `allocate`, for other processes of this machine. Only for crews of several processes."""

    def reach(self, handle: bytes) -> int:
        """The address here of what another process shares, until `let_go`."""

    def let_go(self, address: int) -> None: ...

    def flush_cache(self) -> None:
        """Put unrelated lines into the last-level cache."""

    def close(self) -> None: ...


@dataclass
class DeviceCrew:
    """Who goes through a session: here one process that has all ranks. gpu_ipc.IpcCrew is of several processes."""

    ranks: int
    transport: str
    devices: list[str]
    activity: str = "start-up"
    is_root: bool = True
    kind: str = "local emulated ranks"
    library: None = None
    pinned: bool = False
    posts: list = field(default_factory=list)
    gpus: list[dict] = field(default_factory=list)  # of ranks elsewhere

    @property
    def mine(self) -> Sequence[int]:
        """The ranks of this process."""
        return range(self.ranks)

    @property
    def hosts(self) -> list[str]:
        """Of each rank."""
        return [os.uname().nodename] * self.ranks

    @property
    def ranks_here(self) -> int:
        """How many ranks want a core of this machine: its one thread drives them all."""
        return 1

    def blocks(self, here: dict[int, tuple[Device, int]]) -> list[int]:
        """The address in this process of every rank's block of memory; here: rank -> (its device, its block), of `mine`."""
        return [here[r][1] for r in range(self.ranks)]

    def barrier(self) -> None: ...

    def all_of(self, value: bool) -> bool:
        """Whether all processes say so. Waits for all."""
        return value

    def total(self, values):
        """The sum over the processes, of a number or an array."""
        return values

    def combine(self, values, how):
        return values

    def agree(self, value):
        return value

    def leave(self, error: BaseException | None) -> None:
        """Before memory is given back: nobody reaches into it any more. error: what ends the session early."""


@dataclass(frozen=True)
class _Loaded:
    """A prepared job on one device: addresses of walk.cu's arguments, and the graph of each parity or None."""

    ranks: tuple[int, ...]
    code: int
    rows_in_all: int
    first: int
    rows: int
    calls: int
    blocks_a_rank: int
    graphs: tuple[Any, Any] | None


class DeviceSession:
    slice_sizes = GPU_SLICES

    def __init__(
        self,
        devices: Sequence[Device],
        ranks: int,
        buffer_bytes: int,
        scratch_bytes: int,
        *,
        way: str = "auto",
        timeout: float = 60.0,
        eager_bytes: int | None = None,
        flush: bool = True,
        open_nccl: Callable[[Sequence[int]], Group] | None = None,
        nccl: How = How(),  # noqa: B008
        crew: DeviceCrew | None = None,
    ):
        """devices: of this process; its i-th rank lives on devices[i * len(devices) // ranks of this process]. way: "walk",
        "steps" or "auto" (the faster one, measured for each job); timeout: seconds one wait on the device may last; flush:
        clear the cache before each sample; open_nccl: ordinal of each rank's device -> NCCL's communicators, for jobs of
        algorithm "nccl", which are measured as `nccl` says; crew: None: all ranks are here.

        Raises Unavailable, MemoryError.
        """
        if way not in ("auto", "walk", "steps"):
            raise Unavailable(f"way {way!r}; accepted: auto, walk, steps")
        self.crew = crew or DeviceCrew(ranks, "device" if len(devices) == 1 else "peer", [d.name for d in devices])
        self._one_device = len(devices) == 1 and len(self.crew.mine) == ranks
        if way == "steps" and not self._one_device:
            raise Unavailable("one launch a step needs all ranks on one device; accepted here: auto, walk")
        self.devices = list(devices)
        for device in self.devices:
            device.patience = 2 * timeout  # one wait may last `timeout`, and what waited for it goes on afterwards
        self.gate = Gate(self.devices, self.crew.all_of)
        self.ranks = ranks
        self.way, self.timeout, self.flush = way, timeout, flush
        asked = None if eager_bytes is None else Tuning(eager_bytes)
        self._tunings = {"walk": asked or WALK_TUNING, "steps": asked or STEPS_TUNING}
        self.buffer_bytes, self.scratch_bytes = buffer_bytes, scratch_bytes
        mine = self.crew.mine
        self.device_of = {r: i * len(devices) // len(mine) for i, r in enumerate(mine)}
        self.job: Job | None = None
        self._programs: dict[str, dict[int, Program]] = {}  # by way, of the ranks of this process
        self.message_modes: dict[str, int] = {}
        self.chosen = ""  # the way the prepared job takes
        self.epoch = 1
        self.fault = self.clock = self.nodes = None  # as session.Session has them
        self._open_nccl, self._nccl, self._how = open_nccl, None, nccl
        self._nccl_buffers: np.ndarray | None = None  # as `buffers`, where NCCL has its own
        self._nccl_graphs: dict[int, list] = {}  # all-reduces of the prepared job in a graph -> each device's

        self._tables = [[d.allocate(256 * 8) for _ in range(2)] for d in self.devices]
        self._counters = [d.allocate(8 * ranks) for d in self.devices]  # of what is wrong, a rank each
        self._arrived = [d.allocate(8 * ranks) for d in self.devices]
        self._code: list[tuple[int, int]] = [(0, 0)] * len(devices)  # address and capacity
        self._shape = [d.allocate(3 * 8 * ranks) for d in self.devices]
        self._share_memory()
        self._loaded: list[_Loaded] = []
        self._walked = 0  # all-reduces of the prepared job by `walk`: what the counters of arrivals have counted

    def _share_memory(self) -> None:
        """A block of memory for each rank of this process, and where all blocks are::

        abort       a word, of rank 0's block, for all
        links       the words and mailboxes of the messages to this rank, from each other
        INPUT, OUTPUT, SCRATCH
        """
        layout = Layout(self.ranks, 0, 0)
        links = layout.connection(0, self.ranks) - layout.connection(0, 0)
        sizes = [256, links, *(max(n, 256) for n in (self.buffer_bytes, self.buffer_bytes, self.scratch_bytes))]
        offsets = np.concatenate([[0], np.cumsum([-(-n // 256) * 256 for n in sizes])])
        block_bytes = -(-int(offsets[-1]) // BLOCK_UNIT) * BLOCK_UNIT
        here = {}
        for r, i in self.device_of.items():
            here[r] = (self.devices[i], self.devices[i].allocate(block_bytes))
        blocks = self.crew.blocks(here)
        self._abort = blocks[0]
        self.buffers = np.zeros((self.ranks, 3), np.int64)
        for which, offset in zip((INPUT, OUTPUT, SCRATCH), offsets[2:]):
            self.buffers[:, which] = np.array(blocks, np.int64) + offset

        def place(holder: int, other: int) -> int:
            return blocks[holder] + int(offsets[1]) + layout.connection(0, other) - layout.connection(0, 0)

        def connection(sender: int, receiver: int) -> Connection:
            # Who waits polls memory of its own: acks lie at the sender, where the opposite connection has no use for its own.
            opposite = Connection(place(sender, receiver), layout.bulk_bytes)
            return Connection(place(receiver, sender), layout.bulk_bytes, acks_at=opposite.ack)

        self._peers = {r: Peers(r, self.buffers, connection) for r in self.crew.mine}

    @property
    def is_root(self) -> bool:
        return self.crew.is_root

    @property
    def described(self) -> list[dict]:
        """The GPUs of this process, as Device.describe tells them."""
        return [device.describe() for device in self.devices]

    @property
    def timing(self) -> str:
        """How times are taken, for whoever reads them."""
        return "CUDA events, behind a gate" if self.gate.holds else "CUDA events, the host's launches between them"

    @property
    def refused_times(self) -> int:
        """Samples that had the host in them, and were taken again."""
        return self.gate.refused

    @property
    def itemsize(self) -> int:
        return find_device_dtype(self.job.dtype).itemsize

    @property
    def nbytes(self) -> int:
        return self.job.elements(self.ranks) * self.itemsize

    def prepare(self, job: Job, schedule: Schedule | None = None) -> None:
        """As interface.Session.prepare: lower the job, put its programs on the devices, and choose the way."""
        d = find_device_dtype(job.dtype)
        nbytes = job.elements(self.ranks) * d.itemsize
        if nbytes > self.buffer_bytes:
            raise Unavailable(f"{nbytes} bytes, but the session was opened for {self.buffer_bytes}")
        if job.in_place and not job.of.in_place:
            raise Unavailable(f"{job.collective} has no in-place form; accepted: out of place")
        if job.algorithm == "nccl":
            self._prepare_nccl(job)
            return
        schedule = schedule or build(
            job.algorithm, self.ranks, job.count, collective=job.of, root=job.root,
            channels=job.channels, slices=job.slices, in_place=job.in_place, nodes=job.nodes,
        )  # fmt: skip
        if schedule.scratch * d.itemsize > self.scratch_bytes:
            raise Unavailable(
                f"{job.algorithm} needs {schedule.scratch * d.itemsize} bytes of scratch a rank, but the session was opened "
                f"for {self.scratch_bytes}"
            )
        self.job = job
        known = causality(schedule)
        stepwise = self.way != "walk" and self._one_device
        self._programs = {
            way: {
                r: lower(schedule, known, peers, Codes(), d.itemsize, self._tunings[way])
                for r, peers in self._peers.items()
            }
            for way in ("walk", *("steps",) * stepwise)
        }
        self._say_done()
        resident = min(device.resident_blocks(d.name, job.op) for device in self.devices)
        most = max(Counter(self.device_of.values()).values())
        can_walk = self.crew.all_of(resident >= most)
        if self.way == "walk" and not can_walk:
            raise Unavailable(
                f"{most} ranks on one device need as many blocks that run at once, but {resident} do; accepted: --ranks "
                f"{resident * len(self.devices)} or fewer, or one launch a step"
            )
        self._loaded = [self._load(i, max(1, resident), most, stepwise) for i in range(len(self.devices))]
        self._walked = 0
        for i, device in enumerate(self.devices):
            device.zero(self._arrived[i], 8 * self.ranks)
        ways = [w for w, ok in (("walk", can_walk), ("steps", self._loaded[0].graphs is not None)) if ok]
        if self.way in ways:
            ways = [self.way]
        if not ways:
            raise Unavailable(f"{self.ranks} ranks do not fit on {len(self.devices)} devices at once")
        if len(ways) > 1:
            self.chosen = min(ways, key=self._trial)
            self._say_done()
        else:
            self.chosen = ways[0]
        modes = self.crew.total(np.sum([p.modes for p in self.programs.values()], axis=0))
        self.message_modes = {name: int(n) for name, n in zip(MODE_NAMES, modes) if n}  # and all ranks are prepared

    def _say_done(self) -> None:
        """Before the first walk, also after steps, which post nothing: every all-reduce until now is over (Program.done)."""
        over = np.array([(self.epoch - 1 << EPOCH_SHIFT) + 1], np.int64)
        for r, program in self._programs["walk"].items():
            for address in program.done:
                self.devices[self.device_of[r]].upload(address, over)

    @property
    def programs(self) -> dict[int, Program]:
        """What the prepared job does, of each rank of this process; {}: not ours to say."""
        return self._programs.get(self.chosen, {})

    def _prepare_nccl(self, job: Job) -> None:
        if self._open_nccl is None:
            raise Unavailable("--algo nccl goes through CuPy; accepted: with --backend cupy")
        nccl_calls.check(job)
        if self._nccl is None:
            self._nccl = self._open_nccl([self.devices[i].id for i in self.device_of.values()])
        self._nccl_codes = self._nccl.codes(job.dtype, job.op)
        if self._how.register and self._nccl_buffers is None:
            self._nccl_buffers = self.buffers.copy()
            here = [self.devices[i].here() for i in self.device_of.values()]
            for which in (INPUT, OUTPUT):
                made = self._nccl.buffers(here, max(self.buffer_bytes, 256), self._how.register)
                self._nccl_buffers[list(self.device_of), which] = made
        self._nccl_graphs.clear()
        self.job, self._programs, self.message_modes, self._loaded, self.chosen = job, {}, {}, [], "nccl"

    def _address(self, rank: int, which: int) -> int:
        """Where the prepared job has a rank's INPUT or OUTPUT."""
        own = self.job.algorithm == "nccl" and self._nccl_buffers is not None
        return int((self._nccl_buffers if own else self.buffers)[rank, which])

    def _blocks(self, largest: int, side_by_side: int, resident: int) -> int:
        """Blocks for each of `side_by_side` calls that run at the same time, of which the largest has so many bytes of result."""
        wanted = [max(1, -(-largest // nbytes)) for nbytes in BYTES_A_BLOCK]
        return next((blocks for blocks in wanted if blocks * side_by_side <= resident), wanted[-1])

    def _load(self, index: int, resident: int, most: int, stepwise: bool) -> _Loaded:
        """resident: blocks that run at a time; most: ranks that share a device."""
        device = self.devices[index]
        mine = tuple(r for r in self.crew.mine if self.device_of[r] == index)
        walks = [self._programs["walk"][r] for r in mine]
        codes = [program.code for program in walks]
        both = np.concatenate([np.concatenate([c[parity] for c in codes]) for parity in (0, 1)])
        steps = None
        if stepwise:
            stepped = self._programs["steps"]
            steps = [steps_of([stepped[r].code[parity] for r in mine]) for parity in (0, 1)]
            if len(steps[0]) > GOOD_STEPS_MAX and self.way != "steps":
                steps = None
        rows = [len(c[0]) for c in codes]
        shape = np.zeros((3, self.ranks), np.int64)
        shape[0, : len(mine)] = np.concatenate([[0], np.cumsum(rows)[:-1]])
        shape[1, : len(mine)] = rows
        shape[2, : len(mine)] = [calls(program) for program in walks]
        code = self._room(index, both.nbytes + sum(step.nbytes for of_parity in steps or () for step in of_parity))
        device.upload(code, both)
        device.upload(self._shape[index], shape)
        graphs = None
        if steps is not None:
            op, at = self.job.op, code + both.nbytes
            made = []
            for of_parity in steps:
                listed = []
                for step in of_parity:
                    largest = largest_call(step, self.itemsize)
                    blocks = min(STEP_BLOCKS_MAX, self._blocks(largest, len(step), resident))
                    device.upload(at, step)
                    listed.append((at, len(step), blocks))
                    at += step.nbytes
                made.append(device.graph(self._dtype, op, listed))
            graphs = (made[0], made[1])
        largest = max(largest_call(p.code[0], self.itemsize) for p in self._programs["walk"].values())
        blocks_a_rank = max(1, min(resident // most, self._blocks(largest, most, resident)))
        base, stride = self._shape[index], 8 * self.ranks
        return _Loaded(mine, code, both.shape[0] // 2, base, base + stride, base + 2 * stride, blocks_a_rank, graphs)

    @property
    def _dtype(self) -> str:
        return find_device_dtype(self.job.dtype).name

    def _room(self, index: int, nbytes: int) -> int:
        address, capacity = self._code[index]
        if nbytes > capacity:
            address = self.devices[index].allocate(2 * nbytes)
            self._code[index] = (address, 2 * nbytes)
        return address

    def _trial(self, way: str) -> float:
        self.chosen = way
        self._enqueue(1)
        return self._median(1)

    def _median(self, inner: int, *, launch_each: bool = False) -> float:
        return float(np.median([self._seconds(inner, launch_each=launch_each) for _ in range(TRIALS)]))

    def costs(self) -> dict[str, float]:
        """What an all-reduce of the prepared job costs, in seconds, caches warm: "slope", (t(2k) - t(k)) / k of k all-reduces
        in a row, which no launch or event is in; "launch_each", with a launch of its own, as NCCL has; "one_launch", of many
        in one launch, where the way has that."""
        self.run()
        first = self._median(1)
        k = max(1, min(COST_REPEATS_MAX, int(COST_SECONDS / max(first, 1e-9))))
        some, twice = self._median(k), self._median(2 * k)
        found = {"slope": (twice - some) / k, "launch_each": twice / (2 * k)}
        if self.chosen == "walk" or (self.chosen == "nccl" and self._how.graph):
            found |= {"launch_each": self._median(2 * k, launch_each=True) / (2 * k), "one_launch": twice / (2 * k)}
        return found

    def fill(self, table: Callable[[int], np.ndarray], start: int = 0) -> None:
        """As interface.Session.fill."""
        size, job = self.itemsize, self.job
        counts, inputs = job.buffer_counts(self.ranks), job.inputs(self.ranks)
        for r, i in self.device_of.items():
            device, (first, second) = self.devices[i], self._tables[i]
            given = inputs[inputs[:, 0] == r]
            device.upload(first, np.frombuffer(b"\xa5" * (256 * size), np.uint8))
            device.upload(second, np.ascontiguousarray(table(r)))
            for which in (OUTPUT,) if len(given) and not job.in_place else (INPUT, OUTPUT):
                if counts[which]:
                    arguments = (self._address(r, which), first, counts[which], 0)
                    device.launch(f"fill_{size}", "uint8", arguments, counts[which] * size)
            for _, at, n in given.tolist():
                where = self._address(r, OUTPUT if job.in_place else INPUT) + at * size
                device.launch(f"fill_{size}", "uint8", (where, second, n, start), n * size)

    def check(self, answers: Answers, start: int = 0) -> int:
        """As interface.Session.check."""
        return int(self.check_each(answers, start).sum())

    def check_each(self, answers: Answers, start: int = 0) -> np.ndarray:
        """As interface.Session.check_each."""
        size, outputs = self.itemsize, self.job.outputs(self.ranks)
        outputs = outputs[np.isin(outputs[:, 0], list(self.device_of))]
        for device, counters in zip(self.devices, self._counters):
            device.zero(counters, 8 * self.ranks)
        for contributor in np.unique(outputs[:, 4]).tolist():
            tables = [np.ascontiguousarray(t) for t in answers.answer(contributor)]
            for device, addresses in zip(self.devices, self._tables):
                for address, values in zip(addresses, tables):
                    device.upload(address, values)
            for r, at, n, source, _ in outputs[outputs[:, 4] == contributor].tolist():
                i = self.device_of[r]
                where = self._address(r, OUTPUT) + at * size
                arguments = (where, *self._tables[i], n, start + source, self._counters[i] + 8 * r)
                self.devices[i].launch("check_range", self._dtype, arguments, n * size)
        counted = [d.download(at, np.dtype(np.uint64), self.ranks) for d, at in zip(self.devices, self._counters)]
        return self.crew.total(np.sum(counted, axis=0))

    def write(self, rank: int, which: int, values: np.ndarray) -> None:
        """Put values into the buffer of a rank of this process; for tests and examples."""
        self.devices[self.device_of[rank]].upload(self._address(rank, which), np.ascontiguousarray(values))

    def read(self, rank: int, which: int) -> np.ndarray:
        d = find_device_dtype(self.job.dtype)
        return self.devices[self.device_of[rank]].download(self._address(rank, which), d.storage, self.job.count)

    def run(self) -> None:
        """One all-reduce, untimed. Raises Stalled."""
        self._enqueue(1)
        self._look()

    def _enqueue(self, inner: int, *, launch_each: bool = False) -> None:
        """Put `inner` all-reduces into the devices' streams; launch_each: walk with a launch for each, too."""
        if self.chosen == "nccl":
            self._run_nccl(inner)
            return
        if self.chosen == "steps":
            for e in range(self.epoch, self.epoch + inner):
                self.devices[0].launch_graph(self._loaded[0].graphs[e & 1])
            self.epoch += inner
            return
        for part in [1] * inner if launch_each else [inner]:
            self._walk(part)

    def _run_nccl(self, inner: int) -> None:
        buffers = [(self._address(r, INPUT), self._address(r, OUTPUT)) for r in self.crew.mine]
        streams = [self.devices[i].stream_address for i in self.device_of.values()]
        for _ in range(inner):
            self._nccl.run(
                self.job, self.ranks, list(self.crew.mine), buffers, self.itemsize, self._nccl_codes, streams
            )

    def _nccl_graph(self, inner: int) -> list:
        """A graph of `inner` all-reduces for each device, captured once a job."""
        if inner not in self._nccl_graphs:
            for device in self.devices:
                device.begin_capture()
            try:
                self._run_nccl(inner)
            finally:
                self._nccl_graphs[inner] = [device.end_capture() for device in self.devices]
        return self._nccl_graphs[inner]

    def _launch_nccl_graphs(self, graphs: list, times: int) -> None:
        for _ in range(times):
            for device, graph in zip(self.devices, graphs):
                device.launch_graph(graph)

    def _seconds_of_nccl(self, inner: int) -> float:
        """As `_seconds`, in the way that `How` says."""
        if self._how.blocking:
            self._finish()
            self.crew.barrier()
            began = time.perf_counter()
            for _ in range(inner):
                self._run_nccl(1)
                self._finish()
            return time.perf_counter() - began
        graphs = self._nccl_graph(inner)
        launches = self._how.graph
        taken = sum(
            self.gate.seconds(lambda part=part: self._launch_nccl_graphs(graphs, part))
            for part in in_parts(launches, 1)
        )
        return taken / launches

    def _finish(self) -> None:
        """Wait for all work of this process."""
        for device, counters in zip(self.devices, self._counters):
            device.download(counters, np.dtype(np.int64), 1)

    def _walk(self, inner: int) -> None:
        epoch = self.epoch
        for i, (device, job) in enumerate(zip(self.devices, self._loaded)):
            if not job.ranks:
                continue
            arguments = (
                job.code, job.rows_in_all, job.first, job.rows, job.calls, self._arrived[i], job.blocks_a_rank,
                epoch - self._walked, epoch, inner, self._abort, int(self.timeout * 1e9),
            )  # fmt: skip
            device.walk(self._dtype, self.job.op, job.blocks_a_rank * len(job.ranks), arguments)
        self.epoch += inner
        self._walked += inner

    def _look(self) -> None:
        """Wait for all work, of all processes, and raise Stalled where a wait on the device ran out of patience."""
        self._finish()
        if self._nccl is not None and (problem := self._nccl.failed()):
            raise RuntimeError(f"NCCL: {problem}")
        self.crew.barrier()  # now nobody reads others' buffers any more, and the word that follows is the last word
        if self.devices[0].download(self._abort, np.dtype(np.int64), 1)[0]:
            raise Stalled(f"a rank did not get on within {self.timeout:g} s (--timeout) during {self.crew.activity}")

    def _seconds(self, inner: int, *, launch_each: bool = False) -> float:
        """Seconds of `inner` all-reduces in a row, on the slowest device."""
        if self.chosen == "nccl" and (self._how.blocking or self._how.graph) and not launch_each:
            return self._seconds_of_nccl(inner)
        launches = 0 if self.chosen == "walk" and not launch_each else 1
        return sum(
            self.gate.seconds(lambda part=part: self._enqueue(part, launch_each=launch_each))
            for part in in_parts(inner, launches)
        )

    def _sample(self, inner: int) -> float:
        """Seconds an all-reduce of one sample."""
        if self.flush:
            for device in self.devices:
                device.flush_cache()
        return self._seconds(inner) / inner

    def time(self, samples: int, inner: int, across: str = "max", fresh: bool = False) -> tuple[np.ndarray, int]:
        """Time samples of `inner` all-reduces each, by events on the devices (gate.py): float64 seconds, and 0 late starts.

        across: how the times of several processes make one; fresh: of ranks with caches of their own, and changes nothing here.
        """
        with nvtx_range(f"{self.crew.activity}, {self.chosen}, {samples} x {inner}"):
            out = np.array([self._sample(inner) for _ in range(samples)])
            self._look()
        return self.crew.combine(out, across), 0

    def time_each(self, samples: int, inner: int) -> np.ndarray:
        """As interface.Session.time_each; ranks of one process have one time, from the start all devices share."""
        taken = np.zeros((self.ranks, samples))
        taken[list(self.crew.mine)] = [self._sample(inner) for _ in range(samples)]
        self._look()
        return self.crew.total(taken)

    def abort(self, error: BaseException) -> None:
        self.crew.leave(error)
        with suppress(Exception):  # of a device that is broken, which is what `error` says
            self._close_devices()

    def close(self) -> None:
        self.crew.leave(None)
        self._close_devices()

    def _close_devices(self) -> None:
        with ExitStack() as all_of_them:
            for device in self.devices:
                all_of_them.callback(device.close)
            if self._nccl is not None:
                all_of_them.callback(self._nccl.close)
                self._nccl = None
            self._nccl_graphs.clear()
