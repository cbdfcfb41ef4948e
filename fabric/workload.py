"""A training step's gradient all-reduces: how many bytes, in which buckets, over which ranks.

A workload is a YAML file in workloads/ (or your own): the parameters of a model, over how many GPUs a copy of it is split, and
how gradients are put into buckets, each figure with its source and known|estimated. Every GPU holds 1/shards of the model;
the GPUs that hold the same part in different copies form a data-parallel group, and each group sums its gradients by
itself, all groups at the same time. So a step moves, for each GPU, parameters / shards gradients through all-reduces of bucket
size over ranks / shards ranks.

Not counted: the all-reduces and all-to-alls inside a copy (tensor and expert parallelism), optimizer states, input.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from .cards.yamltree import Branch, read

_HERE = Path(__file__).parent / "workloads"
MAX_BYTES = 64 << 10
STATUSES = ("known", "estimated")
# key: the most that makes sense
_KEYS = {
    "parameters.layer": 10**13,
    "parameters.layers": 10**5,
    "parameters.others": 10**14,
    "shards": 10**7,
    "gradient_bytes": 16,
    "bucket.least": 10**14,
    "bucket.each_rank": 10**12,
}
BUCKETS_MAX = 1_000_000


class Figure(NamedTuple):
    value: int
    status: str
    source: str
    how: str = ""


@dataclass(frozen=True)
class Workload:
    """figures: by dotted key, those of _KEYS. Sizes are in parameters unless named bytes."""

    name: str
    title: str
    figures: dict[str, Figure]

    def __getitem__(self, key: str) -> int:
        return self.figures[key].value

    @property
    def parameters(self) -> int:
        return self["parameters.layer"] * self["parameters.layers"] + self["parameters.others"]


class Bucket(NamedTuple):
    """`times` all-reduces of `size_bytes` each."""

    size_bytes: int
    times: int


class StepRow(NamedTuple):
    bucket: Bucket
    algorithm: str
    seconds: float  # of one all-reduce


@dataclass(frozen=True)
class Step:
    """rows: one a distinct bucket size, in order; ranks: of one data-parallel group."""

    ranks: int
    rows: tuple[StepRow, ...]

    @property
    def size_bytes(self) -> int:
        """Gradient bytes of one GPU."""
        return sum(r.bucket.size_bytes * r.bucket.times for r in self.rows)

    @property
    def seconds(self) -> float:
        """One all-reduce after the other, nothing hidden behind computing."""
        return sum(r.seconds * r.bucket.times for r in self.rows)

    @property
    def last_seconds(self) -> float:
        """The last bucket: it is ready only when the backward pass ends, so no overlap hides it."""
        return self.rows[-1].seconds if self.rows else 0.0


def names() -> list[str]:
    return sorted(p.stem for p in _HERE.glob("*.yaml"))


def load(name_or_path: str | Path) -> Workload:
    """The workload of that name or YAML file. Raises UserError naming the file and the key of what is wrong."""
    text = str(name_or_path)
    if text.endswith((".yaml", ".yml")) or "/" in text:
        return _read(Path(text))
    if text not in names():
        near = difflib.get_close_matches(text[:100], names(), 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"accepted: {', '.join(names())}"
        raise UserError(f"no workload {text[:60]!r}; {hint} (one of your own: give its path)")
    return _read(_HERE / f"{text}.yaml")


def _read(path: Path) -> Workload:
    value = _plain(read(path, what="a workload", most=MAX_BYTES))
    title = value.pop("title", None)
    if not isinstance(title, str) or not 0 < len(title) <= 200:
        raise UserError(f"{path}: title: accepted: a line of at most 200 characters")
    leaves = {}
    for key, part in value.items():
        nested = isinstance(part, dict) and "value" not in part
        for inner, leaf in part.items() if nested else [("", part)]:
            leaves[f"{key}.{inner}".rstrip(".")] = leaf
    for key in leaves:
        if key not in _KEYS:
            raise UserError(f"{path}: unknown key {str(key)[:60]!r}; accepted: title, {', '.join(_KEYS)}")
    figures = {}
    for key, most in _KEYS.items():
        if key not in leaves:
            raise UserError(f"{path}: {key} is missing")
        figures[key] = _figure(leaves[key], key, most, path)
    return Workload(path.stem, title, figures)


def _plain(branch: Branch):
    """A branch of the file as texts, lists and mappings."""
    if isinstance(branch.value, dict):
        return {key: _plain(part) for key, part in branch.value.items()}
    return [_plain(part) for part in branch.value] if isinstance(branch.value, list) else branch.value


def _figure(leaf: object, key: str, most: int, path: Path) -> Figure:
    if not isinstance(leaf, dict) or not set(leaf) <= {"value", "status", "source", "how"}:
        raise UserError(f"{path}: {key}: accepted: {{value: ..., status: known|estimated, source: ..., how: ...}}")
    text, status = leaf.get("value"), leaf.get("status")
    least = 0 if key in ("parameters.others", "bucket.each_rank") else 1
    whole = isinstance(text, str) and re.fullmatch(r"[0-9](_?[0-9]){0,20}", text)
    if not whole or not least <= int(text) <= most:
        raise UserError(f"{path}: {key}: {str(text)[:40]!r}; accepted: a whole number from {least} to {most}")
    if status not in STATUSES:
        raise UserError(f"{path}: {key}: status {str(status)[:40]!r}; accepted: {', '.join(STATUSES)}")
    for name in ("source", "how"):
        if not isinstance(leaf.get(name, ""), str) or (
            not leaf.get(name) and (name == "source" or status == "estimated")
        ):
            raise UserError(f"{path}: {key}: no {name}; every figure has a source, and an estimated one says how")
    return Figure(int(text), status, leaf["source"], leaf.get("how", ""))


def group_ranks(gpus: int, shards: int) -> int:
    """Ranks of one data-parallel group. Raises UserError where the GPUs hold no two copies of the model."""
    if gpus // shards < 2:
        raise UserError(
            f"{gpus} GPUs hold {gpus // shards} copies of a model split over {shards}, so no gradients are exchanged; "
            f"accepted: {2 * shards} GPUs or more, or fewer --shards"
        )
    return gpus // shards


def buckets(workload: Workload, ranks: int, *, shards: int, gradient_bytes: int) -> tuple[Bucket, ...]:
    """The buckets of one GPU's gradients for a data-parallel group of `ranks`: full ones, then what is left."""
    mine = -(-workload.parameters // shards)
    each = max(workload["bucket.least"], workload["bucket.each_rank"] * ranks)
    full, rest = divmod(mine, each)
    found = [Bucket(each * gradient_bytes, full)] if full else []
    return (*found, Bucket(rest * gradient_bytes, 1)) if rest else tuple(found)


def group(sizes: Sequence[int]) -> tuple[Bucket, ...]:
    """A list of bucket sizes as buckets: neighbours of one size are put together. Raises UserError for none or too many."""
    if not 1 <= len(sizes) <= BUCKETS_MAX:
        raise UserError(f"{len(sizes)} buckets; accepted: 1 to {BUCKETS_MAX}")
    found: list[Bucket] = []
    for size in sizes:
        if found and found[-1].size_bytes == size:
            found[-1] = Bucket(size, found[-1].times + 1)
        else:
            found.append(Bucket(size, 1))
    return tuple(found)


def step(wanted: Sequence[Bucket], ranks: int, time: Callable[[int], tuple[str, float]]) -> Step:
    """The step's all-reduces. time: bytes -> (algorithm, seconds) of one of them; asked once for each distinct size."""
    known = {size: time(size) for size in dict.fromkeys(b.size_bytes for b in wanted)}
    return Step(ranks, tuple(StepRow(b, *known[b.size_bytes]) for b in wanted))
