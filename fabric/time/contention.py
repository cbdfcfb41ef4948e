"""Replay where messages share links: node uplinks, a leaf's uplinks, those of the tier above.

`replay(..., links=...)` lets every message pass the links of its pair of ranks, one after the other. A link serves messages
first come, first served, by the time their first byte gets there; ties go to the lower sending rank, then to its earlier
step. With n bytes, and the latency L of the pair's class cut into as many equal parts as the way has sections::

    at a link       begin = max(first byte, free);   free = begin + n * byte_ps of the link;   first byte = begin + L / sections
    at the end      the message fills the receiver's port for the longest of its own wire time and those of its links

So a message streams through (cut-through), a queue in front of a link is as long as it needs to be, and nobody upstream is
held up: no back-pressure, no drops. Two messages that meet are sent one after the other, not side by side; what a collective
waits for, the last byte of both, comes at the same time either way. Where no link is shared and none is slower than the
sender's port, the times are those of the plain replay to the last bit; they are never earlier.
"""

from __future__ import annotations

import numpy as np

from ...collectives.schedule import SEND, Schedule
from ...errors import UserError
from ..physics.network import PS, Network, pair_class
from ..physics.routing import NO_LINK, ROUTINGS, FatTree, _paths
from .generated import Generated, steps
from .replay import NO_LINKS, Links

__all__ = ["NO_LINKS", "Links", "fat_tree", "make_links", "pairs_of"]


def pairs_of(schedule: Schedule | Generated) -> np.ndarray:
    """int64 [pairs, 2], sorted: who sends to whom."""
    ranks = schedule.ranks
    found = []
    if isinstance(schedule, Generated):
        # A rank's neighbours do not depend on the message, and every edge carries the first slice.
        few = Generated(schedule.algorithm, ranks, 2 * ranks * schedule.channels, schedule.channels, 1, True)
        if ranks > 1 and schedule.count:
            formula = few.formula()
            if schedule.algorithm == "ring":
                formula = formula._replace(positions=4 * schedule.channels)
            for r in range(ranks):
                rows = steps(formula, r)
                found.append(r * ranks + np.unique(rows[rows[:, 0] == SEND, 1]))
    else:
        for r, table in enumerate(schedule.tables):
            found.append(r * ranks + np.unique(table["peer"][table["op"] == SEND]).astype(np.int64))
    keys = np.unique(np.concatenate(found)) if found else np.zeros(0, np.int64)
    return np.stack([keys // ranks, keys % ranks], 1)


def make_links(byte_ps, ranks: int, ways: dict[tuple[int, int], list[int]]) -> Links:
    """Links by hand. byte_ps: float [links]; ways: (sender, receiver) -> the links of its messages, in order.

    Raises ValueError for costs that are negative or not finite, and ranks or links that do not exist.
    """
    byte_ps = np.ascontiguousarray(byte_ps, np.float64)
    if byte_ps.ndim != 1 or not np.all(np.isfinite(byte_ps)) or np.any(byte_ps < 0):
        raise ValueError("byte_ps must be finite and >= 0")
    if any(not 0 <= r < ranks for pair in ways for r in pair):
        raise ValueError(f"a way between ranks that do not exist; accepted: 0 to {ranks - 1}")
    order = sorted(ways)
    hops = np.array([link for pair in order for link in ways[pair]], np.int32)
    if len(hops) and (hops.min() < 0 or hops.max() >= len(byte_ps)):
        raise ValueError(f"link {hops.min()} or {hops.max()}; accepted: 0 to {len(byte_ps) - 1}")
    starts = np.concatenate([[0], np.cumsum([len(ways[pair]) for pair in order])]).astype(np.int64)
    return Links(byte_ps, np.array([a * ranks + b for a, b in order], np.int64), starts, hops)


def fat_tree(
    tree: FatTree,
    schedule: Schedule | Generated,
    net: Network,
    *,
    ends: np.ndarray | None = None,
    routing: str = "ecmp",
    seed: int = 0,
    port: int | None = None,
) -> Links:
    """The links of a fat tree that the messages of `schedule` pass.

    ends: int64 [ranks], the NIC port of each rank (None: rank r has port r); ranks that share a NIC have one number.
    routing: ecmp (a hash of the pair, drawn by seed), static (d-mod-k) or adaptive (all uplinks of a leaf as one link of
    their summed rate), as in routing.py. port: only messages of classes that use this port of a rank (1: the NIC where port
    0 is NVLink); None: all.

    Raises UserError for an unknown routing or more ranks than ports.
    """
    if routing not in ROUTINGS:
        raise UserError(f"routing {routing!r}; accepted: {', '.join(ROUTINGS)}")
    ends = np.arange(net.ranks) if ends is None else np.ascontiguousarray(ends, np.int64)
    if len(ends) != net.ranks or ends.min() < 0 or ends.max() >= tree.ends:
        raise UserError(
            f"NIC ports up to {ends.max()} for {net.ranks} ranks; accepted: 0 to {tree.ends - 1}, one a rank"
        )
    if routing == "adaptive":
        tree = tree.pooled()
    pairs = pairs_of(schedule)
    if port is not None:
        classes = [pair_class(net, a, b) for a, b in pairs]
        pairs = pairs[net.port[np.array(classes, np.int64)] == port]
    firsts = np.array(tree.firsts(), np.int64)
    sources, destinations = ends[pairs[:, 0]], ends[pairs[:, 1]]
    ways = _paths(tree, firsts, sources, destinations, routing == "static", np.uint64(seed % (1 << 64)))
    used = ways != NO_LINK
    starts = np.concatenate([[0], np.cumsum(used.sum(1))]).astype(np.int64)
    return Links(PS / tree.capacities(), pairs[:, 0] * net.ranks + pairs[:, 1], starts, ways[used])
