"""NCCL's own collectives through CuPy, measured beside ours: one rank a GPU, of this process or of an MPI job.

NCCL chooses algorithm and protocol by itself; NCCL_ALGO and NCCL_PROTO, if set, go into the record (`settings`). What CuPy has no
call for, memory of NCCL's own and its registration, goes to the same library by ctypes (`Library`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from ..kernels.dtypes import find_device_dtype
from .interface import Job, Unavailable
from .nccl_calls import CALLS, GROUPED, call_of

OPS = {"sum": "NCCL_SUM", "prod": "NCCL_PROD", "min": "NCCL_MIN", "max": "NCCL_MAX", "avg": "NCCL_AVG"}
DTYPES = {
    "float64": "NCCL_FLOAT64", "float32": "NCCL_FLOAT32", "float16": "NCCL_FLOAT16", "bfloat16": "NCCL_BFLOAT16",
    "int8": "NCCL_INT8", "uint8": "NCCL_UINT8", "int32": "NCCL_INT32", "int64": "NCCL_INT64", "uint64": "NCCL_UINT64",
}  # fmt: skip
ENVIRONMENT = (
    "NCCL_ALGO",
    "NCCL_PROTO",
    "NCCL_MIN_NCHANNELS",
    "NCCL_MAX_NCHANNELS",
    "NCCL_NVLS_ENABLE",
    "NCCL_P2P_DISABLE",
)
LOCAL, SYMMETRIC = 1, 2  # -R: how buffers are registered
SYMMETRIC_WINDOW = 1  # NCCL_WIN_COLL_SYMMETRIC
REGISTER_SINCE = {LOCAL: 21900, SYMMETRIC: 22700}  # ncclMemAlloc and ncclCommRegister; ncclCommWindowRegister
FLOAT8 = {"float8_e4m3": 10, "float8_e5m2": 11}  # ncclFloat8e4m3, ncclFloat8e5m2, for which CuPy has no name
FLOAT8_SINCE = 22400
INSTALL = "pip install nvidia-nccl-cu13 (or nvidia-nccl-cu12), or a system's libnccl.so.2, beside CuPy"


def library() -> Any:
    """CuPy's module `nccl`. Raises Unavailable where CuPy or libnccl is missing, with what to install."""
    try:
        from cupy.cuda import nccl
    except ImportError as error:
        raise Unavailable(f"--algo nccl: CuPy cannot be imported ({error}): pip install 'busbw[cuda13]'") from None
    if not nccl.available:
        raise Unavailable(f"--algo nccl: CuPy finds no libnccl.so.2: {INSTALL}")
    return nccl


def version(nccl) -> str:
    """ "2.32.3" of NCCL's number 23203 (before 2.9: 2804 is 2.8.4)."""
    number = int(nccl.get_version())
    major, rest = divmod(number, 10000) if number >= 10000 else divmod(number, 1000)
    return f"{major}.{rest // 100}.{rest % 100}"


def settings(nccl) -> dict:
    """What a record of NCCL's times must say: the version, and the variables that change its choices where set."""
    return {"version": version(nccl), **{name: os.environ[name] for name in ENVIRONMENT if name in os.environ}}


@dataclass(frozen=True)
class How:
    """How NCCL is measured, by nccl-tests' flags. register: -R, 0, LOCAL or SYMMETRIC; graph: -G, launches of a CUDA graph of
    all-reduces that make a sample, or 0; blocking: -z, the host waits after each all-reduce."""

    register: int = 0
    graph: int = 0
    blocking: bool = False


class Library:
    """libnccl's calls by name, for those that CuPy has not."""

    def __init__(self):
        self._calls = ctypes.CDLL("libnccl.so.2")  # CuPy has loaded it
        self._calls.ncclGetErrorString.restype = ctypes.c_char_p

    def call(self, name: str, *arguments) -> None:
        """Integers are passed as 64 bits. Raises RuntimeError with NCCL's words."""
        passed = [ctypes.c_uint64(x) if isinstance(x, int) else x for x in arguments]
        status = getattr(self._calls, name)(*passed)
        if status:
            raise RuntimeError(f"{name}: {self._calls.ncclGetErrorString(status).decode()}")


