"""A ring's halves alone, reduce-scatter and all-gather: formula, recurrence and replay agree to the picosecond."""

import numpy as np
import pytest
from any_network import networks
from busbw.collectives import build
from busbw.errors import UserError
from busbw.fabric.physics.network import flat
from busbw.fabric.time.closed import hop, loggp_ps, ring_ps
from busbw.fabric.time.recurrence import REDUCING, half_ring_finish
from busbw.fabric.time.replay import replay
from hypothesis import given, settings
from hypothesis import strategies as st

FIGURES = {
    "latency": 900_000, "byte_ps": 20.0, "send_overhead": 250_000, "recv_overhead": 300_000, "gap": 40_000, "reduce_ps": 0.7,
    "copy_ps": 0.4,
}  # fmt: skip


def replayed(net, collective, count, itemsize, in_place):
    return replay(build("ring", net.ranks, count, collective=collective, in_place=in_place), net, itemsize).finish


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_recurrence_is_replay(data):
    p = data.draw(st.integers(2, 24))
    net = data.draw(networks(p))
    collective = data.draw(st.sampled_from(list(REDUCING)))
    count, in_place = data.draw(st.sampled_from([1, 7, 1000])), data.draw(st.booleans())
    want = replayed(net, collective, count, 4, in_place)
    for method in ("auto", "steps") if net.noisy else ("auto", "steps", "passage"):
        got = half_ring_finish(net, collective, count, 4, in_place=in_place, method=method)
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("collective", list(REDUCING))
def test_lanes_and_threads_give_the_same(collective):
    """Enough ranks that blocks of stages go in lanes, over threads."""
    net = flat(1500, **FIGURES)
    one = half_ring_finish(net, collective, 50, 4, method="steps", threads=1, in_place=True)
    assert one.max() == half_ring_finish(net, collective, 50, 4, method="passage", in_place=True).max()
    assert one.max() == ring_ps(1500, 50 * 1500, 4, hop(net, 0, 1), (REDUCING[collective],))


@pytest.mark.parametrize("ranks", [2, 3, 8, 40])
def test_the_formula_is_the_recurrence(ranks):
    net = flat(ranks, **FIGURES)
    for collective, reducing in REDUCING.items():
        want = half_ring_finish(net, collective, 30, 4, in_place=True).max()
        assert ring_ps(ranks, 30 * ranks, 4, hop(net, 0, 1), (reducing,)) == want


def test_300_000_ranks_need_no_tables():
    """The recurrence, and the formula that `auto` takes, over a network of one kind of hop."""
    net = flat(300_000, **FIGURES)
    for collective, reducing in REDUCING.items():
        assert half_ring_finish(net, collective, 100, 4, method="passage", in_place=True).max() == ring_ps(
            300_000, 100 * 300_000, 4, hop(net, 0, 1), (reducing,)
        )


def test_a_formula_that_is_not_there_says_what_to_use():
    with pytest.raises(UserError, match="'chain' has no closed form; accepted: --model replay, or ring"):
        loggp_ps("chain", 8, 100, 4, hop(flat(8, **FIGURES), 0, 1))
