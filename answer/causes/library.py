"""What the communication library chose: algorithm, protocol, channels; and an MPI library's own switches."""

from __future__ import annotations

import re

from ..verdict import HEALTHY, LOW
from .case import Case, Finding

MIDDLE = 1 << 20  # bytes from which a fall of the rate is no change of protocol
NIC_100G = 12e9  # bytes a second that one NIC of 100 Gb/s gives at best (nccl-tests issue 119)


def forced(case: Case) -> Finding | None:
    """NCCL_ALGO, NCCL_PROTO or channels set in the environment decide for the library."""
    names = ("NCCL_ALGO", "NCCL_PROTO", "NCCL_MAX_NCHANNELS", "NCCL_MAX_CTAS", "NCCL_BUFFSIZE", "NCCL_NTHREADS")
    found = [f"{n}={case.environment[n][:40]}" for n in names if n in case.environment]
    if not found or not case.bad:
        return None
    return Finding(
        "settings that decide for the library",
        0.5,
        (", ".join(found) + " in the log",),
        "another curve without them",
        f"unset {' '.join(f.split('=')[0] for f in found)} and run again",
    )


def wrong_choice(case: Case) -> Finding | None:
    """Middle sizes low between healthy small and large ones: the model's choice and the library's differ there."""
    verdicts = [r.verdict for r in case.answer.rows]
    if LOW not in verdicts or not case.answer.rows or verdicts[-1] != HEALTHY:
        return None
    rows = [r for r in case.answer.rows if r.verdict == LOW]
    return Finding(
        "the library's choice of algorithm or protocol at middle sizes",
        0.5,
        (f"low from {_size(rows[0].size)} to {_size(rows[-1].size)}, healthy at the largest",),
        "another algorithm forced is faster there",
        "NCCL_DEBUG_SUBSYS=TUNING says what was chosen; try NCCL_PROTO and NCCL_ALGO at these sizes",
    )


def protocol_switch(case: Case) -> Finding | None:
    """GPU library, and the rate falls at once by a large factor at a power of two: a change of protocol or rendezvous."""
    jump = case.answer.collapse
    if jump is None or case.answer.table.tool.startswith(("OSU", "IMB")):
        return None
    row = case.answer.rows[jump.first]
    power = row.size & (row.size - 1) == 0
    few = case.nodes < 3 and not case.several_nodes
    return Finding(
        f"another protocol or algorithm from {_size(row.size)} on",
        0.55 if power and jump.factor > 3 and row.size <= 4 << 20 else 0.45 if power and not few else 0.3,
        (f"the rate falls {jump.factor:.0f} times from one size to the next",),
        "the step stays at that size however many nodes take part",
        "NCCL_PROTO=Simple (then LL128) at that size; libfabric on Slingshot: FI_CXI_RDZV_THRESHOLD, FI_CXI_RX_MATCH_MODE; "
        "NCCL_DEBUG_SUBSYS=TUNING",
    )


def mpi_algorithm(case: Case) -> Finding | None:
    """An MPI library's curve that steps or spikes: its decision table, not the network."""
    table = case.answer.table
    if not table.tool.startswith(("OSU", "IMB")) or not case.answer.jumps:
        return None
    worst = max(case.answer.jumps, key=lambda j: j.factor)
    row = case.answer.rows[worst.first]
    where = ", ".join(_size(case.answer.rows[j.first].size) for j in case.answer.jumps[:4])
    return Finding(
        "the MPI library's choice of algorithm by size",
        0.6 if worst.kind == "collapse" else 0.5,
        (f"jumps at {where}: the rate falls {worst.factor:.1f} times at {_size(row.size)}",),
        "the step moves with the library's settings, not with the network's",
        "Open MPI: --mca coll_tuned_use_dynamic_rules 1 --mca coll_tuned_allreduce_algorithm 3 (ring) and others; MPICH: "
        "MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM; more iterations tell a switch from noise",
    )


def staged_device_memory(case: Case) -> Finding | None:
    """An MPI library on GPU buffers that are copied to the host and back: 10 us and more a copy (Open MPI pull request
    12318)."""
    small = [r for r in case.answer.rows if r.size <= 64]
    if "CUDA" not in case.answer.table.tool.upper() or not small or min(r.seconds for r in small) < 30e-6:
        return None
    return Finding(
        "device memory staged through the host by the MPI library",
        0.5,
        (
            f"{min(r.seconds for r in small) * 1e6:.0f} us at {_size(small[0].size)} on GPU buffers: two copies and their waits",
        ),
        "host buffers (-d host, or H H) several times faster at small sizes",
        "ucx_info -v | grep cuda and ucx_info -d | grep gdr_copy; ompi_info --parsable --all | grep cuda_support",
    )


