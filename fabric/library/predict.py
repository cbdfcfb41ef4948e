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

Protocol LL sends 4 bytes of flags with 4 of data, LL128 8 with 120. Hops cost what the library's maintainers measured (card:
software), and what the transport and the distance add to them. Simple moves chunks: a tree is a pipeline of them, which
fills hop by hop; NVLink SHARP is a pipeline of three or four stages inside each GPU, and each chunk has a hop's wait. With
LL and LL128 a tree reaches what NCCL's own table says of its rate at that size. No algorithm gets more a channel than the
caps in the card.

With ``auto`` the library chooses, rightly or wrongly, so both models take NCCL's choice where the card's GPUs are known
to NCCL; elsewhere the faster of ring and tree.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ...errors import UserError
from ..cards import card
from ..cards.card import Software, System
from ..physics import host, innetwork, topology
from . import nccl

ALGORITHMS = ("ring", "tree", "nvls", "nvls-tree", "sharp", "auto")
MODELS = ("fabric", "nccl")

# What NCCL's maintainers tell users to expect of a NIC: 48 GB/s of 400 Gb/s, 24 of 200, 12 of 100 (nccl-tests issues
# 119, 290, 309); it is also the speed that NCCL's search tries for each.
NIC_FRACTION = 0.96
REFERENCE = "dgx-h100-cx7"  # the kind of machine on which the library's hops were measured; a slower NIC adds to them
# Longest message sent without a rendezvous. Slingshot: fi_cxi(7), FI_CXI_RDZV_THRESHOLD 2048 + FI_CXI_RDZV_GET_MIN 2049.
EAGER = {"slingshot": 4097.0}
_LL, _LL128 = 2.0, 128 / 120  # bytes on the wire for a byte of data
_WIRE = {"ll": _LL, "ll128": _LL128, "simple": 1.0}
# The device code's own limits (NCCL src/enqueue.cc and src/transport/nvls.cc): thread blocks and largest chunks of NVLink SHARP.
_NVLS_CHANNELS = {"hopper": 16, "blackwell": 32}
_NVLS_CHUNK = 128 << 10
_NVLS_TREE_CHUNK = 64 << 10  # from four nodes on
# The NIC a channel of the DGX A100, H100 and B200, on which NVIDIA's caps of trees were found. On four and more nodes 17.8
# and 36 GB/s a channel are both three quarters of it: there the caps say what a tree gets out of a NIC.
_REFERENCE_NIC = {"ampere": 24e9, "hopper": 48e9, "blackwell": 48e9}
_LL_A_CHANNEL = 4 << 10  # 512 threads of 8 bytes: more than that is given to another channel
_LL_CHUNK = 32 << 10  # data of one of the 8 steps of LL's buffer: 512 threads x 8 lines x 8 bytes
_TREE_CHUNK = 512 << 10  # one of the 8 steps of Simple's buffer of 4 MiB (NCCL_BUFFSIZE, NCCL_STEPS)
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
    reach: tuple[tuple[float, float], ...] = ()  # (domains, seconds): what a hop costs more between that many domains

    @property
    def rendezvous(self) -> float:
        """Seconds of asking first: a request and a Get travel before the data."""
        return 2 * self.software.ring.network.ll if self.eager < math.inf else 0.0

    @property
    def usable(self) -> float:
        """Bytes a second that the library gets out of one NIC."""
        return min(self.nic_rate * NIC_FRACTION, self.host_rate)


def platform(system: System) -> Platform:
    """The figures of a system card."""
    nic, node = system.nic, system.node
    hosts = node.domain / node.gpus
    reference = card.load(REFERENCE).nic.latency
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
        network_latency=0.0 if nic is None else max(0.0, nic.latency - reference),
        eager=math.inf if nic is None else EAGER.get(nic.framing, math.inf),
        reach=reach(system),
    )


def reach(system: System) -> tuple[tuple[float, float], ...]:
    """(domains, seconds) for each class of nearness: what its switches beyond the first and its cables add to a hop.

    The library's own figure for a hop of the network holds one switch (as in build.py).
    """
    if system.nic is None:
        return ()
    near = topology.nearness(system)
    steps = []
    for k in range(1, len(near.classes)):
        inside = math.inf
        if k < len(near.groups):
            inside = max(1.0, int((near.groups[k] == near.groups[k, 0]).sum()) / system.node.domain)
        beyond = max(0.0, near.switches[k] - 1) * system.switch.latency + near.cable[k] * topology.FIBRE
        steps.append((inside, float(beyond)))
    return tuple(steps)


def _between(steps: tuple[tuple[float, float], ...], distance: float) -> float:
    """Seconds that a hop over `distance` domains costs more."""
    return next((seconds for inside, seconds in steps if distance < inside), 0.0)


def _tree_reach(steps, nodes: int) -> float:
    """The same, over the whole way from the deepest leaf to the root: hops of 1, 2, 4, ... domains."""
    return sum(_between(steps, 2**level) for level in range(_depth(nodes)))


