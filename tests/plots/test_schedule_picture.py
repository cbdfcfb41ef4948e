"""The replay that the pictures are drawn from, on schedules small enough to know by heart."""

import numpy as np
import pytest
from busbw.collectives import build
from busbw.collectives.schedule import INPUT, OUTPUT, Schedule, StepList
from busbw.plots.curves import PlotError, render
from busbw.plots.schedule_picture import replay, ring_picture, tree_picture, trees


def two_ranks(first, second):
    """Rank 1 sends, rank 0 adds and sends back."""
    up, down = StepList(), StepList()
    for take in first:
        take(up)
    for take in second:
        take(down)
    return Schedule("hand-made", 2, 1, False, (up.table(), down.table()))


def test_replay_of_two_ranks_counts_messages_and_contributions():
    messages, states = replay(
        two_ranks(
            [lambda s: s.recv_reduce(1, (INPUT, 0), (OUTPUT, 0), 1, final=True), lambda s: s.send(1, OUTPUT, 0, 1)],
            [lambda s: s.send(0, INPUT, 0, 1), lambda s: s.recv(0, OUTPUT, 0, 1)],
        )
    )
    assert [(m.tick, m.sender, m.receiver, m.reduce) for m in messages] == [(1, 1, 0, True), (2, 0, 1, False)]
    assert [s.ravel().tolist() for s in states] == [[1, 1], [2, 1], [2, 2]]


def test_replay_says_when_a_schedule_deadlocks():
    stuck = two_ranks([lambda s: s.recv(1, OUTPUT, 0, 1)], [lambda s: s.recv(0, OUTPUT, 0, 1)])
    with pytest.raises(PlotError, match="deadlocks"):
        replay(stuck)


@pytest.mark.parametrize("ranks", [2, 3, 4, 5])
def test_ring_takes_2p_minus_2_steps_in_which_every_rank_sends_one_chunk(ranks):
    messages, states = replay(build("ring", ranks, ranks))
    assert len(states) - 1 == 2 * (ranks - 1)
    for tick in range(1, len(states)):
        now = [m for m in messages if m.tick == tick]
        assert sorted(m.sender for m in now) == list(range(ranks))
        assert all(m.receiver == (m.sender + 1) % ranks and m.count == 1 for m in now)
        assert all(m.reduce == (tick < ranks) for m in now)
    assert np.all(states[-1] == ranks)


@pytest.mark.parametrize("ranks", [2, 4, 7, 8, 16])
def test_double_tree_has_two_trees_and_no_rank_is_inside_both(ranks):
    one, two = trees(build("tree", ranks, 4 * ranks))
    for edges in (one, two):
        assert len(edges) == ranks - 1
    root = {next(iter(set(edges.values()) - set(edges))) for edges in (one, two)}
    assert (set(one.values()) & set(two.values())) <= root | ({0} if ranks % 2 else set())
    _, states = replay(build("tree", ranks, 4 * ranks))
    assert np.all(states[-1] == ranks)


def test_ring_picture_has_a_panel_a_step_and_a_cell_a_chunk():
    fig = ring_picture(build("ring", 4, 4))
    assert [ax.get_label() for ax in fig.axes] == [f"step {i}" for i in range(1, 7)]
    for i, ax in enumerate(fig.axes, 1):
        numbers = [t.get_text() for t in ax.texts if t.get_text().isdigit()]
        assert len(numbers) == 16
        assert numbers.count("4") == (0 if i < 3 else 4 * (i - 2))
        kind = "reduce-scatter" if i <= 3 else "all-gather"
        assert kind in [t.get_text() for t in ax.texts]
    assert set(numbers) == {"4"}


def test_tree_picture_shows_every_rank_once_in_each_tree():
    fig = tree_picture(build("tree", 8, 16))
    assert len(fig.axes) == 2
    for ax in fig.axes:
        assert sorted(t.get_text() for t in ax.texts if t.get_text().isdigit()) == [str(i) for i in range(8)]


def test_pictures_are_the_same_each_time():
    one, two = (render(ring_picture(build("ring", 4, 4)), "svg") for _ in range(2))
    assert one == two


def test_what_cannot_be_drawn_is_refused_by_name():
    with pytest.raises(PlotError, match="7 ranks; a ring's picture shows at most 6"):
        ring_picture(build("ring", 7, 6))
    with pytest.raises(PlotError, match="at most 16"):
        tree_picture(build("tree", 17, 64))
    with pytest.raises(PlotError, match="no messages"):
        ring_picture(build("ring", 1, 4))
    with pytest.raises(PlotError, match="not one tree"):
        tree_picture(build("ring", 4, 4))
