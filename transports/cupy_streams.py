"""One rank's GPU through CuPy, as device_mpi.py wants it: three streams, pinned host memory, events between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..kernels import cupy_cuda
from ..kernels.device import final_op
from ..kernels.dtypes import find_device_dtype
from .cupy_device import CupyDevice, has_fired
from .device_mpi import COMPUTE, IN, OUT
from .session import Unavailable


def open_gpu(rank_of_host: int) -> CupyStreams:
    """The GPU of this host's rank_of_host-th rank, in turn where there are fewer GPUs. Raises Unavailable."""
    reason = cupy_cuda.available()
    if reason:
        raise Unavailable(f"--backend cupy: {reason}")
    from cupy.cuda import runtime

    return CupyStreams(rank_of_host % runtime.getDeviceCount())


class CupyStreams:
    def __init__(self, device_id: int):
        import cupy

        self._cuda = cupy.cuda
        # All of this process is on one GPU, so it is made the current one once.
        cupy.cuda.Device(device_id).use()
        self.device = CupyDevice(device_id, system_scope=False)
        self.name = self.device.name
        self._streams = {
            COMPUTE: self.device.stream,
            OUT: cupy.cuda.Stream(non_blocking=True),
            IN: cupy.cuda.Stream(non_blocking=True),
        }
        self._pinned: list = []
        self._dtype = self._op = ""
        self._ranks = 1

    def use(self, dtype: str, op: str, ranks: int) -> None:
        """What `reduce` works on from now on."""
        self._dtype, self._op, self._ranks = find_device_dtype(dtype).name, op, ranks
        self._itemsize = find_device_dtype(dtype).itemsize

    def stream_address(self, which: int) -> int:
        return int(self._streams[which].ptr)

    def flush_cache(self) -> None:
        self.device.flush_cache()

    def allocate(self, nbytes: int) -> int:
        return self.device.allocate(nbytes)

    def allocate_pinned(self, nbytes: int) -> int:
        try:
            memory = self._cuda.PinnedMemory(nbytes)
        except self._cuda.runtime.CUDARuntimeError as error:
            raise MemoryError(f"{nbytes} bytes of pinned host memory were refused: {error}") from None
        self._pinned.append(memory)
        return int(memory.ptr)

    def upload(self, address: int, values: np.ndarray) -> None:
        self.device.upload(address, values)

    def download(self, address: int, dtype: np.dtype, count: int) -> np.ndarray:
        return self.device.download(address, dtype, count)

    def launch(self, kernel: str, dtype: str, arguments: Sequence[int], nbytes: int) -> None:
        self.device.launch(kernel, dtype, arguments, nbytes)

    def copy(self, stream: int, dst: int, src: int, nbytes: int) -> None:
        if nbytes:
            runtime = self._cuda.runtime
            runtime.memcpyAsync(dst, src, nbytes, runtime.memcpyDefault, self._streams[stream].ptr)

    def reduce(self, stream: int, dst: int, a: int, b: int, count: int, final: bool) -> None:
        if not count:
            return
        divided = final and self._op == "avg"
        kernel = f"reduce_{final_op(self._op, self._ranks if divided else None)}"
        arguments = (dst, 0, a, b, count, self._ranks if divided else 1)
        cupy_cuda.launch(kernel, self._dtype, arguments, count * self._itemsize, self._streams[stream])

    def record(self, stream: int) -> Any:
        event = self._cuda.Event(disable_timing=True)
        event.record(self._streams[stream])
        return event

    def wait(self, stream: int, event: Any) -> None:
        self._streams[stream].wait_event(event)

    def done(self, event: Any) -> bool:
        return has_fired(event)

    def finish(self, event: Any) -> None:
        self.device.wait(event)

    def close(self) -> None:
        for stream in self._streams.values():
            stream.synchronize()
        self.device.close()
        self._pinned.clear()
