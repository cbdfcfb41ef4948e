"""Compiles the GPU kernels with no GPU and no driver: for tests, and to see what the compiler made of them.

CUDA C++ goes through NVRTC, Numba's kernels through NVVM and nvJitLink; all come with the CUDA packages of
``busbw[cuda13]``. Nothing here is needed to run a kernel.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

from . import cuda_source
from .dtypes import DTYPES
from .missing import INSTALL, detail

ARCHITECTURES = ("sm_80", "sm_90", "sm_100")  # A100, H100 and H200, B200


class CompileError(RuntimeError):
    """The compiler's log."""


class Compiled(NamedTuple):
    """What came out, for one architecture.

    ptx: the text; cubin: machine code; spilled: kernel name -> bytes of local memory that the assembler needed
    """

    ptx: str
    cubin: bytes
    spilled: dict[str, int]

    def kernels(self) -> dict[str, str]:
        """Kernel name -> its PTX. Numba's mangled names are kept."""
        starts = list(re.finditer(r"\.visible \.entry (\w+)\(", self.ptx))
        ends = [match.start() for match in starts[1:]] + [len(self.ptx)]
        return {match.group(1): self.ptx[match.start() : end] for match, end in zip(starts, ends)}


def unavailable() -> str | None:
    """None if both compilers are here, else which is not and what to install."""
    try:
        from cuda.bindings import nvjitlink, nvrtc

        nvrtc.nvrtcVersion()
        nvjitlink.version()
        import numba_cuda  # noqa: F401
    except Exception as error:  # a missing package and a missing library differ in type from version to version
        return f"kernels were not compiled for GPUs, the CUDA packages are missing ({detail(error)}): {INSTALL}"
    return None


def _spilled(log: str) -> dict[str, int]:
    """From the assembler's report: kernel name -> bytes of stack."""
    found = re.findall(r"Function properties for (\w+)\W+(?:ptxas\W+)?(\d+) bytes stack frame", log)
    return {name: int(stack) for name, stack in found}


def compile_cuda_cpp(source: str, options: Sequence[str], architecture: str) -> Compiled:
    """Compile CUDA C++ (`cuda_source.source()`, `cuda_source.options(dtype)`) for an architecture, "sm_90".

    Raises CompileError with NVRTC's log.
    """
    from cuda.bindings import nvrtc

    def done(result):
        if result[0] != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise CompileError(f"NVRTC: {result[0].name}")
        return result[1] if len(result) == 2 else None

    def text(size_of, get):
        buffer = b"\0" * done(size_of(program))
        done(get(program, buffer))
        return buffer

    program = done(nvrtc.nvrtcCreateProgram(source.encode(), b"busbw.cu", 0, [], []))
    try:
        arguments = [option.encode() for option in (*options, f"-arch={architecture}", "--ptxas-options=-v")]
        (result,) = nvrtc.nvrtcCompileProgram(program, len(arguments), arguments)
        log = text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog).decode(errors="replace")
        if result != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise CompileError(log)
        ptx = text(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX).decode().rstrip("\0")
        cubin = text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
    return Compiled(ptx, cubin, _spilled(log))


def assemble(ptx: str, architecture: str) -> Compiled:
    """Machine code of PTX. Raises CompileError with the assembler's log where it refuses it."""
    from cuda.bindings import nvjitlink

    handle = nvjitlink.create(2, [f"-arch={architecture}", "-verbose"])
    try:
        try:
            data = ptx.encode() + b"\0"
            nvjitlink.add_data(handle, nvjitlink.InputType.PTX, data, len(data), "busbw.ptx")
            nvjitlink.complete(handle)
        except nvjitlink.nvJitLinkError as error:
            log = bytearray(nvjitlink.get_error_log_size(handle))
            nvjitlink.get_error_log(handle, log)
            raise CompileError(log.decode(errors="replace")) from error
        cubin = bytearray(nvjitlink.get_linked_cubin_size(handle))
        nvjitlink.get_linked_cubin(handle, cubin)
        log = bytearray(nvjitlink.get_info_log_size(handle))
        nvjitlink.get_info_log(handle, log)
    finally:
        nvjitlink.destroy(handle)
    return Compiled(ptx, bytes(cubin), _spilled(log.decode(errors="replace")))


def compile_python(function, signature, architecture: str) -> Compiled:
    """Compile a Python function as a CUDA kernel with Numba, and assemble it."""
    from numba import cuda
    from numba.cuda import dispatcher

    digits = architecture.removeprefix("sm_")
    capability = int(digits[:-1]), int(digits[-1])
    # Device functions that a kernel calls are typed for "the current device", though the kernel is told its own. All
    # are turned into machine code together with the kernel, for the kernel's.
    device = SimpleNamespace(compute_capability=capability)
    with mock.patch.object(dispatcher, "get_current_device", lambda: device):
        ptx, _ = cuda.compile(function, signature, device=False, abi="numba", cc=capability, output="ptx")
    return assemble(ptx, architecture)


def compile_numba(name: str, dtype: str, architecture: str) -> Compiled:
    """Compile a kernel of the Numba CUDA backend, by its name in `device`."""
    from . import numba_cuda_kernels

    function, signature = numba_cuda_kernels.function(name, dtype), numba_cuda_kernels.signature(name)
    return compile_python(function, signature, architecture)


def find_nvdisasm() -> str | None:
    """NVIDIA's disassembler: of the package nvidia-cuda-nvdisasm, or of an installed toolkit."""
    spec = importlib.util.find_spec("nvidia")
    packaged = (
        (p for folder in (spec.submodule_search_locations or ()) for p in Path(folder).glob("*/bin/nvdisasm"))
        if spec
        else ()
    )
    return next(map(str, packaged), None) or shutil.which("nvdisasm")


def machine_code(cubin: bytes, nvdisasm: str) -> dict[str, list[str]]:
    """Kernel name -> its instructions, one a line, with labels as "name:"."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([nvdisasm, "-c", file.name], check=True, capture_output=True, text=True)
    kernels: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        if found := re.match(r"\.text\.(\w+):", line):
            here = kernels.setdefault(found.group(1), [])
        elif found := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?) *;|(\.\w+:)", line):
            here.append(found.group(1) or found.group(2))
    return kernels


def loads_in_flight(instructions: Sequence[str]) -> int:
    """The most 128-bit loads that a thread has issued, in a stretch without branches, before it uses the first one's result."""
    most, waiting = 0, []
    for instruction in instructions:
        if instruction.endswith(":") or re.search(r"\bBRA\b", instruction):
            waiting = []
            continue
        used = {
            int(first) + more
            for first, wide in re.findall(r"\bR(\d+)(\.64)?", instruction)
            for more in range(2 if wide else 1)
        }
        hit = [i for i, registers in enumerate(waiting) if registers & used]
        waiting = waiting[hit[-1] + 1 :] if hit else waiting  # loads come back in order
        if found := re.search(r"\bLDG\.E\.128\S* R(\d+)", instruction):
            waiting.append(set(range(int(found.group(1)), int(found.group(1)) + 4)))
            most = max(most, len(waiting))
    return most


def cupy_jobs() -> list[str]:
    """Every dtype of the CuPy backend: each is one module of all its kernels."""
    from .dtypes import DEVICE_DTYPES

    return list(DEVICE_DTYPES)


def numba_jobs() -> list[tuple[str, str]]:
    """(kernel name, dtype) of every kernel of the Numba CUDA backend."""
    return [
        (name, dtype)
        for dtype in DTYPES
        for name in cuda_source.kernel_names(dtype)
        if name != "copy" or dtype == cuda_source.BITS_DTYPE
    ]
