"""nccl-tests' and rccl-tests' text tables, of every release since 2018.

    #       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
     1073741824     268435456     float     sum      -1   2984.6  359.76  712.02      0   2979.7  360.36  713.20      0

What changed: 2018 (2.0) begins rows with "#" and prints ms under "bytes N type op"; until 2.11 there is no root column and "error"
is the largest deviation; 2.12 on count "#wrong"; 2.17 widened columns; -I adds four columns to each half, -S a timestamp, -C calls
the time "cputime"; rccl-tests -A adds algo, proto, nchannels. Columns are taken by the header's names; without one by number.
"""

from __future__ import annotations

import re

from ...bench.log import Figures, Row
from . import numbers
from .collective import collective
from .draft import Draft

_HEADER = re.compile(r"#?\s*(?:size\s+count|bytes\s+N)\s+type\s", re.IGNORECASE)
HEADLESS = re.compile(
    r"\s*\d{1,19}\s+\d{1,19}\s+(?:float|half|double|bfloat16|u?int(?:8|32|64)|f(?:p|loat)?8_?e[45]m[23])\s+(?:sum|prod|min|max|avg|all|none|mulsum|\d[\d.]*\s+\d)"
)
_GLUED = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]\d+)?|N/A)(?=[A-Za-z])\S*:\d+:\d+$")  # "-1node0:67:216"
_LIBRARY = re.compile(r"\s\[[\w:]{1,20}\] NCCL INFO ")
_CELL = re.compile(r"-?[\d.]+(?:e[+-]?\d+)?$|N/A$|nan$")
_HEADS = {
    "size": "size",
    "bytes": "size",
    "count": "count",
    "n": "count",
    "type": "type",
    "redop": "op",
    "op": "op",
    "root": "root",
}
_HALVES = {
    "time": "time", "cputime": "time", "algbw": "algbw", "busbw": "busbw", "#wrong": "wrong", "wrong": "wrong",
    "error": "deviation", "res": "deviation", "i_min": "low", "i_max": "high", "i_p99": "p99", "i_cv%": "cv",
}  # fmt: skip
_TAILS = {"algo": "algo", "proto": "proto", "nchannels": "nchannels", "timestamp": "timestamp"}
_OLD = ["size", "count", "type", "op"]
_HALF = ["time", "algbw", "busbw", "wrong"]
_LONG_HALF = [*_HALF, "low", "high", "p99", "cv"]
_LAYOUTS = {  # by the number of columns
    11: (_OLD[:3], _HALF), 12: (_OLD, _HALF), 13: ([*_OLD, "root"], _HALF),
    20: (_OLD, _LONG_HALF), 21: ([*_OLD, "root"], _LONG_HALF),
}  # fmt: skip


def is_header(text: str) -> bool:
    return bool(_HEADER.match(text))


def parameters(text: str) -> dict[str, str]:
    """Of the line "# nThread 1 nGpus 8 minBytes ..."."""
    found = {}
    words = text.lstrip("# ").replace("step:", "step").replace(":", " ")
    tokens = re.findall(r"((?:warmup|agg) iters|[A-Za-z]+)\s+(\d{1,20}(?:\([a-z]+\))?)", words)
    for name, value in tokens[:30]:
        found[name] = value
    return found


