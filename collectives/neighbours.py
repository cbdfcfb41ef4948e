"""Point-to-point patterns: a shift around the ring, and what two ranks can do in pairs.

shift       0 -> 1 -> 2 -> 3 -> 0          everybody sends to the next and receives from the one before
ping-pong   0 <-> 1    2 <-> 3             there, and when it has come, back
one way     0 --> 1    2 --> 3             there, and when it has come, one element back that says so
exchange    0 <=> 1    2 <=> 3             both ways at once
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


def one_way(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table. What is answered lies over the first element of the sender's OUTPUT."""
    table = StepList()
    peer = rank ^ 1
    if peer >= ranks:
        return table.table()
    if rank % 2 == 0:
        table.send(peer, INPUT, 0, count)
        table.recv(peer, OUTPUT, 0, min(count, 1))
    else:
        table.recv(peer, OUTPUT, 0, count)
        table.send(peer, INPUT, 0, min(count, 1))
    return table.table()


def exchange(rank: int, ranks: int, count: int, *, in_place: bool = False) -> np.ndarray:
    """One rank's table."""
    table = StepList()
    peer = rank ^ 1
    if peer < ranks:
        table.send(peer, INPUT, 0, count)
        table.recv(peer, OUTPUT, 0, count)
    return table.table()
