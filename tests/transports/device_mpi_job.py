"""Run under mpirun: device_mpi over late, shuffled streams on host memory; prints what was wrong as JSON."""

import importlib.util
import json
from pathlib import Path

import mpi4py

mpi4py.rc.thread_level = "single"

from busbw.bench.measure import Effort, measure  # noqa: E402
from busbw.bench.pattern import pattern  # noqa: E402
from busbw.collectives import ALGORITHMS  # noqa: E402
from busbw.transports.device_mpi import DeviceMpiSession  # noqa: E402
from busbw.transports.session import Job  # noqa: E402
from mpi4py import MPI  # noqa: E402

_spec = importlib.util.spec_from_file_location("busbw_late_gpu", Path(__file__).parent / "late_gpu.py")
late_gpu = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(late_gpu)

comm = MPI.COMM_WORLD
bad, checks = [], 0
for aware in (False, True):
    for seed, (dtype, op) in enumerate((("float32", "sum"), ("bfloat16", "avg"))):
        gpu = late_gpu.LateGpu(seed=100 * seed + comm.rank)
        session = DeviceMpiSession(comm, gpu, 1 << 15, 1 << 18, aware=aware, segment_bytes=1024)
        for algorithm in ALGORITHMS:
            for count in (1, 1000, 5003):
                for in_place in (False, True):
                    session.prepare(Job(algorithm, count, dtype, op, in_place, slices=2))
                    for again in range(2):  # places are used again
                        data = pattern(dtype, op, comm.size, seed=again)
                        session.fill(data.table)
                        session.run()
                        wrong = session.check(data.low, data.high)
                        checks += 1
                        if wrong:
                            bad.append([aware, dtype, op, algorithm, count, in_place, wrong])
        timing = measure(session, Job("ring", 1000, dtype, op), Effort(iterations=3, warmup=1)).timing
        if timing.wrong or min(timing.samples) <= 0:
            bad.append([aware, dtype, op, "measure", timing.wrong])
if comm.rank == 0:
    print(json.dumps({"bad": bad, "checks": checks}))
