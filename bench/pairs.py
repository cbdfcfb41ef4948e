"""All pairs of hosts or ranks measured, in rounds of disjoint pairs: latency, bandwidth there, back, and both ways at once.

A *player* is a host with all its ranks of the job, or a rank. In each round (collectives/tournament.py) every player meets another;
where a player has several ranks, its i-th plays with the other's i-th, all at the same time, and their bandwidths are added up.
Each of the four ways is a schedule of two ranks (collectives/neighbours.py) among the two, timed apart in each pair:

    latency   ping-pong of a few bytes, half of it, the least     at who begins
    there     a -> b, and an element back; less one latency       at a
    back      b -> a, and an element back; less one latency       at b
    both      at once, the bytes of both ways                     whichever end is later; its data is checked

Of the others the median of samples counts. The slowest pair of a round decides how often all of it repeat: what a round may take is
known before (`seconds_needed`).
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..collectives import neighbours
from ..collectives.among import among, side_by_side
from ..collectives.collective import Collective, Part
from ..collectives.schedule import Schedule
from ..collectives.tournament import opponents, rounds
from ..transports.interface import Job, Session
from .environment import environment
from .log import Pair
from .pattern import pattern
from .record import PAIRS, SCHEMA

DTYPE, ITEMSIZE = "float32", 4
LATENCY, THERE, BACK, TOGETHER = WAYS = ("latency", "there", "back", "both")
TABLES = {
    LATENCY: neighbours.pingpong,
    THERE: neighbours.one_way,
    BACK: neighbours.one_way,
    TOGETHER: neighbours.exchange,
}
WARM_UPS = {LATENCY: 2, THERE: 1, BACK: 1, TOGETHER: 1}  # the very first connects; the last says how long one takes
SAMPLE_SECONDS = {
    LATENCY: 200e-6,
    THERE: 500e-6,
    BACK: 500e-6,
    TOGETHER: 500e-6,
}  # least, so that a late start does not show
BLOCK_SECONDS = 1.0  # of samples timed without a word between: a rank that takes so long is not yet called stalled
INNER_MAX = 200
LATENCY_SAMPLES = 4
COLUMNS = ("a", "b", "latency_seconds", "there", "back", "both", "wrong")


@dataclass(frozen=True)
class Effort:
    """size_bytes, latency_bytes: of the messages; samples: of each pair and way (LATENCY_SAMPLES times as many of latency), as long
    as all rounds keep within `budget` seconds, else fewer, one at least."""

    size_bytes: int = 4 << 20
    latency_bytes: int = 8
    samples: int = 5
    budget: float = 240.0

    def repeats(self, way: str, seconds: float, rounds: int) -> tuple[int, int]:
        """(samples, messages a sample) where one message takes so long and there are so many rounds."""
        inner = max(1, min(INNER_MAX, math.ceil(SAMPLE_SECONDS[way] / max(seconds, 1e-9))))
        share = self.budget / rounds / len(WAYS)
        most = self.samples * (LATENCY_SAMPLES if way == LATENCY else 1)
        return max(1, min(most, int(share / (inner * seconds)))), inner


class Player(NamedTuple):
    name: str
    ranks: tuple[int, ...]


class Meeting(NamedTuple):
    """What two players' pairs showed in a round: seconds one way; bytes a second; elements that arrived wrong."""

    round: int
    a: Player
    b: Player
    latency: float
    there: float
    back: float
    both: float
    wrong: int

    @property
    def pairs(self) -> tuple[Pair, Pair]:
        """As a log of pairs has them."""
        return (
            Pair(0, self.a.name, self.b.name, self.there, self.latency, self.both),
            Pair(0, self.b.name, self.a.name, self.back, self.latency, self.both),
        )

    def better(self, again: Meeting) -> Meeting:
        """Of two looks at the same pair the faster, and all wrong elements: what disturbs once is no slow link."""
        return Meeting(
            *self[:3],
            min(self.latency, again.latency),
            max(self.there, again.there),
            max(self.back, again.back),
            max(self.both, again.both),
            self.wrong + again.wrong,
        )


def players(hosts: Sequence[str], between: str = "auto") -> list[Player]:
    """Who plays. hosts: of each rank; between: "hosts", "ranks" or "auto", which is hosts where there are several."""
    names = list(dict.fromkeys(hosts))
    if between == "hosts" or (between == "auto" and len(names) > 1):
        return [Player(name, tuple(r for r, host in enumerate(hosts) if host == name)) for name in names]
    if len(names) == len(hosts):
        return [Player(name, (r,)) for r, name in enumerate(hosts)]
    prefix = {name: f"{name}:" if len(names) > 1 else "r" for name in names}
    return [Player(f"{prefix[host]}{r}", (r,)) for r, host in enumerate(hosts)]


def meetings(round: int, who: Sequence[Player]) -> list[tuple[Player, Player]]:
    """The pairs of a round; the first of each begins."""
    met = opponents(round, len(who))
    return [(who[i], who[j]) for i, j in enumerate(met.tolist()) if i < j]


