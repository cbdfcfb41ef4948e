"""What `busbw sweep` does with its files: folders, full disks, resuming from nothing, two runs at once."""

import fcntl
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from busbw.bench import record
from busbw.errors import UserError
from busbw.scripts import main

SMALL = ["sweep", "--ranks", "2", "-b", "64", "-e", "256", "--algo", "ring", "-n", "2", "-w", "1", "--backend", "cpu"]
QUIET = [*SMALL, "--no-report", "-q"]
NO_ROOM = 4


def refused(arguments, capsys, code=2) -> str:
    """The one line with which a command ends."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_folder_gets_a_file_of_its_own_and_is_made(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "new" / "one"):
        assert main([*QUIET, "--out", f"{folder}/"]) == 0
        (out,) = folder.glob("sweep-*.jsonl")
        assert [r.size_bytes for r in record.read(out).records] == [64, 128, 256]
    assert main([*QUIET, "--out", str(tmp_path / "new")]) == 0  # without the slash, where it is a folder already
    assert len(list((tmp_path / "new").glob("sweep-*.jsonl"))) == 1
    assert "the file to go on from" in refused([*QUIET, "--out", str(tmp_path), "--resume"], capsys)


@pytest.mark.parametrize("before", [None, b"", b'{"sch', b'{"schema":"busbw.result/1","kind":"measurement","algor'])
def test_resuming_from_nothing_begins_at_the_beginning(tmp_path, before, capsys):
    out = tmp_path / "a" / "r.jsonl"
    if before is not None:
        out.parent.mkdir()
        out.write_bytes(before)
    assert main([*QUIET, "--out", str(out), "--resume"]) == 0
    assert [r.size_bytes for r in record.read(out).records] == [64, 128, 256]
    capsys.readouterr()
    assert main([*QUIET, "--out", str(out), "--resume"]) == 0  # and every time after
    assert "resuming: 3 finished rows" in capsys.readouterr().out
    assert [r.size_bytes for r in record.read(out).records] == [64, 128, 256]


def test_a_file_of_something_else_is_still_refused_by_resume(tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    out.write_text("mine\n")
    assert "not a busbw result line" in refused([*QUIET, "--out", str(out), "--resume"], capsys)
    assert out.read_text() == "mine\n"


def test_a_second_run_on_the_same_file_is_refused(tmp_path, capsys):
    out = tmp_path / "r.jsonl"
    with record.claimed(out):
        for more in ([], ["--resume"]):
            assert "another run is writing it" in refused([*QUIET, "--out", str(out), *more], capsys)
        record.append(out, json.dumps({"schema": record.SCHEMA, "kind": "limits", "limits": {}}))
    with open(out) as f:
        fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)  # it was given back


def test_a_file_that_stayed_empty_is_taken_away_but_a_device_is_not(tmp_path):
    with pytest.raises(UserError), record.claimed(tmp_path / "r.jsonl") as path:
        assert Path(path).exists()
        raise UserError("something")
    assert list(tmp_path.iterdir()) == []
    with record.claimed(Path("/dev/null")) as path:
        record.append(path, "{}")
    assert Path("/dev/null").exists()


def test_a_result_file_on_a_full_device_ends_the_sweep_in_one_line(capsys):
    assert "/dev/full: cannot be written: No space left" in refused([*QUIET, "--out", "/dev/full"], capsys, NO_ROOM)


def test_no_line_is_half_written_where_there_is_no_room(tmp_path):
    path = tmp_path / "r.jsonl"
    record.append(path, "x" * 100)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150, before[1]))
    try:
        with pytest.raises(UserError, match="File too large; what it held is still there"):
            record.append(path, "y" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_text() == "x" * 100 + "\n"


@pytest.mark.parametrize("command", [[*SMALL, "--no-out"], ["systems"], ["verify", "--ranks", "2"]], ids=lambda c: c[0])
def test_a_full_standard_output_is_one_line_and_an_exit_code_of_its_own(command, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "busbw", *command], stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path
        )
    assert done.returncode == NO_ROOM, done.stderr
    assert done.stderr.startswith("busbw") and done.stderr.count("\n") == 1 and "No space left" in done.stderr


def test_what_was_written_before_the_output_was_full_is_kept(tmp_path):
    out = tmp_path / "r.jsonl"
    limited = "import resource, sys\nfrom busbw.scripts import main\n"
    limited += "assert main([*sys.argv[1:], '--out', 'first.jsonl']) == 0\n"  # what is compiled is larger, and kept from now on
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY)); sys.exit(main(sys.argv[1:]))"
    command = [*QUIET, "-e", "64K", "--out", str(out)]
    done = subprocess.run([sys.executable, "-c", limited, *command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == NO_ROOM, done.stderr
    assert done.stderr.count("\n") == 1 and "File too large" in done.stderr
    kept = record.read(out)
    assert kept.records and not kept.notes
    assert main([*command, "--resume"]) == 0
    assert [r.size_bytes for r in record.read(out).records] == [64 << i for i in range(11)]


def test_json_is_tried_before_anything_is_measured_and_its_folder_made(tmp_path, capsys):
    to = tmp_path / "deep" / "er" / "n.json"
    assert main([*SMALL, "--no-out", "-q", "-J", str(to)]) == 0
    assert [r["size"] for r in json.loads(to.read_text())["results"]] == [64, 128, 256]
    assert main([*SMALL, "--no-out", "-q", "-J", str(to)]) == 0  # may be written again
    (tmp_path / "file").touch()
    capsys.readouterr()
    out = tmp_path / "r.jsonl"
    said = refused([*SMALL, "--out", str(out), "-J", str(tmp_path / "file" / "n.json")], capsys)
    assert "-J " in said and not out.exists()
