"""What NCCL believes: the tuning model by which it chooses an algorithm and a protocol for each message.

For each pair (algorithm, protocol) NCCL holds a latency and a bandwidth, and predicts::

    time = latency + bytes / (bandwidth * correction(bytes))

It then runs the pair with the least prediction. This file restates that model (NVIDIA/nccl, src/graph/tuning.cc and
search.cc, June 2026) from a system card: the tables of latencies and caps are the card's ``software`` section, the
factors below are what NCCL does with them. Times are seconds, bandwidths bytes a second.

NCCL does not use a link's rate as it is: its search over the topology tries a list of speeds a channel and keeps the
best product of channels and speed. ``communicator`` does the same for machines whose GPUs all reach one another.
``predict.py`` makes communicators of system cards.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ...errors import UserError
from ..cards.card import Software

ALGORITHMS = ("ring", "tree", "collnet-direct", "collnet-chain", "nvls", "nvls-tree")
PROTOCOLS = ("ll", "ll128", "simple")
GENERATIONS = ("ampere", "hopper", "blackwell")

# Speeds a channel that the search tries, GB/s (search.cc): inside a node, and with a network.
_INTRA = {
    "ampere": (40, 30, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3),
    "hopper": (60, 50, 40, 30, 24, 20, 15, 12, 11, 6, 3),
    "blackwell": (90, 80, 70, 60, 50, 45, 40, 30, 24, 20, 19, 18),
}
_INTER = {
    "ampere": (48, 30, 28, 24, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3, 2.4, 1.2, 0.24, 0.12),
    "hopper": (48, 45, 42, 40, 30, 24, 22, 20, 17.5, 15, 12, 6, 3, 2.4, 1.2, 0.24, 0.12),
    "blackwell": (96, 86, 80, 48, 45.1, 42, 40, 30, 24, 22, 20, 17.5, 15, 12, 6, 3, 2.4, 1.2, 0.24, 0.12),
}
# What a tree reaches of its bandwidth, from 64 B in powers of two ("trees are not perfectly sticking to the model").
_TREE_CORRECTION = {
    "ll": (1, 1, 1, 1, 0.9, 0.8, 0.7, 0.7, 0.7, 0.7, 0.6, 0.5, 0.4, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1, 1, 1, 1),
    "ll128": (1, 1, 1, 1, 1, 0.9, 0.8, 0.8, 0.8, 0.7, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.8, 0.9, 0.9, 0.9, 0.9, 1, 1, 1),
    "simple": (
        *(0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.8, 0.7, 0.6, 0.6, 0.5),
        *(0.5, 0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.7, 0.8, 0.9, 0.9, 0.9),
    ),
}
_MOST_CHANNELS = 16  # of one graph before they are doubled: half of the 32 that a communicator may have
_MOST_HEADS = 32  # channels of NVLink SHARP
_PLATEAU = 1.4  # a ring over several nodes with the Simple protocol, once each rank has 64 bytes a channel
_COLLNET_LINK = {"collnet-direct": 3.7e-6, "collnet-chain": 2.8e-6}  # latency inside a node
_COLLNET_ARITY = 0.4e-6  # serialisation of one more peer inside the node, collnet-direct
_GB = 1e9


class Graph(NamedTuple):
    """Channels of one algorithm, and the bytes a second of each inside a node and between nodes."""

    channels: int
    intra: float
    inter: float


class Communicator(NamedTuple):
    """The ranks as the tuning model sees them. A node here is what NVLink joins: a host, or a rack."""

    generation: str
    ranks: int
    nodes: int
    link: str  # "nvlink" or "pcie": how GPUs of a node reach one another
    software: Software
    graphs: dict[str, Graph]  # by "ring", "tree", "nvls", "collnet"
    x86: bool = True
    nvls: bool = False  # the node's switches reduce
    sharp: bool = False  # the network's switches reduce (CollNet)
    network_latency: float = 0.0  # seconds that the network plugin reports; 0 for InfiniBand and RoCE

    @property
    def local(self) -> float:
        """Ranks of a node."""
        return self.ranks / self.nodes


class Choice(NamedTuple):
    algorithm: str
    protocol: str
    seconds: float


def communicator(
    generation: str,
    ranks: int,
    nodes: int,
    *,
    software: Software,
    link_rate: float,
    nics: int = 0,
    nic_rate: float = 0.0,
    link: str = "nvlink",
    nvls: bool = False,
    sharp: bool = False,
    x86: bool = True,
    network_latency: float = 0.0,
) -> Communicator:
    """A communicator from plain figures: link_rate and nic_rate are bytes a second of one GPU's links and of one NIC.

    `nics` are those of a node that the ranks use, at most one a rank (NICs that share a GPU count as one, added up).
    """
    if generation not in GENERATIONS:
        raise UserError(f"NCCL's model knows no {generation!r} GPU; accepted: {', '.join(GENERATIONS)}")
    if nodes < 1 or ranks < max(2, nodes):
        raise UserError(f"{ranks} ranks on {nodes} nodes; accepted: 2 or more ranks, at least one a node")
    if nodes > 1 and (nics < 1 or nic_rate <= 0):
        raise UserError(f"{nodes} nodes need NICs; accepted: 1 or more with a rate")
    graphs = _graphs(generation, ranks, nodes, link_rate / _GB, nics, nic_rate / _GB)
    switched = nvls and ranks // nodes > 2 and software.nvls_efficiency > 0  # no multicast for a pair
    return Communicator(
        generation,
        ranks,
        nodes,
        "pcie" if link == "pcie" else "nvlink",
        software,
        graphs,
        x86,
        switched,
        sharp,
        network_latency,
    )


def _graphs(generation, ranks, nodes, link, nics, nic) -> dict[str, Graph]:
    """The search's result for GPUs that all reach one another at `link` GB/s each, and `nics` NICs of `nic` GB/s.

    Trees get as many channels as rings. A tree does not come back to where it began, so its links have room for
    local / (local - 1) times the ring's speed, and over few nodes the search raises its speed inside the node.
    """
    local = max(1, ranks // nodes)
    if nodes == 1:
        channels, intra = _widest(_INTRA[generation], link)
        inter = raised = intra
        heads = min(local, _MOST_HEADS)
        head = lifted = _head(_INTRA[generation], link, heads, link)
    else:
        speeds = _INTER[generation]
        channels, inter = _fitting(speeds, nic, link if local > 1 else math.inf, nics)
        intra = inter
        room = math.inf if local == 1 else link * local / (local - 1) / channels
        raised = max([s for s in speeds if inter <= s <= min(room, 2 * inter)], default=inter)
        heads = min(nics, _MOST_HEADS)
        head = _head(speeds, link, heads, nic)
        lifted = _head(speeds, link, heads, 2 * head)
    copies = 1
    if intra >= 25 and not (generation != "ampere" and intra < 50 and channels > 4):
        copies = 2  # the same paths twice, each at half the speed, so that more work is in flight

    def graph(inside, between):
        return Graph(channels * copies, inside * _GB / copies, between * _GB / copies)

    return {
        "ring": graph(intra, inter),
        "tree": graph(raised, inter),
        "collnet": graph(raised, inter),
        "nvls": Graph(heads, lifted * _GB, head * _GB),
    }


def _widest(speeds, link) -> tuple[int, float]:
    """Channels and their speed that use most of `link`: the first that fits, or a slower one, to half, if it gives more."""
    first = next((s for s in speeds if s <= link), speeds[-1])
    tried = [s for s in speeds if first * 0.49 < s <= first]
    return max(((min(_MOST_CHANNELS, max(1, int(link / s + 1e-9))), s) for s in tried), key=lambda c: c[0] * c[1])


def _fitting(speeds, nic, link, nics) -> tuple[int, float]:
    """Channels, one a NIC, and the speed at which they fit the NICs and the links inside the node."""
    first = next((s for s in speeds if s <= nic), speeds[-1])
    tried = [s for s in speeds if first * 0.49 < s <= first]
    return max(((max(1, int(min(nics, link / s + 1e-9))), s) for s in tried), key=lambda c: c[0] * c[1])


def _head(speeds, link, heads, most) -> float:
    """NVLink SHARP: each GPU is head of one channel; its own channel passes its link twice, the others' once.

    0 where no speed fits: then NVLink SHARP is not used.
    """
    return next((s for s in speeds if s <= most and s * (heads + 1) <= link), 0.0)


def available(comm: Communicator, algorithm: str, protocol: str) -> bool:
    """Whether NCCL would consider the pair on these ranks."""
    if algorithm not in ALGORITHMS or protocol not in PROTOCOLS:
        raise UserError(
            f"no pair {algorithm!r}, {protocol!r}; accepted: {', '.join(ALGORITHMS)} with {', '.join(PROTOCOLS)}"
        )
    if algorithm not in ("ring", "tree") and protocol != "simple":
        return False
    if algorithm == "nvls":
        return comm.nvls and comm.nodes == 1
    if algorithm == "nvls-tree":
        return comm.nvls and comm.nodes > 1
    if algorithm.startswith("collnet"):
        return comm.sharp and comm.nodes > 1 and (algorithm == "collnet-chain" or comm.nvls)
    return not (protocol == "ll128" and comm.link == "pcie")


def _scale(comm: Communicator) -> int:
    """Column of the caps: one node, two, more."""
    return min(comm.nodes, 3) - 1


def bandwidth(comm: Communicator, algorithm: str, protocol: str) -> float:
    """Bytes of the message a second (algbw) for large messages; 0 where the pair is not available."""
    if not available(comm, algorithm, protocol):
        return 0.0
    soft, scale, ranks, nodes = comm.software, _scale(comm), comm.ranks, comm.nodes
    name = "collnet" if algorithm.startswith("collnet") else "nvls" if algorithm.startswith("nvls") else algorithm
    graph = comm.graphs[name]
    channels = graph.channels
    if name == "nvls":
        if channels < 2:
            return 0.0
        intra = graph.intra * soft.nvls_efficiency * (channels - 1) / channels * 2
        if algorithm == "nvls-tree":
            cap = soft.caps.nvls_tree[scale]
            intra = min(intra, graph.inter * (2 if nodes == 2 else 1), cap if cap > 0 else math.inf)
        return channels * intra * ranks / (2 * (ranks - 1))
    speed = graph.intra if nodes <= 2 or name == "collnet" else graph.inter
    bus = channels * speed
    if algorithm == "ring":
        if protocol == "ll":
            bus = min(soft.caps.ll[scale], bus * 0.5)
        elif protocol == "ll128":
            bus = min(bus * 0.92, channels * soft.caps.ring_ll128[scale])
        return bus * ranks / (2 * (ranks - 1))
    if algorithm == "tree":
        bus = min(bus * 0.92, channels * soft.caps.tree_simple[scale])
        if protocol == "ll":
            bus = min(bus / 3.8, soft.caps.ll[scale])
        elif protocol == "ll128":
            bus = min(bus * (7 / 9 if nodes == 1 else 120 / 128), channels * soft.caps.tree_ll128[scale])
        return bus * 0.5
    if algorithm == "collnet-direct":
        spread = comm.local / channels  # GPUs for each NIC
        bus /= spread - (spread - 1) / 2
        if comm.generation != "ampere":
            bus *= 0.85
    return bus * 0.5


def latency(comm: Communicator, algorithm: str, protocol: str) -> float:
    """Seconds that the smallest message takes."""
    soft, nodes = comm.software, comm.nodes
    local = comm.ranks // nodes
    depth = int(math.log2(nodes))
    flush = comm.network_latency * (2 if protocol == "simple" else 1)  # Simple waits for the data to be visible too
    if algorithm == "nvls":
        return soft.nvls_link
    if algorithm == "nvls-tree":
        return soft.nvls_link + 2 * depth * (soft.nvls_tree_network + flush)
    if algorithm.startswith("collnet"):
        link = _COLLNET_LINK[algorithm]
        inside = min(1, local - 1) * link + (local - 1) * _COLLNET_ARITY
        return 2 * (inside if algorithm == "collnet-direct" else (local - 1) * link) + soft.collnet_network + flush
    hops = soft.ring if algorithm == "ring" else soft.tree
    base, inside = getattr(hops.base, protocol), getattr(hops.link(comm.link), protocol)
    # With one rank a node nothing hides a hop's latency, and the tree's figure holds for the ring too.
    network = getattr((soft.tree if local == 1 else hops).network, protocol) + flush
    if algorithm == "tree":
        return base + 2 * ((local - 1) * inside + depth * network)
    steps, between = 2 * (comm.ranks - 1), 2 * (nodes - 1)
    if nodes > 1:  # every step of the ring has somewhere a network operation that must be posted
        inside = max(inside, soft.network_overhead * (3 if protocol == "simple" else 1))
    return base + (steps - between) * inside + between * network


def correction(comm: Communicator, algorithm: str, protocol: str, nbytes: int) -> float:
    """The part of the bandwidth that a message of this size gets (NCCL's static table for trees)."""
    step = int(nbytes) // 64
    if step < 1:
        return 1.0
    step = step.bit_length() - 1
    if algorithm == "tree" and step < 23:
        return _TREE_CORRECTION[protocol][step]
    if algorithm == "nvls-tree" and comm.generation == "blackwell" and comm.x86 and step < 24:
        return _TREE_CORRECTION[protocol][step]
    return 1.0


def time(comm: Communicator, algorithm: str, protocol: str, nbytes: int) -> float:
    """Seconds of an all-reduce of `nbytes` as NCCL predicts them; inf where the pair is not available."""
    rate = bandwidth(comm, algorithm, protocol)
    if rate <= 0:
        return math.inf
    wait = latency(comm, algorithm, protocol)
    if algorithm == "ring" and protocol == "simple" and comm.nodes > 1:
        if nbytes // (comm.graphs["ring"].channels * comm.ranks) >= 64:
            wait *= _PLATEAU
    return wait + nbytes / (rate * correction(comm, algorithm, protocol, nbytes))


def choose(comm: Communicator, nbytes: int, algorithms: tuple[str, ...] = ALGORITHMS) -> Choice:
    """The pair that NCCL would run, of these algorithms, and its prediction. Raises UserError where none is available."""
    best = min(
        (Choice(a, p, time(comm, a, p, nbytes)) for a in algorithms for p in PROTOCOLS if available(comm, a, p)),
        key=lambda c: c.seconds,
        default=None,
    )
    if best is None or math.isinf(best.seconds):
        raise UserError(
            f"none of {', '.join(algorithms)} runs on {comm.ranks} ranks in {comm.nodes} nodes of this kind"
        )
    return best
