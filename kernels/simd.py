"""The compiled loops of the CPU backend: vector instructions written out, because LLVM will not choose these itself.

LLVM's loop vectoriser leaves a loop alone once its stores are marked non-temporal, and cannot know that `dst` either
is `a` or does not touch it. So a loop's *body* is LLVM IR on whole vectors (the intrinsics below), and the *loop*
around it is plain Numba. A kernel walks its `count` elements like this (V = 64 bytes; L = elements in V):

    dst   ...|--------|--------|--------|--------|--------|--------|...    | = a 64-byte line of dst
          hhh bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb vvvvvvvv ttt
          head      blocks of 4 V                  single V  tail

head and tail (fewer than L elements) go through vectors of L/2, L/4, ..., 1 elements, each at most once. Vectors wider
than the machine's are split by LLVM, so the same IR serves AVX2, AVX-512 and NEON.

Everything that decides what machine code a cached kernel holds stands in this one file, because Numba's cache on disk
looks at no other file to tell whether an entry is stale.
"""

from __future__ import annotations

import platform

from llvmlite import ir
from numba import cfunc, types
from numba.extending import intrinsic

from .dtypes import find_dtype

VECTOR = 64  # bytes: a cache line, and the widest register of any machine we know
VECTORS_A_BLOCK = 4
BLOCK = VECTOR * VECTORS_A_BLOCK
# A count below this many bytes is not worth aligning: head and tail would be most of it.
ALIGN_FROM = 16 * VECTOR
# The 16-bit floats take so many instructions a line that a core's window of instructions in flight holds few loads.
# Asked for this far ahead, data beyond the caches arrives in time (256 MiB, one Zen 4 core, streamed: 21 -> 36 GB/s) and
# data in cache is no slower. float32 got up to a sixth slower by it: its window reaches far enough as it is.
PREFETCHED = ("float16", "bfloat16")
PREFETCH_BYTES = 512

PLAIN, STREAM, NONE = "plain", "stream", "none"  # how a vector is stored: normally, past the caches, not at all

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_F32 = ir.FloatType()
_F64 = ir.DoubleType()
_STORAGE = {
    "float64": _F64,
    "float32": _F32,
    "float16": ir.HalfType(),
    "bfloat16": ir.IntType(16),
    "int8": ir.IntType(8),
    "uint8": ir.IntType(8),
    "int32": _I32,
    "int64": _I64,
    "uint64": _I64,
}


def _many(element: ir.Type, lanes: int) -> ir.Type:
    return element if lanes == 1 else ir.VectorType(element, lanes)


def _constant(element: ir.Type, lanes: int, value) -> ir.Constant:
    return ir.Constant(_many(element, lanes), value if lanes == 1 else [value] * lanes)


