"""MSCCL XML, run by a small interpreter that knows only MSCCL's rules, gives the sum on every GPU."""

import random
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS, algorithms, build
from busbw.collectives.collective import ALL
from busbw.errors import UserError
from busbw.interchange import msccl
from hypothesis import given, settings
from hypothesis import strategies as st

SLOTS = 8  # buffers of a connection: NCCL_STEPS


class Deadlock(Exception):
    pass


def interpret(text, seed):
    """Runs a program on random numbers, thread blocks in random order; returns (outputs, inputs)."""
    chance = random.Random(seed)
    algo = ET.fromstring(text)
    loop, n = int(algo.attrib["nchunksperloop"]), int(algo.attrib["ngpus"])
    in_place = algo.attrib["inplace"] == "1"
    given, taken = (int(algo[0].attrib[f"{which}_chunks"]) for which in "io")
    inputs = np.array([[float(chance.randrange(1 << 20)) for _ in range(given)] for _ in range(n)])
    memory, blocks, done, links = [], [], {}, {}
    for gpu in algo:
        g = int(gpu.attrib["id"])
        assert (int(gpu.attrib["i_chunks"]), int(gpu.attrib["o_chunks"])) == (given, taken)
        assert loop == max(given, taken)
        i = inputs[g].copy()
        memory.append(
            {"i": i, "o": i if in_place else np.full(taken, np.nan), "s": np.full(int(gpu.attrib["s_chunks"]), np.nan)}
        )
        ends = set()
        waited = set()
        for number, tb in enumerate(gpu):
            send, recv, channel = (int(tb.attrib[k]) for k in ("send", "recv", "chan"))
            assert int(tb.attrib["id"]) == number
            assert 0 <= channel < int(algo.attrib["nchannels"])
            for end in (("send", send, channel), ("recv", recv, channel)):
                assert end[1] == -1 or end not in ends, "a connection belongs to one thread block"
                ends.add(end)
            steps = [dict(s.attrib) for s in tb]
            assert [int(s["s"]) for s in steps] == list(range(len(steps)))
            waited |= {(int(s["depid"]), int(s["deps"])) for s in steps if s["depid"] != "-1"}
            blocks.append((g, number, send, recv, channel, steps))
            done[g, number] = 0
        marked = {
            (t, s) for gg, t, *_, steps in blocks if gg == g for s, step in enumerate(steps) if step["hasdep"] == "1"
        }
        assert marked == waited

    def place(g, step, side):
        at, count = int(step[f"{side}off"]), int(step["cnt"])
        buffer = memory[g][step[f"{side}buf"]]
        assert at >= 0 and at + count <= len(buffer)
        return buffer[at : at + count]

    moved = True
    while moved:
        moved = False
        chance.shuffle(blocks)
        for g, number, send, recv, channel, steps in blocks:
            for _ in range(chance.choice((1, 2, 100))):
                at = done[g, number]
                if at == len(steps):
                    break
                step = steps[at]
                kind = step["type"]
                if step["depid"] != "-1" and done[g, int(step["depid"])] <= int(step["deps"]):
                    break
                if kind == "s":
                    queue = links.setdefault((g, send, channel), [])
                    if len(queue) == SLOTS:
                        break
                    queue.append(place(g, step, "src").copy())
                elif kind in ("r", "rrc"):
                    queue = links.get((recv, g, channel))
                    if not queue:
                        break
                    data = queue.pop(0)
                    assert len(data) == int(step["cnt"])
                    place(g, step, "dst")[:] = data + (place(g, step, "src") if kind == "rrc" else 0)
                elif kind == "re":
                    place(g, step, "dst")[:] += place(g, step, "src")
                elif kind == "cpy":
                    place(g, step, "dst")[:] = place(g, step, "src")
                else:
                    assert kind == "nop"
                done[g, number] += 1
                moved = True
    if any(done[g, number] < len(steps) for g, number, *_, steps in blocks):
        raise Deadlock
    assert not any(links.values())
    return [m["o"] for m in memory], inputs


@st.composite
def programs(draw):
    name = draw(st.sampled_from(list(ALGORITHMS)))
    ranks = draw(st.integers(2, 9))
    channels, slices = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    chunk = draw(st.sampled_from([1, 5, 64]))
    count = ranks * channels * 2 * slices * chunk * (8 if name == "halving-doubling" else 1)
    return build(name, ranks, count, channels=channels, slices=slices, in_place=draw(st.booleans()))


