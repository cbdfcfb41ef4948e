"""Every algorithm's tables, walked by a small executor that knows only schedule.py's words, give what NumPy says.

The executor moves no copy of a message: a receive reads the sender's buffer when it runs, which is at a random one of the
times the contract allows. So what is overwritten too early comes out wrong.
"""

import random

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS, algorithms, build
from busbw.collectives.collective import COLLECTIVES
from busbw.collectives.schedule import COPY, INPUT, NOP, OUTPUT, RECV, RECV_REDUCE, REDUCE, SEND
from hypothesis import given, settings
from hypothesis import strategies as st

# The steps of all ranks grow as p^2 for some; this keeps an example below half a second.
LARGEST = {
    "ring": 64,
    "tree": 300,
    "binomial": 300,
    "recursive-doubling": 300,
    "halving-doubling": 300,
    "one-shot": 48,
    "two-shot": 48,
    "node-tree": 200,
    "hierarchical": 48,
    "hierarchical-tree": 48,
    "hierarchical-doubling": 48,
    "torus": 48,
}


class Deadlock(Exception):
    pass


def execute(schedule, inputs, *, seed=0, one_thread=False, average=False):
    """Runs the tables over copies of `inputs`; returns (inputs after, outputs). Raises Deadlock."""
    chance = random.Random(seed)
    p = schedule.ranks
    memory = []
    for rank, x in enumerate(inputs):
        poison = np.full(schedule.output_count, np.nan).astype(x.dtype)
        own = x.copy()
        if schedule.in_place:
            at = schedule.collective.offsets(rank, p, schedule.count)[0]
            poison[at : at + len(x)] = x
            own = poison
        memory.append((own, poison, np.full(schedule.scratch, np.nan).astype(x.dtype)))

    lines = {}
    for rank, table in enumerate(schedule.tables):
        for i, step in enumerate(table.tolist()):
            lines.setdefault((rank, 0 if one_thread else step[4]), []).append((i, step))
    at = dict.fromkeys(lines, 0)
    sent, complete, waiting = {}, set(), {}
    ready = list(lines)

    def finish(rank, i):
        complete.add((rank, i))
        ready.extend(waiting.pop((rank, i), ()))

    while ready:
        pick = chance.randrange(len(ready))
        ready[pick], ready[-1] = ready[-1], ready[pick]
        line = ready.pop()
        rank = line[0]
        patience = chance.choice((1, 3, 1000))
        while at[line] < len(lines[line]):
            i, (op, final, src_buffer, dst_buffer, channel, peer, after, src_offset, dst_offset, n) = lines[line][
                at[line]
            ]
            if after >= 0 and (rank, after) not in complete:
                waiting.setdefault((rank, after), []).append(line)
                break
            if op in (RECV, RECV_REDUCE) and not sent.get((peer, rank, channel)):
                waiting.setdefault(("sent", peer, rank, channel), []).append(line)
                break
            if patience == 0:
                ready.append(line)
                break
            patience -= 1
            at[line] += 1
            src = memory[rank][src_buffer][src_offset : src_offset + n]
            dst = memory[rank][dst_buffer][dst_offset : dst_offset + n]
            if op == SEND:
                sent.setdefault((rank, peer, channel), []).append((i, src))
                ready.extend(waiting.pop(("sent", rank, peer, channel), ()))
                continue
            if op in (RECV, RECV_REDUCE):
                sender_step, message = sent[peer, rank, channel].pop(0)
                assert len(message) == n
                dst[:] = message if op == RECV else src + message
            elif op == REDUCE:
                dst[:] = src + dst
            elif op == COPY:
                dst[:] = src
            else:
                assert op == NOP
            if average and final:
                dst /= p
            finish(rank, i)
            if op in (RECV, RECV_REDUCE):
                finish(peer, sender_step)
    if any(at[line] < len(lines[line]) for line in lines):
        raise Deadlock
    assert not any(sent.values()), "a message was never received"
    return [m[INPUT] for m in memory], [m[OUTPUT] for m in memory]


