"""A schedule on a described fat tree where messages meet: which links each passes, and the replay over them.

The other levels take a class's rate, with what routing costs on average. Here every message has its way through the tree's
switches, chosen by the card's routing, and waits for those before it (time/contention.py). tests/fabric/time holds this against
packets: a ring of 256 shuffled ranks within 10 %, permutations and incast within 15 %. Queues are as long as they need to be: no
back-pressure.
"""

from __future__ import annotations

import numpy as np

from ..collectives.schedule import Schedule
from ..errors import UserError
from .cards.card import System
from .physics import topology
from .physics.network import PS, Network
from .physics.routing import FatTree
from .time.contention import fat_tree
from .time.generated import Generated
from .time.replay import Replay, replay

MOST_RANKS = 1024
NIC_PORT = 1  # of a rank, as build.py numbers them


def check(system: System, ranks: int) -> None:
    """Raises UserError for what has no shared links to model, or too many ranks to replay over them."""
    if ranks > MOST_RANKS:
        raise UserError(f"--contention: {ranks} ranks; accepted: at most {MOST_RANKS}")
    if system.network is None:
        raise UserError(f"--contention: {system.name} has no network; accepted: a system with one")
    topology.fat_tree(system)
    if system.node.nics > system.node.gpus or system.node.gpus % system.node.nics:
        raise UserError(
            f"--contention: {system.node.nics} NICs for {system.node.gpus} GPUs of a host; accepted: one a GPU, or one for several"
        )


def contended(
    system: System, net: Network, schedule: Schedule | Generated, itemsize: int, *, routing: str | None, seed: int
) -> Replay:
    """Replay over the tree's links. net: the ranks with a share of a NIC each, and nothing of routing in its rates.

    Raises UserError as `check`.
    """
    check(system, net.ranks)
    nic = net.port == NIC_PORT
    if not nic.any():
        return replay(schedule, net, itemsize)
    fastest = float(net.byte_ps[nic].min())
    net = net._replace(byte_ps=np.where(nic, fastest, net.byte_ps))
    links = fat_tree(
        _tree(system, fastest),
        schedule,
        net,
        ends=_ends(system, net.ranks),
        routing=routing or system.network.routing,
        seed=seed,
        port=NIC_PORT,
    )
    return replay(schedule, net, itemsize, links=links)


def _tree(system: System, fastest: float) -> FatTree:
    """The tree of all planes as one, its links as much slower than their line rate as the NIC's goodput is."""
    tree = topology.fat_tree(system)
    scale = PS / fastest / tree.port_rate
    return tree._replace(port_rate=tree.port_rate * scale, up_rate=tree.up_rate * scale, top_rate=tree.top_rate * scale)


def _ends(system: System, ranks: int) -> np.ndarray:
    """int64 [ranks]: the port of each rank's NIC."""
    gpus, nics = system.node.gpus, system.node.nics
    rank = np.arange(ranks)
    return topology.tree_port(system, rank // gpus, rank % gpus * nics // gpus)
