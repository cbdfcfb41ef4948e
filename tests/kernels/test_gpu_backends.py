"""What the GPU backends say where something is missing, what they refuse, and how the CuPy backend drives CuPy.

The CuPy here is a stand-in with CuPy's names: kernels are compiled for the CPU with cuda_shim.h and launched as asked. So grids,
arguments, streams and options are checked, and that CuPy has those names is checked where CuPy is installed.
"""

import ctypes
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numba
import numpy as np
import pytest
from busbw.kernels import backend, cuda_source, cupy_compile, cupy_cuda, device, numba_cuda, offline, selftest
from hypothesis import given
from hypothesis import strategies as st

HERE = Path(__file__).parent
PROCESSORS, BLOCKS_A_PROCESSOR = 3, 2
POINTER = 0x7F00_1234_0000


class Interface:
    """An object with a __cuda_array_interface__."""

    def __init__(self, shape=(8,), typestr="<f4", address=POINTER, read_only=False, strides=None, mask=None):
        self.__cuda_array_interface__ = {
            "shape": shape,
            "typestr": typestr,
            "data": (address, read_only),
            "strides": strides,
            "mask": mask,
            "version": 3,
        }


def test_the_cpu_path_imports_nothing_of_cuda(python):
    program = (
        "import json, sys, busbw.kernels as k; k.backend('cpu').pointers('sum', 'float32')\n"
        "packages = {m.partition('.')[0] for m in sys.modules} & {'cupy', 'numba_cuda', 'cuda', 'pynvml'}\n"
        "print(json.dumps({'packages': sorted(packages), 'numba.cuda': 'numba.cuda' in sys.modules}))"
    )
    assert python("-c", program).result == {"packages": [], "numba.cuda": False}


@pytest.mark.parametrize(
    ("name", "module", "package"), [("cupy", "cupy", "CuPy"), ("numba-cuda", "numba_cuda", "numba-cuda")]
)
def test_a_missing_package_is_named_with_what_to_install(monkeypatch, name, module, package):
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setitem(sys.modules, module, None)  # makes the import fail as a missing module does
    reason = backend(name).available()
    assert reason.startswith(f"{package} is not installed: pip install 'busbw[cuda13]'")
    assert "busbw[cuda12]" in reason and "\n" not in reason


def test_a_package_that_breaks_when_imported_is_quoted(monkeypatch):
    class Broken:
        def find_spec(self, name, path, target=None):
            if name == "cupy":
                raise ImportError("libcudart.so.13: cannot open shared object file\n  more")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    reason = cupy_cuda.available()
    assert reason.startswith(
        "CuPy cannot be imported (libcudart.so.13: cannot open shared object file more): pip install"
    )


def test_a_missing_driver_and_no_device_are_told_apart(monkeypatch):
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 0, is_hip=False)
    fake, fake_cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")
    fake.__version__, fake.cuda, fake_cuda.runtime = "14.2.0", fake_cuda, runtime
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "cupy.cuda", fake_cuda)
    assert "no CUDA device" in cupy_cuda.available()

    def refuse():
        raise RuntimeError("cudaErrorInsufficientDriver: version is insufficient")

    runtime.getDeviceCount = refuse
    reason = cupy_cuda.available()
    assert reason.startswith("the NVIDIA driver is missing or too old for CuPy 14.2.0")
    assert "cudaErrorInsufficientDriver" in reason
    runtime.getDeviceCount = lambda: 1
    assert cupy_cuda.available() is None


def test_a_numpy_that_numba_cuda_cannot_use_is_named_with_what_to_install(monkeypatch):
    class Broken:
        def find_spec(self, name, path, target=None):
            if name == "numba.cuda.cudaimpl":
                raise AttributeError("module 'numpy' has no attribute 'row_stack'")

    package, cuda = types.ModuleType("numba_cuda"), types.ModuleType("numba.cuda")
    package.__version__, cuda.gpus, cuda.__path__ = "0.30.4", [1], []
    monkeypatch.setitem(sys.modules, "numba_cuda", package)
    monkeypatch.setitem(sys.modules, "numba.cuda", cuda)
    monkeypatch.setattr(numba, "cuda", cuda, raising=False)
    monkeypatch.delitem(sys.modules, "numba.cuda.cudaimpl", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    reason = numba_cuda.available()
    assert reason.startswith(f"numba-cuda 0.30.4 does not work with NumPy {np.__version__} (module 'numpy' has no")
    assert reason.endswith("pip install 'numpy<2.5'")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        ([1, 2], "a is list; accepted: an array with __cuda_array_interface__"),
        (np.zeros(3), "a is ndarray; accepted: an array with __cuda_array_interface__"),
        (Interface(strides=(8,)), r"a is not contiguous \(strides \(8,\)\)"),
        (Interface((4, 2), strides=(4, 16)), "a is not contiguous"),
        (Interface(mask=Interface()), "a is masked"),
    ],
)
def test_what_is_no_plain_device_array_is_refused(array, message):
    with pytest.raises((TypeError, ValueError), match=message):
        device.from_interface("a", array)


