"""What a set of records says: latency, peak, n1/2, who wins where, the tree-to-ring crossover, the memory limit.

Pure functions over ``Record``s of one run or several. Only like is compared with like: a *setting* is everything that
must agree before two times may stand side by side (clock, ranks, dtype, op, machine), and a *series* is one algorithm
on one transport within a setting. A size that was measured again replaces the earlier record of it.

Times are in seconds, sizes in bytes, bandwidths in bytes per second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..collectives.collective import COLLECTIVES, Collective
from .record import Record, Timing, busbw_factor

Traffic = Callable[[str, int], "float | None"]

WALL = "wall"
OUT_OF_PLACE, IN_PLACE = "out_of_place", "in_place"
MEMORY_KERNELS = {  # the keys of a ``limits`` line, and what each kernel touches
    "copy": "reads one array, writes one",
    "copy_nt": "reads one array, writes one past the caches",
    "add": "reads two arrays, writes their sum to one",
    "add_nt": "reads two arrays, writes their sum to one past the caches",
    "reduce_both": "reads two arrays, writes their sum to two",
    "reduce_both_nt": "reads two arrays, writes their sum to two past the caches",
    "read": "reads one array",
}
SMALLEST_MEMORY_BOUND = 1 << 20  # bytes; below it latency decides, and a share of the memory limit says nothing
NOTABLE = 0.1  # in-place is mentioned where its peak differs by more than this share
BASELINES = frozenset({"mpi-native", "numpy", "nccl"})  # measured beside ours, but `auto` cannot choose them
HOST_TRANSPORTS = frozenset({"shared", "mpi", "hybrid", "mpi-library", "numpy"})  # those that host memory limits
DEVICE_TRANSPORTS = frozenset({"device"})  # those that one GPU's memory limits


@dataclass(frozen=True)
class Setting:
    """What two records must share for their times to be compared."""

    clock: str
    ranks: int
    dtype: str
    op: str
    machine: str
    collective: str = "all_reduce"

    @property
    def words(self) -> str:
        """For people: ``8 ranks, float32 sum``, with the collective's name where it is no all-reduce, and the system's where the
        time is modelled."""
        kind = " ".join(w for w in (self.dtype, self.op) if w)
        other = "" if self.collective == "all_reduce" else self.collective
        text = ", ".join(t for t in (other, ranks_words(self.ranks), kind) if t)
        return plain(text if self.clock == WALL else f"{text}, modelled ({self.clock.removeprefix('fabric:')})", 90)


@dataclass(frozen=True)
class Series:
    """One algorithm's curve: its records by rising size, each size once."""

    setting: Setting
    algorithm: str
    transport: str
    records: tuple[Record, ...]

    def at(self, size_bytes: int) -> Record | None:
        return next((r for r in self.records if r.size_bytes == size_bytes), None)


@dataclass(frozen=True)
class Range:
    """Neighbouring measured sizes, low to high (bytes, both included), with the same winner.

    winners: the fastest algorithm first, then those whose confidence interval overlaps its (a tie).
    """

    low: int
    high: int
    winners: tuple[str, ...]


@dataclass(frozen=True)
class Crossover:
    """Where the tree family hands over to the ring family: size_bytes is interpolated between two measured sizes."""

    setting: Setting
    size_bytes: float
    tree: str
    ring: str


def machine(environment: Mapping) -> str:
    """The machine a record comes from, as one comparable string: its CPU and its sorted host names."""
    hosts = hostnames(environment)
    return " ".join([str(environment.get("cpu_model") or ""), *hosts]).strip()


def gpus_measured(environment: Mapping) -> list[dict]:
    """The GPUs that a record is of, as bench/gpu.py writes them down; [] for one of the CPU, and whatever else a file holds."""
    gpu = environment.get("gpu")
    devices = gpu.get("devices") if isinstance(gpu, dict) else None
    return [d for d in devices if isinstance(d, dict)] if isinstance(devices, list) else []


