"""The kernels of the Numba CUDA backend, as Python functions for `cuda.jit`: `function(name, dtype)`.

Names and arguments are those of `device`. Every kernel is a grid-stride walk over vectors of 16 bytes, aligned at dst::

    dst   ...|--------|--------|--------|--------|...      | = a multiple of 16 bytes
           h1 vector 0  vector 1  vector 2  vector 3 t     h, t: elements before and after, one by one
    thread 0 1     0        1         2        0   ...     of a grid of 3

Where all arrays lie alike in their 16 bytes a thread loads four vectors of each source before it stores; a source that
lies otherwise is loaded one element at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import cuda

from .numba_cuda_memory import SIMULATED, add_to, load_again, memory, nanoseconds

ARGUMENTS = {"gate": 3, "reduce": 6, "many": 6, "copy": 4, "fill": 4, "check_exact": 5, "check_range": 6}
_BITS = {1: "uint8", 2: "uint16", 4: "uint32", 8: "uint64"}


def _device(function: Callable) -> Callable:
    """A device function. The simulator calls it as it is: its wrapper costs more than the functions do."""
    return function if SIMULATED else cuda.jit(device=True)(function)


def signature(name: str):
    """Numba's signature of a kernel: int64 arguments."""
    from numba.cuda import types

    (count,) = [count for role, count in ARGUMENTS.items() if name.startswith(role)]
    return types.void(*[types.int64] * count)


def function(name: str, dtype: str) -> Callable:
    """The Python function of the kernel `name` (see `device`) on `dtype` (a name of dtypes.DTYPES)."""
    if name == "gate":
        return _gate
    if name == "copy":
        return _copy_kernel()
    if name == "check_range":
        return _check_kernel(dtype, "float64" if memory(dtype).number.startswith("float") else dtype, True)
    role, _, last = name.rpartition("_")
    if role == "fill":
        return _fill_kernel(_BITS[int(last)])
    if role == "check_exact":
        return _check_kernel(_BITS[int(last)], _BITS[int(last)], False)
    role, _, op = name.partition("_")
    apply, finish = _apply(op, memory(dtype).number), _finish(op, memory(dtype).number)
    return _reduce_kernel(dtype, apply, finish) if role == "reduce" else _many_kernel(dtype, apply, finish)


def _gate(word, turn, limit_ns):
    """transports/cuda/gate.cu: until the int64 at `word`, in the host's memory, is `turn` or more, or the limit is over."""
    if cuda.threadIdx.x == 0:
        deadline = nanoseconds() + limit_ns
        while load_again(word) < turn and nanoseconds() < deadline:
            pass


@cache
def _apply(op: str, number: str) -> Callable:
    """op(x, y). Numba widens small integers; cutting them back is what makes them wrap around."""
    cut = getattr(np, number)
    is_float = number.startswith("float")
    if op in ("sum", "avg_final"):

        def apply(x, y):
            return cut(x + y)
    elif op == "prod":

        def apply(x, y):
            return cut(x * y)
    elif op == "min" and is_float:

        def apply(x, y):
            return x if x != x or x < y else y
    elif op == "max" and is_float:

        def apply(x, y):
            return x if x != x or x > y else y
    elif op == "min":

        def apply(x, y):
            return x if x < y else y
    elif op == "max":

        def apply(x, y):
            return x if x > y else y
    else:
        raise ValueError(f"op {op!r} has no kernel; accepted: sum, prod, min, max, avg_final")
    return _device(apply)


@cache
def _finish(op: str, number: str) -> Callable:
    """The division by the number of contributions, or nothing. Integers are truncated towards zero."""
    cut = getattr(np, number)
    # Exact for integers of 8 and 32 bits, see simd._divide; a division of 64-bit integers takes a hundred instructions.
    real = {"int8": np.float32, "uint8": np.float32, "int32": np.float64}.get(number, cut)
    if op != "avg_final":

        def finish(x, param):
            return x
    elif number == "int64":

        def finish(x, param):
            quotient = x // param
            return quotient + 1 if quotient < 0 and quotient * param != x else quotient
    elif number == "uint64":

        def finish(x, param):
            return x // np.uint64(param)
    else:

        def finish(x, param):
            return cut(real(x) / real(param))

    return _device(finish)


