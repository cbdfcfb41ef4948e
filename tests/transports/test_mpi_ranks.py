"""A real mpirun job: right results over every transport. What becomes of a job is in test_mpi_sweep.py."""

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


# Ranks of the world, in this order; the transport that is asked for; ranks a node, 0 for the real nodes; what is taken.
CASES = [
    ([0, 1], "auto", 0, "shared"),
    ([0, 1, 2, 3], "auto", 0, "shared"),
    ([0, 1], "mpi", 0, "mpi"),
    ([0, 1, 2], "mpi", 0, "mpi"),
    ([0, 1, 2, 3], "auto", 2, "hybrid"),
    ([0, 1, 2, 3, 4], "auto", 2, "hybrid"),
    ([5, 3, 1], "auto", 0, "shared"),  # neither the world nor its order
]


@pytest.fixture(scope="module")
def found(mpirun):
    """What one job of six ranks found in each of CASES."""
    return mpirun(6, HERE / "mpi_job.py", json.dumps(CASES), timeout=900).result["cases"]


@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda i: f"{CASES[i][0]}-{CASES[i][3]}")
def test_every_algorithm_is_right(found, case):
    members, _, _, taken = CASES[case]
    assert found[case]["bad"] == []
    assert (found[case]["transport"], found[case]["ranks"]) == (taken, len(members))
    assert found[case]["checks"] > 150
