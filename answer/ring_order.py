"""An order of a ring that avoids slow pairs, as near to the given one as it finds.

In a ring all-reduce everybody sends to the next at the same time, so the slowest pair of neighbours sets the pace. Which cycle has
the fastest slowest pair is hard to find exactly (the bottleneck travelling salesman); here single places are moved and stretches
turned round as long as that helps, which avoids slow links and keeps the crossings of a slow path few. An end that is slow towards
everybody is in every ring; only leaving it out helps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHARPNESS = 8  # so that one very slow pair weighs more than several less slow
MOVES = 400


def cheapest(cost: np.ndarray, order: Sequence[int]) -> list[int]:
    """An order of the ring with a lower sum of cost[a, b] over neighbours a -> b, from the given one on; it keeps its first place.

    cost: float64 [n, n], not symmetric, >= 0; n >= 4 for there to be anything to choose.
    """
    order = np.array(order)
    n = len(order)
    for _ in range(MOVES if n >= 4 else 0):
        moved, gain = _best_move(cost, order)
        if gain <= 1e-12 * (1 + cost[order, np.roll(order, -1)].sum()):
            break
        order = moved
    return order.tolist()


def slow_cost(bandwidth: np.ndarray, good: float, line: float) -> np.ndarray:
    """float64 [n, n] for `cheapest`: nothing for pairs that reach `line` of the good bandwidth, else (good / bandwidth)^SHARPNESS.

    bandwidth: bytes a second from row to column; nan where it is not known, which costs nothing.
    """
    share = np.where(np.isfinite(bandwidth), bandwidth / good, 1.0)
    return np.where(share < line, np.maximum(share, 1e-12) ** -SHARPNESS, 0.0)


def slowest(bandwidth: np.ndarray, order: Sequence[int]) -> float:
    """The least bandwidth between neighbours of a ring, bytes a second."""
    order = np.array(order)
    return float(np.nanmin(bandwidth[order, np.roll(order, -1)]))


def _best_move(cost: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, float]:
    """The best of all single moves and turns, and what it saves."""
    n = len(order)
    c = cost[np.ix_(order, order)]  # by place
    here, there = np.arange(n), np.roll(np.arange(n), -1)
    edge = c[here, there]  # place i -> i + 1
    # The place k (not the first) goes between i and i + 1.
    before = np.roll(here, 1)
    freed = edge[before] + edge - c[before, there]  # by k
    put = c[:, here] + c[here, :][:, there].T - edge[:, None]  # [i, k]
    save = freed[None, :] - put
    save[here, here] = save[before, here] = -np.inf
    save[:, 0] = -np.inf
    i, k = np.unravel_index(np.argmax(save), save.shape)
    best = float(save[i, k])
    # Places i + 1 ... j are turned round, 0 <= i < j < n: all edges inside are then gone the other way.
    forward = np.concatenate([[0.0], np.cumsum(edge[:-1])])
    backward = np.concatenate([[0.0], np.cumsum(c[there, here][:-1])])
    inside = (backward - forward)[None, :] - (backward - forward)[there][:, None]  # [i, j], from i + 1 to j
    turn = edge[:, None] + edge[None, :] - c - c[there][:, there] - inside
    turn[~(here[:, None] + 1 < here[None, :])] = -np.inf
    a, b = np.unravel_index(np.argmax(turn), turn.shape)
    if turn[a, b] > best:
        return np.concatenate([order[: a + 1], order[a + 1 : b + 1][::-1], order[b + 1 :]]), float(turn[a, b])
    taken = order[k]
    rest = np.delete(order, k)
    at = i if k < i else i + 1  # after place i, once k is out
    return np.insert(rest, at, taken), best
