"""busbw import and busbw compare as a user calls them: output, files, exit codes."""

import json

import pytest
from busbw.bench.record import read
from busbw.scripts import main

HEADER = "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
ROWS = (
    "    16777216       4194304     float     sum      -1    1334.9   12.57   24.09      0    1336.5   12.55   24.06      0\n"
    "    33554432       8388608     float     sum      -1    2180.1   15.39   29.50      0    2285.2   14.68   28.14      0\n"
)
SLOW = ROWS.replace("2180.1   15.39   29.50", "3180.1   10.55   20.22")


@pytest.fixture
def logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.log").write_text("NCCL_IB_HCA=mlx5\n" + HEADER + ROWS)
    (tmp_path / "b.log").write_text("NCCL_IB_HCA=mlx5_0\n" + HEADER + SLOW)
    (tmp_path / "prose.txt").write_text("nothing to see\n")
    return tmp_path


def test_import_says_what_it_read_and_writes_records(logs, capsys):
    assert main(["import", "a.log", "-o", "a.jsonl"]) == 0
    out = capsys.readouterr().out
    assert "all_reduce over 24 ranks" in out and "a.jsonl: 2 records" in out
    assert [r.ranks for r in read("a.jsonl").records] == [24, 24]
    assert main(["import", "--json", "a.log", "b.log"]) == 0
    first, _ = json.loads(capsys.readouterr().out)
    assert first["tables"][0]["rows"][1]["line"] == 4 and first["tables"][0]["system"]["environment"] == {
        "NCCL_IB_HCA": "mlx5"
    }
    assert main(["import", "prose.txt"]) == 1
    with pytest.raises(SystemExit) as e:
        main(["import", "a.log", "-o", "a.jsonl"])
    assert e.value.code == 2 and "exists" in capsys.readouterr().err


def test_compare_answers_by_its_exit_code(logs, capsys):
    assert main(["compare", "a.log", "a.log"]) == 0
    assert main(["compare", "a.log", "b.log", "-o", "c.png", "-o", "c.md"]) == 1
    out = capsys.readouterr().out
    assert "SLOWER" in out and "NCCL_IB_HCA" in out and "mlx5_0" in out
    assert (logs / "c.png").stat().st_size > 1000 and "**SLOWER**" in (logs / "c.md").read_text()
    assert main(["compare", "a.log", "b.log", "--threshold", "60%"]) == 0
    assert main(["compare", "b.log", "a.log"]) == 0  # faster is no regression
    (logs / "both.log").write_text("before\n" + HEADER + ROWS + "after\n" + HEADER + SLOW)
    assert main(["compare", "both.log"]) == 1 and main(["compare", "a.log", "both.log"]) == 1
    capsys.readouterr()
    assert main(["compare", "a.log", "b.log", "--json", "--in-place"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["mode"] == "in_place"


@pytest.mark.parametrize(
    "arguments, says",
    [
        (["compare", "a.log"], "has one series"),
        (["compare", "a.log", "prose.txt"], "neither a busbw result file nor a log"),
        (["compare", "a.log", "b.log", "--threshold", "-1"], "a share of the time"),
        (["compare", "a.log", "b.log", "-o", "c.txt"], ".md, .png"),
        (["compare", "a.log", "none.log"], "cannot be read"),
        (["import", "none.log"], "no such file"),
        (["import", "a.log", "--ranks", "0"], "a number of ranks"),
        (["import", "a.log", "--collective", "all_gather"], "no table of it"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(logs, capsys, arguments, says):
    with pytest.raises(SystemExit) as e:
        main(arguments)
    err = capsys.readouterr().err
    assert e.value.code == 2 and says in err and err.count("\n") == 1


def test_plot_and_report_take_logs(logs, capsys):
    assert main(["plot", "a.log", "-o", "p.svg"]) == 0 and main(["report", "a.log", "b.log", "-o", "r.html"]) == 0
    assert "<script" not in (logs / "r.html").read_text()
