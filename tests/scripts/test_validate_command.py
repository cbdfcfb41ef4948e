"""busbw validate as a command: what it prints, writes and refuses."""

import argparse
import re
import subprocess
import sys

import pytest
from busbw.errors import UserError
from busbw.scripts import validate


def call(*arguments):
    parser = argparse.ArgumentParser()
    validate.add_arguments(parser)
    return validate.run(parser.parse_args([str(a) for a in arguments]))


def test_all_points_are_told_system_by_system(capsys):
    assert call() == 0
    out = capsys.readouterr().out.splitlines()
    rows = [line for line in out if not line.startswith("#")]
    assert rows[-1].startswith("all ")
    points = [int(line[44:51]) for line in rows]
    assert sum(points[:-1]) == points[-1] > 1400
    assert any(line.startswith("CSCS Alps") for line in rows)
    text = "\n".join(out)
    for aim in ("10% of time below 64 KiB", "15% of time between", "5% of busbw from 64 MiB up"):
        assert f"aimed at {aim}, each counted once" in text
    assert "missed" not in text
    assert len(re.findall(r"the 90 % band holds \d", text)) == 6 and "systems left out of the fit: error" in text
    assert 'where the library chose ("default")' in text
    assert "the GPU is not stated" in text and "assumed for" in text


def test_one_system_series_by_series_with_rows_and_a_picture(tmp_path, capsys):
    rows, picture = tmp_path / "rows.csv", tmp_path / "picture.png"
    assert call("--model", "nccl", "--system", "polaris", "--series", "--out", rows, "--plot", picture) == 0
    out = capsys.readouterr().out
    assert "# model: nccl; 377 published points" in out
    assert "polaris-a100-8r-2.18-s3-184124" in out
    assert rows.read_text().count("\n") == 378
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


def test_a_picture_of_short_or_of_long_messages_alone(tmp_path):
    for system in ("H20", "slinky"):
        assert call("--system", system, "--plot", tmp_path / f"{system}.svg") == 0
        assert (tmp_path / f"{system}.svg").stat().st_size > 5_000


def test_what_cannot_be_used_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        call(tmp_path / "none.csv")
    with pytest.raises(UserError, match="no point of a system"):
        call("--system", "nowhere")
    with pytest.raises(UserError, match=r"no point could be compared \(20 points: the GPU is not stated\)"):
        call("--system", "unnamed 4-node")
    with pytest.raises(UserError, match=r"\.jpg"):
        call("--system", "H20", "--plot", tmp_path / "p.jpg")


def test_bad_usage_exits_with_2_and_one_line(tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("a,b\n1,2\n")
    done = subprocess.run(
        [sys.executable, "-m", "busbw", "validate", str(bad)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "no column system" in done.stderr
