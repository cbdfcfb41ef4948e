"""`busbw sweep --fabric`: what the command and the Python call give, refuse and record."""

import json
from pathlib import Path

import busbw
import numpy as np
import pytest
from busbw.bench import record
from busbw.bench.emulate import fabric_clock, sample_seed
from busbw.bench.table import row
from busbw.collectives import ALGORITHMS, build, distinct
from busbw.errors import UserError
from busbw.fabric import simulate
from busbw.fabric.cards.card import load
from busbw.fabric.physics.network import NOISE_ENTRIES, delay_ps, flat
from busbw.fabric.time.replay import replay
from busbw.scripts import main

HOSTS_OF_TWO = ("node.gpus=2", "nodes=64")  # few ranks then span links, leaves and the network
SMALL = ["--ranks", "3", "-b", "64", "-e", "64", "--algo", "ring", "--no-report"]


def test_every_algorithm_takes_the_time_that_simulate_computes():
    result = busbw.sweep(
        fabric="dgx-h100-cx7", overrides=HOSTS_OF_TWO, ranks=6, first=64, last=1 << 18, factor=64.0, algorithms="all"
    )
    assert len(result.records) == 3 * len(ALGORITHMS)
    from busbw.fabric.cards.card import override

    system = override(load("dgx-h100-cx7"), HOSTS_OF_TWO)
    clock = fabric_clock("dgx-h100-cx7", 6, overrides=HOSTS_OF_TWO)
    for r in result.records:
        assert r.clock == "fabric:dgx-h100-cx7"
        assert r.out_of_place.wrong == r.in_place.wrong == 0
        assert r.out_of_place.stopped == "exact"
        point = simulate.Point(r.algorithm, 6, r.size_bytes)
        options = simulate.Options((6,), (r.size_bytes,), (r.algorithm,), model="replay")
        assert r.out_of_place.seconds == simulate.evaluate(system, options, point).seconds
        for timing, in_place in ((r.out_of_place, False), (r.in_place, True)):
            schedule = build(r.chosen, 6, r.count, channels=r.channels, slices=r.slices, in_place=in_place, nodes=2)
            assert timing.seconds == replay(schedule, clock.network_of(r.chosen), 4).seconds


def test_a_failed_plane_halves_what_nics_carry():
    """Between hosts of one GPU each a large message goes at the NIC's rate; one of two planes down, at half of it."""
    given = {"fabric": "memphis-b200-cx8-300k", "ranks": 2, "first": "1M", "last": "1M", "algorithms": "ring"}
    given = {**given, "overrides": ("node.gpus=1", "node.nics=1", "nodes=64"), "modes": ("in_place",)}
    whole, half, slow = (
        busbw.sweep(**given, **more).records[0].best.seconds
        for more in ({}, {"failed_planes": 1}, {"stragglers": ("1:nic:50%",)})
    )
    assert whole < half
    assert half == pytest.approx(slow, rel=1e-3)


def test_auto_is_the_fastest_of_all():
    given = {
        "fabric": "dgx-h100-cx7",
        "ranks": 4,
        "first": 8,
        "last": 1 << 16,
        "factor": 8192.0,
        "modes": ("out_of_place",),
    }
    best = busbw.sweep(algorithms="auto", **given).records
    every = busbw.sweep(algorithms="all", **given).records
    for b in best:
        tried = [r for r in every if r.size_bytes == b.size_bytes and r.algorithm in distinct("all_reduce", 4, 8)]
        assert b.best.seconds == min(r.best.seconds for r in tried)


def test_noise_gives_samples_that_a_seed_repeats():
    given = {"fabric": "dgx-h100-cx7", "ranks": 3, "first": 64, "last": 64, "algorithms": "ring"}
    noisy = {**given, "noise": "exponential:mean=2us"}
    one, again, other = (busbw.sweep(**noisy, seed=seed).records[0].best for seed in (5, 5, 6))
    assert one == again
    assert one.stopped == "iterations" and len(set(one.samples)) == len(one.samples) == 25
    assert set(one.samples).isdisjoint(other.samples)
    assert one.ci_low < one.seconds < one.ci_high
    assert min(one.samples) > busbw.sweep(**given).records[0].best.seconds


def test_samples_have_nothing_to_do_with_each_other():
    """Seeds that follow one another would give each rank the same delays in another order."""
    net = flat(2, latency=0, byte_ps=0.0, noise=np.arange(NOISE_ENTRIES))
    delays = [[delay_ps(net._replace(seed=sample_seed(0, s)), 0, i) for i in range(32)] for s in range(8)]
    assert len({sum(d) for d in delays}) == 8
    assert sample_seed(11, 0) == 11
    assert all(0 <= sample_seed(2**63 - 1, s) < 2**63 for s in range(100))


