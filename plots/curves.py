"""The measured curves: bandwidth over message size, time over message size.

``curves`` builds a matplotlib Figure from result files, ``save`` writes it. Neither touches pyplot, so nothing global
is left behind and no display is needed.
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..bench.record import Record, ResultFile, Timing, busbw_factor
from ..bench.summary import (
    WALL,
    Series,
    Traffic,
    crossover,
    gpus_measured,
    hostnames,
    limit_of,
    own_limit,
    plain,
    ranks_words,
    rate_words,
    series,
    settings,
    size_words,
    time_words,
)
from ..collectives.collective import COLLECTIVES
from ..errors import UserError
from . import style
from .published import Published

FORMATS = ("png", "svg", "pdf")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
PANEL = (4.45, 3.35)  # inches, width and height of one panel
LEGEND_ROW = 0.21  # inches
HOLLOW = ("o", "s", "^", "D", "v", "p", "<", ">")  # of published points
FULL_MARKERS = 40  # a curve of more sizes than this is drawn without markers
LIMIT_DOTS = (0, (1, 1.5))
LIMIT_IN_SIGHT = 30  # a memory limit this many times above every curve is left out, for it would flatten them


class PlotError(UserError):
    """A figure that cannot be made or written; the message says what would be accepted."""


@dataclass(frozen=True)
class Group:
    """Series that share one marker: those of one file and one setting. label: "" where there is only one group."""

    label: str
    series: tuple[Series, ...]
    limits: dict

    @property
    def modelled(self) -> bool:
        return self.series[0].setting.clock != WALL


def groups(results: Sequence[ResultFile] | Sequence[Record]) -> list[Group]:
    """The records sorted by file and setting, labelled by whatever tells the groups apart."""
    if results and isinstance(results[0], Record):
        results = [ResultFile("", list(results), {}, [])]
    found = []
    for label, result in zip(_file_labels([r.path for r in results]), results):
        all_series = series(result.records)
        own = settings(all_series)
        for s in own:
            members = tuple(c for c in all_series if c.setting == s)
            parts = [label if len(results) > 1 else "", _difference(s, own)]
            found.append(Group(" · ".join(p for p in parts if p), members, result.limits))
    clocks = {g.series[0].setting.clock for g in found}
    if WALL in clocks and len(clocks) > 1:  # a reader must see at once which curves nobody measured
        found = [g if "modelled" in g.label or "measured" in g.label else _with_clock(g) for g in found]
    return found


def _with_clock(g: Group) -> Group:
    clock = g.series[0].setting.clock
    words = f"modelled {plain(clock.removeprefix('fabric:'), 30)}" if g.modelled else "measured"
    return replace(g, label=f"{g.label} ({words})" if g.label else words)


def curves(
    results: Sequence[ResultFile] | Sequence[Record],
    traffic: Traffic | None = None,
    heading: bool = True,
    others: Sequence[Published] = (),
) -> Figure:
    """Two panels: bandwidth over size, time over size, both on logarithmic axes.

    Colour is the algorithm; the marker is the file (or the setting, where a file holds several); in-place is dashed and
    thinner; modelled times are dash-dotted without markers. The band is the 95 % confidence interval of the median.
    results: files, or the records of one run. traffic: as for ``bench.summary.limit_of``, for the memory limit.
    heading: whether title and provenance stand above, for a figure that travels alone. others: published series, drawn as hollow
    marks without a line, in the colour of their algorithm: that of "auto" where the library chose, grey where busbw has none.
    Sizes or times of 0 have no place on a logarithmic axis and are left out.
    Raises PlotError where nothing is left to draw.
    """
    found = groups(results)
    drawable = [r for g in found for s in g.series for r in s.records if any(_x(r, t) for t in _timings(r))]
    if not drawable:
        raise PlotError("nothing to plot: no record has both a size and a time above 0")
    with matplotlib.rc_context(style.RC):
        return _curves(found, drawable, traffic, heading, others)


def _curves(found: list[Group], drawable: list[Record], traffic: Traffic | None, heading: bool, others) -> Figure:
    colour = style.colours(s.algorithm for g in found for s in g.series)
    bus = any(r.ranks > 1 for r in drawable)
    rate = _rate(bus)
    limits = _limits(found, max(rate(r, t.seconds) for r in drawable for t in _timings(r)), traffic)
    legends = [
        rows(h)
        for h in (_algorithm_handles(colour), _mark_handles(found, limits), _published_handles(others, colour))
        if h
    ]
    lines = sum(math.ceil(len(handles) / columns) for handles, columns in legends)
    above = 0.66 if heading else 0.05  # inches over the legend
    top, bottom, left, gap, right = above + 0.34 + LEGEND_ROW * lines, 0.62, 0.62, 0.85, 0.25
    width, height = left + 2 * PANEL[0] + gap + right, top + PANEL[1] + bottom
    fig = Figure(figsize=(width, height), facecolor="white")
    rates, times = (
        fig.add_axes(((left + i * (PANEL[0] + gap)) / width, bottom / height, PANEL[0] / width, PANEL[1] / height))
        for i in (0, 1)
    )
    rates.set_label("bandwidth")
    times.set_label("time")

    heights: dict[Axes, list[float]] = {rates: [], times: []}
    for i, g in enumerate(found):
        for s in sorted(g.series, key=lambda s: style.legend_order(s.algorithm)):
            look = {"color": colour[s.algorithm], "marker": _marker(g, i, s)}
            for which, line in (("out_of_place", "-"), ("in_place", (0, (4, 2)))):
                dashes = (0, (6, 2, 1.2, 2)) if g.modelled and which == "out_of_place" else line
                for ax, value in ((rates, rate), (times, lambda r, seconds: seconds)):
                    heights[ax] += _draw(ax, s, which, value, dict(look, linestyle=dashes))

    for i, other in enumerate(others):
        hollow = {
            "linestyle": "", "marker": HOLLOW[i % len(HOLLOW)], "markersize": 5, "markerfacecolor": "none", "markeredgewidth": 1.0,
            "markeredgecolor": _published_colour(other, colour), "zorder": 5, "label": f"published {other.name}",
        }  # fmt: skip
        sizes, seconds = zip(*other.points)
        for ax, heights_drawn in (
            (rates, [other.bandwidth(size, time, bus) for size, time in other.points]),
            (times, seconds),
        ):
            ax.plot(sizes, heights_drawn, **hollow)
            heights[ax] += heights_drawn

    sizes = [r.size_bytes for r in drawable if r.size_bytes > 0] + [size for p in others for size, _ in p.points]
    for ax in (rates, times):
        style.size_axis(ax, min(sizes), max(sizes))
    heights[rates] += _draw_limits(rates, limits, colour)
    style.value_axis(rates, heights[rates] or [1.0], style.gigabytes_label)
    style.value_axis(times, heights[times], style.time_label)
    style.dress(rates, f"{'Bus' if bus else 'Algorithm'} bandwidth, GB/s")
    style.dress(times, f"Time of one {collective_words(drawable)}")
    for ax in (rates, times):
        ax.set_xlabel("message size", fontsize=8.5, color=style.MUTED, labelpad=4)
    _draw_crossovers((rates, times), found)

    if heading:
        records = [r for g in found for s in g.series for r in s.records]
        fig.text(left / width, 1 - 0.30 / height, headline(records), fontsize=13, fontweight="bold", va="center")
        fig.text(left / width, 1 - 0.53 / height, provenance(records), fontsize=8.5, color=style.MUTED, va="center")
    for handles, columns in legends:
        legend(fig, handles, left / width, 1 - above / height, columns)
        above += LEGEND_ROW * math.ceil(len(handles) / columns)
    return fig


def said(results: Sequence[ResultFile], others: Sequence[Published] = ()) -> list[tuple[float, str, list[str]]]:
    """What stands at each size of ``curves``, in words: (size, heading, lines), for ``hover.columns``."""
    lines: dict[int, list[str]] = {}
    for g in groups(results):
        for s in g.series:
            name = plain(s.algorithm, 24) + (f" ({_short(g.label)})" if g.label else "")
            for r in s.records:
                for which, t in (("", r.out_of_place), (" in-place", r.in_place)):
                    if t is None or not _x(r, t):
                        continue
                    rate = r.busbw(t) or r.algbw(t)
                    lines.setdefault(r.size_bytes, []).append(
                        f"{name}{which}: {rate_words(rate)}, {time_words(t.seconds, 'µs')}"
                    )
    for p in others:
        for size, seconds in p.points:
            lines.setdefault(size, []).append(f"published {plain(p.name, 30)}: {time_words(seconds, 'µs')}")
    return [(float(size), size_words(size), lines[size]) for size in sorted(lines)]


def _published_colour(other: Published, colour: dict) -> str:
    return colour.get(other.algorithm) or style.NAMED.get(other.algorithm, style.MUTED)


def _published_handles(others: Sequence[Published], colour: dict) -> list[Line2D]:
    return [
        Line2D(
            [], [], linestyle="", marker=HOLLOW[i % len(HOLLOW)], markersize=5, markerfacecolor="none",
            markeredgecolor=_published_colour(p, colour), label=p.label,
        )
        for i, p in enumerate(others)
    ]  # fmt: skip


def legend(fig: Figure, handles: list, left: float, top: float, columns: int) -> None:
    """A frameless legend above the panels, its upper left corner at (left, top) in figure fractions."""
    fig.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(left, top),
        ncols=columns,
        frameon=False,
        fontsize=8.5,
        handlelength=2.0,
        columnspacing=1.6,
        labelspacing=0.35,
        borderpad=0,
        borderaxespad=0,
    )


def save(fig: Figure, path: str | os.PathLike) -> Path:
    """Write the figure as its suffix says: .png (200 dots an inch), .svg or .pdf. The same figure gives the same bytes.

    Raises PlotError for another suffix or a path that cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        accepted = ", ".join(f".{f}" for f in FORMATS)
        raise PlotError(f"{path}: no figure format for the suffix {path.suffix!r}; accepted: {accepted}")
    try:
        path.write_bytes(render(fig, kind))
    except OSError as e:
        raise PlotError(f"{path}: cannot be written: {e.strerror}") from None
    return path


