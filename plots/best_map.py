"""The best-algorithm map: which algorithm is fastest at each number of ranks and message size.

A cell is one number of ranks and one size that the records hold; its colour is the winner's, the paler the smaller the lead over
the second. Algorithms are named on their largest region, so that no colour has to be told apart by eye alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from ..bench.record import Record, ResultFile
from ..bench.summary import BASELINES, WALL, plain, size_words
from . import style
from .curves import LEGEND_ROW, PlotError, legend, provenance, rows
from .scaling import count_words, spaced

LEADS = ((1.1, 0.30), (1.5, 0.62), (math.inf, 0.95))  # (lead below this factor, how full the colour is)
AXES = (6.6, 4.2)  # inches


@dataclass(frozen=True)
class Winner:
    """lead: the second's time over the winner's; infinite where nobody else ran."""

    algorithm: str
    lead: float


def winners(records: Sequence[Record]) -> dict[tuple[int, int], Winner]:
    """{(ranks, size_bytes): Winner}. What `auto` chose is no contestant, nor are MPI's and NumPy's own sums."""
    times: dict[tuple[int, int], dict[str, float]] = {}
    for r in records:
        if (
            r.algorithm != "auto"
            and r.algorithm not in BASELINES
            and r.size_bytes > 0
            and r.best.seconds > 0
            and r.ranks > 1
        ):
            times.setdefault((r.ranks, r.size_bytes), {})[r.algorithm] = r.best.seconds
    found = {}
    for cell, by_name in times.items():
        order = sorted(by_name, key=lambda a: (by_name[a], a))
        lead = by_name[order[1]] / by_name[order[0]] if len(order) > 1 else math.inf
        found[cell] = Winner(order[0], lead)
    return found


def best_map(results: Sequence[ResultFile], heading: bool = True) -> Figure:
    """The map of all records, which must share one clock.

    Raises PlotError for several clocks, for one number of ranks or size only, or where no cell has two algorithms.
    """
    records = [r for f in results for r in f.records]
    clocks = list(dict.fromkeys(r.clock for r in records))
    if len(clocks) > 1:
        raise PlotError(
            f"a map needs one clock, not {', '.join(plain(c, 30) for c in clocks[:4])}; draw them one by one"
        )
    cells = winners(records)
    ranks, sizes = sorted({p for p, _ in cells}), sorted({s for _, s in cells})
    if len(ranks) < 2 or len(sizes) < 2:
        raise PlotError(
            f"a map needs several numbers of ranks and sizes, not {len(ranks)} and {len(sizes)}; give --ranks 8,64,..."
        )
    if all(math.isinf(w.lead) for w in cells.values()):
        raise PlotError("a map needs two algorithms at least; give --algo ring,tree")
    with matplotlib.rc_context(style.RC):
        return _figure(records, cells, ranks, sizes, heading)


def _figure(records, cells, ranks, sizes, heading: bool) -> Figure:
    names = sorted({w.algorithm for w in cells.values()}, key=style.legend_order)
    colour = style.colours(r.algorithm for r in records)
    algorithms = [Patch(facecolor=colour[a], label=plain(a, 28)) for a in names]
    grey = [
        Patch(facecolor=_tint(style.INK, low), label=text)
        for low, text in ((1.0, "ahead by less than 10 %"), (1.2, "by 10 to 50 %"), (2.0, "by more"))
    ]
    legends = [rows(algorithms, AXES[0] + 0.6), rows(grey, AXES[0] + 0.6)]
    lines = sum(math.ceil(len(some) / columns) for some, columns in legends)
    above = 0.66 if heading else 0.05  # inches over the legend
    left, right, bottom, top = 0.85, 0.25, 0.62, above + 0.18 + LEGEND_ROW * lines
    width, height = left + AXES[0] + right, top + AXES[1] + bottom
    fig = Figure(figsize=(width, height), facecolor="white")
    ax = fig.add_axes((left / width, bottom / height, AXES[0] / width, AXES[1] / height), label="map")
    x, y = _edges(ranks), _edges(sizes)
    for (p, s), w in cells.items():
        i, j = ranks.index(p), sizes.index(s)
        ax.add_patch(
            Rectangle(
                (x[i], y[j]), x[i + 1] - x[i], y[j + 1] - y[j], facecolor=_tint(colour[w.algorithm], w.lead),
                edgecolor="white", linewidth=0.4, label=f"{p} {s} {w.algorithm}",
            )
        )  # fmt: skip
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))
    place = dict(zip(ranks, (x[:-1] + x[1:]) / 2))
    shown = spaced(ranks, (math.log2(ranks[-1] / ranks[0])) / 9)
    ax.set_xticks([place[p] for p in shown], [count_words(p) for p in shown])
    octave = dict(zip(sizes, (y[:-1] + y[1:]) / 2))
    shown = spaced(sizes, math.log2(sizes[-1] / sizes[0]) / 9)
    ax.set_yticks([octave[s] for s in shown], [size_words(s) for s in shown])
    ax.tick_params(length=3.5, width=0.7, labelsize=8.5)
    for side in ("left", "bottom"):
        ax.spines[side].set_visible(False)
    ax.set_xlabel("ranks", fontsize=8.5, color=style.MUTED, labelpad=4)
    ax.set_title("message size", loc="left", fontsize=8.5, color=style.MUTED, pad=5, x=-0.115)
    _name_regions(ax, cells, ranks, sizes, x, y)
    if heading:
        clock = records[0].clock
        where = "measured" if clock == WALL else f"modelled on {plain(clock.removeprefix('fabric:'), 40)}"
        fig.text(
            0.25 / width, 1 - 0.30 / height, f"Fastest all-reduce, {where}", fontsize=13, fontweight="bold", va="center"
        )
        fig.text(0.25 / width, 1 - 0.53 / height, provenance(records), fontsize=8.5, color=style.MUTED, va="center")
    for some, columns in legends:
        legend(fig, some, 0.25 / width, 1 - above / height, columns)
        above += LEGEND_ROW * math.ceil(len(some) / columns)
    return fig


def _tint(colour: str, lead: float) -> tuple[float, float, float]:
    """The colour over white, as full as the lead is large."""
    full = next(f for below, f in LEADS if lead < below or math.isinf(below))
    return tuple(1 - full * (1 - c) for c in to_rgb(colour))


def _edges(values: list[int]) -> np.ndarray:
    """float64 [n + 1]: cell borders on a log2 axis, halfway between neighbours."""
    at = np.log2(np.array(values, float))
    inner = (at[:-1] + at[1:]) / 2
    return np.concatenate([[2 * at[0] - inner[0]], inner, [2 * at[-1] - inner[-1]]])


def _name_regions(ax: Axes, cells, ranks, sizes, x, y) -> None:
    """Each algorithm's name on its largest region of touching cells, where the name fits."""
    inches = AXES[0] / (x[-1] - x[0]), AXES[1] / (y[-1] - y[0])
    for name in {w.algorithm for w in cells.values()}:
        region = max(_regions({c for c, w in cells.items() if w.algorithm == name}, ranks, sizes), key=len)
        spot = _largest_rectangle(region, len(ranks), len(sizes))
        i0, i1, j0, j1 = spot
        wide, tall = (x[i1 + 1] - x[i0]) * inches[0], (y[j1 + 1] - y[j0]) * inches[1]
        if wide < 0.085 * len(name) or tall < 0.13:
            continue
        mid = ranks[(i0 + i1) // 2], sizes[(j0 + j1) // 2]
        dark = sum(_tint(style.colours([name])[name], cells[mid].lead)) < 1.75
        ax.text(
            (x[i0] + x[i1 + 1]) / 2, (y[(j0 + j1) // 2] + y[(j0 + j1) // 2 + 1]) / 2, plain(name, 24), ha="center", va="center",
            fontsize=9.5, fontweight="bold", color="white" if dark else style.INK,
        )  # fmt: skip


def _regions(cells: set[tuple[int, int]], ranks, sizes) -> list[set[tuple[int, int]]]:
    """Connected sets of (column, row)."""
    todo = {(ranks.index(p), sizes.index(s)) for p, s in cells}
    found = []
    while todo:
        region, edge = set(), [todo.pop()]
        while edge:
            i, j = edge.pop()
            region.add((i, j))
            for step in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if step in todo:
                    todo.remove(step)
                    edge.append(step)
        found.append(region)
    return found


def _largest_rectangle(region: set[tuple[int, int]], columns: int, rows: int) -> tuple[int, int, int, int]:
    """(first column, last column, first row, last row) of the largest rectangle of cells inside the region."""
    best, area = (0, 0, 0, 0), 0
    for i in range(columns):
        for j in range(rows):
            last = rows
            for i1 in range(i, columns):
                j1 = j
                while j1 < last and (i1, j1) in region:
                    j1 += 1
                last = j1
                if last <= j:
                    break
                if (i1 - i + 1) * (last - j) > area:
                    best, area = (i, i1, j, last - 1), (i1 - i + 1) * (last - j)
    return best
