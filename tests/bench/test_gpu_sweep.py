"""Sweeps on GPUs without one: choosing the backend, walk.cu on the CPU behind a whole sweep, clocks from an NVML stand-in."""

from dataclasses import replace

import numpy as np
import pytest
import shim_device
from busbw.bench import gpu, record, summary
from busbw.bench.measure import Effort
from busbw.bench.opening import session_for
from busbw.bench.options import Options, checked
from busbw.bench.resume import resumable
from busbw.bench.sweep import sweep
from busbw.collectives import ALGORITHMS, build
from busbw.errors import UserError
from busbw.transports.device import DeviceSession
from busbw.transports.session import Job


def choose(asked="auto", cpu_only=None, *, mpi=False, driver=True, **lacks):
    return gpu.choose(
        asked, cpu_only, mpi=mpi, present=lambda: driver, lacks=lambda name: lacks.get(name.replace("-", "_"))
    )


def test_auto_takes_a_gpu_where_there_is_one_and_says_so():
    assert choose().backend == "cupy" and "cupy" in choose().note
    assert choose(cupy="CuPy is not installed").backend == "numba-cuda"
    assert choose(driver=False) == gpu.Choice("cpu")


def test_auto_measures_the_cpu_where_the_gpu_cannot_be_used_and_says_what_to_install():
    found = choose(cupy="CuPy is not installed: pip install x", numba_cuda="no")
    assert found.backend == "cpu" and "pip install x" in found.note
    assert choose(mpi=True, cupy="not installed").backend == "cpu"  # Numba has no ranks under mpirun
    assert choose(cpu_only="--fabric") == gpu.Choice("cpu")


def test_a_backend_that_cannot_run_is_refused_with_what_is_missing():
    with pytest.raises(UserError, match="--backend cupy: CuPy is not installed"):
        choose("cupy", cupy="CuPy is not installed")
    with pytest.raises(UserError, match="accepted are auto, cpu, cupy, numba-cuda"):
        choose("cuda")
    with pytest.raises(UserError, match="--fresh is not for GPUs"):
        choose("cupy", "--fresh")
    with pytest.raises(UserError, match="no ranks under mpirun"):
        choose("numba-cuda", mpi=True)
    assert choose("cupy").backend == "cupy" and choose("cpu").backend == "cpu"


@pytest.mark.parametrize(
    "more, flag",
    [
        ({"algorithms": ("numpy",)}, "--algo numpy"),
        ({"transport": "shared"}, "--transport shared"),
        ({"effort": Effort(fresh=True)}, "--fresh"),
        ({"fabric": "this-machine"}, "--fabric"),
    ],
)
def test_options_of_the_cpu_are_refused_with_a_gpu_backend(more, flag):
    with pytest.raises(UserError, match=flag):
        checked(Options(last=64, backend="numba-cuda", **more), mpi=False)


def test_nccl_needs_gpus():
    with pytest.raises(UserError, match="--algo nccl needs GPUs"):
        checked(Options(last=64, algorithms=("nccl",), backend="cpu"), mpi=False)
    with pytest.raises(UserError, match="--gpus 2"):
        checked(Options(last=64, backend="cpu", gpus=2), mpi=False)


def test_a_sweep_on_the_cpu_imports_nothing_of_cuda(python):
    program = (
        "import json, sys\n"
        "from busbw.bench.measure import Effort\n"
        "from busbw.bench.opening import session_for\n"
        "from busbw.bench.options import Options, checked\n"
        "from busbw.bench.sweep import sweep\n"
        "o = checked(Options(last=64, ranks=1, backend='cpu', effort=Effort(iterations=2, warmup=1)), mpi=False)\n"
        "with session_for(o) as s: rows = len(list(sweep(o, s)))\n"
        "cuda = [m for m in sys.modules if m.split('.')[0] in ('cupy', 'cupy_backends', 'cuda', 'pynvml', 'numba_cuda')\n"
        "        or m.startswith('numba.cuda')]\n"
        "print(json.dumps({'rows': rows, 'cuda': cuda}))"
    )
    assert python("-c", program).result == {"rows": 8, "cuda": []}


class Nvml:
    """pynvml's calls; bits: what the driver says holds the clocks down."""

    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    class NVMLError(Exception):
        pass

    def __init__(self, bits=0, dead=False, old=False):
        self.bits, self.dead, self.opened = bits, dead, 0
        if not old:
            self.nvmlDeviceGetCurrentClocksEventReasons = lambda handle: self.bits
        self.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: self.bits

    def nvmlInit(self):
        if self.dead:
            raise self.NVMLError("Driver Not Loaded")
        self.opened += 1

    def nvmlShutdown(self):
        self.opened -= 1

    def nvmlSystemGetDriverVersion(self):
        return b"580.65"

    def nvmlDeviceGetHandleByPciBusId(self, bus):
        return bus

    def nvmlDeviceGetClockInfo(self, handle, which):
        return {self.NVML_CLOCK_SM: 1980, self.NVML_CLOCK_MEM: 2619}[which]

    def nvmlDeviceGetMaxClockInfo(self, handle, which):
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetTemperature(self, handle, which):
        return 41

    def nvmlDeviceGetPowerUsage(self, handle):
        return 123456


