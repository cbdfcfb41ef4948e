"""Who is slow in a list of pairs, with which odds, and a ring that avoids it."""

import itertools

import numpy as np
import pytest
from busbw.answer.pairs import RECEIVING, SENDING, odds, suspects, words
from busbw.answer.ring_order import cheapest, slow_cost, slowest
from busbw.bench.log import Pair
from hypothesis import given, settings
from hypothesis import strategies as st

SCATTER = st.floats(0.97, 1.03)


def listed(data, n: int, share) -> list[Pair]:
    """Pairs of n hosts around 10 GB/s, times share(a, b)."""
    return [
        Pair(0, f"h{a}", f"h{b}", 1e10 * data.draw(SCATTER) * share(a, b), 1e-6 / share(a, b))
        for a, b in itertools.permutations(range(n), 2)
    ]


@settings(max_examples=40, deadline=None)
@given(st.integers(5, 10), st.floats(0.1, 0.55), st.data())
def test_a_slow_host_its_slow_direction_and_a_slow_link_are_told_apart(n, slow, data):
    x, y = data.draw(st.permutations(range(n)))[:2]

    def named(share):
        found = suspects(listed(data, n, share))
        return [(e.name, e.role) for e in found.ends], [(k.source, k.target, k.ways) for k in found.links], found

    ends, links, found = named(lambda a, b: slow if x in (a, b) else 1)
    assert (ends, links) == ([(f"h{x}", "")], []) and found.sure
    assert found.ends[0].share == pytest.approx(slow, rel=0.07)
    ends, links, found = named(lambda a, b: slow if a == x else 1)
    assert (ends, links) == ([(f"h{x}", SENDING)], []) and found.sure
    ends, links, found = named(lambda a, b: slow if b == x else 1)
    assert (ends, links) == ([(f"h{x}", RECEIVING)], [])
    ends, links, found = named(lambda a, b: slow if (a, b) == (x, y) else 1)
    assert (ends, links) == ([], [(f"h{x}", f"h{y}", 1)])
    ends, links, found = named(lambda a, b: slow if {a, b} == {x, y} else 1)
    assert ends == [] and {links[0][0], links[0][1]} == {f"h{x}", f"h{y}"} and links[0][2] == 2
    ends, links, found = named(lambda a, b: 1)
    assert (ends, links, found.slow, found.sure) == ([], [], (), False)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(2, 4), st.data())
def test_the_path_between_two_racks_is_named_and_no_host(left, right, data):
    found = suspects(listed(data, left + right, lambda a, b: 0.5 if (a < left) != (b < left) else 1))
    if 2 * left * right <= (left + right) * (left + right - 1) / 2:  # more slow pairs than well ones would be the usual
        return
    assert found.ends == found.links == ()
    assert {frozenset(g) for g in found.paths[0].groups} == {
        frozenset(f"h{i}" for i in range(left)), frozenset(f"h{i}" for i in range(left, left + right)),
    }  # fmt: skip


@given(st.data())
def test_latency_is_judged_once_a_pair(data):
    pairs = listed(data, 6, lambda a, b: 0.2 if 3 in (a, b) else 1)
    found = suspects(pairs, "seconds")
    assert found.pairs == 15 and found.good == pytest.approx(1e-6)
    assert [(e.name, e.slow, e.of) for e in found.ends] == [("h3", 5, 5)]
    # 5 of 15 pairs, all of one host of six, in one of three roles: 18 / C(15, 5), or without roles 6 / 3003.
    assert found.ends[0].chance == pytest.approx(6 / 3003)
    assert "in latency" in words(found)[0]


def test_odds_in_words():
    assert odds(0.8) == "may be chance"
    assert odds(1 / 3003) == "by chance once in 3,000"
    assert odds(1e-12) == "by chance less than once in a billion"


@settings(deadline=None)
@given(st.integers(2, 12), st.integers(0, 2**32 - 1), st.floats(0, 0.6))
def test_an_order_is_a_ring_of_all_that_is_never_worse(n, seed, share):
    rng = np.random.default_rng(seed)
    bandwidth = np.where(rng.random((n, n)) < share, 3e9, 1e10)
    cost = slow_cost(bandwidth, 1e10, 0.75)
    order = cheapest(cost, range(n))
    assert sorted(order) == list(range(n)) and order[0] == 0
    assert cost[order, np.roll(order, -1)].sum() <= cost[np.arange(n), np.roll(np.arange(n), -1)].sum() + 1e-6
    assert slowest(bandwidth, order) >= slowest(bandwidth, range(n))


@given(st.integers(5, 20), st.data())
def test_a_slow_link_is_avoided(n, data):
    a, b = data.draw(st.permutations(range(n)))[:2]
    bandwidth = np.full((n, n), 1e10)
    bandwidth[a, b] = bandwidth[b, a] = 2e9
    given_order = [a, b, *(i for i in range(n) if i not in (a, b))]
    assert slowest(bandwidth, given_order) == 2e9
    assert slowest(bandwidth, cheapest(slow_cost(bandwidth, 1e10, 0.75), given_order)) == 1e10


def test_between_two_racks_the_ring_crosses_twice():
    rack = np.arange(32) % 2
    bandwidth = np.where(rack[:, None] == rack[None], 1e10, 3e9)
    order = cheapest(slow_cost(bandwidth, 1e10, 0.75), range(32))
    assert np.count_nonzero(rack[order] != np.roll(rack[order], -1)) == 2
