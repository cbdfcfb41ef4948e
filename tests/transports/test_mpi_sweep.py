"""Sweeps of real mpirun jobs: what they say, and a clear end when a rank dies or stalls."""

import json
import os

import pytest


@pytest.fixture
def sweep(mpirun, tmp_path):
    """A function that sweeps 256 B to 4 KiB over `ranks`, and returns (what Finished, the sizes in the result file)."""

    def run(ranks, *more, inject=None):
        out = tmp_path / "result.jsonl"
        command = ["sweep", "-b", "256", "-e", "4K", "--algo", "ring", "--budget", "0.02", "--no-report"]
        command += ["--timeout", "3" if inject and inject.startswith("stall") else "60"]
        done = mpirun(ranks, "-m", "busbw", *command, "--out", out, *more, inject=inject)
        lines = out.read_text().splitlines() if out.exists() else []
        return done, [json.loads(line)["size_bytes"] for line in lines if "measurement" in line]

    return run


def test_only_rank_0_speaks_and_the_library_keeps_quiet_and_is_named(sweep, tmp_path):
    done, finished = sweep(2)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.count("# Collective test starting") == 1
    assert finished == [256, 512, 1024, 2048, 4096]
    library = json.loads((tmp_path / "result.jsonl").read_text().splitlines()[0])["environment"]["mpi"]
    assert library.startswith(("Open MPI", "MPICH", "Intel"))


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_ranks_that_the_launcher_left_free_get_a_core_each(sweep, tmp_path):
    for more, cores_each in (((), 1), (("--no-pin",), len(os.sched_getaffinity(0)))):
        done, _ = sweep(2, *more)
        assert done.returncode == 0, done.stderr
        assert ("pinned" in done.stdout) == (more == ())
        cores = json.loads((tmp_path / "result.jsonl").read_text().splitlines()[-1])["environment"]["rank_cores"]
        assert [len(c) for c in cores] == [cores_each] * 2
        assert more or cores[0] != cores[1]
        (tmp_path / "result.jsonl").unlink()


def test_mpi_native_is_measured_beside_ours(sweep):
    done, finished = sweep(2, "--algo", "ring,mpi-native")
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
def test_a_stalled_rank_is_named_with_the_size_and_finished_sizes_are_kept(ranks, victim, more, sweep):
    done, finished = sweep(ranks, *more, inject=f"stall:{victim}:1024")
    assert done.returncode == 3, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("busbw")]
    assert len(said) == 1, done.stderr
    assert f"rank {victim} (" in said[0] and "1 KiB" in said[0] and "3 s" in said[0]
    assert finished == [256, 512]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("ranks, victim, more", [(2, 1, ()), (2, 0, ()), (4, 1, ("--transport", "mpi"))])
def test_a_killed_rank_ends_the_job_and_finished_sizes_are_kept(ranks, victim, more, sweep):
    done, finished = sweep(ranks, *more, inject=f"die:{victim}:1024")
    assert done.returncode != 0
    assert f"rank {victim}" in done.stdout + done.stderr  # ours, or across hosts the launcher's own words
    assert "1 KiB" in done.stderr
    assert finished == [256, 512]


def test_a_corrupted_chunk_is_counted_wrong(sweep):
    done, _ = sweep(2, inject="corrupt:1:1024")
    assert done.returncode == 1
    assert "FAILED" in done.stdout


def test_bad_options_are_said_once(mpirun):
    done = mpirun(2, "-m", "busbw", "sweep", "--ranks", "4")
    assert done.returncode == 2
    assert done.stderr.count("busbw sweep: --ranks is for local emulated ranks") == 1
    assert "Traceback" not in done.stderr


def test_resume_under_mpirun_takes_finished_rows_from_the_file(sweep):
    _, finished = sweep(2, inject="die:1:1024")
    assert finished == [256, 512]
    done, finished = sweep(2, "--resume")
    assert done.returncode == 0, done.stderr
    assert "resuming: 2 finished rows" in done.stdout
    assert finished == [256, 512, 1024, 2048, 4096]
