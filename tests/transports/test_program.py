"""From schedules to programs: which way a message goes, and what must be waited for."""

import itertools

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS, build
from busbw.collectives.schedule import INPUT, OUTPUT, RECV, SCRATCH, SEND, Schedule, StepList
from busbw.kernels import cpu
from busbw.transports.memory import LINE, Connection, Layout
from busbw.transports.program import (
    AHEAD,
    AHEAD_END,
    CACHED,
    COLUMNS,
    COUNT,
    DST,
    DST2,
    EAGER,
    FN,
    INLINE,
    IRECV,
    ISEND,
    KIND,
    MPI,
    MPI_WAIT,
    NEXT,
    POST,
    PULL,
    PUSH,
    SLOT,
    STREAM_ALL,
    STREAM_AWAY,
    WAIT,
    A,
    B,
    Peers,
    Tuning,
    causality,
    lower,
)
from busbw.transports.tuning import GPU_SLICES, default_slices, streaming
from hypothesis import given, settings
from hypothesis import strategies as st

MIB = 1 << 20


def peers(rank, ranks, elsewhere=()):
    """Made-up addresses, far apart, for ranks on this host; the ranks `elsewhere` are on another."""
    buffers = np.array([[(r + 1) << 40 | b << 36 for b in range(3)] for r in range(ranks)], np.int64)
    buffers[list(elsewhere)] = 0
    return Peers(rank, buffers, lambda a, b: Connection((a * ranks + b + 1) * (MIB << 3), 1 << 16))


def programs(name, ranks, count, *, tuning=None, elsewhere=(), **options):
    schedule = build(name, ranks, count, **options)
    known = causality(schedule)
    kernels = cpu.pointers("sum", "float32")
    return [
        lower(schedule, known, peers(r, ranks, elsewhere), kernels, 4, tuning or Tuning(eager_bytes=512))
        for r in range(ranks)
        if r not in elsewhere
    ]


def test_every_send_meets_one_receive():
    for name in ALGORITHMS:
        c = causality(build(name, 7, 100))
        sends = np.flatnonzero(c.steps["op"] == SEND)
        assert np.array_equal(c.mate[c.mate[sends]], sends)
        assert len(set(c.mate[sends])) == len(sends)


def test_a_stuck_schedule_is_refused():
    tables = []
    for rank in range(2):
        t = StepList()
        t.recv(1 - rank, OUTPUT, 0, 4)
        t.send(1 - rank, INPUT, 0, 4)
        tables.append(t.table())
    with pytest.raises(ValueError, match="gets stuck"):
        causality(Schedule("mine", 2, 4, False, tuple(tables)))


def test_unmatched_messages_are_refused():
    one, other = StepList(), StepList()
    one.send(1, INPUT, 0, 4)
    other.recv(0, OUTPUT, 0, 3)
    with pytest.raises(ValueError, match="do not match"):
        causality(Schedule("mine", 2, 4, False, (one.table(), other.table())))


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("ranks", [2, 3, 4, 7])
def test_all_gather_of_ring_and_two_shot_may_be_pushed(ranks, in_place):
    """The owner of a chunk has, by reducing it, heard from everyone who could still need the place it goes to."""
    for name in ("ring", "two-shot"):
        c = causality(build(name, ranks, 5 * ranks, in_place=in_place))
        gathers = np.flatnonzero((c.steps["op"] == SEND) & (c.steps[np.maximum(c.mate, 0)]["op"] == RECV))
        assert c.pushable[gathers].all()


def test_nothing_is_pushed_to_a_rank_that_was_not_heard_from():
    one, other = StepList(), StepList()
    one.send(1, INPUT, 0, 4)
    other.recv(0, OUTPUT, 0, 4)
    c = causality(Schedule("broadcast", 2, 4, False, (one.table(), other.table())))
    assert not c.pushable.any()
    assert not c.known.any()


def test_nothing_is_pushed_over_what_the_receiver_still_sends():
    """Rank 1 sends its output to rank 2 late; rank 0, having heard from rank 1 earlier, must not overwrite it."""
    a, b, c = StepList(), StepList(), StepList()
    b.send(0, INPUT, 0, 4)
    a.recv(1, OUTPUT, 0, 4)
    a.send(1, INPUT, 0, 4)
    b.copy((INPUT, 0), (OUTPUT, 0), 4)
    sent = b.send(2, OUTPUT, 0, 4)
    c.recv(1, OUTPUT, 0, 4)
    b.recv(0, OUTPUT, 0, 4, after=sent)
    found = causality(Schedule("mine", 3, 4, False, (a.table(), b.table(), c.table())))
    assert not found.pushable.any()


