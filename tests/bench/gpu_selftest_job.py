"""Run under mpirun: gpu-selftest's findings of MPI ranks, over late, shuffled streams on host memory; printed as JSON."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import mpi4py

mpi4py.rc.thread_level = "single"

from busbw.bench.selftest.ranks import job_findings  # noqa: E402
from busbw.transports.device_mpi import DeviceMpiSession  # noqa: E402
from mpi4py import MPI  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent.parent / "transports"))
import late_gpu  # noqa: E402

comm = MPI.COMM_WORLD
session = DeviceMpiSession(comm, late_gpu.LateGpu(seed=comm.rank), 1 << 14, 1 << 16, aware=False, segment_bytes=1024)
findings = list(job_findings(session, "staged", (1, 700), 1 << 12))
if comm.rank == 0:
    print(json.dumps({"findings": [asdict(f) for f in findings]}))
