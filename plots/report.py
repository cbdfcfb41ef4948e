"""The report: one HTML page that stands alone. No script, no outside resource; it opens offline, prints, and follows
the reader's light or dark setting.

Everything that comes from a file passes through ``_e`` (HTML-escaped) or is a number formatted here, so a hostile file
can at worst look odd. Figures are inline SVG whose colours are CSS variables.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from .. import __version__
from ..answer.tables import Answered
from ..bench.compare import differences
from ..bench.record import SCHEMA, Record, ResultFile, Timing, busbw_factor
from ..bench.summary import (
    MEMORY_KERNELS,
    WALL,
    Series,
    Traffic,
    bandwidth,
    bandwidth_name,
    crossover,
    fraction_of_limit,
    latency,
    limit_busbw,
    names,
    peak,
    plain,
    rate_words,
    series,
    settings,
    size_words,
    time_words,
    words,
)
from ..errors import UserError
from . import style
from .answer_page import section
from .curves import PlotError, curves, headline, provenance, render, said
from .hover import columns
from .page import escape as _e
from .page import heads, inline, page, variable, wide
from .published import MOST_PAIRS, Published, pairs

DRAWN_SAMPLES = 40  # ticks in one strip; more samples are thinned to quantiles
ROWS_A_TABLE = 400  # sizes of one algorithm that are listed
MOST_BESIDE = 6  # files whose environments stand side by side
PAIRS_LISTED = 200  # keys of one environment or options table
STRIP_WIDTH, STRIP_LOW, STRIP_HIGH = 132, 0.5, 4.0  # pixels; times shown from half to four times the median


class ReportError(UserError):
    """A report that cannot be made or written; the message says what would be accepted."""


def report(
    results: Sequence[ResultFile],
    traffic: Traffic | None = None,
    others: Sequence[Published] = (),
    answers: Sequence[Answered] = (),
) -> str:
    """The page for one file or several. traffic: as for ``bench.summary.limit_of``; others: published series beside them; answers:
    of the files that are logs.

    The same files give the same page. Raises ReportError for no files.
    """
    empty = [f for f in results if not f.records]
    results = [f for f in results if f.records]
    if not results and not answers:
        raise ReportError("a report needs at least one result file")
    if not results:
        title = "Is this number normal?"
        head = f'<header><p class="brand">busbw</p><h1>{_e(title)}</h1></header>'
        return page(title, "\n".join([head, section(answers, others), _footer(empty)]))
    records = [r for f in results for r in f.records]
    colour = style.colours(r.algorithm for r in records)
    title = headline(records)
    parts = [_masthead(title, records), section(answers, others), _alerts(results)]
    for f in results:
        heading = plain(f.path, 120) if len(results) > 1 else ""
        parts.append(_summary(f, heading, traffic))
    parts += [_figure(results, traffic, title, others), _ratios(records, others)]
    for f in results:
        parts.append(_tables(f, colour, plain(f.path, 120) if len(results) > 1 else ""))
    parts += [
        _how_to_read(records),
        _memory(results),
        _measured(results),
        _differences(results),
        _environments(results),
        _footer(results),
    ]
    return page(title, "\n".join(p for p in parts if p))


def save(text: str, path: str | os.PathLike) -> Path:
    """Write the page to a .html file, or Markdown to a .md file. Raises ReportError for another suffix or a path that cannot be
    written."""
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm", ".md"):
        raise ReportError(f"{path}: a report is an HTML page or Markdown; accepted: a path that ends in .html or .md")
    try:
        path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as e:
        raise ReportError(f"{path}: cannot be written: {e.strerror}") from None
    return path


def _masthead(title: str, records: Sequence[Record]) -> str:
    return (
        f'<header><p class="brand">busbw</p><h1>{_e(title)}</h1><p class="from">{_e(provenance(records))}</p></header>'
    )


def _alerts(results: Sequence[ResultFile]) -> str:
    """What must be seen first: wrong results, and lines of the file that were passed over."""
    alerts = []
    for f in results:
        bad = [
            (r, t.wrong)
            for r in f.records
            for t in (r.out_of_place, r.in_place)
            if t is not None and t.wrong is not None and t.wrong != 0
        ]
        if bad:
            where = ", ".join(
                dict.fromkeys(f"{plain(r.algorithm, 40)} at {size_words(r.size_bytes)}" for r, _ in bad[:6])
            )
            more = f" and {len(bad) - 6} more" if len(bad) > 6 else ""
            alerts.append(
                f"<strong>Wrong results.</strong> {_e(where + more)}: elements differ from the expected sum. "
                "A wrong all-reduce has no bandwidth; do not quote these times."
            )
        alerts += [f"{_e(plain(n, 200))}: the run was killed there. What it finished is all here." for n in f.notes[:5]]
    return "".join(f'<p class="alert">{a}</p>' for a in alerts)


def _summary(f: ResultFile, heading: str, traffic: Traffic | None) -> str:
    lines = words(f.records, f.limits, traffic)
    items = "".join(
        f'<li class="{"sub" if line.startswith("  ") else "top"}">{_fact(line.strip())}</li>' for line in lines
    )
    named = f'<h2>Summary <span class="file">{_e(heading)}</span></h2>' if heading else "<h2>Summary</h2>"
    return f'<section class="summary">{named}{_tiles(f, traffic)}<ul class="facts">{items}</ul></section>'


def _fact(line: str) -> str:
    """One line of words, with what it is about (up to its first colon) in bold."""
    subject, colon, rest = line.partition(": ")
    return f"<strong>{_e(subject)}</strong> {_e(rest)}" if colon else f"{_e(line)}"


def _tiles(f: ResultFile, traffic: Traffic | None) -> str:
    """Up to four numbers to remember, of the file's first setting."""
    everything = series(f.records)
    group = settings(everything)[0]
    own = [s for s in everything if s.setting == group]
    called = list(zip(names(own), own))
    tiles = []
    peaks = [(p, name) for name, s in called if (p := peak(s))]
    if peaks:
        (rate, size), name = max(peaks, key=lambda x: x[0][0])
        label = f"peak {bandwidth_name(group.ranks)}"
        tiles.append((label, rate_words(rate), f"{name}, {size_words(size)}"))
    size, timing, name = min(((*latency(s), name) for name, s in called), key=lambda x: (x[0], x[1].seconds))
    tiles.append(("lowest latency", time_words(timing.seconds, "µs"), f"{name}, {size_words(size)}"))
    c = crossover(own)
    if c:
        tiles.append(("tree to ring", size_words(c.size_bytes), "where the ring gets faster"))
    shares = [(share, name, s) for name, s in called if (share := fraction_of_limit(s, f.limits, traffic))]
    if shares:
        (share, size), name, _ = max(shares, key=lambda x: bandwidth(x[2].records[-1]))
        if share <= 1:  # above it the caches helped, and the number says nothing by itself
            tiles.append(("of the memory limit", f"{share:.0%}", f"{name}, {size_words(size)}"))
    cells = "".join(
        f'<div class="tile"><p class="what">{_e(a)}</p><p class="number">{_e(b)}</p><p class="where">{_e(c)}</p></div>'
        for a, b, c in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _figure(results: Sequence[ResultFile], traffic: Traffic | None, title: str, others) -> str:
    try:
        fig = curves(results, traffic, heading=False, others=others)
    except PlotError:
        return ""  # only sizes or times of zero: the tables still say all there is
    modelled = ""
    if any(r.clock != WALL for f in results for r in f.records):
        modelled = " Dash-dotted curves without markers are modelled, not measured."
    logs = ""
    if any(
        t.stopped == "log" and not t.samples
        for f in results
        for r in f.records
        for t in (r.out_of_place, r.in_place)
        if t
    ):
        logs = " Times read from logs that give no samples have no interval."
    if others:
        sources = "; ".join(dict.fromkeys(f"{p.name}: {plain(p.source, 300)}" for p in others))
        modelled += f" Hollow marks are points that others have published. Sources: {_e(sources)}."
    svg = render(fig, "svg", **{"svg.fonttype": "none", "savefig.facecolor": "none"}).decode()
    drawn = inline(
        svg, "curves-", f"{title}: bandwidth and time over message size", columns(fig.axes, said(results, others))
    )
    return (
        f'<figure><a class="skip" href="#after-curves">Skip the values of the figure</a>{drawn}<span id="after-curves"></span>'
        "<figcaption>Medians over message size, both axes logarithmic. The bands are 95 % confidence intervals of the "
        f"medians; where none is seen it is narrower than the line.{logs}{modelled}</figcaption></figure>"
    )


def _ratios(records: Sequence[Record], others: Sequence[Published]) -> str:
    """Measured and published times over modelled ones, where both exist."""
    kinds = {r.clock == WALL for r in records}
    if False not in kinds or (True not in kinds and not others):
        return ""
    found = pairs(records, others)
    title = '<section class="prose"><h2>Where they differ from the model</h2>'
    if not found:
        return (
            f"{title}<p>Nothing measured or published here has the size, the number of ranks and the algorithm of a modelled "
            "point, so there is no ratio to give.</p></section>"
        )
    body = "".join(
        f'<tr class="{"first" if i == 0 else "second"}">'
        + (
            f'<th scope="row" class="l" rowspan="{len(p.listed)}">{_e(p.what)}<span class="ran">{_e(plain(p.algorithm, 30))}, '
            f"{p.ranks} ranks; model: {_e(p.model)}; median ratio {p.median:.3g} over {len(p.rows)} sizes</span></th>"
            if i == 0
            else ""
        )
        + f"<td>{_e(size_words(size))}</td><td>{_e(time_words(real, 'µs'))}</td><td>{_e(time_words(model, 'µs'))}</td>"
        f"<td>{real / model:.3g}</td></tr>"
        for p in found[:MOST_PAIRS]
        for i, (size, real, model) in enumerate(p.listed)
    )
    cut = f'<p class="note">{len(found) - MOST_PAIRS} more pairs are not listed.</p>' if len(found) > MOST_PAIRS else ""
    return (
        f"{title}<p>The ratio is real time over modelled time: above 1, the all-reduce took longer than the model says. It says "
        "how far the two are apart at equal size, ranks and algorithm, not why: the models exact and loggp know wires, ports and "
        "overheads but not a library's protocols and kernels, and none knows what else ran on the machine. It means something "
        'only if the modelled system is the one that was timed.</p><table class="ratios">'
        f"{heads(('what', 'size', 'real time', 'modelled', 'ratio'))}<tbody>{body}</tbody></table>{cut}"
        "</section>"
    )


def _tables(f: ResultFile, colour: Mapping[str, str], heading: str) -> str:
    everything = series(f.records)
    groups = settings(everything)
    parts = [f'<h2>Results <span class="file">{_e(heading)}</span></h2>' if heading else "<h2>Results</h2>"]
    for group in groups:
        own = [s for s in everything if s.setting == group]
        if len(groups) > 1:
            where = plain(group.machine) if len({g.machine for g in groups}) > 1 else ""
            parts.append(f"<h3>{_e(' · '.join(t for t in (group.words, where) if t))}</h3>")
        best = max((s_peak[0] for s in own if (s_peak := peak(s))), default=0.0)
        for name, s in sorted(zip(names(own), own), key=lambda x: style.legend_order(x[1].algorithm)):
            parts.append(_table(name, s, colour[s.algorithm], best))
    return f'<section class="results">{"".join(parts)}</section>'


def _table(name: str, s: Series, colour: str, best: float) -> str:
    """One algorithm: a row for each size and mode. best: the group's peak, bytes per second, for the bars."""
    modes = [m for m in ("out_of_place", "in_place") if any(getattr(r, m) for r in s.records)]
    ran = list(dict.fromkeys(r.chosen for r in s.records if r.chosen != r.algorithm))
    note = [f"transport {plain(s.transport, 30)}"]
    for key in ("channels", "slices"):
        values = sorted({getattr(r, key) for r in s.records})
        span = str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"
        if values != [0]:  # a log of others may not tell
            note.append(f"{span} {key[:-1] if values == [1] else key}")
    rows = []
    for r in s.records[:ROWS_A_TABLE]:
        timed = [(m, t) for m in modes if (t := getattr(r, m))]
        size = f'<th scope="row" rowspan="{len(timed)}">{_e(size_words(r.size_bytes))}'
        size += f'<span class="ran">{_e(plain(r.chosen, 24))}</span></th>' if ran else "</th>"
        for i, (m, t) in enumerate(timed):
            rows.append(
                f'<tr class="{"first" if i == 0 else "second"}">{size if i == 0 else ""}{_cells(r, m, t, best)}</tr>'
            )
    cut = len(s.records) - ROWS_A_TABLE
    more = f'<p class="note">{cut} more sizes are in the file and in the figure.</p>' if cut > 0 else ""
    head = (
        '<tr><th scope="col">size</th><th scope="col" class="l">mode</th><th scope="col">time</th>'
        '<th scope="col">95 % CI</th><th scope="col">algbw<br><small>GB/s</small></th>'
        '<th scope="col">busbw<br><small>GB/s</small></th><th scope="col">#wrong</th><th scope="col">samples</th>'
        '<th scope="col">cv</th><th scope="col">max /<br>median</th>'
        '<th scope="col" class="l">samples, ½× to 4× the median</th><th scope="col" class="l">stopped by</th></tr>'
    )
    table = f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
    return (
        f'<div class="algorithm" style="--series: {variable(colour)}"><h3><span class="swatch"></span>{_e(name)}'
        f' <span class="file">{_e(", ".join(note))}</span></h3>'
        f"{wide(name, table)}{more}</div>"
    )


def _cells(r: Record, mode: str, t: Timing, best: float) -> str:
    algbw, busbw = r.algbw(t), r.busbw(t)
    bus = r.ranks > 1
    shown = busbw if bus else algbw
    share = min(100.0, 100 * shown / best) if best > 0 else 0.0
    bar, plain_cell = f' class="bar" style="--share: {share:.1f}%"', ""
    wrong = "–" if t.wrong is None else f"{t.wrong:d}"
    cv, spread = noise(t)
    title = f"{time_words(t.ci_low, 'µs')} to {time_words(t.ci_high, 'µs')}" if _finite(t.ci_low, t.ci_high) else ""
    inner = f"<small> × {t.inner:d}</small>" if t.inner > 1 else ""
    return (
        f'<td class="l">{"out-of-place" if mode == "out_of_place" else "in-place"}</td>'
        f"<td>{_e(time_words(t.seconds, 'µs'))}</td>"
        f'<td title="{_e(title)}">{_interval(t)}</td>'
        f"<td{plain_cell if bus else bar}>{_gigabytes(algbw)}</td>"
        f"<td{bar if bus else plain_cell}>{_gigabytes(busbw) if r.ranks else '–'}</td>"
        f'<td class="{"bad" if t.wrong else "ok"}">{wrong}</td>'
        f"<td>{len(t.samples):d}{inner}</td>"
        f'<td class="{"noisy" if cv is not None and cv > 0.1 else ""}">{"–" if cv is None else f"{cv:.1%}"}</td>'
        f"<td>{'–' if spread is None else f'{spread:.2f}' if spread < 100 else f'{spread:.0f}'}</td>"
        f'<td class="l">{strip(t)}</td>'
        f'<td class="l {"noisy" if t.stopped == "budget" else ""}">{_e(plain(t.stopped, 20))}</td>'
    )


def noise(t: Timing) -> tuple[float | None, float | None]:
    """(coefficient of variation, largest sample over the median); None where too few samples or a time of 0."""
    n = len(t.samples)
    mean = math.fsum(t.samples) / n if n else 0.0
    if n < 2 or mean <= 0:
        return None, None
    deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in t.samples) / (n - 1))
    return deviation / mean, (max(t.samples) / t.seconds if t.seconds > 0 else None)


