"""A device.Device that runs walk.cu, compiled by g++, on this machine's memory. `compiler()` is None where there is no g++."""

import contextlib
import ctypes
import fcntl
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path

import numpy as np
from busbw.kernels import cpu, cuda_source, float8, selftest
from busbw.transports.cupy_device import FOLDER, walk_options

HERE = Path(__file__).parent
SHIM = HERE.parent / "kernels" / "cuda_shim.h"
THREADS = 2  # of a block; each is a thread of this machine


def compiler():
    return shutil.which("g++")


@cache
def library(folder: str, dtype: str, op: str):
    """walk.cu as C++; of processes that want the same at once one compiles it, and the others wait."""
    target = Path(folder) / f"walk_{dtype}_{op}.so"
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _compile(dtype, op, target)
    return ctypes.CDLL(str(target))


def _compile(dtype: str, op: str, target: Path) -> None:
    options = [o for o in walk_options(dtype, op) if not o.startswith("-std")]
    command = [compiler(), "-std=c++17", "-O1", "-shared", "-fPIC", "-pthread", "-include", str(SHIM), *options]
    unfinished = target.with_suffix(".unfinished")
    command += [f"-I{FOLDER}", f"-I{cuda_source.FOLDER}", str(HERE / "shim_walk.cpp"), "-o", str(unfinished)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    unfinished.rename(target)


class ShimDevice:
    name = "this machine's CPU, as a GPU"
    stream_address = 0
    holds = False  # a launch is over when it returns

    def __init__(self, folder, *, resident: int = 8, id: int = 0):
        """resident: blocks that `walk` may have at once; 0: no cooperative launch."""
        self.folder, self.resident, self.id = str(folder), resident, id
        self.kept = {}
        self.launches = {"walk": 0, "graph": 0}
        self.misaligned = 0

    def allocate(self, nbytes):
        block = np.zeros(nbytes + 256, np.uint8)
        address = (block.ctypes.data + 255) // 256 * 256
        self.kept[address] = block
        return address

    def release(self, address):
        del self.kept[address]

    def upload(self, address, values):
        values = np.ascontiguousarray(values)
        ctypes.memmove(address, values.ctypes.data, values.nbytes)

    def download(self, address, dtype, count):
        out = np.empty(count, dtype)
        ctypes.memmove(out.ctypes.data, address, out.nbytes)
        return out

    def zero(self, address, nbytes):
        ctypes.memset(address, 0, nbytes)

    def copy(self, dst, src, nbytes):
        ctypes.memmove(dst, src, nbytes)

    def describe(self):
        return {"name": self.name}

    def launch(self, kernel, dtype, arguments, nbytes):
        """The CPU backend's kernels, by the device's names."""
        if kernel.startswith("fill_"):
            dst, table, count, start = arguments
            cpu.call(cpu.fill_pointer(int(kernel[5:])), dst, 0, table, 0, count, start)
        elif kernel == "copy":
            dst, dst2, src, count = arguments
            cpu.call(cpu.pointers("sum", "uint8").copy, dst, dst2, src, 0, count, 1)
        elif kernel == "check_exact_8":
            array, table, count, start, counter = arguments
            found = np.frombuffer((ctypes.c_uint64 * count).from_address(array), np.uint64)
            where = ((np.arange(start, start + count, dtype=np.uint64) * 2654435761) & 0xFFFFFFFF) >> 24
            expected = np.frombuffer((ctypes.c_uint64 * 256).from_address(table), np.uint64)[where]
            ctypes.c_uint64.from_address(counter).value += int((found != expected).sum())
        elif kernel.startswith("reduce_"):
            op = kernel.removeprefix("reduce_")
            pointers = cpu.pointers("avg" if op == "avg_final" else op, dtype)
            cpu.call(pointers.reduce_final if op == "avg_final" else pointers.reduce, *arguments)
        else:
            assert kernel == "check_range"
            dst, low, high, count, start, counter = arguments
            if dtype in float8.NAMES:  # which the CPU backend has not
                codes = np.frombuffer((ctypes.c_uint8 * count).from_address(dst), np.uint8)
                where = [selftest.table_index(start + i) for i in range(count)]
                bounds = [
                    np.frombuffer((ctypes.c_double * 256).from_address(at), np.float64)[where] for at in (low, high)
                ]
                found = float8.values(dtype)[codes]
                ctypes.c_uint64.from_address(counter).value += int(
                    (~((bounds[0] <= found) & (found <= bounds[1]))).sum()
                )
                return
            count_wrong = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * 6)(cpu.check_pointer(dtype))
            ctypes.c_uint64.from_address(counter).value += count_wrong(dst, 0, low, high, count, start)

    def resident_blocks(self, dtype, op):
        return self.resident

    def walk(self, dtype, op, blocks, arguments):
        assert blocks <= self.resident
        lib = library(self.folder, dtype, op)
        lib.run_walk(blocks, THREADS, (ctypes.c_longlong * 12)(*arguments))
        self.launches["walk"] += 1
        self.misaligned += lib.shim_misaligned()

    def graph(self, dtype, op, steps):
        return dtype, op, list(steps)

    def launch_graph(self, graph):
        dtype, op, steps = graph
        lib = library(self.folder, dtype, op)
        for address, rows, blocks in steps:
            lib.run_step(min(blocks, 4), THREADS, ctypes.c_void_p(address), ctypes.c_longlong(rows))
        self.launches["graph"] += 1
        self.misaligned += lib.shim_misaligned()

    def here(self):
        return contextlib.nullcontext()

    def event(self):
        return time.perf_counter()

    def seconds(self, start, end):
        return end - start

    def flush_cache(self):
        pass

    def close(self):
        self.kept.clear()
