"""One process of a host compiles, the others load what it has kept on disk.

All ranks of a job need the same compiled functions at the same moment. With an empty cache each of them would compile all of
them, on cores that they share; taking turns at a lock beside the cache, the first compiles and the others, asleep meanwhile,
load together.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager

import numpy as np

from ..collectives import build
from .program import COLUMNS, causality
from .walker import LIBRARY_ARGUMENTS, time_block, time_library, walk

WAIT_SECONDS = 60.0  # whoever compiles for longer has been stopped: then everybody for themselves
LOOK_SECONDS = 0.01
_pause = time.sleep


@contextmanager
def in_turn(what: str):
    """Inside, compile or load `what` (part of a file's name). Where no lock can be had, all go ahead at once."""
    lock = _open(what)
    try:
        if lock is not None:
            _take(lock)
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _folder() -> str | None:
    """Where Numba keeps the walker; None: nowhere."""
    return walk.stats.cache_path


def _open(what: str) -> int | None:
    folder = _folder()
    if folder is None:
        return None
    try:
        os.makedirs(folder, exist_ok=True)
        return os.open(os.path.join(folder, f"compiling-{what}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return None


def _take(lock: int) -> None:
    """Alone if nobody is at it; else, once whoever was first is done, together with the others who waited."""
    import fcntl

    until = time.monotonic() + WAIT_SECONDS
    how = fcntl.LOCK_EX
    while time.monotonic() < until:
        try:
            fcntl.flock(lock, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            how = fcntl.LOCK_SH
            _pause(LOOK_SECONDS)
        except OSError:  # a file system without locks
            return


def compile_walker(post) -> None:
    """Compile or load what plans, runs and times programs, by running it on next to nothing. post: a rank's session.Post."""
    nothing = np.zeros((2, 0, COLUMNS), np.int64)
    with in_turn("walker" if post.clock is None else "walker-clock"):
        causality(build("ring", 2, 2))
        walk(nothing[0], 1, post.state, post.mpi, post.flag, post.clock)
        time_block(nothing, 1, 1, np.zeros(0), 0, 1, np.zeros(3, np.int64), post.state, post.mpi, post.flag, post.clock)


def compile_library_timing(post) -> None:
    """The same for what times the MPI library."""
    with in_turn("library"):
        time_library(
            np.zeros((0, 1 + LIBRARY_ARGUMENTS), np.int64),
            1,
            np.zeros(0),
            0,
            1,
            np.zeros(3, np.int64),
            post.state,
            post.mpi,
            post.flag,
        )
