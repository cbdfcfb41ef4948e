"""What the self-test finds to try on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ...errors import UserError
from ...kernels import selftest as kernels_selftest
from ...kernels.dtypes import DEVICE_DTYPES, DTYPES, OPS
from .. import gpu
from .closing import closing
from .findings import Finding, Group, Part
from .rig import JOBS, DeviceRig, KernelRig, Rig
from .trials import groups

DESCRIBE_LIMIT = 60.0
FIRST_DTYPE = "float32"  # what most people come for is tried and said first


def real_rig(quick: bool = False) -> Rig:
    """What this machine has. quick: fewer programs and a smaller message. Raises UserError where no GPU can be used."""
    from ...kernels import numba_cuda

    if numba_cuda.simulated():
        raise UserError("NUMBA_ENABLE_CUDASIM is set, and Numba's simulator is no GPU; accepted: without it")
    reasons = {name: gpu.missing(name) for name in ("cupy", "numba-cuda")}
    if all(reasons.values()):
        raise UserError(
            f"no GPU can be tried. CuPy: {reasons['cupy']}. Numba CUDA: {reasons['numba-cuda']}. "
            "docs/gpu.md says what each needs"
        )
    lacks = [(f"backend {name}", reason) for name, reason in reasons.items() if reason]
    backends, devices = [], []
    if not reasons["cupy"]:
        backends.append(_cupy_kernels())
        devices += _cupy_devices(quick)
    if not reasons["numba-cuda"]:
        from ...transports import numba_device

        backends.append(_numba_kernels())
        devices.append(DeviceRig("one GPU, numba-cuda", numba_device.open_devices, ("steps",)))
    return Rig(backends, devices, lacks, large_bytes=large_bytes(quick))


def large_bytes(quick: bool) -> int:
    """The message whose bandwidth is measured."""
    return 64 << 20 if quick else 256 << 20


def machine_groups(quick: bool = False) -> list[Group]:
    """All that there is to try in processes of their own. Raises UserError as `real_rig`."""
    return [Group("GPUs", (Part("GPUs", DESCRIBE_LIMIT, _describe),)), *groups(real_rig(quick))]


def _describe() -> Iterator[Finding]:
    devices = describe_devices()
    names = [d["name"] for d in devices]
    yield Finding(
        "GPUs", True, ", ".join(f"{names.count(n)} x {n}" for n in dict.fromkeys(names)), {"devices": devices}
    )


def describe_devices() -> list[dict]:
    """Every GPU that a backend can drive here; they are opened for it, in this process."""
    if gpu.missing("cupy") is None:
        from ...transports.cupy_device import CupyDevice

        devices = [CupyDevice(i, system_scope=False) for i in range(gpu.gpus_here())]
    else:
        from ...transports.numba_device import open_devices

        devices = open_devices()
    with closing(*devices):
        return [device.describe() for device in devices]


def _in_order(dtypes: Iterable[str]) -> tuple[str, ...]:
    return (FIRST_DTYPE, *(d for d in dtypes if d != FIRST_DTYPE))


def _cupy_kernels() -> KernelRig:
    import cupy

    from ...kernels import cuda_source, cupy_cuda

    memory = kernels_selftest.device_memory(cupy.asarray, cupy.asnumpy)
    return KernelRig("cupy", cupy_cuda, memory, _in_order(DEVICE_DTYPES), cuda_source.THREADS)


def _numba_kernels() -> KernelRig:
    from numba import cuda

    from ...kernels import numba_cuda

    memory = kernels_selftest.device_memory(cuda.to_device, lambda array: array.copy_to_host())
    return KernelRig("numba-cuda", numba_cuda, memory, _in_order(DTYPES), numba_cuda.THREADS)


def _cupy_devices(quick: bool) -> list[DeviceRig]:
    from ...transports import nccl
    from ...transports.cupy_device import open_devices

    programs = JOBS if quick else [(dtype, op) for dtype in DEVICE_DTYPES for op in OPS]
    one = DeviceRig("one GPU, cupy", lambda: open_devices([0]), ("walk", "steps"), nccl.of_this_process, programs)
    count = gpu.device_count("cupy", None)
    if count == 1:
        return [one]
    every = DeviceRig(f"{count} GPUs, cupy", lambda: open_devices(None), ("walk",), nccl.of_this_process, programs)
    return [one, every]
