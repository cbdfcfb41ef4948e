"""A GPU through CuPy, as device.py wants it: memory, NVRTC-compiled walk.cu, cooperative launches, graphs, events.

CuPy is used for CUDA's own calls alone. Kernels are compiled by kernels/cupy_compile.py.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..kernels import cuda_source, cupy_compile, cupy_cuda
from .device_programs import OPS
from .flush import Flush
from .session import Stalled, Unavailable

FOLDER = Path(__file__).parent / "cuda"
WALK_ARGUMENTS = 12
NOT_READY = 600  # cudaErrorNotReady
PATIENCE = 120.0  # seconds that the host waits for a device


def walk_source() -> str:
    return (FOLDER / "walk.cu").read_text()


def gate_source() -> str:
    return (FOLDER / "gate.cu").read_text()


def walk_options(dtype: str, op: str, *, system_scope: bool = False) -> tuple[str, ...]:
    """NVRTC's options for walk.cu on a dtype (kernels.dtypes.DEVICE_DTYPES) and op, without the architecture."""
    combine, final = OPS[op]
    scope = ("-DBUSBW_SCOPE_SYS",) if system_scope else ()
    return (*cuda_source.options(dtype), f"-DBUSBW_OP={combine}", f"-DBUSBW_FINAL_OP={final}", *scope)


@cache
def _function(name: str, dtype: str, op: str, device_id: int, system_scope: bool):
    """The kernel on the current device, which is `device_id`."""
    return _module(dtype, op, device_id, system_scope).get_function(name)


@cache
def _module(dtype: str, op: str, device_id: int, system_scope: bool):
    return _compiled(walk_source(), walk_options(dtype, op, system_scope=system_scope))


@cache
def _gate(device_id: int):
    """The kernel on the current device, which is `device_id`."""
    return _compiled(gate_source(), cuda_source.common_options()).get_function("gate")


def _compiled(source: str, options: Sequence[str]):
    """The module on the current device. Raises Unavailable."""
    try:
        return cupy_compile.load(source, options)
    except cupy_compile.CompileError as error:
        raise Unavailable(f"--backend cupy: {' '.join(str(error).split())[:500]}") from error


def has_fired(event) -> bool:
    """Whether the device has come to an event. Raises CuPy's CUDARuntimeError for what went wrong on the device, where
    `event.done` would say no for ever."""
    from cupy.cuda import runtime

    status = runtime.eventQuery(event.ptr)
    if status not in (0, NOT_READY):
        runtime.check_status(status)
    return status == 0


def reach_one_another(ids: Sequence[int]) -> bool:
    """Whether each of those GPUs can read every other's memory."""
    from cupy.cuda import runtime

    return all(runtime.deviceCanAccessPeer(i, j) for i in ids for j in ids if i != j)


def open_devices(ids: Sequence[int] | None = None) -> list[CupyDevice]:
    """The GPUs of those CUDA ordinals (None: all), able to read one another's memory.

    Raises Unavailable where CuPy, a driver or a device is missing, or two of the GPUs have no peer access.
    """
    reason = cupy_cuda.available()
    if reason:
        raise Unavailable(f"--backend cupy: {reason}")
    from cupy.cuda import Device, runtime

    count = runtime.getDeviceCount()
    ids = list(range(count)) if ids is None else list(ids)
    for i in ids:
        if not 0 <= i < count:
            raise Unavailable(f"GPU {i}; accepted: 0 to {count - 1}")
    for i in ids:
        for j in ids:
            if i == j:
                continue
            if not runtime.deviceCanAccessPeer(i, j):
                raise Unavailable(
                    f"GPU {i} cannot read GPU {j}'s memory (no peer access); accepted: --gpus 1, or mpirun"
                )
            with Device(i):
                try:
                    runtime.deviceEnablePeerAccess(j)
                except runtime.CUDARuntimeError as error:
                    if "AlreadyEnabled" not in str(error):
                        raise
    return [CupyDevice(i, system_scope=len(ids) > 1) for i in ids]


def open_device_of(rank_of_host: int) -> CupyDevice:
    """The GPU of this host's rank_of_host-th rank, in turn where there are fewer GPUs, for ranks of several processes.

    Raises Unavailable.
    """
    reason = cupy_cuda.available()
    if reason:
        raise Unavailable(f"--backend cupy: {reason}")
    import cupy

    ordinal = rank_of_host % cupy.cuda.runtime.getDeviceCount()
    cupy.cuda.Device(ordinal).use()  # all of this process is on it
    return CupyDevice(ordinal, system_scope=True)


