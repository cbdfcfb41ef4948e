"""NCCL beside ours, without NCCL: a library with CuPy's calls that reduces host memory when a group of ranks is complete."""

import ctypes
import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from busbw.bench.measure import Effort, measure
from busbw.bench.pattern import pattern
from busbw.transports import nccl
from busbw.transports.device import DeviceSession
from busbw.transports.session import Job, Unavailable

_spec = importlib.util.spec_from_file_location("busbw_shim_device", Path(__file__).parent / "shim_device.py")
shim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(shim)


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


def session(fake, ranks, devices):
    gpus = [shim.ShimDevice("", resident=0, id=i) for i in range(devices)]
    return DeviceSession(gpus, ranks, 4096, 4096, open_nccl=lambda ids: nccl.of_this_process(ids, fake))


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("dtype, op", [("float32", "sum"), ("float32", "avg"), ("int64", "max"), ("int64", "min")])
@pytest.mark.parametrize("in_place", [False, True])
def test_nccl_is_called_for_all_ranks_at_once_and_its_result_is_checked(ranks, dtype, op, in_place):
    fake = FakeNccl()
    s = session(fake, ranks, ranks)
    data = pattern(dtype, op, ranks, seed=5)
    s.prepare(Job("nccl", 99, dtype, op, in_place))
    s.fill(data.table)
    s.run()
    assert s.check(data.low, data.high) == 0
    timing = measure(s, Job("nccl", 99, dtype, op, in_place), Effort(iterations=3, warmup=1)).timing
    assert timing.wrong == 0 and len(timing.samples) == 3
    assert fake.alive == ranks
    s.close()
    assert fake.alive == 0


def test_two_ranks_on_one_gpu_are_refused_with_what_would_be_accepted():
    s = session(FakeNccl(), 4, 2)
    with pytest.raises(Unavailable, match=r"one rank a GPU.*accepted: --ranks 2"):
        s.prepare(Job("nccl", 9, "float32", "sum"))


def test_what_nccl_says_went_wrong_ends_the_run():
    fake = FakeNccl()
    s = session(fake, 2, 2)
    s.prepare(Job("nccl", 9, "float32", "sum"))
    fake.error = "NCCL_ERROR_UNHANDLED_CUDA_ERROR"
    with pytest.raises(RuntimeError, match="UNHANDLED"):
        s.run()


def test_a_dtype_that_cupy_does_not_pass_on_is_refused():
    group = nccl.of_this_process([0], FakeNccl())
    with pytest.raises(Unavailable, match="float8_e4m3"):
        group.codes("float8_e4m3", "sum")
    with pytest.raises(Unavailable, match="bfloat16"):  # an NCCL too old for it
        group.codes("bfloat16", "sum")


def test_without_cupy_no_session_has_nccl():
    s = DeviceSession([shim.ShimDevice("", resident=0)], 1, 64, 64)
    with pytest.raises(Unavailable, match="--backend cupy"):
        s.prepare(Job("nccl", 9, "float32", "sum"))


@pytest.mark.parametrize("number, text", [(23203, "2.32.3"), (22707, "2.27.7"), (2804, "2.8.4"), (21003, "2.10.3")])
def test_the_version_reads_as_nccl_prints_it(number, text):
    assert nccl.version(SimpleNamespace(get_version=lambda: number)) == text


def test_what_steers_nccl_is_recorded(monkeypatch):
    for name in nccl.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NCCL_ALGO", "Ring")
    assert nccl.settings(FakeNccl()) == {"version": "2.32.3", "NCCL_ALGO": "Ring"}


class _Comm:
    """mpi4py's calls for the ranks of a job, seen from rank 0 of one."""

    size, rank = 1, 0

    def allgather(self, value):
        return [value]

    def bcast(self, value=None):
        return value


def test_a_job_without_libnccl_is_refused_on_all_ranks(monkeypatch):
    comm = _Comm()
    comm.allgather = lambda value: [value, "--algo nccl: CuPy finds no libnccl.so.2"]
    fake = FakeNccl()
    with pytest.raises(Unavailable, match=r"libnccl\.so\.2"):
        nccl.of_a_job(comm, fake)
    fake.get_unique_id = lambda: b"id"
    assert nccl.of_a_job(_Comm(), fake).codes("float32", "sum") == (7, 0)
