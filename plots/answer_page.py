"""The answer on a page: the verdict first, causes with their evidence, the picture with the table behind it, and what it rests on.

Everything from a log passes through ``page.escape``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..answer.above import explained
from ..answer.pairs import suspects
from ..answer.situation import Situation
from ..answer.tables import Answered
from ..answer.verdict import BAD, HEALTHY, Answer, Judged
from ..answer.words import MOST_CAUSES, against, causes_heading, headline, strength, table_cells
from ..bench.summary import plain, rate_words, size_words, time_words
from ..fabric.library import published as points
from . import style
from .answer_picture import bandwidth, figures, said
from .curves import PlotError, render
from .hover import columns
from .page import escape as _e
from .page import heads, inline, variable, wide
from .published import Published, published

MOST_ANSWERS = 12  # that are shown in full
MOST_ENDS = 64  # rows and columns of a map of pairs
MOST_AUTOMATIC = 3  # published series that are looked up unasked


def section(found: Sequence[Answered], others: Sequence[Published] = ()) -> str:
    """The answers of all logs, in the order of files and tables. "" for none."""
    if not found:
        return ""
    parts = []
    if len(found) > 1:
        rows = "".join(
            f'<tr><th scope="row" class="l">{_e(plain(a.name, 120))}</th><td class="l">{_said(a)}</td></tr>'
            for a in found
        )
        table = f'<table class="pairs">{heads(("table", "verdict"), (0, 1))}<tbody>{rows}</tbody></table>'
        parts.append(f'<section class="answer"><h2>Are these numbers normal?</h2>{wide("Verdicts", table)}</section>')
    for i, a in enumerate(found[:MOST_ANSWERS]):
        parts.append(_one(a, i, len(found) == 1, others) if a.answer else _pairs(a))
    if len(found) > MOST_ANSWERS:
        parts.append(f'<p class="note">{len(found) - MOST_ANSWERS} more tables are in the list above only.</p>')
    return "".join(parts)


def beside(situation: Situation, others: Sequence[Published]) -> list[Published]:
    """The published series to draw with an answer: those asked for of as many ranks, else some of the same GPU, ranks and nodes."""
    if situation.collective != "all_reduce" or not situation.ranks:
        return []
    asked = [p for p in others if p.ranks == situation.ranks]
    gpu = re.search(r"\b[A-Z]{1,2}\d{2,3}\b", situation.gpu)
    if asked or not gpu:
        return asked
    same = [
        p
        for p in points.read()
        if (p.ranks, p.nodes) == (situation.ranks, situation.nodes)
        and re.search(rf"\b{gpu.group()}\b", p.gpu)
        and p.algorithm_name == "auto"
        and p.measured()
    ]
    names = list(dict.fromkeys(p.series for p in same))[:MOST_AUTOMATIC]
    return published([p for p in same if p.series in names])[:MOST_AUTOMATIC] if names else []


def _near(answer: Answer, others: Sequence[Published]) -> list[Published]:
    """The series with their points from half the smallest size of the answer to twice the largest, where they have any."""
    sizes = [r.size for r in answer.rows] or [0]
    near = [
        p._replace(points=tuple((s, t) for s, t in p.points if min(sizes) / 2 <= s <= 2 * max(sizes))) for p in others
    ]
    return [p for p in near if p.points]


def _said(a: Answered) -> str:
    """The verdict in one sentence, its word in the verdict's colour. Pairs that are alike have none: what is usual is not known."""
    if a.answer is None and a.verdict not in BAD:
        return _e(plain(a.lines[0], 200))
    text = headline(a.answer) if a.answer else a.verdict
    word = text[: len(a.verdict)]
    return f"{_badge(word, a.verdict)}{_e(text[len(word) :])}"


def _badge(word: str, verdict: str) -> str:
    kind = "bad" if verdict in BAD else "good" if verdict == HEALTHY else "unsure"
    return f'<strong class="{kind}">{_e(word)}</strong>'


