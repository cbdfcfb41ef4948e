"""The MPI library's own collectives as the reference, called from compiled code by address as ours are walked."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from ..collectives.schedule import INPUT, OUTPUT
from ..kernels import cpu
from ..kernels.dtypes import find_dtype
from .compiling import compile_library_timing
from .interface import Job, Unavailable
from .walker import LIBRARY_ARGUMENTS, time_library

DTYPES = {
    "float64": "DOUBLE", "float32": "FLOAT", "int8": "INT8_T", "uint8": "UINT8_T", "int32": "INT32_T", "int64": "INT64_T",
    "uint64": "UINT64_T",
}  # fmt: skip
MOVED = {"float16": "INT16_T", "bfloat16": "INT16_T"}
"""What MPI cannot reduce, but move."""
COUNT_MAX = 2**31 - 1
TAG = 1


class MpiReference:
    """crew: mpi.MpiCrew."""

    def __init__(self, crew):
        self.crew = crew
        self._library = ctypes.CDLL(crew.MPI.__file__)
        self._calls = np.zeros((0, 1 + LIBRARY_ARGUMENTS), np.int64)
        self.job: Job | None = None

    def prepare(self, job: Job) -> None:
        compile_library_timing(self.crew.posts[0])
        crew, MPI = self.crew, self.crew.MPI
        collective = job.of
        if collective.name not in CALLS:
            raise Unavailable(f"MPI has no {collective.name}; accepted with --algo mpi-native: {', '.join(CALLS)}")
        if job.count > COUNT_MAX:
            raise Unavailable(f"MPI takes a count of {COUNT_MAX} at most, not {job.count}")
        if collective.name == "broadcast" and not job.in_place:
            raise Unavailable("MPI_Bcast has one buffer; accepted with --algo mpi-native: in place (--in-place only)")
        dtype, reduces = find_dtype(job.dtype).name, collective.reduces
        names = DTYPES if reduces else {**DTYPES, **MOVED}
        ops = {"sum": MPI.SUM, "prod": MPI.PROD, "min": MPI.MIN, "max": MPI.MAX}
        if dtype not in names:
            raise Unavailable(f"MPI has no {dtype}; accepted with --algo mpi-native: {', '.join(names)}")
        if reduces and job.op not in ops:
            raise Unavailable(f"MPI has no op {job.op}; accepted with --algo mpi-native: {', '.join(ops)}")
        op = crew.handle(ops[job.op]) if reduces else 0
        calls = CALLS[collective.name](_Arguments(self, job, crew.handle(getattr(MPI, names[dtype])), op))
        self._calls = np.zeros((len(calls), 1 + LIBRARY_ARGUMENTS), np.int64)
        for line, (name, *arguments) in zip(self._calls, calls):
            line[0] = ctypes.cast(getattr(self._library, name), ctypes.c_void_p).value
            line[1 : 1 + len(arguments)] = arguments
        self.job = job

    def time(self, samples: int, inner: int, turn: int, fresh: bool) -> list[tuple[int, int, np.ndarray]]:
        (post,) = self.crew.posts
        job = self.job
        source = post.peers.buffers[post.rank, OUTPUT if job.in_place else INPUT]
        copy = cpu.pointers("sum", "float32").copy if fresh else 0
        n = job.of.input_count(self.crew.ranks, job.count) * find_dtype(job.dtype).itemsize
        rewritten = np.array([copy, source, n], np.int64)
        out = self.crew.arena.samples(post.index)

        def work(post):
            status, late = time_library(
                self._calls, turn, out, samples, inner, rewritten, post.state, post.mpi, post.flag
            )
            return status, late, out[:samples].copy()

        return self.crew.each(work)


class _Arguments:
    """What the calls of one rank are made of; addresses and handles as int64."""

    def __init__(self, reference: MpiReference, job: Job, dtype: int, op: int):
        crew = reference.crew
        rank, ranks = crew.rank, crew.ranks
        here = crew.posts[0].peers.buffers[rank]
        size = find_dtype(job.dtype).itemsize
        given, taken = (at * size * job.in_place for at in job.of.offsets(rank, ranks, job.count))
        self.rank, self.ranks, self.root, self.count = rank, ranks, job.root, job.count
        self.type, self.op, self.comm, self.status = dtype, op, crew.handle(crew.comm), crew.status_address
        self.in_place = job.in_place
        self.send = int(here[OUTPUT if job.in_place else INPUT]) + given
        self.recv = int(here[OUTPUT]) + taken
        self.whole = int(here[OUTPUT])
        # MPI_IN_PLACE, which headers define and no symbol holds: of Open MPI; of MPICH and its descendants.
        self.mark = 1 if crew.MPI.Get_library_version().startswith("Open MPI") else -1

    def sent(self, marked: bool = True) -> int:
        """The send buffer, or MPI_IN_PLACE where this rank gives that."""
        return self.mark if self.in_place and marked else self.send

    @property
    def at_root(self) -> bool:
        return self.rank == self.root


def _reduce_scatter(a: _Arguments):
    # In place the whole input is in the receive buffer, and the result goes to its beginning; ours lies at the rank's block.
    if a.in_place:
        raise Unavailable("MPI_Reduce_scatter_block puts its in-place result elsewhere; accepted here: --in-place no")
    return [("MPI_Reduce_scatter_block", a.send, a.recv, a.count, a.type, a.op, a.comm)]


def _pingpong(a: _Arguments):
    peer = a.rank ^ 1
    if peer >= a.ranks:
        return []
    send = ("MPI_Send", a.recv if a.rank % 2 else a.send, a.count, a.type, peer, TAG, a.comm)
    recv = ("MPI_Recv", a.recv, a.count, a.type, peer, TAG, a.comm, a.status)
    return [recv, send] if a.rank % 2 else [send, recv]


CALLS: dict[str, Callable[[_Arguments], list[tuple]]] = {
    "all_reduce": lambda a: [("MPI_Allreduce", a.sent(), a.recv, a.count, a.type, a.op, a.comm)],
    "reduce_scatter": _reduce_scatter,
    "all_gather": lambda a: [("MPI_Allgather", a.sent(), a.count, a.type, a.whole, a.count, a.type, a.comm)],
    "broadcast": lambda a: [("MPI_Bcast", a.whole, a.count, a.type, a.root, a.comm)],
    "reduce": lambda a: [
        ("MPI_Reduce", a.sent(a.at_root), a.recv, a.count, a.type, a.op, a.root, a.comm),
    ],
    "alltoall": lambda a: [("MPI_Alltoall", a.send, a.count, a.type, a.recv, a.count, a.type, a.comm)],
    "gather": lambda a: [
        ("MPI_Gather", a.sent(a.at_root), a.count, a.type, a.whole, a.count, a.type, a.root, a.comm),
    ],
    "scatter": lambda a: [
        ("MPI_Scatter", a.whole if a.in_place else a.send, a.count, a.type,
         a.mark if a.in_place and a.at_root else a.recv, a.count, a.type, a.root, a.comm),
    ],
    "sendrecv": lambda a: [
        ("MPI_Sendrecv", a.send, a.count, a.type, (a.rank + 1) % a.ranks, TAG,
         a.recv, a.count, a.type, (a.rank - 1) % a.ranks, TAG, a.comm, a.status),
    ],
    "pingpong": _pingpong,
}  # fmt: skip