def _doubled(one: Callable, half: int) -> Callable:
    """From a function of tuples of `half` lanes, that of twice as many: Numba has no loop that builds a tuple."""

    def both(x, y):
        return one(x[:half], y[:half]) + one(x[half:], y[half:])

    return _device(both)


@cache
def _for_lanes(function: Callable, lanes: int) -> Callable:
    """f(x, y) of two tuples of lanes, from f of two numbers."""

    def one(x, y):
        return (function(x[0], y[0]),)

    result, done = _device(one), 1
    while done < lanes:
        result, done = _doubled(result, done), 2 * done
    return result


@cache
def _finish_lanes(finish: Callable, lanes: int) -> Callable:
    """As `_for_lanes`, of one tuple and a parameter."""

    def one(x, param):
        return (finish(x[0], param),)

    def doubled(smaller, half):
        def both(x, param):
            return smaller(x[:half], param) + smaller(x[half:], param)

        return _device(both)

    result, done = _device(one), 1
    while done < lanes:
        result, done = doubled(result, done), 2 * done
    return result


@cache
def _any_place(dtype: str):
    """(load, store) of a vector at a multiple of the element's size."""
    size, lanes, _, load_aligned, store_aligned, load_one, store_one = memory(dtype)

    def one(address):
        return (load_one(address),)

    def put(address, x):
        store_one(address, x[0])

    def doubled(smaller_load, smaller_store, half):
        def both(address):
            return smaller_load(address) + smaller_load(address + half * size)

        def put_both(address, x):
            smaller_store(address, x[:half])
            smaller_store(address + half * size, x[half:])

        return _device(both), _device(put_both)

    load_elements, store_elements, done = _device(one), _device(put), 1
    while done < lanes:
        load_elements, store_elements = doubled(load_elements, store_elements, done)
        done *= 2

    def load(address):
        if address & 15 == 0:
            return load_aligned(address)
        return load_elements(address)

    def store(address, x):
        if address & 15 == 0:
            store_aligned(address, x)
        else:
            store_elements(address, x)

    return _device(load), _device(store)


