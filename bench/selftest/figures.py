"""What the self-test measures, against the device's own limits in the same run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...collectives import ALGORITHMS
from ...transports.device import DeviceSession
from ...transports.gate import Gate
from ...transports.session import Job
from ...transports.tuning import GPU_SLICES, default_slices
from .. import gpu
from ..record import busbw_factor
from .closing import closing
from .findings import Finding
from .rig import DeviceRig, Rig

AIM_KERNEL, AIM_RING = 0.9, 0.8  # of the driver's copy, of the limit of its memory traffic
AIM_LAUNCHES = 2.0  # of an empty launch's time
LATENCY_SAMPLES, LARGE_SAMPLES = 51, 11


def bandwidth(rig: Rig, devices: DeviceRig) -> Iterator[Finding]:
    opened = devices.open()
    with closing(*opened) as device:
        found = gpu.bandwidths(device, rig.array_bytes or max(64 << 20, gpu.limit_bytes(device)))
    for name, label in (("copy", "copy"), ("add", "reduce")):
        share = found[name] / found["memcpy"]
        yield Finding(
            f"{label} kernel, {devices.name}",
            True,
            f"{found[name] / 1e9:.0f} GB/s, {share:.0%} of the driver's copy ({found['memcpy'] / 1e9:.0f} GB/s)"
            + _aim(share >= AIM_KERNEL, f"{AIM_KERNEL:.0%}"),
            {"bytes_per_second": found[name], "memcpy_bytes_per_second": found["memcpy"], "share": share},
        )


def latency(rig: Rig, devices: DeviceRig, way: str) -> Iterator[Finding]:
    opened = devices.open()
    ranks = max(2, len(opened))
    with closing(
        DeviceSession(opened, ranks, 4096, 4096 * ranks, way=way, flush=False, timeout=rig.timeout)
    ) as session:
        device = session.devices[0]
        at = device.allocate(4096)

        def empty():
            device.launch("fill_1", "uint8", (at, at, 0, 0), 1)

        empty()
        gate = Gate([device])
        launch = float(np.median([gpu.seconds_of(gate, empty, 1) for _ in range(LATENCY_SAMPLES)]))
        best, slopes = {}, {}
        for algorithm in ALGORITHMS:
            session.prepare(Job(algorithm, 2, "float32", "sum"))
            session.run()
            best[algorithm] = float(np.median(session.time(LATENCY_SAMPLES, 1)[0]))
            slopes[algorithm] = session.costs()["slope"]
        fastest = min(best, key=best.get)
        ratio = best[fastest] / max(launch, 1e-9)
        yield Finding(
            f"8 bytes, {ranks} ranks, {devices.name}, {way}",
            True,
            f"{best[fastest] * 1e6:.1f} us ({fastest}), {ratio:.1f} x an empty launch ({launch * 1e6:.1f} us), "
            f"{min(slopes.values()) * 1e6:.1f} us in a row of many"
            + _aim(ratio <= AIM_LAUNCHES, f"{AIM_LAUNCHES:g} x"),
            {"seconds": best, "slope_seconds": slopes, "launch_seconds": launch, "ratio": ratio, "gated": gate.holds},
        )


def ring(rig: Rig, devices: DeviceRig, way: str) -> Iterator[Finding]:
    opened = devices.open()
    ranks = len(opened) if len(opened) > 1 else gpu.EMULATED_RANKS
    with closing(*opened) as first:
        limits = gpu.bandwidths(first, rig.array_bytes or max(64 << 20, gpu.limit_bytes(first)))
        session = DeviceSession(opened, ranks, rig.large_bytes, rig.large_bytes, way=way, timeout=rig.timeout)
        found = rate(session, "ring", rig.large_bytes, f"ring, {devices.name}, {way}")
        least = gpu.least_seconds(session, limits)
        if least:
            share = least / found.figures["seconds"]
            words = f", {share:.0%} of its memory traffic's limit" + _aim(share >= AIM_RING, f"{AIM_RING:.0%}")
            found = Finding(found.what, True, found.detail + words, {**found.figures, "share": share})
        yield found


def rate(session, algorithm: str, nbytes: int, what: str) -> Finding:
    """The bandwidth of a large all-reduce of any session."""
    slices = default_slices(algorithm, session.ranks, nbytes, GPU_SLICES)
    session.prepare(Job(algorithm, nbytes // 4, "float32", "sum", slices=slices))
    session.run()
    seconds = float(np.median(session.time(LARGE_SAMPLES, 1)[0]))
    busbw = nbytes / seconds * busbw_factor(session.ranks)
    words = f"{nbytes >> 20} MiB float32 sum, {session.ranks} ranks: {busbw / 1e9:.1f} GB/s busbw"
    return Finding(what, True, words, {"seconds": seconds, "busbw_bytes_per_second": busbw})


def _aim(reached: bool, aim: str) -> str:
    return f"; the aim is {aim}" if reached else f"; BELOW THE AIM of {aim}"
