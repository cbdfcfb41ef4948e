"""busbw fit as a command: what it prints, the card that simulate then takes, and what it refuses."""

import argparse
import re

import pytest
from busbw.errors import UserError
from busbw.fabric.cards import card
from busbw.fabric.library import predict
from busbw.scripts import fit, simulate

HEAD = (
    "# nThread 1 nGpus 1 minBytes 8 maxBytes 1073741824 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 "
    "validation: 1 graph: 0\n"
    "#\n# Using devices\n"
    + "".join(
        f"#  Rank {r:>2} Group  0 Pid {100 + r} on   host{r // 8} device {r % 8} [0x{r % 8:02x}] NVIDIA H100\n"
        for r in range(16)
    )
    + "#\n#                                                              out-of-place                       in-place          \n"
    "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
    "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)       \n"
)


def log(path, factor=1.5, sizes=tuple(1 << k for k in range(16, 31)), busbw=1.0):
    machine = predict.platform(card.load("dgx-h100-cx7"))
    rows = []
    for s in sizes:
        seconds = predict.explain(machine, 16, s).seconds * factor
        algbw = s / seconds / 1e9
        half = f"{seconds * 1e6:8.2f} {algbw:7.2f} {algbw * 1.875 * busbw:7.2f}      0"
        rows.append(f"{s:>12} {s // 4:>13}     float     sum      -1 {half} {half}\n")
    path.write_text(HEAD + "".join(rows) + "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 100\n#\n")
    return path


def call(module, *arguments):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(a) for a in arguments]))


def test_a_log_becomes_figures_and_a_card_that_simulate_takes(tmp_path, capsys):
    source, out = log(tmp_path / "nccl.log"), tmp_path / "ours.yaml"
    assert call(fit, source, "--system", "dgx-h100-cx7", "-o", out, "--plot", tmp_path / "missed.png") == 0
    printed = capsys.readouterr().out
    assert re.search(r"alpha +\d.*us a message +95 %: ", printed) and "LogGP: L + 2o =" in printed
    assert "measured over the uncalibrated model 1.50 in the median" in printed
    assert (tmp_path / "missed.png").read_bytes().startswith(b"\x89PNG")
    ours, plain = (predict.platform(card.load(c)) for c in (out, "dgx-h100-cx7"))
    for k in (16, 20, 25, 30):
        ratio = predict.explain(ours, 16, 1 << k).seconds / predict.explain(plain, 16, 1 << k).seconds
        assert ratio == pytest.approx(1.5, rel=0.01)
    arguments = (out, "--ranks", "16,64", "-b", "1M", "-e", "4M", "--model", "library", "--algo", "auto", "-q")
    assert call(simulate, *arguments) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "90 %:" in line]
    assert len(rows) == 6


def test_a_table_of_points_is_taken_too(tmp_path, capsys):
    head = "id,system,gpu,nic,nodes,ranks,gpus_per_node,library,algorithm,size_bytes,time_us,busbw_GBps\n"
    table = tmp_path / "points.csv"
    table.write_text(
        head
        + "".join(
            f"a,Lab,H100,8x400G,2,16,8,NCCL 2.23.4,default,{1 << k},{20 + (1 << k) / 2e5},\n" for k in range(10, 30)
        )
    )
    assert call(fit, table, "--parameters", "alpha,beta") == 0
    assert "1 curves, 20 points" in capsys.readouterr().out
    table.write_text(head + "a,Lab,H100,8x400G,2,16,8,NCCL,default,1073741824,5000,900\n")
    with pytest.raises(UserError, match=r"points.csv:2: busbw 900 GB/s, but the time over 16 ranks gives 402.7"):
        call(fit, table)
    table.write_text(head + "a,Lab,H100,8x400G,2,16,8,NCCL,default,1073741824,0,\n")
    with pytest.raises(UserError, match="1073741824 bytes in 0 s"):
        call(fit, table)


def test_what_cannot_be_fitted_is_refused_in_one_line(tmp_path):
    few = log(tmp_path / "few.log", sizes=(1 << 20, 1 << 21))
    wrong = log(tmp_path / "wrong.log", busbw=1.5)
    for arguments, message in [
        ((few,), "2 points cannot fit alpha, beta, gamma"),
        ((wrong,), r"wrong.log:\d+: busbw .* over algbw .* fits no number of ranks; accepted: 1 to 2"),
        ((few, "-o", "x.yaml"), "-o goes with --system"),
        ((few, "--system", "dgx-h100-cx7", "-o", "x.txt", "--parameters", "alpha"), "ends in .yaml"),
        ((few, "--parameters", "delta"), "accepted: alpha, beta, gamma"),
        ((few, "--parameters", "alpha", "--system", "mi300x-host"), "16 ranks, but mi300x-host has 8 GPUs"),
        ((tmp_path / "none.log",), "cannot be read"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            call(fit, *arguments)
        assert "\n" not in str(caught.value)
