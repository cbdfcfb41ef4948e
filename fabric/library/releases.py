"""NCCL by release: what each writes into its tuning model (data/nccl_releases.yaml), for one GPU generation and host.

A release is a property of a run, not of a machine: published curves span nine changes of these constants, and which
algorithm ran is that release's choice. A constant holds from the release that the file names to the next that changes it.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from ..cards.card import Hops, Protocols, Software

DATA = Path(__file__).parent / "data" / "nccl_releases.yaml"
GENERATIONS = ("volta", "ampere", "hopper", "blackwell")
PROTOCOLS = ("ll", "ll128", "simple")
PATHS = ("loc", "pix", "pxb", "p2c", "pxn", "phb", "sys")  # from a GPU to its NIC, nearest first
_US, _GB = 1e-6, 1e9


class Release(NamedTuple):
    """A release of NCCL whose constants are known. assumed: what the nearest known release stands in for, "" where it is itself."""

    name: str
    version: tuple[int, ...]
    assumed: str = ""


class Tables(NamedTuple):
    """One release's constants for one GPU generation. Seconds, bytes a second; caps on 1, 2 and more nodes, inf: none."""

    release: Release
    ring: Hops
    tree: Hops
    nvls_link: float
    nvls_tree_network: float
    collnet_link: dict[str, float]
    collnet_network: dict[str, float]
    pat_base: float  # 0: no PAT
    posting: float  # seconds to post a network operation
    ll: tuple[float, ...]
    ring_ll128: tuple[float, ...]
    tree_ll128: tuple[float, ...]
    tree_simple: tuple[float, ...]
    nvls_tree: tuple[float, ...]
    nvls_efficiency: float
    link_rate: float  # of one NVLink
    nvls_channels: int
    nvls_channels_rack: int
    ll128_path: str
    rules: dict[str, float]


@functools.lru_cache(maxsize=1)
def _file() -> dict:
    import yaml

    data = yaml.safe_load(DATA.read_text(encoding="utf-8"))
    known = tuple(Release(str(name), _version(str(name))) for name in data["releases"])
    histories = {
        key: [(_version(str(since)), value) for since, value in history.items()]
        for part in ("constants", "rules")
        for key, history in data[part].items()
    }
    return {"releases": known, "histories": histories, "rules": tuple(data["rules"])}


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split("."))


def known() -> tuple[Release, ...]:
    return _file()["releases"]


def newest() -> Release:
    return known()[-1]


@functools.lru_cache(maxsize=64)
def find(text: str) -> Release:
    """The release of words such as "nccl-2.23.4", "2.23", "NCCL 2.18.5 / aws-ofi-nccl 1.7.3". A patch that is not known is taken
    for the nearest one of its minor release.

    Raises UserError for other words, and for a minor release that is not known, with the nearest that is.
    """
    release = nearest(text)
    wanted = _stated(text)
    if release is None or wanted is None:
        raise UserError(f"--library {text[:60]!r}; accepted: nccl-VERSION, such as nccl-{newest().name}, or rccl")
    if release.version[:2] != wanted[:2]:
        raise UserError(
            f"--library {text[:60]}: no constants of that release; nearest known: nccl-{release.name}, whose constants "
            f"would have to be assumed; accepted: nccl-{known()[0].name} to nccl-{newest().name}"
        )
    return release


def nearest(text: str) -> Release | None:
    """As `find`, for words of others: the nearest known release, and what it stands in for; None where they state none."""
    version = _stated(text)
    if version is None:
        return None
    below = [r for r in known() if r.version[: len(version)] <= version]
    release = below[-1] if below else known()[0]
    if release.version[: len(version)] == version:
        return release
    return release._replace(assumed=f"NCCL {release.name} for {'.'.join(map(str, version))}")