def _ring_reach(steps, nodes: int) -> float:
    """The same, a hop on average over the ring in order: few of its hops leave a group."""
    total, inside = 0.0, 1.0
    for size, seconds in steps:
        total += (1 / inside - (1 / size if size < nodes else 0.0)) * seconds
        if size >= nodes:
            break
        inside = size
    return total


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
    machine: Platform, ranks: int, size: int, algorithm: str, protocol: str, comm: nccl.Communicator | None = None
) -> float:
    """Seconds of one pair of algorithm and protocol by the bytes and hops it needs. See the head of this file.

    comm: what NCCL makes of the ranks, whose channels its caps count; None for GPUs that it does not know.
    """
    nodes, local = shape(machine, ranks)
    last = (
        ranks - (nodes - 1) * machine.domain
    )  # ranks of the last node, which uses as many NICs as it has part of the GPUs
    nics = max(1.0, machine.nics * min(1.0, last / machine.domain))
    job = _Job(machine, comm, ranks, nodes, local, nics * machine.usable if nodes > 1 else math.inf)
    if algorithm == "ring":
        return _ring(job, size, protocol)
    if algorithm == "tree":
        return _tree(job, size, protocol)
    if algorithm in ("nvls", "nvls-tree"):
        return _nvls(job, size)
    if algorithm in ("collnet-direct", "collnet-chain"):
        return _collnet(job, size, algorithm)
    raise UserError(f"algorithm {algorithm!r}; accepted: {', '.join(nccl.ALGORITHMS)}")


class _Job(NamedTuple):
    """The ranks of one prediction. network: bytes a second of a node's NICs together."""

    machine: Platform
    comm: nccl.Communicator | None
    ranks: int
    nodes: int
    local: int
    network: float

    @property
    def scale(self) -> int:
        """Column of the library's caps: one node, two, more."""
        return min(self.nodes, 3) - 1

    def cap(self, caps: tuple[float, ...], graph: str = "") -> float:
        """The cap of these nodes; of all channels of `graph` where it is given one a channel. inf: none."""
        value = caps[self.scale]
        if value <= 0 or (graph and self.comm is None):
            return math.inf
        return value * self.comm.graphs[graph].channels if graph else value

    def hop(self, seconds: float, message: float) -> float:
        """A hop of the network that takes the library `seconds`, for a message of that many bytes on the wire."""
        return (
            seconds + self.machine.network_latency + (self.machine.rendezvous if message > self.machine.eager else 0.0)
        )


def _ring(job: _Job, size: int, protocol: str) -> float:
    machine, hops = job.machine, job.machine.software.ring
    rate = min(machine.link_rate if job.local > 1 else math.inf, job.network) / _WIRE[protocol]
    if protocol == "ll":
        rate = min(rate, job.cap(machine.software.caps.ll))
    elif protocol == "ll128":
        rate = min(rate, job.cap(machine.software.caps.ring_ll128, "ring"))
    steps, between = 2 * (job.ranks - 1), 2 * (job.nodes - 1)
    inside = getattr(hops.link(machine.link), protocol)
    if job.nodes > 1:
        inside = max(inside, machine.software.network_overhead * (3 if protocol == "simple" else 1))
    channels = job.comm.graphs["ring"].channels if job.comm else 1
    network = (machine.software.tree if job.local == 1 else hops).network
    hop = job.hop(getattr(network, protocol), size / job.ranks / channels * _WIRE[protocol])
    hop += _ring_reach(machine.reach, job.nodes)
    return getattr(hops.base, protocol) + (steps - between) * inside + between * hop + size * steps / job.ranks / rate


def _tree(job: _Job, size: int, protocol: str) -> float:
    machine, hops, caps = job.machine, job.machine.software.tree, job.machine.software.caps
    rate = min(machine.link_rate / 2 if job.local > 1 else math.inf, job.network / _tree_share(job.nodes))
    cap = job.cap(caps.tree_simple, "tree")
    if job.nodes > 2 and job.comm is not None:  # found with a NIC that may be faster than this machine's
        nic = job.network / min(machine.nics, job.local)
        cap *= min(1.0, nic / _REFERENCE_NIC[machine.generation])
    rate = min(rate, cap / 2) / _WIRE[protocol]
    if protocol == "ll":
        rate = min(rate, job.cap(caps.ll) / 2)
    elif protocol == "ll128":
        rate = min(rate, job.cap(caps.tree_ll128, "tree") / 2)
    hop = job.hop(getattr(hops.network, protocol), size * _WIRE[protocol])
    inside = getattr(hops.link(machine.link), protocol)
    if job.comm is not None and protocol == "simple":
        # The pipeline fills: a first chunk of each channel and tree goes from the leaf to the root and back. A node with two
        # children takes both their chunks in over its NIC before it passes on one, and sends two out on the way back.
        channels = job.comm.graphs["tree"].channels
        chunk = min(_TREE_CHUNK, size / (2 * channels))
        hop += min(2, job.nodes - 1) * chunk / (job.network / channels)
        inside += chunk / (machine.link_rate / channels)
    elif job.comm is not None:
        rate *= _correction(job.comm, "tree", protocol, size)
    if protocol == "ll" and job.nodes > 1:
        hop += _through_host(job, size)
    way = _depth(job.nodes) * hop + _tree_reach(machine.reach, job.nodes)
    return getattr(hops.base, protocol) + 2 * ((job.local - 1) * inside + way) + size / rate


