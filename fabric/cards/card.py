"""System cards: what is known of a machine, figure by figure, each with its source.

A card is a YAML file (docs/systems.md has every key). A leaf is ``{value: 400 Gb/s, status: known, source: ...}`` or
``{value: ..., status: estimated, source: ..., how: ...}``; a section may begin with ``part: NAME``, which takes what
it does not say itself from ``systems/parts/NAME.yaml``. The dataclasses below are the schema: a field's metadata give
its kind (units.py), its range and what it means. Values are SI: bytes, bytes a second, seconds, watts, metres.

Cards come from anywhere, so nothing in one is trusted: 256 KiB at most, no anchors, aliases, tags or deep nesting, no
key twice, no figure without a unit, a source and a place in its range.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple, get_type_hints

from ...errors import UserError
from . import curves, units
from .curves import Curve
from .yamltree import Branch, read

STATUSES = ("known", "estimated")
SET_BY_USER = "set by the user"
THIS_MACHINE = "this-machine"
MAX_TEXT = 2000

_HERE = Path(__file__).parent / "systems"
_PARTS = _HERE / "parts"


class Figure(NamedTuple):
    """One leaf of a card: its SI value and where that comes from. `how` says how an estimate was made."""

    value: object
    status: str  # "known", "estimated" or "set by the user"
    source: str
    how: str = ""


def _figure(kind: str, doc: str, low=None, high=None, **more):
    """A field of the schema. choices: the words accepted; optional: None where a card does not say; many: a tuple."""
    metadata = {"kind": kind, "doc": doc, "low": low, "high": high, **more}
    return field(metadata=metadata, **({"default": None} if more.get("optional") else {}))


def _rate(doc, low=1e6, high=1e13, **more):
    return _figure("rate", doc, low, high, **more)


def _cap(doc):
    return _rate(doc, 0.0, many=True, length=3)


def _time(doc):
    return _figure("time", doc, 0.0, 0.1)


def _count(doc, low, high, **more):
    return _figure("count", doc, low, high, **more)


@dataclass(frozen=True, kw_only=True)
class Gpu:
    name: str = _figure("text", "the device that is one rank")
    architecture: str = _figure(
        "choice",
        "which of the library's tables holds",
        choices=("volta", "ampere", "hopper", "blackwell", "cdna2", "cdna3", "cdna4", "xe-hpc", "dojo", "cpu", "other"),
    )
    memory: float = _figure("bytes", "memory of one rank", 1e6, 1e14)
    memory_bandwidth: float = _rate("bytes a second that its memory reads and writes in all", high=1e15)
    power: float = _figure("power", "power of the device (TDP)", 1.0, 1e5)


@dataclass(frozen=True, kw_only=True)
class Link:
    name: str = _figure("text", "the links between the GPUs of a domain")
    kind: str = _figure("choice", "what they are", choices=("nvlink", "pcie", "xgmi", "xelink", "mesh", "memory"))
    nominal_rate: float = _rate("bytes a second a direction a GPU, as specified")
    rate: float = _rate("bytes a second a direction a GPU that a collective gets")
    latency: float = _time("one way, one small store from GPU to GPU")
    sharp: bool = _figure("flag", "whether the switches between the GPUs reduce (NVLink SHARP)")


@dataclass(frozen=True, kw_only=True)
class Node:
    gpus: int = _count("ranks of one host", 1, 1024)
    nics: int = _count("NICs of one host; 0 on a machine without a network", 0, 256)
    domain: int = _count("ranks that node.link joins: those of a host, or of a rack (NVL72)", 1, 4096)
    cpu: str | None = _figure(
        "choice", "the host's processor, which the library's constants depend on", choices=("intel", "amd", "arm"),
        optional=True,
    )  # fmt: skip
    link: Link


@dataclass(frozen=True, kw_only=True)
class Nic:
    name: str = _figure("text", "the NIC")
    rate: float = _rate("bytes a second a direction of one NIC, all its ports together, before framing", bits=True)
    ports: int = _count("ports that carry the rate together", 1, 16)
    pcie_generation: int | None = _count("PCIe generation from GPU to NIC; left out: no PCIe", 1, 7, optional=True)
    pcie_lanes: int | None = _count("PCIe lanes between GPU and NIC", 1, 64, optional=True)
    pcie_efficiency: float | None = _figure(
        "fraction", "what transaction headers leave of PCIe's line rate", 0.1, 1.0, optional=True
    )
    framing: str = _figure("choice", "how packets are framed", choices=("rocev2", "infiniband", "slingshot", "ttpoe"))
    transport: str | None = _figure(
        "choice", "what carries the library's messages, where framing does not say", optional=True,
        choices=("infiniband", "roce", "slingshot", "slingshot-phb", "efa-v1", "efa", "tcpxo", "tcp"),
    )  # fmt: skip
    gpu_path: str | None = _figure(
        "choice", "path from a GPU to its NIC, as the library names it", optional=True,
        choices=("pix", "pxb", "p2c", "pxn", "phb", "sys"),
    )  # fmt: skip
    plugin_latency: float | None = _figure(
        "time", "latency that the network's plugin reports to the library", 0.0, 0.1, optional=True
    )
    mtu: int = _figure("bytes", "payload of a full packet", 64, 65536)
    message_overhead: float = _time("time that a message occupies the processor which posts it (LogGP's o)")
    message_rate: float = _figure("messages", "messages a second of one NIC", 1e3, 1e12)
    latency: float = _time("one way, memory to memory of two NICs joined by a short cable: no switch")
    power: float | None = _figure("power", "power of the NIC", 0.1, 1e4, optional=True)
    planes: int = field(default=1, metadata={"copy_of": "network.planes"})


@dataclass(frozen=True, kw_only=True)
class Switch:
    name: str = _figure("text", "the switch")
    radix: int = _count("ports at port_rate", 2, 4096)
    port_rate: float = _rate("bytes a second a direction of a port; a port splits into several slower ones", bits=True)
    max_ports: int | None = _count("most ports after splitting", 2, 65536, optional=True)
    latency: float = _time("port to port, an unloaded switch")
    power: float | None = _figure("power", "power of the switch", 1.0, 1e5, optional=True)


@dataclass(frozen=True, kw_only=True)
class Network:
    topology: str = _figure(
        "choice", "its shape", choices=("single-switch", "fat-tree", "rail", "dragonfly", "torus", "mesh")
    )
    tiers: int = _count("tiers of switches, and so kinds of cable (dragonfly: 3, torus and mesh: 1)", 1, 4)
    planes: int = _count("separate networks over which a NIC's ports are spread", 1, 16)
    oversubscription: float = _figure("ratio", "down-link to up-link capacity of a leaf switch", 1.0, 64.0)
    routing: str = _figure("choice", "how a path is chosen", choices=("ecmp", "adaptive", "static"))
    cable_lengths: tuple[float, ...] = _figure(
        "length",
        "typical cable of each tier, from the NIC up (dragonfly: to a NIC, in a group, between groups)",
        0.0,
        1e5,
        many=True,
    )
    sharp: bool = _figure("flag", "whether its switches reduce (SHARP)")
    throughput_fraction: float | None = _figure(
        "fraction", "what the vendor says it carries of the line rate", 0.01, 1.0, optional=True
    )
    leaves_per_pod: int | None = _count("leaf switches of a pod, where it is not the most", 1, 65536, optional=True)
    endpoints_per_switch: int | None = _count("dragonfly: NIC ports of a switch", 1, 4096, optional=True)
    switches_per_group: int | None = _count("dragonfly: switches of a group", 1, 4096, optional=True)
    global_links: int | None = _count("dragonfly: cables between two groups", 1, 65536, optional=True)
    dims: tuple[int, ...] | None = _figure(
        "count", "torus, mesh: nodes along each axis", 1, 10**6, many=True, optional=True
    )


@dataclass(frozen=True, kw_only=True)
class Protocols:
    """One figure for each of NCCL's protocols."""

    ll: float = _time("protocol LL")
    ll128: float = _time("protocol LL128")
    simple: float = _time("protocol Simple")


