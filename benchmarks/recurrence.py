"""How fast ring, tree and all-to-all are evaluated without schedules: python benchmarks/recurrence.py [--full] [--threads 1,2]

A row is one all-reduce, or the collective it names, on a network of two classes of hop (nodes of 8 ranks), every rank with its
own slow factor, so that no two hops cost alike. messages/s counts every message of the schedule; `passage` is the longest path,
which accounts for all of them without touching each, and `closed` the formula for equal nodes. MB is the process's peak so far,
Python and NumPy included (about 150). Times are of the second of two runs where the first takes less than a second.

The short mode takes some seconds. --full walks rings and trees of 300,000 ranks.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from functools import partial

import numpy as np
from busbw.fabric.physics.network import NOISE_ENTRIES, Network, network
from busbw.fabric.time.closed import hop
from busbw.fabric.time.closed import ring_ps as closed_ring_ps
from busbw.fabric.time.recurrence import (
    EXCHANGES,
    REDUCING,
    exchange_finish,
    half_ring_finish,
    processors,
    ring_ps,
    tree_ps,
)

NODE = 8


def a_network(ranks: int, *, noisy: bool = False, alike: bool = False) -> Network:
    rng = np.random.default_rng(0)
    delays = rng.exponential(200_000, NOISE_ENTRIES).astype(np.int64)
    return network(
        np.arange(ranks)[None] // NODE,
        latency=[800_000, 2_500_000],
        byte_ps=[1.3, 11.0],
        send_overhead=150_000,
        recv_overhead=150_000,
        gap=5000,
        slow=np.ones((2, ranks)) if alike else 1 + 0.05 * rng.random((2, ranks)),
        reduce_ps=0.4,
        noise=np.sort(delays) if noisy else None,
    )


def show(what: str, ranks: int, threads: int, messages: int, run) -> None:
    start = time.perf_counter()
    ps = run()
    seconds = time.perf_counter() - start
    if seconds < 1:
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    print(
        f"{what:<28}{ranks:>9,}{threads:>5}{messages:>18,}{seconds:>11.4f}{messages / seconds:>12.3g}"
        f"{peak:>7.0f}  {ps / 1e12:.6f}",
        flush=True,
    )


def rings(ranks: int, threads: int, noises) -> None:
    messages = 2 * (ranks - 1) * ranks
    for noisy in noises:
        net, count = a_network(ranks, noisy=noisy), 1000 * ranks + ranks // 3
        name = f"ring{', noise' if noisy else ''}"
        show(name, ranks, threads, messages, partial(ring_ps, net, count, 4, method="steps", threads=threads))


def halves(ranks: int, threads: int) -> None:
    net, messages = a_network(ranks), (ranks - 1) * ranks
    for name in REDUCING:
        show(
            f"ring, {name}", ranks, threads, messages,
            lambda name=name: half_ring_finish(net, name, 1000, 4, method="steps", threads=threads).max(),
        )  # fmt: skip


def exchanges(ranks: int, noises) -> None:
    for noisy in noises:
        net, messages = a_network(ranks, noisy=noisy), (ranks - 1) * ranks
        for name in EXCHANGES:
            what = f"alltoall, {name}{', noise' if noisy else ''}"
            show(what, ranks, 1, messages, lambda name=name, net=net: exchange_finish(net, name, 1000, 4).max())


def shortcuts(ranks: int) -> None:
    messages, count = 2 * (ranks - 1) * ranks, 1000 * ranks
    net = a_network(ranks, alike=True)
    hops = [hop(net, r, (r + 1) % ranks) for r in range(NODE)]
    show("ring, passage", ranks, 1, messages, partial(ring_ps, net, count, 4, method="passage"))
    show("ring, closed", ranks, 1, messages, partial(closed_ring_ps, ranks, count, 4, hops))


def trees(ranks: int, slices: int, threads: int, noises) -> None:
    messages = 4 * (ranks - 1) * slices
    for noisy in noises:
        net = a_network(ranks, noisy=noisy)
        name = f"tree, {slices} slices{', noise' if noisy else ''}"
        show(name, ranks, threads, messages, partial(tree_ps, net, 1 << 28, 4, slices=slices, threads=threads))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="300,000 ranks")
    parser.add_argument("--threads", default=f"1,{processors()}", help="numbers of threads (default 1 and all)")
    options = parser.parse_args()
    print(f"{'':<28}{'ranks':>9}{'thr':>5}{'messages':>18}{'seconds':>11}{'messages/s':>12}{'MB':>7}  result s")
    every = sorted({int(t) for t in options.threads.split(",")})
    ring_ps(a_network(2048, noisy=True), 4096, 4)  # compile
    ring_ps(a_network(2048), 4096, 4, method="steps")
    tree_ps(a_network(64), 4096, 4)
    for name in REDUCING:
        half_ring_finish(a_network(2048), name, 1, 4, method="steps")
    for name in EXCHANGES:
        exchange_finish(a_network(64), name, 1, 4)
    for threads in every:
        for ranks in (1000, 10_000) if not options.full else (1000, 10_000, 100_000):
            rings(ranks, threads, (False, True))
        halves(10_000, threads)
        if options.full:
            rings(300_000, threads, (False,))
            halves(300_000, threads)
        trees(100_000, 8, threads, (False, True))
        if options.full:
            trees(300_000, 64, threads, (False, True))
    exchanges(4096, (False, True))
    for ranks in (32_000, 300_000):
        shortcuts(ranks)


if __name__ == "__main__":
    main()
