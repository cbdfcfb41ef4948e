"""All-to-alls without tables: recurrence and replay agree to the picosecond."""

import numpy as np
import pytest
from any_network import networks
from busbw.collectives import build
from busbw.errors import UserError
from busbw.fabric.physics.network import flat
from busbw.fabric.time import exchange_recurrence
from busbw.fabric.time.recurrence import EXCHANGES, exchange_finish
from busbw.fabric.time.replay import replay
from hypothesis import given, settings
from hypothesis import strategies as st


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
