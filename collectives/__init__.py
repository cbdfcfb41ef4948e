"""Algorithms as schedules. Each file has one, as pure functions that return a rank's table (schedule.py)."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import (
    binomial,
    bruck,
    chain,
    direct,
    halving_doubling,
    hierarchical,
    neighbours,
    node_tree,
    pat,
    recursive_doubling,
    ring,
    scatter_allgather,
    torus,
    tree,
)
from .collective import (
    ALL_GATHER,
    ALL_REDUCE,
    ALLTOALL,
    BROADCAST,
    COLLECTIVES,
    GATHER,
    PINGPONG,
    REDUCE,
    REDUCE_SCATTER,
    SCATTER,
    SENDRECV,
    Collective,
)
from .nodes import Nodes, layout
from .schedule import Schedule, one_rank


@dataclass(frozen=True)
class Algorithm:
    """One way to run a collective. steps(rank, ranks, count, *, in_place, [root], [nodes], [channels], [slices]) returns one rank's
    table, for two ranks or more; its keywords say which options it takes."""

    name: str
    title: str
    steps: Callable[..., np.ndarray]
    summary: str
    collective: Collective = ALL_REDUCE

    def takes(self, option: str) -> bool:
        return option in (self.steps.__kwdefaults__ or {})

    @property
    def takes_channels(self) -> bool:
        return self.takes("channels")

    @property
    def takes_slices(self) -> bool:
        return self.takes("slices")

    @property
    def takes_nodes(self) -> bool:
        return self.takes("nodes")

    def table(self, rank: int, ranks: int, count: int, *, in_place: bool = False, **options) -> np.ndarray:
        """One rank's table; options that the algorithm has not (channels, slices, root, ...) are left out."""
        if ranks == 1:
            return one_rank(self.collective, count, in_place)
        taken = {k: v for k, v in options.items() if self.takes(k)}
        return self.steps(rank, ranks, count, in_place=in_place, **taken)


REGISTRY: dict[str, dict[str, Algorithm]] = {name: {} for name in COLLECTIVES}
"""Algorithms by collective and name, in the order in which they are offered."""

ALGORITHMS: dict[str, Algorithm] = REGISTRY[ALL_REDUCE.name]
"""Those of the all-reduce."""


def register(algorithm: Algorithm) -> Algorithm:
    COLLECTIVES.setdefault(algorithm.collective.name, algorithm.collective)
    REGISTRY.setdefault(algorithm.collective.name, {})[algorithm.name] = algorithm
    return algorithm


for _a in (
    Algorithm("ring", "ring", ring.all_reduce, "least bytes, latency grows with p"),
    Algorithm("tree", "double binary tree", tree.all_reduce, "pipelined, latency grows with log p"),
    Algorithm("binomial", "binomial tree", binomial.all_reduce, "reduce then broadcast, whole messages"),
    Algorithm(
        "recursive-doubling", "recursive doubling", recursive_doubling.all_reduce, "fewest rounds, whole messages"
    ),
    Algorithm(
        "halving-doubling", "recursive halving and doubling", halving_doubling.all_reduce, "least bytes in log p rounds"
    ),
    Algorithm("one-shot", "direct exchange, one shot", direct.one_shot, "one latency, p-1 times the bytes"),
    Algorithm("two-shot", "direct exchange, two shots", direct.two_shot, "two latencies, least bytes"),
    Algorithm("node-tree", "tree of nodes", node_tree.all_reduce, "chains in nodes, a double tree between"),
    Algorithm("hierarchical", "hierarchical", hierarchical.all_reduce, "inside nodes, a ring a rail between"),
    Algorithm("hierarchical-tree", "hierarchical, trees", hierarchical.with_trees, "the same with a tree a rail"),
    Algorithm(
        "hierarchical-doubling", "hierarchical, doubling", hierarchical.with_doubling, "the same for short messages"
    ),
    Algorithm("torus", "two-dimensional rings", torus.all_reduce, "rings in nodes and between"),
    Algorithm("ring", "ring", ring.reduce_scatter, "neighbours only, latency grows with p", REDUCE_SCATTER),
    Algorithm(
        "recursive-halving",
        "recursive halving",
        halving_doubling.reduce_scatter,
        "log p rounds of halves",
        REDUCE_SCATTER,
    ),
    Algorithm("bruck", "Bruck", bruck.reduce_scatter, "ceil(log2 p) rounds for any p", REDUCE_SCATTER),
    Algorithm(
        "pat", "parallel aggregated trees", pat.reduce_scatter, "log p rounds, far messages short", REDUCE_SCATTER
    ),
    Algorithm("direct", "direct exchange", direct.reduce_scatter, "one latency", REDUCE_SCATTER),
    Algorithm(
        "hierarchical", "hierarchical", hierarchical.reduce_scatter, "inside nodes, a ring a rail", REDUCE_SCATTER
    ),
    Algorithm(
        "hierarchical-direct",
        "hierarchical, direct",
        hierarchical.reduce_scatter_direct,
        "the same for short messages",
        REDUCE_SCATTER,
    ),
    Algorithm("torus", "two-dimensional rings", torus.reduce_scatter, "rings in nodes and between", REDUCE_SCATTER),
    Algorithm("ring", "ring", ring.all_gather, "neighbours only, latency grows with p", ALL_GATHER),
    Algorithm(
        "recursive-doubling", "recursive doubling", halving_doubling.all_gather, "log p rounds of doubles", ALL_GATHER
    ),
    Algorithm("bruck", "Bruck", bruck.all_gather, "ceil(log2 p) rounds for any p", ALL_GATHER),
    Algorithm("pat", "parallel aggregated trees", pat.all_gather, "log p rounds, far messages short", ALL_GATHER),
    Algorithm("direct", "direct exchange", direct.all_gather, "one latency", ALL_GATHER),
    Algorithm("hierarchical", "hierarchical", hierarchical.all_gather, "inside nodes, a ring a rail", ALL_GATHER),
    Algorithm(
        "hierarchical-direct",
        "hierarchical, direct",
        hierarchical.all_gather_direct,
        "the same for short messages",
        ALL_GATHER,
    ),
    Algorithm("torus", "two-dimensional rings", torus.all_gather, "rings in nodes and between", ALL_GATHER),
    Algorithm("chain", "pipelined chain", chain.broadcast, "least bytes, latency grows with p", BROADCAST),
    Algorithm("tree", "double binary tree", tree.broadcast, "pipelined, latency grows with log p", BROADCAST),
    Algorithm("binomial", "binomial tree", binomial.broadcast, "fewest rounds, whole messages", BROADCAST),
    Algorithm(
        "scatter-allgather", "scatter and all-gather", scatter_allgather.broadcast, "for long messages", BROADCAST
    ),
    Algorithm("chain", "pipelined chain", chain.reduce, "least bytes, latency grows with p", REDUCE),
    Algorithm("tree", "double binary tree", tree.reduce, "pipelined, latency grows with log p", REDUCE),
    Algorithm("binomial", "binomial tree", binomial.reduce, "fewest rounds, whole messages", REDUCE),
    Algorithm(
        "reduce-scatter-gather", "reduce-scatter and gather", scatter_allgather.reduce, "for long messages", REDUCE
    ),
    Algorithm("direct", "direct exchange", direct.alltoall, "all messages at once", ALLTOALL),
    Algorithm("pairwise", "pairwise exchange", direct.pairwise, "one message a rank at a time", ALLTOALL),
    Algorithm("bruck", "Bruck", bruck.alltoall, "ceil(log2 p) messages, more bytes", ALLTOALL),
    Algorithm("direct", "direct", direct.gather, "one latency, all meet at the root", GATHER),
    Algorithm("binomial", "binomial tree", binomial.gather, "ceil(log2 p) rounds", GATHER),
    Algorithm("direct", "direct", direct.scatter, "one latency, all leave the root", SCATTER),
    Algorithm("binomial", "binomial tree", binomial.scatter, "ceil(log2 p) rounds", SCATTER),
    Algorithm("shift", "ring shift", neighbours.shift, "everybody sends to the next", SENDRECV),
    Algorithm("pairs", "ping-pong in pairs", neighbours.pingpong, "there and back", PINGPONG),
):
    register(_a)


