"""All-to-alls without tables: recurrence and replay agree to the picosecond."""

import numpy as np
import pytest
from busbw.collectives import build
from busbw.errors import UserError
from busbw.fabric.physics.network import NOISE_ENTRIES, flat, network
from busbw.fabric.time import exchange_recurrence
from busbw.fabric.time.recurrence import EXCHANGES, exchange_finish
from busbw.fabric.time.replay import replay
from hypothesis import given, settings
from hypothesis import strategies as st


@st.composite
def networks(draw, ranks):
    """Any figures, on two levels with a port of their own or one for both, with noise or without."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    levels = draw(st.integers(0, 2))
    groups = np.array([np.arange(ranks) // draw(st.integers(1, 4)) ** k for k in range(1, levels + 1)])

    def times():
        return rng.integers(0, draw(st.sampled_from([1, 10**4, 10**7])), levels + 1)

    return network(
        groups.reshape(levels, ranks),
        latency=times(),
        byte_ps=rng.uniform(0, 200, levels + 1),
        send_overhead=times(),
        recv_overhead=times(),
        gap=times(),
        slow=1 + rng.integers(0, 2, (2 if levels else 1, ranks)) * 0.7,
        reduce_ps=rng.uniform(0, 200, ranks),
        copy_ps=rng.uniform(0, 200, ranks),
        noise=np.sort(rng.integers(0, 10**7, NOISE_ENTRIES)) if draw(st.booleans()) else None,
        seed=draw(st.integers(0, 1 << 30)),
    )


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_recurrence_is_replay(data):
    p, algorithm = data.draw(st.integers(1, 24)), data.draw(st.sampled_from(EXCHANGES))
    net, count = data.draw(networks(p)), data.draw(st.sampled_from([0, 1, 7, 1000]))
    want = replay(build(algorithm, p, count, collective="alltoall"), net, 4).finish
    np.testing.assert_array_equal(exchange_finish(net, algorithm, count, 4), want)


@pytest.mark.parametrize("algorithm", EXCHANGES)
def test_progress_goes_to_the_end_and_blocks_of_stages_change_nothing(algorithm, monkeypatch):
    net, told = flat(50, latency=900_000, byte_ps=20.0, send_overhead=250_000, gap=40_000), []
    whole = exchange_finish(net, algorithm, 100, 4)
    monkeypatch.setattr(exchange_recurrence, "SOME_MESSAGES", 333)
    np.testing.assert_array_equal(exchange_finish(net, algorithm, 100, 4, progress=told.append), whole)
    assert len(told) > 5 and told == sorted(told) and told[-1] == 1


def test_what_cannot_be_evaluated_is_refused():
    net = flat(4, latency=1, byte_ps=1.0)
    with pytest.raises(UserError, match="accepted: direct, pairwise"):
        exchange_finish(net, "bruck", 1, 4)
    with pytest.raises(UserError, match="accepted: up to"):
        exchange_finish(net, "direct", 1 << 58, 4)
