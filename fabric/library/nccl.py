"""What NCCL believes: the tuning model by which it chooses an algorithm and a protocol for each message.

For each pair (algorithm, protocol) NCCL holds a latency and a bandwidth, and predicts::

    time = latency + bytes / (bandwidth * correction(bytes))

It then runs the pair with the least prediction. This file restates that model (NVIDIA/nccl, src/graph/tuning.cc,
search.cc, connect.cc and enqueue.cc), for every collective that the model has and for the releases that releases.py
knows; its tables of latencies and caps are a release's or a card's ``software`` section. Times are seconds, bandwidths
bytes a second. A prediction of this model is what the library believes, not what it gets: clock.py says that.

NCCL does not use a link's rate as it is: its search over the topology tries a list of speeds a channel and keeps the
best product of channels and speed. ``communicator`` does the same for machines whose GPUs all reach one another.
``predict.py`` makes communicators of system cards.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ...errors import UserError
from .releases import GENERATIONS, PATHS, PROTOCOLS, Tables

ALGORITHMS = ("ring", "tree", "collnet-direct", "collnet-chain", "nvls", "nvls-tree", "pat")
COLLECTIVES = {  # name: bytes that a ring sends over each link, a byte of the message, as a function of the ranks
    "all_reduce": lambda p: 2 * (p - 1),
    "all_gather": lambda p: p - 1,
    "reduce_scatter": lambda p: p - 1,
    "broadcast": lambda p: p,
    "reduce": lambda p: p,
}

# Speeds a channel that the search tries, GB/s (search.cc): inside a node, and with a network.
_INTRA = {
    "volta": (40, 30, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3),
    "ampere": (40, 30, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3),
    "hopper": (60, 50, 40, 30, 24, 20, 15, 12, 11, 6, 3),
    "blackwell": (90, 80, 70, 60, 50, 45, 40, 30, 24, 20, 19, 18),
}
_INTER = {
    "volta": (48, 30, 28, 24, 20, 18, 15, 12, 10, 9, 7, 6, 5, 4, 3, 2.4, 1.2, 0.24, 0.12),
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
_PLATEAU = {"volta": 1.9}  # a ring over several nodes with the Simple protocol, once each rank has 64 bytes a channel
_PLATEAU_OTHERS = 1.4
_MOST_COPIED = 32  # channels of a communicator (NCCL_MAX_NCHANNELS to 2.18; the search's graphs need no more later)
_THREADS = {"ll": 512, "ll128": 640, "simple": 512}
_THREAD_BYTES = {"ll": 8, "ll128": 8, "simple": 64}  # a channel is given up while its threads have less (enqueue.cc)
_WIRE_TRAFFIC = {"ll": 4, "ll128": 1, "simple": 1}  # how enqueue.cc counts a byte of the message
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
    tables: Tables
    graphs: dict[str, Graph]  # by "ring", "tree", "nvls", "collnet"
    channels: int  # of the communicator
    x86: bool = True
    nvls: bool = False  # the node's switches reduce
    sharp: bool = False  # the network's switches reduce (CollNet)
    network_latency: float = 0.0  # seconds that the network plugin reports; 0 for InfiniBand and RoCE
    path: str = "pxb"  # from a GPU to its NIC, as in releases.PATHS
    rack: bool = False  # a node here is several hosts (MNNVL)
    simple_tree: bool = False  # the search found only the pattern TREE

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
    tables: Tables,
    link_rate: float,
    nics: int = 0,
    nic_rate: float = 0.0,
    link: str = "nvlink",
    nvls: bool = False,
    sharp: bool = False,
    x86: bool = True,
    network_latency: float = 0.0,
    path: str = "pxb",
    rack: bool = False,
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
    formula = tables.rules["nvls_formula"]
    switched = nvls and ranks // nodes > 2 and formula > (1 if nodes > 1 else 0)  # no multicast for a pair
    if rack and not tables.rules["nvls_rack"]:
        switched = False
    return Communicator(
        generation,
        ranks,
        nodes,
        "pcie" if link == "pcie" else "nvlink",
        tables,
        graphs,
        _copied(generation, nodes, graphs["ring"]),
        x86,
        switched,
        sharp,
        network_latency,
        path,
        rack,
        nodes > 1 and (ranks == nodes or (generation in ("hopper", "blackwell") and ranks // nodes == 4 and nics >= 4)),
    )


def _copied(generation: str, nodes: int, ring: Graph) -> int:
    """Channels of a communicator: the ring's, twice, and on Hopper over several nodes once more (connect.cc)."""
    channels = min(_MOST_COPIED, 2 * ring.channels)
    if generation in ("hopper", "blackwell") and nodes > 1 and ring.intra > 45e9 and channels < 16:
        channels *= 2
    return channels


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


