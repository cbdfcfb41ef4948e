"""busbw expect on logs: verdicts, causes, exit codes and forms."""

import json
from xml.etree import ElementTree

import pytest
from busbw.answer.situation import Given
from busbw.answer.tables import answers
from busbw.answer.verdict import COLLAPSES, HEALTHY, IMPOSSIBLE, LOW, UNKNOWN, WRONG
from busbw.fabric.cards import card
from busbw.fabric.library import predict
from busbw.scripts import main
from log_excerpts import A100, ACROSS_RACKS, H100, IMB_KNEE, ONE_GPU, OSU_CUDA, OSU_SPIKE, PAIRS, TWO_RUNS, nccl_log

SIZES = [1 << k for k in range(25, 34)]
INFO_RAILS = "node0:1:1 [0] NCCL INFO NET/IB : Using " + " ".join(f"[{i}]mlx5_{i}:1/IB" for i in range(8)) + "\n"


@pytest.fixture
def answered(tmp_path):
    def of(text, threshold=None, **given):
        path = tmp_path / "log.txt"
        path.write_text(text)
        return answers(str(path), Given(**given), threshold)

    return of


def modelled(system, ranks, scale=1.0):
    """busbw in GB/s by size, as the model has it times `scale`."""
    machine = predict.platform(card.load(system))
    out = {}
    for size in SIZES:
        seconds = predict.expect(machine, ranks, size).seconds
        out[size] = 2 * (ranks - 1) / ranks * size / seconds / 1e9 * scale
    return out


def titles(found):
    return [f.title for f in found.causes]


@pytest.mark.parametrize("scale, verdict", [(1.0, HEALTHY), (0.4, LOW)])
def test_a_curve_on_the_model_is_healthy_and_one_far_below_is_low(answered, scale, verdict):
    text = nccl_log(4, 8, H100, modelled("dgx-h100-cx7", 32, scale))
    (found,) = answered(text, system=card.load("dgx-h100-cx7"))
    assert found.verdict == verdict
    assert bool(found.causes) == (verdict == LOW)


def test_nothing_is_low_against_nics_that_were_assumed(answered):
    (found,) = answered(nccl_log(4, 8, H100, modelled("dgx-h100-cx7", 32, 0.4)))
    assert found.verdict == UNKNOWN
    assert any("NICs" in a for a in found.answer.situation.assumed)
    (told,) = answered(nccl_log(4, 8, H100, modelled("dgx-h100-cx7", 32, 0.4)), nics="8x400 Gb/s InfiniBand")
    assert told.verdict == LOW and not told.answer.situation.assumed


def test_a_threshold_replaces_the_band(answered):
    text = nccl_log(4, 8, H100, modelled("dgx-h100-cx7", 32, 0.95))
    system = card.load("dgx-h100-cx7")
    assert answered(text, system=system)[0].verdict == HEALTHY
    assert answered(text, 0.97, system=system)[0].verdict == LOW


def test_bandwidth_above_any_wire_is_impossible_and_above_a_ring_is_explained(answered):
    from busbw.answer.above import explained

    (found,) = answered(nccl_log(1, 8, H100, {1 << 33: 900.0}))
    assert found.verdict == IMPOSSIBLE
    (nvls,) = answered(nccl_log(1, 8, H100, {1 << 33: 478.0}))
    assert nvls.verdict == HEALTHY and "NVLS" in explained(nvls.answer)[0]


def test_wrong_data_is_never_fast(answered):
    (found,) = answered(nccl_log(1, 8, H100, {1 << 33: 478.0}, wrong=7))
    assert found.verdict == WRONG and titles(found)[0].startswith("data arrives wrong")


def test_across_racks_the_curve_collapses_and_the_path_is_the_first_cause(answered):
    (found,) = answered(ACROSS_RACKS)
    assert found.verdict == COLLAPSES
    assert found.answer.rows[found.answer.collapse.first].size == 64 << 20
    assert titles(found)[0].startswith("congestion on the path between racks")


