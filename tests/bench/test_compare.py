"""Comparisons: the statistics against published values and simulation, the verdicts against cases made to have one answer."""

import math

import numpy as np
import pytest
from busbw.bench.compare import (
    FASTER,
    LEVEL,
    SLOWER,
    WRONG,
    _bootstrap_medians,
    benjamini_hochberg,
    bootstrap_ratio,
    compare,
    differences,
    mann_whitney,
)
from busbw.bench.record import Record, ResultFile, Timing
from busbw.bench.repeatability import scatter
from busbw.bench.statistics import median_interval, student_quantile, student_two_sided
from busbw.errors import UserError
from busbw.plots.comparison import markdown, picture, text
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = [1 << s for s in range(10, 28)]


def record(size, seconds, samples=None, wrong=0, **more):
    median, low, high = median_interval(samples) if samples else (seconds, seconds, seconds)
    timing = Timing(median, low, high, list(samples or []), 1, 0, "iterations" if samples else "log", wrong)
    fields = {
        "algorithm": "ring", "chosen": "ring", "transport": "shared", "clock": "wall", "ranks": 8, "size_bytes": size,
        "count": size // 4, "dtype": "float32", "op": "sum", "channels": 1, "slices": 1, "out_of_place": timing, "in_place": None,
    }  # fmt: skip
    return Record(**{**fields, **more})


def sampled(path, factor=1.0, at=(), seed=0, spread=0.02, n=30):
    random = np.random.default_rng(seed)
    records = []
    for size in SIZES:
        mean = (1e-5 + size / 1e10) * (factor if size in at else 1.0)
        records.append(record(size, mean, list(mean * random.lognormal(0, spread, n))))
    return ResultFile(path, records, {}, [])


def test_the_same_distribution_is_level_and_a_planted_slowness_is_found():
    a, same = sampled("a"), sampled("b", seed=1)
    (c,) = compare([a, same])
    assert {p.verdict for p in c.points} == {LEVEL} and not c.slower
    (c,) = compare([a, sampled("c", factor=1.2, at=SIZES[3:5], seed=2)])
    assert [p.size_bytes for p in c.points if p.verdict == SLOWER] == SIZES[3:5]
    assert all(p.low < 1.2 < p.high for p in c.slower)
    (c,) = compare([a, sampled("d", factor=0.8, at=SIZES[3:5], seed=3)])
    assert [p.size_bytes for p in c.points if p.verdict == FASTER] == SIZES[3:5] and not c.slower


def test_a_sure_but_small_difference_is_level_and_the_threshold_says_what_is_small():
    a, b = sampled("a", spread=0.001), sampled("b", 1.03, SIZES, 1, 0.001)
    assert not compare([a, b])[0].slower
    assert len(compare([a, b], threshold=0.01)[0].slower) == len(SIZES)


def test_false_alarms_stay_rare_over_many_sizes():
    """Of 25 comparisons of 18 equal sizes at threshold 0, about one in twenty comparisons may call something slower or faster."""
    alarms = 0
    for seed in range(25):
        (c,) = compare([sampled("a", seed=2 * seed, n=12), sampled("b", seed=2 * seed + 1, n=12)], threshold=0.0)
        alarms += any(p.verdict != LEVEL for p in c.points)
    assert alarms <= 6  # binomial(25, 0.05) is at most 6 with probability 0.9998


def test_times_without_samples_are_held_against_the_published_scatter():
    a = ResultFile("a", [record(s, 1e-5 + s / 1e10) for s in SIZES], {}, [])
    b = ResultFile("b", [record(s, (1e-5 + s / 1e10) * (1.5 if s == SIZES[4] else 1.01)) for s in SIZES], {}, [])
    (c,) = compare([a, b])
    assert {p.by for p in c.points} == {"repeatability"}
    assert [p.size_bytes for p in c.slower] == [SIZES[4]]
    for p in c.points:
        assert p.low < p.ratio < p.high


def test_the_published_scatter_is_that_of_the_two_runs():
    """Repeatability of a few percent below 64 KiB, most around 1 MiB, a few tenths from 64 MiB (the two Sophia runs, by hand)."""
    small, middle, large = (scatter(s)[0] for s in (1024, 1 << 20, 1 << 28))
    assert 0.01 < small < 0.03 and middle > small and large < 0.005
    assert scatter(1024)[1] > 10


def test_several_runs_in_one_file_are_samples():
    times = [1.00e-3, 1.01e-3, 0.99e-3, 1.02e-3, 1.00e-3]
    a = ResultFile("a", [record(1 << 20, t) for t in times], {}, [])
    b = ResultFile("b", [record(1 << 20, 1.3 * t) for t in times], {}, [])
    (c,) = compare([a, b])
    assert c.points[0].by == "samples" and c.points[0].verdict == SLOWER


def test_wrong_results_fail_however_fast():
    a, b = ResultFile("a", [record(1024, 2e-5)], {}, []), ResultFile("b", [record(1024, 1e-5, wrong=3)], {}, [])
    (c,) = compare([a, b])
    assert c.points[0].verdict == WRONG and c.slower and "WRONG" in text([c], 0.05)


