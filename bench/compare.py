"""Two sets of records side by side: a ratio with its interval and a verdict at each size, corrected for how many sizes there are.

Only like is compared with like: the same collective, ranks, clock and size, and the same algorithm where either side has several.
Where both sides have samples, they are held against one another (Mann-Whitney, bootstrap of the ratio of medians); where not, by
the scatter that repeated public measurements have (``repeatability``). Verdicts hold together: p values are corrected after
Benjamini and Hochberg (1995), so that of the differences called real at most one in twenty is expected not to be.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..errors import UserError
from .record import Record, ResultFile, Timing
from .repeatability import scatter
from .statistics import CONFIDENCE, student_quantile, student_two_sided
from .summary import IN_PLACE, OUT_OF_PLACE, WALL, bandwidth, plain, ranks_words, size_words

LEAST_SAMPLES = 4  # on each side, from which samples are compared
RESAMPLES = 2000
ALPHA = 1 - CONFIDENCE
FASTER, SLOWER, LEVEL, WRONG = "faster", "SLOWER", "level", "WRONG"
_UNSAID = frozenset(
    {
        "time",
        "command",
        "load_average",
        "line",
        "source",
        "start_time",
        "end_time",
        "launcher",
        "transports",
        "algorithms",
        "paced_seconds",
    }
)


@dataclass(frozen=True)
class Point:
    """One size. a, b: seconds; a_bandwidth, b_bandwidth: bytes a second (busbw, or algbw where that has none).

    ratio: time of b over time of a; low, high: its 95 % interval; p: the chance of such a difference if there were none, corrected
    for all points; by: "samples", "repeatability" or "exact"; verdict:
    faster, SLOWER (real, and beyond the threshold), level or WRONG.
    """

    size_bytes: int
    a: Timing
    b: Timing
    a_bandwidth: float
    b_bandwidth: float
    ratio: float
    low: float
    high: float
    p: float
    by: str
    verdict: str = LEVEL


@dataclass(frozen=True)
class Comparison:
    """One series of a against one of b. differs: (what, in a, in b) of settings and environments."""

    what: str
    a: str
    b: str
    mode: str
    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()
    differs: tuple[tuple[str, str, str], ...] = ()

    @property
    def slower(self) -> list[Point]:
        return [p for p in self.points if p.verdict in (SLOWER, WRONG)]

    @property
    def mean_ratio(self) -> float:
        """Geometric mean over the sizes of time b / time a."""
        return math.exp(sum(math.log(p.ratio) for p in self.points) / len(self.points))


def compare(files: Sequence[ResultFile], threshold: float = 0.05, mode: str | None = None) -> list[Comparison]:
    """Each file against the first. threshold: a share of the time; a smaller difference is level however sure. mode: OUT_OF_PLACE
    or IN_PLACE; None: out-of-place where both sides have it.

    Raises UserError where a file has nothing in common with the first.
    """
    base, found = files[0], []
    ours_name, *names = _names(files)
    for name, other in zip(names, files[1:]):
        pairs = _pairs(base.records, other.records)
        for key, ours, theirs, notes in pairs:
            points, which = _points(ours, theirs, mode)
            if points:
                differs = differences(ours, theirs)
                found.append(Comparison(key, ours_name, name, which, tuple(points), tuple(notes), tuple(differs)))
        if not any(c.b == name for c in found):
            raise UserError(
                f"{plain(other.path, 120)}: no size, collective and number of ranks in common with {plain(base.path, 120)}; "
                f"they have {_has(other.records)} against {_has(base.records)}"
            )
    return _judged(found, threshold)


def apart(file: ResultFile) -> list[ResultFile]:
    """A file's algorithms (or a log's tables) as files of their own, in order, to be held against one another."""
    own: dict[str, list[Record]] = {}
    for r in file.records:
        own.setdefault(r.algorithm, []).append(r)
    return [ResultFile(name, records, file.limits, []) for name, records in own.items()]


def differences(ours: Sequence[Record], theirs: Sequence[Record]) -> list[tuple[str, str, str]]:
    """What the environments and options of two sides say differently: (key, ours, theirs); "" for what a side does not say."""
    sides = [_flat(s) for s in (ours, theirs)]
    keys = [k for k in dict.fromkeys((*sides[0], *sides[1])) if sides[0].get(k, "") != sides[1].get(k, "")]
    return [(k, sides[0].get(k, ""), sides[1].get(k, "")) for k in keys]


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """The two-sided p value of the Mann-Whitney U test (normal approximation with ties and continuity; 1947)."""
    n, m = len(a), len(b)
    values = np.concatenate([np.asarray(a, float), np.asarray(b, float)])
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[where]
    u = ranks[:n].sum() - n * (n + 1) / 2
    ties = float((counts**3 - counts).sum())
    variance = n * m / 12 * ((n + m + 1) - ties / ((n + m) * (n + m - 1)))
    if variance <= 0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2) - 0.5) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """The p values, each raised to the least rate of false discoveries at which it still counts; in the same order."""
    order = sorted(range(len(p)), key=p.__getitem__, reverse=True)
    out, least = [1.0] * len(p), 1.0
    for place, i in enumerate(order):
        least = min(least, p[i] * len(p) / (len(p) - place))
        out[i] = least
    return out


def bootstrap_ratio(a: Sequence[float], b: Sequence[float], seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of median(b) / median(a) (Efron 1979). The same samples give the same interval."""
    random = np.random.default_rng(seed)
    ours, theirs = (_bootstrap_medians(np.sort(np.asarray(s, float)), random) for s in (a, b))
    low, high = np.quantile(theirs / np.maximum(ours, 1e-300), [ALPHA / 2, 1 - ALPHA / 2])
    return float(low), float(high)


