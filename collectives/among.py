"""Schedules among some of the ranks: other partners, other neighbours, two halves side by side.

A schedule names ranks by number only, so the same tables run among any of them, in any order: rank i of the schedule is
``members[i]``. A ring of 4 over members 2 0 3 1 goes round 2 -> 0 -> 3 -> 1 -> 2; a ping-pong over them plays in the pairs
(2, 0) and (3, 1); everybody else has an empty table and is done at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .schedule import STEP, Schedule

_NOTHING = np.zeros(0, STEP)


def among(schedule: Schedule, members: Sequence[int], ranks: int) -> Schedule:
    """The schedule with its rank i played by rank members[i] of `ranks`. `inputs` and `outputs` of what is returned mean nothing
    unless the collective counts ranks as the members do.

    Raises ValueError unless the members are as many different ranks as the schedule has.
    """
    to = np.asarray(members, np.int32)
    if len(to) != schedule.ranks or len(set(to.tolist())) != len(to) or not all(0 <= r < ranks for r in to.tolist()):
        raise ValueError(f"members {list(members)[:20]}; accepted: {schedule.ranks} different ranks of {ranks}")
    tables = [_NOTHING] * ranks
    for rank, table in zip(to.tolist(), schedule.tables):
        tables[rank] = table = table.copy()
        remote = table["peer"] >= 0
        table["peer"][remote] = to[table["peer"][remote]]
    return replace(schedule, ranks=ranks, tables=tuple(tables))


def side_by_side(schedules: Sequence[Schedule]) -> Schedule:
    """All at once, of which each rank has a part in one. Raises ValueError where a rank has a part in two."""
    tables = [_NOTHING] * schedules[0].ranks
    for schedule in schedules:
        for rank, table in enumerate(schedule.tables):
            if len(table):
                if len(tables[rank]):
                    raise ValueError(
                        f"rank {rank} has a part in two schedules; accepted: schedules among different ranks"
                    )
                tables[rank] = table
    return replace(schedules[0], tables=tuple(tables))
