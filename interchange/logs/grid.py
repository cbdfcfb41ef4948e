"""Tables whose columns are known by their names only: Markdown, CSV, tab-separated, edited by hand, of any tool.

A header cell means something by its words and its unit ("busbw GPUDirect-TCPX (GB/s)"); what is left of its words names a series,
and columns of the same kind give a table each.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ...bench.log import Figures, Row
from . import numbers
from .collective import collective
from .draft import Draft

_UNIT = re.compile(r"[(\[]([^)\]]{0,20})[)\]]")
_KINDS = (
    ("size", r"\b(?:message |payload |msg |data |buffer |total.)?size\b|^payload$|^bytes$|^#?bytes$|^message$"),
    ("busbw", r"\bbus ?-?_?b(?:andwidth|w)\b"),
    ("algbw", r"\balg(?:o|orithm)? ?-?_?b(?:andwidth|w)\b"),
    ("low", r"\bt_min\b|\bmin(?:imum)? (?:time|latency)\b"),
    ("high", r"\bt_max\b|\bmax(?:imum)? (?:time|latency)\b"),
    ("time", r"\btime\b|\blatency\b|\bt_avg\b|\bduration\b"),
    ("count", r"^count$|^elements$|^n$|\bnelements\b"),
    ("type", r"^d?type$|^data ?type$"),
    ("op", r"^red_?op$|^op$"),
    ("root", r"^root$"),
    ("wrong", r"^#?wrong$|^errors$"),
    ("deviation", r"^error$"),
    ("algo", r"^algo(?:rithm)?$"),
    ("proto", r"^proto(?:col)?$"),
    ("nchannels", r"^n?channels$"),
    ("ranks", r"^(?:gpus|ranks|n_?ranks|np|world_?size)$"),
    ("inplace", r"^in-?_?place$"),
    ("name", r"^(?:name|collective|test)$"),
    ("cycle", r"^(?:num_?)?cycle$"),
)
_MEASURES = ("time", "algbw", "busbw")
_DEFAULT_UNIT = {"time": 1e-6, "low": 1e-6, "high": 1e-6, "algbw": 1e9, "busbw": 1e9}


@dataclass(frozen=True)
class Column:
    """kind: of _KINDS; unit: factor to SI, None where the header does not say; series: what else the header says."""

    kind: str
    unit: float | None
    series: str


def column(cell: str) -> Column | None:
    """What a header cell means; None for nothing known."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", cell.strip().strip("*`\"'#"))[:80]
    text = re.sub(r"_([A-Za-z/]{1,12})$", lambda m: f" ({m.group(1)})" if _unit(m.group(1)) else m.group(0), text)
    unit = next((u for words in _UNIT.findall(text) if (u := _unit(words))), None)
    plain = " ".join(_UNIT.sub(" ", text).lower().replace("_", " ").split())
    glued = plain.replace(" ", "")
    for kind, pattern in _KINDS:
        for form in (plain, glued):
            if found := re.search(pattern, form):
                rest = " ".join((form[: found.start()] + form[found.end() :]).replace("_", " ").split())
                series = ""
                if rest:
                    original = _UNIT.sub(" ", cell).strip()
                    series = " ".join(w for w in original.split() if w.lower() not in found.group(0).split())
                return Column(kind, unit, series)
    return None


def _unit(words: str) -> float | None:
    """The factor to SI of a unit of time, rate or size."""
    words = words.replace(" ", "")
    got = numbers.time_unit(words) or numbers.rate_unit(words)
    if got or words.lower() in ("b", "bytes"):
        return got
    size = numbers.size("1" + words) if words.isalpha() else None
    return float(size[0]) if size and size[0] > 1 else None


def columns(cells: list[str]) -> list[Column | None] | None:
    """The columns of a header row; None where it is none: no size, or nothing measured, or mostly numbers."""
    if not 2 <= len(cells) <= 64:
        return None
    found = [column(c) if c and not c.strip()[:1].isdigit() else None for c in cells]
    kinds = [c.kind for c in found if c]
    return found if kinds.count("size") == 1 and any(k in _MEASURES for k in kinds) else None


