"""fill, check, and what the array functions refuse."""

import numpy as np
import pytest
from busbw.kernels import cpu
from busbw.kernels.dtypes import DTYPES, bfloat16_from_float32, float32_from_bfloat16
from hypothesis import given, settings
from hypothesis import strategies as st

ALL = pytest.mark.parametrize("dtype", DTYPES.values(), ids=lambda dtype: dtype.name)


def table_index(start, count):
    """h of start, start + 1, ..., in Python integers."""
    return [((i * 2654435761) % 2**32) >> 24 for i in range(start, start + count)]


def a_table(dtype):
    """256 different values of the dtype."""
    if dtype.name == "bfloat16":
        return bfloat16_from_float32(np.arange(256, dtype=np.float32) - 100)
    return (np.arange(256) - (100 if dtype.kind != "u" else 0)).astype(dtype.storage)


def bounds(dtype, table, slack):
    """Tables of the least and the greatest right value."""
    if not dtype.is_float:
        return table, table
    values = (float32_from_bfloat16(table) if dtype.name == "bfloat16" else table).astype(np.float64)
    return values - slack, values + slack


@ALL
@settings(max_examples=15, deadline=None, derandomize=True)
@given(count=st.integers(0, 700), start=st.one_of(st.integers(0, 2000), st.integers(0, 2**40)))
def test_fill_follows_the_hash_and_check_finds_it_right(dtype, count, start):
    table = a_table(dtype)
    dst = np.zeros(count, dtype.storage)
    cpu.fill(dst, table, start)
    np.testing.assert_array_equal(dst, table[table_index(start, count)])
    low, high = bounds(dtype, table, 0)
    assert cpu.check(dst, low, high, start, dtype) == cpu.check(dst, table, start=start) == 0


@ALL
def test_check_counts_elements_out_of_place(dtype):
    table = a_table(dtype)
    low, high = bounds(dtype, table, 0)
    whole = np.zeros(5001, dtype.storage)
    cpu.fill(whole, table, 0)
    shifted = whole[1:].copy()
    for wrong in (cpu.check(shifted, low, high, 0, dtype), cpu.check(shifted, table)):
        assert wrong == sum(x != y for x, y in zip(table_index(1, 5000), table_index(0, 5000)))
        assert wrong > 4900
    swapped = whole.copy()
    swapped[[10, 4000]] = swapped[[4000, 10]]
    assert cpu.check(swapped, low, high, 0, dtype) == cpu.check(swapped, table) == 2


def test_a_range_lets_rounding_pass_and_no_more():
    dtype = DTYPES["float32"]
    table = a_table(dtype)
    dst = np.zeros(1000, np.float32)
    cpu.fill(dst, table)
    dst[::10] += np.float32(0.25)
    low, high = bounds(dtype, table, 0.25)
    assert cpu.check(dst, low, high) == 0
    low, high = bounds(dtype, table, 0.2)
    assert cpu.check(dst, low, high) == 100
    assert cpu.check(dst, table) == 100


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_nan_is_wrong_in_any_range(dtype):
    kind = DTYPES[dtype]
    nan = bfloat16_from_float32(np.float32(np.nan)) if dtype == "bfloat16" else np.nan
    dst = np.zeros(100, kind.storage)
    dst[3], dst[64] = nan, nan
    everything = np.full(256, np.inf)
    assert cpu.check(dst, -everything, everything, dtype=dtype) == 2


def test_large_integers_are_compared_exactly():
    # 2**53 + 1 is no float64: compared as one it would pass for 2**53.
    for dtype in ("int64", "uint64"):
        table = np.full(256, 2**53, dtype)
        assert cpu.check(np.full(10, 2**53 + 1, dtype), table, table) == 10
    table = np.full(256, 2**64 - 1, np.uint64)
    assert cpu.check(np.full(10, 2**64 - 1, np.uint64), table, table) == 0
    low, high = np.full(256, -5, np.int8), np.full(256, 5, np.int8)
    assert cpu.check(np.array([-6, -5, 5, 6], np.int8), low, high) == 2


def test_copy_copies_arrays_of_any_dtype():
    src = np.arange(77, dtype=np.complex128).reshape(7, 11)
    dst = np.zeros_like(src)
    cpu.copy(dst, src)
    np.testing.assert_array_equal(dst, src)


def test_bfloat16_arrays_reduce_when_named():
    a = bfloat16_from_float32(np.array([1.0, 256.0, 3.0], np.float32))
    b = bfloat16_from_float32(np.array([2.0, 1.0, -3.0], np.float32))
    dst = np.empty_like(a)
    cpu.reduce(dst, a, b, "sum", dtype="bfloat16")
    assert float32_from_bfloat16(dst).tolist() == [3.0, 256.0, 0.0]


def zeros(count=8, dtype=np.float32):
    return np.zeros(count, dtype)


@pytest.mark.parametrize(
    ("dst", "a", "b", "options", "message"),
    [
        (zeros(), zeros(7), zeros(), {}, r"a has shape \(7,\); accepted: \(8,\)"),
        (zeros(), zeros(), zeros(8, np.float64), {}, "b holds float64; accepted: float32"),
        (zeros(16)[::2], zeros(), zeros(), {}, r"dst is not contiguous \(strides \(8,\)\)"),
        (zeros(), zeros(), zeros(), {"dtype": "bfloat16"}, "dst holds float32; accepted: bfloat16, stored as uint16"),
        (zeros(8, np.uint16), zeros(), zeros(), {}, 'pass dtype="bfloat16"'),
        (zeros(), zeros(), zeros(), {"op": "xor"}, "op 'xor' is not known; accepted: sum"),
        (zeros(), zeros(), zeros(), {"contributions": 2}, "contributions=2 with op 'sum'"),
        (zeros(), zeros(), zeros(), {"op": "avg", "contributions": 0}, "contributions=0"),
        (np.broadcast_to(np.float32(0), 1), zeros(1), zeros(1), {}, "dst is read-only"),
    ],
)
def test_reduce_names_what_was_wrong(dst, a, b, options, message):
    with pytest.raises(ValueError, match=message):
        cpu.reduce(dst, a, b, **{"op": "sum", **options})


def test_partial_overlap_is_refused_and_in_place_is_not():
    memory = np.ones(100, np.float32)
    with pytest.raises(ValueError, match="dst and b overlap, shifted by 4 bytes"):
        cpu.reduce(memory[1:51], np.ones(50, np.float32), memory[:50], "sum")
    with pytest.raises(ValueError, match="dst and src overlap"):
        cpu.copy(memory[:50], memory[10:60])
    cpu.reduce(memory, memory, memory, "sum")
    assert (memory == 2).all()


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match="a is list; accepted: a NumPy array"):
        cpu.reduce(zeros(2), [1, 2], zeros(2), "sum")
    with pytest.raises(TypeError, match="dst is list"):
        cpu.reduce([0, 0], zeros(2), zeros(2), "sum")


def test_tables_have_256_entries_of_the_right_dtype():
    with pytest.raises(ValueError, match=r"table has shape \(255,\); accepted: \(256,\)"):
        cpu.fill(zeros(), zeros(255))
    with pytest.raises(ValueError, match="dst holds float32; accepted: float64"):
        cpu.fill(zeros(), zeros(256, np.float64))
    with pytest.raises(ValueError, match="low holds float32; accepted: float64"):
        cpu.check(zeros(), zeros(256), zeros(256))
    with pytest.raises(ValueError, match="itemsize 3"):
        cpu.fill_pointer(3)
