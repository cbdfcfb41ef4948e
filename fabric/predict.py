"""A quick answer: how long an all-reduce takes on a described machine, without a simulation.

Two models, both closed forms in the message size, from the same card:

``nccl``     NCCL's own tuning model (nccl.py), with NCCL's choice of algorithm and protocol.
``fabric``   what the bytes need. An algorithm is counted out: how many of them cross the busiest link of each kind,
             what the protocol adds to them, and how many hops the longest chain has::

    ring          2 (p-1)/p S through every GPU's links, and through the NICs of every node
    tree          2 S through a GPU's links (S up, S down); through the NICs of a node in the middle of the double binary
                  tree S (2 nodes), 3/2 S (3 nodes) or 2 S (more): it is inside one tree and a leaf of the other, and
                  each tree carries half of the message up and down
    nvls          (p+1)/p S through a GPU's links (innetwork.py)
    nvls-tree     both: NVLink SHARP in the node and the tree's bytes between nodes
    sharp         S through the NICs of a node, 7/4 S (8 GPUs) through a GPU's links

Protocol LL sends 4 bytes of flags with 4 of data, LL128 8 with 120. Hops cost what the library's maintainers measured
(card: software), and what the transport adds to them. Simple moves chunks: NVLink SHARP passes them one after the other,
each with a hop's wait. A tree reaches what NCCL's own table says of its rate at that size, and no more a channel than
the caps in the card.

With ``auto`` the library chooses, rightly or wrongly, so both models take NCCL's choice where the card's GPUs are known
to NCCL; elsewhere the faster of ring and tree.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..errors import UserError
from . import host, innetwork, nccl
from .card import Software, System

ALGORITHMS = ("ring", "tree", "nvls", "nvls-tree", "sharp", "auto")
MODELS = ("fabric", "nccl")

# What NCCL's maintainers tell users to expect of a NIC: 48 GB/s of 400 Gb/s, 24 of 200, 12 of 100 (nccl-tests issues
# 119, 290, 309); it is also the speed that NCCL's search tries for each.
NIC_FRACTION = 0.96
_LL, _LL128 = 2.0, 128 / 120  # bytes on the wire for a byte of data
_WIRE = {"ll": _LL, "ll128": _LL128, "simple": 1.0}
# The device code's own limits (NCCL src/enqueue.cc and src/transport/nvls.cc): thread blocks and largest chunks of NVLink SHARP.
_NVLS_CHANNELS = {"hopper": 16, "blackwell": 32}
_NVLS_CHUNK = 128 << 10
_NVLS_TREE_CHUNK = 64 << 10  # from four nodes on
# The NIC a channel of the DGX A100, H100 and B200, on which NVIDIA's caps of trees were found. On four and more nodes 17.8
# and 36 GB/s a channel are both three quarters of it: there the caps say what a tree gets out of a NIC.
_REFERENCE_NIC = {"ampere": 24e9, "hopper": 48e9, "blackwell": 48e9}
_COLLNET_EFFICIENCY = 0.85  # tuning.cc: collnet-direct from Hopper on


class Platform(NamedTuple):
    """The figures of a machine that the two models need. Rates are bytes a second a direction, times seconds."""

    name: str
    generation: str
    domain: int  # ranks that the links join
    link: str  # "nvlink", "pcie", ...
    link_rate: float  # of one GPU, as a collective gets it
    software: Software
    multicast: bool = False  # the links' switches reduce (NVLink SHARP)
    nics: int = 0  # of one domain
    nic_rate: float = 0.0  # of one NIC, as its ports are specified
    host_rate: float = math.inf  # what PCIe lets through to one NIC
    sharp: bool = False  # the network's switches reduce
    x86: bool = True
    network_latency: float = 0.0  # what the transport adds to a hop of the network
    eager: float = math.inf  # longest message that the transport sends without asking first
    rendezvous: float = 0.0  # what asking first costs

    @property
    def usable(self) -> float:
        """Bytes a second that the library gets out of one NIC."""
        return min(self.nic_rate * NIC_FRACTION, self.host_rate)


def platform(system: System) -> Platform:
    """The figures of a system card."""
    nic, node = system.nic, system.node
    hosts = node.domain / node.gpus
    return Platform(
        name=system.name,
        generation=system.gpu.architecture,
        domain=node.domain,
        link=node.link.kind,
        link_rate=node.link.rate,
        software=system.software,
        multicast=node.link.sharp,
        nics=0 if nic is None else max(1, round(node.nics * hosts)),
        nic_rate=0.0 if nic is None else nic.rate,
        host_rate=math.inf if nic is None else host.pcie_rate(nic.pcie_generation, nic.pcie_lanes, nic.pcie_efficiency),
        sharp=bool(system.network and system.network.sharp),
    )


def shape(machine: Platform, ranks: int) -> tuple[int, int]:
    """Nodes (domains) and ranks of each that a job of `ranks` uses. Raises UserError for ranks that cannot be."""
    if ranks < 2:
        raise UserError(f"{ranks} ranks; accepted: 2 or more")
    nodes = -(-ranks // machine.domain)
    if nodes > 1 and (machine.nics < 1 or machine.nic_rate <= 0):
        raise UserError(f"{machine.name}: {ranks} ranks need a network; accepted: at most {machine.domain}")
    return nodes, max(1, ranks // nodes)


def communicator(machine: Platform, ranks: int) -> nccl.Communicator:
    """The ranks as NCCL's model sees them. Raises UserError for GPUs that NCCL does not know."""
    nodes, local = shape(machine, ranks)
    return nccl.communicator(
        machine.generation,
        ranks,
        nodes,
        software=machine.software,
        link=machine.link,
        link_rate=machine.link_rate,
        nics=min(machine.nics, local),
        nic_rate=min(machine.nic_rate, machine.host_rate) * max(1.0, machine.nics / local),
        nvls=machine.multicast,
        sharp=machine.sharp,
        x86=machine.x86,
        network_latency=machine.network_latency,
    )


