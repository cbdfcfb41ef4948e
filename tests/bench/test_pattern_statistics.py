"""The expected answers and the statistics, against brute force and closed forms."""

import math

import numpy as np
import pytest
from busbw.bench.pattern import SIGNIFICAND_BITS, pattern
from busbw.bench.statistics import median_interval, relative_half_width, settled
from busbw.kernels import selftest
from busbw.kernels.dtypes import DEVICE_DTYPES, OPS, find_device_dtype, float32_from_bfloat16
from hypothesis import given, settings
from hypothesis import strategies as st


def values(p, dtype):
    """The pattern's contributions as Python numbers, [ranks][256]."""
    tables = selftest.numbers(p.tables, find_device_dtype(dtype))
    return [[x.item() for x in row] for row in tables]


def exact(op, column, ranks, dtype):
    """One element's all-reduce in Python's own arithmetic, wrapped to the integer type where it is one."""
    total = {"sum": sum, "avg": sum, "prod": math.prod, "min": min, "max": max}[op](column)
    d = find_device_dtype(dtype)
    if d.is_float:
        return total / ranks if op == "avg" else total
    bits = 8 * d.itemsize
    total %= 1 << bits
    if d.kind == "i" and total >= 1 << (bits - 1):
        total -= 1 << bits
    if op == "avg":
        total = abs(total) // ranks * (1 if total >= 0 else -1)
    return total


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dtype", list(DEVICE_DTYPES))
@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_the_answer_is_the_exact_all_reduce_of_the_values(dtype, op, ranks):
    p = pattern(dtype, op, ranks)
    columns = list(zip(*values(p, dtype)))
    for h in range(256):
        true = exact(op, columns[h], ranks, dtype)
        assert p.low[h] <= true <= p.high[h]
    if op != "avg" or not find_device_dtype(dtype).is_float:
        assert p.exact


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_sums_of_many_ranks_stay_exact_while_the_significand_can_count_them(dtype):
    ranks = min(256, 2 ** SIGNIFICAND_BITS[dtype])
    assert pattern(dtype, "sum", ranks).exact


@pytest.mark.parametrize("dtype", ["float8_e4m3", "float8_e5m2"])
@pytest.mark.parametrize("ranks", [9, 17, 1000])
def test_8_bit_sums_are_exact_in_any_order_over_any_ranks(dtype, ranks):
    d = find_device_dtype(dtype)
    for op in ("sum", "avg"):
        p = pattern(dtype, op, ranks)
        contributions = selftest.numbers(p.tables, d)
        assert (contributions != 0).any(axis=1).all()  # whoever is left out or comes twice shows somewhere
        total = np.zeros(256, np.float32)
        for row in np.random.default_rng(1).permutation(contributions):
            total = selftest.numbers(selftest.stored(total + row, d), d)
        if op == "avg":
            total = selftest.numbers(selftest.stored(total / np.float32(ranks), d), d)
        assert np.all((p.low <= total) & (total <= p.high)) and (p.exact or op == "avg")


def test_beyond_that_the_bound_holds_for_any_order():
    p = pattern("bfloat16", "sum", 400)
    assert not p.exact
    from busbw.kernels.dtypes import bfloat16_from_float32

    rng = np.random.default_rng(0)
    for _ in range(5):
        total = np.zeros(256, np.float32)
        for row in rng.permutation(float32_from_bfloat16(p.tables)):
            total = float32_from_bfloat16(bfloat16_from_float32(total + row))
        assert np.all((p.low <= total) & (total <= p.high))


def test_another_seed_is_another_pattern():
    assert not np.array_equal(pattern("int32", "sum", 2, 1).tables, pattern("int32", "sum", 2, 2).tables)


# Order statistics of the median's 95 % interval, 1-based lower ranks (Conover, Practical Nonparametric Statistics, A3).
@pytest.mark.parametrize("n, lower", [(6, 1), (8, 1), (9, 2), (10, 2), (15, 4), (20, 6), (25, 8), (50, 18), (100, 40)])
def test_interval_ranks_are_the_binomial_ones(n, lower):
    _, low, high = median_interval(range(1, n + 1))
    assert (low, high) == (lower, n + 1 - lower)


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(2000):
        _, low, high = median_interval(rng.exponential(size=25))
        covered += low <= math.log(2) <= high
    assert covered / 2000 >= 0.94


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=400))
@settings(max_examples=100)
def test_the_median_lies_in_its_interval(samples):
    median, low, high = median_interval(samples)
    assert min(samples) <= low <= median <= high <= max(samples)


def test_few_samples_say_nothing_about_precision():
    assert relative_half_width([1.0] * 5) == math.inf
    assert relative_half_width([1.0] * 6) == 0
    with pytest.raises(ValueError):
        median_interval([])


def test_settled_when_blocks_no_longer_fall():
    assert not settled([1.0])
    assert not settled([2.0, 1.0])
    assert settled([2.0, 1.0, 0.99])
    assert settled([1.0, 1.5])
