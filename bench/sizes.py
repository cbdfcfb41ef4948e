"""Message sizes: how they are written on the command line, and the list a sweep goes through."""

from __future__ import annotations

import re

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SIZE_MAX = 1 << 43
SIZES_MAX = 10_000


def parse_size(text: str) -> int:
    """Bytes of "8", "64K", "1.5M", "1G", "1GiB": powers of two, as nccl-tests has it. Raises ValueError."""
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if not found:
        raise ValueError(
            f"size {text!r}: accepted are bytes with an optional K, M or G (powers of two): 8, 64K, 1.5M, 1G"
        )
    size = float(found.group(1)) * _UNITS[found.group(2).upper()]
    if size != int(size):
        raise ValueError(f"size {text!r} is {size} bytes; accepted: a whole number of bytes")
    if size > SIZE_MAX:
        raise ValueError(f"size {text!r} is more than {format_size(SIZE_MAX)}")
    return int(size)


def format_size(n: int) -> str:
    """8 B, 1.5 KiB, 4 MiB."""
    size, unit = float(n), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.4g} {unit}"


def sweep_sizes(first: int, last: int, factor: float | None = None, step: int | None = None) -> list[int]:
    """Sizes from `first` to `last` bytes, times `factor` or plus `step`. Raises ValueError."""
    if first < 0 or last < 0:
        raise ValueError("sizes must not be negative")
    if last < first:
        raise ValueError(f"the end (-e {format_size(last)}) is below the beginning (-b {format_size(first)})")
    if step is not None:
        if step < 1:
            raise ValueError(f"the step (-i {step}) must be at least 1 byte")
        sizes = list(range(first, min(last, first + step * SIZES_MAX) + 1, step))
    else:
        factor = 2 if factor is None else factor
        if not 1 < factor < float("inf"):
            raise ValueError(f"the factor (-f {factor:g}) must be more than 1")
        sizes = [first] if first else [0, 1]
        while (following := max(sizes[-1] + 1, int(sizes[-1] * factor))) <= last and len(sizes) <= SIZES_MAX:
            sizes.append(following)
        sizes = [s for s in sizes if s <= last]
    if len(sizes) > SIZES_MAX:
        raise ValueError(f"more than {SIZES_MAX} sizes; take a larger factor (-f) or step (-i)")
    return sizes
