"""aws-ofi-nccl's tuner: on EC2 it, and not NCCL, names the algorithm and the protocol of an all-reduce beyond two nodes.

Its model (aws/aws-ofi-nccl, src/tuner/nccl_ofi_model.cpp, August 2026) is Hockney's over NCCL's hop latencies and the network's;
what it names is run whatever NCCL believes. Its tables of regions, which it prefers where it has them, are not restated here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from . import nccl

_GIB = 1024**3  # its bandwidths are GiB/s
_NVLINK = {  # microseconds a hop inside a node
    ("tree", "ll"): 0.6, ("tree", "ll128"): 1.25, ("tree", "simple"): 28.0,
    ("ring", "ll"): 0.6, ("ring", "ll128"): 1.9, ("ring", "simple"): 3.4,
    ("nvls-tree", "simple"): 23.0,
}  # fmt: skip
_COMPLETION = 3.0  # microseconds more for a step of Simple (OFI_NCCL_TUNER_NET_COMP_OVERHEAD)
_CHANNELS = 8  # OFI_NCCL_TUNER_NUM_CHANNELS
_LEFT = {"ll": 0.5, "ll128": 0.9375, "simple": 1.0}  # of the bandwidth


class Instance(NamedTuple):
    """network: microseconds; rails, rate: NICs of a GPU and GiB/s of each; link: GiB/s."""

    network: float
    rate: float
    rails: int
    link: float = 20.0


P5, P5EN = Instance(20.0, 12.5, 4), Instance(18.0, 25.0, 2)


def instance(generation: str, network: str, plugin_latency: float) -> Instance | None:
    """The instance type that the tuner has a model for, None for others."""
    if network != "efa" or generation != "hopper":
        return None
    return P5 if plugin_latency > 50e-6 else P5EN


def cost(kind: Instance, ranks: int, nodes: int, algorithm: str, protocol: str, size: int) -> float:
    """Seconds as the tuner predicts them; inf for a pair that it has no model of."""
    if (algorithm, protocol) not in _NVLINK:
        return math.inf
    hop, net = _NVLINK[algorithm, protocol], kind.network + (_COMPLETION if protocol == "simple" else 0.0)
    rails = kind.rate * kind.rails
    if algorithm == "ring":
        between = 2 * nodes
        wait, rate = between * net + (2 * (ranks - 1) - between) * hop, rails
    elif algorithm == "nvls-tree":
        wait, rate = 2 * (hop + math.log2(nodes) * net), min(kind.link, rails / 2)
    else:
        wait, rate = 2 * (ranks // nodes - 1) * hop + 2 * math.log2(nodes) * net, rails / 2
    return wait * 1e-6 + size / (rate * _CHANNELS * _LEFT[protocol] * _GIB)


def choose(kind: Instance, comm: nccl.Communicator, size: int, pairs: list[nccl.Choice]) -> nccl.Choice:
    """The pair of `pairs` that the tuner names for an all-reduce of `size`, with its prediction."""
    told = [c._replace(seconds=cost(kind, comm.ranks, comm.nodes, c.algorithm, c.protocol, size)) for c in pairs]
    return min(told, key=lambda c: c.seconds)
