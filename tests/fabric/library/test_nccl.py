"""NCCL's tuning model: values worked out by hand from its formulas, its choices, and what any cost model must hold."""

import math

import pytest
from busbw.errors import UserError
from busbw.fabric.library import nccl, releases
from hypothesis import given
from hypothesis import strategies as st

US = 1e-6
LINKS = {"volta": 120e9, "ampere": 240e9, "hopper": 370.8e9, "blackwell": 721.8e9}
NICS = {"volta": 12.5e9, "ampere": 25e9, "hopper": 50e9, "blackwell": 50e9}


def comm(generation="hopper", nodes=1, local=8, release="2.30.7", **more):
    given_ = {
        "tables": releases.tables(releases.find(release), generation),
        "link_rate": LINKS[generation],
        "nics": local,
        "nic_rate": NICS[generation],
        "nvls": generation in ("hopper", "blackwell"),
    }
    return nccl.communicator(generation, nodes * local, nodes, **(given_ | more))


def all_pairs(c):
    return [(a, p) for a in nccl.ALGORITHMS for p in nccl.PROTOCOLS if nccl.available(c, a, p)]


@pytest.mark.parametrize(
    "made, algorithm, protocol, microseconds",
    [
        ({}, "ring", "ll", 6.6 + 14 * 0.6),
        ({}, "ring", "ll128", 14.0 + 14 * 1.9),
        ({}, "ring", "simple", 8.4 + 14 * 3.4),
        ({}, "tree", "ll", 6.8 + 2 * 7 * 0.6),
        ({}, "nvls", "simple", 25.0),
        ({"nodes": 2}, "tree", "ll", 6.8 + 2 * (7 * 0.6 + 5.0)),
        ({"nodes": 16}, "tree", "ll128", 14.0 + 2 * (7 * 1.25 + 4 * 8.5)),
        ({"nodes": 9}, "tree", "simple", 8.4 + 2 * (7 * 4.0 + 3 * 14.0)),  # the logarithm is rounded down
        ({"nodes": 2}, "ring", "ll", 6.6 + 28 * 1.0 + 2 * 2.7),  # posting costs 1 us, more than NVLink's 0.6
        ({"nodes": 2}, "ring", "simple", 8.4 + 28 * 3.4 + 2 * 14.0),
        ({"nodes": 4, "local": 1}, "ring", "ll", 6.6 + 6 * 5.0),  # one rank a node: the tree's network latency
        ({"nodes": 2, "network_latency": 20e-6}, "tree", "ll", 6.8 + 2 * (7 * 0.6 + 25.0)),
        ({"nodes": 2, "network_latency": 20e-6}, "tree", "simple", 8.4 + 2 * (7 * 4.0 + 54.0)),
        ({"nodes": 4}, "nvls-tree", "simple", 25 + 2 * 2 * 20.9),
        ({"nodes": 4, "sharp": True}, "collnet-chain", "simple", 30 + 2 * 7 * 2.8),
        ({"nodes": 4, "sharp": True}, "collnet-direct", "simple", 31 + 2 * (3.7 + 7 * 0.4)),
    ],
)
def test_latency_by_hand(made, algorithm, protocol, microseconds):
    assert nccl.latency(comm(**made), algorithm, protocol) == pytest.approx(microseconds * US, rel=1e-9)


@pytest.mark.parametrize(
    "made, algorithm, protocol, gigabytes",
    [
        # 8 H100: 12 channels of 30 GB/s.
        ({}, "ring", "simple", 360 * 8 / 14),
        ({}, "ring", "ll128", 360 * 0.92 * 8 / 14),
        ({}, "ring", "ll", 141 * 8 / 14),  # the cap of LL, below half of 360
        ({}, "tree", "simple", 360 * 0.92 / 2),
        ({}, "tree", "ll", 360 * 0.92 / 3.8 / 2),
        # Over a network: 8 channels of 45 GB/s, since 8 of 48 would not fit NVLink.
        ({"nodes": 4}, "ring", "simple", 360 * 32 / 62),
        ({"nodes": 4}, "tree", "simple", 8 * 36.0 / 2),  # capped
        ({"nodes": 4}, "tree", "ll", 20.4 / 2),
        ({"nodes": 2}, "nvls-tree", "simple", 8 * 57.7 * 16 / 30),
        ({"generation": "blackwell", "nodes": 4}, "ring", "simple", 384 * 32 / 62),
        ({"generation": "blackwell", "nodes": 4}, "tree", "simple", 8 * 24.0 / 2),
        ({"generation": "blackwell", "nodes": 2}, "nvls-tree", "simple", 8 * 96 * 16 / 30),
        ({"generation": "ampere"}, "ring", "simple", 240 * 8 / 14),
        ({"generation": "ampere", "nodes": 4}, "ring", "simple", 192 * 32 / 62),
    ],
)
def test_bandwidth_by_hand(made, algorithm, protocol, gigabytes):
    assert nccl.bandwidth(comm(**made), algorithm, protocol) == pytest.approx(gigabytes * 1e9, rel=1e-9)


def test_nvlink_sharp_has_the_channels_that_nccl_logs_for_eight_h100():
    """NVIDIA/nccl issue 1197: the NVLS pattern has 8 channels of 40 GB/s; nccl-tests issue 212: expect about 480."""
    c = comm()
    assert c.graphs["nvls"] == nccl.Graph(8, 40e9, 40e9)
    busbw = nccl.bandwidth(c, "nvls", "simple") * 2 * 7 / 8
    assert busbw == pytest.approx(8 * 40e9 * 0.85 * 7 / 8 * 2) and busbw == pytest.approx(480e9, rel=0.01)