def _bootstrap_medians(ordered: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """(RESAMPLES,) medians of resamples of ordered samples, without drawing those: a resample is ordered[floor(n U)] of n uniform
    U, so its median is at the middle order statistics of U, whose joint distribution is known (David and Nagaraja, 2.1)."""
    n = len(ordered)
    k = (n + 1) // 2
    low = random.beta(k, n - k + 1, RESAMPLES)
    high = low if n % 2 else low + (1 - low) * random.beta(1, n - k, RESAMPLES)
    places = [np.minimum((n * u).astype(int), n - 1) for u in (low, high)]
    return (ordered[places[0]] + ordered[places[1]]) / 2


def _judged(found: list[Comparison], threshold: float) -> list[Comparison]:
    """The comparisons with p values corrected over all their points, and verdicts."""
    corrected = iter(benjamini_hochberg([p.p for c in found for p in c.points]))
    return [replace(c, points=tuple(_verdict(p, next(corrected), threshold) for p in c.points)) for c in found]


def _verdict(point: Point, p: float, threshold: float) -> Point:
    verdict = LEVEL
    if p < ALPHA and point.ratio > 1 + threshold:
        verdict = SLOWER
    elif p < ALPHA and point.ratio < 1 / (1 + threshold):
        verdict = FASTER
    if point.b.wrong:
        verdict = WRONG
    return replace(point, p=p, verdict=verdict)


def _pairs(
    ours: Sequence[Record], theirs: Sequence[Record]
) -> Iterable[tuple[str, list[Record], list[Record], list[str]]]:
    """Series that may be held side by side: (what it is, records, records, what is not alike)."""
    left, right = _by_kind(ours), _by_kind(theirs)
    for kind in left:
        if kind not in right:
            continue
        a, b = left[kind], right[kind]
        names = [n for n in a if n in b]
        pairs = [(n, n) for n in names]
        if not pairs and 1 in (len(a), len(b)):
            pairs = [(one, two) for one in a for two in b]
        for one, two in pairs:
            notes = []
            if one != two:
                notes.append(f"algorithms: {plain(one, 40)} against {plain(two, 40)}")
            for what in ("dtype", "op", "transport"):
                values = [sorted({getattr(r, what) for r in s if getattr(r, what)}) for s in (a[one], b[two])]
                if values[0] != values[1] and all(values):
                    notes.append(f"{what}: {', '.join(values[0])} against {', '.join(values[1])}")
            collective, ranks, clock = kind
            what = f"{collective}, {ranks_words(ranks)}"
            if clock != WALL:
                what += f", modelled ({plain(clock.removeprefix('fabric:'), 40)})"
            if len(pairs) > 1:
                what += f", {plain(one if one == two or len(a) > 1 else two, 40)}"
            yield what, a[one], b[two], notes


def _by_kind(records: Sequence[Record]) -> dict[tuple, dict[str, list[Record]]]:
    found: dict[tuple, dict[str, list[Record]]] = {}
    for r in records:
        found.setdefault((r.collective, r.ranks, r.clock), {}).setdefault(r.algorithm, []).append(r)
    return found


def _points(ours: list[Record], theirs: list[Record], mode: str | None) -> tuple[list[Point], str]:
    modes = [mode] if mode else [OUT_OF_PLACE, IN_PLACE]
    for which in modes:
        sides = [_by_size(s, which) for s in (ours, theirs)]
        shared = sorted(sides[0].keys() & sides[1].keys())
        points = [_point(size, *sides[0][size], *sides[1][size]) for size in shared]
        if points:
            return points, which
    return [], modes[0]


def _by_size(records: list[Record], mode: str) -> dict[int, tuple[Record, Timing]]:
    """Each size with its timing; where a size was measured several times without samples, those times are its samples."""
    found: dict[int, list[tuple[Record, Timing]]] = {}
    for r in records:
        t = getattr(r, mode)
        if t and t.seconds > 0:
            found.setdefault(r.size_bytes, []).append((r, t))
    merged = {}
    for size, several in found.items():
        record, timing = several[-1]
        if len(several) > 1 and not timing.samples:
            times = sorted(t.seconds for _, t in several)
            wrong = [t.wrong for _, t in several if t.wrong is not None]
            median = float(np.median(times))
            timing = replace(
                timing,
                seconds=median,
                ci_low=times[0],
                ci_high=times[-1],
                samples=times,
                wrong=max(wrong, default=None),
            )
        merged[size] = record, timing
    return merged


def _point(size: int, ours: Record, a: Timing, theirs: Record, b: Timing) -> Point:
    ratio = b.seconds / a.seconds
    if min(len(a.samples), len(b.samples)) >= LEAST_SAMPLES:
        low, high = bootstrap_ratio(a.samples, b.samples)
        p, by = mann_whitney(a.samples, b.samples), "samples"
    elif ours.clock != WALL:
        low = high = ratio
        p, by = float(math.isclose(ratio, 1.0, rel_tol=1e-9)), "exact"
    else:
        deviation, pairs = scatter(size)
        spread = deviation * math.sqrt(2)
        reach = math.exp(student_quantile(pairs) * spread)
        low, high = ratio / reach, ratio * reach
        p, by = student_two_sided(abs(math.log(ratio)) / spread, pairs), "repeatability"
    return Point(size, a, b, bandwidth(ours, a), bandwidth(theirs, b), ratio, min(low, ratio), max(high, ratio), p, by)


def _flat(records: Sequence[Record]) -> dict[str, str]:
    """Environment and options as one line a key; where records of a side differ, their first values."""
    found: dict[str, dict[str, None]] = {}

    def take(value: object, key: str) -> None:
        if key.split(".")[-1] in _UNSAID or len(found) > 400:
            return
        if isinstance(value, Mapping):
            for k, v in list(value.items())[:200]:
                take(v, f"{key}.{k}" if key else str(k)[:60])
        else:
            text = ", ".join(str(v) for v in value[:16]) if isinstance(value, (list, tuple)) else str(value)
            found.setdefault(key, {})[plain("" if value is None else text, 100)] = None

    seen: set[int] = set()
    for r in records:
        for told in (r.environment, r.options):
            if id(told) not in seen and len(seen) < 200:
                seen.add(id(told))
                take(told, "")
    return {k: " | ".join(list(v)[:3]) for k, v in found.items()}


def _names(files: Sequence[ResultFile]) -> list[str]:
    """The files' own names, with their folder where two have the same."""
    last = [f.path.replace("\\", "/").rsplit("/", 1)[-1] for f in files]
    return [plain(n if last.count(n) == 1 else f"{i}:{f.path}", 60) for i, (n, f) in enumerate(zip(last, files), 1)]


def _has(records: Sequence[Record]) -> str:
    """The collectives, ranks and sizes of some records, in words."""
    sizes: dict[str, list[int]] = {}
    for r in records:
        sizes.setdefault(f"{r.collective} over {ranks_words(r.ranks)}", []).append(r.size_bytes)
    told = [f"{kind} of {size_words(min(s))} to {size_words(max(s))}" for kind, s in list(sizes.items())[:3]]
    return plain(", ".join(told) or "nothing", 160)
