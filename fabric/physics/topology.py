"""Topology: where the nodes of a system stand in its network, and whether that network can be built. Pure geometry.

A switch of radix k in a tree of t tiers gives half its ports down and half up, the top one all down, so that each plane
has at most 2 (k / 2)^t ports (Al-Fares, Loukissas and Vahdat, SIGCOMM 2008: k^3 / 4 hosts for t = 3, of 5 k^2 / 4
switches). A faster port splits into several of the NIC port's rate. Oversubscription o gives a leaf o times as many ports
down as up.

::

    fat-tree   all NICs of a node under one leaf           rail   NIC i of the nodes of a group under the group's leaf i

      leaf 0        leaf 1                                  leaf 0   leaf 1   (rail 0, rail 1)
      | | | |       | | | |                                  | |      | |
      node0 node1   node2 node3                              NIC 0    NIC 1 of node0, node1

A collective over rails keeps a message on its rail (NCCL without cross-NIC, or by NVLink to the GPU beside that NIC), so
nodes of a group are one leaf apart whatever their GPUs. A dragonfly has groups of fully joined switches and `global_links`
cables between two groups (Kim, Dally, Scott and Abts, ISCA 2008); routes are minimal. In a torus or mesh the nodes are
their own switches.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...errors import UserError
from ..cards.card import System

FIBRE = 4.9e-9  # seconds a metre: light in glass of refractive index 1.47
TREES = ("single-switch", "fat-tree", "rail")
GRIDS = ("torus", "mesh")


class Nearness(NamedTuple):
    """Classes of pairs of ranks, nearest first; a pair is of the first class in whose level both are in one group.

    classes: names, by the highest switch on the way; the last takes the pairs that no level joins.
    groups: int32 [classes - 1, ranks], as `network.Network` has it.
    switches, cable: float64 [classes], passed and metres, one way (means where pairs of a class differ).
    seconds: float64 [classes], one-way latency of a small message: link or NICs, switches and cable.
    """

    classes: tuple[str, ...]
    groups: np.ndarray
    switches: np.ndarray
    cable: np.ndarray
    seconds: np.ndarray


class Tree(NamedTuple):
    """How the nodes hang in a tree of switches; all counts are of one plane. Leaves come in sets: the leaf switches that
    serve the same nodes (one for each rail, or one)."""

    tiers: int
    radix: int  # of a switch, at the rate of a NIC port
    down: int  # ports of a leaf to nodes
    up: int  # ports of a leaf to tier 2
    set_nodes: int  # nodes of a set of leaves
    set_leaves: int
    leaf_ports: int  # ports of a leaf to the nodes of a full set
    pod_sets: int  # sets of a pod, where all pods are full
    most_nodes: int  # nodes that the whole tree holds

    @property
    def pod_nodes(self) -> int:
        return self.set_nodes * self.pod_sets


class Parts(NamedTuple):
    """What has to be bought, over all planes."""

    switches: tuple[int, ...]  # of each tier, leaves first
    cables: tuple[int, ...]  # of each tier, to the NICs first


def port_rate(system: System) -> float:
    """Bytes a second of one NIC port. Raises UserError for a machine without a network."""
    return _nic(system).rate / system.nic.ports


def _nic(system: System):
    if system.nic is None:
        raise UserError(f"{system.name} has no network; accepted: a system with sections nic, switch and network")
    return system.nic


def _ports_of_node(system: System) -> int:
    """NIC ports of a node on one plane."""
    return system.node.nics * _ports_of_nic(system)


def _ports_of_nic(system: System) -> int:
    return _nic(system).ports // system.network.planes


def radix(system: System) -> int:
    """Ports of a switch at the rate of a NIC port, with faster ports split."""
    switch = system.switch
    ports = switch.radix * max(1, math.floor(switch.port_rate / port_rate(system) + 1e-9))
    return min(ports, switch.max_ports or ports)


def tree(system: System) -> Tree:
    """The tree of a system whose topology is one of TREES. Raises UserError if a switch has too few ports for one node."""
    network = system.network
    k, tiers = radix(system), network.tiers
    if tiers == 1:
        down, up = k, 0
    else:
        up = math.floor(k / (1 + network.oversubscription) + 1e-9)
        down = k - up if network.oversubscription > 1 else up
    rail = network.topology == "rail"
    need = _ports_of_nic(system) if rail else _ports_of_node(system)
    set_leaves = system.node.nics if rail else max(1, -(-need // max(1, down)))
    if (up == 0 and tiers > 1) or down == 0 or (rail and need > down) or (tiers == 1 and set_leaves > 1 and not rail):
        raise UserError(
            f"{system.name}: a node has {need} ports for a leaf and the leaf {down} of {k} ports down; "
            "accepted: a larger switch.radix, a smaller network.oversubscription or more network.planes"
        )
    set_nodes = max(1, down // need)
    hosts = system.node.domain // system.node.gpus
    if set_nodes >= hosts:
        set_nodes -= set_nodes % hosts  # a rack of one domain stands under the same leaves
    leaf_ports = -(-set_nodes * _ports_of_node(system) // set_leaves)
    if tiers == 1:
        return Tree(1, k, down, up, set_nodes, set_leaves, leaf_ports, 1, set_nodes)
    if tiers == 2:
        sets = k // set_leaves
        return Tree(2, k, down, up, set_nodes, set_leaves, leaf_ports, sets, set_nodes * sets)
    leaves = network.leaves_per_pod or k // 2
    if leaves > k // 2:
        raise UserError(
            f"{system.name}: network.leaves_per_pod {leaves}; accepted: at most {k // 2}, half of the radix"
        )
    sets = leaves // set_leaves
    if sets == 0:
        raise UserError(
            f"{system.name}: {set_leaves} leaves serve a node and a pod has {leaves}; "
            "accepted: fewer node.nics, more network.planes or a larger switch.radix"
        )
    pods = k * (k // 2) ** (tiers - 3)
    return Tree(tiers, k, down, up, set_nodes, set_leaves, leaf_ports, sets, set_nodes * sets * pods)


def _dragonfly(system: System) -> tuple[int, int, int]:
    """Nodes of a switch, nodes of a group, groups needed."""
    network = system.network
    ports = _ports_of_node(system)
    group = network.endpoints_per_switch * network.switches_per_group // ports
    if group == 0:
        raise UserError(
            f"{system.name}: a node has {ports} ports and a group "
            f"{network.endpoints_per_switch * network.switches_per_group}; "
            "accepted: more network.endpoints_per_switch or network.switches_per_group"
        )
    return max(1, network.endpoints_per_switch // ports), group, -(-system.nodes // group)


def _dragonfly_ports(system: System, groups: int) -> int:
    """Ports that the busiest switch needs for `groups` groups."""
    network = system.network
    reach = -(-(groups - 1) * network.global_links // network.switches_per_group)
    return network.endpoints_per_switch + network.switches_per_group - 1 + reach


def most_nodes(system: System) -> int:
    """Nodes that the network holds at its radix. Raises UserError if it cannot be built at all."""
    network = system.network
    if network is None:
        return max(1, system.node.domain // system.node.gpus)
    if network.topology in TREES:
        return tree(system).most_nodes
    if network.topology in GRIDS:
        return math.prod(network.dims)
    _, group, _ = _dragonfly(system)
    left = radix(system) - (network.endpoints_per_switch + network.switches_per_group - 1)
    if left < 0:
        raise UserError(
            f"{system.name}: a switch needs {radix(system) - left} ports for its nodes and its group and has "
            f"{radix(system)}; accepted: fewer network.endpoints_per_switch or network.switches_per_group"
        )
    return group * (1 + left * network.switches_per_group // network.global_links)


def check(system: System, ranks: int | None = None) -> None:
    """Raise UserError if `ranks` are more than the system's GPUs, or its network cannot be built for all of them."""
    if ranks is not None and ranks > system.gpus:
        raise UserError(
            f"{ranks} ranks, and {system.name} has {system.gpus} GPUs; accepted: at most that, or --set gpus=N"
        )
    most = most_nodes(system)
    if system.nodes <= most:
        return
    network = system.network
    if network is None:
        raise UserError(f"{system.name}: {system.gpus} GPUs need a network; accepted: at most {system.node.domain}")
    fits = [f"gpus={most * system.node.gpus}"]
    if network.topology in ("fat-tree", "rail"):
        for tiers in range(network.tiers + 1, 5):
            taller = system.network.__class__(**{**vars(network), "tiers": tiers})
            holds = tree(_with_network(system, taller)).most_nodes
            if holds >= system.nodes:
                fits.append(f"network.tiers={tiers} (holds {holds * system.node.gpus} GPUs)")
                break
        fits.append("a larger switch.radix, or more network.planes of slower ports")
    elif network.topology == "dragonfly":
        fits.append("fewer network.global_links, or a larger switch.radix")
    elif network.topology in GRIDS:
        fits.append("larger network.dims")
    else:
        fits.append("network.topology=fat-tree with network.tiers=2")
    what = f"{network.topology} of {radix(system)}-port switches"
    if network.topology in GRIDS:
        what = f"{network.topology} of {' x '.join(map(str, network.dims))} nodes"
    elif network.topology != "single-switch":
        what = f"{network.tiers}-tier {what}"
    raise UserError(
        f"{system.name}: {system.gpus} GPUs are {system.nodes} nodes, and a {what} holds {most}; accepted: "
        + ", or ".join(fits)
    )


