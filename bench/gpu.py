"""Sweeps on GPUs: which backend to take, the session, what the device's memory allows, and the state of its clocks.

Imports nothing of CUDA before a backend is asked for or a GPU driver is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..transports.gate import Gate
from ..transports.nccl import How
from ..transports.program import COUNT, DST2, FN
from ..transports.session import Unavailable

DRIVERS = ("cupy", "numba-cuda")  # that drive a GPU
BACKENDS = ("auto", "cpu", *DRIVERS)
EMULATED_RANKS = 4  # on one GPU, where nobody said how many
ROUNDS, PASSES = 5, 3
LIMIT_CACHES = 8  # arrays of that many last-level caches each show memory, not cache
LIMIT_BYTES_MIN = 1 << 20
TABLE_ENTRIES = 256
DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")  # the last: under Windows


@dataclass(frozen=True)
class Choice:
    """backend: "cpu", "cupy" or "numba-cuda"; note: why, for the reader of the table, or ""."""

    backend: str
    note: str = ""


def driver_present() -> bool:
    """Whether an NVIDIA driver is loaded, as the file system shows it."""
    return any(Path(name).exists() for name in DRIVER_FILES)


def missing(backend: str) -> str | None:
    """None if a GPU backend can run here, else what it lacks and what to install."""
    from ..kernels import backend as kernels

    return kernels(backend).available()


def choose(asked: str, cpu_only: str | None, *, mpi: bool, present=None, lacks=None) -> Choice:
    """Resolve --backend. cpu_only: the option that only the CPU has, or None; mpi: in an MPI job; present, lacks: instead of
    `driver_present` and `missing`.

    Raises UserError for a backend that is not known, does not go with the options, or cannot run here.
    """
    present, lacks = present or driver_present, lacks or missing
    if asked not in BACKENDS:
        raise UserError(f"--backend {asked}: accepted are {', '.join(BACKENDS)}")
    if asked == "cpu":
        return Choice("cpu")
    if asked == "auto":
        if cpu_only or not present():
            return Choice("cpu")
        reasons = []
        for backend in ("cupy",) if mpi else DRIVERS:
            reason = lacks(backend)
            if reason is None:
                return Choice(
                    backend, f"--backend auto found a GPU and takes {backend}; --backend cpu measures the CPU"
                )
            reasons.append(reason)
        return Choice("cpu", f"there is an NVIDIA driver, but the CPU is measured: {reasons[0]}")
    if cpu_only:
        raise UserError(f"{cpu_only} is not for GPUs; accepted: with --backend cpu")
    if mpi and asked != "cupy":
        raise UserError(f"--backend {asked} has no ranks under mpirun; accepted: --backend cupy, or no mpirun")
    reason = lacks(asked)
    if reason:
        raise UserError(f"--backend {asked}: {reason}")
    return Choice(asked)


def default_ranks(backend: str, gpus: int | None) -> int:
    """One rank a GPU, or EMULATED_RANKS on one."""
    count = device_count(backend, gpus)
    return count if count > 1 else EMULATED_RANKS


def device_count(backend: str, gpus: int | None) -> int:
    """GPUs to take: as many as `gpus` says, else all if they can read one another's memory, else one.

    Raises UserError where there are fewer.
    """
    if backend != "cupy":
        if gpus not in (None, 1):
            raise UserError(f"--gpus {gpus}: --backend {backend} drives one GPU; accepted: 1, or --backend cupy")
        return 1
    from ..transports.cupy_device import reach_one_another

    there = gpus_here()
    if gpus is None:
        return there if reach_one_another(range(there)) else 1
    if not 1 <= gpus <= there:
        raise UserError(f"--gpus {gpus}: accepted are 1 to {there}")
    return gpus


def gpus_here() -> int:
    """How many GPUs CuPy finds."""
    from cupy.cuda import runtime

    return runtime.getDeviceCount()


def open_session(options, largest: int, scratch: int):
    """A device.DeviceSession, or under mpirun a device_mpi.DeviceMpiSession. options: sweep.Options with a GPU backend.

    Raises Unavailable, MemoryError.
    """
    from ..transports import launcher

    if launcher.launched():
        return _job_session(options, largest, scratch)
    from ..transports import nccl
    from ..transports.device import DeviceSession

    count = min(device_count(options.backend, options.gpus), options.ranks)
    if options.backend == "cupy":
        from ..transports.cupy_device import open_devices

        devices, open_nccl = open_devices(range(count)), nccl.of_this_process
    else:
        from ..transports.numba_device import open_devices as open_numba_devices

        devices, open_nccl = open_numba_devices(), None
    return DeviceSession(
        devices,
        options.ranks,
        largest,
        scratch,
        timeout=options.timeout,
        eager_bytes=options.eager_bytes,
        open_nccl=open_nccl,
        nccl=_how(options),
    )


def _how(options) -> How:
    return How(options.nccl_register or 0, options.nccl_graph or 0, bool(options.nccl_blocking))


def _job_session(options, largest: int, scratch: int):
    """CUDA IPC where the ranks reach one another's memory, else messages through MPI; --transport says which."""
    from ..transports import mpi

    MPI = mpi.load()
    world = MPI.COMM_WORLD
    rank_here = world.Split_type(MPI.COMM_TYPE_SHARED).rank
    why_not = "--transport mpi"
    if options.transport != "mpi":
        try:
            return _ipc_session(options, largest, scratch, world, rank_here)
        except Unavailable as error:  # the same on all ranks
            if options.transport == "shared":
                raise UserError(f"--transport shared: {error}; accepted: auto, mpi") from None
            why_not = str(error)
    if _how(options) != How():
        raise UserError(
            f"-R, -G and -z need ranks of one host, each with a GPU of its own that the others reach ({why_not}); accepted: "
            "without them"
        )
    session = _mpi_session(options, largest, scratch, MPI, rank_here)
    session.crew.library = f"{session.crew.library}; {why_not}"
    return session


