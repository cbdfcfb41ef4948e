"""Measured all-reduce points that others have published, and the machine that each describes.

A row of ``data/published_allreduce.csv`` names a GPU, a NIC, nodes and ranks in its source's words.
``data/published_systems.yaml`` says what those words stand for, each figure with its source; ``machine`` joins the two.
What a row does not say (the NIC of "InfiniBand, rate not stated") is taken from that GPU's reference design, and noted.
"""

from __future__ import annotations

import csv
import difflib
import functools
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...errors import UserError
from ..cards import card, units
from . import releases
from .predict import Platform, Run, reach

COLUMNS = ("system", "gpu", "nic", "nodes", "ranks", "gpus_per_node", "library", "algorithm", "size_bytes")
MEASURES = ("time_us", "busbw_GBps")
MAX_BYTES = 64 << 20
MAX_ROWS = 1_000_000
DATA = Path(__file__).parent / "data"
PUBLISHED = DATA / "published_allreduce.csv"
NVL72 = 72  # GPUs that the NVLink of one rack joins

_SPEED_NAMES = (
    (r"\bXDR\b|ConnectX-?8|\bCX8\b", 800),
    (r"\bNDR\b|ConnectX-?7|\bCX7\b|BlueField-?3", 400),
    (r"\bHDR\b|ConnectX-?6|\bCX6\b|Slingshot", 200),
    (r"\bEDR\b|ConnectX-?5|\bCX5\b", 100),
)


@dataclass(frozen=True)
class Point:
    """One row. seconds and busbw (bytes a second) are None where the source gives only the other."""

    line: int  # in the file
    series: str
    system: str
    gpu: str
    nic: str
    nodes: int | None
    ranks: int | None
    per_node: int | None
    library: str
    algorithm: str
    size: int | None
    seconds: float | None
    busbw: float | None
    notes: str = ""
    source: str = ""

    @property
    def algorithm_name(self) -> str:
        """What busbw calls the algorithm: "auto" where the library chose; "" where the source's words mean none it knows."""
        try:
            return _algorithm(self.algorithm, multicast=True)[0]
        except Skipped:
            return ""

    def measured(self) -> tuple[float, float] | None:
        """Seconds and busbw in bytes a second, each from the other where one is missing or was rounded away."""
        if not self.size or not self.ranks or self.ranks < 2:
            return None
        factor = 2 * (self.ranks - 1) / self.ranks * self.size
        seconds, busbw = self.seconds, self.busbw
        if not seconds and not busbw:
            return None
        if not seconds:
            seconds = factor / busbw
        return seconds, factor / seconds


class Machine(NamedTuple):
    platform: Platform
    run: Run  # what the row says it asked of its library, and what timed it
    assumed: tuple[str, ...]  # what the row does not say


class Skipped(Exception):
    """A row without a model; the message says why."""


def read(path: str | Path | None = None) -> list[Point]:
    """The rows of a CSV with the columns of data/published_allreduce.csv; None: that file.

    Raises UserError for a file that is missing, too large, not UTF-8, without a needed column, or with a figure that is none.
    """
    path = PUBLISHED if path is None else Path(path)
    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file; accepted: a CSV file with the columns {', '.join(COLUMNS)}")
        with path.open("rb") as f:
            raw = f.read(MAX_BYTES + 1)
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    if len(raw) > MAX_BYTES:
        raise UserError(f"{path}: more than {MAX_BYTES >> 20} MiB; accepted: a CSV file of at most that")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; accepted: a CSV file") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    points = []
    try:
        header = reader.fieldnames or []
        missing = [c for c in COLUMNS if c not in header]
        if missing or not any(m in header for m in MEASURES):
            lacks = ", ".join(missing) if missing else " or ".join(MEASURES)
            raise UserError(f"{path}: no column {lacks}; accepted: the columns of data/published_allreduce.csv")
        for row in reader:
            if len(points) >= MAX_ROWS:
                raise UserError(f"{path}: more than {MAX_ROWS} rows; accepted: at most that")
            points.append(_point(row, reader.line_num, path))
    except csv.Error as e:
        raise UserError(f"{path}:{reader.line_num}: not CSV: {e}") from None
    if not points:
        raise UserError(f"{path}: no rows; accepted: at least one")
    return points


def _point(row: dict, line: int, path: Path) -> Point:
    def words(name):
        return " ".join((row.get(name) or "").split())[:500]

    def number(name, low, high):
        text = words(name)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise UserError(
                f"{path}:{line}: {name} {text[:40]!r}; accepted: a number from {low:g} to {high:g}, or nothing"
            )
        return value

    def count(name, high):
        value = number(name, 1, high)
        if value is not None and value != int(value):
            raise UserError(f"{path}:{line}: {name} {value:g}; accepted: a whole number")
        return None if value is None else int(value)

    seconds, busbw = number("time_us", 0, 1e12), number("busbw_GBps", 0, 1e9)
    return Point(
        line=line,
        series=words("id") or words("system"),
        system=words("system"),
        gpu=words("gpu"),
        nic=words("nic"),
        nodes=count("nodes", 1e7),
        ranks=count("ranks", 1e8),
        per_node=count("gpus_per_node", 1e6),
        library=words("library"),
        algorithm=words("algorithm"),
        size=count("size_bytes", 2**60),
        seconds=None if seconds is None else seconds * 1e-6,
        busbw=None if busbw is None else busbw * 1e9,
        notes=words("notes"),
        source=words("source"),
    )


