"""The CuPy transports over a stand-in for CuPy: streams, events, captures, cooperative launches, and the right results."""

import gc
import json
from pathlib import Path
from types import SimpleNamespace

import fake_cupy
import numpy as np
import pytest
from busbw.bench import gpu
from busbw.bench.measure import Effort, measure
from busbw.bench.opening import session_for
from busbw.bench.options import Options, checked
from busbw.bench.pattern import pattern
from busbw.bench.selftest import machine, trials
from busbw.bench.selftest.findings import run_here
from busbw.bench.selftest.rig import JOBS, Rig
from busbw.bench.sweep import sweep
from busbw.collectives import ALGORITHMS
from busbw.kernels import cupy_compile, cupy_cuda
from busbw.transports import cupy_device, gate
from busbw.transports.device import DeviceSession
from busbw.transports.session import Job, Stalled, Unavailable

HERE = Path(__file__).parent


def forget():
    for cached in (cupy_device._function, cupy_device._module, cupy_device._gate, cupy_cuda._kernel, cupy_cuda._module):
        cached.cache_clear()


@pytest.fixture
def fake(shim_folder, monkeypatch):
    forget()
    yield fake_cupy.install(shim_folder, monkeypatch)
    forget()


@pytest.mark.parametrize("way, launched", [("walk", "walk"), ("steps", "graph")])
@pytest.mark.parametrize("dtype, op", [("float32", "sum"), ("bfloat16", "avg")])
def test_every_algorithm_is_right_and_goes_the_way_that_was_asked_for(fake, way, launched, dtype, op):
    session = DeviceSession(cupy_device.open_devices([0]), 3, 1 << 14, 1 << 16, way=way, timeout=20.0)
    for algorithm in ALGORITHMS:
        data = pattern(dtype, op, 3, seed=1)
        session.prepare(Job(algorithm, 1001, dtype, op))
        session.fill(data.table)
        fake.log.clear()
        session.run()
        assert set(fake.log) == {launched} | ({"run_rows"} if way == "steps" else set())
        assert session.check(data) == 0
    session.close()
    del session
    gc.collect()
    assert fake.alive == 0  # no memory is kept


def test_nothing_but_the_work_is_between_the_events(fake):
    session = DeviceSession(cupy_device.open_devices([0]), 2, 1 << 12, 1 << 12, way="walk", timeout=20.0)
    session.prepare(Job("ring", 100, "float32", "sum"))
    fake.log.clear()
    samples, _ = session.time(3, 4)
    assert [name for name in fake.log if name == "walk"] == ["walk"] * 3  # four all-reduces are one launch
    assert samples == pytest.approx([fake_cupy.WORK_SECONDS / 4] * 3)
    timing = measure(session, Job("ring", 100, "float32", "sum"), Effort(iterations=3, warmup=1)).timing
    assert timing.wrong == 0
    session.close()


@pytest.mark.parametrize("host_seconds", [0.0, 1e-5, 1e-2])
def test_a_time_has_the_device_in_it_and_no_host(fake, host_seconds):
    fake.host_seconds = host_seconds
    for way, seconds in (("walk", fake_cupy.WORK_SECONDS / 5), ("steps", fake_cupy.WORK_SECONDS)):
        session = DeviceSession(cupy_device.open_devices([0]), 2, 1 << 12, 1 << 12, way=way, timeout=20.0)
        session.prepare(Job("ring", 100, "float32", "sum"))
        samples, _ = session.time(3, 5)
        assert samples == pytest.approx([seconds] * 3)
        assert session.gate.refused == 0
        session.close()


def test_a_time_with_the_host_in_it_is_refused(fake, monkeypatch):
    devices = cupy_device.open_devices([0])
    at = devices[0].allocate(4096)
    work = lambda: devices[0].launch("copy", "uint8", (at, 0, at + 2048, 1024), 1024)  # noqa: E731
    held = gate.Gate(devices)
    fake.host_seconds = gate.LIMIT_SECONDS  # the gate opens by itself while the host still enqueues
    with pytest.raises(Unavailable, match="3 times in a row"):
        held.seconds(work)
    assert held.refused == 3

    def slow_once():
        fake.now += gate.LIMIT_SECONDS * (held.refused < 4)
        work()

    fake.host_seconds = 1e-5
    assert held.seconds(slow_once) == pytest.approx(fake_cupy.WORK_SECONDS)
    assert held.refused == 4
    monkeypatch.setattr(cupy_device.CupyDevice, "hold", lambda *arguments: None)
    with pytest.raises(Unavailable, match="3 times in a row"):
        gate.Gate(devices).seconds(work)


