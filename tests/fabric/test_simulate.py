"""The sweep of points: models agree where they must, nothing beats the bounds, and what cannot be is refused."""

from dataclasses import replace

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS
from busbw.collectives import build as schedule_of
from busbw.errors import UserError
from busbw.fabric import simulate
from busbw.fabric.cards import card
from busbw.fabric.physics.bounds import bounds
from busbw.fabric.physics.build import build
from busbw.fabric.physics.network import flat, network, pair_class, wire_ps
from busbw.fabric.simulate import Options, Point, checked, evaluate
from busbw.fabric.time.replay import replay
from hypothesis import given, settings
from hypothesis import strategies as st

H100, B200 = card.load("dgx-h100-cx7"), card.load("memphis-b200-cx8-300k")


def options(**more):
    return checked(H100, Options(**{"ranks": (16,), "sizes": (1 << 20,), **more}))


@given(
    algorithm=st.sampled_from(["ring", "tree"]), ranks=st.integers(2, 40), count=st.integers(1, 1 << 18),
    slices=st.sampled_from([None, 1, 3]), channels=st.integers(1, 3), noise=st.sampled_from([None, "exponential:mean=2us"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_the_cheapest_exact_level_is_replay_to_the_picosecond(algorithm, ranks, count, slices, channels, noise):
    asked = options(ranks=(ranks,), slices=slices, channels=channels, noise=noise, seed=7)
    point = Point(algorithm, ranks, 4 * count)
    cheap = evaluate(H100, asked, point)
    full = evaluate(H100, replace(asked, model="replay"), point)
    assert cheap.seconds == full.seconds
    assert (cheap.slices, cheap.channels) == (full.slices, full.channels)
    assert cheap.level in ("closed", "recurrence")


@given(algorithm=st.sampled_from(list(ALGORITHMS)), ranks=st.integers(2, 48), size=st.integers(2, 28))
@settings(max_examples=40, deadline=None)
def test_no_schedule_beats_the_bounds(algorithm, ranks, size):
    asked = options(ranks=(ranks,))
    m = evaluate(H100, asked, Point(algorithm, ranks, 1 << size))
    assert m.seconds >= bounds(simulate.network_for(H100, asked, algorithm, ranks), 1 << size).seconds * (1 - 1e-9)


@given(
    name=st.sampled_from(["hierarchical", "hierarchical-tree", "hierarchical-doubling", "node-tree", "torus"]),
    ranks=st.integers(2, 40), count=st.integers(1, 1 << 20), slices=st.sampled_from([None, 2]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_what_has_no_formula_is_replayed_on_the_cards_nodes(name, ranks, count, slices):
    asked = options(ranks=(ranks,), slices=slices)
    m = evaluate(H100, asked, Point(name, ranks, 4 * count))
    schedule = schedule_of(name, ranks, count, slices=m.slices, nodes=H100.node.domain)
    net = simulate.network_for(H100, asked, name, ranks)
    assert m.level == "replay" and m.messages == schedule.messages
    assert m.seconds == replay(schedule, net, 4).seconds


@pytest.mark.parametrize("model", ["auto", "closed", "loggp", "library", "nccl", "recurrence", "replay"])
@pytest.mark.parametrize("algorithm", ["ring", "tree"])
def test_every_model_has_finite_times_that_grow_with_size(model, algorithm):
    asked = options(model=model)
    times = [evaluate(H100, asked, Point(algorithm, 16, 1 << e)).seconds for e in (3, 24, 28, 32)]
    assert all(np.isfinite(times))
    assert all(t > 0 for t in times)
    assert sorted(times) == times


def test_auto_takes_the_faster_of_ring_and_tree_at_every_size():
    asked = options(algorithms=("auto",))
    for size in (8, 1 << 16, 1 << 24, 1 << 32):
        both = {a: evaluate(H100, asked, Point(a, 64, size)).seconds for a in simulate.AUTO}
        best = evaluate(H100, asked, Point("auto", 64, size))
        assert best.seconds == min(both.values()) == both[best.chosen]


def test_chosen_slices_are_within_a_tenth_of_the_best_of_all():
    for algorithm in ("ring", "tree"):
        for size in (1 << 18, 1 << 24, 1 << 30):
            point = Point(algorithm, 32, size)
            all_of_them = [evaluate(H100, options(slices=k), point).seconds for k in simulate.SLICES]
            assert evaluate(H100, options(), point).seconds <= 1.1 * min(all_of_them), (algorithm, size)


def test_300000_ranks_cost_what_the_ring_must():
    asked = checked(B200, Options((300_000,), (8,)))
    m = evaluate(B200, asked, Point("ring", 300_000, 1 << 30))
    assert m.messages == 2 * 299_999 * 300_000
    assert m.level in simulate.EXACT
    net = simulate.network_for(B200, asked, "ring", 300_000)
    assert m.seconds >= bounds(net, 1 << 30).seconds


def test_a_failed_plane_costs_bandwidth_and_a_straggler_its_share():
    point = Point("ring", 16, 1 << 30)
    asked = checked(B200, Options((16,), (1 << 30,)))
    healthy = evaluate(B200, asked, point).seconds
    one_plane = evaluate(B200, replace(asked, failed_planes=1), point).seconds
    assert 1.5 * healthy < one_plane < 2.2 * healthy
    slow = evaluate(B200, replace(asked, stragglers=("3:link:25%",)), point).seconds
    assert 3.5 * healthy < slow < 4.1 * healthy  # every chunk passes the slow link


def test_noise_is_the_seeds():
    noisy = options(noise="exponential:mean=5us", seed=1)
    point = Point("tree", 16, 1 << 16)
    first = evaluate(H100, noisy, point).seconds
    assert evaluate(H100, noisy, point).seconds == first
    assert evaluate(H100, replace(noisy, seed=2), point).seconds != first
    assert first > evaluate(H100, options(), point).seconds


@given(p=st.integers(2, 20), stride=st.integers(2, 9))
@settings(max_examples=25, deadline=None)
def test_every_stride_th_rank_keeps_its_costs(p, stride):
    groups = np.arange(p * stride, dtype=np.int32)[None] // 4
    slow = np.linspace(1, 3, 2 * p * stride).reshape(2, -1)
    whole = network(
        groups, latency=[5, 50], byte_ps=[1.0, 10.0], slow=slow, reduce_ps=np.arange(p * stride, dtype=float)
    )
    part = simulate.every(whole, stride)
    assert part.ranks == p
    for a, b in ((0, p - 1), (p - 1, 0), (0, 1)):
        k, whole_k = pair_class(part, a, b), pair_class(whole, a * stride, b * stride)
        assert k == whole_k
        assert wire_ps(part, k, a, b, 1000) == wire_ps(whole, k, a * stride, b * stride, 1000)
        assert part.reduce_ps[a] == whole.reduce_ps[a * stride]


def test_data_parallel_groups_cross_the_network_with_one_nic_each():
    asked = checked(B200, Options((64,), (1 << 30,), stride=8))
    net = simulate.network_for(B200, asked, "ring", 64)
    assert len(np.unique(net.groups[0])) == 64  # every rank in a domain of its own
    rate = 1e12 / net.byte_ps[1]
    assert 0.9 * B200.nic.rate < rate <= B200.nic.rate


def test_mean_hop_of_a_flat_network_is_its_hop():
    net = flat(16, latency=700, byte_ps=2.0, send_overhead=30, recv_overhead=40, gap=5, reduce_ps=0.5)
    for algorithm in ALGORITHMS:
        h = simulate.mean_hop(net, algorithm)
        assert (h.latency, h.byte_ps, h.send_overhead, h.recv_overhead, h.gap) == (700, 2.0, 30, 40, 5)


def test_the_limit_is_the_slowest_port_of_the_ring():
    one, name = simulate.busbw_limit(H100, options(), 8)
    assert one == pytest.approx(H100.node.link.rate, rel=1e-6)
    assert "links" in name
    slow = card.override(H100, ["nic.rate=100Gb/s"])
    few, name = simulate.busbw_limit(slow, options(), 16)
    assert few == pytest.approx(1e12 / build(slow, 16).byte_ps[1], rel=1e-9)
    assert few < 8 * 12.5e9
    assert "NIC" in name


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ranks": (2000,)}, "has 1016 GPUs"),
        ({"ranks": (0,)}, "accepted are 1 to 1016"),
        ({"algorithms": ("rign",)}, "did you mean ring"),
        ({"model": "recurence"}, "did you mean recurrence"),
        ({"model": "recurrence", "algorithms": ("binomial",)}, "--model replay"),
        ({"model": "loggp", "algorithms": ("hierarchical",)}, "hierarchical has no formula"),
        ({"model": "closed", "algorithms": ("torus",)}, "--model replay"),
        ({"model": "nccl", "algorithms": ("one-shot",)}, "no library runs one-shot"),
        ({"model": "replay", "algorithms": ("sharp",)}, "no schedule of messages"),
        ({"model": "nccl", "ranks": (1,)}, "2 or more"),
        ({"slices": 0}, "--slices 0"),
        ({"channels": 99999}, "--channels 99999"),
        ({"seed": -1}, "--seed -1"),
        ({"noise": "earthquake"}, "earthquake"),
        ({"stragglers": ("99:50%",)}, "straggler rank 99"),
        ({"routing": "magic"}, "magic"),
        ({"rails": "rusty"}, "rusty"),
        ({"failed_planes": 1}, "failed planes"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(more, message):
    with pytest.raises(UserError) as e:
        options(**more)
    assert message in str(e.value)
    assert "\n" not in str(e.value)


def test_switches_that_do_not_add_run_no_in_network_algorithm():
    with pytest.raises(UserError, match="do not reduce"):
        checked(B200, Options((64,), (8,), ("sharp",)))
    assert "sharp" in checked(H100, Options((64,), (8,), ("all",))).algorithms


def test_memory_grows_with_what_a_level_keeps():
    replayed = options(model="replay")
    small, large = (simulate.memory_bytes(H100, replayed, Point("two-shot", p, 1 << 20)) for p in (64, 6400))
    assert large > 9000 * small
    recurrence = options(model="recurrence", slices=1)
    assert simulate.memory_bytes(H100, recurrence, Point("ring", 1_000_000, 1 << 20)) < 500e6


@pytest.mark.parametrize("algorithm", ["direct", "pairwise"])
def test_an_all_to_all_without_a_table_takes_as_long_as_its_table(algorithm):
    """Also where every receive is late by its own noise."""
    for noise in (None, "exponential:mean=2us"):
        asked = options(collective="alltoall", algorithms=(algorithm,), noise=noise)
        found = evaluate(H100, asked, Point(algorithm, 16, 1 << 20))
        replayed = evaluate(H100, replace(asked, model="replay"), Point(algorithm, 16, 1 << 20))
        assert (found.level, replayed.level) == ("recurrence", "replay")
        assert (found.seconds, found.messages) == (replayed.seconds, replayed.messages)


def test_a_table_of_too_many_steps_is_refused_before_it_is_written():
    """Bruck's all-to-all has few messages, and copies every block in every round."""
    asked = options(collective="alltoall", algorithms=("bruck",))
    with pytest.raises(UserError, match=r"about 7e\+07 steps.*--algo direct,pairwise, which need no tables"):
        evaluate(B200, asked, Point("bruck", 4096, 1 << 20))