def _ipc_session(options, largest: int, scratch: int, world, rank_here: int):
    from ..transports import gpu_ipc, nccl
    from ..transports.cupy_device import open_device_of
    from ..transports.device import DeviceSession

    device = open_device_of(rank_here)
    try:
        crew = gpu_ipc.crew_of(world, device)
    except Unavailable:
        device.close()
        raise
    return DeviceSession(
        [device],
        world.size,
        largest,
        scratch,
        way="walk",
        timeout=options.timeout,
        eager_bytes=options.eager_bytes,
        open_nccl=lambda ids: nccl.of_a_job(world, device.describe().get("pci_bus_id")),
        nccl=_how(options),
        crew=crew,
    )


def _mpi_session(options, largest: int, scratch: int, MPI, rank_here: int):
    from ..transports import mpi, nccl
    from ..transports.cupy_streams import open_gpu
    from ..transports.device_mpi import DeviceMpiSession, mpi_takes_device_addresses

    world = MPI.COMM_WORLD
    aware, how = mpi_takes_device_addresses(MPI)
    aware = bool(world.allreduce(int(aware), MPI.MIN))
    gpu = open_gpu(rank_here)
    described = gpu.device.describe()
    bus = described.get("pci_bus_id")
    session = DeviceMpiSession(
        world, gpu, largest, scratch, aware=aware, timeout=options.timeout, open_nccl=lambda: nccl.of_a_job(world, bus)
    )
    session.crew.introduce(described)
    session.crew.library = f"{mpi.library_name(MPI)} ({how})"
    return session