def _splat(builder, value, lanes: int):
    """`value` in every lane."""
    if lanes == 1:
        return value
    vector = ir.VectorType(value.type, lanes)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _widen(builder, dtype: str, value, lanes: int) -> list:
    """Storage -> vectors of the type arithmetic is done in: float32 for the 16-bit floats, else the storage type.

    bfloat16 becomes two vectors, its even and its odd elements: a shift and a mask take them out of 32-bit words, and
    put them back. Widening them in order needs shuffles, which few of a core's ports do: 0.6 times the speed.

        32-bit words, the high half first | 1 0 | 3 2 | 5 4 | ...
        even = word << 16                 | 0 . | 2 . | 4 . |        . = sixteen zeros
        odd = word & 0xFFFF0000           | 1 . | 3 . | 5 . |
    """
    if dtype == "float16":
        return [builder.fpext(value, _many(_F32, lanes))]
    if dtype == "bfloat16":
        words = max(1, lanes // 2)
        floats = _many(_F32, words)
        word = builder.zext(value, _I32) if lanes == 1 else builder.bitcast(value, _many(_I32, words))
        halves = [builder.shl(word, _constant(_I32, words, 16))]
        if lanes > 1:
            halves.append(builder.and_(word, _constant(_I32, words, 0xFFFF0000)))
        return [builder.bitcast(half, floats) for half in halves]
    return [value]


def _narrow(builder, dtype: str, values: list, lanes: int):
    """The inverse of `_widen`, rounding to nearest even; NaN stays NaN.

    AVX512_BF16's own conversion is not used: it takes denormals for zero, and results would depend on the machine.
    """
    if dtype == "float16":
        return builder.fptrunc(values[0], _many(ir.HalfType(), lanes))
    if dtype == "bfloat16":
        words = max(1, lanes // 2)

        def const(number):
            return _constant(_I32, words, number)

        rounded = []
        for value in values:
            bits = builder.bitcast(value, _many(_I32, words))
            odd = builder.and_(builder.lshr(bits, const(16)), const(1))
            # A NaN's payload lies in the upper half (it came from a bfloat16, or is the machine's own NaN), and that
            # half is taken as it is: rounding could carry into the exponent.
            is_nan = builder.fcmp_unordered("uno", value, value)
            increment = builder.select(is_nan, const(0), builder.add(odd, const(0x7FFF)))
            rounded.append(builder.add(bits, increment))
        even = builder.lshr(rounded[0], const(16))
        if lanes == 1:
            return builder.trunc(even, ir.IntType(16))
        both = builder.or_(even, builder.and_(rounded[1], const(0xFFFF0000)))
        return builder.bitcast(both, _many(ir.IntType(16), lanes))
    return values[0]


def _divide(builder, dtype: str, value, divisor):
    """value / divisor (an i64 >= 1): floats in their own arithmetic, integers truncated towards zero as in C.

    There is no vector integer division. The quotient of 32-bit integers rounded to float64 truncates to the exact
    integer quotient (the next integer is at least 1/divisor away, far more than half an ulp), and likewise 8-bit
    integers in float32. 64-bit integers are divided one by one.
    """
    kind = find_dtype(dtype).kind
    is_vector = isinstance(value.type, ir.VectorType)
    element, lanes = (value.type.element, value.type.count) if is_vector else (value.type, 1)
    if kind == "f":
        number = builder.sitofp(divisor, element)
        return builder.fdiv(value, _splat(builder, number, lanes))
    if dtype in ("int64", "uint64"):
        divide = builder.sdiv if kind == "i" else builder.udiv
        return divide(value, _splat(builder, divisor, lanes))
    real = _F64 if dtype == "int32" else _F32
    number = _splat(builder, builder.sitofp(divisor, real), lanes)
    to_real, to_integer = (builder.sitofp, builder.fptosi) if kind == "i" else (builder.uitofp, builder.fptoui)
    return to_integer(builder.fdiv(to_real(value, _many(real, lanes)), number), value.type)


def _extreme(builder, dtype: str, op: str, x, y):
    """min or max. Floats: NaN if either is NaN, as NumPy's minimum and maximum."""
    sign = "<" if op == "min" else ">"
    kind = find_dtype(dtype).kind
    if kind == "f":
        # The first select is one instruction (minps gives y where either is NaN); the second brings back a NaN of x.
        chosen = builder.select(builder.fcmp_ordered(sign, x, y), x, y)
        return builder.select(builder.fcmp_unordered("uno", x, x), x, chosen)
    compare = builder.icmp_signed if kind == "i" else builder.icmp_unsigned
    return builder.select(compare(sign, x, y), x, y)


def _combine(builder, op: str, dtype: str, x, y, param):
    """op(x, y), vectors or scalars of the type arithmetic is done in."""
    is_float = find_dtype(dtype).is_float
    if op in ("sum", "avg_final"):
        total = builder.fadd(x, y) if is_float else builder.add(x, y)
        return total if op == "sum" else _divide(builder, dtype, total, param)
    if op == "prod":
        return builder.fmul(x, y) if is_float else builder.mul(x, y)
    return _extreme(builder, dtype, op, x, y)


def _load(builder, dtype: str, lanes: int, address):
    kind = _many(_STORAGE[dtype], lanes)
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=1)


def _store(builder, how: str, value, address):
    if how == NONE:
        return
    pointer = builder.inttoptr(address, value.type.as_pointer())
    if how == PLAIN:
        builder.store(value, pointer, align=1)
    else:
        store = builder.store(value, pointer, align=VECTOR)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(_I32, 1)]))


