"""Measured times over the model's band over published points: the picture of one answer, a figure for each of its two panels."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
from matplotlib.figure import Figure

from ..answer.verdict import BAD, Answer, Judged
from ..bench.summary import rate_words, size_words, time_words
from . import style
from .curves import PlotError
from .published import Published

PANEL = (4.9, 3.3)  # inches: on a telephone one is as wide as the page
MARKS = ("s", "^", "D", "v", "p", "<", ">", "h")  # hollow, of published points


def figures(answer: Answer, others: Sequence[Published] = ()) -> tuple[Figure, Figure]:
    """Bandwidth over size, and time over size. Raises PlotError where no size has a time."""
    rows = [r for r in answer.rows if r.size > 0 and r.seconds > 0]
    if not rows:
        raise PlotError("nothing to plot: no size has a time above 0")
    with matplotlib.rc_context(style.RC):
        return _panel(answer, rows, others, rate=True), _panel(answer, rows, others, rate=False)


def _panel(answer: Answer, rows: list[Judged], others: Sequence[Published], rate: bool) -> Figure:
    left, right, bottom, top = 0.68, 0.12, 0.55, 0.36
    fig = Figure(figsize=PANEL, facecolor="white")
    ax = fig.add_axes(
        (left / PANEL[0], bottom / PANEL[1], 1 - (left + right) / PANEL[0], 1 - (bottom + top) / PANEL[1])
    )
    value = (lambda r, seconds: bandwidth(r, seconds) / 1e9) if rate else (lambda r, seconds: seconds)
    heights = [value(r, r.seconds) for r in rows]
    modelled = [r for r in rows if r.modelled]
    if modelled:
        x = [r.size for r in modelled]
        for low, high, alpha, label in (("low90", "high90", 0.16, "90 %"), ("low50", "high50", 0.26, "50 %")):
            ends = [[value(r, getattr(r.modelled.band, e)) for r in modelled] for e in (low, high)]
            ax.fill_between(x, *ends, color=style.BLUE, alpha=alpha, linewidth=0, zorder=1, label=f"band {label}")
            heights += ends[0] + ends[1]
        ax.plot(
            x, [value(r, r.modelled.seconds) for r in modelled], color=style.BLUE, linewidth=1.3, linestyle=(0, (6, 2, 1.2, 2)),
            zorder=2, label="modelled", marker="_" if len(x) == 1 else "",
        )  # fmt: skip
    for mark, other in zip(MARKS, others):
        points = [(size, other.bandwidth(size, t, bus=True) if rate else t) for size, t in other.points]
        ax.plot(
            *zip(*points), linestyle="", marker=mark, markersize=4.5, markerfacecolor="none", markeredgewidth=0.9,
            markeredgecolor=style.MUTED, zorder=3, label=f"published {other.name}",
        )  # fmt: skip
        heights += [v for _, v in points]
    ax.plot(
        [r.size for r in rows], [value(r, r.seconds) for r in rows], color=style.INK, linewidth=1.6, marker="o", markersize=3.6,
        markeredgewidth=0, zorder=4, label="measured",
    )  # fmt: skip
    bad = [r for r in rows if r.verdict in BAD]
    ax.plot(
        [r.size for r in bad], [value(r, r.seconds) for r in bad], linestyle="", marker="X", markersize=7, color=style.VERMILLION,
        markeredgecolor="none", zorder=5, label="bad",
    )  # fmt: skip
    sizes = [r.size for r in rows] + [size for p in others for size, _ in p.points]
    style.size_axis(ax, min(sizes), max(sizes))
    positive = [h for h in heights if h > 0] or [1.0]
    style.value_axis(ax, positive, style.gigabytes_label if rate else style.time_label)
    bus = all(r.busbw for r in rows)
    style.dress(ax, f"{'Bus' if bus else 'Algorithm'} bandwidth, GB/s" if rate else "Time")
    ax.set_xlabel("message size", fontsize=8.5, color=style.MUTED, labelpad=3)
    return fig


def bandwidth(row: Judged, seconds: float) -> float:
    """Of another time at the row's size, bytes a second: busbw where the row's is known, else algbw."""
    return row.busbw * row.seconds / seconds if row.busbw else row.size / seconds


def said(answer: Answer, others: Sequence[Published] = ()) -> list[tuple[float, str, list[str]]]:
    """What stands at each size, in words: (size, heading, lines), for ``hover.columns``."""
    found: dict[int, list[str]] = {}
    for r in answer.rows:
        if r.size <= 0 or r.seconds <= 0:
            continue
        share = "" if r.share is None else f", {100 * r.share:.0f} % of the model"
        lines = [f"measured {rate_words(bandwidth(r, r.seconds))}, {time_words(r.seconds, 'µs')}: {r.verdict}{share}"]
        if r.modelled:
            m, band = r.modelled, r.modelled.band
            lines.append(f"modelled {rate_words(bandwidth(r, m.seconds))}, {time_words(m.seconds, 'µs')}")
            for name, low, high in (("90 %", band.low90, band.high90), ("50 %", band.low50, band.high50)):
                lines.append(
                    f"{name} band {rate_words(bandwidth(r, high))} to {rate_words(bandwidth(r, low))}, "
                    f"{time_words(low, 'µs')} to {time_words(high, 'µs')}"
                )
        found.setdefault(r.size, []).extend(lines)
    for p in others:
        for size, seconds in p.points:
            rate = rate_words(1e9 * p.bandwidth(size, seconds, bus=True))
            found.setdefault(size, []).append(f"published {p.name[:40]}: {rate}, {time_words(seconds, 'µs')}")
    return [(float(size), size_words(size), found[size]) for size in sorted(found)]
