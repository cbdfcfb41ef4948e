"""Between nodes: which transport, which NICs, over which path."""

from __future__ import annotations

import re

from .case import Case, Finding

TCP_PEAK = 6e9  # bytes a second that sockets give at best with NCCL's defaults on fast Ethernet; 1 to 3e9 is usual


def _near(value: float | None, target: float, tolerance: float = 0.12) -> bool:
    return value is not None and abs(value / target - 1) <= tolerance


def _ethernet(case: Case) -> bool:
    """Whether the NICs are Ethernet's: NCCL says so, a GID index was set, or the user."""
    machine = case.answer.situation.platform
    named = any("RoCE" in n for n in case.system.nics) or "NCCL_IB_GID_INDEX" in case.environment
    return named or (machine is not None and machine.network == "roce")


def sockets(case: Case) -> Finding | None:
    """NET/Socket: libibverbs missing in the container, no plug-in, or NCCL_NET=Socket (NCCL issue 1812)."""
    network = case.system.network.lower()
    by_channels = any(t.startswith("NET/Socket") for t in case.system.transports)
    forced = case.environment.get("NCCL_NET", "").lower() == "socket" or case.environment.get("NCCL_IB_DISABLE") == "1"
    if case.answer.situation.nodes == 1 and not by_channels:
        return None  # the library names a network that one node does not use
    evidence = []
    if network == "socket" or by_channels:
        evidence.append("the library says NET/Socket")
    if forced:
        evidence.append("NCCL_NET=Socket or NCCL_IB_DISABLE=1 is set")
    provider = case.system.facts.get("ofi_provider", "")
    if provider and "efa" not in provider.lower() and re.search(r"tcp|sockets|udp", provider.lower()):
        evidence.append(f"the network plug-in goes over TCP: {provider[:100]}")
    if evidence and not case.system.plugin and any(re.match(r"p[3-6]\w*[.-]|EFA", h) for h in case.system.hints):
        evidence.append("an EC2 instance with EFA, and no line of its plug-in (aws-ofi-nccl)")
    missing = case.said("libibverbs", "no device found", "no plugin found")
    if missing and evidence:
        evidence.append(f"the log says: {missing[:120]}")
    weight = 0.92 if evidence else 0.0
    slow = case.low or (case.share is None and case.large)
    if not evidence and case.several_nodes and slow and 0 < case.peak < TCP_PEAK / 2 and not case.system.transports:
        evidence.append(f"{case.peak / 1e9:.1f} GB/s at most: what TCP through the kernel gives")
        weight = 0.6 if case.low else 0.45
    if not evidence:
        return None
    return Finding(
        "TCP sockets instead of RDMA",
        weight,
        tuple(evidence),
        "NET/Socket in NCCL INFO; a few GB/s whatever the NIC's rate; CPU load; milliseconds at 1 MiB",
        "NCCL_DEBUG=INFO shows NET/IB or NET/Socket; unset NCCL_NET and NCCL_IB_DISABLE; ibv_devices inside the container; "
        "install libibverbs and the provider's plug-in there; on EC2: aws-ofi-nccl on LD_LIBRARY_PATH, FI_PROVIDER=efa, "
        "fi_info -p efa",
    )


