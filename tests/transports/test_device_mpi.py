"""GPU ranks of an MPI job, without a GPU: the host logic under real mpirun, over streams that run late and in any order."""

from pathlib import Path

import pytest
from busbw.collectives import ALGORITHMS, algorithms
from busbw.collectives.collective import COLLECTIVES
from busbw.transports.device_mpi import mpi_takes_device_addresses

HERE = Path(__file__).parent


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_algorithm_is_right_sent_as_it_is_and_staged(mpirun, ranks):
    result = mpirun(ranks, HERE / "device_mpi_job.py").result
    assert result["bad"] == []
    others = {c: algorithms(c) for c in COLLECTIVES.values() if c.name != "all_reduce"}
    # Six sessions: of each all-reduce a small count, and a larger one in place and not, twice; of each other algorithm one count.
    assert result["checks"] == 6 * (5 * len(ALGORITHMS) + sum(len(a) * (1 + c.in_place) for c, a in others.items()))


class _Library:
    """Stands for mpi4py's MPI module: a shared library by its path."""

    def __init__(self, path):
        self.__file__ = path


def test_a_library_that_does_not_say_it_takes_device_addresses_is_not_given_any(monkeypatch):
    monkeypatch.delenv("MPICH_GPU_SUPPORT_ENABLED", raising=False)
    silent = _Library("libc.so.6")  # has no MPIX_Query_cuda_support
    assert mpi_takes_device_addresses(silent) == (False, "the library has no MPIX_Query_cuda_support")
    monkeypatch.setenv("MPICH_GPU_SUPPORT_ENABLED", "1")
    assert mpi_takes_device_addresses(silent)[0]