def strip(t: Timing) -> str:
    """The samples as ticks on a logarithmic strip: the band is the confidence interval, the tall tick the median.

    Samples beyond the strip stand as a dot at its end. At most ``DRAWN_SAMPLES`` quantiles are drawn, the extremes
    among them.
    """
    if t.seconds <= 0 or not t.samples:
        return ""
    ordered = sorted(t.samples)
    n = len(ordered)
    if n > DRAWN_SAMPLES:
        ordered = [ordered[round(i * (n - 1) / (DRAWN_SAMPLES - 1))] for i in range(DRAWN_SAMPLES)]
    ticks = "".join(f"M{_place(s / t.seconds):.1f} 4v6" for s in ordered if STRIP_LOW <= s / t.seconds <= STRIP_HIGH)
    ends = "".join(
        f'<circle cx="{2 if side < 0 else STRIP_WIDTH - 2}" cy="7" r="2"/>'
        for side, out in ((-1, ordered[0] < STRIP_LOW * t.seconds), (1, ordered[-1] > STRIP_HIGH * t.seconds))
        if out
    )
    band = ""
    if _finite(t.ci_low, t.ci_high) and 0 < t.ci_low <= t.ci_high:
        left, right = _place(t.ci_low / t.seconds), _place(t.ci_high / t.seconds)
        band = f'<rect x="{left:.1f}" y="1" width="{max(right - left, 1):.1f}" height="12"/>'
    return (
        f'<svg class="strip" viewBox="0 0 {STRIP_WIDTH} 14" width="{STRIP_WIDTH}" height="14" aria-hidden="true">'
        f'<path class="base" d="M0 7h{STRIP_WIDTH}"/>{band}<path class="ticks" d="{ticks}"/>{ends}'
        f'<path class="median" d="M{_place(1.0):.1f} 1v12"/></svg>'
    )


