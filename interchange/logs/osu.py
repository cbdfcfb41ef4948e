"""OSU micro-benchmarks, releases 5 to 7, MPI and NCCL, with and without -f.

    # OSU MPI Allreduce Latency Test v7.5
    # Datatype: MPI_INT.
    # Size       Avg Latency(us)   Min Latency(us)   Max Latency(us)  Iterations
    4                      11.69              9.50             14.02        1000

The output does not say over how many ranks. Times are the average over ranks, except where only one column is there and it says so.
"""

from __future__ import annotations

import re

from ...bench.log import Figures, Row
from . import numbers
from .collective import collective
from .draft import Draft

TITLE = re.compile(
    r"#\s*OSU (MPI|NCCL|UPC\+\+|UPC|OpenSHMEM|XCCL)(-\w+)?\s+(.{1,60}?)\s+"
    r"(?:(Latency|Bandwidth|Message Rate)\s+)?Test\s*(?:v([\w.]{1,12}))?\s*$"
)
_DATATYPE = re.compile(r"#\s*Datatype:\s*(\w{1,30})")
_DTYPES = {
    "MPI_INT": "int32", "MPI_CHAR": "int8", "MPI_FLOAT": "float", "MPI_DOUBLE": "double", "MPI_BYTE": "uint8", "ncclFloat": "float",
    "ncclInt": "int32", "ncclChar": "int8",
}  # fmt: skip


class OsuTable:
    """From its title on. `kind`: "time" or "rate" (MB/s)."""

    def __init__(self, draft: Draft, title: re.Match):
        library, variant, name, measures, version = title.groups()
        words = name.replace("Non-blocking ", "").replace("Persistent ", "").replace("Neighborhood ", "neighbor_")
        draft.collective = {
            "": "latency", "Bi-Directional": "bibw", "Multi-threaded": "latency", "Multi Latency": "latency",
        }.get(words, collective(words))  # fmt: skip
        if measures == "Bandwidth" and words == "":
            draft.collective = "bandwidth"
        if draft.collective.startswith("bi_directional"):
            draft.collective = "bibw"
        draft.collective_from, draft.version = "the title", version or ""
        draft.tool = f"OSU {library}{variant or ''}"
        self.draft, self.rate = draft, measures in ("Bandwidth", "Message Rate")
        self.columns: list[str] = []
        self.done = False

    def take(self, number: int, text: str, stripper=None) -> bool:
        stripped = text.strip()
        if stripped.startswith("#"):
            if found := _DATATYPE.match(stripped):
                self.draft.parameters["datatype"] = found.group(1)
                return True
            if "Size" in stripped or "Latency" in stripped or "nprocs" in stripped:
                self.columns = [c.strip().lower() for c in re.split(r"\s{2,}", stripped.lstrip("# ")) if c.strip()]
                self.rate = self.rate or any("mb/s" in c for c in self.columns)
                return True
            return False
        if stripped.startswith("nprocs:"):
            if found := re.match(r"nprocs:\s*(\d{1,7})", stripped):
                self.draft.stated_ranks.append((int(found.group(1)), "nprocs"))
            self.draft.note(number, "read", f"a line and no table: {stripped[:80]}")
            return True
        tokens = stripped.split()
        if not tokens:
            return False
        if not (tokens[0][0].isdigit()):
            return False
        if len(tokens) > 1 and "." not in tokens[1]:
            self.draft.note(number, "torn", f"a row that ends too early is left out: {stripped[:70]!r}")
            return True
        if len(tokens) == 1:  # a barrier has one figure
            got = numbers.real(tokens[0])
            if got and "." in tokens[0] and not any("size" in c for c in self.columns):
                self._add(number, 0, Figures(seconds=got[0] * 1e-6, seconds_error=got[1] * 1e-6))
                return True
            self.draft.note(number, "skipped", f"a size without a figure: {stripped[:70]!r}")
            return True
        size, values = numbers.integer(tokens[0]), [numbers.real(t) for t in tokens[1:]]
        if size is None or values[0] is None or len(tokens) > 40:
            return False
        if self.rate:
            self._add(number, size, Figures(algbw=values[0][0] * 1e6, algbw_error=values[0][1] * 1e6))
            return True
        names = self.columns[1:]
        if len(names) < len(values) and len(values) >= 4:
            # -f prints "Min", "Max" and "Iterations" that some releases leave out of the header.
            if not any("read as -f" in n.text for n in self.draft.notes):
                self.draft.note(
                    number,
                    "read",
                    f"{len(tokens)} columns under a header of {len(self.columns)}: read as -f prints "
                    "them (average, min, max, iterations)",
                )
            names = ["avg", "min", "max", "iterations"]
        got: dict = {"seconds": values[0][0] * 1e-6, "seconds_error": values[0][1] * 1e-6}
        repetitions = None
        for name, value in zip(names, values):
            if value is None:
                continue
            if name.startswith("min"):
                got["low"] = value[0] * 1e-6
            elif name.startswith("max"):
                got["high"] = value[0] * 1e-6
            elif name.startswith("iter"):
                repetitions = int(value[0])
            elif name.startswith(("p50", "p95", "p99")):
                got[name[:3]] = value[0] * 1e-6
        self._add(number, size, Figures(**got), repetitions)
        return True

    def _add(self, number: int, size: int, figures: Figures, repetitions: int | None = None) -> None:
        self.draft.last_line = number
        if len(self.draft.rows) >= self.draft.room:
            self.draft.dropped += 1
            return
        dtype = _DTYPES.get(self.draft.parameters.get("datatype", ""), "")
        op = "sum" if "reduce" in self.draft.collective else ""
        self.draft.rows.append(Row(number, size, figures, None, None, dtype, op, None, repetitions))
