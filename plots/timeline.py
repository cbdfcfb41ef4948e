"""The space-time diagram of one modelled all-reduce: time to the right, a row a rank, a line a message.

A row has three lanes. On top, what the rank's port sends; in the middle, what the rank itself does (waits, reduces, copies,
spends a message's overhead); at the bottom, what its port receives. A line joins the first byte out with the last byte in.
"""

from __future__ import annotations

import math

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from ..bench.summary import plain, size_words, time_words
from ..fabric.physics.network import PS
from ..fabric.time.replay import (
    SPAN_COPY,
    SPAN_FIELDS,
    SPAN_OVERHEAD,
    SPAN_RECV,
    SPAN_REDUCE,
    SPAN_SEND,
    SPAN_WAIT,
    Trace,
)
from . import style
from .curves import LEGEND_ROW, PlotError, legend, rows

MOST_RANKS = 64
MOST_LINES = 6000  # messages; more would be a grey sheet
MOST_VECTORS = 20_000  # shapes; more are drawn as pixels, in an SVG too
WIDTH = 10.2  # inches

RANK, KIND, START, END, PORT = (SPAN_FIELDS.index(name) for name in ("rank", "kind", "start", "end", "port"))
SENDER, RECEIVER, OUT, IN = 0, 1, 3, 4  # of replay.MESSAGE_FIELDS

WAITING = "#e3e6ea"
LANES = {
    "send": (-0.40, -0.20),
    "self": (-0.16, 0.16),
    "recv": (0.20, 0.40),
}  # above and below a rank's line; down is +
LOOKS = (  # kind, lane, colour on the first port (and on the others), words
    (SPAN_SEND, "send", (style.BLUE, style.SKY), "sending"),
    (SPAN_RECV, "recv", (style.VERMILLION, style.ORANGE), "receiving"),
    (SPAN_REDUCE, "self", (style.GREEN,), "reducing"),
    (SPAN_COPY, "self", (style.PURPLE,), "copying"),
    (SPAN_OVERHEAD, "self", (style.SLATE,), "overhead of a message"),
    (SPAN_WAIT, "self", (WAITING,), "waiting"),
)


def timeline(
    trace: Trace, ranks: int, *, title: str, note: str = "", port_names: tuple[str, ...] = ("link", "NIC")
) -> Figure:
    """The diagram of a replay's trace. title, note: the heading's two lines; port_names: of a rank's ports 0, 1, ...

    Raises PlotError for more than 64 ranks or a trace without spans.
    """
    if ranks > MOST_RANKS:
        raise PlotError(f"{ranks} ranks; a timeline shows at most {MOST_RANKS}")
    if not len(trace.spans):
        raise PlotError("nothing to draw: no rank did anything")
    with matplotlib.rc_context(style.RC):
        return _figure(trace, ranks, title, note, port_names)


def _figure(trace: Trace, ranks: int, title: str, note: str, port_names) -> Figure:
    spans, messages = trace.spans, trace.messages
    end = float(max(spans[:, END].max(), messages[:, IN].max() if len(messages) else 0))
    scale, unit = next((s, u) for s, u in ((1e12, "s"), (1e9, "ms"), (1e6, "µs"), (1e3, "ns")) if end >= s or u == "ns")
    row = min(0.62, max(0.17, 9.0 / ranks))  # inches
    left, right, bottom, top = 0.75, 0.25, 0.6, 0.66 + 2 * LEGEND_ROW + 0.1
    height = top + bottom + row * ranks
    fig = Figure(figsize=(WIDTH, height), facecolor="white")
    ax = fig.add_axes(
        (left / WIDTH, bottom / height, (WIDTH - left - right) / WIDTH, row * ranks / height), label="timeline"
    )
    pixels = len(spans) + len(messages) > MOST_VECTORS
    handles = []
    for kind, lane, colours, words in LOOKS:
        of_kind = spans[spans[:, KIND] == kind]
        ports = np.unique(of_kind[:, PORT])
        for port in ports:
            chosen = of_kind[of_kind[:, PORT] == port]
            colour = colours[int(port > 0) % len(colours)]
            _bars(ax, chosen, lane, colour, scale, words, pixels)
            where = f", {_port(port_names, port)}" if len(ports) > 1 else ""
            handles.append(Patch(facecolor=colour, label=words + where))
    drawn = len(messages) <= MOST_LINES
    if drawn and len(messages):
        _lines(ax, messages, scale, pixels)
        handles.append(Line2D([], [], color=style.MUTED, linewidth=0.8, label="message"))
    for rank in range(ranks):
        ax.axhline(rank, color=style.RULE, linewidth=0.5, zorder=0)
    ax.set(xlim=(0, end / scale * 1.005), ylim=(ranks - 0.4, -0.6))
    step = next(s for s in (1, 2, 4, 8) if row * s >= 0.16)
    ax.set_yticks(range(0, ranks, step), [f"rank {r}" if ranks <= 16 else str(r) for r in range(0, ranks, step)])
    ax.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    ax.tick_params(length=3.5, width=0.7, labelsize=8.5)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel(f"time, {unit}", fontsize=8.5, color=style.MUTED, labelpad=4)
    if ranks > 16:
        ax.set_ylabel("rank", fontsize=8.5, color=style.MUTED)
    at = 0.2 / WIDTH
    if not drawn:
        note = f"{note} · {len(messages):,} messages, too many for lines"
    fig.text(at, 1 - 0.28 / height, plain(title, 100), fontsize=13, fontweight="bold", va="center")
    fig.text(at, 1 - 0.51 / height, plain(note, 170), fontsize=8.5, color=style.MUTED, va="center")
    handles, columns = rows(handles)
    legend(fig, handles, at, 1 - 0.66 / height, columns)
    return fig


def _port(names: tuple[str, ...], port: int) -> str:
    return names[port] if port < len(names) else f"port {port}"


def _bars(ax: Axes, spans: np.ndarray, lane: str, colour: str, scale: float, words: str, pixels: bool) -> None:
    low, high = LANES[lane]
    x0, x1, y = spans[:, START] / scale, spans[:, END] / scale, spans[:, RANK].astype(float)
    corners = np.stack([x0, y + low, x0, y + high, x1, y + high, x1, y + low], 1).reshape(-1, 4, 2)
    edge = colour if lane == "self" else "white"  # thin borders keep messages apart that follow one another
    bars = PolyCollection(corners, facecolors=colour, edgecolors=edge, linewidths=0.25, label=words, rasterized=pixels)
    bars.set_zorder(1 if colour == WAITING else 3)  # lines of messages lie over waiting and under all else
    ax.add_collection(bars)


def _lines(ax: Axes, messages: np.ndarray, scale: float, pixels: bool) -> None:
    start = np.stack([messages[:, OUT] / scale, messages[:, SENDER] + LANES["send"][1]], 1)
    stop = np.stack([messages[:, IN] / scale, messages[:, RECEIVER] + LANES["recv"][0]], 1)
    many = len(messages)
    ax.add_collection(
        LineCollection(
            np.stack([start, stop], 1), colors=style.MUTED, linewidths=0.9 if many < 300 else 0.5,
            alpha=max(0.18, min(0.75, 12 / math.sqrt(many))), zorder=2, label="message", rasterized=pixels,
        )
    )  # fmt: skip


def title_of(algorithm: str, ranks: int, size_bytes: int, picoseconds: int) -> str:
    """``ring, 8 ranks, 1 MiB: 61.2 us``."""
    time = time_words(picoseconds / PS, "µs")
    return f"{plain(algorithm, 30)}, {ranks} rank{'s' * (ranks != 1)}, {size_words(size_bytes)}: {time}"