def _place(ratio: float) -> float:
    """Pixels from the left for a time that is `ratio` times the median."""
    x = math.log(min(max(ratio, STRIP_LOW), STRIP_HIGH) / STRIP_LOW) / math.log(STRIP_HIGH / STRIP_LOW)
    return 1 + x * (STRIP_WIDTH - 2)


def _interval(t: Timing) -> str:
    """±, by the wider side of the interval."""
    if not _finite(t.ci_low, t.ci_high) or t.seconds <= 0 or (not t.samples and t.ci_low == t.ci_high):
        return "–"
    wider = max(t.ci_high - t.seconds, t.seconds - t.ci_low) / t.seconds
    return f"±{wider:.1%}" if wider < 9.995 else f"×{1 + wider:.3g}"


def _gigabytes(bytes_per_second: float) -> str:
    """Three significant digits, never an exponent: 0.00053, 1.04, 217."""
    g = bytes_per_second / 1e9
    if g >= 99.95:
        return f"{g:.0f}"
    return "0" if g <= 0 else f"{g:.{min(9, max(0, 2 - math.floor(math.log10(g))))}f}"


def _finite(*values: float) -> bool:
    return all(math.isfinite(v) for v in values)


TERMS = {
    "time": """The median over the samples of one all-reduce; a sample is the time of the slowest rank. Where “× n”
        stands beside the number of samples, each sample is the mean of n all-reduces back to back.""",
    "95 % CI": """Where the true median lies with 95 % confidence, by the wider side. Times whose intervals overlap are
        called level above, not different.""",
    "algbw": "Message size divided by time.",
    "busbw": """algbw × 2(p−1)/p, which is {factors}. In a bandwidth-optimal all-reduce every rank sends and receives
        that many bytes for each byte of the message, so busbw can be held against a link's bandwidth for any p.""",
    "n1/2": "The message size at which the bandwidth reaches half its peak: below it latency decides.",
    "#wrong": "Elements that differ from the expected result, over all ranks; a dash: not checked.",
    "cv, max / median": """How noisy the samples are: their standard deviation over their mean, and the slowest over
        the median. In the strips each tick is a sample, the tall tick the median and the band its confidence interval;
        a dot at an end stands for samples beyond it.""",
    "stopped by": """confidence: the interval was narrow enough; iterations: a fixed number was asked for; budget: time
        ran out first, so the interval may be wider than wanted; exact: the schedule's
        time on a model, with nothing to repeat; formula: a model's estimate; log: read from another program's log.""",
    "modelled": "Computed on a described network, not measured; never counted among measured times.",
}


