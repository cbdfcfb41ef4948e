"""busbw's own result files judged: each algorithm's curve against what bounds it.

    ranks of one host, on CPUs         the host's memory, as the run measured it (a result file's ``limits``)
    emulated ranks of one GPU          that GPU's memory, likewise
    nccl, and logs that were imported  the library's model, as a log's tables (situation.py)
    over several hosts or GPUs         a system card's network, under the very schedule: --system
    a virtual clock                    nothing: it was not measured

How far times usually lie from the first, second and fourth was not measured on others' machines, so there is no band: low is
below HALF of what is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from ..bench.log import Device, Figures, Log, Note, Row, System, Table
from ..bench.record import Record, ResultFile, Timing, busbw_factor
from ..bench.summary import (
    DEVICE_TRANSPORTS,
    HOST_TRANSPORTS,
    WALL,
    Series,
    gpus_measured,
    hostnames,
    limit_of,
    memory_bandwidth,
    names,
    plain,
    rate_words,
    series,
)  # fmt: skip
from ..errors import UserError
from ..fabric import simulate
from ..fabric.cards.card import System as Card
from ..fabric.library.predict import Run
from .model import MEMORY, SCHEDULE, SMALL, Modelled
from .situation import OWN_TOOL, Given, Situation, situate
from .verdict import Answer, judge

LIBRARIES = frozenset({"nccl", "rccl", "library"})  # transports that the library's model is of
SMALLEST = 1 << 20  # bytes of a message, below which it is latency
CACHES = 4  # times the last cache, of all ranks' buffers together: as bench/limits.py measures
MOST_SIMULATED = 65536  # ranks of a schedule that is timed for an answer

Model = Callable[[int], "Modelled | None"]


def judged(result: ResultFile, given: Given, threshold: float | None) -> list[tuple[str, Log, Answer]]:
    """(name, what its causes are looked for in, answer) of each algorithm and setting. Raises UserError as ``situate`` does."""
    found = series(result.records)
    called = names(found)
    out = []
    for curve, name in zip(found, called):
        label = name if called.count(name) == 1 else f"{name}, {curve.setting.words}"
        table = _table(curve)
        log = Log(result.path, (table,), table.system, 0, 0, table.notes)
        situation, model, remarks = _situation(curve, table, log, result.limits, given)
        answer = judge(table, situation, threshold, model)
        out.append((label, log, replace(answer, remarks=(*remarks, *answer.remarks))))
    return out


def _situation(
    curve: Series, table: Table, log: Log, limits: dict, given: Given
) -> tuple[Situation, Model | None, list[str]]:
    record = curve.records[-1]
    ranks, collective = curve.setting.ranks, curve.setting.collective
    hosts = len(hostnames(record.environment)) or None
    base = Situation(collective, ranks or None, hosts, None, Run(collective=collective))

    def open_question(missing: str) -> tuple[Situation, None, list[str]]:
        return replace(base, missing=missing), None, []

    if curve.setting.clock != WALL:
        base = replace(base, nodes=None)
        return open_question(f"its times are modelled ({plain(curve.setting.clock, 60)}), not measured")
    if curve.transport in LIBRARIES or "source" in record.options:
        return situate(log, table, given), None, []
    if ranks == 1:
        return base, None, []
    if (rate := limit_of(curve, limits)) is not None:
        return _in_memory(base, curve, limits, rate)
    if given.system is not None:
        return _over_a_network(base, curve, given.system)
    if not limits and (hosts or 1) == 1 and curve.transport in HOST_TRANSPORTS | DEVICE_TRANSPORTS:
        return open_question("the run measured no limit of the memory: sweep to 1 MiB or more (-e 64M)")
    return open_question(
        "the network between its ranks is not in the record: name it with --system NAME, or a card of your own "
        "(busbw systems lists them; busbw fit writes one)"
    )


def _in_memory(base: Situation, curve: Series, limits: dict, rate: float) -> tuple[Situation, Model, list[str]]:
    """Against the memory's rate, from sizes on whose buffers no cache holds."""
    environment = curve.records[-1].environment
    device = limits.get("memory") == "device"
    cache = _cache(environment, device)
    factor = busbw_factor(base.ranks, base.collective)
    whose = "the GPU's memory" if device else "the memory"

    def model(size: int) -> Modelled | None:
        if 2 * base.ranks * size < CACHES * cache or size < SMALLEST:
            return None
        return Modelled(size * factor / rate, None, None, MEMORY, False)

    stream = memory_bandwidth(limits)
    said = f" of the {rate_words(stream[0])} it reads and writes" if stream else ""
    remarks = [
        f"no wire takes part: {'emulated ranks of one GPU' if device else 'ranks of one host'} copy through {whose}, which "
        f"allows {plain(curve.algorithm, 40)} {rate_words(rate)} busbw{said}"
    ]
    if (first := next((r.size_bytes for r in curve.records if model(r.size_bytes)), None)) is None:
        remarks.append("all its sizes fit into the caches, whose rate was not measured: sweep to larger ones (-e 256M)")
    elif first > curve.records[0].size_bytes:
        remarks.append("smaller sizes fit into the caches, whose rate was not measured, or are latency")
    known = (f"{base.ranks} ranks: the record", f"{rate_words(rate)} busbw: the limits that the run measured")
    gpu = next((d.name for d in _devices(environment)), "") if device else ""
    return replace(base, known=known, against=f"what {whose} allows", gpu=gpu), model, remarks


