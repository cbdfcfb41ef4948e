"""The prover passes every algorithm, and catches tables broken in each way it claims to exclude."""

from dataclasses import replace

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS, REGISTRY, Schedule, algorithms, build
from busbw.collectives.collective import COLLECTIVES
from busbw.collectives.prove import CHANNELS, FINAL, HAZARD, MATCH, ONCE, THREAD, prove, prove_all
from busbw.collectives.schedule import COPY, INPUT, OUTPUT, RECV, RECV_REDUCE, REDUCE, SCRATCH, SEND, STEP, StepList
from hypothesis import given, settings
from hypothesis import strategies as st

EVERYWHERE = [(c, name) for c in COLLECTIVES for name in algorithms(c)]


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_every_algorithm_of_every_collective_is_proven(data):
    collective, name = data.draw(st.sampled_from(EVERYWHERE))
    algorithm, c = REGISTRY[collective][name], COLLECTIVES[collective]
    ranks = data.draw(st.integers(1, 40))
    count = data.draw(st.sampled_from([0, 1, ranks - 1, ranks, 3 * ranks + 1, 9000]))
    proof = prove(
        build(
            name,
            ranks,
            count,
            collective=c,
            root=data.draw(st.integers(0, ranks - 1)),
            channels=data.draw(st.integers(1, 3)) if algorithm.takes_channels else 1,
            slices=data.draw(st.integers(1, 3)) if algorithm.takes_slices else 1,
            in_place=c.in_place and data.draw(st.booleans()),
        )
    )
    assert proof.problems == ()
    assert proof.identical
    assert len(proof.proven) == 7


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_algorithm_is_proven(data):
    name = data.draw(st.sampled_from(list(ALGORITHMS)))
    ranks = data.draw(st.integers(1, 24))
    count = data.draw(st.sampled_from([0, 1, ranks - 1, ranks, 3 * ranks + 1, 1000]))
    few = st.integers(1, 4)
    channels = data.draw(few) if ALGORITHMS[name].takes_channels else 1
    slices = data.draw(few) if ALGORITHMS[name].takes_slices else 1
    in_place = data.draw(st.booleans())
    proof = prove(build(name, ranks, count, channels=channels, slices=slices, in_place=in_place))
    assert proof.problems == ()
    assert proof.identical
    assert len(proof.proven) == 7


@pytest.mark.parametrize("name", ["ring", "tree", "recursive-doubling"])
def test_a_large_world_is_proven(name):
    assert prove(build(name, 256, 777, in_place=True)).ok


def test_prove_all_covers_what_it_says():
    seen = list(prove_all(5, algorithms=["ring", "two-shot", "binomial"]))
    assert all(proof.ok and proof.identical for *_, proof in seen)
    ring = [(ranks, tuple(options.items())) for name, ranks, options, _ in seen if name == "ring"]
    assert len(ring) == len(set(ring))
    assert {options["count"] for name, ranks, options, _ in seen if ranks == 4} == {0, 1, 3, 4, 13}
    assert {options["in_place"] for *_, options, _ in seen} == {False, True}
    assert {options.get("channels") for name, _, options, _ in seen if name == "ring"} == {1, 2}
    assert {options.get("slices") for name, _, options, _ in seen if name == "two-shot"} == {1, 2, 3}
    assert all("slices" not in options for name, _, options, _ in seen if name == "binomial")


def drop(schedule, rank, row):
    """The schedule without one step, `after` of the others kept on their steps."""
    table = schedule.tables[rank]
    after = table["after"]
    after[after == row] = -1
    after[after > row] -= 1
    tables = list(schedule.tables)
    tables[rank] = np.delete(table, row)
    return replace(schedule, tables=tuple(tables))


def text(proof):
    return "\n".join(proof.problems)


@pytest.mark.parametrize(("collective", "name"), EVERYWHERE)
def test_a_dropped_step_is_caught(collective, name):
    def make():
        return build(name, 4, 8, collective=collective, root=1, nodes=2)

    for rank in range(4):
        for row in range(len(make().tables[rank])):
            schedule = make()
            op = schedule.tables[rank][row]["op"]
            proof = prove(drop(schedule, rank, row))
            assert not proof.ok
            if op in (SEND, RECV, RECV_REDUCE):
                assert MATCH not in proof.proven
                assert f"rank {rank}" in text(proof)


