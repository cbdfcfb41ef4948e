"""Opening a session: which ranks, with how much memory, under which clock."""

from __future__ import annotations

from contextlib import contextmanager

from ..collectives import build, distinct
from ..collectives.collective import COLLECTIVES
from ..collectives.nodes import Nodes
from ..kernels.dtypes import find_device_dtype
from ..transports import launcher
from ..transports.clock import stamps_needed
from ..transports.fault import fault_from_environment
from ..transports.session import REFERENCES, Job, Session
from ..transports.shared import LocalCrew
from ..transports.tuning import CPU_SLICES, GPU_SLICES, UNASKED_SLICES, SliceSizes, default_slices
from . import gpu
from .emulate import FabricClock, fabric_clock
from .environment import available_bytes, last_level_cache
from .options import OptionError, Options, algorithms_for, check_root, modes_for
from .sizes import format_size


@contextmanager
def session_for(options: Options):
    session = open_session(options)
    try:
        yield session
    except BaseException as e:
        session.abort(e)
        raise
    else:
        session.close()


def open_session(options: Options) -> Session:
    """The ranks and their memory. Raises OptionError where the memory would not fit, Unavailable without MPI."""
    from ..transports import mpi

    largest = options.sizes()[-1]
    if launcher.launched():
        mpi.load()
        from mpi4py import MPI

        ranks = MPI.COMM_WORLD.size
        with mpi.together("meeting the other ranks"):
            here = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).size
            backends = MPI.COMM_WORLD.allgather(options.backend)
        _same_backend(backends)
        nodes = mpi.nodes_of(MPI.COMM_WORLD, options.node_size)
    else:
        ranks = here = options.ranks
        nodes = options.node_size
    check_root(options, ranks)
    clock = _clock(options, ranks)
    if clock:
        nodes = clock.nodes
    scratch, messages = needs(options, ranks, clock, nodes)
    if options.backend != "cpu":
        session = gpu.open_session(options, largest, scratch)
        session.nodes = nodes
        return session
    _check_memory(options, ranks, here, scratch)
    stamps = messages if clock else 0
    if launcher.launched():
        crew = mpi.MpiCrew(
            largest,
            scratch,
            transport=options.transport,
            node_size=options.node_size,
            timeout=options.timeout,
            stamps=stamps,
            pin=options.pin,
        )
    else:
        crew = LocalCrew(ranks, largest, scratch, timeout=options.timeout, pin=options.pin, stamps=stamps)
    session = Session(
        crew,
        eager_bytes=options.eager_bytes,
        cache_bytes=last_level_cache(),
        fault=fault_from_environment(),
        clock=clock,
    )
    session.nodes = nodes
    return session


def needs(options: Options, ranks: int, clock: FabricClock | None, nodes: Nodes = None) -> tuple[int, int]:
    """(bytes of SCRATCH, messages sent) of the neediest rank over the sizes and algorithms asked for."""
    sizes = options.sizes()
    cuts = (CPU_SLICES,) if options.backend == "cpu" else (GPU_SLICES,)
    if options.backend == "cpu" and launcher.launched():
        cuts += (UNASKED_SLICES,)  # bench/slices.py chooses when the ranks have met
    scratch = messages = 0
    for collective in (COLLECTIVES[name] for name in options.collectives):
        names = algorithms_for(options, collective.name)
        for candidate in distinct(collective, ranks, nodes) if "auto" in names else names:
            if candidate in REFERENCES:
                continue
            for dtype in options.dtypes:
                d = find_device_dtype(dtype)
                for mode in modes_for(options, collective):
                    counts = [collective.count_of(ranks, size // d.itemsize) for size in sizes]
                    jobs = [
                        job_for(options, collective.name, candidate, n, dtype, "sum", mode, ranks, clock, nodes, cut)
                        for n in counts
                        for cut in cuts
                    ]
                    # A size of its own has no more messages than the largest cut into as many slices.
                    schedule = build(
                        candidate,
                        ranks,
                        counts[-1],
                        collective=collective,
                        root=options.root or 0,
                        channels=options.channels,
                        slices=max(job.slices for job in jobs),
                        in_place=mode == "in_place",
                        nodes=nodes,
                    )
                    scratch = max(scratch, schedule.scratch * d.itemsize)
                    messages = max(messages, stamps_needed(schedule.tables))
    return scratch, messages


def job_for(
    options: Options,
    collective: str,
    algorithm: str,
    count: int,
    dtype: str,
    op: str,
    mode: str,
    ranks: int,
    clock: FabricClock | None,
    nodes: Nodes,
    slice_sizes: SliceSizes,
) -> Job:
    """count: elements of a block (collectives/collective.py); op: "none" where nothing is reduced; slice_sizes: the session's."""
    c = COLLECTIVES[collective]
    nbytes = c.size_count(ranks, count) * find_device_dtype(dtype).itemsize
    if algorithm in REFERENCES:
        slices = 1
    elif options.slices:
        slices = options.slices
    elif clock:
        slices = clock.slices(c, algorithm, count, find_device_dtype(dtype).itemsize, options.channels)
    else:
        slices = default_slices(algorithm, ranks, nbytes, slice_sizes)
    root = (options.root or 0) if c.rooted else 0
    op = op if c.reduces else "sum"
    return Job(algorithm, count, dtype, op, mode == "in_place", options.channels, slices, c.name, root, nodes)


def _same_backend(backends: list[str]) -> None:
    if len(set(backends)) > 1:
        raise OptionError(
            f"--backend auto chose {' and '.join(sorted(set(backends)))} on different ranks; accepted: --backend cpu, or a GPU "
            "with CuPy for every rank"
        )


def _clock(options: Options, ranks: int) -> FabricClock | None:
    """The virtual clock of options.fabric; under mpirun everybody has the first rank's, even of a system that is measured."""
    if options.fabric is None:
        return None
    clock = fabric_clock(
        options.fabric,
        ranks,
        channels=options.channels,
        collectives=options.collectives,
        overrides=options.overrides or (),
        seed=options.seed or 0,
        noise=options.noise,
        stragglers=options.stragglers or (),
        routing=options.routing,
        failed_planes=options.failed_planes or 0,
    )
    from ..transports import mpi

    if not launcher.launched():
        return clock
    with mpi.together("sharing the clock"):
        return mpi.load().COMM_WORLD.bcast(clock)


def _check_memory(options: Options, ranks: int, ranks_here: int, scratch: int) -> None:
    """Each collective's own buffers: what all_gather gives is a rank's part of what it receives."""
    free = available_bytes()
    largest = options.sizes()[-1]
    each = scratch
    for name in options.collectives:
        c = COLLECTIVES[name]
        both = "out_of_place" in modes_for(options, c)
        parts = (c.input_count(ranks, 1) + c.output_count(ranks, 1)) if both else c.size_count(ranks, 1)
        each = max(each, scratch + largest * parts // c.size_count(ranks, 1))
    if free is None or ranks_here * each <= 0.9 * free:
        return
    fits = int(0.9 * free / ranks_here / (each / max(largest, 1)))
    power = 1 << max(3, fits.bit_length() - 1)
    raise OptionError(
        f"-e {format_size(largest)}: {ranks_here} ranks need {format_size(ranks_here * each)} for input, output and "
        f"scratch, but {format_size(free)} are free here; -e {format_size(power).replace(' ', '')} would fit"
    )
