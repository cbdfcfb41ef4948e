"""Which host, direction, link or path of a list of pairs is slow, and how likely such a pattern is by chance.

The usual figure is the median of the better half, so that up to half of all pairs may be slow. A pair is slow below a line that
lies five standard deviations of the well ones (by their median absolute deviation) under it, within LINES. Then, in this order:

path       the pairs that are well leave groups of several ends each that only slow pairs join
end        an end has most slow pairs of all, with two others at least, and at least half of its own are slow; then the
           next, of those that are left. Where both ways are listed: its sending or receiving, if the other is well
link       what is left, alone; in sparse lists either of its ends may be the cause

Chances. Of a path or an end: that so many of K slow pairs would be its own if they were any K of the N (hypergeometric), times how
many ends, roles and paths could have been named. Of a link: that any pair would lie so far out if the distribution went on from
the outermost well pair with the third power of the distance, which allows for wild values.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..bench.log import Pair
from ..bench.summary import rate_words, time_words

LINES = (0.6, 0.9)  # of the usual figure, between which the line lies
FEW, FEW_LINE = 10, 0.75  # with fewer pairs their scatter is not known
DEVIATIONS = 5.0
SCATTER_MIN = 0.02  # standard deviation of a logarithm: of what is repeated seconds later
TAIL = 3  # power
MOST_LINKS = 20  # that are said one by one
SURE = 0.01  # chance below which an answer counts
BOTH, SENDING, RECEIVING = "", "sending", "receiving"


class End(NamedTuple):
    """slow, of: its slow pairs and all of its pairs, of its role; share: the median of its slow ones, of the usual; chance: see
    above."""

    name: str
    slow: int
    of: int
    role: str
    share: float
    chance: float


class Path(NamedTuple):
    """What joins two groups of ends."""

    groups: tuple[tuple[str, ...], ...]
    slow: int
    of: int
    share: float
    chance: float


class Link(NamedTuple):
    """One pair, or both ways of one (`ways` 2); sparse: nothing tells it from its ends."""

    source: str
    target: str
    ways: int
    share: float
    chance: float
    sparse: bool


class Suspects(NamedTuple):
    """figure: as asked for; good: the usual (bytes a second, or seconds); line: below what share of it a pair's speed is slow;
    pairs: how many were judged; slow: those below it; then what explains them."""

    figure: str
    good: float
    line: float
    pairs: int
    slow: tuple[Pair, ...]
    paths: tuple[Path, ...]
    ends: tuple[End, ...]
    links: tuple[Link, ...]

    @property
    def sure(self) -> bool:
        """Whether anything is named that is hardly chance."""
        return any(found.chance < SURE for found in (*self.paths, *self.ends, *self.links))


def suspects(pairs: Sequence[Pair], figure: str = "bandwidth") -> Suspects | None:
    """figure: of bench.log.Pair: "bandwidth", "seconds" (whose speed is one over it) or "both"; the last two are one figure for
    both directions of a pair. None for fewer than three pairs that have it."""
    if figure != "bandwidth":
        pairs = list({frozenset((p.source, p.target)): p for p in pairs}.values())
    speed = {(p.source, p.target): _speed(p, figure) for p in pairs if getattr(p, figure) and p.source != p.target}
    listed = {(p.source, p.target): p for p in pairs}
    if len(speed) < 3:
        return None
    ordered = sorted(speed.values(), reverse=True)
    good = statistics.median(ordered[: max(1, len(ordered) // 2)])
    near = [abs(math.log(v / good)) for v in ordered if v >= FEW_LINE * good]
    scatter = max(SCATTER_MIN, 1.4826 * statistics.median(near))
    line = min(max(math.exp(-DEVIATIONS * scatter), LINES[0]), LINES[1]) if len(speed) >= FEW else FEW_LINE
    slow = {pair for pair, v in speed.items() if v < line * good}

    names = list(dict.fromkeys(end for pair in speed for end in pair))
    both_ways = sum((b, a) in speed for a, b in speed) > len(speed) / 2
    met = sum((b, a) not in speed or a < b for a, b in speed)
    complete = met >= 0.9 * len(names) * (len(names) - 1) / 2
    left, paths = set(slow), []
    if complete and slow:
        path = _path(names, set(speed), slow, speed, good)
        if path:
            paths.append(path)
            left = {pair for pair in left if _group(path, pair[0]) == _group(path, pair[1])}
    ends = []
    roles = (BOTH, SENDING, RECEIVING) if both_ways else (BOTH,)
    of = _by_role(set(speed))
    while left and (end := _end(len(speed), left, speed, good, of, roles)):
        ends.append(end)
        left = {pair for pair in left if not _plays(end.name, end.role, pair)}
    links = []
    outermost = max(scatter, *(math.log(good / v) for pair, v in speed.items() if pair not in slow))
    for a, b in sorted(left, key=lambda pair: speed[pair]):
        if (a, b) not in left:
            continue  # said with its other way
        ways = 1 + ((b, a) in left)
        left.discard((b, a))
        worst = min(speed[a, b], speed.get((b, a), math.inf) if ways == 2 else math.inf)
        sure = max(speed[a, b], speed[b, a]) if ways == 2 else worst
        chance = min(1.0, (outermost / math.log(good / sure)) ** TAIL)
        links.append(Link(a, b, ways, worst / good, chance, not complete))
    usual = 1 / good if figure == "seconds" else good
    return Suspects(
        figure,
        usual,
        line,
        len(speed),
        tuple(listed[p] for p in speed if p in slow),
        tuple(paths),
        tuple(ends),
        tuple(links),
    )


def _speed(pair: Pair, figure: str) -> float:
    value = getattr(pair, figure)
    return 1 / value if figure == "seconds" else value


def _plays(name: str, role: str, pair: tuple[str, str]) -> bool:
    return (role != RECEIVING and pair[0] == name) or (role != SENDING and pair[1] == name)


def _end(pairs: int, left: set, speed: dict, good: float, of: Counter, roles: Sequence[str]) -> End | None:
    """The end that most of the slow pairs that are left share; None where none has enough of them. of: pairs by (name, role)."""
    bad = _by_role(left)
    names = {name for name, _ in bad}
    for name in sorted(names, key=lambda n: (-bad[n, BOTH], -bad[n, BOTH] / of[n, BOTH], n)):
        role = BOTH
        if SENDING in roles:
            out, into = (bad[name, r] / max(1, of[name, r]) for r in (SENDING, RECEIVING))
            if max(out, into) >= 0.5 and min(out, into) < max(out, into) / 2:
                role = SENDING if out > into else RECEIVING
        slow, own = bad[name, role], of[name, role]
        mine = [pair for pair in left if _plays(name, role, pair)]
        if len({frozenset(pair) for pair in mine}) < 2 or slow < own / 2:
            continue
        candidates = len(roles) * sum(r == BOTH for _, r in of)
        chance = min(1.0, candidates * _tail(pairs, len(left), own, slow))
        return End(name, slow, own, role, statistics.median(speed[p] for p in mine) / good, chance)
    return None


def _by_role(pairs: set) -> Counter:
    """How many pairs each name has in each role."""
    sent, received = Counter(a for a, _ in pairs), Counter(b for _, b in pairs)
    out: Counter = Counter()
    for name in sent.keys() | received.keys():
        out[name, SENDING], out[name, RECEIVING] = sent[name], received[name]
        out[name, BOTH] = sent[name] + received[name]
    return out


def _path(names: Sequence[str], pairs: set, slow: set, speed: dict, good: float) -> Path | None:
    """Groups of two or more ends that pairs without a slow way join, if there are several; who is alone is nobody's group."""
    group = {name: name for name in names}

    def find(name: str) -> str:
        while group[name] != name:
            group[name] = name = group[group[name]]
        return name

    for a, b in pairs:
        if group[a] != group[b] and (a, b) not in slow and (b, a) not in slow:
            group[find(a)] = find(b)
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(find(name), []).append(name)
    groups = sorted((tuple(g) for g in members.values() if len(g) > 1), key=lambda g: (-len(g), g))
    if len(groups) < 2:
        return None
    where = {name: i for i, g in enumerate(groups) for name in g}
    across = [p for p in pairs if where.get(p[0]) != where.get(p[1]) and p[0] in where and p[1] in where]
    bad = [p for p in across if p in slow]
    share = statistics.median(speed[p] for p in bad) / good
    # Any way to part the ends in two could have been named.
    chance = min(1.0, 2.0 ** (len(names) - 1) * _tail(len(pairs), len(slow), len(across), len(bad)))
    return Path(tuple(groups), len(bad), len(across), share, chance)


