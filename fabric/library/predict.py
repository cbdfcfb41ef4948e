"""What a communication library's collective takes on a described machine: a time, a band around it, and why.

``expect`` is the one question: a system (or the figures of one), ranks, a size and what the run asks of its library
(``Run``: collective, release, forced algorithm and protocol). Two parts answer it, kept apart since a measured time is
that of what the release chose, rightly or wrongly:

``nccl.py``   the chooser: NCCL's tuning model by release, which names algorithm, protocol and channels
``clock.py``  the clock: how long that takes
``band.py``   how far measured times of systems left out were from it

All are closed forms in the message size; a prediction takes a fraction of a millisecond. GPUs that NCCL does not know get
the faster of ring and tree by the clock, with the card's own constants for its library.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

from ...errors import UserError
from ..cards import card
from ..cards.card import Software, System
from ..cards.curves import Curve
from ..physics import host, topology
from . import band, calibration, clock, nccl, ofi_tuner, releases

ALGORITHMS = ("ring", "tree", "nvls", "nvls-tree", "sharp", "auto")
MODELS = ("fabric", "nccl")

# What NCCL's maintainers tell users to expect of a NIC: 48 GB/s of 400 Gb/s, 24 of 200, 12 of 100 (nccl-tests issues
# 119, 290, 309); it is also the speed that NCCL's search tries for each.
NIC_FRACTION = 0.96
NETWORKS = {"infiniband": "infiniband", "rocev2": "roce", "slingshot": "slingshot", "ttpoe": "roce"}  # by nic.framing


class Platform(NamedTuple):
    """The figures of a machine that the models need. Rates are bytes a second a direction, times seconds."""

    name: str
    generation: str
    domain: int  # ranks that the links join
    link: str  # "nvlink", "pcie", ...
    link_rate: float  # of one GPU, as a collective gets it
    software: Software | None  # the card's constants of its library; None: the newest release's
    multicast: bool = False  # the links' switches reduce (NVLink SHARP)
    nics: int = 0  # of one domain
    nic_rate: float = 0.0  # of one NIC, as its ports are specified
    host_rate: float = math.inf  # what PCIe lets through to one NIC
    sharp: bool = False  # the network's switches reduce
    network_latency: float = 0.0  # what the network's plugin reports to the library, beyond InfiniBand or RoCE
    reach: tuple[tuple[float, float], ...] = ()  # (domains, seconds): what a hop costs more between that many domains
    hosts: int = 1  # that a domain spans
    path: str = "pxb"  # from a GPU to its NIC, as in releases.PATHS
    cpu: str = "intel"  # the host's processor: intel, amd, arm
    network: str = "infiniband"  # a class of clock.yaml
    curves: tuple[Curve, ...] = ()  # measured on it

    @property
    def usable(self) -> float:
        """Bytes a second that the library gets out of one NIC at best."""
        return min(self.nic_rate * NIC_FRACTION, self.host_rate)


class Run(NamedTuple):
    """What a run asks of its library.

    collective: as nccl-tests names it; library: "nccl-2.23.4", None for what the system's card says (the newest NCCL);
    algorithm: one of ALGORITHMS or nccl.ALGORITHMS, protocol: one of releases.PROTOCOLS or None, where they are forced;
    without: algorithms that are switched off; without_protocols: protocols that are; harness: what timed it, one of
    clock.HARNESSES.
    """

    collective: str = "all_reduce"
    library: str | None = None
    algorithm: str = "auto"
    protocol: str | None = None
    without: tuple[str, ...] = ()
    without_protocols: tuple[str, ...] = ()
    harness: str = "nccl-tests"


PLAIN = Run()


class Prediction(NamedTuple):
    seconds: float
    algorithm: str  # as in nccl.ALGORITHMS
    protocol: str
    channels: int = 0  # 0 where the model does not say


@functools.lru_cache(maxsize=64)
def platform(system: System) -> Platform:
    """The figures of a system card."""
    nic, node = system.nic, system.node
    hosts = node.domain // node.gpus
    return Platform(
        name=system.name,
        generation=system.gpu.architecture,
        domain=node.domain,
        link=node.link.kind,
        link_rate=node.link.rate,
        software=system.software,
        multicast=node.link.sharp,
        nics=0 if nic is None else max(1, node.nics * hosts),
        nic_rate=0.0 if nic is None else nic.rate,
        host_rate=math.inf if nic is None else host.pcie_rate(nic.pcie_generation, nic.pcie_lanes, nic.pcie_efficiency),
        sharp=bool(system.network and system.network.sharp),
        network_latency=0.0 if nic is None else nic.plugin_latency or 0.0,
        reach=reach(system),
        hosts=hosts,
        path="pxb" if nic is None else nic.gpu_path or "pxb",
        cpu=node.cpu or "intel",
        network="infiniband" if nic is None else nic.transport or NETWORKS[nic.framing],
        curves=system.curves,
    )


def reach(system: System) -> tuple[tuple[float, float], ...]:
    """(domains, seconds) for each class of nearness: what its switches beyond the first and its cables add to a hop.

    The library's own figure for a hop of the network holds one switch (as in build.py).
    """
    if system.nic is None:
        return ()
    near = topology.nearness(system)
    steps = []
    for k in range(1, len(near.classes)):
        inside = math.inf
        if k < len(near.groups):
            inside = max(1.0, int((near.groups[k] == near.groups[k, 0]).sum()) / system.node.domain)
        beyond = max(0.0, near.switches[k] - 1) * system.switch.latency + near.cable[k] * topology.FIBRE
        steps.append((inside, float(beyond)))
    return tuple(steps)


def laid_out(machine: Platform, ranks: int, nodes: int | None) -> Platform:
    """The machine with the GPUs of a host that `ranks` over `nodes` hosts use, and those GPUs' NICs; None: hosts are filled.

    Raises UserError for hosts that cannot hold them.
    """
    if nodes is None:
        return machine
    host_gpus = machine.domain // machine.hosts
    if nodes < 1 or ranks % nodes or ranks // nodes > host_gpus:
        raise UserError(
            f"{ranks} ranks on {nodes} nodes of {machine.name}; accepted: 1 to {host_gpus} on each, as many on all"
        )
    each = ranks // nodes
    if each == host_gpus:
        return machine
    nics = max(1, round(machine.nics * each / host_gpus)) if machine.nics else 0
    return machine._replace(domain=each * machine.hosts, nics=nics)


def shape(machine: Platform, ranks: int) -> tuple[int, int]:
    """Nodes (domains) and ranks of each that a job of `ranks` uses. Raises UserError for ranks that cannot be."""
    if ranks < 2:
        raise UserError(f"{ranks} ranks; accepted: 2 or more")
    nodes = -(-ranks // machine.domain)
    if nodes > 1 and (machine.nics < 1 or machine.nic_rate <= 0):
        raise UserError(f"{machine.name}: {ranks} ranks need a network; accepted: at most {machine.domain}")
    return nodes, max(1, ranks // nodes)


def tables(machine: Platform, library: str | None = None) -> releases.Tables:
    """The library's constants on the machine: of the release asked for, else the card's, else the newest release's."""
    if library is not None:
        return releases.tables(releases.find(library), machine.generation, machine.cpu)
    newest = releases.tables(releases.newest(), machine.generation, machine.cpu)
    part = f"nccl-{machine.generation}"
    if machine.software is None or part not in card.parts():
        return newest
    return releases.with_software(newest, machine.software, card.software(part))


