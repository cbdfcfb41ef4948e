"""What the GPU backends share: how device arrays are described and checked, and the functions of `kernels.Backend`.

A backend brings a `Driver`, which compiles and launches kernels by name on addresses; `Front` turns arrays into addresses.
Imports NumPy only.

**Kernels by name**, all over a one-dimensional grid of any size, with 64-bit integer arguments::

    reduce_OP  dst, dst2, a, b, count, param                 OP: sum, prod, min, max, avg_final; dst2 may be 0
    many_OP    dst, dst2, table, k, count, param             table: device array of k addresses
    copy       dst, dst2, src, bytes                         dtype "uint8"
    fill_N     dst, table, count, start                      N: bytes an element; dtype "uint8"
    check_range      dst, low, high, count, start, counter   counter: address of a uint64 that is added to
    check_exact_N    dst, table, count, start, counter       dtype "uint8"

Addresses are multiples of the element size. dst and dst2 are a source exactly, or share nothing with any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from .dtypes import DEVICE_DTYPES, DType, find_device_dtype, find_op, storage_dtype

VECTOR = 16  # bytes of the widest load and store
TABLE_ENTRIES = 256


class DeviceArray(NamedTuple):
    """Where an array lies on a device."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype
    writable: bool

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


class Driver(Protocol):
    """What a backend brings."""

    def describe(self, name: str, array: Any) -> DeviceArray:
        """Raises TypeError for what is no device array, ValueError if it is not contiguous."""

    def launch(self, kernel: str, dtype: str, arguments: Sequence[int], nbytes: int, stream: Any) -> None:
        """Launch a kernel on as many threads as `nbytes` of work need and the device runs at a time."""

    def upload(self, values: np.ndarray, stream: Any) -> Any:
        """A device array of those values, in order with the stream."""

    def download(self, array: Any, stream: Any) -> np.ndarray:
        """Its values, when all work of the stream before this is done."""


class Sources(NamedTuple):
    """k arrays of one shape and dtype, and the table of their addresses on the device. `Front.sources` makes one."""

    arrays: tuple[DeviceArray, ...]
    table: Any
    kept: tuple[Any, ...]  # the arrays themselves, so that they live as long as the table


def from_interface(name: str, array: Any) -> DeviceArray:
    """Describe an array by its ``__cuda_array_interface__`` (version 2 or 3).

    Raises TypeError where it has none, ValueError where it is masked or not contiguous.
    """
    interface = getattr(array, "__cuda_array_interface__", None)
    if interface is None:
        raise TypeError(f"{name} is {type(array).__name__}; accepted: an array with __cuda_array_interface__")
    dtype, shape = np.dtype(interface["typestr"]), tuple(interface["shape"])
    if interface.get("mask") is not None:
        raise ValueError(f"{name} is masked; accepted: an array without a mask")
    strides = interface.get("strides")
    if strides is not None and not _is_contiguous(shape, strides, dtype.itemsize):
        raise ValueError(f"{name} is not contiguous (strides {tuple(strides)}); accepted: a C-contiguous array")
    address, read_only = interface["data"]
    return DeviceArray(int(address or 0), shape, dtype, not read_only)


def _is_contiguous(shape, strides, itemsize: int) -> bool:
    expected = itemsize
    for length, stride in zip(reversed(shape), reversed(strides)):
        if length > 1 and stride != expected:
            return False
        expected *= length
    return True


def _require(name: str, array: DeviceArray, dtype: DType, shape: tuple[int, ...] | None = None) -> None:
    if array.dtype != dtype.storage:
        held = "" if str(dtype.storage) == dtype.name else f", stored as {dtype.storage}"
        raise ValueError(f"{name} holds {array.dtype}; accepted: {dtype.name}{held}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; accepted: {shape}")
    if array.address % min(dtype.itemsize, VECTOR):
        raise ValueError(f"{name} lies at {array.address:#x}; accepted: a multiple of its {dtype.itemsize} bytes")


def _require_writable(name: str, array: DeviceArray) -> None:
    if not array.writable:
        raise ValueError(f"{name} is read-only; accepted: a writable array")