def hostnames(environment: Mapping) -> list[str]:
    """The distinct host names of an environment record, whether it holds one name, a list or none."""
    hosts = environment.get("hostnames") or environment.get("hostname") or []
    if isinstance(hosts, (str, bytes)):
        hosts = [hosts]
    return sorted({str(h) for h in hosts}) if isinstance(hosts, (list, tuple)) else []


def setting(record: Record) -> Setting:
    return Setting(record.clock, record.ranks, record.dtype, record.op, machine(record.environment), record.collective)


def series(records: Iterable[Record]) -> list[Series]:
    """The records sorted into series, in order of first appearance."""
    found: dict[tuple, dict[int, Record]] = {}
    for r in records:
        found.setdefault((setting(r), r.algorithm, r.transport), {})[r.size_bytes] = r
    return [Series(*key, tuple(sizes[s] for s in sorted(sizes))) for key, sizes in found.items()]


def settings(curves: Iterable[Series]) -> list[Setting]:
    """The distinct settings, in order of first appearance."""
    return list(dict.fromkeys(s.setting for s in curves))


def names(curves: Sequence[Series]) -> list[str]:
    """A name for each series of one setting: the algorithm, with its transport where two series share the algorithm."""
    algorithms = [s.algorithm for s in curves]
    return [plain(a if algorithms.count(a) == 1 else f"{a} ({s.transport})", 40) for a, s in zip(algorithms, curves)]


def bandwidth(record: Record, timing: Timing | None = None) -> float:
    """busbw in bytes per second; algbw where there is one rank, whose busbw is 0 by definition, or the ranks are not known."""
    return record.busbw(timing) if record.ranks > 1 else record.algbw(timing)


def bandwidth_name(ranks: int) -> str:
    return "busbw" if ranks > 1 else "algbw"


def latency(curve: Series) -> tuple[int, Timing]:
    """(size, timing) at the smallest size that moves anything; at size 0 where nothing else was measured."""
    r = next((r for r in curve.records if r.size_bytes > 0), curve.records[0])
    return r.size_bytes, r.best


def peak(curve: Series) -> tuple[float, int] | None:
    """(bandwidth, the smallest size that reaches it), or None where every size or time is 0."""
    best = max(curve.records, key=lambda r: (bandwidth(r), -r.size_bytes))
    return (bandwidth(best), best.size_bytes) if bandwidth(best) > 0 else None


def still_rising(curve: Series) -> bool:
    """Whether the peak is the largest size and more than 5 % above the size before, so that it may lie beyond."""
    points = _points(curve)
    return len(points) > 1 and points[-1][1] == max(b for _, b in points) and points[-1][1] > 1.05 * points[-2][1]


def half_size(curve: Series) -> float | None:
    """n1/2: the message size in bytes at which the bandwidth first reaches half its peak.

    Interpolated between two measured sizes on logarithmic axes. None where the smallest size is already there, or where
    fewer than two sizes were measured. With t = alpha + n beta it is alpha/beta as the largest size goes to infinity.
    Source: R. W. Hockney, C. R. Jesshope, Parallel Computers 2, Adam Hilger, 1988.
    """
    points = _points(curve)
    if len(points) < 2:
        return None
    half = max(b for _, b in points) / 2
    above = next(i for i, (_, b) in enumerate(points) if b >= half)
    if above == 0:
        return None
    (s0, b0), (s1, b1) = points[above - 1], points[above]
    return math.exp(_crossing(math.log(s0), math.log(b0 / half), math.log(s1), math.log(b1 / half)))


def mode(curves: Iterable[Series]) -> str:
    """The mode to compare in: out-of-place where any record has it, else in-place. Modes are never mixed."""
    return OUT_OF_PLACE if any(r.out_of_place for s in curves for r in s.records) else IN_PLACE


