"""A session of ranks on CPUs (interface.Session), over memory that they share and MPI between hosts.

``Session`` is written once. Who the ranks are is a *crew*: ``shared.LocalCrew`` (threads of this process) or
``mpi.MpiCrew`` (this process is one rank of an MPI job). Every method is called by all processes of the crew, in the
same order, and returns the same answer in each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..collectives import build
from ..collectives.nodes import Nodes
from ..collectives.schedule import INPUT, OUTPUT, SCRATCH, Schedule
from ..kernels import cpu
from ..kernels.dtypes import find_dtype
from .clock import Clock, Timekeeper, stamps_needed
from .compiling import compile_walker, in_turn
from .fault import Fault
from .interface import REFERENCES, Answers, Job, Reference, Stalled, Unavailable
from .memory import ABORT, SAMPLES_MAX, Arena
from .numpy_reference import NumpyReference
from .program import EPOCH_SHIFT, MODE_NAMES, Causality, Peers, Program, Tuning, causality, lower
from .tuning import CPU_SLICES, DEPTH, INLINE_LINES, streaming
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
    publish,
    time_block,
    walk,
)


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
    the end of each rank's paced collective, or None.
    """

    finish: np.ndarray
    wall: np.ndarray | None


class Crew(Protocol):
    """The ranks, and how they talk outside the timed region."""

    ranks: int
    transport: str  # "shared", "mpi" or "hybrid"
    kind: str  # "MPI ranks" or "local emulated ranks"
    hosts: list[str]  # of each rank
    library: str | None  # what is between them, where it is not ours
    pinned: bool
    is_root: bool
    mine: Sequence[int]  # the ranks of this process
    posts: list[Post]  # and what each has, in the same order
    arena: Arena
    ranks_here: int
    masks: list[list[int]]  # the cores that each rank of this machine may run on
    meetings: list[tuple[str, int, list[int]]]  # (host, core, ranks) where ranks are bound to one core all the same
    activity: str  # what is being measured, for messages
    references: dict[str, Callable[[Crew], Reference]]  # that only these ranks have

    def each(self, work: Callable[[Post], object]) -> list:
        """Run `work` for every rank of this process at once; raises Stalled after the time-out."""

    def combine(self, values: np.ndarray, how: str) -> np.ndarray:
        """Combine an array over the processes of the crew; how: "sum", "max", "min", "mean" (equal ranks each),
        "first" (the root's)."""

    def agree(self, value):
        """The root's value, in every process."""

    def explain_stall(self) -> None:
        """After an abort, where ranks of others are waited for: name who is not there."""

    def close(self) -> None: ...


