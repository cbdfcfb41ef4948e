"""NCCL's calls as CuPy has them, on host memory: it reduces when a group of ranks is complete."""

import ctypes

import numpy as np


class FakeNccl:
    """NCCL's numbers of NCCL 2 (nccl.h), and all-reduce of float32 and int64 on host memory."""

    NCCL_SUM, NCCL_PROD, NCCL_MAX, NCCL_MIN, NCCL_AVG = range(5)
    NCCL_INT64, NCCL_FLOAT32 = 4, 7
    available = True

    def __init__(self):
        self.depth, self.pending, self.error, self.alive = 0, [], None, 0
        self.captured, self.reduced = None, 0  # what a graph being made has so far; all-reduces done
        outer = self

        class NcclCommunicator:
            def __init__(self, size, unique, rank):
                self.size, self.rank, self.comm = size, rank, 1000 + rank
                outer.alive += 1

            @staticmethod
            def initAll(devices):
                return [NcclCommunicator(len(devices), b"", rank) for rank in range(len(devices))]

            def allReduce(self, send, receive, count, dtype, op, stream):
                assert outer.depth or self.size == 1, "several ranks of one thread need a group"
                outer.pending.append((send, receive, count, dtype, op))
                if not outer.depth:
                    outer.flush()

            def check_async_error(self):
                if outer.error:
                    raise RuntimeError(outer.error)

            def destroy(self):
                outer.alive -= 1

        self.NcclCommunicator = NcclCommunicator

    def get_version(self):
        return 23203

    def groupStart(self):
        self.depth += 1

    def groupEnd(self):
        self.depth -= 1
        self.flush()

    def flush(self):
        calls, self.pending = self.pending, []
        if not calls:  # a group of other calls
            return
        if self.captured is not None:
            self.captured.append(lambda: self.reduce(calls))
        else:
            self.reduce(calls)

    def reduce(self, calls):
        self.reduced += 1
        ((count, dtype, op),) = {call[2:] for call in calls}  # all ranks say the same
        storage = {self.NCCL_FLOAT32: np.float32, self.NCCL_INT64: np.int64}[dtype]

        def array(address):
            return np.frombuffer((ctypes.c_uint8 * (count * np.dtype(storage).itemsize)).from_address(address), storage)

        inputs = np.stack([array(send) for send, *_ in calls])
        ufunc = {self.NCCL_SUM: np.add, self.NCCL_AVG: np.add, self.NCCL_MAX: np.maximum, self.NCCL_MIN: np.minimum}[op]
        result = ufunc.reduce(inputs, axis=0)
        if op == self.NCCL_AVG:
            result = result / np.float32(len(calls))
        for _, receive, *_ in calls:
            array(receive)[:] = result


class FakeLibrary:
    """nccl.Library on host memory: what was allocated and registered, and by whom."""

    def __init__(self):
        self.memory, self.registered, self.refuse = {}, {}, False

    def call(self, name, *arguments):
        getattr(self, name)(*arguments)

    def ncclMemAlloc(self, at, nbytes):
        if self.refuse:
            raise RuntimeError("ncclMemAlloc: unhandled cuda error")
        block = np.full(nbytes, 0xA5, np.uint8)
        self.memory[block.ctypes.data] = block
        at._obj.value = block.ctypes.data

    def ncclMemFree(self, at):
        assert not any(address == at for _, address, _ in self.registered.values())
        del self.memory[at]

    def _register(self, kind, communicator, at, nbytes, handle):
        assert len(self.memory[at]) == nbytes
        handle._obj.value = 77 + len(self.registered)
        self.registered[handle._obj.value] = communicator, at, kind

    def ncclCommRegister(self, communicator, at, nbytes, handle):
        self._register("local", communicator, at, nbytes, handle)

    def ncclCommWindowRegister(self, communicator, at, nbytes, handle, flags):
        assert flags == 1
        self._register("symmetric", communicator, at, nbytes, handle)

    def ncclCommDeregister(self, communicator, handle):
        assert self.registered.pop(handle)[::2] == (communicator, "local")

    def ncclCommWindowDeregister(self, communicator, handle):
        assert self.registered.pop(handle)[::2] == (communicator, "symmetric")
