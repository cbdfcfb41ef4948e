"""What bench/summary.py says, held against curves whose n1/2, crossover and limits are known in closed form."""

import math
import re

import pytest
from busbw.bench import summary
from busbw.bench.record import Record, Timing
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = tuple(8 << i for i in range(26))  # 8 B to 256 MiB
OCTAVES = (
    0.07  # how far a straight line between two sizes an octave apart may miss the curve (test on a finer grid below)
)


def timing(seconds, width=0.001, wrong=0):
    ends = (seconds * (1 - width), seconds * (1 + width))
    return Timing(seconds, *ends, [seconds] * 5, 1, 5, "confidence", wrong)


def record(algorithm, size, seconds, *, in_place=None, ranks=8, width=0.001, wrong=0, **more):
    fields = {
        "chosen": algorithm,
        "transport": "shared",
        "clock": "wall",
        "dtype": "float32",
        "op": "sum",
        "environment": {"cpu_model": "cpu", "hostnames": ["a"]},
        **more,
    }
    return Record(
        algorithm=algorithm,
        ranks=ranks,
        size_bytes=size,
        count=size // 4,
        channels=1,
        slices=1,
        out_of_place=None if seconds is None else timing(seconds, width, wrong),
        in_place=None if in_place is None else timing(in_place, width),
        **fields,
    )


def line(algorithm, alpha, beta, sizes=SIZES, **more):
    """Records of t = alpha + n beta."""
    return [record(algorithm, n, alpha + n * beta, **more) for n in sizes]


def only(records):
    (curve,) = summary.series(records)
    return curve


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 1e-4), st.floats(1e-11, 1e-9))
def test_half_size_of_a_line_is_alpha_over_beta(alpha, beta):
    # The largest size is finite, so half of the *measured* peak is reached a little earlier:
    # n / (alpha + n beta) = N / (alpha + N beta) / 2.
    largest = SIZES[-1]
    exact = alpha * largest / (2 * alpha + beta * largest)
    assert summary.half_size(only(line("ring", alpha, beta))) == pytest.approx(exact, rel=OCTAVES)


def test_half_size_tends_to_alpha_over_beta_on_a_fine_grid():
    sizes = [round(8 * 1.1**i) for i in range(200)]
    found = summary.half_size(only(line("ring", 1e-5, 1e-10, sizes)))
    assert found == pytest.approx(1e5, rel=1e-3)


@pytest.mark.parametrize("sizes", [(1 << 20,), (1 << 28, 1 << 29)])
def test_half_size_is_unknown_where_no_measured_size_lies_below_it(sizes):
    assert summary.half_size(only(line("ring", 1e-5, 1e-10, sizes))) is None


@settings(max_examples=50, deadline=None)
@given(st.floats(1e-6, 1e-5), st.floats(2.0, 10.0), st.floats(1e-11, 1e-9), st.floats(1.5, 5.0))
def test_crossover_of_two_lines_is_where_they_meet(alpha, more, beta, slower):
    exact = alpha * (more - 1) / (beta * (slower - 1))
    if not 32 < exact < SIZES[-1] / 4:
        return
    records = line("tree", alpha, beta * slower, width=0) + line("ring", alpha * more, beta, width=0)
    found = summary.crossover(summary.series(records))
    assert found.size_bytes == pytest.approx(exact, rel=OCTAVES)
    assert (found.tree, found.ring) == ("tree", "ring")


def test_crossover_is_exact_on_a_fine_grid():
    sizes = [round(1024 * 1.02**i) for i in range(300)]
    records = line("tree", 1e-6, 4e-10, sizes, width=0) + line("ring", 9e-6, 2e-10, sizes, width=0)
    assert summary.crossover(summary.series(records)).size_bytes == pytest.approx(4e4, rel=1e-3)