def _how_to_read(records: Sequence[Record]) -> str:
    factors = ", ".join(
        f"{busbw_factor(p, c):.4g} for {p} ranks"
        for c, p in sorted({(r.collective, r.ranks) for r in records if r.ranks})[:6]
    )
    modelled = any(r.clock != WALL for r in records)
    items = "".join(
        f"<dt>{_e(term)}</dt><dd>{_e(' '.join(text.format(factors=factors).split()))}</dd>"
        for term, text in TERMS.items()
        if modelled or term != "modelled"
    )
    return f'<section class="prose"><h2>How to read this</h2><dl>{items}</dl></section>'


def _memory(results: Sequence[ResultFile]) -> str:
    parts = []
    for f in results:
        rows = [
            (k, v)
            for k, v in f.limits.items()
            if k in MEMORY_KERNELS and isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < math.inf
        ]
        if not rows:
            continue
        ranks = max(r.ranks for r in f.records)
        limit = limit_busbw(f.limits, ranks)
        body = "".join(
            f'<tr><th scope="row">{_e(k)}</th><td>{_gigabytes(v)}</td><td class="l">{_e(MEMORY_KERNELS[k])}</td></tr>'
            for k, v in rows
        )
        sentence = (
            f"For {ranks} ranks in one memory and a message beyond the caches, reading every input and writing every "
            f"result once would allow {_e(rate_words(limit))} {bandwidth_name(ranks)}; no algorithm gets past that."
            if limit
            else ""
        )
        parts.append(
            f"{_file_heading(f, results)}<p>Measured in the same run with the kernels the all-reduce uses, all cores "
            f'together. {sentence}</p><table class="pairs"><thead><tr><th scope="col">kernel</th><th scope="col">GB/s</th>'
            f'<th scope="col" class="l">what it does</th></tr></thead><tbody>{body}</tbody></table>'
        )
    return f'<section class="prose"><h2>What this memory allows</h2>{"".join(parts)}</section>' if parts else ""


