"""A comparison as text, as Markdown for a pull request, and as a picture: bandwidths, and the ratio of times."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..bench.compare import FASTER, LEVEL, SLOWER, WRONG, Comparison, Point
from ..bench.repeatability import SOURCE
from ..bench.summary import OUT_OF_PLACE, plain, rate_words, size_words, time_words
from . import style
from .curves import LEGEND_ROW, PANEL, PlotError, legend

MOST_DIFFERENCES = 40
COLOURS = {LEVEL: style.MUTED, FASTER: style.GREEN, SLOWER: style.VERMILLION, WRONG: style.VERMILLION}
_HEAD = ("size", "A", "B", "A", "B", "B/A time", "95 % interval", "p", "verdict")


def text(comparisons: Sequence[Comparison], threshold: float) -> str:
    """For a terminal."""
    parts = []
    for c in comparisons:
        parts += [f"{c.what}, {_mode(c)}", f"  A: {c.a}", f"  B: {c.b}", *(f"  not alike: {n}" for n in c.notes), ""]
        rows = [_HEAD, *(_cells(p) for p in c.points)]
        widths = [max(len(r[i]) for r in rows) for i in range(len(_HEAD))]
        parts += ["  " + "  ".join(cell.rjust(w) for cell, w in zip(r, widths)) for r in rows]
        parts += ["", *(f"  {line}" for line in _summary(c, threshold))]
        if c.differs:
            parts += ["", "  environments:"]
            width = max(len(k) for k, _, _ in c.differs[:MOST_DIFFERENCES])
            parts += [
                f"    {plain(k, 60):<{width}}  A: {a or '-'}   B: {b or '-'}"
                for k, a, b in c.differs[:MOST_DIFFERENCES]
            ]
            parts += [f"    and {len(c.differs) - MOST_DIFFERENCES} more"] * (len(c.differs) > MOST_DIFFERENCES)
        parts.append("")
    return "\n".join(parts).rstrip()


def markdown(comparisons: Sequence[Comparison], threshold: float) -> str:
    """For a pull request: the answer first, the tables folded under it. What a file says is text, never markup."""
    worst = [c for c in comparisons if c.slower]
    parts = [f"### {'❌ slower' if worst else '✅ no regression'} beyond {threshold:.3g}", ""]
    for c in comparisons:
        parts += [f"**{safe(c.what)}**, {_mode(c)}: A = {safe(c.a)}, B = {safe(c.b)}", ""]
        parts += [f"- {safe(line)}" for line in (*(f"not alike: {n}" for n in c.notes), *_summary(c, threshold))]
        parts += ["", "<details><summary>all sizes</summary>", "", "| " + " | ".join(_HEAD) + " |"]
        parts.append("|" + "--:|" * (len(_HEAD) - 1) + ":--|")
        for p in c.points:
            cells = list(_cells(p))
            if p.verdict != LEVEL:
                cells[-1] = f"**{cells[-1]}**"
            parts.append("| " + " | ".join(cells) + " |")
        parts += ["", "</details>", ""]
        if c.differs:
            parts += ["<details><summary>environments</summary>", "", "| | A | B |", "|---|---|---|"]
            parts += [
                f"| {safe(k)} | {safe(a) or '–'} | {safe(b) or '–'} |" for k, a, b in c.differs[:MOST_DIFFERENCES]
            ]
            parts += ["", "</details>", ""]
    return "\n".join(parts)


def picture(comparisons: Sequence[Comparison], threshold: float) -> Figure:
    """A row a comparison: bandwidths of A and B on the left, time B / time A with its interval on the right."""
    drawable = [c for c in comparisons if any(p.size_bytes > 0 for p in c.points)][:6]
    if not drawable:
        raise PlotError("nothing to draw: no common size above 0")
    with matplotlib.rc_context(style.RC):
        return _picture(drawable, threshold)


def _picture(drawable: list[Comparison], threshold: float) -> Figure:
    left, gap, right, bottom, top = 0.62, 0.85, 0.25, 0.62, 0.95 + 2 * LEGEND_ROW
    step = PANEL[1] + 0.95
    width, height = left + 2 * PANEL[0] + gap + right, top + step * len(drawable) - 0.95 + bottom
    fig = Figure(figsize=(width, height), facecolor="white")
    for i, c in enumerate(drawable):
        base = (height - top - PANEL[1] - i * step) / height
        rates, ratios = (
            fig.add_axes(((left + k * (PANEL[0] + gap)) / width, base, PANEL[0] / width, PANEL[1] / height))
            for k in (0, 1)
        )
        _draw(c, rates, ratios, threshold)
    first = drawable[0]
    fig.text(
        left / width,
        1 - 0.30 / height,
        plain(f"{plain(first.a, 34)} against {plain(first.b, 34)}", 80),
        fontsize=13,
        fontweight="bold",
        va="center",
    )
    handles = [
        Line2D([], [], color=style.BLUE, marker="o", markersize=4, label=f"A: {plain(first.a, 40)}"),
        Line2D(
            [],
            [],
            color=style.ORANGE,
            marker="s",
            markersize=4,
            label="B" if len({c.b for c in drawable}) > 1 else f"B: {plain(first.b, 40)}",
        ),
        Patch(facecolor=style.MUTED, alpha=0.18, label=f"within {threshold:.3g}"),
        *(
            Line2D([], [], color=COLOURS[v], marker="o", linestyle="", markersize=5, label=v)
            for v in (FASTER, SLOWER, LEVEL)
        ),
    ]
    legend(fig, handles, left / width, 1 - 0.52 / height, 3)
    return fig


def _draw(c: Comparison, rates, ratios, threshold: float) -> None:
    points = [p for p in c.points if p.size_bytes > 0]
    sizes = [p.size_bytes for p in points]
    for which, colour, marker in (("a", style.BLUE, "o"), ("b", style.ORANGE, "s")):
        heights = [getattr(p, f"{which}_bandwidth") / 1e9 for p in points]
        rates.plot(sizes, heights, color=colour, marker=marker, markersize=3.6, markeredgewidth=0, linewidth=1.7)
    style.size_axis(rates, min(sizes), max(sizes))
    drawn = [v / 1e9 for p in points for v in (p.a_bandwidth, p.b_bandwidth) if v > 0]
    style.value_axis(rates, drawn or [1.0], style.gigabytes_label)
    style.dress(rates, plain(f"{c.what}: GB/s, {_mode(c)}", 60))
    ratios.axhspan(1 / (1 + threshold), 1 + threshold, color=style.MUTED, alpha=0.18, linewidth=0)
    ratios.axhline(1.0, color=style.MUTED, linewidth=0.8)
    for p in points:
        ratios.vlines(p.size_bytes, p.low, p.high, color=COLOURS[p.verdict], linewidth=1.4)
        ratios.plot([p.size_bytes], [p.ratio], color=COLOURS[p.verdict], marker="o", markersize=4.2, markeredgewidth=0)
    style.size_axis(ratios, min(sizes), max(sizes))
    style.dress(ratios, "Time of B over time of A, with its 95 % interval")
    reach = max(max(p.high, 1 / max(p.low, 1e-9)) for p in points)
    ratios.set_yscale("log")
    span = min(max(reach, 1 + 2 * threshold) * 1.08, 1e6)
    ratios.set_ylim(1 / span, span)
    ticks = [
        t for t in (0.01, 0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 2, 5, 10, 100) if 1 / span <= t <= span
    ]
    if span > 1.6:
        ticks = [t for t in ticks if t not in (0.95, 1.05, 0.9, 1.1)]
    ratios.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ratios.minorticks_off()
    for ax in (rates, ratios):
        ax.set_xlabel("message size", fontsize=8.5, color=style.MUTED, labelpad=4)


def _cells(p: Point) -> tuple[str, ...]:
    chance = "<0.001" if p.p < 0.001 else f"{p.p:.3f}"
    return (
        size_words(p.size_bytes), time_words(p.a.seconds), time_words(p.b.seconds), rate_words(p.a_bandwidth),
        rate_words(p.b_bandwidth),
        f"{p.ratio:.3f}", f"{p.low:.3f} to {p.high:.3f}", chance, p.verdict,
    )  # fmt: skip


def _summary(c: Comparison, threshold: float) -> list[str]:
    counts = {v: [p for p in c.points if p.verdict == v] for v in (SLOWER, FASTER, LEVEL, WRONG)}
    lines = []
    if counts[WRONG]:
        lines.append(f"B gives WRONG RESULTS at {_where(counts[WRONG])}: its times there say nothing.")
    for verdict in (SLOWER, FASTER):
        if counts[verdict]:
            extreme = (max if verdict == SLOWER else min)(counts[verdict], key=lambda p: p.ratio)
            by = extreme.ratio - 1 if verdict == SLOWER else 1 / extreme.ratio - 1
            lines.append(
                f"B is {verdict.lower()} at {_where(counts[verdict])}, most at {size_words(extreme.size_bytes)} ({by:.1%})."
            )
    if counts[LEVEL]:
        lines.append(
            f"Level at {_where(counts[LEVEL])}: no difference that is both real (5 % false discoveries) and beyond {threshold:.3g}."
        )
    lines.append(f"Over all sizes B takes {c.mean_ratio:.3f} times the time of A (geometric mean).")
    if any(p.by == "repeatability" for p in c.points):
        lines.append(
            f"Intervals without samples are of published repeatability ({SOURCE}); a noisier "
            "system needs samples (-I 1, or several runs in one log)."
        )
    return lines


def _where(points: Sequence[Point]) -> str:
    n = len(points)
    if n == 1:
        return size_words(points[0].size_bytes)
    return f"{n} sizes from {size_words(points[0].size_bytes)} to {size_words(points[-1].size_bytes)}"


def _mode(c: Comparison) -> str:
    return "out-of-place" if c.mode == OUT_OF_PLACE else "in-place"


def safe(words: str) -> str:
    """Text for Markdown: nothing in it is markup, a link or a mention."""
    out = words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|#@!~$":
        out = out.replace(mark, f"&#{ord(mark)};") if mark != "#" else out
    return out
