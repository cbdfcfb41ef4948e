"""Emulated ranks through Numba's CUDA backend, under Numba's simulator in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from busbw.collectives import ALGORITHMS

HERE = Path(__file__).parent


def test_every_algorithm_is_right_under_the_simulator():
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, str(HERE / "numba_device_job.py")]
    job = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert job.returncode == 0, job.stderr[-3000:]
    result = json.loads(job.stdout)
    assert result["bad"] == []
    assert result["tried"] == 3 * 4 * len(ALGORITHMS)
