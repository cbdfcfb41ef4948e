"""The CuPy backend: the CUDA C++ of `kernels/cuda`, compiled by NVRTC when first used, on any device arrays.

Arrays are CuPy's, or anything with ``__cuda_array_interface__``. Arithmetic is the CPU backend's; float8 is added: widened
to float32, and rounded to nearest even with saturation. A dtype's kernels are compiled when first used in a process.

`launch` takes kernels by name and addresses (see `device`), for transports that have no arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from typing import Any

import numpy as np

from . import cuda_source, cupy_compile, device
from .missing import INSTALL, reason_for_driver, reason_for_package


def available() -> str | None:
    """None if CuPy, a driver and a device are there, else which is not and what to install."""
    try:
        import cupy
        from cupy.cuda import runtime
    except ImportError as error:
        return reason_for_package("CuPy", error)
    if runtime.is_hip:
        return (
            "this CuPy is for AMD GPUs (ROCm), for which the kernels compile but have never run, and for which CuPy has neither "
            f"the cooperative launch nor the graphs they need; accepted: CuPy for CUDA, {INSTALL}"
        )
    try:
        count = runtime.getDeviceCount()
    except Exception as error:  # CuPy's error types differ between its versions
        return reason_for_driver(f"CuPy {cupy.__version__}", error)
    return None if count else "there is no CUDA device: the driver lists none (see nvidia-smi and CUDA_VISIBLE_DEVICES)"


@cache
def _module(dtype: str, bits_alone: bool, device_id: int):
    return cupy_compile.load(cuda_source.source(), cuda_source.options(dtype, bits_alone=bits_alone))


@cache
def _kernel(name: str, dtype: str, device_id: int):
    """(the kernel, the number of its blocks that a device runs at a time)."""
    import cupy
    from cupy.cuda import driver

    kernel = _module(dtype, cuda_source.moves_bits(name), device_id).get_function(name)
    a_processor = driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.ptr, cuda_source.THREADS, 0)
    processors = cupy.cuda.Device(device_id).attributes["MultiProcessorCount"]
    return kernel, max(1, a_processor) * processors


class _Known:
    """A stream known by its address, in the protocol of CUDA's Python packages."""

    def __init__(self, address: int):
        self.address = address

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.address


def _entered(stream: Any):
    """The stream as a context: CuPy's own, one known by its address, or the current one."""
    if stream is None:
        return nullcontext()
    if isinstance(stream, int):
        from cupy import cuda

        # CuPy 13 has only the second, of which CuPy 14 warns.
        has_first = hasattr(cuda.Stream, "from_external")
        return cuda.Stream.from_external(_Known(stream)) if has_first else cuda.ExternalStream(stream)
    return stream


class _Driver:
    describe = staticmethod(device.from_interface)

    def launch(self, kernel: str, dtype: str, arguments: Sequence[int], nbytes: int, stream: Any) -> None:
        import cupy

        function, most = _kernel(kernel, dtype, cupy.cuda.runtime.getDevice())
        blocks = device.blocks_for(nbytes, cuda_source.THREADS, most)
        with _entered(stream):
            function((blocks,), (cuda_source.THREADS,), tuple(np.uint64(x % 2**64) for x in arguments))

    def upload(self, values: np.ndarray, stream: Any) -> Any:
        import cupy

        with _entered(stream):
            return cupy.asarray(values)

    def download(self, array: Any, stream: Any) -> np.ndarray:
        with _entered(stream):
            return array.get()


_FRONT = device.Front(_Driver())
launch = _FRONT.driver.launch
reduce = _FRONT.reduce
reduce_many = _FRONT.reduce_many
sources = _FRONT.sources
copy = _FRONT.copy
fill = _FRONT.fill
check = _FRONT.check
