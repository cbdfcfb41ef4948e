"""A device_mpi.Gpu on host memory whose streams run as late as they may, and interleave at random.

Operations are queued, and done only when an event is asked for: then a random number of ready operations runs, of
random streams. So whatever the host logic forgot to wait for is, sooner or later, read too early or written too soon.
"""

import ctypes
import itertools
import random
from collections import deque

import numpy as np
from busbw.kernels import cpu

ORDERS = list(itertools.permutations(range(3)))  # of looking at the streams


class LateGpu:
    def __init__(self, seed: int):
        self.random = random.Random(seed)
        self.streams = [deque() for _ in range(3)]
        self.kept = []
        self.events = 0
        self.fired = set()
        self.log = []  # (stream, kind) in the order done

    def use(self, dtype, op, ranks):
        self.dtype, self.op, self.ranks = dtype, op, ranks

    def launch(self, kernel, dtype, arguments, nbytes):
        """The CPU backend's kernels by the device's names, done at once."""
        dst, first, *rest = arguments
        if kernel.startswith("fill_"):
            cpu.call(cpu.fill_pointer(int(kernel[5:])), dst, 0, first, 0, *rest)
        else:
            high, count, start, counter = rest
            count_wrong = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)(cpu.check_pointer(dtype))
            ctypes.c_uint64.from_address(counter).value += count_wrong(dst, 0, first, high, count, start)

    def upload(self, address, values):
        ctypes.memmove(address, values.ctypes.data, values.nbytes)

    def download(self, address, dtype, count):
        out = np.empty(count, dtype)
        ctypes.memmove(out.ctypes.data, address, out.nbytes)
        return out

    def allocate(self, nbytes):
        block = np.full(nbytes + 64, 0xA5, np.uint8)
        self.kept.append(block)
        return (block.ctypes.data + 63) // 64 * 64

    allocate_pinned = allocate

    def copy(self, stream, dst, src, nbytes):
        self.streams[stream].append(("copy", lambda: ctypes.memmove(dst, src, nbytes)))

    def reduce(self, stream, dst, a, b, count, final):
        kernels = cpu.pointers(self.op, self.dtype)
        kernel = kernels.reduce_final if final else kernels.reduce
        self.streams[stream].append(("reduce", lambda: cpu.call(kernel, dst, 0, a, b, count, self.ranks)))

    def record(self, stream):
        self.events += 1
        event = self.events
        self.streams[stream].append(("event", lambda: self.fired.add(event)))
        return event

    def wait(self, stream, event):
        self.streams[stream].append(("wait", event))

    def _advance(self) -> bool:
        """Do one operation of a random stream that can; False where none can."""
        for stream in self.random.choice(ORDERS):
            queue = self.streams[stream]
            while queue and queue[0][0] == "wait" and queue[0][1] in self.fired:
                queue.popleft()
            if queue and queue[0][0] != "wait":
                kind, work = queue.popleft()
                work()
                self.log.append((stream, kind))
                return True
        return False

    def done(self, event):
        for _ in range(self.random.randrange(3)):
            self._advance()
        return event in self.fired

    def finish(self, event):
        while event not in self.fired:
            assert self._advance(), "streams wait for one another for ever"

    def stream_address(self, stream):
        return stream

    def flush_cache(self):
        pass

    def close(self):
        pass


class PromptGpu(LateGpu):
    """The other extreme: everything is done as soon as it is queued and ready."""

    def copy(self, stream, dst, src, nbytes):
        super().copy(stream, dst, src, nbytes)
        self._settle()

    def reduce(self, stream, dst, a, b, count, final):
        super().reduce(stream, dst, a, b, count, final)
        self._settle()

    def record(self, stream):
        event = super().record(stream)
        self._settle()
        return event

    def _settle(self) -> None:
        while self._advance():
            pass
