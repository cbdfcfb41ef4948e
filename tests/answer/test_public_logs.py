"""Public logs as they were pasted, with what their threads concluded: read right, judged right, the cause among the first."""

import log_excerpts as logs
import pytest
from busbw.answer.above import explained
from busbw.answer.situation import Given
from busbw.answer.tables import answers
from busbw.answer.verdict import HEALTHY, LOW, UNKNOWN, WRONG
from log_excerpts import A100, H100, HEADER, nccl_log, rows

LARGE = [1 << k for k in range(25, 34)]


@pytest.fixture
def answered(tmp_path):
    def of(text, **given):
        path = tmp_path / "log.txt"
        path.write_text(text)
        (found,) = answers(str(path), Given(**given))
        return found

    return of


@pytest.mark.parametrize(
    "text, given, verdict, first",
    [
        (logs.EFA_RELEASE, {}, UNKNOWN, "an old release of the library, its network plug-in"),
        (logs.EFA_RELEASE, {"gpu": "V100", "nodes": 2, "nics": "1x100 Gb/s EFA"}, LOW, "the network plug-in's release"),
        (logs.P4D_MIDDLE, {}, None, "the network plug-in's release"),
        (logs.P4D_BEFORE_THE_FALL, {}, HEALTHY, "the network plug-in's release"),
        (logs.P4D_TOLD, {}, None, "the network plug-in's release"),
        (logs.OUT_OF_BOUNDS, {}, WRONG, "data arrives wrong"),
        (logs.HOST_OF_TWO_WORDS, {}, HEALTHY, None),
        (logs.BRIDGED, {}, HEALTHY, None),
        (logs.ONE_GPU_OF_FOUR_NICS, {"gpu": "H100", "nodes": 2, "nics": "4x400 Gb/s RoCE"}, HEALTHY, None),
        (logs.MANY_RANKS, {}, UNKNOWN, None),
        (logs.OWN_COLUMN, {}, UNKNOWN, None),
    ],
)
def test_the_verdict_and_the_cause_that_the_thread_named(answered, text, given, verdict, first):
    found = answered(text, **given)
    titles = [f.title for f in found.causes]
    assert verdict in (None, found.verdict)
    assert any(t.startswith(first) for t in titles[:2]) if first else titles == [], titles


def test_a_p4d_is_known_by_its_plug_in_or_by_the_slots_of_its_gpus(answered):
    for text, nodes in ((logs.P4D_BEFORE_THE_FALL, 2), (logs.P4D_TOLD, 4)):
        situation = answered(text).answer.situation
        assert (situation.platform.nics, situation.nodes) == (4, nodes)
        assert situation.platform.nic_rate == pytest.approx(12.5e9)
    other = answered(logs.P4D_BEFORE_THE_FALL.replace("a01d0", "bd000"))
    assert other.answer.situation.platform.nics == 8


def test_times_of_no_collective_are_left_out(answered):
    text = HEADER + rows(8, {1 << 20: 100.0, 1 << 21: 100.0, 1 << 22: 100.0}).replace(" 73.40 ", " 1e+299 ")
    assert "1e+299" in text
    assert [r.size for r in answered(text).answer.rows] == [1 << 20, 1 << 21]


def test_two_cards_under_a_bridge_may_pass_pcie_and_more_may_not(answered):
    assert "NVLink bridge" in explained(answered(logs.BRIDGED).answer)[0]
    eight = answered(nccl_log(1, 8, "NVIDIA H100 PCIe", {1 << 33: 115.0}))
    assert eight.verdict == "impossible"


def test_bandwidth_is_shown_where_p_is_not_known_and_a_deviation_is_no_count(answered):
    assert answered(logs.MANY_RANKS).answer.rows[-1].busbw == pytest.approx(367.29e9)
    assert answered(logs.OWN_COLUMN).answer.table.wrong == 0
    rounding = logs.OUT_OF_BOUNDS.replace("1e+00", "5e-07").replace("2 FAILED", "0 OK")
    assert answered(rounding).verdict == UNKNOWN
    alone = logs.OUT_OF_BOUNDS.replace("Out of bounds values : 2 FAILED", "")
    assert answered(alone).verdict == WRONG


def test_ranks_are_those_of_the_time_where_a_release_prints_busbw_twice(answered):
    situation = answered(logs.OUT_OF_BOUNDS).answer.situation
    assert (situation.collective, situation.ranks) == ("all_gather", 8)


@pytest.mark.parametrize(
    "info, gpu, first, evidence",
    [
        (logs.PLUGIN_OVER_TCP, "Tesla V100-SXM2-32GB", "TCP sockets", "the network plug-in goes over TCP"),
        (logs.PCIE_GEN3, A100, "a PCIe link below its generation", "PCI[12.0] - GPU/E000 (0), where 24 is usual"),
    ],
)
def test_what_nccl_says_of_plug_in_and_pcie(answered, info, gpu, first, evidence):
    found = answered(nccl_log(2, 8, gpu, dict.fromkeys(LARGE, 3.0), info), nics="8x200 Gb/s InfiniBand")
    assert found.verdict == LOW
    assert any(f.title.startswith(first) and evidence in " ".join(f.evidence) for f in found.causes[:2])


