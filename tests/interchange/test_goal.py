"""GOAL text: what is written is read back the same, tags never collide, and bad text is an error with its line."""

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS, build
from busbw.collectives.schedule import RECV, RECV_REDUCE, SEND
from busbw.errors import UserError
from busbw.fabric.time.loggops import GOAL_CALC, GOAL_RECV, GOAL_SEND, LogGOPS, simulate
from busbw.fabric.time.replay import StuckError
from busbw.interchange import goal
from hypothesis import given, settings
from hypothesis import strategies as st

LETTERS = LogGOPS(L=2500, o=1500, g=1000, G=6, O=0, S=65535)


@st.composite
def schedules(draw):
    name, ranks = draw(st.sampled_from(list(ALGORITHMS))), draw(st.integers(1, 9))
    pieces = st.integers(1, 3)
    count = draw(st.one_of(st.integers(0, 3 * ranks), st.integers(0, 100_000)))
    return build(name, ranks, count, channels=draw(pieces), slices=draw(pieces), in_place=draw(st.booleans()))


@settings(max_examples=100, deadline=None)
@given(schedules(), st.sampled_from([0.0, 0.25, 3.0]))
def test_text_is_read_back_the_same(schedule, per_byte):
    out = goal.from_schedule(schedule, 4, reduce_per_byte=per_byte, copy_per_byte=per_byte)
    back = goal.parse(goal.write(out))
    for field in ("starts", "kind", "size", "peer", "tag", "cpu", "nic", "first_edge", "start_edge", "needs"):
        np.testing.assert_array_equal(getattr(back, field), getattr(out, field), err_msg=field)
    for i in range(len(out.kind)):  # edges of one operation may come in any order
        for a, b in ((out.first_edge[i], out.start_edge[i]), (out.start_edge[i], out.first_edge[i + 1])):
            assert sorted(back.edges[a:b]) == sorted(out.edges[a:b])


@settings(max_examples=100, deadline=None)
@given(schedules())
def test_every_message_is_there_once_and_has_a_tag_of_its_own(schedule):
    out = goal.from_schedule(schedule, 4)
    owner = np.repeat(np.arange(out.ranks), np.diff(out.starts))
    sends, receives = set(), set()
    for kind, ends in ((GOAL_SEND, sends), (GOAL_RECV, receives)):
        rows = np.flatnonzero(out.kind == kind)
        for i in rows.tolist():
            a, b = (owner[i], out.peer[i]) if kind == GOAL_SEND else (out.peer[i], owner[i])
            ends.add((int(a), int(b), int(out.tag[i]), int(out.size[i])))
        assert len(ends) == len({e[:3] for e in ends}) == len(rows) == schedule.messages
    assert sends == receives
    # Per channel, the k-th send meets the k-th receive.
    for r, table in enumerate(schedule.tables):
        steps = [s for s in table if s["op"] in (SEND, RECV, RECV_REDUCE)]
        rows = [i for i in range(out.starts[r], out.starts[r + 1]) if out.kind[i] != GOAL_CALC]
        assert [4 * int(s["count"]) for s in steps] == out.size[rows].tolist()
        assert [int(s["peer"]) for s in steps] == out.peer[rows].tolist()


@settings(max_examples=100, deadline=None)
@given(schedules(), st.booleans())
def test_what_is_written_runs_to_its_end(schedule, rendezvous):
    letters = LETTERS._replace(S=0) if rendezvous else LETTERS
    got = simulate(goal.from_schedule(schedule, 4, reduce_per_byte=0.5), letters)
    assert got.messages == schedule.messages
    if schedule.messages:
        assert got.time >= letters.L + 2 * letters.o


def test_reductions_become_calculations():
    out = goal.from_schedule(build("ring", 4, 400), 4, reduce_per_byte=2.0)
    calcs = out.size[out.kind == GOAL_CALC]
    assert calcs.tolist() == [800] * 12  # p-1 a rank, of 100 elements
    assert goal.from_schedule(build("ring", 4, 400), 4).kind.tolist().count(GOAL_CALC) == 0


TEXT = """\
/* two ranks
   and a comment */
num_ranks 3   // rank 2 does nothing

rank 1 {
    r0: recv 1024b from 0 tag 7 cpu 1
    c0: calc 500 cpu 1
c0 requires r0
recv 8b from -1 tag -1
}

rank 0 {
s1 irequires s0
s0: send 1024b to 1 tag 7 cpu 0 nic 1
s1 : send 8 b to 1
}
"""