@st.composite
def schedules(draw, largest=None):
    """A schedule of any algorithm, small p more often than large."""
    name = draw(st.sampled_from(list(ALGORITHMS)))
    most = largest or LARGEST[name]
    ranks = draw(st.one_of(st.integers(1, min(9, most)), st.integers(1, min(33, most)), st.integers(1, most)))
    few = st.integers(0, 2 * ranks)
    count = draw(st.one_of(few, st.sampled_from([ranks - 1, ranks, 3 * ranks + 1]), st.integers(0, 300)))
    limit = 5 if ranks <= 9 else 2
    return build(
        name,
        ranks,
        count,
        channels=draw(st.integers(1, limit)) if ALGORITHMS[name].takes_channels else 1,
        slices=draw(st.integers(1, limit)) if ALGORITHMS[name].takes_slices else 1,
        in_place=draw(st.booleans()),
    )


@settings(max_examples=150, deadline=None)
@given(schedules(), st.integers(0, 1 << 30), st.booleans())
def test_every_rank_gets_the_mean_exactly(schedule, seed, one_thread):
    # Whole numbers in float64 add exactly in any order; the division happens where `final` says, so it happens once.
    inputs = np.random.default_rng(seed).integers(-(1 << 20), 1 << 20, (schedule.ranks, schedule.count)).astype(float)
    after, outputs = execute(schedule, inputs, seed=seed, one_thread=one_thread, average=True)
    want = np.sum(inputs, axis=0) / schedule.ranks
    for rank in range(schedule.ranks):
        np.testing.assert_array_equal(outputs[rank], want)
        if not schedule.in_place:
            np.testing.assert_array_equal(after[rank], inputs[rank])


@settings(max_examples=100, deadline=None)
@given(schedules(), st.integers(0, 1 << 30))
def test_every_rank_gets_the_same_bits(schedule, seed):
    # Magnitudes from 1e-6 to 1e6: two orders of a sum differ nearly always.
    noise = np.random.default_rng(seed)
    shape = (schedule.ranks, schedule.count)
    inputs = (noise.normal(size=shape) * 10.0 ** noise.integers(-6, 6, shape)).astype(np.float32)
    _, outputs = execute(schedule, inputs, seed=seed)
    scale = np.sum(np.abs(inputs), axis=0, dtype=float)
    for out in outputs:
        assert out.tobytes() == outputs[0].tobytes()
        error = np.abs(out - np.sum(inputs, axis=0, dtype=float))
        assert (error <= scale * np.finfo(np.float32).eps * max(1, schedule.ranks)).all()


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("in_place", [False, True])
def test_small_worlds_and_awkward_counts(name, in_place):
    algorithm = ALGORITHMS[name]
    for ranks in range(1, 10):
        for count in sorted({0, 1, ranks - 1, ranks, 3 * ranks + 1}):
            for pieces in (1, 3):
                options = {"channels": pieces} if algorithm.takes_channels else {}
                options |= {"slices": pieces} if algorithm.takes_slices else {}
                schedule = build(name, ranks, count, in_place=in_place, **options)
                inputs = [np.arange(count) + 1000.0**r for r in range(ranks)]
                _, outputs = execute(schedule, inputs, seed=ranks + count)
                for out in outputs:
                    np.testing.assert_allclose(out, np.sum(inputs, axis=0), rtol=1e-12)


def test_the_executor_sees_a_result_that_overwrites_what_is_being_sent():
    # The executor is what these tests rest on: without its `after`, one-shot in place must come out wrong sometimes.
    schedule = build("one-shot", 4, 3, in_place=True)
    for table in schedule.tables:
        table["after"] = -1
    inputs = [np.full(3, 10.0**r) for r in range(4)]
    wrong = 0
    for seed in range(30):
        _, outputs = execute(schedule, inputs, seed=seed)
        wrong += any((out != 1111).any() for out in outputs)
    assert wrong > 0


