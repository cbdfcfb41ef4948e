"""How near a GPU's limits we are: python benchmarks/gpu.py [--backend cupy] [--sizes 64M,256M,1G] [--ranks 2,4,8]

For each size: the copy and the reduction, GB/s of bytes read and written, and their share of the driver's own copy of the same
arrays in the same run. For each number of emulated ranks on one GPU: 8 bytes by every algorithm, in launches of an empty
kernel; and the ring at each size, GB/s busbw and its share of the limit of its own memory traffic. Medians of CUDA events.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
from busbw.bench import gpu
from busbw.bench.record import busbw_factor
from busbw.bench.sizes import format_size, parse_size
from busbw.collectives import ALGORITHMS
from busbw.errors import UserError
from busbw.transports.device import DeviceSession
from busbw.transports.gate import Gate
from busbw.transports.session import Job
from busbw.transports.tuning import GPU_SLICES, default_slices

SAMPLES = 21


def open_device(backend: str):
    if backend == "cupy":
        from busbw.transports.cupy_device import open_devices

        return open_devices([0])
    from busbw.transports.numba_device import open_devices as open_numba_devices

    return open_numba_devices()


def kernels(backend: str, sizes: list[int]) -> dict[int, dict[str, float]]:
    (device,) = open_device(backend)
    print(f"{device.name}\n{'arrays':>10} {'memcpy':>8} {'copy':>8} {'share':>6} {'add':>8} {'share':>6}   GB/s")
    found = {}
    for size in sizes:
        found[size] = b = gpu.bandwidths(device, size)
        copy, add = b["copy"] / b["memcpy"], b["add"] / b["memcpy"]
        print(
            f"{format_size(size):>10} {b['memcpy'] / 1e9:8.1f} {b['copy'] / 1e9:8.1f} {copy:6.0%} {b['add'] / 1e9:8.1f} {add:6.0%}"
        )
    device.close()
    return found


def all_reduce(backend: str, ranks: int, sizes: list[int], limits: dict, way: str) -> None:
    devices = open_device(backend)
    session = DeviceSession(devices, ranks, max(sizes), ranks * 4096 + max(sizes), way=way)
    device, at = devices[0], devices[0].allocate(4096)

    def empty():
        device.launch("fill_1", "uint8", (at, at, 0, 0), 1)

    empty()
    gate = Gate(devices[:1])
    launch = float(np.median([gpu.seconds_of(gate, empty, 1) for _ in range(SAMPLES)]))
    print(f"{ranks} ranks, {way}; an empty launch takes {launch * 1e6:.1f} us")
    for algorithm in ALGORITHMS:
        session.prepare(Job(algorithm, 2, "float32", "sum"))
        session.run()
        seconds = float(np.median(session.time(SAMPLES, 1)[0]))
        print(f"  8 B {algorithm:<20} {seconds * 1e6:8.1f} us {seconds / max(launch, 1e-9):6.1f} launches")
    for size in sizes:
        slices = default_slices("ring", ranks, size, GPU_SLICES)
        session.prepare(Job("ring", size // 4, "float32", "sum", slices=slices))
        session.run()
        seconds = float(np.median(session.time(SAMPLES, 1)[0]))
        busbw = size / seconds * busbw_factor(ranks)
        share = gpu.least_seconds(session, limits[size]) / seconds
        print(f"  ring {format_size(size):>9} {busbw / 1e9:8.1f} GB/s busbw, {share:.0%} of its traffic's limit")
    session.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("cupy", "numba-cuda"), default="cupy")
    parser.add_argument("--sizes", default="64M,256M,1G")
    parser.add_argument("--ranks", default="2,4,8")
    args = parser.parse_args()
    reason = gpu.missing(args.backend)
    if reason:
        print(f"no figures: {reason}", file=sys.stderr)
        return 2
    sizes = [parse_size(s) for s in args.sizes.split(",")]
    limits = kernels(args.backend, sizes)
    for ranks in map(int, args.ranks.split(",")):
        for way in ("walk", "steps") if args.backend == "cupy" else ("steps",):
            try:
                all_reduce(args.backend, ranks, sizes, limits, way)
            except (UserError, MemoryError) as error:
                print(f"{ranks} ranks, {way}: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