def test_a_message_dropped_on_both_sides_leaves_a_contribution_out():
    # Binomial tree of 4: rank 3 gives its contribution to rank 2.
    schedule = build("binomial", 4, 8)
    schedule = drop(drop(schedule, 3, 0), 2, 0)
    proof = prove(schedule)
    assert MATCH in proof.proven and ONCE not in proof.proven
    assert "without the contribution of rank 3" in text(proof) or "never written" in text(proof)


@pytest.mark.parametrize("name", ["ring", "two-shot", "one-shot"])
def test_receiving_before_sending_deadlocks(name):
    schedule = build(name, 3, 9)
    for table in schedule.tables:
        first = int(np.argmax(table["op"] == RECV_REDUCE))
        table[: first + 1] = np.concatenate([table[first : first + 1], table[:first]])
        sends = np.flatnonzero(table["op"] == SEND)
        if name != "ring":  # move the receive before the sends it feeds on: all of them
            assert sends[0] > 0
    proof = prove(schedule)
    assert CHANNELS not in proof.proven
    assert "deadlock" in text(proof) and "waits for" in text(proof)


def test_waiting_for_a_fused_exchange_to_be_taken_deadlocks():
    """Both reduce into what they send, each waiting until the other has taken it."""
    tables = []
    for rank in range(2):
        s = StepList()
        sent = s.send(1 - rank, OUTPUT, 0, 4)
        s.recv_reduce(1 - rank, (OUTPUT, 0), (OUTPUT, 0), 4, final=True, after=sent)
        tables.append(s.table())
    proof = prove(Schedule("exchange", 2, 4, True, tuple(tables)))
    assert CHANNELS not in proof.proven
    assert "its send 0 to be taken" in text(proof)
    for table in tables:
        table["after"] = -1
    proof = prove(Schedule("exchange", 2, 4, True, tuple(tables)))
    assert CHANNELS in proof.proven and HAZARD not in proof.proven


def test_a_table_order_that_only_suits_concurrent_channels_is_told_apart():
    """Two channels that each work, in opposite table orders: one thread a rank gets stuck."""
    tables = []
    for rank in range(2):
        s = StepList()
        for channel in (0, 1) if rank == 0 else (1, 0):
            s.send(1 - rank, INPUT, 2 * channel, 2, channel=channel)
            at = (2 * channel,)
            s.recv_reduce(1 - rank, (INPUT, *at), (OUTPUT, *at), 2, final=True, channel=channel)
        tables.append(s.table())
    proof = prove(Schedule("crossed", 2, 4, False, tuple(tables)))
    assert CHANNELS in proof.proven and THREAD not in proof.proven
    assert ONCE in proof.proven and HAZARD in proof.proven
    assert all("one thread a rank" in problem for problem in proof.problems)


def test_a_contribution_added_twice_is_caught():
    schedule = build("one-shot", 3, 4)
    table = schedule.tables[0]
    extra = np.zeros(1, STEP)
    extra["op"], extra["peer"], extra["after"], extra["count"] = REDUCE, -1, -1, 4
    extra["src_buffer"], extra["dst_buffer"] = INPUT, OUTPUT
    schedule = Schedule("one-shot", 3, 4, False, (np.concatenate([table, extra]), *schedule.tables[1:]))
    proof = prove(schedule)
    assert ONCE not in proof.proven
    assert "rank 0 step" in text(proof) and "share a contribution" in text(proof) and "output[0:4]" in text(proof)