def _measured(results: Sequence[ResultFile]) -> str:
    """Command lines, options and warnings."""
    parts = []
    for f in results:
        commands = dict.fromkeys(
            str(c) for r in f.records for c in (r.options.get("command") or r.environment.get("command"),) if c
        )
        parts.append(_file_heading(f, results))
        parts += [f"<pre>{_e(c[:2000])}</pre>" for c in list(commands)[:5]]
        parts.append(_warnings(f))
        options = _common(r.options for r in f.records)
        if options:
            parts.append(f"<details><summary>All options</summary>{_pairs(options)}</details>")
    return f'<section class="prose"><h2>How it was measured</h2>{"".join(parts)}</section>'


def _warnings(f: ResultFile) -> str:
    seen: dict[str, list[str]] = {}
    for r in f.records:
        for w in r.warnings:
            seen.setdefault(plain(w, 400), []).append(f"{plain(r.algorithm, 30)} {size_words(r.size_bytes)}")
    if not seen:
        return '<p class="note">No warnings were raised while measuring.</p>'
    everywhere = len(f.records)
    items = []
    for text, places in list(seen.items())[:50]:
        some = ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")
        where = "at every size" if len(places) == everywhere > 1 else some
        items.append(f'<li>{_e(text)} <span class="file">{_e(where)}</span></li>')
    more = f"<li>and {len(seen) - 50} further warnings in the file</li>" if len(seen) > 50 else ""
    return f'<h3>Warnings</h3><ul class="warnings">{"".join(items)}{more}</ul>'


