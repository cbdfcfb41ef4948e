"""Every op, dtype and variant of the compiled reduction against NumPy."""

import numpy as np
import pytest
from busbw.kernels import cpu
from busbw.kernels.dtypes import DTYPES, OPS, bfloat16_from_float32, float32_from_bfloat16
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

GUARD = 192  # bytes before and after a buffer that must stay as they are
GUARD_BYTE = 0xA5
VARIANTS = ["", "_nt", "_both", "_both_nt", "_both_nt2"]
UFUNC = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum, "avg": np.add}
DIVISORS = [1, 2, 3, 7, 127, 128, 255, 256, 1000, 65_536, 300_000, 2**31 - 1]


class Buffer:
    """`count` elements, `offset` bytes after a 64-byte line, between guard bytes."""

    def __init__(self, count, dtype, offset):
        nbytes = count * dtype.itemsize
        self.memory = np.full(nbytes + 2 * GUARD + 128, GUARD_BYTE, np.uint8)
        self.begin = -(self.memory.ctypes.data + GUARD) % 64 + GUARD + offset
        self.end = self.begin + nbytes
        self.bytes = self.memory[self.begin : self.end]
        self.dtype = dtype

    @property
    def address(self):
        return self.memory.ctypes.data + self.begin

    def put(self, values):
        self.bytes[:] = np.frombuffer(values.tobytes(), np.uint8)

    def get(self):
        return np.frombuffer(self.bytes.tobytes(), self.dtype.storage)

    def guards_are_untouched(self):
        around = np.concatenate([self.memory[: self.begin], self.memory[self.end :]])
        return bool((around == GUARD_BYTE).all())


def some_values(rng, dtype, count):
    """Any bit patterns (NaN, infinities, denormals, extremes) mixed with ordinary numbers."""
    wild = rng.integers(0, 256, count * dtype.itemsize, dtype=np.uint8).view(dtype.storage)
    if not dtype.is_float:
        return wild
    tame = rng.normal(size=count).astype(np.float32)
    tame = bfloat16_from_float32(tame) if dtype.name == "bfloat16" else tame.astype(dtype.storage)
    return np.where(rng.random(count) < 0.5, wild, tame)


def numbers(values, dtype):
    """Stored values -> the NumPy type arithmetic is done in."""
    if dtype.name == "bfloat16":
        return float32_from_bfloat16(values)
    return values.astype(np.float32) if dtype.name == "float16" else values


