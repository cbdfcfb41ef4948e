r"""In-network reduction: switches add, so a rank sends its S bytes up once and gets the result down once.

**NVLink SHARP in one domain of p GPUs** (NCCL's NVLS). Each rank owns S/p of the message. The switch reads that part
from all ranks and hands the owner the sum (multimem.ld_reduce); the owner stores it once and the switch copies it to
all (multimem.st)::

    out of a GPU   S      its parts, read by the owners' switches      in   S/p   the sum of the own part
                   S/p    the own part of the result                        S     all parts of the result

So both directions carry S (p+1)/p bytes, t = S (p+1) / (p B), and the busbw that is reported for it, 2(p-1)/p S / t =
2(p-1)/(p+1) B, may pass the link's rate B: 1.56 B for 8 GPUs.

**Trees of switches** (SHARP on Quantum, up to v4). One host port sends S up and takes S down, both at once in a
pipeline of packets; each of T tiers adds packet by packet. t = S/B + 2 (T switches and cables) + the fill of the
pipeline. busbw is 2(p-1)/p B.

**Both** (domains of g GPUs joined by NICs of B' each). In the domain rank j gets the sum of part j, sends it (S/g
bytes) through its own NIC and tree, and stores the result: the three run in a pipeline, so the slowest counts: S/(g B')
or S(g+1)/(gB).

Sources: the traffic is that of PTX multimem instructions; NCCL's busbw factor (p-1)/(p+1) for in-switch reductions;
Graham et al. 2016, Scalable Hierarchical Aggregation Protocol. With NCCL's own efficiencies (0.85 of 370.8 GB/s on
Hopper, 0.74 of 721.8 GB/s on Blackwell) the domain formula gives 490 and 831 GB/s for 8 GPUs; ~480 and 830+ are what
users see (nccl-tests issue 212, nccl issue 1807).
"""

from __future__ import annotations

from typing import NamedTuple

from ...errors import UserError


class Tree(NamedTuple):
    """The way up a tree of switches: `tiers` of them, each with its latency and the cable below it, in seconds."""

    tiers: int
    switch_latency: float
    cable_latency: float
    packet: int = 0  # bytes on the wire that a switch collects before it adds and passes on


def domain_bytes(ranks: int, size: float) -> float:
    """Bytes each GPU's links carry, a direction, in NVLink SHARP over `ranks`: S (p+1) / p."""
    return size * (ranks + 1) / ranks


def domain_seconds(ranks: int, size: float, rate: float, *, efficiency: float = 1.0, latency: float = 0.0) -> float:
    """All-reduce of `size` bytes by NVLink SHARP over `ranks` GPUs of one domain.

    rate: a GPU's links, bytes a second a direction; efficiency: the part of it that in-switch operations reach. Raises UserError
    for fewer than two ranks.
    """
    if ranks < 2:
        raise UserError(f"in-network reduction over {ranks} ranks; accepted: 2 or more")
    return latency + domain_bytes(ranks, size) / (rate * efficiency)


def tree_latency(tree: Tree, rate: float) -> float:
    """Seconds that a tree adds to the time on one wire.

    A packet crosses T cables and T switches on its way up, where the last one turns it round, and T - 1 switches and T
    cables down. Every switch takes in the whole packet before it passes it on.
    """
    hops = 2 * tree.tiers - 1
    return hops * (tree.switch_latency + tree.packet / rate) + 2 * tree.tiers * tree.cable_latency


def tree_seconds(size: float, rate: float, tree: Tree, *, latency: float = 0.0) -> float:
    """All-reduce of `size` bytes by switches that add; `rate`: a host port's, bytes a second; `latency`: software's, in all."""
    return latency + tree_latency(tree, rate) + size / rate


def hierarchical_seconds(
    domain: int,
    domains: int,
    size: float,
    rate: float,
    nic_rate: float,
    tree: Tree,
    *,
    efficiency: float = 1.0,
    latency: float = 0.0,
) -> float:
    """NVLink SHARP in `domains` domains of `domain` GPUs and switch trees between them, in a pipeline.

    nic_rate: bytes a second of the one NIC that each GPU's part goes through.
    """
    if domains == 1:
        return domain_seconds(domain, size, rate, efficiency=efficiency, latency=latency)
    inside = domain_bytes(domain, size) / (rate * efficiency) if domain > 1 else 0.0
    return latency + tree_latency(tree, nic_rate) + max(inside, size / domain / nic_rate)


def domain_busbw_factor(ranks: int) -> float:
    """busbw over link rate at large sizes: 2(p-1)/(p+1). Above 1 from p = 4 on."""
    return 2 * (ranks - 1) / (ranks + 1)
