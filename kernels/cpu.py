"""The CPU backend, compiled by Numba: function pointers for compiled walkers, and the same on NumPy arrays.

**Function pointers** (`pointers`, `fill_pointer`, `check_pointer`, `exact_check_pointer`). All have one C signature

    void kernel(int64 dst, int64 dst2, int64 a, int64 b, int64 count, int64 param)

with addresses as int64. They take no GIL, call nothing, never fail and may run in any thread. `dst` (and `dst2`) may
be `a` or `b` exactly, or not touch them; partial overlap gives undefined results. No alignment is needed; a `_nt`
kernel is plain where `dst` cannot be brought to a 64-byte line, and plain for a `dst2` placed otherwise in its line.

**Arithmetic.** float64, float32 and the integers in their own type (integers wrap around). float16 and bfloat16 are
widened to float32, operated on once, and rounded to nearest even, so that the result of an all-reduce depends on its
order as it does on a GPU. min and max of floats give NaN if either is NaN (as NumPy's minimum); which zero min(-0, +0)
gives is not said. avg is the sum in every pairwise step but the last, which adds and divides by `param`, the number of
contributions (>= 1): 16-bit floats round to storage once, after both; integers wrap in the sum and the quotient is
truncated towards zero. So the average over one rank is a copy.

Compiled code is kept on disk by Numba (next to this file, or in the user's cache folder where that cannot be written).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from functools import cache

import numpy as np

from . import simd
from .dtypes import DType, find_dtype, find_op, storage_dtype

_KERNEL = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 6)
_COUNTER = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)
TABLE_ENTRIES = 256


_STORES = {
    "": (simd.PLAIN, simd.NONE),
    "_nt": (simd.STREAM, simd.NONE),
    "_both": (simd.PLAIN, simd.PLAIN),
    "_both_nt": (simd.STREAM, simd.STREAM),
    "_both_nt2": (simd.PLAIN, simd.STREAM),
}


class Pointers:
    """Addresses of the kernels for one op and dtype, each compiled when first asked for; `count` in elements, for the copies
    in bytes.

    reduce: dst[i] = op(a[i], b[i])                          dst2 is ignored
    reduce_both: dst[i] = dst2[i] = op(a[i], b[i])
    reduce_final, reduce_final_both: the same with avg's division by `param`; for other ops the two above
    copy: dst[i] = a[i]                                      dst2, b and param are ignored

    There are reduce, reduce_both and copy with _nt behind: stores go past the caches (non-temporal), and a fence at the end
    lets a release store that follows in the same thread publish them; and reduce_both with _nt2: only the stores to dst2 do.
    They pay where all arrays in use together are larger than the last-level cache; in cache they are up to four times slower.
    """

    def __init__(self, op: str, dtype: str):
        pairwise = "sum" if op == "avg" else op
        self._kernels = {
            f"{kind}{suffix}": (name, of, *stores)
            for kind, name, of in (
                ("reduce", pairwise, dtype),
                ("reduce_final", "avg_final" if op == "avg" else op, dtype),
                ("copy", "copy", "uint8"),
            )
            for suffix, stores in _STORES.items()
            if kind != "copy" or simd.NONE in stores
        }

    def __getattr__(self, name: str) -> int:
        if name.startswith("_") or name not in self._kernels:
            raise AttributeError(name)
        address = _compiled(simd.elementwise, *self._kernels[name]).address
        setattr(self, name, address)
        return address

    @property
    def compiled(self) -> dict[str, int]:
        """The addresses asked for so far, by name."""
        return {name: vars(self)[name] for name in self._kernels if name in vars(self)}


# functools.cache lets two threads compile the same kernel and keeps one of the two: the other's address would dangle.
_COMPILING = threading.Lock()


@cache
def _compiled_once(factory: Callable, *arguments):
    return factory(*arguments)


def _compiled(factory: Callable, *arguments):
    """What a factory of `simd` compiles, made once and kept, so that its address is valid until the process ends."""
    with _COMPILING:
        return _compiled_once(factory, *arguments)


def pointers(op: str, dtype: str | DType) -> Pointers:
    """The kernels for `op` (dtypes.OPS) on `dtype` (either name).

    Raises ValueError for an unknown op or dtype.
    """
    return _pointers(find_op(op), find_dtype(dtype).name)


@cache
def _pointers(op: str, dtype: str) -> Pointers:
    return Pointers(op, dtype)


def fill_pointer(itemsize: int) -> int:
    """Address of `void fill(dst, -, table, -, count, start)`: dst[i] = table[h(start + i)].

    h(i) = ((i * 2654435761) mod 2**32) >> 24; table: 256 elements of `itemsize` (1, 2, 4 or 8) bytes. Bits are copied.
    Tables, here and below, are aligned to their elements.
    """
    if itemsize not in (1, 2, 4, 8):
        raise ValueError(f"itemsize {itemsize} has no fill kernel; accepted: 1, 2, 4, 8")
    return _compiled(simd.filler, itemsize).address


def check_pointer(dtype: str | DType) -> int:
    """Address of `int64 check(dst, -, low, high, count, start)`: how many dst[i] lie outside low[h]..high[h].

    h as in `fill_pointer`, of start + i. low and high are tables of 256 float64 for a floating-point dtype (values are
    compared as float64), else of 256 elements of the dtype. NaN counts as wrong.
    """
    return _compiled(simd.range_checker, find_dtype(dtype).name).address


def exact_check_pointer(itemsize: int) -> int:
    """Address of `int64 check(dst, -, table, -, count, start)`: how many dst[i] differ in any bit from table[h]."""
    if itemsize not in (1, 2, 4, 8):
        raise ValueError(f"itemsize {itemsize} has no check kernel; accepted: 1, 2, 4, 8")
    return _compiled(simd.exact_checker, itemsize).address


def call(pointer: int, dst: int, dst2: int = 0, a: int = 0, b: int = 0, count: int = 0, param: int = 0) -> None:
    """Call a kernel by its address from Python (the GIL is released; about a microsecond of overhead)."""
    _KERNEL(pointer)(dst, dst2, a, b, count, param)


# The interface of a backend (kernels.Backend), on NumPy arrays.


def available() -> str | None:
    """None: this backend runs wherever Numba does."""
    return None


def _require_array(name: str, array: object) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is {type(array).__name__}; accepted: a NumPy array")


def _raw(name: str, array: np.ndarray) -> DType:
    """The array's own NumPy dtype as a DType, for functions that only move bits."""
    _require_array(name, array)
    return DType(str(array.dtype), str(array.dtype), array.itemsize, array.dtype, "u")


