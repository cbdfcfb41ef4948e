"""A session: one set of ranks, ready to run, time and check all-reduces.

``Session`` is written once. Who the ranks are is a *crew*: ``shared.LocalCrew`` (threads of this process) or
``mpi.MpiCrew`` (this process is one rank of an MPI job). Every method is called by all processes of the crew, in the
same order, and returns the same answer in each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..collectives import build
from ..collectives.schedule import INPUT, OUTPUT, SCRATCH, Schedule
from ..errors import UserError
from ..kernels import cpu
from ..kernels.dtypes import find_dtype
from .clock import Clock, Timekeeper, stamps_needed
from .compiling import compile_library_timing, compile_walker, in_turn
from .fault import Fault
from .memory import ABORT, SAMPLES_MAX, Arena
from .program import MODE_NAMES, Causality, Peers, Program, Tuning, causality, lower
from .tuning import streaming
from .walker import (
    ABORTED,
    DELAYS,
    OK,
    PACE,
    PACED_NS,
    PACED_START,
    PORTS_FREE,
    TIME,
    barrier,
    time_block,
    time_library,
    walk,
)

REFERENCES = ("mpi-native", "numpy", "nccl")  # measured beside ours; they have no schedule


class Stalled(RuntimeError):
    """Ranks did not come back in time; the message names them."""


class Unavailable(UserError):
    """This job cannot be run by this session; the message says why and what would be accepted."""


@dataclass(frozen=True)
class Job:
    """One all-reduce: count elements of dtype reduced with op by an algorithm."""

    algorithm: str
    count: int
    dtype: str
    op: str
    in_place: bool = False
    channels: int = 1
    slices: int = 1


@dataclass
class Post:
    """One rank's place in this process: what the compiled functions need. `index`: its number on the host."""

    rank: int
    index: int
    state: np.ndarray
    mpi: np.ndarray
    flag: np.ndarray
    peers: Peers
    requests: Callable[[int], None]  # makes room for that many MPI requests
    clock: np.ndarray | None = None  # the virtual clock's, where the session has one


@dataclass(frozen=True)
class VirtualTimes:
    """What the virtual clocks showed.

    finish: int64 [samples, ranks] ps, when each rank's clock stopped; wall: float64 [samples, ranks] seconds from the start to
    the end of each rank's paced all-reduce, or None.
    """

    finish: np.ndarray
    wall: np.ndarray | None


class Crew(Protocol):
    """The ranks, and how they talk outside the timed region."""

    ranks: int
    transport: str  # "shared", "mpi" or "hybrid"
    is_root: bool
    posts: list[Post]
    arena: Arena
    ranks_here: int
    masks: list[list[int]]  # the cores that each rank of this machine may run on
    meetings: list[tuple[str, int, list[int]]]  # (host, core, ranks) where ranks are bound to one core all the same
    activity: str  # what is being measured, for messages

    def each(self, work: Callable[[Post], object]) -> list:
        """Run `work` for every rank of this process at once; raises Stalled after the time-out."""

    def combine(self, values: np.ndarray, how: str) -> np.ndarray:
        """Combine an array over the processes of the crew; how: "sum", "max", "min", "mean" (equal ranks each),
        "first" (the root's)."""

    def agree(self, value):
        """The root's value, in every process."""

    def close(self) -> None: ...