def _differences(results: Sequence[ResultFile]) -> str:
    """What the environments and options of the files say differently: a column a file, the first beside the others."""
    if len(results) < 2:
        return ""
    shown = results[:MOST_BESIDE]
    keys: dict[str, dict[int, tuple[str, str]]] = {}
    for i, f in enumerate(shown[1:], 1):
        for key, ours, theirs in differences(shown[0].records, f.records)[:PAIRS_LISTED]:
            keys.setdefault(key, {})[i] = (ours, theirs)
    title = '<section class="prose"><h2>What differs between the files</h2>'
    if not keys:
        return f"{title}<p>Their environments and options say the same.</p></section>"
    body = ""
    for key, found in list(keys.items())[:PAIRS_LISTED]:
        ours = next(iter(found.values()))[0]
        cells = [ours, *(found[i][1] if i in found else ours for i in range(1, len(shown)))]
        tds = "".join(f'<td class="l">{_e(plain(c, 200)) or "–"}</td>' for c in cells)
        body += f'<tr><th scope="row" class="l">{_e(plain(key.replace("_", " "), 80))}</th>{tds}</tr>'
    head = heads(("what", *(plain(f.path, 60) for f in shown)), range(len(shown) + 1))
    table = f'<table class="pairs">{head}<tbody>{body}</tbody></table>'
    return f"{title}{wide('What differs', table)}</section>"