def way_schedule(
    way: str, pairs: Sequence[tuple[Player, Player]], count: int, ranks: int, here: Sequence[int] | None = None
) -> Schedule:
    """What all ranks do in a round; here: whose tables are wanted, with their partners' (default: all)."""
    partner = {}
    for a, b in pairs:
        for pair in zip(a.ranks, b.ranks):
            partner[pair[0]], partner[pair[1]] = pair[1], pair[0]
    postcondition = lambda rank, ranks, root: [Part(0, 0, partner[rank])] if rank in partner else []  # noqa: E731
    exchange = Collective("exchange", "exchange in pairs", "one", "one", postcondition, lambda p: 1.0, in_place=False)
    tables = tuple(TABLES[way](r, 2, count) for r in (0, 1))
    two = Schedule(way, 2, count, False, tables, exchange)
    played = [pair[::-1] if way == BACK else pair for a, b in pairs for pair in zip(a.ranks, b.ranks)]
    if here is not None:
        played = [pair for pair in played if pair[0] in here or pair[1] in here]
    nothing = replace(two, ranks=ranks, tables=(tables[0][:0],) * ranks)
    return side_by_side([nothing, *(among(two, pair, ranks) for pair in played)])


def measure(
    session: Session, who: Sequence[Player], effort: Effort, only: Sequence[int] | None = None
) -> Iterator[tuple[int, list[Meeting]]]:
    """(round, its meetings), as they are measured; called by all processes of the session together. only: these rounds (default:
    all). Raises Stalled."""
    data = pattern(DTYPE, "sum", session.ranks, seed=1)
    n = rounds(len(who))
    # Inputs stay as they are; the small message is the beginning of the large one.
    _prepare(session, TOGETHER, meetings(0, who), effort)
    session.fill(data.table)
    for round in range(n) if only is None else only:
        pairs = meetings(round, who)
        seconds, wrong = {}, np.zeros(session.ranks)
        for way in WAYS:
            session.crew.activity = f"round {round + 1} of {n}, {way}"
            _prepare(session, way, pairs, effort)
            for _ in range(WARM_UPS[way]):
                estimate = session.time_each(1, 1).max()
            samples, inner = effort.repeats(way, float(estimate), n)
            together = max(1, int(BLOCK_SECONDS / (inner * max(estimate, 1e-9))))
            blocks = [session.time_each(min(together, samples - i), inner) for i in range(0, samples, together)]
            taken = np.concatenate(blocks, axis=1)
            seconds[way] = taken.min(axis=1) if way == LATENCY else np.median(taken, axis=1)
            if way == TOGETHER:
                wrong = session.check_each(data)
        yield round, [_meeting(round, a, b, seconds, wrong, effort) for a, b in pairs]


def _prepare(session: Session, way: str, pairs: list[tuple[Player, Player]], effort: Effort) -> None:
    count = (effort.latency_bytes if way == LATENCY else effort.size_bytes) // ITEMSIZE
    schedule = way_schedule(way, pairs, count, session.ranks, session.crew.mine)
    session.prepare(Job(way, count, DTYPE, "sum", collective=schedule.collective), schedule)


def _meeting(
    round: int, a: Player, b: Player, seconds: dict[str, np.ndarray], wrong: np.ndarray, effort: Effort
) -> Meeting:
    one, other = np.array(list(zip(a.ranks, b.ranks))).T
    latency = seconds[LATENCY][one] / 2
    size = effort.size_bytes // ITEMSIZE * ITEMSIZE

    def one_way(taken: np.ndarray) -> float:
        return float((size / np.maximum(taken - latency, taken / 2)).sum())

    later = np.maximum(seconds[TOGETHER][one], seconds[TOGETHER][other])
    return Meeting(
        round,
        a,
        b,
        float(np.median(latency)),
        one_way(seconds[THERE][one]),
        one_way(seconds[BACK][other]),
        float((2 * size / later).sum()),
        int(wrong[one].sum() + wrong[other].sum()),
    )


def seconds_needed(
    n: int, effort: Effort, *, rate: float, latency: float, overhead: float = 0.0, connecting: float = 0.0
) -> float:
    """What n players with a rank each take by the model: rate in bytes a second each way, latency in seconds.

    A round is four ways; a way is its WARM_UPS and the samples, each behind a barrier of 2 ceil(log2 n) latencies, and sums over
    all ranks of twice that, one a warm-up and one for all samples; `overhead` seconds a way to get ready; `connecting` a round for
    two that never met.
    """
    stages = math.ceil(math.log2(max(2, n))) * latency
    total = 0.0
    for way in WAYS:
        one = 2 * latency + (0 if way == LATENCY else effort.size_bytes / rate)
        samples, inner = effort.repeats(way, one, rounds(n))
        warm = WARM_UPS[way]
        total += (warm + samples * inner) * one + (warm + samples) * 2 * stages + (warm + 1) * 4 * stages + overhead
    return rounds(n) * (total + connecting)


class PairsFile:
    """The lines of one run in a result file: one a round, the first with the environment, and the GPUs where they are measured
    (gpu.record)."""

    def __init__(self, session: Session, who: Sequence[Player], effort: Effort, gpus: dict | None = None):
        self._run, self._rounds = uuid.uuid4().hex[:12], rounds(len(who))
        self._environment = environment(sorted(set(session.crew.hosts)), session.crew.library)
        if gpus:
            self._environment["gpu"] = gpus
        self._same = {
            "ranks": session.ranks, "players": len(who), "transport": session.crew.transport,
            "size_bytes": effort.size_bytes, "latency_bytes": effort.latency_bytes, "columns": COLUMNS,
        }  # fmt: skip

    def line(self, round: int, found: Sequence[Meeting]) -> str:
        rows = [[m.a.name, m.b.name, m.latency, m.there, m.back, m.both, m.wrong] for m in found]
        value = {
            "schema": SCHEMA,
            "kind": PAIRS,
            "run": self._run,
            "round": round,
            "rounds": self._rounds,
            **self._same,
        }
        if round == 0:
            value["environment"] = self._environment
        return json.dumps({**value, "pairs": rows}, separators=(",", ":"))
