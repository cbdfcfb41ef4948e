"""What the kernels were compiled to, and that the cache on disk gives each its own code."""

import os
import platform
import re
import subprocess
import sys

import numba
import pytest
from busbw.kernels import simd

on_x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads x86 assembly")
NON_TEMPORAL = r"vmovnt(ps|pd|dq)"


@pytest.fixture
def assembly(monkeypatch):
    """A function: elementwise's arguments -> the assembly of the kernel proper, without the wrapper that C calls."""
    # Numba cannot show the code of what it loaded from its cache.
    monkeypatch.setattr(simd, "cfunc", lambda signature, cache, **options: numba.cfunc(signature, **options))

    def text(*arguments):
        whole = simd.elementwise(*arguments)._library.get_asm_str()
        return whole[: re.search(r"^cfunc\.", whole, re.M).start()]

    return text


@on_x86
def test_float32_sum_adds_whole_registers(assembly):
    code = assembly("sum", "float32", simd.PLAIN, simd.NONE)
    assert re.search(r"vaddps.*%[yz]mm", code)
    assert not re.search(NON_TEMPORAL, code)
    assert "sfence" not in code
    assert not re.search(r"\bcall", code)


@on_x86
@pytest.mark.parametrize("stores", [(simd.STREAM, simd.NONE), (simd.STREAM, simd.STREAM), (simd.PLAIN, simd.STREAM)])
@pytest.mark.parametrize(("op", "dtype"), [("sum", "float32"), ("max", "bfloat16"), ("copy", "uint8")])
def test_streaming_kernels_store_past_the_caches_and_then_fence(assembly, op, dtype, stores):
    code = assembly(op, dtype, *stores)
    assert re.search(NON_TEMPORAL + r"\s+%[yz]mm", code)
    assert "sfence" in code
    assert not re.search(r"\bcall", code)


@on_x86
@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "int8", "uint64"])
def test_no_kernel_calls_anything(assembly, dtype):
    for op in ("prod", "avg_final"):
        code = assembly(op, dtype, simd.PLAIN, simd.PLAIN)
        assert not re.search(r"\bcall", code)
        assert not re.search(NON_TEMPORAL, code)


PROGRAM = """
import sys
import numpy as np
from busbw.kernels import cpu, simd
a, b = np.array([6.0, 1.0], np.float32), np.array([2.0, 5.0], np.float32)
right = {"sum": [8, 6], "prod": [12, 5], "min": [2, 1], "max": [6, 5], "avg_final": [2, 1.5]}
hits = 0
for op in sys.argv[1].split(","):
    dst = np.empty_like(a)
    kernel = cpu._compiled(simd.elementwise, op, "float32", simd.PLAIN, simd.NONE)
    cpu.call(kernel.address, dst.ctypes.data, 0, a.ctypes.data, b.ctypes.data, 2, 4)
    assert dst.tolist() == right[op], (op, dst)
    hits += kernel.cache_hits
print(hits)
"""


def test_processes_share_the_cache_and_never_take_one_kernel_for_another(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}

    def start(ops):
        command = [sys.executable, "-c", PROGRAM, ops]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)

    together = [start("sum,prod,min,max,avg_final"), start("avg_final,max,min,prod,sum")]
    for process in together:
        process.communicate()
        assert process.returncode == 0
    later = start("max,sum,avg_final,min,prod")
    hits, _ = later.communicate()
    assert later.returncode == 0
    assert int(hits) == 5