def no_gpudirect(case: Case) -> Finding | None:
    """Data goes through host memory: GPUDirect RDMA or TCPX off (nccl-tests issue 29, NCCL 489; A3: 20 of 67 GB/s)."""
    label = case.answer.table.label.lower()
    named = re.search(
        r"(non|no|without|w/o|off|disabled?)[\s_-]*(gpu ?direct|gdr)|(gpu ?direct|gdr)[\w\s-]*(off|disabled)", label
    )
    off = case.system.gdr is False
    level = (
        case.environment.get("NCCL_NET_GDR_LEVEL", "").upper() in ("0", "LOC")
        or case.environment.get("NCCL_NET_GDR_READ") == "0"
        or case.environment.get("FI_EFA_USE_DEVICE_RDMA") == "0"
    )
    evidence = []
    if off:
        evidence.append(case.system.facts.get("gdr_off") or "no channel over the network says GDRDMA")
    if level:
        evidence.append("NCCL_NET_GDR_LEVEL, NCCL_NET_GDR_READ or FI_EFA_USE_DEVICE_RDMA switches it off")
    if named:
        evidence.append(f"the table is called {case.answer.table.label[:60]!r}")
    if evidence:
        weight = 0.9
    elif case.several_nodes and case.system.gdr is None and case.share is not None and 0.2 <= case.share <= 0.62:
        evidence.append(f"{100 * case.share:.0f} % of the model over all large sizes, as through host memory")
        weight = 0.42
    else:
        return None
    return Finding(
        "no GPUDirect: the network's data goes through host memory",
        weight,
        tuple(evidence),
        "NET/IB/0 without /GDRDMA in NCCL INFO; about half or a third of the rate; busy memory controllers",
        "lsmod | grep -E 'nvidia_peermem|gdrdrv' and modprobe nvidia_peermem (or DMA-BUF: Linux 5.12 with the open "
        "driver); NCCL_DEBUG=INFO NCCL_DEBUG_SUBSYS=NET; on A3: the TCPX or TCPXO plug-in",
    )


def acs_or_iommu(case: Case) -> Finding | None:
    """About half the rate although GPUDirect is on, in a VM or with the IOMMU: requests go up to the root complex (NCCL issues 949,
    841; nccl-tests issues 112, 156)."""
    text = case.said("ACS", "IOMMU", "virtual")
    label = "acs" in case.answer.table.label.lower()
    half = case.share is not None and 0.35 <= case.share <= 0.6
    if not (text or label or (half and case.system.gdr is not False)):
        return None
    evidence, weight = [], 0.0
    if half:
        evidence.append(f"{100 * case.share:.0f} % of the model over all large sizes")
        weight = 0.5 if case.system.gdr else 0.4
    if text:
        evidence.append(f"the log says: {text[:120]}")
        weight = max(weight, 0.6)
    if label:
        evidence.append(f"the table is called {case.answer.table.label[:60]!r}")
        weight = max(weight, 0.5)
    return Finding(
        "PCIe ACS or the IOMMU sends peer traffic through the root complex",
        weight,
        tuple(evidence),
        "half the rate with GDRDMA in use; in a VM: address translation (ATS) off",
        "lspci -vvv | grep ACSCtl shows SrcValid+ on switches: setpci them off (bare metal), or enable ATS on NIC and GPU (VM); "
        "iommu=pt or off; sudo dmesg | grep -i iommu",
    )


def one_hca_of_several(case: Case) -> Finding | None:
    """NCCL_IB_HCA names fewer NICs than the node has, or NCCL found fewer (nccl-tests issue 112: 9.8 of 24 GB/s)."""
    machine = case.answer.situation.platform
    named = case.environment.get("NCCL_IB_HCA", "").lstrip("=^")
    names = [n for n in named.split(",") if n]
    excluded = case.environment.get("NCCL_IB_HCA", "").startswith("^")
    if machine is None or machine.nics < 2 or not case.several_nodes:
        return None
    whole_prefix = len(names) == 1 and not re.search(r"\d", names[0])
    if names and not excluded and not whole_prefix and len(names) < machine.nics:
        k, n = len(names), machine.nics
        supposed = any("NICs a node" in a for a in case.answer.situation.assumed)
        return Finding(
            f"{k} of {n} NICs used" + (", if the node has as many as its reference design" if supposed else ""),
            0.85 if not supposed else 0.6 if _near(case.share, k / n, 0.2) else 0.45,
            (f"NCCL_IB_HCA={case.environment['NCCL_IB_HCA'][:80]}",),
            f"about {len(names)}/{machine.nics} of the rate",
            "unset NCCL_IB_HCA, or name all of them: NCCL_IB_HCA=mlx5",
        )
    return None


