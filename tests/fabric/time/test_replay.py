"""Replay against a slow walker that knows only network.py's words, against physics, and against itself."""

import dataclasses
import random

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS, build
from busbw.collectives.schedule import COPY, NOP, RECV, RECV_REDUCE, REDUCE, SEND, StepList
from busbw.errors import UserError
from busbw.fabric.physics.network import flat, network
from busbw.fabric.time.generated import Generated, steps
from busbw.fabric.time.replay import SPAN_FIELDS, StuckError, replay
from hypothesis import given, settings
from hypothesis import strategies as st

MASK = (1 << 64) - 1


def noise_of(net, rank, index):
    """splitmix64, in whole numbers of Python."""
    x = (net.seed ^ (rank << 40) ^ index) + 0x9E3779B97F4A7C15 & MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & MASK
    return int(net.noise[(x ^ (x >> 31)) >> 52])


def walk(schedule, net, itemsize, seed=0):
    """Finish of each rank; ranks are advanced in a random order. Returns None for a schedule that gets stuck."""
    chance = random.Random(seed)
    p = schedule.ranks
    clock, at, received = [0] * p, [0] * p, [0] * p
    out_free, in_free, sent, taken = {}, {}, {}, {}
    todo = list(range(p))
    blocked = set()
    while todo:
        r = todo.pop(chance.randrange(len(todo)))
        patience = chance.choice((1, 2, 1000))
        table = schedule.tables[r]
        while at[r] < len(table) and patience:
            patience -= 1
            s = table[at[r]]
            op, b, channel, after = int(s["op"]), int(s["peer"]), int(s["channel"]), int(s["after"])
            n = int(s["count"]) * itemsize
            t = clock[r]
            if after >= 0 and table[after]["op"] == SEND:
                if (r, after) not in taken:
                    blocked.add(r)
                    break
                t = max(t, taken[r, after])
            if op in (SEND, RECV, RECV_REDUCE):
                levels = [level for level in range(len(net.groups)) if net.groups[level, r] == net.groups[level, b]]
                k = levels[0] if levels else len(net.groups)
                q = int(net.port[k])
                slowest = max(net.slow[q, r], net.slow[q, b])
                w = int(n * net.byte_ps[k] * slowest + 0.5)
            if op == SEND:
                begin = max(t + int(net.send_overhead[k]), out_free.get((r, q), 0))
                out_free[r, q] = begin + max(int(net.gap[k]), w)
                sent.setdefault((r, b, channel), []).append((begin + int(net.latency[k]), at[r]))
                t = begin
                todo += [x for x in (b,) if x in blocked]
                blocked.discard(b)
            elif op in (RECV, RECV_REDUCE):
                if not sent.get((b, r, channel)):
                    blocked.add(r)
                    break
                head, step = sent[b, r, channel].pop(0)
                first = max(head, in_free.get((r, q), 0))
                in_free[r, q] = first + w
                t = max(t, first + w + noise_of(net, r, received[r])) + int(net.recv_overhead[k])
                received[r] += 1
                if op == RECV_REDUCE:
                    t += int(n * net.reduce_ps[r] + 0.5)
                taken[b, step] = t + int(net.latency[k])
                todo += [x for x in (b,) if x in blocked]
                blocked.discard(b)
            elif op in (REDUCE, COPY):
                t += int(n * (net.reduce_ps[r] if op == REDUCE else net.copy_ps[r]) + 0.5)
            else:
                assert op == NOP
            clock[r] = t
            at[r] += 1
        if at[r] < len(table) and r not in blocked:
            todo.append(r)
    return None if blocked else clock


def schedules(draw, ranks):
    name = draw(st.sampled_from(list(ALGORITHMS)))
    count = draw(st.one_of(st.integers(0, 3 * ranks), st.integers(0, 100_000)))
    pieces = st.integers(1, 3)
    return build(name, ranks, count, channels=draw(pieces), slices=draw(pieces), in_place=draw(st.booleans()))