def _stated(text: str) -> tuple[int, ...] | None:
    """The version that a text states for NCCL itself (not for nccl-tests or a plugin)."""
    found = re.match(r"\s*(?:nccl[-_ ]?)?v?(\d{1,3}\.\d{1,3}(?:\.\d{1,4})?)(?![\d.])", text, re.IGNORECASE)
    return None if found is None else _version(found[1])


def _at(key: str, release: Release, default=None):
    """The value of a constant in a release: the last that was set at or before it."""
    value = default
    for since, then in _file()["histories"].get(key, ()):
        if since <= release.version:
            value = then
    return value


@functools.lru_cache(maxsize=64)
def tables(release: Release, generation: str, vendor: str = "intel") -> Tables:
    """The constants of a release for a GPU generation and a host's processor (intel, amd, arm)."""
    row = generation
    if _at(f"ring_ll128.{generation}", release) is None:  # a GPU newer than the release gets the last row that it has
        row = "hopper"

    def protocols(key):
        return Protocols(**{p: v * _US for p, v in zip(PROTOCOLS, _at(key, release))})

    def hops(name):
        return Hops(**{k: protocols(f"{name}.{k}") for k in ("base", "nvlink", "pcie", "network")})

    def caps(key):
        values = _at(f"{key}.{row}", release) or (0, 0, 0)
        return tuple(v * _GB if v > 0 else float("inf") for v in values)

    several = _at("ll.amd" if vendor == "amd" else "ll.intel", release)
    return Tables(
        release=release,
        ring=hops("ring"),
        tree=hops("tree"),
        nvls_link=_at("nvls.link", release, 0) * _US,
        nvls_tree_network=_at("nvls_tree.network", release, 0) * _US,
        collnet_link={
            a: _at(f"{a.replace('-', '_')}.link", release) * _US for a in ("collnet-direct", "collnet-chain")
        },
        collnet_network={
            a: _at(f"{a.replace('-', '_')}.network", release) * _US for a in ("collnet-direct", "collnet-chain")
        },
        pat_base=_at("pat.base", release, 0) * _US,
        posting=2e-6 if vendor == "amd" else 1e-6,
        ll=tuple(v * _GB for v in (_at(f"ll.{row}", release), *several)),
        ring_ll128=caps("ring_ll128"),
        tree_ll128=caps("tree_ll128"),
        tree_simple=caps("tree"),
        nvls_tree=caps("nvls_tree"),
        nvls_efficiency=_at(f"nvls_efficiency.{row}", release, 0.0),
        link_rate=_at(f"link.{row}", release) * _GB,
        nvls_channels=_at(f"nvls_channels.{row}", release, 0),
        nvls_channels_rack=_at(f"nvls_channels_rack.{row}", release, 0) or _at(f"nvls_channels.{row}", release, 0),
        ll128_path=_at(f"ll128_path.{generation}", release, "none"),
        rules={key: _at(key, release) for key in _file()["rules"] if "." not in key},
    )


def with_software(base: Tables, software: Software, usual: Software) -> Tables:
    """The tables with the figures in which a card's library differs from `usual`, the part that a card of its GPUs takes."""
    ours, theirs = _figures(software), _figures(usual)
    return base._replace(**{name: value for name, value in ours.items() if value != theirs[name]})


def _figures(software: Software) -> dict:
    """What a card states of its library, by the names of Tables."""

    def limits(values):
        return tuple(v if v > 0 else float("inf") for v in values)

    caps = software.caps
    return {
        "ring": software.ring,
        "tree": software.tree,
        "nvls_link": software.nvls_link,
        "nvls_tree_network": software.nvls_tree_network,
        "posting": software.network_overhead,
        "ll": caps.ll,
        "ring_ll128": limits(caps.ring_ll128),
        "tree_ll128": limits(caps.tree_ll128),
        "tree_simple": limits(caps.tree_simple),
        "nvls_tree": limits(caps.nvls_tree),
        "nvls_efficiency": software.nvls_efficiency,
    }
