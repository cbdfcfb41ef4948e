"""busbw systems, as a user calls it: in a process of its own, with its exit code."""

import json
import subprocess
import sys

import pytest
from busbw.fabric.cards import card
from busbw.scripts import main


def busbw(capsys, *arguments):
    """(exit code, stdout, stderr) of the command in this process."""
    try:
        code = main(["systems", *arguments])
    except SystemExit as e:
        code = e.code
    out, err = capsys.readouterr()
    return code, out, err


def test_the_list_has_every_card_with_its_figures(capsys):
    code, out, _ = busbw(capsys)
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    assert code == 0
    assert set(card.names()) <= set(lines)
    line = lines["gb300-nvl72-cx8"]
    system = card.load("gb300-nvl72-cx8")
    estimated = sum(f.status == "estimated" for f in system.figures.values())
    for said in ("576", "4 x 800 Gb/s", "rail, 2 tiers x 4 planes", str(estimated), system.title):
        assert said in line


def test_the_list_as_json_counts_all_figures(capsys):
    code, out, _ = busbw(capsys, "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and set(rows) == set(card.names())
    row = rows["frontier"]
    assert row["known"] + row["estimated"] == len(card.load("frontier").figures)


def test_a_card_is_shown_with_every_figure_status_and_source(capsys):
    code, out, _ = busbw(capsys, "show", "memphis-h100-100k")
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line and not line.startswith(" ")}
    for key, figure in card.load("memphis-h100-100k").figures.items():
        assert figure.status in lines[key] and figure.source in lines[key] and figure.how in lines[key]
    assert "400 Gb/s" in lines["nic.rate"] and "3.35 TB/s" in lines["gpu.memory_bandwidth"]
    assert "5 switches and 266 m of cable" in out
    assert "note: By the same claim" in out


def test_settings_are_shown_as_the_users(capsys):
    code, out, _ = busbw(capsys, "show", "dgx-h100-cx7", "--set", "nic.rate=200Gb/s", "--set", "nodes=64")
    line = next(line for line in out.splitlines() if line.startswith("nic.rate"))
    assert code == 0 and "200 Gb/s" in line and "set by the user" in line
    assert "512 GPUs in 64 nodes" in out


def test_a_card_of_ones_own_is_shown_as_json_in_si_units(capsys, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes((card._HERE / "alps-gh200.yaml").read_bytes())
    code, out, _ = busbw(capsys, "show", str(path), "--json", "--set", "nic.latency=2 us")
    shown = json.loads(out)
    assert code == 0 and shown["name"] == "mine"
    assert shown["figures"]["nic.latency"]["value"] == 2e-6
    assert shown["figures"]["nic.rate"]["value"] == 25e9


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["show"], "which system?"),
        (["show", "memphis-h100-1000k"], "did you mean 'memphis-h100-100k'?"),
        (["show", "./absent.yaml"], "absent.yaml: no such file"),
        (["show", "dgx-h100-cx7", "--set", "nic.rate"], "accepted: KEY=VALUE"),
        (["show", "dgx-h100-cx7", "--set", "nic.rte=1Gb/s"], "did you mean 'nic.rate'?"),
        (["show", "dgx-h100-cx7", "--set", "nodes=300"], "a 2-tier rail of 64-port switches holds 256"),
        (["list", "dgx-h100-cx7"], "accepted: busbw systems show NAME"),
        (["print"], "invalid choice"),
    ],
)
def test_what_cannot_be_shown_is_one_line_and_exit_code_2(capsys, arguments, said):
    code, out, err = busbw(capsys, *arguments)
    assert code == 2 and out == ""
    assert said in err and err.count("\n") == 1


def test_a_hostile_card_is_refused_from_the_command_line(tmp_path):
    mark = tmp_path / "owned"
    path = tmp_path / "evil.yaml"
    path.write_text(f"title: !!python/object/apply:os.mkdir ['{mark}']\n")
    command = [sys.executable, "-m", "busbw", "systems", "show", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "evil.yaml:1: the tag" in done.stderr and not mark.exists()


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from busbw.scripts import main; main(['systems'])\n"
        "print(sorted({'numba', 'matplotlib', 'mpi4py'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr.strip() == "[]"