def _require_no_partial_overlap(name: str, array: DeviceArray, other_name: str, other: DeviceArray) -> None:
    shift = array.address - other.address
    if shift and -array.nbytes < shift < other.nbytes and array.nbytes and other.nbytes:
        raise ValueError(
            f"{name} and {other_name} overlap, shifted by {shift} bytes; accepted: the same memory or none shared"
        )


def _raw(array: DeviceArray) -> DType:
    """The array's own NumPy dtype, for functions that only move bits."""
    return DType(str(array.dtype), str(array.dtype), array.dtype.itemsize, array.dtype, "u")


def _kind(array: DeviceArray, dtype: str | DType | None) -> DType:
    return storage_dtype(array) if dtype is None else find_device_dtype(dtype)


def _bits(dtype: DType) -> int:
    if dtype.itemsize not in (1, 2, 4, 8):
        raise ValueError(f"elements of {dtype.itemsize} bytes have no fill or check kernel; accepted: 1, 2, 4, 8")
    return dtype.itemsize


def final_op(op: str, contributions: int | None) -> str:
    """The kernel's op: "avg_final" where an average is divided, "sum" for its other steps. Raises ValueError."""
    find_op(op)
    if contributions is not None and (op != "avg" or contributions < 1):
        raise ValueError(f"contributions={contributions} with op {op!r}; accepted: a number >= 1, with op 'avg' only")
    return "avg_final" if contributions is not None else "sum" if op == "avg" else op