def communicator(machine: Platform, ranks: int, library: str | None = None) -> nccl.Communicator:
    """The ranks as NCCL's model sees them. Raises UserError for GPUs or a release that it does not know."""
    nodes, local = shape(machine, ranks)
    chosen = tables(machine, library)
    newest = releases.tables(
        releases.newest(), machine.generation, machine.cpu
    )  # by whose links cards give their rates
    return nccl.communicator(
        machine.generation,
        ranks,
        nodes,
        tables=chosen,
        link=machine.link,
        link_rate=machine.link_rate * (chosen.link_rate / newest.link_rate if machine.link == "nvlink" else 1.0),
        nics=min(machine.nics, local),
        nic_rate=min(machine.nic_rate, machine.host_rate) * max(1.0, machine.nics / local),
        nvls=machine.multicast,
        sharp=machine.sharp,
        x86=machine.cpu != "arm",
        network_latency=machine.network_latency,
        path=machine.path,
        rack=machine.hosts > 1 and local > machine.domain // machine.hosts,
    )


def job(machine: Platform, ranks: int, comm: nccl.Communicator | None, collective: str = "all_reduce") -> clock.Job:
    """The ranks as the clock sees them."""
    nodes, local = shape(machine, ranks)
    last = ranks - (nodes - 1) * machine.domain  # ranks of the last node: as many NICs as it has part of the GPUs
    nics = max(1.0, machine.nics * min(1.0, last / machine.domain)) if nodes > 1 else 0
    if comm is None:
        figures = clock.figures_of(machine.software)
    else:
        figures = clock.figures(machine.generation, machine.network)
    return clock.Job(
        generation=machine.generation,
        ranks=ranks,
        nodes=nodes,
        local=local,
        link=machine.link_rate * _meshed(machine, local),
        network=nics * machine.usable if nodes > 1 else math.inf,
        nics=nics,
        figures=figures,
        comm=comm,
        reach=machine.reach,
        collective=collective,
    )