def noise(case: Case) -> Finding | None:
    """Single sizes that are slow and come back, or times that scatter: something else used the machine, or too few iterations."""
    spikes = [j for j in case.answer.jumps if j.kind == "spike"]
    if not spikes and not case.scatter:
        return None
    where = ", ".join(_size(case.answer.rows[j.first].size) for j in spikes[:4])
    return Finding(
        "noise: other jobs, the operating system, too few iterations",
        0.4,
        ((f"{where} slow, and the next sizes are not",) if spikes else (case.scatter,)),
        "other sizes when it is run again",
        "run it again with more iterations; an otherwise empty machine and network",
    )


def few_channels(case: Case) -> Finding | None:
    """The library uses fewer channels than a rail needs (graph search cut short, MAX_NCHANNELS, an odd topology)."""
    channels, machine = case.system.channels, case.answer.situation.platform
    if not channels or machine is None or not case.low:
        return None
    least = max(2, machine.nics) if case.several_nodes else 8
    if channels >= least:
        return None
    return Finding(
        f"{channels} channels, where {least} are usual",
        0.6,
        (f"NCCL INFO: {channels} coll channels",),
        "a rate in proportion to the channels",
        "NCCL_DEBUG_SUBSYS=GRAPH; NCCL_TOPO_FILE in a VM whose PCIe tree is not the machine's; NCCL_MIN_NCHANNELS",
    )


def plugin(case: Case) -> Finding | None:
    """EFA: the rate of aws-ofi-nccl moved with releases of plug-in and driver, most at middle sizes (its issues 33 and 65)."""
    instance = next((h for h in case.system.hints if re.match(r"EFA|efa|p[3-6]\w*[.-]", h)), "")
    machine = case.answer.situation.platform
    if not instance and machine is not None and machine.network.startswith("efa"):
        instance = machine.network
    if not instance and "libfabric" not in case.system.plugin.lower():
        return None
    told = case.system.facts.get("ofi") or case.system.facts.get("instance")
    evidence = [told or f"the network is EFA ({instance or case.system.plugin})"]
    dips = [j for j in case.answer.jumps if case.answer.rows[j.first].size >= MIDDLE]
    if dips:
        evidence.append(f"the rate falls {dips[0].factor:.1f} times at {_size(case.answer.rows[dips[0].first].size)}")
    return Finding(
        "the network plug-in's release (aws-ofi-nccl, EFA)",
        0.55 if dips else 0.45,
        tuple(evidence),
        "another rate with another release, most at middle sizes",
        "the releases of plug-in, EFA installer and NCCL in NCCL INFO against the plug-in's notes; fi_info -p efa; "
        "FI_EFA_USE_DEVICE_RDMA=1",
    )


def old_release(case: Case) -> Finding | None:
    """A table as nccl-tests printed before 2.12 (2022), far below one NIC of 100 Gb/s, over more ranks than a node has, and nothing
    else told: NCCL, plug-in and driver are as old (aws-ofi-nccl issue 33)."""
    old = any(h and h.deviation is not None for r in case.answer.table.rows[:50] for h in (r.out_of_place, r.in_place))
    ranks = case.answer.situation.ranks or 0
    told = case.system.devices or case.system.network or case.system.transports
    if not old or told or ranks <= 8 or not 0 < case.peak < NIC_100G:
        return None
    return Finding(
        "an old release of the library, its network plug-in or driver",
        0.25,
        ("the columns are those of nccl-tests before 2.12; the log tells nothing of the system",),
        "another rate with another release of one of them, on the same machines",
        "run with NCCL_DEBUG=INFO (releases; NET/IB, NET/OFI or NET/Socket) and sizes to 1 GiB; then with the newest NCCL, plug-in "
        "(on EC2: aws-ofi-nccl and the EFA installer) and driver",
    )


def _size(nbytes: int) -> str:
    from ...bench.summary import size_words

    return size_words(nbytes)


RULES = (
    forced,
    wrong_choice,
    protocol_switch,
    mpi_algorithm,
    staged_device_memory,
    noise,
    few_channels,
    plugin,
    old_release,
)