def test_modelled_times_have_no_scatter():
    a = ResultFile("a", [record(1024, 1e-5, clock="fabric:x")], {}, [])
    b = ResultFile("b", [record(1024, 1.2e-5, clock="fabric:x")], {}, [])
    assert compare([a, b])[0].points[0].verdict == SLOWER and compare([a, a])[0].points[0].verdict == LEVEL


def test_only_like_is_compared():
    a = ResultFile("a", [record(1024, 1e-5)], {}, [])
    for other in (record(1024, 1e-5, ranks=16), record(1024, 1e-5, collective="all_gather"), record(2048, 1e-5)):
        with pytest.raises(UserError, match="in common"):
            compare([a, ResultFile("b", [other], {}, [])])
    two = ResultFile("b", [record(1024, 1e-5, algorithm="tree", dtype="float16")], {}, [])
    assert any("ring against tree" in n for n in compare([a, two])[0].notes)
    assert any("float32 against float16" in n for n in compare([a, two])[0].notes)


def test_environments_are_told_apart():
    one = record(1024, 1e-5, environment={"mpi": "5.0", "settings": {"NCCL_ALGO": "Ring"}, "time": "1"})
    two = record(1024, 1e-5, environment={"mpi": "5.1", "settings": {}, "time": "2"})
    assert differences([one], [two]) == [("mpi", "5.0", "5.1"), ("settings.NCCL_ALGO", "Ring", "")]


def test_mann_whitney_against_a_worked_example():
    """Hollander and Wolfe, example 4.1 (water transfer): W = 30 of 5 and 10, U = 35 of mean 25; normal approximation by hand."""
    term = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46]
    early = [1.15, 0.88, 0.90, 0.74, 1.21]
    z = (35 - 25 - 0.5) / math.sqrt(10 * 5 * 16 / 12)
    assert mann_whitney(term, early) == pytest.approx(math.erfc(z / math.sqrt(2)))
    assert mann_whitney([1.0] * 5, [1.0] * 5) == 1.0


def test_benjamini_hochberg_against_the_paper():
    """The 15 p values of Benjamini and Hochberg (1995), section 3: the first four are rejected at 5 %, and no more."""
    p = [
        0.0001,
        0.0004,
        0.0019,
        0.0095,
        0.0201,
        0.0278,
        0.0298,
        0.0344,
        0.0459,
        0.3240,
        0.4262,
        0.5719,
        0.6528,
        0.7590,
        1.0,
    ]
    order = np.random.default_rng(0).permutation(len(p))
    corrected = dict(zip(order, benjamini_hochberg([p[i] for i in order])))
    assert [i for i in range(len(p)) if corrected[i] <= 0.05] == [0, 1, 2, 3]


@pytest.mark.parametrize("freedom, t", [(1, 12.706), (2, 4.303), (5, 2.571), (10, 2.228), (16, 2.120)])
def test_student_against_the_table(freedom, t):
    assert student_quantile(freedom) == pytest.approx(t, abs=6e-4)
    assert student_two_sided(t, freedom) == pytest.approx(0.05, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-6, 1e3), min_size=4, max_size=40), st.floats(0.1, 10))
def test_a_ratio_of_scaled_samples_holds_its_factor(samples, factor):
    low, high = bootstrap_ratio(samples, [factor * s for s in samples])
    assert low <= factor * (1 + 1e-9) and high >= factor * (1 - 1e-9)
    assert mann_whitney(samples, samples) == pytest.approx(1.0)


@pytest.mark.parametrize("n", [1, 2, 9, 30])
def test_bootstrapped_medians_are_those_of_resampling(n):
    """The same distribution as that of plain resampling, at odd and even numbers of samples (two-sample Kolmogorov-Smirnov)."""
    random = np.random.default_rng(5)
    ordered = np.sort(random.lognormal(0, 0.2, n))
    fast = np.sort(np.concatenate([_bootstrap_medians(ordered, random) for _ in range(10)]))
    plain = np.sort(np.median(ordered[random.integers(0, n, (len(fast), n))], axis=1))
    at = np.concatenate([fast, plain])
    apart = np.abs(np.searchsorted(fast, at, "right") - np.searchsorted(plain, at, "right")).max() / len(fast)
    assert apart < 1.95 * math.sqrt(2 / len(fast))  # p = 0.001


def test_texts_pictures_and_hostile_names():
    a = ResultFile("a|<script>.log", sampled("a").records, {}, [])
    hostile = {"settings": {"X": "</details><img src=x onerror=1>|`@me`"}}
    b = ResultFile("b", [record(r.size_bytes, r.best.seconds * 1.5, environment=hostile) for r in a.records], {}, [])
    found = compare([a, b])
    out = markdown(found, 0.05)
    assert "<script>" not in out and "<img" not in out and "@me" not in out and out.startswith("### ❌")
    assert "18 sizes" in text(found, 0.05)
    assert picture(found, 0.05).axes