@settings(max_examples=150, deadline=None)
@given(programs(), st.integers(0, 1 << 30))
def test_programs_give_the_sum_on_every_gpu(schedule, seed):
    outputs, inputs = interpret(msccl.write(schedule), seed)
    for out in outputs:
        np.testing.assert_array_equal(out, inputs.sum(axis=0))


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("ranks", [2, 3, 4, 6, 8])
@pytest.mark.parametrize("in_place", [False, True])
def test_every_algorithm(name, ranks, in_place):
    text = msccl.write(build(name, ranks, 8 * ranks, in_place=in_place))
    for seed in range(5):
        outputs, inputs = interpret(text, seed)
        assert all((out == inputs.sum(axis=0)).all() for out in outputs)


@pytest.mark.parametrize("collective", [c for c in msccl.COLLECTIVES if c != "all_reduce"])
def test_other_collectives_end_with_what_they_say(collective):
    for name in algorithms(collective):
        for ranks in (2, 3, 5, 8):
            schedule = build(name, ranks, 2 * ranks, collective=collective, root=1)
            outputs, inputs = interpret(msccl.write(schedule), ranks)
            scale = schedule.output_count // len(outputs[0])  # elements of a chunk
            for rank, at, n, source, who in schedule.outputs // [1, scale, scale, scale, 1]:
                want = inputs.sum(axis=0) if who == ALL else inputs[who]
                np.testing.assert_array_equal(outputs[rank][at : at + n], want[source : source + n])


def test_what_msccl_has_not_is_refused():
    for schedule in (
        build("direct", 4, 4, collective="gather"),
        build("ring", 4, 4, collective="all_gather", in_place=True),
    ):
        with pytest.raises(UserError, match="no program of MSCCL's; accepted: all_reduce, and out of place"):
            msccl.write(schedule)


def test_a_ring_is_as_the_format_has_it():
    text = msccl.write(build("ring", 4, 400, in_place=True), name='my "ring"', least=1024, most=4096)
    algo = ET.fromstring(text)
    assert algo.attrib == {
        "name": 'my "ring"', "proto": "Simple", "nchannels": "1", "nchunksperloop": "4", "ngpus": "4", "coll": "allreduce",
        "inplace": "1", "outofplace": "0", "minBytes": "1024", "maxBytes": "4096",
    }  # fmt: skip
    gpu = algo[0]
    assert gpu.attrib == {"id": "0", "i_chunks": "4", "o_chunks": "4", "s_chunks": "0"}
    assert len(gpu) == 1 and gpu[0].attrib == {"id": "0", "send": "1", "recv": "3", "chan": "0"}
    assert [s.attrib["type"] for s in gpu[0]] == ["s", *["rrc", "s"] * 3, *["r", "s"] * 2, "r"]
    assert gpu[0][0].attrib == {
        "s": "0", "type": "s", "srcbuf": "i", "srcoff": "3", "dstbuf": "i", "dstoff": "3", "cnt": "1",
        "depid": "-1", "deps": "-1", "hasdep": "0",
    }  # fmt: skip


@pytest.mark.parametrize(
    "schedule, what",
    [
        (("ring", 4, 401), "401 elements cut in unequal parts.*accepted"),
        (("ring", 1, 8), "2 ranks or more"),
        (("ring", 4, 0), "0 elements"),
        (("ring", 130, 130), "thread block and MSCCL takes 256"),
        (("one-shot", 40, 40), "more than 32 thread blocks on channel 0"),
    ],
)
def test_what_cannot_be_expressed_is_refused(schedule, what):
    with pytest.raises(UserError) as caught:
        msccl.write(build(*schedule))
    assert re.search(what, str(caught.value)) and "\n" not in str(caught.value)


def test_bad_options_are_refused():
    ring = build("ring", 4, 400)
    with pytest.raises(UserError, match="channels; MSCCL has 32"):
        msccl.write(build("ring", 2, 66, channels=33))
    with pytest.raises(UserError, match="'LL256'; accepted: Simple"):
        msccl.write(ring, proto="LL256")
    with pytest.raises(UserError, match="from 8 to 4 bytes"):
        msccl.write(ring, least=8, most=4)
