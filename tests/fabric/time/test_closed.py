"""Closed forms against replay and recurrence where they are exact, against bounds where they are not, and by hand."""

import numpy as np
import pytest
from busbw.collectives import build
from busbw.errors import UserError
from busbw.fabric.physics.network import flat, network
from busbw.fabric.time import closed, recurrence
from busbw.fabric.time.closed import Hop, hockney, hop, loggp_ps
from busbw.fabric.time.replay import replay
from hypothesis import assume, given, settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**32)
names = st.sampled_from(closed.FORMULAS)


def figures(rng, gap=10, size=None):
    def times(most):
        return rng.integers(0, most, size)

    return {
        "latency": times(5000),
        "byte_ps": rng.random(size) * rng.choice([1, 30]),
        "send_overhead": times(3000),
        "recv_overhead": times(3000),
        "gap": times(gap),
        "reduce_ps": rng.random() * 5,
    }


def uniform(rng, ranks, gap=10):
    net = flat(ranks, **figures(rng, gap))
    return net, hop(net, 0, 1 % ranks)


def replayed(name, ranks, count, net):
    return replay(build(name, ranks, count), net, 4).picoseconds


def test_ring_by_hand():
    # p = 2, 8 elements of 4 bytes: each sends half, 16 bytes, twice. W = 160, R = 32.
    h = Hop(latency=1000, byte_ps=10.0, send_overhead=100, recv_overhead=50, reduce_ps=2.0)
    assert closed.ring_ps(2, 8, 4, h) == (100 + 1000 + 160 + 50 + 32) + (100 + 1000 + 160 + 50)
    # A gap longer than a hop holds the second send back: it begins at 100 + 5000.
    slow = h._replace(gap=5000)
    assert closed.ring_ps(2, 8, 4, slow) == 100 + 5000 + 1000 + 160 + 50


@given(seeds, st.integers(2, 400), st.sampled_from([10, 9000]))
@settings(max_examples=150, deadline=None)
def test_ring_of_equal_hops_equals_the_recurrence(seed, ranks, gap):
    rng = np.random.default_rng(seed)
    net, h = uniform(rng, ranks, gap)
    count = int(rng.choice([ranks * rng.integers(1, 50), rng.integers(1, 50 * ranks), rng.integers(1, ranks + 1)]))
    formula = closed.ring_ps(ranks, count, 4, h)
    if formula is None:  # only where the gap rules
        assert h.gap > h.through(0)
    else:
        assert formula == recurrence.ring_ps(net, count, 4, method="steps")