def _through_host(job: _Job, size: int) -> float:
    """Seconds that a message of protocol LL takes to pass from node to node, beside its latency.

    The proxy polls LL's flags, so its buffers lie in host memory (Hu et al. 2025, arXiv 2507.04786, section III): the GPU
    writes there, the NIC sends, the other NIC writes, the other GPU reads, each when all has come. Few channels are
    used, and so few NICs, where threads would have less than 8 bytes each (src/enqueue.cc, NCCL_LL_THREAD_THRESHOLD).
    """
    busiest = min(max(min(size, _LL_A_CHANNEL), size / job.machine.nics), _LL_CHUNK)
    nic = job.network / job.machine.nics
    return busiest * _LL * (1 / nic + 2 / job.machine.host_rate)


def _nvls(job: _Job, size: int) -> float:
    machine, soft = job.machine, job.machine.software
    rate = size / innetwork.domain_seconds(job.local, size, machine.link_rate, efficiency=soft.nvls_efficiency)
    wait, most = soft.nvls_link, _NVLS_CHUNK
    if job.nodes > 1:
        heads = min(machine.nics, job.local)
        busbw = job.cap(soft.caps.nvls_tree) * heads
        rate = min(rate, job.network / _tree_share(job.nodes), busbw * job.ranks / (2 * (job.ranks - 1)))
        if job.comm is not None:
            rate *= _correction(job.comm, "nvls-tree", "simple", size)
        hop = job.hop(soft.nvls_tree_network, size)
        wait += 2 * (_depth(job.nodes) * hop + _tree_reach(machine.reach, job.nodes))
        most = _NVLS_CHUNK if job.nodes < 4 else _NVLS_TREE_CHUNK
    places = _NVLS_CHANNELS[machine.generation] * job.local
    chunk = _nvls_chunk(size, places, most, job.nodes)
    # The efficiency is that of the longest messages, in chunks of 128 KiB; shorter chunks wait more often.
    more = max(0.0, math.ceil(size / (places * chunk)) - 1 - size / (places * _NVLS_CHUNK))
    # The warps of a thread block are scatterers, reducers and gatherers, and broadcasters between nodes: a pipeline.
    fill = (2 if job.nodes == 1 else 3) * min(size, places * chunk)
    return wait + more * soft.ring.nvlink.simple + (size + fill) / rate


def _collnet(job: _Job, size: int, algorithm: str) -> float:
    machine = job.machine
    direct = algorithm == "collnet-direct"
    crossing = 2 * (job.local - 1) / job.local if direct else 2.0  # of the message, through a GPU's links
    rate = min(job.network, machine.link_rate / crossing if job.local > 1 else math.inf)
    wait = nccl.latency(job.comm, algorithm, "simple") if job.comm else machine.software.collnet_network
    return wait + size / (rate * (_COLLNET_EFFICIENCY if direct else 1.0))


def _tree_share(nodes: int) -> float:
    """Bytes through the NICs of the busiest node of the double binary tree, for each byte of the message, a direction."""
    return 1.0 if nodes == 2 else 1.5 if nodes == 3 else 2.0


def _correction(comm: nccl.Communicator, algorithm: str, protocol: str, size: int) -> float:
    """NCCL's table (nccl.correction) joined by straight lines over the logarithm of the size, so that time grows with it."""
    below = 1 << max(6, int(size).bit_length() - 1)
    low, high = (nccl.correction(comm, algorithm, protocol, n) for n in (below, 2 * below))
    return low + (high - low) * max(0.0, math.log2(size / below))


def _depth(nodes: int) -> int:
    """Hops from the deepest leaf of NCCL's binary tree to its root. (NCCL's model rounds the logarithm down.)"""
    return (nodes - 1).bit_length()


def _nvls_chunk(size: int, places: int, most: int, nodes: int) -> int:
    """Bytes of a chunk in each of `places` (channels x heads), as src/enqueue.cc chooses it."""
    chunk = most
    steps = (
        ((64, 64 << 10), (8, 32 << 10), (2, 16 << 10))
        if nodes == 1
        else ((16, 128 << 10), (4, 64 << 10), (1, 32 << 10))
    )
    for times, smaller in steps:
        if size < times * places * chunk and chunk > smaller:
            chunk = smaller
    return chunk
