"""busbw pairs over local ranks, over an MPI job, and from a file."""

import json

import pytest
from busbw.bench.log import Pair
from busbw.plots.pair_map import matrix, pair_map, text
from busbw.scripts import main

COMMAND = ("-m", "busbw", "pairs")


def test_an_mpi_job_measures_every_pair_and_writes_a_file_that_other_commands_read(mpirun, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    options = ("-s", "16K", "-n", "2", "--out", out, "--json", "--bisect", "--between", "ranks")
    done = mpirun(4, *COMMAND, *options, inject="corrupt:2:16384")
    assert done.returncode == 1, done.stdout + done.stderr  # data arrived wrong
    found = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    names = [f"r{i}" for i in range(4)]
    assert sorted((p["source"], p["target"]) for p in found["pairs"]) == [
        (a, b) for a in names for b in names if a != b
    ]
    assert all(p["bandwidth"] > 0 and p["seconds"] > 0 and p["both"] > 0 for p in found["pairs"])
    assert {name for a, b, _ in found["wrong"] for name in (a, b)} == set(names)
    assert all("r2" in pair[:2] for pair in found["wrong"])
    assert len(found["bisected"][0]) == 3
    assert (tmp_path / "pairs.png").stat().st_size > 1000
    for command in (("import", out), ("expect", out), ("pairs", "--from", out, "-o", tmp_path / "again.svg")):
        main([str(word) for word in command])
        assert "pairs" in capsys.readouterr().out
    assert (tmp_path / "again.svg").exists()
    with pytest.raises(SystemExit) as refused:
        main(["plot", str(out)])
    assert refused.value.code == 2 and "busbw pairs --from pairs.jsonl" in capsys.readouterr().err


def test_local_ranks_print_a_matrix_and_bad_options_are_refused_in_one_line(python, tmp_path, capsys):
    done = python(*COMMAND, "--ranks", "3", "-s", "4K", "-n", "1", "--no-out", "--no-ring", cwd=tmp_path)
    assert done.returncode in (0, 1), done.stderr
    assert "3 rounds" in done.stdout and "bandwidth from row to column" in done.stdout
    assert list(tmp_path.iterdir()) == []
    for options, said in (
        (("--ranks", "1", "--no-out"), "accepted: two or more"),
        (("-s", "2", "--no-out"), "accepted are 4 bytes to 1 GiB"),
        (("--latency-size", "8M"), "accepted are sizes up to -s 4M"),
        (("--backend", "cupy"), "accepted: under mpirun"),
        (("-o", "map.txt"), "accepted: a path that ends in .png, .svg or .pdf"),
        (("--from", "nothing.log"), "no such file"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(["pairs", *options])
        said_here = capsys.readouterr().err
        assert refused.value.code == 2 and said in said_here and len(said_here.splitlines()) == 1, said_here


def test_the_slow_pair_of_a_matrix_is_named_and_marked(tmp_path, capsys):
    log = tmp_path / "matrix.log"
    rows = [[100.0] * 6 for _ in range(6)]
    rows[1][4] = rows[4][1] = 40.0
    lines = [" ".join(["bw", *(f"n{i}" for i in range(6))])]
    lines += [" ".join([f"n{i}", *(f"{v + i / 10:.1f}" if i != j else "-" for j, v in enumerate(row))]) for i, row in
              enumerate(rows)]  # fmt: skip
    log.write_text("\n".join(lines) + "\n")
    assert main(["pairs", "--from", str(log)]) == 1
    assert "the link between n1 and n4 alone is slow, at 40 % of the usual speed" in capsys.readouterr().out


def test_the_map_has_every_pair_in_its_place_and_a_host_s_name_is_text():
    pairs = [Pair(0, a, b, 1e9 * (i + 1), 1e-6) for i, (a, b) in enumerate(
        [("h2", "h10"), ("h10", "h2"), ("h2", "$x$"), ("$x$", "h2")])]  # fmt: skip
    names, values = matrix(pairs, "bandwidth")
    assert names == ["$x$", "h2", "h10"]
    assert values[1, 2] == 1e9 and values[2, 1] == 2e9
    shown = text(pairs, "bandwidth", 0.75, 4e9)
    assert "1.00*" in shown[3] and "4.00" in shown[2] and "4.00*" not in shown[2]
    figure = pair_map(pairs, "All pairs of 3", ["nothing"])
    labels = [t.get_text() for t in figure.axes[0].get_xticklabels()]
    assert labels == names
    assert [f"{a.images[0].get_array().shape}" for a in figure.axes if a.images] == ["(3, 3)", "(3, 3)"]
