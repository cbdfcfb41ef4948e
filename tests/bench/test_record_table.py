"""The result file, nccl-tests' table and JSON, and message sizes."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from busbw.bench import record
from busbw.bench.record import Record, RecordError, Timing, append, read
from busbw.bench.sizes import format_size, parse_size, sweep_sizes
from busbw.bench.table import footer, header, number, row
from busbw.interchange.nccl_tests import to_json
from hypothesis import given
from hypothesis import strategies as st


def timing(seconds=571.9e-6, wrong=0):
    return Timing(seconds, seconds * 0.99, seconds * 1.01, [seconds] * 20, 1, 4, "confidence", wrong)


def made(**changes):
    record = Record(
        algorithm="ring", chosen="ring", transport="shared", clock="wall", ranks=16, size_bytes=8388608, count=2097152,
        dtype="float32", op="sum", channels=1, slices=1, out_of_place=timing(), in_place=timing(563.5e-6),
        environment={"hostnames": ["h"]}, options={"first": 8, "last": 8388608},
    )  # fmt: skip
    return replace(record, **changes)


# The example row of nccl-tests' documentation, with the 6-wide #wrong of the present version.
EXAMPLE = "     8388608       2097152     float     sum      -1   571.90   14.67   27.50       0   563.50   14.89   27.91       0"


def test_a_row_is_nccl_tests_row():
    assert row(made()) == EXAMPLE


def test_header_and_rows_line_up():
    top, names, units = header().split("\n")
    assert names.index("#wrong") + 6 == len(EXAMPLE) - 33
    assert len(names) == len(units) == len(EXAMPLE)
    assert " ".join(names.split()) == "# size count type redop root time algbw busbw #wrong time algbw busbw #wrong"
    assert top.index("out-of-place") < top.index("in-place", top.index("out-of-place") + 12)


def test_columns_split_like_nccl_tests_and_the_algorithm_stands_behind():
    fields = row(made(algorithm="auto"), named=True).split()
    assert fields[:5] == ["8388608", "2097152", "float", "sum", "-1"]
    assert fields[13:] == ["#", "auto", "(ring)"]


def test_per_iteration_columns():
    line = row(made(), per_iteration=True)
    assert len(line.split()) == 5 + 2 * 8
    assert len(line) == len(header(per_iteration=True).split("\n")[1])


@pytest.mark.parametrize(
    "value, width, text",
    [(0, 7, "   0.00"), (9.999, 7, "  10.00"), (571.9, 7, " 571.90"), (12345.6, 7, "12345.6"), (123456.7, 7, " 123457"),
     (12345678, 7, "1.2e+07"), (0.05, 6, "  0.05"), (1234.56, 6, "1234.6"), (99999.4, 6, " 99999")],
)  # fmt: skip
def test_numbers_take_as_many_decimals_as_fit(value, width, text):
    assert number(value, width) == text


def test_footer_fails_on_wrong_elements():
    assert "# Out of bounds values : 0 OK" in footer([made()])
    assert "# Out of bounds values : 3 FAILED" in footer([made(in_place=timing(wrong=3))])
    assert "# Avg bus bandwidth    : 27.7" in footer([made()])


def test_busbw_is_two_p_minus_one_over_p():
    r = made(ranks=4, size_bytes=1_000_000, out_of_place=timing(1e-3))
    assert r.algbw() == pytest.approx(1e9)
    assert r.busbw() == pytest.approx(1.5e9)
    assert made(ranks=1).busbw() == 0


def test_nccl_json_has_the_keys_and_units_of_nccl_tests():
    document = json.loads(json.dumps(to_json([made()])))
    (result,) = document["results"]
    assert result["out_of_place"]["time"] == pytest.approx(571.9)
    assert result["out_of_place"]["bus_bw"] == pytest.approx(27.50, abs=0.01)
    assert result["type"] == "float" and result["redop"] == "sum"
    assert document["out_of_bounds"] == {"count": 0, "okay": "true"}
    assert result["in_place_per_iter"]["p50_us"] == pytest.approx(563.5)


def test_nccl_json_lists_the_ranks_of_every_host_where_nccl_tests_does():
    """The layout of -J in nccl-tests' src/util.cu, key by key and in its order."""
    hosts = ["a", "a", "b", "b"]
    at = "2026-01-02T03:04:05+00:00"
    document = to_json(
        [made(ranks=4, environment={"hostnames": ["a", "b"], "rank_hosts": hosts, "mpi": "x", "time": at}, time=at)]
    )
    assert list(document) == [
        "version", "start_time", "args", "env", "nccl_version", "config", "results", "out_of_bounds", "average_bus_bandwidth",
        "errors", "end_time",
    ]  # fmt: skip
    assert list(document["config"]) == [
        "nthreads", "ngpus", "minimum_bytes", "maximum_bytes", "step_factor", "warmup_iters", "iterations",
        "aggregated_iterations", "validation", "graph", "blocking_collectives", "per_iter_timing", "parallel_init", "devices",
    ]  # fmt: skip
    assert [d["hostname"] for d in document["config"]["devices"]] == hosts
    assert list(document["config"]["devices"][0]) == [
        "rank", "group", "pid", "hostname", "device", "device_hex", "device_info",
    ]  # fmt: skip
    (result,) = document["results"]
    assert result["experiment_name"] == "all_reduce" and list(result)[-2:] == ["actual_iterations", "experiment_name"]
    assert len(document["start_time"]) == len("2026-01-02 03:04:05") and document["end_time"] == document["start_time"]


