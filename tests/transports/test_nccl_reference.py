"""NCCL beside ours, without NCCL: a library with CuPy's calls that reduces host memory when a group of ranks is complete."""

from types import SimpleNamespace

import pytest
import shim_device
from busbw.bench.measure import Effort, measure
from busbw.bench.pattern import pattern
from busbw.transports import nccl
from busbw.transports.device import DeviceSession
from busbw.transports.session import Job, Unavailable
from fake_nccl import FakeNccl


def session(fake, ranks, devices):
    gpus = [shim_device.ShimDevice("", resident=0, id=i) for i in range(devices)]
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
    s = DeviceSession([shim_device.ShimDevice("", resident=0)], 1, 64, 64)
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
