"""Rounds of disjoint pairs, and schedules among some of the ranks."""

import itertools

import numpy as np
import pytest
from busbw.bench.pairs import WAYS, meetings, players, way_schedule
from busbw.bench.rings import ring_schedule
from busbw.collectives import build
from busbw.collectives.among import among, side_by_side
from busbw.collectives.prove import prove
from busbw.collectives.tournament import opponents, rounds
from hypothesis import given, settings
from hypothesis import strategies as st


@given(st.integers(0, 70))
def test_everybody_meets_everybody_once_in_the_fewest_rounds(n):
    met = []
    for round in range(rounds(n)):
        other = opponents(round, n)
        playing = np.flatnonzero(other >= 0)
        assert np.array_equal(other[other[playing]], playing)  # disjoint pairs
        assert not np.any(other == np.arange(n))
        assert len(playing) == n - n % 2
        met += [(i, int(j)) for i, j in enumerate(other) if i < j]
    assert sorted(met) == list(itertools.combinations(range(n), 2))
    assert rounds(n) == (0 if n < 2 else n - 1 if n % 2 == 0 else n)


def test_a_round_that_there_is_not_is_refused():
    for round in (-1, 5):
        with pytest.raises(ValueError, match="accepted: 0 to 4"):
            opponents(round, 6)


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 7), st.data())
def test_a_round_of_every_way_is_sound_and_both_ways_bring_each_the_others_data(n, data):
    hosts = data.draw(st.lists(st.sampled_from("abc"), min_size=n, max_size=n))
    who = players(hosts, data.draw(st.sampled_from(["hosts", "ranks"])))
    for round in range(rounds(len(who))):
        pairs = meetings(round, who)
        for way in WAYS:
            schedule = way_schedule(way, pairs, 6, n)
            problems = prove(schedule).problems
            # Of one way and of to and fro only the data's way home differs from what an exchange must bring.
            assert problems == () if way == "both" else not any("stuck" in p or "match" in p for p in problems)
        # The tables that a process asks for are those that all have.
        here = data.draw(st.integers(0, n - 1))
        mine = way_schedule("there", pairs, 6, n, [here])
        all_of_it = way_schedule("there", pairs, 6, n)
        assert np.array_equal(mine.tables[here], all_of_it.tables[here])


@settings(max_examples=30, deadline=None)
@given(st.permutations(range(6)), st.sampled_from(["ring", "tree", "halving-doubling"]), st.integers(0, 20))
def test_an_all_reduce_in_any_order_of_the_ranks_is_proven(order, name, count):
    proof = prove(among(build(name, 6, count), order, 6))
    assert proof.problems == ()


def test_a_ring_goes_round_in_the_members_order():
    schedule = among(build("ring", 3, 3), [4, 0, 2], 5)
    next_of = {r: {int(s["peer"]) for s in t if s["op"] == 1} for r, t in enumerate(schedule.tables)}
    assert next_of == {4: {0}, 0: {2}, 2: {4}, 1: set(), 3: set()}


def test_halves_run_side_by_side_and_never_share_a_rank():
    who = players(["a", "a", "b", "c", "d"], "hosts")
    schedule = ring_schedule([who[:2], who[2:]], 4096, 5)
    assert all(len(t) for t in schedule.tables)
    for rank, group in ((0, {0, 1, 2}), (4, {3, 4})):
        assert set(schedule.tables[rank]["peer"].tolist()) - {-1} <= group
    with pytest.raises(ValueError, match="rank 2 has a part in two"):
        side_by_side([among(build("ring", 2, 4), m, 5) for m in ([0, 2], [2, 3])])
    with pytest.raises(ValueError, match="accepted: 2 different ranks of 5"):
        among(build("ring", 2, 4), [1, 1], 5)