class Session:
    slice_sizes = CPU_SLICES

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
        self._references: dict[str, Reference] = {
            name: make(crew) for name, make in {"numpy": NumpyReference, **crew.references}.items()
        }
        self._reference: Reference | None = None
        self._compiled: set[tuple] = set()
        self._plans: dict[Job, tuple[Schedule, Causality]] = {}
        self.clock = clock
        self.nodes: Nodes = None
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

    def prepare(self, job: Job, schedule: Schedule | None = None) -> None:
        """As interface.Session.prepare."""
        d = find_dtype(job.dtype)
        nbytes = job.elements(self.ranks) * d.itemsize
        if nbytes > self.crew.arena.layout.buffer_bytes:
            raise Unavailable(f"{nbytes} bytes, but the session was opened for {self.crew.arena.layout.buffer_bytes}")
        if job.in_place and not job.of.in_place:
            raise Unavailable(f"{job.collective} has no in-place form; accepted: out of place")
        self.job = job
        self.programs = []
        self._timekeepers = []
        self._reference = None
        if job.algorithm in REFERENCES:
            if self.clock:
                raise Unavailable(f"{job.algorithm} has no schedule that a virtual clock could follow")
            if job.algorithm not in self._references:
                raise Unavailable(
                    f"{job.algorithm} is not to be had here; accepted: {', '.join(self._references)}"
                    + (
                        "; mpi-native in an MPI job: mpirun -np 2 busbw sweep ..."
                        if job.algorithm == "mpi-native"
                        else ""
                    )
                )
            self._references[job.algorithm].prepare(job)
            self._reference = self._references[job.algorithm]
            return
        schedule, known = (schedule, causality(schedule)) if schedule else self._plan(job)
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
        working_set = self.crew.ranks_here * sum(job.buffer_counts(self.ranks)) * d.itemsize
        depth = 2 if self.clock else DEPTH
        tuning = Tuning(
            self.eager_bytes, streaming(working_set, self.cache_bytes), INLINE_LINES, depth=depth, ahead=True
        )

        def lower_one(post: Post) -> Program:
            timekeeper = None
            if self.clock:
                timekeeper = Timekeeper(schedule.name, known, post.peers, self.clock, d.itemsize)
                self._timekeepers.append(timekeeper)
            program = lower(schedule, known, post.peers, kernels, d.itemsize, tuning, timekeeper)
            post.requests(program.requests)
            return program

        # Lowering compiles the kernels that a program calls; which these are, follows from this.
        kernels_of = (job.op, d.name, job.of.name, job.algorithm, job.in_place, tuning.streaming)
        with nullcontext() if kernels_of in self._compiled else in_turn(f"{job.op}-{d.name}"):
            if kernels_of not in self._compiled:
                cpu.fill_pointer(d.itemsize)
                cpu.check_pointer(d)
            self.programs = [lower_one(post) for post in self.crew.posts]
        self._compiled.add(kernels_of)
        for program in self.programs:
            if program.done:
                publish(np.array(program.done, np.int64), (self.epoch - 1 << EPOCH_SHIFT) + 1)

    def _plan(self, job: Job) -> tuple[Schedule, Causality]:
        key = replace(job, dtype="", op="")  # of which a schedule knows nothing
        if key not in self._plans:
            schedule = build(
                job.algorithm, self.ranks, job.count, collective=job.of, root=job.root,
                channels=job.channels, slices=job.slices, in_place=job.in_place, nodes=job.nodes,
            )  # fmt: skip
            if len(self._plans) > 8:
                self._plans.clear()
            self._plans[key] = (schedule, causality(schedule))
        return self._plans[key]

    def fill(self, table: Callable[[int], np.ndarray], start: int = 0) -> None:
        """As interface.Session.fill."""
        job = self.job
        poison = np.frombuffer(b"\xa5" * (256 * self.itemsize), find_dtype(job.dtype).storage)
        counts = job.buffer_counts(self.ranks)
        inputs = job.inputs(self.ranks)

        def work(post: Post):
            given = inputs[inputs[:, 0] == post.rank]
            whole = len(given) and not job.in_place
            for which in (OUTPUT,) if whole else (INPUT, OUTPUT):
                cpu.fill(self._array(post, which, counts[which]), poison)
            for _, at, n in given.tolist():
                buffer = self._array(post, OUTPUT if job.in_place else INPUT, at + n)
                cpu.fill(buffer[at:], table(post.rank), start)

        self.crew.each(work)

    def check(self, answers: Answers, start: int = 0) -> int:
        """As interface.Session.check."""
        return int(self.check_each(answers, start).sum())

    def check_each(self, answers: Answers, start: int = 0) -> np.ndarray:
        """As interface.Session.check_each."""
        job = self.job
        _, count = job.buffer_counts(self.ranks)
        outputs = job.outputs(self.ranks)

        def work(post: Post):
            output = self._array(post, OUTPUT, count)
            mine = outputs[outputs[:, 0] == post.rank]
            if len(mine) and self.fault and self.fault.hits("corrupt", post.rank, self.nbytes):
                output[: mine[-1, 1:3].sum()].view(np.uint8)[-1] ^= 0x40
            wrong = 0
            for _, at, n, source, contributor in mine.tolist():
                wrong += cpu.check(output[at : at + n], *answers.answer(contributor), start + source, job.dtype)
            return wrong

        return self._by_rank(self.crew.each(work))

    @property
    def itemsize(self) -> int:
        """Bytes an element of the prepared job."""
        return find_dtype(self.job.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the prepared job's message."""
        return self.job.elements(self.ranks) * self.itemsize

    def _array(self, post: Post, which: int, count: int) -> np.ndarray:
        return self.crew.arena.array(post.index, which, find_dtype(self.job.dtype).storage, count)

    def run(self) -> None:
        """One collective, untimed."""
        if self._reference:
            self.time(1, 1)
            return
        epoch = self.epoch
        self.epoch += 1

        def work(post: Post):
            if self.fault:
                self.fault.strike(post.rank, self.nbytes, lambda: self.crew.arena.word(ABORT).value)
            code = self._program_of(post).code
            return walk(code[epoch % len(code)], epoch, post.state, post.mpi, post.flag, post.clock)

        self.all_ok(self.crew.each(work))

    def time(self, samples: int, inner: int, across: str = "max", fresh: bool = False) -> tuple[np.ndarray, int]:
        """As interface.Session.time."""
        return self._combined(self._timed(min(samples, SAMPLES_MAX), inner, fresh), across)

    def time_each(self, samples: int, inner: int) -> np.ndarray:
        """As interface.Session.time_each."""
        results = self._timed(min(samples, SAMPLES_MAX), inner, False)
        self.all_ok([status for status, _, _ in results])
        return self._by_rank([taken for _, _, taken in results])

    def _by_rank(self, here: list) -> np.ndarray:
        """What each rank of this process has, as an array over all ranks."""
        everywhere = np.zeros((self.ranks, *np.shape(here[0])))
        for post, value in zip(self.crew.posts, here):
            everywhere[post.rank] = value
        return self.crew.combine(everywhere, "sum")

    def _timed(self, samples: int, inner: int, fresh: bool) -> list[tuple[int, int, np.ndarray]]:
        """(status, samples begun late, seconds) of each rank of this process."""
        epoch, turn = self.epoch, self.turn
        self.turn += samples
        if self._reference:
            return self._reference.time(samples, inner, turn, fresh)
        self.epoch += samples * inner
        copy = cpu.pointers("sum", "float32").copy if fresh else 0
        given = self.job.of.input_count(self.ranks, self.job.count) * self.itemsize

        def work(post: Post):
            out = self.crew.arena.samples(post.index)
            source = post.peers.buffers[post.rank, OUTPUT if self.job.in_place else INPUT]
            rewritten = np.array([copy, source, given], np.int64)
            code = self._program_of(post).code
            status, late = time_block(
                code, epoch, turn, out, samples, inner, rewritten, post.state, post.mpi, post.flag, post.clock
            )
            return status, late, out[:samples].copy()

        return self.crew.each(work)

    def _combined(self, results: list[tuple[int, int, np.ndarray]], across: str) -> tuple[np.ndarray, int]:
        """What `_timed` gave, over all ranks."""
        self.all_ok([status for status, _, _ in results])
        taken = np.array([s for _, _, s in results])
        here = (
            taken[0] if across == "first" else {"max": taken.max, "min": taken.min, "mean": taken.mean}[across](axis=0)
        )
        late = self.crew.combine(np.array([max(late for _, late, _ in results)], np.float64), "max")
        return self.crew.combine(here, across), int(late[0])

    def virtual(self, samples: int, first: int = 0, pace: float = 0.0) -> VirtualTimes:
        """Run `samples` collectives under the virtual clock, with the network's noise of samples first, first + 1, ...

        pace: how many wall-clock seconds a virtual second shall last; 0: do not hold anything back.
        """
        finish = np.zeros((samples, self.ranks), np.int64)
        wall = np.zeros((samples, self.ranks))
        for sample in range(samples):
            epoch, turn = self.epoch, self.turn
            self.epoch += 1
            self.turn += 1
            self.all_ok(self.crew.each(lambda post: self._virtual(post, epoch, turn, first + sample, pace)))  # noqa: B023
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
        # Stamps alternate with the epoch, so nobody may be two epochs ahead.
        status, clock[PACED_START] = barrier(turn, post.state, post.mpi, post.flag)
        if status != OK:
            return status
        status = walk(self._program_of(post).code[epoch & 1], epoch, post.state, post.mpi, post.flag, clock)
        clock[DELAYS] = clock[PACE] = 0  # for runs without a sample's number
        return status

    def _program_of(self, post: Post) -> Program:
        return self.programs[self.crew.posts.index(post)]

    def all_ok(self, statuses) -> None:
        """Raises Stalled where a walker or barrier was made to return: whoever aborted knows why."""
        for status in statuses:
            if status == ABORTED:
                raise Stalled("the collective was aborted")
            if status != OK:
                raise RuntimeError("the MPI library reported an error in a point-to-point call")

    def abort(self, error: BaseException) -> None:
        """Make every walker of this host return at its next look; of a stall over several hosts, say whose it is."""
        word = self.crew.arena.word(ABORT)
        word.value = word.value or 1
        if isinstance(error, Stalled):
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
