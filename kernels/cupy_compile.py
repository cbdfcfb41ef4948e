"""CUDA C++ through CuPy's NVRTC with exactly our options, loaded on the current device.

Not `cupy.RawModule`: that adds ``-ftz=true``, with which float32 results near zero are no longer NumPy's, and its cache on
disk knows the source but not the headers it includes, so that after an upgrade an old kernel would run.
"""

from __future__ import annotations

from collections.abc import Sequence


class CompileError(RuntimeError):
    """NVRTC's log."""


def target(capability: str, supported: Sequence[int]) -> str:
    """NVRTC's architecture for a device: its own ("sm_90"), or the newest known one as PTX for the driver ("compute_120").

    capability: CuPy's, "90"; supported: `nvrtc.getSupportedArchs()`. Raises CompileError for a device older than all.
    """
    own = int(capability)
    if own in supported:
        return f"sm_{own}"
    older = [known for known in supported if known < own]
    if not older:
        raise CompileError(f"NVRTC no longer compiles for sm_{own}; it knows {', '.join(map(str, sorted(supported)))}")
    return f"compute_{max(older)}"


def compiled(source: str, options: Sequence[str], architecture: str) -> bytes:
    """A cubin (architecture "sm_90") or PTX ("compute_90"). Needs no device. Raises CompileError."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(source, "busbw.cu", (), ())
    try:
        try:
            nvrtc.compileProgram(program, (*options, f"-arch={architecture}"))
        except nvrtc.NVRTCError as error:
            raise CompileError(f"{error}: {nvrtc.getProgramLog(program).strip()}") from None
        return nvrtc.getPTX(program) if architecture.startswith("compute_") else nvrtc.getCUBIN(program)
    finally:
        nvrtc.destroyProgram(program)


def load(source: str, options: Sequence[str]):
    """A `cupy.cuda.function.Module` on the current device: `get_function(name)` gives kernels to call and their `ptr`."""
    import cupy
    from cupy.cuda.function import Module
    from cupy_backends.cuda.libs import nvrtc

    architecture = target(cupy.cuda.Device().compute_capability, nvrtc.getSupportedArchs())
    module = Module()
    module.load(compiled(source, options, architecture))
    return module
