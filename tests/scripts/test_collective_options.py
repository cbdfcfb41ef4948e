"""`busbw sweep` and `busbw simulate` with --collective: nccl-tests' columns, what is refused, resuming, and emulation."""

import json

import busbw
import numpy as np
import pytest
from busbw.bench import record
from busbw.collectives import algorithms, build
from busbw.collectives.collective import COLLECTIVES, Collective, Part
from busbw.scripts import main

SMALL = ["--backend", "cpu", "-n", "3", "-w", "1", "-q"]


def refused(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--collective", "al_gather"], "did you mean all_gather"),
        (["--collective", "bcast", "--root", "3", "--ranks", "3"], "--root 3: accepted are the ranks 0 to 2"),
        (
            ["--collective", "all_gather", "--root", "1"],
            "all_gather has no root; broadcast, reduce, gather, scatter have",
        ),
        (["--collective", "all_gather", "-o", "max"], "reduces nothing; all_reduce, reduce_scatter, reduce do"),
        (["--collective", "alltoall", "--in-place", "only"], "alltoall has no in-place form; accepted: --in-place no"),
        (["--collective", "gather", "--algo", "ring"], "gather algorithm 'ring' is not known"),
        (
            ["--collective", "gather,all_gather", "--algo", "ring"],
            "gather has none of these; accepted: direct, binomial",
        ),
        (["--collective", "gather", "--algo", "mpi-native"], "needs an MPI job"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments, says, capsys):
    assert says in refused(["sweep", "--no-out", *SMALL, *arguments], capsys)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--collective", "gather", "--model", "loggp"], "there is none of gather; accepted: auto, replay"),
        (["--collective", "gather", "--algo", "sharp"], "not known"),
        (["--collective", "sendrecv", "--root", "1"], "has no root"),
        (["--collective", "alltoall", "--workload", "grok-1"], "is about all-reduce"),
        (["--collective", "all_gather", "-b", "4", "-e", "4"], "for each rank; accepted: 32 or more"),
    ],
)
def test_what_cannot_be_simulated_is_one_line(arguments, says, capsys):
    assert says in refused(["simulate", "dgx-h100-cx7", "--ranks", "8", *arguments], capsys)