def test_no_crossover_where_the_tree_never_or_always_wins_or_a_family_is_missing():
    fast, slow = line("tree", 1e-6, 1e-10), line("ring", 2e-6, 2e-10)
    assert summary.crossover(summary.series(fast + slow)) is None
    assert summary.crossover(summary.series(line("tree", 2e-6, 2e-10) + line("ring", 1e-6, 1e-10))) is None
    assert summary.crossover(summary.series(fast)) is None


def test_a_tie_by_chance_at_large_sizes_does_not_move_the_crossover():
    sizes = (1024, 2048, 4096, 8192)
    tree = [record("tree", n, t) for n, t in zip(sizes, (1e-6, 3e-6, 8e-6, 16e-6 * (1 - 1e-5)))]
    ring = [record("ring", n, t) for n, t in zip(sizes, (2e-6, 2e-6, 4e-6, 16e-6))]
    assert 1024 < summary.crossover(summary.series(tree + ring)).size_bytes < 2048


def test_ranges_merge_neighbours_and_call_overlapping_intervals_a_tie():
    tree = [record("tree", n, t) for n, t in zip((8, 16, 32, 64, 128), (1, 1, 4.0, 9, 9))]
    ring = [record("ring", n, t) for n, t in zip((8, 16, 32, 64), (2, 2, 4.001, 5))]
    assert summary.ranges(summary.series(tree + ring)) == [
        summary.Range(8, 16, ("tree",)),
        summary.Range(32, 32, ("tree", "ring")),
        summary.Range(64, 64, ("ring",)),
    ]  # and nothing of 128, which only the tree has


def test_modes_are_not_mixed_when_algorithms_are_compared():
    records = [record("ring", 8, 2.0), record("tree", 8, None, in_place=1.0), record("binomial", 8, 3.0)]
    assert summary.ranges(summary.series(records)) == [summary.Range(8, 8, ("ring",))]
    inplace = [record("ring", 8, None, in_place=2.0), record("tree", 8, None, in_place=1.0)]
    assert summary.ranges(summary.series(inplace)) == [summary.Range(8, 8, ("tree",))]


def test_clocks_are_never_compared():
    modelled = {"clock": "fabric:pod", "transport": "fabric"}
    one_of_each = line("ring", 1e-5, 1e-10) + line("tree", 1e-9, 1e-12, **modelled)
    assert not any("Fastest" in t or "Crossover" in t for t in summary.words(one_of_each, {}))
    # Whatever wins on one clock wins there, though everything on the other is faster.
    measured = line("tree", 1e-6, 1e-10) + line("ring", 2e-6, 1.1e-10)
    text = summary.words(measured + line("ring", 1e-9, 1e-12, **modelled) + line("tree", 2e-9, 1.1e-12, **modelled), {})
    assert [t.strip() for t in text if "Fastest" in t] == [
        "Fastest: tree from 8 B to 256 MiB.",
        "Fastest: ring from 8 B to 256 MiB.",
    ]
    assert [t for t in text if t.endswith(":")] == ["8 ranks, float32 sum:", "8 ranks, float32 sum, modelled (pod):"]


def test_a_size_measured_again_replaces_the_earlier_record():
    curve = only([record("ring", 8, 1.0), record("ring", 16, 1.0), record("ring", 8, 2.0)])
    assert [(r.size_bytes, r.best.seconds) for r in curve.records] == [(8, 2.0), (16, 1.0)]


def test_latency_is_at_the_smallest_size_that_moves_anything():
    curve = only([record("ring", 0, 1e-7), record("ring", 8, 1e-6), record("ring", 16, 2e-6)])
    assert summary.latency(curve)[0] == 8
    assert summary.latency(only([record("ring", 0, 1e-7)]))[0] == 0
    assert summary.peak(only([record("ring", 0, 1e-7)])) is None


def test_peak_is_busbw_and_for_one_rank_algbw():
    assert summary.peak(only([record("ring", 1000, 1e-6)]))[0] == pytest.approx(1e9 * 1.75)
    assert summary.peak(only([record("ring", 1000, 1e-6, ranks=1)]))[0] == pytest.approx(1e9)