def test_a_device_array_is_described_by_its_interface():
    got = device.from_interface("a", Interface((4, 1, 2), "<f8", strides=(16, 99, 8), read_only=True))
    assert got == device.DeviceArray(POINTER, (4, 1, 2), np.dtype("<f8"), False)
    assert (got.size, got.nbytes) == (8, 64)
    assert device.from_interface("a", Interface((0,), address=None)).nbytes == 0


def test_backends_refuse_before_they_launch():
    good = Interface()
    with pytest.raises(ValueError, match="dst is read-only"):
        cupy_cuda.reduce(Interface(read_only=True), good, good, "sum")
    with pytest.raises(ValueError, match="a lies at 0x7f0012340002; accepted: a multiple of its 4 bytes"):
        cupy_cuda.reduce(good, Interface(address=POINTER + 2), good, "sum")
    with pytest.raises(ValueError, match="no kernels for float8_e4m3; accepted: float64"):
        numba_cuda.reduce(Interface(typestr="|u1"), good, good, "sum", "float8_e4m3")
    with pytest.raises(ValueError, match="16 bytes have no fill"):
        cupy_cuda.fill(Interface(typestr="<c16"), Interface((256,), "<c16"))


@given(st.integers(1, 2**50), st.sampled_from([32, 128, 512, 1024]), st.integers(1, 10**5))
def test_no_more_blocks_than_run_at_a_time_and_no_thread_without_a_vector(nbytes, threads, most):
    blocks = device.blocks_for(nbytes, threads, most)
    assert 1 <= blocks <= most
    assert blocks == 1 or (blocks - 1) * threads * 16 < nbytes
    assert blocks == most or blocks * threads * 16 >= nbytes


class FakeKernel:
    def __init__(self, cupy, name, library):
        self.cupy, self.name, self.library = cupy, name, library
        self.ptr = id(self)

    def __call__(self, grid, block, args):
        assert all(type(x) is np.uint64 for x in args), "an int is passed by CuPy as it likes"
        assert block == (cuda_source.THREADS,) and 1 <= grid[0] <= PROCESSORS * BLOCKS_A_PROCESSOR
        self.cupy.launched.append((self.name, grid[0], self.cupy.stream))
        x = (ctypes.c_ulonglong * len(args))(*[int(a) for a in args])
        getattr(self.library, f"run_{self.name}")(ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), x)


class FakeStream:
    def __init__(self, cupy, address):
        self.cupy, self.address = cupy, address

    def __enter__(self):
        self.cupy.stream, self.before = self.address, self.cupy.stream

    def __exit__(self, *_):
        self.cupy.stream = self.before


class HostArray(Interface):
    """What the stand-in's asarray gives: a copy in host memory that says it is on a device."""

    def __init__(self, values, cupy):
        self.values, self.cupy = values.copy(), cupy
        super().__init__(values.shape, values.dtype.str, self.values.ctypes.data)

    def get(self):
        self.cupy.launched.append(("get", None, self.cupy.stream))
        return self.values


