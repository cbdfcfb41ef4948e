"""Loads and stores of the Numba CUDA kernels: 128-bit vectors and single elements, at addresses.

Numba compiles an array access to a load of one element. So these few primitives are LLVM IR: a vector is loaded as one
instruction (``ld.global.v4``), taken apart into a tuple of the numbers that arithmetic is done with, and put together
again. Under the CUDA simulator there is no IR; the same primitives read and write the process's memory, so that the
kernels above them are the same code. **That part is all that the simulator does not run.**

Addresses are int64. `float16` and `bfloat16` become float32 and are rounded to nearest even when stored (sm_80 and later).
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")
VECTOR = 16  # bytes

# name -> (bits an element, the name of the number it is in arithmetic). uint16 and uint32 are for kernels that move bits.
_ELEMENTS = {
    "float64": (64, "float64"),
    "float32": (32, "float32"),
    "float16": (16, "float32"),
    "bfloat16": (16, "float32"),
    "int8": (8, "int8"),
    "uint8": (8, "uint8"),
    "uint16": (16, "uint16"),
    "int32": (32, "int32"),
    "uint32": (32, "uint32"),
    "int64": (64, "int64"),
    "uint64": (64, "uint64"),
}


class Memory(NamedTuple):
    """The primitives for one kind of element; N numbers make a vector, in a tuple.

    load(address) -> N numbers; store(address, numbers): `address` a multiple of 16
    load_one(address) -> a number; store_one(address, number): `address` a multiple of the element's size
    """

    size: int  # bytes an element
    lanes: int  # N
    number: str  # the NumPy name of the number's type
    load: Callable
    store: Callable
    load_one: Callable
    store_one: Callable


@cache
def memory(dtype: str) -> Memory:
    """The primitives for a dtype of `dtypes.DTYPES`, or "uint16" or "uint32"."""
    bits, number = _ELEMENTS[dtype]
    lanes = VECTOR * 8 // bits
    make = _simulated if SIMULATED else _compiled
    return Memory(bits // 8, lanes, number, *make(dtype, bits, number, lanes))


def _simulated(dtype: str, bits: int, number: str, lanes: int):
    from .dtypes import bfloat16_from_float32, float32_from_bfloat16

    storage = {"bfloat16": "uint16"}.get(dtype, dtype)

    def view(address, count):
        if address % (count * bits // 8):
            raise ValueError(f"{address:#x} is not a multiple of {count * bits // 8}")
        return np.frombuffer((ctypes.c_uint8 * (count * bits // 8)).from_address(int(address)), storage)

    def widen(stored):
        return float32_from_bfloat16(stored) if dtype == "bfloat16" else stored.astype(number)

    def narrow(numbers):
        values = np.array(numbers, number)
        return bfloat16_from_float32(values) if dtype == "bfloat16" else values.astype(storage)

    def load(address):
        return tuple(widen(view(address, lanes)))

    def store(address, numbers):
        view(address, lanes)[:] = narrow(numbers)

    def load_one(address):
        return widen(view(address, 1))[0]

    def store_one(address, number):
        view(address, 1)[:] = narrow([number])

    return load, store, load_one, store_one


def _compiled(dtype: str, bits: int, number: str, lanes: int):
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic

    i16, i32 = ir.IntType(16), ir.IntType(32)
    f32 = ir.FloatType()
    number_type = getattr(types, number)
    # What LLVM holds in a register for the number; Numba's integers are LLVM's, signed or not.
    lane_type = {"float64": ir.DoubleType(), "float32": f32}.get(number, ir.IntType(bits))
    # A vector is loaded as its own lanes if they are wide, else as words that are taken apart: of narrow lanes LLVM makes
    # several loads.
    wide = bits >= 32
    vector_type = ir.VectorType(lane_type if wide else i32, lanes if wide else 4)
    single_type = lane_type if dtype not in ("float16", "bfloat16") else i16
    half = dtype == "float16"

    def pointer(builder, address, pointee):
        return builder.inttoptr(address, ir.PointerType(pointee, addrspace=1))

    def assembly(builder, result, instruction, constraints, operands):
        kind = ir.FunctionType(result, [operand.type for operand in operands])
        return builder.asm(kind, instruction, constraints, operands, side_effect=False)

    def const(value):
        return ir.Constant(i32, value)

    def widen(builder, stored):
        """16 bits -> float32."""
        if half:
            return assembly(builder, f32, "cvt.f32.f16 $0, $1;", "=f,h", [stored])
        return builder.bitcast(builder.shl(builder.zext(stored, i32), const(16)), f32)

    def narrow(builder, value):
        kind = "f16" if half else "bf16"
        return assembly(builder, i16, f"cvt.rn.{kind}.f32 $0, $1;", "=h,f", [value])

    def unpack(builder, word):
        """A 32-bit word -> its lanes, the lowest first."""
        if dtype == "bfloat16":  # the upper half of a float32 each
            halves = builder.shl(word, const(16)), builder.and_(word, const(0xFFFF0000))
            return [builder.bitcast(h, f32) for h in halves]
        parts = [
            builder.trunc(builder.lshr(word, const(bits * i)) if i else word, ir.IntType(bits))
            for i in range(32 // bits)
        ]
        return [widen(builder, part) for part in parts] if half else parts

    def pack(builder, values):
        """The inverse of `unpack`."""
        if dtype in ("float16", "bfloat16"):  # the first operand goes to the upper half
            kind = "f16x2" if half else "bf16x2"
            return assembly(builder, i32, f"cvt.rn.{kind}.f32 $0, $1, $2;", "=r,f,f", [values[1], values[0]])
        word = builder.zext(values[0], i32)
        for i, value in enumerate(values[1:], 1):
            word = builder.or_(word, builder.shl(builder.zext(value, i32), const(bits * i)))
        return word

    @intrinsic
    def load(typing_context, address):
        def generate(context, builder, signature, arguments):
            vector = builder.load(pointer(builder, arguments[0], vector_type), align=VECTOR)
            parts = [builder.extract_element(vector, const(i)) for i in range(vector_type.count)]
            numbers = parts if wide else [lane for word in parts for lane in unpack(builder, word)]
            return context.make_tuple(builder, signature.return_type, numbers)

        return types.UniTuple(number_type, lanes)(types.int64), generate

    @intrinsic
    def store(typing_context, address, numbers):
        def generate(context, builder, signature, arguments):
            parts = [builder.extract_value(arguments[1], i) for i in range(lanes)]
            if not wide:
                a_word = 32 // bits
                parts = [pack(builder, parts[i : i + a_word]) for i in range(0, lanes, a_word)]
            vector = ir.Constant(vector_type, ir.Undefined)
            for i, part in enumerate(parts):
                vector = builder.insert_element(vector, part, const(i))
            builder.store(vector, pointer(builder, arguments[0], vector_type), align=VECTOR)
            return context.get_dummy_value()

        return types.void(types.int64, types.UniTuple(number_type, lanes)), generate

    @intrinsic
    def load_one(typing_context, address):
        def generate(context, builder, signature, arguments):
            stored = builder.load(pointer(builder, arguments[0], single_type), align=bits // 8)
            return widen(builder, stored) if single_type != lane_type else stored

        return number_type(types.int64), generate

    @intrinsic
    def store_one(typing_context, address, number):
        def generate(context, builder, signature, arguments):
            value = narrow(builder, arguments[1]) if single_type != lane_type else arguments[1]
            builder.store(value, pointer(builder, arguments[0], single_type), align=bits // 8)
            return context.get_dummy_value()

        return types.void(types.int64, number_type), generate

    return load, store, load_one, store_one


if SIMULATED:
    # Of the gate, which the simulator has no use for: its launches are over when they return.
    load_again = nanoseconds = None
    _COUNTING = threading.Lock()

    def add_to(address, value):
        """Add to the uint64 at `address`, atomically."""
        with _COUNTING:
            counter = ctypes.c_uint64.from_address(int(address))
            counter.value += int(value)

else:
    from numba.cuda.extending import intrinsic as _intrinsic

    @_intrinsic
    def add_to(typing_context, address, value):
        """Add to the uint64 at `address`, atomically."""
        from llvmlite import ir
        from numba.cuda import types

        def generate(context, builder, signature, arguments):
            counter = builder.inttoptr(arguments[0], ir.PointerType(ir.IntType(64), addrspace=1))
            builder.atomic_rmw("add", counter, arguments[1], "monotonic")
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), generate

    @_intrinsic
    def load_again(typing_context, address):
        """The int64 at `address` as it is now, however often it was read before."""
        return _assembly("ld.volatile.global.s64 $0, [$1];", "=l,l", 1)

    @_intrinsic
    def nanoseconds(typing_context):
        """A clock, the same for all of a device."""
        return _assembly("mov.u64 $0, %globaltimer;", "=l", 0)

    def _assembly(instruction: str, constraints: str, operands: int):
        """An intrinsic of int64 operands and an int64 result that is done each time it is come to."""
        from llvmlite import ir
        from numba.cuda import types

        def generate(context, builder, signature, arguments):
            i64 = ir.IntType(64)
            kind = ir.FunctionType(i64, [i64] * operands)
            return builder.asm(kind, instruction, constraints, arguments, side_effect=True)

        return types.int64(*[types.int64] * operands), generate