def lines(options, session) -> list[str]:
    """What the table's reader must know of the GPUs."""
    names = session.crew.devices
    each = ", ".join(f"{names.count(n)} x {n}" for n in dict.fromkeys(names))
    found = [f"# {each}, through {options.backend}"]
    if session.crew.transport.startswith("gpu-mpi") and len(names) < session.ranks:
        found.append(
            f"# {session.ranks} ranks share {len(names)} GPU{'s' * (len(names) > 1)}, which work{'s' * (len(names) == 1)} for one "
            "process at a time: times are not those of a GPU a rank"
        )
    if options.backend_note:
        found.append(f"# {options.backend_note}")
    if options.backend == "numba-cuda":
        found.append(
            "# one launch a message, and the host's are in the times: small sizes show them; --backend cupy has a walk"
        )
    elif session.crew.transport == "device" and options.gpus is None and (there := gpus_here()) > 1:
        found.append(f"# one of {there} GPUs, which cannot read one another's memory; mpirun -np {there} takes all")
    if session.crew.transport == "gpu-ipc":
        found.append("# the ranks reach one another's memory by CUDA IPC; --transport mpi sends messages through MPI")
    if session.crew.transport == "gpu-mpi-staged":
        found.append(f"# messages are staged through host memory: {session.crew.library}")
    return found


def record(options, session) -> dict:
    """For a record's environment: the GPUs, how times are taken, and NCCL where it is measured."""
    of_this_process = session.described
    found = {
        "backend": options.backend,
        "devices": session.crew.gpus or of_this_process,
        "timing": session.timing,
        "caches": "flushed before each sample",
        "telemetry": telemetry(of_this_process),
    }
    if "nccl" in options.algorithms:
        from ..transports import nccl

        found["nccl"] = nccl.settings(nccl.library())
    return found


def measure_limits(session) -> dict:
    """Bytes a second, read and written, of the first device's memory: "copy" and "add" by the kernels that all-reduce uses,
    "memcpy" by the driver; "memory": "device", as a result file's limits are else of host memory. {}: no room for arrays."""
    device = session.devices[0]
    try:
        return {"memory": "device", **bandwidths(device, limit_bytes(device))}
    except MemoryError:
        return {}


def limit_bytes(device) -> int:
    """Bytes of an array that no cache holds."""
    return max(LIMIT_BYTES_MIN, LIMIT_CACHES * int(device.describe().get("l2_bytes", 0)))


