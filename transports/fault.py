"""Faults put in on purpose, so that tests can see them caught. Not for users: BUSBW_INJECT=corrupt:1:1024.

The form is KIND:RANK:BYTES. At that message size, that rank's output gets a flipped bit before it is checked (corrupt), or
that rank never comes back (stall), or its process is killed (die; MPI ranks only).
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

KINDS = ("corrupt", "stall", "die")
STALL_SECONDS = 3600


@dataclass(frozen=True)
class Fault:
    kind: str
    rank: int
    nbytes: int

    def hits(self, kind: str, rank: int, nbytes: int) -> bool:
        return (self.kind, self.rank, self.nbytes) == (kind, rank, nbytes)

    def strike(self, rank: int, nbytes: int, stop) -> None:
        """Before an all-reduce on `rank`. stop(): whether the session was aborted meanwhile."""
        if self.hits("die", rank, nbytes):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.hits("stall", rank, nbytes):
            until = time.monotonic() + STALL_SECONDS
            while time.monotonic() < until and not stop():
                time.sleep(0.05)


def fault_from_environment() -> Fault | None:
    """Raises ValueError for a BUSBW_INJECT that cannot be read."""
    text = os.environ.get("BUSBW_INJECT")
    if not text:
        return None
    kind, _, rest = text.partition(":")
    rank, _, nbytes = rest.partition(":")
    if kind not in KINDS or not rank.isdigit() or not nbytes.isdigit():
        raise ValueError(f"BUSBW_INJECT={text!r}: accepted is KIND:RANK:BYTES with KIND one of {', '.join(KINDS)}")
    return Fault(kind, int(rank), int(nbytes))