def test_what_loggopsim_reads_is_read():
    got = goal.parse(TEXT)
    assert got.starts.tolist() == [0, 2, 5, 5]
    assert got.kind.tolist() == [GOAL_SEND, GOAL_SEND, GOAL_RECV, GOAL_CALC, GOAL_RECV]
    assert got.size.tolist() == [1024, 8, 1024, 500, 8]
    assert got.peer.tolist() == [1, 1, 0, -1, -1]
    assert got.tag.tolist() == [7, 0, 7, 0, -1]
    assert got.cpu.tolist() == [0, 0, 1, 1, 0]
    assert got.nic.tolist() == [1, 0, 0, 0, 0]
    assert got.needs.tolist() == [0, 1, 0, 1, 0]
    assert got.start_edge[0] == got.first_edge[1] and got.start_edge[2] == got.first_edge[2]
    assert goal.parse(TEXT.replace("\n", "\r\n")).size.tolist() == got.size.tolist()


@pytest.mark.parametrize(
    "text, what",
    [
        ("", "no 'num_ranks N'"),
        ("rank 0 {\n}", "line 1: a rank before num_ranks"),
        ("num_ranks 0", "line 1: 0; accepted: 1 to"),
        ("num_ranks 99999999999999999999999999", "line 1: 9999"),
        ("num_ranks 2\nnum_ranks 2", "line 2: num_ranks a second time"),
        ("num_ranks 2\nrank 2 {\n}", "line 2: 2; accepted: 0 to 1"),
        ("num_ranks 2\nrank 0 {\n}\nrank 0 {\n}", "line 4: rank 0 a second time"),
        ("num_ranks 2\nrank 0 {\ncalc 1", "line 3: the end inside rank 0"),
        ("num_ranks 2\n/* rank 0 {\n", "line 3: the end inside a comment"),
        ("num_ranks 2\nhello", "line 2: 'hello'"),
        ("num_ranks 2\nrank 0 {\nsend 5b to 2\n}", "line 3: 2; accepted: 0 to 1"),
        ("num_ranks 2\nrank 0 {\nsend 5b from 1\n}", "line 3: send ... from"),
        ("num_ranks 2\nrank 0 {\nsend 5b to -1\n}", "line 3: a send with -1"),
        ("num_ranks 2\nrank 0 {\nsend 5b to 1 tag -1\n}", "line 3: a send with -1"),
        ("num_ranks 2\nrank 0 {\nsend 5b to 1 tag 4294967295\n}", "line 3: 4294967295; accepted"),
        ("num_ranks 2\nrank 0 {\nsend -5b to 1\n}", "line 3: 'send -5b to 1'"),
        ("num_ranks 2\nrank 0 {\ncalc 5 cpu 256\n}", "line 3: 256; accepted: 0 to 255"),
        ("num_ranks 2\nrank 0 {\ncalc 9999999999999999999\n}", "line 3: 9999999999999999999; accepted"),
        ("num_ranks 2\nrank 0 {\na: calc 1\na: calc 1\n}", "line 4: label a a second time"),
        ("num_ranks 2\nrank 0 {\na: calc 1\na requires b\n}", "line 4: label b is not in this rank"),
        ("num_ranks 2\nrank 0 {\na: calc 1\n}\nrank 1 {\nb: calc 1\nb requires a\n}", "line 7: label a is not"),
    ],
)
def test_bad_text_is_an_error_with_its_line(text, what):
    with pytest.raises(UserError) as caught:
        goal.parse(text, "x.goal")
    assert str(caught.value).startswith("x.goal")
    assert what in str(caught.value)
    assert "\n" not in str(caught.value)


def test_cyclic_dependencies_are_stuck():
    with pytest.raises(StuckError, match="2 of 2"):
        simulate(goal.parse("num_ranks 1\nrank 0 {\na: calc 1\nb: calc 1\na requires b\nb requires a\n}"), LETTERS)


def test_files(tmp_path, monkeypatch):
    file = tmp_path / "a.goal"
    file.write_text(TEXT)
    assert goal.read(file).ranks == 3
    with pytest.raises(UserError, match="No such file"):
        goal.read(tmp_path / "b.goal")
    file.write_bytes(b"num_ranks 1\xff")
    with pytest.raises(UserError, match="byte 11 is not ASCII"):
        goal.read(file)
    monkeypatch.setattr(goal, "FILE_LIMIT", 10)
    with pytest.raises(UserError, match="12 bytes; accepted: up to 10"):
        goal.read(file)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="num_rank s{}cdvtogeqi0123456789ab:-/*\n", max_size=200))
def test_no_text_at_all_breaks_the_reader(text):
    try:
        goal.parse("num_ranks 2\n" + text)
    except UserError as error:
        assert "GOAL" in str(error)