@dataclass(frozen=True)
class Front:
    """The functions of `kernels.Backend` on device arrays, with a second destination and a stream.

    Work is put in the order of `stream` (the driver's stream object, or the address of a CUstream as an int; None: the
    driver's default) and not waited for, except by `check`. Errors are ValueErrors that name what would be accepted,
    and TypeErrors for what is no device array.
    """

    driver: Driver
    dtypes: tuple[str, ...] = tuple(DEVICE_DTYPES)

    def _dtype(self, array: DeviceArray, dtype) -> DType:
        kind = _kind(array, dtype)
        if kind.name not in self.dtypes:
            raise ValueError(f"this backend has no kernels for {kind.name}; accepted: {', '.join(self.dtypes)}")
        return kind

    def _destinations(self, dst, dst2, kind_of) -> tuple[DType, DeviceArray, DeviceArray | None]:
        first = self.driver.describe("dst", dst)
        kind = kind_of(first)
        _require("dst", first, kind)
        _require_writable("dst", first)
        second = None if dst2 is None else self.driver.describe("dst2", dst2)
        if second is not None:
            _require("dst2", second, kind, first.shape)
            _require_writable("dst2", second)
            _require_no_partial_overlap("dst2", second, "dst", first)
        return kind, first, second

    def _source(self, name, source, kind, first, second) -> DeviceArray:
        _require(name, source, kind, first.shape)
        _require_no_partial_overlap("dst", first, name, source)
        if second is not None:
            _require_no_partial_overlap("dst2", second, name, source)
        return source

    def reduce(self, dst, a, b, op, dtype=None, contributions=None, *, dst2=None, stream=None) -> None:
        """dst[i] = dst2[i] = op(a[i], b[i]), as `kernels.cpu.reduce`; dst2 is optional.

        dtype: taken from the arrays if None; bfloat16 (held as uint16) and float8 (held as uint8) must be said.
        """
        name = final_op(op, contributions)
        kind, first, second = self._destinations(dst, dst2, lambda array: self._dtype(array, dtype))
        x, y = (
            self._source(label, self.driver.describe(label, source), kind, first, second)
            for label, source in (("a", a), ("b", b))
        )
        arguments = (first.address, second.address if second else 0, x.address, y.address)
        self._launch(f"reduce_{name}", kind.name, (*arguments, first.size, contributions or 1), first.nbytes, stream)

    def sources(self, arrays: Sequence[Any], *, stream=None) -> Sources:
        """The arrays with the table of their addresses on the device, for `reduce_many` to use more than once."""
        if not arrays:
            raise ValueError("there are no sources; accepted: one array or more")
        described = tuple(self.driver.describe(f"sources[{j}]", array) for j, array in enumerate(arrays))
        addresses = np.array([array.address for array in described], np.uint64).view(np.int64)
        return Sources(described, self.driver.upload(addresses, stream), tuple(arrays))

    def reduce_many(self, dst, sources, op, dtype=None, contributions=None, *, dst2=None, stream=None) -> None:
        """dst[i] = dst2[i] = op over all sources[j][i], j ascending; sources: a sequence of arrays, or a `Sources`.

        16-bit and 8-bit floats are accumulated in float32 and rounded once, at the end. avg without `contributions`
        only adds. dst may be a source.
        """
        name = final_op(op, contributions)
        kind, first, second = self._destinations(dst, dst2, lambda array: self._dtype(array, dtype))
        many = sources if isinstance(sources, Sources) else self.sources(sources, stream=stream)
        for j, source in enumerate(many.arrays):
            self._source(f"sources[{j}]", source, kind, first, second)
        table = self.driver.describe("table", many.table)
        arguments = (first.address, second.address if second else 0, table.address, len(many.arrays))
        self._launch(f"many_{name}", kind.name, (*arguments, first.size, contributions or 1), first.nbytes, stream)

    def copy(self, dst, src, *, dst2=None, stream=None) -> None:
        """dst[...] = dst2[...] = src, arrays of one shape and dtype (any)."""
        source = self.driver.describe("src", src)
        _, first, second = self._destinations(dst, dst2, lambda _: _raw(source))
        self._source("src", source, _raw(source), first, second)
        arguments = (first.address, second.address if second else 0, source.address, source.nbytes)
        self._launch("copy", "uint8", arguments, source.nbytes, stream)

    def fill(self, dst, table, start: int = 0, *, stream=None) -> None:
        """dst[i] = table[h(start + i)]; table: device array of 256 of dst's dtype. h: see `kernels.cpu`."""
        entries = self.driver.describe("table", table)
        kind = _raw(entries)
        _require("table", entries, kind, (TABLE_ENTRIES,))
        _, first, _ = self._destinations(dst, None, lambda _: kind)
        arguments = (first.address, entries.address, first.size, start)
        self._launch(f"fill_{_bits(kind)}", "uint8", arguments, first.nbytes, stream)

    def check(self, dst, low, high=None, start: int = 0, dtype=None, *, stream=None) -> int:
        """How many elements of dst are wrong, as `kernels.cpu.check`. Waits for the stream."""
        array, lower = self.driver.describe("dst", dst), self.driver.describe("low", low)
        counter = self.driver.upload(np.zeros(1, np.uint64), stream)
        count_at = self.driver.describe("counter", counter).address
        if high is None:
            kind = _raw(array)
            _require("dst", array, kind)
            _require("low", lower, kind, (TABLE_ENTRIES,))
            kernel, name, tables = f"check_exact_{_bits(kind)}", "uint8", (lower.address,)
        else:
            kind = self._dtype(array, dtype)
            upper = self.driver.describe("high", high)
            bound = find_device_dtype("float64") if kind.is_float else kind
            _require("dst", array, kind)
            _require("low", lower, bound, (TABLE_ENTRIES,))
            _require("high", upper, bound, (TABLE_ENTRIES,))
            kernel, name, tables = "check_range", kind.name, (lower.address, upper.address)
        self._launch(kernel, name, (array.address, *tables, array.size, start, count_at), array.nbytes, stream)
        return int(self.driver.download(counter, stream)[0])

    def _launch(self, kernel, dtype, arguments, nbytes, stream) -> None:
        if nbytes:  # a grid of no blocks is an error
            self.driver.launch(kernel, dtype, arguments, nbytes, stream)


def blocks_for(nbytes: int, threads: int, most: int) -> int:
    """Blocks of `threads` for `nbytes` of a result: a vector a thread, and no more than run at a time."""
    return max(1, min(most, -(-nbytes // (VECTOR * threads))))
