"""The heat map of pairs: who sends (rows) to whom (columns), how fast, of the usual."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..bench.log import Pair
from ..bench.summary import plain, rate_words, time_words
from . import style

CELL, SMALLEST, LARGEST = 0.42, 2.6, 7.5  # inches: of a cell, and of a map
FIGURES_UP_TO, NAMES_UP_TO = 12, 64  # players
TEXT_UP_TO = 16
COLOURS = "cividis"  # told apart by everybody, also in grey


def matrix(pairs: Sequence[Pair], figure: str) -> tuple[list[str], np.ndarray]:
    """(names, float64 [n, n] from row to column, nan where there is none); figure: a field of bench.log.Pair."""
    names = order(pairs)
    at = {name: i for i, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    for p in pairs:
        value = getattr(p, figure)
        if value:
            values[at[p.source], at[p.target]] = value
    return names, values


def order(pairs: Sequence[Pair]) -> list[str]:
    """The names, numbers in them in numeric order."""
    import re

    names = {end for p in pairs for end in (p.source, p.target)}
    return sorted(names, key=lambda n: [(int(w), "") if w.isdigit() else (-1, w) for w in re.split(r"(\d+)", n)])


def pair_map(pairs: Sequence[Pair], heading: str, lines: Sequence[str] = ()) -> Figure:
    """Bandwidth from row to column and, where there is one, latency; `lines`: what the pairs say, under the heading."""
    panels = [
        (title, *matrix(pairs, figure), figure)
        for title, figure in (("bandwidth from row to column", "bandwidth"), ("latency", "seconds"))
        if any(getattr(p, figure) for p in pairs)
    ]
    with matplotlib.rc_context(style.RC):
        n = len(panels[0][1])
        side = min(max(CELL * n, SMALLEST), LARGEST)
        label = 0.09 * min(20, max(len(name) for name in panels[0][1])) + 0.3 if n <= NAMES_UP_TO else 0.4
        bar = 0.9
        text = [heading, *lines[:6]]
        top = 0.45 + 0.2 * len(text) + 0.3
        width = max(0.2 + len(panels) * (label + side + bar), 7.0)
        height = top + side + label
        fig = Figure(figsize=(width, height), facecolor="white")
        for i, (title, names, values, figure) in enumerate(panels):
            left = 0.2 + label + i * (label + side + bar)
            ax = fig.add_axes((left / width, label / height, side / width, side / height), label=figure)
            _draw(fig, ax, title, names, values, figure, (left + side + 0.08) / width, width)
        for i, line in enumerate(text):
            fig.text(
                0.2 / width, 1 - (0.25 + 0.2 * i) / height, plain(line, int(width * 12)), va="center",
                fontsize=9.5 if i == 0 else 8.5, fontweight="bold" if i == 0 else "normal",
                color=style.INK if i == 0 else style.MUTED,
            )  # fmt: skip
        return fig


def _draw(
    fig: Figure, ax: Axes, title: str, names: list[str], values: np.ndarray, figure: str, right: float, width: float
):
    n = len(names)
    speed = 1 / values if figure == "seconds" else values
    known = np.sort(speed[np.isfinite(speed)])[::-1]
    good = float(np.median(known[: max(1, len(known) // 2)]))
    shades = matplotlib.colormaps[COLOURS].with_extremes(bad=style.RULE)
    image = ax.imshow(np.ma.masked_invalid(speed / good), cmap=shades, vmin=0, vmax=1.05, interpolation="nearest")
    scale, name = unit(figure, values)
    ax.set_title(f"{title}, {name}" if n <= FIGURES_UP_TO else title, loc="left", fontsize=8.5, color=style.MUTED)
    ax.tick_params(length=0, labelsize=7.5)
    for spine in ax.spines.values():
        spine.set_visible(False)
    shown = range(n) if n <= NAMES_UP_TO else range(0, n, math.ceil(n / 16))
    ax.set_xticks(list(shown), [plain(names[i], 20) for i in shown], rotation=90 if n > 6 else 0)
    ax.set_yticks(list(shown), [plain(names[i], 20) for i in shown])
    if n <= FIGURES_UP_TO:
        for i, j in zip(*np.nonzero(np.isfinite(values))):
            dark = speed[i, j] < 0.6 * good
            ax.text(
                j, i, _digits(values[i, j] / scale), ha="center", va="center", fontsize=7,
                color="white" if dark else style.INK,
            )  # fmt: skip
    box = ax.get_position()
    bar = fig.colorbar(image, cax=fig.add_axes((right, box.y0, 0.1 / width, box.height)))
    words = time_words(1 / good, "µs") if figure == "seconds" else rate_words(good)
    bar.ax.set_title(f"of {words}", fontsize=7.5, loc="left", color=style.MUTED)
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "25 %", "50 %", "75 %", "100 %"])
    bar.ax.tick_params(length=2, labelsize=7)
    bar.outline.set_visible(False)


def unit(figure: str, values: np.ndarray) -> tuple[float, str]:
    """What to divide by so that the figures have few digits, and its name."""
    largest = float(np.nanmax(values))
    steps = ((1e-6, "us"), (1e-3, "ms")) if figure == "seconds" else ((1e9, "GB/s"), (1e6, "MB/s"))
    return next(
        ((s, name) for s, name in steps if (largest < 1e3 * s if figure == "seconds" else largest >= s)), steps[-1]
    )


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def text(pairs: Sequence[Pair], figure: str = "bandwidth", line: float = 0.75, good: float | None = None) -> list[str]:
    """The map for a terminal, its slow cells marked with *; nothing for more than TEXT_UP_TO players.

    good, line: the usual figure and below what share of its speed a cell is slow.
    """
    names, values = matrix(pairs, figure)
    if not 2 <= len(names) <= TEXT_UP_TO:
        return []
    scale, name = unit(figure, values)
    wide = max(7, *(min(len(n), 14) for n in names)) + 1
    what = "latency" if figure == "seconds" else "bandwidth from row to column"
    slow = ", slow ones with *" if good else ""
    out = [f"{what}, {name}{slow}", " " * wide + "".join(f"{plain(n, 14):>{wide}}" for n in names)]
    for n, row in zip(names, values):
        cells = []
        for v in row:
            bad = good and np.isfinite(v) and (good / v if figure == "seconds" else v / good) < line
            cells.append(f"{_digits(v / scale) + ('*' if bad else ''):>{wide}}" if np.isfinite(v) else f"{'.':>{wide}}")
        out.append(f"{plain(n, 14):<{wide}}" + "".join(cells))
    return out
