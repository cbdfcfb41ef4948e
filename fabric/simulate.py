"""A sweep on a modelled network: what time each algorithm takes at each number of ranks and message size.

One point is one algorithm, one number of ranks, one size. What computes it, its *level*, is::

    closed      a formula for the exact time of a schedule, where there is one
    recurrence  the same schedule evaluated message by message, not written out (ring and tree)
    replay      the same schedule walked message by message
    loggp       LogGP's estimate: no contention, no pipelining but what the formula knows
    library     the bytes and hops of the communication library's protocols (predict.py), with NCCL's choices
    nccl        what NCCL's own tuning model believes

The first three follow network.py to the picosecond and agree wherever two of them apply, so the model `auto` takes the
cheapest of them that applies; only where none is affordable does it fall back on `loggp`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np

from ..collectives import algorithms as algorithms_of
from ..collectives import build
from ..collectives.collective import ALL_REDUCE, COLLECTIVES, Collective
from ..collectives.schedule import Schedule
from ..errors import UserError
from .cards.card import System
from .contended import check as contended_check
from .contended import contended
from .library import nccl, predict, releases
from .library.band import Band
from .physics.build import build as build_network
from .physics.network import PS, Network, work_ps
from .physics.rails import sharing
from .time import closed
from .time.generated import Generated
from .time.recurrence import (
    EXCHANGES,
    REDUCING,
    exchange_finish,
    half_ring_finish,
    is_stepped,
    ring_ps,
    ring_segment,
    tree_ps,
)
from .time.replay import Replay, replay

MODELS = ("auto", "closed", "loggp", "recurrence", "replay", "library", "nccl")
BACKENDS = ("cpu", "numba-cuda")
EXACT = ("closed", "recurrence", "replay")
REGULAR = ("ring", "tree")  # those with a recurrence
IN_NETWORK = ("nvls", "nvls-tree", "sharp")  # no schedule of messages: switches add
AUTO = ("ring", "tree")  # what the algorithm `auto` chooses from
TRIED_MESSAGES = 2_000_000  # a tenth of a second
MOST_HOPS = 1024  # of a pattern of hops that a closed form is asked for
REPLAY_MESSAGES = 500_000  # `auto` replays algorithms without a recurrence up to here: tables take time and memory
SLICES = (1, 2, 4, 8, 16, 32, 64)
# More slices are not taken where a point would have more messages than this: a second or two. (One ring of one slice has no such
# limit: its recurrence does not go message by message.)
SLICED_MESSAGES = {"ring": 150_000_000, "tree": 40_000_000}
REPLAYED_A_SECOND = 5e6  # messages, one core
COUNTED_RANKS = 64  # of the schedule by which messages are counted
WRITTEN_STEPS = 40_000_000  # of a schedule that has to be written out: 2.5 GB, and minutes
ROW_BYTES = 56  # one step of a table


@dataclass(frozen=True)
class Options:
    """What to simulate. collective, root: of one; ranks, sizes (bytes), algorithms: one point each combination.

    model: one of MODELS; itemsize: bytes an element; slices: None takes an estimate's best; noise, stragglers: as noise.py
    and stragglers.py read them; failed_planes: planes of every NIC that are down; routing: instead of the card's; rails:
    as build.py has them, None suits the algorithm; stride: only every stride-th GPU takes part (a data-parallel group);
    threads: of one point; backend: one of BACKENDS, "numba-cuda" evaluates rings on a GPU; library, protocol: a release such as
    "nccl-2.23.4" and a forced protocol, for the models library and nccl; contention: messages meet on the links of a fat tree
    (contended.py).
    """

    ranks: tuple[int, ...]
    sizes: tuple[int, ...]
    algorithms: tuple[str, ...] | None = None
    model: str = "auto"
    itemsize: int = 4
    channels: int = 1
    slices: int | None = None
    seed: int = 0
    noise: str | None = None
    stragglers: tuple[str, ...] = ()
    failed_planes: int = 0
    routing: str | None = None
    rails: str | float | None = None
    stride: int = 1
    threads: int = 1
    backend: str = "cpu"
    library: str | None = None
    protocol: str | None = None
    contention: bool = False
    collective: str = ALL_REDUCE.name
    root: int = 0

    @property
    def of(self) -> Collective:
        return COLLECTIVES[self.collective]


@dataclass(frozen=True)
class Point:
    algorithm: str
    ranks: int
    size_bytes: int


@dataclass(frozen=True)
class Modelled:
    """A finished point. chosen: the algorithm, of those that `auto` tried, or as the library names it; level: what computed it;
    messages: how many the time accounts for, 0 where the level knows of none."""

    point: Point
    chosen: str
    seconds: float
    level: str
    channels: int
    slices: int
    messages: int
    band: Band | None = None  # of the model library: how far measurements may lie


def points(options: Options) -> list[Point]:
    return [Point(a, p, s) for p in options.ranks for s in options.sizes for a in options.algorithms]


def checked(system: System, options: Options) -> Options:
    """`options` with "all" resolved. Raises UserError for what cannot be simulated, before anything is."""
    known = algorithms_of(options.of)
    in_network = IN_NETWORK if options.of == ALL_REDUCE else ()
    every = (*known, *(a for a in in_network if _in_network(system, a)))
    accepted = (*known, *in_network, "auto", "all")
    names: list[str] = []
    for name in tried_by_auto(options) if options.algorithms is None else options.algorithms:
        _known("--algo", name, accepted)
        names += every if name == "all" else [name]
    _known("--model", options.model, MODELS)
    for p in options.ranks:
        if p < 1:
            raise UserError(f"--ranks {p}: accepted are 1 to {system.gpus}, the GPUs of {system.name}")
        if p * options.stride > system.gpus:
            raise UserError(
                f"--ranks {p}: {system.name} has {system.gpus} GPUs; accepted: 1 to {system.gpus // options.stride}, or a larger "
                f"machine with --set gpus={p * options.stride}"
            )
    _check_collective(options)
    for name, value, most in (("--channels", options.channels, 1024), ("--slices", options.slices, 4096)):
        if value is not None and not 1 <= value <= most:
            raise UserError(f"{name} {value}: accepted are 1 to {most}")
    for name in names:
        if name in IN_NETWORK and not _in_network(system, name):
            raise UserError(f"--algo {name}: the switches of {system.name} do not reduce; accepted: {', '.join(every)}")
        if name in IN_NETWORK and options.model not in ("auto", "library", "nccl"):
            raise UserError(
                f"--model {options.model}: {name} is no schedule of messages; accepted: auto, library, nccl"
            )
        if options.of != ALL_REDUCE:
            if options.model == "recurrence" and name != "ring":
                raise UserError(f"--model recurrence: {name} has none; accepted: ring, or --model replay")
            continue
        if options.model in ("closed", "loggp") and name not in (*closed.FORMULAS, *IN_NETWORK, "auto"):
            raise UserError(
                f"--model {options.model}: {name} has no formula; accepted: {', '.join(closed.FORMULAS)}, or --model replay"
            )
        if options.model == "recurrence" and name not in (*REGULAR, "auto"):
            raise UserError(f"--model recurrence: {name} has none; accepted: {', '.join(REGULAR)}, or --model replay")
        if options.model in ("nccl", "library") and name not in (*REGULAR, *IN_NETWORK, "auto"):
            raise UserError(f"--model {options.model}: no library runs {name}; accepted: ring, tree, auto")
    _known("--backend", options.backend, BACKENDS)
    _check_library(system, options)
    if options.contention:
        if options.model not in ("auto", "replay") or options.stride > 1:
            raise UserError(f"--contention: goes with --model replay or auto, not {options.model}")
        for p in options.ranks:
            contended_check(system, p)
    if options.backend != "cpu":
        options = _on_gpu(options, names)
    if not 0 <= options.seed < 1 << 62:
        raise UserError(f"--seed {options.seed}: accepted are 0 to {(1 << 62) - 1}")
    options = _replace(options, algorithms=tuple(dict.fromkeys(names)))
    for p in options.ranks:
        network_for(
            system, options, next(iter(known)), p
        )  # refuses noise, stragglers, routing, rails and planes that cannot be
        if p == 1 and (options.model in ("library", "nccl") or set(options.algorithms) & set(IN_NETWORK)):
            raise UserError("--ranks 1: a library's model needs 2 or more; accepted for one rank: --model auto")
    return options


def _check_library(system: System, options: Options) -> None:
    """Raises UserError for a release or a protocol that is not known, or that no model here takes."""
    for flag, value in (("--library", options.library), ("--protocol", options.protocol)):
        if value is not None and options.model not in ("library", "nccl"):
            raise UserError(f"{flag} {value[:40]}: goes with --model library or --model nccl")
    if options.library is not None:
        if system.gpu.architecture not in releases.GENERATIONS:
            raise UserError(
                f"--library {options.library[:40]}: {system.name} runs no NCCL ({system.software.name}); accepted: without it"
            )
        releases.find(options.library)
    if options.protocol is not None:
        _known("--protocol", options.protocol, releases.PROTOCOLS)


def tried_by_auto(options: Options) -> tuple[str, ...]:
    """What the algorithm `auto` chooses from."""
    return AUTO if options.of == ALL_REDUCE else tuple(algorithms_of(options.of))


def _check_collective(options: Options) -> None:
    """Raises UserError for what is only of an all-reduce, and for a root that cannot be."""
    c = options.of
    modelled = ("library", "nccl") if c.name in nccl.COLLECTIVES else ()
    stepped = ("recurrence",) if c.name in REDUCING else ()
    if c != ALL_REDUCE and options.model not in ("auto", "replay", *stepped, *modelled):
        accepted = ", ".join(("auto", "replay (message by message)", *stepped, *modelled))
        raise UserError(f"--model {options.model}: there is none of {c.name}; accepted: {accepted}")
    for p in options.ranks:
        if not 0 <= options.root < p:
            raise UserError(f"--root {options.root}: accepted are the ranks 0 to {p - 1}")
    if options.root and not c.rooted:
        rooted = ", ".join(x.name for x in COLLECTIVES.values() if x.rooted)
        raise UserError(f"--root {options.root}: {c.name} has no root; {rooted} have")


def _on_gpu(options: Options, names: Sequence[str]) -> Options:
    """The options for rings on a GPU: one slice, one point at a time. Raises UserError where they do not apply or there is none."""
    flag = f"--backend {options.backend}"
    if options.model != "recurrence":
        raise UserError(f"{flag}: goes with --model recurrence, not {options.model}; accepted: --backend cpu")
    if set(names) != {"ring"} or options.channels != 1 or options.slices not in (None, 1):
        raise UserError(f"{flag}: takes a ring of one channel and one slice; accepted: --algo ring, or --backend cpu")
    from .time import gpu_ring

    reason = gpu_ring.available()
    if reason:
        raise UserError(f"{flag}: {reason}; accepted: --backend cpu")
    return _replace(options, slices=1, threads=1)


def _replace(options: Options, **changes) -> Options:
    from dataclasses import replace

    return replace(options, **changes)


def _known(flag: str, name: str, accepted: Sequence[str]) -> None:
    if name not in accepted:
        near = difflib.get_close_matches(name[:60], accepted, 1, 0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"{flag} {name[:60]}: not known; {hint}accepted: {', '.join(accepted)}")


def _in_network(system: System, name: str) -> bool:
    if name == "sharp":
        return bool(system.network and system.network.sharp)
    return system.node.link.sharp


@lru_cache(maxsize=4)
def _network(
    system: System, ranks: int, stride: int, seed, noise, stragglers, failed_planes, routing, rails
) -> Network:
    net = build_network(
        system, ranks * stride, seed=seed, noise=noise, stragglers=stragglers, failed_planes=failed_planes,
        routing=routing, rails=rails,
    )  # fmt: skip
    return net if stride == 1 else every(net, stride)


def network_of(system: System, options: Options, ranks: int) -> Network:
    """The network that the options describe, over `ranks` ranks."""
    o = options
    return _network(system, ranks, o.stride, o.seed, o.noise, o.stragglers, o.failed_planes, o.routing, o.rails)


def network_for(system: System, options: Options, algorithm: str, ranks: int) -> Network:
    """`network_of` with the rails that suit the algorithm, where the options do not say."""
    rails = options.rails
    if rails is None:
        domain = system.node.domain
        rails = "own" if options.stride > 1 else sharing(algorithm, ranks, domain, options.channels, options.of)
    return network_of(system, _replace(options, rails=rails), ranks)


def every(net: Network, stride: int) -> Network:
    """The network between every stride-th rank: ranks 0, stride, 2 stride, ... of the other."""
    return net._replace(
        groups=np.ascontiguousarray(net.groups[:, ::stride]),
        slow=np.ascontiguousarray(net.slow[:, ::stride]),
        reduce_ps=np.ascontiguousarray(net.reduce_ps[::stride]),
        copy_ps=np.ascontiguousarray(net.copy_ps[::stride]),
    )


def messages(algorithm: str, ranks: int, count: int, channels: int = 1, slices: int = 1) -> int:
    """Messages of the schedule, 0 for none; where chunks are shorter than their slices this counts too many."""
    p = ranks
    if p < 2:
        return 0
    rounds = math.ceil(math.log2(p))
    if algorithm == "ring":
        return 2 * (p - 1) * min(count, p * channels * slices)
    return {
        "tree": 2 * (p - 1) * min(count, 2 * channels * slices),
        "binomial": 2 * (p - 1),
        "recursive-doubling": p * rounds,
        "halving-doubling": 2 * p * rounds,
        "one-shot": p * (p - 1),
        "two-shot": 2 * p * (p - 1) * slices,
    }.get(algorithm, 0)


def nodes_of(system: System, options: Options) -> int:
    """Ranks a node, as the algorithms that ask for it have it: those that the system's own links join."""
    return max(1, system.node.domain // options.stride)


def only_replayed(c: Collective, algorithm: str) -> bool:
    """Whether neither a formula nor a recurrence knows a schedule."""
    return c != ALL_REDUCE or algorithm not in closed.FORMULAS


def default_slices(
    net: Network,
    algorithm: str,
    count: int,
    itemsize: int,
    channels: int = 1,
    collective: Collective = ALL_REDUCE,
    nodes: int | None = None,
) -> int:
    """The number of SLICES into which a chunk is best cut; 1 for the all-reduces but ring and tree that have a formula.

    Of what has none: as many as replay finds fastest, where that takes no longer than TRIED_MESSAGES. nodes: ranks a node.

    An estimate says where to begin; from there the exact times of a half and of twice as many are tried while they get
    better, unless that takes too long (TRIED_MESSAGES): then the estimate stands. The noise is left out.
    """
    p = net.ranks
    if only_replayed(collective, algorithm):
        return _replayed_slices(net, algorithm, count, itemsize, channels, collective, nodes)
    if p < 3 or algorithm not in REGULAR or count == 0:
        return 1
    each = 2 * (p - 1) * channels * (p if algorithm == "ring" else 2)
    some = [k for k in SLICES if k == 1 or k * each <= SLICED_MESSAGES[algorithm]]
    at = min(range(len(some)), key=lambda i: _estimate(net, algorithm, count, itemsize, channels, some[i]))
    quiet = net._replace(noise=np.zeros_like(net.noise))
    exact = ring_ps if algorithm == "ring" else tree_ps

    @cache
    def ps(i: int) -> float:
        if not 0 <= i < len(some) or some[i] * each > TRIED_MESSAGES:
            return math.inf
        return exact(quiet, count, itemsize, channels=channels, slices=some[i], threads=1)

    if math.isinf(ps(at)):
        return some[at]
    while True:
        better = min((at, at - 1, at + 1), key=ps)  # the first of equals: fewer messages only where they are faster
        if better == at:
            return some[at]
        at = better


def _replayed_slices(
    net: Network, algorithm: str, count: int, itemsize: int, channels: int, c: Collective, nodes
) -> int:
    """From one slice on, twice as many while that is faster."""
    if net.ranks < 3 or count == 0 or not algorithms_of(c)[algorithm].takes_slices:
        return 1
    each = _written(c, algorithm, net.ranks, nodes)
    quiet = net._replace(noise=np.zeros_like(net.noise))
    best, best_ps = 1, math.inf
    for k in SLICES:
        if k * each > TRIED_MESSAGES:
            break
        schedule = build(algorithm, net.ranks, count, collective=c, channels=channels, slices=k, nodes=nodes)
        ps = replay(schedule, quiet, itemsize).picoseconds
        if ps >= best_ps:
            break
        best, best_ps = k, ps
    return best


def _estimate(net: Network, algorithm: str, count: int, itemsize: int, channels: int, slices: int) -> float:
    """Estimated ps. Ring: a chain of hops, or the port or clock that is busy with its slices all the time, whichever is longer."""
    if algorithm == "tree":
        return closed.loggp_ps("tree", net.ranks, -(-count // channels), itemsize, mean_hop(net, "tree"), slices=slices)
    p, piece = net.ranks, count * itemsize / channels / net.ranks / slices
    k, hops = np.unique(_ring_classes(net), return_counts=True)
    wire = net.byte_ps[k] * float(net.slow.max()) * piece
    clock = net.send_overhead[k] + net.recv_overhead[k] + float(net.reduce_ps.max()) * piece
    chain = clock + net.latency[k] + wire
    busy = np.maximum(np.maximum(wire, net.gap[k]), clock)
    return max(2 * float((chain * hops).sum()), 2 * (p - 1) * slices * channels * float(busy.max()))


def _ring_classes(net: Network) -> np.ndarray:
    """int64 [ranks]: the class of the hop from each rank to the next."""
    k = np.full(net.ranks, len(net.groups))
    for level in range(len(net.groups) - 1, -1, -1):
        k[net.groups[level] == np.roll(net.groups[level], -1)] = level
    return k


def mean_hop(net: Network, algorithm: str) -> closed.Hop:
    """The mean of an algorithm's hops, for the formulas that know of one: along the ring, over the doublings of the distance, and
    for direct exchange the farthest. Slow ranks count as if all were."""
    if algorithm == "ring":
        k = _ring_classes(net)
    elif algorithm in ("one-shot", "two-shot"):
        k = np.array([_class(net, 0, net.ranks - 1)])
    else:
        k = np.array([_class(net, 0, min(1 << j, net.ranks - 1)) for j in range(max(1, closed.ceil_log2(net.ranks)))])
    return closed.Hop(
        latency=round(net.latency[k].mean()),
        byte_ps=float(net.byte_ps[k].mean()),
        send_overhead=round(net.send_overhead[k].mean()),
        recv_overhead=round(net.recv_overhead[k].mean()),
        gap=round(net.gap[k].mean()),
        slow=float(net.slow[np.unique(net.port[k])].max()),
        reduce_ps=float(net.reduce_ps.max()),
    )


def _class(net: Network, a: int, b: int) -> int:
    return next((k for k in range(len(net.groups)) if net.groups[k, a] == net.groups[k, b]), len(net.groups))


def _repeating_hops(net: Network) -> list[closed.Hop] | None:
    """The hops of ranks 0 ... g-1 to the next, where these repeat around the ring; None where none up to MOST_HOPS do."""
    p = net.ranks
    if p < 2 or net.slow.min() != net.slow.max() or net.reduce_ps.min() != net.reduce_ps.max():
        return None
    k = _ring_classes(net)
    for g in range(1, min(p, MOST_HOPS) + 1):
        if p % g == 0 and np.array_equal(k.reshape(-1, g), np.broadcast_to(k[:g], (p // g, g))):
            return [closed.hop(net, r, (r + 1) % p) for r in range(g)]
    return None


def _classes_used(net: Network) -> int:
    return len(net.latency) if net.ranks > 1 else 0


def evaluate(
    system: System,
    options: Options,
    point: Point,
    progress: Callable[[float], None] | None = None,
    cut: Callable[[Network, int], int] | None = None,
) -> Modelled:
    """The time of one point. progress: told the part that is done, now and then, where a point takes long; cut: gives the ps
    of a ring that has to be stepped (`stepped_messages`), from its network and count, instead of ring_ps.

    Deterministic for given arguments, wherever it runs. Raises UserError where the level cannot say (see `checked`).
    """
    count = options.of.count_of(point.ranks, point.size_bytes // options.itemsize)
    if count < 1:
        least = options.of.size_count(point.ranks, 1) * options.itemsize
        raise UserError(
            f"-b {point.size_bytes}: less than one element of {options.itemsize} bytes"
            f"{'' if least == options.itemsize else ' for each rank'}; accepted: {least} or more"
        )
    if options.model in ("library", "nccl") or point.algorithm in IN_NETWORK:
        return _library(system, options, point)
    if point.algorithm != "auto":
        return _schedule(system, options, point, point.algorithm, count, progress, cut)
    tried = [_schedule(system, options, point, name, count, progress, cut) for name in tried_by_auto(options)]
    return min(tried, key=lambda m: m.seconds)


def _library(system: System, options: Options, point: Point) -> Modelled:
    model = "nccl" if options.model == "nccl" else "fabric"
    run = run_of(options, point.algorithm)
    if model == "nccl":
        found = predict.explain(system, point.ranks, point.size_bytes, run, model)
        return Modelled(point, f"{found.algorithm}/{found.protocol}", found.seconds, "nccl", options.channels, 1, 0)
    told = predict.expect(system, point.ranks, point.size_bytes, run)
    chosen = f"{told.choice.algorithm}/{told.choice.protocol}"
    return Modelled(point, chosen, told.seconds, "library", told.choice.channels or 1, 1, 0, told.band)


def run_of(options: Options, algorithm: str) -> predict.Run:
    """What a point of this algorithm asks of the library."""
    return predict.Run(
        collective=options.collective, library=options.library, algorithm=algorithm, protocol=options.protocol
    )


def _schedule(system, options: Options, point: Point, algorithm: str, count: int, progress, cut) -> Modelled:
    c, takes, nodes = options.of, algorithms_of(options.of)[algorithm], nodes_of(system, options)
    unwritten = _is_half(options, algorithm) or _is_exchange(options, algorithm)
    if only_replayed(c, algorithm) and not unwritten:
        _few_enough(c, algorithm, point.ranks, nodes)
    if options.contention:  # the links say what rails and routing cost
        net = network_of(system, _replace(options, rails="own", routing="adaptive"), point.ranks)
    else:
        net = network_for(system, options, algorithm, point.ranks)
    slices = options.slices or default_slices(net, algorithm, count, options.itemsize, options.channels, c, nodes)
    if not takes.takes_slices:
        slices = 1
    channels = options.channels if takes.takes_channels else 1
    if options.contention:
        regular = algorithm in REGULAR and c == ALL_REDUCE
        make = Generated if regular else build
        extra = {} if regular else {"collective": c, "root": options.root, "nodes": nodes}
        schedule = make(algorithm, net.ranks, count, channels=channels, slices=slices, **extra)
        done = contended(system, net, schedule, options.itemsize, routing=options.routing, seed=options.seed)
        return Modelled(point, algorithm, done.seconds, "contended", channels, slices, done.messages)
    if _is_half(options, algorithm) and slices == 1:
        ps, level = _half(net, c, count, options, progress)
        return Modelled(point, algorithm, ps / PS, level, 1, 1, net.ranks * (net.ranks - 1))
    if _is_exchange(options, algorithm):
        ps = int(exchange_finish(net, algorithm, count, options.itemsize, progress=progress).max())
        return Modelled(point, algorithm, ps / PS, "recurrence", 1, 1, net.ranks * (net.ranks - 1))
    if only_replayed(c, algorithm):
        _few_enough(c, algorithm, point.ranks, nodes)
        schedule = build(
            algorithm, net.ranks, count, collective=c, root=options.root, channels=channels, slices=slices, nodes=nodes
        )
        done = replay(schedule, net, options.itemsize)
        return Modelled(point, algorithm, done.seconds, "replay", channels, slices, done.messages)
    level = _level(options, algorithm, point.ranks, count)
    if level == "loggp":
        ps = closed.loggp_ps(algorithm, net.ranks, count, options.itemsize, mean_hop(net, algorithm), slices=slices)
    else:
        ps, level = _exact(net, algorithm, count, options, channels, slices, level, progress, cut)
    sent = messages(algorithm, point.ranks, count, channels, slices)
    return Modelled(point, algorithm, ps / PS, level, channels, slices, sent)


def _is_half(options: Options, algorithm: str) -> bool:
    """Whether a point is half of a ring all-reduce, which need not be written out (of one slice)."""
    whole = options.model == "replay" or options.contention or options.channels != 1
    return algorithm == "ring" and options.collective in REDUCING and not whole


def _is_exchange(options: Options, algorithm: str) -> bool:
    """Whether a point is an all-to-all that need not be written out."""
    return (
        options.collective == "alltoall"
        and algorithm in EXCHANGES
        and options.model != "replay"
        and not options.contention
    )


def _half(net: Network, c: Collective, count: int, options: Options, progress) -> tuple[int, str]:
    """(ps, level) of a ring reduce-scatter or all-gather of one slice, out of place: by formula where there is one."""
    n = count * options.itemsize
    if options.model == "auto" and not net.noisy and (hops := _repeating_hops(net)):
        ps = closed.ring_ps(net.ranks, count * net.ranks, options.itemsize, hops, (REDUCING[c.name],))
        if ps is not None and (REDUCING[c.name] or net.copy_ps.min() == net.copy_ps.max()):
            return ps + (0 if REDUCING[c.name] else work_ps(net.copy_ps[0], n)), "closed"
    finish = half_ring_finish(net, c.name, count, options.itemsize, threads=options.threads, progress=progress)
    return int(finish.max()), "recurrence"


def _written(c: Collective, algorithm: str, ranks: int, nodes: int | None = None) -> int:
    """About how many steps of one slice a schedule has, counted on a smaller one: they grow with p, or with p^2."""
    few = min(ranks, COUNTED_RANKS)
    counted = sum(map(len, build(algorithm, few, few, collective=c, nodes=nodes).tables))
    return round(counted * (ranks / few) ** (2 if counted > 4 * few * closed.ceil_log2(few) else 1))


def _few_enough(c: Collective, algorithm: str, ranks: int, nodes: int) -> None:
    """Raises UserError where the tables of a schedule would not fit: they are the only way to its time."""
    expected = _written(c, algorithm, ranks, nodes)
    if expected > WRITTEN_STEPS:
        unwritten = f"; or --algo {','.join(EXCHANGES)}, which need no tables" if c.name == "alltoall" else ""
        raise UserError(
            f"--algo {algorithm}: {c.name} over {ranks} ranks has about {expected:.2g} steps, and is replayed one by one; "
            f"accepted: at most {WRITTEN_STEPS:,} (fewer --ranks, or an algorithm of fewer messages){unwritten}"
        )


def _exact(net, algorithm, count, options: Options, channels, slices, level, progress, cut) -> tuple[int, str]:
    """(ps, level) of a schedule under the rules of network.py; with the model `closed` Hockney's, where no formula is exact."""
    if level == "closed" or (options.model == "auto" and algorithm == "ring"):
        if algorithm == "ring" and channels == slices == 1 and not net.noisy:
            ps = _ring_formula(net, count, options.itemsize)
            if ps is not None:
                return ps, "closed"
        if level == "closed":
            h = mean_hop(net, algorithm)
            alpha, beta, gamma = h.through(0) / PS, h.byte_ps * h.slow / PS, h.reduce_ps / PS
            nbytes = count * options.itemsize
            seconds = closed.hockney(algorithm, net.ranks, nbytes, alpha, beta, gamma, slices=slices)
            return round(seconds * PS), "hockney"
    if level == "replay":
        if algorithm in REGULAR:
            schedule = Generated(algorithm, net.ranks, count, channels=channels, slices=slices)
        else:
            schedule = build(algorithm, net.ranks, count, channels=channels, slices=slices)
        return replay(schedule, net, options.itemsize).picoseconds, level
    if cut and algorithm == "ring" and channels == slices == 1 and is_stepped(net, count, options.itemsize):
        return cut(net, count), level
    time = ring_ps if algorithm == "ring" else tree_ps
    how = {"channels": channels, "slices": slices, "threads": options.threads, "progress": progress}
    if options.backend != "cpu" and algorithm == "ring":
        how["method"] = "gpu"
    return time(net, count, options.itemsize, **how), level


def _ring_formula(net: Network, count: int, itemsize: int) -> int | None:
    """The exact ps of a ring without noise, one channel and one slice, where there is a formula."""
    hops = _repeating_hops(net)
    return closed.ring_ps(net.ranks, count, itemsize, hops) if hops else None


def _level(options: Options, algorithm: str, ranks: int, count: int) -> str:
    if options.model != "auto":
        return options.model
    if algorithm in REGULAR:
        return "recurrence"
    few = messages(algorithm, ranks, count, options.channels, options.slices or 1) <= REPLAY_MESSAGES
    return "replay" if few else "loggp"


def stepped_messages(system: System, options: Options, point: Point, least: int) -> int:
    """Messages of a point's ring of one channel and one slice that has to be stepped; 0 if it has none, or fewer than `least`."""
    count, p = point.size_bytes // options.itemsize, point.ranks
    algorithm = "ring" if point.algorithm == "auto" else point.algorithm
    if (
        algorithm != "ring"
        or options.backend != "cpu"
        or p < 2
        or count < 1
        or 2 * p * (p - 1) < least
        or options.channels != 1
    ):
        return 0
    if options.model in ("library", "nccl") or _level(options, algorithm, p, count) != "recurrence":
        return 0
    net = network_for(system, options, algorithm, p)
    if (options.slices or default_slices(net, algorithm, count, options.itemsize)) != 1:
        return 0
    if options.model == "auto" and not net.noisy and _ring_formula(net, count, options.itemsize) is not None:
        return 0
    return 2 * p * (p - 1) if is_stepped(net, count, options.itemsize) else 0


def ring_block(
    system: System, options: Options, ranks: int, count: int, begin: np.ndarray, first: int, stage: int, stages: int
) -> np.ndarray:
    """`ring_segment` on a network that the process keeps from one call to the next; its arguments from `begin` on."""
    net = network_for(system, options, "ring", ranks)
    return ring_segment(net, count, options.itemsize, begin, first, stage, stages)


def memory_bytes(system: System, options: Options, point: Point) -> int:
    """About what evaluating a point takes at most, beyond the compiled code."""
    p, count = point.ranks, point.size_bytes // options.itemsize
    network = 64 * p * options.stride
    names = tried_by_auto(options) if point.algorithm == "auto" else (point.algorithm,)
    slices = options.slices or SLICES[-1]
    most = 0
    for name in names:
        if _is_exchange(options, name) or (_is_half(options, name) and (options.slices or 1) == 1):
            most = max(most, 200 * p)
            continue
        if only_replayed(options.of, name) and name not in IN_NETWORK:
            # A step is a row of a table, and of a Python list while it is written.
            most = max(most, _written(options.of, name, p, nodes_of(system, options)) * 2 * ROW_BYTES)
            continue
        level = _level(options, name, p, count)
        if level == "replay" and name not in REGULAR:
            # Both ends of each message are steps in a table, and a row of a Python list while it is written.
            sent = messages(name, p, count, options.channels, options.slices or 1)
            most = max(most, sent * 2 * 2 * ROW_BYTES)
        elif level == "replay":
            most = max(most, 500 * p * options.channels * (slices if name == "ring" else 2 * slices))
        elif level == "recurrence" and name in REGULAR:
            most = max(most, 16 * p * options.channels * (slices + 8) + 100 * p)
    return network + most


def busbw_limit(system: System, options: Options, ranks: int) -> tuple[float, str]:
    """(bytes a second, name) of the slowest port that a ring in rank order passes: its busbw for an endless message."""
    net = network_of(system, _replace(options, rails="aggregate"), ranks)
    rate, k = min(
        (PS / (float(net.byte_ps[k]) * float(net.slow[net.port[k]].max())), int(k))
        for k in np.unique(_ring_classes(net))
    )
    if k == 0:
        return rate, f"links inside a node ({system.node.link.name})"
    nics = round(system.node.nics * system.node.domain / system.node.gpus)
    return rate, f"{nics} NICs of a domain ({system.nic.name})" if nics > 1 else f"NIC ({system.nic.name})"


def traced(system: System, options: Options, algorithm: str, ranks: int, size_bytes: int) -> tuple[Replay, Schedule]:
    """A replay with its trace, and the schedule it walked. Raises UserError for what has no schedule."""
    known = algorithms_of(options.of)
    if algorithm not in known:
        raise UserError(f"--algo {algorithm} has no schedule to draw; accepted: {', '.join(known)}")
    net = network_for(system, options, algorithm, ranks)
    count, c, nodes = options.of.count_of(ranks, size_bytes // options.itemsize), options.of, nodes_of(system, options)
    slices = options.slices or default_slices(net, algorithm, count, options.itemsize, options.channels, c, nodes)
    schedule = build(
        algorithm, ranks, count, collective=c, root=options.root, channels=options.channels, slices=slices, nodes=nodes
    )
    return replay(schedule, net, options.itemsize, trace=True), schedule
