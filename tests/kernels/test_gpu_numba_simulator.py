"""Every Numba CUDA kernel under Numba's simulator, in a process of its own, against NumPy."""

from pathlib import Path

from busbw.kernels import selftest
from busbw.kernels.dtypes import DTYPES

HERE = Path(__file__).parent
SEEDS = 3


def test_every_kernel_dtype_op_and_alignment_under_the_simulator(python):
    found = python(HERE / "numba_simulator_job.py", SEEDS, NUMBA_ENABLE_CUDASIM="1").result
    assert found["bad"] == []
    reductions = sum(1 for seed in range(SEEDS) for _ in selftest.cases(DTYPES, 8, seed))
    assert found["tried"] == reductions + 3 * len(DTYPES)