def test_memory_limit_is_bandwidth_over_bytes_moved():
    limits = {"read": 900.0, "copy": 100.0, "add_nt": 120.0}
    assert summary.memory_bandwidth(limits) == (120.0, "add_nt")
    assert summary.limit_busbw(limits, 4) == pytest.approx(120 / 8 * 1.5)
    assert summary.limit_busbw(limits, 4, 12) == pytest.approx(120 / 12 * 1.5)
    assert summary.limit_busbw(limits, 1) == pytest.approx(120 / 2)
    assert summary.limit_busbw({}, 4) is None
    assert summary.limit_busbw({"copy": "fast", "add": math.nan, "read": -1}, 4) is None


def test_own_limit_takes_the_traffic_or_the_least_time_of_the_run():
    curve = only(line("ring", 1e-6, 1e-10))
    limits = {"copy": 160.0, "least_seconds": {"ring/out_of_place": 2.0}, "least_seconds_size": 100}
    assert summary.own_limit(curve, limits) == pytest.approx(100 / 2.0 * 1.75)
    assert summary.own_limit(curve, limits, lambda a, p: 3.0 * p) == pytest.approx(160 / 24 * 1.75)
    assert summary.own_limit(curve, {"copy": 160.0}) is None
    assert summary.limit_of(curve, {"copy": 160.0}) == pytest.approx(160 / 16 * 1.75)
    assert summary.own_limit(curve, {"least_seconds": 3, "least_seconds_size": "x"}) is None


@pytest.mark.parametrize(
    "more",
    [
        {"clock": "fabric:pod"},
        {"transport": "device"},
        {"environment": {"hostnames": ["a", "b"]}},
    ],
)
def test_host_memory_is_no_limit_for_models_devices_or_several_hosts(more):
    assert summary.limit_of(only(line("ring", 1e-6, 1e-10, **more)), {"copy": 1e11}) is None


def test_share_of_the_limit_is_taken_at_the_largest_size_and_not_of_small_messages():
    limits = {"copy": 16e9}  # 16e9 / 16 * 1.75 = 1.75e9 busbw, that is 1e9 algbw
    share, size = summary.fraction_of_limit(only(line("ring", 0, 2e-9)), limits)
    assert (round(share, 9), size) == (0.5, SIZES[-1])
    assert summary.fraction_of_limit(only(line("ring", 1e-6, 1e-9, SIZES[:4])), limits) is None


def test_words_tell_the_whole_story():
    records = line("tree", 5e-6, 4e-10) + line("ring", 2e-5, 1e-10)
    text = summary.words(records, {"copy": 400e9})
    assert text[0].startswith("tree: 8 B in 5.00 us; peak 4.37 GB/s busbw at 256 MiB, half of it at 12.5 KiB (n1/2)")
    assert "Fastest: tree from 8 B to 32 KiB; ring from 64 KiB to 256 MiB." in text
    (crossing,) = (t for t in text if t.startswith("Crossover"))
    assert re.fullmatch(r"Crossover from tree to ring: about (48|49)(\.\d)? KiB\.", crossing)
    assert text[-1] == (
        "Memory: at 256 MiB ring gets 40% of the 43.8 GB/s busbw that memory allows any algorithm (400 GB/s, copy)."
    )


def test_words_of_one_size_of_one_rank_and_of_nothing():
    assert summary.words([], {}) == []
    assert summary.words([record("ring", 1 << 20, 1e-3)], {}) == ["ring: 1 MiB in 1.00 ms, 1.84 GB/s busbw"]
    assert summary.words([record("ring", 0, 1e-6)], {}) == ["ring: 0 B in 1.00 us"]
    alone = summary.words(line("ring", 1e-6, 1e-10, ranks=1), {"copy": 1e11})
    assert "algbw" in alone[0] and "0 by definition" in alone[1]