def ranges(curves: Sequence[Series]) -> list[Range]:
    """Who is fastest over which sizes, among series of one setting; sizes that only one of them has are left out.

    Neighbouring sizes with the same winners are merged. Algorithms whose 95 % confidence interval overlaps the fastest
    one's tie with it. ``auto`` takes no part where others do, because it only repeats one of them.
    """
    curves = _contestants(curves)
    which = mode(curves)
    called = names(curves)
    merged: list[Range] = []
    for size in sorted({r.size_bytes for s in curves for r in s.records}):
        timed = [(t, n) for s, n in zip(curves, called) if (t := _timing(s.at(size), which))]
        if len(timed) < 2:
            continue
        timed.sort(key=lambda x: x[0].seconds)
        winners = tuple(n for t, n in timed if t is timed[0][0] or _overlap(t, timed[0][0]))
        if merged and set(merged[-1].winners) == set(winners):
            merged[-1] = Range(merged[-1].low, size, merged[-1].winners)
        else:
            merged.append(Range(size, size, winners))
    return merged


def is_tree(algorithm: str) -> bool:
    return "tree" in algorithm.lower() or "binomial" in algorithm.lower()


def is_ring(algorithm: str) -> bool:
    return "ring" in algorithm.lower() and not is_tree(algorithm)


def crossover(curves: Sequence[Series]) -> Crossover | None:
    """The size at which the tree family hands over to the ring family, among series of one setting.

    At each size the fastest of either family stands for it. From the last size at which the tree beats the ring (their
    confidence intervals lie apart) the crossing is the first place after it where their times are equal, interpolated
    on logarithmic axes. None where a family is missing, the tree never beats the ring, or the ring never catches up.
    """
    which = mode(curves)
    compared = []  # (size, tree timing, tree name, ring timing, ring name)
    for size in sorted({r.size_bytes for s in curves for r in s.records if r.size_bytes > 0}):
        tree, ring = (
            min(
                ((t, s.algorithm) for s in curves if family(s.algorithm) and (t := _timing(s.at(size), which))),
                key=lambda x: x[0].seconds,
                default=None,
            )
            for family in (is_tree, is_ring)
        )
        if tree and ring and tree[0].seconds > 0 and ring[0].seconds > 0:
            compared.append((size, *tree, *ring))

    wins = [i for i, (_, t, _, r, _) in enumerate(compared) if t.seconds < r.seconds and not _overlap(t, r)]
    if not wins:
        return None
    for (s0, t0, tree, r0, _), (s1, t1, _, r1, ring) in zip(compared[wins[-1] :], compared[wins[-1] + 1 :]):
        if t1.seconds >= r1.seconds:
            x = _crossing(
                math.log(s0), math.log(t0.seconds / r0.seconds), math.log(s1), math.log(t1.seconds / r1.seconds)
            )
            return Crossover(curves[0].setting, math.exp(x), tree, ring)
    return None


def memory_bandwidth(limits: Mapping) -> tuple[float, str] | None:
    """(bytes per second over all cores, the kernel that reached it): the fastest kernel that both reads and writes.

    ``read`` alone counts only where nothing else was measured: an all-reduce has to write its result, and most memories
    read faster than they take a mix. None where `limits` holds no usable number.
    """
    usable = {k: v for k in MEMORY_KERNELS if (v := _positive(limits.get(k)))}
    if len(usable) > 1:
        usable.pop("read", None)
    if not usable:
        return None
    name = max(usable, key=usable.__getitem__)
    return usable[name], name


def limit_busbw(
    limits: Mapping, ranks: int, bytes_per_message_byte: float | None = None, collective: str = "all_reduce"
) -> float | None:
    """The busbw (algbw for one rank), bytes per second, at which the measured memory bandwidth is used up.

    bytes_per_message_byte: what the algorithm reads and writes in memory for each byte of the message, over all ranks.
    None: 2p, below which no all-reduce can go when the message exceeds the caches, since each of the p ranks' inputs is
    read once and each of the p results written once. With B the memory bandwidth and m that number, S bytes take at
    least S m / B, so algbw <= B/m. The bound is on messages that live in memory: in a cache they may pass it.
    None where the memory was not measured.
    """
    b = memory_bandwidth(limits)
    if bytes_per_message_byte is None:
        moved = least_traffic(COLLECTIVES.get(collective), ranks)
    else:
        moved = float(bytes_per_message_byte)
    if b is None or not 0 < moved < math.inf:
        return None
    return b[0] / moved * (busbw_factor(ranks, collective) if ranks > 1 else 1.0)


