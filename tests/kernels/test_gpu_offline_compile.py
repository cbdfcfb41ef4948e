"""Every GPU kernel compiles with no GPU, to vector accesses and without local memory.

A sample for sm_90 by default; all dtypes, ops and architectures with BUSBW_GPU_COMPILE=all, as `.ci/gpu all` runs it.
"""

import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor

import pytest
from busbw.kernels import cuda_source, offline
from busbw.kernels.dtypes import DEVICE_DTYPES

REASON = offline.unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ALL = os.environ.get("BUSBW_GPU_COMPILE") == "all"
ARCHITECTURES = offline.ARCHITECTURES if ALL else ("sm_90",)
NVDISASM = offline.find_nvdisasm()
STACK_MAX = 64  # bytes a thread that minima of bytes, divisions, many sources and checks may put into memory
SAMPLE = {"float32", "bfloat16", "uint8"}
SAMPLE_KERNELS = {"reduce_sum", "reduce_avg_final", "many_min", "copy", "fill_4", "check_range", "check_exact_2"}
VECTOR_LOAD = re.compile(r"ld(?:\.volatile)?\.global\.v(4\.[fub]32|2\.[fub]64)")
VECTOR_STORE = re.compile(r"st\.global\.v(4\.[fub]32|2\.[fub]64)")


def in_processes(function, jobs):
    """The results in order; Numba's compiler is not to be used by two threads at a time."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(function, *zip(*jobs), chunksize=4))


def cuda_cpp(dtype, architecture):
    return offline.compile_cuda_cpp(cuda_source.source(), cuda_source.options(dtype), architecture)


def assert_vectorised(name, ptx):
    """A kernel reads and writes 16 bytes at a time, keeps nothing in local memory, and takes no tiny number for 0."""
    assert ".local" not in ptx, f"{name} uses local memory"
    assert ".ftz" not in ptx and ".approx" not in ptx, f"{name} is not NumPy's arithmetic"
    if not name.startswith("fill"):
        assert VECTOR_LOAD.search(ptx), f"{name} has no 128-bit load"
    if not name.startswith("check"):
        assert VECTOR_STORE.search(ptx), f"{name} has no 128-bit store"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [d for d in DEVICE_DTYPES if ALL or d in SAMPLE])
def test_cuda_cpp_compiles_for_each_dtype(dtype, architecture):
    compiled = cuda_cpp(dtype, architecture)
    assert compiled.cubin[:4] == b"\x7fELF"
    assert f".target {architecture}" in compiled.ptx
    kernels = compiled.kernels()
    assert sorted(kernels) == sorted(cuda_source.kernel_names(dtype))
    for name, ptx in kernels.items():
        assert_vectorised(name, ptx)
    lean = [name for name in kernels if name in ("reduce_sum", "reduce_prod", "copy") or name.startswith("fill")]
    spilled = {name: n for name, n in compiled.spilled.items() if n > (0 if name in lean else STACK_MAX)}
    assert len(compiled.spilled) == len(kernels)
    assert spilled == {}


@pytest.mark.skipif(
    NVDISASM is None, reason="nvdisasm is not installed (package nvidia-cuda-nvdisasm): no machine code read"
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_four_vectors_of_each_source_are_in_flight(architecture):
    code = offline.machine_code(cuda_cpp("float32", architecture).cubin, NVDISASM)
    assert offline.loads_in_flight(code["reduce_sum"]) >= 8
    assert offline.loads_in_flight(code["copy"] if "copy" in code else code["many_sum"]) >= 4


def test_loads_in_flight_are_counted_up_to_the_first_use():
    load = "LDG.E.128 R{}, desc[UR4][R{}.64]"
    four = [load.format(4 * i, 40) for i in range(4)]
    assert offline.loads_in_flight([*four, "FADD R20, R3, R5"]) == 4
    assert offline.loads_in_flight([*four[:2], "FADD R20, R3, R5", *four[2:]]) == 2  # the second was used too
    assert offline.loads_in_flight([*four[:2], "FADD R20, R3, R30", *four[2:]]) == 3
    assert offline.loads_in_flight([*four[:2], ".L_x_1:", *four[2:]]) == 2
    assert offline.loads_in_flight([load.format(4, 40), load.format(8, 4)]) == 1  # the address comes from the first


@pytest.mark.parametrize(("dtype", "instruction"), [("bfloat16", "cvt.rn.bf16.f32"), ("float16", "cvt.rn.f16.f32")])
def test_16_bit_floats_are_rounded_by_the_hardware(dtype, instruction):
    assert instruction in cuda_cpp(dtype, "sm_90").ptx


@pytest.mark.parametrize("kind", ["e4m3", "e5m2"])
def test_float8_is_converted_by_the_hardware_from_sm_89(kind):
    assert f"cvt.rn.satfinite.{kind}x2.f32" in cuda_cpp(f"float8_{kind}", "sm_90").ptx
    assert f"cvt.rn.satfinite.{kind}x2.f32" not in cuda_cpp(f"float8_{kind}", "sm_80").ptx


def test_the_cupy_backend_compiles_what_was_looked_at():
    cupy_compile = pytest.importorskip("busbw.kernels.cupy_compile")
    pytest.importorskip("cupy", reason="CuPy is not installed")
    # CuPy's own wrapper adds options (-ftz=true); ours must not.
    arguments = cuda_source.source(), cuda_source.options("float32")
    try:
        ptx = cupy_compile.compiled(*arguments, "compute_90").decode().rstrip("\0")
    except ImportError as error:
        pytest.skip(f"CuPy finds no NVRTC: {error}")
    for name, text in offline.Compiled(ptx, b"", {}).kernels().items():
        assert_vectorised(name, text)


def test_a_wrong_program_is_refused_with_the_compilers_words():
    with pytest.raises(offline.CompileError, match="BUSBW_NO_SUCH_THING"):
        offline.compile_cuda_cpp("int x = BUSBW_NO_SUCH_THING;", (), "sm_90")
    with pytest.raises(offline.CompileError, match="ptxas"):
        offline.assemble(".version 8.0\n.target sm_90\n.address_size 64\n.visible .entry f() { bogus; }", "sm_90")


def test_numba_kernels_compile_for_each_dtype_and_op():
    jobs = [
        (name, dtype, architecture)
        for name, dtype in offline.numba_jobs()
        for architecture in ARCHITECTURES
        if ALL or (dtype in SAMPLE and name in SAMPLE_KERNELS)
    ]
    assert len(jobs) == 108 * 3 if ALL else len(jobs) >= 12
    for (name, dtype, architecture), compiled in zip(jobs, in_processes(offline.compile_numba, jobs)):
        assert compiled.cubin[:4] == b"\x7fELF"
        (ptx,) = compiled.kernels().values()
        assert_vectorised(f"{name} {dtype} {architecture}", ptx)
        if not name.startswith("check"):
            assert list(compiled.spilled.values()) == [0], f"{name} {dtype} {architecture} spills"


def test_numbas_gate_reads_the_hosts_word_and_the_clock_at_every_turn():
    (ptx,) = offline.compile_numba("gate", "uint8", "sm_90").kernels().values()
    loop = ptx[ptx.rindex("ld.volatile.global.s64") :]
    assert "%globaltimer" in loop and "bra" in loop
