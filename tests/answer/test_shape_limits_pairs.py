"""Jumps of a curve, what wires allow, and which end of a list of pairs is slow."""

import math

import pytest
from busbw.answer import pairs
from busbw.answer.limits import limits
from busbw.answer.shape import jumps
from busbw.bench.log import Pair
from busbw.fabric.cards import card
from busbw.fabric.library.predict import laid_out, platform
from hypothesis import given
from hypothesis import strategies as st

SIZES = [1 << k for k in range(3, 30)]


@given(st.floats(1e-7, 1e-3), st.floats(1e6, 1e12))
def test_a_latency_and_a_bandwidth_alone_never_jump(alpha, rate):
    assert jumps(SIZES, [alpha + s / rate for s in SIZES]) == []


@given(st.floats(1e-6, 1e-4), st.floats(1e8, 1e11), st.integers(1, len(SIZES) - 1), st.floats(2.2, 50))
def test_a_curve_that_stays_slow_collapses_where_it_turns(alpha, rate, at, factor):
    seconds = [(alpha + s / rate) * (factor if i >= at else 1) for i, s in enumerate(SIZES)]
    found = jumps(SIZES, seconds)
    rates = [s / t for s, t in zip(SIZES, seconds)]
    if rates[at] < 0.5 * rates[at - 1]:
        assert found[0].first == at
        assert (found[0].kind == "collapse") == all(r < 0.8 * rates[at - 1] for r in rates[at:])


@given(st.integers(2, len(SIZES) - 3), st.floats(8, 50))
def test_one_slow_size_is_a_spike(at, factor):
    seconds = [(1e-5 + s / 1e10) * (factor if i == at else 1) for i, s in enumerate(SIZES)]
    assert [(j.kind, j.first, j.last) for j in jumps(SIZES, seconds)] == [("spike", at, at)]


@pytest.mark.parametrize("nodes", [2, 4, 16])
def test_a_ring_of_nodes_is_bound_by_their_nics_and_two_nodes_may_pass_it_almost_twice(nodes):
    machine = laid_out(platform(card.load("dgx-a100-cx6")), 8 * nodes, nodes)
    found = limits(machine, 8 * nodes, nodes, "all_reduce")
    node = machine.nics * machine.nic_rate
    # By hand: each node sends (n-1)/n of S and gets as much again, S = busbw * t / (2 (p-1)/p).
    p = 8 * nodes
    seconds = 2 * (nodes - 1) / nodes / node
    inside = 2 * 7 / 8 / (machine.link_rate * 1.25)  # each rank of a node sends 7/8 of S twice
    assert math.isclose(2 * (p - 1) / p / max(seconds, inside), found.wire, rel_tol=1e-9)
    assert found.ring <= found.wire <= found.helped


def test_the_node_of_the_slow_pairs_is_named_and_what_one_pair_shows_is_left_open():
    text = [
        ("644", "699", 49.36),
        ("632", "641", 88.36),
        ("284", "678", 49.28),
        ("641", "644", 49.30),
        ("404", "699", 86.81),
    ]
    found = pairs.suspects([Pair(i, a, b, v * 1e9) for i, (a, b, v) in enumerate(text)])
    assert [(e.name, e.slow, e.of) for e in found.ends] == [("644", 2, 2)]
    assert [(p.source, p.target) for p in found.links] == [("284", "678")]
    assert any("644 is slow: 2 of its 2 pairs" in line for line in pairs.words(found))


@given(st.integers(4, 12), st.data())
def test_any_one_slow_node_of_all_pairs_is_found(n, data):
    slow = data.draw(st.integers(0, n - 1))
    scatter = st.floats(0.95, 1.05)
    listed = [
        Pair(0, str(a), str(b), 1e10 * data.draw(scatter) * (0.5 if slow in (a, b) else 1))
        for a in range(n) for b in range(a)
    ]  # fmt: skip
    found = pairs.suspects(listed)
    assert [e[0] for e in found.ends] == [str(slow)] and not found.links