def test_rings_of_one_node_reach_what_maintainers_tell_users():
    """nccl-tests issue 212: about 370 GB/s; issue 290: 46 to 48 GB/s for each 400 Gb/s NIC."""
    assert nccl.bandwidth(comm(), "ring", "simple") * 14 / 8 == pytest.approx(370e9, rel=0.03)
    each = nccl.bandwidth(comm("blackwell", nodes=4), "ring", "simple") * 62 / 32 / 8
    assert 46e9 <= each <= 48e9


def test_a_pair_that_nccl_does_not_run_takes_for_ever():
    c = comm("ampere", nodes=2)
    for algorithm, protocol in [("nvls", "simple"), ("nvls-tree", "simple"), ("collnet-chain", "simple")]:
        assert nccl.time(c, algorithm, protocol, 1 << 20) == math.inf
    assert not nccl.available(comm(), "nvls-tree", "simple")  # one node
    assert not nccl.available(comm(local=2), "nvls", "simple")  # no multicast for a pair
    assert not nccl.available(comm(), "nvls", "ll")
    assert not nccl.available(comm(link="pcie"), "ring", "ll128")


def test_the_long_ring_has_a_plateau():
    c = comm(nodes=2)
    edge = 64 * c.channels * 16  # 64 bytes for each channel and rank
    below, above = (nccl.time(c, "ring", "simple", n) for n in (edge - 1, edge))
    assert above - below == pytest.approx(0.4 * nccl.latency(c, "ring", "simple"), rel=1e-3)
    one = comm()
    assert nccl.time(one, "ring", "simple", edge) == pytest.approx(nccl.latency(one, "ring", "simple"), rel=1e-2)


def test_the_tree_dips_at_middle_sizes():
    c = comm(nodes=4)
    part = [
        n
        / (nccl.time(c, "tree", "simple", n) - nccl.latency(c, "tree", "simple"))
        / nccl.bandwidth(c, "tree", "simple")
        for n in (64, 1 << 18, 1 << 27, 1 << 33)
    ]
    assert part == pytest.approx([0.9, 0.5, 0.9, 1.0], rel=1e-6)


def test_choices_follow_the_size_and_the_scale():
    assert nccl.choose(comm(nodes=4), 8)[:2] == ("tree", "ll")
    assert nccl.choose(comm(), 8)[1] == "ll"
    assert nccl.choose(comm(), 1 << 30)[:2] == ("nvls", "simple")
    assert nccl.choose(comm(local=4), 1 << 33)[:2] == ("ring", "simple")  # NVLink SHARP gains nothing on four GPUs
    assert nccl.choose(comm("ampere"), 1 << 33)[:2] == ("ring", "simple")
    # A ring's latency grows with the ranks, so the size from which it wins does too.
    rings = ("ring", "tree")
    crossover = [
        next(k for k in range(10, 50) if nccl.choose(comm("ampere", nodes=n), 1 << k, rings).algorithm == "ring")
        for n in (4, 32, 256)
    ]
    assert crossover == sorted(crossover) and crossover[0] < crossover[-1]


@given(
    st.sampled_from(nccl.GENERATIONS),
    st.integers(1, 300),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(0, 34),
    st.booleans(),
)
def test_any_prediction_is_sane(generation, nodes, local, k, sharp):
    if nodes * local < 2:
        nodes = 2
    c = comm(generation, nodes, local, sharp=sharp)
    ranks, size = nodes * local, 8 << k
    pairs = all_pairs(c)
    assert ("ring", "simple") in pairs and ("tree", "simple") in pairs
    for a, p in pairs:
        seconds = nccl.time(c, a, p, size)
        assert 0 < nccl.latency(c, a, p) <= seconds < math.inf
        assert seconds < nccl.time(c, a, p, 2 * size)
        huge = 1 << 52
        assert huge / nccl.time(c, a, p, huge) == pytest.approx(nccl.bandwidth(c, a, p), rel=1e-3)
        assert nccl.time(c, a, p, 1) == pytest.approx(nccl.latency(c, a, p), rel=1e-3)
    # A ring's busbw is a wire speed.
    fastest = min(LINKS[generation] if local > 1 else math.inf, local * NICS[generation] if nodes > 1 else math.inf)
    assert nccl.bandwidth(c, "ring", "simple") * 2 * (ranks - 1) / ranks <= fastest * (1 + 1e-9)
    chosen = nccl.choose(c, size)
    assert chosen.seconds == min(nccl.time(c, a, p, size) for a, p in pairs)


def test_wrong_input_is_named():
    tables = releases.tables(releases.newest(), "hopper")
    with pytest.raises(UserError, match=r"pascal.*accepted: volta, ampere, hopper, blackwell"):
        nccl.communicator("pascal", 8, 1, tables=tables, link_rate=1e11)
    with pytest.raises(UserError, match="1 ranks"):
        nccl.communicator("hopper", 1, 1, tables=tables, link_rate=1e11)
    with pytest.raises(UserError, match="need NICs"):
        nccl.communicator("hopper", 16, 2, tables=tables, link_rate=1e11)
    with pytest.raises(UserError, match=r"butterfly.*accepted: ring, tree"):
        nccl.time(comm(), "butterfly", "ll", 8)
    with pytest.raises(UserError, match="none of nvls"):
        nccl.choose(comm("ampere"), 8, ("nvls",))