class Group:
    """Communicators of all ranks of this process, one a GPU; `run` puts one collective into their streams."""

    def __init__(self, nccl, communicators: Sequence[Any], library: Library | None = None):
        self._nccl, self._communicators, self._library = nccl, list(communicators), library
        self._kept: list[tuple[AbstractContextManager, int]] = []  # (the device, NCCL's memory)
        self._registered: list[tuple[int, int, int]] = []  # (-R, communicator's index, handle)

    def codes(self, dtype: str, op: str) -> tuple[int, int]:
        """NCCL's numbers. Raises Unavailable for what NCCL does not reduce."""
        name = find_device_dtype(dtype).name
        code = getattr(self._nccl, DTYPES[name], None) if name in DTYPES else FLOAT8.get(name)
        if name in FLOAT8 and self._nccl.get_version() < FLOAT8_SINCE:
            raise Unavailable(f"--algo nccl: NCCL {version(self._nccl)} has no {name}; accepted: NCCL 2.24 or later")
        if code is None:
            raise Unavailable(f"--algo nccl does not reduce {name} through CuPy; accepted: {', '.join(DTYPES)}")
        return code, getattr(self._nccl, OPS[op])

    def buffers(self, devices: Sequence[AbstractContextManager], nbytes: int, register: int) -> list[int]:
        """A buffer of NCCL's own memory for each rank of this process, registered as -R says; devices: contexts in which each
        rank's GPU is the current one. Raises Unavailable, MemoryError."""
        since = REGISTER_SINCE[register]
        if self._nccl.get_version() < since:
            raise Unavailable(
                f"-R {register}: NCCL {version(self._nccl)} cannot; accepted: NCCL {since // 10000}.{since // 100 % 100} or later"
            )
        library = self._library = self._library or Library()
        made = []
        for device in devices:
            at = ctypes.c_void_p()
            with device:
                try:
                    library.call("ncclMemAlloc", ctypes.byref(at), nbytes)
                except RuntimeError as error:
                    raise MemoryError(f"{nbytes} bytes of NCCL's memory were refused: {error}") from None
            made.append(at.value)
            self._kept.append((device, at.value))
        handles = [ctypes.c_void_p() for _ in made]
        self._nccl.groupStart()  # a window is registered by all ranks together
        for communicator, at, handle in zip(self._communicators, made, handles):
            if register == SYMMETRIC:
                window = (ctypes.byref(handle), SYMMETRIC_WINDOW)
                library.call("ncclCommWindowRegister", communicator.comm, at, nbytes, *window)
            else:
                library.call("ncclCommRegister", communicator.comm, at, nbytes, ctypes.byref(handle))
        self._nccl.groupEnd()
        self._registered += [(register, i, handle.value) for i, handle in enumerate(handles)]
        return made

    def run(
        self,
        job: Job,
        ranks: int,
        mine: Sequence[int],
        buffers: Sequence[tuple[int, int]],
        itemsize: int,
        codes,
        streams,
    ) -> None:
        """Put one collective into the streams of this process's ranks.

        mine: their numbers; buffers: (address of INPUT, of OUTPUT) of each; codes: of `codes`; streams: CUstreams.
        """
        together = len(self._communicators) > 1 or job.collective in GROUPED
        if together:
            self._nccl.groupStart()
        for communicator, rank, (given, taken), stream in zip(self._communicators, mine, buffers, streams):
            CALLS[job.collective](call_of(job, communicator, rank, ranks, given, taken, itemsize, codes, stream))
        if together:
            self._nccl.groupEnd()

    def failed(self) -> str | None:
        """What NCCL says went wrong behind our back."""
        for communicator in self._communicators:
            try:
                communicator.check_async_error()
            except Exception as error:  # NcclError
                return str(error)
        return None

    def close(self) -> None:
        for register, index, handle in self._registered:
            name = "ncclCommWindowDeregister" if register == SYMMETRIC else "ncclCommDeregister"
            self._library.call(name, self._communicators[index].comm, handle)
        for device, at in self._kept:
            with device:
                self._library.call("ncclMemFree", at)
        self._registered.clear()
        self._kept.clear()
        for communicator in self._communicators:
            communicator.destroy()
        self._communicators.clear()


def of_this_process(device_ids: Sequence[int], nccl=None, calls: Library | None = None) -> Group:
    """Rank i on GPU device_ids[i], all different. Raises Unavailable."""
    nccl = nccl or library()
    if len(set(device_ids)) != len(device_ids):
        raise Unavailable(
            f"--algo nccl takes one rank a GPU, and here are {len(device_ids)} ranks on {len(set(device_ids))}; accepted: "
            f"--ranks {len(set(device_ids))}"
        )
    return Group(nccl, nccl.NcclCommunicator.initAll(list(device_ids)), calls)


def of_a_job(comm, bus: str | None, nccl=None) -> Group:
    """This process's rank of an mpi4py communicator, on the current GPU, whose PCI address is `bus`. Called by all ranks. Raises
    Unavailable, also where two ranks share a GPU."""
    problem = None
    gpus = len(set(comm.allgather((os.uname().nodename, bus))))
    if gpus < comm.size:
        raise Unavailable(
            f"--algo nccl: NCCL takes one rank a GPU, and {comm.size} ranks share {gpus}; accepted: {gpus}"
        )
    try:
        nccl = nccl or library()
    except Unavailable as error:
        problem = str(error)
    problems = [p for p in comm.allgather(problem) if p]
    if problems:
        raise Unavailable(problems[0])
    unique = comm.bcast(nccl.get_unique_id() if comm.rank == 0 else None)
    return Group(nccl, [nccl.NcclCommunicator(comm.size, unique, comm.rank)])