def least_traffic(collective: Collective | None, ranks: int) -> float:
    """Bytes read and written for each byte of the message if every input that matters is read once and every output written
    once: 2p of an all-reduce. 0 for a collective that is not known."""
    if collective is None:
        return 0.0
    read = sum(collective.precondition(r, ranks, 0) for r in range(ranks)) * collective.input_count(ranks, 1)
    written = sum(bool(collective.postcondition(r, ranks, 0)) for r in range(ranks)) * collective.output_count(ranks, 1)
    return (read + written) / collective.size_count(ranks, 1)


def own_limit(curve: Series, limits: Mapping, traffic: Traffic | None = None) -> float | None:
    """The busbw that memory allows this very algorithm; None where its traffic is unknown or memory is no limit.

    traffic: (algorithm, ranks) -> bytes moved in memory for each message byte over all ranks, or None. Without it
    ``limits["least_seconds"]`` is asked: the least time that the run found for ``algorithm/mode`` at the size
    ``least_seconds_size``. Modelled times, several hosts and GPUs have no limit here: not one host's memory decides.
    """
    if not _lives_in_memory(curve, limits):
        return None
    ranks = curve.setting.ranks
    moved = traffic(curve.algorithm, ranks) if traffic else None
    if moved is not None:
        return limit_busbw(limits, ranks, moved, curve.setting.collective)
    least, size = limits.get("least_seconds"), _positive(limits.get("least_seconds_size"))
    which = OUT_OF_PLACE if curve.records[-1].out_of_place else IN_PLACE
    seconds = _positive(least.get(f"{curve.algorithm}/{which}")) if isinstance(least, Mapping) else None
    factor = busbw_factor(ranks, curve.setting.collective) if ranks > 1 else 1.0
    return size / seconds * factor if size and seconds else None


def limit_of(curve: Series, limits: Mapping, traffic: Traffic | None = None) -> float | None:
    """``own_limit``, or where that is unknown the limit for any algorithm; None where memory is no limit."""
    if not _lives_in_memory(curve, limits):
        return None
    return own_limit(curve, limits, traffic) or limit_busbw(limits, curve.setting.ranks, None, curve.setting.collective)


def _lives_in_memory(curve: Series, limits: Mapping) -> bool:
    """Whether the memory that `limits` is of, host or device, is the one that the curve's messages are in."""
    transports = DEVICE_TRANSPORTS if limits.get("memory") == "device" else HOST_TRANSPORTS
    hosts = {h for r in curve.records for h in hostnames(r.environment)}
    return curve.setting.clock == WALL and curve.transport in transports and len(hosts) <= 1