def _prefetch(builder, address):
    pointer = ir.IntType(8).as_pointer()
    function = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
    read, keep_in_all_caches, data = (ir.Constant(_I32, number) for number in (0, 3, 1))
    instruction = builder.module.declare_intrinsic("llvm.prefetch", [pointer], function)
    builder.call(instruction, [builder.inttoptr(address, pointer), read, keep_in_all_caches, data])


def _emit(builder, op, dtype, lanes, vectors, stores, addresses, offset, param):
    """`vectors` vectors of `lanes` elements, `offset` bytes into the buffers: all loads first, then all stores."""
    dst, dst2, a, b = (builder.add(address, offset) for address in addresses)
    width = lanes * find_dtype(dtype).itemsize
    results = []
    for i in range(vectors):
        at = ir.Constant(_I64, i * width)
        value = _load(builder, dtype, lanes, builder.add(a, at))
        if op != "copy":
            xs = _widen(builder, dtype, value, lanes)
            ys = _widen(builder, dtype, _load(builder, dtype, lanes, builder.add(b, at)), lanes)
            combined = [_combine(builder, op, dtype, x, y, param) for x, y in zip(xs, ys)]
            value = _narrow(builder, dtype, combined, lanes)
        results.append(value)
    for how, target in zip(stores, (dst, dst2)):
        for i, value in enumerate(results):
            _store(builder, how, value, builder.add(target, ir.Constant(_I64, i * width)))


@intrinsic(prefer_literal=True)
def _whole_vectors(typing, op, dtype, vectors, store, store2, dst, dst2, a, b, offset, param):
    """`vectors` (literal) full vectors at `offset` bytes. STREAM needs the target on a 64-byte line."""

    def generate(context, builder, signature, arguments):
        name, many, how = dtype.literal_value, vectors.literal_value, (store.literal_value, store2.literal_value)
        addresses, (offset, param) = arguments[5:9], arguments[9:]
        if name in PREFETCHED:
            for source in addresses[2:]:
                for i in range(many):
                    ahead = ir.Constant(_I64, PREFETCH_BYTES + i * VECTOR)
                    _prefetch(builder, builder.add(builder.add(source, offset), ahead))
        lanes = VECTOR // find_dtype(name).itemsize
        _emit(builder, op.literal_value, name, lanes, many, how, addresses, offset, param)
        return context.get_dummy_value()

    return types.void(op, dtype, vectors, store, store2, *[types.int64] * 6), generate


@intrinsic(prefer_literal=True)
def _part_of_vector(typing, op, dtype, store2, dst, dst2, a, b, offset, param, count):
    """`count` elements, fewer than a vector, at `offset` bytes."""

    def generate(context, builder, signature, arguments):
        size = find_dtype(dtype.literal_value).itemsize
        addresses, (offset, param, count) = arguments[3:7], arguments[7:]
        lanes = VECTOR // size // 2
        while lanes:
            bit = builder.and_(count, ir.Constant(_I64, lanes))
            with builder.if_then(builder.icmp_unsigned("!=", bit, ir.Constant(_I64, 0))):
                stores = PLAIN, store2.literal_value
                _emit(builder, op.literal_value, dtype.literal_value, lanes, 1, stores, addresses, offset, param)
            offset = builder.add(offset, builder.mul(bit, ir.Constant(_I64, size)))
            lanes //= 2
        return context.get_dummy_value()

    return types.void(op, dtype, store2, *[types.int64] * 7), generate


