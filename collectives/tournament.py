"""Everybody meets everybody once, in rounds of disjoint pairs.

The circle method: one player stays, the others move on by one seat a round, and who sits opposite plays. For 6 players::

    round 0   0 1 2     round 1   0 5 1     round 2   0 4 5
              5 4 3               4 3 2               3 2 1     ...

n players take n - 1 rounds, or n where n is odd and one pauses in each. Fewer are impossible: somebody has to play all others.
"""

from __future__ import annotations

import numpy as np


def opponents(round: int, players: int) -> np.ndarray:
    """int64 [players]: whom each meets in that round, -1: nobody. Raises ValueError for a round that there is not."""
    if not 0 <= round < rounds(players):
        raise ValueError(f"round {round} of {players} players; accepted: 0 to {rounds(players) - 1}")
    seats = players + players % 2
    moving = np.arange(seats - 1)
    # Seated in a circle of seats - 1, two meet whose numbers add up to the round's; who would meet himself meets the last.
    met = (2 * round - moving) % (seats - 1)
    met = np.append(np.where(met == moving, seats - 1, met), round)
    return np.where(met < players, met, -1)[:players]


def rounds(players: int) -> int:
    """How many it takes."""
    return players - 1 + players % 2 if players > 1 else 0
