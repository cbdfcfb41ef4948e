"""The registry and `build`: names, limits, messages, and what importing them costs."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS, build
from busbw.collectives.schedule import COPY, STEP


def test_names_match_and_keywords_are_what_the_registry_says():
    for name, algorithm in ALGORITHMS.items():
        assert name == algorithm.name
        assert algorithm.title and algorithm.summary
        keywords = inspect.signature(algorithm.steps).parameters
        assert "in_place" in keywords
        assert ("channels" in keywords) == algorithm.takes_channels
        assert ("slices" in keywords) == algorithm.takes_slices


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list():
    with pytest.raises(ValueError, match="rign") as caught:
        build("rign", 4, 8)
    assert "did you mean" in str(caught.value)
    assert all(name in str(caught.value) for name in ALGORITHMS)


@pytest.mark.parametrize("bad", [{"ranks": 0}, {"count": -1}, {"channels": 0}, {"slices": 0}])
def test_numbers_out_of_range_are_named(bad):
    (what,) = bad
    with pytest.raises(ValueError, match=what):
        build("ring", **{"ranks": 2, "count": 8, **bad})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_one_rank_copies_or_does_nothing(name):
    (table,) = build(name, 1, 5).tables
    assert table["op"].tolist() == [COPY] and table["count"].tolist() == [5]
    assert len(build(name, 1, 5, in_place=True).tables[0]) == 0


@pytest.mark.parametrize("name", ALGORITHMS)
def test_nothing_to_reduce_is_an_empty_table(name):
    for ranks in (1, 2, 5):
        for in_place in (False, True):
            schedule = build(name, ranks, 0, in_place=in_place)
            assert schedule.messages == 0 and schedule.scratch == 0
            assert all(not np.isin(t["op"], (1, 2, 3, 4, 5)).any() for t in schedule.tables)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_steps_is_a_pure_function_of_its_arguments(name):
    first, again = (build(name, 6, 20, in_place=True).tables for _ in range(2))
    for a, b in zip(first, again):
        assert a.dtype == STEP and a is not b
        np.testing.assert_array_equal(a, b)


def test_importing_the_algorithms_does_not_import_numba():
    code = "import sys, busbw.collectives; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