@intrinsic
def _publish(typing):
    """Order non-temporal stores before any later store of this thread: a release store alone does not, on x86."""

    def generate(context, builder, signature, arguments):
        if platform.machine().lower() in ("x86_64", "amd64", "i386", "i686"):
            fence = builder.module.declare_intrinsic("llvm.x86.sse.sfence", (), ir.FunctionType(ir.VoidType(), ()))
            builder.call(fence, ())
        else:
            builder.fence("release")
        return context.get_dummy_value()

    return types.void(), generate


KERNEL = types.void(*[types.int64] * 6)
COUNTER = types.int64(*[types.int64] * 6)


def _compiled(signature, function, name: str):
    """`function` compiled as a C function, and kept in Numba's cache on disk in files of its own.

    Numba names the files after `__qualname__`. Kernels of one factory would share one index file, and two processes
    compiling different kernels at the same moment could overwrite one another's code: `min` loaded as `sum`.
    """
    function.__name__ = function.__qualname__ = name
    return cfunc(signature, cache=True, error_model="numpy")(function)


def elementwise(op: str, dtype: str, store: str, store2: str):
    """Compile `void kernel(dst, dst2, a, b, count, param)`: dst[i] = dst2[i] = op(a[i], b[i]).

    op: "sum", "prod", "min", "max", "avg_final" (the sum divided by `param`) or "copy" (of a; b is not looked at)
    dtype: a name of dtypes.DTYPES; store, store2: PLAIN, STREAM or (store2) NONE
    STREAM is a wish: what cannot be brought to a 64-byte line together with the other is stored plainly.
    """
    size = find_dtype(dtype).itemsize
    name = f"{op}_{dtype}_{store}" + ("" if store2 == NONE else f"_{store2}")
    # The loops below align dst, so it has to be the one that streams if only one does.
    swapped = (store, store2) == (PLAIN, STREAM)
    if swapped:
        store, store2 = store2, store
    streaming = store == STREAM
    both_stream = streaming and store2 == STREAM
    plain2 = NONE if store2 == NONE else PLAIN

    def kernel(dst, dst2, a, b, count, param):
        if swapped:
            dst, dst2 = dst2, dst
        end = count * size
        at = 0  # bytes done
        if end >= ALIGN_FROM:
            head = min((-dst & (VECTOR - 1)) // size, count)
            _part_of_vector(op, dtype, plain2, dst, dst2, a, b, 0, param, head)
            at = head * size
            if streaming and (dst + at) & (VECTOR - 1) == 0:
                if both_stream and (dst2 + at) & (VECTOR - 1) == 0:
                    while at + BLOCK <= end:
                        _whole_vectors(op, dtype, VECTORS_A_BLOCK, STREAM, STREAM, dst, dst2, a, b, at, param)
                        at += BLOCK
                while at + BLOCK <= end:
                    _whole_vectors(op, dtype, VECTORS_A_BLOCK, STREAM, plain2, dst, dst2, a, b, at, param)
                    at += BLOCK
        while at + BLOCK <= end:
            _whole_vectors(op, dtype, VECTORS_A_BLOCK, PLAIN, plain2, dst, dst2, a, b, at, param)
            at += BLOCK
        while at + VECTOR <= end:
            _whole_vectors(op, dtype, 1, PLAIN, plain2, dst, dst2, a, b, at, param)
            at += VECTOR
        _part_of_vector(op, dtype, plain2, dst, dst2, a, b, at, param, (end - at) // size)
        if streaming:
            _publish()

    return _compiled(KERNEL, kernel, name)


ARRAY, TABLE = "array", "table"  # what an element is read from: one after the other, or anywhere


def _read(builder, element: ir.Type, size: int, source: str, address, index):
    """Element `index`, of `size` bytes, of the array or table at `address`."""
    at = builder.add(address, builder.mul(index, ir.Constant(_I64, size)))
    pointer = builder.inttoptr(at, element.as_pointer())
    if source == TABLE:
        # A relaxed atomic load is a plain load on any machine, but one LLVM leaves as it is. It would gather sixteen at
        # once otherwise, and gathers take five times as long as single loads (Zen 4).
        return builder.load_atomic(pointer, "monotonic", size)
    return builder.load(pointer, align=1)


@intrinsic(prefer_literal=True)
def _element(typing, dtype, source, address, index):
    """An element as a number: floats (bfloat16 too) as float64, integers as themselves."""
    kind = find_dtype(dtype.literal_value)
    result = types.float64 if kind.is_float else getattr(types, kind.name)

    def generate(context, builder, signature, arguments):
        stored = _read(builder, _STORAGE[kind.name], kind.itemsize, source.literal_value, *arguments[2:])
        (value,) = _widen(builder, kind.name, stored, 1)
        return builder.fpext(value, _F64) if value.type == _F32 else value

    return result(dtype, source, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def _bits(typing, itemsize, source, address, index):
    """An element's bit pattern as an unsigned integer."""
    size = itemsize.literal_value

    def generate(context, builder, signature, arguments):
        return _read(builder, ir.IntType(8 * size), size, source.literal_value, *arguments[2:])

    return getattr(types, f"uint{8 * size}")(itemsize, source, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def _set_bits(typing, itemsize, address, index, value):
    """The inverse of `_bits`."""
    size = itemsize.literal_value

    def generate(context, builder, signature, arguments):
        at = builder.add(arguments[1], builder.mul(arguments[2], ir.Constant(_I64, size)))
        builder.store(arguments[3], builder.inttoptr(at, arguments[3].type.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(itemsize, types.int64, types.int64, getattr(types, f"uint{8 * size}")), generate


# Element i gets the table entry h(i) = the top byte of i times this (Knuth's 2**32 over the golden ratio) mod 2**32:
# neighbours get unlike entries, so a shifted or swapped element shows.
MULTIPLIER = 2654435761


def filler(itemsize: int):
    """Compile `void fill(dst, -, table, -, count, start)`: dst[i] = table[h(start + i)], of `itemsize` bytes each."""

    def fill(dst, dst2, table, unused, count, start):
        for i in range(count):
            h = (((start + i) * MULTIPLIER) & 0xFFFFFFFF) >> 24
            _set_bits(itemsize, dst, i, _bits(itemsize, TABLE, table, h))

    return _compiled(KERNEL, fill, f"fill_{itemsize}")


def exact_checker(itemsize: int):
    """Compile `int64 check(dst, -, table, -, count, start)`: how many dst[i] differ in a bit from table[h(start + i)].

    Elements and table entries have `itemsize` bytes.
    """

    def check(dst, dst2, table, unused, count, start):
        wrong = 0
        for i in range(count):
            h = (((start + i) * MULTIPLIER) & 0xFFFFFFFF) >> 24
            wrong += _bits(itemsize, ARRAY, dst, i) != _bits(itemsize, TABLE, table, h)
        return wrong

    return _compiled(COUNTER, check, f"check_exact_{itemsize}")


def range_checker(dtype: str):
    """Compile `int64 check(dst, -, low, high, count, start)`: how many dst[i] are not within low[h] and high[h].

    h is h(start + i). The tables hold float64 for a floating-point dtype, else the dtype itself. NaN is within nothing.
    """
    bound = "float64" if find_dtype(dtype).is_float else dtype

    def check(dst, dst2, low, high, count, start):
        wrong = 0
        for i in range(count):
            h = (((start + i) * MULTIPLIER) & 0xFFFFFFFF) >> 24
            value = _element(dtype, ARRAY, dst, i)
            wrong += 1 - (_element(bound, TABLE, low, h) <= value) * (value <= _element(bound, TABLE, high, h))
        return wrong

    return _compiled(COUNTER, check, f"check_range_{dtype}")
