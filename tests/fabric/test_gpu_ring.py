"""The ring recurrence as a GPU kernel: under Numba's simulator against replay, and compiled with no GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from busbw.errors import UserError
from busbw.fabric import gpu_ring
from busbw.fabric.network import flat
from busbw.kernels import offline

HERE = Path(__file__).parent
REASON = offline.unavailable()


def test_every_rank_finishes_to_the_picosecond_as_in_replay():
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, str(HERE / "gpu_ring_job.py")]
    job = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert job.returncode == 0, job.stderr[-3000:]
    assert job.stdout.split("\n") == ["tried: 24", ""]


@pytest.mark.skipif(gpu_ring.available() is None, reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing():
    with pytest.raises(
        UserError, match=r"on a GPU: (numba-cuda is not installed: pip install|the NVIDIA driver is missing)"
    ):
        gpu_ring.one_ring_steps(flat(4, latency=1, byte_ps=1.0), 100, 4)


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize("architecture", offline.ARCHITECTURES)
def test_the_kernel_compiles_and_keeps_its_figures_in_registers(architecture):
    compiled = offline.compile_python(gpu_ring.kernel(gpu_ring.THREADS), gpu_ring.signature(), architecture)
    (ptx,) = compiled.kernels().values()
    assert ".local" not in ptx
    assert list(compiled.spilled.values()) == [0]
    assert "bar.sync" in ptx and "st.shared" in ptx
