"""The trace document: valid events, nothing overlaps in a thread, every message has both its ends."""

import json
from itertools import pairwise

import numpy as np
from busbw.collectives import build
from busbw.fabric.physics.network import flat, network
from busbw.fabric.time.replay import replay
from busbw.fabric.time.timeline import chrome_events, chrome_trace, messages, spans
from hypothesis import given, settings
from hypothesis import strategies as st


@st.composite
def traced(draw):
    name = draw(st.sampled_from(["ring", "tree", "two-shot", "halving-doubling"]))
    ranks = draw(st.integers(2, 8))
    schedule = build(name, ranks, draw(st.integers(1, 5000)), channels=draw(st.integers(1, 2)))
    net = network(
        np.arange(ranks)[None] // 2,
        latency=[1000, 50_000],
        byte_ps=[draw(st.integers(1, 9)), 20.5],
        send_overhead=draw(st.integers(0, 900)),
        recv_overhead=draw(st.integers(0, 900)),
        reduce_ps=0.5,
    )
    return schedule, replay(schedule, net, 4, trace=True)


@settings(max_examples=50, deadline=None)
@given(traced())
def test_document(case):
    schedule, got = case
    document = json.loads(chrome_trace(got.trace, name="x", port_names=("NVLink",)))
    events = document["traceEvents"]
    assert {e["ph"] for e in events} == {"X", "M", "s", "f"}
    assert all(isinstance(e["pid"], int) and isinstance(e["tid"], int) and isinstance(e["name"], str) for e in events)

    slices = {}
    for e in events:
        if e["ph"] == "X":
            assert e["ts"] >= 0 and e["dur"] > 0
            slices.setdefault((e["pid"], e["tid"]), []).append((e["ts"], e["ts"] + e["dur"]))
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert named == set(slices)
    for times in slices.values():
        times.sort()
        assert all(b[0] >= a[1] - 1e-6 for a, b in pairwise(times))

    flows = {"s": {}, "f": {}}
    for e in events:
        if e["ph"] in flows:
            assert e["id"] not in flows[e["ph"]]
            flows[e["ph"]][e["id"]] = e
            assert any(e["ts"] == begin for begin, _ in slices[e["pid"], e["tid"]])
    assert flows["s"].keys() == flows["f"].keys()
    assert len(flows["s"]) == schedule.messages
    assert all(flows["s"][i]["ts"] < flows["f"][i]["ts"] for i in flows["s"])
    last = max(e["ts"] + e["dur"] for e in events if e["ph"] == "X") * 1e6
    assert abs(last - got.picoseconds) <= 1


def test_arrays_for_drawing():
    got = replay(build("ring", 3, 300), flat(3, latency=1000, byte_ps=2.0, reduce_ps=1.0), 4, trace=True)
    table = spans(got.trace)
    assert set(table["kind"]) == {"send", "recv", "wait", "reduce"}
    assert (table["end"] > table["start"]).all()
    assert (np.diff(table["rank"]) >= 0).all()
    sent = messages(got.trace)
    assert len(sent) == 12 and (np.diff(sent["start"]) >= 0).all()
    assert (sent["arrival"] - sent["start"] >= 1000 + 2 * 400).all()
    assert sent["bytes"].tolist() == [400] * 12
    assert set(zip(sent["sender"].tolist(), sent["receiver"].tolist())) == {(0, 1), (1, 2), (2, 0)}


def test_a_run_in_no_time_is_a_document_too():
    got = replay(build("ring", 2, 2), flat(2, latency=0, byte_ps=0.0), 4, trace=True)
    assert chrome_events(got.trace)["traceEvents"] == []
