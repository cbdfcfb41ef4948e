"""A report as Markdown, for an issue or a wiki: answers, tables of sizes, what differs between files. What a file says is text."""

from __future__ import annotations

from collections.abc import Sequence

from ..answer.above import explained
from ..answer.tables import Answered
from ..answer.words import MOST_CAUSES, against, causes_heading, headline, strength, table_cells
from ..bench.compare import differences
from ..bench.record import Record, ResultFile
from ..bench.summary import IN_PLACE, OUT_OF_PLACE, plain, rate_words, series, settings, size_words, time_words, words
from .comparison import MOST_DIFFERENCES, safe
from .curves import headline as title
from .curves import provenance

ROWS = 200  # of one table


def markdown(results: Sequence[ResultFile], answers: Sequence[Answered] = ()) -> str:
    """The whole text."""
    full = [f for f in results if f.records]
    records = [r for f in full for r in f.records]
    parts = [f"# {safe(title(records)) if records else 'Is this number normal?'}", ""]
    parts += [safe(provenance(records)), ""] * bool(records)
    for a in answers:
        parts += _answer(a)
    for f in full:
        parts += _file(f)
    for f in full[1:]:
        found = differences(full[0].records, f.records)[:MOST_DIFFERENCES]
        names = [safe(plain(x.path, 80)) for x in (full[0], f)]
        parts += [f"## What differs: {names[0]} and {names[1]}", "", *table(("", *names), found), ""]
    return "\n".join(parts).rstrip() + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table. head: Markdown; rows: plain text."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(safe(plain(c, 120)) or "–" for c in row) + " |" for row in rows]


def _answer(a: Answered) -> list[str]:
    out = [f"## {safe(plain(a.name, 120))}: {a.verdict}", ""]
    if a.answer is None:
        return [*out, *(f"- {safe(plain(t, 300))}" for t in a.lines), ""]
    answer, situation = a.answer, a.answer.situation
    out += [safe(headline(answer)), ""]
    if answer.ranges:
        out += table(
            ("sizes", "measured", safe(against(answer)), "of that", "verdict"), [table_cells(r) for r in answer.ranges]
        )
        out.append("")
    said = [*explained(answer), *answer.remarks, situation.missing]
    said += [f"known: {k}" for k in situation.known] + [f"assumed: {k}" for k in situation.assumed]
    out += [*(f"- {safe(plain(t, 300))}" for t in said if t), ""]
    if a.causes:
        out += [f"### {causes_heading(answer).capitalize()}", ""]
    for i, f in enumerate(a.causes[:MOST_CAUSES], 1):
        out.append(f"{i}. **{safe(f.title)}** ({strength(f.weight)})")
        out += [f"   - seen here: {safe(plain(e, 300))}" for e in f.evidence]
        out += [f"   - would show: {safe(f.would_show)}", f"   - to confirm: {safe(f.confirm)}"]
    return [*out, ""] if a.causes else out


def _file(f: ResultFile) -> list[str]:
    out = [f"## Results: {safe(plain(f.path, 120))}", ""]
    out += [f"- {safe(line.strip())}" for line in words(f.records, f.limits)]
    everything = series(f.records)
    for group in settings(everything):
        for s in (s for s in everything if s.setting == group):
            out += ["", f"### {safe(plain(s.algorithm, 60))}, {safe(group.words)}", ""]
            out += table(
                ("size", "out-of-place", "busbw", "#wrong", "in-place", "busbw", "#wrong"),
                [_row(r) for r in s.records[:ROWS]],
            )
            out += [f"{len(s.records) - ROWS} more sizes are in the file."] * (len(s.records) > ROWS)
    return [*out, ""]


def _row(r: Record) -> tuple[str, ...]:
    cells = [size_words(r.size_bytes)]
    for mode in (OUT_OF_PLACE, IN_PLACE):
        t = getattr(r, mode)
        rate = rate_words(r.busbw(t)) if t and r.ranks > 1 else ""
        cells += [time_words(t.seconds, "µs"), rate, "" if t.wrong is None else str(t.wrong)] if t else ["", "", ""]
    return tuple(cells)
