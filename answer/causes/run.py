"""The run itself: was it one job, on more than one rank, timed by a GPU's clock, with right results?"""

from __future__ import annotations

from ..situation import OWN_TOOL
from ..verdict import BAD, WRONG
from .case import Case, Finding


def separate_runs(case: Case) -> Finding | None:
    """Two "rank 0" on the list of devices: N jobs of one rank (nccl-tests issues 71, 107, 213, 249, 294, 306)."""
    n = case.answer.table.runs
    if n < 2:
        return None
    return Finding(
        f"{n} separate runs of one rank, not one of {n}",
        0.98,
        (f"rank 0 stands {n} times in the list of devices ({', '.join(case.system.hosts[:4])})",),
        "a table a process, busbw 0 in each",
        "build nccl-tests with make MPI=1 MPI_HOME=..., and start it with that MPI's own mpirun",
    )


def one_rank(case: Case) -> Finding | None:
    """One rank: busbw is 0 by definition, or times are those of nothing (nccl-tests issues 249, 294)."""
    if case.answer.situation.ranks != 1 or case.answer.table.runs > 1:
        return None
    return Finding(
        "one rank alone: bus bandwidth is 0 by definition",
        0.95,
        (f"1 rank: {case.answer.table.ranks_from or 'the log'}",),
        "an average bus bandwidth of 0",
        "start more ranks: -g 8, or mpirun -np N of a build with MPI=1",
    )


def host_clock(case: Case) -> Finding | None:
    """nccl-tests -C: the column is CPU time, which ends when the host has enqueued."""
    if not case.answer.table.host_time:
        return None
    return Finding(
        "the times are those of the CPU, not of the collective",
        0.95,
        ("the header says cputime (nccl-tests -C)",),
        "times that do not grow with the size, bandwidth above any link",
        "run without -C 1",
    )


def wrong_data(case: Case) -> Finding | None:
    """#wrong above 0: memory, a link that corrupts, a faulty peer-to-peer path (IOMMU, ACS), GPUDirect, a release (NCCL issues
    1199, 2001; nccl-tests issues 8, 37)."""
    wrong = case.answer.table.wrong
    if case.answer.verdict != WRONG:
        return None
    first = next((r for r in case.answer.rows if r.wrong), None)
    where = (f"{wrong:g} wrong elements" if wrong else "results deviate") + (
        f", first at line {first.line}" if first else ""
    )
    machine = case.answer.situation.platform
    path = (
        "GPUDirect RDMA, a link, or the library's release"
        if case.several_nodes
        else "peer access over PCIe (IOMMU, ACS), or memory"
        if machine is not None and machine.link == "pcie"
        else "a link, memory, peer access, or the library's release"
    )
    return Finding(
        f"data arrives wrong: {path}",
        0.9,
        (where,),
        "Xid errors in dmesg, ECC counters that grow, wrong only over one link or GPU",
        "halve the ranks until it is right (busbw pairs --bisect); NCCL_P2P_DISABLE=1 and NCCL_NET_GDR_LEVEL=LOC tell whether peer "
        "access or GPUDirect does it (then iommu=pt or off); another NCCL release; nvidia-smi -q -d ECC; dcgmi diag -r 3",
    )


def kernel_or_fabric_errors(case: Case) -> Finding | None:
    """Errors of the driver or the library between the rows: a queue pair that could not be made, time-outs, retries."""
    text = case.said(
        "create_qp",
        "Create QP",
        "create qp",
        "ibv_create_qp",
        "transport retry",
        "wc.status",
        "Xid",
        "Timeout",
        "QP type",
    )
    if not text:
        return None
    return Finding(
        "errors of the network's driver during the run",
        0.85,
        (f"the log says: {text[:160]}",),
        "spikes at some sizes, a fall-back transport (UD instead of RC)",
        "dmesg and ibv_devinfo -v on that host; the limits of queue pairs and locked memory (ulimit -l); fewer ranks a node",
    )


def slow_launcher(case: Case) -> Finding | None:
    """Small sizes are late by a constant and large ones well: the host enqueues too slowly (one process, Python, a busy CPU)."""
    small, large = case.small_share, case.share
    if small is None or small > 0.6 or (large is not None and large < 0.8):
        return None
    one = case.answer.situation.run.harness != "nccl-tests"
    return Finding(
        "the CPU starts collectives too slowly",
        0.55 if one else 0.4,
        (f"latency is {1 / small:.1f} times the model's" + (", bandwidth is as modelled" if large else ""),
         *(("one process drives all GPUs (-g)",) if one else ())),
        "times of small sizes that vary with the CPU's clock and pinning",
        "one process a GPU; the performance governor; numactl or --bind-to core; compare nccl-tests -G 1 (CUDA graphs)",
    )  # fmt: skip


def warned(case: Case) -> Finding | None:
    """busbw's own sweep: what it warned of when it measured, such as other load, shared cores, slowed clocks."""
    told = [n.text for n in case.answer.table.notes if n.kind == "warning"]
    if not told or case.answer.table.tool != OWN_TOOL or case.answer.verdict not in BAD:
        return None
    return Finding(
        "what the sweep itself warned of",
        0.6,
        tuple(told[:3]),
        "another figure when it is measured again without",
        "do what the warning says, and measure again; busbw doctor",
    )


RULES = (separate_runs, one_rank, host_clock, wrong_data, kernel_or_fabric_errors, slow_launcher, warned)
