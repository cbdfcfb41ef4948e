"""MPI jobs over several hosts, which are network namespaces of this machine (tests/hosts.py): right results, and a clear end."""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("busbw_test_hosts", HERE.parent / "hosts.py")
hosts = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = hosts  # its dataclass asks for it
_spec.loader.exec_module(hosts)

pytestmark = pytest.mark.skipif(hosts.missing() is not None, reason=str(hosts.missing()))

# So that mpirun itself notices a host that is gone, before --timeout: docs/reliability.md.
KEEPALIVE = {f"PRTE_MCA_oob_tcp_keepalive_{name}": value for name, value in
             (("time", "1"), ("intvl", "1"), ("probes", "2"))}  # fmt: skip
# Ranks of a world with two on the first host and one on each of three others; the transport that is to be taken.
CASES = [([0, 2], "mpi"), ([0, 2, 3, 4], "mpi"), ([0, 1, 2], "hybrid"), ([4, 3, 1, 2, 0], "hybrid")]


@pytest.fixture(scope="module")
def cluster():
    with hosts.hosts(4, megabits=200) as made:
        yield made


def test_ring_and_tree_are_right_on_two_and_four_hosts(cluster):
    asked = json.dumps([(members, "auto", 0, taken) for members, taken in CASES])
    done = cluster.mpirun([2, 1, 1, 1], HERE / "mpi_job.py", asked, "ring,tree", timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))["cases"]
    assert [case["bad"] for case in found] == [[]] * len(CASES)
    assert [(case["ranks"], case["transport"]) for case in found] == [(len(m), taken) for m, taken in CASES]
    assert min(case["checks"] for case in found) >= 40


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


class Job:
    """A sweep over three hosts, with a rank each, that has finished a size."""

    def __init__(self, cluster, out: Path, timeout: float, **environment):
        self.cluster, self.out = cluster, out
        sweep = ["sweep", "-b", "1K", "-e", "1M", "--algo", "ring", "--budget", "2", "--no-report", "-q"]
        self.process = cluster.start(
            [1, 1, 1], "-m", "busbw", *sweep, "--timeout", str(timeout), "--out", out, **environment
        )
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
    job = Job(cluster, tmp_path / "stopped.jsonl", 3)
    kept = job.finished()
    os.kill(cluster.rank(2, 2), signal.SIGSTOP)
    text = job.end()
    assert job.process.returncode == 3, text
    assert len(said(text)) == 1, text
    assert "rank 2 (on h2) did not come back within 3 s" in said(text)[0]
    assert "Traceback" not in text
    assert job.finished()[: len(kept)] == kept


def test_a_killed_rank_ends_the_job_and_its_host_is_named(cluster, tmp_path):
    job = Job(cluster, tmp_path / "killed.jsonl", 20)
    kept = job.finished()
    os.kill(cluster.rank(1, 1), signal.SIGKILL)
    text = job.end()
    assert job.process.returncode != 0
    # The library ends the job when it sees the connection closed, the launcher when it misses the process; both know the host.
    assert "h1" in text
    assert "Traceback" not in text
    assert job.finished()[: len(kept)] == kept


def test_behind_a_cut_link_the_rank_and_its_host_are_named(cluster, tmp_path):
    job = Job(cluster, tmp_path / "cut.jsonl", 3)
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
    job = Job(cluster, tmp_path / "alive.jsonl", 20, **KEEPALIVE)
    kept = job.finished()
    cluster.cut(2)
    try:
        text = job.end()
    finally:
        cluster.mend(2)
    assert "on node h2" in text
    assert job.finished()[: len(kept)] == kept
