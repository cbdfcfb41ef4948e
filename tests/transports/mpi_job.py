"""Run by test_mpi_ranks.py under mpirun: all algorithms and collectives, several dtypes, both modes, in each case of mpi_cases.

A second argument names the algorithms to be tried.
"""

import sys

import numpy as np
from busbw.bench.pattern import pattern
from busbw.collectives import ALGORITHMS, algorithms
from busbw.collectives.collective import COLLECTIVES
from busbw.transports import mpi
from busbw.transports.session import Job, Session, Unavailable
from mpi_cases import run_cases

JOBS = (
    ("float32", "sum", 1),
    ("int64", "sum", 777),
    ("bfloat16", "avg", 5001),
    ("uint8", "max", 40_000),
    ("float64", "prod", 20_000),
)
TRIED = sys.argv[2].split(",") if len(sys.argv) > 2 else [*ALGORITHMS, "mpi-native"]


def tried(comm, transport: str, node_size: int | None) -> dict:
    """Every algorithm over the ranks of `comm`: {ranks, transport, checks, bad: what was wrong} on its first rank.

    Each does all JOBS, in place or not by turns (of another collective, a small and a larger one): which, the number of ranks
    and the algorithm say, so that between the cases and algorithms everything is done both ways.
    """
    crew = mpi.MpiCrew(1 << 18, 1 << 20, comm=comm, transport=transport, node_size=node_size, timeout=600)
    session = Session(crew, cache_bytes=1 << 16)
    nodes = mpi.nodes_of(comm, node_size) if node_size else 2
    bad, checks, refused = [], 0, set()
    for turn, algorithm in enumerate(TRIED, session.ranks):
        for number, (dtype, op, count) in enumerate(JOBS, turn):
            in_place = bool(number % 2)
            if algorithm == "mpi-native" and (dtype == "bfloat16" or op == "avg"):
                continue
            data = pattern(dtype, op, session.ranks)
            session.prepare(Job(algorithm, count, dtype, op, in_place, channels=2, slices=3, nodes=nodes))
            for start in range(2):
                session.fill(data.table, start)
                session.run()
                wrong = session.check(data, start)
                checks += 1
                if wrong:
                    bad.append([algorithm, dtype, op, count, in_place, wrong])
            samples, _ = session.time(3, 2)
            assert len(samples) == 3 and np.all(samples > 0)
    # Every collective, and the library's own: back to back too, so that a rank may run ahead of the others.
    others = [c for c in COLLECTIVES.values() if c.name != "all_reduce"] if len(sys.argv) <= 2 else []
    pairs = [(collective, name) for collective in others for name in [*algorithms(collective), "mpi-native"]]
    for turn, (collective, algorithm) in enumerate(pairs, session.ranks):
        for number, (dtype, op, count) in enumerate((("float32", "sum", 3), ("float64", "sum", 2500)), turn):
            in_place = collective.in_place and bool(number % 2)
            root = count % session.ranks
            data = pattern(dtype, op, session.ranks)
            job = Job(algorithm, count, dtype, op, in_place, 2, 2, collective.name, root, nodes)
            try:
                session.prepare(job)
            except Unavailable:
                refused.add((algorithm, collective.name, in_place))
                continue
            session.fill(data.table)
            if in_place:
                session.run()
            else:
                session.time(3, 7)
            checks += 1
            if wrong := session.check(data):
                bad.append([collective.name, algorithm, count, in_place, wrong])
    # MPI_Bcast has one buffer, and MPI_Reduce_scatter_block puts its in-place result elsewhere.
    assert refused == (
        {("mpi-native", "broadcast", False), ("mpi-native", "reduce_scatter", True)} if others else set()
    )
    assert session.crew.agree({"from": session.crew.rank}) == {"from": 0}
    found = {"ranks": session.ranks, "transport": crew.transport, "checks": checks, "bad": bad}
    session.close()
    return found


run_cases(tried)
