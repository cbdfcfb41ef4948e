"""A sweep: every size under every algorithm, measured, recorded as it comes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone

import numpy as np

from ..collectives import ALGORITHMS, build
from ..errors import UserError
from ..fabric.cards.card import THIS_MACHINE
from ..fabric.physics.noise import parse as parse_noise
from ..fabric.physics.planes import rate_left
from ..fabric.physics.routing import ROUTINGS
from ..fabric.physics.stragglers import factors as straggler_factors
from ..kernels.dtypes import DTYPES, OPS, find_dtype, find_op
from ..transports.clock import stamps_needed
from ..transports.fault import fault_from_environment
from ..transports.session import REFERENCES, Job, Session
from ..transports.shared import RANKS_MAX, LocalCrew, cores
from ..transports.tuning import default_slices
from . import gpu
from . import record as result_file
from .emulate import FabricClock, emulate, fabric_clock, load_system
from .environment import available_bytes, before_warnings, environment, last_level_cache
from .limits import least_seconds, measure_limits
from .measure import Effort, measure
from .record import Record, ResultFile, Timing
from .sizes import format_size, sweep_sizes

DEFAULT_ALGORITHMS = ("ring", "tree")
LIMITS_FROM_BYTES = 1 << 20  # smaller sweeps never leave the cache: the memory's limits say nothing of them
LATE_SHARE = 0.1


SEED_MAX = 2**63 - 1
PACE_MIN, PACE_MAX = 1e-3, 1e9
FABRIC_OPTIONS = {
    "overrides": "--set",
    "seed": "--seed",
    "noise": "--noise",
    "stragglers": "--straggler",
    "routing": "--routing",
    "failed_planes": "--fail-planes",
    "pace": "--pace",
}


class OptionError(UserError):
    """An option that cannot be used; the message names it and says what would be accepted."""


@dataclass(frozen=True)
class Options:
    """What to sweep. Sizes in bytes; None means "choose for me".

    algorithms: names of collectives.ALGORITHMS, "auto", "mpi-native", "numpy", "nccl"; backend: gpu.BACKENDS; gpus: how many, or
    None for all; backend_note: why `checked` chose the backend; ranks: local emulated ranks (ignored under
    mpirun); transport: auto, shared, mpi; slices: pieces of a chunk in flight; node_size: under mpirun, take so many
    consecutive ranks as one host; modes: "out_of_place", "in_place".

    fabric: a system card's name or file: times are then virtual, on that network. Only with it: overrides: "nic.rate=400Gb/s", ...;
    seed: of noise and of ECMP's hashes; noise: delays (fabric/physics/noise.py); stragglers: "17:50%", ... (stragglers.py there);
    routing: instead of the card's; failed_planes: planes of every NIC that are down; pace: how many wall-clock seconds a
    virtual second shall last.
    """

    first: int = 8
    last: int = 128 << 20
    factor: float | None = None
    step: int | None = None
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    dtypes: tuple[str, ...] = ("float32",)
    ops: tuple[str, ...] = ("sum",)
    ranks: int | None = None
    backend: str = "auto"
    gpus: int | None = None
    backend_note: str | None = None
    transport: str = "auto"
    channels: int = 1
    slices: int | None = None
    node_size: int | None = None
    modes: tuple[str, ...] = ("out_of_place", "in_place")
    effort: Effort = field(default_factory=Effort)
    timeout: float = 60.0
    pin: bool = True
    eager_bytes: int | None = None
    fabric: str | None = None
    overrides: tuple[str, ...] | None = None
    seed: int | None = None
    noise: str | None = None
    stragglers: tuple[str, ...] | None = None
    routing: str | None = None
    failed_planes: int | None = None
    pace: float | None = None

    def sizes(self) -> list[int]:
        return sweep_sizes(self.first, self.last, self.factor, self.step)


def checked(options: Options, *, mpi: bool) -> Options:
    """`options` with names resolved ("all", nccl-tests' dtype names) and the number of ranks filled in.

    Raises OptionError for anything that cannot be measured, before anything is.
    """
    try:
        options.sizes()
        algorithms = _names(options.algorithms, (*ALGORITHMS, "auto", *REFERENCES), tuple(ALGORITHMS), "algorithm")
        dtypes = tuple(find_dtype(d).name for d in _expand(options.dtypes, tuple(DTYPES)))
        ops = tuple(find_op(o) for o in _expand(options.ops, OPS))
    except ValueError as e:
        raise OptionError(str(e)) from None
    for name, value in (("--channels", options.channels), ("--slices", options.slices)):
        if value is not None and not 1 <= value <= 1024:
            raise OptionError(f"{name} {value}: accepted are 1 to 1024")
    if options.transport not in ("auto", "shared", "mpi"):
        raise OptionError(f"--transport {options.transport}: accepted are auto, shared, mpi")
    if options.effort.budget <= 0:
        raise OptionError(f"--budget {options.effort.budget:g}: accepted are seconds above 0")
    if options.timeout <= 0:
        raise OptionError(f"--timeout {options.timeout:g}: accepted are seconds above 0")
    if options.effort.iterations is not None and not 1 <= options.effort.iterations <= 4096:
        raise OptionError(f"-n {options.effort.iterations}: accepted are 1 to 4096 iterations")
    if options.effort.warmup is not None and not 0 <= options.effort.warmup <= 4096:
        raise OptionError(f"-w {options.effort.warmup}: accepted are 0 to 4096 iterations")
    if options.fabric is not None:
        options = replace(options, seed=options.seed or 0)
    _check_fabric(options, algorithms)
    chosen = gpu.choose(options.backend, _cpu_only(options, algorithms), mpi=mpi)
    options = replace(options, backend=chosen.backend, backend_note=chosen.note or None)
    if chosen.backend == "cpu" and options.gpus is not None:
        raise OptionError(f"--gpus {options.gpus} is for GPUs, and the backend is cpu; {_how_to_get_gpus(chosen)}")
    if "nccl" in algorithms and chosen.backend != "cupy":
        raise OptionError(f"--algo nccl needs GPUs and --backend cupy; {_how_to_get_gpus(chosen)}")
    if mpi:
        if options.ranks is not None:
            raise OptionError("--ranks is for local emulated ranks; under mpirun the launcher's -np says how many")
    else:
        if options.transport == "mpi":
            raise OptionError("--transport mpi needs an MPI job: mpirun -np 4 busbw sweep ...")
        if "mpi-native" in algorithms:
            raise OptionError(
                "--algo mpi-native is MPI_Allreduce and needs an MPI job: mpirun -np 2 busbw sweep --algo mpi-native"
            )
        if options.node_size is not None:
            raise OptionError("--node-size splits the ranks of an MPI job; local emulated ranks are always one host")
        if chosen.backend == "cpu":
            ranks = options.ranks if options.ranks is not None else max(2, min(8, len(cores())))
        else:
            ranks = options.ranks if options.ranks is not None else gpu.default_ranks(chosen.backend, options.gpus)
        if not 1 <= ranks <= RANKS_MAX:
            raise OptionError(
                f"--ranks {ranks}: accepted are 1 to {RANKS_MAX} local emulated ranks; for more ranks use mpirun"
            )
        options = replace(options, ranks=ranks)
    if options.fabric not in (None, THIS_MACHINE):  # that one is measured, and not twice
        system = load_system(options.fabric, options.overrides or (), options.ranks)
        if options.failed_planes is not None:
            if system.nic is None:
                raise OptionError(f"--fail-planes {options.failed_planes}: {system.name} has no network")
            rate_left(system.nic.rate, system.nic.planes, options.failed_planes)
    if options.ranks is not None:
        straggler_factors(options.stragglers or (), options.ranks)
    return replace(options, algorithms=algorithms, dtypes=dtypes, ops=ops)


def _cpu_only(options: Options, algorithms: tuple[str, ...]) -> str | None:
    """The first option given that GPUs do not have."""
    for name in algorithms:
        if name in ("mpi-native", "numpy"):
            return f"--algo {name}"
    given = {
        "--fabric": options.fabric is not None,
        f"--transport {options.transport}": options.transport != "auto",
        "--node-size": options.node_size is not None,
        "--fresh": options.effort.fresh,
    }
    return next((flag for flag, there in given.items() if there), None)


def _how_to_get_gpus(chosen: gpu.Choice) -> str:
    return chosen.note or gpu.missing("cupy") or "accepted: with --backend cupy"


def _check_fabric(options: Options, algorithms: tuple[str, ...]) -> None:
    if options.fabric is None:
        for name, flag in FABRIC_OPTIONS.items():
            if getattr(options, name) is not None:
                raise OptionError(
                    f"{flag} is of a modelled network; accepted: with --fabric SYSTEM (busbw systems lists them)"
                )
        return
    for name in algorithms:
        if name in REFERENCES:
            raise OptionError(
                f"--algo {name} has no schedule, so it has no time on --fabric {options.fabric}; "
                f"accepted: {', '.join(ALGORITHMS)}, auto"
            )
    if options.effort.fresh:
        raise OptionError("--fresh is about this machine's caches, of which a time on --fabric knows nothing")
    if options.seed is not None and not 0 <= options.seed <= SEED_MAX:
        raise OptionError(f"--seed {options.seed}: accepted are 0 to {SEED_MAX}")
    if options.routing not in (None, *ROUTINGS):
        raise OptionError(f"--routing {options.routing}: accepted are {', '.join(ROUTINGS)}")
    parse_noise(options.noise or "none")
    if options.pace is not None and not PACE_MIN <= options.pace <= PACE_MAX:
        raise OptionError(
            f"--pace {options.pace:g}: accepted are {PACE_MIN:g} to {PACE_MAX:g} wall-clock seconds a virtual second"
        )


def _expand(names: tuple[str, ...], everything: tuple[str, ...]) -> tuple[str, ...]:
    return everything if "all" in names else tuple(dict.fromkeys(names))


def _names(names, accepted, everything, what) -> tuple[str, ...]:
    for name in names:
        if name != "all" and name not in accepted:
            import difflib

            near = difflib.get_close_matches(name, accepted, 1, 0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"{what} {name!r} is not known{hint} Accepted: {', '.join(accepted)}, all".replace("? A", "? A")
            )
    out: list[str] = []
    for name in names:
        out += everything if name == "all" else [name]
    return tuple(dict.fromkeys(out))


def needs(options: Options, ranks: int, clock: FabricClock | None) -> tuple[int, int]:
    """(bytes of SCRATCH, messages sent) of the neediest rank over the sizes and algorithms asked for."""
    sizes = options.sizes()
    scratch = messages = 0
    for name in options.algorithms:
        for candidate in _candidates(name):
            for dtype in options.dtypes:
                d = find_dtype(dtype)
                for mode in options.modes:
                    counts = [size // d.itemsize for size in sizes]
                    jobs = [_job(options, candidate, n, dtype, "sum", mode, ranks, clock) for n in counts]
                    # A size of its own has no more messages than the largest cut into as many slices.
                    schedule = build(
                        candidate,
                        ranks,
                        counts[-1],
                        channels=options.channels,
                        slices=max(job.slices for job in jobs),
                        in_place=mode == "in_place",
                    )
                    scratch = max(scratch, schedule.scratch * d.itemsize)
                    messages = max(messages, stamps_needed(schedule.tables))
    return scratch, messages


def _candidates(algorithm: str) -> list[str]:
    """The schedules behind a name: "auto" stands for all."""
    if algorithm in REFERENCES:
        return []
    return list(ALGORITHMS) if algorithm == "auto" else [algorithm]


def _job(
    options: Options,
    algorithm: str,
    count: int,
    dtype: str,
    op: str,
    mode: str,
    ranks: int,
    clock: FabricClock | None,
) -> Job:
    nbytes = count * find_dtype(dtype).itemsize
    if options.slices:
        slices = options.slices
    elif clock:
        slices = clock.slices(algorithm, nbytes, options.channels)
    else:
        slices = default_slices(algorithm, ranks, nbytes)
    return Job(algorithm, count, dtype, op, mode == "in_place", options.channels, slices)


def open_session(options: Options) -> Session:
    """The ranks and their memory. Raises OptionError where the memory would not fit, Unavailable without MPI."""
    from ..transports import mpi

    largest = options.sizes()[-1]
    if mpi.launched():
        mpi.load()
        from mpi4py import MPI

        ranks = MPI.COMM_WORLD.size
        here = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).size
        _same_backend(MPI.COMM_WORLD.allgather(options.backend))
    else:
        ranks = here = options.ranks
    clock = _clock(options, ranks)
    scratch, messages = needs(options, ranks, clock)
    if options.backend != "cpu":
        return gpu.open_session(options, largest, scratch)
    _check_memory(options, here, largest, scratch)
    stamps = messages if clock else 0
    if mpi.launched():
        crew = mpi.MpiCrew(
            largest,
            scratch,
            transport=options.transport,
            node_size=options.node_size,
            timeout=options.timeout,
            stamps=stamps,
        )
    else:
        crew = LocalCrew(ranks, largest, scratch, timeout=options.timeout, pin=options.pin, stamps=stamps)
    return Session(
        crew,
        eager_bytes=options.eager_bytes,
        cache_bytes=last_level_cache(),
        fault=fault_from_environment(),
        clock=clock,
    )


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
        overrides=options.overrides or (),
        seed=options.seed or 0,
        noise=options.noise,
        stragglers=options.stragglers or (),
        routing=options.routing,
        failed_planes=options.failed_planes or 0,
    )
    from ..transports import mpi

    return mpi.load().COMM_WORLD.bcast(clock) if mpi.launched() else clock


def _check_memory(options: Options, ranks_here: int, largest: int, scratch: int) -> None:
    free = available_bytes()
    each = 2 * largest + scratch
    if free is None or ranks_here * each <= 0.9 * free:
        return
    fits = int(0.9 * free / ranks_here / (each / max(largest, 1)))
    power = 1 << max(3, fits.bit_length() - 1)
    raise OptionError(
        f"-e {format_size(largest)}: {ranks_here} ranks need {format_size(ranks_here * each)} for input, output and "
        f"scratch, but {format_size(free)} are free here; -e {format_size(power).replace(' ', '')} would fit"
    )


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
    (algorithm, size, dtype, op), which all processes have; out: the result file, appended to by the
    root as each record is finished; progress: told (cells done, cells in all, what is measured now) on the root;
    on_limits: told the memory's limits once measured.
    """
    crew = session.crew
    env = environment(sorted(set(getattr(crew, "hosts", [])) or {os.uname().nodename}), getattr(crew, "library", None))
    on_gpu = options.backend != "cpu"
    if on_gpu:
        env["gpu"] = gpu.record(options, session)
    run = uuid.uuid4().hex[:12]
    clock = session.clock
    warnings = [] if clock or on_gpu else before_warnings(env, crew.ranks_here)
    finished = {_key(r): r for r in done}
    skip = {tuple(key) for key in done_keys} | set(finished)
    cells = [
        (size, dtype, op, algorithm)
        for dtype in options.dtypes
        for op in options.ops
        for size in options.sizes()
        for algorithm in options.algorithms
    ]
    chooser = _Chooser(options, session)
    limits: dict = {}
    least: dict[str, float] = {}
    if options.sizes()[-1] >= LIMITS_FROM_BYTES and not clock and crew.transport in ("shared", "device"):
        progress(0, len(cells), "the memory's limits")
        crew.activity = "measuring the memory's limits"
        limits = gpu.measure_limits(session) if on_gpu else measure_limits(session)
    for index, (size, dtype, op, algorithm) in enumerate(cells):
        d = find_dtype(dtype)
        count = size // d.itemsize
        key = (algorithm, count * d.itemsize, dtype, op)
        if key in skip:
            if key in finished:
                yield finished[key]
            continue
        timings: dict[str, Timing | None] = {"out_of_place": None, "in_place": None}
        late = samples = 0
        paced: dict[str, float] = {}
        crew.activity = f"size {format_size(count * d.itemsize)}, {algorithm}"
        for mode in options.modes:
            label = f"{format_size(count * d.itemsize)} {algorithm} {mode.replace('_', '-')}"
            progress(index, len(cells), label)
            chosen = chooser.choose(algorithm, count, dtype, op, mode)
            job = _job(options, chosen, count, dtype, op, mode, session.ranks, clock)
            if clock:
                measured, paced_seconds = emulate(session, job, options.effort, options.pace)
                if paced_seconds is not None:
                    paced[mode] = paced_seconds
            else:
                measured = measure(session, job, options.effort)
            timings[mode] = measured.timing
            late += measured.late
            samples += len(measured.timing.samples)
            if limits and size == options.sizes()[-1] and chosen not in REFERENCES:
                seconds = gpu.least_seconds(session, limits) if on_gpu else least_seconds(session, limits)
                if seconds:
                    least[f"{algorithm}/{mode}"] = seconds
        of_gpu, gpu_warnings = gpu.after(session, env["gpu"]["devices"]) if on_gpu else ({}, [])
        record = Record(
            algorithm=algorithm,
            chosen=chosen,
            transport={"mpi-native": "mpi-library", "numpy": "numpy", "nccl": "nccl"}.get(chosen, crew.transport),
            clock=f"fabric:{clock.name}" if clock else "wall",
            ranks=session.ranks,
            size_bytes=count * d.itemsize,
            count=count,
            dtype=dtype,
            op=op,
            channels=job.channels,
            slices=job.slices,
            **timings,
            options={
                **_plain(options),
                "messages": session.message_modes,
                **({"paced_seconds": paced} if paced else {}),
                **({"gpu": of_gpu} if on_gpu else {}),
            },
            environment=env,
            warnings=warnings + gpu_warnings + ([] if clock else _after_warnings(timings, late, samples)),
            run=run,
            time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        )
        if out and session.is_root:
            result_file.append(out, record.to_json())
        yield record
    if limits:
        limits = {**limits, "least_seconds": least, "least_seconds_size": options.sizes()[-1]}
        if out and session.is_root:
            result_file.append(out, result_file.limits_line(limits, run))
        on_limits(limits)


def _plain(options: Options) -> dict:
    return {k: v for k, v in asdict(options).items() if v is not None}


def _key(record: Record) -> tuple:
    return record.algorithm, record.size_bytes, record.dtype, record.op


RESUME_MUST_MATCH = (
    "transport", "channels", "slices", "node_size", "modes", "pin", "eager_bytes",
    "fabric", "overrides", "seed", "noise", "stragglers", "routing", "failed_planes", "pace",
)  # fmt: skip


def resumable(file: ResultFile, options: Options, ranks: int) -> list[Record]:
    """The records of an earlier, interrupted run of the same sweep. Raises OptionError where it was another."""
    for record in file.records:
        if record.ranks != ranks:
            raise OptionError(f"--resume: {file.path} has {record.ranks} ranks, this sweep {ranks}")
        ours = {k: list(v) if isinstance(v, tuple) else v for k, v in _plain(options).items()}
        if record.options.get("backend", "cpu") != options.backend:  # older files have none
            raise OptionError(
                f"--resume: {file.path} was measured with --backend {record.options.get('backend', 'cpu')}, this sweep has "
                f"{options.backend}; accepted: the same backend"
            )
        for name in RESUME_MUST_MATCH:
            if record.options.get(name) != ours.get(name):
                raise OptionError(
                    f"--resume: {file.path} was measured with {name} {record.options.get(name)}, this sweep has "
                    f"{ours.get(name)}; accepted: the same options"
                )
    return file.records


def _after_warnings(timings: dict[str, Timing | None], late: int, samples: int) -> list[str]:
    found = []
    for mode, t in timings.items():
        if t is None:
            continue
        name = mode.replace("_", "-")
        spread = (t.ci_high - t.ci_low) / 2 / t.seconds if t.seconds > 0 else 0.0
        if t.stopped == "budget" and spread > 0.05:
            found.append(
                f"{name}: the median is known to {100 * spread:.0f} % only after {len(t.samples)} samples; other load on "
                "this machine? Raise --budget"
            )
        elif len(t.samples) < 10:
            found.append(f"{name}: only {len(t.samples)} samples; raise --budget or -n")
    if samples and late > LATE_SHARE * samples:
        found.append(f"{late} of {samples} samples had a rank that started late: the machine interrupts the ranks")
    return found


class _Chooser:
    """Resolves "auto": tries every algorithm briefly and keeps the fastest; the answer is remembered for each size."""

    ROUNDS = 3
    FAR_BEHIND = 3.0

    def __init__(self, options: Options, session: Session):
        self.options, self.session = options, session
        self.candidates = {mode: list(ALGORITHMS) for mode in options.modes}

    def choose(self, algorithm: str, count: int, dtype: str, op: str, mode: str) -> str:
        if algorithm != "auto":
            return algorithm
        if self.session.clock:
            return self._fastest_on_the_fabric(count, dtype, op, mode)
        times: dict[str, list[float]] = {name: [] for name in self.candidates[mode]}
        for round_ in range(self.ROUNDS):
            for name in times:
                self.session.prepare(_job(self.options, name, count, dtype, op, mode, self.session.ranks, None))
                if round_ == 0:
                    self.session.run()
                first, _ = self.session.time(1, 1)
                inner = max(1, min(1000, int(20e-6 / max(float(first[0]), 1e-9))))
                inner = self.session.crew.agree(inner)
                samples, _ = self.session.time(5 if inner > 1 else 1, inner)
                times[name].append(float(np.min(samples)))
        best = {name: float(np.median(t)) for name, t in times.items()}
        fastest = min(best, key=best.get)
        # Who is far behind at this size is not tried at the next; sizes grow, and the order changes slowly.
        keep = [n for n in best if best[n] <= self.FAR_BEHIND * best[fastest] or n in ("ring", "tree", "two-shot")]
        fastest, self.candidates[mode] = self.session.crew.agree([fastest, keep])
        return fastest

    def _fastest_on_the_fabric(self, count: int, dtype: str, op: str, mode: str) -> str:
        times = {}
        for name in ALGORITHMS:
            session = self.session
            session.prepare(_job(self.options, name, count, dtype, op, mode, session.ranks, session.clock))
            times[name] = int(self.session.virtual(1).finish.max())
        return min(times, key=times.get)


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
