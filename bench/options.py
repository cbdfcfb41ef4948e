"""What to sweep, and what of it can be measured at all."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from ..collectives import algorithms as algorithms_of
from ..collectives.collective import COLLECTIVES, Collective
from ..collectives.collective import find as find_collective
from ..errors import UserError
from ..fabric.cards.card import THIS_MACHINE
from ..fabric.physics.noise import parse as parse_noise
from ..fabric.physics.planes import rate_left
from ..fabric.physics.routing import ROUTINGS
from ..fabric.physics.stragglers import factors as straggler_factors
from ..kernels.dtypes import DTYPES, OPS, find_device_dtype, find_op
from ..transports.affinity import room
from ..transports.session import REFERENCES
from ..transports.shared import RANKS_MAX
from . import gpu
from .emulate import load_system
from .measure import Effort
from .sizes import sweep_sizes

DEFAULT_ALGORITHMS = 2  # the first of those that a collective has
SEED_MAX = 2**63 - 1
SECONDS_MAX = 1e6
PACE_MIN, PACE_MAX = 1e-3, 1e9  # wall-clock seconds a virtual second
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

    collectives: names as collectives.collective.find takes them; root: of those that have one; algorithms: names that the
    collectives have (collectives.REGISTRY), "auto", "mpi-native", "numpy", "nccl"; ops: for those that reduce; backend:
    gpu.BACKENDS; gpus: how many, or
    None for all; backend_note: why `checked` chose the backend; ranks: local emulated ranks (ignored under
    mpirun); transport: auto, shared, mpi; slices: pieces of a chunk in flight; node_size: take so many
    consecutive ranks as one node; modes: "out_of_place", "in_place"; nccl_...: how "nccl" is
    measured (transports.nccl.How).

    fabric: a system card's name or file: times are then virtual, on that network. Only with it: overrides: "nic.rate=400Gb/s", ...;
    seed: of noise and of ECMP's hashes; noise: delays (fabric/physics/noise.py); stragglers: "17:50%", ... (stragglers.py there);
    routing: instead of the card's; failed_planes: planes of every NIC that are down; pace: how many wall-clock seconds a
    virtual second shall last.
    """

    first: int = 8
    last: int = 128 << 20
    factor: float | None = None
    step: int | None = None
    collectives: tuple[str, ...] = ("all_reduce",)
    root: int | None = None
    algorithms: tuple[str, ...] | None = None
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
    nccl_register: int | None = None
    nccl_graph: int | None = None
    nccl_blocking: bool | None = None
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
        collectives, algorithms = _collectives_and_algorithms(options)
        dtypes = tuple(find_device_dtype(d).name for d in _expand(options.dtypes, tuple(DTYPES)))
        ops = tuple(find_op(o) for o in _expand(options.ops, OPS))
    except ValueError as e:
        raise OptionError(str(e)) from None
    for name, value in (("--channels", options.channels), ("--slices", options.slices)):
        if value is not None and not 1 <= value <= 1024:
            raise OptionError(f"{name} {value}: accepted are 1 to 1024")
    if options.node_size is not None and options.node_size < 1:
        raise OptionError(f"--node-size {options.node_size}: accepted are 1 or more ranks a node")
    if options.transport not in ("auto", "shared", "mpi"):
        raise OptionError(f"--transport {options.transport}: accepted are auto, shared, mpi")
    if not 0 < options.effort.budget < SECONDS_MAX:
        raise OptionError(f"--budget {options.effort.budget:g}: accepted are seconds above 0, up to {SECONDS_MAX:g}")
    if not 0 < options.timeout < SECONDS_MAX:
        raise OptionError(f"--timeout {options.timeout:g}: accepted are seconds above 0, up to {SECONDS_MAX:g}")
    if options.effort.iterations is not None and not 1 <= options.effort.iterations <= 4096:
        raise OptionError(f"-n {options.effort.iterations}: accepted are 1 to 4096 iterations")
    if options.effort.warmup is not None and not 0 <= options.effort.warmup <= 4096:
        raise OptionError(f"-w {options.effort.warmup}: accepted are 0 to 4096 iterations")
    if options.fabric is not None:
        options = replace(options, seed=options.seed or 0)
    options = replace(options, collectives=collectives, algorithms=algorithms)
    _check_fabric(options, algorithms)
    _check_nccl(options, algorithms)
    chosen = gpu.choose(options.backend, _cpu_only(options, algorithms, mpi), mpi=mpi)
    options = replace(options, backend=chosen.backend, backend_note=chosen.note or None)
    for name in dtypes:
        if name not in DTYPES and chosen.backend != "cupy":
            raise OptionError(f"-d {name} is of GPUs and --backend cupy; {_how_to_get_gpus(chosen)}")
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
                "--algo mpi-native is the MPI library's own and needs an MPI job: mpirun -np 2 busbw sweep --algo mpi-native"
            )
        if chosen.backend == "cpu":
            ranks = options.ranks if options.ranks is not None else max(2, min(8, room()))
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
    options = replace(options, dtypes=dtypes, ops=ops)
    _check_collectives(options)
    return options