def test_several_gpus_begin_together_and_a_long_queue_is_cut(fake):
    fake.host_seconds = 1e-4  # the second GPU gets its work that much later
    devices = cupy_device.open_devices()
    at = [device.allocate(4096) for device in devices]

    def work():
        for device, address in zip(devices, at):
            device.launch("copy", "uint8", (address, 0, address + 2048, 1024), 1024)

    begun = []
    event = devices[0].event
    for device in devices:
        device.event = lambda event=device.event: begun.append(event()) or begun[-1]
    assert gate.Gate(devices).seconds(work) == pytest.approx(fake_cupy.WORK_SECONDS)
    assert begun[0].at == begun[1].at
    devices[0].event = event
    assert (
        gate.in_parts(600, 1) == [256, 256, 88]
        and gate.in_parts(3, 200) == [1, 1, 1]
        and gate.in_parts(900, 0) == [900]
    )
    session = DeviceSession(devices[:1], 2, 1 << 12, 1 << 12, way="steps", timeout=20.0)
    session.prepare(Job("ring", 8, "float32", "sum"))
    fake.log.clear()
    assert session.time(1, 300)[0] == pytest.approx([fake_cupy.WORK_SECONDS])
    assert fake.log.count("graph") == 300 and fake.log.index("graph") > 0


def test_costs_are_told_with_and_without_the_launch(fake):
    fake.host_seconds = 1e-4
    for way in ("walk", "steps"):
        session = DeviceSession(cupy_device.open_devices([0]), 2, 1 << 12, 1 << 12, way=way, timeout=20.0)
        session.prepare(Job("ring", 100, "float32", "sum"))
        found = session.costs()
        assert found["launch_each"] == pytest.approx(fake_cupy.WORK_SECONDS)
        if way == "steps":
            assert found["slope"] == pytest.approx(fake_cupy.WORK_SECONDS) and "one_launch" not in found
        else:  # the stand-in's launches all take as long, however much they do
            assert found["slope"] == pytest.approx(0) and found["one_launch"] == pytest.approx(
                fake_cupy.WORK_SECONDS / 2
            )
        session.close()


def test_what_goes_wrong_on_the_device_is_said_at_once(fake):
    (device,) = cupy_device.open_devices([0])
    device.patience = 0.05
    event = device.event()
    assert device.seconds(event, event) == 0
    fake.broken = 700
    with pytest.raises(fake_cupy.CUDARuntimeError, match="700"):
        device.download(device.allocate, np.dtype(np.int64), 0)
    fake.broken = None
    device.hold(device.pinned(8), 1 << 60, int(1e18))  # a device that never goes on
    with pytest.raises(Stalled, match="0\\.05 s"):
        device.seconds(event, device.event())


def test_what_is_timed_has_a_range_where_there_is_nvtx(fake, monkeypatch):
    said = []
    marks = SimpleNamespace(available=True, RangePush=said.append, RangePop=lambda: said.append("pop"))
    session = DeviceSession(cupy_device.open_devices([0]), 2, 1 << 12, 1 << 12, way="walk", timeout=20.0)
    session.prepare(Job("ring", 100, "float32", "sum"))
    session.crew.activity = "size 400 B, ring"
    session.time(1, 2)  # the stand-in has none
    monkeypatch.setattr(fake.cupy.cuda, "nvtx", marks, raising=False)
    session.time(3, 2)
    assert said == ["size 400 B, ring, walk, 3 x 2", "pop"]
    marks.available = False
    session.time(1, 2)
    assert len(said) == 2


def test_cupy_for_amd_gpus_is_refused_with_the_reason(fake, monkeypatch):
    monkeypatch.setattr(fake.cupy.cuda.runtime, "is_hip", True)
    assert "ROCm" in cupy_cuda.available() and "\n" not in cupy_cuda.available()
    with pytest.raises(Unavailable, match=r"have never run.*accepted: CuPy for CUDA"):
        cupy_device.open_devices()


def test_a_gpu_that_is_too_old_is_not_available(fake, monkeypatch):
    def load(source, options):
        raise cupy_compile.CompileError("NVRTC no longer compiles for sm_50;\nit knows 75, 80")

    monkeypatch.setattr(cupy_compile, "load", load)
    session = DeviceSession(cupy_device.open_devices([0]), 2, 1 << 12, 1 << 12)
    with pytest.raises(Unavailable, match="sm_50; it knows 75, 80"):
        session.prepare(Job("ring", 100, "float32", "sum"))
    fake.broken = 700
    session.abort(RuntimeError("cudaError 700"))  # what closing then says is not told


def test_a_device_without_cooperative_launch_takes_steps(shim_folder, monkeypatch):
    forget()
    fake_cupy.install(shim_folder, monkeypatch, cooperative=False)
    session = DeviceSession(cupy_device.open_devices([0]), 2, 1 << 12, 1 << 12)
    session.prepare(Job("ring", 100, "float32", "sum"))
    assert session.chosen == "steps"
    session.close()
    forget()


