"""An answer as text: the verdict first, then sizes, causes, and what it rests on."""

from __future__ import annotations

from collections.abc import Sequence

from ..bench.summary import plain, rate_words, size_words, time_words
from .above import explained
from .causes import Finding
from .verdict import COLLAPSES, HEALTHY, IMPOSSIBLE, LATENCY, LOW, WRONG, Answer, Range

MOST_CAUSES = 4


def words(name: str, answer: Answer, found: Sequence[Finding], most: int = MOST_CAUSES) -> list[str]:
    """Lines for a terminal. name: of the log and the table."""
    situation = answer.situation
    where = f"{situation.ranks or '?'} ranks" + (
        f" on {situation.nodes} node{'s' * (situation.nodes > 1)}" if situation.nodes else ""
    )
    gpu = f" of {plain(situation.gpu, 50)}" if situation.gpu else ""
    lines = [f"{plain(name, 100)}: {situation.collective} over {where}{gpu}", f"  {headline(answer)}"]
    if answer.rows:
        lines += ["", *table(answer.ranges, against(answer)), ""]
    lines += [f"  {s}" for s in (*explained(answer), *answer.remarks)]
    if situation.missing:
        lines.append(f"  {situation.missing}")
    if found:
        lines.append(f"  {causes_heading(answer)}:")
    for i, f in enumerate(found[:most], 1):
        lines.append(f"    {i}. {f.title} ({strength(f.weight)})")
        lines += [f"       seen here: {plain(e, 200)}" for e in f.evidence]
        lines += [f"       would show: {f.would_show}", f"       to confirm: {f.confirm}"]
    if situation.known:
        lines.append(f"  known: {'; '.join(plain(k, 120) for k in situation.known)}")
    if situation.assumed:
        lines.append(f"  assumed: {'; '.join(plain(a, 160) for a in situation.assumed)}")
    return lines


def causes_heading(answer: Answer) -> str:
    """What the list of causes is of."""
    return (
        "slower than three quarters of such systems; what may hold it back" if answer.slow_quarter else "likely causes"
    )


def strength(weight: float) -> str:
    """The weight of the evidence in a word."""
    if weight >= 0.85:
        return "the log says so"
    return "strong evidence" if weight >= 0.6 else "fits" if weight >= 0.4 else "possible"


def headline(answer: Answer) -> str:
    """The verdict in one sentence."""
    rows = answer.rows
    bad = [r for r in rows if r.verdict == answer.verdict]
    span = _span(bad) if bad else ""
    if answer.verdict == WRONG:
        return (
            f"WRONG DATA: {f'{n:g} elements' if (n := answer.table.wrong) else 'results deviate'}; no time of it counts"
        )
    if answer.verdict == IMPOSSIBLE:
        return f"IMPOSSIBLE at {span}: above what the wires allow"
    if answer.verdict == COLLAPSES:
        return f"COLLAPSES from {size_words(bad[0].size)} on{_share(answer, bad)}"
    if answer.verdict in (LOW, LATENCY):
        return f"{answer.verdict.upper()} at {span}{_share(answer, bad)}"
    if answer.verdict == HEALTHY:
        return f"healthy{_share(answer, bad)}" + (
            "" if len(bad) == len(rows) else f" at {span}; the other sizes cannot be judged"
        )
    return "cannot say" + (": the log has no times" if not rows else "")


def _share(answer: Answer, rows) -> str:
    shares = sorted(r.share for r in rows if r.share is not None)
    of = answer.situation.against or "the modelled bandwidth"
    middle = " in the middle" if len(shares) > 1 else ""
    return f": {100 * shares[len(shares) // 2]:.0f} % of {of}{middle}" if shares else ""


def _span(rows) -> str:
    first, last = size_words(rows[0].size), size_words(rows[-1].size)
    return first if first == last else f"{first} to {last}"


def against(answer: Answer) -> str:
    """The heading of what measured times are held against."""
    return answer.situation.against or "model, 90 % band"


def table(ranges: Sequence[Range], heading: str = "model, 90 % band") -> list[str]:
    """One line a range: its sizes, what was measured and modelled (`heading`) at its last size, and the verdict."""
    lines = [f"    {'sizes':<22} {'measured':>22} {plain(heading, 34):>34} {'of that':>9}  verdict"]
    for r in ranges:
        span, measured, band, share, verdict = table_cells(r)
        lines.append(f"    {span:<22} {measured:>22} {band:>34} {share:>9}  {verdict}")
    return lines


def table_cells(r: Range) -> tuple[str, str, str, str, str]:
    """Sizes, measured, modelled with its band, share of the model, verdict; "" for what is not known. A bandwidth, or a time where
    latency decides."""
    last = r.rows[-1]
    m = last.modelled
    if r.verdict == LATENCY or (m is not None and m.latency_bound) or last.busbw is None:
        measured = time_words(last.seconds)
        figures = [] if m is None else [time_words(t) for t in (m.seconds, *(m.band[::3] if m.band else ()))]
    else:
        scale = last.busbw * last.seconds
        measured = rate_words(last.busbw)
        figures = [] if m is None else [rate_words(scale / t) for t in (m.seconds, *(m.band[::-3] if m.band else ()))]
    band = "{} ({} to {})".format(*figures) if len(figures) == 3 else "".join(figures)
    share = "" if last.share is None else f"{100 * last.share:.0f} %"
    return _span(r.rows), measured, band, share, r.verdict
