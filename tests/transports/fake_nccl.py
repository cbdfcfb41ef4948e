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
        outer = self

        class NcclCommunicator:
            def __init__(self, size, unique, rank):
                self.size, self.rank = size, rank
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
