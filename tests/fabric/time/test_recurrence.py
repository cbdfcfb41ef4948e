"""Ring and tree without schedules: equal to the last bit to the schedules' replay, and to a plain walk in Python."""

from collections import defaultdict, deque
from itertools import pairwise

import numpy as np
import pytest
from busbw.collectives import build
from busbw.collectives.schedule import RECV, RECV_REDUCE, SEND
from busbw.errors import UserError
from busbw.fabric.physics.network import NOISE_ENTRIES, flat, network
from busbw.fabric.time import ring_recurrence
from busbw.fabric.time.closed import hop
from busbw.fabric.time.recurrence import (
    ring_blocks,
    ring_ends,
    ring_finish,
    ring_ps,
    ring_segment,
    ring_starts,
    tree_finish,
    tree_ps,
)
from busbw.fabric.time.replay import replay
from hypothesis import example, given, settings
from hypothesis import strategies as st

seeds = st.integers(0, 2**32)


def any_network(rng, ranks, noisy):
    """Random costs: up to two levels of groups, in blocks of ranks or scattered; slow ports, ranks that reduce slowly."""
    levels = int(rng.integers(0, 3))
    classes = levels + 1
    groups = np.zeros((levels, ranks), np.int32)
    for level in range(levels):
        blocks = np.arange(ranks) // rng.integers(1, 9)
        groups[level] = blocks if rng.random() < 0.5 else rng.integers(0, max(1, ranks // 3) + 1, ranks)
    port = np.zeros(classes, np.int64) if rng.random() < 0.5 else np.minimum(np.arange(classes), 1)
    slow = 1 + 5 * rng.random((port.max() + 1, ranks)) * (rng.random((port.max() + 1, ranks)) < 0.4)

    def times(most):
        return rng.integers(0, most, classes)

    return network(
        groups,
        latency=times(5000),
        byte_ps=rng.random(classes) * rng.choice([1, 20, 300]),
        send_overhead=times(3000),
        recv_overhead=times(3000),
        gap=times(int(rng.choice([10, 20000]))),
        port=port,
        slow=slow,
        reduce_ps=rng.random(ranks) * 10,
        copy_ps=rng.random(ranks) * 10,
        noise=np.sort(rng.integers(0, rng.integers(1, 100_000), NOISE_ENTRIES)) if noisy else None,
        seed=int(rng.integers(-5, 1 << 40)),
    )


def any_count(rng, ranks):
    """Elements: fewer than ranks, a few each, a whole number each, or many."""
    return int(
        rng.choice(
            [
                rng.integers(1, ranks + 2),
                rng.integers(1, 5 * ranks),
                ranks * rng.integers(1, 99),
                rng.integers(1, 10**6),
            ]
        )
    )


def plain_walk(schedule, net, itemsize):
    """network.py's rules in Python integers, straight from its docstring."""
    ranks = schedule.ranks
    clock, at, received = [0] * ranks, [0] * ranks, [0] * ranks
    out_free, in_free, sent = defaultdict(int), defaultdict(int), defaultdict(deque)

    def class_of(a, b):
        levels = range(len(net.groups))
        return next((k for k in levels if net.groups[k, a] == net.groups[k, b]), len(net.groups))

    def wire(k, a, b, n):
        q = net.port[k]
        return int(n * float(net.byte_ps[k]) * max(float(net.slow[q, a]), float(net.slow[q, b])) + 0.5)

    def delay(rank, index):
        x, mask = (net.seed & (2**64 - 1)) ^ (rank << 40) ^ index, 2**64 - 1
        x = (x + 0x9E3779B97F4A7C15) & mask
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return int(net.noise[(x ^ (x >> 31)) >> 52])

    moved = True
    while moved:
        moved = False
        for r, table in enumerate(schedule.tables):
            while at[r] < len(table):
                step = table[at[r]]
                op, n, peer = int(step["op"]), int(step["count"]) * itemsize, int(step["peer"])
                if op == SEND:
                    k = class_of(r, peer)
                    q = int(net.port[k])
                    clock[r] = max(clock[r] + int(net.send_overhead[k]), out_free[r, q])
                    out_free[r, q] = clock[r] + max(int(net.gap[k]), wire(k, r, peer, n))
                    sent[r, peer, int(step["channel"])].append(clock[r])
                else:
                    lane = sent[peer, r, int(step["channel"])]
                    if not lane:
                        break
                    k = class_of(peer, r)
                    q = int(net.port[k])
                    end = max(lane.popleft() + int(net.latency[k]), in_free[r, q]) + wire(k, peer, r, n)
                    in_free[r, q] = end
                    clock[r] = max(clock[r], end + delay(r, received[r])) + int(net.recv_overhead[k])
                    received[r] += 1
                    assert op in (RECV, RECV_REDUCE)
                    if op == RECV_REDUCE:
                        clock[r] += int(n * float(net.reduce_ps[r]) + 0.5)
                at[r] += 1
                moved = True
    assert all(i == len(t) for i, t in zip(at, schedule.tables))
    return clock


@given(seeds, st.integers(2, 20), st.integers(1, 4), st.integers(1, 3), st.booleans())
@settings(max_examples=60, deadline=None)
def test_equals_a_plain_walk(seed, ranks, channels, slices, noisy):
    rng = np.random.default_rng(seed)
    net, count = any_network(rng, ranks, noisy), any_count(rng, ranks)
    for name, finish in (("ring", ring_finish), ("tree", tree_finish)):
        schedule = build(name, ranks, count, channels=channels, slices=slices)
        assert finish(net, count, 4, channels=channels, slices=slices).tolist() == plain_walk(schedule, net, 4)


@given(seeds, st.integers(2, 512), st.integers(1, 3), st.integers(1, 3), st.booleans())
@example(1, 512, 1, 1, True)
@example(2, 511, 2, 2, False)
@settings(max_examples=15, deadline=None)
def test_ring_equals_replay(seed, ranks, channels, slices, noisy):
    rng = np.random.default_rng(seed)
    if ranks * channels * slices > 600:
        channels = slices = 1
    net, count = any_network(rng, ranks, noisy), any_count(rng, ranks)
    schedule = build("ring", ranks, count, channels=channels, slices=slices)
    want = replay(schedule, net, 4).finish
    assert np.array_equal(ring_finish(net, count, 4, channels=channels, slices=slices), want)
    if channels == slices == 1 and not noisy:
        for method in ("steps", "passage"):
            assert np.array_equal(ring_finish(net, count, 4, method=method), want)


@given(seeds, st.integers(2, 512), st.integers(1, 2), st.integers(1, 24), st.booleans())
@example(3, 512, 1, 8, True)
@example(4, 511, 2, 5, False)
@settings(max_examples=20, deadline=None)
def test_tree_equals_replay(seed, ranks, channels, slices, noisy):
    rng = np.random.default_rng(seed)
    net, count = any_network(rng, ranks, noisy), any_count(rng, ranks)
    schedule = build("tree", ranks, count, channels=channels, slices=slices)
    want = replay(schedule, net, 4).finish
    assert np.array_equal(tree_finish(net, count, 4, channels=channels, slices=slices, threads=2), want)


def one_by_one(net, count, monkeypatch):
    """The plain loop over ranks and stages, with neither lanes nor threads."""
    with monkeypatch.context() as patched:
        patched.setattr(ring_recurrence, "LEAST_RANKS", 1 << 60)
        return ring_finish(net, count, 4, method="steps")


@pytest.mark.parametrize("ranks", [1024, 1801, 4603])
@pytest.mark.parametrize("count", ["few", "whole", "almost whole", "half as many", "uneven"])
@pytest.mark.parametrize("noisy", [False, True])
def test_lanes_and_threads_change_nothing(ranks, count, noisy, monkeypatch):
    rng = np.random.default_rng(ranks)
    net = any_network(rng, ranks, noisy)
    elements = {
        "few": 7,
        "whole": 5 * ranks,
        "almost whole": 5 * ranks - 3,
        "half as many": ranks // 2,
        "uneven": 2 * ranks + ranks // 3,
    }[count]
    monkeypatch.setattr(ring_recurrence, "SEGMENT_RANKS", 1024)
    want = one_by_one(net, elements, monkeypatch)
    assert np.array_equal(ring_finish(net, elements, 4, method="steps", threads=1), want)
    assert np.array_equal(ring_finish(net, elements, 4, method="steps", threads=4), want)
    if not noisy:
        assert np.array_equal(ring_finish(net, elements, 4, method="passage"), want)


def test_lanes_equal_replay():
    rng = np.random.default_rng(5)
    for noisy in (False, True):
        net, count = any_network(rng, 1100, noisy), 5 * 1100 + 250
        want = replay(build("ring", 1100, count), net, 4).finish
        assert np.array_equal(ring_finish(net, count, 4, method="steps"), want)


@pytest.mark.parametrize("channels, slices", [(2, 1), (1, 2), (3, 2)])
def test_threads_of_many_rings_change_nothing(channels, slices, monkeypatch):
    rng = np.random.default_rng(channels)
    net, count = any_network(rng, 60, True), 12345
    want = ring_finish(net, count, 4, channels=channels, slices=slices, threads=1)
    monkeypatch.setattr(ring_recurrence, "SEGMENT_RANKS", 7)
    assert np.array_equal(ring_finish(net, count, 4, channels=channels, slices=slices, threads=4), want)


@given(seeds, st.one_of(st.integers(2, 40), st.integers(1000, 1400)), st.integers(1, 4), st.booleans())
@settings(max_examples=20, deadline=None)
def test_segments_make_the_ring(seed, ranks, parts, noisy):
    """A ring spread over processes: each advances its own ranks, with a halo from the left, as far as the halo reaches."""
    rng = np.random.default_rng(seed)
    net, count = any_network(rng, ranks, noisy), any_count(rng, ranks)
    cuts = [ranks * k // parts for k in range(parts + 1)]
    begin = ring_starts(net, count)
    for start, end in ((0, ranks - 1), (ranks - 1, 2 * ranks - 3)):
        stage = start
        while stage < end:
            stages = min(int(rng.integers(1, max(2, ranks))), end - stage)
            begin = np.concatenate(
                [
                    ring_segment(net, count, 4, begin[np.arange(low - stages, high) % ranks], low, stage, stages)
                    for low, high in pairwise(cuts)
                ]
            )
            stage += stages
    assert np.array_equal(ring_ends(net, count, 4, begin), ring_finish(net, count, 4))


@given(seeds, st.one_of(st.integers(1, 40), st.integers(1000, 1400)), st.integers(1, 5), st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_ring_in_blocks_is_the_ring(seed, ranks, blocks, noisy):
    rng = np.random.default_rng(seed)
    net, count = any_network(rng, ranks, noisy), any_count(rng, ranks)
    seen, reports = [], []

    def advance(tasks):
        seen.append(sum(len(begin) - stages for begin, _, _, stages in tasks))
        return [ring_segment(net, count, 4, *task) for task in tasks]

    finish = ring_blocks(net, count, 4, blocks, advance, progress=reports.append)
    assert np.array_equal(finish, ring_finish(net, count, 4))
    assert set(seen) <= {ranks}
    assert reports == sorted(reports) and reports[-1:] in ([], [1])


def test_segments_stay_within_a_half():
    net = flat(8, latency=10, byte_ps=1.0)
    with pytest.raises(ValueError, match="half"):
        ring_segment(net, 80, 4, np.zeros(8, np.int64), 0, 5, 4)


@given(seeds, st.integers(2, 300), st.sampled_from(["ring", "tree"]), st.booleans())
@settings(max_examples=60, deadline=None)
def test_bounds_of_physics(seed, ranks, name, noisy):
    """No less than the bytes need on the slowest link they must pass, nor than the longest chain's latency; finite; and
    more bytes never take less."""
    rng = np.random.default_rng(seed)
    net = any_network(rng, ranks, noisy)
    run = {"ring": ring_ps, "tree": tree_ps}[name]
    count = any_count(rng, ranks)
    hops = [hop(net, r, (r + 1) % ranks) for r in range(ranks)]
    times = []
    for n in (count, 2 * count, 3 * count, 8 * count):
        times.append(run(net, n, 4))
        if name == "ring":
            # All chunks pass each hop twice, but for the one that starts behind it and the one that ends before it.
            through = 2 * (n - -(-n // ranks)) * 4 * max(h.byte_ps * h.slow for h in hops)
        else:
            # Each rank takes in half of the message in each tree, as a leaf or as the root.
            through = n * 4 * min(float(net.byte_ps[k]) for k in range(len(net.byte_ps)))
        assert through - 2 * ranks <= times[-1] < 2**60
    height = (ranks - 1).bit_length()
    chain = 2 * (ranks - 1) if name == "ring" else 2 * height
    assert times[0] >= chain * int((net.latency + net.send_overhead + net.recv_overhead).min())
    if not noisy:
        assert times == sorted(times)


def test_ring_reaches_the_slowest_links_bandwidth():
    """2 (p-1)/p S over the slowest link is a bound, and for large messages nearly reached."""
    ranks, count = 64, 64 << 20
    slow = np.ones((1, ranks))
    slow[0, 17] = 3.0
    net = flat(ranks, latency=1_000_000, byte_ps=10.0, slow=slow)
    bound = 2 * (ranks - 1) / ranks * count * 4 * 30.0
    assert bound <= ring_ps(net, count, 4) <= 1.05 * bound


def test_tree_is_pipelined():
    """With many slices twice the message through a port, not twice the height."""
    net = flat(256, latency=1_000_000, byte_ps=10.0)
    count = 1 << 28
    one, many = tree_ps(net, count, 4), tree_ps(net, count, 4, slices=256)
    assert 2 * count * 4 * 10.0 * 0.99 <= many <= 2 * count * 4 * 10.0 * 1.2 < one / 4


def test_nothing_to_do():
    net = flat(1, latency=5, byte_ps=1.0, copy_ps=3.0)
    assert ring_ps(net, 10, 4) == tree_ps(net, 10, 4) == 120
    assert ring_ps(net, 10, 4, in_place=True) == 0
    assert ring_ps(flat(9, latency=5, byte_ps=1.0), 0, 4) == 0


def test_bad_figures_are_named():
    net = flat(4, latency=5, byte_ps=1.0)
    for options, word in (
        ({"channels": 0}, "channels is 0"),
        ({"slices": -1}, "slices is -1"),
        ({"method": "magic"}, "magic"),
        ({"method": "passage", "channels": 2}, "passage"),
    ):
        with pytest.raises(UserError, match=word):
            ring_finish(net, 8, 4, **options)
    with pytest.raises(UserError, match="range of times"):
        ring_finish(flat(4, latency=1 << 58, byte_ps=1.0), 8, 4)
    with pytest.raises(UserError, match="range of times"):
        tree_finish(flat(4, latency=1, byte_ps=1e17), 8, 4)


@pytest.mark.parametrize("ranks, options", [(1500, {"method": "steps"}), (50, {"channels": 2}), (40, {"slices": 2})])
def test_progress_goes_to_the_end_and_can_stop(ranks, options):
    net = flat(ranks, latency=5, byte_ps=1.0)
    seen = []
    ring_finish(net, 10 * ranks, 4, progress=seen.append, **options)
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)

    def stop(part):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ring_finish(net, 10 * ranks, 4, progress=stop, **options)
    seen = []
    tree_finish(net, 10 * ranks, 4, progress=seen.append)
    assert seen[-1] == 1.0