class NcclTable:
    """An open table: takes lines until it closes. Each take() says whether the line was the table's."""

    def __init__(self, draft: Draft, header: str = "", tokens: int = 0):
        self.draft = draft
        names = [n.lower() for n in header.replace("# ", " ").lstrip("# ").split()]
        self.own = "algorithm" in names  # busbw's own table: "# ring" behind each row
        self.hashed = "bytes" in names and "n" in names  # 2018: rows begin with "#", times in ms
        self.milliseconds = self.hashed
        self.heads: list[str] = []
        self.half: list[str] = []
        self.tail: list[str] = []
        self.halves = 2
        if header:
            self._columns(names)
        else:
            self._by_number(tokens)
        self.pending: list[str] = []  # the head of a row whose figures stand further below
        self.pending_line = 0

    @property
    def width(self) -> int:
        """How many words a row has."""
        return len(self.heads) + self.halves * len(self.half) + len(self.tail) + ("timestamp" in self.tail)

    def _columns(self, names: list[str]) -> None:
        starts = [i for i, n in enumerate(names) if n in ("time", "cputime")]
        first = starts[0] if starts else len(names)
        self.heads = [_HEADS.get(n, "other") for n in names[:first]]
        end = (
            starts[1]
            if len(starts) > 1
            else next((i for i, n in enumerate(names) if n in _TAILS and i > first), len(names))
        )
        self.half = [_HALVES.get(n, "other") for n in names[first:end]]
        self.halves = max(1, len(starts))
        rest = names[starts[-1] + len(self.half) :] if starts else []
        self.tail = [_TAILS.get(n, "other") for n in rest if n != "algorithm" and n != "#"]
        self.draft.host_time = "cputime" in names
        if self.draft.host_time:
            self.draft.note(
                self.draft.line,
                "units",
                "the times are CPU times (-C): how long the host was busy, not how long the collective took",
            )

    def _by_number(self, tokens: int) -> None:
        self.heads, self.half = _LAYOUTS.get(tokens, _LAYOUTS[13])
        self.halves, self.tail = 2, []
        self.draft.note(self.draft.line, "read", f"no header: {tokens} columns are read as nccl-tests prints them")

    def take(self, number: int, text: str, stripper) -> bool:
        tokens = text.split()
        if not tokens:
            return False
        if tokens[0].startswith("#"):
            if not self.hashed or len(tokens) < 2 or not tokens[1].isdigit():
                return False
            tokens = tokens[1:]
        if self.own and "#" in tokens:
            at = tokens.index("#")
            name, tokens = tokens[at + 1 : at + 2], tokens[:at]
            text = text[: text.index("#")].rstrip()
        else:
            name = []
        if not tokens[0].isdigit() and not self.pending:
            return False
        if len(tokens) != self.width or "[" in text or "<" in text:
            text = stripper.inside(text)
            tokens = text.split()
            if self.hashed and tokens[:1] == ["#"]:
                tokens = tokens[1:]
        if not tokens:
            return True
        if self.pending:
            if all(map(_CELL.match, tokens)) and self._go_on(number, tokens):
                return True
            if not tokens[0].isdigit() or len(tokens) < len(self.heads):
                return False
            self.drop_pending()
        if self._row(number, text, tokens, name):
            return True
        if not self.draft.rows and len(tokens) in _LAYOUTS and HEADLESS.match(text):
            # The header is not these rows': torn, or edited.
            self._by_number(len(tokens))
            return self._row(number, text, tokens, name)
        looks = tokens[0].isdigit() and (len(tokens) == 1 or tokens[1].isdigit())
        if looks and len(self.heads) <= len(tokens) < self.width:
            self.pending, self.pending_line = tokens, number  # torn, unless the next line goes on with it
            self.draft.last_line = number
            return True
        if looks and len(tokens) < self.width:
            self.draft.last_line = number
            self.draft.note(number, "torn", f"a row that ends too early is left out: {text.strip()[:70]!r}")
            return True
        if looks and len(tokens) > 4:
            self.draft.note(number, "skipped", f"not a row of this table's {self.width} columns: {text.strip()[:70]!r}")
            return True
        return False

    def fragment(self, number: int, text: str, stripper) -> None:
        """What stands before an NCCL INFO line that broke into a row: its head, or figures that go on with it."""
        found = _LIBRARY.search(text)
        tokens = stripper.inside(text[: found.start()]).split() if found else []
        if not tokens:
            return
        glued = _GLUED.match(tokens[-1])
        tokens = [*tokens[:-1], glued.group(1)] if glued else tokens[:-1]
        head = len(self.heads)
        if self.pending and tokens and all(map(_CELL.match, tokens)):
            self._go_on(number, tokens)
        elif len(tokens) >= head and tokens[0].isdigit() and tokens[1].isdigit() and tokens[2][0].isalpha():
            self.drop_pending()
            self.pending, self.pending_line = tokens, number

    def _go_on(self, number: int, tokens: list[str]) -> bool:
        """Figures of the row that was broken into; False where they cannot be."""
        if len(self.pending) + len(tokens) > self.width:
            return False
        self.pending += tokens
        if len(self.pending) == self.width:
            tokens, self.pending = self.pending, []
            return self._row(number, "", tokens, [])
        return True

    def drop_pending(self) -> None:
        if self.pending:
            self.draft.note(
                self.pending_line, "torn", f"a row that ends too early is left out: {' '.join(self.pending)[:70]!r}"
            )
            self.pending = []

    def close(self) -> None:
        self.drop_pending()
        self._settle_units()

    def _row(self, number: int, text: str, tokens: list[str], name: list[str]) -> bool:
        heads, half = len(self.heads), len(self.half)
        if len(tokens) == self.width:
            parts = [tokens[heads + i * half : heads + (i + 1) * half] for i in range(self.halves)]
            tail = tokens[heads + self.halves * half :]
        elif self.halves == 2 and not self.tail and len(tokens) == heads + half:
            # One half only: where blanks stand for the other, it was in-place (a trace is replayed so).
            gap = re.search(r"(?<=\S)\s{25,}(?=\S)", text)
            figures = tokens[heads:]
            parts, tail = ([None, figures] if gap else [figures, None]), []
        else:
            return False
        head = dict(zip(self.heads, tokens))
        size, count = numbers.integer(head.get("size", "")), numbers.integer(head.get("count", ""))
        if size is None or not head.get("type", "x")[:1].isalpha():
            return False
        halves = [self._figures(p) if p else None for p in parts]
        if any(h is _BAD for h in halves):
            return False
        if len(self.draft.rows) >= self.draft.room:
            self.draft.dropped += 1
            self.draft.last_line = number
            return True
        root = head.get("root", "")
        more = dict(zip(self.tail, tail))
        channels = numbers.integer(more.get("nchannels", ""))
        self.draft.rows.append(
            Row(
                number,
                size,
                halves[0],
                halves[1] if len(halves) > 1 else None,
                count,
                head.get("type", ""),
                head.get("op", ""),
                int(root) if re.fullmatch(r"-?\d{1,9}", root) else None,
                None,
                more.get("algo", name[0] if name else ""),
                more.get("proto", ""),
                channels,
                " ".join(tail[self.tail.index("timestamp") :][:2]) if "timestamp" in self.tail else "",
            )
        )
        self.draft.last_line = number
        return True

    def _figures(self, tokens: list[str]) -> Figures | _Bad | None:
        values: dict = {}
        scale = 1e-3 if self.milliseconds else 1e-6
        for key, token in zip(self.half, tokens):
            if key == "other":
                continue
            if key in ("wrong", "deviation"):
                if token.upper() in ("N/A", "NAN", "-NAN", "INF", "-"):
                    continue
                number = numbers.real(token)
                if number is None:
                    return _BAD
                values[key] = number[0]
                continue
            number = numbers.real(token)
            if number is None:
                if token.lower() in ("n/a", "nan", "-nan", "inf"):
                    continue
                return _BAD
            if key in ("algbw", "busbw"):
                values[key], values[key + "_error"] = number[0] * 1e9, number[1] * 1e9
            elif key == "cv":
                values["cv"] = number[0] / 100
            elif key == "time":
                values["seconds"], values["seconds_error"] = number[0] * scale, number[1] * scale
            else:
                values[key] = number[0] * 1e-6
        return Figures(**values) if values else None

    def _settle_units(self) -> None:
        """Hold size / time against algbw: microseconds or milliseconds, whatever the header says or does not say."""
        votes = {1.0: 0, 1e3: 0, 1e-3: 0}
        told = 0
        for r in self.draft.rows[:500]:
            f = r.out_of_place or r.in_place
            if (
                not f
                or not f.seconds
                or not f.algbw
                or f.algbw_error > 0.05 * f.algbw
                or f.seconds_error > 0.05 * f.seconds
            ):
                continue
            told += 1
            measured = r.size_bytes / f.seconds / f.algbw
            for scale in votes:
                votes[scale] += abs(measured - scale) < 0.1 * scale
        if not told:
            return
        scale, most = max(votes.items(), key=lambda kv: kv[1])
        if most < 0.5 * told:
            self.draft.note(
                self.draft.line, "units", "algbw is not size / time in most rows: the columns may mean something else"
            )
        elif scale != 1.0:
            self.draft.note(
                self.draft.line,
                "units",
                f"algbw is size / time only if the times are {'ms' if scale > 1 else 'ns'}: read so",
            )
            self.draft.rows = [_scaled(r, scale) for r in self.draft.rows]


class _Bad:
    """A token that is no figure where one must stand."""


_BAD = _Bad()


def _scaled(row: Row, scale: float) -> Row:
    from dataclasses import replace

    def one(f: Figures | None) -> Figures | None:
        return f and replace(f, seconds=f.seconds and f.seconds * scale, seconds_error=f.seconds_error * scale)

    return replace(row, out_of_place=one(row.out_of_place), in_place=one(row.in_place))


def named_test(text: str) -> str:
    """Of "# Collective test starting: all_reduce_perf"."""
    return (
        collective(text.split(":", 1)[1].strip().split()[0].removesuffix("_mpi").removesuffix("_perf"))
        if ":" in text and text.split(":", 1)[1].strip()
        else ""
    )