@dataclass(frozen=True, kw_only=True)
class Hops:
    """Latencies of one algorithm of the communication library."""

    base: Protocols
    nvlink: Protocols
    pcie: Protocols
    network: Protocols

    def link(self, kind: str) -> Protocols:
        """The hop inside a node over a link of `kind` (Link.kind): PCIe, or something as direct as NVLink."""
        return self.pcie if kind == "pcie" else self.nvlink


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Most bytes a second that the library expects on 1, on 2 and on 4 or more nodes; 0: not used there."""

    ll: tuple[float, ...] = _cap("protocol LL, all channels")
    ring_ll128: tuple[float, ...] = _cap("ring, LL128, a channel")
    tree_ll128: tuple[float, ...] = _cap("tree, LL128, a channel")
    tree_simple: tuple[float, ...] = _cap("tree, Simple, a channel")
    nvls_tree: tuple[float, ...] = _cap("NVLink SHARP in a tree of domains, a channel")


@dataclass(frozen=True, kw_only=True)
class Software:
    """The communication library: what its own tuning model (NCCL, src/graph/tuning.cc) says of latency."""

    name: str = _figure("text", "the library and its version")
    ring: Hops
    tree: Hops
    caps: Caps
    nvls_link: float = _time("NVLink SHARP: a hop inside a domain")
    nvls_network: float = _time("NVLink SHARP: a hop of the network")
    nvls_tree_network: float = _time("NVLink SHARP in a tree of domains: a hop of the network")
    nvls_efficiency: float = _figure("fraction", "NVLink SHARP: part of the link's rate", 0.0, 1.0)
    collnet_network: float = _time("in-network reduction: a hop of the network")
    network_overhead: float = _time("posting one network operation, from the host's processor")


@dataclass(frozen=True, kw_only=True)
class Power:
    all_in_per_gpu: float = _figure("power", "the site's power for each rank: host, network, cooling", 1.0, 1e5)
    gpu: float = field(default=0.0, metadata={"copy_of": "gpu.power"})


@dataclass(frozen=True, kw_only=True)
class System:
    """A machine. nic, switch and network are None on a machine of one node without a network."""

    name: str
    title: str
    gpus: int  # ranks in all
    gpu: Gpu
    node: Node
    nic: Nic | None
    switch: Switch | None
    network: Network | None
    software: Software
    power: Power
    figures: dict[str, Figure] = field(hash=False)  # by dotted key: "nic.rate"
    notes: tuple[str, ...] = ()
    curves: tuple[Curve, ...] = ()  # of a calibrated card

    @property
    def nodes(self) -> int:
        """Hosts; the last may be part empty."""
        return -(-self.gpus // self.node.gpus)


_SECTIONS = {
    "gpu": Gpu,
    "node": Node,
    "nic": Nic,
    "switch": Switch,
    "network": Network,
    "software": Software,
    "power": Power,
}
_NETWORK_SECTIONS = ("nic", "switch", "network")
_GPUS = {"kind": "count", "doc": "ranks in all", "low": 1, "high": 100_000_000}


def _fields_of(cls, prefix: str) -> Iterator[tuple[str, dict]]:
    hints = get_type_hints(cls)
    for f in fields(cls):
        if "kind" in f.metadata:
            yield prefix + f.name, dict(f.metadata)
        elif "copy_of" not in f.metadata:
            yield from _fields_of(hints[f.name], f"{prefix}{f.name}.")


def schema() -> dict[str, dict]:
    """Every key of a card in order, as {"nic.rate": {"kind", "doc", "low", "high", ...}}."""
    table = {"gpus": _GPUS}
    for name, cls in _SECTIONS.items():
        table.update(_fields_of(cls, f"{name}."))
    return table


def _copies() -> dict[str, str]:
    """Keys that repeat another, and that other: a user may set either."""
    return {
        f"{name}.{f.name}": f.metadata["copy_of"]
        for name, cls in _SECTIONS.items()
        for f in fields(cls)
        if "copy_of" in f.metadata
    }


# From a tree, or from the user's words, to values by dotted key.


def _nearest(word: str, words: Iterable[str]) -> str:
    words = list(words)
    near = difflib.get_close_matches(word[:100], words, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"accepted: {', '.join(words)}"


def _value(text: object, rule: dict):
    """The value of one leaf. `text` is a word or a list of words. Raises UserError without a place."""
    if rule.get("many"):
        items = text if isinstance(text, list) else str(text).split(",")
        low, high = (rule["length"],) * 2 if "length" in rule else (1, 16)
        if not low <= len(items) <= high:
            raise UserError(f"{len(items)} figures; accepted: {low if low == high else f'{low} to {high}'}")
        return tuple(_value(item, {**rule, "many": False}) for item in items)
    if isinstance(text, list):
        raise UserError("a list; accepted: one value")
    kind = rule["kind"]
    if kind == "text":
        if not text.strip() or len(text) > MAX_TEXT:
            raise UserError(f"{text[:60]!r}; accepted: 1 to {MAX_TEXT} characters")
        return text.strip()
    if kind == "choice":
        if text not in rule["choices"]:
            raise UserError(f"{text[:60]!r}; accepted: {', '.join(rule['choices'])}")
        return text
    if kind == "flag":
        if text not in ("true", "false"):
            raise UserError(f"{text[:60]!r}; accepted: true, false")
        return text == "true"
    value = units.parse(text, kind)
    if not rule["low"] <= value <= rule["high"]:
        low, high = (units.format(rule[end], kind) for end in ("low", "high"))
        raise UserError(f"{text.strip()} is out of range; accepted: {low} to {high}")
    return int(value) if rule["kind"] == "bytes" and rule["high"] <= 65536 else value


def _leaf(node: Branch, key: str, rule: dict) -> Figure:
    place = f"{node.where}: {key}"
    if not isinstance(node.value, dict):
        raise UserError(f"{place}: no source; accepted: {{value: ..., status: known, source: ...}}")
    for name, part in node.value.items():
        if name not in ("value", "status", "source", "how"):
            raise UserError(f"{part.where}: {key}: unknown key {name[:60]!r}; accepted: value, status, source, how")
        if not isinstance(part.value, str) and not (name == "value" and isinstance(part.value, list)):
            raise UserError(f"{part.where}: {key}.{name}: accepted: a word or a sentence")
    said = {name: part.value for name, part in node.value.items()}
    if "value" not in said:
        raise UserError(f"{place}: no value")
    if said.get("status") not in STATUSES:
        raise UserError(f"{place}: status {said.get('status', 'missing')!r:.60}; accepted: known, estimated")
    if not said.get("source", "").strip():
        raise UserError(f"{place}: no source; every figure has one")
    if said["status"] == "estimated" and not said.get("how", "").strip():
        raise UserError(f"{place}: no how; an estimated figure says how it was estimated")
    text = said["value"]
    if isinstance(text, list):
        if not all(isinstance(item.value, str) for item in text):
            raise UserError(f"{place}: a list in a list; accepted: a list of figures")
        text = [item.value for item in text]
    try:
        value = _value(text, rule)
    except UserError as e:
        raise UserError(f"{node.value['value'].where}: {key}: {e}") from None
    return Figure(value, said["status"], " ".join(said["source"].split()), " ".join(said.get("how", "").split()))


def _with_part(node: Branch, key: str) -> Branch:
    """The section with what its `part` gives for the keys that it does not say."""
    if "part" not in node.value:
        return node
    word = node.value["part"]
    known = sorted(parts())
    if word.value not in known:
        raise UserError(
            f"{word.where}: {key}.part: no part {str(word.value)[:60]!r}; {_nearest(str(word.value), known)}"
        )
    merged = dict(read(_PARTS / f"{word.value}.yaml").value)
    merged.update((name, part) for name, part in node.value.items() if name != "part")
    return Branch(node.where, merged)


def _section(node: Branch, cls, key: str, figures: dict, places: dict) -> None:
    """Check one section and enter its leaves in `figures`, and their places in `places`, by dotted key."""
    if not isinstance(node.value, dict):
        raise UserError(f"{node.where}: {key}: accepted: a section of keys")
    node = _with_part(node, key)
    hints = get_type_hints(cls)
    wanted = {f.name: f for f in fields(cls) if "copy_of" not in f.metadata}
    for name, part in node.value.items():
        if name not in wanted:
            raise UserError(f"{part.where}: unknown key {f'{key}.{name}'[:100]!r}; {_nearest(name, wanted)}")
    for name, f in wanted.items():
        dotted = f"{key}.{name}"
        if name not in node.value:
            if f.metadata.get("optional"):
                continue
            raise UserError(f"{node.where}: {dotted} is missing ({f.metadata.get('doc', 'a section')})")
        part = node.value[name]
        places[dotted] = part.where
        if "kind" in f.metadata:
            figures[dotted] = _leaf(part, dotted, f.metadata)
        else:
            _section(part, hints[name], dotted, figures, places)


class _Problem(Exception):
    """Figures that contradict one another: the key and what is wrong."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


