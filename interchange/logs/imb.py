"""Intel MPI Benchmarks (IMB-MPI1, IMB-NBC, IMB-RMA).

    # Benchmarking Allreduce
    # #processes = 144
           #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]
                8         1000         4.50        18.59        11.69

The time of a row is t_avg, the average over ranks; t_min and t_max are kept. A row of 0 bytes exchanges nothing.
"""

from __future__ import annotations

import re

from ...bench.log import Figures, Row
from . import numbers
from .collective import collective
from .draft import Draft

TITLE = re.compile(r"#\s*Benchmarking\s+([\w-]{1,40})")
VERSION = re.compile(r"#\s*Intel\s*\(R\) MPI Benchmarks\s+([\w.]{1,20})")
_PROCESSES = re.compile(r"#\s*#processes\s*=\s*(\d{1,8})")
_FACT = re.compile(
    r"#\s*(MPI_Datatype for reductions|MPI_Datatype|MPI_Op|MPI Version|Machine|Release|Date)\s*:\s*(\S.{0,60})"
)
_DTYPES = {"MPI_FLOAT": "float", "MPI_DOUBLE": "double", "MPI_INT": "int32", "MPI_BYTE": "uint8", "MPI_CHAR": "int8"}
_NAMES = {"pingpong": "pingpong", "pingping": "pingping", "sendrecv": "sendrecv", "exchange": "exchange"}


def fact(text: str) -> tuple[str, str] | None:
    """(name, value) of a line of the preamble."""
    found = _FACT.match(text)
    return (found.group(1), found.group(2).strip()) if found else None


class ImbTable:
    """From "# Benchmarking NAME" on. facts: of the preamble."""

    def __init__(self, draft: Draft, title: re.Match, facts: dict[str, str], version: str):
        name = title.group(1)
        draft.collective = _NAMES.get(name.lower()) or collective(name)
        draft.collective_from, draft.tool, draft.version = "the title", "IMB", version
        draft.parameters.update(facts)
        self.draft, self.columns = draft, []

    def take(self, number: int, text: str, stripper=None) -> bool:
        stripped = text.strip()
        if found := _PROCESSES.match(stripped):
            self.draft.stated_ranks.append((int(found.group(1)), "#processes"))
            return True
        if stripped.startswith("#bytes") or (stripped.startswith("#") and "t_avg" in stripped):
            self.columns = [c.lower() for c in stripped.replace("# ", "#").split()]
            return True
        tokens = stripped.split()
        if not tokens or not tokens[0][0].isdigit() or not self.columns:
            return False
        if len(tokens) < len(self.columns):
            self.draft.note(number, "torn", f"a row that ends too early is left out: {stripped[:70]!r}")
            return True
        values = {}
        for name, token in zip(self.columns, tokens):
            if (got := numbers.real(token)) is None:
                return False
            values[name.split("[")[0].lstrip("#")] = got
        size = int(values["bytes"][0]) if "bytes" in values and values["bytes"][0] <= numbers.MAX_SIZE else 0
        time = values.get("t_avg") or values.get("t") or values.get("t_ovrl") or values.get("t_max")
        rate = values.get("mbytes/sec")
        if time is None and rate is None:
            return False
        figures = Figures(
            seconds=time[0] * 1e-6 if time else None, seconds_error=time[1] * 1e-6 if time else 0.0,
            algbw=rate[0] * 1e6 if rate else None,
            algbw_error=rate[1] * 1e6 if rate else 0.0,
            low=values["t_min"][0] * 1e-6 if "t_min" in values else None,
            high=values["t_max"][0] * 1e-6 if "t_max" in values else None,
        )  # fmt: skip
        self.draft.last_line = number
        if len(self.draft.rows) >= self.draft.room:
            self.draft.dropped += 1
            return True
        reduces = "reduce" in self.draft.collective
        key = "MPI_Datatype for reductions" if reduces else "MPI_Datatype"
        dtype = _DTYPES.get(self.draft.parameters.get(key, "").split(" ")[0], "")
        op = self.draft.parameters.get("MPI_Op", "").removeprefix("MPI_").lower() if reduces else ""
        repetitions = (
            int(values["repetitions"][0]) if "repetitions" in values and values["repetitions"][0] < 1e12 else None
        )
        self.draft.rows.append(Row(number, size, figures, None, None, dtype, op, None, repetitions))
        return True
