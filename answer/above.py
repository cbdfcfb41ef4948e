"""Numbers above a wire's rate that are right: which algorithm passes which limit, and by how much."""

from __future__ import annotations

from .limits import TOLERANCE
from .verdict import IMPOSSIBLE, Answer


def explained(answer: Answer) -> list[str]:
    """One sentence for each limit that the highest bus bandwidth passes; none where it passes none."""
    bounds = answer.limits
    rows = [r for r in answer.rows if r.busbw and not r.wrong]
    if bounds is None or not rows:
        return []
    best = max(rows, key=lambda r: r.busbw)
    peak, rate = best.busbw, f"{best.busbw / 1e9:.0f} GB/s"
    if best.verdict == IMPOSSIBLE:
        return [
            f"{rate} is above {bounds.helped / 1e9:.0f} GB/s, which no algorithm passes on these {bounds.bound_by}: "
            "the machine is another than taken here, or the time is not the collective's"
        ]
    if peak <= TOLERANCE * bounds.ring:
        return []
    where = f"{rate} is above the {bounds.ring / 1e9:.0f} GB/s of a ring on these {bounds.bound_by}"
    if bounds.bound_by == "links" and answer.situation.platform.link == "pcie" and answer.situation.ranks == 2:
        return [f"{rate} is above PCIe: an NVLink bridge joins the two cards"]
    if bounds.bound_by == "links" and not answer.situation.platform.multicast:
        return []
    if bounds.bound_by == "links":
        between = "" if answer.situation.nodes == 1 else "; between nodes: NVLS tree, or SHARP in the network"
        return [f"{where}, as NVLink SHARP (NVLS) allows: the switch adds, and each GPU sends once{between}"]
    nodes = answer.situation.nodes
    if nodes == 2 and peak <= TOLERANCE * bounds.wire:
        return [
            f"{where}, as a tree (or NVLS tree) allows on two nodes: each sends its sum once to the other, "
            "so busbw counts almost twice the wire; compare with other node counts at NCCL_ALGO=Ring"
        ]
    if peak <= TOLERANCE * bounds.wire:
        return [f"{where}, as trees allow on {nodes} nodes (up to {bounds.wire / 1e9:.0f} GB/s)"]
    return [f"{where}, and above any algorithm without the switches' help: SHARP in the network adds on the way"]
