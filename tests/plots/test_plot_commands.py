"""busbw plot and busbw report as commands: files in, files out, and what they say."""

import argparse
import subprocess
import sys

import pytest
from busbw.bench.record import limits_line
from busbw.errors import UserError
from busbw.scripts import plot, report

PNG, PDF = b"\x89PNG", b"%PDF"


@pytest.fixture
def measured(make, tmp_path):
    result = make(sizes=[8, 1024, 1 << 20], samples=6)
    path = tmp_path / "run.jsonl"
    lines = [r.to_json() for r in result.records] + [limits_line(result.limits, "r1")]
    path.write_text("\n".join(lines) + "\n")
    return path


def call(module, *arguments):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(a) for a in arguments]))


def test_plot_writes_beside_the_first_file_and_prints_the_path(measured, capsys):
    assert call(plot, measured) == 0
    picture = measured.with_suffix(".png")
    assert picture.read_bytes().startswith(PNG)
    assert capsys.readouterr() == (f"{picture}\n", "")
    assert call(plot, measured, "--format", "pdf") == 0
    assert measured.with_suffix(".pdf").read_bytes().startswith(PDF)


def test_plot_writes_every_output(measured, tmp_path, capsys):
    outputs = [tmp_path / "a.svg", tmp_path / "b.png"]
    assert call(plot, measured, measured, "-o", outputs[0], "-o", outputs[1]) == 0
    assert all(o.stat().st_size > 10_000 for o in outputs)
    assert capsys.readouterr().out.split() == [str(o) for o in outputs]


def test_report_writes_a_page(measured, tmp_path, capsys):
    assert call(report, measured) == 0
    assert call(report, measured, "-o", tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").read_text("utf-8").startswith("<!doctype html>")
    assert capsys.readouterr().out.split() == [str(measured.with_suffix(".html")), str(tmp_path / "page.html")]


def test_a_cut_line_is_noted_once_on_stderr(measured, capsys):
    with open(measured, "a") as f:
        f.write('{"schema":"busbw.result/1","kind":"measu')
    for module in (plot, report):
        assert call(module, measured) == 0
        noted = capsys.readouterr().err
        assert noted.count("\n") == 1 and "passed over a line cut short" in noted


@pytest.mark.parametrize("module, bad", [(plot, "x.gif"), (report, "x.txt")])
def test_errors_are_one_line_for_users(module, bad, measured, tmp_path):
    for arguments in ([tmp_path / "missing.jsonl"], [measured, "-o", tmp_path / bad]):
        with pytest.raises(UserError) as caught:
            call(module, *arguments)
        assert "\n" not in str(caught.value)


def test_commands_start_without_numpy_or_matplotlib():
    code = "import sys, busbw.scripts.plot, busbw.scripts.report; assert not {'numpy', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