def _check(v: dict) -> None:
    """What must hold between figures. Raises _Problem."""
    if v["node.domain"] % v["node.gpus"]:
        raise _Problem(
            "node.domain",
            f"{v['node.domain']} is not a multiple of node.gpus ({v['node.gpus']}); accepted: whole hosts in a domain",
        )
    if v["node.link.rate"] > v["node.link.nominal_rate"]:
        raise _Problem("node.link.rate", "more than node.link.nominal_rate; accepted: at most that")
    if "nic.rate" not in v:
        if v["gpus"] > v["node.domain"]:
            raise _Problem("gpus", f"{v['gpus']} ranks need a network; accepted: sections nic, switch and network")
        return
    if v["node.nics"] == 0:
        raise _Problem("node.nics", "0, yet there is a network; accepted: 1 or more")
    pcie = [f"nic.pcie_{name}" for name in ("generation", "lanes", "efficiency")]
    if 0 < sum(key in v for key in pcie) < 3:
        missing = next(key for key in pcie if key not in v)
        raise _Problem(
            missing, "missing; accepted: all of nic.pcie_generation, pcie_lanes and pcie_efficiency, or none"
        )
    if v["nic.ports"] % v["network.planes"]:
        raise _Problem(
            "network.planes",
            f"{v['network.planes']} planes cannot share {v['nic.ports']} ports of a NIC; accepted: a divisor of nic.ports",
        )
    if v["nic.rate"] / v["nic.ports"] > v["switch.port_rate"] * (1 + 1e-9):
        rate = units.format(v["nic.rate"] / v["nic.ports"], "rate")
        raise _Problem("switch.port_rate", f"slower than a port of the NIC ({rate}); accepted: at least that")
    topology = v["network.topology"]
    if topology == "single-switch" and v["network.tiers"] != 1:
        raise _Problem("network.tiers", f"{v['network.tiers']} tiers of a single switch; accepted: 1")
    if len(v["network.cable_lengths"]) != v["network.tiers"]:
        raise _Problem(
            "network.cable_lengths",
            f"{len(v['network.cable_lengths'])} lengths for {v['network.tiers']} tiers; accepted: one a tier",
        )
    needed = {
        "dragonfly": ("endpoints_per_switch", "switches_per_group", "global_links"),
        "torus": ("dims",),
        "mesh": ("dims",),
    }.get(topology, ())
    for name in needed:
        if v.get(f"network.{name}") is None:
            raise _Problem(f"network.{name}", f"missing; a {topology} needs it")