def render(fig: Figure, kind: str, **rc) -> bytes:
    """The figure as the bytes of a png, svg or pdf; `rc` overrides matplotlib settings."""
    dates = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": dict.fromkeys(SVG_METADATA)}
    out = io.BytesIO()
    with matplotlib.rc_context({**style.RC, **rc}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a host name in a script DejaVu lacks
        fig.savefig(out, format=kind, dpi=200, metadata=dates[kind])
    return out.getvalue()


SVG_METADATA = ("Date", "Creator", "Format", "Type")  # set to None, matplotlib leaves its metadata block out


def headline(records: Sequence[Record]) -> str:
    """``All-reduce, 8 ranks, float32 sum``; what differs among the records is listed."""
    ranks = sorted({r.ranks for r in records if r.ranks})
    kinds = list(dict.fromkeys(f"{r.dtype} {r.op}" for r in records))
    many = ", ".join(str(r) for r in ranks[:6]) + (", …" if len(ranks) > 6 else "")
    told = [collective_words(records), f"{many} rank{'s' * (ranks != [1])}" if many else ranks_words(0)]
    kinds = [k for k in kinds if k.strip()]
    told += [", ".join(kinds[:3]) + ", …" * (len(kinds) > 3)] * bool(kinds)
    text = ", ".join(told)
    return plain(text[0].upper() + text[1:], 90)


def collective_words(records: Sequence[Record]) -> str:
    """``all-reduce``, or the names of what else the records are of."""
    names = list(dict.fromkeys(r.collective for r in records))
    words = [COLLECTIVES[n].title if n in COLLECTIVES else plain(n, 24) for n in names[:3]]
    return ", ".join(words) + ", …" * (len(names) > 3)


def provenance(records: Sequence[Record]) -> str:
    """Transport, GPUs or CPU, cores, hosts, MPI and day, as far as the environment tells; modelled systems by name."""
    transports = list(dict.fromkeys(r.transport for r in records))
    parts = ["transport " + ", ".join(plain(t, 20) for t in transports[:4])]
    systems = dict.fromkeys(r.clock.removeprefix("fabric:") for r in records if r.clock != WALL)
    parts += [f"modelled: {plain(s, 30)}" for s in list(systems)[:3]]
    env = next((r.environment for r in records if r.clock == WALL and r.environment), {})
    gpus = [str(gpu.get("name")) for gpu in gpus_measured(env)]
    parts += [f"{gpus.count(name)} × {plain(name, 45)}" for name in list(dict.fromkeys(gpus))[:2]]
    if env.get("cpu_model") and not gpus:
        parts.append(plain(env["cpu_model"], 45))
    if env.get("cores") and not gpus:
        parts.append(f"{plain(env['cores'], 8)} cores")
    hosts = hostnames(env)
    if hosts:
        parts.append(plain(hosts[0], 28) if len(hosts) == 1 else f"{len(hosts)} hosts")
    if env.get("mpi"):
        parts.append(plain(env["mpi"], 30))
    day = str(env.get("time") or next((r.time for r in records if r.time), ""))[:10]
    if day:
        parts.append(plain(day))
    return plain(" · ".join(parts), 150)


def _file_labels(paths: Sequence[str]) -> list[str]:
    """The stem of each path; with its folder where stems repeat, numbered where that repeats too."""
    stems = [Path(p).stem for p in paths]
    labels = [s if stems.count(s) == 1 else f"{Path(p).parent.name}/{s}" for s, p in zip(stems, paths)]
    labels = [label if labels.count(label) == 1 else f"{label} ({i})" for i, label in enumerate(labels, 1)]
    return [plain(label, 40) for label in labels]


def _difference(one, all_settings) -> str:
    """What sets one setting apart from the others of its file, in words."""
    parts = []
    for name, text in (
        ("collective", one.collective),
        ("ranks", ranks_words(one.ranks)),
        ("dtype", one.dtype),
        ("op", one.op),
        ("clock", "measured" if one.clock == WALL else f"modelled {one.clock.removeprefix('fabric:')}"),
        ("machine", one.machine or "no machine named"),
    ):
        if len({getattr(s, name) for s in all_settings}) > 1:
            parts.append(text)
    return plain(", ".join(parts), 40)


def _timings(r: Record) -> list[Timing]:
    return [t for t in (r.out_of_place, r.in_place) if t]


def _x(r: Record, t: Timing) -> bool:
    """Whether the point has a place on logarithmic axes."""
    return r.size_bytes > 0 and t.seconds > 0


def _rate(bus: bool):
    """GB/s of a record for one time; 0 for no time."""

    def rate(r: Record, seconds: float) -> float:
        factor = busbw_factor(r.ranks, r.collective) if bus else 1.0
        return r.size_bytes / seconds * factor / 1e9 if seconds > 0 else 0.0

    return rate


def _marker(g: Group, index: int, s: Series) -> str:
    return "" if g.modelled and len(s.records) > 1 else MARKERS[index % len(MARKERS)]


def _draw(ax: Axes, s: Series, which: str, value, look: dict) -> list[float]:
    """One curve and its confidence band; returns the heights drawn."""
    points = []
    for r in s.records:
        t = getattr(r, which)
        if t is None or not _x(r, t) or value(r, t.seconds) <= 0:
            continue
        ends = [value(r, c) if 0 < c < math.inf else value(r, t.seconds) for c in (t.ci_low, t.ci_high)]
        points.append((r.size_bytes, value(r, t.seconds), min(ends), max(ends)))
    if not points:
        return []
    x, y, low, high = zip(*points)
    thin = which == "in_place"
    if len(points) > FULL_MARKERS:
        look = dict(look, marker="")
    ax.plot(
        x,
        y,
        linewidth=1.1 if thin else 1.7,
        markersize=2.6 if thin else 3.6,
        markeredgewidth=0,
        solid_capstyle="round",
        label=f"{s.algorithm} {which}",
        zorder=3 if thin else 4,
        **look,
    )
    if len(points) == 1:
        ax.vlines(x, low, high, color=look["color"], linewidth=1.2)
    else:
        ax.fill_between(x, low, high, color=look["color"], alpha=0.16, linewidth=0, zorder=2)
        inner = [(r.size_bytes, *sorted(value(r, t) for t in r.options["band50"])) for r in s.records if _band50(r)]
        if len(inner) > 1:
            ax.fill_between(*zip(*inner), color=look["color"], alpha=0.18, linewidth=0, zorder=2)
    return [*y, *(v for v in (*low, *high) if v > 0)]


def _band50(r: Record) -> bool:
    """Whether the record is a modelled time with the interval that holds half of measurements (its 90 % one is the timing's)."""
    inner = r.options.get("band50")
    return (
        isinstance(inner, list)
        and len(inner) == 2
        and all(isinstance(v, (int, float)) and 0 < v < math.inf for v in inner)
    )


def _limits(found: list[Group], highest: float, traffic: Traffic | None) -> set[tuple[str, float]]:
    """(algorithm, GB/s) of the memory limits to draw: the algorithms' own where any is known, else the general one."""
    own = [(s, v) for g in found for s in g.series if (v := own_limit(s, g.limits, traffic))]
    general = [(s, v) for g in found for s in g.series if (v := limit_of(s, g.limits, traffic))]
    limits = {(s.algorithm, round(v / 1e9, 9)) for s, v in own or general}
    return {(a, v) for a, v in limits if v < LIMIT_IN_SIGHT * highest}


def _draw_limits(ax: Axes, limits: set[tuple[str, float]], colour: dict) -> list[float]:
    """One grey line where all share the limit, else a short one in each algorithm's colour; returns the heights."""
    values = {v for _, v in limits}
    for a, v in sorted(limits):
        shared = len(values) == 1
        line = ax.axhline(v, xmin=0 if shared else 0.8, linestyle=LIMIT_DOTS, linewidth=1.2, label="memory limit")
        line.set(color=style.MUTED if shared else colour[a], zorder=1)
        if shared:
            break
    return sorted(values)


def _draw_crossovers(axes: Sequence[Axes], found: list[Group]) -> None:
    """A dotted vertical where the tree hands over to the ring, once a group; the labels stand beside the rightmost."""
    crossings = [(g, c) for g in found if (c := crossover(g.series))][:6]
    if not crossings:
        return
    for ax in axes:
        for _, c in crossings:
            ax.axvline(c.size_bytes, color=style.INK, linewidth=0.9, linestyle=(0, (1, 2)), label="crossover", zorder=1)
    lines = [
        f"{plain(c.tree, 24)} → {plain(c.ring, 24)}{chr(10) if len(found) == 1 else ' at '}"
        f"{size_words(c.size_bytes)}{f' ({_short(g.label)})' if len(found) > 1 else ''}"
        for g, c in crossings
    ]
    ax, last = axes[0], max(c.size_bytes for _, c in crossings)
    low, high = (math.log2(v) for v in ax.get_xlim())
    right = (math.log2(last) - low) / (high - low) < 0.6
    ax.annotate(
        "\n".join(lines),
        (last if right else min(c.size_bytes for _, c in crossings), 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(5 if right else -5, 0),
        textcoords="offset points",
        ha="left" if right else "right",
        fontsize=8,
        linespacing=1.3,
    )


def _short(label: str) -> str:
    """A group's label without whether it is measured, which the legend says."""
    return plain(label.split(" (m")[0], 20)


def _algorithm_handles(colour: dict) -> list[Line2D | Patch]:
    return [
        Line2D([], [], color=colour[a], linewidth=2.6, solid_capstyle="butt", label=plain(a, 28))
        for a in sorted(colour, key=style.legend_order)
    ]


def _mark_handles(found: list[Group], limits: set[tuple[str, float]]) -> list[Line2D | Patch]:
    """What dashes, bands and markers mean, as far as they occur."""
    grey = style.MUTED
    records = [r for g in found for s in g.series for r in s.records]
    handles: list[Line2D | Patch] = []
    if any(r.in_place for r in records) and any(r.out_of_place for r in records):
        handles.append(Line2D([], [], color=grey, linewidth=1.7, label="out-of-place"))
        handles.append(Line2D([], [], color=grey, linewidth=1.1, linestyle=(0, (4, 2)), label="in-place"))
    if any(t.ci_high > t.ci_low for r in records if not _band50(r) for t in _timings(r)):
        handles.append(Patch(facecolor=grey, alpha=0.25, linewidth=0, label="95 % confidence of the median"))
    if any(map(_band50, records)):
        handles.append(
            Patch(facecolor=grey, alpha=0.25, linewidth=0, label="model: holds 90 % (darker: 50 %) of measurements")
        )
    values = {v for _, v in limits}
    if values:
        text = f"memory limit, {max(values):.3g} GB/s" if len(values) == 1 else "memory limit of each algorithm"
        handles.append(Line2D([], [], color=grey, linewidth=1.2, linestyle=LIMIT_DOTS, label=text))
    if len(found) > 1:
        for i, g in enumerate(found):
            marker, line = ("", (0, (6, 2, 1.2, 2))) if g.modelled else (MARKERS[i % len(MARKERS)], "-")
            handles.append(
                Line2D([], [], color=grey, linewidth=1.2, linestyle=line, marker=marker, markersize=4.5, label=g.label)
            )
    return handles


def rows(handles: list, fits: float = 2 * PANEL[0] + 0.85) -> tuple[list, int]:
    """(handles, columns) so that a legend `fits` inches wide, which fills its columns first, reads row by row."""

    def inches(columns: int) -> float:
        return sum(0.6 + 0.07 * max(len(h.get_label()) for h in handles[i::columns]) for i in range(columns))

    columns = next((c for c in range(min(len(handles), 8), 1, -1) if inches(c) <= fits), 1)
    return [h for i in range(columns) for h in handles[i::columns]], columns