def _positive(value: object) -> float | None:
    """The number as a float if it is finite and above 0."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if number and 0 < value < 1e300 else None


def fraction_of_limit(curve: Series, limits: Mapping, traffic: Traffic | None = None) -> tuple[float, int] | None:
    """(share of ``limit_of`` reached at the largest size, that size): there the message is least likely to be cached.

    None where there is no limit or where the largest size is under 1 MiB. Above 1 the caches carried the message.
    """
    limit, last = limit_of(curve, limits, traffic), curve.records[-1]
    if limit is None or last.size_bytes < SMALLEST_MEMORY_BOUND:
        return None
    return bandwidth(last) / limit, last.size_bytes


def words(records: Sequence[Record], limits: Mapping, traffic: Traffic | None = None) -> list[str]:
    """The summary in plain English, one line a fact, for printing after the table. Empty for no records."""
    everything = series(records)
    groups = settings(everything)
    lines = []
    for group in groups:
        curves = [s for s in everything if s.setting == group]
        facts = _setting_words(curves, limits, traffic)
        if len(groups) > 1:
            twins = [g for g in groups if g.words == group.words]
            where = f" on {plain(group.machine)}" if len(twins) > 1 and group.machine else ""
            facts = [f"{group.words}{where}:", *(f"  {f}" for f in facts)]
        lines += facts
    return lines


def _setting_words(curves: list[Series], limits: Mapping, traffic: Traffic | None) -> list[str]:
    clock = curves[0].setting.clock
    lines = [] if clock == WALL else [f"Modelled on {plain(clock.removeprefix('fabric:'))}, not measured."]
    lines += [f"{name}: {_curve_words(c)}" for name, c in zip(names(curves), curves)]
    if curves[0].setting.ranks == 1:
        lines.append("One rank exchanges nothing, so its busbw is 0 by definition; algbw is given instead.")
    lines += _winner_words(curves) + _crossover_words(curves) + _auto_words(curves)
    lines += _limit_words(curves, limits, traffic)
    for name, c in zip(names(curves), curves):
        bad = [r.size_bytes for r in c.records if any(t and t.wrong for t in (r.out_of_place, r.in_place))]
        if bad:
            where = size_words(bad[0]) if len(bad) == 1 else f"{len(bad)} sizes from {size_words(bad[0])} on"
            lines.append(f"{name} gave WRONG RESULTS at {where}; do not use its times.")
    return lines


def _curve_words(c: Series) -> str:
    size, timing = latency(c)
    small = f"{size_words(size)} in {time_words(timing.seconds)}"
    top = peak(c)
    if top is None:
        return small
    rate = f"{rate_words(top[0])} {bandwidth_name(c.setting.ranks)}"
    if sum(r.size_bytes > 0 for r in c.records) == 1:
        return f"{small}, {rate}"
    text = f"{small}; peak {rate} at {size_words(top[1])}"
    half = half_size(c)
    text += f", half of it at {size_words(half)} (n1/2)" if half else ", already over half of it at the smallest size"
    inside = max(
        ((bandwidth(r, r.in_place), -r.size_bytes) for r in c.records if r.out_of_place and r.in_place), default=0
    )
    if inside and abs(inside[0] / top[0] - 1) > NOTABLE:
        text += f"; in-place peak {rate_words(inside[0])} at {size_words(-inside[1])}"
    return text + ("; still rising at the largest size" if still_rising(c) else "")


def _winner_words(curves: list[Series]) -> list[str]:
    found = ranges(curves)
    if not found:
        return []
    if len(found) > 6:
        measured = sorted({r.size_bytes for s in curves for r in s.records})
        tally: dict[str, int] = {}
        for f in found:
            key = f.winners[0] if len(f.winners) == 1 else "a tie"
            tally[key] = tally.get(key, 0) + sum(f.low <= m <= f.high for m in measured)
        counts = ", ".join(f"{k} at {n}" for k, n in sorted(tally.items(), key=lambda kv: -kv[1]))
        return [f"Fastest changes {len(found) - 1} times over the sizes: {counts}."]
    return ["Fastest: " + "; ".join(_range_words(f) for f in found) + "."]


def _range_words(f: Range) -> str:
    who = f.winners[0] if len(f.winners) == 1 else f"{', '.join(f.winners[:-1])} and {f.winners[-1]} level"
    return f"{who} " + (
        f"at {size_words(f.low)}" if f.low == f.high else f"from {size_words(f.low)} to {size_words(f.high)}"
    )


def _crossover_words(curves: list[Series]) -> list[str]:
    if not (any(is_tree(c.algorithm) for c in curves) and any(is_ring(c.algorithm) for c in curves)):
        return []
    c = crossover(curves)
    return (
        [f"Crossover from {plain(c.tree, 40)} to {plain(c.ring, 40)}: about {size_words(c.size_bytes)}."] if c else []
    )


def _auto_words(curves: list[Series]) -> list[str]:
    """How much the automatic choice loses to the fastest algorithm it could have chosen, of those measured."""
    auto = next((c for c in curves if c.algorithm == "auto"), None)
    others = [c for c in curves if c.algorithm != "auto" and c.algorithm not in BASELINES]
    which = mode(curves)
    worst = None
    for r in auto.records if auto and others else ():
        t = _timing(r, which)
        best = min(
            ((o, c.algorithm) for c in others if (o := _timing(c.at(r.size_bytes), which))),
            key=lambda x: x[0].seconds,
            default=None,
        )
        if t and best and best[0].seconds > 0 and t.seconds > best[0].seconds and not _overlap(t, best[0]):
            loss = t.seconds / best[0].seconds - 1
            worst = max(worst or (0.0, 0, "", ""), (loss, r.size_bytes, r.chosen, plain(best[1], 40)))
    if not auto or not others:
        return []
    if worst is None:
        return ["auto: level with the fastest choice at every size."]
    loss, size, chosen, best_name = worst
    where = f"at {size_words(size)}, where it chose {plain(chosen, 40)}"
    return [f"auto: at worst {loss:.0%} slower than {best_name}, {where}."]


def _limit_words(curves: list[Series], limits: Mapping, traffic: Traffic | None) -> list[str]:
    found = [(f, n, c) for n, c in zip(names(curves), curves) if (f := fraction_of_limit(c, limits, traffic))]
    if not found:
        return []
    (share, size), name, c = max(found, key=lambda x: bandwidth(x[2].records[-1]))
    rate = f"{rate_words(limit_of(c, limits, traffic))} {bandwidth_name(c.setting.ranks)}"
    if own_limit(c, limits, traffic):
        allowed = f"{rate} that memory allows it"
    else:
        stream, kernel = memory_bandwidth(limits)
        allowed = f"{rate} that memory allows any algorithm ({rate_words(stream)}, {kernel})"
    if share > 1:
        return [f"Memory: at {size_words(size)} {name} passes the {allowed}: caches carry part of it."]
    return [f"Memory: at {size_words(size)} {name} gets {share:.0%} of the {allowed}."]


def ranks_words(ranks: int) -> str:
    """``8 ranks``; a record of others may not tell how many."""
    return f"{ranks} rank{'s' * (ranks != 1)}" if ranks else "ranks not known"


def plain(text: object, length: int = 60) -> str:
    """Text from a file, fit for a terminal or a figure: one line, printable, at most `length` characters."""
    line = " ".join(str(text)[: 4 * length].split())
    if not line.isprintable():
        line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= length else line[: length - 1] + "…"


def size_words(size_bytes: float) -> str:
    """8 B, 1 KiB, 1.5 MiB: three digits at most."""
    value, units = float(size_bytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1023.5 and len(units) > 1:
        value, units = value / 1024, units[1:]
    return f"{value:.0f} {units[0]}" if value >= 99.95 else f"{value:.3g} {units[0]}"


def time_words(seconds: float, micro: str = "us") -> str:
    """820 ns, 3.42 us, 15.0 us, 1.05 ms, 2.50 s: three digits."""
    for scale, unit in ((1e-9, "ns"), (1e-6, micro), (1e-3, "ms")):
        if seconds < 999.5 * scale:
            return f"{_three_digits(seconds / scale)} {unit}"
    return f"{_three_digits(seconds)} s"


def rate_words(bytes_per_second: float) -> str:
    """12.3 GB/s, 410 MB/s, 2.10 kB/s: three digits, decimal units as in nccl-tests."""
    for scale, unit in ((1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s")):
        if bytes_per_second >= 0.9995 * scale:
            return f"{_three_digits(bytes_per_second / scale)} {unit}"
    return f"{_three_digits(bytes_per_second)} B/s"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def _points(curve: Series) -> list[tuple[int, float]]:
    """(size, bandwidth) of the sizes that have a bandwidth."""
    return [(r.size_bytes, bandwidth(r)) for r in curve.records if bandwidth(r) > 0]


def _crossing(x0: float, y0: float, x1: float, y1: float) -> float:
    """Where the line through two points meets y = 0; x1 where it is level."""
    return x1 if y1 == y0 else x0 - y0 * (x1 - x0) / (y1 - y0)


def _timing(record: Record | None, which: str) -> Timing | None:
    return getattr(record, which) if record else None


def _overlap(a: Timing, b: Timing) -> bool:
    return a.ci_low <= b.ci_high and b.ci_low <= a.ci_high


def _contestants(curves: Sequence[Series]) -> list[Series]:
    others = [c for c in curves if c.algorithm != "auto"]
    return others or list(curves)
