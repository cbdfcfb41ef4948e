"""Emulated ranks through Numba's CUDA backend, under Numba's simulator in a process of its own."""

from pathlib import Path

from busbw.collectives import ALGORITHMS

HERE = Path(__file__).parent


def test_every_algorithm_is_right_under_the_simulator(python):
    result = python(HERE / "numba_device_job.py", NUMBA_ENABLE_CUDASIM="1").result
    assert result["bad"] == []
    assert result["tried"] == 3 * 4 * len(ALGORITHMS)