def test_a_matrix_that_shows_no_nic_near_a_gpu_is_evidence(answered):
    """nccl-tests issue 350's matrix, and a curve at two thirds of one NIC."""
    matrix = "\tGPU0\tNIC0\tNIC1\tCPU Affinity\nGPU0\t X \tSYS\tNODE\t64-127\nNIC0\tSYS\t X \tPIX\n"
    text = matrix + nccl_log(2, 1, "NVIDIA A100-PCIE-40GB", dict.fromkeys(LARGE, 14.0))
    found = answered(text, nics="1x200 Gb/s InfiniBand")
    assert found.causes[0].title.startswith("a NIC on the CPU's root port")
    assert "NODE at best" in found.causes[0].evidence[-1]


def test_rates_that_scatter_over_roce_are_its_flow_control_s(answered):
    """As NCCL issue 1403 was: low, and another figure every time."""
    curve = {n: (150.0, 230.0)[i % 2] for i, n in enumerate(LARGE)}
    steady = dict.fromkeys(LARGE, 190.0)
    for busbw, first in ((curve, True), (steady, False)):
        found = answered(nccl_log(2, 8, H100, busbw), nics="8x400 Gb/s RoCE")
        assert found.verdict == LOW
        assert found.causes[0].title.startswith("flow control of RoCE") == first


def test_a_bond_is_a_cause_where_nothing_else_is_known(answered):
    """nccl-tests issue 191: ib_write_bw with 8 queue pairs, and NCCL on a bond."""
    command = "mpirun -n 2 -N 1 -H 192.0.2.111:1,192.0.2.104:1 -x NCCL_IB_HCA=mlx5_bond_1 -x NCCL_IB_GID_INDEX=3 all_reduce_perf\n"
    found = answered(command + HEADER + rows(2, dict.fromkeys(LARGE, 11.5)))
    assert found.answer.situation.nodes == 2
    assert found.causes[0].title.startswith("one queue pair a connection")


def test_rows_of_an_old_all_gather_tell_it_and_its_ranks(answered):
    for text, ranks in ((logs.OLD_ALL_GATHER, 8), (logs.OLD_ALL_GATHER_OF_TWO, 2)):
        situation = answered(text).answer.situation
        assert (situation.collective, situation.ranks) == ("all_gather", ranks)


def test_the_network_of_one_node_is_no_cause(answered):
    curve = dict.fromkeys(LARGE, 20.0)
    one = answered(nccl_log(1, 8, A100, curve, logs.ONE_NODE_SOCKETS))
    assert one.verdict == LOW and not any("TCP" in f.title for f in one.causes)
    two = answered(nccl_log(2, 8, A100, curve, logs.ONE_NODE_SOCKETS), nics="8x200 Gb/s InfiniBand")
    assert two.causes[0].title.startswith("TCP sockets")


@pytest.mark.parametrize("rate, expected", [(1.1, True), (11.5, False)])
def test_the_rate_of_tcp_between_nodes_fits_sockets_on_any_machine(answered, rate, expected):
    command = "mpirun -np 2 -H 192.0.2.1:1,192.0.2.2:1 all_reduce_perf -b 32M -e 8G -f 2\n"
    found = answered(command + HEADER + rows(2, dict.fromkeys(LARGE, rate)))
    assert any(f.title.startswith("TCP sockets") for f in found.causes[:1]) == expected


def test_nics_are_counted_by_host_whatever_their_names(answered):
    found = answered(nccl_log(2, 8, "Tesla V100-SXM2-16GB", dict.fromkeys(LARGE, 6.0), logs.NICS_OF_OTHER_NAMES))
    assert found.answer.situation.platform.nics == 1


def test_pcie_of_the_usual_generation_is_no_cause(answered):
    info = logs.PCIE_GEN3.replace("12.0", "24.0")
    found = answered(nccl_log(2, 8, A100, dict.fromkeys(LARGE, 3.0), info), nics="8x200 Gb/s InfiniBand")
    assert not any("PCIe link below" in f.title for f in found.causes)


def test_hosts_that_were_given_one_name_are_counted_by_their_gpus(answered):
    found = answered(logs.ONE_NAME + HEADER + rows(16, dict.fromkeys(LARGE, 60.0)))
    assert found.answer.situation.nodes == 2 and found.verdict == UNKNOWN
    assert any("each GPU is listed 2 times" in t for t in found.answer.situation.assumed)


def test_a_list_of_nics_is_kept_whole_and_srun_s_settings_apart(answered):
    found = answered(
        "$ srun --export=ALL,NCCL_IB_HCA=mlx5_0,mlx5_1,NCCL_ALGO=Ring all_reduce_perf -b 8\n" + logs.MANY_RANKS
    )
    assert found.answer.table.system.environment["NCCL_IB_HCA"] == "mlx5_0,mlx5_1"
    assert found.answer.table.system.environment["NCCL_ALGO"] == "Ring"
    found = answered(logs.ONE_GPU_OF_FOUR_NICS)
    assert found.answer.table.system.environment["NCCL_IB_HCA"] == "mlx5_0,mlx5_1,mlx5_4,mlx5_5"


def test_ranks_placed_round_robin_are_never_the_first_cause(answered):
    """NCCL builds its rings by node, whatever the order of ranks (NCCL issue 1403: the cause was RoCE's connections)."""
    listed = "".join(line.replace("on xx", f"on node{i % 2}") for i, line in enumerate(logs.ONE_NAME.splitlines(True)))
    found = answered(listed + HEADER + rows(16, dict.fromkeys(LARGE, 60.0)), nics="8x400 Gb/s RoCE")
    assert found.verdict == LOW and not found.causes[0].title.startswith("ranks placed")
