"""The examples run. Where a GPU, Slurm or Kubernetes is missing, a stand-in prints what the program there would have printed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from busbw.answer.situation import Given
from busbw.answer.tables import answers
from log_excerpts import H100, nccl_log

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SIZES = (8 << 20, 64 << 20, 512 << 20)


def log_of(folder: Path, hosts: int, share: float) -> str:
    """nccl-tests' log of hosts of eight H100 that give that share of the modelled bandwidth."""
    path = folder / "model.log"
    path.write_text(nccl_log(hosts, 8, H100, dict.fromkeys(SIZES, 100.0)))
    (found,) = answers(str(path), Given())
    rates = {r.size: share * r.busbw * r.seconds / r.modelled.seconds / 1e9 for r in found.answer.rows}
    return nccl_log(hosts, 8, H100, rates)


@pytest.fixture
def shell(tmp_path):
    """Runs a script with stand-ins for programs: {name: the text of a shell script}."""

    def run(command, programs, **settings):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        for name, text in programs.items():
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)
        path = os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])
        return subprocess.run(
            command,
            env={**os.environ, "PATH": path, **settings},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=240,
        )

    return run


@pytest.mark.parametrize("share, code", [(1.0, 0), (0.4, 1)])
def test_prolog_drains_a_slow_node_only(shell, tmp_path, share, code):
    (tmp_path / "log").write_text(log_of(tmp_path, 1, share))
    done = shell([EXAMPLES / "slurm/prolog.sh"], {"all_reduce_perf": f"cat {tmp_path}/log"}, GPUS="8")
    assert done.returncode == code, done.stderr
    assert ("LOW" in done.stderr) == bool(code)


def test_prolog_drains_where_the_benchmark_fails_but_not_where_nothing_can_be_said(shell):
    prolog = [EXAMPLES / "slurm/prolog.sh"]
    assert shell(prolog, {"all_reduce_perf": "echo unhandled cuda error; exit 3"}, GPUS="8").returncode == 1
    assert shell(prolog, {"all_reduce_perf": "echo no table here"}, GPUS="8").returncode == 0
    assert shell(prolog, {"nvidia-smi": "echo GPU 0"}).returncode == 0  # one GPU has nothing to reduce over


@pytest.mark.parametrize("share, started", [(1.0, True), (0.3, False)])
def test_preflight_starts_the_program_only_on_a_network_that_is_well(shell, tmp_path, share, started):
    (tmp_path / "log").write_text(log_of(tmp_path, 2, share))
    srun = f'case "$*" in *all_reduce_perf*) cat {tmp_path}/log;; *) echo ran "$@";; esac'
    job = ["bash", EXAMPLES / "slurm/preflight.sbatch", "python", "train.py"]
    done = shell(job, {"srun": srun}, SLURM_JOB_ID="7", SLURM_JOB_NUM_NODES="2")
    assert ("ran python train.py" in done.stdout) == started and done.returncode == (not started), (
        done.stdout + done.stderr
    )
    assert "<testsuites" in (tmp_path / "expect-7.xml").read_text()
    assert "Is this number normal?" in (tmp_path / "report-7.html").read_text()


def test_mpijob_is_a_manifest_whose_launcher_answers(shell, tmp_path):
    job = yaml.safe_load((EXAMPLES / "kubernetes/mpijob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    replicas = job["spec"]["mpiReplicaSpecs"]
    (launcher,) = replicas["Launcher"]["template"]["spec"]["containers"]
    (worker,) = replicas["Worker"]["template"]["spec"]["containers"]
    ranks = replicas["Worker"]["replicas"] * job["spec"]["slotsPerWorker"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == job["spec"]["slotsPerWorker"]
    (script,) = launcher["args"]
    assert f"-np {ranks} " in script
    script = script.replace("/tmp/", f"{tmp_path}/")
    (tmp_path / "log").write_text(log_of(tmp_path, 2, 1.0))
    done = shell([*launcher["command"], script], {"mpirun": f"cat {tmp_path}/log"})
    assert done.returncode == 0 and "16 ranks" in done.stdout, done.stderr
    assert shell([*launcher["command"], script], {"mpirun": "exit 1"}).returncode == 1


def test_nightly_compares_with_the_last_good_night(shell, tmp_path):
    workflow = yaml.safe_load((EXAMPLES / "nightly/nightly.yml").read_text())
    steps = [s["run"] for s in workflow["jobs"]["compare"]["steps"] if "run" in s]
    assert any(s.startswith("examples/nightly/nightly.sh ") for s in steps)
    options = ["--ranks", "2", "--algo", "ring", "-b", "1K", "-e", "8K", "-f", "8", "-n", "20"]
    night = [EXAMPLES / "nightly/nightly.sh", "kept", *options]
    good = tmp_path / "kept/good.jsonl"

    def was(times: float) -> None:
        """Make the good night so many times slower: beyond what a busy machine does to a measurement."""
        lines = [json.loads(line) for line in good.read_text().splitlines()]
        for line in lines:
            for mode in ("out_of_place", "in_place"):
                if timing := line.get(mode):
                    timing["samples"] = [s * times for s in timing["samples"]]
                    timing.update({k: timing[k] * times for k in ("seconds", "ci_low", "ci_high")})
        good.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines))

    assert shell(night, {}).returncode == 0
    was(1e5)
    slow = good.read_text()
    done = shell(night, {}, SHARE="0.5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no regression" in (tmp_path / "kept/comparison.md").read_text() and (tmp_path / "kept/report.html").exists()
    assert good.read_text() != slow  # the new night is the good one
    was(1e-5)
    past = good.read_text()
    done = shell(night, {}, SHARE="0.5")
    assert done.returncode == 1 and "slower" in done.stdout
    assert good.read_text() == past and (tmp_path / "kept/new.jsonl").exists()


def test_notebook_runs_cell_by_cell(tmp_path, monkeypatch, capsys):
    book = json.loads((EXAMPLES / "notebook.ipynb").read_text())
    assert book["nbformat"] == 4 and len({c["id"] for c in book["cells"]}) == len(book["cells"])
    monkeypatch.chdir(tmp_path)
    names = {}
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
    said = capsys.readouterr().out
    assert "COLLAPSES from 64 MiB" in said and "likely causes" in said
