"""8-bit floats in NumPy, which has none: e4m3 (no infinity, one NaN) and e5m2 (IEEE's), held as uint8 codes."""

from __future__ import annotations

from functools import cache

import numpy as np

NAMES = ("float8_e4m3", "float8_e5m2")
LEAST = {"float8_e4m3": 2.0**-9, "float8_e5m2": 2.0**-16}  # the smallest number above zero


@cache
def values(name: str) -> np.ndarray:
    """The number of each of the 256 codes, float64."""
    exponent_bits, mantissa_bits = (4, 3) if name == "float8_e4m3" else (5, 2)
    bias = 2 ** (exponent_bits - 1) - 1
    found = np.empty(256)
    for code in range(256):
        exponent, mantissa = (code & 0x7F) >> mantissa_bits, code & (2**mantissa_bits - 1)
        fraction = mantissa / 2**mantissa_bits
        value = fraction * 2.0 ** (1 - bias) if exponent == 0 else (1 + fraction) * 2.0 ** (exponent - bias)
        if name == "float8_e4m3" and code & 0x7F == 0x7F:
            value = np.nan
        if name == "float8_e5m2" and exponent == 31:
            value = np.nan if mantissa else np.inf
        found[code] = -value if code & 0x80 else value
    found.setflags(write=False)
    return found


def codes(name: str, numbers: np.ndarray) -> np.ndarray:
    """Numbers of any shape -> the code of the nearest finite value, the even code of two; NaN to NaN."""
    finite = np.flatnonzero(np.isfinite(values(name)[:128]))  # non-negative, ascending
    grid = values(name)[finite]
    magnitude = np.minimum(np.abs(numbers.astype(np.float64)), grid[-1])
    above = np.clip(np.searchsorted(grid, magnitude), 1, len(grid) - 1)  # NaN sorts last
    below = above - 1
    to_above, to_below = grid[above] - magnitude, magnitude - grid[below]
    up = (to_above < to_below) | ((to_above == to_below) & (finite[above] % 2 == 0))
    found = np.where(up, finite[above], finite[below]) | np.where(np.signbit(numbers), 0x80, 0)
    return np.where(np.isnan(numbers), 0x7F, found).astype(np.uint8)