def modes(ps):
    return np.sum([p.modes for p in ps], axis=0)


def test_the_way_of_a_message_follows_its_size():
    small, middle, large = (modes(programs("ring", 2, count)) for count in (2, 100, MIB))
    assert small[INLINE] == 4 and small.sum() == 4
    assert middle[EAGER] == 4 and middle.sum() == 4
    assert large[PULL] == 2 and large[PUSH] == 2 and large.sum() == 4


def test_a_longer_inline_message_is_lines_that_each_carry_a_flag():
    for p in programs("one-shot", 2, 50, tuning=Tuning(inline_lines=4)):
        assert p.modes[INLINE] == sum(p.modes) == 1
        sends = [row for row in p.code[0] if row[POST]]
        receives = [row for row in p.code[0] if row[WAIT]]
        assert [int(row[COUNT]) for row in sends] == [56, 56, 56, 32]  # bytes
        assert [int(row[COUNT]) for row in receives] == [14, 14, 14, 8]  # elements
        assert len({int(row[POST]) for row in sends}) == len({int(row[WAIT]) for row in receives}) == 4
        # What it asks for while it waits is what the next all-reduce posts on.
        assert [int(row[NEXT]) for row in sends] == [int(row[POST]) for row in p.code[1] if row[POST]]
    assert programs("one-shot", 2, 57, tuning=Tuning(inline_lines=4))[0].modes[EAGER] == 1


def test_who_sends_through_a_mailbox_asks_for_the_next_ones_lines():
    for p in programs("ring", 2, 100, tuning=Tuning(ahead=True)):
        assert p.modes[EAGER] == sum(p.modes) == 2
        now, after = ([row for row in turn if row[NEXT]] for turn in p.code)
        assert len(now) == 2
        for row, its_next in zip(now, after):
            assert row[NEXT] == its_next[POST] != row[POST]
            assert (row[AHEAD], row[AHEAD_END]) == (its_next[DST], its_next[DST] + 200)
        # Each message has a flag of its own.
        assert len({int(row[POST]) for row in p.code[0] if row[POST]}) == 2
    # Where mailboxes are many, whoever has taken what was in one has long gone on: nothing is asked for but its flag.
    for row in programs("binomial", 2, 50, tuning=Tuning(ahead=True, depth=4), collective="broadcast")[0].code[0]:
        assert row[AHEAD] == row[AHEAD_END] == 0


def test_two_ranks_reduce_and_distribute_in_one_pass():
    """A large ring over two ranks is one announcement, one fused reduction into both outputs, and one wait."""
    (first, _) = programs("ring", 2, MIB)
    calls = [row for row in first.code[0] if row[FN]]
    assert len(calls) == 1
    assert calls[0][FN] == cpu.pointers("sum", "float32").reduce_final_both
    here, there = (peers(0, 2).buffers[r, OUTPUT] for r in (0, 1))
    assert {int(calls[0][DST]), int(calls[0][DST2])} == {int(here), int(there)}
    assert len(first.code[0]) == 3


def test_epochs_alternate_between_mailboxes_and_nothing_else_differs():
    for p in programs("two-shot", 3, 300):
        even, odd = p.code
        differing = {int(column) for column in np.nonzero(even != odd)[1]}
        assert differing <= {WAIT, POST, DST, A, B, NEXT}
        assert differing


def test_pulled_sends_are_acknowledged_where_nothing_else_tells():
    """One-shot's large sends are pulled, and no later message says that they were: the sender waits for acks at its end."""
    for p in programs("one-shot", 2, MIB):
        last = p.code[0][-1]
        assert last[FN] == 0 and last[WAIT] != 0


