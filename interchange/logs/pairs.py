"""Figures between pairs: a line a pair, or a matrix.

node644,node699     49.36                              D\\D     0      1      2
node632,node641     88.36                                0  620.1   38.2   38.1
                                                         1   38.3  618.8   38.0
"""

from __future__ import annotations

import re

from ...bench.log import Note, Pair
from . import numbers

MOST = 300_000
LEAST = 3  # lines from which a list of pairs is one
_LINE = re.compile(
    r"\s*([A-Za-z][\w.-]{0,80}?\d[\w.-]{0,80})\s*(?:,|->|<->|--|\s)\s*([A-Za-z][\w.-]{0,80}?\d[\w.-]{0,80})\s*[:,\s]\s*(\d[\d.]{0,15})\s*([A-Za-z/]{2,8})?\s*(?:#.*)?$"
)


class PairReader:
    """Collects pairs over a whole log. The figure's unit is that of its line or of the title above; without one GB/s is noted."""

    def __init__(self, notes: list[Note]):
        self.notes, self.pairs = notes, []
        self.labels: list[str] = []
        self.title = ""
        self.bare = 0  # line of the first figure without a unit
        self.matrix = False

    def line(self, number: int, text: str) -> bool:
        """A line a pair; False for any other."""
        found = _LINE.match(text) if len(text) < 400 else None
        if not found or len(self.pairs) >= MOST:
            return False
        source, target, figure, unit = found.groups()
        if _shape(source) != _shape(target):
            return False
        return self._add(number, source, target, figure, unit or "")

    def header(self, number: int, text: str) -> bool:
        """The labels over a matrix: at least two, all of one shape, or 0, 1, 2, ... ."""
        tokens = text.replace("|", " ").replace(",", " ").split()
        if not 2 <= len(tokens) <= 5000:
            return False
        labels = tokens[1:] if not re.fullmatch(r"[\w.-]*\d", tokens[0]) or "\\" in tokens[0] else tokens
        counted = labels == [str(i) for i in range(len(labels))]
        named = (
            len(labels) > 1
            and labels[0][0].isalpha()
            and len({_shape(x) for x in labels}) == 1
            and labels[0][-1].isdigit()
        )
        if len(labels) >= 2 and (counted or named) and len(set(labels)) == len(labels):
            self.labels = labels
            return True
        return False

    def row(self, number: int, text: str) -> bool:
        """A row of the matrix under the last header."""
        tokens = text.replace("|", " ").replace(",", " ").split()
        if len(tokens) != len(self.labels) + 1 or tokens[0] not in self.labels or len(self.pairs) >= MOST:
            return False
        values = [numbers.real(t) for t in tokens[1:]]
        if sum(v is not None for v in values) < len(values) - 1 or not any("." in t for t in tokens[1:]):
            return False
        self.matrix = True
        for target, token, value in zip(self.labels, tokens[1:], values):
            if value is not None:
                self._add(number, tokens[0], target, token, "")
        return True

    def close(self, tables: int) -> tuple[Pair, ...]:
        if not self.pairs or (len(self.pairs) < LEAST and not self.matrix):
            return ()
        if self.bare:
            self.notes.append(Note(self.bare, "units", "figures of pairs without a unit are read as GB/s"))
        what = "matrix" if self.matrix else "list"
        if not tables:
            self.notes.append(
                Note(
                    self.pairs[0].line,
                    "read",
                    f"a {what} of {len(self.pairs)} pairs, not a table over sizes: it has no sizes and no collective",
                )
            )
        return tuple(self.pairs)

    def _add(self, number: int, source: str, target: str, figure: str, unit: str) -> bool:
        got = numbers.real(figure)
        if got is None:
            return False
        words = unit or next((w for w in re.findall(r"\(([^)]{1,12})\)", self.title) if w.strip() != "B"), "")
        if scale := numbers.time_unit(words):
            self.pairs.append(Pair(number, source, target, seconds=got[0] * scale))
        else:
            rate = numbers.rate_unit(words)
            if rate is None:
                self.bare = self.bare or number
            self.pairs.append(Pair(number, source, target, bandwidth=got[0] * (rate or 1e9)))
        return True


def _shape(name: str) -> str:
    return re.sub(r"\d+", "0", name)
