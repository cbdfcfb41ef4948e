"""Point-to-point patterns: a shift around the ring, and a ping-pong in pairs.

shift       0 -> 1 -> 2 -> 3 -> 0          everybody sends to the next and receives from the one before
ping-pong   0 <-> 1    2 <-> 3             there, and when it has come, back
"""

from __future__ import annotations

import numpy as np

from .schedule import INPUT, OUTPUT, StepList


def shift(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table."""
    table = StepList()
    table.send((rank + 1) % ranks, INPUT, 0, count)
    table.recv((rank - 1) % ranks, OUTPUT, 0, count)
    return table.table()


def pingpong(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table; the last of an odd number of ranks has none."""
    table = StepList()
    peer = rank ^ 1
    if peer >= ranks:
        return table.table()
    if rank % 2 == 0:
        table.send(peer, INPUT, 0, count)
    table.recv(peer, OUTPUT, 0, count)
    if rank % 2:
        table.send(peer, OUTPUT, 0, count)
    return table.table()