def test_memory_that_is_refused_is_a_memory_error_and_peers_are_enabled_once(fake):
    devices = cupy_device.open_devices()
    assert fake.peers == {(0, 1), (1, 0)}
    devices = cupy_device.open_devices()  # already enabled: fine
    with pytest.raises(MemoryError, match="refused"):
        devices[0].allocate(1 << 40)
    with pytest.raises(cupy_device.Unavailable, match="accepted: 0 to 1"):
        cupy_device.open_devices([2])
    assert devices[1].describe()["pci_bus_id"] == "0000:01:00.0"


def test_a_sweep_takes_the_gpu_and_names_it(fake, monkeypatch):
    monkeypatch.setattr(gpu, "driver_present", lambda: True)
    monkeypatch.setattr(gpu, "telemetry", lambda devices: {})
    options = Options(last=64, factor=8.0, gpus=1, ranks=2, effort=Effort(iterations=2, warmup=1))
    options = checked(options, mpi=False)
    assert options.backend == "cupy"
    with session_for(options) as session:
        records = list(sweep(options, session))
        assert gpu.lines(options, session)[0] == "# 1 x fake GPU, through cupy"
        assert "--backend auto found a GPU" in gpu.lines(options, session)[1]
    assert {r.transport for r in records} == {"device"}
    assert all(r.out_of_place.wrong == r.in_place.wrong == 0 for r in records)
    (device,) = records[0].environment["gpu"]["devices"]
    assert records[0].environment["gpu"]["timing"] == "CUDA events, behind a gate"
    assert records[0].options["gpu"]["refused_times"] == 0
    assert device["name"] == "fake GPU" and device["l2_bytes"] == 4096
    assert json.dumps(records[0].environment)


def test_bandwidth_of_a_device_gives_its_memory_back(fake):
    (device,) = cupy_device.open_devices([0])
    before = fake.alive
    found = gpu.bandwidths(device, 1 << 16)
    assert set(found) == {"memcpy", "copy", "add"} and fake.alive == before + 1  # a gate's word of host memory
    source, target = device.allocate(4096), device.allocate(4096)
    device.upload(source, np.arange(1024, dtype=np.int32))
    device.copy(target, source, 4096)
    assert device.download(target, np.dtype(np.int32), 1024).tolist() == list(range(1024))


def test_the_selftest_runs_its_real_devices(fake, monkeypatch):
    monkeypatch.setattr(fake.cupy.cuda.runtime, "getDeviceCount", lambda: 1)
    devices = machine._cupy_devices(quick=True)
    assert [d["name"] for d in machine.describe_devices()] == ["fake GPU"]
    rig = Rig(
        devices=devices, counts=(1, 300), ranks=(2,), large_bytes=1 << 14, array_bytes=1 << 14
    )  # fmt: skip
    found = {f.what: f for f in run_here(trials.groups(rig), lambda finding: None)}
    assert [f for f in found.values() if f.ok is False] == []
    assert {f"compile walk.cu {dtype}, one GPU, cupy" for dtype, _ in JOBS} <= set(found)
    assert found["NCCL, one GPU, cupy"].ok is None  # the stand-in has none
    assert {"all-reduce of 2 ranks, one GPU, cupy, walk", "all-reduce of 2 ranks, one GPU, cupy, steps"} <= set(found)
    monkeypatch.setattr(fake.cupy.cuda.runtime, "getDeviceCount", lambda: 2)
    assert [d.name for d in machine._cupy_devices(quick=True)] == ["one GPU, cupy", "2 GPUs, cupy"]


def test_mpi_ranks_stage_through_its_streams(mpirun, shim_folder):
    assert mpirun(2, HERE / "cupy_mpi_job.py", shim_folder).result == {"bad": [], "tried": 14 * len(ALGORITHMS)}


def test_mpi_ranks_of_a_host_reach_one_another_by_ipc(mpirun, shim_folder):
    found = mpirun(3, HERE / "gpu_ipc_job.py", shim_folder).result
    assert found["bad"] == [] and found["tried"] == 4 * len(ALGORITHMS)
    assert found["measured"] == [0, 3, True, "gpu-ipc"] and sum(found["modes"].values()) == 12
    for one in found["pairs"]:
        assert one == [[["a", "b"], ["a", "c"], ["b", "c"]], 0, True, True, ["as given", "turned"]]
    assert found["stalled"] == [True] * 3  # all hear of a rank that does not get on
    assert found["auto"][0] == "gpu-ipc" and "CUDA IPC" in found["auto"][1][-1]
    assert found["mpi"][0] == "gpu-mpi-staged" and "--transport mpi" in found["mpi"][1][-1]
    transport, lines = found["auto, walled"]  # one rank that cannot, and all do without, and say why
    assert transport == "gpu-mpi-staged" and "rank 1: cudaErrorPeerAccessUnsupported" in lines[-1]
    assert "--transport shared: no CUDA IPC" in found["shared, walled"]
    assert "rank 2: cudaErrorPeerAccessUnsupported" in found["walled"] and "3 ranks share 1 GPUs" in found["one GPU"]
    assert found["mapped"] == 0  # what was opened is let go of