def _over_a_network(base: Situation, curve: Series, card: Card) -> tuple[Situation, Model | None, list[str]]:
    """Against the very schedule on a card's network, in closed form, by recurrence or by replay, whichever is exact and cheap."""
    by_size = {r.size_bytes: r for r in curve.records}
    base = replace(base, against=f"the schedule on {card.name}", known=(f"{card.name}: --system",))
    if base.ranks > MOST_SIMULATED:
        return replace(base, missing=f"over more than {MOST_SIMULATED} ranks, no schedule is timed here"), None, []

    def seconds(size: int, record: Record) -> float:
        options = simulate.Options(
            ranks=(base.ranks,), sizes=(size,), algorithms=(record.chosen,), channels=record.channels or 1,
            itemsize=_itemsize(record), collective=base.collective, root=max(0, record.root),
        )  # fmt: skip
        options = simulate.checked(card, options)
        return simulate.evaluate(card, options, simulate.points(options)[0]).seconds

    try:
        least = seconds(max(SMALL, base.ranks * _itemsize(curve.records[-1])), curve.records[-1])
    except (UserError, KeyError) as e:
        return replace(base, missing=f"no model of {plain(curve.algorithm, 40)} there: {e}"), None, []

    def model(size: int) -> Modelled | None:
        try:
            found = seconds(size, by_size[size])
        except UserError:
            return None
        return Modelled(found, None, None, SCHEDULE, found < 2 * least)

    return base, model, []


def _itemsize(record: Record) -> int:
    per_rank = simulate.Options((1,), (1,), collective=record.collective).of.size_count(record.ranks, record.count or 1)
    return max(1, record.size_bytes // max(1, per_rank))


# A curve as a table.


def _table(curve: Series) -> Table:
    last = curve.records[-1]
    rows = tuple(
        Row(0, r.size_bytes, _figures(r.out_of_place), _figures(r.in_place), r.count, r.dtype, r.op, r.root)
        for r in curve.records
    )
    told = dict.fromkeys(w for r in curve.records for w in r.warnings)
    tool = last.options.get("tool") if "source" in last.options else OWN_TOOL
    hosts = hostnames(last.environment)
    return Table(
        format="busbw", tool=tool if isinstance(tool, str) else "", collective=curve.setting.collective, rows=rows,
        system=_system(last.environment, curve.setting.ranks), line=0, last_line=0, ranks=curve.setting.ranks or None,
        ranks_from="the record", parameters={"nodes": str(len(hosts))} if hosts else {},
        notes=tuple(Note(0, "warning", w) for w in told),
    )  # fmt: skip


def _figures(timing: Timing | None) -> Figures | None:
    return (
        None if timing is None else Figures(seconds=timing.seconds, wrong=timing.wrong, samples=tuple(timing.samples))
    )


def _system(environment: dict, ranks: int) -> System:
    """What a record's environment tells, of a sweep or of a log that was imported; any of it may be missing or of another type."""
    gpu = environment.get("gpu") if isinstance(environment.get("gpu"), dict) else {}
    library = gpu.get("nccl") if isinstance(gpu.get("nccl"), dict) else {}
    settings = [s for s in (environment.get("settings"), library) if isinstance(s, dict)]
    told = {"nccl": library.get("version"), **environment}
    texts = {k: v for k in ("nccl", "rccl", "network", "plugin") if isinstance(v := told.get(k), str)}
    lists = {k: _texts(environment.get(k)) for k in ("nics", "hints")}
    devices = _devices(environment)
    return System(
        devices=tuple(devices) if len(devices) == ranks else (), facts={"gpu": devices[0].name} if devices else {},
        environment={str(k): str(v) for s in settings for k, v in s.items() if k != "version"}, **texts, **lists,
    )  # fmt: skip


def _texts(value) -> tuple[str, ...]:
    return tuple(str(v) for v in value) if isinstance(value, (list, tuple)) else ()


def _devices(environment: dict) -> list[Device]:
    host = next(iter(hostnames(environment)), "")
    called = [gpu.get("name") for gpu in gpus_measured(environment)] or _texts(environment.get("gpus"))
    return [Device(0, i, host, i, name) for i, name in enumerate(called) if isinstance(name, str)]


def _cache(environment: dict, device: bool) -> float:
    """Bytes of the largest cache; where the record does not tell, no GPU's and 32 MiB of a host's."""
    if device:
        sizes = [gpu.get("l2_bytes") for gpu in gpus_measured(environment)]
    else:
        caches = environment.get("caches")
        sizes = list(caches.values()) if isinstance(caches, dict) else []
    found = [s for s in sizes if isinstance(s, (int, float)) and not isinstance(s, bool) and s > 0]
    return max(found, default=math.inf if device else 32 << 20)
