"""A sweep: every size under every algorithm, measured, recorded as it comes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

from ..collectives.collective import COLLECTIVES
from ..kernels.dtypes import find_device_dtype
from ..transports.session import REFERENCES, Session, Unavailable
from . import gpu
from . import record as result_file
from .auto import Chooser
from .emulate import emulate
from .environment import before_warnings, environment
from .limits import least_seconds, measure_limits
from .measure import measure
from .options import Options, algorithms_for, modes_for, ops_for, plain
from .record import Record, Timing
from .sizes import format_size
from .slices import suiting
from .warnings import after_warnings

LIMITS_FROM_BYTES = 1 << 20  # smaller sweeps never leave the cache: the memory's limits say nothing of them


def sweep(
    options: Options,
    session: Session,
    *,
    done: list[Record] = (),
    done_keys: list = (),
    out: str | None = None,
    progress: Callable[[int, int, str], None] = lambda index, total, text: None,
    on_limits: Callable[[dict], None] = lambda limits: None,
) -> Iterator[Record]:
    """Measure and yield one Record a size and algorithm; all processes of the session go through it together.

    done: records to yield as they are instead of measuring them again (--resume), which the root has; done_keys: their
    `key`, which all processes have; out: the result file, appended to by the
    root as each record is finished; progress: told (cells done, cells in all, what is measured now) on the root;
    on_limits: told the memory's limits once measured.
    """
    crew = session.crew
    env = environment(sorted(set(crew.hosts)), crew.library)
    if len(set(crew.hosts)) > 1:
        env["rank_hosts"] = list(crew.hosts)
    on_gpu = options.backend != "cpu"
    if not on_gpu:
        env["rank_cores"] = crew.masks
        env["affinity"] = sorted(set().union(*crew.masks))
    if on_gpu:
        env["gpu"] = gpu.record(options, session)
    run = uuid.uuid4().hex[:12]
    clock = session.clock
    warnings = [] if clock or on_gpu else before_warnings(env, len(crew.masks), crew.meetings)
    finished = {key(r): r for r in done}
    skip = {tuple(k) for k in done_keys} | set(finished)
    cells = [
        (c, count, dtype, op, algorithm)
        for c in (COLLECTIVES[name] for name in options.collectives)
        for dtype in options.dtypes
        for op in ops_for(options, c)
        for count in dict.fromkeys(
            c.count_of(session.ranks, size // find_device_dtype(dtype).itemsize) for size in options.sizes()
        )
        for algorithm in algorithms_for(options, c.name)
    ]
    session.slice_sizes = suiting(options, session)
    chooser = Chooser(options, session)
    limits: dict = {}
    least: dict[str, float] = {}
    if options.sizes()[-1] >= LIMITS_FROM_BYTES and not clock and crew.transport in ("shared", "device"):
        progress(0, len(cells), "the memory's limits")
        crew.activity = "measuring the memory's limits"
        limits = gpu.measure_limits(session) if on_gpu else measure_limits(session)
    for index, (collective, count, dtype, op, algorithm) in enumerate(cells):
        size = collective.size_count(session.ranks, count) * find_device_dtype(dtype).itemsize
        root = (options.root or 0) if collective.rooted else -1
        this = (collective.name, algorithm, size, dtype, op, root)
        if this in skip:
            if this in finished:
                yield finished[this]
            continue
        said = f"{format_size(size)} " + (f"{collective.name} " if len(options.collectives) > 1 else "") + algorithm
        timings: dict[str, Timing | None] = {"out_of_place": None, "in_place": None}
        late = samples = 0
        paced: dict[str, float] = {}
        costs: dict[str, dict[str, float]] = {}
        crew.activity = f"size {said.replace(' ' + algorithm, ', ' + algorithm)}"
        refused = None
        for mode in modes_for(options, collective):
            progress(index, len(cells), f"{said} {mode.replace('_', '-')}")
            chosen = chooser.choose(collective.name, algorithm, count, dtype, op, mode)
            job = chooser.job(collective.name, chosen, count, dtype, op, mode)
            if chosen in REFERENCES:
                try:
                    session.prepare(job)
                except Unavailable as e:  # MPI_Bcast has no out-of-place form, and so on
                    refused = e
                    continue
            if clock:
                measured, paced_seconds = emulate(session, job, options.effort, options.pace)
                if paced_seconds is not None:
                    paced[mode] = paced_seconds
            else:
                measured = measure(session, job, options.effort)
            if on_gpu:
                costs[mode] = session.costs()
            timings[mode] = measured.timing
            late += measured.late
            samples += len(measured.timing.samples)
            if limits and len(options.collectives) == 1 and count == cells[-1][1] and chosen not in REFERENCES:
                seconds = gpu.least_seconds(session, limits) if on_gpu else least_seconds(session, limits)
                if seconds:
                    least[f"{algorithm}/{mode}"] = seconds
        if not any(timings.values()):
            raise refused
        of_gpu, gpu_warnings = gpu.after(session) if on_gpu else ({}, [])
        record = Record(
            algorithm=algorithm,
            chosen=chosen,
            transport={"mpi-native": "mpi-library", "numpy": "numpy", "nccl": "nccl"}.get(chosen, crew.transport),
            clock=f"fabric:{clock.name}" if clock else "wall",
            ranks=session.ranks,
            size_bytes=size,
            count=count,
            dtype=dtype,
            op=op,
            channels=job.channels,
            slices=job.slices,
            **timings,
            options={
                **plain(options),
                "messages": session.message_modes,
                **({"paced_seconds": paced} if paced else {}),
                **({"gpu": {**of_gpu, "costs_seconds": costs}} if on_gpu else {}),
            },
            environment=env,
            warnings=warnings + gpu_warnings + ([] if clock else after_warnings(timings, late, samples)),
            run=run,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            collective=collective.name,
            root=root,
        )
        if out and session.is_root:
            result_file.append(out, record.to_json())
        yield record
    if limits:
        limits = {**limits, "least_seconds": least, "least_seconds_size": size}
        if out and session.is_root:
            result_file.append(out, result_file.limits_line(limits, run))
        on_limits(limits)


def key(record: Record) -> tuple:
    """What a row of a sweep is about."""
    return record.collective, record.algorithm, record.size_bytes, record.dtype, record.op, record.root
