"""`busbw export`: every collective and algorithm in every format that has it, and GOAL files simulated again."""

import xml.etree.ElementTree as ET

import pytest
from busbw.collectives import algorithms, build
from busbw.collectives.collective import COLLECTIVES
from busbw.fabric.time.loggops import LogGOPS, simulate
from busbw.interchange.goal import from_schedule
from busbw.scripts import main

EVERYWHERE = [(c, a) for c in COLLECTIVES for a in algorithms(c)]


def refused(arguments, capsys) -> str:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    return said.err


def test_goal_files_come_back_as_they_went(tmp_path, capsys):
    """Read again and simulated, each ends when the schedule itself does under the same letters."""
    letters = LogGOPS(2000, 500, 100, 1, 0, 65536)
    for collective, algorithm in EVERYWHERE:
        file = tmp_path / "one.goal"
        arguments = ["export", algorithm, "--collective", collective, "--ranks", "6", "-b", "6K", "--out", str(file)]
        assert main([*arguments, "--reduce-per-byte", "2"]) == 0
        capsys.readouterr()
        assert main(["simulate", str(file), "--loggops", "2000,500,100,1,0,65536"]) == 0
        last = int(capsys.readouterr().out.split()[-1])
        c = COLLECTIVES[collective]
        schedule = build(algorithm, 6, c.count_of(6, 1536), collective=c)
        assert last == simulate(from_schedule(schedule, 4, reduce_per_byte=2), letters).time > 0


def test_pictures_have_an_arrow_for_each_message(tmp_path):
    for collective, algorithm in (
        ("all_reduce", "tree"),
        ("all_gather", "pat"),
        ("reduce", "binomial"),
        ("alltoall", "bruck"),
    ):
        file = tmp_path / f"{algorithm}.svg"
        command = [
            "export",
            algorithm,
            "--collective",
            collective,
            "--ranks",
            "4",
            "--format",
            "svg",
            "--out",
            str(file),
        ]
        assert main(command) == 0
        assert ET.parse(file).getroot().tag.endswith("svg")
        assert file.read_text().count('id="patch_') > build(algorithm, 4, 64, collective=collective).messages


def test_text_and_xml_go_to_standard_output(capsys):
    assert main(["export", "ring", "--ranks", "2", "--format", "text"]) == 0
    assert "recv_reduce input[0:128] (+) rank 1 -> output[0:128]  final" in capsys.readouterr().out
    assert main(["export", "bruck", "--collective", "MPI_Alltoall", "--ranks", "4", "--format", "msccl"]) == 0
    assert ET.fromstring(capsys.readouterr().out).attrib["coll"] == "alltoall"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rng"], "did you mean ring"),
        (["ring", "--format", "png"], "--format png: accepted are goal, msccl, svg, text"),
        (["ring", "--ranks", "1"], "--ranks 1: accepted are 2 to 4096"),
        (["chain", "--collective", "bcast", "--root", "9"], "root is 9; accepted: 0 to 3"),
        (["direct", "--collective", "alltoall", "--in-place"], "no in-place form"),
        (["ring", "--ranks", "17", "--format", "svg"], "at most 16"),
        (["direct", "--collective", "gather", "--format", "msccl"], "no program of MSCCL's"),
        (["ring", "-b", "1Q"], "1Q"),
    ],
)
def test_what_cannot_be_exported_is_one_line(arguments, says, capsys):
    assert says in refused(["export", *arguments], capsys)


@pytest.mark.parametrize("letters", ["1,2,3", "1,2,3,4,5,6,7", "a,b,c,d", "-1,2,3,4", "1,2,3,99999999999999999999"])
def test_letters_are_whole_numbers(letters, tmp_path, capsys):
    assert "accepted are 4 to 6 whole numbers" in refused(["simulate", "x.goal", f"--loggops={letters}"], capsys)


def test_a_goal_file_needs_letters_and_letters_a_goal_file(capsys):
    assert "needs --loggops" in refused(["simulate", "x.goal"], capsys)
    assert "does not end in .goal" in refused(["simulate", "dgx-h100-cx7", "--loggops", "1,2,3,4"], capsys)