def _environments(results: Sequence[ResultFile]) -> str:
    parts = []
    for f in results:
        pairs = _common(r.environment for r in f.records)
        pairs.pop("command", None)  # stands under "How it was measured"
        if pairs:
            parts.append(_file_heading(f, results) + _pairs(pairs))
    return f'<section class="prose"><h2>Environment</h2>{"".join(parts)}</section>' if parts else ""


def _common(dicts: Iterable[Mapping]) -> dict[str, str]:
    """The dicts flattened to text and merged; a key whose value differs lists its first few values."""
    merged: dict[str, dict[str, None]] = {}
    seen: set[str] = set()
    for d in dicts:
        text = repr(d)
        if text in seen:
            continue
        seen.add(text)
        for k, v in _flat(d):
            merged.setdefault(k, {})[v] = None
    return {k: " | ".join(list(v)[:4]) + (" | …" if len(v) > 4 else "") for k, v in merged.items()}


def _flat(value: object, key: str = "", depth: int = 0) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping) and depth < 4:
        for k, v in list(value.items())[:PAIRS_LISTED]:
            yield from _flat(v, f"{key}.{k}" if key else str(k), depth + 1)
    elif isinstance(value, list):
        yield key, plain(", ".join(str(v) for v in value[:64]) + (", …" if len(value) > 64 else ""), 400)
    elif key.endswith("bytes") and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60:
        yield key, f"{size_words(value)} ({value})"
    else:
        yield key, "unknown" if value is None else plain(value, 400)


def _pairs(pairs: Mapping[str, str]) -> str:
    rows = "".join(
        f'<tr><th scope="row" class="l">{_e(plain(k.replace("_", " "), 80))}</th><td class="l">{_e(v)}</td></tr>'
        for k, v in list(pairs.items())[:PAIRS_LISTED]
    )
    return f'<table class="pairs"><tbody>{rows}</tbody></table>'


def _file_heading(f: ResultFile, results: Sequence[ResultFile]) -> str:
    return f"<h3>{_e(plain(f.path, 120))}</h3>" if len(results) > 1 else ""


def _footer(results: Sequence[ResultFile]) -> str:
    files = ", ".join(plain(f.path, 120) for f in results)
    runs = list(dict.fromkeys(plain(r.run, 40) for f in results for r in f.records if r.run))
    which = f" · run{'s' * (len(runs) > 1)} {', '.join(runs[:6])}" if runs else ""
    return f"<footer>busbw {_e(__version__)} · {_e(SCHEMA)} · {_e(files)}{_e(which)}</footer>"