def test_clocks_and_what_holds_them_down_are_recorded():
    for old in (False, True):
        nvml = Nvml(bits=0x4 | 0x40, old=old)
        state = gpu.telemetry([{"name": "a", "pci_bus_id": "0000:01:00.0"}], nvml)
        (device,) = state["devices"]
        assert state["driver"] == "580.65" and nvml.opened == 0
        assert device["sm_mhz"] == 1980 and device["sm_mhz_max"] is None and device["watts"] == pytest.approx(123.456)
        assert device["reasons"] == ["power cap", "hardware thermal slowdown"]
        (warning,) = gpu.throttle_warnings(state)
        assert "the power cap" in warning and "heat" in warning
    assert gpu.throttle_warnings(gpu.telemetry([{"pci_bus_id": "x"}], Nvml(bits=0x1 | 0x2))) == []  # idle is no fault
    assert "Driver Not Loaded" in gpu.telemetry([], Nvml(dead=True))["missing"]


def shim_session(shim_folder, ranks, largest, scratch, **more):
    return DeviceSession([shim_device.ShimDevice(shim_folder)], ranks, largest, scratch, timeout=20.0, **more)


def test_a_whole_sweep_on_a_device_is_recorded_with_its_limits(shim_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "missing", lambda name: None)
    monkeypatch.setattr(gpu, "gpus_here", lambda: 2)
    monkeypatch.setattr(gpu, "device_count", lambda backend, gpus: 1)
    monkeypatch.setattr(
        gpu, "open_session", lambda o, largest, scratch: shim_session(shim_folder, o.ranks, largest, scratch)
    )
    monkeypatch.setattr(
        gpu, "telemetry", lambda devices: {"driver": "1", "devices": [{"slowed_by": ["heat (software)"]}]}
    )
    options = checked(
        Options(
            first=8, last=1 << 20, factor=131072.0, algorithms=("ring", "auto"), backend="cupy",
            effort=Effort(iterations=3, warmup=1),
        ),
        mpi=False,
    )  # fmt: skip
    assert options.ranks == gpu.EMULATED_RANKS
    out = tmp_path / "gpu.jsonl"
    with session_for(options) as session:
        first, second = gpu.lines(options, session)
        assert first == "# 1 x this machine's CPU, as a GPU, through cupy"
        assert second.startswith("# one of 2 GPUs, which cannot read one another's memory")
        list(sweep(options, session, out=str(out)))
    result = record.read(out)
    assert [(r.algorithm, r.size_bytes, r.transport) for r in result.records] == [
        (a, s, "device") for s in (8, 1 << 20) for a in ("ring", "auto")
    ]
    for r in result.records:
        assert r.out_of_place.wrong == r.in_place.wrong == 0
        assert r.environment["gpu"]["devices"] == [{"name": "this machine's CPU, as a GPU"}]
        assert r.environment["gpu"]["timing"] == "CUDA events, the host's launches between them"  # the shim has no gate
        assert {"slope", "launch_each"} <= set(r.options["gpu"]["costs_seconds"]["in_place"])
        assert r.options["gpu"]["way"] in ("walk", "steps")
        assert any("held down by heat" in w for w in r.warnings)
        assert not any("share" in w and "cores" in w for w in r.warnings)
    assert result.limits["memory"] == "device" and {"copy", "add", "memcpy"} <= set(result.limits)
    assert any(line.startswith("Memory: at") for line in summary.words(result.records, result.limits))
    again = resumable(result, options, options.ranks)
    assert len(again) == 4
    with pytest.raises(UserError, match="measured with --backend cupy"):
        resumable(result, replace(options, backend="cpu"), options.ranks)


@pytest.mark.parametrize("algorithm", list(ALGORITHMS))
def test_traffic_is_what_the_schedule_reads_and_writes(shim_folder, algorithm):
    # Counted from the table: a receive that reduces reads two and writes one, a copy or a receive reads one and writes one.
    ranks, count = 4, 1 << 16
    s = shim_session(shim_folder, ranks, 4 * count, 16 * count, way="steps", eager_bytes=0)
    s.prepare(Job(algorithm, count, "float32", "sum"))
    schedule = build(algorithm, ranks, count)
    arrays = {"RECV_REDUCE": 3, "REDUCE": 3, "RECV": 2, "COPY": 2}
    from busbw.collectives import schedule as names

    expected = sum(
        arrays[name] * 4 * int(table["count"][table["op"] == getattr(names, name)].sum())
        for table in schedule.tables
        for name in arrays
    )
    # Two copies or reductions of one source may be one call with two destinations, which then reads it once.
    assert 0.5 * expected <= gpu.traffic_bytes(s) <= expected
    limits = {"copy": 1e9, "memcpy": 2e9}
    assert gpu.least_seconds(s, limits) == pytest.approx(gpu.traffic_bytes(s) / 2e9)
    if (
        algorithm == "ring"
    ):  # p ranks: (p-1)/p reduced in 3 accesses, (p-1)/p copied in 2, and two-destination calls save some
        assert expected == 4 * ranks * (count * (ranks - 1) // ranks) * 5


def test_bandwidths_are_bytes_read_and_written_a_second():
    # A device whose clock is its own: every byte touched takes a nanosecond, and the driver's copy half of that.
    class Clocked(shim_device.ShimDevice):
        now = 0.0

        def copy(self, dst, src, nbytes):
            self.now += 2 * nbytes * 0.5e-9

        def launch(self, kernel, dtype, arguments, nbytes):
            if kernel == "fill_4":
                super().launch(kernel, dtype, arguments, nbytes)
                self.filled = self.download(arguments[0], np.float32, nbytes // 4)
                return
            self.now += {"copy": 2, "reduce_sum": 3}[kernel] * nbytes * 1e-9

        def event(self):
            return self.now

    device = Clocked("")
    found = gpu.bandwidths(device, 4096)
    assert found["copy"] == pytest.approx(1e9) and found["add"] == pytest.approx(1e9)
    assert found["memcpy"] == pytest.approx(2e9)
    assert device.kept == {}  # all given back
    assert len(np.unique(device.filled)) > 200  # what is read is nothing that a cache could compress
