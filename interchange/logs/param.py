"""PARAM's communication benchmark (train/comms/pt/comms.py): lines that begin with COMMS-RES.

    COMMS-RES-all_reduce-float32        1048576      262144      58.1   58.9   61.0   57.2   61.3    18.048   33.840

size, elements a rank, latency in us (p50, p75, p95, min, max over ranks), algbw and busbw in GB/s.
"""

from __future__ import annotations

import re

from ...bench.log import Figures, Row
from . import numbers
from .collective import collective
from .draft import Draft

_LINE = re.compile(r"\s*COMMS-RES-(QUANT-)?([\w.]+?)(?:-([\w.]+))?(?:-\S{0,40})?\s+(\d.*)$")
_DTYPES = {"float32": "float", "float16": "half", "float64": "double"}


class ParamTable:
    """Lines of one collective and type."""

    def __init__(self, draft: Draft, name: str, dtype: str):
        draft.collective, draft.collective_from, draft.tool = collective(name), "COMMS-RES", "PARAM"
        self.draft, self.name, self.dtype = draft, name, dtype

    def take(self, number: int, text: str, stripper=None) -> bool:
        found = _LINE.match(text)
        if not found or (found.group(2), found.group(3) or "") != (self.name, self.dtype):
            return False
        tokens = found.group(4).split()
        values = [numbers.real(t) for t in tokens]
        pair = len(values) == 10 and values[2] is not None and "." not in tokens[2] and "." not in tokens[1]
        if pair:  # with --pair there is a second count
            values = [*values[:2], *values[3:]]
        if (
            found.group(1)
            or len(values) < 9
            or any(v is None for v in values[:9])
            or numbers.integer(tokens[0]) is None
        ):
            kind = "torn" if len(values) < 9 else "skipped"
            self.draft.note(number, kind, f"not a row of nine figures: {text.strip()[:70]!r}")
            return True
        (_, count, p50, _, p95, low, high, algbw, busbw) = values[:9]
        self.draft.last_line = number
        if len(self.draft.rows) >= self.draft.room:
            self.draft.dropped += 1
            return True
        # algbw is of the mean time over ranks and iterations, which is not printed; p50 stands beside it.
        figures = Figures(
            seconds=p50[0] * 1e-6, algbw=algbw[0] * 1e9, busbw=busbw[0] * 1e9, seconds_error=p50[1] * 1e-6,
            algbw_error=algbw[1] * 1e9, busbw_error=busbw[1] * 1e9, low=low[0] * 1e-6, high=high[0] * 1e-6, p50=p50[0] * 1e-6,
            p95=p95[0] * 1e-6,
        )  # fmt: skip
        self.draft.rows.append(
            Row(number, numbers.integer(tokens[0]), figures, None, int(count[0]), _DTYPES.get(self.dtype, self.dtype))
        )
        return True


def opens(text: str) -> tuple[str, str] | None:
    """(collective, dtype) of a COMMS-RES line."""
    found = _LINE.match(text)
    return (found.group(2), found.group(3) or "") if found else None
