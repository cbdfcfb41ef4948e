"""Emulated ranks under a virtual clock: real data, and to the picosecond the times of fabric/time/replay.py."""

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from busbw.bench.emulate import FabricClock, sample_seed
from busbw.bench.pattern import pattern
from busbw.collectives import ALGORITHMS, build
from busbw.collectives.schedule import INPUT, OUTPUT, Schedule, StepList
from busbw.fabric.physics.network import NOISE_ENTRIES, flat, network
from busbw.fabric.time.replay import replay
from busbw.kernels.dtypes import find_dtype
from busbw.transports.program import CLOCK_BEGIN, CLOCK_END, CLOCK_RECV, CLOCK_SEND, KIND, LOCAL, causality
from busbw.transports.session import Job, Session, Unavailable
from busbw.transports.shared import LocalCrew
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
CAPACITY = 1 << 17


@contextmanager
def session(net, capacity=CAPACITY, stamps=1 << 12):
    crew = LocalCrew(net.ranks, capacity, 4 * capacity, timeout=60, stamps=stamps)
    try:
        yield Session(crew, cache_bytes=1 << 16, clock=FabricClock("test", net))
    finally:
        crew.close()


costs = st.integers(0, 10**7)


@st.composite
def networks(draw, ranks: int):
    levels = draw(st.integers(0, 2))
    groups = np.array([draw(st.lists(st.integers(0, 2), min_size=ranks, max_size=ranks)) for _ in range(levels)])
    classes = levels + 1
    each = st.lists(costs, min_size=classes, max_size=classes)
    ports = draw(st.lists(st.integers(0, 2), min_size=classes, max_size=classes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return network(
        groups.reshape(levels, ranks),
        latency=draw(each),
        send_overhead=draw(each),
        recv_overhead=draw(each),
        gap=draw(each),
        byte_ps=rng.uniform(0, 500, classes),
        port=ports,
        slow=1 + rng.exponential(1, (max(ports) + 1, ranks)),
        reduce_ps=rng.uniform(0, 50, ranks),
        copy_ps=rng.uniform(0, 50, ranks),
        noise=np.sort(rng.integers(0, 10**6, NOISE_ENTRIES)) if draw(st.booleans()) else None,
        seed=draw(st.integers(0, 2**32)),
    )


def replayed(schedule, net, itemsize, samples=1):
    return np.array(
        [replay(schedule, net._replace(seed=sample_seed(net.seed, i)), itemsize).finish for i in range(samples)]
    )


@settings(max_examples=120, deadline=None)
@given(
    data=st.data(),
    ranks=st.integers(1, 9),
    algorithm=st.sampled_from(list(ALGORITHMS)),
    dtype=st.sampled_from(["float32", "int8", "float64"]),
    count=st.one_of(st.integers(0, 40), st.integers(0, 5000)),
    in_place=st.booleans(),
    channels=st.integers(1, 3),
    slices=st.integers(1, 4),
)
def test_emulated_time_is_replays_to_the_picosecond(data, ranks, algorithm, dtype, count, in_place, channels, slices):
    net = data.draw(networks(ranks))
    job = Job(algorithm, count, dtype, "sum", in_place, channels, slices)
    table = pattern(dtype, "sum", ranks)
    with session(net) as s:
        s.prepare(job)
        s.fill(table.table)
        s.run()
        assert s.check(table) == 0
        finish = s.virtual(3).finish
        if not in_place:
            assert s.check(table) == 0
    schedule = build(algorithm, ranks, count, channels=channels, slices=slices, in_place=in_place)
    assert np.array_equal(finish, replayed(schedule, net, find_dtype(dtype).itemsize, 3))


@st.composite
def schedules(draw, ranks: int):
    """Messages at random, each received at once or later but in a channel's order, with waits for messages received."""
    lists = [StepList() for _ in range(ranks)]
    under_way: list[tuple] = []
    received: list[list[int]] = [[] for _ in range(ranks)]

    def after(rank):
        return draw(st.sampled_from([-1, *received[rank]]))

    def receive(at):
        a, b, channel, count, send, reduces = under_way.pop(at)
        if reduces:
            lists[b].recv_reduce(a, (INPUT, 0), (OUTPUT, 0), count, channel=channel, after=after(b))
        else:
            lists[b].recv(a, OUTPUT, 0, count, channel=channel, after=after(b))
        received[a].append(send)

    for _ in range(draw(st.integers(1, 25))):
        what = draw(st.integers(0, 3))
        rank = draw(st.integers(0, ranks - 1))
        count = draw(st.sampled_from([1, 100, 3000]))
        if what == 0:
            lists[rank].copy((INPUT, 0), (OUTPUT, 0), count, after=after(rank))
        elif what == 1:
            lists[rank].nop(after=after(rank))
        elif what == 2 and under_way:
            a, b, channel = draw(st.sampled_from(under_way))[:3]
            receive(next(i for i, m in enumerate(under_way) if m[:3] == (a, b, channel)))
        else:
            b = (rank + draw(st.integers(1, ranks - 1))) % ranks
            channel = draw(st.integers(0, 1))
            send = lists[rank].send(b, INPUT, 0, count, channel=channel, after=after(rank))
            under_way.append((rank, b, channel, count, send, draw(st.booleans())))
    while under_way:
        receive(0)
    return Schedule("random", ranks, 3000, False, tuple(x.table() for x in lists))


@settings(max_examples=100, deadline=None)
@given(data=st.data(), ranks=st.integers(2, 5))
def test_any_schedule_with_waits_takes_replays_time(data, ranks):
    net, schedule = data.draw(networks(ranks)), data.draw(schedules(ranks))
    job = Job("random", schedule.count, "float32", "sum")
    with session(net) as s:
        s._plans[replace(job, dtype="", op="")] = (schedule, causality(schedule))
        s.prepare(job)
        assert np.array_equal(s.virtual(1).finish, replayed(schedule, net, 4))


def test_mpi_ranks_show_replays_time(mpirun):
    """Ranks of the world in this order, the transport that is asked for, ranks a node (0: the real nodes), what is taken."""
    cases = [
        ([0, 1], "auto", 0, "shared"),
        ([0, 1, 2], "mpi", 0, "mpi"),
        ([3, 2, 1, 0], "auto", 0, "shared"),
        ([0, 1, 2, 3, 4], "auto", 2, "hybrid"),
    ]
    found = mpirun(5, HERE / "mpi_clock_job.py", json.dumps(cases), timeout=900).result["cases"]
    right = {"checks": 3 * len(ALGORITHMS), "bad": [], "early": 0}
    assert found == [{"transport": taken, **right} for *_, taken in cases]


@settings(max_examples=10, deadline=None)
@given(data=st.data(), ranks=st.integers(2, 5), pace=st.floats(1, 20))
def test_a_paced_rank_is_never_ahead_of_its_virtual_time(data, ranks, pace):
    net = data.draw(networks(ranks))
    table = pattern("float32", "sum", ranks)
    with session(net) as s:
        s.prepare(Job("tree", 2000, "float32", "sum", slices=2))
        s.fill(table.table)
        free = s.virtual(2)
        paced = s.virtual(2, pace=pace)
        assert s.check(table) == 0
    assert free.wall is None
    assert np.array_equal(free.finish, paced.finish)
    assert np.all(paced.wall + 1e-9 >= pace * paced.finish * 1e-12)


def test_a_session_without_a_clock_has_no_clock_instructions():
    crew = LocalCrew(3, CAPACITY, 4 * CAPACITY, stamps=64)
    plain, clocked = Session(crew), Session(crew, clock=FabricClock("test", flat(3, latency=1, byte_ps=1.0)))
    job = Job("ring", 5000, "float32", "sum")
    for s in (plain, clocked):
        s.prepare(job)
    kinds = [set(s.programs[0].code[:, :, KIND].ravel().tolist()) for s in (plain, clocked)]
    assert kinds == [{LOCAL}, {LOCAL, CLOCK_BEGIN, CLOCK_SEND, CLOCK_RECV, CLOCK_END}]
    data_rows = clocked.programs[0].code[0][clocked.programs[0].code[0][:, KIND] == LOCAL]
    assert np.array_equal(data_rows, plain.programs[0].code[0])
    crew.close()


def test_what_a_clock_cannot_follow_is_refused():
    net = flat(2, latency=1, byte_ps=1.0)
    with session(net, stamps=3) as s:
        with pytest.raises(Unavailable, match="numpy has no schedule"):
            s.prepare(Job("numpy", 8, "float32", "sum"))
        with pytest.raises(Unavailable, match=r"sends 8 messages a rank.* of 3"):
            s.prepare(Job("ring", 64, "float32", "sum", slices=4))
    crew = LocalCrew(3, 4096, 0)
    with pytest.raises(Unavailable, match="2 ranks, but there are 3"):
        Session(crew, clock=FabricClock("test", net))
    crew.close()
