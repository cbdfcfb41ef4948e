"""Measured curves from files, for calibration: busbw's own results, logs of other tools, tables of published points."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from ..bench.record import Record, busbw_factor
from ..errors import UserError
from ..fabric.cards.curves import Curve, checked
from ..fabric.library import nccl, published, releases
from .logs import read as read_log
from .results import results_of

_FORCED = ("ring", "tree", "nvls", "nvls-tree", "collnet-direct", "collnet-chain")
CONTRADICTION = 0.10  # of busbw / algbw against its formula, beyond what the printed digits allow


def curves_of(path: str | Path, ranks: int | None = None) -> list[Curve]:
    """The curves of a file, one for each scale, collective, algorithm and release in it.

    ranks: of a log that does not tell them. Raises UserError for a file without a curve, with rows that contradict
    themselves, or with a time of zero.
    """
    path = Path(path)
    if _is_table(path):
        return _of_points(published.read(path), path)
    _contradictions(path)
    result = results_of(path, ranks)
    groups: dict[tuple, dict[int, float]] = {}
    for r in result.records:
        if r.clock != "wall":
            continue
        if r.ranks < 2:
            what = "one rank" if r.ranks == 1 else "ranks are not told; name them with --ranks"
            raise UserError(f"{path}: {what}; accepted: curves over 2 or more ranks")
        if r.best.seconds <= 0:
            raise UserError(f"{path}: {r.size_bytes} bytes in 0 s; accepted: times above 0")
        key = (r.ranks, _nodes(r), r.collective, _algorithm(r), _library(r))
        times = [t.seconds for t in (r.out_of_place, r.in_place) if t is not None and t.seconds > 0]
        here = groups.setdefault(key, {})  # a first row holds warm-up: the smaller of what was timed
        here[r.size_bytes] = min([*times, here.get(r.size_bytes, times[0])])
    if not groups:
        raise UserError(f"{path}: no measured row; accepted: times of the wall clock")
    return [_curve(key, times, path) for key, times in groups.items()]


def _curve(key: tuple, times: dict[int, float], path: Path) -> Curve:
    ranks, nodes, collective, algorithm, library = key
    sizes = tuple(sorted(s for s in times if s > 0))
    made = Curve(
        ranks, nodes, collective, algorithm, library, "nccl-tests", path.name, sizes, tuple(times[s] for s in sizes)
    )
    return checked(made, str(path))


def _is_table(path: Path) -> bool:
    try:
        with path.open("rb") as f:
            head = f.readline(4096).decode("utf-8-sig", errors="replace")
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from None
    return all(c in head.strip().split(",") for c in ("size_bytes", "ranks", "algorithm"))


def _of_points(points: Iterable[published.Point], path: Path) -> list[Curve]:
    groups: dict[tuple, dict[int, float]] = {}
    for p in points:
        if p.seconds == 0 and p.size:
            raise UserError(f"{path}:{p.line}: {p.size} bytes in 0 s; accepted: times above 0")
        measured = p.measured()
        if measured is None:
            continue
        if p.seconds and p.busbw and p.busbw >= 1e9:
            _agree(p.busbw, 2 * (p.ranks - 1) / p.ranks * p.size / p.seconds, f"{path}:{p.line}", p.ranks)
        release = releases.nearest(p.library)
        algorithm = p.algorithm_name or "auto"
        key = (p.ranks, p.nodes or 0, "all_reduce", algorithm, f"nccl-{release.name}" if release else "")
        groups.setdefault(key, {})[p.size] = measured[0]
    if not groups:
        raise UserError(f"{path}: no row with a size, ranks and a time or a busbw; accepted: at least one")
    return [_curve(key, times, path) for key, times in groups.items()]


def _agree(stated: float, computed: float, where: str, ranks: int) -> None:
    if abs(stated / computed - 1) > CONTRADICTION:
        raise UserError(
            f"{where}: busbw {stated / 1e9:.4g} GB/s, but the time over {ranks} ranks gives {computed / 1e9:.4g}; accepted: "
            f"rows that agree within {CONTRADICTION:.0%}"
        )


def _contradictions(path: Path) -> None:
    """Raises UserError for a log with a row whose busbw over algbw fits no number of ranks."""
    with path.open("rb") as f:
        if f.read(4096).lstrip().startswith(b'{"schema":"busbw.'):
            return
    for table in read_log(path).tables:
        if table.collective not in ("all_reduce", "all_gather", "reduce_scatter"):
            continue
        most = 2.0 if table.collective == "all_reduce" else 1.0
        for row in table.rows:
            for half in (row.out_of_place, row.in_place):
                if half is None or not half.busbw or not half.algbw or half.algbw < 1e9:
                    continue
                slack = half.busbw_error / half.busbw + half.algbw_error / half.algbw
                ratio = half.busbw / half.algbw
                if ratio > most * (1 + slack) or ratio < most / 2 * (1 - slack):
                    raise UserError(
                        f"{path}:{row.line}: busbw {half.busbw / 1e9:.4g} over algbw {half.algbw / 1e9:.4g} GB/s fits no "
                        f"number of ranks; accepted: {most / 2:g} to {most:g} of it ({table.collective})"
                    )
                if table.ranks and abs(ratio / busbw_factor(table.ranks, table.collective) - 1) > CONTRADICTION + slack:
                    raise UserError(
                        f"{path}:{row.line}: busbw over algbw is {ratio:.4g}, not that of {table.ranks} ranks; "
                        "accepted: rows of one p"
                    )


def _algorithm(record: Record) -> str:
    words = record.algorithm.lower().replace("_", "-")
    found = next((name for name in sorted(_FORCED, key=len, reverse=True) if re.match(rf"{name}\b", words)), None)
    forced = str(record.environment.get("settings", {}).get("NCCL_ALGO", "")).lower()
    if found is None and forced in _FORCED:
        found = forced
    if found is None and record.transport not in ("nccl", "rccl", "mpi-library"):
        return record.chosen or record.algorithm
    return found if found in nccl.ALGORITHMS else "auto"


def _library(record: Record) -> str:
    release = releases.nearest(str(record.environment.get("nccl", "")))
    return f"nccl-{release.name}" if release else ""


def _nodes(record: Record) -> int:
    hosts = record.environment.get("comm_nodes") or len(record.environment.get("hostnames") or ())
    return hosts if isinstance(hosts, int) and hosts > 0 and record.ranks % hosts == 0 else 0