def _one(a: Answered, index: int, alone: bool, others: Sequence[Published]) -> str:
    answer = a.answer
    situation = answer.situation
    drawn = _near(answer, beside(situation, others))
    where = f"{situation.collective} over {situation.ranks or 'an unknown number of'} ranks"
    where += f" on {situation.nodes} node{'s' * (situation.nodes > 1)}" if situation.nodes else ""
    where += f" of {plain(situation.gpu, 50)}" if situation.gpu else ""
    title = "Is this number normal?" if alone else plain(a.name, 120)
    lines = "".join(
        f"<li>{_e(plain(t, 300))}</li>" for t in (*explained(answer), *answer.remarks, situation.missing) if t
    )
    figure = "" if situation.against else _figure(answer, index, drawn)  # a result file's own figure is below
    rest = f"{_causes(a)}{figure}{_rests(situation)}"
    return (
        f'<section class="answer"><h2>{_e(title)}</h2>'
        f'<p class="verdict">{_said(a)}</p><p class="from">{_e(where)}</p>'
        f"{_ranges(answer)}{f'<ul>{lines}</ul>' if lines else ''}{rest}</section>"
    )


def _ranges(answer: Answer) -> str:
    if not answer.ranges:
        return ""
    rows = ""
    for r in answer.ranges:
        span, measured, band, share, verdict = table_cells(r)
        cells = "".join(f"<td>{_e(c or '–')}</td>" for c in (measured, band, share))
        rows += (
            f'<tr><th scope="row" class="l">{_e(span)}</th><td class="l">{_badge(verdict, verdict)}</td>{cells}</tr>'
        )
    head = heads(("sizes", "verdict", "measured", against(answer), "of that"), (0, 1))
    return (
        wide("Verdict by range of sizes", f'<table class="ranges">{head}<tbody>{rows}</tbody></table>')
        + '<p class="note">Figures are of the largest size of each range.</p>'
    )


def _causes(a: Answered) -> str:
    if not a.causes:
        return ""
    items = ""
    for f in a.causes[:MOST_CAUSES]:
        seen = "".join(f"<li>{_e(plain(t, 300))}</li>" for t in f.evidence)
        items += (
            f"<li><strong>{_e(f.title)}</strong> <span class=file>{_e(strength(f.weight))}</span><dl>"
            f"<dt>seen here</dt><dd><ul>{seen or '<li>nothing that speaks against it</li>'}</ul></dd>"
            f"<dt>would show</dt><dd>{_e(f.would_show)}</dd><dt>to confirm</dt><dd>{_e(f.confirm)}</dd></dl></li>"
        )
    rest = a.causes[MOST_CAUSES:]
    more = f'<p class="note">Less likely: {_e("; ".join(f.title for f in rest))}.</p>' if rest else ""
    heading = causes_heading(a.answer).capitalize()
    return f'<h3>{_e(heading)}</h3><ol class="causes">{items}</ol>{more}'


def _figure(answer: Answer, index: int, drawn: Sequence[Published]) -> str:
    try:
        panels = figures(answer, drawn)
    except PlotError:
        return ""
    words, parts = said(answer, drawn), []
    for i, fig in enumerate(panels):
        svg = render(fig, "svg", **{"svg.fonttype": "none", "savefig.facecolor": "none"}).decode()
        title = "bandwidth over message size" if i == 0 else "time over message size"
        overlay = columns(fig.axes, words, focus=i == 0)
        parts.append(inline(svg, f"answer{index}-{i}-", f"Measured, modelled and published {title}", overlay))
    keys = ['<li><span class="key line"></span>measured</li>']
    if any(r.verdict in BAD for r in answer.rows):
        keys.append('<li><span class="key cross" aria-hidden="true">✖</span>measured, and not as it should be</li>')
    if any(r.modelled for r in answer.rows):
        keys += [
            '<li><span class="key dash"></span>modelled</li>',
            '<li><span class="key band50"></span>holds half of systems that the model had not seen</li>',
            '<li><span class="key band90"></span>holds 90 % of them</li>',
        ]
    keys += [
        f'<li><span class="key mark" aria-hidden="true">{mark}</span>{_e(plain(p.label, 140))}</li>'
        for mark, p in zip("□△◇▽⬠◁▷⬡", drawn)
    ]
    return (
        f'<figure class="two"><ul class="legend">{"".join(keys)}</ul><div class="panels">{"".join(parts)}</div>'
        "<figcaption>Both axes logarithmic. Hover, tap, or move with the Tab key for the values at a size.</figcaption></figure>"
        f"<details><summary>The figure as a table</summary>{_sizes(answer)}{_published(drawn)}</details>"
    )


