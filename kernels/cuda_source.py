"""Where the CUDA C++ of `kernels/cuda` is, and how it is compiled. Imports nothing of CUDA."""

from __future__ import annotations

from pathlib import Path

from .dtypes import DEVICE_DTYPES

FOLDER = Path(__file__).parent / "cuda"
THREADS = 512  # of a block; __launch_bounds__ in kernels.cu
OPS = ("sum", "prod", "min", "max", "avg_final")
BITS_DTYPE = "uint8"  # the module of this dtype holds the kernels that only move bits as well


def source(name: str = "kernels.cu") -> str:
    """The text of a file of `kernels/cuda`."""
    return (FOLDER / name).read_text()


def common_options() -> tuple[str, ...]:
    """NVRTC's options for whatever includes a header of `kernels/cuda`."""
    return ("-std=c++17", f"-I{FOLDER}")


def moves_bits(name: str) -> bool:
    """Whether a kernel only moves or compares bits: the module of these alone is what a session waits for first."""
    return name == "copy" or name.startswith(("fill_", "check_exact_"))


def options(dtype: str, *, bits_alone: bool = False) -> tuple[str, ...]:
    """NVRTC's options for kernels.cu on a dtype (DEVICE_DTYPES), without the architecture.

    bits_alone: of BITS_DTYPE, only the kernels that `moves_bits`.
    """
    if dtype not in DEVICE_DTYPES:
        raise ValueError(f"dtype {dtype!r} has no CUDA kernels; accepted: {', '.join(DEVICE_DTYPES)}")
    bits = ("-DBUSBW_WITH_BITS",) if dtype == BITS_DTYPE else ()
    alone = ("-DBUSBW_BITS_ALONE",) if bits_alone else ()
    return (*common_options(), f"-DBUSBW_DTYPE={dtype}", f"-DBUSBW_THREADS={THREADS}", *bits, *alone)


def kernel_names(dtype: str) -> list[str]:
    """Names of the kernels in the module of a dtype."""
    names = [f"{role}_{op}" for role in ("reduce", "many") for op in OPS] + ["check_range", "copy"]
    if dtype == BITS_DTYPE:
        names += [f"{role}_{size}" for role in ("fill", "check_exact") for size in (1, 2, 4, 8)]
    return names