def test_words_mention_in_place_only_where_its_peak_differs_notably():
    def text(faster):
        records = [record("ring", n, 1e-6 + n * 1e-10, in_place=(1e-6 + n * 1e-10) / faster) for n in SIZES]
        return summary.words(records, {})[0]

    assert "in-place" not in text(1.05)
    assert "; in-place peak 35.0 GB/s at 256 MiB" in text(2.0)


def test_words_do_not_hide_wrong_results():
    text = summary.words([record("ring", 8, 1e-6, wrong=3)], {})
    assert any("WRONG RESULTS at 8 B" in t for t in text)


def test_words_name_what_auto_loses_and_only_against_what_it_could_choose():
    records = line("ring", 1e-6, 1e-10) + line("numpy", 1e-9, 1e-12, transport="numpy")
    level = summary.words(records + line("auto", 1e-6, 1e-10, chosen="ring"), {})
    assert "auto: level with the fastest choice at every size." in level
    lost = summary.words(records + line("auto", 2e-6, 1e-10, chosen="tree"), {})
    assert "auto: at worst 100% slower than ring, at 8 B, where it chose tree." in lost


def test_words_separate_settings_and_name_machines_only_where_they_differ():
    two = line("ring", 1e-6, 1e-10) + line("ring", 1e-6, 1e-10, ranks=4)
    assert [t for t in summary.words(two, {}) if t.endswith(":")] == ["8 ranks, float32 sum:", "4 ranks, float32 sum:"]
    hosts = line("ring", 1e-6, 1e-10) + line("ring", 1e-6, 1e-10, environment={"hostnames": ["b"]})
    assert [t for t in summary.words(hosts, {}) if t.endswith(":")] == [
        "8 ranks, float32 sum on cpu a:",
        "8 ranks, float32 sum on b:",
    ]


def test_many_changes_of_the_winner_are_counted_rather_than_listed():
    ring = [record("ring", n, 2.0) for n in SIZES]
    tree = [record("tree", n, 1.0 + 2 * (i % 2)) for i, n in enumerate(SIZES)]
    (text,) = (t for t in summary.words(ring + tree, {}) if t.startswith("Fastest"))
    assert "changes 25 times" in text and "tree at 13" in text and "ring at 13" in text


def test_text_from_files_is_made_printable():
    text = "\n".join(summary.words(line("ring\x1b[31m\n\ud800", 1e-6, 1e-10, clock="fabric:\x07"), {}))
    assert text.isprintable() or set(text) - {"\n"} == {c for c in text if c.isprintable()}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ring", "tree", "auto", "numpy"]),
            st.integers(0, 1 << 30),
            st.sampled_from([0.0, 1e-9, 1e-3, 1e9]),
            st.integers(1, 3),
            st.sampled_from([0.0, 0.5, math.nan]),
        ),
        max_size=12,
    )
)
def test_words_never_fail(rows):
    records = [record(a, n, t, ranks=p, width=w) for a, n, t, p, w in rows]
    assert all(isinstance(t, str) for t in summary.words(records, {"copy": 1e11}))


@pytest.mark.parametrize(
    "value, text",
    [
        (0, "0 B"),
        (8, "8 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1 << 20, "1 MiB"),
        (1 << 50, "1 PiB"),
    ],
)
def test_size_words(value, text):
    assert summary.size_words(value) == text


@pytest.mark.parametrize(
    "value, text",
    [(8.2e-7, "820 ns"), (3.416e-6, "3.42 us"), (1.5e-5, "15.0 us"), (9.996e-4, "1.00 ms"), (2.5, "2.50 s")],
)
def test_time_words(value, text):
    assert summary.time_words(value) == text


@pytest.mark.parametrize(
    "value, text", [(12.34e9, "12.3 GB/s"), (4.1e8, "410 MB/s"), (2100, "2.10 kB/s"), (1, "1.00 B/s")]
)
def test_rate_words(value, text):
    assert summary.rate_words(value) == text
