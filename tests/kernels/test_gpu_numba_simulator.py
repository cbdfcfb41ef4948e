"""Every Numba CUDA kernel under Numba's simulator, in a process of its own, against NumPy."""

import os
import subprocess
import sys
from pathlib import Path

from busbw.kernels import selftest
from busbw.kernels.dtypes import DTYPES

HERE = Path(__file__).parent
SEEDS = 3


def test_every_kernel_dtype_op_and_alignment_under_the_simulator():
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, str(HERE / "numba_simulator_job.py"), str(SEEDS)]
    job = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert job.returncode == 0, job.stderr[-3000:]
    *wrong, tried = job.stdout.splitlines()
    assert wrong == []
    reductions = sum(1 for seed in range(SEEDS) for _ in selftest.cases(DTYPES, 8, seed))
    assert int(tried.removeprefix("tried: ")) == reductions + 3 * len(DTYPES)
