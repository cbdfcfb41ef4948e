"""The few machine instructions that a compiled walker needs and Numba does not offer.

Flags between ranks are 8-byte words: written with a release store after the data they announce, polled with an acquire
load before that data is read, so the data is visible whenever the flag is. Addresses are plain int64; every function
here runs without the GIL.
"""

from __future__ import annotations

import platform

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I64 = ir.IntType(64)
_I32 = ir.IntType(32)
_X86_PAUSE = "llvm.x86.sse2.pause"
_ARM_YIELD = 1  # operand of the hint instruction
_CLOCK_MONOTONIC = 1  # Linux; one clock for all processes of a host


def _word(builder, address):
    return builder.inttoptr(address, _I64.as_pointer())


@intrinsic
def load_acquire(typingctx, address):
    """The int64 at `address`; nothing after it is read earlier."""

    def codegen(context, builder, signature, args):
        return builder.load_atomic(_word(builder, args[0]), "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def store_release(typingctx, address, value):
    """Write the int64 `value` to `address` after everything before it."""

    def codegen(context, builder, signature, args):
        builder.store_atomic(args[1], _word(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@intrinsic
def spin_hint(typingctx):
    """Tell the core that this is a polling loop."""

    def codegen(context, builder, signature, args):
        machine = platform.machine()
        void = ir.VoidType()
        if machine in ("x86_64", "AMD64"):
            builder.call(cgutils.get_or_insert_function(builder.module, ir.FunctionType(void, []), _X86_PAUSE), [])
        elif machine in ("aarch64", "arm64"):
            fn = cgutils.get_or_insert_function(builder.module, ir.FunctionType(void, [_I32]), "llvm.aarch64.hint")
            builder.call(fn, [_I32(_ARM_YIELD)])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def prefetch_to_write(typingctx, address):
    """Ask for the cache line at `address` to write it soon, without waiting for it."""

    def codegen(context, builder, signature, args):
        pointer = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
        write, keep_in_all_caches, data = (ir.Constant(_I32, number) for number in (1, 3, 1))
        instruction = builder.module.declare_intrinsic("llvm.prefetch", [pointer], function)
        builder.call(instruction, [builder.inttoptr(args[0], pointer), write, keep_in_all_caches, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def yield_core(typingctx):
    """sched_yield(2): let another thread of this core run."""

    def codegen(context, builder, signature, args):
        fn = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I32, []), "sched_yield")
        builder.call(fn, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def clock_ns(typingctx):
    """CLOCK_MONOTONIC in nanoseconds, as int64; the same clock in every process of a host."""

    def codegen(context, builder, signature, args):
        spec = ir.LiteralStructType([_I64, _I64])
        fnty = ir.FunctionType(_I32, [_I32, spec.as_pointer()])
        fn = cgutils.get_or_insert_function(builder.module, fnty, "clock_gettime")
        slot = cgutils.alloca_once(builder, spec)
        builder.call(fn, [_I32(_CLOCK_MONOTONIC), slot])
        seconds = builder.load(cgutils.gep_inbounds(builder, slot, 0, 0))
        nanoseconds = builder.load(cgutils.gep_inbounds(builder, slot, 0, 1))
        return builder.add(builder.mul(seconds, _I64(1_000_000_000)), nanoseconds)

    return types.int64(), codegen


@intrinsic
def address_as_void_pointer(typingctx, address):
    """An int64 address as the pointer that numba.carray takes."""

    def codegen(context, builder, signature, args):
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(types.int64), codegen


@intrinsic
def call_kernel(typingctx, fn, dst, dst2, a, b, count, param):
    """Call ``void fn(int64 dst, int64 dst2, int64 a, int64 b, int64 count, int64 param)`` (kernels/cpu.py)."""

    def codegen(context, builder, signature, args):
        fnty = ir.FunctionType(ir.VoidType(), [_I64] * 6)
        builder.call(builder.inttoptr(args[0], fnty.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 7), codegen


def _library_call(arguments: int):
    """A call of a C function that returns int and takes `arguments` integers or pointers, as an intrinsic.

    A narrower integer argument (an MPI_Comm of four bytes, an int count) is read by the callee from the low half of
    its register or stack slot, which holds on x86-64 and AArch64 Linux.
    """

    def codegen(context, builder, signature, args):
        fnty = ir.FunctionType(_I32, [_I64] * arguments)
        return builder.call(builder.inttoptr(args[0], fnty.as_pointer()), args[1:])

    return types.int32(*[types.int64] * (arguments + 1)), codegen


@intrinsic
def call2(typingctx, fn, a, b):
    return _library_call(2)


@intrinsic
def call3(typingctx, fn, a, b, c):
    return _library_call(3)


@intrinsic
def call7(typingctx, fn, a, b, c, d, e, f, g):
    return _library_call(7)


@intrinsic
def call12(typingctx, fn, a, b, c, d, e, f, g, h, i, j, k, m):
    return _library_call(12)