class Expected(NamedTuple):
    """An answer. seconds: modelled; choice: what the library runs; band: seconds that hold 50 % and 90 % of measurements.

    known: a system of the run's class was measured, or this one was (`kind`, one of band.KINDS, says which); why: the reasons, in
    words; candidates: every pair that the library considers, with the time that it believes, the one it runs first (empty
    where no model of its choice is known).
    """

    size_bytes: int
    seconds: float
    choice: Prediction
    band: band.Band
    kind: str
    why: tuple[str, ...]
    candidates: tuple[nccl.Choice, ...]

    @property
    def known(self) -> bool:
        return self.kind in ("known", "calibrated")


def expect(
    system: System | Platform, ranks: int, size_bytes: int, run: Run = PLAIN, nodes: int | None = None
) -> Expected:
    """What a collective of `size_bytes` over `ranks` of the system takes, and how sure that is.

    nodes: hosts that the ranks are spread over evenly; None: hosts are filled. Raises UserError for what cannot be run.
    """
    machine = laid_out(system if isinstance(system, Platform) else platform(system), ranks, nodes)
    _check(run, "fabric", size_bytes)
    plan = _plan(machine, ranks, run)
    found, candidates = _choose(plan, size_bytes)
    bent = _bend(plan, found, size_bytes)
    seconds = _clock(plan, found, size_bytes) * (bent.ratio if bent else 1.0)
    kind, why = _kind(plan, found, size_bytes, bent)
    choice = found._replace(seconds=seconds)
    reasons = (*_reasons(plan, choice, candidates), *why)
    return Expected(size_bytes, seconds, choice, band.band(seconds, size_bytes, kind), kind, reasons, tuple(candidates))


def _meshed(machine: Platform, local: int) -> float:
    """The part of a GPU's links that lead to the GPUs of its domain that take part: of a mesh of links, those to them."""
    return (local - 1) / (machine.domain - 1) if machine.link == "xgmi" and 1 < local < machine.domain else 1.0


def predict(
    system: System | Platform, ranks: int, size_bytes: int, algorithm: str = "auto", model: str = "fabric"
) -> float:
    """Seconds of an all-reduce of `size_bytes` over `ranks` of the system. Raises UserError for what cannot be run."""
    return explain(system, ranks, size_bytes, Run(algorithm=algorithm), model).seconds


def explain(
    system: System | Platform, ranks: int, size_bytes: int, run: Run = PLAIN, model: str = "fabric"
) -> Prediction:
    """The time by the clock (or as NCCL itself predicts it: `model` nccl), and the algorithm and protocol that were taken.

    `sharp` means the network's switches (collnet-direct where NVLink SHARP is there too, else collnet-chain), `nvls` on
    several nodes is nvls-tree and `nvls-tree` on one node is nvls, as the library has it.
    """
    machine = system if isinstance(system, Platform) else platform(system)
    _check(run, model, size_bytes)
    plan = _plan(machine, ranks, run)
    if model == "nccl" and plan.comm is None:
        raise UserError(
            f"NCCL's model knows no {machine.generation!r} GPU; accepted: {', '.join(releases.GENERATIONS)}"
        )
    found, _ = _choose(plan, size_bytes)
    if model == "nccl":
        return found
    bent = _bend(plan, found, size_bytes)
    return found._replace(seconds=_clock(plan, found, size_bytes) * (bent.ratio if bent else 1.0))


