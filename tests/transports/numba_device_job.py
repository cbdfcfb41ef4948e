"""Run by test_numba_device.py with NUMBA_ENABLE_CUDASIM=1: prints what was wrong, and how much was tried."""

import json
import warnings

import numpy as np
from busbw.bench.measure import Effort, measure
from busbw.bench.pattern import pattern
from busbw.collectives import ALGORITHMS
from busbw.collectives.schedule import OUTPUT
from busbw.transports.device import DeviceSession
from busbw.transports.numba_device import open_devices
from busbw.transports.session import Job

warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns where scalars wrap around; Numba's numbers do not
bad, tried = [], 0
rng = np.random.default_rng(7)
for ranks in (1, 2, 3):
    session = DeviceSession(open_devices(), ranks, 4096, 1 << 15)
    for algorithm in ALGORITHMS:
        for dtype, op in (("float32", "sum"), ("bfloat16", "avg"), ("int8", "avg"), ("uint64", "max")):
            job = Job(algorithm, int(rng.integers(1, 70)), dtype, op, bool(rng.integers(2)), slices=2)
            data = pattern(dtype, op, ranks, seed=3)
            session.prepare(job)
            session.fill(data.table)
            session.run()
            tried += 1
            if session.check(data) or session.chosen != "steps":
                bad.append(f"{ranks} {job}")
            session.write(0, OUTPUT, np.full(8, 0x55, np.uint8))
            if not session.check(data):
                bad.append(f"{ranks} {job}: a damaged element was not seen")
    session.close()
session = DeviceSession(open_devices(), 2, 4096, 4096)
found = measure(session, Job("ring", 50, "float32", "sum"), Effort(iterations=2, warmup=1))
if found.timing.wrong or min(found.timing.samples) <= 0:
    bad.append(f"measure: {found.timing}")


class Builder:
    """A GraphBuilder's part: kernels are launched into it between its beginning and its end."""

    def __init__(self):
        self.said = []

    def begin_building(self):
        self.said.append("begin")

    def end_building(self):
        self.said.append("end")

    def complete(self):
        return ("graph", *self.said)


(device,) = open_devices()
array, builder = device.allocate(256), Builder()
device.upload(array, np.arange(64, dtype=np.float32))
rows = [("reduce_sum", "float32", (array + 128, 0, array, array + 64, 16, 1), 64), ("copy", "uint8", (0, 0, 0, 0), 0)]
if device._captured(builder, rows) != ("graph", "begin", "end"):
    bad.append(f"captured: {builder.said}")
if not np.array_equal(device.download(array + 128, np.dtype(np.float32), 16), np.arange(16, dtype=np.float32) * 2 + 16):
    bad.append("a launch into a graph did not get its arguments")
print(json.dumps({"bad": bad, "tried": tried}))