def named(points: Sequence[Point], name: str) -> list[Point]:
    """The points of the series `name`, else those whose system or series contains it (any case).

    Raises UserError for a name that none has, with the nearest ones.
    """
    wanted = name.strip().casefold()
    exact = [p for p in points if wanted in (p.series.casefold(), p.system.casefold())]
    found = exact or [p for p in points if wanted in p.system.casefold() or wanted in p.series.casefold()]
    if not found or not wanted:
        names = sorted({p.system for p in points} | {p.series for p in points})
        folded = {n.casefold(): n for n in names}
        near = [folded[n] for n in difflib.get_close_matches(wanted[:80], folded, n=3, cutoff=0.5)]
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(
            f"no point of a system or series {name[:60]!r}; {hint}accepted: part of a name such as {', '.join(near or names[:5])}"
        )
    return found


@functools.lru_cache(maxsize=1)
def _table() -> dict:
    import yaml

    return yaml.safe_load((DATA / "published_systems.yaml").read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=8)
def _reach(name: str | None) -> tuple[tuple[float, float], ...]:
    """What distance costs on the network of the card of that name."""
    return () if name is None else reach(card.load(name))


def _find(entries, text) -> dict | None:
    return next((e for e in entries if re.search(e["match"], text, re.IGNORECASE)), None)