@st.composite
def networks(draw, ranks, quiet=False):
    levels = draw(st.integers(0, 2))
    size = draw(st.integers(1, 4))
    groups = np.array([np.arange(ranks) // size**level for level in range(1, levels + 1)]).reshape(levels, ranks)
    times = st.integers(0, 10**7)
    rates = st.floats(0, 200, allow_subnormal=False)

    def each(value, length):
        return draw(st.lists(value, min_size=length, max_size=length))

    port = draw(st.sampled_from([None, 0]))
    ports = 1 if port == 0 or levels == 0 else 2
    noise = None
    if not quiet and draw(st.booleans()):
        noise = np.sort(np.random.default_rng(draw(st.integers(0, 9))).integers(0, 10**7, 4096))
    return network(
        groups,
        latency=each(times, levels + 1),
        byte_ps=each(rates, levels + 1),
        send_overhead=each(times, levels + 1),
        recv_overhead=each(times, levels + 1),
        gap=each(times, levels + 1),
        port=port,
        slow=1 + np.random.default_rng(draw(st.integers(0, 9))).integers(0, 2, (ports, ranks)) * 0.7,
        reduce_ps=each(rates, ranks),
        copy_ps=each(rates, ranks),
        noise=noise,
        seed=draw(st.integers(0, 2**31)),
    )


@st.composite
def cases(draw, quiet=False):
    ranks = draw(st.one_of(st.integers(1, 5), st.integers(1, 10)))
    return schedules(draw, ranks), draw(networks(ranks, quiet)), draw(st.sampled_from([1, 2, 4, 8]))


@settings(max_examples=120, deadline=None)
@given(cases(), st.integers(0, 1 << 30))
def test_replay_is_what_the_words_of_the_network_say_in_any_order(case, seed):
    schedule, net, itemsize = case
    got = replay(schedule, net, itemsize)
    assert got.finish.tolist() == walk(schedule, net, itemsize, seed)
    assert got.messages == schedule.messages
    assert 0 <= got.in_flight <= got.messages


@settings(max_examples=100, deadline=None)
@given(cases(quiet=True))
def test_never_faster_than_the_slowest_link_and_never_slower_for_less(case):
    schedule, net, itemsize = case
    p = schedule.ranks
    got = replay(schedule, net, itemsize)
    # Each rank's ports carry what its table says, at the best rate it has; and in all the least an all-reduce can move.
    out = [sum(int(s["count"]) for s in t if s["op"] == SEND) * itemsize for t in schedule.tables]
    size = schedule.count * itemsize
    rate = float(net.byte_ps.min())
    assert max(out) >= 2 * (p - 1) / p * size * 0.999999 - 2 * p * itemsize
    ports = len(net.slow)
    messages = max((len(t) for t in schedule.tables), default=0)
    assert got.picoseconds >= max(out) * rate / ports - messages
    less = dataclasses.replace(
        schedule, tables=tuple(halved(t) for t in schedule.tables), count=(schedule.count + 1) // 2
    )
    assert (replay(less, net, itemsize).finish <= got.finish).all()


def halved(table):
    out = table.copy()
    out["count"] = (out["count"] + 1) // 2
    return out


@settings(max_examples=40, deadline=None)
@given(cases(quiet=True))
def test_never_faster_than_the_longest_chain(case):
    """Without any cost a byte, the time is a longest path: each message costs its latency and overheads."""
    schedule, net, itemsize = case
    zeros = np.zeros(schedule.ranks)
    net = net._replace(byte_ps=np.zeros_like(net.byte_ps), gap=np.zeros_like(net.gap), reduce_ps=zeros, copy_ps=zeros)
    least = int(net.latency.min() + net.send_overhead.min() + net.recv_overhead.min())
    got = replay(schedule, net, itemsize).picoseconds
    assert got >= depth(schedule) * least


def depth(schedule):
    """The most messages that have to follow one another."""
    p = schedule.ranks
    at, so_far, sent = [0] * p, [0] * p, {}
    moved = True
    while moved:
        moved = False
        for r, table in enumerate(schedule.tables):
            while at[r] < len(table):
                s = table[at[r]]
                key = (
                    (r, int(s["peer"]), int(s["channel"]))
                    if s["op"] == SEND
                    else (int(s["peer"]), r, int(s["channel"]))
                )
                if s["op"] == SEND:
                    sent.setdefault(key, []).append(so_far[r] + 1)
                elif s["op"] in (RECV, RECV_REDUCE):
                    if not sent.get(key):
                        break
                    so_far[r] = max(so_far[r], sent[key].pop(0))
                at[r] += 1
                moved = True
    return max(so_far)


@pytest.mark.parametrize("p", [2, 3, 8, 64, 257])
def test_ring_has_its_closed_form(p):
    chunk, latency, o, byte_ps, reduce_ps = 1000, 700_000, 150_000, 10.0, 0.5
    net = flat(p, latency=latency, byte_ps=byte_ps, send_overhead=o, recv_overhead=o, reduce_ps=reduce_ps)
    got = replay(build("ring", p, p * chunk), net, 4)
    wire = int(4 * chunk * byte_ps)
    want = 2 * (p - 1) * (latency + 2 * o + wire) + (p - 1) * int(4 * chunk * reduce_ps)
    assert got.finish.tolist() == [want] * p
    assert got.seconds == want / 1e12


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(["ring", "tree"]), st.integers(1, 40), st.booleans())
def test_generated_steps_give_the_same_times_as_tables(data, name, ranks, in_place):
    count = data.draw(st.one_of(st.integers(0, 3 * ranks), st.integers(0, 10**6)))
    channels, slices = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    net = data.draw(networks(ranks))
    table = replay(build(name, ranks, count, channels=channels, slices=slices, in_place=in_place), net, 4)
    formula = replay(Generated(name, ranks, count, channels, slices, in_place), net, 4)
    assert formula.finish.tolist() == table.finish.tolist()
    assert formula.messages == table.messages


@pytest.mark.parametrize("name", ["ring", "tree"])
def test_generated_steps_are_the_tables(name):
    for ranks in [*range(1, 18), 31, 32, 33, 64, 100]:
        for count in (0, 1, ranks - 1, 3 * ranks + 1, 1000):
            for channels, slices in ((1, 1), (2, 1), (3, 3), (1, 4)):
                schedule = build(name, ranks, count, channels=channels, slices=slices)
                formula = Generated(name, ranks, count, channels, slices).formula()
                for rank in {0, 1 % ranks, ranks // 2, ranks - 1}:
                    table = schedule.tables[rank].tolist()
                    got = [tuple(row[:4]) for row in steps(formula, rank).tolist()]
                    assert got == [(s[0], s[5], s[4], s[9]) for s in table]


def test_ring_and_tree_beyond_the_tables():
    p = 1 << 11
    net = flat(p, latency=10**6, byte_ps=10.0)
    ring = replay(Generated("ring", p, p), net, 4)
    assert ring.messages == 2 * p * (p - 1)
    assert ring.in_flight <= p
    assert ring.picoseconds == 2 * (p - 1) * (10**6 + 40)
    # One slice of one tree goes up and down; the halves share ports, so the latency is only bounded.
    deep = replay(Generated("tree", 1 << 16, 2), flat(1 << 16, latency=10**6, byte_ps=0.0), 4)
    assert deep.messages == 2 * 2 * ((1 << 16) - 1)
    assert deep.picoseconds == 2 * 16 * 10**6


def two(first, second):
    """A schedule of two ranks, each given as (method, arguments) calls on a StepList."""
    tables = []
    for calls in (first, second):
        steps = StepList()
        for method, *arguments in calls:
            getattr(steps, method)(*arguments)
        tables.append(steps.table())
    return dataclasses.replace(build("ring", 2, 4), tables=tuple(tables))


def test_a_stuck_schedule_is_an_error_that_says_who_waits():
    stuck = two([("recv", 1, 1, 0, 4), ("send", 1, 0, 0, 4)], [("recv", 0, 1, 0, 4), ("send", 0, 0, 0, 4)])
    net = flat(2, latency=1, byte_ps=1.0)
    assert walk(stuck, net, 4) is None
    with pytest.raises(StuckError, match="rank 0 waits at step 0 for rank 1"):
        replay(stuck, net, 4)
    assert issubclass(StuckError, UserError)


def test_a_message_nobody_receives_is_an_error():
    lost = two([("send", 1, 0, 0, 4)], [])
    with pytest.raises(StuckError, match=r"rank 0 sends a message to rank 1 .* never received"):
        replay(lost, flat(2, latency=1, byte_ps=1.0), 4)


@pytest.mark.parametrize(
    "first, second, what",
    [
        ([("send", 1, 0, 0, 4)], [("recv", 0, 1, 0, 3)], "count"),
        ([("send", 2, 0, 0, 4)], [], "peer"),
        ([("send", 0, 0, 0, 4)], [], "peer"),
        ([("send", -1, 0, 0, 4)], [], "peer"),
        ([("_add", 9, 0, 0, 0, 0, -1, -1, 0, 0, 4)], [], "op"),
        ([("_add", NOP, 0, 0, 0, 0, -1, 0, 0, 0, 0)], [], "after"),
    ],
)
def test_steps_that_make_no_sense_are_errors(first, second, what):
    with pytest.raises(ValueError, match=what):
        replay(two(first, second), flat(2, latency=1, byte_ps=1.0), 4)


def test_ranks_of_schedule_and_network_must_agree():
    with pytest.raises(ValueError, match="4 ranks and the network 3"):
        replay(build("ring", 4, 8), flat(3, latency=1, byte_ps=1.0), 4)


@settings(max_examples=60, deadline=None)
@given(cases())
def test_trace_accounts_for_every_rank_to_its_end(case):
    schedule, net, itemsize = case
    got = replay(schedule, net, itemsize, trace=True)
    assert got.finish.tolist() == replay(schedule, net, itemsize).finish.tolist()
    spans = got.trace.spans
    rank, start, end, port = (spans[:, SPAN_FIELDS.index(f)] for f in ("rank", "start", "end", "port"))
    kind = spans[:, SPAN_FIELDS.index("kind")]
    assert (end > start).all()
    for r in range(schedule.ranks):
        # The walk is one unbroken line from 0 to the rank's finish.
        own = (rank == r) & (port < 0)
        order = np.argsort(start[own])
        begins, ends = start[own][order], end[own][order]
        assert [0, *ends.tolist()] == [*begins.tolist(), int(got.finish[r])]
        for q in range(len(net.slow)):
            for way in (0, 1):
                own = (rank == r) & (port == q) & (kind == way)
                order = np.argsort(start[own])
                assert (start[own][order][1:] >= end[own][order][:-1]).all()
    assert len(got.trace.messages) == schedule.messages
    assert got.trace.messages[:, 5].sum() == sum(
        int(t["count"][t["op"] == SEND].sum()) * itemsize for t in schedule.tables
    )