def _make(cls, key: str, values: dict):
    hints = get_type_hints(cls)
    made = {}
    for f in fields(cls):
        dotted = f"{key}.{f.name}"
        if "copy_of" in f.metadata:
            made[f.name] = values[f.metadata["copy_of"]]
        elif "kind" in f.metadata:
            made[f.name] = values.get(dotted)
        else:
            made[f.name] = _make(hints[f.name], dotted, values)
    return cls(**made)


def build(name: str, title: str, figures: dict[str, Figure], notes: Iterable[str] = ()) -> System:
    """A System from figures by dotted key (those of `schema()`). Raises UserError where they contradict one another."""
    try:
        return _build(name, title, figures, notes)
    except _Problem as e:
        raise UserError(f"{name}: {e.key}: {e}") from None


def _build(name, title, figures, notes) -> System:
    order = {key: figures[key] for key in schema() if key in figures}
    values = {key: figure.value for key, figure in order.items()}
    _check(values)
    sections = {
        section: _make(cls, section, values) if section not in _NETWORK_SECTIONS or "nic.rate" in values else None
        for section, cls in _SECTIONS.items()
    }
    return System(name=name, title=title, gpus=values["gpus"], figures=order, notes=tuple(notes), **sections)


def _words(node: Branch | None, key: str) -> tuple[str, ...]:
    if node is None:
        return ()
    items = node.value if isinstance(node.value, list) else [node]
    for item in items:
        if not isinstance(item.value, str) or len(item.value) > MAX_TEXT:
            raise UserError(f"{item.where}: {key}: accepted: sentences of at most {MAX_TEXT} characters")
    return tuple(" ".join(item.value.split()) for item in items)


