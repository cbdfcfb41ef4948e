"""What must hold of the readers for any input: what is written is read back, and no input breaks them."""

import importlib.util
import io
import json
import random
from pathlib import Path

import pytest
from busbw.bench.log import UNBOUNDED, Figures, Row
from busbw.bench.record import Record, Timing, busbw_factor
from busbw.bench.table import footer, header, row
from busbw.interchange.logs import numbers, read_stream, scan
from busbw.interchange.logs.collective import collective
from busbw.interchange.logs.ranks import interval
from busbw.interchange.nccl_tests import to_json
from hypothesis import given, settings
from hypothesis import strategies as st

spec = importlib.util.spec_from_file_location(
    "fuzz_readers", Path(__file__).resolve().parents[2] / "benchmarks" / "fuzz_readers.py"
)
fuzz_readers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz_readers)

SECONDS = st.floats(1e-6, 100.0)
PREFIXES = ("", "[1,0]<stdout>:", " 0: ", "[pod/a-b/c] 2024-05-01T12:00:00.1Z ", "Thu Jul 18 15:41:05 2024<stdout>:")


def log_of(text: str):
    return read_stream(io.BufferedReader(io.BytesIO(text.encode())), "a.log")


@st.composite
def measured(draw):
    ranks = draw(st.integers(2, 4096))
    sizes = draw(st.lists(st.integers(1, 1 << 32).map(lambda n: 4 * n), min_size=1, max_size=12, unique=True))
    records = []
    for size in sorted(sizes):
        timings = [
            Timing(s, s, s, [s, s, s], 1, 1, "iterations", draw(st.sampled_from([0, 0, 0, 7, None]))) if s else None
            for s in (draw(SECONDS), draw(st.none() | SECONDS))
        ]
        records.append(
            Record("ring", "ring", "shared", "wall", ranks, size, size // 4, "float32", "sum", 1, 1, *timings)
        )
    return records


@settings(max_examples=60, deadline=None)
@given(measured(), st.sampled_from(PREFIXES), st.booleans(), st.booleans())
def test_our_own_table_is_read_back(records, prefix, named, per_iteration):
    lines = [
        *header(named, per_iteration).split("\n"),
        *(row(r, named, per_iteration) for r in records),
        *footer(records).split("\n"),
    ]
    found = log_of("".join(prefix + line + "\n" for line in lines))
    (table,) = found.tables
    assert [r.size_bytes for r in table.rows] == [r.size_bytes for r in records]
    for got, made in zip(table.rows, records):
        assert (got.count, got.dtype, got.op) == (made.count, "float", "sum")
        for half, timing in ((got.out_of_place, made.out_of_place), (got.in_place, made.in_place)):
            assert (half is None) == (timing is None)
            if timing:
                # within the last digit that the table prints
                assert abs(half.seconds - timing.seconds) <= half.seconds_error * (1 + 1e-9) + 1e-15
                assert half.wrong == timing.wrong
                assert per_iteration == (half.high is not None)
    assert table.ranks_low <= records[0].ranks <= table.ranks_high
    if named:
        assert {r.algorithm for r in table.rows} == {"ring"}


@settings(max_examples=40, deadline=None)
@given(measured())
def test_our_own_nccl_tests_json_is_read_back(records):
    (table,) = log_of(json.dumps(to_json(records))).tables
    for got, made in zip(table.rows, records):
        assert got.size_bytes == made.size_bytes
        assert got.out_of_place.seconds == pytest.approx(made.out_of_place.seconds)
        assert got.out_of_place.samples == pytest.approx(made.out_of_place.samples)
        assert (got.in_place is None) == (made.in_place is None)
    assert table.ranks == records[0].ranks


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "alltoall"]),
    st.integers(2, 100_000),
    st.lists(st.tuples(st.integers(8, 1 << 34), st.floats(5e-6, 1.0)), min_size=1, max_size=20),
)
def test_the_interval_of_ranks_holds_the_true_number(kind, ranks, points):
    """Whatever is printed with two decimals by the formula of nccl-tests, p is in the interval."""
    rows = []
    for size, seconds in points:
        printed = float(f"{seconds * 1e6:.2f}") * 1e-6
        algbw = size / seconds / 1e9
        busbw = algbw * busbw_factor(ranks, kind)
        half = Figures(printed, float(f"{algbw:.2f}") * 1e9, float(f"{busbw:.2f}") * 1e9, 0, None, 5e-9, 5e6, 5e6)
        rows.append(Row(1, size, half))
    found = interval(kind, rows)
    assert found.low <= ranks <= found.high and not found.clash


def test_figures_that_no_number_of_ranks_explains_clash():
    half = Figures(1e-3, 10e9, 25e9, algbw_error=5e6, busbw_error=5e6)
    assert interval("all_reduce", [Row(3, 10_000_000, half)]).clash == 3
    assert interval("broadcast", [Row(3, 10_000_000, half)]).high == UNBOUNDED


@given(st.integers(0, numbers.MAX_SIZE))
def test_sizes_in_every_spelling(value):
    assert numbers.size(str(value)) == numbers.size(f"{value:_}") == numbers.size(f"{value:,}") == (value, True)
    for unit, scale in (("KiB", 10), ("M", 20), ("GB", 30), ("TiB", 40)):
        small = value >> 44
        assert numbers.size(f"{small} {unit}" if value % 2 else f"{small}{unit}") == (small << scale, "i" in unit)


@pytest.mark.parametrize(
    "unit, factor",
    [
        ("GB/s", 1e9),
        ("GBps", 1e9),
        ("Gb/s", 0.125e9),
        ("Gbps", 0.125e9),
        ("Gbit/s", 0.125e9),
        ("MiB/s", 1 << 20),
        ("MBytes/sec", 1e6),
    ],
)
def test_a_small_b_is_a_bit(unit, factor):
    assert numbers.rate_unit(unit) == factor
    assert numbers.measure(f"12.5 {unit}")[0] == 12.5 * factor


@given(st.text(max_size=60))
def test_numbers_never_raise(text):
    for read in (numbers.integer, numbers.real, numbers.size, numbers.measure):
        read(text)
    collective(text)


@pytest.mark.parametrize(
    "name", ["AllReduce", "all_reduce_perf", "MPI_Allreduce", "osu_allreduce", "Iallreduce", "allreduce"]
)
def test_a_collective_has_many_spellings(name):
    assert collective(name) == "all_reduce"


def test_mutated_logs_break_nothing():
    """A few hundred of what benchmarks/fuzz_readers.py does at length."""
    source = random.Random(20)
    for _ in range(400):
        fuzz_readers.try_readers(fuzz_readers.mutate(source, fuzz_readers.SEEDS))


def test_what_is_kept_is_bounded_and_the_bound_is_said(monkeypatch):
    monkeypatch.setattr(scan, "MAX_ROWS", 100)
    text = ("x" * 70 + " ") * 20_000 + "\n" + header() + "\n"
    line = "    33554432  8388608  float  sum  -1  2180.1  15.39  29.50  0  2285.2  14.68  28.14  0\n"
    found = log_of(text + line * 20_000)
    assert len(found.tables[0].rows) == 100 and found.lines == 20_004
    assert {n.kind for n in found.all_notes} >= {"limit"}
    assert sum("longer" in n.text or "more than" in n.text for n in found.all_notes) == 1
