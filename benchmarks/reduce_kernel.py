"""Our reduction kernels beside C: python benchmarks/reduce_kernel.py [--sizes 16K,256K,4M,64M,256M] [--threads 1,2]

The C (reduce_kernel.c, compiled here with gcc -O3 -march=native) and our compiled kernels have one signature and are
called by one timing loop in C, in turn, on the same buffers, so that what the machine is doing at the moment falls on
both. A row is the median over the rounds. GB/s counts the bytes a kernel has to read and write (add: 3 bytes moved a
byte of dst; "both": 4; copy: 2), without the read-for-ownership a plain store costs.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from busbw.kernels import cpu

ROUND_SECONDS = 0.02  # a kernel's turn in a round lasts about this long
LINE = 64
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


def compiled_c() -> ctypes.CDLL:
    if shutil.which("gcc") is None:
        raise SystemExit("gcc was not found; the yardstick is C, so this benchmark needs it on the PATH")
    source = Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "reduce_kernel.so"
        command = ["gcc", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        loaded = ctypes.CDLL(str(library))
    loaded.seconds.restype = ctypes.c_double
    loaded.seconds.argtypes = [ctypes.c_void_p, ctypes.c_int] + [ctypes.c_int64] * 7
    return loaded


def kernels(library: ctypes.CDLL) -> list[tuple[str, str, int, int, int]]:
    """(name, group, address, bytes a unit of count, bytes moved a byte of dst); a group is compared with its best C."""

    def c(name: str) -> int:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value

    float32, bfloat16, float16 = (cpu.pointers("sum", name) for name in ("float32", "bfloat16", "float16"))
    return [
        ("C add", "add", c("c_add"), 4, 3),
        ("C add nt", "add", c("c_add_nt"), 4, 3),
        ("float32", "add", float32.reduce, 4, 3),
        ("float32 nt", "add", float32.reduce_nt, 4, 3),
        ("bfloat16", "add", bfloat16.reduce, 2, 3),
        ("bfloat16 nt", "add", bfloat16.reduce_nt, 2, 3),
        ("float16", "add", float16.reduce, 2, 3),
        ("float16 nt", "add", float16.reduce_nt, 2, 3),
        ("C add both", "both", c("c_add_both"), 4, 4),
        ("C add both nt", "both", c("c_add_both_nt"), 4, 4),
        ("float32 both", "both", float32.reduce_both, 4, 4),
        ("float32 both nt", "both", float32.reduce_both_nt, 4, 4),
        ("float32 both nt2", "both", float32.reduce_both_nt2, 4, 4),
        ("C memcpy", "copy", c("c_copy"), 1, 2),
        ("copy", "copy", float32.copy, 1, 2),
        ("copy nt", "copy", float32.copy_nt, 1, 2),
    ]


def buffers(size: int) -> tuple[np.ndarray, list[int]]:
    """Memory for four arrays of `size` bytes and their addresses: each on a 64-byte line, none alike modulo a page."""
    apart = -(-size // LINE) * LINE + 1024 + LINE
    memory = np.ones(4 * apart + LINE, dtype=np.uint8)
    base = memory.ctypes.data + -memory.ctypes.data % LINE
    return memory, [base + i * apart for i in range(4)]


def measure(library: ctypes.CDLL, size: int, threads: int, rounds: int) -> None:
    owner, (dst, dst2, a, b) = buffers(size)
    rows = kernels(library)
    times: dict[str, list[float]] = {name: [] for name, *_ in rows}

    def once(address: int, unit: int, repeats: int) -> float:
        return library.seconds(address, threads, dst, dst2, a, b, size // unit, unit, repeats)

    repeats = {name: max(1, round(ROUND_SECONDS / once(address, unit, 2))) for name, _, address, unit, _ in rows}
    for _ in range(rounds):
        for name, _, address, unit, _ in rows:
            times[name].append(once(address, unit, repeats[name]))
    best: dict[str, float] = {}
    for name, group, *_ in rows:
        if name.startswith("C "):
            best[group] = min(best.get(group, np.inf), median(times[name]))
    del owner  # not earlier: the addresses above point into it
    print(f"\n{size:,} bytes an array, {threads} thread(s), {rounds} rounds")
    print(f"{'kernel':>18} {'us':>12} {'GB/s':>8} {'best C / this':>14}")
    for name, group, _, _, moved in rows:
        seconds = median(times[name])
        print(f"{name:>18} {seconds * 1e6:12.2f} {moved * size / seconds / 1e9:8.1f} {best[group] / seconds:14.2f}")


def parse_size(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]] if text[-1] in UNITS else int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sizes", default="16K,256K,4M,64M,256M", help="bytes of one array; powers of two, at least 1K"
    )
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    library = compiled_c()
    for threads in options.threads.split(","):
        for size in options.sizes.split(","):
            measure(library, parse_size(size), int(threads), options.rounds)


if __name__ == "__main__":
    main()