def _group(path: Path, name: str) -> object:
    return next((i for i, g in enumerate(path.groups) if name in g), name)


def _tail(pairs: int, slow: int, own: int, own_slow: int) -> float:
    """The chance that at least own_slow of `slow` pairs, drawn from all, are among `own` of them."""
    most = min(slow, own)
    total = _log_choose(pairs, slow)
    return sum(
        math.exp(_log_choose(own, k) + _log_choose(pairs - own, slow - k) - total)
        for k in range(own_slow, most + 1)
        if slow - k <= pairs - own
    )


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def words(found: Suspects) -> list[str]:
    """What the pairs say, a sentence each."""
    usual = f"the usual {(time_words if found.figure == 'seconds' else rate_words)(found.good)}"
    ways = {"bandwidth": "", "seconds": " in latency", "both": " with both ways at once"}[found.figure]
    if not found.slow:
        return [f"none of {found.pairs} pairs is slower{ways} than {100 * found.line:.0f} % of {usual}"]
    are = "are" if len(found.slow) > 1 else "is"
    out = [f"{len(found.slow)} of {found.pairs} pairs {are} slower{ways} than {100 * found.line:.0f} % of {usual}"]
    for p in found.paths:
        groups = " and ".join("{" + _names(g) + "}" for g in p.groups[:4])
        out.append(f"the path between {groups} is slow: {p.slow} of its {p.of} pairs, {_how(p)}")
    for e in found.ends:
        what = f"{e.name} is slow" if e.role == BOTH else f"{e.name} is slow in {e.role}"
        out.append(f"{what}: {e.slow} of its {e.of} pairs, {_how(e)}")
    for link in found.links[:MOST_LINKS]:
        if link.sparse:
            ends = f"{link.source} or {link.target}, or the path between them"
            out.append(f"{ends}: {_how(link)}, and no other pair tells which")
        else:
            way = "from {} to {}" if link.ways == 1 and found.figure == "bandwidth" else "between {} and {}"
            out.append(f"the link {way.format(link.source, link.target)} alone is slow, {_how(link)}")
    if len(found.links) > MOST_LINKS:
        out.append(f"and {len(found.links) - MOST_LINKS} more links")
    return out


def _names(group: Sequence[str]) -> str:
    return ", ".join(group[:8]) + (f" and {len(group) - 8} more" if len(group) > 8 else "")


def _how(what: Path | End | Link) -> str:
    return f"at {100 * what.share:.0f} % of the usual speed; {odds(what.chance)}"


def odds(chance: float) -> str:
    """ "by chance once in 3,000"; nothing is claimed beyond a billion."""
    if chance > 0.5:
        return "may be chance"
    if chance < 1e-9:
        return "by chance less than once in a billion"
    n = 1 / chance
    digits = 10 ** max(0, math.floor(math.log10(n)) - 1)
    return f"by chance once in {round(n / digits) * digits:,.0f}"
