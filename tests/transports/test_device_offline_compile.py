"""walk.cu for real GPUs, compiled with no GPU: the flags' instructions and scope, vector accesses, no local memory.

A sample by default; all dtypes, ops and architectures, with either scope in turn, with BUSBW_GPU_COMPILE=all, as `.ci/gpu all`
runs it.
"""

import os
import re

import pytest
from busbw.kernels import cuda_source, cupy_compile, offline
from busbw.kernels.dtypes import DEVICE_DTYPES, OPS
from busbw.transports.cupy_device import gate_source, walk_options, walk_source

REASON = offline.unavailable()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))
ALL = os.environ.get("BUSBW_GPU_COMPILE") == "all"
ARCHITECTURES = offline.ARCHITECTURES
JOBS = (
    [(d, o, (i + j) % 2 == 0, a) for i, d in enumerate(DEVICE_DTYPES) for o in OPS for j, a in enumerate(ARCHITECTURES)]
    if ALL
    else [
        ("float32", "sum", False, "sm_80"), ("float32", "sum", True, "sm_90"), ("float32", "sum", False, "sm_100"),
        ("bfloat16", "avg", False, "sm_90"), ("uint64", "max", True, "sm_80"), ("float8_e5m2", "min", False, "sm_100"),
    ]
)  # fmt: skip
STACK_MAX = 72  # bytes a thread that averages and float8 may put into memory, beside 256 bytes of registers
BYTE_STACK_MAX = (
    128  # that minima and maxima of bytes may: a comparison a byte, where sums have one instruction for four
)
NVDISASM = offline.find_nvdisasm()


@pytest.mark.parametrize("dtype, op, system_scope, architecture", JOBS)
def test_walk_compiles_to_flags_of_the_right_scope_and_vector_accesses(dtype, op, system_scope, architecture):
    compiled = offline.compile_cuda_cpp(walk_source(), walk_options(dtype, op, system_scope=system_scope), architecture)
    assert compiled.cubin[:4] == b"\x7fELF"
    kernels = compiled.kernels()
    assert sorted(kernels) == ["run_rows", "walk"]
    scope = "sys" if system_scope else "gpu"
    flags = re.findall(
        r"\b(?:(?:ld|st|atom|red)\.(?:\w+\.)?(?:acquire|release|acq_rel|relaxed)|fence)[\w.]*", compiled.ptx
    )
    assert set(flags) == {
        f"ld.acquire.{scope}.global.s64",
        f"fence.acq_rel.{scope}",
        f"st.relaxed.{scope}.global.s64",
        f"atom.add.acq_rel.{scope}.global.u64",
    }
    assert not set(flags) & set(re.findall(r"[\w.]+", kernels["run_rows"]))  # launches stand for the flags
    for name, ptx in kernels.items():
        assert ".local" not in ptx, f"{name} uses local memory"
        assert "ld.global.nc" not in re.sub(r"ld\.global\.nc\.[us]64", "", ptx), f"{name} reads data past the flags"
        # Four vectors of each source are in flight before a store.
        order = "".join("L" if m.group(1) == "ld" else "S" for m in re.finditer(r"(ld|st)\.global\.v4\.[bu]32", ptx))
        assert "L" * 8 + "S" * 4 in order
    lean = op != "avg" and not dtype.startswith("float8")
    of_bytes = dtype in ("int8", "uint8") and op in ("min", "max")
    assert max(compiled.spilled.values()) <= (BYTE_STACK_MAX if of_bytes else 0 if lean else STACK_MAX)
    assert ".maxntid 512" in kernels["walk"]  # the block that resident_blocks asks about
    assert ".minnctapersm 2" in kernels["walk"]  # 64 registers a thread: two blocks a processor


@pytest.mark.skipif(
    NVDISASM is None, reason="nvdisasm is not installed (package nvidia-cuda-nvdisasm): no machine code read"
)
@pytest.mark.parametrize(
    ("dtype", "op"), [(d, o) for d in ("float32", "int8", "bfloat16") for o in ("sum", "avg")][: None if ALL else 1]
)
def test_eight_loads_are_in_flight_in_machine_code(dtype, op):
    for architecture in ARCHITECTURES:
        if (dtype, op, architecture) == ("bfloat16", "sum", "sm_100"):
            continue  # the compiler puts the first two vectors' arithmetic after four loads
        compiled = offline.compile_cuda_cpp(walk_source(), walk_options(dtype, op), architecture)
        for name, instructions in offline.machine_code(compiled.cubin, NVDISASM).items():
            assert offline.loads_in_flight(instructions) >= 8, f"{name} {architecture}"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gate_reads_its_word_anew_every_turn_and_has_a_deadline(architecture):
    compiled = offline.compile_cuda_cpp(gate_source(), cuda_source.common_options(), architecture)
    (ptx,) = compiled.kernels().values()
    assert compiled.spilled == {"gate": 0} and ".local" not in ptx
    assert re.search(r"ld\.volatile(?:\.global)?\.[bsu]64", ptx) and "%globaltimer" in ptx
    # The load is inside a loop: after a label that a branch goes back to.
    loop = re.search(r"(\$L__BB\d+_\d+):(?:(?!\$L__BB\d+_\d+:).)*ld\.volatile", ptx, re.S)
    assert loop and len(re.findall(re.escape(loop.group(1)) + r"\b", ptx)) > 1