def _load(path: Path) -> System:
    tree = read(path)
    if "base" in tree.value:
        return _calibrated(tree, path)
    wanted = ("title", "gpus", *_SECTIONS, "notes")
    for name, part in tree.value.items():
        if name not in wanted:
            raise UserError(f"{part.where}: unknown key {name[:60]!r}; {_nearest(name, wanted)}")
    has_network = any(name in tree.value for name in _NETWORK_SECTIONS)
    for name in wanted[:-1]:
        if name not in tree.value and (has_network or name not in _NETWORK_SECTIONS):
            raise UserError(f"{tree.where}: {name} is missing")
    figures: dict[str, Figure] = {"gpus": _leaf(tree.value["gpus"], "gpus", _GPUS)}
    places = {"gpus": tree.value["gpus"].where}
    for name, cls in _SECTIONS.items():
        if name in tree.value:
            places[name] = tree.value[name].where
            _section(tree.value[name], cls, name, figures, places)
    title = " ".join(_words(tree.value["title"], "title"))
    try:
        return _build(path.stem, title, figures, _words(tree.value.get("notes"), "notes"))
    except _Problem as e:
        section = e.key.split(".")[0]
        raise UserError(f"{places.get(e.key) or places[section]}: {e.key}: {e}") from None


def _calibrated(tree: Branch, path: Path) -> System:
    """A card that stands on another one, with measured curves."""
    wanted = ("title", "base", "set", "curves", "notes")
    for name, part in tree.value.items():
        if name not in wanted:
            raise UserError(f"{part.where}: unknown key {name[:60]!r}; {_nearest(name, wanted)}")
    for name in ("title", "curves"):
        if name not in tree.value:
            raise UserError(f"{tree.where}: {name} is missing")
    word = tree.value["base"]
    if not isinstance(word.value, str):
        raise UserError(f"{word.where}: base: accepted: the name or the path of a card")
    base = _base(word, path)
    try:
        base = override(base, _words(tree.value.get("set"), "set"))
    except UserError as e:
        raise UserError(f"{tree.value['set'].where if 'set' in tree.value else tree.where}: set: {e}") from None
    title = " ".join(_words(tree.value["title"], "title"))
    notes = (*base.notes, *_words(tree.value.get("notes"), "notes"))
    return replace(base, name=path.stem, title=title, notes=notes, curves=curves.read(tree.value["curves"]))


