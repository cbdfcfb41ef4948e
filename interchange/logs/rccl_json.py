"""rccl-tests -Z json: one object a line (or a list of them), an object for each of out-of-place and in-place.

{"#wrong":"0","algBw":0.0534,"busBw":0.0801,"gpus":4,"inPlace":0,"name":"AllReduce","redop":"sum","size":1024,"time":19.18,"type":"float"}
"""

from __future__ import annotations

import json
from dataclasses import replace

from ...bench.log import Figures, Row
from . import numbers
from .collective import collective
from .draft import Draft
from .nccl_json import figure, parse


def opens(text: str) -> bool:
    return text.lstrip().startswith("{") and '"busBw"' in text and '"size"' in text


def array(text: str, draft: Draft) -> Draft | None:
    """The table of a document that is a list of such objects, also one that ends too early; None for any other document."""
    parsed = parse(text) if text.lstrip().startswith("[") else None
    if parsed is None or not isinstance(parsed[0], list):
        return None
    table = RcclTable(draft)
    for value in parsed[0][:1_000_000]:
        table.take(1, json.dumps(value))
    if not draft.rows:
        return None
    if not parsed[1]:
        draft.note(1, "torn", "the document ends too early; whole objects are kept")
    table.close()
    return draft


class RcclTable:
    """Lines of one name."""

    def __init__(self, draft: Draft):
        draft.tool = "rccl-tests"
        self.draft = draft
        self.open: dict[tuple, int] = {}
        self.gpus: set[int] = set()

    def take(self, number: int, text: str, stripper=None) -> bool:
        if not text.lstrip().startswith("{"):
            return False
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            if opens(text):
                self.draft.note(number, "torn", f"an object that ends too early is left out: {text.strip()[:60]!r}")
                return True
            return False
        if not isinstance(value, dict) or "busBw" not in value:
            return False
        name = collective(str(value.get("name", ""))[:40])
        if self.draft.collective and name != self.draft.collective:
            return False
        self.draft.collective, self.draft.collective_from = name, "the field name"
        size = value.get("size")
        time, algbw, busbw = (figure(value.get(k)) for k in ("time", "algBw", "busBw"))
        if (
            isinstance(size, bool)
            or not isinstance(size, int)
            or not 0 <= size <= numbers.MAX_SIZE
            or (time is None and busbw is None)
        ):
            self.draft.note(number, "skipped", f"an object without a size or without figures: {text.strip()[:60]!r}")
            return True
        gpus = figure(value.get("gpus"))
        if gpus and gpus < 1e9:
            self.gpus.add(int(gpus))
        figures = Figures(
            seconds=None if time is None else time * 1e-6, algbw=None if algbw is None else algbw * 1e9,
            busbw=None if busbw is None else busbw * 1e9, wrong=figure(value.get("#wrong")), seconds_error=(time or 0) * 1e-12,
            algbw_error=(algbw or 0) * 1e3, busbw_error=(busbw or 0) * 1e3,
        )  # fmt: skip
        key = (size, str(value.get("type", "")), str(value.get("redop", "")), str(value.get("numCycle", "")))
        inner = value.get("inPlace") in (1, "1", True)
        self.draft.last_line = number
        if inner and key in self.open:
            at = self.open.pop(key)
            self.draft.rows[at] = replace(self.draft.rows[at], in_place=figures)
            return True
        if len(self.draft.rows) >= self.draft.room:
            self.draft.dropped += 1
            return True
        if not inner:
            self.open[key] = len(self.draft.rows)
        self.draft.rows.append(
            Row(number, size, None if inner else figures, figures if inner else None, None, key[1][:20], key[2][:20])
        )
        return True

    def close(self) -> None:
        if len(self.gpus) == 1:
            self.draft.stated_ranks.append((next(iter(self.gpus)), "gpus"))