def _collectives_and_algorithms(options: Options) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both resolved. Raises ValueError for an unknown name, or an algorithm that none of the collectives has."""
    named = tuple(COLLECTIVES) if "all" in options.collectives else options.collectives
    if not named:
        raise ValueError(f"no collective is named; accepted: {', '.join(COLLECTIVES)}, all")
    collectives = tuple(dict.fromkeys(find_collective(name).name for name in named))
    offered = tuple(dict.fromkeys(a for c in collectives for a in algorithms_of(c)))
    wanted = options.algorithms
    if wanted is None:
        wanted = tuple(dict.fromkeys(a for c in collectives for a in [*algorithms_of(c)][:DEFAULT_ALGORITHMS]))
    other = len(collectives) == 1 and collectives != ("all_reduce",)
    what = f"{collectives[0]} algorithm" if other else "algorithm"
    return collectives, _names(wanted, (*offered, "auto", *REFERENCES), offered, what)


def algorithms_for(options: Options, collective: str) -> list[str]:
    """Those of options.algorithms that a collective has."""
    return [a for a in options.algorithms if a in algorithms_of(collective) or a in ("auto", *REFERENCES)]


def ops_for(options: Options, collective: Collective) -> tuple[str, ...]:
    return options.ops if collective.reduces else ("none",)


def modes_for(options: Options, collective: Collective) -> tuple[str, ...]:
    return options.modes if collective.in_place else tuple(m for m in options.modes if m != "in_place")


def _check_collectives(options: Options) -> None:
    found = [COLLECTIVES[name] for name in options.collectives]
    for c in found:
        if not algorithms_for(options, c.name):
            raise OptionError(
                f"--algo {','.join(options.algorithms)}: {c.name} has none of these; accepted: {', '.join(algorithms_of(c))}, "
                f"auto, all, {', '.join(REFERENCES)}"
            )
        if not modes_for(options, c):
            raise OptionError(f"--in-place only: {c.name} has no in-place form; accepted: --in-place no")
    if options.ops != ("sum",) and not any(c.reduces for c in found):
        reducing = ", ".join(c.name for c in COLLECTIVES.values() if c.reduces)
        raise OptionError(
            f"--op {','.join(options.ops)}: {', '.join(options.collectives)} reduces nothing; {reducing} do"
        )
    if options.root is not None and not any(c.rooted for c in found):
        rooted = ", ".join(c.name for c in COLLECTIVES.values() if c.rooted)
        raise OptionError(f"--root {options.root}: {', '.join(options.collectives)} has no root; {rooted} have")
    if options.ranks is not None:
        check_root(options, options.ranks)


def check_root(options: Options, ranks: int) -> None:
    if options.root is not None and not 0 <= options.root < ranks:
        raise OptionError(f"--root {options.root}: accepted are the ranks 0 to {ranks - 1}")


def _check_nccl(options: Options, algorithms: tuple[str, ...]) -> None:
    given = {"-R": options.nccl_register, "-G": options.nccl_graph, "-z": options.nccl_blocking}
    for flag, value in given.items():
        if value and "nccl" not in algorithms:
            raise OptionError(f"{flag} {int(value)} is about NCCL's all-reduce; accepted: with --algo nccl, on GPUs")
    if options.nccl_register not in (None, 0, 1, 2):
        raise OptionError(f"-R {options.nccl_register}: accepted are 0, 1 (registered) and 2 (symmetric memory)")
    if not 0 <= (options.nccl_graph or 0) <= 1000:
        raise OptionError(f"-G {options.nccl_graph}: accepted are 0 to 1000 launches of a graph")
    if options.nccl_graph and options.nccl_blocking:
        raise OptionError("-z 1 waits after each all-reduce, and -G launches many at once; accepted: one of them")


def _cpu_only(options: Options, algorithms: tuple[str, ...], mpi: bool) -> str | None:
    """The first option given that GPUs do not have. Under mpirun they have transports too, where --backend asks for them."""
    for name in algorithms:
        if name in ("mpi-native", "numpy"):
            return f"--algo {name}"
    given = {
        "--fabric": options.fabric is not None,
        f"--transport {options.transport}": options.transport != "auto" and not (mpi and options.backend == "cupy"),
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
                f"accepted: {', '.join(a for c in options.collectives for a in algorithms_of(c))}, auto"
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
    if not names:
        raise ValueError(f"an empty list; accepted: {', '.join(everything)}, all")
    return everything if "all" in names else tuple(dict.fromkeys(names))


def _names(names, accepted, everything, what) -> tuple[str, ...]:
    if not names:
        raise ValueError(f"no {what} is named; accepted: {', '.join(accepted)}, all")
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


def plain(options: Options) -> dict:
    """The options that were given, as a record keeps them."""
    return {k: v for k, v in asdict(options).items() if v is not None}