class Grid:
    """An open table of cells. split: from a line to its cells, None for a line that is not of the table."""

    def __init__(self, draft: Draft, found: list[Column | None], split, strict: bool = True):
        self.draft, self.found, self.split, self.strict = draft, found, split, strict
        at = {k: [i for i, c in enumerate(found) if c and c.kind == k] for k, _ in _KINDS}
        self.at = {k: v[0] for k, v in at.items() if v}
        most = max(len(at[k]) for k in _MEASURES)
        repeated = [i for k in _MEASURES if len(at[k]) == most for i in at[k]]
        # One series a repeated measure ("busbw A", "busbw B"); a second half of the same name is in-place.
        self.labels = list(dict.fromkeys(found[i].series for i in repeated)) if most > 1 else [""]
        self.series = [
            {k: next((i for i in at[k] if found[i].series == label), at[k][0] if len(at[k]) == 1 else None) for k in _MEASURES}
            for label in self.labels
        ]  # fmt: skip
        if most == 2 and self.labels == [""]:
            self.series = [{k: v[0] if v else None for k, v in at.items() if k in _MEASURES}]
            self.second = {k: v[1] if len(v) > 1 else None for k, v in at.items() if k in _MEASURES}
        else:
            self.second = {}
        self.series = [{k: i for k, i in s.items() if i is not None} for s in self.series]
        self.rows: list[list[Row]] = [[] for _ in self.series]
        self.units = [c.unit if c else None for c in found]
        self.open: dict[tuple, int] = {}  # rows by (size, cycle, series) whose other half may follow
        self.assumed_binary = False
        self.needed = 1 + max(i for i, c in enumerate(found) if c)  # cells up to the last that means something
        self.ranks: set[int] = set()

    def take(self, number: int, text: str, stripper=None) -> bool:
        cells = self.split(text)
        if cells is None:
            return False
        if all(re.fullmatch(r"[\s:=-]*", c) for c in cells):  # Markdown's rule under its header
            return True
        if self._unit_row(number, cells):
            return True
        size = numbers.size(cells[self.at["size"]]) if len(cells) > self.at["size"] else None
        scale = self.found[self.at["size"]].unit
        if size and scale and scale > 1 and cells[self.at["size"]].strip().isdigit():
            size = (min(size[0] * int(scale), numbers.MAX_SIZE), size[1])
        if size is None:
            if not self.strict or len(cells) != len(self.found):
                return False
            self.draft.note(number, "skipped", f"no size in column {self.at['size'] + 1}: {text.strip()[:70]!r}")
            return True
        if len(cells) < min(len(self.found), self.needed):
            self.draft.note(number, "torn", f"a row that ends too early is left out: {text.strip()[:70]!r}")
            return True
        if not size[1] and not self.assumed_binary:
            self.assumed_binary = True
            self.draft.note(
                number, "units", f"sizes such as {cells[self.at['size']].strip()!r} are read as powers of two"
            )
        self._rows(number, cells, size[0])
        self.draft.last_line = number
        return True

    def _unit_row(self, number: int, cells: list[str]) -> bool:
        """A row of units under the header: "(B)  (us)  (GB/s)"."""
        filled = [c.strip() for c in cells if c.strip()]
        if not filled or not all(re.fullmatch(r"\([^)]{1,14}\)", c) for c in filled):
            return False
        shifted = False
        for i, cell in enumerate(cells[: len(self.found)]):
            words, what = cell.strip(" ()"), self.found[i]
            unit = numbers.time_unit(words) or numbers.rate_unit(words)
            if not unit or not what or what.kind not in _DEFAULT_UNIT:
                shifted = shifted or bool(unit)
                continue
            if (numbers.time_unit(words) is not None) == (what.kind in ("time", "low", "high")):
                self.units[i] = unit
            else:
                shifted = True
        if shifted:
            self.draft.note(
                number,
                "units",
                "the row of units does not stand under its columns: bandwidths are read as GB/s, times as us",
            )
        return True

    def _rows(self, number: int, cells: list[str], size: int) -> None:
        def text(kind: str) -> str:
            i = self.at.get(kind)
            return cells[i].strip().strip("\"'") if i is not None and i < len(cells) else ""

        if self.at.get("name") is not None and text("name"):
            self._named(number, text("name"))
        if ranks := numbers.integer(text("ranks")):
            self.ranks.add(ranks)
        inner = text("inplace").lower() in ("1", "true", "yes")
        for k, series in enumerate(self.series):
            if sum(map(len, self.rows)) >= self.draft.room:
                self.draft.dropped += 1
                return
            figures = self._figures(number, cells, series)
            if figures is None:
                continue
            wrong = numbers.real(text("wrong"))
            figures = replace(figures, wrong=wrong[0]) if wrong else figures
            deviation = numbers.real(text("deviation"))
            figures = replace(figures, deviation=deviation[0]) if deviation else figures
            second = self._figures(number, cells, self.second) if self.second else None
            key = (size, text("cycle"), k)
            if "inplace" in self.at and key in self.open and inner:
                at = self.open.pop(key)
                self.rows[k][at] = replace(self.rows[k][at], in_place=figures)
                continue
            if "inplace" in self.at and not inner:
                self.open[key] = len(self.rows[k])
            root = text("root")
            self.rows[k].append(
                Row(
                    number,
                    size,
                    None if inner else figures,
                    figures if inner else second,
                    numbers.integer(text("count")),
                    text("type"),
                    text("op"),
                    int(root) if re.fullmatch(r"-?\d{1,9}", root) else None,
                    None,
                    text("algo"),
                    text("proto"),
                    numbers.integer(text("nchannels")),
                )
            )

    def _named(self, number: int, name: str) -> None:
        kind = collective(name)
        if not self.draft.collective:
            self.draft.collective, self.draft.collective_from = kind, "the column name"
        elif kind != self.draft.collective:
            self.draft.note(number, "collective", f"a row of {name[:30]} in a table of {self.draft.collective}")

    def _figures(self, number: int, cells: list[str], series: dict) -> Figures | None:
        values: dict = {}
        more = {k: self.at[k] for k in ("low", "high") if k in self.at}
        for kind, i in {**series, **more}.items():
            if i is None or i >= len(cells):
                continue
            got = numbers.measure(cells[i].strip("\"' "), self.units[i] or _DEFAULT_UNIT[kind])
            if got is None:
                if cells[i].strip() and cells[i].strip().lower() not in ("n/a", "-", "nan", "–"):
                    self.draft.note(number, "skipped", f"no figure in column {i + 1}: {cells[i].strip()[:40]!r}")
                continue
            name = "seconds" if kind == "time" else kind
            values[name] = got[0]
            if name in ("seconds", "algbw", "busbw"):
                values[name + "_error"] = got[1]
        return Figures(**values) if any(k in values for k in ("seconds", "algbw", "busbw")) else None

    def drafts(self) -> list[Draft]:
        """A draft a series, the first of them the one that was opened."""
        if len(self.ranks) == 1:
            self.draft.stated_ranks.append((next(iter(self.ranks)), "the column of ranks"))
        elif self.ranks:
            self.draft.note(self.draft.line, "ranks", f"rows of several numbers of ranks: {sorted(self.ranks)[:8]}")
        out = []
        for label, rows in zip(self.labels, self.rows):
            one = replace(self.draft, rows=rows, notes=list(self.draft.notes) if not out else [])
            one.label = " ".join(w for w in (self.draft.label, label) if w)
            if rows or not out:
                out.append(one)
        return out
