"""One GPU a rank, MPI between: device buffers, sent as they are or staged through pinned host memory.

The walk is on the host, in table order, and puts work into three streams of the rank's GPU::

    compute    reductions and local copies
    out        device -> pinned host memory, for messages to send
    in         pinned host memory -> device, for messages received

**aware** (the MPI library takes device addresses): a SEND is MPI_Isend of the device buffer, a RECV MPI_Irecv into it or, to be
reduced, into a landing place on the device. The host waits for the device before a SEND (MPI knows nothing of streams).

**staged**: a message is cut into segments of SEGMENT_BYTES; each has a half of a double buffer, pinned on the host and, for
what is to be reduced, on the device. While one segment is on the wire the next is copied and the one before reduced::

    sender      out:  d2h 0  d2h 1  d2h 2                 receiver  wire:     0      1      2
                wire:        0      1      2                        in:          h2d 0  h2d 1  h2d 2
                                                                    compute:          + 0    + 1    + 2

A half is used again when its last user has finished: the send (out), or the copy or reduction (in). Sends go on in the
background while later steps wait. What may be overwritten when is the schedule's own rule (collectives/schedule.py).

What a GPU can do is behind ``Gpu``; CuPy's is cupy_streams.py, and tests bring one whose streams run late and in any order.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..collectives import algorithms
from ..collectives.schedule import (
    COPY,
    INPUT,
    NOP,
    OUTPUT,
    RECV,
    RECV_REDUCE,
    REDUCE,
    SCRATCH,
    SEND,
    Schedule,
    scratch_elements,
)
from ..kernels.dtypes import find_device_dtype
from . import nccl_calls
from .gpu_crew import JobCrew
from .interface import Answers, Job, Stalled, Unavailable
from .nccl import Group
from .tuning import GPU_SLICES

SEGMENT_BYTES = 1 << 20
HALVES = 2
COMPUTE, OUT, IN = range(3)
TAG_BASE = 64


class Gpu(Protocol):
    """One rank's GPU. Addresses are ints; streams are COMPUTE, OUT and IN; nothing waits but `finish`."""

    def allocate(self, nbytes: int) -> int: ...

    def allocate_pinned(self, nbytes: int) -> int:
        """Host memory that copies may use asynchronously."""

    def copy(self, stream: int, dst: int, src: int, nbytes: int) -> None:
        """Between any two addresses of the device and of pinned memory."""

    def reduce(self, stream: int, dst: int, a: int, b: int, count: int, final: bool) -> None:
        """dst = a (+) b, `count` elements of the job's dtype and op; final: with avg's division."""

    def record(self, stream: int) -> Any:
        """An event: everything in the stream so far."""

    def wait(self, stream: int, event: Any) -> None:
        """What follows in the stream begins after the event."""

    def done(self, event: Any) -> bool: ...

    def finish(self, event: Any) -> None:
        """The host waits."""


def mpi_takes_device_addresses(MPI) -> tuple[bool, str]:
    """(whether the MPI library says that it takes device addresses, how that was found out). Asked, never guessed."""
    library = ctypes.CDLL(MPI.__file__)
    try:
        query = library.MPIX_Query_cuda_support
    except AttributeError:
        pass
    else:
        query.restype = ctypes.c_int
        return bool(query()), "MPIX_Query_cuda_support"
    if os.environ.get("MPICH_GPU_SUPPORT_ENABLED") == "1":
        return True, "MPICH_GPU_SUPPORT_ENABLED=1"
    return False, "the library has no MPIX_Query_cuda_support"


@dataclass
class _Sending:
    """A message under way: segments not yet copied out, and those on the wire with the half they occupy."""

    steps: Iterator
    copied: deque = field(default_factory=deque)  # (event, half, nbytes) in order, on their way to the host
    requests: list = field(default_factory=list)  # (request, half), those not known to be over
    exhausted: bool = False

    @property
    def copied_out(self) -> bool:
        return self.exhausted and not self.copied

    def sent(self) -> bool:
        """Whether the library has finished every request so far; asks it."""
        self.requests = [(request, half) for request, half in self.requests if not request.Test()]
        return not self.requests