class _Plan(NamedTuple):
    """A run on a machine, with what does not depend on the size. comm: None for GPUs that NCCL does not know."""

    machine: Platform
    ranks: int
    nodes: int
    run: Run
    comm: nccl.Communicator | None
    job: clock.Job
    algorithms: tuple[str, ...]
    protocols: tuple[str, ...]


@functools.lru_cache(maxsize=256)
def _plan(machine: Platform, ranks: int, run: Run) -> _Plan:
    nodes, _ = shape(machine, ranks)
    given = run
    if nodes > 1:
        run = clock.as_set_up(run, machine.network)
    algorithms = _names(machine, nodes, run.algorithm, run.without)
    protocols = tuple(p for p in releases.PROTOCOLS if p not in run.without_protocols)
    if run.protocol:
        protocols = (run.protocol,)
    comm = communicator(machine, ranks, run.library) if machine.generation in releases.GENERATIONS else None
    if comm is None and not set(algorithms) & {"ring", "tree"}:
        raise UserError(f"{machine.name} runs no {run.algorithm}; accepted: ring, tree, auto")
    work = job(machine, ranks, comm, run.collective)
    return _Plan(machine, ranks, nodes, given, comm, work, algorithms, protocols)


def _choose(plan: _Plan, size: int) -> tuple[Prediction, list[nccl.Choice]]:
    """The pair that runs, with the library's own prediction, and all that it considers."""
    if plan.comm is not None:
        args = (plan.comm, size, plan.algorithms, plan.protocols, plan.run.collective)
        pairs = nccl.candidates(*args)
        first = pairs[0] if pairs else nccl.choose(*args)  # which says why there is none
        tuner = _tuner(plan)
        if tuner is not None:
            named = ofi_tuner.choose(tuner, plan.comm, size, pairs)
            pairs.sort(key=lambda c: c[:2] != named[:2])  # what runs comes first
            first = pairs[0]
        used = nccl.channels(plan.comm, first.algorithm, first.protocol, size)
        return Prediction(first.seconds, first.algorithm, first.protocol, used), pairs
    pairs = [(a, p) for a in plan.algorithms if a in ("ring", "tree") for p in plan.protocols]
    return min((Prediction(clock.seconds(plan.job, size, a, p), a, p) for a, p in pairs), key=lambda x: x.seconds), []


def _tuner(plan: _Plan) -> ofi_tuner.Instance | None:
    """The tuner that chooses instead of NCCL: aws-ofi-nccl's, for an all-reduce beyond two nodes that forces nothing."""
    run, machine = plan.run, plan.machine
    if plan.nodes <= 2 or run.collective != "all_reduce" or run.algorithm != "auto" or run.protocol:
        return None
    return ofi_tuner.instance(machine.generation, machine.network, machine.network_latency)


