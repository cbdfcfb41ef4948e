"""The Numba CUDA backend: kernels in Python, compiled when first used, on any device arrays.

Arithmetic is the CPU backend's. `launch` takes kernels by name and addresses (see `device`), for transports that have no
arrays; the kernels themselves are in `numba_cuda_kernels`. Under NUMBA_ENABLE_CUDASIM=1 all of it runs on the CPU, slowly.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from . import device
from .dtypes import DTYPES
from .missing import reason_for_driver, reason_for_numpy, reason_for_package

THREADS = 512  # of a block
SIMULATED_THREADS, SIMULATED_BLOCKS = 4, 2  # each of them is a thread of Python


def simulated() -> bool:
    """True if Numba runs its CUDA simulator in this process."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


def available() -> str | None:
    """None if numba-cuda, a driver and a device are there (or the simulator), else which is not and what to install."""
    if simulated():
        return None
    try:
        import numba_cuda  # the numba.cuda inside numba itself is no longer developed: no kernel is tried with it
        from numba import cuda
    except ImportError as error:
        return reason_for_package("numba-cuda", error)
    try:
        count = len(cuda.gpus)
    except Exception as error:  # CudaSupportError, or one of the driver's own
        return reason_for_driver(f"numba-cuda {numba_cuda.__version__}", error)
    try:
        import numba.cuda.cudaimpl  # noqa: F401  what every kernel needs, and Numba imports with the first
    except Exception as error:  # 0.30 with NumPy 2.5: AttributeError
        return reason_for_numpy(f"numba-cuda {numba_cuda.__version__}", error)
    return None if count else "there is no CUDA device: the driver lists none (see nvidia-smi and CUDA_VISIBLE_DEVICES)"


@cache
def _kernel(name: str, dtype: str, device_id: int):
    """(the dispatcher, how many of its blocks run at a time) on a device."""
    from numba import cuda

    from . import numba_cuda_kernels

    function = numba_cuda_kernels.function(name, dtype)
    if simulated():
        return cuda.jit(function), SIMULATED_BLOCKS
    signature = numba_cuda_kernels.signature(name)
    dispatcher = cuda.jit([signature], launch_bounds=THREADS)(function)
    return dispatcher, dispatcher.overloads[signature.args].max_cooperative_grid_blocks(THREADS)


def _device_id() -> int:
    from numba import cuda

    return 0 if simulated() else cuda.get_current_device().id


def load(kernel: str, dtype: str) -> None:
    """Compile a kernel and put it on the current device, before a capture, in which neither may happen."""
    _kernel(kernel, dtype, _device_id())


@lru_cache(maxsize=256)
def _configured(dispatcher, blocks: int, threads: int, stream: Any):
    """The dispatcher on a grid. Numba warns of every grid below 128 blocks, which small messages have for a reason: blocks with
    nothing to do would only make the launch longer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Grid size .* low occupancy")
        return dispatcher[blocks, threads, stream]


class _Driver:
    def describe(self, name: str, array: Any) -> device.DeviceArray:
        if simulated() and type(array).__name__ == "FakeCUDAArray":
            array = array._ary
        if simulated() and isinstance(array, np.ndarray):
            if not array.flags.c_contiguous:
                raise ValueError(f"{name} is not contiguous (strides {array.strides}); accepted: a C-contiguous array")
            return device.DeviceArray(array.ctypes.data, array.shape, array.dtype, array.flags.writeable)
        return device.from_interface(name, array)

    def launch(self, kernel: str, dtype: str, arguments: Sequence[int], nbytes: int, stream: Any) -> None:
        dispatcher, most = _kernel(kernel, dtype, _device_id())
        threads = SIMULATED_THREADS if simulated() else THREADS
        blocks = device.blocks_for(nbytes, threads, most)
        _configured(dispatcher, blocks, threads, _stream(stream))(*[np.int64(x) for x in arguments])

    def upload(self, values: np.ndarray, stream: Any) -> Any:
        from numba import cuda

        return cuda.to_device(values, stream=_stream(stream))

    def download(self, array: Any, stream: Any) -> np.ndarray:
        on = _stream(stream)
        values = array.copy_to_host(stream=on)
        if on:
            on.synchronize()
        return values


def _stream(stream: Any) -> Any:
    """Numba's stream: as given, or of a CUstream's address; 0 is the default stream."""
    if not isinstance(stream, int) or stream == 0:
        return stream or 0
    from numba import cuda

    return cuda.external_stream(stream)


_FRONT = device.Front(_Driver(), tuple(DTYPES))
launch = _FRONT.driver.launch
reduce = _FRONT.reduce
reduce_many = _FRONT.reduce_many
sources = _FRONT.sources
copy = _FRONT.copy
fill = _FRONT.fill
check = _FRONT.check
