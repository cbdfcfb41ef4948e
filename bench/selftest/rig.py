"""What a self-test tries: the machine's (machine.py), or a test's without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...kernels import selftest as kernels_selftest

PATTERNS = ((1, 0, 0), (1000, 3, 5), (100_003, 1, 2**40 - 7))  # count, offset, start
JOBS = (("float32", "sum"), ("bfloat16", "avg"), ("int8", "prod"), ("uint64", "max"), ("float64", "min"))


@dataclass(frozen=True)
class KernelRig:
    """A kernel backend: name; functions as kernels.DeviceBackend; memory; dtypes; workers: threads of its smallest grid."""

    name: str
    functions: Any
    memory: kernels_selftest.Memory
    dtypes: Sequence[str]
    workers: int


@dataclass(frozen=True)
class DeviceRig:
    """Devices of one process: opened anew for each session, which closes them.

    ways: of device.DeviceSession; open_nccl: as there; programs: (dtype, op) of walk.cu to compile.
    """

    name: str
    open: Callable[[], list]
    ways: Sequence[str]
    open_nccl: Any = None
    programs: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Rig:
    """lacks: what cannot be tried, and why; large_bytes: the message whose bandwidth is measured; array_bytes: of the arrays
    that are copied and reduced (None: by the device's cache); timeout: seconds that one wait on a device may last."""

    kernels: Sequence[KernelRig] = ()
    devices: Sequence[DeviceRig] = ()
    lacks: Sequence[tuple[str, str]] = ()
    counts: Sequence[int] = (1, 1000, 100_003)
    patterns: Sequence[tuple[int, int, int]] = PATTERNS
    ranks: Sequence[int] = (2, 3, 4)
    large_bytes: int = 256 << 20
    array_bytes: int | None = None
    timeout: float = 3.0