def _with_network(system: System, network) -> System:
    return System(**{**vars(system), "network": network})


def nearness(system: System, ranks: int | None = None) -> Nearness:
    """Who is near whom among `ranks` (None: all) that fill the system node by node, in order.

    Raises UserError as `check` does.
    """
    check(system, ranks)
    ranks = system.gpus if ranks is None else ranks
    rank = np.arange(ranks, dtype=np.int64)
    node = rank // system.node.gpus
    levels, classes = [rank // system.node.domain], ["domain"]
    switches, cable = [0.0], [0.0]
    network = system.network

    def level(name, passed, metres, group=None):
        classes.append(name)
        switches.append(passed)
        cable.append(metres)
        if group is not None:
            levels.append(group)

    if network is None:
        levels = []
    elif network.topology in TREES:
        t = tree(system)
        c = np.cumsum(network.cable_lengths)
        tops = ("leaf", "spine", "core", "super-core")
        pods = [t.set_nodes, t.pod_nodes, t.pod_nodes * (t.radix // 2)]
        for i in range(t.tiers):
            last = i == t.tiers - 1
            level(tops[i], 2 * i + 1.0, 2 * c[i], None if last else node // pods[i])
    elif network.topology == "dragonfly":
        per_switch, per_group, _ = _dragonfly(system)
        to_nic, local, far = network.cable_lengths
        # The way is 4 switches, one less where an end's switch has a cable to the other group, 2 where both have the same.
        share = min(1.0, network.global_links / network.switches_per_group)
        same = min(1.0, network.global_links / network.switches_per_group**2)
        passed = 4 - (1 - (1 - share) ** 2) - same
        level("switch", 1.0, 2 * to_nic, node // per_group * per_group + node % per_group // per_switch)
        level("group", 2.0, 2 * to_nic + local, node // per_group)
        level("global", passed, 2 * to_nic + far + (passed - 2) * local)
    else:
        size, apart = 1, 0.0
        for axis, n in enumerate(network.dims):
            last = axis == len(network.dims) - 1
            hops = _mean_hops(n, network.topology == "torus")
            # Pairs that first differ at this axis: apart along it, anywhere along those before.
            mean = hops * n / (n - 1) + apart if n > 1 else apart
            size, apart = size * n, apart + hops
            level(
                f"axis {axis + 1}", max(0.0, mean - 1), mean * network.cable_lengths[0], None if last else node // size
            )
    switches, cable = np.array(switches), np.array(cable)
    if network is None:
        seconds = np.array([system.node.link.latency])
    else:
        seconds = system.nic.latency + switches * system.switch.latency + cable * FIBRE
        seconds[0] = system.node.link.latency
    groups = np.array(levels, np.int32) if levels else np.zeros((0, ranks), np.int32)
    return Nearness(tuple(classes), groups, switches, cable, seconds)


def _mean_hops(n: int, ring: bool) -> float:
    """Mean distance of two places, which may be the same one, on a line or ring of n."""
    if ring:
        return (n // 2) * ((n + 1) // 2) / n
    return (n * n - 1) / (3 * n)


def parts(system: System) -> Parts:
    """Switches and cables for all the system's nodes, over all planes. Raises UserError as `check` does."""
    check(system)
    network = system.network
    if network is None:
        return Parts((), ())
    planes, nodes = network.planes, system.nodes
    first = nodes * _ports_of_node(system)
    if network.topology in GRIDS:
        turns = [n if network.topology == "torus" and n > 2 else n - 1 for n in network.dims]
        total = math.prod(network.dims)
        return Parts((total * planes,), (sum(t * total // n for t, n in zip(turns, network.dims)) * planes,))
    if network.topology == "dragonfly":
        _, _, groups = _dragonfly(system)
        s = network.switches_per_group
        cables = (first, groups * s * (s - 1) // 2, groups * (groups - 1) // 2 * network.global_links)
        return Parts((groups * s * planes,), tuple(c * planes for c in cables))
    t = tree(system)
    switches = [-(-nodes // t.set_nodes) * t.set_leaves]
    cables = [first]
    for tier in range(2, t.tiers + 1):
        cables.append(switches[-1] * (t.up if tier == 2 else t.radix // 2))
        switches.append(-(-cables[-1] // (t.radix if tier == t.tiers else t.radix // 2)))
    return Parts(tuple(n * planes for n in switches), tuple(n * planes for n in cables))


def network_power(system: System) -> float:
    """Watts of all switches and NICs whose power the card gives."""
    if system.network is None:
        return 0.0
    nics = system.nodes * system.node.nics * (system.nic.power or 0.0)
    if system.network.topology in GRIDS:
        return nics
    return nics + sum(parts(system).switches) * (system.switch.power or 0.0)


def fat_tree(system: System):
    """One plane as `routing.FatTree`, whole pods, for routing flows over it. Raises UserError if it is not a tree."""
    from .routing import FatTree

    check(system)
    if system.network is None or system.network.topology not in TREES or system.network.tiers > 3:
        have = system.network.topology if system.network else "none"
        raise UserError(
            f"{system.name}: network.topology {have}; accepted: single-switch, fat-tree or rail, to 3 tiers"
        )
    t = tree(system)
    rate = port_rate(system)
    sets = -(-system.nodes // t.set_nodes)
    rates = {"port_rate": rate, "up_rate": rate, "top_rate": rate}
    if t.tiers == 1:
        return FatTree(t.leaf_ports, t.set_leaves, 1, **rates)
    if t.tiers == 2:
        leaves = sets * t.set_leaves
        spines = -(-leaves * t.up // t.radix)
        spines = next(n for n in range(spines, t.up + 1) if t.up % n == 0)  # every leaf to every spine, evenly
        return FatTree(t.leaf_ports, leaves, 1, spines, t.up // spines, **rates)
    pods = -(-system.nodes // t.pod_nodes)
    return FatTree(t.leaf_ports, t.pod_sets * t.set_leaves, pods, t.up, 1, t.radix // 2, **rates)


def tree_port(system: System, node, nic, port=0):
    """The number in `fat_tree` of a NIC's port: int64, as node, nic and port (of those on one plane) broadcast."""
    t = tree(system)
    node, nic, port = (np.asarray(x, np.int64) for x in (node, nic, port))
    each = _ports_of_nic(system)
    nodes_set, place = node // t.set_nodes, node % t.set_nodes
    if system.network.topology == "rail":
        return (nodes_set * t.set_leaves + nic) * t.leaf_ports + place * each + port
    return nodes_set * t.set_leaves * t.leaf_ports + (place * system.node.nics + nic) * each + port
