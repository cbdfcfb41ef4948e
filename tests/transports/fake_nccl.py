"""NCCL's calls as CuPy has them, on host memory: it reduces when a group of ranks is complete."""

import ctypes

import numpy as np


class FakeNccl:
    """NCCL's numbers of NCCL 2 (nccl.h), and its collectives of float32 and int64 on host memory."""

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

            def _ask(self, what, *arguments):
                assert outer.depth or self.size == 1, "several ranks of one thread need a group"
                outer.pending.append((what, self.rank, *arguments))
                if not outer.depth:
                    outer.flush()

            def allReduce(self, send, receive, count, dtype, op, stream):
                self._ask("all_reduce", send, receive, count, dtype, op, 0)

            def reduceScatter(self, send, receive, count, dtype, op, stream):
                self._ask("reduce_scatter", send, receive, count, dtype, op, 0)

            def allGather(self, send, receive, count, dtype, stream):
                self._ask("all_gather", send, receive, count, dtype, 0, 0)

            def broadcast(self, send, receive, count, dtype, root, stream):
                self._ask("broadcast", send, receive, count, dtype, 0, root)

            def reduce(self, send, receive, count, dtype, op, root, stream):
                self._ask("reduce", send, receive, count, dtype, op, root)

            def send(self, send, count, dtype, peer, stream):
                self._ask("send", send, count, dtype, peer)

            def recv(self, receive, count, dtype, peer, stream):
                self._ask("recv", receive, count, dtype, peer)

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

    def array(self, address, count, dtype):
        storage = {self.NCCL_FLOAT32: np.float32, self.NCCL_INT64: np.int64}[dtype]
        return np.frombuffer((ctypes.c_uint8 * (count * np.dtype(storage).itemsize)).from_address(address), storage)

    def reduce(self, calls):
        """What a group of calls asks for, of whichever kind."""
        self.reduced += 1
        if calls[0][0] in ("send", "recv"):
            return self.exchange(calls)
        ((what, count, dtype, op, root),) = {(c[0], *c[4:]) for c in calls}  # all ranks say the same
        p = len(calls)
        assert sorted(c[1] for c in calls) == list(range(p))
        given = count * p if what == "reduce_scatter" else count
        inputs = np.stack([self.array(c[2], given, dtype) for c in sorted(calls, key=lambda c: c[1])])
        if what == "broadcast":
            result = inputs[root]
        elif what == "all_gather":
            result = inputs.ravel()
        else:
            ufunc = {self.NCCL_SUM: np.add, self.NCCL_AVG: np.add, self.NCCL_MAX: np.maximum, self.NCCL_MIN: np.minimum}
            result = ufunc[op].reduce(inputs, axis=0)
            if op == self.NCCL_AVG:
                result = result / np.float32(p)
        for _, rank, _, receive, *_ in calls:
            if what == "reduce_scatter":
                self.array(receive, count, dtype)[:] = result[rank * count : (rank + 1) * count]
            elif what != "reduce" or rank == root:
                self.array(receive, len(result), dtype)[:] = result

    def exchange(self, calls):
        """Sends and receives of a group: the k-th from a to b meets the k-th there."""
        under_way = {}
        for what, rank, address, count, dtype, peer in calls:
            if what == "send":
                under_way.setdefault((rank, peer), []).append(self.array(address, count, dtype).copy())
        for what, rank, address, count, dtype, peer in calls:
            if what == "recv":
                self.array(address, count, dtype)[:] = under_way[peer, rank].pop(0)
        assert not any(under_way.values())


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
