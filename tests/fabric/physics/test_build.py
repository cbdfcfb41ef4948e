"""The network table of a card, figure by figure against arithmetic on the card, and lower bounds that no walk beats."""

from functools import cache

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS
from busbw.collectives import build as schedule_of
from busbw.errors import UserError
from busbw.fabric.cards import card
from busbw.fabric.physics import stragglers, topology
from busbw.fabric.physics.build import (
    _ring_flows,
    bounds,
    build,
    crossing_fractions,
    in_network_seconds,
    nic_rate,
    ring_latency,
)
from busbw.fabric.physics.network import PS, flat, network
from busbw.fabric.physics.routing import ring_flows, route
from busbw.fabric.time.replay import replay
from hypothesis import given, settings
from hypothesis import strategies as st

SHIPPED = [name for name in card.names() if name != card.THIS_MACHINE]


@cache
def system(name, *settings):
    return card.override(card.load(name), settings)


def gigabytes(net):
    return PS / net.byte_ps / 1e9


@pytest.mark.parametrize("name", SHIPPED)
def test_every_card_builds_for_any_number_of_ranks(name):
    s = system(name)
    for ranks in sorted({1, 2, min(s.gpus, s.node.domain + 1), s.gpus}):
        for rails in ("aggregate", "own"):
            net = build(s, ranks, rails=rails)
            assert net.ranks == ranks and len(net.groups) + 1 == len(net.latency)
            assert np.all(net.byte_ps > 0) and np.all(np.isfinite(net.byte_ps))
            assert np.all(np.diff(net.latency) >= 0)  # farther is not sooner
            if len(net.byte_ps) > 2:  # nor faster
                assert np.all(np.diff(net.byte_ps[1:]) >= 0)
    assert net.reduce_ps[0] == pytest.approx(3e12 / s.gpu.memory_bandwidth)


def test_a_dgx_h100_by_hand():
    """Eight ConnectX-7 of 400 Gb/s on InfiniBand; 0.6 us by NVLink; a leaf is one switch and two cables away."""
    s = system("dgx-h100-cx7")
    net = build(s, 16)
    infiniband = 50 * 4096 / (4096 + 8 + 12 + 4 + 2)
    assert gigabytes(net) == pytest.approx([370.8, 8 * infiniband])
    seconds = s.nic.latency + s.switch.latency + 2 * 10 * 4.9e-9 + s.software.network_overhead
    assert net.latency.tolist() == pytest.approx([600_000, seconds * PS], abs=1)
    assert net.gap.tolist() == [0, round(PS / s.nic.message_rate)]
    assert net.send_overhead.tolist() == net.recv_overhead.tolist() == [0, round(s.nic.message_overhead * PS)]
    assert net.port.tolist() == [0, 1]
    assert gigabytes(build(s, 16, rails="own")) == pytest.approx([370.8, infiniband])


def test_one_domain_is_one_class():
    net = build(system("dgx-h100-cx7"), 8)
    assert net.groups.shape == (0, 8) and net.slow.shape == (1, 8)


def test_rings_carry_the_rate_of_the_slowest_hop():
    """A ring over two hosts: NVLink's 370.8 GB/s, since eight NICs together bring more."""
    s = system("dgx-h100-cx7")
    count = 1 << 30
    t = replay(schedule_of("ring", 16, count, slices=16), build(s, 16)._replace(reduce_ps=np.zeros(16)), 4).seconds
    busbw = count * 4 / t * 2 * 15 / 16 / 1e9
    assert 0.95 * 370.8 < busbw < 370.8


def test_a_generation_5_host_halves_a_connectx_8():
    cx8 = system("gb300-nvl72-cx8")
    before, after = nic_rate(cx8), nic_rate(card.override(cx8, ["nic.pcie_generation=5", "nic.pcie_lanes=16"]))
    assert before == pytest.approx(100e9 * 4096 / 4122)
    assert 50e9 < after < 60e9


def test_planes_that_fail_halve_the_rate():
    s = system("gb300-nvl72-cx8", "nic.ports=4", "network.planes=4")
    rates = [nic_rate(s, failed_planes=k) for k in range(4)]
    assert rates == pytest.approx([rates[0] * (4 - k) / 4 for k in range(4)])
    half = build(s, 144, failed_planes=2)
    assert gigabytes(half)[1:] == pytest.approx(gigabytes(build(s, 144))[1:] / 2)
    with pytest.raises(UserError, match="accepted"):
        build(s, 144, failed_planes=4)


@pytest.mark.parametrize("oversubscription", [1, 3, 7])
def test_oversubscription_counts_where_all_ranks_cross(oversubscription):
    s = system("x-datacenter", "network.routing=adaptive", f"network.oversubscription={oversubscription}")
    assert build(s, rails="own").byte_ps[2] == pytest.approx(build(s, rails="own").byte_ps[1] * oversubscription)
    ring = build(s)
    assert ring.byte_ps[2] == pytest.approx(ring.byte_ps[1])  # of a ring one host of a leaf does


