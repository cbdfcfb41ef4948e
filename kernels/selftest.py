"""Checks a GPU backend's kernels against NumPy: every dtype, op, alignment, aliasing, one destination and two.

    failures = [problem for case in cases(ALL) if (problem := run_case(backend, memory, case))]

Used by the tests (under Numba's simulator, and with CUDA C++ compiled for the CPU) and on a real GPU by
``busbw gpu-selftest``. The reference is NumPy's arithmetic on whole arrays, and integers of Python for quotients; floats
must agree to the last bit, any NaN counting for any other, and any zero for any other as a minimum or maximum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import float8
from .device import VECTOR
from .dtypes import DEVICE_DTYPES, OPS, DType, bfloat16_from_float32, float32_from_bfloat16

GUARD = 64  # bytes around an array that must stay as they are
GUARD_BYTE = 0xA5
LINE = 64  # arrays are laid out from multiples of this
DIVISORS = (1, 3, 7, 127, 128, 255, 256, 1000, 300_000, 2**31 - 1)
UFUNC = {"sum": np.add, "prod": np.multiply, "min": np.minimum, "max": np.maximum, "avg": np.add}


class Memory(NamedTuple):
    """How bytes get to where a backend can use them, and back."""

    place: Callable[[np.ndarray], Any]  # uint8 host array -> a handle on a copy, aligned to LINE
    window: Callable[[Any, int, int, np.dtype], Any]  # (handle, first byte, count, dtype) -> an array of the backend
    read: Callable[[Any], np.ndarray]  # handle -> uint8 host array, when all work is done


def host_memory() -> Memory:
    """For backends that run on the CPU and take NumPy arrays: simulators."""

    def place(values):
        memory = np.empty(len(values) + LINE, np.uint8)
        begin = -memory.ctypes.data % LINE
        memory[begin : begin + len(values)] = values
        return memory[begin : begin + len(values)]

    def window(handle, begin, count, dtype):
        return handle[begin : begin + count * dtype.itemsize].view(dtype)

    return Memory(place, window, np.copy)


@dataclass(frozen=True)
class Window:
    """Part of a device array, by its address: what ``__cuda_array_interface__`` is for."""

    base: Any  # kept alive
    address: int
    count: int
    dtype: np.dtype

    @property
    def __cuda_array_interface__(self) -> dict:
        return {"shape": (self.count,), "typestr": self.dtype.str, "data": (self.address, False), "version": 3}


def device_memory(place: Callable[[np.ndarray], Any], read: Callable[[Any], np.ndarray]) -> Memory:
    """For GPUs: `cupy.asarray` and `cupy.asnumpy`, or `cuda.to_device` and `lambda array: array.copy_to_host()`."""

    def window(handle, begin, count, dtype):
        return Window(handle, handle.__cuda_array_interface__["data"][0] + begin, count, np.dtype(dtype))

    return Memory(place, window, read)


class Case(NamedTuple):
    """One launch: a reduction of `sources` arrays of `count` elements."""

    dtype: str
    op: str
    contributions: int | None
    count: int
    sources: int  # 2: reduce; else, or with `many`: reduce_many
    many: bool
    both: bool  # with a second destination
    offsets: tuple[int, ...]  # of dst, dst2 and the sources, in elements after a multiple of LINE bytes
    alias: int | None  # the source that dst is, if one
    seed: int

    def __str__(self) -> str:
        kernel = f"{self.sources} sources" if self.many else "reduce"
        alias = "" if self.alias is None else f", dst is source {self.alias}"
        division = "" if self.contributions is None else f" / {self.contributions}"
        both = ", two destinations" if self.both else ""
        return f"{self.op}{division} {self.dtype}[{self.count}], {kernel}, offsets {self.offsets}{alias}{both}"


def numbers(stored: np.ndarray, dtype: DType) -> np.ndarray:
    """Stored values -> the NumPy type arithmetic is done in."""
    if dtype.name == "bfloat16":
        return float32_from_bfloat16(stored)
    if dtype.name.startswith("float8"):
        return float8.values(dtype.name)[stored].astype(np.float32)
    return stored.astype(np.float32) if dtype.name == "float16" else stored


def stored(numbers: np.ndarray, dtype: DType) -> np.ndarray:
    """The inverse of `numbers`, rounding to nearest even."""
    if dtype.name == "bfloat16":
        return bfloat16_from_float32(numbers)
    if dtype.name.startswith("float8"):
        return float8.codes(dtype.name, numbers)
    return numbers.astype(dtype.storage)


def some_values(rng: np.random.Generator, dtype: DType, count: int) -> np.ndarray:
    """Any bit patterns (NaN, infinities, denormals, extremes) mixed with ordinary numbers."""
    wild = rng.integers(0, 256, count * dtype.itemsize, dtype=np.uint8).view(dtype.storage)
    if not dtype.is_float:
        return wild
    tame = stored(rng.normal(size=count).astype(np.float64 if dtype.name == "float64" else np.float32), dtype)
    return np.where(rng.random(count) < 0.4, wild, tame)


def reference(op: str, dtype: DType, sources: Sequence[np.ndarray], contributions: int | None) -> np.ndarray:
    """What a reduction over the sources, in order, is to store."""
    with np.errstate(all="ignore"):
        result = numbers(sources[0], dtype)
        for source in sources[1:]:
            result = UFUNC[op](result, numbers(source, dtype))
        if contributions is not None and dtype.is_float:
            result = result / result.dtype.type(contributions)
        elif contributions is not None:
            exact = [abs(int(x)) // contributions * (-1 if x < 0 else 1) for x in result]
            result = np.array(exact, dtype=dtype.storage)
        return stored(result, dtype)


def differing(got: np.ndarray, want: np.ndarray, dtype: DType, op: str) -> np.ndarray:
    """Indices at which they differ."""
    x, y = numbers(got, dtype), numbers(want, dtype)
    if not dtype.is_float:
        return np.flatnonzero(x != y)
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    if op not in ("min", "max"):
        same &= np.isnan(x) | (np.signbit(x) == np.signbit(y))
    return np.flatnonzero(~same)


def _layout(counts: Sequence[int], offsets: Sequence[int], itemsize: int) -> tuple[list[int], int]:
    """(first byte of each array, bytes in all): from lines of their own, with guards between."""
    begins, at = [], GUARD
    for count, offset in zip(counts, offsets):
        at = -(-at // LINE) * LINE + offset * itemsize
        begins.append(at)
        at += count * itemsize + GUARD
    return begins, at


def run_case(backend: Any, memory: Memory, case: Case) -> str | None:
    """None if the backend does the case right, else what was wrong, in one line."""
    dtype = DEVICE_DTYPES[case.dtype]
    rng = np.random.default_rng(case.seed)
    begins, nbytes = _layout([case.count] * len(case.offsets), case.offsets, dtype.itemsize)
    host = np.full(nbytes, GUARD_BYTE, np.uint8)
    length = case.count * dtype.itemsize
    values = [some_values(rng, dtype, case.count) for _ in range(case.sources)]
    places = begins[2:]
    if case.alias is not None:
        places[case.alias] = begins[0]
    for begin, value in zip(places, values):
        host[begin : begin + length] = value.view(np.uint8)
    handle = memory.place(host)

    def window(begin):
        return memory.window(handle, begin, case.count, dtype.storage)

    arrays = [window(begin) for begin in places]
    options = {
        "dtype": case.dtype,
        "contributions": case.contributions,
        "dst2": window(begins[1]) if case.both else None,
    }
    if case.many:
        backend.reduce_many(window(begins[0]), arrays, case.op, **options)
    else:
        backend.reduce(window(begins[0]), *arrays, case.op, **options)
    after = memory.read(handle)

    want = reference(case.op, dtype, values, case.contributions)
    for name, begin in [("dst", begins[0]), ("dst2", begins[1])][: 1 + case.both]:
        got = np.frombuffer(after[begin : begin + length].tobytes(), dtype.storage)
        wrong = differing(got, want, dtype, case.op)
        if len(wrong):
            i = wrong[0]
            return f"{case}: {len(wrong)} of {name} wrong, first [{i}] = {got[i]!r}, not {want[i]!r}"
        host[begin : begin + length] = after[begin : begin + length]
    touched = np.flatnonzero(after != host)
    return f"{case}: wrote outside of dst, at byte {touched[0] - begins[0]} from it" if len(touched) else None


def counts_around(itemsize: int, workers: int) -> list[int]:
    """Numbers of elements at which a walk changes course: around a vector, and around the unrolled loop of `workers`."""
    lanes = VECTOR // itemsize
    turn = 4 * workers * lanes
    return sorted({1, lanes - 1, lanes, lanes + 1, 2 * lanes + 1, turn - 1, turn, turn + lanes + 3} - {0})


def cases(dtypes: Sequence[str], workers: int, seed: int = 0) -> Iterator[Case]:
    """For each dtype and op: every count, with alignments, aliases, destinations and numbers of sources in turn.

    workers: threads of the grid that the backend launches for few elements.
    """
    rng = np.random.default_rng(seed)
    for name in dtypes:
        itemsize = DEVICE_DTYPES[name].itemsize
        lanes = VECTOR // itemsize
        for op in OPS:
            for divided in (False, True)[: 1 + (op == "avg")]:
                for many in (False, True):
                    for i, count in enumerate(counts_around(itemsize, workers)):
                        k = int(rng.choice([1, 2, 3, 5, 6, 9])) if many else 2
                        offsets = _offsets(rng, i % 3, k + 2, lanes)
                        alias = [None, 0, k - 1][rng.integers(3)]
                        divisor = int(rng.choice(DIVISORS)) if divided else None
                        both = bool(rng.integers(2))
                        yield Case(name, op, divisor, count, k, many, both, offsets, alias, int(rng.integers(2**31)))


def _offsets(rng, kind: int, arrays: int, lanes: int) -> tuple[int, ...]:
    """All on a line; all alike, but off it; each as it comes."""
    if kind == 0:
        return (0,) * arrays
    if kind == 1:
        return (int(rng.integers(1, lanes)),) * arrays
    return tuple(int(x) for x in rng.integers(0, lanes, arrays))


def table_index(i: int) -> int:
    """h(i) of the test pattern."""
    return ((i * 2654435761) % 2**32) >> 24


def run_pattern(backend: Any, memory: Memory, dtype_name: str, count: int, offset: int, start: int) -> str | None:
    """Fill, copy and check on `count` elements; None if right. Some elements are damaged, to be counted."""
    dtype = DEVICE_DTYPES[dtype_name]
    rng = np.random.default_rng(count + offset)
    where = f"{dtype_name}[{count}] at offset {offset} from {start}"
    table = np.arange(256)
    if dtype.is_float:
        table = (table % 8 + 1).astype(np.float32)  # held exactly by every dtype
    entries = stored(table, dtype) if dtype.is_float else table.astype(dtype.storage)
    pattern = entries[[table_index(start + i) for i in range(count)]]

    begins, nbytes = _layout([256, count, count, count], [0, offset, 0, 1], dtype.itemsize)
    host = np.full(nbytes, GUARD_BYTE, np.uint8)
    host[begins[0] : begins[0] + entries.nbytes] = entries.view(np.uint8)
    handle = memory.place(host)
    tables, first, second, third = (
        memory.window(handle, begin, n, dtype.storage) for begin, n in zip(begins, [256, count, count, count])
    )
    backend.fill(first, tables, start)
    backend.copy(second, first, dst2=third)
    for begin in begins[1:]:
        host[begin : begin + pattern.nbytes] = pattern.view(np.uint8)
    after = memory.read(handle)
    if (after != host).any():
        return f"fill and copy {where}: byte {np.flatnonzero(after != host)[0]} is wrong"

    bound = np.dtype(np.float64) if dtype.is_float else dtype.storage
    limits = memory.place(np.concatenate([table.astype(bound).view(np.uint8)] * 2))
    low = memory.window(limits, 0, 256, bound)
    high = memory.window(limits, 256 * bound.itemsize, 256, bound)
    damaged = sorted(set(rng.integers(0, count, 3).tolist()))
    for i in damaged:
        at = begins[1] + i * dtype.itemsize
        host[at : at + dtype.itemsize] ^= 0x44  # another number of every dtype, or no number
    broken = memory.place(host)
    changed = memory.window(broken, begins[1], count, dtype.storage)
    results = {
        "check against the table": (backend.check(third, tables, start=start), 0),
        "check against bounds": (backend.check(third, low, high, start, dtype_name), 0),
        "exact check of damaged elements": (backend.check(changed, tables, start=start), len(damaged)),
        "check of damaged elements": (backend.check(changed, low, high, start, dtype_name), len(damaged)),
    }
    for what, (got, want) in results.items():
        if got != want:
            return f"{what}, {where}: {got} wrong, not {want}"
    return None
