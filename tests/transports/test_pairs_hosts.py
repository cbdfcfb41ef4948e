"""busbw pairs over hosts that are network namespaces (tests/hosts.py): what was made slow is named, and a frozen host too."""

import importlib.util
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("busbw_test_hosts", Path(__file__).parent.parent / "hosts.py")
hosts = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = hosts  # its dataclass asks for it
_spec.loader.exec_module(hosts)

pytestmark = pytest.mark.skipif(hosts.missing() is not None, reason=str(hosts.missing()))
COMMAND = ("-m", "busbw", "pairs", "-s", "256K")


@pytest.fixture(scope="module")
def cluster():
    with hosts.hosts(6, megabits=40) as made:
        yield made


def answer(done) -> dict:
    found = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) == 1, done.stdout + done.stderr
    return json.loads(found[0])


def judged(found: dict, figure: str) -> dict:
    return next(j for j in found["judged"] if j["figure"] == figure)


def test_half_an_uplink_and_lost_packets_are_named_and_a_ring_without_these_hosts_is_faster(cluster):
    cluster.slow(3, 20)
    cluster.lossy(4, 40)
    try:
        done = cluster.mpirun([1] * 6, *COMMAND, "-n", "3", "--no-out", "--json", timeout=200)
    finally:
        cluster.slow(3, 40)
        cluster.slow(4, 40)
    assert done.returncode == 1, done.stdout + done.stderr
    found = answer(done)
    bandwidth = judged(found, "bandwidth")
    assert [(e["name"], e["role"]) for e in bandwidth["ends"]] == [("h3", ""), ("h4", "receiving")], found["said"]
    assert all(e["chance"] < 0.01 for e in bandwidth["ends"])
    assert 0.4 < bandwidth["ends"][0]["share"] < 0.6
    assert found["rings"]["without h3, h4"] > 1.3 * found["rings"]["as given"]


def test_a_frozen_host_is_named_within_the_time_out_and_finished_rounds_are_kept(cluster, tmp_path):
    out = tmp_path / "frozen.jsonl"
    process = cluster.start([1] * 4, *COMMAND, "-n", "20", "--timeout", "3", "--out", out)
    try:
        while not (out.exists() and out.read_text().endswith("\n")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        os.kill(cluster.rank(2, 2), signal.SIGSTOP)
        text = process.communicate(timeout=60)[1]
    finally:
        cluster.end()
    assert process.returncode == 3, text
    said = [line for line in text.splitlines() if line.startswith("busbw")]
    assert len(said) == 1 and "rank 2 (on h2) did not come back within 3 s" in said[0], text
    assert "what was finished is kept" in said[0]
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert 1 <= len(lines) < 3 and all(len(line["pairs"]) == 2 for line in lines)


@pytest.mark.skipif(hosts.no_netem() is not None, reason=str(hosts.no_netem()))
def test_the_host_with_added_delay_is_named_by_its_latency(cluster):
    cluster.delay(4, 20)
    done = cluster.mpirun([1] * 6, *COMMAND, "-n", "3", "--no-out", "--no-ring", "--json", timeout=200)
    found = answer(done)
    assert "h4" in [e["name"] for e in judged(found, "seconds")["ends"]], found["said"]