@pytest.fixture(scope="module")
def fake_cupy(tmp_path_factory):
    """A module `cupy` that compiles for the CPU and records what it launched: (kernel, blocks, stream)."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: CUDA C++ not run on the CPU")
    folder = tmp_path_factory.mktemp("fake_cupy")
    cupy, cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")
    cupy.launched, cupy.stream, cupy.cuda = [], None, cuda

    def load(source, options):
        assert source == cuda_source.source()
        out = folder / f"{len(list(folder.iterdir()))}.so"
        command = [
            "g++",
            "-O1",
            "-shared",
            "-fPIC",
            "-fno-strict-aliasing",
            "-include",
            str(HERE / "cuda_shim.h"),
            *options,
        ]
        subprocess.run([*command, str(HERE / "shim_kernels.cpp"), "-o", str(out)], check=True)
        library = ctypes.CDLL(str(out))
        return types.SimpleNamespace(get_function=lambda name: FakeKernel(cupy, name, library))

    cupy.asarray = lambda values: HostArray(values, cupy)
    from_external = staticmethod(lambda stream: FakeStream(cupy, stream.__cuda_stream__()[1]))
    cuda.Stream = type("Stream", (), {"from_external": from_external})
    cuda.driver = types.SimpleNamespace(occupancyMaxActiveBlocksPerMultiprocessor=lambda f, t, s: BLOCKS_A_PROCESSOR)
    cuda.runtime = types.SimpleNamespace(getDevice=lambda: 0, getDeviceCount=lambda: 1, is_hip=False)
    cuda.Device = lambda i: types.SimpleNamespace(attributes={"MultiProcessorCount": PROCESSORS})
    patch = pytest.MonkeyPatch()
    patch.setitem(sys.modules, "cupy", cupy)
    patch.setitem(sys.modules, "cupy.cuda", cuda)
    patch.setattr(cupy_compile, "load", load)
    yield cupy
    patch.undo()
    cupy_cuda._kernel.cache_clear()
    cupy_cuda._module.cache_clear()


def test_the_cupy_backend_passes_the_selftest_on_the_stand_in(fake_cupy):
    memory = selftest.device_memory(fake_cupy.asarray, lambda array: array.values.copy())
    for case in list(selftest.cases(["bfloat16"], cuda_source.THREADS, 5))[::4]:
        assert selftest.run_case(cupy_cuda, memory, case) is None
    for count in (1, 77, 20_000):
        assert selftest.run_pattern(cupy_cuda, memory, "bfloat16", count, 3, 2**40) is None


def test_work_goes_to_the_stream_that_was_named(fake_cupy):
    a, b = fake_cupy.asarray(np.arange(9, dtype=np.int32)), fake_cupy.asarray(np.ones(9, np.int32))
    fake_cupy.launched.clear()
    cupy_cuda.reduce(a, a, b, "sum", stream=FakeStream(fake_cupy, "mine"))
    cupy_cuda.copy(b, a, stream=0xBEEF)
    cupy_cuda.reduce_many(b, [a, b], "max")
    assert cupy_cuda.check(a, fake_cupy.asarray(np.zeros(256, np.int32)), stream=7) == 9
    assert fake_cupy.launched == [
        ("reduce_sum", 1, "mine"),
        ("copy", 1, 0xBEEF),
        ("many_max", 1, None),
        ("check_exact_4", 1, 7),
        ("get", None, 7),
    ]
    assert a.values.tolist() == b.values.tolist() == list(range(1, 10))


def test_an_empty_array_launches_nothing(fake_cupy):
    fake_cupy.launched.clear()
    none = Interface((0,), address=None)
    cupy_cuda.reduce(none, none, none, "sum")
    cupy_cuda.copy(none, none)
    assert fake_cupy.launched == []


@pytest.mark.skipif(offline.unavailable() is not None, reason=str(offline.unavailable()))
def test_cupy_has_the_names_that_the_backend_uses(python):
    program = (
        "import json, cupy; from cupy.cuda import driver, runtime, Stream, Device; from cupy.cuda.function import Function\n"
        "names = [driver.occupancyMaxActiveBlocksPerMultiprocessor, runtime.getDevice, runtime.getDeviceCount, Function.ptr,"
        " Device.attributes, cupy.asarray, cupy.ndarray.get]\n"
        "streams = hasattr(Stream, 'from_external') or hasattr(cupy.cuda, 'ExternalStream')\n"
        "print(json.dumps({'streams': streams, 'functions': callable(Function.__call__)}))"
    )
    done = python("-c", program)
    if "No module named 'cupy'" in done.stderr:
        pytest.skip("CuPy is not installed")
    assert done.result == {"streams": True, "functions": True}


@pytest.mark.skipif(offline.unavailable() is not None, reason=str(offline.unavailable()))
def test_numba_cuda_keeps_a_compiled_kernel_where_the_backend_looks(python):
    program = (
        "import json, numba.cuda.dispatcher as d; from numba.cuda import types\n"
        "arguments = str(types.void(types.int64).args)\n"
        "print(json.dumps({'blocks': hasattr(d._Kernel, 'max_cooperative_grid_blocks'), 'arguments': arguments}))"
    )
    assert python("-c", program).result == {"blocks": True, "arguments": "(int64,)"}