def machine(point: Point) -> Machine:
    """The machine that a row describes. Raises Skipped, with the reason, where there is no model for it."""
    if re.search(r"oneCCL|MSCCL|\bMPI\b|Gloo", point.library, re.IGNORECASE):
        raise Skipped(f"no model of {point.library}")
    if not point.gpu:
        raise Skipped("the GPU is not stated")
    if not point.ranks or not point.nodes:
        raise Skipped("nodes or ranks are not stated")
    if point.ranks < 2:
        raise Skipped("one rank")
    table = _table()
    gpu = _find(table["gpus"], point.gpu)
    if gpu is None:
        if not re.search(r"not stated|unknown", point.gpu, re.IGNORECASE):
            raise Skipped(f"no model of the GPU {point.gpu}")
        gpu = _find(table["gpus"], "A100")
        gpu_assumed = ("an A100: the GPU is not stated",)
    else:
        gpu_assumed = ()
    if ("software" in gpu) != ("rccl" in point.library.lower()):
        raise Skipped(f"no model of {point.library or 'a library that is not stated'} on {point.gpu}")
    if "skip" in gpu:
        raise Skipped(f"no model of {gpu['skip']} ({point.gpu})")
    per_node = point.per_node or max(1, point.ranks // point.nodes)
    alone = point.nodes == 1 or point.nic.lower().startswith("none")
    domain = max(point.ranks if alone else per_node, int(gpu["link"].get("mesh", 0)))
    if not alone and re.search(r"NVL72", f"{point.system} {point.gpu} {point.nic}", re.IGNORECASE):
        domain = min(NVL72, point.ranks)
    nics, rate, assumed = (0, 0.0, ()) if alone else _network(point, gpu, per_node, table)
    transport = {} if alone else _find(table["transports"], f"{point.nic} {point.system}") or {}
    system = _find(table["systems"], f"{point.system} {point.nic}") or {}

    multicast = bool(gpu.get("multicast", {}).get("value", False))
    algorithm, protocol, without = _algorithm(point.algorithm, multicast)
    library, unknown = (None, ()) if "software" in gpu else _release(point.library)
    platform = Platform(
        name=point.system,
        generation=gpu["generation"],
        domain=domain,
        link=gpu["link"].get("kind", "nvlink"),
        link_rate=units.parse(gpu["link"]["rate"], "rate"),
        software=card.software(gpu["software"]) if "software" in gpu else None,
        multicast=multicast,
        nics=nics * (domain // per_node if domain > per_node else 1),
        nic_rate=rate,
        host_rate=units.parse(gpu["pcie"]["rate"], "rate"),
        sharp=algorithm in ("sharp", "collnet-chain", "collnet-direct") or "SHARP" in point.nic,
        network_latency=units.parse(transport["latency"]["value"], "time") if "latency" in transport else 0.0,
        reach=() if alone else _reach(system.get("card")),
        hosts=max(1, domain // per_node),
        path=system.get("path", gpu["path"])["value"],
        cpu=gpu["cpu"]["vendor"],
        network=transport.get("network", "infiniband"),
    )
    run = Run(
        library=library,
        algorithm=algorithm,
        protocol=protocol,
        without=without,
        without_protocols=() if alone else tuple(system.get("without_protocols", {}).get("value", ())),
        harness=_harness(point, table),
    )
    return Machine(platform, run, gpu_assumed + assumed + unknown)


def _release(words: str) -> tuple[str | None, tuple[str, ...]]:
    """The release that a row's words state, None for none, and what is assumed."""
    found = releases.nearest(words)
    if found is None:
        return None, (f"NCCL {releases.newest().name}: the release is not stated",)
    return f"nccl-{found.name}", (found.assumed,) if found.assumed else ()


def _harness(point: Point, table: dict) -> str:
    found = _find(table["harnesses"], f"{point.source} {point.notes}")
    return "nccl-tests" if found is None else found["name"]


def _network(point: Point, gpu: dict, per_node: int, table: dict) -> tuple[int, float, tuple[str, ...]]:
    """NICs of a node, bytes a second of each, and what had to be assumed."""
    text, assumed = point.nic, []
    pair = re.search(r"(\d+)\s*x\s*(?:NDR |HDR |XDR |EDR )?(\d{2,3})\s*Gb?\b", text)
    rate = float(pair[2]) if pair else None
    count = int(pair[1]) if pair else None
    system = _find(table["systems"], f"{point.system} {text}") or {}
    if rate is None:
        alone = re.search(r"\b(\d{2,3})\s*G(?:b|bE|bit)?\b", text)
        named = next((v for pattern, v in _SPEED_NAMES if re.search(pattern, text, re.IGNORECASE)), None)
        rate = float(alone[1]) if alone else named
    if rate is None and "rate" in system:
        rate = units.parse(system["rate"]["value"], "rate") * 8e-9
    if rate is None:
        rate = units.parse(gpu["nic"]["rate"], "rate") * 8e-9
        assumed.append(f"NICs of {rate:g} Gb/s: {gpu['nic']['source']}")
    if count is None:
        rails = re.search(r"(\d+)(?: compute)? rails", text)
        several = re.search(r"(\d+)x\b.*\bin (\d+) nodes", text)
        each = re.search(r"(\d+)\s*(?:x\b|per node|a node)|,\s*(\d+) per node", text)
        if rails:
            count = int(rails[1])
        elif several:
            count = int(several[1]) // int(several[2])
        elif re.search(r"one NIC a GPU|NIC per GPU", text):
            count = per_node
        elif re.search(r"\bone\b", text):
            count = 1
        elif each:
            count = int(each[1] or each[2])
        elif "nics" in system:
            count = int(system["nics"]["value"])
        else:
            count = max(1, round(per_node * gpu["nic"]["a_gpu"]))
            assumed.append(f"{count} NICs a node: {gpu['nic']['source']}")
    if per_node == 1 and count > 1 and "EFA" not in text:
        assumed.append("one NIC for the one GPU of a node")
        count = 1
    return count, rate * 1e9 / 8, tuple(assumed)


_PROTOCOL = re.compile(r"\b(LL128|LL|Simple)\b", re.IGNORECASE)
_NAMES = (
    ("collnet-chain", r"collnet ?chain"),
    ("sharp", r"collnet|sharp"),
    ("nvls", r"nvls"),
    ("ring", r"\bring\b"),
    ("tree", r"\btree\b"),
)


def _algorithm(words: str, multicast: bool) -> tuple[str, str | None, tuple[str, ...]]:
    """The algorithm and the protocol that a row's words mean (None: the library's choice), and those the run had switched off.

    A text that names several algorithms, or one up to a size, tells what the library chose, not what was forced.
    """
    text = " ".join(words.lower().split())
    forced_one = re.match(r"(ring|tree)\b", text)
    off = ("nvls", "nvls-tree") if re.search(r"nvls[ a-z_]*(off|disabled|=0)|no nvls|without nvls", text) else ()
    if off:
        text, off = (forced_one[0], ()) if forced_one else ("", off)
    named = [name for name, pattern in _NAMES if re.search(pattern, text)]
    if "collnet-chain" in named or "sharp" in named:
        named = [n for n in named if n in ("collnet-chain", "sharp")][:1]
    if "nvls" in named and re.search(r"nvls[- /]*(nvls)?[- ]?tree", text):
        named = [n for n in named if n != "tree"]
    protocol = _PROTOCOL.search(words)
    forced = protocol[1].lower() if protocol else None
    if not text.strip() or text.startswith(("default", "auto")) or "by size" in text:
        return "auto", None, off
    if len(named) > 1 or re.search(r"\b(then|from|up to|below|above)\b|\d ?[kmg]i?b", text):
        return "auto", None, off
    if not named:
        raise Skipped(f"no model of the algorithm {words!r}")
    if named[0] == "nvls":
        return ("nvls" if multicast else "auto"), None, off
    return named[0], forced, off
