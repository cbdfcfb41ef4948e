"""Arithmetic on buffers: reduce, copy, fill, check. One backend a file; importing this room imports none of them.

    cpu = backend("cpu")
    cpu.reduce(dst, a, b, "sum")

A backend is a module (or object) with the functions of `Backend`. Its arrays are its own (NumPy on the CPU, anything with
``__cuda_array_interface__`` on a GPU); names of ops and dtypes are those of `dtypes`. One more is one more file and a
line in BACKENDS, or, outside busbw, a call of `register`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol, runtime_checkable

# name -> where its module is, relative to this package if it starts with a dot
BACKENDS: dict[str, str] = {"cpu": ".cpu", "numba-cuda": ".numba_cuda", "cupy": ".cupy_cuda"}


@runtime_checkable
class Backend(Protocol):
    """What every backend does, on contiguous arrays of its own kind. ValueErrors name what would be accepted."""

    def available(self) -> str | None:
        """None if the backend can run here, else the reason why not, in one line."""

    def reduce(
        self, dst: Any, a: Any, b: Any, op: str, dtype: str | None = None, contributions: int | None = None
    ) -> None:
        """dst[i] = op(a[i], b[i]); op in sum, prod, min, max, avg. Arrays of one shape and dtype; dst may be a or b.

        dtype None: the arrays'; "bfloat16" must be named where arrays hold its bit patterns.
        avg adds; with `contributions` (the last step's number of summands) it divides by that as well.
        """

    def copy(self, dst: Any, src: Any) -> None:
        """dst[...] = src."""

    def fill(self, dst: Any, table: Any, start: int = 0) -> None:
        """dst[i] = table[h(start + i)], h(i) = ((i * 2654435761) mod 2**32) >> 24; table: 256 of dst's dtype."""

    def check(self, dst: Any, low: Any, high: Any | None = None, start: int = 0, dtype: str | None = None) -> int:
        """How many dst[i] are not within low[h(start + i)] and high[h(start + i)].

        low, high: 256 entries, float64 for floating-point dtypes, else of dst's dtype. NaN is within nothing.
        high None: low is of dst's dtype, and what counts is a difference in any bit.
        """


@runtime_checkable
class DeviceBackend(Backend, Protocol):
    """What a backend on a GPU does besides. Its other functions take ``stream`` and, where they write, ``dst2`` too."""

    def reduce_many(
        self, dst: Any, sources: Any, op: str, dtype: str | None = None, contributions: int | None = None
    ) -> None:
        """dst[i] = op over all sources[j][i], j ascending; rounded to storage once."""

    def launch(self, kernel: str, dtype: str, arguments: Any, nbytes: int, stream: Any) -> None:
        """Launch a kernel of `device` by name, on addresses."""


def register(name: str, module: str) -> None:
    """Make the backend at the absolute module path `module` known as `name`. Raises ValueError if the name is taken."""
    if BACKENDS.get(name, module) != module:
        raise ValueError(f"kernel backend {name!r} is already {BACKENDS[name]!r}; choose another name")
    BACKENDS[name] = module


def backend(name: str) -> Backend:
    """The backend called `name`, imported now. Raises ValueError for an unknown name, ImportError if the import fails.

    That it imports does not mean it can run: ask its `available()`.
    """
    if name not in BACKENDS:
        raise ValueError(f"kernel backend {name!r} is not known; accepted: {', '.join(sorted(BACKENDS))}")
    return import_module(BACKENDS[name], __package__)
