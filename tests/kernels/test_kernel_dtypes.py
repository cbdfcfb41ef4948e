"""Names, sizes and bfloat16 conversion."""

import subprocess
import sys

import numpy as np
import pytest
from busbw import kernels
from busbw.kernels import dtypes
from hypothesis import given
from hypothesis import strategies as st


def test_both_names_find_a_dtype():
    for dtype in dtypes.DTYPES.values():
        assert dtypes.find_dtype(dtype.name) is dtypes.find_dtype(dtype.nccl) is dtypes.find_dtype(dtype) is dtype
        assert dtype.itemsize == dtype.storage.itemsize
    assert dtypes.find_dtype("half").name == "float16"


def test_an_unknown_dtype_or_op_lists_what_is_accepted():
    with pytest.raises(ValueError, match=r"'float8'.*float64 \(or double\).*uint64"):
        dtypes.find_dtype("float8")
    with pytest.raises(ValueError, match=r"'xor'.*sum, prod, min, max, avg"):
        dtypes.find_op("xor")


def test_bfloat16_has_to_be_said():
    with pytest.raises(ValueError, match='pass dtype="bfloat16"'):
        dtypes.storage_dtype(np.zeros(1, np.uint16))
    with pytest.raises(ValueError, match="complex64"):
        dtypes.storage_dtype(np.zeros(1, np.complex64))


def test_every_bfloat16_survives_the_way_to_float32_and_back():
    bits = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    values = dtypes.float32_from_bfloat16(bits)
    assert values.shape == bits.shape and values[0x3F, 0x80] == 1.0 and values[0xC0, 0x40] == -3.0
    back = dtypes.bfloat16_from_float32(values)
    is_nan = np.isnan(values)
    np.testing.assert_array_equal(back[~is_nan], bits[~is_nan])
    np.testing.assert_array_equal(back[is_nan], bits[is_nan] | 0x40)  # quiet, same payload


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_rounding_gives_the_nearest_bfloat16_and_the_even_one_of_two(value):
    bits = int(dtypes.bfloat16_from_float32(np.float32(value)))
    magnitude = bits & 0x7FFF

    def size_of(pattern: int) -> float:
        # Past the largest finite bfloat16, the next step of the same width stands for infinity, as IEEE 754 rounds.
        if pattern == 0x7F80:
            return 2.0**128
        return float(dtypes.float32_from_bfloat16(np.uint16(pattern)))

    error = abs(size_of(magnitude) - abs(value))
    for other in (magnitude - 1, magnitude + 1):
        if 0 <= other <= 0x7F80:
            distance = abs(size_of(other) - abs(value))
            assert error < distance or (error == distance and magnitude % 2 == 0)
    assert (bits >> 15) == int(np.signbit(np.float32(value)))


def test_importing_the_room_does_not_import_numba():
    code = "import sys, busbw.kernels, busbw.kernels.dtypes; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_cpu_backend_is_found_by_name_and_keeps_the_interface():
    cpu = kernels.backend("cpu")
    assert isinstance(cpu, kernels.Backend)
    assert cpu.available() is None


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'abacus' is not known; accepted: .*cpu"):
        kernels.backend("abacus")


def test_outsiders_register_a_backend_and_cannot_take_a_name(monkeypatch):
    monkeypatch.setattr(kernels, "BACKENDS", dict(kernels.BACKENDS))
    kernels.register("json", "json")
    kernels.register("json", "json")
    assert kernels.backend("json").__name__ == "json"
    with pytest.raises(ValueError, match="already"):
        kernels.register("cpu", "json")
