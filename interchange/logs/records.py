"""A log's tables as result records, so that plot, report and compare take them as they take busbw's own files.

What a record has and a log has not is absent there (0, "" or no samples; see ``bench.record``). A row without a time gets one from
what it has: size / algbw, or size * factor(p) / busbw. Tables without rows of a collective's time (point-to-point tests, empty
tables) are left out, and said.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

from ...bench.log import Figures, Log, Row, Table
from ...bench.record import Record, ResultFile, Timing, busbw_factor
from ...bench.statistics import median_interval
from ...kernels.dtypes import DEVICE_DTYPES
from .collective import POINT_TO_POINT

_DTYPES = {d.nccl: d.name for d in DEVICE_DTYPES.values()} | {
    "char": "int8",
    "fp8_e4m3": "float8_e4m3",
    "fp8_e5m2": "float8_e5m2",
}


def records(log: Log, ranks: int | None = None, collective: str | None = None) -> ResultFile:
    """The log as a result file. ranks: p where the log does not tell it; collective: only tables of this one.

    Tables that share a label or have none are told apart by their place in the log ("table 2").
    """
    found, notes = (
        [],
        [f"{log.path}:{n.line}: {n.text}" for n in log.all_notes if n.kind in ("torn", "skipped", "limit")],
    )
    tables = [t for t in log.tables if collective in (None, t.collective)]
    usable = [t for t in tables if t.rows and t.collective not in POINT_TO_POINT]
    for t in tables:
        if t not in usable:
            notes.append(f"{log.path}:{t.line}: no rows of a collective ({t.collective or t.format}); left out")
    labels = _labels(usable)
    for table, label in zip(usable, labels):
        p = table.ranks or ranks
        untimed = 0
        same = {"environment": _environment(table), "warnings": _warnings(table, p)}  # of all rows
        for row in table.rows:
            record = _record(log, table, label, row, p, same)
            untimed += record is None
            if record is not None:
                found.append(record)
        if untimed:
            needs = "; name p with --ranks" if not p else ""
            notes.append(
                f"{log.path}:{table.line}: {untimed} of {len(table.rows)} rows have no time and none can be computed{needs}"
            )
    return ResultFile(log.path, found, {}, notes)


def _labels(tables: Sequence[Table]) -> list[str]:
    """ "" for one table; else the tables' own labels, with their place where those do not tell them apart."""
    if len(tables) == 1:
        return [""]
    own = [t.label for t in tables]
    return [t if t and own.count(t) == 1 else f"{t} (table {i})".strip() for i, t in enumerate(own, 1)]


def _record(log: Log, table: Table, label: str, row: Row, p: int | None, same: dict) -> Record | None:
    halves = [_timing(h, row, table, p) for h in (row.out_of_place, row.in_place)]
    if not any(halves):
        return None
    transport = _transport(table)
    # The library chooses for each size; what it chose stands in some logs.
    algorithm = label or {"mpi-library": "mpi-native"}.get(transport, transport)
    chosen = "-".join(w.lower() for w in (row.algorithm, row.protocol) if w) or algorithm
    return Record(
        algorithm=algorithm, chosen=chosen, transport=transport, clock="wall", ranks=p or 0, size_bytes=row.size_bytes,
        count=row.count or 0, dtype=_DTYPES.get(row.dtype, row.dtype), op="" if row.op == "none" else row.op,
        channels=row.channels or 0, slices=0, out_of_place=halves[0], in_place=halves[1], collective=table.collective,
        options={"source": log.path, "line": row.line, "tool": table.tool or table.format, "version": table.version,
                 **table.parameters},
        run=hashlib.sha256(f"{log.path}:{table.line}".encode()).hexdigest()[:12], time=row.timestamp, **same,
    )  # fmt: skip


def _warnings(table: Table, p: int | None) -> list[str]:
    """What the reader concluded or the log warned of; where p was named by the user, that."""
    told = [n.text for n in table.notes if n.kind in ("warning", "units", "ranks", "collective")]
    if p and not table.ranks:
        told = [t for t in told if "--ranks" not in t] + [f"p is not in the log; {p} ranks were named"]
    return told


def _timing(half: Figures | None, row: Row, table: Table, p: int | None) -> Timing | None:
    if half is None:
        return None
    seconds = half.seconds
    if seconds is None and half.algbw:
        seconds = row.size_bytes / half.algbw
    if seconds is None and half.busbw and p and (f := busbw_factor(p, table.collective)):
        seconds = row.size_bytes * f / half.busbw
    if seconds is None or not 0 <= seconds < 1e12:
        return None
    low = high = seconds
    if len(half.samples) > 1:
        seconds, low, high = median_interval(half.samples)
    return Timing(
        seconds,
        low,
        high,
        list(half.samples),
        1,
        0,
        "log",
        int(half.wrong) if half.wrong is not None and half.wrong < 1 << 60 else None,
    )


def _transport(table: Table) -> str:
    """As busbw names the libraries it measures itself; "library" where the log does not tell which it was."""
    tool = table.tool
    if tool == "IMB" or tool.startswith(("OSU MPI", "OSU UPC", "OSU OpenSHMEM")):
        return "mpi-library"
    if tool.startswith("rccl") or table.system.rccl:
        return "rccl"
    return "nccl" if tool in ("nccl-tests", "all_reduce_bench.py", "OSU NCCL") or table.system.nccl else "library"


def _environment(table: Table) -> dict:
    """The system in the words of busbw's own environment record, without the list of devices, which may be long."""
    system = table.system
    told = {
        k: v
        for k, v in asdict(system).items()
        if v not in (None, "", (), {}, 0) and k not in ("devices", "topology", "graphs")
    }
    out = {"hostnames": system.hosts, "gpus": system.gpus, "devices": len(system.devices)}
    settings = told.pop("environment", {})
    return {**{k: v for k, v in out.items() if v}, **told, **({"settings": settings} if settings else {})}