def available(comm: Communicator, algorithm: str, protocol: str, collective: str = "all_reduce") -> bool:
    """Whether NCCL would consider the pair on these ranks. Raises UserError for names that it does not have."""
    if collective not in COLLECTIVES:
        raise UserError(f"NCCL's model has no {collective!r}; accepted: {', '.join(COLLECTIVES)}")
    if algorithm not in ALGORITHMS or protocol not in PROTOCOLS:
        raise UserError(
            f"no pair {algorithm!r}, {protocol!r}; accepted: {', '.join(ALGORITHMS)} with {', '.join(PROTOCOLS)}"
        )
    if algorithm not in ("ring", "tree") and protocol != "simple":
        return False
    if algorithm not in _OF[collective]:
        return False
    if algorithm == "nvls":
        return comm.nvls and comm.nodes == 1
    if algorithm == "nvls-tree":
        return comm.nvls and comm.nodes > 1
    if algorithm == "pat":
        return comm.tables.pat_base > 0 and comm.nodes == comm.ranks
    if algorithm.startswith("collnet"):
        return comm.sharp and comm.nodes > 1 and (algorithm == "collnet-chain" or comm.nvls)
    return protocol != "ll128" or ll128(comm) == ""


_OF = {
    "all_reduce": ("ring", "tree", "collnet-direct", "collnet-chain", "nvls", "nvls-tree"),
    "all_gather": ("ring", "nvls", "collnet-direct", "pat"),
    "reduce_scatter": ("ring", "nvls", "collnet-direct", "pat"),
    "broadcast": ("ring",),
    "reduce": ("ring",),
}


def ll128(comm: Communicator) -> str:
    """Why NCCL does not run LL128 on these ranks; "" where it does."""
    farthest = comm.tables.ll128_path
    if farthest == "none":
        return f"NCCL {comm.tables.release.name} has no LL128 on {comm.generation}"
    if comm.link == "pcie" and comm.local > 1:
        return "GPUs meet over PCIe"
    path = comm.path
    if path == "p2c" and not comm.tables.rules["has_p2c"]:
        path = "phb"
    if comm.nodes > 1 and PATHS.index(path) > PATHS.index(farthest):
        return f"the path from GPU to NIC is {path.upper()}, beyond {farthest.upper()}"
    return ""


def _scale(comm: Communicator) -> int:
    """Column of the caps: one node, two, more."""
    return min(comm.nodes, 3) - 1


def bandwidth(comm: Communicator, algorithm: str, protocol: str, collective: str = "all_reduce") -> float:
    """Bytes of the message a second (algbw) for large messages; 0 where the pair is not available."""
    if not available(comm, algorithm, protocol, collective):
        return 0.0
    tables, rules, scale, ranks, nodes = comm.tables, comm.tables.rules, _scale(comm), comm.ranks, comm.nodes
    name = "collnet" if algorithm.startswith("collnet") else "nvls" if algorithm.startswith("nvls") else algorithm
    graph = comm.graphs["ring" if name == "pat" else name]
    channels = graph.channels
    steps = COLLECTIVES[collective](ranks)
    reduces = collective == "all_reduce"
    if name == "nvls":
        return _nvls_bandwidth(comm, graph, algorithm, collective)
    speed = graph.intra if nodes <= 2 or name == "collnet" else graph.inter
    bus = channels * speed
    if algorithm == "ring":
        if protocol == "ll":
            bus = min(tables.ll[scale], bus * rules["ring_ll_share"])
        elif protocol == "ll128":
            bus = min(
                bus * (rules["ring_ll128_alone"] if comm.local < 2 else 0.92), channels * tables.ring_ll128[scale]
            )
        return bus * ranks / steps
    if algorithm == "tree":
        bus = min(bus * 0.92, channels * tables.tree_simple[scale])
        if protocol == "ll":
            bus = min(bus / 3.8, tables.ll[scale])
        elif protocol == "ll128":
            bus = min(bus * (7 / 9 if nodes == 1 else 120 / 128), channels * tables.tree_ll128[scale])
        if comm.simple_tree:
            bus *= 0.85
        return bus * 0.5
    if algorithm == "pat":
        return bus * 0.75
    if not reduces:  # collnet-direct, one head a GPU
        return comm.local * min(graph.intra, 0.9 * graph.inter)
    if algorithm == "collnet-direct":
        spread = comm.local / channels  # GPUs for each NIC
        bus /= spread - (spread - 1) / 2
        if comm.generation not in ("volta", "ampere"):
            bus *= 0.85
    return bus * 0.5


