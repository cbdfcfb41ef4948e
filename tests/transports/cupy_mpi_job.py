"""Run under mpirun: GPU ranks through cupy_streams over a stand-in for CuPy; prints what was wrong as JSON."""

import json
import sys

import mpi4py

mpi4py.rc.thread_level = "single"

import fake_cupy  # noqa: E402
from busbw.bench.pattern import pattern  # noqa: E402
from busbw.collectives import ALGORITHMS  # noqa: E402
from busbw.transports.cupy_streams import open_gpu  # noqa: E402
from busbw.transports.device_mpi import DeviceMpiSession  # noqa: E402
from busbw.transports.session import Job  # noqa: E402
from mpi4py import MPI  # noqa: E402

fake_cupy.install(sys.argv[1])

comm = MPI.COMM_WORLD
bad, tried = [], 0
for aware in (False, True):
    session = DeviceMpiSession(comm, open_gpu(comm.rank), 1 << 14, 1 << 16, aware=aware, segment_bytes=1024)
    for algorithm in ALGORITHMS:
        jobs = [("float32", "sum"), ("bfloat16", "avg"), ("int8", "avg"), ("uint64", "max"), ("float64", "min")]
        for dtype, op in [*jobs, ("int32", "prod"), ("float16", "sum")]:
            data = pattern(dtype, op, comm.size, seed=2)
            session.prepare(Job(algorithm, 1003, dtype, op, in_place=tried % 2 == 1, slices=2))
            session.fill(data.table)
            session.run()
            tried += 1
            if session.check(data):
                bad.append([aware, algorithm, dtype, op])
    session.close()
if comm.rank == 0:
    print(json.dumps({"bad": bad, "tried": tried}))
