"""The space-time diagram shows the spans and messages of the trace, each once."""

import numpy as np
import pytest
from busbw.collectives import build
from busbw.fabric.physics.network import network
from busbw.fabric.time.replay import SPAN_RECV, SPAN_REDUCE, SPAN_SEND, SPAN_WAIT, Trace, replay
from busbw.plots.curves import PlotError, save
from busbw.plots.timeline import MOST_LINES, timeline, title_of
from matplotlib.collections import LineCollection, PolyCollection


def net(ranks):
    domains = np.arange(ranks, dtype=np.int32)[None] // 4
    return network(
        domains, latency=[700_000, 3_000_000], byte_ps=[2.0, 20.0], send_overhead=300_000, recv_overhead=300_000,
        reduce_ps=0.5,
    )  # fmt: skip


def run(algorithm="ring", ranks=8, count=1 << 12):
    return replay(build(algorithm, ranks, count), net(ranks), 4, trace=True)


def collections(figure, kind):
    return [c for ax in figure.axes for c in ax.collections if isinstance(c, kind)]


@pytest.mark.parametrize("algorithm", ["ring", "tree", "halving-doubling"])
def test_every_span_and_message_is_drawn_once(algorithm):
    done = run(algorithm)
    figure = timeline(done.trace, 8, title="t")
    bars = collections(figure, PolyCollection)
    assert sum(len(c.get_paths()) for c in bars) == len(done.trace.spans)
    (lines,) = collections(figure, LineCollection)
    assert len(lines.get_segments()) == len(done.trace.messages)


def test_bars_stand_at_their_times_on_their_ranks_row():
    done = run()
    figure = timeline(done.trace, 8, title="t")
    spans = done.trace.spans
    for kind, words in (
        (SPAN_SEND, "sending"),
        (SPAN_RECV, "receiving"),
        (SPAN_REDUCE, "reducing"),
        (SPAN_WAIT, "waiting"),
    ):
        mine = spans[spans[:, 2] == kind]
        drawn = [
            p.get_extents()
            for c in collections(figure, PolyCollection)
            if c.get_label() == words
            for p in c.get_paths()
        ]
        scale = 1e6  # the run takes microseconds
        assert sorted((round(e.x0 * scale), round(e.x1 * scale)) for e in drawn) == sorted(
            (a, b) for a, b in mine[:, 3:5]
        )
        assert all(abs((e.y0 + e.y1) / 2 - round((e.y0 + e.y1) / 2)) < 0.5 for e in drawn)


def test_waiting_stands_out_least_and_ports_are_told_apart():
    figure = timeline(run().trace, 8, title="t", port_names=("NVLink", "NIC"))
    texts = [t.get_text() for t in figure.legends[0].get_texts()]
    assert {"sending, NVLink", "sending, NIC", "receiving, NIC", "waiting", "message"} <= set(texts)


def test_too_many_messages_are_not_drawn_as_lines_but_counted():
    done = run(ranks=64, count=1 << 13)
    assert len(done.trace.messages) > MOST_LINES
    figure = timeline(done.trace, 64, title="t", note="n")
    assert not collections(figure, LineCollection)
    assert any("too many for lines" in t.get_text() for t in figure.texts)


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(PlotError, match="at most 64"):
        timeline(run().trace, 65, title="t")
    with pytest.raises(PlotError, match="nothing to draw"):
        timeline(Trace(np.zeros((0, 8), np.int64), np.zeros((0, 6), np.int64)), 8, title="t")


def test_a_picture_is_written_and_its_title_says_the_time(tmp_path):
    done = run()
    title = title_of("ring", 8, 1 << 14, done.picoseconds)
    assert title.startswith("ring, 8 ranks, 16 KiB: ")
    path = save(timeline(done.trace, 8, title=title), tmp_path / "t.png")
    assert path.stat().st_size > 20_000
