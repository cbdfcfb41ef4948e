"""busbw simulate --explain, --library and --protocol: what they print and refuse."""

import argparse
import re

import pytest
from busbw.errors import UserError
from busbw.scripts import simulate


def call(capsys, *arguments):
    parser = argparse.ArgumentParser()
    simulate.add_arguments(parser)
    code = simulate.run(parser.parse_args([str(a) for a in arguments]))
    return code, capsys.readouterr().out


def test_the_candidates_are_listed_and_the_winner_is_the_least_believed(capsys):
    given = ("alps-gh200", "--ranks", "32", "--algo", "auto", "--explain", "-b", "64K", "-e", "4M", "-f", "8")
    code, out = call(capsys, *given, "--library", "nccl-2.23.4")
    assert code == 0 and out.count("<- runs") == 3 and "no LL128: the path from GPU to NIC is PHB" in out
    for block in out.split("#\n")[1:]:
        rows = [line for line in block.splitlines() if line.startswith("  ") and "algorithm" not in line]
        scale = {"us": 1, "ms": 1e3}
        believed = [float(v) * scale[u] for v, u in (re.findall(r"([\d.]+) (us|ms)", r)[0] for r in rows)]
        assert believed == sorted(believed) and rows[0].endswith("<- runs")
    _, newer = call(capsys, *given, "--library", "nccl-2.30.7")
    assert "no LL128" not in newer and "ll128" in newer  # Grace's PCIe no longer counts as the processor


def test_a_protocol_may_be_forced_and_bands_are_in_the_table(capsys):
    code, out = call(
        capsys, "dgx-h100-cx7", "--ranks", "16", "--algo", "ring", "--model", "library", "--protocol", "ll128", "-b", "1M",
        "-e", "1M", "-q",
    )  # fmt: skip
    assert code == 0 and "(ring/ll128)" in out and re.search(r"90 %: [\d.]+ us to [\d.]+ us", out)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--model", "library", "--library", "nccl-2.99"), "nearest known: nccl-2.30.7"),
        (("--model", "library", "--library", "latest"), "accepted: nccl-VERSION"),
        (("--library", "nccl-2.23.4"), "goes with --model library"),
        (("--model", "library", "--protocol", "ll64"), "accepted: ll, ll128, simple"),
        (
            ("--model", "library", "--algo", "tree", "--protocol", "ll128", "--set", "nic.gpu_path=phb"),
            "none of tree with ll128",
        ),
    ],
)
def test_what_is_not_known_is_refused(capsys, arguments, message):
    with pytest.raises(UserError, match=message):
        call(capsys, "dgx-h100-cx7", "--ranks", "16", "-b", "1M", "-e", "1M", "-q", *arguments)


def test_a_release_of_nccl_means_nothing_elsewhere(capsys):
    with pytest.raises(UserError, match="frontier runs no NCCL"):
        call(capsys, "frontier", "--ranks", "16", "--model", "library", "--library", "nccl-2.23.4")
