"""Run by test_mpi_ranks.py under mpirun: every algorithm, several dtypes, both modes, in each case of mpi_cases.

A second argument names the algorithms to be tried.
"""

import sys

import numpy as np
from busbw.bench.pattern import pattern
from busbw.collectives import ALGORITHMS
from busbw.transports import mpi
from busbw.transports.session import Job, Session
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
    """Every algorithm over the ranks of `comm`: {ranks, transport, checks, bad: what was wrong} on its first rank."""
    crew = mpi.MpiCrew(1 << 18, 1 << 20, comm=comm, transport=transport, node_size=node_size, timeout=60)
    session = Session(crew, cache_bytes=1 << 16)
    bad, checks = [], 0
    for algorithm in TRIED:
        for in_place in (False, True):
            for dtype, op, count in JOBS:
                if algorithm == "mpi-native" and (dtype == "bfloat16" or op == "avg"):
                    continue
                data = pattern(dtype, op, session.ranks)
                session.prepare(Job(algorithm, count, dtype, op, in_place, channels=2, slices=3))
                for start in range(2):
                    session.fill(data.table, start)
                    session.run()
                    wrong = session.check(data.low, data.high, start)
                    checks += 1
                    if wrong:
                        bad.append([algorithm, dtype, op, count, in_place, wrong])
                samples, _ = session.time(3, 2)
                assert len(samples) == 3 and np.all(samples > 0)
    assert session.crew.agree({"from": session.crew.rank}) == {"from": 0}
    found = {"ranks": session.ranks, "transport": crew.transport, "checks": checks, "bad": bad}
    session.close()
    return found


run_cases(tried)
