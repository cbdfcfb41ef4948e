"""MPI jobs over several hosts, which are network namespaces of this machine (tests/hosts.py): right results, and a clear end."""

import importlib.util
import json
import os
import signal
import time
from pathlib import Path

import pytest
from busbw.transports.tuning import CPU_SLICES, UNASKED_SLICES, default_slices

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("busbw_bench_hosts", HERE.parent.parent / "benchmarks" / "hosts.py")
benchmark = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(benchmark)
hosts = benchmark.hosts

pytestmark = pytest.mark.skipif(hosts.missing() is not None, reason=str(hosts.missing()))

# So that mpirun itself notices a host that is gone, before --timeout: docs/reliability.md.
KEEPALIVE = {f"PRTE_MCA_oob_tcp_keepalive_{name}": value for name, value in
             (("time", "1"), ("intvl", "1"), ("probes", "2"))}  # fmt: skip
# Ranks of a world with two on the first host and one on each of three others; the transport that is to be taken.
CASES = [([0, 2], "mpi"), ([0, 2, 3, 4], "mpi"), ([0, 1, 2], "hybrid"), ([4, 3, 1, 2, 0], "hybrid")]


MEGABITS = 200


@pytest.fixture(scope="module")
def cluster():
    with hosts.hosts(4, megabits=MEGABITS) as made:
        yield made


def test_ring_and_tree_are_right_on_two_and_four_hosts(cluster):
    asked = json.dumps([(members, "auto", 0, taken) for members, taken in CASES])
    done = cluster.mpirun([2, 1, 1, 1], HERE / "mpi_job.py", asked, "ring,tree", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))["cases"]
    assert [case["bad"] for case in found] == [[]] * len(CASES)
    assert [(case["ranks"], case["transport"]) for case in found] == [(len(m), taken) for m, taken in CASES]
    assert min(case["checks"] for case in found) >= 20


def test_sends_to_two_hosts_go_on_while_a_rank_waits_for_another_of_its_own(cluster, tmp_path):
    """Slices longer than the library sends unasked, from ranks of which some have children on two hosts and one on their own."""
    out = tmp_path / "trees.jsonl"
    sweep = ["sweep", "-b", "256K", "-e", "256K", "--algo", "tree,node-tree,hierarchical", "--timeout", "60"]
    more = ["--slices", "2", "-n", "2", "-w", "0", "--no-report", "-q", "--out", out]
    done = cluster.mpirun([2, 2, 2, 2], "-m", "busbw", *sweep, *more, timeout=200, OMPI_MCA_mpi_yield_when_idle="1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in out.read_text().splitlines() if "measurement" in line]
    assert [(r["algorithm"], r["transport"]) for r in found] == [
        (name, "hybrid") for name in ("tree", "node-tree", "hierarchical")
    ]
    assert all(r[mode]["wrong"] == 0 for r in found for mode in ("out_of_place", "in_place"))


def test_the_modelled_ring_is_near_the_measured_one(cluster, tmp_path):
    """Loosely, since the machine may be busy with other work; benchmarks/hosts.py is for figures."""
    modelled = benchmark.modelled(4, MEGABITS, "1M", "4M", tmp_path)
    records = benchmark.measured(cluster, 4, "1M", "4M", 0.2, "ring", tmp_path)
    measured = {r.size_bytes: min(r.out_of_place.samples) for r in records}
    assert sorted(measured) == sorted(modelled) == [1 << 20, 4 << 20]
    for size, seconds in measured.items():
        expected, _ = modelled[size]
        assert expected / 3 < seconds < expected * 3, size
    # By the trial, of which a busy machine may make anything; benchmarks/hosts.py says what it makes of a quiet one.
    cuts = [
        [default_slices("ring", 4, size, sizes) for size in sorted(modelled)] for sizes in (CPU_SLICES, UNASKED_SLICES)
    ]
    assert [r.slices for r in records] in cuts


class Job:
    """A sweep over the first hosts, with a rank each, that has finished a size and has some ten seconds of larger ones to go."""

    def __init__(self, cluster, ranks: int, out: Path, timeout: float, **environment):
        self.cluster, self.out = cluster, out
        sweep = [
            "sweep",
            "-b",
            "1K",
            "-e",
            "16M",
            "--algo",
            "ring",
            "--budget",
            "0.25",
            "--in-place",
            "no",
            "--no-report",
            "-q",
        ]
        command = ["-m", "busbw", *sweep, "--timeout", str(timeout), "--out", out]
        self.process = cluster.start([1] * ranks, *command, **environment)
        while not self.finished():
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)

    def finished(self) -> list[int]:
        lines = self.out.read_text().splitlines() if self.out.exists() else []
        return [json.loads(line)["size_bytes"] for line in lines if "measurement" in line]

    def end(self, seconds: float = 60) -> str:
        """Wait for it; what it said on standard error."""
        try:
            return self.process.communicate(timeout=seconds)[1]
        finally:
            self.cluster.end()


def said(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("busbw")]


def test_a_stopped_rank_is_named_with_its_host_and_finished_sizes_are_kept(cluster, tmp_path):
    job = Job(cluster, 3, tmp_path / "stopped.jsonl", 3)
    kept = job.finished()
    os.kill(cluster.rank(2, 2), signal.SIGSTOP)
    text = job.end()
    assert job.process.returncode == 3, text
    assert len(said(text)) == 1, text
    assert "rank 2 (on h2) did not come back within 3 s" in said(text)[0]
    assert "Traceback" not in text
    assert job.finished()[: len(kept)] == kept


def test_a_killed_rank_of_another_host_ends_the_job_and_nothing_finished_is_lost(cluster, tmp_path):
    job = Job(cluster, 2, tmp_path / "killed.jsonl", 20)
    kept = job.finished()
    os.kill(cluster.rank(1, 1), signal.SIGKILL)
    text = job.end()
    assert job.process.returncode != 0
    # The library ends the job as soon as it sees the connection closed, before any watchdog, and does not always say of which host.
    assert text.strip()
    assert "Traceback" not in text
    assert job.finished()[: len(kept)] == kept


def test_behind_a_cut_link_the_rank_and_its_host_are_named(cluster, tmp_path):
    job = Job(cluster, 3, tmp_path / "cut.jsonl", 3)
    kept = job.finished()
    cluster.cut(2)
    try:
        first = next(line for line in job.process.stderr if line.startswith("busbw"))
    finally:
        cluster.mend(2)  # without keep-alives mpirun waits for its daemon there
    assert "rank 2 (on h2) did not come back within 3 s" in first
    text = job.end()
    assert job.process.returncode == 3, text
    assert said(text) == []
    assert job.finished()[: len(kept)] == kept


def test_with_keepalives_the_launcher_itself_ends_a_job_with_a_cut_link(cluster, tmp_path):
    job = Job(cluster, 2, tmp_path / "alive.jsonl", 20, **KEEPALIVE)
    kept = job.finished()
    cluster.cut(1)
    try:
        text = job.end()
    finally:
        cluster.mend(1)
    assert (
        said(text) == []
    )  # it is the launcher that speaks; on a busy machine its words are now and then lost as it ends
    assert not text or "on node h1" in text
    assert job.finished()[: len(kept)] == kept