class _Halves:
    """A ring of buffers; `None` in `busy` means free, else what to ask whether it is over."""

    def __init__(self, addresses: Sequence[int]):
        self.addresses = list(addresses)
        self.busy: list[Any] = [None] * len(addresses)
        self.next = 0

    def take(self, is_over) -> int | None:
        """The next half, if its last user has finished."""
        half = self.next
        if self.busy[half] is not None and not is_over(self.busy[half]):
            return None
        self.busy[half] = None
        self.next = (half + 1) % len(self.addresses)
        return half


class DeviceRank:
    """This process's rank: a GPU, a communicator, and the buffers INPUT, OUTPUT and SCRATCH."""

    def __init__(
        self,
        comm,
        gpu: Gpu,
        buffer_bytes: int,
        scratch_bytes: int,
        *,
        aware: bool,
        timeout: float = 60.0,
        segment_bytes: int = SEGMENT_BYTES,
    ):
        """comm: an mpi4py intracommunicator; segment_bytes: a multiple of 8."""
        if segment_bytes < 8 or segment_bytes % 8:
            raise ValueError(f"segment_bytes is {segment_bytes}; accepted: a multiple of 8")
        self.comm, self.gpu, self.aware, self.timeout = comm, gpu, aware, timeout
        self.segment_bytes = segment_bytes
        self.buffers = {
            INPUT: gpu.allocate(buffer_bytes),
            OUTPUT: gpu.allocate(buffer_bytes),
            SCRATCH: gpu.allocate(max(scratch_bytes, 8)),
        }
        self._landing_bytes = buffer_bytes if aware else segment_bytes
        self._landing = _Halves([gpu.allocate(self._landing_bytes) for _ in range(1 if aware else HALVES)])
        pinned = 0 if aware else HALVES
        self._out = _Halves([gpu.allocate_pinned(segment_bytes) for _ in range(pinned)])
        self._in = _Halves([gpu.allocate_pinned(segment_bytes) for _ in range(pinned)])
        self._sending: deque[_Sending] = deque()
        self._deadline = 0.0
        from mpi4py import MPI

        self._memory = MPI.buffer.fromaddress  # a pointer and a length: never read by mpi4py itself

    def run(self, table: np.ndarray, itemsize: int, in_place: bool) -> None:
        """Walk one rank's table once; when it returns, the device has the result. Raises Stalled."""
        gpu = self.gpu
        self._deadline = time.monotonic() + self.timeout
        sends: dict[int, _Sending] = {}

        def address(buffer, offset):
            return self.buffers[OUTPUT if in_place and buffer == INPUT else int(buffer)] + int(offset) * itemsize

        for i, step in enumerate(table):
            op, count, after = int(step["op"]), int(step["count"]), int(step["after"])
            if after in sends:
                self._until(lambda s=sends[after]: self._may_overwrite(s))
            src = address(step["src_buffer"], step["src_offset"])
            dst = address(step["dst_buffer"], step["dst_offset"])
            peer, tag, nbytes = int(step["peer"]), TAG_BASE + int(step["channel"]), count * itemsize
            if op == SEND:
                sends[i] = self._send(src, nbytes, peer, tag)
            elif op in (RECV, RECV_REDUCE):
                self._receive(step, src, dst, nbytes, itemsize, peer, tag)
            elif op == REDUCE:
                gpu.reduce(COMPUTE, dst, src, dst, count, bool(step["final"]))
            elif op == COPY:
                gpu.copy(COMPUTE, dst, src, nbytes)
            elif op != NOP:
                raise ValueError(f"step {i} has op {op}")
            self._progress()
        self._until(lambda: not self._sending)
        gpu.finish(gpu.record(COMPUTE))

    def _send(self, src: int, nbytes: int, peer: int, tag: int) -> _Sending:
        ready = self.gpu.record(COMPUTE)
        if self.aware:
            self.gpu.finish(ready)
            request = self.comm.Isend(self._memory(src, nbytes), peer, tag)
            sending = _Sending(iter(()), requests=[(request, None)], exhausted=True)
        else:
            self.gpu.wait(OUT, ready)
            sending = _Sending(self._segments(src, nbytes, peer, tag))
        self._sending.append(sending)
        return sending

    def _segments(self, src: int, nbytes: int, peer: int, tag: int) -> Iterator:
        for start in range(0, nbytes, self.segment_bytes):
            yield src + start, min(self.segment_bytes, nbytes - start), peer, tag

    def _progress(self) -> bool:
        """Move the messages being sent, oldest first, so that messages to one peer leave in order. True: all are gone."""
        for sending in self._sending:
            self._move(sending)
            if not sending.copied_out:
                break  # the next message's segments come after all of this one's
        while self._sending and self._is_over(self._sending[0]):
            self._sending.popleft()
        return not self._sending

    def _is_over(self, sending: _Sending) -> bool:
        return sending.copied_out and sending.sent()

    def _may_overwrite(self, sending: _Sending) -> bool:
        """Whether a message's source has been read: by the library where it has the device's address, else by the copies."""
        return sending.sent() if self.aware else sending.copied_out

    def _move(self, sending: _Sending) -> None:
        while sending.copied and self.gpu.done(sending.copied[0][0]):
            _, half, (_, nbytes, peer, tag) = sending.copied.popleft()
            request = self.comm.Isend(self._memory(self._out.addresses[half], nbytes), peer, tag)
            self._out.busy[half] = request
            sending.requests.append((request, half))
        while not sending.exhausted:
            half = self._out.take(lambda user: user is not True and user.Test())
            if half is None:
                return
            segment = next(sending.steps, None)
            if segment is None:
                sending.exhausted = True
                self._out.next = half  # not used after all
                break
            self._out.busy[half] = True  # being copied
            src, nbytes = segment[:2]
            self.gpu.copy(OUT, self._out.addresses[half], src, nbytes)
            sending.copied.append((self.gpu.record(OUT), half, segment))

    def _receive(self, step, src: int, dst: int, nbytes: int, itemsize: int, peer: int, tag: int) -> None:
        reduce, final = int(step["op"]) == RECV_REDUCE, bool(step["final"])
        gpu = self.gpu
        if self.aware:
            # What the device still does with the place must be over before the library writes there.
            gpu.finish(gpu.record(COMPUTE))
            where = self._landing.addresses[0] if reduce else dst
            request = self.comm.Irecv(self._memory(where, nbytes), peer, tag)
            self._until(request.Test)
            if reduce:
                gpu.reduce(COMPUTE, dst, src, where, nbytes // itemsize, final)
            return
        gpu.wait(IN, gpu.record(COMPUTE))  # earlier steps may still use dst
        pending: deque = deque()  # (request, half, start, length): posted ahead, taken in order
        starts = iter(range(0, nbytes, self.segment_bytes))
        left = -(-nbytes // self.segment_bytes)
        while left:
            while len(pending) < HALVES:
                half = self._in.take(gpu.done)
                if half is None:
                    break
                start = next(starts, None)
                if start is None:
                    self._in.next = half
                    break
                length = min(self.segment_bytes, nbytes - start)
                request = self.comm.Irecv(self._memory(self._in.addresses[half], length), peer, tag)
                pending.append((request, half, start, length))
            if not pending or not pending[0][0].Test():
                self._pause()
                continue
            _, half, start, length = pending.popleft()
            self._land(half, src + start, dst + start, length, itemsize, reduce, final)
            left -= 1

    def _land(self, half: int, src: int, dst: int, nbytes: int, itemsize: int, reduce: bool, final: bool) -> None:
        """Put a received segment into the device, and reduce it there."""
        gpu = self.gpu
        if not reduce:
            gpu.copy(IN, dst, self._in.addresses[half], nbytes)
            arrived = self._in.busy[half] = gpu.record(IN)
            gpu.wait(COMPUTE, arrived)
            return
        landing = self._landing
        spot = landing.next
        landing.next = (spot + 1) % HALVES
        if landing.busy[spot] is not None:
            gpu.wait(IN, landing.busy[spot])  # the reduction that read this place before
        gpu.copy(IN, landing.addresses[spot], self._in.addresses[half], nbytes)
        arrived = self._in.busy[half] = gpu.record(IN)
        gpu.wait(COMPUTE, arrived)
        gpu.reduce(COMPUTE, dst, src, landing.addresses[spot], nbytes // itemsize, final)
        landing.busy[spot] = gpu.record(COMPUTE)

    def _pause(self) -> None:
        self._progress()
        if time.monotonic() > self._deadline:
            raise Stalled(f"rank {self.comm.rank} did not get on within {self.timeout:g} s (--timeout)")

    def _until(self, over) -> None:
        while not over():
            self._pause()


class DeviceMpiSession:
    """One rank of an MPI job with its GPU, with the methods of session.Session. Called by all ranks together.

    A time is wall-clock from a barrier until the rank's device has the result, of the slowest rank: the walk is the host's, so
    events on one device would not see it all.
    """

    slice_sizes = GPU_SLICES
    chosen = "streams"
    timing = "wall clock from a barrier until the device is done"
    refused_times = None  # a wall clock refuses none

    def __init__(
        self,
        comm,
        gpu: Gpu,
        buffer_bytes: int,
        scratch_bytes: int,
        *,
        aware: bool,
        timeout: float = 60.0,
        segment_bytes: int = SEGMENT_BYTES,
        flush: bool = True,
        open_nccl: Callable[[], Group] | None = None,
    ):
        """gpu also has `launch(kernel, dtype, arguments, nbytes)` (kernels/device.py), `upload(address, values)`,
        `download(address, dtype, count)`, `use(dtype, op, ranks)`, which says what `reduce` works on, `flush_cache()`,
        `stream_address(stream)` and `close()`.

        flush: clear the device's cache before each sample; open_nccl: makes NCCL's communicator, for jobs of algorithm
        "nccl"; called by all ranks.
        """
        self.comm, self.gpu = comm, gpu
        self.ranks, self.rank = comm.size, comm.rank
        self.buffer_bytes, self.scratch_bytes = buffer_bytes, scratch_bytes
        self.walker = DeviceRank(
            comm, gpu, buffer_bytes, scratch_bytes, aware=aware, timeout=timeout, segment_bytes=segment_bytes
        )
        self.crew = JobCrew(comm, "gpu-mpi-aware" if aware else "gpu-mpi-staged")
        self.job: Job | None = None
        self.message_modes: dict[str, int] = {}
        self.clock = self.nodes = None  # as session.Session has them
        self._flush, self._open_nccl, self._nccl = flush, open_nccl, None
        self._tables = [gpu.allocate(256 * 8) for _ in range(2)]
        self._counter = gpu.allocate(256)

    @property
    def is_root(self) -> bool:
        return self.rank == 0

    @property
    def described(self) -> list[dict]:
        """The GPU of this process, as Device.describe tells it."""
        return [self.gpu.device.describe()]

    @property
    def itemsize(self) -> int:
        return find_device_dtype(self.job.dtype).itemsize

    @property
    def nbytes(self) -> int:
        return self.job.elements(self.ranks) * self.itemsize

    def prepare(self, job: Job, schedule: Schedule | None = None) -> None:
        """As interface.Session.prepare."""
        d = find_device_dtype(job.dtype)
        nbytes = job.elements(self.ranks) * d.itemsize
        if job.in_place and not job.of.in_place:
            raise Unavailable(f"{job.collective} has no in-place form; accepted: out of place")
        if job.algorithm == "nccl":
            if nbytes > self.buffer_bytes:
                raise Unavailable(f"{nbytes} bytes of message, but the session was opened for {self.buffer_bytes}")
            if self._open_nccl is None:
                raise Unavailable("--algo nccl goes through CuPy; accepted: with --backend cupy")
            nccl_calls.check(job)
            if self._nccl is None:
                self._nccl = self._open_nccl()
            self._nccl_codes = self._nccl.codes(job.dtype, job.op)
            self.job, self.message_modes = job, {}
            return
        table = schedule.tables[self.rank] if schedule else self._registered(job)
        for what, need, have in (
            ("message", nbytes, self.buffer_bytes),
            ("scratch", scratch_elements(table) * d.itemsize, self.scratch_bytes),
        ):
            if need > have:
                raise Unavailable(f"{need} bytes of {what}, but the session was opened for {have}")
        self.job, self._table = job, table
        self.gpu.use(d.name, job.op, self.ranks)
        self.message_modes = {"mpi": int(np.count_nonzero(table["op"] == SEND))}

    def _registered(self, job: Job) -> np.ndarray:
        return algorithms(job.of)[job.algorithm].table(
            self.rank,
            self.ranks,
            job.count,
            channels=job.channels,
            slices=job.slices,
            in_place=job.in_place,
            root=job.root,
            nodes=job.nodes,
        )

    def _fill_one(self, which: int, at: int, count: int, table: np.ndarray, start: int) -> None:
        self.gpu.upload(self._tables[0], np.ascontiguousarray(table))
        arguments = (self.walker.buffers[which] + at * self.itemsize, self._tables[0], count, start)
        self.gpu.launch(f"fill_{self.itemsize}", "uint8", arguments, count * self.itemsize)

    def fill(self, table: Callable[[int], np.ndarray], start: int = 0) -> None:
        """As interface.Session.fill."""
        job = self.job
        poison = np.frombuffer(b"\xa5" * (256 * self.itemsize), np.uint8)
        for which, count in enumerate(job.buffer_counts(self.ranks)):
            if count:
                self._fill_one(which, 0, count, poison, 0)
        for rank, at, n in job.inputs(self.ranks).tolist():
            if rank == self.rank:
                self._fill_one(OUTPUT if job.in_place else INPUT, at, n, table(rank), start)
        self.gpu.finish(self.gpu.record(COMPUTE))
        self.comm.Barrier()

    def check(self, answers: Answers, start: int = 0) -> int:
        """As interface.Session.check."""
        return int(self.check_each(answers, start).sum())

    def check_each(self, answers: Answers, start: int = 0) -> np.ndarray:
        """As interface.Session.check_each."""
        self.gpu.upload(self._counter, np.zeros(1, np.uint64))
        name = find_device_dtype(self.job.dtype).name
        for rank, at, n, source, contributor in self.job.outputs(self.ranks).tolist():
            if rank != self.rank:
                continue
            for address, values in zip(self._tables, answers.answer(contributor)):
                self.gpu.upload(address, np.ascontiguousarray(values))
            where = self.walker.buffers[OUTPUT] + at * self.itemsize
            arguments = (where, *self._tables, n, start + source, self._counter)
            self.gpu.launch("check_range", name, arguments, n * self.itemsize)
        return np.array(self.comm.allgather(int(self.gpu.download(self._counter, np.dtype(np.uint64), 1)[0])))

    def run(self) -> None:
        self._once(1)
        self.comm.Barrier()

    def _once(self, inner: int) -> None:
        """`inner` all-reduces; when it returns, the device has the result."""
        if self.job.algorithm != "nccl":
            for _ in range(inner):
                self.walker.run(self._table, self.itemsize, self.job.in_place)
            return
        buffers = [(self.walker.buffers[INPUT], self.walker.buffers[OUTPUT])]
        stream = self.gpu.stream_address(COMPUTE)
        for _ in range(inner):
            self._nccl.run(self.job, self.ranks, [self.rank], buffers, self.itemsize, self._nccl_codes, [stream])
        self.gpu.finish(self.gpu.record(COMPUTE))
        if problem := self._nccl.failed():
            raise RuntimeError(f"NCCL: {problem}")

    def time(self, samples: int, inner: int, across: str = "max", fresh: bool = False) -> tuple[np.ndarray, int]:
        """Samples of `inner` all-reduces each: float64 seconds, combined over the ranks by `across`, and 0 late starts."""
        return self.crew.combine(self._timed(samples, inner), across), 0

    def time_each(self, samples: int, inner: int) -> np.ndarray:
        """As interface.Session.time_each."""
        return np.array(self.comm.allgather(self._timed(samples, inner)))

    def _timed(self, samples: int, inner: int) -> np.ndarray:
        """This rank's seconds."""
        taken = np.zeros(samples)
        for s in range(samples):
            if self._flush:
                self.gpu.flush_cache()
                self.gpu.finish(self.gpu.record(COMPUTE))
            self.comm.Barrier()
            start = time.perf_counter()
            self._once(inner)
            taken[s] = (time.perf_counter() - start) / inner
        return taken

    def costs(self) -> dict[str, float]:
        """As DeviceSession.costs: a wall clock tells no more of them."""
        return {}

    def abort(self, error: BaseException) -> None:
        self.crew.leave(error)

    def close(self) -> None:
        self.crew.leave(None)
        if self._nccl is not None:
            self._nccl.close()
            self._nccl = None
        self.gpu.close()