class Prediction(NamedTuple):
    seconds: float
    algorithm: str  # as in nccl.ALGORITHMS
    protocol: str


def predict(
    system: System | Platform, ranks: int, size_bytes: int, algorithm: str = "auto", model: str = "fabric"
) -> float:
    """Seconds of an all-reduce of `size_bytes` over `ranks` of the system. Raises UserError for what cannot be run."""
    return explain(system, ranks, size_bytes, algorithm, model).seconds


def explain(
    system: System | Platform,
    ranks: int,
    size_bytes: int,
    algorithm: str = "auto",
    model: str = "fabric",
    without: tuple[str, ...] = (),
) -> Prediction:
    """As `predict`, with the algorithm and protocol that were taken. `without`: algorithms the library may not choose.

    `sharp` means the network's switches (collnet-direct where NVLink SHARP is there too, else collnet-chain), `nvls` on
    several nodes is nvls-tree and `nvls-tree` on one node is nvls, as the library has it.
    """
    machine = system if isinstance(system, Platform) else platform(system)
    if algorithm not in ALGORITHMS and algorithm not in nccl.ALGORITHMS:
        raise UserError(f"algorithm {algorithm!r}; accepted: {', '.join(ALGORITHMS)}")
    if model not in MODELS:
        raise UserError(f"model {model!r}; accepted: {', '.join(MODELS)}")
    if size_bytes < 1:
        raise UserError(f"{size_bytes} bytes; accepted: 1 or more")
    nodes, _ = shape(machine, ranks)
    wanted = _names(machine, nodes, algorithm, without)
    if machine.generation in nccl.GENERATIONS:
        comm = communicator(machine, ranks)
        choice = nccl.choose(comm, size_bytes, wanted)
        if model == "nccl":
            return Prediction(choice.seconds, choice.algorithm, choice.protocol)
        return Prediction(
            fabric(machine, ranks, size_bytes, choice.algorithm, choice.protocol, comm),
            choice.algorithm,
            choice.protocol,
        )
    if model == "nccl":
        raise UserError(f"NCCL's model knows no {machine.generation!r} GPU; accepted: {', '.join(nccl.GENERATIONS)}")
    pairs = [(a, p) for a in wanted if a in ("ring", "tree") for p in nccl.PROTOCOLS]
    if not pairs:
        raise UserError(f"{machine.name} runs no {algorithm}; accepted: ring, tree, auto")
    return min((Prediction(fabric(machine, ranks, size_bytes, a, p), a, p) for a, p in pairs), key=lambda x: x.seconds)


def _names(machine: Platform, nodes: int, algorithm: str, without: tuple[str, ...]) -> tuple[str, ...]:
    if algorithm == "auto":  # CollNet is off unless the user switches it on
        return tuple(a for a in nccl.ALGORITHMS if not a.startswith("collnet") and a not in without)
    if algorithm in ("nvls", "nvls-tree"):
        return ("nvls",) if nodes == 1 else ("nvls-tree",)
    if algorithm == "sharp":
        if nodes == 1:
            return ("nvls",)
        return ("collnet-direct",) if machine.multicast else ("collnet-chain",)
    return (algorithm,)


