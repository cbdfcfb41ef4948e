"""Run under mpirun: device_mpi on host memory, with late, shuffled streams and with a late MPI; prints what was wrong as JSON."""

import json

import mpi4py

mpi4py.rc.thread_level = "single"

import late_comm  # noqa: E402
import late_gpu  # noqa: E402
from busbw.bench.measure import Effort, measure  # noqa: E402
from busbw.bench.pattern import pattern  # noqa: E402
from busbw.collectives import ALGORITHMS, algorithms  # noqa: E402
from busbw.collectives.collective import COLLECTIVES  # noqa: E402
from busbw.transports.device_mpi import DeviceMpiSession  # noqa: E402
from busbw.transports.session import Job  # noqa: E402
from mpi4py import MPI  # noqa: E402

comm = MPI.COMM_WORLD
bad, checks = [], 0
for aware in (False, True):
    for seed, (late, dtype, op) in enumerate(
        (("gpu", "float32", "sum"), ("gpu", "bfloat16", "avg"), ("mpi", "float32", "sum"))
    ):
        if late == "gpu":
            session_comm, gpu = comm, late_gpu.LateGpu(seed=100 * seed + comm.rank)
        else:
            session_comm, gpu = late_comm.LateComm(comm, seed=comm.rank), late_gpu.PromptGpu(seed=comm.rank)
        session = DeviceMpiSession(session_comm, gpu, 1 << 15, 1 << 18, aware=aware, segment_bytes=1024)
        for turn, algorithm in enumerate(ALGORITHMS):
            small = (1, 1000)[(turn + seed) % 2]
            for count, modes, times in ((small, [turn % 4 < 2], 1), (5003, [False, True], 2)):
                for in_place in modes:
                    session.prepare(Job(algorithm, count, dtype, op, in_place, slices=2))
                    for again in range(times):  # places are used again
                        data = pattern(dtype, op, comm.size, seed=again)
                        session.fill(data.table)
                        session.run()
                        wrong = session.check(data)
                        checks += 1
                        if wrong:
                            bad.append([aware, late, dtype, op, algorithm, count, in_place, wrong])
        for collective in COLLECTIVES.values():
            for algorithm in algorithms(collective) if collective.name != "all_reduce" else ():
                for in_place in (False, True) if collective.in_place else (False,):
                    job = Job(algorithm, 700, dtype, op, in_place, 2, 2, collective.name, comm.size - 1)
                    data = pattern(dtype, op, comm.size)
                    session.prepare(job)
                    session.fill(data.table)
                    session.run()
                    checks += 1
                    if wrong := session.check(data):
                        bad.append([aware, late, dtype, op, collective.name, algorithm, in_place, wrong])
        timing = measure(session, Job("ring", 1000, dtype, op), Effort(iterations=3, warmup=1)).timing
        if timing.wrong or min(timing.samples) <= 0:
            bad.append([aware, late, dtype, op, "measure", timing.wrong])
if comm.rank == 0:
    print(json.dumps({"bad": bad, "checks": checks}))
