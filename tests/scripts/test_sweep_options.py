"""Options of `busbw sweep`: nccl-tests' own, and values that make no sense."""

import io
import json
import sys

import pytest
from busbw.bench import record
from busbw.bench.options import checked
from busbw.scripts import main, parser, sweep
from busbw.scripts._nccl_tests import WITHOUT_A_COUNTERPART
from busbw.scripts._progress import ProgressLine

SMALL = ["sweep", "-b", "64", "-e", "64", "--algo", "ring", "-n", "2", "-w", "1", "--backend", "cpu", "--no-out", "-q"]


def options(*arguments, mpi=False):
    return sweep._options(parser().parse_args(["sweep", *arguments]), mpi=mpi)


def refused(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and said.out == ""
    return said.err


@pytest.mark.parametrize(
    "given, shown", [([], False), (["-I"], True), (["-I", "1"], True), (["-I", "0"], False), (["-I", "-c", "20"], True)]
)
def test_per_iteration_columns_take_nccl_tests_number_or_none(given, shown, capsys):
    assert main([*SMALL, "--ranks", "2", *given]) == 0
    assert ("i_p99" in capsys.readouterr().out) == shown


def test_any_number_of_checks_is_a_check():
    assert [options("-c", c).effort.check for c in ("0", "1", "20")] == [False, True, True]


def test_threads_and_gpus_are_ranks():
    assert (options("-t", "3").ranks, options("-t", "3").gpus) == (3, None)
    assert (options("-g", "4").ranks, options("-g", "4").gpus) == (None, 4)
    assert (options("-t", "2", "-g", "4").ranks, options("-t", "2", "-g", "4").gpus) == (None, 8)
    alone = options("-t", "1", "-g", "1", mpi=True)
    assert (alone.ranks, alone.gpus) == (None, None)
    assert checked(options("-t", "3", "--backend", "cpu"), mpi=False).ranks == 3


def test_a_command_line_of_nccl_tests_runs_as_it_stands(capsys):
    line = "-b 8 -e 1K -f 2 -t 2 -n 2 -w 1 -c 1 -N 1 -m 1 -p 0 -y 0 -C 0 -S 0 -M 0 -D 0 -u 0 -o sum -d float -a 3 -I 1"
    assert main(["sweep", *line.split(), "--backend", "cpu", "--no-out", "-q"]) == 0


@pytest.mark.parametrize("letter, instead", [(o[0], o[4]) for o in WITHOUT_A_COUNTERPART])
def test_what_has_no_counterpart_is_named_with_what_has_its_place(letter, instead, capsys):
    said = refused([*SMALL, f"-{letter}", "7"], capsys)
    assert said.startswith(f"busbw sweep: -{letter} 7: ") and instead in said


@pytest.mark.parametrize(
    "more, says",
    [
        (["--algo", ","], "no algorithm is named"),
        (["-d", ","], "empty list"),
        (["-o", ","], "empty list"),
        (["--budget", "nan"], "--budget nan: accepted"),
        (["--budget", "inf"], "--budget inf: accepted"),
        (["--timeout", "inf"], "--timeout inf: accepted"),
        (["--timeout", "nan"], "--timeout nan: accepted"),
        (["-c", "-1"], "-c -1: accepted"),
        (["-t", "0"], "-t 0: accepted"),
        (["-t", "2", "--ranks", "2"], "both say how many ranks"),
    ],
)
def test_values_without_a_meaning_are_refused_in_one_line(more, says, capsys):
    assert says in refused([*SMALL, *more], capsys)


def test_a_size_is_measured_once_though_several_round_to_it(tmp_path):
    out = tmp_path / "r.jsonl"
    small = ["sweep", "--ranks", "2", "--algo", "ring", "-n", "2", "-w", "1", "--backend", "cpu", "-q", "--no-report"]
    assert main([*small, "-b", "0", "-e", "9", "--out", str(out)]) == 0
    assert [r.size_bytes for r in record.read(out).records] == [0, 4, 8]


def test_nccl_tests_json_of_a_sweep_names_its_host(tmp_path):
    assert main([*SMALL, "--ranks", "2", "-J", str(tmp_path / "n.json")]) == 0
    devices = json.loads((tmp_path / "n.json").read_text())["config"]["devices"]
    assert len(devices) == 2 and len({d["hostname"] for d in devices}) == 1 and devices[0]["hostname"]


@pytest.mark.parametrize("terminal, shows", [("xterm", True), ("dumb", False)])
def test_a_dumb_terminal_gets_no_escape_sequences(terminal, shows, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", terminal)
    line = ProgressLine(True)
    line.progress(0, 0, "working")
    line.clear()
    assert ("\033" in sys.stderr.getvalue()) == shows


def test_plot_and_report_leave_the_sweeps_own_pictures(tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    given = [
        "sweep",
        "--ranks",
        "2",
        "-b",
        "64",
        "-e",
        "128",
        "--algo",
        "ring",
        "-n",
        "2",
        "-w",
        "1",
        "--backend",
        "cpu",
        "-q",
    ]
    assert main([*given, "--out", str(out)]) == 0
    own = {suffix: out.with_suffix(suffix).read_bytes() for suffix in (".png", ".html")}
    assert b"Is this number normal?" in own[".html"]
    assert main(["plot", str(out)]) == main(["report", str(out)]) == 0
    assert (tmp_path / "r-plot.png").exists() and (tmp_path / "r-report.html").exists()
    assert own == {suffix: out.with_suffix(suffix).read_bytes() for suffix in own}
