"""The CUDA C++ kernels, compiled by g++ for the CPU with a shim for the thread grid, against NumPy."""

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from busbw.kernels import cuda_source, device, selftest
from busbw.kernels.dtypes import DEVICE_DTYPES
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
GRID, BLOCK = 3, 5  # few threads, and no power of two, so that walks go round more than once
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed: CUDA C++ not run on the CPU")


def compile_for_cpu(dtype, folder):
    """The shared library of a dtype's kernels."""
    out = folder / f"{dtype}.so"
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off"]
    command += ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-include", str(HERE / "cuda_shim.h")]
    command += [option for option in cuda_source.options(dtype) if not option.startswith("-std")]
    subprocess.run([*command, str(HERE / "shim_kernels.cpp"), "-o", str(out)], check=True)
    return ctypes.CDLL(str(out))


class ShimDriver:
    """NumPy arrays for device arrays, and kernels run by the shim."""

    def __init__(self, libraries):
        self.libraries = libraries

    def describe(self, name, array):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{name} is {type(array).__name__}")
        return device.DeviceArray(array.ctypes.data, array.shape, array.dtype, array.flags.writeable)

    def launch(self, kernel, dtype, arguments, nbytes, stream):
        library = self.libraries[dtype]
        x = (ctypes.c_longlong * len(arguments))(*arguments)
        getattr(library, f"run_{kernel}")(ctypes.c_uint(GRID), ctypes.c_uint(BLOCK), x)
        misaligned = library.shim_misaligned()
        assert misaligned == 0, f"{kernel} {dtype}: {misaligned} vector accesses off their alignment"

    def upload(self, values, stream):
        return values.copy()

    def download(self, array, stream):
        return array


@pytest.fixture(scope="module")
def backend(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda_cpp")
    with ThreadPoolExecutor(2) as pool:
        libraries = pool.map(lambda dtype: compile_for_cpu(dtype, folder), DEVICE_DTYPES)
        return device.Front(ShimDriver(dict(zip(DEVICE_DTYPES, libraries))))


MEMORY = selftest.host_memory()
ALL = pytest.mark.parametrize("dtype", DEVICE_DTYPES)


@ALL
def test_reductions_are_numpys(backend, dtype):
    for seed in range(3):
        for case in selftest.cases([dtype], GRID * BLOCK, seed):
            assert selftest.run_case(backend, MEMORY, case) is None


@ALL
@settings(max_examples=10, deadline=None, derandomize=True)
@given(count=st.integers(1, 900), offset=st.integers(0, 20), start=st.integers(0, 2**40))
def test_fill_copy_and_check_agree_on_the_pattern(backend, dtype, count, offset, start):
    assert selftest.run_pattern(backend, MEMORY, dtype, count, offset, start) is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(count=st.integers(0, 2000), places=st.tuples(*[st.integers(0, 40)] * 3), both=st.booleans())
def test_copy_moves_bytes_between_any_places(backend, count, places, both):
    rng = np.random.default_rng(count)
    src, dst, dst2 = (rng.integers(0, 256, 2100, dtype=np.uint8) for _ in range(3))
    want, want2 = dst.copy(), dst2.copy()
    windows = [slice(place, place + count) for place in places]
    want[windows[1]] = src[windows[0]]
    if both:
        want2[windows[2]] = src[windows[0]]
    backend.copy(dst[windows[1]], src[windows[0]], dst2=dst2[windows[2]] if both else None)
    np.testing.assert_array_equal(dst, want)
    np.testing.assert_array_equal(dst2, want2)


@pytest.mark.parametrize("dtype", ["float8_e4m3", "float8_e5m2"])
def test_float8_products_of_all_pairs(backend, dtype):
    # Every pair of codes: every rounding, every denormal and the saturation.
    a, b = (side.ravel().astype(np.uint8) for side in np.meshgrid(np.arange(256), np.arange(256)))
    dst = np.empty_like(a)
    for op in ("sum", "prod"):
        backend.reduce(dst, a, b, op, dtype)
        want = selftest.reference(op, DEVICE_DTYPES[dtype], [a, b], None)
        assert len(selftest.differing(dst, want, DEVICE_DTYPES[dtype], op)) == 0
    largest = 0x7E if dtype == "float8_e4m3" else 0x7B
    assert (dst[(a == largest) & (b == largest)] == largest).all()  # saturates: no infinity, no NaN


def test_float16_rounds_as_numpy_does_for_all_halves(backend):
    # 65,536 halves times numbers that put the result between, below and above what a half holds.
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    for factor in (1.0, 0.33325, 1.0009765625, 3e-5, 6e-8, 3.0):
        b = np.full_like(halves, factor)
        dst = np.empty_like(halves)
        backend.reduce(dst, halves, b, "prod")
        with np.errstate(all="ignore"):
            want = (halves.astype(np.float32) * b.astype(np.float32)).astype(np.float16)
        assert len(selftest.differing(dst, want, DEVICE_DTYPES["float16"], "prod")) == 0


def test_the_selftest_finds_what_is_wrong(backend):
    class Broken:
        """A backend whose last element of a sum is off by one, or that writes one element too many."""

        def __init__(self, extra):
            self.extra = extra

        def reduce(self, dst, a, b, op, dtype=None, contributions=None, dst2=None):
            backend.reduce(dst, a, b, op, dtype, contributions, dst2=dst2)
            where = np.lib.stride_tricks.as_strided(dst, (len(dst) + self.extra,))
            where[-1] += 1

    case = selftest.Case("int32", "sum", None, 33, 2, False, False, (0, 0, 1, 2), None, 1)
    assert selftest.run_case(backend, MEMORY, case) is None
    assert "1 of dst wrong, first [32]" in selftest.run_case(Broken(0), MEMORY, case)
    assert "wrote outside of dst, at byte 132" in selftest.run_case(Broken(1), MEMORY, case)


def test_reduce_many_takes_a_table_made_before(backend):
    arrays = [np.full(50, 2.0**j, np.float32) for j in range(7)]
    many, dst = backend.sources(arrays), np.empty(50, np.float32)
    backend.reduce_many(dst, many, "avg", contributions=127)
    assert (dst == 1).all()
    backend.reduce_many(dst, many, "max")
    assert (dst == 64).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"op": "xor"}, "op 'xor' is not known"),
        ({"b": np.zeros(7, np.float32)}, r"b has shape \(7,\); accepted: \(8,\)"),
        ({"b": np.zeros(8, np.int32)}, "b holds int32; accepted: float32"),
        ({"dst2": np.zeros(8, np.float64)}, "dst2 holds float64"),
        ({"contributions": 3}, "contributions=3 with op 'sum'"),
        ({"dtype": "bfloat16"}, "dst holds float32; accepted: bfloat16, stored as uint16"),
        ({"dtype": "f8e4m3"}, "dst holds float32; accepted: float8_e4m3, stored as uint8"),
    ],
)
def test_reduce_names_what_was_wrong(backend, options, message):
    arguments = {name: np.zeros(8, np.float32) for name in ("dst", "a", "b")} | {"op": "sum"}
    with pytest.raises(ValueError, match=message):
        backend.reduce(**(arguments | options))