def _require(name: str, array: np.ndarray, dtype: DType, shape: tuple[int, ...] | None = None) -> None:
    _require_array(name, array)
    if array.dtype != dtype.storage:
        stored = f"{dtype.name}, stored as {dtype.storage}" if dtype.name == "bfloat16" else dtype.name
        raise ValueError(f"{name} holds {array.dtype}; accepted: {stored}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} is not contiguous (strides {array.strides}); accepted: a C-contiguous array")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; accepted: {shape}")


def _require_writable(dst: np.ndarray) -> None:
    if not dst.flags.writeable:
        raise ValueError("dst is read-only; accepted: a writable array")


def _require_no_partial_overlap(dst: np.ndarray, name: str, other: np.ndarray) -> None:
    start, begin = dst.ctypes.data, other.ctypes.data
    if start != begin and start < begin + other.nbytes and begin < start + dst.nbytes:
        raise ValueError(
            f"dst and {name} overlap, shifted by {start - begin} bytes; accepted: the same memory or none shared"
        )


def reduce(
    dst: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    op: str,
    dtype: str | DType | None = None,
    contributions: int | None = None,
) -> None:
    """dst[i] = op(a[i], b[i]). Arrays of one shape, contiguous; dst may be a or b.

    dtype: taken from the arrays if None; "bfloat16" (uint16 bit patterns) must be said.
    contributions: for op "avg" only, in the last pairwise step: how many contributions the sum holds, to divide by.
    Raises ValueError for other shapes, dtypes, strides or partial overlap, TypeError for what is no array.
    """
    _require_array("dst", dst)
    kind = storage_dtype(dst) if dtype is None else find_dtype(dtype)
    find_op(op)
    if contributions is not None and (op != "avg" or contributions < 1):
        raise ValueError(f"contributions={contributions} with op {op!r}; accepted: a number >= 1, with op 'avg' only")
    _require("dst", dst, kind)
    _require_writable(dst)
    for name, source in (("a", a), ("b", b)):
        _require(name, source, kind, dst.shape)
        _require_no_partial_overlap(dst, name, source)
    name = "avg_final" if contributions is not None else "sum" if op == "avg" else op
    kernel = _compiled(simd.elementwise, name, kind.name, simd.PLAIN, simd.NONE).address
    call(kernel, dst.ctypes.data, 0, a.ctypes.data, b.ctypes.data, dst.size, contributions or 1)


def copy(dst: np.ndarray, src: np.ndarray) -> None:
    """dst[...] = src. Contiguous arrays of one shape and dtype (any) that share no memory, or all of it."""
    dtype = _raw("src", src)
    _require("src", src, dtype)
    _require("dst", dst, dtype, src.shape)
    _require_writable(dst)
    _require_no_partial_overlap(dst, "src", src)
    kernel = _compiled(simd.elementwise, "copy", "uint8", simd.PLAIN, simd.NONE).address
    call(kernel, dst.ctypes.data, 0, src.ctypes.data, 0, src.nbytes)


def fill(dst: np.ndarray, table: np.ndarray, start: int = 0) -> None:
    """dst[i] = table[h(start + i)] in dst's C order; table: 256 elements of dst's dtype. h: see `fill_pointer`."""
    dtype = _raw("table", table)
    _require("table", table, dtype, (TABLE_ENTRIES,))
    _require("dst", dst, dtype)
    _require_writable(dst)
    call(fill_pointer(dst.itemsize), dst.ctypes.data, 0, table.ctypes.data, 0, dst.size, start)


def check(
    dst: np.ndarray,
    low: np.ndarray,
    high: np.ndarray | None = None,
    start: int = 0,
    dtype: str | DType | None = None,
) -> int:
    """How many elements of dst are wrong: not in low[h] <= dst[i] <= high[h], h = h(start + i) as `fill` has it.

    low, high: 256 entries each; float64 for floating-point dtypes, else dst's dtype. NaN is wrong.
    high None: low is a table of dst's dtype, and dst[i] must have its very bits (-0 is not +0, and NaN may be right).
    dtype: as for `reduce`; not needed with high None.
    """
    _require_array("dst", dst)
    if high is None:
        raw = _raw("dst", dst)
        _require("dst", dst, raw)
        _require("low", low, raw, (TABLE_ENTRIES,))
        pointer, second = exact_check_pointer(dst.itemsize), 0
    else:
        kind = storage_dtype(dst) if dtype is None else find_dtype(dtype)
        _require("dst", dst, kind)
        bound = find_dtype("float64") if kind.is_float else kind
        _require("low", low, bound, (TABLE_ENTRIES,))
        _require("high", high, bound, (TABLE_ENTRIES,))
        pointer, second = check_pointer(kind), high.ctypes.data
    return _COUNTER(pointer)(dst.ctypes.data, 0, low.ctypes.data, second, dst.size, start)