@settings(max_examples=300, deadline=None)
@given(schedules(largest=7), st.data())
def test_a_changed_table_that_is_proven_still_gives_the_sum(schedule, data):
    """The prover is sound: what it lets pass, the executor gets right."""
    from busbw.collectives.prove import CHANNELS, prove

    busy = [r for r in range(schedule.ranks) if len(schedule.tables[r])]
    if not busy:
        return
    table = schedule.tables[data.draw(st.sampled_from(busy), label="rank")]
    row = data.draw(st.integers(0, len(table) - 1), label="row")
    change = data.draw(st.sampled_from(["swap", "after", "field", "channel"]), label="change")
    if change == "swap" and row:
        table[[row, row - 1]] = table[[row - 1, row]]
    elif change == "after":
        table["after"][row] = data.draw(st.integers(-1, row - 1))
    elif change == "channel":
        table["channel"][row] = data.draw(st.integers(0, 2))
    else:
        field = data.draw(st.sampled_from(["src_buffer", "dst_buffer", "src_offset", "dst_offset", "op", "final"]))
        table[field][row] = data.draw(st.integers(0, 6))

    proof = prove(schedule)
    if not proof.ok:
        return
    assert CHANNELS in proof.proven
    inputs = np.random.default_rng(0).integers(-99, 99, (schedule.ranks, schedule.count)).astype(float)
    for seed in range(6):
        _, outputs = execute(schedule, inputs, seed=seed, one_thread=seed % 2 == 1, average=True)
        for out in outputs:
            np.testing.assert_array_equal(out, np.sum(inputs, axis=0) / schedule.ranks)


def expected(name, inputs, root):
    """What NumPy says each rank's output is, None where it has none. inputs: float [ranks, elements]."""
    p = len(inputs)
    n = inputs.shape[1] // p
    blocks = inputs[:, : n * p].reshape(p, p, n)
    total = inputs.sum(axis=0)
    return {
        "all_reduce": lambda r: total,
        "reduce_scatter": lambda r: total[r * n : (r + 1) * n],
        "all_gather": lambda r: inputs.ravel(),
        "broadcast": lambda r: inputs[root],
        "reduce": lambda r: total if r == root else None,
        "alltoall": lambda r: blocks[:, r].ravel(),
        "gather": lambda r: inputs.ravel() if r == root else None,
        "scatter": lambda r: blocks[root, r],
        "sendrecv": lambda r: inputs[r - 1],
        "pingpong": lambda r: inputs[r - r % 2] if r - r % 2 + 1 < p else None,
    }[name]


@settings(max_examples=300, deadline=None)
@given(st.data(), st.integers(0, 1 << 30), st.booleans())
def test_every_collective_gives_what_numpy_says(data, seed, one_thread):
    c = data.draw(st.sampled_from(list(COLLECTIVES.values())))
    name = data.draw(st.sampled_from(list(algorithms(c))))
    ranks = data.draw(st.one_of(st.integers(1, 9), st.integers(1, 24)))
    count = data.draw(st.one_of(st.integers(0, 9), st.just(5000 if ranks < 10 else 3)))
    root = data.draw(st.integers(0, ranks - 1))
    few = st.integers(1, 3)
    nodes = st.one_of(few, st.lists(few, min_size=ranks, max_size=ranks))
    schedule = build(
        name, ranks, count, collective=c, root=root, channels=data.draw(few), slices=data.draw(few), nodes=data.draw(nodes),
        in_place=c.in_place and data.draw(st.booleans()),
    )  # fmt: skip
    inputs = np.random.default_rng(seed).integers(-99, 99, (ranks, c.input_count(ranks, count))).astype(float)
    after, outputs = execute(schedule, inputs, seed=seed, one_thread=one_thread)
    want = expected(c.name, inputs, root)
    for rank in range(ranks):
        if (values := want(rank)) is not None:
            at = c.offsets(rank, ranks, count)[1] * schedule.in_place
            np.testing.assert_array_equal(outputs[rank][at : at + len(values)], values)
        if not schedule.in_place:
            np.testing.assert_array_equal(after[rank], inputs[rank])


def test_a_deadlock_is_seen_by_the_executor_too():
    schedule = build("ring", 3, 6)
    for table in schedule.tables:
        table[[0, 1]] = table[[1, 0]]
    with pytest.raises(Deadlock):
        execute(schedule, [np.zeros(6)] * 3)
