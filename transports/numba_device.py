"""A GPU through numba-cuda, as device.py wants it: one launch a row, with the kernels of kernels/numba_cuda.py.

There is no persistent walk (its flags need acquire and release, which Numba has no words for). The launches of an all-reduce are
captured in a CUDA graph where numba-cuda takes a GraphBuilder of cuda.core for a stream (0.30 does); else each is the host's, too
many for a gate (gate.py), and they are in the times. Under NUMBA_ENABLE_CUDASIM=1 all of it runs on the CPU, slowly, and times mean
nothing.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels import numba_cuda
from ..kernels.device import final_op
from ..kernels.dtypes import find_device_dtype
from .device_programs import COPY, REDUCE, REDUCE_FINAL
from .flush import Flush
from .program import COLUMNS, COUNT, DST, DST2, FN, PARAM, A, B
from .session import Unavailable


def open_devices() -> list[NumbaDevice]:
    """The first GPU. Raises Unavailable where numba-cuda, a driver or a device is missing."""
    reason = numba_cuda.available()
    if reason:
        raise Unavailable(f"--backend numba-cuda: {reason}")
    return [NumbaDevice()]


def captures() -> bool:
    """Whether numba-cuda launches kernels into a GraphBuilder."""
    from numba.cuda.cudadrv import driver

    return hasattr(driver, "GraphBuilder")


def graph_builder() -> Any:
    """A new GraphBuilder of the current device, or None where numba-cuda launches no kernel into one."""
    if not captures():
        return None
    try:
        from cuda.core import Device
    except ImportError:  # cuda-core before 0.5
        from cuda.core.experimental import Device
    device = Device()
    device.set_current()
    return device.create_graph_builder()


class _Driver:
    """Memory of a GPU by addresses."""

    def __init__(self, stream):
        self.stream = stream

    def _view(self, address: int, nbytes: int):
        from numba import cuda

        from ..kernels.selftest import Window

        return cuda.as_cuda_array(Window(None, address, nbytes, np.dtype(np.uint8)), sync=False)

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        from numba import cuda

        array = cuda.device_array(nbytes, np.uint8)
        return array, array.__cuda_array_interface__["data"][0]

    def upload(self, address: int, values: np.ndarray) -> None:
        self._view(address, values.nbytes).copy_to_device(values.reshape(-1).view(np.uint8), stream=self.stream)
        self.stream.synchronize()  # `values` may be gone afterwards

    def download(self, address: int, nbytes: int) -> np.ndarray:
        if not nbytes:
            self.stream.synchronize()
            return np.empty(0, np.uint8)
        values = self._view(address, nbytes).copy_to_host(stream=self.stream)
        self.stream.synchronize()
        return values

    def zero(self, address: int, nbytes: int) -> None:
        from numba.cuda.cudadrv.driver import device_memset

        device_memset(self._view(address, nbytes), 0, nbytes, self.stream)

    def copy(self, dst: int, src: int, nbytes: int) -> None:
        self._view(dst, nbytes).copy_to_device(self._view(src, nbytes), stream=self.stream)

    def event(self):
        from numba import cuda

        event = cuda.event(timing=True)
        event.record(self.stream)
        return event

    def seconds(self, start, end) -> float:
        from numba import cuda

        end.synchronize()
        return cuda.event_elapsed_time(start, end) * 1e-3

    def fired(self, event) -> bool:
        return event.query()

    def pinned(self, nbytes: int) -> tuple[Any, int]:
        from numba import cuda

        array = cuda.mapped_array(nbytes, np.uint8, portable=True)
        return array, array.ctypes.data  # the device's address too, as all are of one space


class _Simulator:
    """The same on this machine's memory: the simulator's work is done when a call returns."""

    def allocate(self, nbytes: int) -> tuple[Any, int]:
        block = np.empty(nbytes + 256, np.uint8)
        return block, (block.ctypes.data + 255) // 256 * 256

    def upload(self, address: int, values: np.ndarray) -> None:
        ctypes.memmove(address, values.ctypes.data, values.nbytes)

    def download(self, address: int, nbytes: int) -> np.ndarray:
        out = np.empty(nbytes, np.uint8)
        ctypes.memmove(out.ctypes.data, address, nbytes)
        return out

    def zero(self, address: int, nbytes: int) -> None:
        ctypes.memset(address, 0, nbytes)

    def copy(self, dst: int, src: int, nbytes: int) -> None:
        ctypes.memmove(dst, src, nbytes)

    def event(self) -> float:
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        return end - start


class NumbaDevice:
    """The current CUDA device."""

    id = 0
    stream_address = 0  # NCCL goes through CuPy
    patience = 0.0

    def __init__(self):
        from numba import cuda

        self._simulated = numba_cuda.simulated()
        self._stream = 0 if self._simulated else cuda.stream()
        self._memory = _Simulator() if self._simulated else _Driver(self._stream)
        self.holds = not self._simulated and captures()
        self._kept: dict = {}
        self._flush: Flush | None = None
        if self._simulated:
            self.name = "Numba's CUDA simulator"
        else:
            name = cuda.get_current_device().name
            self.name = name.decode(errors="replace") if isinstance(name, bytes) else str(name)

    def describe(self) -> dict:
        """What a result's reader must know of the GPU, JSON-ready."""
        found = {"name": self.name, "simulated": self._simulated}
        if not self._simulated:
            import numba_cuda as package
            from numba import cuda

            device = cuda.get_current_device()
            found["compute_capability"] = "".join(map(str, device.compute_capability))
            found["l2_bytes"] = int(device.L2_CACHE_SIZE)
            found["memory_bytes"] = int(cuda.current_context().get_memory_info().total)
            found["numba_cuda"] = package.__version__
            found["pci_bus_id"] = f"{device.PCI_DOMAIN_ID:08x}:{device.PCI_BUS_ID:02x}:{device.PCI_DEVICE_ID:02x}.0"
        return found

    def allocate(self, nbytes: int) -> int:
        try:
            kept, address = self._memory.allocate(nbytes)
        except Exception as error:  # CudaAPIError, which cannot be named without importing CUDA
            raise MemoryError(f"{nbytes} bytes on {self.name} were refused: {error}") from None
        self._kept[address] = kept
        self._memory.zero(address, nbytes)
        return address

    def release(self, address: int) -> None:
        self.download(address, np.dtype(np.uint8), 0)  # waits
        del self._kept[address]

    def upload(self, address: int, values: np.ndarray) -> None:
        values = np.ascontiguousarray(values)
        if values.nbytes:
            self._memory.upload(address, values)

    def download(self, address: int, dtype: np.dtype, count: int) -> np.ndarray:
        return self._memory.download(address, count * np.dtype(dtype).itemsize).view(dtype)

    def zero(self, address: int, nbytes: int) -> None:
        if nbytes:
            self._memory.zero(address, nbytes)

    def copy(self, dst: int, src: int, nbytes: int) -> None:
        self._memory.copy(dst, src, nbytes)

    def launch(self, kernel: str, dtype: str, arguments: Sequence[int], nbytes: int) -> None:
        if nbytes:
            numba_cuda.launch(kernel, dtype, arguments, nbytes, self._stream)

    def resident_blocks(self, dtype: str, op: str) -> int:
        return 0

    def walk(self, dtype: str, op: str, blocks: int, arguments: Sequence[int]) -> None:
        raise Unavailable("--backend numba-cuda has no persistent walk; accepted: one launch a step, or --backend cupy")

    def graph(self, dtype: str, op: str, steps: Sequence[tuple[int, int, int]]) -> Any:
        """The launches of all rows, in order, captured where that can be: else (kernel, dtype, arguments, bytes) of each."""
        launches = [launch for address, rows, _ in steps for launch in self._launches(dtype, op, address, rows)]
        builder = None if self._simulated or not launches else graph_builder()
        return launches if builder is None else self._captured(builder, launches)

    def _captured(self, builder: Any, launches: list) -> Any:
        for kernel, dtype, _, _ in launches:
            numba_cuda.load(kernel, dtype)  # nothing may be compiled or loaded in a capture
        builder.begin_building()
        try:
            for kernel, dtype, arguments, nbytes in launches:
                if nbytes:
                    numba_cuda.launch(kernel, dtype, arguments, nbytes, builder)
        finally:
            builder.end_building()
        return builder.complete()

    def _launches(self, dtype: str, op: str, address: int, rows: int):
        itemsize = find_device_dtype(dtype).itemsize
        for row in self.download(address, np.dtype(np.int64), rows * COLUMNS).reshape(rows, COLUMNS):
            dst, dst2, a, b, count, param = (int(row[i]) for i in (DST, DST2, A, B, COUNT, PARAM))
            if row[FN] == COPY:
                yield "copy", "uint8", (dst, dst2, a, count), count
            elif row[FN] in (REDUCE, REDUCE_FINAL):
                divided = op == "avg" and row[FN] == REDUCE_FINAL
                kernel = f"reduce_{final_op(op, param if divided else None)}"
                yield kernel, dtype, (dst, dst2, a, b, count, param), count * itemsize
            else:
                raise ValueError(f"a row calls {int(row[FN])}")

    def launch_graph(self, graph: Any) -> None:
        if isinstance(graph, list):
            for kernel, dtype, arguments, nbytes in graph:
                self.launch(kernel, dtype, arguments, nbytes)
        else:
            graph.launch(self._core_stream())

    def _core_stream(self) -> Any:
        """Numba's stream, as cuda.core has it."""
        from numba.cuda.cudadrv.driver import _to_core_stream

        return _to_core_stream(self._stream)

    def event(self) -> Any:
        return self._memory.event()

    def seconds(self, start: Any, end: Any) -> float:
        return self._memory.seconds(start, end)

    def fired(self, event: Any) -> bool:
        return self._memory.fired(event)

    def pinned(self, nbytes: int) -> int:
        kept, address = self._memory.pinned(nbytes)
        self._kept[address] = kept
        return address

    def hold(self, word: int, turn: int, limit_ns: int) -> None:
        numba_cuda.launch("gate", "uint8", (word, turn, limit_ns), 1, self._stream)

    def flush_cache(self) -> None:
        if self._simulated:
            return
        if self._flush is None:
            from numba import cuda

            self._flush = Flush(self, int(cuda.get_current_device().L2_CACHE_SIZE))
        self._flush()

    def close(self) -> None:
        if not self._simulated:
            self._stream.synchronize()
        self._kept.clear()
        self._flush = None