def rails_missing(case: Case) -> Finding | None:
    """The rate is k of n NICs': some are down, or not seen by the library."""
    machine = case.answer.situation.platform
    if machine is None or machine.nics < 2 or not case.several_nodes or case.share is None or case.share > 0.95:
        return None
    n = machine.nics
    k = round(case.share * n)
    if not 1 <= k < n or not _near(case.share, k / n, 0.06):
        return None
    seen = case.nics
    fewer = bool(seen) and len(seen) < n
    evidence = [f"{100 * case.share:.0f} % of the model is {k} of {n} NICs"]
    if fewer:
        evidence.append(f"NCCL INFO names {len(seen)}: {', '.join(seen[:8])}")
    told_apart = case.tight < 1 / k  # a wider band holds k and k + 1 rails
    weight = 0.8 if fewer and len(seen) == k else 0.5 if k >= n - 2 and n >= 4 and told_apart else 0.3
    return Finding(
        f"{n - k} of {n} rails missing" if k > 1 else f"one of {n} NICs in use",
        weight,
        tuple(evidence),
        "a NIC that is missing in NET/IB : Using ..., or whose port is down; all-reduce over that rail's GPUs alone slow",
        "ibstat | grep -E 'State|Rate' on every node; NCCL_DEBUG=INFO | grep 'NET/IB : Using'; mlxlink -d DEVICE",
    )


def behind_the_root_complex(case: Case) -> Finding | None:
    """NIC and GPU meet at the CPU: two thirds of a NIC (NCCL issue 412: 16 of 24 GB/s), or path PHB or SYS in the log."""
    text = next((t for t in case.system.topology if re.search(r"NIC|NET", t) and re.search(r"\b(PHB|SYS)\b", t)), "")
    text = text or case.system.facts.get("nic_path", "")
    two_thirds = case.share is not None and 0.6 <= case.share <= 0.75
    if not case.several_nodes or not (text or two_thirds):
        return None
    evidence = ([f"{100 * case.share:.0f} % of the model"] if two_thirds else []) + (
        [f"the log says: {text[:100]}"] if text else []
    )
    return Finding(
        "a NIC on the CPU's root port, not on its GPU's PCIe switch",
        0.7 if text and two_thirds else 0.5 if text else 0.35,
        tuple(evidence),
        "PHB or SYS between GPU and NIC in nvidia-smi topo -m",
        "nvidia-smi topo -m; move the card, or NCCL_NET_GDR_LEVEL=PHB (SYS) and NCCL_CROSS_NIC as measured",
    )


def pcie_downgraded(case: Case) -> Finding | None:
    """A link at half its generation or width: half the rate of the rails (all of them wait for it); or NCCL's topology says so, as
    PCI[12.0] (Gen3 x16) of an A100 (nccl-tests issue 62)."""
    machine = case.answer.situation.platform
    links = [(t, float(m[1]) * 1e9) for t in case.system.topology if (m := re.search(r"PCI\[([\d.]{1,6})\] - GPU/", t))]
    if machine is not None and links and (worst := min(links, key=lambda x: x[1]))[1] < 0.6 * machine.host_rate:
        return Finding(
            "a PCIe link below its generation or width",
            0.8,
            (f"the log says: {worst[0].strip()[:100]}, where {machine.host_rate / 1e9:.0f} is usual",),
            "LnkSta below LnkCap on a GPU, a NIC or the switch between",
            "lspci -vv | grep -E 'LnkCap|LnkSta' for GPUs, NICs and switches; nvidia-smi -q -d PCIE; the BIOS; in a VM the "
            "topology that it shows (NCCL_TOPO_FILE)",
        )
    if case.share is None or not case.several_nodes:
        return None
    for fraction, what in ((0.5, "half"), (0.25, "a quarter")):
        if _near(case.share, fraction, 0.1):
            return Finding(
                "a PCIe link below its generation or width",
                0.38 if fraction == 0.5 else 0.3,
                (f"{100 * case.share:.0f} % of the model: {what} of a link, for which all others wait",),
                "LnkSta below LnkCap on a GPU, a NIC or the switch between",
                "lspci -vv | grep -E 'LnkCap|LnkSta' for GPUs and NICs; nvidia-smi -q -d PCIE; reseat, or the BIOS",
            )
    return None