@pytest.mark.parametrize(
    "text, first",
    [
        (TWO_RUNS, "2 separate runs of one rank, not one of 2"),
        (ONE_GPU, "one rank alone"),
        (IMB_KNEE, "the MPI library's choice of algorithm"),
        (OSU_CUDA, "device memory staged"),
        (OSU_SPIKE, "errors of the network's driver"),
    ],
)
def test_what_a_log_shows_of_itself_comes_first(answered, text, first):
    (found,) = answered(text)
    assert titles(found)[0].startswith(first)


@pytest.mark.parametrize(
    "info, first",
    [
        (
            "node0:1:1 [0] NCCL INFO NET/Socket : Using [0]eth0:10.0.0.1<0>\nnode0:1:1 [0] NCCL INFO Using network Socket\n",
            "TCP sockets",
        ),
        ("node0:1:1 [0] NCCL INFO NCCL_P2P_DISABLE set by environment to 1.\n", "peer access"),
        (INFO_RAILS + "node0:1:1 [0] NCCL INFO NCCL_IB_HCA set by environment to mlx5_0.\n", "1 of 8 NICs used"),
        (INFO_RAILS + "node0:1:1 [0] NCCL INFO Channel 00/0 : 7[7] -> 8[0] [send] via NET/IB/0\n", "no GPUDirect"),
    ],
)
def test_what_nccl_info_says_decides(answered, info, first):
    curve = modelled("dgx-h100-cx7", 16, 0.3)
    (found,) = answered(nccl_log(2, 8, H100, curve, info), system=card.load("dgx-h100-cx7"))
    assert found.verdict == LOW
    assert any(t.startswith(first) for t in titles(found)[:2]), titles(found)


def test_seven_of_eight_rails(answered):
    info = "node0:1:1 [0] NCCL INFO NET/IB : Using " + " ".join(f"[{i}]mlx5_{i}:1/IB" for i in range(7)) + "\n"
    curve = modelled("dgx-h100-cx7", 64, 7 / 8)
    (found,) = answered(nccl_log(8, 8, H100, curve, info), threshold=0.95, system=card.load("dgx-h100-cx7"))
    assert titles(found)[0] == "1 of 8 rails missing"


def test_a_node_at_the_rate_of_pcie_has_lost_its_nvlink(answered):
    (found,) = answered(nccl_log(1, 8, A100, dict.fromkeys(SIZES, 22.0)))
    assert found.verdict == LOW and titles(found)[0] == "NVLink down or not used"


def test_exit_codes_json_and_junit(tmp_path, capsys):
    def run(text, *more):
        (tmp_path / "log.txt").write_text(text)
        code = main(["expect", str(tmp_path / "log.txt"), *more])
        return code, capsys.readouterr().out

    good = nccl_log(1, 8, H100, {1 << 33: 478.0})
    assert run(good)[0] == 0
    code, out = run(ACROSS_RACKS, "--json", "--junit", str(tmp_path / "r.xml"))
    assert code == 1
    (data,) = json.loads(out)
    assert data["verdict"] == "collapses" and data["ranks"] == 24 and data["causes"][0]["confirm"]
    suite = ElementTree.parse(tmp_path / "r.xml").getroot()[0]
    assert int(suite.get("failures")) >= 1
    assert len(suite.findall("testcase")) == int(suite.get("tests"))
    code, out = run(ONE_GPU)
    assert code == 2 and "one rank alone" in out
    code, out = run(PAIRS)
    assert code == 1 and "node644 is slow" in out


@pytest.mark.parametrize(
    "more, named",
    [
        (["--system", "dgx-h10-cx7"], "dgx-h100-cx7"),
        (["--ranks", "0"], "--ranks 0"),
        (["--threshold", "x"], "accepted: a share"),
        (["--library", "nccl-9000"], "nccl-9000"),
    ],
)
def test_bad_input_is_said_in_one_line(tmp_path, capsys, more, named):
    (tmp_path / "log.txt").write_text(ACROSS_RACKS)
    with pytest.raises(SystemExit) as stop:
        main(["expect", str(tmp_path / "log.txt"), *more])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") == 1


def test_nothing_of_a_log_reaches_the_terminal_raw(tmp_path, capsys):
    text = nccl_log(1, 8, "NVIDIA H100 \x1b[31mred", {1 << 33: 478.0})
    (tmp_path / "log.txt").write_text(text)
    main(["expect", str(tmp_path / "log.txt")])
    assert "\x1b" not in capsys.readouterr().out
