"""Incast against processor sharing stepped by hand, max-min fair rates, and the walk that every simulator follows."""

import numpy as np
import pytest
from busbw.collectives.schedule import INPUT, OUTPUT, Schedule, StepList
from busbw.fabric.physics import incast
from busbw.fabric.physics.network import PS, flat
from busbw.fabric.physics.routing import FatTree, route
from busbw.fabric.time.replay import replay
from hypothesis import given, settings
from hypothesis import strategies as st

sizes = st.lists(st.integers(1, 10**6), min_size=1, max_size=8)


def gather(counts):
    """Ranks 1 ... k send to rank 0, which receives in rank order."""
    root = StepList()
    tables = []
    for rank, count in enumerate(counts, start=1):
        root.recv(rank, OUTPUT, 0, count)
        sender = StepList()
        sender.send(0, INPUT, 0, count)
        tables.append(sender.table())
    return Schedule("gather", len(counts) + 1, max(counts), False, (root.table(), *tables))


@given(sizes)
def test_fair_sharing_against_small_steps_of_time(nbytes):
    """Between two ends each message left gets an equal part; stepped from end to end."""
    left, now, ends = dict(enumerate(nbytes)), 0.0, {}
    while left:
        each = 1e9 / len(left)
        first = min(left.values())
        now += first / each
        for i in list(left):
            left[i] -= first
            if left[i] <= 0:
                ends[i] = now
                del left[i]
    assert incast.fair_finish(nbytes, 1e9) == pytest.approx([ends[i] for i in range(len(nbytes))])


@given(sizes)
def test_the_last_byte_is_no_sooner_however_the_port_is_shared(nbytes):
    total = sum(nbytes) / 1e9
    assert incast.fair_finish(nbytes, 1e9).max() == pytest.approx(total)
    assert incast.in_turn_finish(nbytes, 1e9)[-1] == pytest.approx(total)
    assert np.all(incast.fair_finish(nbytes, 1e9) >= np.array(nbytes) / 1e9 * (1 - 1e-9))


@settings(deadline=None)
@given(sizes)
def test_the_walk_takes_messages_in_turn(nbytes):
    net = flat(len(nbytes) + 1, latency=700_000, byte_ps=10.0)
    out = replay(gather(nbytes), net, 1)
    assert out.finish[0] == 700_000 + sum(nbytes) * 10
    assert out.finish[0] / PS == pytest.approx(0.7e-6 + incast.in_turn_finish(nbytes, 1e11)[-1])


@pytest.mark.parametrize("senders", [2, 5, 16])
def test_equal_messages_end_as_max_min_rates_say(senders):
    tree = FatTree(ports=4, leaves=5, pods=1, middles=4)
    sources = np.arange(1, senders + 1)
    rates = route(tree, sources, np.zeros(senders, np.int64), "adaptive").rates
    assert 1 / rates == pytest.approx(np.full(senders, incast.seconds(senders, 1.0, 1.0)))
    assert incast.fair_finish(np.ones(senders), 1.0) == pytest.approx(1 / rates)


def test_the_first_of_equal_messages_is_served_early_and_the_mean_is_half():
    in_turn = incast.in_turn_finish(np.full(9, 1e6), 1e9)
    fair = incast.fair_finish(np.full(9, 1e6), 1e9)
    assert in_turn.mean() == pytest.approx((9 + 1) / 2 * 1e-3)
    assert fair.mean() == pytest.approx(9e-3)


def test_a_buffer_takes_the_excess():
    assert incast.buffer_seconds(1, 1e6, 1e9) == float("inf")
    # A 64 MB switch under 7 senders of 50 GB/s too many is full after 183 microseconds.
    assert incast.buffer_seconds(8, 64e6, 50e9) == pytest.approx(64e6 / 350e9)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(1, 500), st.floats(0, 1e-6))
def test_headroom_is_what_still_arrives_after_the_pause_in_the_worst_case(before, after, metres, response):
    """The pause waits for `before` of a packet; the sender is `after` of a packet short of its end when it obeys."""
    rate, mtu = 50e9, 4178
    cable = metres * incast.FIBRE_SECONDS_PER_METRE
    stops = before * mtu / rate + cable + response + after * mtu / rate  # after the decision
    arrives = rate * (stops + cable)  # all that has left the sender since `cable` before the decision
    room = incast.headroom_bytes(rate, metres, mtu, response)
    assert arrives <= room * (1 + 1e-9)
    if before == after == 1:
        assert arrives == pytest.approx(room)
