"""Compiled kernels as programs of this machine, and a `device.Device` whose `walk` is one of them.

A program is PTX turned into C++ (ptx_translate.py, cuda_thread.h, launch.h), under ThreadSanitizer or not. Memory is an arena: a
file that this process and the program map at the same address.
"""

import ctypes
import mmap
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import ptx_translate
import shim_device

HERE = Path(__file__).parent
BASE = 0x7EA000000000  # where ThreadSanitizer lets a program map what it likes


def unavailable() -> str | None:
    """None where PTX can be compiled, translated and run here, else why not."""
    from busbw.kernels import offline

    if shutil.which("g++") is None:
        return "g++ is not installed: compiled kernels were not run on the CPU"
    return offline.unavailable()


def build(ptx: str, kernel: str, target: Path, *, sanitize: bool) -> Path:
    """The program of a kernel of one PTX text."""
    body = ptx_translate.translate(ptx, kernel, "kernel")
    main = "int main(int n, char** words) {\n  return launch_from(n, words, {kernel, kernel_parameters, kernel_shared_bytes});\n}\n"
    source = target.with_suffix(".cpp")
    source.write_text("\n".join(['#include "cuda_thread.h"', body, '#include "launch.h"', main]))
    flags = ["-fsanitize=thread", "-g1"] if sanitize else []
    command = ["g++", "-std=c++17", "-O1", "-w", "-ffp-contract=off", "-pthread", f"-I{HERE}", *flags]
    subprocess.run([*command, str(source), "-o", str(target)], check=True, capture_output=True, text=True)
    return target


class Arena:
    """Zeroed memory at BASE, from the start of which places are given out."""

    def __init__(self, size: int = 64 << 20):
        self.size, self.file = size, tempfile.NamedTemporaryFile(prefix="busbw-ptx-")  # noqa: SIM115
        self.file.truncate(size)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
        flags = mmap.MAP_SHARED | 0x100000  # MAP_FIXED_NOREPLACE
        at = libc.mmap(BASE, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, self.file.fileno(), 0)
        if at != BASE:
            raise OSError(ctypes.get_errno(), f"{size} bytes at {BASE:#x} cannot be mapped")
        self._libc, self._next = libc, BASE

    def take(self, nbytes: int) -> int:
        at = (self._next + 255) // 256 * 256
        self._next = at + nbytes + 64
        if self._next > BASE + self.size:
            raise MemoryError(f"{nbytes} bytes")
        return at

    def clear(self) -> None:
        ctypes.memset(BASE, 0, self._next - BASE)
        self._next = BASE

    def close(self) -> None:
        self._libc.munmap(ctypes.c_void_p(BASE), ctypes.c_size_t(self.size))
        self.file.close()


class Caught(AssertionError):
    """A run that ended other than well: a race, a stray or misaligned access, a flag that went back, or no end."""


@dataclass
class Program:
    path: Path
    arena: Arena
    delay_us: int = 0
    seed: int = 1
    patience: float = 240.0  # seconds a launch may take

    def launch(self, grid: int, block: int, parameters, *, together: bool, grid_y: int = 1) -> None:
        """Raises Caught with what the program said."""
        self.seed += 1
        shape = [grid, grid_y, block, "together" if together else "alone", self.delay_us, self.seed]
        command = [self.path, self.arena.file.name, hex(BASE), self.arena.size, *shape, *map(int, parameters)]
        options = os.environ | {"TSAN_OPTIONS": "exitcode=66 halt_on_error=1 report_signal_unsafe=0"}
        command = [str(word) for word in command]
        try:
            done = subprocess.run(command, env=options, capture_output=True, text=True, timeout=self.patience)
        except subprocess.TimeoutExpired:
            raise Caught(f"did not end within {self.patience} s") from None
        if done.returncode:
            raise Caught(f"exit status {done.returncode}: {done.stderr[:4000]}")


class PtxDevice(shim_device.ShimDevice):
    """A GPU of `resident` blocks whose walk is a Program's; everything else is done on the CPU."""

    name = "compiled PTX as threads"

    def __init__(self, program: Program, *, resident: int, threads: int):
        super().__init__(".", resident=resident)
        self.program, self.threads = program, threads

    def allocate(self, nbytes):
        return self.program.arena.take(nbytes)

    def release(self, address):
        pass

    def walk(self, dtype, op, blocks, arguments):
        self.launches["walk"] += 1
        self.program.launch(blocks, self.threads, arguments, together=True)