class CupyDevice:
    holds = True

    def __init__(self, device_id: int, *, system_scope: bool):
        import cupy
        from cupy.cuda import runtime

        self._cupy = cupy
        self.patience = PATIENCE
        self._id, self._system_scope = device_id, system_scope
        self._device = cupy.cuda.Device(device_id)
        self._kept: dict = {}
        self._pinned: list = []
        self._walk_values = np.zeros(WALK_ARGUMENTS, np.int64)
        # The driver copies the values when it launches, so that one table of pointers to them serves all launches.
        self._walk_pointers = self._walk_values.ctypes.data + 8 * np.arange(WALK_ARGUMENTS, dtype=np.uintp)
        with self._device:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            properties = runtime.getDeviceProperties(device_id)
            self.name = properties["name"].decode(errors="replace")
            self._l2_bytes = int(properties["l2CacheSize"])
            attributes = self._device.attributes
            self._cooperative = bool(attributes["CooperativeLaunch"])
            self.processors = int(attributes["MultiProcessorCount"])
        self._flush: Flush | None = None  # made when first needed

    @property
    def stream(self):
        """CuPy's stream, in whose order all work is."""
        return self._stream

    @property
    def stream_address(self) -> int:
        return int(self._stream.ptr)

    @property
    def id(self) -> int:
        return self._id

    def describe(self) -> dict:
        """What a result's reader must know of the GPU, JSON-ready."""
        runtime = self._cupy.cuda.runtime
        with self._device:
            total = runtime.memGetInfo()[1]
        return {
            "name": self.name,
            "pci_bus_id": self._device.pci_bus_id,
            "compute_capability": self._device.compute_capability,
            "processors": self.processors,
            "memory_bytes": int(total),
            "l2_bytes": self._l2_bytes,
            "cuda_driver": runtime.driverGetVersion(),
            "cuda_runtime": runtime.runtimeGetVersion(),
            "cupy": self._cupy.__version__,
        }

    def _zeros(self, nbytes: int):
        # Plain device memory, not the pool's: a pool would hold it against other programs after close().
        pointer = self._cupy.cuda.MemoryPointer(self._cupy.cuda.Memory(nbytes), 0)
        pointer.memset_async(0, nbytes, self._stream)
        return pointer

    def allocate(self, nbytes: int) -> int:
        with self._device:
            try:
                pointer = self._zeros(nbytes)
            except self._cupy.cuda.runtime.CUDARuntimeError as error:
                raise MemoryError(f"{nbytes} bytes on {self.name} were refused: {error}") from None
            self._finish()
        self._kept[int(pointer.ptr)] = pointer
        return int(pointer.ptr)

    def release(self, address: int) -> None:
        with self._device:
            self._finish()
            del self._kept[address]

    def upload(self, address: int, values: np.ndarray) -> None:
        values = np.ascontiguousarray(values)
        if values.nbytes:
            with self._device:
                runtime = self._cupy.cuda.runtime
                runtime.memcpyAsync(
                    address, values.ctypes.data, values.nbytes, runtime.memcpyHostToDevice, self._stream.ptr
                )
                self._finish()  # `values` may be gone afterwards

    def download(self, address: int, dtype: np.dtype, count: int) -> np.ndarray:
        out = np.empty(count, dtype)
        with self._device:
            if out.nbytes:
                runtime = self._cupy.cuda.runtime
                runtime.memcpyAsync(out.ctypes.data, address, out.nbytes, runtime.memcpyDeviceToHost, self._stream.ptr)
            self._finish()
        return out

    def zero(self, address: int, nbytes: int) -> None:
        with self._device:
            self._cupy.cuda.runtime.memsetAsync(address, 0, nbytes, self._stream.ptr)

    def copy(self, dst: int, src: int, nbytes: int) -> None:
        with self._device:
            runtime = self._cupy.cuda.runtime
            runtime.memcpyAsync(dst, src, nbytes, runtime.memcpyDefault, self._stream.ptr)

    def launch(self, kernel: str, dtype: str, arguments: Sequence[int], nbytes: int) -> None:
        with self._device:
            cupy_cuda.launch(kernel, dtype, arguments, nbytes, self._stream)

    def _function(self, name: str, dtype: str, op: str):
        return _function(name, dtype, op, self._id, self._system_scope)

    def resident_blocks(self, dtype: str, op: str) -> int:
        if not self._cooperative:
            return 0
        with self._device:
            kernel = self._function("walk", dtype, op)
            a_processor = self._cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
                kernel.ptr, cuda_source.THREADS, 0
            )
        return self.processors * a_processor

    def walk(self, dtype: str, op: str, blocks: int, arguments: Sequence[int]) -> None:
        # The driver's own call, since CuPy's cooperative modules are linked with a library that only the full toolkit has.
        self._walk_values[:] = arguments
        with self._device:
            kernel = self._function("walk", dtype, op)
            self._cupy.cuda.driver.launchCooperativeKernel(
                kernel.ptr,
                blocks,
                1,
                1,
                cuda_source.THREADS,
                1,
                1,
                0,
                self._stream.ptr,
                self._walk_pointers.ctypes.data,
            )

    def graph(self, dtype: str, op: str, steps: Sequence[tuple[int, int, int]]) -> Any:
        """None where there is nothing to launch."""
        if not steps:
            return None
        with self._device, self._stream:
            kernel = self._function("run_rows", dtype, op)
            # Asked so that the kernel is on the device before the capture, in which nothing may be loaded.
            self._cupy.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(kernel.ptr, cuda_source.THREADS, 0)
            self._stream.begin_capture()
            try:
                for address, rows, blocks in steps:
                    for start in range(0, rows, 65535):  # the largest grid in y
                        there = np.int64(address + start * 128)
                        kernel((blocks, min(rows - start, 65535)), (cuda_source.THREADS,), (there,))
            finally:
                graph = self._stream.end_capture()
            graph.upload(self._stream)
        return graph

    def launch_graph(self, graph: Any) -> None:
        if graph is not None:
            with self._device:
                graph.launch(self._stream)

    def event(self) -> Any:
        with self._device:
            event = self._cupy.cuda.Event()
            event.record(self._stream)
        return event

    def seconds(self, start: Any, end: Any) -> float:
        self.wait(end)
        return self._cupy.cuda.get_elapsed_time(start, end) * 1e-3

    def fired(self, event: Any) -> bool:
        return has_fired(event)

    def pinned(self, nbytes: int) -> int:
        runtime = self._cupy.cuda.runtime
        with self._device:
            memory = self._cupy.cuda.PinnedMemory(nbytes, runtime.hostAllocPortable | runtime.hostAllocMapped)
        self._pinned.append(memory)
        return int(memory.ptr)

    def hold(self, word: int, turn: int, limit_ns: int) -> None:
        with self._device, self._stream:
            _gate(self._id)((1,), (1,), tuple(np.int64(x) for x in (word, turn, limit_ns)))

    def wait(self, event: Any) -> None:
        """Until the event has fired. Polled, since nothing ends a synchronisation with a device that hangs. Raises Stalled."""
        until = time.monotonic() + self.patience
        while not has_fired(event):
            if time.monotonic() > until:
                raise Stalled(f"{self.name} did not finish its work within {self.patience:g} s")

    def _finish(self) -> None:
        """Until all work is done. Raises Stalled."""
        self.wait(self.event())

    def here(self):
        return self._device

    def begin_capture(self) -> None:
        with self._device, self._stream:
            self._stream.begin_capture()

    def end_capture(self) -> Any:
        with self._device, self._stream:
            graph = self._stream.end_capture()
            graph.upload(self._stream)
        return graph

    def share(self, address: int) -> bytes:
        with self._device:
            return self._cupy.cuda.runtime.ipcGetMemHandle(address)

    def reach(self, handle: bytes) -> int:
        with self._device:
            return self._cupy.cuda.runtime.ipcOpenMemHandle(handle)

    def let_go(self, address: int) -> None:
        with self._device:
            self._cupy.cuda.runtime.ipcCloseMemHandle(address)

    def flush_cache(self) -> None:
        if self._flush is None:
            self._flush = Flush(self, self._l2_bytes)
        self._flush()

    def close(self) -> None:
        with self._device:
            self._finish()
            self._kept.clear()
            self._pinned.clear()
        self._flush = None
