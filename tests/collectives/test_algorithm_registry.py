"""The registry and `build`: names, limits, messages, and what importing them costs."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS, REGISTRY, build
from busbw.collectives.collective import COLLECTIVES, find
from busbw.collectives.schedule import COPY, STEP


def test_names_match_and_keywords_are_what_the_registry_says():
    for collective, known in REGISTRY.items():
        assert known
        for name, algorithm in known.items():
            assert name == algorithm.name and algorithm.collective is COLLECTIVES[collective]
            assert algorithm.title and algorithm.summary
            keywords = inspect.signature(algorithm.steps).parameters
            assert "in_place" in keywords
            assert ("root" in keywords) == COLLECTIVES[collective].rooted
            assert ("channels" in keywords) == algorithm.takes_channels
            assert ("slices" in keywords) == algorithm.takes_slices


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("all_gather", "all_gather"), ("AllGather", "all_gather"), ("MPI_Allgather", "all_gather"), ("all-gather", "all_gather"),
        ("all_gather_perf", "all_gather"), ("ncclAllReduce", "all_reduce"), ("MPI_Reduce_scatter_block", "reduce_scatter"),
        ("MPI_Reduce_scatter", "reduce_scatter"), ("bcast", "broadcast"), ("MPI_Bcast", "broadcast"), ("MPI_Alltoall", "alltoall"),
        ("all_to_all", "alltoall"), ("sendrecv_perf", "sendrecv"), ("MPI_Sendrecv", "sendrecv"), ("reduce", "reduce"),
    ],
)  # fmt: skip
def test_collectives_are_known_by_the_names_that_the_field_gives_them(said, name):
    assert find(said).name == name


def test_an_unknown_collective_is_answered_with_the_nearest():
    with pytest.raises(ValueError, match=r"al_gather.*did you mean all_gather\?.*accepted: all_reduce, "):
        find("al_gather")


def test_counts_and_factors_are_those_of_nccl_tests():
    """Of 8 ranks and a block of 3: elements in, out, of the size column, and busbw/algbw (nccl-tests, doc/PERFORMANCE.md)."""
    want = {
        "all_reduce": (3, 3, 3, 14 / 8), "reduce_scatter": (24, 3, 24, 7 / 8), "all_gather": (3, 24, 24, 7 / 8),
        "broadcast": (3, 3, 3, 1), "reduce": (3, 3, 3, 1), "alltoall": (24, 24, 24, 7 / 8), "gather": (3, 24, 24, 7 / 8),
        "scatter": (24, 3, 24, 7 / 8), "sendrecv": (3, 3, 3, 1), "pingpong": (3, 3, 3, 2),
    }  # fmt: skip
    got = {
        c.name: (c.input_count(8, 3), c.output_count(8, 3), c.size_count(8, 3), c.busbw_factor(8))
        for c in COLLECTIVES.values()
    }
    assert got == want
    assert COLLECTIVES["all_gather"].count_of(8, 31) == 3


@pytest.mark.parametrize("bad", [{"root": -1}, {"root": 4}, {"in_place": True, "collective": "alltoall"}])
def test_what_a_collective_has_not_is_refused(bad):
    what = "root" if "root" in bad else "in-place"
    options = {"collective": "broadcast", **bad}
    with pytest.raises(ValueError, match=f"{what}.*accepted"):
        build("binomial", 4, 8, **options) if what == "root" else build("direct", 4, 8, **options)


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
