"""Inside a node: NVLink, peer access, power, and which rank sits where."""

from __future__ import annotations

from itertools import pairwise

from ..verdict import LOW
from .case import Case, Finding

PCIE_RATES = (12e9, 24e9, 48e9, 96e9)  # bytes a second that NCCL counts for x16 of generations 3 to 6


def peer_access_off(case: Case) -> Finding | None:
    """NCCL_P2P_DISABLE or SHM off: GPUs of a node talk through host memory, or through the network's stack."""
    off = [n for n in ("NCCL_P2P_DISABLE", "NCCL_SHM_DISABLE") if case.environment.get(n) == "1"]
    level = case.environment.get("NCCL_P2P_LEVEL", "").upper()
    if level in ("LOC", "0"):
        off.append("NCCL_P2P_LEVEL")
    if not off:
        return None
    return Finding(
        "peer access between the GPUs of a node is switched off",
        0.88,
        (f"{' and '.join(off)} set in the log",),
        "SHM/direct or NET instead of P2P in NCCL INFO",
        f"unset {' '.join(off)}; P2P/CUMEM or P2P/IPC must appear in NCCL INFO",
    )


def nvlink_down(case: Case) -> Finding | None:
    """One node at the rate of PCIe, or at k of n of its NVLinks' rate."""
    machine = case.answer.situation.platform
    if machine is None or case.several_nodes or machine.link != "nvlink" or not case.low or not case.peak:
        return None
    pcie = next((r for r in PCIE_RATES if 0.75 * r <= case.peak <= 1.1 * r), None)
    through_host = any(t.startswith(("SHM", "NET")) for t in case.system.transports)
    evidence = [f"{case.peak / 1e9:.1f} GB/s at most, {100 * case.share:.0f} % of the model"]
    if pcie:
        evidence.append(
            f"that is the rate of PCIe x16 ({pcie / 1e9:.0f} GB/s), not of NVLink ({machine.link_rate / 1e9:.0f} GB/s)"
        )
    if through_host:
        evidence.append("channels go by SHM or NET inside the node")
    return Finding(
        "NVLink down or not used",
        0.75 if pcie or through_host else 0.5,
        tuple(evidence),
        "inactive links; Fabric Manager not running; P2P/direct over PHB or SYS",
        "nvidia-smi nvlink -s; nvidia-smi topo -m shows NV#; systemctl status nvidia-fabricmanager; Xid 74 in dmesg",
    )


def pcie_through_root(case: Case) -> Finding | None:
    """GPUs without NVLink at half of PCIe: the IOMMU, or peer traffic over the root complex (NCCL issues 841, 1530)."""
    machine = case.answer.situation.platform
    if machine is None or case.several_nodes or machine.link != "pcie" or not case.low:
        return None
    told = case.system.facts.get("gpu_path", "")
    return Finding(
        "peer traffic over the root complex, or the IOMMU in its way",
        0.7 if told else 0.6,
        (f"{100 * case.share:.0f} % of what PCIe switches give", *([told] if told else [])),
        "SYS or NODE between GPUs in nvidia-smi topo -m",
        "iommu off in the BIOS; NCCL_BUFFSIZE=1048576; p2pBandwidthLatencyTest of the CUDA samples",
    )


def power_cap(case: Case) -> Finding | None:
    """A node's large sizes sag below a peak at smaller ones: clocks fall under load."""
    rows = [r for r in case.large if r.busbw]
    if case.several_nodes or len(rows) < 4:
        return None
    peak = max(range(len(rows)), key=lambda i: rows[i].busbw)
    tail = rows[-1]
    if tail.busbw > 0.88 * rows[peak].busbw or tail.verdict != LOW or peak == len(rows) - 1:
        return None
    return Finding(
        "GPUs under a power or thermal limit",
        0.45,
        (f"{rows[peak].busbw / 1e9:.0f} GB/s sag to {tail.busbw / 1e9:.0f} GB/s at the largest size",),
        "clocks below their maximum while it runs",
        "nvidia-smi -q -d PERFORMANCE,POWER,CLOCK during the run; nvidia-smi -pl",
    )


def placement(case: Case) -> Finding | None:
    """Ranks that are neighbours sit on different nodes: rings and trees leave the node at every step."""
    devices = sorted({(d.rank, d.host) for d in case.system.devices})
    if len(devices) < 4 or len({h for _, h in devices}) < 2:
        return None
    crossings = sum(a[1] != b[1] for a, b in pairwise(devices))
    hosts = len({h for _, h in devices})
    if crossings < 2 * hosts:
        return None
    return Finding(
        "ranks placed round robin over the nodes",
        0.2,  # NCCL builds its rings by node, whatever the order of ranks
        (f"neighbouring ranks sit on different hosts {crossings} times; filled hosts would give {hosts - 1}",),
        "NCCL reorders ranks inside a node, but frameworks that group neighbours then cross the network",
        "mpirun --map-by slot (Open MPI), srun --distribution=block",
    )


RULES = (peer_access_off, nvlink_down, pcie_through_root, power_cap, placement)