def _nvls_bandwidth(comm: Communicator, graph: Graph, algorithm: str, collective: str) -> float:
    """NVLink SHARP, by the four formulas that releases had for it."""
    tables, formula, channels = comm.tables, comm.tables.rules["nvls_formula"], graph.channels
    ranks, nodes, local = comm.ranks, comm.nodes, comm.local
    reduces = collective == "all_reduce"
    if formula >= 4:
        if channels < 2:
            return 0.0
        intra = graph.intra * tables.nvls_efficiency * (channels - 1) / channels
        intra *= 2 if reduces else (local - 1) / local
        if algorithm == "nvls-tree":
            intra = min(intra, graph.inter * (2 if nodes == 2 else 1), tables.nvls_tree[_scale(comm)])
        return channels * intra * (ranks / (2 * (ranks - 1)) if reduces else 1.0)
    if not reduces:
        return channels * min(graph.intra * (local - 1) / local, 0.9 * graph.inter)
    if formula == 1:
        return channels * graph.intra * 0.75
    if formula == 2:
        speed = graph.intra if nodes <= 2 else graph.inter
        return channels * speed * (5 / 6 if algorithm == "nvls" else 0.7 * nodes / (2 * (nodes - 1)))
    inter = graph.inter / 2 if algorithm == "nvls-tree" and nodes > 2 else graph.inter
    return channels * min(graph.intra, inter) * 5 / 6


def latency(comm: Communicator, algorithm: str, protocol: str, collective: str = "all_reduce") -> float:
    """Seconds that the smallest message takes."""
    tables, rules, nodes, ranks, local = comm.tables, comm.tables.rules, comm.nodes, comm.ranks, comm.local
    depth = int(math.log2(nodes))
    flush = comm.network_latency * (2 if protocol == "simple" else 1)  # Simple waits for the data to be visible too
    if algorithm == "nvls":
        return tables.nvls_link
    if algorithm == "nvls-tree":
        hops = nodes - 1 if rules["nvls_formula"] == 2 else depth
        return tables.nvls_link + 2 * hops * (tables.nvls_tree_network + flush)
    if algorithm == "pat":
        return tables.pat_base + depth * (tables.tree.network.simple + flush) / 3.5 + ranks * 2.8e-6
    if algorithm.startswith("collnet"):
        link = tables.collnet_link[algorithm]
        inside = min(1, local - 1) * link + (local - 1) * _COLLNET_ARITY
        far = tables.collnet_network[algorithm] + flush
        return 2 * (inside if algorithm == "collnet-direct" else (local - 1) * link) + far
    hops = tables.ring if algorithm == "ring" else tables.tree
    base, inside = getattr(hops.base, protocol), getattr(hops.link(comm.link), protocol)
    # With one rank a node nothing hides a hop's latency, and the tree's figure holds for the ring too.
    alone = local == 1 and (algorithm == "tree" or rules["alone_as_tree"])
    network = getattr((tables.tree if alone else hops).network, protocol) + flush
    if algorithm == "tree":
        return base + 2 * ((local - 1) * inside + depth * network)
    steps = COLLECTIVES[collective](ranks)
    if collective in ("broadcast", "reduce"):
        return base + (inside if nodes == 1 else getattr(hops.network, protocol))  # the same channels everywhere
    if nodes == 1:
        between = 0
    elif rules["network_steps"]:
        between = 2 * (nodes - 1) if collective == "all_reduce" else nodes - 1
    else:
        between = min(steps, 2 * nodes) if collective == "all_reduce" else nodes - 1
    if nodes > 1:
        if protocol == "ll":
            inside *= rules["ring_ll_inside"]
        if rules["posting_bounds"]:  # every step of the ring has somewhere a network operation that must be posted
            inside = max(inside, tables.posting * (3 if protocol == "simple" else 1))
    return base + (steps - between) * inside + between * network