def _reduce_kernel(dtype: str, apply: Callable, finish: Callable) -> Callable:
    size, lanes, _, load, store, load_one, store_one = memory(dtype)
    load_any, store_any = _any_place(dtype)
    apply_lanes, finish_lanes = _for_lanes(apply, lanes), _finish_lanes(finish, lanes)

    def combined(x, y, param):
        return finish_lanes(apply_lanes(x, y), param)

    combine = _device(combined)

    def kernel(dst, dst2, a, b, count, param):
        worker, workers = cuda.grid(1), cuda.gridsize(1)
        head = min((-dst & 15) // size, count)
        vectors = (count - head) // lanes
        body, stride = head * size, workers * 16
        alike = ((dst ^ a) | (dst ^ b)) & 15 == 0 and (dst2 == 0 or (dst ^ dst2) & 15 == 0)
        v = worker
        if alike:
            while v + 3 * workers < vectors:
                at = body + v * 16
                x0, x1, x2, x3 = (
                    load(a + at),
                    load(a + at + stride),
                    load(a + at + 2 * stride),
                    load(a + at + 3 * stride),
                )
                y0, y1, y2, y3 = (
                    load(b + at),
                    load(b + at + stride),
                    load(b + at + 2 * stride),
                    load(b + at + 3 * stride),
                )
                r0, r1 = combine(x0, y0, param), combine(x1, y1, param)
                r2, r3 = combine(x2, y2, param), combine(x3, y3, param)
                store(dst + at, r0)
                store(dst + at + stride, r1)
                store(dst + at + 2 * stride, r2)
                store(dst + at + 3 * stride, r3)
                if dst2 != 0:
                    store(dst2 + at, r0)
                    store(dst2 + at + stride, r1)
                    store(dst2 + at + 2 * stride, r2)
                    store(dst2 + at + 3 * stride, r3)
                v += 4 * workers
        while v < vectors:
            at = body + v * 16
            r = combine(load_any(a + at), load_any(b + at), param)
            store(dst + at, r)
            if dst2 != 0:
                store_any(dst2 + at, r)
            v += workers
        i = worker
        while i < count - vectors * lanes:
            at = (i if i < head else i + vectors * lanes) * size
            value = finish(apply(load_one(a + at), load_one(b + at)), param)
            store_one(dst + at, value)
            if dst2 != 0:
                store_one(dst2 + at, value)
            i += workers

    return kernel


def _many_kernel(dtype: str, apply: Callable, finish: Callable) -> Callable:
    size, lanes, _, load, store, load_one, store_one = memory(dtype)
    address_of = memory("int64").load_one
    load_any, store_any = _any_place(dtype)
    apply_lanes, finish_lanes = _for_lanes(apply, lanes), _finish_lanes(finish, lanes)

    def kernel(dst, dst2, table, k, count, param):
        worker, workers = cuda.grid(1), cuda.gridsize(1)
        head = min((-dst & 15) // size, count)
        vectors = (count - head) // lanes
        body = head * size
        unlike = dst ^ dst2 if dst2 != 0 else 0
        for j in range(k):
            unlike |= dst ^ address_of(table + 8 * j)
        v = worker
        if unlike & 15 == 0:
            while v < vectors:
                at = body + v * 16
                total = load(address_of(table) + at)
                j = 1
                while j + 3 < k:
                    x0, x1 = load(address_of(table + 8 * j) + at), load(address_of(table + 8 * j + 8) + at)
                    x2, x3 = load(address_of(table + 8 * j + 16) + at), load(address_of(table + 8 * j + 24) + at)
                    total = apply_lanes(apply_lanes(apply_lanes(apply_lanes(total, x0), x1), x2), x3)
                    j += 4
                while j < k:
                    total = apply_lanes(total, load(address_of(table + 8 * j) + at))
                    j += 1
                r = finish_lanes(total, param)
                store(dst + at, r)
                if dst2 != 0:
                    store(dst2 + at, r)
                v += workers
        while v < vectors:
            at = body + v * 16
            total = load_any(address_of(table) + at)
            for j in range(1, k):
                total = apply_lanes(total, load_any(address_of(table + 8 * j) + at))
            r = finish_lanes(total, param)
            store(dst + at, r)
            if dst2 != 0:
                store_any(dst2 + at, r)
            v += workers
        i = worker
        while i < count - vectors * lanes:
            at = (i if i < head else i + vectors * lanes) * size
            value = load_one(address_of(table) + at)
            for j in range(1, k):
                value = apply(value, load_one(address_of(table + 8 * j) + at))
            value = finish(value, param)
            store_one(dst + at, value)
            if dst2 != 0:
                store_one(dst2 + at, value)
            i += workers

    return kernel


def _copy_kernel() -> Callable:
    # Words, so that no instruction takes them apart; bytes where the arrays do not lie alike.
    _, _, _, load, store, _, _ = memory("uint32")
    _, _, _, _, _, load_one, store_one = memory("uint8")
    load_any, store_any = _any_place("uint8")

    def kernel(dst, dst2, src, count):
        worker, workers = cuda.grid(1), cuda.gridsize(1)
        head = min(-dst & 15, count)
        vectors = (count - head) // 16
        stride = workers * 16
        v = worker
        if (dst ^ src) & 15 == 0 and (dst2 == 0 or (dst ^ dst2) & 15 == 0):
            while v + 3 * workers < vectors:
                at = head + v * 16
                x0, x1 = load(src + at), load(src + at + stride)
                x2, x3 = load(src + at + 2 * stride), load(src + at + 3 * stride)
                store(dst + at, x0)
                store(dst + at + stride, x1)
                store(dst + at + 2 * stride, x2)
                store(dst + at + 3 * stride, x3)
                if dst2 != 0:
                    store(dst2 + at, x0)
                    store(dst2 + at + stride, x1)
                    store(dst2 + at + 2 * stride, x2)
                    store(dst2 + at + 3 * stride, x3)
                v += 4 * workers
        while v < vectors:
            at = head + v * 16
            x = load_any(src + at)
            store_any(dst + at, x)
            if dst2 != 0:
                store_any(dst2 + at, x)
            v += workers
        i = worker
        while i < count - vectors * 16:
            at = i if i < head else i + vectors * 16
            value = load_one(src + at)
            store_one(dst + at, value)
            if dst2 != 0:
                store_one(dst2 + at, value)
            i += workers

    return kernel


def _table_index(i):
    return ((i * 2654435761) & 0xFFFFFFFF) >> 24


def _fill_kernel(dtype: str) -> Callable:
    size, lanes, _, _, store, load_one, store_one = memory(dtype)
    index = _device(_table_index)

    def one(table, i):
        return (load_one(table + index(i) * size),)

    def doubled(smaller, half):
        def both(table, i):
            return smaller(table, i) + smaller(table, i + half)

        return _device(both)

    entries, done = _device(one), 1
    while done < lanes:
        entries, done = doubled(entries, done), 2 * done

    def kernel(dst, table, count, start):
        worker, workers = cuda.grid(1), cuda.gridsize(1)
        head = min((-dst & 15) // size, count)
        vectors = (count - head) // lanes
        v = worker
        while v < vectors:
            i = head + v * lanes
            store(dst + i * size, entries(table, start + i))
            v += workers
        i = worker
        while i < count - vectors * lanes:
            at = i if i < head else i + vectors * lanes
            store_one(dst + at * size, load_one(table + index(start + at) * size))
            i += workers

    return kernel


def _check_kernel(dtype: str, bound: str, is_range: bool) -> Callable:
    size, lanes, _, load, _, load_one, _ = memory(dtype)
    bound_size, entry = memory(bound).size, memory(bound).load_one
    as_bound = getattr(np, memory(bound).number)
    index = _device(_table_index)

    if is_range:

        def is_wrong(stored, low, high, i):
            at = index(i) * bound_size
            value = as_bound(stored)
            return 0 if entry(low + at) <= value and value <= entry(high + at) else 1
    else:

        def is_wrong(stored, low, high, i):
            return 0 if stored == entry(low + index(i) * bound_size) else 1

    look = _device(is_wrong)

    def one(x, low, high, i):
        return look(x[0], low, high, i)

    def doubled(smaller, half):
        def both(x, low, high, i):
            return smaller(x[:half], low, high, i) + smaller(x[half:], low, high, i + half)

        return _device(both)

    count_wrong, done = _device(one), 1
    while done < lanes:
        count_wrong, done = doubled(count_wrong, done), 2 * done

    def checked(dst, low, high, count, start, counter):
        worker, workers = cuda.grid(1), cuda.gridsize(1)
        head = min((-dst & 15) // size, count)
        vectors = (count - head) // lanes
        wrong = 0
        v = worker
        while v < vectors:
            i = head + v * lanes
            wrong += count_wrong(load(dst + i * size), low, high, start + i)
            v += workers
        i = worker
        while i < count - vectors * lanes:
            at = i if i < head else i + vectors * lanes
            wrong += look(load_one(dst + at * size), low, high, start + at)
            i += workers
        if wrong != 0:
            add_to(counter, wrong)

    if is_range:
        return checked
    # cuda.grid is not to be called from a function that the simulator does not know: the kernel itself differs.
    body = checked if SIMULATED else _device(checked)

    def kernel(dst, table, count, start, counter):
        body(dst, table, table, count, start, counter)

    return kernel
