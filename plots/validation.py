"""Measured points against modelled ones: busbw of long messages, time of short ones, one dot a point."""

from __future__ import annotations

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..fabric.library.validate import TARGETS, Compared, Report, summary
from . import style
from .curves import PlotError

PANEL = 4.3  # inches, a side of the square panels
FAMILY = {"collnet-direct": "sharp", "collnet-chain": "sharp"}


def validation(report: Report) -> Figure:
    """Two panels, long messages' busbw and the others' time, both log-log; on the diagonal model and measurement agree.

    Dots have their algorithm's colour; the grey band is the median error aimed at. Raises PlotError for no points.
    """
    if not report.compared:
        raise PlotError("nothing to draw: no point has a model")
    with matplotlib.rc_context(style.RC):
        return _figure(report)


def _figure(report: Report) -> Figure:
    fig = Figure(figsize=(2 * PANEL + 1.1, PANEL + 1.25))
    left, right = fig.subplots(1, 2)
    large = [c for c in report.compared if c.regime == "large"]
    others = [c for c in report.compared if c.regime != "large"]
    colour = style.colours({FAMILY.get(c.algorithm, c.algorithm) for c in report.compared})
    _panel(left, large, colour, "busbw, 64 MiB and more (GB/s)", "large")
    _panel(right, others, colour, "time, below 64 MiB", "small")
    handles = [
        Line2D([], [], linestyle="none", marker="o", markersize=5, color=colour[a], label=a)
        for a in sorted(colour, key=style.legend_order)
    ]
    handles.append(Line2D([], [], linestyle="none", marker="o", markersize=5, mfc="none", color=style.MUTED,
                          label="64 KiB to 64 MiB"))  # fmt: skip
    fig.suptitle(f"All-reduce: the {report.model} model against {len(report.compared)} published points",
                 x=0.065, ha="left", fontsize=11, fontweight="bold", color=style.INK)  # fmt: skip
    fig.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.06, 0.0), ncols=len(handles), frameon=False,
               fontsize=8.5, handletextpad=0.3, columnspacing=1.2)  # fmt: skip
    fig.subplots_adjust(left=0.075, right=0.985, top=0.86, bottom=0.19, wspace=0.22)
    return fig


def _panel(ax: Axes, compared: list[Compared], colour: dict[str, str], title: str, regime: str) -> None:
    style.dress(ax, title)
    ax.set_xlabel("measured")
    ax.set_ylabel("modelled")
    if not compared:
        ax.text(0.5, 0.5, "no such points", transform=ax.transAxes, ha="center", color=style.MUTED)
        ax.set_xticks([])
        ax.set_yticks([])
        return
    rate = regime == "large"
    label = style.gigabytes_label if rate else style.time_label

    def value(c: Compared) -> tuple[float, float]:
        return (c.measured_busbw / 1e9, c.modelled_busbw / 1e9) if rate else (c.measured, c.modelled)

    pairs = [value(c) for c in compared]
    ends = [v for pair in pairs for v in pair]
    style.value_axis(ax, ends, label)
    ax.set_xscale("log")
    ax.set_xlim(ax.get_ylim())
    ax.xaxis.set_major_locator(ax.yaxis.get_major_locator())
    ax.xaxis.set_major_formatter(ax.yaxis.get_major_formatter())
    ax.xaxis.set_minor_locator(ax.yaxis.get_minor_locator())
    ax.xaxis.set_minor_formatter(ax.yaxis.get_minor_formatter())
    ax.set_aspect("equal")
    low, high = ax.get_xlim()
    aim = TARGETS[regime]
    ax.fill_between([low, high], [low * (1 - aim), high * (1 - aim)], [low * (1 + aim), high * (1 + aim)],
                    color=style.RULE, alpha=0.6, linewidth=0, zorder=0)  # fmt: skip
    ax.plot([low, high], [low, high], color=style.MUTED, linewidth=0.8, zorder=1)
    for c, (x, y) in zip(compared, pairs):
        shade = colour[FAMILY.get(c.algorithm, c.algorithm)]
        hollow = c.regime == "between"
        ax.plot([x], [y], linestyle="none", marker="o", markersize=3.4, markeredgewidth=0.7, alpha=0.75,
                color=shade, mfc="none" if hollow else shade, mec=shade, zorder=2)  # fmt: skip
    told = summary("", [c for c in compared if c.regime == regime]).absolute[regime]
    if told is not None:
        words = f"median error {told:.0%}" + ("" if rate else " below 64 KiB")
        ax.text(0.03, 0.965, words, transform=ax.transAxes, va="top", fontsize=9, color=style.INK)