def test_a_claimed_part_of_the_line_rate_is_a_cap():
    net = build(system("memphis-h100-100k"))
    assert gigabytes(net)[2:] == pytest.approx([8 * 50 * 0.95] * 2)
    assert gigabytes(net)[1] == pytest.approx(8 * 50 * 4096 / 4178)  # one switch: nothing to collide with


@pytest.mark.parametrize("name", SHIPPED)
def test_closed_forms_of_spraying_are_what_routing_gives(name):
    """`crossing_fractions` has a formula for adaptive routing; here the flows are routed one by one."""
    s = system(name)
    if s.network is None or s.network.topology not in topology.TREES or s.network.tiers == 1:
        pytest.skip("not a tree of switches")
    nodes = min(s.nodes, 600)
    ranks = min(s.gpus, nodes * s.node.gpus)
    near = topology.nearness(s, ranks)
    tree = topology.fat_tree(s)
    sources, destinations, classes = _ring_flows(s, ranks, near)
    got = route(tree, sources, destinations, "adaptive").rates / tree.port_rate
    formula = crossing_fractions(s, ranks, routing="adaptive")
    for k in np.unique(classes):
        assert got[classes == k].min() >= formula[k] * (1 - 1e-9)
        if k == 1:
            assert got[classes == k].min() == pytest.approx(formula[k])
    leaving = route(tree, *ring_flows(tree.ends, tree.ports), "adaptive")
    assert leaving.slowest / tree.port_rate == pytest.approx(
        crossing_fractions(s, ranks, routing="adaptive", rails="own")[2], rel=0.02
    )


def test_hashing_never_beats_spraying():
    for name in ("oci-h100-supercluster", "gb200-nvl72-cx7", "x-datacenter"):
        s = system(name)
        for rails in ("aggregate", "own"):
            sprayed = crossing_fractions(s, s.gpus, routing="adaptive", rails=rails)
            hashed = [crossing_fractions(s, s.gpus, routing="ecmp", rails=rails, seed=seed) for seed in range(3)]
            assert np.all(np.array(hashed) <= sprayed + 1e-9)
            assert np.all(np.array(hashed) > 0)


def test_rings_on_rails_do_not_collide_and_rings_across_one_leaf_do():
    """Rail-optimised leaves let one flow a rail out at a time; eight NICs of a host under one leaf meet on its uplinks."""
    rail = system("memphis-h100-100k")
    assert crossing_fractions(rail, rail.gpus, routing="ecmp") == pytest.approx(np.ones(4))
    flat_leaves = system("memphis-h100-100k", "network.topology=fat-tree")
    assert crossing_fractions(flat_leaves, rail.gpus, routing="ecmp")[-1] <= 0.5


def test_the_last_domain_has_fewer_nics_when_it_is_part_empty():
    net = build(system("dgx-h100-cx7"), 20)
    assert net.slow[1].tolist() == [1.0] * 16 + [2.0] * 4
    assert build(system("frontier"), 11).slow[1].tolist() == [1.0] * 8 + [2.0] * 3  # two NICs of four serve three ranks
    assert build(system("dgx-h100-cx7"), 20, rails="own").slow[1].tolist() == [1.0] * 20


def test_protocols_send_flags_and_have_the_librarys_latency():
    s = system("dgx-h100-cx7")
    ll, ll128, simple = (build(s, 32, protocol=x) for x in ("ll", "ll128", "simple"))
    assert ll.byte_ps == pytest.approx(2 * simple.byte_ps)
    assert ll128.byte_ps == pytest.approx(128 / 120 * simple.byte_ps)
    assert ll.latency[0] == round(s.software.ring.nvlink.ll * PS)
    assert ll.latency[1] == pytest.approx((s.software.ring.network.ll + 2 * 10 * 4.9e-9) * PS, abs=1)


def test_a_slow_link_sets_the_pace_of_a_ring():
    """Exactly 1 / speed, where only bytes cost: the slow link carries 2(p-1) messages, one after the other."""
    free = {"latency": 0, "byte_ps": 100.0}
    for speed in (0.5, 0.25):
        slow = stragglers.factors([f"3:link:{speed}"], 8)["link"][None, :]
        healthy = replay(schedule_of("ring", 8, 8000), flat(8, **free), 4).picoseconds
        lame = replay(schedule_of("ring", 8, 8000), flat(8, slow=slow, **free), 4).picoseconds
        assert lame == healthy * stragglers.ring_slowdown(speed)


def test_stragglers_reach_their_part_of_the_table():
    s = system("dgx-h100-cx7")
    net = build(s, 32, stragglers=["5:nic:50%", "6:memory:25%", "7:link:10%"])
    assert net.slow[1, 5] == 2 and net.slow[0, 5] == 1
    assert net.slow[0, 7] == 10
    assert net.reduce_ps[6] == 4 * net.reduce_ps[0] and net.copy_ps[6] == 4 * net.copy_ps[0]


