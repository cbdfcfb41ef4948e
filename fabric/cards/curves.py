"""Measured curves on a card: what `busbw fit` writes, and how a card's file says it.

A calibrated card names the card that it stands on, what it sets of it, and its curves::

    title: "dgx-h100-cx7, calibrated"
    base: dgx-h100-cx7                    a card that comes with busbw, or the path of one
    set: [nodes=4]                        may be left out
    curves:
      - ranks: 32
        nodes: 4                          hosts; left out: filled
        collective: all_reduce            left out: all_reduce
        algorithm: auto                   left out: auto, the library's choice
        library: nccl-2.23.4              left out: what the card says
        source: "nccl.log"
        sizes: [8 B, 16 B, ...]
        times: [19.4 us, 19.6 us, ...]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ...errors import UserError
from . import units
from .yamltree import Branch

MOST_CURVES, MOST_POINTS = 64, 512
_KEYS = ("ranks", "nodes", "collective", "algorithm", "library", "harness", "source", "sizes", "times")
_NEEDED = ("ranks", "source", "sizes", "times")


class Curve(NamedTuple):
    """Measured times over sizes at one scale.

    nodes: hosts, 0 where they are filled; library: as --library takes it, "" for what the card says; algorithm: "auto" where the
    library chose; harness: as in fabric/library/clock.py. sizes in bytes, ascending; seconds of each.
    """

    ranks: int
    nodes: int
    collective: str
    algorithm: str
    library: str
    harness: str
    source: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]


def checked(curve: Curve, where: str) -> Curve:
    """The curve in the order of its sizes. Raises UserError for one that cannot be."""
    pairs = sorted(zip(curve.sizes, curve.seconds))
    if not 1 <= len(pairs) <= MOST_POINTS:
        raise UserError(f"{where}: {len(pairs)} points; accepted: 1 to {MOST_POINTS}")
    for size, seconds in pairs:
        if seconds <= 0:
            raise UserError(f"{where}: {size} bytes in {seconds:g} s; accepted: times above 0")
    if len({s for s, _ in pairs}) < len(pairs):
        raise UserError(f"{where}: a size twice in one curve; accepted: each once")
    return curve._replace(sizes=tuple(s for s, _ in pairs), seconds=tuple(t for _, t in pairs))


def read(node: Branch) -> tuple[Curve, ...]:
    """The curves of a card's file. Raises UserError that names the line."""
    if not isinstance(node.value, list) or not 1 <= len(node.value) <= MOST_CURVES:
        raise UserError(f"{node.where}: curves: accepted: a list of 1 to {MOST_CURVES} curves")
    return tuple(_curve(item) for item in node.value)


def _curve(node: Branch) -> Curve:
    if not isinstance(node.value, dict):
        raise UserError(f"{node.where}: curves: accepted: keys {', '.join(_KEYS)}")
    for name, part in node.value.items():
        if name not in _KEYS:
            raise UserError(f"{part.where}: curves: unknown key {name[:60]!r}; accepted: {', '.join(_KEYS)}")
    for name in _NEEDED:
        if name not in node.value:
            raise UserError(f"{node.where}: curves: {name} is missing")
    return checked(
        Curve(
            ranks=_number(node, "ranks", 0, 2),
            nodes=_number(node, "nodes", 0, 0),
            collective=_word(node, "collective", "all_reduce"),
            algorithm=_word(node, "algorithm", "auto"),
            library=_word(node, "library", ""),
            harness=_word(node, "harness", "nccl-tests"),
            source=_word(node, "source", ""),
            sizes=tuple(int(v) for v in _figures(node, "sizes", "bytes")),
            seconds=_figures(node, "times", "time"),
        ),
        node.where,
    )


def _word(node: Branch, key: str, default: str) -> str:
    part = node.value.get(key)
    if part is None:
        return default
    if not isinstance(part.value, str) or len(part.value) > 500:
        raise UserError(f"{part.where}: curves: {key}: accepted: a word")
    return " ".join(part.value.split())


def _number(node: Branch, key: str, default: int, low: int) -> int:
    text = _word(node, key, str(default))
    if not text.isdigit() or not low <= int(text) <= 100_000_000:
        raise UserError(f"{node.where}: curves: {key} {text[:40]!r}; accepted: {low} to 100000000")
    return int(text)


def _figures(node: Branch, key: str, kind: str) -> tuple[float, ...]:
    part = node.value[key]
    items = part.value if isinstance(part.value, list) else None
    if not items or not all(isinstance(i.value, str) for i in items):
        raise UserError(f"{part.where}: curves: {key}: accepted: a list of figures with units")
    if key == "times" and len(items) != len(node.value["sizes"].value):
        raise UserError(f"{part.where}: curves: {len(items)} times; accepted: one a size")
    try:
        return tuple(units.parse(i.value, kind) for i in items)
    except UserError as e:
        raise UserError(f"{part.where}: curves: {key}: {e}") from None


def dump(title: str, base: str, settings: Iterable[str], curves: Sequence[Curve], about: Iterable[str] = ()) -> str:
    """The file of a calibrated card. about: comment lines for its head."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "/").replace('"', "'") + '"'

    lines = [f"# {line}" for line in about]
    lines += [f"title: {quoted(title)}", f"base: {quoted(base)}"]
    settings = list(settings)
    if settings:
        lines.append(f"set: [{', '.join(quoted(s) for s in settings)}]")
    lines.append("curves:")
    for c in curves:
        lines.append(f"  - ranks: {c.ranks}")
        if c.nodes:
            lines.append(f"    nodes: {c.nodes}")
        given = {"collective": c.collective, "algorithm": c.algorithm, "library": c.library, "harness": c.harness}
        usual = {"collective": "all_reduce", "algorithm": "auto", "library": "", "harness": "nccl-tests"}
        lines += [f"    {key}: {value}" for key, value in given.items() if value != usual[key]]
        lines.append(f"    source: {quoted(c.source)}")
        lines.append(f"    sizes: [{', '.join(f'{s} B' for s in c.sizes)}]")
        lines.append(f"    times: [{', '.join(f'{t * 1e6:.6g} us' for t in c.seconds)}]")
    return "\n".join(lines) + "\n"
