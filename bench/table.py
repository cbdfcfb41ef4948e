"""nccl-tests' table, to the column: what the whole field reads.

Widths and number formats follow nccl-tests 2.17 (src/util.cu: writeBenchmarkLineBody, getFloatStr). A time is the median in
microseconds; bandwidths are GB/s (1e9 bytes a second). Where several algorithms share a table, each row names its own
behind a ``#``, where programs that read nccl-tests do not look.
"""

from __future__ import annotations

import numpy as np

from ..kernels.dtypes import find_device_dtype
from .record import Record, Timing


def header(named: bool = False, per_iteration: bool = False) -> str:
    """The three header lines. named: several algorithms share the table; per_iteration: with the columns of -I."""
    start = "# {:>10}  {:>12}  {:>8}  {:>6}  {:>6}"
    more = "  {:>7}  {:>7}  {:>7}  {:>7}" if per_iteration else ""
    half = "  {:>7}  {:>6}  {:>6}  {:>6}" + more
    names = ["time", "algbw", "busbw", "#wrong", "i_min", "i_max", "i_p99", "i_cv%"][: 8 if more else 4]
    units = ["(us)", "(GB/s)", "(GB/s)", "", "(us)", "(us)", "(us)", "(%)"][: 8 if more else 4]
    if per_iteration:
        modes = f"{'':14}out-of-place (+ per-iteration){'':32}in-place (+ per-iteration)"
    else:
        modes = f"{'':11}out-of-place{'':23}in-place{'':10}"
    return "\n".join(
        [
            start.format("", "", "", "", "") + modes,
            start.format("size", "count", "type", "redop", "root") + 2 * half.format(*names) + "  # algorithm" * named,
            start.format("(B)", "(elements)", "", "", "") + 2 * half.format(*units),
        ]
    )


def row(record: Record, named: bool = False, per_iteration: bool = False) -> str:
    """One line of the table; `named` and `per_iteration` as for `header`.

    Behind it, where the emulated ranks were paced, the wall-clock time over the dilation, us, out-of-place and in-place.
    """
    kind = find_device_dtype(record.dtype).nccl
    line = f"{record.size_bytes:>12}  {record.count:>12}  {kind:>8}  {record.op:>6}  {record.root:>6}"
    for timing in (record.out_of_place, record.in_place):
        line += _half(record, timing, per_iteration)
    if named:
        chosen = "" if record.chosen == record.algorithm else f" ({record.chosen})"
        line += f"  # {record.algorithm}{chosen}"
    paced = record.options.get("paced_seconds")
    if isinstance(paced, dict):
        times = [paced[mode] for mode in ("out_of_place", "in_place") if isinstance(paced.get(mode), (int, float))]
        line += f"{'' if named else '  #'}  paced {', '.join(number(t * 1e6, 7).strip() for t in times)} us"
    return line


def _half(record: Record, timing: Timing | None, per_iteration: bool) -> str:
    if timing is None:
        return " " * (33 + 36 * per_iteration)
    wrong = "N/A" if timing.wrong is None else f"{timing.wrong:g}"
    algbw, busbw = record.algbw(timing) / 1e9, record.busbw(timing) / 1e9
    text = f"  {number(timing.seconds * 1e6, 7)}  {number(algbw, 6)}  {number(busbw, 6)}  {wrong:>6}"
    if per_iteration:
        samples = np.array(timing.samples)
        variation = 100 * samples.std() / samples.mean() if samples.mean() > 0 else 0.0
        p99 = np.percentile(samples, 99, method="inverted_cdf")
        for value in (samples.min() * 1e6, samples.max() * 1e6, p99 * 1e6, variation):
            text += f"  {number(float(value), 7)}"
    return text


def number(value: float, width: int) -> str:
    """As many decimals as fit, at most two (nccl-tests, getFloatStr)."""
    digits = 0
    while value >= 10**digits:
        digits += 1
    if digits < width - 2:
        return f"{value:{width}.2f}"
    if digits < width - 1:
        return f"{value:{width}.1f}"
    if digits < width + 1:
        return f"{value:{width}.0f}"
    return f"{value:{width}.{1 if width >= 7 else 0}e}"


def footer(records: list[Record]) -> str:
    wrong = sum(t.wrong or 0 for r in records for t in (r.out_of_place, r.in_place) if t)
    rates = [r.busbw(t) / 1e9 for r in records for t in (r.out_of_place, r.in_place) if t]
    mean = sum(rates) / len(rates) if rates else 0.0
    verdict = "OK" if wrong == 0 else "FAILED"
    return f"# {'Out of bounds values':<20} : {wrong} {verdict}\n# {'Avg bus bandwidth':<20} : {mean:g}"
