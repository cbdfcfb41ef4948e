"""Local emulated ranks: threads of this process over its own memory. No MPI, no set-up."""

from __future__ import annotations

import os
import queue
import threading
import time

import numpy as np

from . import affinity
from .memory import ABORT, EPOCH_WORD, WAITS_FOR, Layout, private_arena
from .program import Peers
from .session import Post, Stalled, buffer_table
from .walker import MPI_FIELDS, new_state

RANKS_MAX = 256
SPINS_ALONE = 20_000  # polls before looking up, when every rank has a core of its own
SPINS_CROWDED = 30  # more ranks than cores: whom we wait for may need our core


def patience(ranks_here: int, cores_here: int) -> tuple[int, int]:
    """(polls before giving the core away, ns between barrier and agreed start) for ranks on one host."""
    if ranks_here <= cores_here:
        return SPINS_ALONE, 1000 + 100 * ranks_here
    return SPINS_CROWDED, 0  # nobody may hold a core just to wait for a start


class LocalCrew:
    """`ranks` threads, each pinned to a core of its own where there are enough. masks: the cores each may run on."""

    transport, kind = "shared", "local emulated ranks"
    library = None
    is_root = True

    def __init__(
        self,
        ranks: int,
        buffer_bytes: int,
        scratch_bytes: int,
        *,
        timeout: float = 60.0,
        pin: bool = True,
        stamps: int = 0,
    ):
        """timeout: seconds one piece of work may take before it counts as stalled; stamps: messages that a rank may send in
        an all-reduce under a virtual clock. Raises MemoryError."""
        self.ranks = self.ranks_here = ranks
        self.hosts = [os.uname().nodename] * ranks
        self.timeout = timeout
        self.activity = "start-up"
        self.references: dict = {}
        self.arena = private_arena(Layout(ranks, buffer_bytes, scratch_bytes, stamps))
        available = affinity.usable()
        cores = affinity.choose(affinity.places(available), ranks) if pin else None
        self.pinned = cores is not None
        self.masks = [[core] for core in cores] if cores else [available] * ranks
        self.meetings: list = []
        spins, window = patience(ranks, len(available))
        buffers = buffer_table(self.arena, ranks, list(range(ranks)))
        mpi, flag = np.zeros(MPI_FIELDS, np.int64), np.zeros(1, np.int32)
        self.mine = range(ranks)
        self.posts = [
            Post(
                rank=i,
                index=i,
                state=new_state(self.arena.base, i, ranks, spins, window),
                mpi=mpi,
                flag=flag,
                peers=Peers(i, buffers, self.arena.connection, self.arena.stamp),
                requests=lambda n: None,
            )
            for i in range(ranks)
        ]
        self._work: list[queue.SimpleQueue] = [queue.SimpleQueue() for _ in range(ranks)]
        self._done: queue.SimpleQueue = queue.SimpleQueue()
        for post in self.posts:
            self.arena.doing(post.index, WAITS_FOR).value = -1
            threading.Thread(target=self._serve, args=(post,), name=f"rank {post.rank}", daemon=True).start()

    def _serve(self, post: Post) -> None:
        if self.pinned:
            affinity.pin(self.masks[post.index])  # this thread only
        while (work := self._work[post.index].get()) is not None:
            try:
                self._done.put((post.index, work(post), None))
            except BaseException as e:
                self._done.put((post.index, None, e))

    def each(self, work) -> list:
        for inbox in self._work:
            inbox.put(work)
        results: list = [None] * self.ranks
        waiting = set(range(self.ranks))
        deadline, epochs = time.monotonic() + self.timeout, self._epochs()
        error = None
        try:
            while waiting:
                asked = time.monotonic()
                try:
                    index, result, failure = self._done.get(timeout=0.2)
                except queue.Empty:
                    now = time.monotonic()
                    if now - asked > 1.0:
                        deadline += now - asked  # this process was stopped, and all its ranks with it
                    before, epochs = epochs, self._epochs()
                    if epochs != before:  # the time-out is of one sample
                        deadline = max(deadline, now + self.timeout)
                    if now > deadline:
                        raise self._stalled(waiting) from None
                    continue
                waiting.discard(index)
                results[index] = result
                if failure is not None:
                    error = error or failure
                    self.arena.word(ABORT).value = 1  # the others would wait for it forever
        except BaseException:
            self._abandon(waiting)
            raise
        if error is not None:
            raise error
        return results

    def _epochs(self) -> list[int]:
        """The sample that each rank is at."""
        return [self.arena.doing(i, EPOCH_WORD).value for i in range(self.ranks)]

    def _stalled(self, waiting: set[int]) -> Stalled:
        """Who keeps the others waiting: the ranks that are behind, or wait for nobody."""
        epochs = self._epochs()
        idle = [i for i in waiting if self.arena.doing(i, WAITS_FOR).value < 0]
        culprits = idle or [i for i in waiting if epochs[i] == min(epochs[j] for j in waiting)]
        names = ", ".join(f"rank {i}" for i in sorted(culprits))
        return Stalled(f"{names} did not finish within {self.timeout:g} s (--timeout) during {self.activity}")

    def _abandon(self, waiting: set[int]) -> None:
        """Ctrl-C or a stall: have the walkers return, and collect them so that memory is not freed under them."""
        self.arena.word(ABORT).value = 1
        deadline = time.monotonic() + 5
        while waiting and time.monotonic() < deadline:
            try:
                waiting.discard(self._done.get(timeout=0.1)[0])
            except queue.Empty:
                continue
        self._lost = bool(waiting)

    def combine(self, values: np.ndarray, how: str) -> np.ndarray:
        return values

    def agree(self, value):
        return value

    def explain_stall(self) -> None:
        """All ranks are here, and the error that ends the session names who is late."""

    def close(self) -> None:
        for inbox in self._work:
            inbox.put(None)
