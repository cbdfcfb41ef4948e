"""Torus: rings in two dimensions, along the ranks of a node and along the rails between nodes.

The scheme of hierarchical.py with rings inside the node too, for machines whose ranks have links to neighbours only, such as Dojo's
mesh (a row is a node, a column a rail), and for racks of a ring each. For 2 nodes of 3 ranks::

    node 0      0 -> 1 -> 2 -> (0)      1. reduce-scatter along the rows
                |    |    |             2. reduce-scatter, then all-gather, along the columns
    node 1      3 -> 4 -> 5 -> (3)      3. all-gather along the rows

For R ranks a node on N nodes it takes 2 (R-1) + 2 (N-1) steps where one ring takes 2 (R N - 1), and as few bytes; out of a node go
2 (N-1)/N of the message (Ying et al. 2018, Image classification at supercomputer scale, of TPU pods; Mikami et al. 2018, Massively
distributed SGD: ImageNet/ResNet-50 training in a flash). Odd channels turn the other way in both dimensions.
"""

from __future__ import annotations

import numpy as np

from .hierarchical import Rings, all_gather_by, all_reduce_by, reduce_scatter_by
from .nodes import Nodes


def all_reduce(
    rank: int,
    ranks: int,
    count: int,
    *,
    nodes: Nodes = None,
    channels: int = 1,
    slices: int = 1,
    in_place: bool = False,
) -> np.ndarray:
    """One rank's table; the same table serves in-place and out-of-place."""
    rings = Rings(slices)
    return all_reduce_by(rank, ranks, count, nodes, rings, rings, in_place, channels)


def reduce_scatter(
    rank: int,
    ranks: int,
    count: int,
    *,
    nodes: Nodes = None,
    channels: int = 1,
    slices: int = 1,
    in_place: bool = False,
) -> np.ndarray:
    """One rank's table."""
    rings = Rings(slices)
    return reduce_scatter_by(rank, ranks, count, nodes, rings, rings, in_place, channels)


def all_gather(
    rank: int,
    ranks: int,
    count: int,
    *,
    nodes: Nodes = None,
    channels: int = 1,
    slices: int = 1,
    in_place: bool = False,
) -> np.ndarray:
    """One rank's table."""
    rings = Rings(slices)
    return all_gather_by(rank, ranks, count, nodes, rings, rings, in_place, channels)