def expected(op, dtype, a, b, divisor):
    """The result by NumPy; `divisor` None for a pairwise step."""
    with np.errstate(all="ignore"):
        result = UFUNC[op](numbers(a, dtype), numbers(b, dtype))
        if divisor is not None and dtype.is_float:
            result = result / result.dtype.type(divisor)
        elif divisor is not None:
            exact = [abs(int(x)) // divisor * (-1 if x < 0 else 1) for x in result]
            result = np.array(exact, dtype=dtype.storage)
        return bfloat16_from_float32(result) if dtype.name == "bfloat16" else result.astype(dtype.storage)


def assert_same(got, want, dtype, op):
    if not dtype.is_float:
        np.testing.assert_array_equal(got, want)
        return
    got_values, want_values = numbers(got, dtype), numbers(want, dtype)
    np.testing.assert_array_equal(got_values, want_values)  # takes NaN for equal to NaN
    if op not in ("min", "max"):  # of two zeros, either may be the least
        told = ~np.isnan(want_values)
        np.testing.assert_array_equal(np.signbit(got_values[told]), np.signbit(want_values[told]))


def check_variant(op, dtype, final, variant, count, offsets, alias, divisor, seed):
    field = ("reduce_final" if final else "reduce") + variant
    rng = np.random.default_rng(seed)
    a, b = some_values(rng, dtype, count), some_values(rng, dtype, count)
    dst, dst2, left, right = (Buffer(count, dtype, offset) for offset in offsets)
    left, right = (dst if alias == "a" else left), (dst if alias == "b" else right)
    left.put(a)
    right.put(b)
    both = "both" in variant
    pointer = getattr(cpu.pointers(op, dtype), field)
    cpu.call(pointer, dst.address, dst2.address if both else 0, left.address, right.address, count, divisor or 1)
    want = expected(op, dtype, a, b, divisor if final else None)
    assert_same(dst.get(), want, dtype, op)
    if both:
        np.testing.assert_array_equal(dst2.bytes, dst.bytes)
    if alias != "a":
        np.testing.assert_array_equal(left.bytes, np.frombuffer(a.tobytes(), np.uint8))
    assert all(buffer.guards_are_untouched() for buffer in (dst, dst2, left, right))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("op", [*OPS, "avg_final"])
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_variant_agrees_with_numpy(op, dtype, data):
    final = op == "avg_final"
    count = data.draw(st.one_of(st.integers(0, 70), st.integers(0, 1100), st.sampled_from([64, 256, 512, 1024])))
    # Lines alike for all four buffers is the case the non-temporal kernels are made for; it would seldom be drawn.
    places = st.integers(0, 63 // dtype.itemsize).map(lambda i: i * dtype.itemsize)
    offsets = data.draw(st.one_of(st.tuples(places, places, places, places), places.map(lambda place: (place,) * 4)))
    alias = data.draw(st.sampled_from(["none", "a", "b"]))
    divisor = data.draw(st.sampled_from(DIVISORS)) if final else None
    seed = data.draw(st.integers(0, 2**32))
    # Arithmetic and stores are written apart: each is compiled as it is, and in one other way by turns, so that each op and each
    # dtype is met in every way. All of all takes a quarter of a minute more of compiling.
    turn = [*OPS, "avg_final"].index(op) + list(DTYPES).index(dtype.name)
    for variant in ("", VARIANTS[1 + turn % 4]):
        check_variant(op.removesuffix("_final"), dtype, final, variant, count, offsets, alias, divisor, seed)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_destination_between_elements_is_reduced_all_the_same(variant):
    dtype = DTYPES["float32"]
    check_variant("sum", dtype, False, variant, 1031, (3, 1, 0, 5), "none", None, 1)
    check_variant("sum", dtype, False, variant, 1031, (0, 2, 0, 5), "none", None, 1)


@pytest.mark.parametrize("op", OPS)
def test_without_a_division_the_final_kernels_are_the_pairwise_ones(op):
    p = cpu.pointers(op, "float32")
    for variant in VARIANTS:
        same = getattr(p, "reduce" + variant) == getattr(p, "reduce_final" + variant)
        assert same == (op != "avg")
    assert cpu.pointers("avg", "float").reduce == cpu.pointers("sum", "float32").reduce
    assert cpu.pointers(op, "float") is p


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("op", ["min", "max"])
def test_min_and_max_are_nan_if_either_is(op, dtype):
    kind = DTYPES[dtype]
    values = np.array([np.nan, 1, -np.inf, np.inf, -1], np.float32)
    a, b = (grid.ravel().copy() for grid in np.meshgrid(values, values))
    if dtype == "bfloat16":
        a, b = bfloat16_from_float32(a), bfloat16_from_float32(b)
    a, b = a.astype(kind.storage), b.astype(kind.storage)
    dst = np.empty_like(a)
    cpu.reduce(dst, a, b, op, dtype)
    want = UFUNC[op](numbers(a, kind), numbers(b, kind))
    assert np.isnan(want).sum() == 9
    np.testing.assert_array_equal(numbers(dst, kind), want)


def test_integers_wrap_around():
    a, b = np.array([127, -128, 100], np.int8), np.array([1, -1, 100], np.int8)
    dst = np.empty_like(a)
    cpu.reduce(dst, a, b, "sum")
    assert dst.tolist() == [-128, 127, -56]
    cpu.reduce(dst, a, b, "prod")
    assert dst.tolist() == [127, -128, 16]


def test_an_average_of_integers_truncates_towards_zero():
    a, b = np.array([3, -3, -8, 7], np.int32), np.array([4, -4, 1, 0], np.int32)
    dst = np.empty_like(a)
    cpu.reduce(dst, a, b, "avg")
    assert dst.tolist() == [7, -7, -7, 7]
    cpu.reduce(dst, a, b, "avg", contributions=2)
    assert dst.tolist() == [3, -3, -3, 3]


def test_an_int32_average_is_exact_where_a_quotient_is_almost_whole():
    extremes = np.array([2**31 - 1, 2**31 - 2, -(2**31), -(2**31) + 1, 2**30 - 1, 1, 0, -1], np.int32)
    for divisor in (1, 2, 3, 2**30, 2**31 - 2, 2**31 - 1):
        dst = np.empty_like(extremes)
        cpu.reduce(dst, extremes, np.zeros_like(extremes), "avg", contributions=divisor)
        want = [abs(int(x)) // divisor * (-1 if x < 0 else 1) for x in extremes]
        assert dst.tolist() == want


@pytest.mark.parametrize("field", ["copy", "copy_nt"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(count=st.one_of(st.integers(0, 300), st.integers(0, 5000)), to=st.integers(0, 63), source=st.integers(0, 63))
def test_copy_moves_bytes_between_any_addresses(field, count, to, source):
    dtype = DTYPES["uint8"]
    dst, src = Buffer(count, dtype, to), Buffer(count, dtype, source)
    values = np.random.default_rng(count).integers(0, 256, count, dtype=np.uint8)
    src.put(values)
    cpu.call(getattr(cpu.pointers("sum", "float32"), field), dst.address, 0, src.address, 0, count)
    np.testing.assert_array_equal(dst.bytes, values)
    assert dst.guards_are_untouched() and src.guards_are_untouched()


def test_large_arrays_are_reduced_to_the_end():
    count = 3_000_001
    a = np.arange(count, dtype=np.float32)
    b = np.full(count, 0.5, np.float32)
    for field in ("reduce", "reduce_nt"):
        dst = np.zeros(count, np.float32)
        pointer = getattr(cpu.pointers("sum", "float32"), field)
        cpu.call(pointer, dst.ctypes.data, 0, a.ctypes.data, b.ctypes.data, count)
        np.testing.assert_array_equal(dst, a + b)
