"""Run by test_virtual_clock.py under mpirun: every algorithm under a virtual clock, in each case of mpi_cases, against replay."""

from dataclasses import replace

import numpy as np
from busbw.bench.emulate import FabricClock, sample_seed
from busbw.bench.pattern import pattern
from busbw.collectives import ALGORITHMS, build
from busbw.collectives.schedule import INPUT, OUTPUT, Schedule, StepList
from busbw.fabric.physics.network import NOISE_ENTRIES, network
from busbw.fabric.time.replay import replay
from busbw.kernels.dtypes import find_dtype
from busbw.transports import mpi
from busbw.transports.program import causality
from busbw.transports.session import Job, Session
from mpi_cases import run_cases


def a_network(ranks: int):
    rng = np.random.default_rng(1)
    return network(
        np.array([np.arange(ranks) // 2, np.arange(ranks) // 4]),
        latency=[500_000, 1_000_000, 3_000_000],
        send_overhead=[1000, 30_000, 70_000],
        recv_overhead=[2000, 40_000, 50_000],
        gap=[0, 10_000, 20_000],
        byte_ps=[2.5, 20.0, 21.5],
        slow=1 + rng.exponential(1, (2, ranks)),
        reduce_ps=rng.uniform(0, 5, ranks),
        copy_ps=rng.uniform(0, 5, ranks),
        noise=np.sort(rng.integers(0, 10**6, NOISE_ENTRIES)),
        seed=7,
    )


def waits(ranks: int) -> Schedule:
    """Every rank passes its left neighbour's message on, twice, and waits for what it sent to be received."""
    tables = []
    for rank in range(ranks):
        t = StepList()
        right, left = (rank + 1) % ranks, (rank - 1) % ranks
        first = t.send(right, INPUT, 0, 1000)
        second = t.send(right, INPUT, 0, 10, channel=1)
        t.recv(left, OUTPUT, 0, 10, channel=1)
        t.recv_reduce(left, (INPUT, 0), (OUTPUT, 0), 1000)
        t.nop(after=second)
        last = t.send(right, OUTPUT, 0, 500, after=first)
        t.recv(left, OUTPUT, 500, 500)
        t.copy((INPUT, 0), (OUTPUT, 0), 7, after=last)
        tables.append(t.table())
    return Schedule("waits", ranks, 1000, False, tuple(tables))


def expected(schedule, net, itemsize, samples):
    return np.array(
        [replay(schedule, net._replace(seed=sample_seed(net.seed, i)), itemsize).finish for i in range(samples)]
    )


def tried(comm, transport: str, node_size: int | None) -> dict:
    """{transport, checks, bad: what differed, early: paced ranks ahead of their virtual time} over the ranks of `comm`."""
    ranks = comm.size
    net = a_network(ranks)
    crew = mpi.MpiCrew(
        1 << 18, 1 << 20, comm=comm, transport=transport, node_size=node_size, timeout=600, stamps=1 << 12
    )
    session = Session(crew, cache_bytes=1 << 16, clock=FabricClock("test", net))
    bad, checks = [], 0
    for turn, algorithm in enumerate(ALGORITHMS, ranks):
        for number, (dtype, count) in enumerate((("float32", 1), ("int64", 777), ("uint8", 40_000)), turn):
            in_place = bool(number % 2)  # by turns: between the cases and algorithms everything is done both ways
            data = pattern(dtype, "sum", ranks)
            session.prepare(Job(algorithm, count, dtype, "sum", in_place, channels=2, slices=3))
            session.fill(data.table)
            session.run()
            wrong = session.check(data)
            finish = session.virtual(3).finish
            schedule = build(algorithm, ranks, count, channels=2, slices=3, in_place=in_place)
            checks += 1
            if wrong or not np.array_equal(finish, expected(schedule, net, find_dtype(dtype).itemsize, 3)):
                bad.append([algorithm, dtype, count, in_place, wrong])
    schedule = waits(ranks)
    job = Job("waits", 1000, "float32", "sum")
    session._plans[replace(job, dtype="", op="")] = (schedule, causality(schedule))
    session.prepare(job)
    if not np.array_equal(session.virtual(3).finish, expected(schedule, net, 4, 3)):
        bad.append(["waits"])
    session.prepare(Job("ring", 1000, "float32", "sum"))
    paced = session.virtual(2, pace=100.0)
    early = int(np.count_nonzero(paced.wall + 1e-9 < paced.finish * 1e-12 * 100))
    found = {"transport": crew.transport, "checks": checks, "bad": bad, "early": early}
    session.close()
    return found


run_cases(tried)
