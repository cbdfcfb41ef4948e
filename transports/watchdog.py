"""Ends an MPI job that cannot go on, and says whose fault it is: from before MPI is loaded until after MPI_Finalize.

A rank that is stopped, killed or stuck leaves the others inside the MPI library, from where nothing returns. So each process
has a thread, the watchdog, that never calls MPI. The watchdogs of one host meet on a *board*: a small file in memory with a line
for each rank, found by the launcher's name for the job, so that it is there before MPI is::

    line of a rank   pid | last beat | last progress | whom it waits for | phase

    beat       when its watchdog last ran: a stopped process has none
    progress   when its own work last took processor time: compiling, or summing a large array, may take long

Who is not back in time from what all do together looks at everybody's lines for who is late: who does not beat, who never came
to the board, or who waits for nobody and makes no progress. The first to find out claims the host's one voice, says it and
exits, which makes the launcher end the job; everybody else who sees the claim exits too. A board is of one host: where all its
ranks wait for another host, the main threads return from the walker (`Peers.abort`) and ask the other hosts (mpi.py).

Python's signal handlers run in the main thread, which may be inside the library; what wakes the watchdog is the C handler
below them, which writes the signal's number to a pipe.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

NOBODY, LIBRARY = -1, -2  # whom a rank waits for, besides a rank: nobody, it works; somebody, inside a collective call
BEAT_SECONDS = 0.25
SILENT_SECONDS = 2.0  # without a beat, of a process that runs: eight beats
GRACE_SECONDS = 3.0  # for hosts to find out from one another who is late
QUIET_SECONDS = 1.0  # for the speaker to be heard before the launcher ends the job
LAUNCHER_SECONDS = 7.0  # for Open MPI's launcher to be gone once a rank has given the job up
LAUNCHER = "prterun"  # what Open MPI's mpirun is
TIMEOUT_SECONDS = 60.0
TIMEOUT_MIN = 0.5  # less than two beats tells nothing
PROGRESS = 0.01  # share of a processor that a rank at work takes; one that sleeps and looks again takes less
SHARED_MEMORY = "/dev/shm"
RANKS_UNKNOWN = 4096  # lines of a board where the launcher does not say how many ranks there are
EXIT_STALLED = 3
DEPARTURE = "the exit of the last"

_LINE = struct.Struct("<qqqqH150s")
_LINE_BYTES = 256
_VOICE = struct.Struct("<qq")  # the exit code and one, of who claimed the voice; 1 once the line is written


@dataclass(frozen=True)
class Line:
    """What a rank last said of itself; times in seconds of the host's monotonic clock."""

    pid: int
    beat: float
    progress: float
    waits_for: int
    phase: str

    @property
    def works(self) -> bool:
        """Whether the rank is busy with its own work, which takes the time it takes while it makes progress."""
        return self.waits_for == NOBODY


def _file_name(name: str) -> str:
    return f"busbw-board-{os.getuid()}-{name}"


