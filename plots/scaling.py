"""Scaling curves: bandwidth and time over the number of ranks.

Colour is the algorithm, the dash is the message size; measured points have markers, modelled ones none, as in curves.py. The
number of ranks is on a logarithmic axis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ..bench.record import Record, ResultFile
from ..bench.summary import WALL, bandwidth, plain, size_words
from . import style
from .curves import LEGEND_ROW, PANEL, PlotError, legend, provenance, rows

SIZES_DRAWN = 3
BANDWIDTHS_IN_SIGHT = 1e4  # the highest over the lowest bandwidth that the panel shows
DASHES = ("-", (0, (5, 2)), (0, (1, 1.6)))


def rank_counts(results: Sequence[ResultFile]) -> list[int]:
    """The distinct numbers of ranks that the records hold."""
    return sorted({r.ranks for f in results for r in f.records})


def scaling(results: Sequence[ResultFile], sizes: Sequence[int] | None = None, heading: bool = True) -> Figure:
    """Two panels over ranks: bandwidth and time, for `sizes` (bytes; None: the smallest, a middle one and the largest).

    Raises PlotError where fewer than two numbers of ranks share a size.
    """
    lines = _lines(results)
    shared = sorted({size for (_, _, size), points in lines.items() if len(points) > 1 and size > 0})
    if not shared:
        raise PlotError("no scaling to draw: no algorithm has two numbers of ranks at one size; give --ranks 8,64,...")
    missing = [s for s in sizes or () if s not in shared]
    if missing:
        raise PlotError(f"size {missing[0]}: not among the records; accepted: {', '.join(map(str, shared[:12]))}")
    chosen = sorted(sizes, reverse=True)[: len(DASHES)] if sizes else _spread(shared)
    with matplotlib.rc_context(style.RC):
        return _figure(results, lines, chosen, heading)


def _lines(results: Sequence[ResultFile]) -> dict[tuple[str, str, int], dict[int, Record]]:
    """{(clock, algorithm, size): {ranks: record}}; a later record replaces an earlier one."""
    found: dict[tuple[str, str, int], dict[int, Record]] = {}
    for f in results:
        for r in f.records:
            if r.best.seconds > 0 and r.ranks > 1:
                found.setdefault((r.clock, r.algorithm, r.size_bytes), {})[r.ranks] = r
    return found


def _spread(sizes: list[int]) -> list[int]:
    """The largest, the one nearest the logarithmic middle, the smallest."""
    middle = math.sqrt(sizes[0] * sizes[-1])
    between = min(sizes, key=lambda s: abs(math.log(s / middle)))
    return sorted({sizes[0], between, sizes[-1]}, reverse=True)[:SIZES_DRAWN]


def _figure(results, lines, sizes: list[int], heading: bool) -> Figure:
    drawn = {key: points for key, points in lines.items() if key[2] in sizes and len(points) > 1}
    colour = style.colours(algorithm for _, algorithm, _ in drawn)
    records = [r for points in drawn.values() for r in points.values()]
    clocks = list(dict.fromkeys(clock for clock, _, _ in drawn))
    handles = [
        Line2D([], [], color=colour[a], linewidth=2.6, label=plain(a, 28))
        for a in sorted(colour, key=style.legend_order)
    ]
    marks = [
        Line2D([], [], color=style.MUTED, linewidth=1.4, linestyle=DASHES[i], label=size_words(s))
        for i, s in enumerate(sizes)
    ]
    if len(clocks) > 1:
        marks += [
            Line2D(
                [],
                [],
                color=style.MUTED,
                linewidth=1.2,
                marker=_marker(c, clocks),
                markersize=4.5,
                label=_clock_words(c),
            )
            for c in clocks
        ]
    above = 0.66 if heading else 0.05  # inches over the legend
    legends = [rows(handles), rows(marks)]
    lines = sum(math.ceil(len(some) / columns) for some, columns in legends)
    top, bottom, left, gap, right = above + 0.34 + LEGEND_ROW * lines, 0.62, 0.62, 0.85, 0.25
    width, height = left + 2 * PANEL[0] + gap + right, top + PANEL[1] + bottom
    fig = Figure(figsize=(width, height), facecolor="white")
    rates, times = (
        fig.add_axes(((left + i * (PANEL[0] + gap)) / width, bottom / height, PANEL[0] / width, PANEL[1] / height))
        for i in (0, 1)
    )
    heights: dict[Axes, list[float]] = {rates: [], times: []}
    for (clock, algorithm, size), points in sorted(drawn.items(), key=lambda x: style.legend_order(x[0][1])):
        ranks = sorted(points)
        look = {
            "color": colour[algorithm], "linestyle": DASHES[sizes.index(size)], "marker": _marker(clock, clocks),
            "linewidth": 1.7, "markersize": 3.6, "label": f"{algorithm} {size}",
        }  # fmt: skip
        for ax, value in ((rates, lambda r: bandwidth(r) / 1e9), (times, lambda r: r.best.seconds)):
            y = [value(points[p]) for p in ranks]
            ax.plot(ranks, y, **look)
            heights[ax] += y
    for ax in (rates, times):
        rank_axis(ax, [r.ranks for r in records])
        ax.set_xlabel("ranks", fontsize=8.5, color=style.MUTED, labelpad=4)
    # At the smallest sizes a ring's bandwidth over many ranks is next to nothing; it may leave the panel at the bottom.
    least = max(heights[rates]) / BANDWIDTHS_IN_SIGHT
    style.value_axis(rates, [v for v in heights[rates] if v >= least], style.gigabytes_label)
    style.value_axis(times, heights[times], style.time_label)
    style.dress(rates, "Bus bandwidth, GB/s")
    style.dress(times, "Time of one all-reduce")
    rates.set_label("bandwidth")
    times.set_label("time")
    if heading:
        low, high = min(r.ranks for r in records), max(r.ranks for r in records)
        kinds = ", ".join(dict.fromkeys(f"{r.dtype} {r.op}" for r in records))
        title = f"All-reduce over {low:,} to {high:,} ranks, {plain(kinds, 40)}"
        fig.text(left / width, 1 - 0.30 / height, title, fontsize=13, fontweight="bold", va="center")
        fig.text(left / width, 1 - 0.53 / height, provenance(records), fontsize=8.5, color=style.MUTED, va="center")
    for some, columns in legends:
        legend(fig, some, left / width, 1 - above / height, columns)
        above += LEGEND_ROW * math.ceil(len(some) / columns)
    return fig


def _marker(clock: str, clocks: Sequence[str]) -> str:
    """Measured points have round markers; a modelled clock has none, unless several are drawn and must differ."""
    if clock == WALL:
        return "o"
    return ("", "^", "D", "v", "P")[[c for c in clocks if c != WALL].index(clock) % 5]


def _clock_words(clock: str) -> str:
    return "measured" if clock == WALL else plain(f"modelled: {clock.removeprefix('fabric:')}", 40)


def rank_axis(ax: Axes, ranks: Sequence[int]) -> None:
    """A logarithmic x axis over numbers of ranks, labelled where there is room with those that were asked for."""
    wanted = sorted(set(ranks))
    ax.set_xscale("log", base=2)
    first, last = math.log2(wanted[0]), math.log2(wanted[-1])
    pad = max(0.04 * (last - first), 0.3)
    ax.set_xlim(2 ** (first - pad), 2 ** (last + pad))
    ax.xaxis.set_major_locator(FixedLocator(spaced(wanted, (last - first) / 7)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: count_words(v)))
    ax.xaxis.set_minor_locator(FixedLocator(wanted) if len(wanted) <= 60 else NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())


def spaced(values: list[int], octaves: float) -> list[int]:
    """The values that lie at least so many octaves apart; the first and the last are always among them."""
    kept = [values[0]]
    for v in values[1:-1]:
        if math.log2(v / kept[-1]) >= octaves and math.log2(values[-1] / v) >= octaves:
            kept.append(v)
    return kept + values[-1:] * (len(values) > 1)


def count_words(n: float) -> str:
    """8, 512, 4,096, 300,000 as people read them: 300k from ten thousand on where it is round."""
    n = round(n)
    if n >= 10_000:
        return f"{n / 1000:.0f}k" if n % 1000 == 0 else f"{n / 1000:.1f}k"
    return f"{n:,}"
