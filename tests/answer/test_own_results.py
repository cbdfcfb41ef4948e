"""busbw expect and report on busbw's own result files: against memory, a schedule on a card, or the library's model."""

import json
from dataclasses import replace

import pytest
from busbw.answer.situation import Given
from busbw.answer.tables import answers, answers_of_results
from busbw.answer.verdict import COLLAPSES, HEALTHY, LOW, UNKNOWN, WRONG
from busbw.bench.record import Record, ResultFile, Timing, append, limits_line
from busbw.fabric import simulate
from busbw.fabric.cards import card
from busbw.scripts import main
from hypothesis import given
from hypothesis import strategies as st
from log_excerpts import ACROSS_RACKS, H100, IMB_KNEE, nccl_log

LIMITS = {"copy": 20e9, "add": 24e9, "add_nt": 30e9}  # of a memory: bytes a second
SIZES = [1 << k for k in range(10, 28)]
HOST = {"hostnames": ["a"], "caches": {"L2": 1 << 20, "L3": 32 << 20}}
TWO_HOSTS = {**HOST, "hostnames": ["a", "b"]}
GPU = {**HOST, "gpu": {"devices": [{"name": H100, "l2_bytes": 50 << 20}]}}


def record(size, seconds, ranks=2, **changes):
    timing = Timing(seconds, seconds, seconds, [seconds] * 10, 1, 1, "confidence", 0)
    made = Record(
        algorithm="ring", chosen="ring", transport="shared", clock="wall", ranks=ranks, size_bytes=size, count=size // 4,
        dtype="float32", op="sum", channels=1, slices=1, out_of_place=timing, in_place=None, environment=HOST,
    )  # fmt: skip
    return replace(made, **changes)


def memory_curve(share, **changes):
    """Two ranks: at least 4 bytes of memory traffic a byte of the message, at 30 GB/s; much faster in the caches."""
    return [record(n, n * 4 / 30e9 / (share if n >= 32 << 20 else 10), **changes) for n in SIZES]


def answer_of(records, limits=LIMITS, threshold=None, **given):
    (found,) = answers_of_results(ResultFile("r.jsonl", records, limits, []), Given(**given), threshold)
    return found


@pytest.mark.parametrize("share, verdict", [(0.9, HEALTHY), (0.6, HEALTHY), (0.3, LOW)])
def test_ranks_of_one_host_are_held_against_its_memory(share, verdict):
    found = answer_of(memory_curve(share))
    assert found.verdict == verdict
    judged = [r for r in found.answer.rows if r.modelled]
    assert [r.size for r in judged] == [n for n in SIZES if n >= 32 << 20]
    assert all(r.share == pytest.approx(share) for r in judged)
    assert any("no wire takes part" in t and "7.50 GB/s" in t for t in found.answer.remarks)


def test_a_threshold_is_a_share_of_what_memory_allows():
    assert answer_of(memory_curve(0.9), threshold=0.95).verdict == LOW
    assert answer_of(memory_curve(0.3), threshold=0.25).verdict == HEALTHY


def test_a_curve_that_leaves_the_caches_does_not_collapse():
    found = answer_of(memory_curve(0.9))
    assert found.answer.rows[-1].busbw < found.answer.rows[0].busbw / 10
    assert found.verdict == HEALTHY and not found.answer.jumps


def test_what_the_sweep_warned_of_is_the_cause_of_a_low_number():
    warned = answer_of(memory_curve(0.3, warnings=["the load average is 9 on 2 cores"]))
    assert "the load average is 9 on 2 cores" in warned.causes[0].evidence
    assert not answer_of(memory_curve(0.9, warnings=["the load average is 9 on 2 cores"])).causes


def test_emulated_ranks_of_a_gpu_are_held_against_its_memory():
    limits = {"memory": "device", "copy": 3e12, "memcpy": 2.9e12}
    curve = [record(n, n * 4 / 3e12 / 0.8, transport="device", environment=GPU) for n in SIZES]
    found = answer_of(curve, limits)
    assert found.verdict == HEALTHY and found.answer.situation.gpu == H100
    assert [r.size for r in found.answer.rows if r.modelled] == [n for n in SIZES if n >= 50 << 20]
    assert "one GPU" in found.answer.remarks[0]


@pytest.mark.parametrize("devices", [7, "GPU", {"name": H100}, [7, None, {"l2_bytes": "50"}]])
def test_gpus_that_are_none_leave_the_question_open(devices):
    found = answer_of(memory_curve(0.9, environment={**HOST, "gpu": {"devices": devices}}, transport="device"),
                      {**LIMITS, "memory": "device"})  # fmt: skip
    assert found.verdict == UNKNOWN