def fabric(
    machine: Platform,
    ranks: int,
    size: int,
    algorithm: str,
    protocol: str,
    comm: nccl.Communicator | None = None,
) -> float:
    """Seconds of one pair of algorithm and protocol by the bytes and hops it needs. See the head of this file."""
    nodes, local = shape(machine, ranks)
    soft, scale = machine.software, min(nodes, 3) - 1
    network = machine.nics * machine.usable if nodes > 1 else math.inf
    extra = machine.network_latency
    if algorithm == "ring":
        hops, wire = soft.ring, size * 2 * (ranks - 1) / ranks * _WIRE[protocol]
        rate = min(machine.link_rate if local > 1 else math.inf, network)
        if protocol == "ll":
            rate = min(rate, soft.caps.ll[scale] * _LL if soft.caps.ll[scale] else math.inf)
        elif protocol == "ll128" and comm is not None:
            rate = min(rate, comm.graphs["ring"].channels * soft.caps.ring_ll128[scale] * _LL128)
        steps, between = 2 * (ranks - 1), 2 * (nodes - 1)
        inside = getattr(hops.link(machine.link), protocol)
        if nodes > 1:
            inside = max(inside, soft.network_overhead * (3 if protocol == "simple" else 1))
        hop = getattr((soft.tree if local == 1 else hops).network, protocol) + extra
        message = size / ranks / max(1, comm.graphs["ring"].channels if comm else 1) * _WIRE[protocol]
        hop += machine.rendezvous if message > machine.eager else 0.0
        return getattr(hops.base, protocol) + (steps - between) * inside + between * hop + wire / rate
    if algorithm == "tree":
        hops = soft.tree
        through = _tree_share(nodes)
        rate = min(machine.link_rate / 2 if local > 1 else math.inf, network / through)
        cap = soft.caps.tree_simple[scale]
        if comm is not None and cap:
            if nodes > 2:  # a cap found with a faster NIC than this machine's
                cap *= min(1.0, network / min(machine.nics, local) / _REFERENCE_NIC[machine.generation])
            rate = min(rate, comm.graphs["tree"].channels * cap / 2)
        rate /= _WIRE[protocol]
        if protocol == "ll" and soft.caps.ll[scale]:
            rate = min(rate, soft.caps.ll[scale] / 2)
        if protocol == "ll128" and comm is not None and soft.caps.tree_ll128[scale]:
            rate = min(rate, comm.graphs["tree"].channels * soft.caps.tree_ll128[scale] / 2)
        if comm is not None:
            rate *= nccl.correction(comm, "tree", protocol, size)
        hop = getattr(hops.network, protocol) + extra
        hop += machine.rendezvous if size * _WIRE[protocol] > machine.eager else 0.0
        depth = _depth(nodes)
        inside = getattr(hops.link(machine.link), protocol)
        return getattr(hops.base, protocol) + 2 * ((local - 1) * inside + depth * hop) + size / rate
    if algorithm in ("nvls", "nvls-tree"):
        domain = size / innetwork.domain_seconds(local, size, machine.link_rate, efficiency=soft.nvls_efficiency)
        rate, wait = domain, soft.nvls_link
        most = _NVLS_CHUNK
        if nodes > 1:
            rate = min(domain, network / _tree_share(nodes))
            cap = soft.caps.nvls_tree[scale]
            if cap:
                rate = min(rate, cap * min(machine.nics, local) * ranks / (2 * (ranks - 1)))
            if comm is not None:
                rate *= nccl.correction(comm, "nvls-tree", "simple", size)
            wait += 2 * _depth(nodes) * (soft.nvls_tree_network + extra + machine.rendezvous)
            most = _NVLS_CHUNK if nodes < 4 else _NVLS_TREE_CHUNK
        places = _NVLS_CHANNELS.get(machine.generation, 16) * local
        # The efficiency is that of the longest messages, in chunks of 128 KiB; shorter chunks wait more often.
        more = max(0.0, _rounds(size, places, most, nodes) - 1 - size / (places * _NVLS_CHUNK))
        return wait + more * soft.ring.nvlink.simple + size / rate
    if algorithm.startswith("collnet"):
        direct = algorithm == "collnet-direct"
        crossing = 2 * (local - 1) / local if direct else 2.0  # of the message, through a GPU's links
        rate = min(network, machine.link_rate / crossing if local > 1 else math.inf)
        wait = nccl.latency(comm, algorithm, protocol) if comm is not None else soft.collnet_network
        return wait + size / (rate * (_COLLNET_EFFICIENCY if direct else 1.0))
    raise UserError(f"algorithm {algorithm!r}; accepted: {', '.join(nccl.ALGORITHMS)}")


def _tree_share(nodes: int) -> float:
    """Bytes through the NICs of the busiest node of the double binary tree, for each byte of the message, a direction."""
    return 1.0 if nodes == 2 else 1.5 if nodes == 3 else 2.0


def _depth(nodes: int) -> int:
    """Hops from the deepest leaf of NCCL's binary tree to its root. (NCCL's model rounds the logarithm down.)"""
    return (nodes - 1).bit_length()


def _rounds(size: int, places: int, most: int, nodes: int) -> int:
    """Chunks one after the other in each of `places` (channels x heads), as src/enqueue.cc sizes them."""
    chunk = most
    if nodes == 1:
        for times, smaller in ((64, 64 << 10), (8, 32 << 10), (2, 16 << 10)):
            if size < times * places * chunk and chunk > smaller:
                chunk = smaller
    else:
        for times, smaller in ((16, 128 << 10), (4, 64 << 10), (1, 32 << 10)):
            if size < times * places * chunk and chunk > smaller:
                chunk = smaller
    return max(1, math.ceil(size / (places * chunk)))