def _base(word: Branch, path: Path) -> System:
    """The card that a calibrated one stands on; a path is seen from that one's folder. It stands on no further one."""
    text = word.value.strip()
    if not text.endswith((".yaml", ".yml")):
        try:
            return load(text)
        except UserError as e:
            raise UserError(f"{word.where}: base: {e}") from None
    tree = read(path.parent / text)
    if "base" in tree.value:
        raise UserError(f"{word.where}: base: {text[:60]} is calibrated itself; accepted: a card with figures")
    return _load(path.parent / text)


def names() -> list[str]:
    """The cards that come with busbw, and `this-machine`."""
    return sorted([*(p.stem for p in _HERE.glob("*.yaml")), THIS_MACHINE])


def load(name_or_path: str | Path) -> System:
    """The system of that name, or of that YAML file (a path has a / or ends in .yaml). `this-machine` is measured.

    Raises UserError that names the file, the line and the key of what is wrong, or the nearest name to an unknown one.
    """
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return _load(Path(text))
    if text == THIS_MACHINE:
        from .calibrate import this_machine

        return this_machine()
    if text not in names():
        raise UserError(f"no system {text[:60]!r}; {_nearest(text, names())} (a card of your own: give its path)")
    return _load(_HERE / f"{text}.yaml")


@functools.lru_cache(maxsize=1)
def parts() -> frozenset[str]:
    """The names of the parts that come with busbw."""
    return frozenset(p.stem for p in _PARTS.glob("*.yaml"))


