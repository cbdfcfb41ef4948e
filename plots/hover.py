"""Values of a figure on hover and focus without a script: an invisible column over each place of the x axis, whose words CSS shows.

matplotlib draws the figure; these columns are laid over it in the same SVG. One panel's columns take the keyboard's focus and are
read out by screen readers, the other panels' repeat the words for the mouse.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from .page import escape

MOST_COLUMNS, MOST_LINES = 80, 12
SIZE, LEADING, PAD, CHARACTER = 8.5, 11.5, 6.0, 0.56  # points; of a mean character, in em
Columns = Sequence[tuple[float, str, Sequence[str]]]


def columns(panels: Sequence[Axes], found: Columns, focus: bool = True) -> str:
    """SVG for ``page.inline``'s overlay. found: (x in data coordinates, heading, lines of plain text) by ascending x.
    focus: whether the first panel's columns take the keyboard's focus.

    Beyond MOST_COLUMNS places, evenly chosen ones are kept: the table behind the figure has them all.
    """
    if len(found) > MOST_COLUMNS:
        found = [found[round(i * (len(found) - 1) / (MOST_COLUMNS - 1))] for i in range(MOST_COLUMNS)]
    return "".join(_panel(ax, found, focus and i == 0) for i, ax in enumerate(panels))


def _panel(ax: Axes, found: Columns, focus: bool) -> str:
    fig = ax.figure
    width, height = (72 * inches for inches in fig.get_size_inches())
    box = ax.get_position()
    left, right, top, bottom = box.x0 * width, box.x1 * width, (1 - box.y1) * height, (1 - box.y0) * height
    to_figure = fig.transFigure.inverted().transform
    places = [to_figure(ax.transData.transform((x, ax.get_ylim()[0])))[0] * width for x, _, _ in found]
    parts = []
    for i, (place, (_, heading, lines)) in enumerate(zip(places, found)):
        if not left - 1 <= place <= right + 1:
            continue
        start = (places[i - 1] + place) / 2 if i else max(left, place - 12)
        end = (place + places[i + 1]) / 2 if i + 1 < len(places) else min(right, place + 12)
        parts.append(
            _column(place, max(start, left), min(end, right), top, bottom, width, height, heading, lines, focus)
        )
    return "".join(parts)


def _column(place, start, end, top, bottom, width, height, heading, lines, focus: bool) -> str:
    shown = [*lines[:MOST_LINES], *([f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else [])]
    wide = min(width - 2, CHARACTER * SIZE * max(map(len, [heading, *shown])) + 2 * PAD)
    tall = LEADING * (1 + len(shown)) + PAD + 2
    x = place + 6 if place + 6 + wide <= width else place - 6 - wide
    x, y = min(max(1.0, x), width - wide - 1), max(1.0, min(top + 2, height - tall - 1))
    rows = "".join(
        f'<tspan x="{x + PAD:.1f}" y="{y + LEADING * (i + 1):.1f}">{escape(t)}</tspan>'
        for i, t in enumerate([heading, *shown])
    )
    spoken = escape("; ".join([heading, *shown]))
    takes = f'tabindex="0" role="img" aria-label="{spoken}"' if focus else 'aria-hidden="true"'
    return (
        f'<g class="hit" {takes}><rect class="area" x="{start:.1f}" y="{top:.1f}" width="{max(end - start, 0.1):.1f}" '
        f'height="{bottom - top:.1f}"/><g class="tip"><path d="M{place:.1f} {top:.1f}V{bottom:.1f}"/>'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{tall:.1f}" rx="3"/><text>{rows}</text></g></g>'
    )