def sweep_boards() -> None:
    """Remove the boards of this user's jobs that were killed as a whole: each rank holds a lock on its own (`Board`)."""
    with suppress(OSError):
        for entry in os.scandir(SHARED_MEMORY):
            if not entry.name.startswith(_file_name("")):
                continue
            with suppress(OSError):
                fd = os.open(entry.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    # Not another's that was put there meanwhile.
                    if os.path.samestat(os.fstat(fd), os.stat(entry.path)):
                        os.unlink(entry.path)
                finally:
                    os.close(fd)


class Board:
    """The file in which the ranks of one host meet. Written and read whole lines at a time, never mapped: where the file system is
    full, a write fails, and a touch of a mapping would kill."""

    def __init__(self, name: str, ranks: int):
        """name: the same in all processes of the job on this host, and in no other; ranks: lines. OSError: there is no place."""
        self.ranks = ranks
        self._claiming = threading.Lock()  # the file's lock is the process's
        self.path, self._fd = self._open(name)

    @staticmethod
    def _open(name: str) -> tuple[str, int]:
        problem: OSError = FileNotFoundError(errno.ENOENT, "no directory for temporary files")
        for folder in dict.fromkeys((SHARED_MEMORY, os.environ.get("TMPDIR", "/tmp"))):
            path = os.path.join(folder, _file_name(name))
            try:
                fd = _opened(path)
                if os.fstat(fd).st_uid != os.getuid():
                    os.close(fd)
                    raise PermissionError(errno.EPERM, "somebody else's file", path)
                if os.fstat(fd).st_size == 0:
                    os.pwrite(fd, bytes(_VOICE.size), 0)  # tells a full file system here
                return path, fd
            except OSError as e:
                problem = e
        raise problem

    @property
    def id(self) -> tuple[int, int]:
        found = os.fstat(self._fd)
        return found.st_dev, found.st_ino

    def write(self, rank: int, line: Line) -> None:
        packed = _LINE.pack(
            line.pid, int(line.beat * 1e9), int(line.progress * 1e9), line.waits_for,
            len(line.phase.encode()[:150]), line.phase.encode()[:150],
        )  # fmt: skip
        os.pwrite(self._fd, packed, (1 + rank) * _LINE_BYTES)

    def erase(self, rank: int) -> None:
        os.pwrite(self._fd, bytes(_LINE.size), (1 + rank) * _LINE_BYTES)

    def lines(self) -> dict[int, Line]:
        """By rank; those who have come and not left."""
        block = os.pread(self._fd, (1 + self.ranks) * _LINE_BYTES, 0)
        found = {}
        for rank in range((len(block) - _LINE.size) // _LINE_BYTES):
            pid, beat, progress, waits_for, length, phase = _LINE.unpack_from(block, (1 + rank) * _LINE_BYTES)
            if pid:
                text = phase[:length].decode(errors="replace")
                found[rank] = Line(pid, beat * 1e-9, progress * 1e-9, waits_for, text)
        return found

    def voice(self) -> tuple[int | None, bool]:
        """(The exit code that goes with what is said, or None where nobody has claimed the voice; whether it has been said)."""
        words = os.pread(self._fd, _VOICE.size, 0)
        code, said = _VOICE.unpack(words) if len(words) == _VOICE.size else (0, 0)
        return (code - 1 if code else None), bool(said)

    def claim(self, code: int) -> bool:
        """Take the host's one voice; False where somebody has it."""
        with self._claiming:
            return self._claim(code)

    def _claim(self, code: int) -> bool:
        until = time.monotonic() + QUIET_SECONDS
        while True:
            try:
                fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > until:  # somebody was stopped just here
                    break
                time.sleep(0.01)
        try:
            if self.voice()[0] is not None:
                return False
            os.pwrite(self._fd, _VOICE.pack(code + 1, 0), 0)
            return True
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def said(self, code: int) -> None:
        """By who has the voice, once the line is on its way: from now on the others may end."""
        os.pwrite(self._fd, _VOICE.pack(code + 1, 1), 0)

    def unlink(self) -> None:
        """Once nobody will come any more. Who is here stays."""
        with suppress(OSError):
            os.unlink(self.path)


def _opened(path: str) -> int:
    """A descriptor of a board; where boards are swept, of one that is not as long as this process lives."""
    for _ in range(1000):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if os.path.dirname(path) != SHARED_MEMORY:
            return fd  # other file systems may take the lock for that of who claims the voice
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return fd
        except (BlockingIOError, FileNotFoundError):  # it is just being swept
            time.sleep(0.001)
        os.close(fd)
    raise BlockingIOError(errno.EAGAIN, "somebody holds it", path)


@dataclass(frozen=True)
class Peers:
    """What is known of the others once MPI runs.

    here: the world ranks whose lines are on this board; elsewhere: whether there are others; waits_for: the word in which the
    walker says whom this rank waits for; epoch: the word that it changes with every sample; abort: makes the walkers of this
    host return.
    """

    here: frozenset[int]
    elsewhere: bool
    waits_for: ctypes.c_int64
    epoch: ctypes.c_int64
    abort: Callable[[], None]


class Watchdog:
    """This process's watchdog. The main thread says what it is about (`phase`, `waiting`); the thread does the rest."""

    def __init__(self, rank: int = 0, size: int | None = 1, ranks_here: int | None = 1, name: str | None = None):
        """rank, size, ranks_here: as the launcher tells them, None: not told; name: of the job on this host (`job_name`), None:
        nothing launched this process."""
        self.rank, self.size, self.ranks_here = rank, size, ranks_here
        self.timeout = TIMEOUT_SECONDS
        self._phase = "start-up"
        self.kept = ""  # what is said of results that are safe
        self.peers: Peers | None = None
        self.mpi_abort: Callable[[int], None] | None = None  # MPI_Abort, once MPI runs; for the main thread
        self.finalise: Callable[[], None] = lambda: None  # MPI_Finalize, once MPI runs
        self._waits_for = ctypes.c_int64(NOBODY)
        self._epoch = 0
        self._deadline = 0.0
        self._progress = time.monotonic()
        self._processor, self._beaten = 0.0, 0.0  # at the last beat
        self._name = name
        self._closing = threading.Event()
        self._board: Board | None = None
        if name and rank < (size or RANKS_UNKNOWN):
            sweep_boards()
            with suppress(OSError):  # no place to meet: each looks after itself
                self._board = Board(name, size or RANKS_UNKNOWN)
        self._beat(time.monotonic())
        self._signals = _Signals()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    # For the main thread.

    @property
    def timeout(self) -> float:
        """Seconds within which ranks must be back from what they do together."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self._timeout = max(seconds, TIMEOUT_MIN)

    @property
    def phase(self) -> str:
        """What this rank is about, for messages."""
        return self._phase

    @phase.setter
    def phase(self, what: str) -> None:
        self._phase = what
        self._write_line(time.monotonic())  # a rank that dies in it is found in it

    def waiting(self, waits_for: int, phase: str | None = None, seconds: float | None = None) -> _Waiting:
        """A context: inside, this rank must be back within `seconds` (default: the time-out)."""
        if phase is not None:
            self.phase = phase
        return _Waiting(self, waits_for, self.timeout if seconds is None else seconds)

    def all_came(self) -> None:
        """Every rank has been in MPI_Init, so its watchdog is at the board: nobody will look for it any more."""
        if self._board:
            self._board.unlink()

    def met(self, peers: Peers) -> None:
        """The ranks know one another by MPI; again with every crew."""
        peers.waits_for.value = self._waits_for.value
        self._waits_for = peers.waits_for
        self.peers = peers

    @property
    def board(self) -> tuple[int, int] | None:
        """What tells this process's board from others."""
        return self._board.id if self._board else None

    def parted(self) -> None:
        """The crew's memory goes away."""
        self._waits_for = ctypes.c_int64(NOBODY)
        if self.peers:
            self.peers = replace(
                self.peers, waits_for=self._waits_for, epoch=ctypes.c_int64(self._epoch), abort=lambda: None
            )

    def end(self, line: str, code: int, *, shared: bool = False) -> None:
        """End the job with one line. shared: every rank is likely to say the same, so the first rank comes first. Never returns."""
        if shared and self.rank != 0:
            time.sleep(QUIET_SECONDS)
        if self._claim(code):
            self._write(line, code)
        else:
            self._listen()
        _flush()
        if self.mpi_abort and self._elsewhere():  # on one host all see the claim, and the launcher the exit
            threading.Timer(QUIET_SECONDS, os._exit, (code,)).start()
            self.mpi_abort(code)
        os._exit(code)

    def me(self) -> str:
        return f"rank {self.rank} (pid {os.getpid()} on {os.uname().nodename})"

    def depart(self, code: int) -> None:
        """The command is over: finalise MPI, wait for the others of this host to come as far, and exit. Never returns.

        Python takes its time to exit, and whoever is stopped then would leave nobody behind to say so.
        """
        self.finalise()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        with self.waiting(LIBRARY, DEPARTURE):
            while any(line.phase != DEPARTURE for line in self._lines().values()):
                time.sleep(0.005)
        self.stop()
        os._exit(code)

    def _stay_if_over(self) -> None:
        """Where the job has been given up, as while this rank was stopped, begin nothing more: the watchdog is about to exit."""
        while self._board and not self._closing.is_set() and self._board.voice()[0] is not None:
            time.sleep(BEAT_SECONDS)

    def stop(self) -> None:
        """This rank is done, and leaves the others."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._signals.wake()
        self._thread.join(timeout=2)
        self._signals.close()
        if self._board:
            self._board.erase(self.rank)
            if not self._board.lines():
                self._board.unlink()

    # The watchdog's thread.

    def _watch(self) -> None:
        last = began = time.monotonic()
        while not self._closing.is_set():
            told = self._signals.wait(BEAT_SECONDS)
            now = time.monotonic()
            stood_still = now - last - BEAT_SECONDS
            last = now
            if stood_still > SILENT_SECONDS / 2:
                # It was this process that was stopped, or all of them: nobody has been late meanwhile.
                began = now
                if self._deadline:
                    self._deadline += stood_still
            self._beat(now)
            if self._got_on() and self._deadline:
                self._deadline = now + self.timeout  # of one all-reduce, not of all samples of a size together
            if self._closing.is_set():
                return
            lines = self._lines()
            code = self._board.voice()[0] if self._board else None
            if code is not None:
                if began != now:
                    self._listen()
                    time.sleep(QUIET_SECONDS)  # the launcher ends the job
                os._exit(code)
            dead = [rank for rank, line in lines.items() if state_of(line.pid) is None]
            if dead:
                self._give_up(f"{self._names(dead, lines)} died", dead, lines)
            if told:
                self._told(told, now)
            if now - began < SILENT_SECONDS:
                continue  # whoever was stopped with us has yet to beat
            gone = [rank for rank, line in lines.items() if now - line.beat > max(self.timeout, SILENT_SECONDS)]
            if gone:
                self._not_back(gone, lines)
            if self._deadline and now > self._deadline:
                self._late(now - self._deadline, now, lines)

    def _beat(self, now: float) -> None:
        processor = time.process_time() - time.thread_time()
        if processor - self._processor > PROGRESS * (now - self._beaten) or self._waits_for.value != NOBODY:
            self._progress = now
        self._processor, self._beaten = processor, now
        self._write_line(now)

    def _got_on(self) -> bool:
        """Whether this rank has come to another sample since it was asked before."""
        before, self._epoch = self._epoch, self.peers.epoch.value if self.peers else self._epoch
        return self._epoch != before

    def _write_line(self, now: float) -> None:
        if self._board:
            try:
                self._board.write(self.rank, self._own(now))
            except OSError:
                self._board = None

    def _lines(self) -> dict[int, Line]:
        lines = self._board.lines() if self._board else {}
        if self.peers:
            lines = {rank: line for rank, line in lines.items() if rank in self.peers.here}
        lines.pop(self.rank, None)
        return lines

    def _told(self, number: int, now: float) -> None:
        if number == signal.SIGINT:
            if self.peers and 0 not in self.peers.here:
                time.sleep(QUIET_SECONDS)  # Ctrl-C of all ranks: the first one's host speaks
            self._give_up(f"{self.me()} was interrupted (SIGINT)", [], {}, code=128 + signal.SIGINT)
        if self._elsewhere():
            # The launcher tells everybody once a host has given up, and then ends them: who lives was told by somebody else.
            time.sleep(QUIET_SECONDS)
        elif self._forsaken():  # by somebody who spoke at a board that was gone before this rank came
            if self._board:
                self._board.unlink()
            os._exit(128 + signal.SIGTERM)
        self._give_up("the job was told to stop (SIGTERM)", [], {}, code=128 + signal.SIGTERM)

    def _late(self, late: float, now: float, lines: dict[int, Line]) -> None:
        """This rank's time is over. Find out whom everybody waits for."""
        lines = {**lines, self.rank: self._own(now)}
        silent = [rank for rank, line in lines.items() if self._silent(line, now)]
        stopped = [rank for rank in silent if state_of(lines[rank].pid) in ("T", "t")]
        culprits = stopped or silent + self._absent(lines)  # who is not stopped may only be starved
        slack = min(1.0, self.timeout / 4)  # ranks begin to wait a little apart
        if not culprits:
            culprits = [
                rank for rank, line in lines.items() if line.works and now - line.progress > self.timeout - slack
            ]
        if culprits:
            self._not_back(culprits, lines)
        if any(line.works for line in lines.values()):
            return  # somebody here is at work, and gets on
        within = f"within {self.timeout:g} s (--timeout)"
        if not self._elsewhere():
            if late > max(self.timeout, GRACE_SECONDS):  # on a busy machine they may only be slow together
                chain = ", ".join(
                    f"rank {rank} waits for rank {line.waits_for}"
                    for rank, line in sorted(lines.items())[:4]
                    if line.waits_for >= 0
                )
                self._give_up(f"no rank got on {within}{f' ({chain})' if chain else ''}", [], {})
        elif late > GRACE_SECONDS + BEAT_SECONDS * min(self.rank, 16):  # one after another, so that one is heard
            here = ", ".join(str(rank) for rank in sorted(lines)[:8])
            self._give_up(
                f"no answer {within} from other hosts; rank{'s' * (len(lines) > 1)} {here} of {os.uname().nodename} waited",
                [],
                {},
            )
        elif late > BEAT_SECONDS and self.peers:
            self.peers.abort()  # main threads return from the walker, and ask the other hosts

    def _own(self, now: float) -> Line:
        return Line(os.getpid(), now, self._progress, self._waits_for.value, self.phase)

    def _silent(self, line: Line, now: float) -> bool:
        return now - line.beat > SILENT_SECONDS or (
            now - line.beat > 2 * BEAT_SECONDS and state_of(line.pid) in ("T", "t")
        )

    def _elsewhere(self) -> bool:
        """Whether the job has, or may have, ranks on other hosts."""
        if self.peers:
            return self.peers.elsewhere
        return self.size is None or self.size != self.ranks_here

    def _absent(self, lines: dict[int, Line]) -> list[int]:
        """Ranks of this host that never came to the board, as far as that can be told."""
        if self.peers or not self._board:
            return []
        expected = set(range(self.size)) if self.size and self.size == self.ranks_here else set(self._siblings())
        return sorted(expected - set(lines))

    def _forsaken(self) -> bool:
        """Whether a rank of this host has left the job, as far as that can be told."""
        found = self._siblings() if self._name else {}
        return self.rank in found and len(found) < (self.ranks_here or 0)

    def _siblings(self) -> dict[int, int]:
        """The job's processes on this host, rank to pid, from their environments."""
        return dict(processes_of(self._name))

    def _pids(self, ranks: list[int], lines: dict[int, Line]) -> dict[int, int]:
        known = {rank: lines[rank].pid for rank in ranks if rank in lines}
        return known if len(known) == len(ranks) else {**self._siblings(), **known}

    def _not_back(self, culprits: list[int], lines: dict[int, Line]) -> None:
        what = f"{self._names(culprits, lines)} did not come back within {self.timeout:g} s (--timeout)"
        self._give_up(what, culprits, lines)

    def _names(self, ranks: list[int], lines: dict[int, Line]) -> str:
        names = []
        pids = self._pids(ranks, lines)
        for rank in ranks[:8]:
            pid = pids.get(rank)
            stopped = ", stopped" if pid and state_of(pid) in ("T", "t") else ""
            names.append(f"rank {rank} ({f'pid {pid}' if pid else 'not started'} on {os.uname().nodename}{stopped})")
        more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
        return ", ".join(names) + more

    def _give_up(self, what: str, culprits: list[int], lines: dict[int, Line], code: int = EXIT_STALLED) -> None:
        """Say it once a host, then leave at once: the main thread may never return from the library."""
        phase = self.phase
        if culprits:
            phase = lines[culprits[0]].phase if culprits[0] in lines else "the start of Python"
        self.say(what, code, phase)
        # The launcher may be in the middle of a word with who is stopped, and wait for it; let it go on, to see that it is over,
        # and have its watchdog see that at once: a rank that comes to MPI_Init while the job is ended can hang Open MPI's launcher.
        pids = self._pids(culprits, lines)
        for rank in culprits:
            pid = pids.get(rank)
            if pid and pid != os.getpid() and state_of(pid) == "T":
                with suppress(OSError):
                    if rank in lines:
                        os.kill(pid, signal.SIGTERM)
                    os.kill(pid, signal.SIGCONT)
        os._exit(code)

    def say(self, what: str, code: int, phase: str | None = None) -> None:
        """One line, unless somebody of this host has said theirs; then wait to be ended."""
        if not self._claim(code):
            self._listen()
            time.sleep(QUIET_SECONDS)
            return
        _flush()
        self._write(f"busbw: {what} during {phase or self.phase}{self.kept}", code)

    def _claim(self, code: int) -> bool:
        """Take the host's one voice; False where somebody has it. Nobody need find the board any more."""
        if self._board:
            try:
                if not self._board.claim(code):
                    return False
            except OSError:
                pass
            self._board.unlink()
        return True

    def _listen(self) -> None:
        """Until who has the voice has used it: the first exit makes the launcher end the others, whatever they are about."""
        until = time.monotonic() + GRACE_SECONDS
        while self._board and not self._board.voice()[1] and time.monotonic() < until:
            time.sleep(0.01)

    def _write(self, line: str, code: int) -> None:
        text = f"{line}\n".encode()
        try:
            if sys.stderr.isatty():
                text = b"\r\033[K" + text  # over a progress line
            os.write(2, text)
        except (OSError, AttributeError):
            pass
        if (
            self._name
        ):  # the line is on its way through the launcher, which drops what it has not read once a rank has exited
            time.sleep(QUIET_SECONDS / 2)
        if self._board:
            with suppress(OSError):
                self._board.said(code)
        if self._name and not self._elsewhere():
            self._leave_somebody()

    def _leave_somebody(self) -> None:
        """Leave a process behind that ends this one's launcher, should it hang (`outlive`)."""
        launcher = os.getppid()
        if _name_of(launcher) == LAUNCHER:
            command = [sys.executable, "-I", "-S", os.path.abspath(__file__)]
            command += [str(launcher), _start_of(launcher), str(LAUNCHER_SECONDS)]
            silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            with suppress(OSError):
                subprocess.Popen(command, env={}, start_new_session=True, **silent)


class _Waiting:
    """While inside, this rank's deadline runs."""

    def __init__(self, watchdog: Watchdog, waits_for: int, seconds: float):
        self.watchdog, self.waits_for, self.seconds = watchdog, waits_for, seconds

    def __enter__(self):
        self.watchdog._stay_if_over()
        self.watchdog._waits_for.value = self.waits_for
        self.watchdog._deadline = time.monotonic() + self.seconds

    def __exit__(self, kind, error, trace):
        watchdog = self.watchdog
        watchdog._progress = time.monotonic()
        watchdog._deadline = 0.0
        watchdog._waits_for.value = NOBODY


class _Signals:
    """SIGTERM and SIGINT for the watchdog."""

    NUMBERS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._before: dict[int, object] = {}
        if threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
            for number in self.NUMBERS:
                self._before[number] = signal.signal(number, lambda number, frame: None)

    def wait(self, seconds: float) -> int:
        """The signal that came within that time, or 0."""
        if not select.select([self._read], [], [], seconds)[0]:
            return 0
        came = os.read(self._read, 4096)
        return next((number for number in self.NUMBERS if number in came), 0)

    def wake(self) -> None:
        """Have who waits return at once."""
        with suppress(BlockingIOError):
            os.write(self._write, b"\0")

    def close(self) -> None:
        if self._before and threading.current_thread() is threading.main_thread():
            signal.set_wakeup_fd(-1)
            for number, handler in self._before.items():
                signal.signal(number, handler)
        self._before = {}


def _flush() -> None:
    """Flush standard output, but not for long: who reads it may have stopped."""

    def flush():
        with suppress(OSError, ValueError, RuntimeError, AttributeError):
            sys.stdout.flush()

    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    thread.join(timeout=0.5)


def state_of(pid: int) -> str | None:
    """The letter of a process of this host (R, S, D, T: stopped, ...); None where it is no more. "?" where that cannot be told."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            letter = f.read(4096).rsplit(b")", 1)[-1].split()[0].decode()
    except (FileNotFoundError, ProcessLookupError):
        return None if os.path.isdir("/proc/self") else "?"
    except OSError:
        return "?"
    return None if letter in "ZX" else letter


def _stat_of(pid: int) -> list[str]:
    """The fields of a process behind its name; [] where it is no more."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return f.read(4096).rsplit(b")", 1)[-1].decode().split()
    except OSError:
        return []


def _start_of(pid: int) -> str:
    """When a process began, in ticks: tells it from a later one of that number. "" where it is no more."""
    return "".join(_stat_of(pid)[19:20])


def _name_of(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip()
    except OSError:
        return ""


def outlive(launcher: int, started: str, seconds: float) -> None:
    """Wait for a launcher to end, and kill it after that long: with its ranks gone it has nothing else to do, but Open MPI's was
    seen to wait for a lock that nobody holds (docs/reliability.md)."""
    until = time.monotonic() + seconds
    while _start_of(launcher) == started:
        if time.monotonic() > until:
            with suppress(OSError):
                os.kill(launcher, signal.SIGKILL)
            return
        time.sleep(BEAT_SECONDS)


def job_name(environment: Mapping[str, str] = os.environ) -> str:
    """A name that the processes of one job on one host share and no other process has, from what their launcher left them."""
    if "PMIX_NAMESPACE" in environment:
        servers = [environment[v] for v in sorted(environment) if v.startswith("PMIX_SERVER_URI")]
        said = [environment["PMIX_NAMESPACE"], *servers[:1]]  # a server a host, on a port of its own
    elif "SLURM_STEP_ID" in environment:
        said = [environment.get(v, "") for v in ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")]
    else:
        parent = os.getppid()
        said = [str(parent), _start_of(parent)]
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(said))[-120:]


def processes_of(name: str):
    """(rank, pid) of this user's processes whose launcher left them the job's name."""
    from .launcher import launch

    for pid in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if not pid.isdigit():
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                words = f.read(1 << 20).split(b"\0")
        except OSError:
            continue
        environment = dict(w.decode(errors="replace").split("=", 1) for w in words if b"=" in w)
        if "PMIX_NAMESPACE" not in environment and "SLURM_STEP_ID" not in environment:
            continue  # known by its parent only, which is not in the environment
        found = launch(environment)
        if found and job_name(environment) == name:
            yield found.rank, int(pid)


_here: Watchdog | None = None


def of_this_process() -> Watchdog:
    """Begun the first time; its signals need the main thread."""
    global _here
    if _here is None:
        from .launcher import launch

        said = launch()
        _here = Watchdog(said.rank, said.size, said.ranks_here, job_name()) if said else Watchdog()
        atexit.register(_here.stop)
    return _here


if __name__ == "__main__":
    outlive(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