def correction(comm: Communicator, algorithm: str, protocol: str, nbytes: int, collective: str = "all_reduce") -> float:
    """The part of the bandwidth that a message of this size gets (NCCL's static table for trees)."""
    step = int(nbytes) // 64
    if step < 1 or collective != "all_reduce":
        return 1.0
    step = step.bit_length() - 1
    if algorithm == "tree" and step < 23:
        return _TREE_CORRECTION[protocol][step]
    if algorithm == "nvls-tree" and comm.tables.rules["nvls_tree_correction"] and step < 24:
        if comm.generation == "blackwell" and comm.x86:
            return _TREE_CORRECTION[protocol][step]
    return 1.0


def time(comm: Communicator, algorithm: str, protocol: str, nbytes: int, collective: str = "all_reduce") -> float:
    """Seconds of a collective of `nbytes` as NCCL predicts them; inf where the pair is not available.

    nbytes: of the larger buffer, as nccl-tests counts them.
    """
    rate = bandwidth(comm, algorithm, protocol, collective)
    if rate <= 0:
        return math.inf
    wait = latency(comm, algorithm, protocol, collective)
    if algorithm == "ring" and protocol == "simple" and comm.nodes > 1 and collective == "all_reduce":
        if nbytes // (comm.channels * comm.ranks) >= 64:
            wait *= _PLATEAU.get(comm.generation, _PLATEAU_OTHERS)
    return wait + nbytes / (rate * correction(comm, algorithm, protocol, nbytes, collective))


def candidates(
    comm: Communicator, nbytes: int, algorithms: tuple[str, ...] = ALGORITHMS, protocols: tuple[str, ...] = PROTOCOLS,
    collective: str = "all_reduce",
) -> list[Choice]:  # fmt: skip
    """Every pair that NCCL would consider, with its prediction, the one it runs first."""
    pairs = [(a, p) for a in algorithms for p in protocols if available(comm, a, p, collective)]
    timed = [Choice(a, p, time(comm, a, p, nbytes, collective)) for a, p in pairs]
    return sorted((c for c in timed if math.isfinite(c.seconds)), key=lambda c: c.seconds)


def choose(
    comm: Communicator, nbytes: int, algorithms: tuple[str, ...] = ALGORITHMS, protocols: tuple[str, ...] = PROTOCOLS,
    collective: str = "all_reduce",
) -> Choice:  # fmt: skip
    """The pair that NCCL would run, of these, and its prediction. Raises UserError where none is available."""
    found = candidates(comm, nbytes, algorithms, protocols, collective)
    if not found:
        what = ", ".join(algorithms) + (f" with {', '.join(protocols)}" if protocols != PROTOCOLS else "")
        raise UserError(f"none of {what} runs {collective} on {comm.ranks} ranks in {comm.nodes} nodes of this kind")
    return found[0]


def channel_bytes(comm: Communicator, algorithm: str, protocol: str) -> int:
    """Least bytes of the message that a channel is used for (enqueue.cc: threads times their threshold)."""
    each = _THREADS[protocol] * _THREAD_BYTES[protocol]
    return each * comm.ranks if algorithm == "ring" and protocol == "ll" else each


def channels(comm: Communicator, algorithm: str, protocol: str, nbytes: int) -> int:
    """Channels that a message of this size is spread over (enqueue.cc)."""
    tables = comm.tables
    if algorithm.startswith("nvls"):
        return max(1, tables.nvls_channels_rack if comm.rack and comm.nodes == 1 else tables.nvls_channels)
    most = max(1, min(comm.channels, nbytes // channel_bytes(comm, algorithm, protocol)))
    least = tables.rules["channel_traffic"]
    if least:
        most = max(1, min(most, math.ceil(2 * nbytes * _WIRE_TRAFFIC[protocol] / least)))
    return int(most)
