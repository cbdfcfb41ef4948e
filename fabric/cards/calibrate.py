"""The card of this machine, made by measuring: a rank is a core, the machine is one node, and there is no network.

Measured, in about a second: the one-way latency of a flag between two cores (ping-pong over two words in cache lines of
their own), and the bytes a second that every core copies and reduces when all do, on arrays that no cache holds.
"""

from __future__ import annotations

import os
import platform
import threading
import time

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ...kernels import cpu
from . import card
from .card import Figure, System

ROUNDS = 1000  # of one batch: short, so that some batch is not disturbed
BATCHES = 50
SPINS = 1 << 27  # polls before a rank gives the other up: it never got a core
REPEATS = 5
ARRAY_BYTES = 32 << 20  # of one array, of three a core
SOURCE = "measured on this machine"


@intrinsic
def _load(typing, address):
    """The int64 at `address`, not before anything that the writer did before writing it."""

    def codegen(context, builder, signature, arguments):
        word = builder.inttoptr(arguments[0], cgutils.intp_t.as_pointer())
        return builder.load_atomic(word, "acquire", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _store(typing, address, value):
    """Write the int64 at `address`, after everything before it."""

    def codegen(context, builder, signature, arguments):
        word = builder.inttoptr(arguments[0], cgutils.intp_t.as_pointer())
        builder.store_atomic(arguments[1], word, "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), codegen


@njit(cache=True, nogil=True)
def _ping_pong(mine, other, first, rounds, serves):
    """Exchange `rounds` flags, counting from `first`; False if the other side does not answer."""
    for i in range(first, first + rounds):
        if serves:
            _store(mine, i)
        spins = 0
        while _load(other) < i:
            spins += 1
            if spins > SPINS:
                return False
        if not serves:
            _store(mine, i)
    return True


def _cores() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return list(range(os.cpu_count() or 1))


def _pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})  # of the calling thread


def _on_cores(cores: list[int], work) -> list:
    """work(i) on each core i at once, in a thread pinned to it; what they return. The first exception is raised."""
    results, errors = [None] * len(cores), []

    def run(i):
        try:
            _pin(cores[i])
            results[i] = work(i)
        except Exception as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(len(cores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def flag_latency(cores: list[int]) -> float | None:
    """Seconds for a flag from the first to the second of `cores`; None if there is one core, or they do not answer."""
    if len(cores) < 2:
        return None
    words = np.zeros(
        64, np.int64
    )  # word 0 and word 32: 256 bytes apart, so in two cache lines and two prefetched pairs
    addresses = (words.ctypes.data, words.ctypes.data + 256)
    _ping_pong(addresses[0], addresses[0], 1, 0, True)  # compile before the clock runs

    def side(i):
        best = None
        for batch in range(BATCHES + 1):
            begin = time.perf_counter()
            if not _ping_pong(addresses[i], addresses[1 - i], 1 + batch * ROUNDS, ROUNDS, i == 0):
                return None
            took = (time.perf_counter() - begin) / (2 * ROUNDS)
            if batch:  # the first waits for the other side to start
                best = took if best is None else min(best, took)
        return best

    return _on_cores(cores[:2], side)[0]


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 4 << 30


def memory_rates(cores: list[int]) -> tuple[float, float, float]:
    """Bytes a second of one core: copied when it is alone, copied when all copy, moved (3 a result) when all reduce."""
    nbytes = max(1 << 20, min(ARRAY_BYTES, _memory() // (16 * len(cores))) & -4096)
    kernels = cpu.pointers("sum", "float32")
    barrier = threading.Barrier(len(cores))

    def work(i):
        try:
            return measure(i)
        except BaseException:
            barrier.abort()  # the others would wait for ever
            raise

    def measure(i):
        arrays = [np.ones(nbytes // 4, np.float32) for _ in range(3)]
        dst, a, b = (array.ctypes.data for array in arrays)
        tasks = (
            lambda: cpu.call(kernels.copy_nt, dst, 0, a, 0, nbytes),
            lambda: cpu.call(kernels.reduce_nt, dst, 0, a, b, nbytes // 4),
        )
        alone = _best(tasks[0]) if i == 0 else None
        barrier.wait()
        times = []
        for task in tasks:
            best = None
            for _ in range(REPEATS):
                barrier.wait()
                begin = time.perf_counter()
                task()
                took = time.perf_counter() - begin
                barrier.wait()  # none begins anew while another still works
                best = took if best is None else min(best, took)
            times.append(best)
        return alone, *times

    measured = _on_cores(cores, work)
    copying, reducing = (max(m[i] for m in measured) for i in (1, 2))
    return nbytes / measured[0][0], nbytes / copying, 3 * nbytes / reducing


def _best(task) -> float:
    times = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        task()
        times.append(time.perf_counter() - begin)
    return min(times)


def this_machine() -> System:
    """A card of this machine, measured now. Every call measures again."""
    cores = _cores()
    latency = flag_latency(cores)
    alone, copied, moved = memory_rates(cores)
    alone = max(alone, copied)
    host = platform.node() or "this host"

    def known(value, source=SOURCE):
        return Figure(value, "known", source)

    def guess(value, how):
        return Figure(value, "estimated", "not measured", how)

    ranks = len(cores)
    hop = (
        known(latency)
        if latency is not None
        else guess(1e-7, "one core, or one too busy to answer: a flag between two cores of a server")
    )
    no_limit = guess((alone,) * 3, "no such limit: what one core copies")
    zero = guess(0.0, "not used on one node of cores")
    figures = {
        "gpus": known(ranks, "the cores that this process may use"),
        "gpu.name": known(platform.processor() or platform.machine() or "core", "the operating system"),
        "gpu.architecture": known("cpu", "the operating system"),
        "gpu.memory": known(float(_memory() // ranks), "the operating system: its memory, shared by the cores"),
        "gpu.memory_bandwidth": known(moved),
        "gpu.power": guess(10.0, "a core of a server with its share of the package"),
        "node.gpus": known(ranks, "the cores that this process may use"),
        "node.nics": known(0, "no network is used"),
        "node.domain": known(ranks, "all cores share the memory"),
        "node.link.name": known("shared memory", "the operating system"),
        "node.link.kind": known("memory", "the operating system"),
        "node.link.nominal_rate": known(alone, f"{SOURCE}: one core copies"),
        "node.link.rate": known(copied, f"{SOURCE}: all cores copy"),
        "node.link.latency": hop,
        "node.link.sharp": known(False, "memory does not reduce"),
        "software.name": known("busbw", "this program"),
        "software.nvls_link": zero,
        "software.nvls_network": zero,
        "software.nvls_tree_network": zero,
        "software.nvls_efficiency": guess(0.0, "memory does not reduce"),
        "software.collnet_network": zero,
        "software.network_overhead": zero,
        "power.all_in_per_gpu": guess(15.0, "a core of a server with its share of memory, supply and cooling"),
    }
    for algorithm in ("ring", "tree"):
        for part in ("base", "nvlink", "pcie", "network"):
            for protocol in ("ll", "ll128", "simple"):
                value = guess(0.0, "ranks are always running: no kernel is started") if part == "base" else hop
                figures[f"software.{algorithm}.{part}.{protocol}"] = value
    for cap in ("ll", "ring_ll128", "tree_ll128", "tree_simple", "nvls_tree"):
        figures[f"software.caps.{cap}"] = no_limit
    return card.build(card.THIS_MACHINE, f"{host}: {ranks} cores, measured now", figures)