def test_wrong_results_have_no_bandwidth_in_any_cache():
    curve = memory_curve(0.9)
    curve[0] = replace(curve[0], out_of_place=replace(curve[0].out_of_place, wrong=3))
    assert answer_of(curve).verdict == WRONG


def test_several_hosts_need_a_card_and_are_held_against_the_schedule_on_it():
    system = card.load("dgx-h100-cx7")
    options = simulate.checked(system, simulate.Options((16,), (1 << 20, 4 << 20, 16 << 20), ("ring",)))
    times = [(p.size_bytes, simulate.evaluate(system, options, p).seconds) for p in simulate.points(options)]

    def curve(scale):
        return [record(n, t * scale, 16, transport="mpi", environment=TWO_HOSTS) for n, t in times]

    unknown = answer_of(curve(1))
    assert unknown.verdict == UNKNOWN and "--system" in unknown.answer.situation.missing
    held = answer_of(curve(1.25), system=system)
    assert held.verdict == HEALTHY and all(r.share == pytest.approx(0.8) for r in held.answer.rows)
    assert answer_of(curve(3), system=system).verdict == LOW


def test_a_collapse_between_hosts_needs_no_card():
    curve = [record(n, n / (1e9 if n < 16 << 20 else 1e8), 4, transport="mpi", environment=TWO_HOSTS) for n in SIZES]
    found = answer_of(curve)
    assert found.verdict == COLLAPSES and found.causes


def test_modelled_times_and_small_sweeps_are_not_judged():
    modelled = answer_of([replace(r, clock="fabric:dgx-h100-cx7") for r in memory_curve(0.9)])
    assert modelled.verdict == UNKNOWN and "not measured" in modelled.answer.situation.missing
    small = answer_of(memory_curve(0.9)[:4], {})
    assert small.verdict == UNKNOWN and "-e" in small.answer.situation.missing


def test_nccl_measured_here_is_judged_as_its_own_log_is():
    gpus = {**HOST, "gpu": {"devices": [{"name": H100}] * 8, "nccl": {"version": "2.23.4"}}}
    curve = [record(n, n * 1.75 / 478e9, 8, transport="nccl", environment=gpus) for n in (1 << 32, 1 << 33)]
    found = answer_of(curve, {})
    assert found.verdict == HEALTHY and found.answer.situation.platform is not None


@pytest.mark.parametrize("text", [ACROSS_RACKS, IMB_KNEE, nccl_log(1, 8, H100, {1 << 33: 478.0}, wrong=7)])
def test_a_log_and_what_import_wrote_of_it_have_one_verdict(tmp_path, text):
    (tmp_path / "a.log").write_text(text)
    assert main(["import", str(tmp_path / "a.log"), "-o", str(tmp_path / "a.jsonl")]) == 0
    (log,), (own,) = (answers(str(tmp_path / name), Given()) for name in ("a.log", "a.jsonl"))
    assert own.verdict == log.verdict and own.answer.situation.nodes == log.answer.situation.nodes


def test_the_commands_judge_a_file(tmp_path, capsys):
    path = tmp_path / "r.jsonl"
    for r in memory_curve(0.3) + memory_curve(0.9, algorithm="tree", chosen="tree"):
        append(path, r.to_json())
    append(path, limits_line(LIMITS, ""))
    assert main(["expect", str(path), "--json"]) == 1
    ring, tree = json.loads(capsys.readouterr().out)
    assert (ring["verdict"], tree["verdict"]) == (LOW, HEALTHY) and ring["against"] == "what the memory allows"
    assert any("times slower than tree" in t for t in ring["remarks"])
    assert main(["report", str(path), "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert page.index("Are these numbers normal?") < page.index("Summary") and "what the memory allows" in page
    assert main(["report", str(path), "-o", str(tmp_path / "r.md")]) == 0
    assert "what the memory allows" in (tmp_path / "r.md").read_text()


def test_a_real_sweep_is_judged(tmp_path):
    path = str(tmp_path / "s.jsonl")
    assert (
        main(["sweep", "-q", "-b", "1K", "-e", "1M", "-f", "4", "--budget", "0.01", "--no-report", "--out", path]) == 0
    )
    found = answers(path, Given())
    assert [a.name.rpartition(", ")[2] for a in found] == ["ring", "tree"]
    assert all("no wire takes part" in a.answer.remarks[0] for a in found)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["hostnames", "caches", "gpu", "gpus", "settings", "nccl", "nics", "hints"]), ANYTHING
    ),
    st.sampled_from(["shared", "device", "nccl", "mpi", "peer"]),
    st.dictionaries(st.sampled_from(["memory", "copy", "add", "least_seconds", "least_seconds_size"]), ANYTHING),
)
def test_a_record_may_hold_anything(environment, transport, limits):
    answer_of([record(n, 1e-3, transport=transport, environment=environment) for n in (1 << 20, 64 << 20)], limits)
