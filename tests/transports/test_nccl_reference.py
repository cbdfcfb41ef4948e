"""NCCL beside ours, without NCCL: a library with CuPy's calls that reduces host memory when a group of ranks is complete."""

from types import SimpleNamespace

import pytest
import shim_device
from busbw.bench.measure import Effort, measure
from busbw.bench.options import OptionError, Options, checked
from busbw.bench.pattern import pattern
from busbw.collectives.collective import COLLECTIVES
from busbw.transports import nccl, nccl_calls
from busbw.transports.device import DeviceSession
from busbw.transports.session import Job, Unavailable
from fake_nccl import FakeLibrary, FakeNccl


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
    assert s.check(data) == 0
    timing = measure(s, Job("nccl", 99, dtype, op, in_place), Effort(iterations=3, warmup=1)).timing
    assert timing.wrong == 0 and len(timing.samples) == 3
    assert fake.alive == ranks
    s.close()
    assert fake.alive == 0


@pytest.mark.parametrize("collective", list(nccl_calls.CALLS))
def test_every_collective_of_nccls_is_called_and_checked(collective):
    for ranks in (1, 3):
        fake = FakeNccl()
        s = session(fake, ranks, ranks)
        data = pattern("float32", "sum", ranks, seed=2)
        for in_place in (False, True) if COLLECTIVES[collective].in_place else (False,):
            s.prepare(Job("nccl", 50, "float32", "sum", in_place, collective=collective, root=ranks - 1))
            s.fill(data.table)
            s.run()
            assert fake.reduced and s.check(data) == 0, (ranks, in_place)
        s.close()


def test_what_nccl_has_not_is_refused():
    s = session(FakeNccl(), 2, 2)
    with pytest.raises(Unavailable, match="NCCL has no pingpong; accepted: all_reduce, "):
        s.prepare(Job("nccl", 50, "float32", "sum", collective="pingpong"))
    s.close()


@pytest.mark.parametrize("register, kind", [(1, "local"), (2, "symmetric")])
def test_buffers_are_nccls_own_and_registered_with_each_communicator(register, kind):
    fake, library = FakeNccl(), FakeLibrary()
    gpus = [shim_device.ShimDevice("", resident=0, id=i) for i in range(3)]
    s = DeviceSession(
        gpus, 3, 4096, 4096, nccl=nccl.How(register=register),
        open_nccl=lambda ids: nccl.of_this_process(ids, fake, library),
    )  # fmt: skip
    for in_place in (False, True):
        timing = measure(s, Job("nccl", 99, "float32", "sum", in_place), Effort(iterations=3, warmup=1)).timing
        assert timing.wrong == 0
    assert sorted(c for c, _, _ in library.registered.values()) == [1000, 1000, 1001, 1001, 1002, 1002]
    assert {k for _, _, k in library.registered.values()} == {kind}
    assert {at for _, at, _ in library.registered.values()} == set(library.memory)
    s.close()
    assert not library.registered and not library.memory and fake.alive == 0
    fake.get_version = lambda: 21800
    again = nccl.of_this_process([0], fake, library)
    with pytest.raises(Unavailable, match=f"-R {register}: NCCL 2.18.0 cannot; accepted: NCCL 2.(19|27) or later"):
        again.buffers([gpus[0].here()], 64, register)


class Capturing(shim_device.ShimDevice):
    """A device whose captures are what NCCL was told meanwhile; the first of a group has them."""

    def begin_capture(self):
        self.nccl.captured = [] if self.nccl.captured is None else self.nccl.captured

    def end_capture(self):
        work, self.nccl.captured = self.nccl.captured or [], None
        return work

    def launch_graph(self, graph):
        for one in graph:
            one()


def test_a_graph_of_all_reduces_is_launched_as_often_as_asked_for():
    fake = FakeNccl()
    gpus = [Capturing("", resident=0, id=i) for i in range(2)]
    for gpu in gpus:
        gpu.nccl = fake
    s = DeviceSession(
        gpus, 2, 4096, 4096, nccl=nccl.How(graph=5), open_nccl=lambda ids: nccl.of_this_process(ids, fake)
    )
    s.prepare(Job("nccl", 99, "float32", "sum"))
    data = pattern("float32", "sum", 2, seed=1)
    s.fill(data.table)
    s.time(1, 3)
    assert fake.reduced == 5 * 3 and s.check(data) == 0
    s.time(2, 3)
    assert fake.reduced == 3 * 5 * 3
    assert {"slope", "one_launch", "launch_each"} == set(s.costs())
    timing = measure(s, Job("nccl", 77, "int64", "max"), Effort(iterations=3, warmup=1)).timing  # another graph
    assert timing.wrong == 0


def test_blocking_waits_after_each_all_reduce(monkeypatch):
    fake = FakeNccl()
    s = DeviceSession(
        [shim_device.ShimDevice("", resident=0, id=i) for i in range(2)], 2, 4096, 4096, nccl=nccl.How(blocking=True),
        open_nccl=lambda ids: nccl.of_this_process(ids, fake),
    )  # fmt: skip
    s.prepare(Job("nccl", 99, "float32", "sum"))
    seen = []
    finish = s._finish
    monkeypatch.setattr(s, "_finish", lambda: (seen.append(fake.reduced), finish()))
    samples, _ = s.time(1, 4)
    assert seen == [0, 1, 2, 3, 4, 4] and samples[0] > 0


@pytest.mark.parametrize(
    "more, words",
    [
        ({"nccl_register": 1}, "-R 1 is about NCCL's all-reduce; accepted: with --algo nccl, on GPUs"),
        ({"nccl_graph": 3}, "-G 3 is about"),
        ({"nccl_blocking": True}, "-z 1 is about"),
        ({"nccl_register": 3, "algorithms": ("nccl",)}, "accepted are 0, 1"),
        ({"nccl_graph": -1, "algorithms": ("nccl",)}, "accepted are 0 to 1000"),
        ({"nccl_graph": 1, "nccl_blocking": True, "algorithms": ("nccl",)}, "accepted: one of them"),
        ({"nccl_register": 1, "algorithms": ("nccl",), "backend": "cpu"}, "needs GPUs"),
        ({"dtypes": ("f8e4m3",), "backend": "cpu"}, "-d float8_e4m3 is of GPUs and --backend cupy"),
    ],
)
def test_what_is_about_nccl_on_gpus_is_refused_elsewhere_in_one_line(more, words):
    with pytest.raises(OptionError, match=words) as caught:
        checked(Options(last=64, **more), mpi=False)
    assert "\n" not in str(caught.value)
    assert checked(Options(last=64, backend="cpu", nccl_register=0, nccl_graph=0, nccl_blocking=False), mpi=False)


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
    fake = FakeNccl()
    group = nccl.of_this_process([0], fake)
    assert [group.codes(d, "sum")[0] for d in ("float8_e4m3", "f8e5m2")] == [10, 11]  # nccl.h
    fake.get_version = lambda: 22307
    with pytest.raises(Unavailable, match=r"NCCL 2\.23\.7 has no float8_e4m3"):
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
        nccl.of_a_job(comm, "0000:01:00.0", fake)
    fake.get_unique_id = lambda: b"id"
    assert nccl.of_a_job(_Comm(), "0000:01:00.0", fake).codes("float32", "sum") == (7, 0)


def test_ranks_that_share_a_gpu_have_no_nccl():
    comm = _Comm()
    comm.size, comm.allgather = 2, lambda value: [value, value]
    with pytest.raises(Unavailable, match=r"2 ranks share 1; accepted: 1"):
        nccl.of_a_job(comm, "0000:01:00.0", FakeNccl())
