"""What all figures share: one colour an algorithm, type sizes, axes in human units, and cleaned text from files."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ..bench.summary import is_ring, is_tree, size_words, time_words

INK, MUTED, RULE = "#1f2328", "#656d76", "#d8dee4"  # text, secondary text, hairlines

# Okabe and Ito's colour-blind-safe set, without its black (that is INK) and its yellow (unreadable as a line on white),
# then four of Paul Tol's "muted" set. https://jfly.uni-koeln.de/color/ and https://personal.sron.nl/~pault/
BLUE, VERMILLION, ORANGE, GREEN, PURPLE, SKY = "#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"
WINE, OLIVE, TEAL, VIOLET, SLATE, SAND = "#882255", "#999933", "#44aa99", "#aa4499", "#7a828b", "#9c7a4a"
NAMED = {
    "ring": BLUE,
    "tree": VERMILLION,
    "recursive-doubling": ORANGE,
    "halving-doubling": GREEN,
    "binomial": PURPLE,
    "one-shot": SKY,
    "two-shot": WINE,
    "auto": INK,
    "mpi-native": SLATE,
    "numpy": SAND,
}
SPARE = (OLIVE, TEAL, VIOLET, SKY, WINE)

RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib, so a figure looks the same everywhere
    "font.size": 9.0,
    "text.color": INK,
    "text.usetex": False,
    "text.parse_math": False,  # a "$" in a host name is a dollar sign
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.unicode_minus": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "path.simplify": True,
    "figure.dpi": 100.0,
    "savefig.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "busbw",  # the same figure gives the same bytes
    "pdf.fonttype": 42,
}


def colours(algorithms: Iterable[str]) -> dict[str, str]:
    """A colour for each algorithm, by its name alone, so that it is the same in every figure.

    Names without a colour of their own get a spare one by a checksum of the name; only where two such names of one
    figure meet on the same colour does the later one in alphabetical order move on to the next.
    """
    wanted = sorted(set(algorithms))
    chosen = {a: NAMED[spelt] for a in wanted if (spelt := a.replace("_", "-")) in NAMED}
    for a in (a for a in wanted if a not in chosen):
        start = zlib.crc32(a.encode("utf-8", "replace"))
        turn = [SPARE[(start + i) % len(SPARE)] for i in range(len(SPARE))]
        chosen[a] = next((c for c in turn if c not in chosen.values()), turn[0])
    return chosen


def legend_order(algorithm: str) -> tuple:
    """Rings, trees, the others, then baselines and auto."""
    last = {"auto": 3, "mpi-native": 4, "numpy": 5}
    return (0 if is_ring(algorithm) else 1 if is_tree(algorithm) else last.get(algorithm, 2), algorithm)


def size_axis(ax: Axes, low: float, high: float) -> None:
    """A base-2 logarithmic x axis over [low, high] bytes, labelled 8 B, 1 KiB, 1 MiB, ..."""
    ax.set_xscale("log", base=2)
    first, last = math.log2(low), math.log2(high)
    pad = max(0.03 * (last - first), 0.25)
    ax.set_xlim(2 ** (first - pad), 2 ** (last + pad))
    octaves = range(math.ceil(first - pad), math.floor(last + pad) + 1)
    step = next(s for s in (1, 2, 5, 10, 20, 1 << 30) if len(octaves) / s <= 8)
    ax.xaxis.set_major_locator(FixedLocator([2.0**e for e in octaves if e % step == 0]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: size_words(v)))
    ax.xaxis.set_minor_locator(FixedLocator([2.0**e for e in octaves]) if len(octaves) <= 40 else NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())


def value_axis(ax: Axes, values: list[float], label) -> None:
    """A logarithmic y axis around the positive `values`; `label` turns a value into its tick label."""
    ax.set_yscale("log")
    low, high = math.log10(min(values)), math.log10(max(values))
    pad = max(0.05 * (high - low), 0.08)
    low, high = low - pad, high + pad
    ax.set_ylim(10**low, 10**high)
    decades = range(math.floor(low), math.ceil(high) + 1)
    steps = (1, 2, 5) if high - low < 2 else (1,)
    if high - low < 0.7:
        steps = (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9)
    step = max(1, math.ceil((high - low) / 8)) if len(steps) == 1 else 1
    ax.yaxis.set_major_locator(FixedLocator([m * 10.0**d for d in decades if d % step == 0 for m in steps]))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: label(v)))
    ax.yaxis.set_minor_locator(FixedLocator([m * 10.0**d for d in decades for m in range(1, 10)]))
    ax.yaxis.set_minor_formatter(NullFormatter())


def time_label(seconds: float) -> str:
    """1 µs, 20 µs, 1.5 ms: as short as it can be."""
    number, unit = time_words(seconds, "µs").split()
    return f"{float(number):g} {unit}"


def gigabytes_label(value: float) -> str:
    """A plain number, 0.001 rather than 1e-03."""
    return f"{value:.6f}".rstrip("0").rstrip(".") if 1e-6 <= value < 1e6 else f"{value:.0e}"


def dress(ax: Axes, title: str) -> None:
    """The look of one panel: its quantity as a left-hand title, light horizontal grid, ticks outside."""
    ax.set_title(title, loc="left", fontsize=9.5, fontweight="bold", color=INK, pad=8)
    ax.grid(True, which="major", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(which="major", length=3.5, width=0.7, labelsize=8.5)
    ax.tick_params(which="minor", length=1.8, width=0.5)