def _clock(plan: _Plan, found: Prediction, size: int) -> float:
    seconds = clock.seconds(plan.job, size, found.algorithm, found.protocol)
    machine = plan.machine
    return clock.timed(seconds, plan.run.harness, min(plan.ranks, machine.domain // machine.hosts), machine.cpu)


def _bend(plan: _Plan, found: Prediction, size: int) -> calibration.Bent | None:
    """What curves measured on the machine say of the clock."""
    if not plan.machine.curves:
        return None
    bare = plan.machine._replace(curves=())
    names = dict.fromkeys((plan.run.algorithm, found.algorithm, "auto"))
    return calibration.bend(
        plan.machine.curves, plan.ranks, size, plan.run.collective, tuple(names), (found.algorithm, found.protocol),
        lambda c: _curve_points(bare, c),
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def _curve_points(machine: Platform, curve: Curve) -> tuple[calibration.Point, ...]:
    """The curve beside the model of its own run, on the machine without curves."""
    layout = laid_out(machine, curve.ranks, curve.nodes or None)
    run = Run(curve.collective, curve.library or None, curve.algorithm, harness=curve.harness)
    found = [explain(layout, curve.ranks, s, run) for s in curve.sizes]
    return tuple(
        calibration.Point(math.log(s), math.log(t / f.seconds), (f.algorithm, f.protocol))
        for s, t, f in zip(curve.sizes, curve.seconds, found)
    )


def curve_ratios(machine: Platform, curve: Curve) -> list[float]:
    """Measured over modelled at each size of the curve, the model without any curve."""
    return [math.exp(p.log) for p in _curve_points(machine._replace(curves=()), curve)]


def _kind(plan: _Plan, found: Prediction, size: int, bent: calibration.Bent | None) -> tuple[str, tuple[str, ...]]:
    """One of band.KINDS, and why."""
    machine = plan.machine
    if bent is not None:
        what = f"measured at {bent.curve.ranks} ranks ({bent.curve.source})"
        return (
            ("calibrated", (what,)) if bent.exact else ("scaled", (f"{what}: its ratio to the model is carried over",))
        )
    if clock.asks_first(plan.job, size, found.algorithm, found.protocol):
        return "rendezvous", (
            "LL messages beyond the eager size: the provider's settings move them by a factor of three",
        )
    rack = machine.hosts > 1 and plan.comm is not None and plan.comm.rack
    if plan.comm is not None and band.class_of(machine.generation, plan.nodes, machine.network, rack) in band.seen():
        return "known", ()
    what = machine.generation + (f" over {machine.network}" if plan.nodes > 1 else "") + (" (rack)" if rack else "")
    return "unseen", (f"no system of the class {what} was fitted: the nearest class's constants are estimated",)


def _reasons(plan: _Plan, choice: Prediction, candidates: list[nccl.Choice]) -> list[str]:
    if plan.comm is None:
        return ["the faster of ring and tree: no model of this library's choice"]
    said = []
    tables = plan.comm.tables
    if _tuner(plan) is not None:
        said.append(
            f"aws-ofi-nccl's tuner names {choice.algorithm} {choice.protocol.upper()} (by its model: its tables of regions are "
            "not known here)"
        )
    elif len(candidates) > 1:
        first, second = candidates[:2]
        margin = second.seconds / first.seconds - 1
        said.append(
            f"NCCL {tables.release.name} believes {first.algorithm} {first.protocol.upper()} to take {first.seconds * 1e6:.1f} us, "
            f"and {second.algorithm} {second.protocol.upper()} {margin:.0%} longer"
            + (": nearly a tie, another topology may tip it" if margin < 0.1 else "")
        )
    elif candidates:
        said.append("the only pair that may run")
    if tables.release.assumed:
        said.append(f"assumed: {tables.release.assumed}")
    reason = nccl.ll128(plan.comm)
    if reason and plan.run.protocol is None:
        said.append(f"no LL128: {reason}")
    return said


def _check(run: Run, model: str, size_bytes: int) -> None:
    if run.algorithm not in ALGORITHMS and run.algorithm not in nccl.ALGORITHMS:
        raise UserError(f"algorithm {run.algorithm!r}; accepted: {', '.join(ALGORITHMS)}")
    if run.protocol is not None and run.protocol not in releases.PROTOCOLS:
        raise UserError(f"protocol {run.protocol!r}; accepted: {', '.join(releases.PROTOCOLS)}")
    if run.collective not in nccl.COLLECTIVES:
        raise UserError(f"NCCL's model has no {run.collective!r}; accepted: {', '.join(nccl.COLLECTIVES)}")
    if model not in MODELS:
        raise UserError(f"model {model!r}; accepted: {', '.join(MODELS)}")
    if size_bytes < 1:
        raise UserError(f"{size_bytes} bytes; accepted: 1 or more")


def _names(machine: Platform, nodes: int, algorithm: str, without: tuple[str, ...]) -> tuple[str, ...]:
    if algorithm == "auto":  # CollNet is off unless the user switches it on
        return tuple(a for a in nccl.ALGORITHMS if not a.startswith("collnet") and a not in without)
    if algorithm in ("nvls", "nvls-tree"):
        return ("nvls",) if nodes == 1 else ("nvls-tree",)
    if algorithm == "sharp":
        if nodes == 1:
            return ("nvls",)
        return ("collnet-direct",) if machine.multicast else ("collnet-chain",)
    return (algorithm,)