@given(
    name=st.sampled_from(list(ALGORITHMS)),
    ranks=st.integers(2, 6),
    count=st.integers(1, 4000),
    in_place=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_mpi_request_is_posted_once_and_waited_for_once(name, ranks, count, in_place):
    elsewhere = set(range(ranks)) - {0}
    (p,) = programs(name, ranks, count, elsewhere=elsewhere, in_place=in_place)
    rows = p.code[0]
    posted = [int(r[SLOT]) for r in rows if r[KIND] in (ISEND, IRECV)]
    waited = [int(r[SLOT]) for r in rows if r[KIND] == MPI_WAIT]
    assert sorted(posted) == sorted(waited) == list(range(p.requests))
    order = {slot: i for i, slot in enumerate(posted)}
    seen = set()
    for r in rows:
        if r[KIND] in (ISEND, IRECV):
            seen.add(int(r[SLOT]))
        elif r[KIND] == MPI_WAIT:
            assert int(r[SLOT]) in seen
    assert len(order) == len(posted)
    assert p.modes[MPI] == sum(r[KIND] == ISEND for r in rows)


def test_mpi_receives_are_posted_ahead_where_their_place_is_free():
    (p,) = programs("ring", 4, 4096, elsewhere={1, 2, 3}, slices=2)
    kinds = [int(k) for k in p.code[0][:, KIND]]
    first_wait = kinds.index(MPI_WAIT)
    assert kinds[:first_wait].count(IRECV) >= 2


def test_an_mpi_message_of_two_gib_is_refused():
    with pytest.raises(ValueError, match="--slices"):
        programs("binomial", 2, 600 * MIB, elsewhere={1})


def test_results_stream_only_where_they_outgrow_the_cache():
    kernels = cpu.pointers("sum", "float32")
    for tuning, expected in (
        (CACHED, kernels.reduce_final_both),
        (STREAM_AWAY, kernels.reduce_final_both_nt2),
        (STREAM_ALL, kernels.reduce_final_both_nt),
    ):
        (p, _) = programs("two-shot", 2, MIB, tuning=Tuning(512, tuning))
        assert expected in p.code[0][:, FN]
        (p, _) = programs("two-shot", 2, MIB, tuning=Tuning(512, tuning), in_place=True)
        assert kernels.reduce_final_both in p.code[0][:, FN]  # its lines are in the cache, being its sources


def test_streaming_thresholds_are_ordered():
    cache = 32 << 20
    assert [streaming(int(f * cache), cache) for f in (0.5, 1, 3)] == [CACHED, STREAM_AWAY, STREAM_ALL]


def test_slices_pipeline_large_messages_only():
    assert default_slices("ring", 4, 1024) == 1
    assert default_slices("ring", 4, 64 * MIB) > 1
    assert default_slices("ring", 2, 64 * MIB) == 1
    assert default_slices("recursive-doubling", 4, 64 * MIB) == 1


@given(
    algorithm=st.sampled_from(list(ALGORITHMS)), ranks=st.integers(2, 16), nbytes=st.integers(0, 4096 * MIB)
)  # fmt: skip
def test_a_gpu_gets_calls_that_are_long_beside_its_flags(algorithm, ranks, nbytes):
    slices = default_slices(algorithm, ranks, nbytes, GPU_SLICES)
    if nbytes < 64 * MIB:
        assert slices == 1
    if slices > 1:
        assert nbytes // max(2, 2 if algorithm in ("tree", "node-tree") else ranks) // slices >= 32 * MIB
    assert default_slices("ring", 4, 256 * MIB, GPU_SLICES) == 2
    assert default_slices("tree", 4, 1024 * MIB, GPU_SLICES) == 16


@given(ranks=st.integers(1, 64), buffer=st.integers(0, 10 * MIB), scratch=st.integers(0, 10 * MIB))
def test_nothing_in_an_arena_overlaps(ranks, buffer, scratch):
    layout = Layout(ranks, buffer, scratch)
    last = ranks - 1
    places = []
    for r in {0, ranks // 2, last}:
        places.append((layout.rank_control(r), 2 * LINE))
        places.append((layout.samples(r), 8 * 4096))
        for which, size in ((INPUT, buffer), (OUTPUT, buffer), (SCRATCH, scratch)):
            places.append((layout.buffer(r, which), size))
        for other in {0, last}:
            link = Connection(layout.connection(r, other), layout.bulk_bytes)
            places.append((link.base, link.mailbox(1) + layout.bulk_bytes - link.base))
    places = sorted(p for p in places if p[1])
    for (start, size), (following, _) in itertools.pairwise(places):
        assert start + size <= following
    assert max(start + size for start, size in places) <= layout.total_bytes
    assert all(start % LINE == 0 for start, _ in places)


def test_rows_are_two_cache_lines():
    assert COLUMNS * 8 == 2 * LINE
