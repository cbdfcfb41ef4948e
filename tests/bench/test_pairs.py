"""All pairs measured: what is worked out of known times, over real ranks, kept in a file, and how long it may take."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from busbw.bench import rings
from busbw.bench.pairs import Effort, PairsFile, measure, meetings, players, rounds, seconds_needed
from busbw.bench.record import RecordError, read
from busbw.collectives.schedule import RECV, SEND
from busbw.fabric.cards import card
from busbw.transports.fault import Fault
from busbw.transports.session import Session
from busbw.transports.shared import LocalCrew
from hypothesis import given, settings
from hypothesis import strategies as st


class ModelSession:
    """Ranks whose pairs have known figures: a message from a to b takes latency[a, b] + bytes / rate[a, b], of both ways at once a
    share of the rate."""

    def __init__(self, ranks: int, latency, rate, shared: float):
        self.ranks, self.latency, self.rate, self.shared = ranks, latency, rate, shared
        self.crew = SimpleNamespace(
            activity="", mine=range(ranks), transport="model", hosts=["here"] * ranks, library=None
        )

    def prepare(self, job, schedule):
        self.schedule = schedule

    def fill(self, table, start=0):
        pass

    def check_each(self, answers, start=0):
        return np.zeros(self.ranks)

    def time_each(self, samples, inner):
        taken = np.zeros((self.ranks, samples))
        for rank, table in enumerate(self.schedule.tables):
            if len(table):
                peer = int(table["peer"][0])
                at_once = table["op"][0] == SEND and self.schedule.tables[peer]["op"][0] == SEND
                rate = self.rate * (self.shared if at_once else 1)
                ways = {SEND: (rank, peer), RECV: (peer, rank)}
                each = [self.latency[ways[int(s["op"])]] + 4 * s["count"] / rate[ways[int(s["op"])]] for s in table]
                taken[rank] = max(each) if at_once else sum(each)
        return taken


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(0, 2**32 - 1), st.floats(0.5, 1))
def test_known_latencies_and_rates_come_out(n, seed, shared):
    rng = np.random.default_rng(seed)
    latency = rng.uniform(1e-6, 1e-5, (n, n))
    latency = (latency + latency.T) / 2
    rate = rng.uniform(1e9, 1e10, (n, n))
    session = ModelSession(n, latency, rate, shared)
    found = [m for _, here in measure(session, players(["x"] * n), Effort()) for m in here]
    assert len(found) == n * (n - 1) // 2
    size = Effort().size_bytes
    for m in found:
        a, b = m.a.ranks[0], m.b.ranks[0]
        assert m.latency == pytest.approx(latency[a, b], rel=1e-2)  # its eight bytes take time too
        # A bandwidth is the size over the time one way.
        assert m.there == pytest.approx(size / (latency[a, b] + size / rate[a, b]), rel=1e-3)
        assert m.back == pytest.approx(size / (latency[a, b] + size / rate[b, a]), rel=1e-3)
        slower = shared * min(rate[a, b], rate[b, a])
        assert m.both == pytest.approx(2 * size / (latency[a, b] + size / slower), rel=1e-3)


def test_hosts_play_with_all_their_ranks_at_once_and_their_bandwidths_add_up():
    who = players(["a", "b", "a", "b", "c"], "hosts")
    assert [(p.name, p.ranks) for p in who] == [("a", (0, 2)), ("b", (1, 3)), ("c", (4,))]
    session = ModelSession(5, np.full((5, 5), 1e-6), np.full((5, 5), 1e9), 1.0)
    found = {(m.a.name, m.b.name): m for _, here in measure(session, who, Effort()) for m in here}
    assert found["a", "b"].there == pytest.approx(2e9, rel=1e-2)
    assert found["a", "c"].there == pytest.approx(1e9, rel=1e-2)
    assert [p.name for p in players(["a", "b"])] == ["a", "b"]
    assert [p.name for p in players(["a", "a"])] == ["r0", "r1"]
    assert [p.name for p in players(["a", "a", "b"], "ranks")] == ["a:0", "a:1", "b:2"]


def test_over_real_ranks_data_is_right_and_a_flipped_bit_is_found_in_its_pair(tmp_path):
    effort = Effort(size_bytes=1 << 14, samples=2)
    who = players(["here"] * 5)
    session = Session(LocalCrew(5, effort.size_bytes, 0), fault=Fault("corrupt", 3, effort.size_bytes))
    path = tmp_path / "pairs.jsonl"
    file = PairsFile(session, who, effort)
    found = []
    for round, here in measure(session, who, effort):
        found += here
        with path.open("a") as f:
            f.write(file.line(round, here) + "\n")
    session.close()
    assert {m.a.name + m.b.name for m in found if m.wrong} == {"r0r3", "r1r3", "r2r3", "r3r4"}
    assert all(m.wrong <= 1 and m.latency > 0 and min(m.there, m.back, m.both) > 0 for m in found)
    kept = read(path)
    assert [p.source + p.target for p in kept.pairs] == [x + y for m in found for x, y in
        ((m.a.name, m.b.name), (m.b.name, m.a.name))]  # fmt: skip
    assert [p.bandwidth for p in kept.pairs[::2]] == [m.there for m in found]
    assert len(path.read_text().splitlines()) == rounds(5)


@pytest.mark.parametrize("row", [[], ["a"], ["a", "b", 1, 1, 1, "x", 0], ["a", 2, 1, 1, 1, 1, 0],
    ["a", "b", -1, 1, 1, 1, 0], ["a", "b", 1, float("inf"), 1, 1, 0], ["a", "b", True, 1, 1, 1, 0]])  # fmt: skip
def test_rows_of_pairs_that_cannot_be_are_refused_in_one_line(row, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"schema": "busbw.result/1", "kind": "pairs", "pairs": [row]}) + "\n")
    with pytest.raises(RecordError, match=r"bad\.jsonl:1: "):
        read(path)


def test_1024_hosts_stay_under_five_minutes_by_the_model():
    nic = card.load("memphis-b200-cx8-300k").nic
    networks = [(nic.rate / 8, 5e-6), (50e9, 5e-6), (12.5e9, 10e-6), (1.25e9, 30e-6)]  # down to 10 Gb/s Ethernet
    for rate, latency in networks:
        # 20 ms a way to get ready and 10 ms to connect are several times what was measured (docs/pairs.md).
        assert seconds_needed(1024, Effort(), rate=rate, latency=latency, overhead=0.02, connecting=0.01) < 300


@given(st.floats(1e-6, 10), st.integers(1, 2000), st.sampled_from(["latency", "there"]))
def test_samples_keep_within_the_budget_but_one(seconds, n, way):
    effort = Effort()
    samples, inner = effort.repeats(way, seconds, n)
    assert samples >= 1 and inner >= 1
    assert samples == 1 or samples * inner * seconds <= effort.budget / n / 4


def test_bisection_ends_at_the_host_without_which_the_whole_is_fast(monkeypatch):
    def time_rings(session, candidates, size_bytes):
        slow = {"c"}
        return {k: [0.5 if any(p.name in slow for p in r) else 1.0 for r in v] for k, v in candidates.items()}

    monkeypatch.setattr(rings, "time_rings", time_rings)
    steps = rings.bisect(None, players(list("abcdefgh"), "hosts"), 4096)
    assert [list(s) for s in steps] == [
        ["a b c d e f g h", "a b c d", "e f g h"],
        ["a b", "c d"],
        ["without c", "without d"],
    ]
    assert steps[-1] == {"without c": 1.0, "without d": 0.5}
    assert len(meetings(0, players(list("abc"), "hosts"))) == 1