def test_noise_is_seeded():
    s = system("dgx-h100-cx7")
    assert not build(s, 16).noisy
    net = build(s, 16, noise="exponential:mean=1us", seed=3)
    assert net.noisy and net.seed == 3
    assert net.noise.mean() == pytest.approx(1e6, rel=1e-5)


def test_switches_that_reduce_beat_a_ring_where_they_exist():
    """Sharp needs half the bytes of a ring through a NIC; in one domain busbw passes the link's rate."""
    s = system("dgx-h100-cx7")
    size = 16e9

    def busbw(ranks):
        return size / in_network_seconds(s, ranks, size) * 2 * (ranks - 1) / ranks / 1e9

    assert busbw(8) == pytest.approx(14 / 9 * 0.85 * 370.8, rel=1e-3)
    # Between hosts a GPU's part, S / 8, goes through its NIC once: 2 (p-1)/p * 8 NICs, but the domain takes (9/8) S.
    nics = 8 * 50 * 4096 / 4122
    assert busbw(256) == pytest.approx(2 * 255 / 256 * min(nics, 8 / 9 * 0.85 * 370.8), rel=1e-3)
    times = [in_network_seconds(s, 256, float(n)) for n in (8, 1 << 10, 1 << 20, 1 << 30)]
    assert times == sorted(times)
    assert s.nic.latency + 2 * s.node.link.latency < times[0] < 5e-6  # a few hops, however many hosts
    with pytest.raises(UserError, match="whole domains"):
        in_network_seconds(s, 12, size)
    with pytest.raises(UserError, match=r"network\.sharp"):
        in_network_seconds(system("memphis-h100-100k"), 64, size)


@pytest.mark.parametrize(
    ("ranks", "more", "says"),
    [
        (100_001, {}, "100001 .*100000"),
        (0, {}, "1 to 100000|at least 1"),
        (16, {"rails": "both"}, "both"),
        (16, {"routing": "hope"}, "hope"),
        (16, {"protocol": "tcp"}, "tcp"),
        (16, {"stragglers": ["16:50%"]}, "0 to 15"),
        (16, {"noise": "loud"}, "loud"),
        (16, {"failed_planes": 1}, "one plane"),
    ],
)
def test_what_makes_no_sense_is_refused(ranks, more, says):
    with pytest.raises(UserError, match=says):
        build(system("memphis-h100-100k"), ranks, **more)


networks = st.builds(
    lambda domain, domains, figures, slow: network(
        np.arange(domain * domains)[None, :] // domain,
        latency=figures[0:2],
        byte_ps=[figures[2] / 1e3, figures[3] / 1e3],
        send_overhead=figures[4:6],
        recv_overhead=figures[6:8],
        gap=figures[8:10],
        reduce_ps=figures[10] / 1e4,
        slow=1 + np.resize(np.array(slow), (2, domain * domains)),
    ),
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.integers(0, 100_000), min_size=11, max_size=11),
    st.lists(st.floats(0, 3), min_size=1, max_size=7),
)


@settings(max_examples=40, deadline=None)
@given(networks, st.sampled_from(sorted(ALGORITHMS)), st.integers(1, 5000))
def test_no_algorithm_is_faster_than_the_bounds(net, algorithm, count):
    schedule = schedule_of(algorithm, net.ranks, count)
    t = replay(schedule, net, 4).seconds
    got = bounds(net, 4 * count)
    assert t >= got.seconds - 1e-11 * net.ranks  # messages are rounded to a picosecond
    assert all(x >= 0 for x in got)


@settings(deadline=None)
@given(st.integers(2, 500), st.floats(1, 1e12), st.floats(1, 1e4))
def test_bounds_of_equal_ranks_are_the_well_known_ones(ranks, size, byte_ps):
    got = bounds(flat(ranks, latency=500, byte_ps=byte_ps, send_overhead=7, recv_overhead=8, reduce_ps=2.0), size)
    assert got.bandwidth == pytest.approx(2 * (ranks - 1) / ranks * size * byte_ps / PS)
    assert got.work == pytest.approx((ranks - 1) / ranks * size * 2 / PS)
    assert got.latency == pytest.approx(515 / PS)


@settings(max_examples=40, deadline=None)
@given(networks)
def test_a_rings_longest_chain(net):
    if net.ranks == 1:
        return
    empty = net._replace(byte_ps=np.zeros(2), gap=np.zeros(2, np.int64), reduce_ps=np.zeros(net.ranks))
    t = replay(schedule_of("ring", net.ranks, net.ranks), empty, 4).picoseconds
    assert t >= round(ring_latency(empty) * PS)
    even = empty._replace(
        latency=empty.latency[[1, 1]],
        send_overhead=empty.send_overhead[[1, 1]],
        recv_overhead=empty.recv_overhead[[1, 1]],
    )
    t = replay(schedule_of("ring", net.ranks, net.ranks), even, 4).picoseconds
    assert t == round(ring_latency(even) * PS)