def test_the_record_says_what_the_clock_was(tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    more = ["--fabric", "dgx-h100-cx7", "--set", "nic.rate=200Gb/s", "--straggler", "1:50%", "--pace", "50"]
    assert main(["sweep", *SMALL, *more, "--out", str(out)]) == 0
    (r,) = record.read(out).records
    assert r.clock == "fabric:dgx-h100-cx7"
    assert (r.options["overrides"], r.options["stragglers"]) == (["nic.rate=200Gb/s"], ["1:50%"])
    assert (r.options["fabric"], r.options["seed"], r.options["pace"]) == ("dgx-h100-cx7", 0, 50.0)
    for mode, timing in (("out_of_place", r.out_of_place), ("in_place", r.in_place)):
        assert r.options["paced_seconds"][mode] >= timing.seconds * (1 - 1e-6)
    said = capsys.readouterr().out
    assert "# VIRTUAL TIMES" in said and "fabric dgx-h100-cx7 with nic.rate=200Gb/s; straggler 1:50%" in said
    assert "paced" in row(r)
    assert "memory" not in said.lower()  # this machine's limits have no part in it


@pytest.mark.parametrize(
    "more, why",
    [
        (["--fabric", "dgx-h100-cx"], "did you mean 'dgx-h100-cx7'"),
        (["--pace", "10"], "--pace is of a modelled network; accepted: with --fabric"),
        (["--set", "nic.rate=1Gb/s"], "--set is of a modelled network"),
        (["--seed", "1"], "--seed is of a modelled network"),
        (["--straggler", "1:50%"], "--straggler is of a modelled network"),
        (["--routing", "ecmp"], "--routing is of a modelled network"),
        (["--fail-planes", "1"], "--fail-planes is of a modelled network"),
        (["--noise", "none"], "--noise is of a modelled network"),
        (["--fabric", "dgx-h100-cx7", "--algo", "ring,numpy"], "numpy has no schedule"),
        (["--fabric", "dgx-h100-cx7", "--algo", "mpi-native"], "mpi-native has no schedule"),
        (["--fabric", "dgx-h100-cx7", "--set", "gpus=2"], "3 ranks, but dgx-h100-cx7 has 2 GPUs"),
        (["--fabric", "dgx-h100-cx7", "--pace", "nan"], "--pace nan: accepted"),
        (["--fabric", "dgx-h100-cx7", "--pace", "-1"], "--pace -1: accepted"),
        (["--fabric", "dgx-h100-cx7", "--seed", "-1"], "--seed -1: accepted"),
        (["--fabric", "dgx-h100-cx7", "--noise", "loud"], "noise 'loud'; accepted"),
        (["--fabric", "dgx-h100-cx7", "--straggler", "3:50%"], "straggler rank 3; accepted"),
        (["--fabric", "memphis-b200-cx8-300k", "--fail-planes", "2"], "2 failed planes of 2"),
        (["--fabric", "dgx-h100-cx7", "--routing", "lost"], "--routing lost: accepted are"),
        (["--fabric", "dgx-h100-cx7", "--fresh"], "--fresh is about this machine's caches"),
    ],
)
def test_what_cannot_be_emulated_is_refused_in_one_line(more, why, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["sweep", *SMALL, *more])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1
    assert [f for f in tmp_path.rglob("*") if f.is_file()] == []  # no empty result file stays behind


def test_a_pace_that_outlasts_the_time_out_is_refused_with_one_that_would_do():
    with pytest.raises(UserError, match=r"--pace 1e\+07.*near to --timeout 1; accepted here: --pace up to \d"):
        busbw.sweep(fabric="dgx-h100-cx7", ranks=2, first=8, last=8, algorithms="ring", pace=1e7, timeout=1.0)


def test_resume_goes_on_only_on_the_same_network(tmp_path, capsys):
    out = str(tmp_path / "r.jsonl")
    run = ["sweep", *SMALL, "--out", out, "--slices", "1"]
    fabric = ["--fabric", "dgx-h100-cx7"]
    assert main([*run, *fabric]) == 0
    assert main([*run, *fabric, "--resume", "-e", "128"]) == 0
    assert "resuming: 1 finished rows" in capsys.readouterr().out
    assert [r.size_bytes for r in record.read(out).records] == [64, 128]
    for other in ([], ["--fabric", "dgx-b200-cx7"], [*fabric, "--seed", "1"], [*fabric, "--set", "nodes=4"]):
        with pytest.raises(SystemExit) as stop:
            main([*run, *other, "--resume"])
        assert stop.value.code == 2
        assert "accepted: the same options" in capsys.readouterr().err


def test_mpi_ranks_and_local_ranks_give_the_same_records(mpirun, tmp_path):
    more = ["-b", "64", "-e", "256K", "-f", "64", "--no-report", "--fabric", "dgx-h100-cx7"]
    for setting in HOSTS_OF_TWO:
        more += ["--set", setting]
    local, hybrid = str(tmp_path / "local.jsonl"), str(tmp_path / "hybrid.jsonl")
    assert main(["sweep", "--ranks", "4", *more, "--out", local]) == 0
    done = mpirun(4, "-m", "busbw", "sweep", "--node-size", "2", *more, "--out", hybrid)
    assert done.returncode == 0, done.stderr
    a, b = ([json.loads(line) for line in Path(f).read_text().splitlines()] for f in (local, hybrid))
    assert [r["transport"] for r in a + b] == ["shared"] * 6 + ["hybrid"] * 6
    for key in ("size_bytes", "algorithm", "clock", "slices", "out_of_place", "in_place"):
        assert [r[key] for r in a] == [r[key] for r in b]