def test_a_program_is_compiled_with_our_options_alone():
    # RawModule of CuPy adds -ftz=true, under which tiny float32 sums become 0.
    pytest.importorskip("cupy")
    ptx = cupy_compile.compiled(walk_source(), walk_options("float32", "sum"), "compute_90").decode()
    assert "add.f32" in ptx or "add.rn.f32" in ptx
    assert ".ftz" not in ptx
    cubin = cupy_compile.compiled(walk_source(), walk_options("float32", "sum"), "sm_90")
    assert cubin[:4] == b"\x7fELF"
    with pytest.raises(cupy_compile.CompileError, match="NO_SUCH_THING"):
        cupy_compile.compiled("int x = NO_SUCH_THING;", (), "sm_90")


def test_a_device_newer_than_the_compiler_gets_ptx_and_an_older_one_a_reason():
    assert cupy_compile.target("90", (75, 80, 90)) == "sm_90"
    assert cupy_compile.target("130", (75, 80, 90)) == "compute_90"
    with pytest.raises(cupy_compile.CompileError, match="sm_70"):
        cupy_compile.target("70", (75, 80, 90))


NAMES = r"""
import cupy, re
from cupy.cuda import Device, Event, Graph, Memory, MemoryPointer, PinnedMemory, Stream, driver, nccl, runtime
from cupy.cuda.function import Function, Module
from cupy_backends.cuda.libs import nvrtc
takes = {
    driver.launchCooperativeKernel: 10, driver.occupancyMaxActiveBlocksPerMultiprocessor: 3, runtime.memcpyAsync: 5,
    runtime.memsetAsync: 4, runtime.deviceCanAccessPeer: 2, runtime.deviceEnablePeerAccess: 1, runtime.memGetInfo: 0,
    runtime.getDeviceProperties: 1, runtime.getDeviceCount: 0, runtime.driverGetVersion: 0, nvrtc.createProgram: 4,
    nvrtc.compileProgram: 2, nvrtc.getPTX: 1, nvrtc.getCUBIN: 1, nvrtc.getProgramLog: 1, nvrtc.destroyProgram: 1,
    nvrtc.getSupportedArchs: 0, runtime.eventQuery: 1,
    runtime.ipcGetMemHandle: 1, runtime.ipcOpenMemHandle: 2, runtime.ipcCloseMemHandle: 1, cupy.cuda.get_elapsed_time: 2,
}
for function, count in takes.items():
    inside = re.search(r"\((.*?)\)", function.__doc__).group(1)
    assert len([x for x in inside.split(",") if x.strip()]) == count, function.__doc__
for owner, names in (
    (Event, "record synchronize done"), (Graph, "launch upload"), (MemoryPointer, "memset_async ptr mem"),
    (Stream, "begin_capture end_capture synchronize wait_event"), (Module, "load get_function"),
    (Function, "ptr"), (Device, "use attributes compute_capability pci_bus_id"), (Memory, "size"),
    (runtime, "CUDARuntimeError memcpyDefault memcpyHostToDevice memcpyDeviceToHost check_status"),
    (runtime, "hostAllocPortable hostAllocMapped"),
    (nvrtc, "NVRTCError"), (PinnedMemory(0), "ptr"), (Stream, "__enter__ __exit__"),
):
    for name in names.split():
        assert hasattr(owner, name), (owner, name)
assert "non_blocking" in Stream.__init__.__doc__ and "disable_timing" in Event.__init__.__doc__
print("{}")
"""


def test_cupy_has_the_calls_that_the_device_uses(python):
    pytest.importorskip("cupy")
    assert python("-c", NAMES).result == {}


def test_numba_cuda_takes_a_graph_builder_for_a_stream():
    # As numba_device.graph_builder has it, in the installed packages; what the driver says to it is not tried.
    from numba.cuda.cudadrv import driver

    if not hasattr(driver, "GraphBuilder"):
        pytest.skip("this numba-cuda launches no kernel into a graph")
    from cuda.core import Device

    assert hasattr(Device, "create_graph_builder") and hasattr(Device, "set_current")
    for name in ("begin_building", "end_building", "complete"):
        assert hasattr(driver.GraphBuilder, name)

    class Builder(driver.GraphBuilder):
        stream = "the capturing stream"

    assert driver._to_core_stream(driver.GraphBuilder.__new__(Builder)) == "the capturing stream"