class Session:
    def __init__(
        self,
        crew: Crew,
        *,
        eager_bytes: int | None = None,
        cache_bytes: int = 32 << 20,
        fault: Fault | None = None,
        clock: Clock | None = None,
    ):
        """cache_bytes: the last-level cache; larger working sets are written around it. fault: for tests. clock: gives the
        ranks virtual clocks; the crew's arena needs room for its stamps. Raises Unavailable."""
        self.fault = fault
        self.crew = crew
        self.eager_bytes = eager_bytes if eager_bytes is not None else Tuning.eager_bytes
        self.cache_bytes = cache_bytes
        self.epoch = 1
        self.turn = 1
        self.job: Job | None = None
        self.programs: list[Program] = []
        self._library: np.ndarray | None = None
        self._compiled: set[tuple] = set()
        self._plans: dict[tuple, tuple[Schedule, Causality]] = {}
        self.clock = clock
        self._timekeepers: list[Timekeeper] = []
        if clock:
            if clock.ranks != crew.ranks:
                raise Unavailable(f"the virtual clock is of {clock.ranks} ranks, but there are {crew.ranks}")
            for post in crew.posts:
                post.clock = np.zeros(PORTS_FREE + 2 * clock.ports, np.int64)
        compile_walker(crew.posts[0])

    @property
    def ranks(self) -> int:
        return self.crew.ranks

    @property
    def is_root(self) -> bool:
        return self.crew.is_root

    @property
    def message_modes(self) -> dict[str, int]:
        """How many messages of the prepared job move in which way, over the ranks of this process."""
        totals = np.sum([p.modes for p in self.programs], axis=0) if self.programs else np.zeros(len(MODE_NAMES), int)
        return {name: int(n) for name, n in zip(MODE_NAMES, totals) if n}

    def prepare(self, job: Job) -> None:
        """Get ready to run `job`; nothing of this is timed. Raises Unavailable."""
        d = find_dtype(job.dtype)
        nbytes = job.count * d.itemsize
        if nbytes > self.crew.arena.layout.buffer_bytes:
            raise Unavailable(f"{nbytes} bytes, but the session was opened for {self.crew.arena.layout.buffer_bytes}")
        self.job = job
        self.programs = []
        self._timekeepers = []
        self._library = None
        if self.clock and job.algorithm in REFERENCES:
            raise Unavailable(f"{job.algorithm} has no schedule that a virtual clock could follow")
        if job.algorithm == "numpy":
            if self.crew.ranks_here != self.ranks:
                raise Unavailable("numpy reduces in one process, so it needs all ranks on one host")
            if d.name == "bfloat16":
                raise Unavailable("numpy has no bfloat16; accepted with --algo numpy: every other dtype")
            return
        if job.algorithm == "mpi-native":
            library = getattr(self.crew, "library_arguments", None)
            if library is None:
                raise Unavailable("mpi-native is MPI_Allreduce and needs an MPI job: mpirun -np 2 busbw sweep ...")
            self._library = library(job)
            compile_library_timing(self.crew.posts[0])
            return
        schedule, known = self._plan(job)
        if schedule.scratch * d.itemsize > self.crew.arena.layout.scratch_bytes:
            raise Unavailable(
                f"{job.algorithm} needs {schedule.scratch * d.itemsize} bytes of scratch a rank, but the session was "
                f"opened for {self.crew.arena.layout.scratch_bytes}"
            )
        stamps = stamps_needed(schedule.tables) if self.clock else 0
        if stamps > self.crew.arena.layout.stamps:
            raise Unavailable(
                f"{job.algorithm} sends {stamps} messages a rank, but the session was opened with room for the virtual times "
                f"of {self.crew.arena.layout.stamps}"
            )
        kernels = cpu.pointers(job.op, job.dtype)
        working_set = self.crew.ranks_here * nbytes * (1 if job.in_place else 2)
        tuning = Tuning(self.eager_bytes, streaming(working_set, self.cache_bytes))

        def lower_one(post: Post) -> Program:
            timekeeper = None
            if self.clock:
                timekeeper = Timekeeper(schedule.algorithm, known, post.peers, self.clock, d.itemsize)
                self._timekeepers.append(timekeeper)
            program = lower(schedule, known, post.peers, kernels, d.itemsize, tuning, timekeeper)
            post.requests(program.requests)
            return program

        # Lowering compiles the kernels that a program calls; which these are, follows from this.
        kernels_of = (job.op, d.name, job.algorithm, job.in_place, tuning.streaming)
        with nullcontext() if kernels_of in self._compiled else in_turn(f"{job.op}-{d.name}"):
            if kernels_of not in self._compiled:
                cpu.fill_pointer(d.itemsize)
                cpu.check_pointer(d)
            self.programs = [lower_one(post) for post in self.crew.posts]
        self._compiled.add(kernels_of)

    def _plan(self, job: Job) -> tuple[Schedule, Causality]:
        key = (job.algorithm, job.count, job.in_place, job.channels, job.slices)
        if key not in self._plans:
            schedule = build(
                job.algorithm, self.ranks, job.count, channels=job.channels, slices=job.slices, in_place=job.in_place
            )
            if len(self._plans) > 8:
                self._plans.clear()
            self._plans[key] = (schedule, causality(schedule))
        return self._plans[key]

    def fill(self, table: Callable[[int], np.ndarray], start: int = 0) -> None:
        """Fill every rank's input with its pattern and its output with something else.

        table: rank -> 256 elements of the storage dtype; start: added to the element index.
        """
        job = self.job
        d = find_dtype(job.dtype)

        def work(post: Post):
            where = OUTPUT if job.in_place else INPUT
            if not job.in_place:
                cpu.fill(self._array(post, OUTPUT), np.frombuffer(b"\xa5" * (256 * d.itemsize), d.storage))
            cpu.fill(self._array(post, where), table(post.rank), start)

        self.crew.each(work)

    def check(self, low: np.ndarray, high: np.ndarray, start: int = 0) -> int:
        """Elements of all ranks' outputs outside [low, high] of the pattern (tables of 256)."""
        job = self.job

        def work(post: Post):
            if self.fault and self.fault.hits("corrupt", post.rank, self.nbytes):
                self._array(post, OUTPUT).view(np.uint8)[-1] ^= 0x40
            return cpu.check(self._array(post, OUTPUT), low, high, start, job.dtype)

        wrong = sum(self.crew.each(work))
        return int(self.crew.combine(np.array([wrong], np.float64), "sum")[0])

    @property
    def itemsize(self) -> int:
        """Bytes an element of the prepared job."""
        return find_dtype(self.job.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the prepared job's message."""
        return self.job.count * self.itemsize

    def _array(self, post: Post, which: int) -> np.ndarray:
        return self.crew.arena.array(post.index, which, find_dtype(self.job.dtype).storage, self.job.count)

    def run(self) -> None:
        """One all-reduce, untimed."""
        if self.job.algorithm in REFERENCES:
            self.time(1, 1)
            return
        epoch = self.epoch
        self.epoch += 1

        def work(post: Post):
            if self.fault:
                self.fault.strike(post.rank, self.nbytes, lambda: self.crew.arena.word(ABORT).value)
            program = self._program_of(post)
            return walk(program.code[epoch & 1], epoch, post.state, post.mpi, post.flag, post.clock)

        self._all_ok(self.crew.each(work))

    def time(self, samples: int, inner: int, across: str = "max", fresh: bool = False) -> tuple[np.ndarray, int]:
        """Time `samples` samples of `inner` all-reduces each; fresh: every rank rewrites its input before each sample.

        Returns (float64 seconds an all-reduce, combined over the ranks by `across`; how many samples some rank began
        late).
        """
        samples = min(samples, SAMPLES_MAX)
        epoch, turn = self.epoch, self.turn
        self.turn += samples
        if self.job.algorithm == "numpy":
            return self._time_numpy(samples, inner), 0
        if self._library is None:
            self.epoch += samples * inner
        copy = cpu.pointers("sum", "float32").copy if fresh else 0

        def work(post: Post):
            out = self.crew.arena.samples(post.index)
            source = post.peers.buffers[post.rank, OUTPUT if self.job.in_place else INPUT]
            rewritten = np.array([copy, source, self.nbytes], np.int64)
            if self._library is not None:
                status, late = time_library(
                    self._library, turn, out, samples, inner, rewritten, post.state, post.mpi, post.flag
                )
            else:
                code = self._program_of(post).code
                status, late = time_block(
                    code, epoch, turn, out, samples, inner, rewritten, post.state, post.mpi, post.flag, post.clock
                )
            return status, late, out[:samples].copy()

        results = self.crew.each(work)
        self._all_ok([status for status, _, _ in results])
        taken = np.array([s for _, _, s in results])
        here = (
            taken[0] if across == "first" else {"max": taken.max, "min": taken.min, "mean": taken.mean}[across](axis=0)
        )
        late = self.crew.combine(np.array([max(late for _, late, _ in results)], np.float64), "max")
        return self.crew.combine(here, across), int(late[0])

    def virtual(self, samples: int, first: int = 0, pace: float = 0.0) -> VirtualTimes:
        """Run `samples` all-reduces under the virtual clock, with the network's noise of samples first, first + 1, ...

        pace: how many wall-clock seconds a virtual second shall last; 0: do not hold anything back.
        """
        finish = np.zeros((samples, self.ranks), np.int64)
        wall = np.zeros((samples, self.ranks))
        for sample in range(samples):
            epoch, turn = self.epoch, self.turn
            self.epoch += 1
            self.turn += 1
            self._all_ok(self.crew.each(lambda post: self._virtual(post, epoch, turn, first + sample, pace)))  # noqa: B023
            for post in self.crew.posts:
                finish[sample, post.rank] = post.clock[TIME]
                wall[sample, post.rank] = post.clock[PACED_NS] * 1e-9
        return VirtualTimes(self.crew.combine(finish, "sum"), self.crew.combine(wall, "sum") if pace else None)

    def _virtual(self, post: Post, epoch: int, turn: int, sample: int, pace: float) -> int:
        receives = self._timekeepers[self.crew.posts.index(post)].receives
        delays = np.ascontiguousarray(self.clock.delays(post.rank, receives, sample), np.int64)
        clock = post.clock
        clock[DELAYS] = delays.ctypes.data
        clock[PACE] = round(pace * 1e9)
        if pace:
            status, clock[PACED_START] = barrier(turn, post.state, post.mpi, post.flag)
            if status != OK:
                return status
        status = walk(self._program_of(post).code[epoch & 1], epoch, post.state, post.mpi, post.flag, clock)
        clock[DELAYS] = clock[PACE] = 0  # for runs without a sample's number
        return status

    def _program_of(self, post: Post) -> Program:
        return self.programs[self.crew.posts.index(post)]

    def _all_ok(self, statuses) -> None:
        for status in statuses:
            if status == ABORTED:
                raise Stalled("the all-reduce was aborted")
            if status != OK:
                raise RuntimeError("the MPI library reported an error in a point-to-point call")

    def _time_numpy(self, samples: int, inner: int) -> np.ndarray:
        """The naive floor: one thread, NumPy, result copied to every rank."""
        job = self.job
        d = find_dtype(job.dtype)
        reduce = {"sum": np.add, "avg": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum}[job.op]
        arena = self.crew.arena
        out = np.zeros(samples)

        def work(post: Post):
            if post.rank != 0:
                return
            inputs = [
                arena.array(i, OUTPUT if job.in_place else INPUT, d.storage, job.count) for i in range(self.ranks)
            ]
            outputs = [arena.array(i, OUTPUT, d.storage, job.count) for i in range(self.ranks)]
            with np.errstate(all="ignore"):
                for s in range(samples):
                    start = time.perf_counter()
                    for _ in range(inner):
                        if self.ranks == 1:
                            np.copyto(outputs[0], inputs[0])
                        else:
                            reduce(inputs[0], inputs[1], out=outputs[0])
                        for x in inputs[2:]:
                            reduce(outputs[0], x, out=outputs[0])
                        if job.op == "avg":
                            kind = np.floor_divide if d.storage.kind in "iu" else np.divide
                            kind(outputs[0], self.ranks, out=outputs[0])
                        for y in outputs[1:]:
                            np.copyto(y, outputs[0])
                    out[s] = (time.perf_counter() - start) / inner

        self.crew.each(work)
        return self.crew.combine(out, "max")

    def abort(self, error: BaseException) -> None:
        """Make every walker of this host return at its next look; of a stall over several hosts, say whose it is."""
        word = self.crew.arena.word(ABORT)
        word.value = word.value or 1
        if isinstance(error, Stalled) and hasattr(self.crew, "explain_stall"):
            self.crew.explain_stall()

    def close(self) -> None:
        self.crew.close()


def buffer_table(arena: Arena, ranks: int, rank_of_index: list[int]) -> np.ndarray:
    """Peers.buffers for ranks of one host: addresses of INPUT, OUTPUT, SCRATCH; 0 for ranks elsewhere."""
    table = np.zeros((ranks, 3), np.int64)
    for index, rank in enumerate(rank_of_index):
        for which in (INPUT, OUTPUT, SCRATCH):
            table[rank, which] = arena.buffer(index, which)
    return table
