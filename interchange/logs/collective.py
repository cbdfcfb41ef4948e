"""The names that tools give a collective, and what busbw / algbw says of its ranks."""

from __future__ import annotations

import re

from ...bench.record import busbw_factor

MANY = 1 << 50  # ranks, beyond which the factor is its limit

_NAMES = {
    "allreduce": "all_reduce", "iallreduce": "all_reduce",
    "allgather": "all_gather", "allgatherbase": "all_gather", "allgatherintotensor": "all_gather", "iallgather": "all_gather",
    "allgatherv": "all_gatherv", "iallgatherv": "all_gatherv",
    "reducescatter": "reduce_scatter", "reducescatterblock": "reduce_scatter", "reducescatterbase": "reduce_scatter",
    "ireducescatter": "reduce_scatter", "reducescatterv": "reduce_scatterv",
    "alltoall": "alltoall", "ialltoall": "alltoall", "alltoallv": "alltoallv", "ialltoallv": "alltoallv",
    "bcast": "broadcast", "broadcast": "broadcast", "ibcast": "broadcast",
    "reduce": "reduce", "ireduce": "reduce", "gather": "gather", "igather": "gather", "gatherv": "gatherv",
    "scatter": "scatter", "iscatter": "scatter", "scatterv": "scatterv",
    "sendrecv": "sendrecv", "sendreceive": "sendrecv", "hypercube": "hypercube", "barrier": "barrier", "ibarrier": "barrier",
}  # fmt: skip

POINT_TO_POINT = frozenset({"pingpong", "pingping", "latency", "bandwidth", "bibw", "exchange", "pt2pt"})

_PERF = re.compile(r"\b(\w+?)_perf(?:_mpi)?\b")


def collective(name: str) -> str:
    """nccl-tests' name ("all_reduce") for a tool's ("AllReduce", "all_to_allv", "MPI_Allreduce", "osu_allreduce"). A name that is
    none of a known collective is returned in lower case, its words joined by underscores; "" for no name."""
    plain = re.sub(r"[^a-z0-9]", "", re.sub(r"^(mpi|osu|nccl|imb)[_ ]", "", name.strip().lower())).removesuffix("perf")
    return _NAMES.get(plain) or re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")[:40]


def in_words(text: str) -> str:
    """The collective that a command line or a sentence names by its program (all_reduce_perf); "" for none."""
    found = _PERF.search(text)
    return collective(found.group(1)) if found and found.group(1) else ""


def ranks_of_factor(name: str, ratio: float) -> float | None:
    """The p whose busbw / algbw is `ratio`: infinite at and above the limit; None where that does not depend on p."""
    if not tells_ranks(name):
        return None
    limit = busbw_factor(MANY, name)  # limit * (p-1)/p is the factor
    return limit / (limit - ratio) if ratio < limit * (1 - 1 / MANY) else float("inf")


def tells_ranks(name: str) -> bool:
    """Whether the collective's busbw / algbw depends on p."""
    return busbw_factor(2, name) != busbw_factor(MANY, name)
