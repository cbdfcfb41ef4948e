"""Run under mpirun: ranks that reach one another's memory by CUDA IPC, over a stand-in for CuPy; prints what was wrong as JSON."""

import json
import sys

import mpi4py

mpi4py.rc.thread_level = "single"

import fake_cupy  # noqa: E402
import numpy as np  # noqa: E402
from busbw.bench import gpu, pairs, rings  # noqa: E402
from busbw.bench.measure import Effort, measure  # noqa: E402
from busbw.bench.options import Options  # noqa: E402
from busbw.bench.pattern import pattern  # noqa: E402
from busbw.collectives import ALGORITHMS  # noqa: E402
from busbw.errors import UserError  # noqa: E402
from busbw.transports import gpu_ipc  # noqa: E402
from busbw.transports.cupy_device import open_device_of  # noqa: E402
from busbw.transports.cupy_streams import open_gpu  # noqa: E402
from busbw.transports.device import DeviceSession  # noqa: E402
from busbw.transports.device_mpi import DeviceMpiSession  # noqa: E402
from busbw.transports.session import Job, Stalled, Unavailable  # noqa: E402
from mpi4py import MPI  # noqa: E402

fake = fake_cupy.install(sys.argv[1])
fake_cupy.DEVICES = 8

comm = MPI.COMM_WORLD
found = {"bad": [], "tried": 0}


def session(timeout=20.0):
    device = open_device_of(comm.rank)
    return DeviceSession(
        [device], comm.size, 1 << 14, 1 << 16, way="walk", timeout=timeout, crew=gpu_ipc.crew_of(comm, device)
    )


s = session()
for algorithm in ALGORITHMS:
    for dtype, op in (("float32", "sum"), ("bfloat16", "avg")):
        job = Job(algorithm, 1003, dtype, op, in_place=found["tried"] % 2 == 1, slices=2)
        s.prepare(job)
        for seed in (1, 2):  # the second finds the first one's results where its own should be
            data = pattern(dtype, op, comm.size, seed=seed)
            s.fill(data.table, start=seed)
            s.run()
            if not job.in_place:
                s.time(1, 5)
            found["tried"] += 1
            if s.check(data, start=seed):
                found["bad"].append([algorithm, dtype, op])
timing = measure(s, Job("ring", 100, "float32", "sum"), Effort(iterations=3, warmup=1)).timing
found["measured"] = [timing.wrong, len(timing.samples), s.gate.holds, s.crew.transport]
found["modes"] = s.message_modes
s.close()


# Pairs over either transport: all ranks' own times, and the data that arrived.
def pair_up(opened):
    who = pairs.players(["a", "b", "c"], "hosts")
    effort = pairs.Effort(size_bytes=4096, samples=2, budget=1.0)
    met = [m for _, here in pairs.measure(opened, who, effort) for m in here]
    halves = rings.time_rings(opened, {"as given": [who], "turned": [who[::-1]]}, 4096, turns=1)
    opened.close()
    return [sorted((m.a.name, m.b.name) for m in met), sum(m.wrong for m in met), min(m.there for m in met) > 0,
            min(m.latency for m in met) > 0, sorted(halves)]  # fmt: skip


found["pairs"] = [
    pair_up(session()),
    pair_up(DeviceMpiSession(comm, open_gpu(comm.rank), 1 << 14, 1 << 16, aware=False)),
]

# A rank that has nothing to do, for which the others wait: all hear of it.
s = session(timeout=0.5)
s.prepare(Job("ring", 900, "float32", "sum"))
if comm.rank == 1:
    s.devices[0].upload(s._loaded[0].rows, np.array([0], np.int64))
try:
    s.run()
    stalled = False
except Stalled:
    stalled = True
found["stalled"] = comm.gather(stalled)
s.close()


# What a sweep takes: IPC, and MPI where it is asked for or IPC is not to be had.
def transport(asked, walled=False):
    fake.walled = walled
    options = Options(backend="cupy", transport=asked, timeout=20.0)
    opened = gpu.open_session(options, 1 << 14, 1 << 16)
    lines = gpu.lines(options, opened)
    opened.prepare(Job("tree", 77, "float32", "sum"))
    opened.run()
    opened.close()
    fake.walled = False
    return opened.crew.transport, lines


found["auto"], found["mpi"] = transport("auto"), transport("mpi")
found["auto, walled"] = transport("auto", walled=comm.rank == 1)
try:
    transport("shared", walled=comm.rank == 1)
except UserError as error:
    found["shared, walled"] = str(error)

fake.walled = comm.rank == comm.size - 1  # one rank that cannot: all do without
try:
    session()
    found["walled"] = "not seen"
except Unavailable as error:
    found["walled"] = str(error)
fake.walled = False
fake_cupy.DEVICES = 1
try:
    session()
    found["one GPU"] = "not seen"
except Unavailable as error:
    found["one GPU"] = str(error)
found["mapped"] = comm.allreduce(len(fake.mapped) - fake.alive)  # of others' memory
if comm.rank == 0:
    print(json.dumps(found))
