"""Geometry against closed forms, and against trees and groups built switch by switch."""

import math

import numpy as np
import pytest
from busbw.errors import UserError
from busbw.fabric.cards import card
from busbw.fabric.cards.card import load, override
from busbw.fabric.physics import topology
from hypothesis import assume, given
from hypothesis import strategies as st

SHIPPED = [n for n in card.names() if n != card.THIS_MACHINE]


def tree_of(k, tiers, *more, nics=1, gpus=1, kind="fat-tree"):
    """A system of k-port switches with as many nodes as one plane holds by the closed form, 2 (k/2)^tiers ports."""
    base = override(
        load("dgx-h100-cx7"),
        [
            f"network.topology={kind}",
            f"network.tiers={tiers}",
            f"switch.radix={k}",
            f"node.gpus={gpus}",
            f"node.nics={nics}",
            "gpus=1",
            *more,
        ],
    )
    return base


@pytest.mark.parametrize("k", [4, 8, 16, 32, 64])
def test_a_three_tier_tree_holds_k_cubed_over_four_hosts_on_five_k_squared_over_four_switches(k):
    system = override(tree_of(k, 3), [f"nodes={k**3 // 4}"])
    assert topology.most_nodes(system) == k**3 // 4
    parts = topology.parts(system)
    assert parts.switches == (k * k // 2, k * k // 2, k * k // 4)
    assert sum(parts.switches) == 5 * k * k // 4
    assert parts.cables == (k**3 // 4,) * 3


@pytest.mark.parametrize("k", [4, 8, 64, 128])
@pytest.mark.parametrize("tiers", [2, 3, 4])
def test_a_tree_holds_two_times_half_the_radix_to_the_tiers(k, tiers):
    assert topology.most_nodes(tree_of(k, tiers)) == 2 * (k // 2) ** tiers


@pytest.mark.parametrize("k", [4, 36, 64])
def test_a_single_switch_holds_its_radix(k):
    assert topology.most_nodes(tree_of(k, 1)) == k
    assert topology.most_nodes(override(tree_of(k, 1), ["network.topology=single-switch"])) == k


def test_quantum_x800_holds_what_its_vendor_says_in_two_tiers():
    assert topology.most_nodes(load("gb300-nvl72-cx8")) * 4 == 10_368


def test_a_superpod_has_the_reference_architecture_switches():
    """127 hosts: 32 leaf and 16 spine switches (NVIDIA DGX SuperPOD reference architecture DGX H100, compute fabric)."""
    assert topology.parts(load("dgx-h100-cx7")).switches == (32, 16)


def test_frontier_and_aurora_have_the_switches_their_sites_name():
    assert topology.parts(load("frontier")).switches == (74 * 32,)  # 74 cabinets of 32
    assert topology.parts(load("aurora")).switches == (166 * 32,)  # 166 compute groups of 32
    assert topology.parts(load("aurora")).cables[2] == 166 * 165 // 2 * 2


def test_faster_ports_split_into_several_slower_ones():
    system = load("memphis-h100-100k")  # 64 ports of 800 Gb/s, NICs of 400 Gb/s
    assert topology.radix(system) == 128
    assert topology.radix(override(system, ["nic.rate=200Gb/s"])) == 256
    assert topology.radix(override(system, ["nic.rate=100Gb/s"])) == 256  # no more than max_ports
    assert topology.radix(override(system, ["nic.rate=800Gb/s"])) == 64


@pytest.mark.parametrize("ratio, down, up", [(1.0, 32, 32), (3.0, 48, 16), (7.0, 56, 8)])
def test_oversubscription_gives_a_leaf_more_ports_down(ratio, down, up):
    system = tree_of(64, 2, f"network.oversubscription={ratio}")
    tree = topology.tree(system)
    assert (tree.down, tree.up) == (down, up)
    assert topology.most_nodes(system) == down * 64


def test_planes_multiply_what_a_two_tier_network_holds():
    """Two planes of 400 Gb/s ports hold as many nodes as one of them, four times one plane of 800 Gb/s (half the radix)."""
    b200 = override(load("memphis-b200-cx8-300k"), ["gpus=8", "network.tiers=2"])
    one = override(b200, ["network.planes=1", "nic.ports=1"])
    assert topology.radix(b200) == 2 * topology.radix(one)
    assert topology.most_nodes(b200) == 4 * topology.most_nodes(one)
    assert topology.parts(b200).cables[0] == 2 * topology.parts(one).cables[0]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_network_can_be_built_for_all_its_gpus(name):
    topology.check(load(name))


def test_more_ranks_than_gpus_are_refused():
    with pytest.raises(UserError, match="1017 ranks, and dgx-h100-cx7 has 1016 GPUs; accepted: at most that"):
        topology.check(load("dgx-h100-cx7"), 1017)


def test_a_network_too_small_says_what_would_fit_and_that_does():
    small = override(load("dgx-h100-cx7"), ["nodes=300"])
    with pytest.raises(
        UserError, match=r"300 nodes, and a 2-tier rail of 64-port switches holds 256; accepted: gpus=2048"
    ) as e:
        topology.check(small)
    assert "network.tiers=3" in str(e.value)
    topology.check(override(small, ["gpus=2048"]))
    topology.check(override(small, ["network.tiers=3"]))


@pytest.mark.parametrize(
    "name, settings, said",
    [
        ("dgx-h100-cx7", ["switch.radix=2", "node.nics=256"], "accepted: "),
        ("dgx-h100-cx7", ["network.topology=single-switch", "nodes=100"], "holds 8; accepted: gpus=64"),
        ("oci-h100-supercluster", ["switch.radix=8"], "holds 128"),
        ("frontier", ["network.global_links=100"], "accepted: gpus="),
        ("frontier", ["network.switches_per_group=64"], "a switch needs 79 ports"),
        ("tesla-dojo", ["network.dims=3,3"], "mesh of 3 x 3 nodes holds 9; accepted: gpus=225"),
        ("oci-h100-supercluster", ["network.leaves_per_pod=65"], "accepted: at most 64"),
        ("mi300x-host", ["gpus=9"], "need a network"),
    ],
)
def test_what_cannot_be_built_is_refused(name, settings, said):
    with pytest.raises(UserError) as e:
        topology.check(override(load(name), settings))
    assert said in str(e.value)


def walk_tree(system, ranks):
    """float64 [ranks, ranks]: switches between any two ranks, by building the tree leaf by leaf and going up it."""
    tree = topology.tree(system)
    node = np.arange(ranks) // system.node.gpus
    inside = np.arange(ranks) // system.node.domain
    at = node // tree.set_nodes  # the set of leaves
    passed = np.full((ranks, ranks), np.nan)
    for tier in range(tree.tiers):
        joined = at[:, None] == at[None, :] if tier < tree.tiers - 1 else np.ones((ranks, ranks), bool)
        passed[np.isnan(passed) & joined] = 2 * tier + 1
        at = at // (tree.pod_sets if tier == 0 else tree.radix // 2)
    passed[inside[:, None] == inside[None, :]] = 0
    return passed


def classes_of(near, ranks):
    """int64 [ranks, ranks] by the definition in network.py, one level after another."""
    out = np.full((ranks, ranks), len(near.classes) - 1)
    for level in range(len(near.classes) - 2, -1, -1):
        group = near.groups[level]
        out[group[:, None] == group[None, :]] = level
    return out


@given(
    st.sampled_from([4, 8, 12]),
    st.integers(1, 4),
    st.sampled_from(["fat-tree", "rail"]),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(1, 150),
)
def test_nearness_is_the_way_through_the_tree(k, tiers, kind, gpus, nics, ranks):
    system = override(tree_of(k, tiers, gpus=gpus, nics=nics, kind=kind), [f"gpus={ranks}"])
    try:
        topology.check(system)
    except UserError:
        assume(False)
    near = topology.nearness(system)
    got = near.switches[classes_of(near, ranks)]
    np.testing.assert_array_equal(got, walk_tree(system, ranks))


@given(st.sampled_from(["fat-tree", "rail"]), st.integers(1, 3), st.integers(1, 3), st.integers(1, 400))
def test_no_leaf_or_pod_has_more_ports_than_its_switches(kind, tiers, nics, nodes):
    system = override(tree_of(16, tiers, nics=nics, kind=kind), [f"nodes={nodes}"])
    try:
        topology.check(system)
    except UserError:
        assume(False)
    tree = topology.tree(system)
    near = topology.nearness(system)
    if tiers > 1:
        _, in_set = np.unique(near.groups[1], return_counts=True)  # one GPU a node: ranks are nodes
        assert in_set.max() * nics <= tree.down * tree.set_leaves
    parts = topology.parts(system)
    for below, above, cables in zip(parts.switches, parts.switches[1:], parts.cables[1:]):
        assert cables <= above * tree.radix and cables <= below * tree.radix


@pytest.mark.parametrize("name", SHIPPED)
def test_latency_grows_with_distance_and_is_the_sum_of_its_parts(name):
    system = load(name)
    near = topology.nearness(system, min(system.gpus, 5000))
    assert near.groups.shape == (len(near.classes) - 1, min(system.gpus, 5000)) and near.groups.dtype == np.int32
    assert np.all(np.diff(near.seconds) > 0) and np.all(np.diff(near.switches) > 0)
    if system.nic is None:
        assert near.seconds.tolist() == [system.node.link.latency]
        return
    want = system.nic.latency + near.switches[-1] * system.switch.latency + near.cable[-1] * 4.9e-9
    assert near.seconds[-1] == pytest.approx(want)
    assert near.seconds[0] == system.node.link.latency


def test_a_superpod_way_by_hand():
    near = topology.nearness(load("dgx-h100-cx7"))
    assert near.classes == ("domain", "leaf", "spine")
    assert near.switches.tolist() == [0, 1, 3]
    assert near.cable.tolist() == [0, 20, 80]  # 10 m to a leaf, 30 m to a spine, and back down
    assert near.seconds[2] == pytest.approx(1.2e-6 + 3 * 0.2e-6 + 80 * 4.9e-9)
    # 32 hosts of 8 GPUs under a set of 8 leaves.
    assert np.array_equal(near.groups[1], np.arange(1016) // 256)


def test_a_rack_of_one_nvlink_domain_stands_under_one_set_of_leaves():
    system = load("gb300-nvl72-cx8")
    near = topology.nearness(system)
    for rack in range(system.gpus // 72):
        assert len(set(near.groups[1][rack * 72 : rack * 72 + 72])) == 1


def dragonfly_distances(groups, switches, endpoints, links):
    """Mean switches passed between end points in different groups, built link by link with minimal routes."""
    attached = {}  # (group, other group) -> switches of the group with a cable to it, dealt round
    nxt = [0] * groups
    for a in range(groups):
        for b in range(groups):
            if a != b:
                attached[a, b] = [(nxt[a] + i) % switches for i in range(links)]
                nxt[a] = (nxt[a] + links) % switches
    total = count = 0
    for a in range(groups):
        for b in range(groups):
            if a == b:
                continue
            pairs = list(zip(attached[a, b], attached[b, a]))  # cable i joins the i-th of each side
            for s in range(switches):
                for d in range(switches):
                    total += min(2 + (s != i) + (d != j) for i, j in pairs)
                    count += 1
    return total / count


@pytest.mark.parametrize(
    "groups, switches, links", [(5, 4, 1), (7, 8, 1), (3, 32, 1), (9, 16, 2), (5, 32, 4), (3, 4, 4)]
)
def test_a_dragonfly_passes_the_mean_of_its_minimal_routes(groups, switches, links):
    system = override(
        load("frontier"),
        [
            "node.gpus=1",
            "node.nics=1",
            "network.endpoints_per_switch=2",
            f"network.switches_per_group={switches}",
            f"network.global_links={links}",
            f"nodes={2 * switches * groups}",
        ],
    )
    near = topology.nearness(system)
    assert near.classes == ("domain", "switch", "group", "global")
    assert near.switches[3] == pytest.approx(dragonfly_distances(groups, switches, 2, links))
    assert len(set(near.groups[2])) == groups and len(set(near.groups[1])) == groups * switches


@pytest.mark.parametrize("shape", ["mesh", "torus"])
@pytest.mark.parametrize("dims", [(5,), (4, 3), (2, 6), (3, 4, 5), (12, 10)])
def test_a_grid_passes_the_mean_of_all_its_pairs(shape, dims):
    nodes = math.prod(dims)
    system = override(
        load("tesla-dojo"),
        [f"network.topology={shape}", f"network.dims={','.join(map(str, dims))}", "node.gpus=1", f"nodes={nodes}"],
    )
    near = topology.nearness(system)
    where = np.array([(np.arange(nodes) // math.prod(dims[:i])) % n for i, n in enumerate(dims)])
    apart = np.abs(where[:, :, None] - where[:, None, :])
    if shape == "torus":
        apart = np.minimum(apart, np.array(dims)[:, None, None] - apart)
    hops = apart.sum(0)
    kinds = classes_of(near, nodes)
    for k in range(1, len(near.classes)):
        assert near.switches[k] == pytest.approx(hops[kinds == k].mean() - 1)
        assert near.cable[k] == pytest.approx(hops[kinds == k].mean() * 0.3)
    edges = sum(nodes // n * (n if shape == "torus" and n > 2 else n - 1) for n in dims)
    assert topology.parts(system).cables == (edges,)


@pytest.mark.parametrize(
    "name", ["dgx-h100-cx7", "gb300-nvl72-cx8", "memphis-h100-100k", "oci-h100-supercluster", "aws-p5-h100-efa"]
)
def test_the_tree_to_route_on_has_a_port_for_every_nic_and_full_bisection(name):
    system = load(name)
    tree = topology.fat_tree(system)
    node, nic = np.arange(system.nodes)[:, None, None], np.arange(system.node.nics)[None, :, None]
    port = np.arange(system.nic.ports // system.network.planes)[None, None, :]
    numbers = topology.tree_port(system, node, nic, port)
    assert len(np.unique(numbers)) == numbers.size and numbers.min() >= 0 and numbers.max() < tree.ends
    assert tree.ports * tree.port_rate <= tree.uplinks * tree.up_rate  # not oversubscribed
    geometry = topology.tree(system)
    leaf = numbers // tree.ports
    if system.network.topology == "rail":
        assert np.array_equal(leaf % geometry.set_leaves, np.broadcast_to(nic, leaf.shape))  # NIC i under leaf i
    near = topology.nearness(system)
    same_leaf_set = leaf[:, 0, 0] // geometry.set_leaves
    assert np.array_equal(same_leaf_set, near.groups[1][:: system.node.gpus][: system.nodes])
    parts = topology.parts(system)
    assert tree.leaves * tree.pods >= parts.switches[0] / system.network.planes


def test_the_tree_to_route_on_has_as_many_paths_as_the_closed_form():
    """k-ary fat tree: (k/2)^2 shortest paths between pods, k/2 within one (Al-Fares et al. 2008)."""
    tree = topology.fat_tree(override(tree_of(8, 3), ["nodes=128"]))
    assert (tree.middles * tree.cables, tree.tops) == (4, 4)
    assert tree.ends == 128 and tree.pods == 8


def test_a_network_that_is_no_tree_is_refused_for_routing():
    for name in ("frontier", "tesla-dojo", "mi300x-host"):
        with pytest.raises(UserError, match="accepted: single-switch, fat-tree or rail"):
            topology.fat_tree(load(name))


def test_the_power_of_a_network_is_that_of_its_boxes():
    assert topology.network_power(load("dgx-h100-cx7")) == (32 + 16) * 750 + 1016 * 25
    assert topology.network_power(load("mi300x-host")) == 0
