"""What the wires allow: bounds on bus bandwidth that no library passes, and the lower ones that only some algorithms pass.

Let n nodes of m ranks (p in all) reduce S bytes; B is what all NICs of a node carry in one direction, L what the links of one GPU
do. A node has a n-th of what must be known everywhere, so (n-1)/n S must leave it, and for an all-reduce as much again::

    ring           busbw <= B                            every channel enters and leaves a node once a step
    tree, any      busbw <= B * n/(n-1) * (p-1)/p        two nodes: almost 2 B, since each sends its sum once to the other
    SHARP          busbw <= 2 B * (p-1)/p                the switches add: a node sends S once, and gets S once
    inside nodes   busbw <= L * m/(m-1) * (p-1)/p        each rank hands on what it does not keep, by whatever algorithm
    in a node      busbw <= L, with NVLink SHARP 2 L * (p-1)/(p+1)   (Klenk et al. 2020, section 3)
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..fabric.library.predict import Platform

TOLERANCE = 1.02  # of rounding in a table, and of a clock
# What the wire carries over what NCCL counts on (src/graph/topo.h): NVLink 25 GB/s a link
# over 20 to 20.6, PCIe Gen4 x16 31.5 over 24, Infinity Fabric 64 a link over 48.
WIRE = {"nvlink": 1.25, "pcie": 31.5 / 24, "xgmi": 64 / 48}
BRIDGE = 300e9  # bytes a second each way of the NVLink bridge that may join two PCIe cards (H100 PCIe datasheet: 600 GB/s both)


class Limits(NamedTuple):
    """Bytes a second of bus bandwidth. ring: of a ring; wire: of any algorithm without the switches' help; helped: with it."""

    ring: float
    wire: float
    helped: float
    bound_by: str  # "NICs" or "links"
    node_rate: float  # B: of all NICs of a node, as specified


def limits(machine: Platform, ranks: int, nodes: int, collective: str) -> Limits:
    """Bounds of `ranks` on `nodes` of the machine."""
    part = (ranks - 1) / ranks
    twice = collective == "all_reduce"
    links = machine.link_rate * WIRE.get(machine.link, 1.0)
    inside = links * (2 * (ranks - 1) / (ranks + 1) if machine.multicast and twice else 1.0)
    domains = max(1, -(-ranks // machine.domain)) if machine.hosts > 1 else nodes
    if domains <= 1 and machine.link == "pcie" and ranks == 2:
        return Limits(machine.link_rate, max(links, BRIDGE), max(links, BRIDGE), "links", math.inf)
    if domains <= 1:
        return Limits(machine.link_rate, links if not machine.multicast else inside, inside, "links", math.inf)
    node = machine.nics * machine.nic_rate
    wire = node * domains / (domains - 1) * part
    helped = 2 * node * part if twice else wire
    ring = min(node, machine.link_rate)
    inside_ranks = max(1.0, ranks / domains)  # of which each hands on what it has not to keep
    local = math.inf if inside_ranks <= 1 else links * part * inside_ranks / (inside_ranks - 1)
    local *= 2 if machine.multicast and twice else 1
    return Limits(
        ring, min(wire, local), min(max(wire, helped), local), "NICs" if node < machine.link_rate else "links", node
    )
