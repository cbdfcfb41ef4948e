"""In-network reduction: bytes counted one by one, packets stepped through switches, and what users measure."""

import pytest
from busbw.errors import UserError
from busbw.fabric.physics import innetwork
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(2, 72))
def test_bytes_of_a_gpu_counted_part_by_part(ranks):
    """For every part: the switch reads it from each rank, hands the owner the sum, takes the result and copies it to all."""
    out, into = [0] * ranks, [0] * ranks
    for owner in range(ranks):
        for rank in range(ranks):
            out[rank] += 1
        into[owner] += 1
        out[owner] += 1
        for rank in range(ranks):
            into[rank] += 1
    assert out == into == [ranks + 1] * ranks
    assert innetwork.domain_bytes(ranks, ranks) == pytest.approx(ranks + 1)


@given(st.integers(2, 72), st.floats(1e6, 1e12))
def test_busbw_of_a_domain_may_pass_its_links(ranks, size):
    t = innetwork.domain_seconds(ranks, size, 1e11)
    busbw = size / t * 2 * (ranks - 1) / ranks
    assert busbw / 1e11 == pytest.approx(innetwork.domain_busbw_factor(ranks))
    assert (busbw > 1e11 * (1 + 1e-9)) == (ranks > 3)


@pytest.mark.parametrize(
    ("link", "efficiency", "published", "source"),
    [
        (18 * 20.6, 0.85, 480, "NVIDIA/nccl-tests issue 212, 8 x H100"),
        (18 * 40.1, 0.74, 830, "NVIDIA/nccl issue 1807, 8 x B200"),
    ],
)
def test_nvlink_sharp_of_eight_gpus_is_what_users_see(link, efficiency, published, source):
    """NCCL's own link rate and efficiency (src/graph/topo.h, tuning.cc), no constant from these points."""
    t = innetwork.domain_seconds(8, 8e9, link * 1e9, efficiency=efficiency)
    assert 8 / t * 2 * 7 / 8 == pytest.approx(published, rel=0.03), source


def packets_through_switches(packets, seconds_each, tree):
    """When the last packet's copy is in: every switch takes packets whole, in order, one at a time."""
    nodes = 2 * tree.tiers - 1
    free = [0.0] * (nodes + 1)  # of the host's port and each switch's
    end = 0.0
    for _ in range(packets):
        at = free[0] = free[0] + seconds_each
        at += tree.cable_latency
        for i in range(1, nodes + 1):
            free[i] = max(at + tree.switch_latency, free[i]) + seconds_each
            at = free[i] + tree.cable_latency
        end = at
    return end


@given(st.integers(1, 4), st.integers(1, 200), st.floats(0, 1e-6), st.floats(0, 1e-6))
def test_tree_time_is_that_of_packets_stepped_through_its_switches(tiers, packets, switch, cable):
    tree = innetwork.Tree(tiers, switch, cable, 4096)
    stepped = packets_through_switches(packets, 4096 / 50e9, tree)
    assert innetwork.tree_seconds(packets * 4096, 50e9, tree) == pytest.approx(stepped)


def test_a_tree_moves_half_of_a_rings_bytes():
    tree = innetwork.Tree(3, 300e-9, 50e-9)
    size, rate, ranks = 1e12, 50e9, 1000
    ring = 2 * (ranks - 1) / ranks * size / rate
    assert ring / innetwork.tree_seconds(size, rate, tree) == pytest.approx(2, rel=2e-3)


@given(st.integers(1, 72), st.integers(1, 1000), st.floats(1e8, 1e12))
def test_the_slower_of_domain_and_tree_counts(domain, domains, size):
    if domain * domains < 2:
        return
    tree = innetwork.Tree(2, 300e-9, 50e-9)
    got = innetwork.hierarchical_seconds(domain, domains, size, 400e9, 50e9, tree)
    parts = []
    if domain > 1:
        parts.append(innetwork.domain_seconds(domain, size, 400e9))
    if domains > 1:
        parts.append(innetwork.tree_seconds(size / domain, 50e9, tree))
    assert max(parts) <= got * (1 + 1e-9) and got <= sum(parts) * (1 + 1e-9)


def test_one_rank_has_nothing_to_reduce():
    with pytest.raises(UserError, match="2 or more"):
        innetwork.domain_seconds(1, 1e6, 1e9)