@given(seeds, st.integers(1, 12), st.integers(2, 20), st.sampled_from([10, 9000]))
@settings(max_examples=150, deadline=None)
def test_ring_of_nodes_equals_the_recurrence(seed, gpus, nodes, gap):
    """Nodes of `gpus` ranks: fast hops inside, one slow hop between, any of their costs the larger."""
    rng = np.random.default_rng(seed)
    ranks = gpus * nodes
    slow = 1 + rng.random((2, gpus)) * (rng.random((2, gpus)) < 0.5)
    net = network(np.arange(ranks)[None] // gpus, slow=np.tile(slow, nodes), **figures(rng, gap, 2))
    count = ranks * int(rng.integers(1, 300))
    hops = [hop(net, i, (i + 1) % ranks) for i in range(gpus)]
    assert closed.ring_ps(ranks, count, 4, hops) == recurrence.ring_ps(net, count, 4, method="steps")


@pytest.mark.parametrize("count", [300_000 * 7, 300_000 * 7 + 12_345, 40])
def test_ring_at_300_000_ranks(count):
    """The formula, the longest path and the recurrence's first and last stages have nothing in common but the answer."""
    figures = {"latency": 1_500_000, "byte_ps": 11.0, "send_overhead": 200_000, "recv_overhead": 100_000, "gap": 5000}
    net = flat(300_000, reduce_ps=0.4, **figures)
    assert closed.ring_ps(300_000, count, 4, hop(net, 0, 1)) == recurrence.ring_ps(net, count, 4, method="passage")


def test_no_closed_form_is_none():
    h = Hop(latency=10, byte_ps=1.0)
    assert closed.ring_ps(12, 120, 4, [h] * 5) is None  # 12 ranks are not nodes of 5
    assert closed.ring_ps(12, 121, 4, [h] * 4) is None  # chunks of two lengths
    assert closed.ring_ps(12, 0, 4, h) == 0


@given(seeds, st.sampled_from([2, 4, 8, 16, 32]), names)
@settings(max_examples=120, deadline=None)
def test_loggp_is_exact_for_powers_of_two(seed, ranks, name):
    assume(name != "tree")
    rng = np.random.default_rng(seed)
    net, h = uniform(rng, ranks, gap=1)
    count = ranks * int(rng.choice([1, 7, 500]))
    assert loggp_ps(name, ranks, count, 4, h) == replayed(name, ranks, count, net)


@given(seeds, st.integers(2, 40), st.sampled_from(["ring", "binomial", "recursive-doubling", "one-shot"]))
@settings(max_examples=100, deadline=None)
def test_loggp_is_no_less_than_the_truth_elsewhere(seed, ranks, name):
    rng = np.random.default_rng(seed)
    net, h = uniform(rng, ranks, gap=1)
    count = int(rng.integers(1, 5000))
    truth = replayed(name, ranks, count, net)
    formula = loggp_ps(name, ranks, count, 4, h)
    assert formula >= truth
    if name in ("ring", "one-shot"):
        assert formula == truth
    else:
        assert formula <= 2 * truth


@pytest.mark.parametrize("ranks", [2, 3, 8, 37, 256, 1000])
@pytest.mark.parametrize("slices", [1, 8, 64])
@pytest.mark.parametrize("nbytes", [1 << 12, 1 << 20, 1 << 28])
def test_loggp_of_the_tree_is_near(ranks, slices, nbytes):
    net = flat(
        ranks, latency=1_500_000, byte_ps=11.0, send_overhead=200_000, recv_overhead=200_000, gap=5000, reduce_ps=0.4
    )
    truth = recurrence.tree_ps(net, nbytes // 4, 4, slices=slices)
    ratio = loggp_ps("tree", ranks, nbytes // 4, 4, hop(net, 0, 1), slices=slices) / truth
    # Few ranks with many small slices wait for each other's slices, which no sum of bottlenecks sees.
    assert (0.75 if ranks > 3 else 0.5) <= ratio <= 1.15


@given(names, st.sampled_from([2, 4, 16, 64]), st.integers(0, 2**30), st.sampled_from([1, 4, 32]))
def test_hockney_and_loggp_agree_where_they_say_the_same(name, ranks, nbytes, slices):
    """Without overheads and gap, and with nothing to wait for at a port, LogGP is Hockney's alpha = L, beta = G."""
    assume(name not in ("tree", "one-shot", "two-shot"))
    nbytes -= nbytes % (4 * ranks)
    h = Hop(latency=2_000_000, byte_ps=10.0, reduce_ps=1.0)
    want = hockney(name, ranks, nbytes, 2e-6, 10e-12, 1e-12)
    assert loggp_ps(name, ranks, nbytes // 4, 4, h) / 1e12 == pytest.approx(want if nbytes else 0, rel=1e-9)


def test_hockney_by_hand():
    # 6 ranks, 600 bytes, alpha 1, beta 0.01, gamma 0.001.
    def seconds(name, **options):
        return pytest.approx(hockney(name, 6, 600, 1.0, 0.01, 0.001, **options))

    assert seconds("ring") == 10 + 10.0 + 0.5
    assert seconds("binomial") == 6 + 36 + 1.8
    assert seconds("recursive-doubling") == 4 + 24 + 1.8
    assert seconds("halving-doubling") == 6 + 600 * (1.5 + 2) * 0.01 + 600 * 1.75 * 0.001
    assert seconds("one-shot") == 1 + 30 + 3
    assert seconds("two-shot") == 2 + 10 + 0.5
    assert seconds("tree") == 6 + 18 + 0.9
    assert seconds("tree", slices=10**9) == 6 + 12 + 0.6


@given(names, st.integers(2, 5000), st.integers(1, 10**9), st.integers(1, 64))
def test_bounds_of_physics(name, ranks, count, slices):
    """Never below the bandwidth bound of an all-reduce, nor below one latency; more bytes never take less; finite."""
    h = Hop(latency=1_000_000, byte_ps=8.0, send_overhead=1000, recv_overhead=2000, gap=300, reduce_ps=0.5)
    one = loggp_ps(name, ranks, count, 4, h, slices=slices)
    assert 2 * (ranks - 1) / ranks * count * 4 * 8.0 * 0.999999 <= one < 2**62
    assert one >= 1_000_000 + 3000
    assert one <= loggp_ps(name, ranks, count + ranks, 4, h, slices=slices)
    seconds = hockney(name, ranks, count * 4, 1e-6, 8e-12, 5e-13, slices=slices)
    assert 1e-6 <= seconds < 1e9
    assert 2 * (ranks - 1) / ranks * count * 4 * 8e-12 * 0.999999 <= seconds or name in (
        "recursive-doubling",
        "one-shot",
    )
    assert seconds <= hockney(name, ranks, count * 4 + 1, 1e-6, 8e-12, 5e-13, slices=slices)


def test_which_algorithm_wins_where():
    """The textbook's map: few rounds for small messages, few bytes for large ones; a ring only where ranks are few."""
    alpha, beta = 2e-6, 1e-11

    def best(ranks, nbytes):
        return min(closed.FORMULAS, key=lambda name: hockney(name, ranks, nbytes, alpha, beta, slices=64))

    assert best(64, 8) == "one-shot"
    assert hockney("recursive-doubling", 64, 1 << 10, alpha, beta) < hockney("ring", 64, 1 << 10, alpha, beta)
    assert hockney("halving-doubling", 1024, 1 << 20, alpha, beta) < hockney("ring", 1024, 1 << 20, alpha, beta)
    assert hockney("ring", 16, 1 << 30, alpha, beta) < 0.6 * hockney("recursive-doubling", 16, 1 << 30, alpha, beta)


def test_unknown_algorithm():
    for ask in (lambda: hockney("rings", 4, 8, 1, 1), lambda: loggp_ps("rings", 4, 8, 4, Hop(1, 1.0))):
        with pytest.raises(UserError, match="rings"):
            ask()