@pytest.mark.parametrize(("collective", "name"), EVERYWHERE)
def test_a_result_from_another_place_or_rank_is_caught(collective, name):
    """A block read or written one element further on, or sent to another rank, makes the output wrong or the schedule stuck."""
    found = 0
    schedule = build(name, 5, 6, collective=collective, root=2, nodes=3)
    for rank, table in enumerate(schedule.tables):
        for row in range(len(table)):
            for field, by in (("src_offset", 1), ("dst_offset", 1), ("peer", 1)):
                unused = {"src_offset": (RECV,), "dst_offset": (SEND,), "peer": (REDUCE, COPY)}[field]
                if table["op"][row] in unused:
                    continue
                tables = [t.copy() for t in schedule.tables]
                tables[rank][field][row] = (
                    tables[rank][field][row] % 5 + by if field == "peer" else table[field][row] + by
                )
                assert not prove(replace(schedule, tables=tuple(tables))).ok, (rank, row, field)
                found += 1
    assert found


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_another_collectives_tables_are_not_proven(collective):
    """The goal is the collective's own: tables of one do not pass for another of the same buffers."""
    c = COLLECTIVES[collective]
    for other in COLLECTIVES.values():
        for name in algorithms(other):
            schedule = build(name, 4, 3, collective=other, root=1, nodes=2)
            proof = prove(replace(schedule, collective=c, root=1))
            # What an all-reduce leaves at the root is a reduction; but it writes where only the root may.
            assert proof.ok == (other == c), (name, other.name)


@pytest.mark.parametrize("collective", [c for c in COLLECTIVES if COLLECTIVES[c].in_place])
def test_in_place_only_the_output_is_written(collective):
    """A rank may not write what is of its input alone."""
    c = COLLECTIVES[collective]
    if c.output_blocks == "each" or c.input_blocks == "one":
        return
    name = next(iter(algorithms(c)))
    schedule = build(name, 3, 4, collective=c, in_place=True)
    tables = list(schedule.tables)
    extra = StepList()
    extra.copy((INPUT, 0), (INPUT, 4), 4)
    tables[0] = np.concatenate([tables[0], extra.table()])
    assert "not the rank's output" in text(prove(replace(schedule, tables=tuple(tables))))


def waits():
    for collective, name in EVERYWHERE:
        for ranks in (2, 3, 4, 5, 7, 8):
            for in_place in (False, True) if COLLECTIVES[collective].in_place else (False,):
                tables = build(name, ranks, 4, collective=collective, in_place=in_place, nodes=2).tables
                for rank, table in enumerate(tables):
                    for row in np.flatnonzero(table["after"] >= 0):
                        yield collective, name, ranks, in_place, rank, int(row)


def test_every_wait_is_needed():
    """Taking away any single `after` of any algorithm is a hazard."""
    cases = list(waits())
    assert len(cases) > 50
    for collective, name, ranks, in_place, rank, row in cases:
        schedule = build(name, ranks, 4, collective=collective, in_place=in_place, nodes=2)
        schedule.tables[rank]["after"][row] = -1
        proof = prove(schedule)
        assert HAZARD not in proof.proven, (collective, name, ranks, in_place, rank, row)
        assert f"rank {rank} step" in text(proof) and "unordered with the read by" in text(proof)


@pytest.mark.parametrize(("collective", "name"), [x for x in EVERYWHERE if COLLECTIVES[x[0]].reduces])
def test_a_wrong_final_mark_is_caught(collective, name):
    def make():
        return build(name, 4, 8, collective=collective, root=3, nodes=2)

    for rank in range(4):
        for row in np.flatnonzero(np.isin(make().tables[rank]["op"], (RECV_REDUCE, REDUCE))):
            schedule = make()
            schedule.tables[rank]["final"][row] ^= 1
            proof = prove(schedule)
            assert FINAL not in proof.proven and ONCE in proof.proven
            assert f"rank {rank} step {row} " in text(proof)
            assert "final" in text(proof)


def test_unequal_counts_are_caught():
    schedule = build("ring", 4, 8)
    schedule.tables[2]["count"][1] -= 1
    proof = prove(schedule)
    assert MATCH not in proof.proven
    assert "2 elements against 1" in text(proof)


def test_a_result_in_the_wrong_place_is_caught():
    schedule = build("ring", 2, 8)
    last = schedule.tables[0][-1]
    assert last["op"] == RECV
    last["dst_buffer"] = SCRATCH
    proof = prove(schedule)
    assert "rank 0: output[4:8] is never written" in text(proof)
    schedule = build("binomial", 2, 8)
    half = len(schedule.tables[1])
    receive = schedule.tables[1][half - 1]
    receive["count"], receive["dst_offset"] = 4, 4
    schedule.tables[0]["count"][-1] = 4
    proof = prove(schedule)
    assert "rank 1: output[4:8] ends with the elements from 0 on" in text(proof)


