"""A power budget spent on one machine or on another: what each gives.

The number of GPUs is the budget over the card's all-in power of a GPU (host, network and cooling included), down to whole
NVLink domains. Everything else follows from the card at that size. Nothing here is a cost, and no card says how well a model
trains: peak arithmetic and all-reduce bandwidth are the two ends between which real training lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .cards import card, units
from .cards.card import System
from .physics import host, topology

_FLOPS = Path(__file__).parent / "data" / "flops.yaml"
LEAST, MOST = 1e2, 1e12  # watts


@dataclass(frozen=True)
class Site:
    """A system at the size that a budget allows. Rates are bytes a second a direction, over all GPUs."""

    system: System  # as sized
    watts: float  # that its GPUs draw, all in
    nic_rate: float  # as specified
    usable_rate: float  # what PCIe lets through of it
    flops: float | None  # dense BF16, 0 sparsity; None where no figure is known
    flops_source: str
    grown_from: int  # GPUs on the card

    @property
    def gpus(self) -> int:
        return self.system.gpus

    @property
    def nodes(self) -> int:
        return self.system.nodes


def parse(text: str) -> float:
    """Watts of "1GW", "150 MW". Raises UserError."""
    watts = units.parse(text, "power")
    if not LEAST <= watts <= MOST:
        raise UserError(f"{text.strip()} is out of range; accepted: 100 W to 1000 GW")
    return watts


def site(system: System, watts: float) -> Site:
    """The system with as many GPUs as `watts` feed. Raises UserError where that is not one NVLink domain."""
    domain = system.node.domain
    each = system.power.all_in_per_gpu
    gpus = int(watts / each / domain) * domain
    if gpus < domain or gpus < 2:
        need = units.format(max(domain, 2) * each, "power")
        raise UserError(
            f"{units.format(watts, 'power')} do not feed one domain of {system.name} ({domain} GPUs of {each:g} W all in); "
            f"accepted: {need} or more"
        )
    sized = _sized(system, gpus)
    nic = system.nic
    nics = 0.0 if nic is None else gpus / system.node.gpus * system.node.nics
    rate = 0.0 if nic is None else nic.rate
    usable = 0.0 if nic is None else min(rate, host.pcie_rate(nic.pcie_generation, nic.pcie_lanes, nic.pcie_efficiency))
    each_flops, source = flops(system.gpu.name)
    total = None if each_flops is None else each_flops * gpus
    return Site(sized, gpus * each, nics * rate, nics * usable, total, source, system.gpus)


def _sized(system: System, gpus: int) -> System:
    """The system with so many GPUs; where its tree of switches cannot hold them, with one tier more. Raises UserError."""
    sized = card.override(system, [f"gpus={gpus}"])
    try:
        topology.check(sized)
        return sized
    except UserError:
        if system.network is None or system.network.topology not in topology.TREES[1:]:
            raise
    lengths = [*system.network.cable_lengths, system.network.cable_lengths[-1]]
    words = [f"gpus={gpus}", f"network.tiers={system.network.tiers + 1}"]
    sized = card.override(system, [*words, f"network.cable_lengths={','.join(f'{n:g} m' for n in lengths)}"])
    topology.check(sized)
    return sized


def flops(gpu: str) -> tuple[float | None, str]:
    """(dense BF16 FLOP/s of one GPU of that name, source), or (None, "") where no figure is known."""
    import yaml

    found = yaml.safe_load(_FLOPS.read_text(encoding="utf-8")).get(gpu)
    return (float(found["value"]), found["source"]) if found else (None, "")


@dataclass(frozen=True)
class Comparison:
    """seconds, algorithms: of one all-reduce of size_bytes over all GPUs of each site."""

    budget: float
    size_bytes: int
    sites: tuple[Site, ...]
    algorithms: tuple[str, ...]
    seconds: tuple[float, ...]


def compare(
    systems: list[System], watts: float, size_bytes: int, time: Callable[[System, int, int], tuple[str, float]]
) -> Comparison:
    """Each system at the size the budget allows. time: (system, ranks, bytes) -> (algorithm, seconds)."""
    sites = tuple(site(s, watts) for s in systems)
    times = [time(s.system, s.gpus, size_bytes) for s in sites]
    return Comparison(watts, size_bytes, sites, tuple(a for a, _ in times), tuple(t for _, t in times))


def words(c: Comparison) -> list[str]:
    """What the comparison says and what it rests on."""
    a, b = c.sites[:2]
    one, other = a.system, b.system
    lines = []
    if a.flops and b.flops:
        lines.append(
            f"For the same {units.format(c.budget, 'power')}, {one.name} has {a.flops / b.flops:.2f} times the peak BF16 "
            f"arithmetic of {other.name}, {_times(a.nic_rate, b.nic_rate)} the NIC bandwidth, and {a.gpus / b.gpus:.2f} times the "
            "GPUs."
        )
    else:
        lines.append(
            f"For the same {units.format(c.budget, 'power')}, {one.name} has {_times(a.nic_rate, b.nic_rate)} the NIC bandwidth of "
            f"{other.name} and {a.gpus / b.gpus:.2f} times the GPUs; no arithmetic is compared, as a figure is missing."
        )
    faster, slower = (0, 1) if c.seconds[0] <= c.seconds[1] else (1, 0)
    ratio = c.seconds[slower] / c.seconds[faster]
    lines.append(f"An all-reduce over all GPUs is {ratio:.2f} times as fast on {c.sites[faster].system.name}.")
    standing = [
        f"{s.system.power.all_in_per_gpu:.0f} W ({s.system.figures['power.all_in_per_gpu'].status})" for s in c.sites
    ]
    lines.append(
        f"It rests on the all-in power of a GPU, {standing[0]} and {standing[1]}: planning figures, to which the number of GPUs "
        "is inversely proportional."
    )
    for s in c.sites:
        if s.gpus > s.grown_from:
            tier = ""
            if s.system.figures["network.tiers"].status == card.SET_BY_USER:
                tier = f", with a tier of switches more than there ({s.system.network.tiers} in all) to hold them"
            lines.append(
                f"{s.system.name} is modelled at {s.gpus / s.grown_from:.1f} times the GPUs of its card, on the same kind of "
                f"network{tier}."
            )
    return lines


def _times(a: float, b: float) -> str:
    return f"{a / b:.2f} times" if b else "incomparably"