@functools.lru_cache(maxsize=16)
def software(part_name: str) -> Software:
    """The constants of a communication library alone: a part such as "nccl-hopper". Raises UserError for an unknown one."""
    node = Branch(f"{part_name}", {"part": Branch(part_name, part_name)})
    figures: dict[str, Figure] = {}
    _section(node, Software, "software", figures, {})
    return _make(Software, "software", {key: figure.value for key, figure in figures.items()})


def override(system: System, settings: Iterable[str]) -> System:
    """The system with figures set by words such as "nic.rate=400Gb/s"; keys are the card's, and "nodes".

    "nodes" gives gpus = nodes * node.gpus, after all else is set. node.domain follows node.gpus where both were one.
    Tiers follow a topology that has only one number of them, and cable lengths the tiers. A list is written with commas.
    Raises UserError as `load` does.
    """
    rules, copies = schema(), _copies()
    figures = dict(system.figures)
    nodes = None
    seen = set()
    for setting in settings:
        key, equals, text = setting.partition("=")
        key = copies.get(key.strip(), key.strip())
        if not equals or not key:
            raise UserError(f"{setting[:60]!r}; accepted: KEY=VALUE, such as nic.rate=400Gb/s")
        if key in seen:
            raise UserError(f"{key[:60]!r} is set twice")
        seen.add(key)
        rule = _GPUS if key == "nodes" else rules.get(key)
        if rule is None:
            raise UserError(f"no key {key[:60]!r}; {_near_key(key, [*rules, 'nodes'])}")
        if system.nic is None and key.split(".")[0] in _NETWORK_SECTIONS:
            raise UserError(f"{key}: {system.name} has no network; accepted: a card with one")
        try:
            value = _value(text.strip(), rule)
        except UserError as e:
            raise UserError(f"{key}: {e}") from None
        if key == "nodes":
            nodes = value
        else:
            figures[key] = Figure(value, SET_BY_USER, f"the setting {setting.strip()}")
    if "node.gpus" in seen and "node.domain" not in seen and system.node.domain == system.node.gpus:
        figures["node.domain"] = Figure(figures["node.gpus"].value, SET_BY_USER, "as node.gpus")
    _follow_topology(figures, seen)
    if nodes is not None:
        gpus = nodes * figures["node.gpus"].value
        if "gpus" in seen and figures["gpus"].value != gpus:
            raise UserError(
                f"gpus={figures['gpus'].value} and nodes={nodes} contradict each other; accepted: gpus={gpus}, or one of them"
            )
        if gpus > _GPUS["high"]:
            raise UserError(f"nodes: {nodes} nodes are {gpus} GPUs; accepted: at most {_GPUS['high']}")
        figures["gpus"] = Figure(gpus, SET_BY_USER, f"the setting nodes={nodes}")
    return replace(build(system.name, system.title, figures, system.notes), curves=system.curves)


def _follow_topology(figures: dict[str, Figure], seen: set[str]) -> None:
    """Tiers and cables that the user did not set, for the topology and tiers that the user did."""
    if "network.topology" in seen and "network.tiers" not in seen:
        tiers = {"single-switch": 1, "torus": 1, "mesh": 1, "dragonfly": 3}.get(figures["network.topology"].value)
        if tiers:
            figures["network.tiers"] = Figure(tiers, SET_BY_USER, "as network.topology")
    if "network.cable_lengths" not in seen and {"network.topology", "network.tiers"} & seen:
        tiers, lengths = figures["network.tiers"].value, figures["network.cable_lengths"].value
        if tiers != len(lengths):
            lengths = (lengths + lengths[-1:] * tiers)[:tiers]
            figures["network.cable_lengths"] = Figure(lengths, SET_BY_USER, "as network.tiers, the longest repeated")


def _near_key(key: str, keys: list[str]) -> str:
    """A hint for a key that is none: keys are long, so the nearest, or those of its section."""
    near = difflib.get_close_matches(key[:100], keys, n=1, cutoff=0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    section = [k for k in keys if k.split(".")[0] == key.split(".")[0]]
    return f"accepted: {', '.join(section or ['gpus', 'nodes', *(f'{s}...' for s in _SECTIONS)])}"