def test_reading_what_nobody_wrote_is_caught():
    schedule = build("ring", 3, 6)
    schedule.tables[1]["src_buffer"][0] = OUTPUT
    proof = prove(schedule)
    assert ONCE not in proof.proven and "was never written" in text(proof)


def test_two_channels_that_write_the_same_place_are_caught():
    tables = []
    for rank in range(2):
        s = StepList()
        s.send(1 - rank, INPUT, 0, 4)
        s.recv_reduce(1 - rank, (INPUT, 0), (OUTPUT, 0), 4, final=True)
        s.copy((INPUT, 0), (OUTPUT, 2), 2, channel=1)
        tables.append(s.table())
    proof = prove(Schedule("racy", 2, 4, False, tuple(tables)))
    assert HAZARD not in proof.proven and "unordered with the write by" in text(proof)


def test_different_sums_on_different_ranks_are_not_identical():
    """All ranks reduce all inputs, each starting at itself: right, but not the same bits."""
    tables = []
    for rank in range(3):
        s = StepList()
        peers = [(rank + 1) % 3, (rank + 2) % 3]
        for peer in peers:
            s.send(peer, INPUT, 0, 1)
        s.recv_reduce(peers[0], (INPUT, 0), (OUTPUT, 0), 1)
        s.recv_reduce(peers[1], (OUTPUT, 0), (OUTPUT, 0), 1, final=True)
        tables.append(s.table())
    proof = prove(Schedule("own first", 3, 1, False, tuple(tables)))
    assert proof.ok and not proof.identical


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("op", 0, "unknown op"),
        ("op", 7, "unknown op"),
        ("final", 1, "final must be"),
        ("channel", -1, "channel must be"),
        ("channel", 1 << 30, "channel must be"),
        ("peer", 3, "no such peer"),
        ("peer", 0, "no such peer"),
        ("after", 0, "earlier step"),
        ("src_offset", 7, "outside its buffer"),
        ("src_offset", -1, "outside its buffer"),
        ("src_offset", (1 << 63) - 1, "outside its buffer"),
        ("count", 0, "moves no elements"),
        ("src_buffer", 3, "no such src_buffer"),
    ],
)
def test_malformed_steps_are_named(field, value, says):
    schedule = build("ring", 3, 6)
    assert schedule.tables[0]["op"][0] == SEND
    schedule.tables[0][field][0] = value
    proof = prove(schedule)
    assert proof.proven == ()
    assert any("rank 0 step 0" in problem and says in problem for problem in proof.problems)


def test_writing_the_input_is_refused_unless_in_place():
    schedule = build("ring", 2, 6)
    schedule.tables[0]["dst_buffer"][1] = INPUT
    assert "writes INPUT" in text(prove(schedule))


def test_tables_must_be_one_a_rank_and_of_steps():
    schedule = build("ring", 2, 6)
    assert "1 tables for 2 ranks" in text(prove(Schedule("ring", 2, 6, False, schedule.tables[:1])))
    assert "not one of STEP rows" in text(prove(Schedule("ring", 2, 6, False, (np.zeros(3), schedule.tables[1]))))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3), st.booleans(), st.data())
def test_nonsense_is_reported_not_raised(ranks, in_place, data):
    rows = st.tuples(
        st.integers(1, 6),
        st.integers(0, 1),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 1),
        st.integers(-1, ranks - 1),
        st.integers(-1, 3),
        st.integers(0, 4),
        st.integers(0, 4),
        st.integers(1, 3),
    )
    tables = tuple(np.array(data.draw(st.lists(rows, max_size=6)), STEP) for _ in range(ranks))
    proof = prove(Schedule("nonsense", ranks, 4, in_place, tables))
    assert proof.ok == (proof.problems == ())
    assert proof.ok == (len(proof.proven) == 7)
