"""Run by test_mpi_ranks.py under mpirun: every algorithm, several dtypes, both modes; prints what was wrong on rank 0."""

import json
import sys

import numpy as np
from busbw.bench.pattern import pattern
from busbw.collectives import ALGORITHMS
from busbw.transports import mpi
from busbw.transports.session import Job, Session

transport, node_size, split = sys.argv[1], int(sys.argv[2]) or None, int(sys.argv[3])
MPI = mpi.load()
comm = MPI.COMM_WORLD
if split:  # a communicator that is not the world: the odd ranks, in reverse
    comm = comm.Split(0 if comm.rank % 2 else MPI.UNDEFINED, -comm.rank)
if comm != MPI.COMM_NULL:
    crew = mpi.MpiCrew(1 << 18, 1 << 20, comm=comm, transport=transport, node_size=node_size, timeout=60)
    session = Session(crew, cache_bytes=1 << 16)
    bad, checks = [], 0
    for algorithm in [*ALGORITHMS, "mpi-native"]:
        for in_place in (False, True):
            for dtype, op, count in (
                ("float32", "sum", 1),
                ("int64", "sum", 777),
                ("bfloat16", "avg", 5001),
                ("uint8", "max", 40_000),
                ("float64", "prod", 20_000),
            ):
                if algorithm == "mpi-native" and (dtype == "bfloat16" or op == "avg"):
                    continue
                data = pattern(dtype, op, session.ranks)
                session.prepare(Job(algorithm, count, dtype, op, in_place, channels=2, slices=3))
                for start in range(3):
                    session.fill(data.table, start)
                    session.run()
                    wrong = session.check(data.low, data.high, start)
                    checks += 1
                    if wrong:
                        bad.append([algorithm, dtype, op, count, in_place, wrong])
                samples, _ = session.time(5, 2)
                assert len(samples) == 5 and np.all(samples > 0)
    assert session.crew.agree({"from": session.crew.rank}) == {"from": 0}
    if session.is_root:
        print(json.dumps({"ranks": session.ranks, "transport": crew.transport, "checks": checks, "bad": bad}))
    session.close()
