"""Both backends' kernels as they were compiled for sm_90 (inline PTX, LLVM IR and all), translated to C++ and run, against NumPy.

The cases are those that `gpu-selftest` runs on a GPU. A sample by default; BUSBW_GPU_COMPILE=all, as `.ci/gpu all` runs it, tries
all dtypes of both backends, and runs some under ThreadSanitizer, where no element may be written by two threads.
"""

import ctypes
import os
from functools import cache

import numpy as np
import ptx_machine as machine
import ptx_translate
import pytest
from busbw.kernels import cuda_source, device, offline, selftest
from busbw.kernels.dtypes import DEVICE_DTYPES, DTYPES

REASON = machine.unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ALL = os.environ.get("BUSBW_GPU_COMPILE") == "all"
GRID, BLOCK = 3, 5  # few threads, and no power of two, so that walks go round more than once
SANITIZED = ["float32", "bfloat16", "int8"]


class PtxDriver:
    """NumPy arrays in an arena for device arrays, and kernels run by translated PTX."""

    def __init__(self, arena, programs, backend, sanitize):
        self.arena, self.programs, self.backend, self.sanitize = arena, programs, backend, sanitize

    def describe(self, name, array):
        return device.DeviceArray(array.ctypes.data, array.shape, array.dtype, array.flags.writeable)

    def launch(self, kernel, dtype, arguments, nbytes, stream):
        path = self.programs(self.backend, kernel, dtype, self.sanitize)
        machine.Program(path, self.arena).launch(GRID, BLOCK, arguments, together=self.sanitize)

    def place(self, values):
        memory = np.frombuffer((ctypes.c_uint8 * len(values)).from_address(self.arena.take(len(values))), np.uint8)
        memory[:] = values
        return memory

    def upload(self, values, stream):
        return self.place(values.view(np.uint8)).view(values.dtype)

    def download(self, array, stream):
        return array


@pytest.fixture(scope="module")
def arena():
    found = machine.Arena(8 << 20)
    yield found
    found.close()


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """(backend, kernel, dtype, sanitize) -> the program."""
    folder = tmp_path_factory.mktemp("ptx_kernels")

    @cache
    def module(dtype):
        return offline.compile_cuda_cpp(cuda_source.source(), cuda_source.options(dtype), "sm_90").ptx

    @cache
    def program(backend, kernel, dtype, sanitize):
        ptx = module(dtype) if backend == "cupy" else offline.compile_numba(kernel, dtype, "sm_90").ptx
        name = kernel if backend == "cupy" else ptx_translate.kernels(ptx)[0]  # Numba's are mangled
        return machine.build(ptx, name, folder / f"{backend}_{kernel}_{dtype}_{sanitize}", sanitize=sanitize)

    return program


def front_and_memory(arena, programs, backend, sanitize=False):
    driver = PtxDriver(arena, programs, backend, sanitize)
    memory = selftest.Memory(driver.place, lambda h, begin, n, d: h[begin : begin + n * d.itemsize].view(d), np.copy)
    return device.Front(driver, tuple(DEVICE_DTYPES)), memory


JOBS = [("cupy", d) for d in DEVICE_DTYPES] + [("numba-cuda", d) for d in DTYPES]
SAMPLE = [("cupy", "bfloat16"), ("numba-cuda", "bfloat16")]


@pytest.mark.parametrize(("backend", "dtype"), JOBS if ALL else SAMPLE)
def test_compiled_reductions_are_numpys(arena, programs, backend, dtype):
    front, memory = front_and_memory(arena, programs, backend)
    for case in selftest.cases([dtype], GRID * BLOCK, 1):
        if not ALL and (case.op != "sum" or case.many):
            continue
        arena.clear()
        assert selftest.run_case(front, memory, case) is None


@pytest.mark.skipif(not ALL, reason="with BUSBW_GPU_COMPILE=all")
@pytest.mark.parametrize(("backend", "dtype"), JOBS)
def test_compiled_fill_copy_and_check_agree_on_the_pattern(arena, programs, backend, dtype):
    front, memory = front_and_memory(arena, programs, backend)
    for count, offset, start in ((1, 0, 0), (333, 1, 5), (1500, 3, 2**40 - 7)):
        arena.clear()
        assert selftest.run_pattern(front, memory, dtype, count, offset, start) is None


@pytest.mark.skipif(not ALL, reason="with BUSBW_GPU_COMPILE=all")
@pytest.mark.parametrize("dtype", SANITIZED)
def test_no_two_threads_of_a_kernel_touch_one_element(arena, programs, dtype):
    front, memory = front_and_memory(arena, programs, "cupy", sanitize=True)
    for case in selftest.cases([dtype], GRID * BLOCK, 2):
        if case.op == "sum":
            arena.clear()
            assert selftest.run_case(front, memory, case) is None
