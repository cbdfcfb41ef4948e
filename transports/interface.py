"""What measuring asks of a session, whoever the ranks are, and what a session is asked to run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..collectives.collective import COLLECTIVES, Collective
from ..collectives.nodes import Nodes
from ..collectives.schedule import Schedule
from ..errors import UserError

OK, ABORTED, MPI_FAILED = 0, 1, 2  # how a walk or a library's call ended
REFERENCES = ("mpi-native", "numpy", "nccl")  # measured beside ours; they have no schedule


class Stalled(RuntimeError):
    """Ranks did not come back in time; the message names them."""


class Unavailable(UserError):
    """This job cannot be run by this session; the message says why and what would be accepted."""


@dataclass(frozen=True)
class Job:
    """One collective by an algorithm: blocks of `count` elements of dtype (collectives/collective.py), reduced with op where it
    reduces. collective: its name, or one that is in no registry; nodes: what the algorithm shall take for them
    (collectives/nodes.py), a number or a tuple."""

    algorithm: str
    count: int
    dtype: str
    op: str
    in_place: bool = False
    channels: int = 1
    slices: int = 1
    collective: str | Collective = "all_reduce"
    root: int = 0
    nodes: Nodes = None

    @property
    def of(self) -> Collective:
        return self.collective if isinstance(self.collective, Collective) else COLLECTIVES[self.collective]

    def elements(self, ranks: int) -> int:
        """Of the larger buffer: the message size."""
        return self.of.size_count(ranks, self.count)

    def buffer_counts(self, ranks: int) -> tuple[int, int]:
        """Elements of (INPUT, OUTPUT); in place INPUT is not used."""
        if self.in_place:
            return 0, self.elements(ranks)
        return self.of.input_count(ranks, self.count), self.of.output_count(ranks, self.count)

    def inputs(self, ranks: int) -> np.ndarray:
        """``Collective.inputs`` of this job."""
        return self.of.inputs(ranks, self.count, self.root, self.in_place)

    def outputs(self, ranks: int) -> np.ndarray:
        """``Collective.outputs`` of this job."""
        return self.of.outputs(ranks, self.count, self.root, self.in_place)


class Answers(Protocol):
    """Test data whose result is known (bench/pattern.py)."""

    def answer(self, contributor: int) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of what a rank's data, or the sum of all (collectives.collective.ALL), may be: tables of 256."""


class Reference(Protocol):
    """Another's implementation, measured by a session in the place of a schedule."""

    def prepare(self, job: Job) -> None:
        """Raises Unavailable where it cannot run the job."""

    def time(self, samples: int, inner: int, turn: int, fresh: bool) -> list[tuple[int, int, np.ndarray]]:
        """(OK or what went wrong (walker.py), samples begun late, float64 [samples] seconds a call) of each rank of this process.

        turn: the number of the first barrier; fresh: every rank rewrites its input before each sample.
        """


class Session(Protocol):
    """One set of ranks, ready to run, time and check collectives.

    Every method is called by all processes of the session, in the same order, and returns the same answer in each.
    """

    ranks: int
    is_root: bool
    crew: Any  # session.Crew
    clock: Any  # clock.Clock, or None where times are wall-clock
    nodes: Nodes  # where the ranks are
    message_modes: dict[str, int]
    """How many messages of the prepared job move in which way, over the ranks of this process."""
    slice_sizes: Any  # tuning.SliceSizes that suit its ranks
    itemsize: int
    nbytes: int
    """Bytes of the prepared job's message."""

    def prepare(self, job: Job, schedule: Schedule | None = None) -> None:
        """Get ready to run `job`; nothing of this is timed. schedule: to be run instead of what the registry has of that name; of
        ranks that the ranks of this process have nothing to do with, tables may be empty. Raises Unavailable."""

    def fill(self, table: Callable[[int], np.ndarray], start: int = 0) -> None:
        """Fill every rank's input with its pattern, and the rest of its memory with something else.

        table: rank -> 256 elements of the storage dtype; start: added to the element index.
        """

    def check(self, answers: Answers, start: int = 0) -> int:
        """Elements of all ranks' outputs that are not what the collective says."""

    def check_each(self, answers: Answers, start: int = 0) -> np.ndarray:
        """[ranks]: as `check`, each rank's."""

    def run(self) -> None:
        """One collective, untimed. Raises Stalled."""

    def time(self, samples: int, inner: int, across: str = "max", fresh: bool = False) -> tuple[np.ndarray, int]:
        """Time `samples` samples of `inner` collectives each; fresh: every rank rewrites its input before each sample.

        Returns (float64 seconds a collective, combined over the ranks by `across`; how many samples some rank began late).
        """

    def time_each(self, samples: int, inner: int) -> np.ndarray:
        """float64 [ranks, samples]: as `time`, but each rank's own seconds."""

    def abort(self, error: BaseException) -> None: ...

    def close(self) -> None: ...
