"""What is said of the cores ranks have, and that all of a host's ranks count, not only the first one's core."""

import os

import pytest
from busbw.bench import limits
from busbw.bench.environment import before_warnings
from busbw.transports.session import Session
from busbw.transports.shared import LocalCrew

QUIET = {"affinity": [0, 1], "cpu_quota": None, "load_average": 0.1, "governor": None, "clocksource": "tsc"}


def test_ranks_with_a_core_each_are_no_matter():
    assert before_warnings(QUIET, 2) == []


@pytest.mark.parametrize(
    "changed, ranks, meetings, words",
    [
        ({}, 3, [], ("3 ranks share 2 cores", "--ranks 2")),
        ({}, 2, [("node7", 1, [0, 1])], ("ranks 0 and 1 are bound to core 1 of node7", "--bind-to none")),
        ({"cpu_quota": 1.5}, 2, [], ("quota allows 1.5 CPUs' time on 2 cores", "--ranks 1")),
    ],
)
def test_what_spoils_a_measurement_is_said(changed, ranks, meetings, words):
    (said,) = before_warnings({**QUIET, **changed}, ranks, meetings)
    for word in words:
        assert word in said


def test_a_quota_as_large_as_the_machine_is_no_matter():
    assert before_warnings({**QUIET, "cpu_quota": 2.0}, 2) == []


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_the_limits_are_of_all_ranks_even_where_the_first_has_one_core(monkeypatch):
    asked = []
    monkeypatch.setattr(limits, "array_bytes", lambda active: asked.append(active) or 4096)
    before = os.sched_getaffinity(0)
    crew = LocalCrew(2, 4096, 0)
    session = Session(crew)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert set(limits.measure_limits(session)) == {"read", *limits.KERNELS}
    finally:
        os.sched_setaffinity(0, before)
        session.close()
    assert set(asked) == {2}
