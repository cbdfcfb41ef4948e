"""`busbw simulate`: the table, the file, the pictures, bad input, and the same answers over MPI ranks."""

import json
from pathlib import Path

import busbw
import pytest
from busbw.bench.record import read
from busbw.scripts import main

SWEEP = ["simulate", "dgx-h100-cx7", "--ranks", "8,16", "-b", "1K", "-e", "16M", "-f", "16"]


def times(path):
    return {(r.ranks, r.size_bytes, r.algorithm): r.best.seconds for r in read(path).records}


def test_the_table_the_file_and_the_summary_hold_the_same_sweep(tmp_path, capsys):
    out = tmp_path / "run.jsonl"
    assert main([*SWEEP, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    rows = [line for line in text.splitlines() if line.strip() and line.strip()[0].isdigit() and " sum      -1" in line]
    records = read(out).records
    assert len(rows) == len(records) == 2 * 4 * 2
    for row, r in zip(rows, records):
        cells = row.split("#")[0].split()
        assert int(cells[0]) == r.size_bytes
        assert float(cells[5]) == pytest.approx(r.best.seconds * 1e6, rel=2e-3)
        assert row.endswith(f"# {r.algorithm}, {r.ranks}")
    assert {r.clock for r in records} == {"fabric:dgx-h100-cx7"}
    assert {r.transport for r in records} == {"exact"}
    assert "not measured" in text
    assert "Crossover" in text
    assert all(r.options["system"] == "dgx-h100-cx7" for r in records)


def test_python_gives_what_the_command_gives(tmp_path):
    out = tmp_path / "run.jsonl"
    assert main([*SWEEP, "-q", "--out", str(out)]) == 0
    result = busbw.simulate("dgx-h100-cx7", ranks="8,16", first="1K", last="16M", factor=16)
    assert {(r.ranks, r.size_bytes, r.algorithm): r.best.seconds for r in result.records} == times(out)
    assert "ring" in "\n".join(result.summary())


def test_overrides_change_the_answer_and_stand_in_the_record(tmp_path):
    plain = busbw.simulate("dgx-h100-cx7", ranks=16, first="1G", last="1G", algorithms="ring")
    slow = busbw.simulate(
        "dgx-h100-cx7", ranks=16, first="1G", last="1G", algorithms="ring", overrides=["nic.rate=100Gb/s"]
    )
    assert slow.records[0].best.seconds > 2 * plain.records[0].best.seconds
    assert slow.records[0].options["overrides"] == ["nic.rate=100Gb/s"]
    with pytest.raises(TypeError, match="no option 'speed'"):
        busbw.simulate("dgx-h100-cx7", speed=2)


def test_a_card_of_ones_own_is_simulated(tmp_path, capsys):
    from busbw.fabric.cards import card

    source = Path(card.__file__).parent / "systems" / "dgx-h100-cx7.yaml"
    mine = tmp_path / "mine.yaml"
    mine.write_text(source.read_text())
    assert main(["simulate", str(mine), "--ranks", "16", "-b", "1M", "-e", "1M", "-q"]) == 0
    assert "# mine: " in capsys.readouterr().out


@pytest.mark.parametrize("algorithm", ["ring", "tree"])
def test_a_timeline_is_drawn_and_traced(tmp_path, capsys, algorithm):
    picture, trace = tmp_path / "t.png", tmp_path / "t.json"
    command = ["simulate", "dgx-h100-cx7", "--ranks", "16", "-e", "64K", "--algo", algorithm, "--slices", "2"]
    assert main([*command, "--timeline", str(picture), "--timeline", str(trace)]) == 0
    assert picture.read_bytes()[:4] == b"\x89PNG"
    events = json.loads(trace.read_text())["traceEvents"]
    last = max(e["ts"] + e["dur"] for e in events if e["ph"] == "X")
    seconds = busbw.simulate(
        "dgx-h100-cx7", ranks=16, first="64K", last="64K", algorithms=algorithm, slices=2
    ).records[0].best.seconds  # fmt: skip
    assert last == pytest.approx(seconds * 1e6, rel=1e-9)
    assert f"{seconds * 1e6:.3f} us" in capsys.readouterr().out


def test_a_training_step_is_the_sum_of_its_buckets(capsys):
    assert main(["simulate", "dgx-b200-cx7", "--ranks", "64", "--buckets", "40x25M,8M", "--algo", "ring"]) == 0
    text = capsys.readouterr().out
    each = [
        busbw.simulate("dgx-b200-cx7", ranks=64, first=s, last=s, algorithms="ring").records[0].best.seconds
        for s in ("25M", "8M")
    ]
    together = 40 * each[0] + each[1]
    assert f"{together * 1e3:.2f} ms" in text
    assert "1008 MiB of gradients" in text


def test_grok_1_states_its_assumptions(capsys):
    assert main(["simulate", "memphis-h100-100k", "--workload", "grok-1", "--ranks", "2048", "--algo", "tree"]) == 0
    text = capsys.readouterr().out
    assert "315.7 billion parameters" in text
    assert "32 copies" in text
    assert "estimated" in text
    assert "Not overlapped" in text
    assert "Overlapped" in text


def test_power_compares_two_systems(capsys):
    command = ["simulate", "memphis-b200-cx8-300k", "--power", "20MW", "--algo", "tree", "-e", "16M"]
    assert main([*command, "--against", "memphis-h100-100k"]) == 0
    text = capsys.readouterr().out
    assert f"{int(20e6 / 1900 / 8) * 8:,}" in text
    assert f"{int(20e6 / 1400 / 8) * 8:,}" in text
    assert "planning figures" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dgx-h100"], "did you mean 'dgx-h100-cx7'"),
        (["dgx-h100-cx7", "--ranks", "5000"], "has 1016 GPUs"),
        (["dgx-h100-cx7", "--ranks", "x"], "accepted are whole numbers"),
        (["dgx-h100-cx7", "-b", "10Q"], "size '10Q'"),
        (["dgx-h100-cx7", "-b", "2", "-e", "3"], "no size has one element"),
        (["dgx-h100-cx7", "-f", "two"], "accepted is a number above 1"),
        (["dgx-h100-cx7", "-d", "float128"], "accepted: float64"),
        (["dgx-h100-cx7", "--set", "nic.rat=4"], "did you mean 'nic.rate'"),
        (["dgx-h100-cx7", "--timeline", "x.gif"], ".png, .svg, .pdf or .json"),
        (["dgx-h100-cx7", "--timeline", "x.png", "--ranks", "65"], "2 to 64"),
        (["dgx-h100-cx7", "--timeline", "x.png", "--power", "1GW"], "one of them at a time"),
        (["dgx-h100-cx7", "--buckets", "3xq"], "size 'q'"),
        (["dgx-h100-cx7", "--buckets", "0x1M"], "40x25M"),
        (["dgx-h100-cx7", "--workload", "grok-2"], "did you mean grok-1"),
        (["dgx-h100-cx7", "--workload", "grok-1", "--ranks", "100"], "accepted: 128 GPUs or more"),
        (["dgx-h100-cx7", "--shards", "2"], "goes with --workload"),
        (["dgx-h100-cx7", "--power", "5"], "no unit"),
        (["dgx-h100-cx7", "--against", "frontier"], "goes with --power"),
        (["dgx-h100-cx7", "--out", "/proc/nowhere/x"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as e:
        main(["simulate", *arguments])
    assert e.value.code == 2
    said = capsys.readouterr()
    assert message in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not said.out


def test_a_replay_that_does_not_fit_names_what_would(capsys):
    huge = ["simulate", "memphis-h100-100k", "--model", "replay", "--algo", "two-shot", "-e", "1M", "-b", "1M"]
    with pytest.raises(SystemExit) as e:
        main(huge)
    assert e.value.code == 2
    said = capsys.readouterr().err
    assert "--model loggp would fit" in said
    ranks = said.split("--ranks ")[1].split()[0]
    from busbw.bench.environment import available_bytes
    from busbw.fabric import simulate
    from busbw.fabric.cards import card

    asked = simulate.Options((int(ranks),), (1 << 20,), ("two-shot",), "replay")
    assert (
        simulate.memory_bytes(card.load("memphis-h100-100k"), asked, simulate.Point("two-shot", int(ranks), 1 << 20))
        < available_bytes()
    )


def test_an_existing_file_is_not_written_over(tmp_path, capsys):
    out = tmp_path / "run.jsonl"
    out.write_text("mine\n")
    with pytest.raises(SystemExit):
        main([*SWEEP, "--out", str(out)])
    assert out.read_text() == "mine\n"


def test_ctrl_c_keeps_what_is_finished(tmp_path, capsys, monkeypatch):
    from busbw.fabric import simulate

    real = simulate.evaluate

    def interrupted(system, options, point, progress=None):
        if point.size_bytes > 1 << 14:
            raise KeyboardInterrupt
        return real(system, options, point, progress)

    monkeypatch.setattr(simulate, "evaluate", interrupted)
    out = tmp_path / "run.jsonl"
    assert main([*SWEEP, "--out", str(out)]) == 130
    assert len(read(out).records) == 4
    assert "interrupted: 4 finished points are kept" in capsys.readouterr().out


def test_mpi_ranks_give_the_serial_results_and_one_voice(mpirun, tmp_path):
    serial, parallel = tmp_path / "serial.jsonl", tmp_path / "parallel.jsonl"
    assert main([*SWEEP, "-q", "--out", str(serial)]) == 0
    done = mpirun(2, "-m", "busbw", *SWEEP, "--out", str(parallel))
    assert (done.returncode, done.stderr) == (0, "")
    assert times(parallel) == times(serial)
    assert [r.size_bytes for r in read(parallel).records] == [r.size_bytes for r in read(serial).records]
    assert done.stdout.count("# busbw version") == 1
    assert "2 MPI processes" in done.stdout
    refused = mpirun(2, "-m", "busbw", "simulate", "dgx-h100-cx7", "--algo", "rign")
    assert refused.returncode == 2
    assert refused.stderr.count("did you mean ring") == 1


@pytest.mark.parametrize("more", [["--noise", "exponential:mean=3us", "--ranks", "8,1100"], ["--ranks", "67"]])
def test_one_large_ring_is_cut_over_the_mpi_ranks_with_the_serial_result(mpirun, tmp_path, more):
    """With noise, and without where every hop has its own costs (too many of them for longest paths)."""
    sweep = ["simulate", "dgx-h100-cx7", "-b", "1M", "-e", "1M", "--slices", "1", "--set", "gpus=1104", *more]
    sweep += ["--model", "recurrence", "--straggler=3:nic:70%", "--straggler=5:83%"]
    serial, parallel = tmp_path / "serial.jsonl", tmp_path / "parallel.jsonl"
    assert main([*sweep, "-q", "--out", str(serial)]) == 0
    done = mpirun(3, Path(__file__).parent / "cut_ring_job.py", *sweep, "--out", str(parallel))
    assert done.returncode == 0, done.stderr
    assert times(parallel) == times(serial)
    blocks = [int(line.split(": ")[1]) for line in done.stderr.splitlines() if line.startswith("blocks: ")]
    assert len(blocks) == 3 and sum(blocks) > 3 and blocks.count(0) < 2