def test_overlap_is_refused_for_each_destination(backend):
    memory, other = np.zeros(100, np.float32), np.zeros(50, np.float32)
    with pytest.raises(ValueError, match="dst and b overlap, shifted by 4 bytes"):
        backend.reduce(memory[1:51], other, memory[:50], "sum")
    with pytest.raises(ValueError, match="dst2 and a overlap"):
        backend.reduce(other, memory[:50], memory[:50], "sum", dst2=memory[10:60])
    with pytest.raises(ValueError, match="dst2 and dst overlap"):
        backend.copy(memory[:50], other, dst2=memory[10:60])
    with pytest.raises(ValueError, match="there are no sources"):
        backend.reduce_many(other, [], "sum")


TOGETHER = r"""
// Blocks pass a number on by flags: each waits for the one before, so they must run at the same time; and inside a block
// every thread reads what its neighbour wrote before the barrier.
__global__ void relay(int* flags, int* cells, int* out, int rounds) {
  const int block = blockIdx.x, me = threadIdx.x, width = blockDim.x;
  for (int round = 0; round < rounds; round++) {
    if (me == 0 && block + round > 0)
      while (shim::load_acquire(&flags[(block + gridDim.x - 1) % gridDim.x]) < round + (block > 0)) shim::pause();
    __syncthreads();
    cells[block * width + me] = round * width + me;
    __syncthreads();
    out[(block * rounds + round) * width + me] = cells[block * width + (me + 1) % width];
    __syncthreads();
    if (me == 0) shim::store_release(&flags[block], round + 1);
  }
}
extern "C" void run_relay(int* flags, int* cells, int* out, int rounds, unsigned grid, unsigned block) {
  shim::launch_together(grid, block, [=] { relay(flags, cells, out, rounds); });
}
"""


def test_the_shim_runs_blocks_together_and_holds_threads_at_a_barrier(tmp_path):
    (tmp_path / "relay.cu").write_text(TOGETHER)
    command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", "-include", str(HERE / "cuda_shim.h")]
    subprocess.run([*command, "-x", "c++", str(tmp_path / "relay.cu"), "-o", str(tmp_path / "relay.so")], check=True)
    grid, block, rounds = 3, 4, 20
    flags, cells = np.zeros(grid, np.int32), np.full(grid * block, -1, np.int32)
    out = np.full((grid, rounds, block), -1, np.int32)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (flags, cells, out)]
    ctypes.CDLL(str(tmp_path / "relay.so")).run_relay(*pointers, rounds, grid, block)
    want = np.arange(rounds)[:, None] * block + (np.arange(block) + 1) % block
    assert (out == want).all()
    assert (flags == rounds).all()
