"""NCCL's own all-reduce through CuPy, measured beside ours: one rank a GPU, of this process or of an MPI job.

NCCL chooses algorithm and protocol by itself; NCCL_ALGO and NCCL_PROTO, if set, go into the record (`settings`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..kernels.dtypes import find_device_dtype
from .session import Unavailable

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


class Group:
    """Communicators of all ranks of this process, one a GPU; `all_reduce` puts one all-reduce into their streams."""

    def __init__(self, nccl, communicators: Sequence[Any]):
        self._nccl, self._communicators = nccl, list(communicators)

    def codes(self, dtype: str, op: str) -> tuple[int, int]:
        """NCCL's numbers. Raises Unavailable for what NCCL does not reduce."""
        name = find_device_dtype(dtype).name
        code = getattr(self._nccl, DTYPES.get(name, ""), None) if name in DTYPES else None
        if code is None:
            raise Unavailable(f"--algo nccl does not reduce {name} through CuPy; accepted: {', '.join(DTYPES)}")
        return code, getattr(self._nccl, OPS[op])

    def all_reduce(
        self, sends: Sequence[int], receives: Sequence[int], count: int, codes: tuple[int, int], streams: Sequence[int]
    ) -> None:
        """Addresses and CUstreams of each rank of this process, in the ranks' order; codes: of `codes`."""
        alone = len(self._communicators) == 1
        if not alone:
            self._nccl.groupStart()
        for communicator, send, receive, stream in zip(self._communicators, sends, receives, streams):
            communicator.allReduce(send, receive, count, *codes, stream)
        if not alone:
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
        for communicator in self._communicators:
            communicator.destroy()
        self._communicators.clear()


def of_this_process(device_ids: Sequence[int], nccl=None) -> Group:
    """Rank i on GPU device_ids[i], all different. Raises Unavailable."""
    nccl = nccl or library()
    if len(set(device_ids)) != len(device_ids):
        raise Unavailable(
            f"--algo nccl takes one rank a GPU, and here are {len(device_ids)} ranks on {len(set(device_ids))}; accepted: "
            f"--ranks {len(set(device_ids))}"
        )
    return Group(nccl, nccl.NcclCommunicator.initAll(list(device_ids)))


def of_a_job(comm, nccl=None) -> Group:
    """This process's rank of an mpi4py communicator, on the current GPU. Called by all ranks. Raises Unavailable."""
    problem = None
    try:
        nccl = nccl or library()
    except Unavailable as error:
        problem = str(error)
    problems = [p for p in comm.allgather(problem) if p]
    if problems:
        raise Unavailable(problems[0])
    unique = comm.bcast(nccl.get_unique_id() if comm.rank == 0 else None)
    return Group(nccl, [nccl.NcclCommunicator(comm.size, unique, comm.rank)])