def test_rows_are_those_of_nccl_tests(tmp_path, capsys):
    """Of 4 ranks and 1 KiB: size, count, redop and root as its binaries print them, and busbw / algbw."""
    out = tmp_path / "all.jsonl"
    sizes = ["-b", "1K", "-e", "1K", "--ranks", "4", "--root", "2"]
    assert main(["sweep", "--collective", "all", *sizes, *SMALL, "--out", str(out), "--no-report"]) == 0
    want = {
        "all_reduce": ("1024", "256", "sum", "-1", 1.5), "reduce_scatter": ("1024", "64", "sum", "-1", 0.75),
        "all_gather": ("1024", "64", "none", "-1", 0.75), "broadcast": ("1024", "256", "none", "2", 1.0),
        "reduce": ("1024", "256", "sum", "2", 1.0), "alltoall": ("1024", "64", "none", "-1", 0.75),
        "gather": ("1024", "64", "none", "2", 0.75), "scatter": ("1024", "64", "none", "2", 0.75),
        "sendrecv": ("1024", "256", "none", "-1", 1.0), "pingpong": ("1024", "256", "none", "-1", 2.0),
    }  # fmt: skip
    heading, seen = "", {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("# Collective test starting: ") and "," not in line:
            heading = line.split()[-1]
        elif line.strip()[:1].isdigit():
            seen.setdefault(heading, []).append(line.split())
    assert set(seen) == set(want)
    for name, rows in seen.items():
        for words in rows:
            assert (words[0], words[1], words[3], words[4]) == want[name][:4]
            assert words[8] == "0" and (words[12] == "0" if COLLECTIVES[name].in_place else words[9] == "#")
    found = record.read(out)
    for r in found.records:
        assert r.busbw() == pytest.approx(r.algbw() * want[r.collective][4])
    # Resumed, nothing is measured again.
    lines = out.read_text().count("\n")
    again = ["sweep", "--collective", "all", *sizes, *SMALL, "--out", str(out), "--no-report", "--resume"]
    assert main(again) == 0
    assert out.read_text().count("\n") == lines


def test_an_old_file_is_of_all_reduces(tmp_path):
    path = tmp_path / "old.jsonl"
    assert main(["sweep", "-b", "64", "-e", "64", "--ranks", "2", *SMALL, "--out", str(path), "--no-report"]) == 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line.pop("collective", None)
        line.pop("root", None)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert {(r.collective, r.root) for r in record.read(path).records} == {("all_reduce", -1)}


def test_ranks_on_a_fabrics_clock_show_what_is_simulated():
    """Real ranks that move real data, in and out of place, against replay, to the picosecond."""
    for name, c in COLLECTIVES.items():
        if name == "all_reduce":
            continue
        options = {"algorithms": "all", "collective": name, "root": 1 if c.rooted else None}
        swept = busbw.sweep(first="1K", last="64K", factor=64, ranks=4, fabric="dgx-h100-cx7", timeout=60, **options)
        assert all(t.wrong == 0 for r in swept.records for t in (r.out_of_place, r.in_place) if t)
        options["root"] = options["root"] or 0
        modelled = busbw.simulate("dgx-h100-cx7", ranks=4, first="1K", last="64K", factor=64, **options)
        times = {(r.algorithm, r.size_bytes): r.best.seconds for r in modelled.records}
        assert {(r.algorithm, r.size_bytes): r.out_of_place.seconds for r in swept.records} == times


def test_memory_is_checked_with_each_collectives_own_buffers(monkeypatch, capsys):
    """An all-gather over 4 ranks has inputs of a quarter of its outputs."""
    from busbw.bench import opening

    monkeypatch.setattr(opening, "available_bytes", lambda: 6 << 20)
    one = ["sweep", "--no-out", *SMALL, "--ranks", "4", "-b", "1M", "-e", "1M", "--algo", "direct", "--in-place", "no"]
    assert main([*one, "--collective", "all_gather"]) == 0
    assert "4 ranks need 8 MiB" in refused([*one, "--collective", "alltoall"], capsys)


def test_a_new_collective_and_a_new_algorithm_are_known_everywhere(monkeypatch, tmp_path, capsys):
    """One value and one function: proven, run, simulated and emulated without another line. The collective is a scan of blocks:
    rank r gets the input of rank 0, handed on from rank to rank, or straight from it."""
    from busbw.collectives import REGISTRY, Algorithm
    from busbw.collectives.prove import prove_all
    from busbw.collectives.schedule import INPUT, OUTPUT, StepList

    def hand_on(rank, ranks, count, *, in_place=False):
        s = StepList()
        if rank:
            s.recv(rank - 1, OUTPUT, 0, count)
        else:
            s.copy((INPUT, 0), (OUTPUT, 0), count)
        if rank + 1 < ranks:
            s.send(rank + 1, OUTPUT, 0, count)
        return s.table()

    relay = Collective(
        "relay", "relay", "one", "one", lambda rank, ranks, root: [Part(0, 0, 0)], lambda p: 1.0,
        lambda rank, ranks, root: rank == 0, in_place=False,
    )  # fmt: skip
    monkeypatch.setitem(COLLECTIVES, "relay", relay)
    monkeypatch.setitem(REGISTRY, "relay", {"hand-on": Algorithm("hand-on", "hand on", hand_on, "one by one", relay)})
    assert all(proof.ok for *_, proof in prove_all(9, collective=relay))
    swept = busbw.sweep(
        collective="relay", ranks=3, first=64, last="64K", factor=32, iterations=3, backend="cpu", timeout=60
    )
    assert {r.algorithm for r in swept.records} == {"hand-on"}
    assert all(r.out_of_place.wrong == 0 for r in swept.records)
    emulated = busbw.sweep(collective="relay", ranks=3, first=64, last=64, fabric="dgx-h100-cx7", timeout=60).records[0]
    modelled = busbw.simulate("dgx-h100-cx7", collective="relay", ranks=3, first=64, last=64).records[0]
    assert emulated.best.seconds == modelled.best.seconds > 0
    assert main(["verify", "--collective", "relay", "--ranks", "5"]) == 0
    assert "hand-on" in capsys.readouterr().out
    from busbw.interchange.goal import from_schedule

    schedule = build("hand-on", 3, 16, collective="relay")
    assert from_schedule(schedule, 4) is not None
    assert list(algorithms("relay")) == ["hand-on"]
    assert np.array_equal(schedule.outputs[:, 4], [0, 0, 0])