def _sizes(answer: Answer) -> str:
    names = ("size", "time", "bandwidth", "modelled", "50 % band", "90 % band", "of the model", "choice", "verdict")
    rows = "".join(_size(r) for r in answer.rows)
    return wide("All sizes", f"<table>{heads(names, ())}<tbody>{rows}</tbody></table>")


def _size(r: Judged) -> str:
    cells = [time_words(r.seconds, "µs"), rate_words(bandwidth(r, r.seconds))]
    if r.modelled:
        m, band = r.modelled, r.modelled.band
        cells.append(time_words(m.seconds, "µs"))
        cells += [
            f"{time_words(low, 'µs')} to {time_words(high, 'µs')}"
            for low, high in ((band.low50, band.high50), (band.low90, band.high90))
        ]
        cells += [f"{100 * r.share:.0f} %", f"{m.choice.algorithm} {m.choice.protocol}".strip()]
    else:
        cells += ["–"] * 5
    body = "".join(f"<td>{_e(c)}</td>" for c in cells)
    return f'<tr><th scope="row">{_e(size_words(r.size))}</th>{body}<td>{_e(r.verdict)}</td></tr>'


def _published(drawn: Sequence[Published]) -> str:
    if not drawn:
        return ""
    rows = "".join(
        f'<tr><th scope="row" class="l">{_e(plain(p.name, 60))}</th><td>{_e(size_words(size))}</td>'
        f"<td>{_e(time_words(seconds, 'µs'))}</td><td>{_e(rate_words(1e9 * p.bandwidth(size, seconds, bus=True)))}</td></tr>"
        for p in drawn
        for size, seconds in p.points
    )
    sources = "; ".join(dict.fromkeys(plain(p.source, 300) for p in drawn))
    head = heads(("series", "size", "time", "busbw"))
    return wide(
        "Published points",
        f"<table><caption>Published: {_e(sources)}</caption>{head}<tbody>{rows}</tbody></table>",
    )


def _rests(situation: Situation) -> str:
    parts = ""
    for name, what in (("known", situation.known), ("assumed", situation.assumed)):
        if what:
            items = "".join(f"<li>{_e(plain(t, 200))}</li>" for t in what)
            parts += f"<dt>{name}</dt><dd><ul>{items}</ul></dd>"
    return f"<h3>What it rests on</h3><dl>{parts}</dl>" if parts else ""


def _pairs(a: Answered) -> str:
    lines = "".join(f"<li>{_e(plain(t, 300))}</li>" for t in a.lines)
    return (
        f'<section class="answer"><h2>{_e(plain(a.name, 120))}</h2><p class="verdict">{_said(a)}</p><ul>{lines}</ul>'
        f"{_map(a)}</section>"
    )


def _map(a: Answered) -> str:
    """Bandwidth from each end (rows) to each other (columns): a table, shaded by its share of the usual figure."""
    found = suspects(a.pairs)
    ends = list(dict.fromkeys(end for p in a.pairs for end in (p.source, p.target)))
    if found is None or found.good <= 0:
        return ""
    cut = ""
    if len(ends) > MOST_ENDS:
        slow = [end.name for end in found.ends] + [e for p in found.slow for e in (p.source, p.target)]
        ends = list(dict.fromkeys([*slow, *ends]))[:MOST_ENDS]
        cut = f'<p class="note">The slowest {MOST_ENDS} ends are shown.</p>'
    rates = {(p.source, p.target): p.bandwidth for p in a.pairs if p.bandwidth}
    rows = ""
    for source in ends:
        cells = ""
        for target in ends:
            rate = rates.get((source, target))
            if rate is None:
                cells += "<td>–</td>"
                continue
            share = min(1.0, rate / found.good)
            slow = rate < found.line * found.good
            cells += (
                f'<td class="heat{" slow" if slow else ""}" style="--share: {100 * (1 - share):.0f}%">{rate / 1e9:.1f}'
                f"{' ▼' if slow else ''}</td>"
            )
        rows += f'<tr><th scope="row" class="l">{_e(plain(source, 24))}</th>{cells}</tr>'
    caption = f"GB/s from each row to each column; shaded by how far below the usual figure, ▼ below {100 * found.line:.0f} % of it"
    head = heads(["from", *(plain(e, 24) for e in ends)])
    table = f'<table class="map" style="--series: {variable(style.VERMILLION)}"><caption>{caption}</caption>{head}'
    return wide("Map of pairs", f"{table}<tbody>{rows}</tbody></table>") + cut