def algorithms(collective: Collective | str) -> dict[str, Algorithm]:
    """The algorithms of a collective, by name."""
    return REGISTRY.get(collective if isinstance(collective, str) else collective.name, {})


def distinct(collective: Collective | str, ranks: int, nodes: Nodes = None) -> list[str]:
    """The algorithms that are worth trying on a layout: where all ranks are on one node, or each is on its own, those that ask for
    nodes are but their inner or outer phase, which others are too."""
    known = algorithms(collective)
    at = layout(nodes, ranks)
    return [name for name, a in known.items() if not a.takes_nodes or 1 < at.nodes < ranks]


def build(
    name: str,
    ranks: int,
    count: int,
    *,
    collective: Collective | str = ALL_REDUCE,
    root: int = 0,
    in_place: bool = False,
    channels: int = 1,
    slices: int = 1,
    nodes: Nodes = None,
) -> Schedule:
    """The schedule of all ranks. Options an algorithm does not have are left out.

    count: elements of a block (collective.py); nodes: ranks a node, or the node of each rank (nodes.py). Raises ValueError for an
    unknown collective or algorithm, a root that is no rank, ranks, channels or slices below 1, count below 0, nodes of another
    number of ranks, or in_place where the collective has none.
    """
    c = COLLECTIVES.get(collective) if isinstance(collective, str) else collective
    if c is None:
        raise ValueError(f"collective {collective!r} is not known; accepted: {', '.join(COLLECTIVES)}")
    known = algorithms(c)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        what = "algorithm" if c == ALL_REDUCE else f"algorithm of {c.name}"
        raise ValueError(f"{what} {name!r} is not known; {hint}accepted: {', '.join(known)}")
    for what, value, least in (
        ("ranks", ranks, 1),
        ("count", count, 0),
        ("channels", channels, 1),
        ("slices", slices, 1),
    ):
        if value < least:
            raise ValueError(f"{what} is {value}; accepted: {least} or more")
    if not 0 <= root < ranks:
        raise ValueError(f"root is {root}; accepted: 0 to {ranks - 1}")
    if in_place and not c.in_place:
        raise ValueError(f"{c.name} has no in-place form; accepted: out of place")
    options = {"channels": channels, "slices": slices, "root": root}
    if known[name].takes_nodes:
        options["nodes"] = layout(nodes, ranks)
    tables = tuple(known[name].table(r, ranks, count, in_place=in_place, **options) for r in range(ranks))
    return Schedule(name, ranks, count, in_place, tables, c, root if c.rooted else 0)
