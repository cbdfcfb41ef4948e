"""From a system card to the `Network` that every simulator and the emulation read.

**Classes.** Class 0 joins the ranks of a domain (node.link, port 0). The others go over NICs (port 1), one for each
level of the topology that two ranks share: a leaf, a pod, the whole. Ranks fill domains in order, domains fill leaves,
and so on.

**A byte** on class 0 costs 1 / node.link.rate. A NIC carries the least of

    nic.rate * planes left                       what its ports bring
      * mtu / (mtu + headers)                    framing.py
    PCIe's rate * nic.pcie_efficiency            host.py
    the first * what routing leaves              crossing classes only (below)
    nic.rate * planes left * network.throughput_fraction    beyond one switch, where the card has it

**Rails.** A host has several NICs, and a schedule is one logical ring or tree over all ranks. NCCL runs as many copies
of the ring (channels) as there are NICs, each entering and leaving the host through another one. All copies are in the
same state at the same time, so they are one ring whose hop between hosts has the rate of all NICs together. `rails`
says how many ranks of a domain are at the NICs at once, and byte_ps = that number / (NICs of a domain * rate of one):

    "aggregate"    1                      a ring of one channel in rank order; exact
    "own"          all of a domain        each rank has its own share: direct exchange, recursive doubling
    a number       rails.sharing(...)     counted from the tables of any algorithm: 2 or 4 for the double binary tree

Where more ranks send than `rails` says, NICs carry more than they can: take `sharing` when in doubt. The last domain
may hold fewer ranks and then uses fewer NICs: its ranks' factor `slow` on port 1 says so.

**Routing.** What a step's flows get (routing.py, on the card's fat tree). Unless all ranks cross, the flows of a ring
over all NICs: few cross a leaf, so with adaptive routing they have it to themselves, whatever the oversubscription.
Under ECMP flows of several rails can meet on an uplink; the slowest of a class counts, since a ring waits for it. For
"own", a random permutation of all NICs: adaptive routing gives 1 / oversubscription, ECMP what max-min fairness leaves
on the mean, as everything keeps moving. Topologies other than fat trees: 1, or what their global links carry where all
ranks cross at once.

**A message** costs nic.message_overhead at both ends, 1 / nic.message_rate between two at a port, and the latency:
nic.latency (two NICs and a cable, memory to memory) + switches * switch.latency + cables * 4.9 ns/m +
software.network_overhead (the proxy that posts it). With `protocol` the software's own figure for a hop replaces
nic.latency + network_overhead + one switch, and LL and LL128 carry flags: 8 bytes of every 16, 8 of every 128 (NCCL,
src/device/prims_ll.h and prims_ll128.h).

**Work** costs 3 bytes of memory traffic for a byte reduced, 2 for a byte copied.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ...errors import UserError
from ..cards.card import System
from . import framing, host, innetwork, planes, topology
from .bounds import Bounds, bounds, ring_latency
from .network import PS, Network, network
from .noise import Cause, parse, table
from .routing import ROUTINGS, permutation_flows, route
from .stragglers import Straggler, factors

__all__ = [
    "PROTOCOLS",
    "RAILS",
    "Bounds",
    "bounds",
    "build",
    "crossing_fractions",
    "in_network_seconds",
    "nic_rate",
    "ring_latency",
]

RAILS = ("aggregate", "own")
PROTOCOLS = ("ll", "ll128", "simple")
FLAGS = {None: 1.0, "ll": 16 / 8, "ll128": 128 / 120, "simple": 1.0}  # bytes sent for a byte of data
SAMPLE = 1 << 15  # NIC ports of a tree that stands for larger ones where only a mean is asked for


def build(
    system: System,
    ranks: int | None = None,
    *,
    seed: int = 0,
    noise: str | tuple[Cause, ...] | None = None,
    stragglers: Iterable[Straggler | str] = (),
    failed_planes: int = 0,
    routing: str | None = None,
    rails: str | float = "aggregate",
    protocol: str | None = None,
) -> Network:
    """The network of the first `ranks` GPUs of `system` (None: all).

    seed: of noise and of hashes. noise: words or causes (noise.py), added to every receive. stragglers: words or
    Stragglers (stragglers.py). failed_planes: networks of a multi-plane NIC that are down. routing: instead of the card's.
    rails, protocol: see above; without a protocol the figures are those of hardware and proxy. Raises UserError for more
    ranks than the card has GPUs, and for what the modules above refuse.
    """
    p = system.gpus if ranks is None else ranks
    if not 1 <= p <= system.gpus:
        raise UserError(f"{p} ranks on {system.name}, which has {system.gpus} GPUs; accepted: 1 to {system.gpus}")
    at_once = _at_once(system, rails)
    rails = "own" if rails == "own" or at_once == system.node.domain > 1 else "aggregate"
    if protocol not in FLAGS:
        raise UserError(f"protocol {protocol!r}; accepted: {', '.join(PROTOCOLS)}")
    near = topology.nearness(system, p)
    slower = factors(stragglers, p)
    if noise is None or isinstance(noise, str):
        noise = parse(noise or "none")
    link, hop = system.node.link, system.software.ring
    latency = [link.latency if protocol is None else getattr(hop.link(link.kind), protocol)]
    byte_ps = [PS / link.rate]
    overhead, gap, slow = [0.0], [0.0], [slower["link"]]

    classes = _classes(near)
    if classes > 1:
        share = _nics(system, system.node.domain) / at_once
        rates = _class_rates(system, p, near, failed_planes, routing, rails, seed)[1:classes]
        beyond = np.maximum(near.switches - 1, 0) * system.switch.latency + near.cable * topology.FIBRE
        if protocol is None:
            seconds = near.seconds + system.software.network_overhead
        else:
            seconds = beyond + getattr(hop.network, protocol)
        latency.extend(seconds[1:classes])
        byte_ps.extend(PS / (share * rates))
        overhead += [system.nic.message_overhead] * (classes - 1)
        gap += [max(1.0, 1 / share) / system.nic.message_rate] * (classes - 1)
        slow.append(slower["nic"] * _part_empty(system, p, rails))
    return network(
        near.groups[: classes - 1],
        latency=_ps(latency),
        byte_ps=np.array(byte_ps) * FLAGS[protocol],
        send_overhead=_ps(overhead),
        recv_overhead=_ps(overhead),
        gap=_ps(gap),
        slow=np.array(slow),
        reduce_ps=host.reduce_seconds_per_byte(system.gpu.memory_bandwidth) * PS * slower["memory"],
        copy_ps=host.copy_seconds_per_byte(system.gpu.memory_bandwidth) * PS * slower["memory"],
        noise=table(noise, seed),
        seed=seed,
    )


def nic_rate(system: System, *, fraction: float = 1.0, cap: float | None = None, failed_planes: int = 0) -> float:
    """Bytes of payload a second that one NIC carries between two memories.

    fraction: what routing leaves of the network's rate; cap: a part of the line rate that the network does not exceed.
    Raises UserError for a machine without a network, and if no plane is left.
    """
    nic = system.nic
    if nic is None:
        raise UserError(f"{system.name} has no network; accepted: a system with sections nic, switch and network")
    line = planes.rate_left(nic.rate, nic.planes, failed_planes)
    wire = framing.goodput(line, nic.framing, nic.mtu) * fraction
    if cap is not None:
        wire = min(wire, line * cap)
    return host.host_rate(wire, host.pcie_rate(nic.pcie_generation, nic.pcie_lanes, nic.pcie_efficiency))


def crossing_fractions(
    system: System, ranks: int, *, routing: str | None = None, rails: str = "aggregate", seed: int = 0
) -> np.ndarray:
    """float64 [classes] (those of `topology.nearness`): what routing and oversubscription leave of a NIC's rate to flows
    of each class, when the flows of a ring ("aggregate") or of all ranks at once ("own") are under way.

    Raises UserError for an unknown routing.
    """
    near = topology.nearness(system, ranks)
    return _fractions(system, ranks, near, _routing(system, routing), rails, seed)


def _routing(system, routing: str | None) -> str:
    if routing is not None and routing not in ROUTINGS:
        raise UserError(f"routing {routing!r}; accepted: {', '.join(ROUTINGS)}")
    return routing or system.network.routing


def _at_once(system, rails: str | float) -> float:
    """Ranks of a domain at its NICs at once."""
    domain = system.node.domain
    if rails in RAILS:
        return 1.0 if rails == "aggregate" else float(domain)
    if isinstance(rails, str) or not rails >= 1:
        raise UserError(f"rails {rails!r}; accepted: {', '.join(RAILS)}, or the ranks that share a domain's NICs")
    return min(float(rails), float(domain))


def _fractions(system, ranks, near, routing, rails, seed) -> np.ndarray:
    fractions = np.ones(len(near.classes))
    net = system.network
    if net.topology in topology.TREES:
        if net.tiers == 1:
            return fractions
        if routing == "adaptive":
            fractions[2:] = _sprayed(system, len(near.classes) - 2, rails)
            return fractions
        tree = topology.fat_tree(system)
        if rails == "aggregate":
            sources, destinations, classes = _ring_flows(system, ranks, near)
            got, pick = route(tree, sources, destinations, routing, seed=seed), np.min
        else:
            pods = max(2, SAMPLE // (tree.ports * tree.leaves))
            tree = tree._replace(pods=min(tree.pods, pods))
            got, pick = route(tree, *permutation_flows(tree.ends, seed), routing, seed=seed), np.mean
            classes = (got.tier + 1) // 2
        worst = 1.0
        for k in range(1, len(near.classes)):
            # A class without flows of its own does no better than those nearer.
            if np.any(classes == k):
                worst = min(worst, float(pick(got.rates[classes == k])) / tree.port_rate)
            fractions[k] = worst
    elif net.topology == "dragonfly":
        if rails == "own":
            cables = (int(near.groups[-1].max()) + 1 - 1) * net.global_links
            leaving = net.endpoints_per_switch * net.switches_per_group
        else:
            # Minimal routes to the next group have only its own cables; adaptive ones go by way of others.
            cables = net.global_links if routing != "adaptive" else np.inf
            leaving = _nics(system, system.node.domain) * (system.nic.ports // net.planes)
        fractions[-1] = min(1.0, max(cables, 1) / leaving)
    elif rails == "own":
        # A flow takes as many hops of the grid as it passes nodes and one, and a node's ports bring its NICs' rate.
        fractions[1:] = min(1.0, 1 / (near.switches[-1] + 1))
    return fractions


def _sprayed(system, count, rails) -> np.ndarray:
    """float64 [count]: of flows whose highest switch is in tier 2, 3 ...: a pool of uplinks over the ports that feed it."""
    t = topology.tree(system)
    each = system.nic.ports // system.network.planes
    node_ports = each if system.network.topology == "rail" else each * system.node.nics / t.set_leaves  # on one leaf
    domain_nodes = system.node.domain // system.node.gpus
    nodes = t.set_nodes if rails == "own" else min(t.set_nodes, domain_nodes)
    leaf = min(1.0, t.up / max(nodes * node_ports, 1))
    # Above tier 2 as much goes up as comes up, so a leaf's share is kept.
    return np.full(count, leaf)


def _ring_flows(system, ranks, near):
    """int64 [flows] each: the ports of all NICs of each domain, those they send to in the next, and the pair's class."""
    node, domain = system.node, system.node.domain
    domains = -(-ranks // domain)
    hosts = np.full(domains, domain // node.gpus)
    hosts[-1] = -(-(ranks - (domains - 1) * domain) // node.gpus)
    here = np.arange(domains)
    there = (here + 1) % domains
    k = np.full(domains, len(near.groups))
    for level in range(len(near.groups) - 1, -1, -1):
        k[near.groups[level, here * domain] == near.groups[level, there * domain]] = level
    host = np.arange(domain // node.gpus)
    exists = host < np.minimum(hosts, hosts[there])[:, None]  # [domains, hosts]
    each = system.nic.ports // system.network.planes
    shape = (*exists.shape, node.nics, each)
    nic, port = np.arange(node.nics)[:, None], np.arange(each)

    def ports(d):
        nodes = d[:, None] * (domain // node.gpus) + host
        return np.broadcast_to(topology.tree_port(system, nodes[:, :, None, None], nic, port), shape)[exists].ravel()

    classes = np.broadcast_to(k[:, None, None, None], shape)[exists].ravel()
    return ports(here), ports(there), classes


def _class_rates(system, ranks, near, failed_planes, routing, rails, seed) -> np.ndarray:
    """float64 [classes] bytes a second of one NIC; class 0 counts for nothing."""
    fractions = _fractions(system, ranks, near, _routing(system, routing), rails, seed)
    return np.array(
        [
            nic_rate(
                system,
                fraction=f,
                cap=system.network.throughput_fraction if k >= 2 else None,
                failed_planes=failed_planes,
            )
            for k, f in enumerate(fractions)
        ]
    )


def _classes(near) -> int:
    """Classes that these ranks need: up to the first level that has all of them in one group."""
    for level in range(len(near.groups)):
        if near.groups[level, 0] == near.groups[level, -1]:
            return level + 1
    return len(near.classes)


def _nics(system, gpus: int) -> int:
    """NICs next to the first `gpus` GPUs of a domain."""
    node = system.node
    hosts, rest = divmod(gpus, node.gpus)
    return hosts * node.nics + -(-rest * node.nics // node.gpus)


def _part_empty(system, ranks: int, rails: str) -> np.ndarray:
    """float64 [ranks]: how much slower the last domain leaves for having fewer ranks, and so fewer NICs."""
    out = np.ones(ranks)
    rest = ranks % system.node.domain
    if rails == "aggregate" and rest:
        out[-rest:] = _nics(system, system.node.domain) / _nics(system, rest)
    return out


def _ps(seconds) -> np.ndarray:
    return np.rint(np.asarray(seconds, np.float64) * PS).astype(np.int64)


def in_network_seconds(system: System, ranks: int, size: float, *, failed_planes: int = 0) -> float:
    """All-reduce of `size` bytes by the switches: NVLink SHARP in a domain, SHARP in the network, or both (innetwork.py).

    Latency is the hardware's: two hops of node.link, and the NICs, switches and cables of the way up and down. Raises
    UserError where the switches that these ranks need do not reduce, or ranks do not fill whole domains.
    """
    link, domain = system.node.link, min(ranks, system.node.domain)
    near = topology.nearness(system, ranks)
    domains = ranks // domain
    if ranks % domain:
        raise UserError(
            f"in-network reduction over {ranks} ranks; accepted: whole domains of {domain} on {system.name}"
        )
    for needed, has, what in (
        (domain > 1, link.sharp, "node.link.sharp"),
        (domains > 1, domains == 1 or system.network.sharp, "network.sharp"),
    ):
        if needed and not has:
            raise UserError(
                f"in-network reduction on {system.name}: {what} is false; accepted: a system whose switches reduce"
            )
    efficiency = system.software.nvls_efficiency or 1.0
    inside = 2 * link.latency if domain > 1 else 0.0
    if domains == 1:
        return innetwork.domain_seconds(domain, size, link.rate, efficiency=efficiency, latency=inside)
    k = _classes(near) - 1
    tiers = int(near.switches[k] + 1) // 2
    tree = innetwork.Tree(
        tiers,
        system.switch.latency,
        near.cable[k] / (2 * tiers) * topology.FIBRE,
        system.nic.mtu + framing.find(system.nic.framing).packet,
    )
    share = _nics(system, system.node.domain) / domain
    rate = share * _class_rates(system, ranks, near, failed_planes, "adaptive", "own", 0)[k]
    latency = inside + system.nic.latency + system.software.network_overhead
    return innetwork.hierarchical_seconds(
        domain, domains, size, link.rate, rate, tree, efficiency=efficiency, latency=latency
    )
