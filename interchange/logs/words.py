"""A log in plain English: what was read, what was not, and what was concluded, with line numbers."""

from __future__ import annotations

from collections import Counter

from ...bench.log import UNBOUNDED, Figures, Log, System, Table
from ...bench.summary import plain, rate_words, size_words, time_words

MOST_LINES = 40  # of notes of one kind
_HEADINGS = (
    ("warning", "the log warns"),
    ("torn", "ends too early"),
    ("skipped", "not read"),
    ("limit", "not kept"),
    ("ranks", "ranks"),
    ("collective", "collective"),
    ("units", "units"),
    ("read", "how it was read"),
)


def words(log: Log) -> list[str]:
    """One line a fact. Nothing of the log's text goes out but cut to printable lines."""
    lines = [f"{plain(log.path, 120)}: {log.read_lines} of {log.lines} lines told something"]
    for i, table in enumerate(log.tables, 1):
        lines += [f"  table {i}: {t}" if n == 0 else f"    {t}" for n, t in enumerate(_table(table))]
    if log.pairs:
        lines.append(f"  {len(log.pairs)} figures between pairs, lines {log.pairs[0].line} to {log.pairs[-1].line}")
    if not log.tables and not log.pairs:
        lines.append("  no table: nothing here is known to be a benchmark's figures")
    systems = list({id(t.system): t.system for t in log.tables}.values()) or [log.system]
    for n, system in enumerate(systems, 1):
        if facts := _system(system):
            lines.append(f"  system{f' of run {n}' if len(systems) > 1 else ''}: {'; '.join(facts)}")
    for kind, heading in _HEADINGS:
        notes = [n for n in log.all_notes if n.kind == kind]
        if notes:
            lines.append(f"  {heading}:")
        for note in notes[:MOST_LINES]:
            where = f"line {note.line}: " if note.line else ""
            lines.append(f"    {where}{plain(note.text, 240)}")
        if len(notes) > MOST_LINES:
            lines.append(f"    and {len(notes) - MOST_LINES} more")
    return lines


def _table(table: Table) -> list[str]:
    tool = " ".join(w for w in (table.tool or f"a table ({table.format})", table.version) if w)
    who = f"{table.ranks} rank{'s' * (table.ranks != 1)}" if table.ranks else _unknown(table)
    why = f" ({table.ranks_from})" if table.ranks_from else ""
    label = f" {plain(table.label, 60)!r}" if table.label else ""
    runs = f", {table.runs} separate runs" if table.runs > 1 else ""
    lines = [
        f"lines {table.line} to {table.last_line}: {plain(tool, 40)}, {plain(table.collective, 30)} over {who}{why}{runs}{label}"
    ]
    if not table.rows:
        return [*lines, "no rows"]
    sizes = [r.size_bytes for r in table.rows]
    kinds = (
        ", ".join(dict.fromkeys(plain(f"{r.dtype} {r.op}".strip(), 20) for r in table.rows if r.dtype))
        or "type not told"
    )
    again = f", {len(sizes) - len(set(sizes))} of them again" if len(set(sizes)) < len(sizes) else ""
    lines.append(f"{len(sizes)} rows{again}, {size_words(min(sizes))} to {size_words(max(sizes))}, {plain(kinds, 60)}")
    if best := max(((f.busbw or 0, r.size_bytes, "busbw") for r in table.rows if (f := _best(r))), default=None):
        if best[0]:
            lines.append(f"highest busbw {rate_words(best[0])} at {size_words(best[1])}")
    times = [(r.size_bytes, f.seconds) for r in table.rows if (f := _best(r)) and f.seconds]
    if times:
        size, seconds = min(times)
        lines.append(f"{'CPU time' if table.host_time else 'time'} {time_words(seconds)} at {size_words(size)}")
    algorithms = Counter(" ".join(w for w in (r.algorithm, r.protocol) if w) for r in table.rows if r.algorithm)
    if algorithms:
        lines.append("by row: " + ", ".join(f"{plain(a, 30)} at {n}" for a, n in algorithms.most_common(6)))
    return lines


def _best(row) -> Figures | None:
    return row.out_of_place or row.in_place


def _unknown(table: Table) -> str:
    if table.ranks_low > 1 or table.ranks_high < UNBOUNDED:
        high = f" to {table.ranks_high}" if table.ranks_high < UNBOUNDED else " or more"
        return f"{table.ranks_low}{high} ranks"
    return "a number of ranks that is not in the log"


def _system(s: System) -> list[str]:
    facts = []
    if s.devices:
        hosts = len(s.hosts)
        facts.append(f"{len(s.devices)} devices on {hosts} host{'s' * (hosts != 1)}")
    facts += [plain(g, 40) for g in s.gpus[:3]]
    for name, value in (
        ("NCCL", s.nccl), ("RCCL", s.rccl), ("CUDA", s.cuda), ("ROCm", s.rocm), ("plug-in", s.plugin), ("network", s.network),
        ("NICs", ", ".join(s.nics[:8])), ("GPUDirect RDMA", {True: "in use", False: "NOT in use", None: ""}[s.gdr]),
        ("channels", s.channels or ""), ("ranks", s.comm_ranks or ""), ("nodes", s.comm_nodes or ""),
        ("connected", ", ".join(s.connected[:4])),
    ):  # fmt: skip
        if value:
            facts.append(f"{name} {plain(value, 120)}")
    if s.transports:
        most = sorted(s.transports.items(), key=lambda kv: -kv[1])[:4]
        facts.append("channels by " + ", ".join(f"{plain(k, 30)} ({n})" for k, n in most))
    if s.environment:
        shown = [f"{k}={plain(v, 30)}" for k, v in list(s.environment.items())[:8]]
        facts.append(
            "set: " + " ".join(shown) + (f" and {len(s.environment) - 8} more" if len(s.environment) > 8 else "")
        )
    return facts
