"""Test data whose collectives are known: 256 values a rank, laid over the message by a hash of the element's index.

Element i of rank r is ``table(r)[h(i)]`` (kernels/cpu.py, fill), so the right answer is a table of 256 as well, worked out
here with NumPy and never with the kernels under test. A misplaced or stale chunk shows, as neighbours differ.

Values are chosen so that the arithmetic is exact in any order: integers wrap around, floating-point sums are of small
whole numbers (8-bit floats: of few, in many ranks), products of powers of two. Where that is impossible (more ranks than the
significand can count) the answer is an interval: Higham's bound for a sum of p terms in any order, (p-1) u sum|x|.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..collectives.collective import ALL
from ..kernels import float8
from ..kernels.dtypes import bfloat16_from_float32, find_device_dtype

ENTRIES = 256
SIGNIFICAND_BITS = {
    "float64": 53, "float32": 24, "float16": 11, "bfloat16": 8, "float8_e4m3": 4, "float8_e5m2": 3,
}  # fmt: skip
BOUND_BITS = 8  # with fewer, a bound of (p-1) u would allow anything


@dataclass(frozen=True)
class Pattern:
    """tables: storage dtype [ranks, 256]; values: the same as float64 for floating-point dtypes; low, high: bounds of the sum,
    [256], as values; exact: low equals high."""

    tables: np.ndarray
    values: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def exact(self) -> bool:
        return bool(np.array_equal(self.low, self.high))

    def table(self, rank: int) -> np.ndarray:
        return self.tables[rank]

    def answer(self, contributor: int) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of what one rank gave, or of the reduction of all (ALL)."""
        if contributor == ALL:
            return self.low, self.high
        return self.values[contributor], self.values[contributor]


def pattern(dtype: str, op: str, ranks: int, seed: int = 0) -> Pattern:
    """The pattern for a collective of `dtype`, reduced by `op`, over `ranks`; another seed gives other values."""
    d = find_device_dtype(dtype)
    rng = np.random.default_rng([seed, ranks])
    if d.kind != "f":
        return _integers(rng, d.storage, op, ranks)
    bits = SIGNIFICAND_BITS[d.name]
    values, low, high = _floats(rng, bits, op, ranks)
    if d.name == "bfloat16":
        return Pattern(bfloat16_from_float32(values.astype(np.float32)), values, low, high)
    if d.name in float8.NAMES:
        rounding = float8.LEAST[d.name] / 2 if op == "avg" else 0.0  # of a quotient below the normal numbers
        return Pattern(float8.codes(d.name, values), values, low - rounding, high + rounding)
    return Pattern(values.astype(d.storage), values, low, high)


def _integers(rng, storage, op: str, ranks: int) -> Pattern:
    info = np.iinfo(storage)
    values = rng.integers(info.min, info.max, (ranks, ENTRIES), storage, endpoint=True)
    with np.errstate(over="ignore"):
        if op in ("min", "max"):
            answer = getattr(values, op)(axis=0)
        else:
            answer = (np.multiply if op == "prod" else np.add).reduce(values, axis=0, dtype=storage)
        if op == "avg":
            answer = np.array([_truncated(int(x), ranks) for x in answer], storage)
    return Pattern(values, values, answer, answer)


def _truncated(x: int, by: int) -> int:
    """The quotient rounded towards zero, as C has it."""
    return x // by if x >= 0 else -(-x // by)


def _floats(rng, bits: int, op: str, ranks: int):
    """(values [ranks, 256], low, high), all float64; values are exact in `bits` of significand."""
    if op in ("min", "max"):
        largest = min(100, 2**bits)
        values = rng.integers(-largest, largest, (ranks, ENTRIES)).astype(np.float64)
        answer = getattr(values, op)(axis=0)
        return values, answer, answer
    if op == "prod":
        # Each element is doubled by one rank and halved by one, so every partial product is 1/2, 1 or 2, with a sign.
        values = rng.choice([-1.0, 1.0], (ranks, ENTRIES))
        entries = np.arange(ENTRIES)
        values[rng.integers(0, ranks, ENTRIES), entries] *= 2
        values[rng.integers(0, ranks, ENTRIES), entries] /= 2
        answer = np.prod(values, axis=0)
        return values, answer, answer
    largest = min(64, 2**bits // ranks)
    unit = 2.0**-bits
    if largest >= 1:
        values = rng.integers(-largest, largest, (ranks, ENTRIES), endpoint=True).astype(np.float64)
        answer, slack = values.sum(axis=0), 0.0
    elif bits < BOUND_BITS:
        # As many ranks as can be counted have 1 or -1, in turn, and the rest 0: every partial sum is exact.
        values = np.zeros((ranks, ENTRIES))
        turns = np.resize(rng.permutation(ranks), (ENTRIES, 2**bits))
        values[turns, np.arange(ENTRIES)[:, None]] = rng.choice([-1.0, 1.0], turns.shape)
        answer, slack = values.sum(axis=0), 0.0
    else:
        values = 1 + rng.integers(0, 2 ** (bits - 1), (ranks, ENTRIES)) / 2.0 ** (bits - 1)
        answer = values.sum(axis=0)
        slack = (ranks - 1) * unit / (1 - (ranks - 1) * unit) if (ranks - 1) * unit < 0.5 else 1.0
    if op == "avg":
        answer = answer / ranks
        slack += 3 * unit  # the division and the rounding to storage
    error = slack * np.abs(answer)
    return values, answer - error, answer + error