def test_a_file_comes_back_as_it_was_written(tmp_path):
    path = tmp_path / "r.jsonl"
    records = [made(), made(size_bytes=16, count=4, in_place=None)]
    for r in records:
        append(path, r.to_json())
    append(path, record.limits_line({"read": 1e10}, "x"))
    found = read(path)
    assert found.records == records
    assert found.limits == {"read": 1e10}
    assert found.notes == []


def test_a_cut_last_line_is_passed_over_and_resuming_does_not_glue_to_it(tmp_path):
    path = tmp_path / "r.jsonl"
    append(path, made().to_json())
    with open(path, "a") as f:
        f.write(made().to_json()[:200])
    found = read(path)
    assert len(found.records) == 1 and len(found.notes) == 1
    append(path, made(count=4, size_bytes=16).to_json())
    assert [r.size_bytes for r in read(path).records] == [8388608, 16]


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda d: d.update(schema="busbw.result/9"), "another version"),
        (lambda d: d.pop("ranks"), "'ranks' is missing"),
        (lambda d: d.update(ranks="4"), "ranks is str"),
        (lambda d: d.update(ranks=0), "ranks must be from 1"),
        (lambda d: d.update(size_bytes=10**400), "size_bytes must be"),
        (lambda d: d.update(kind="other"), "accepted: measurement, limits"),
        (lambda d: d["out_of_place"].update(seconds=float("nan")), "finite"),
        (lambda d: d["out_of_place"].update(ci_high=float("inf")), "finite"),
        (lambda d: d["out_of_place"].update(samples=["x"]), "finite"),
        (lambda d: d.update(out_of_place=None, in_place=None), "neither"),
        (lambda d: d.update(warnings=[1]), "texts"),
    ],
)
def test_hostile_files_are_refused_in_one_line(tmp_path, change, says):
    d = json.loads(made().to_json())
    change(d)
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(d) + "\n")
    with pytest.raises(RecordError, match=says) as e:
        read(path)
    assert f"{path}:1" in str(e.value) and "\n" not in str(e.value)


def test_files_that_are_no_result_files(tmp_path):
    for content in (b"", b"hello\n", b"[1]\n", b"\x00\xff\n", b"[" * 100_000):
        path = tmp_path / "x"
        path.write_bytes(content)
        with pytest.raises(RecordError):
            read(path)
    with pytest.raises(RecordError, match="cannot be read"):
        read(tmp_path / "missing")


@pytest.mark.parametrize(
    "text, n",
    [("8", 8), ("64K", 65536), ("1.5M", 1572864), ("1G", 1 << 30), ("2GiB", 2 << 30), ("4 KB", 4096)],
)
def test_sizes_are_powers_of_two(text, n):
    assert parse_size(text) == n


@pytest.mark.parametrize("text", ["", "12Q", "-5", "1e6", "K", "0.3", "9999999T", "1_000", "٣"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError):
        parse_size(text)


@given(first=st.integers(0, 1 << 20), more=st.integers(0, 1 << 24), factor=st.floats(1.01, 16))
def test_a_sweep_rises_from_its_first_to_at_most_its_last(first, more, factor):
    sizes = sweep_sizes(first, first + more, factor)
    assert sizes[0] == first and sizes[-1] <= first + more
    assert all(a < b for a, b in pairwise(sizes))


def test_sweep_sizes_by_factor_and_step():
    assert sweep_sizes(8, 64) == [8, 16, 32, 64]
    assert sweep_sizes(4, 16, step=4) == [4, 8, 12, 16]
    for bad in ((1 << 30, 8), (-1, 8)):
        with pytest.raises(ValueError):
            sweep_sizes(*bad)
    with pytest.raises(ValueError, match="factor"):
        sweep_sizes(8, 64, 1)
    with pytest.raises(ValueError, match="more than"):
        sweep_sizes(1, 1 << 30, step=1)


def test_sizes_for_people():
    assert [format_size(n) for n in (0, 8, 1536, 4 << 20, 1 << 40)] == ["0 B", "8 B", "1.5 KiB", "4 MiB", "1 TiB"]