def bandwidths(device, nbytes: int) -> dict[str, float]:
    """As `measure_limits`, with float32 arrays of `nbytes`, the median of ROUNDS. Raises MemoryError."""
    arrays: list[int] = []
    try:
        for _ in range(3):
            arrays.append(device.allocate(nbytes))
        dst, a, b = arrays
        for source in (a, b):
            _vary(device, source, nbytes, arrays)
        gate = Gate([device])
        work = {
            "memcpy": (2, lambda: device.copy(dst, a, nbytes)),
            "copy": (2, lambda: device.launch("copy", "uint8", (dst, 0, a, nbytes), nbytes)),
            "add": (3, lambda: device.launch("reduce_sum", "float32", (dst, 0, a, b, nbytes // 4, 1), nbytes)),
        }
        found = {}
        for name, (touched, once) in work.items():
            once()  # compiles, and wakes the clocks
            seconds = float(np.median([seconds_of(gate, once, PASSES) for _ in range(ROUNDS)]))
            found[name] = touched * nbytes / max(seconds, 1e-9)
        return found
    finally:
        for array in arrays:
            device.release(array)


def _vary(device, array: int, nbytes: int, arrays: list[int]) -> None:
    """Fill an array of float32 with numbers that no cache or memory can compress, as it may zeros."""
    arrays.append(device.allocate(4 * TABLE_ENTRIES))
    device.upload(arrays[-1], np.random.default_rng(array).standard_normal(TABLE_ENTRIES, np.float32))
    device.launch("fill_4", "uint8", (array, arrays[-1], nbytes // 4, 0), nbytes)


def seconds_of(gate: Gate, once: Callable[[], None], times: int) -> float:
    """Seconds one call takes the gate's device, of `times` in a row."""

    def enqueue():
        for _ in range(times):
            once()

    return gate.seconds(enqueue) / times


def traffic_bytes(session) -> int:
    """Bytes that the prepared job reads and writes in device memory, over all ranks."""
    from ..transports.device_programs import COPY

    total = 0
    for program in session.programs.values():
        rows = program.code[0]
        rows = rows[rows[:, FN] != 0]
        sizes = rows[:, COUNT] * np.where(rows[:, FN] == COPY, 1, session.itemsize)
        arrays = np.where(rows[:, FN] == COPY, 2, 3) + (rows[:, DST2] != 0)
        total += int((sizes * arrays).sum())
    return total


def least_seconds(session, limits: dict) -> float | None:
    """The least time the prepared job's own traffic takes; None where it is not all in one device's memory."""
    if session.crew.transport != "device" or not session.programs:
        return None
    return traffic_bytes(session) / max(limits["copy"], limits["memcpy"])


# NVML's names for what holds clocks down, by bit (nvml.h, nvmlClocksEventReason*). Idle and settings are no faults.
SLOWED = {
    0x4: "the power cap", 0x8: "a hardware slowdown", 0x20: "heat (software)", 0x40: "heat (hardware)",
    0x80: "a power brake",
}  # fmt: skip
REASONS = {
    0x1: "idle", 0x2: "application clocks", 0x4: "power cap", 0x8: "hardware slowdown", 0x10: "sync boost",
    0x20: "software thermal slowdown", 0x40: "hardware thermal slowdown", 0x80: "power brake", 0x100: "display clocks",
}  # fmt: skip


def telemetry(devices: Sequence[dict], nvml: Any = None) -> dict:
    """Driver, and for each device (device.describe()) clocks in MHz, what holds them down, temperature and power, by NVML.

    {"missing": what to install} without nvidia-ml-py. Called outside of what is timed. nvml: the module, for tests.
    """
    if nvml is None:
        try:
            import pynvml as nvml
        except ImportError:
            return {"missing": "pip install nvidia-ml-py, to record clocks and throttling"}
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return {"missing": f"NVML does not answer: {error}"}
    try:
        return {
            "driver": _text(nvml.nvmlSystemGetDriverVersion()),
            "devices": [_device_state(nvml, d.get("pci_bus_id")) for d in devices],
        }
    except nvml.NVMLError as error:
        return {"missing": f"NVML: {error}"}
    finally:
        nvml.nvmlShutdown()


def _text(value) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _device_state(nvml, pci_bus_id: str | None) -> dict:
    if pci_bus_id is None:
        return {}
    handle = nvml.nvmlDeviceGetHandleByPciBusId(pci_bus_id)

    def ask(name: str, *arguments):
        try:
            return getattr(nvml, name)(handle, *arguments)
        except (nvml.NVMLError, AttributeError):  # not every GPU, driver and package has every figure
            return None

    reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if reasons is None:
        reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    power = ask("nvmlDeviceGetPowerUsage")
    return {
        "sm_mhz": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        "sm_mhz_max": ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_SM),
        "memory_mhz": ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        "memory_mhz_max": ask("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_MEM),
        "celsius": ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        "watts": None if power is None else power / 1000,
        "reasons": None if reasons is None else [name for bit, name in REASONS.items() if reasons & bit],
        "slowed_by": None if reasons is None else [name for bit, name in SLOWED.items() if reasons & bit],
    }


def throttle_warnings(state: dict) -> list[str]:
    """What in a `telemetry` spoils a measurement."""
    slowed = sorted({why for d in state.get("devices", ()) for why in d.get("slowed_by") or ()})
    if not slowed:
        return []
    return [
        f"the GPU's clocks are held down by {' and '.join(slowed)}: bandwidth and latency are not those of the full clock; "
        "let it cool, raise its power limit, or lock its clocks (nvidia-smi -lgc)"
    ]


def after(session) -> tuple[dict, list[str]]:
    """(what a record says of its GPUs, warnings) once a size is measured."""
    state = telemetry(session.described)
    found = {"way": session.chosen, "telemetry": state}
    if session.refused_times is not None:
        found["refused_times"] = session.refused_times
    return found, throttle_warnings(state)