def inter_rack_path(case: Case) -> Finding | None:
    """Fine within a rack, and ten times slower beyond (NCCL issues 319, 1453, 1531): flows that collide (ECMP) or an uplink that is
    congested, as a curve that collapses at large sizes on three nodes and more."""
    first = case.collapsed
    ranks = case.answer.situation.ranks or 0
    if (
        first is None
        or not case.several_nodes
        or case.answer.table.tool.startswith(("OSU", "IMB"))
        or first.size < 1 << 20
    ):
        return None
    drop = case.answer.collapse.factor if case.answer.collapse else 1.0
    three = case.nodes >= 3
    return Finding(
        "congestion on the path between racks (ECMP collisions, a slow uplink)",
        0.65 if three else 0.4,
        (f"the rate falls {drop:.1f} times at {first.size >> 20} MiB and does not come back",
         f"{case.nodes} nodes, {ranks} ranks"),
        "two nodes of one rack are fine; the same two in different racks are not; retransmissions, CNPs, PFC pauses on uplinks",
        "busbw pairs over the nodes; the same job within one rack; NCCL_IB_QPS_PER_CONNECTION=4, NCCL_IB_SPLIT_DATA_ON_QPS=1, "
        "NCCL_IB_ADAPTIVE_ROUTING=1; ethtool -S | grep -E 'pause|discard|cnp'",
    )  # fmt: skip


def queue_pair_spread(case: Case) -> Finding | None:
    """A queue pair uses one port of a bond, one path of a fabric (nccl-tests issues 191, 265; +70 % with more queue pairs)."""
    bonded = any("bond" in n for n in case.nics) or "bond" in case.environment.get("NCCL_IB_HCA", "")
    ethernet = _ethernet(case) or bonded
    half = case.share is not None and 0.4 <= case.share <= 0.7
    if not case.several_nodes or not ethernet or not (half or (bonded and case.share is None)):
        return None
    evidence = [f"{100 * case.share:.0f} % of the model over all large sizes"] if half else []
    evidence.append("the NIC is a bond" if bonded else "RoCE")
    return Finding(
        "one queue pair a connection uses one port or one path",
        0.45 if not half else 0.7 if bonded else 0.5,
        tuple(evidence),
        "one of two ports idle; the rate doubles with more queue pairs",
        "NCCL_IB_QPS_PER_CONNECTION=4 NCCL_IB_SPLIT_DATA_ON_QPS=1; ethtool -S of both ports",
    )


def congested_or_unstable(case: Case) -> Finding | None:
    """Low on RoCE with no step at any size, more so with times that scatter: ECE, PFC or ECN not as the switches are set (NCCL
    issue 1403)."""
    if not case.several_nodes or not case.low or not _ethernet(case):
        return None
    return Finding(
        "flow control of RoCE (PFC, ECN, ECE) not as the switches have it",
        0.55 if case.scatter else 0.33,
        (f"{100 * case.share:.0f} % of the model, over RoCE", *([case.scatter] if case.scatter else [])),
        "rates that vary from run to run; out-of-sequence and retransmission counters that grow",
        "NCCL_IB_TC and NCCL_IB_GID_INDEX as the network's owner says; NCCL_IB_ECE_ENABLE=0; rdma statistic show",
    )


def slow_node(case: Case) -> Finding | None:
    """Everything else fits and the whole is low: a ring goes at the pace of its slowest node (nccl-tests issue 106)."""
    if not case.several_nodes or case.nodes < 3 or not case.low:
        return None
    return Finding(
        "one slow node (or link, or GPU) that all others wait for",
        0.34,
        (f"{100 * case.share:.0f} % of the model over {case.nodes} nodes; one is enough",),
        "pairs with that node slow, all others fine",
        "busbw pairs over the nodes, or halves of them (busbw pairs --bisect)",
    )


RULES = (
    sockets, no_gpudirect, acs_or_iommu, one_hca_of_several, rails_missing, behind_the_root_complex, pcie_downgraded,
    inter_rack_path, queue_pair_spread, congested_or_unstable, slow_node,
)  # fmt: skip
