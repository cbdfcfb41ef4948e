"""Shared links: nothing changes where none is shared, a shared one serves one message after the other, physics holds."""

import dataclasses

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS, build
from busbw.collectives.schedule import SEND, StepList
from busbw.errors import UserError
from busbw.fabric.physics.network import flat, network
from busbw.fabric.physics.routing import FatTree
from busbw.fabric.time.contention import fat_tree, make_links, pairs_of
from busbw.fabric.time.generated import Generated
from busbw.fabric.time.replay import replay
from hypothesis import given, settings
from hypothesis import strategies as st


@st.composite
def cases(draw):
    ranks = draw(st.integers(1, 9))
    name = draw(st.sampled_from(list(ALGORITHMS)))
    pieces = st.integers(1, 2)
    count = draw(st.integers(0, 50_000))
    schedule = build(name, ranks, count, channels=draw(pieces), slices=draw(pieces), in_place=draw(st.booleans()))
    chance = np.random.default_rng(draw(st.integers(0, 2**31)))
    two_levels = draw(st.booleans())
    net = network(
        np.arange(ranks)[None] // 2 if two_levels else np.zeros((0, ranks)),
        latency=chance.integers(0, 10**7, 1 + two_levels),
        byte_ps=chance.uniform(1, 100, 1 + two_levels),
        send_overhead=chance.integers(0, 10**6),
        recv_overhead=chance.integers(0, 10**6),
        gap=chance.integers(0, 10**6),
        slow=1 + chance.integers(0, 2, (1 + two_levels, ranks)) * 0.5,
        reduce_ps=chance.uniform(0, 10),
        noise=np.sort(chance.integers(0, 10**6, 4096)),
        seed=7,
    )
    return schedule, net, chance


def ways(schedule, chance, links, hops):
    return {
        (int(a), int(b)): chance.integers(0, links, chance.integers(0, hops + 1)).tolist()
        for a, b in pairs_of(schedule)
    }


@settings(max_examples=120, deadline=None)
@given(cases())
def test_links_of_ones_own_change_nothing(case):
    schedule, net, chance = case
    private, way, n = [], {}, 0
    for a, b in pairs_of(schedule).tolist():
        hops = int(chance.integers(0, 4))
        way[a, b] = list(range(n, n + hops))
        n += hops
        private += chance.uniform(0, net.byte_ps.min(), hops).tolist()
    got = replay(schedule, net, 4, links=make_links(private, net.ranks, way))
    assert got.finish.tolist() == replay(schedule, net, 4).finish.tolist()


@settings(max_examples=120, deadline=None)
@given(cases())
def test_never_earlier_than_without_and_never_faster_than_a_link(case):
    schedule, net, chance = case
    links = int(chance.integers(1, 5))
    costs = chance.uniform(0, 300, links)
    way = ways(schedule, chance, links, 3)
    got = replay(schedule, net, 4, links=make_links(costs, net.ranks, way), trace=True)
    assert (got.finish >= replay(schedule, net, 4).finish).all()
    carried = np.zeros(links)
    for r, table in enumerate(schedule.tables):
        for s in table[table["op"] == SEND]:
            for link in way[r, int(s["peer"])]:
                carried[link] += int(4 * int(s["count"]) * costs[link] + 0.5)
    assert got.picoseconds >= carried.max()
    assert len(got.trace.messages) == schedule.messages
    again = replay(schedule, net, 4, links=make_links(costs, net.ranks, way))
    assert again.finish.tolist() == got.finish.tolist()


def into_one(senders, elements):
    """Ranks 1 ... n each send to a rank of their own; all pass one link."""
    tables = []
    for r in range(2 * senders):
        steps = StepList()
        if r < senders:
            steps.send(senders + r, 0, 0, elements[r])
        else:
            steps.recv(r - senders, 1, 0, elements[r - senders])
        tables.append(steps.table())
    return dataclasses.replace(build("ring", 2 * senders, 4), tables=tuple(tables))


def test_a_shared_link_serves_one_after_the_other_by_arrival():
    net = flat(8, latency=1000, byte_ps=1.0)
    elements = [1000, 2000, 3000, 4000]
    shared = make_links([3.0], 8, {(r, r + 4): [0] for r in range(4)})
    got = replay(into_one(4, elements), net, 1, links=shared)
    # All come at 500, half the latency; rank 0's goes first. Each then takes 3 ps a byte, and half a latency more.
    assert got.finish[4:].tolist() == [1000 + 3 * n for n in (1000, 3000, 6000, 10_000)]
    # A link that rank 3 reaches first, for the others' ports are slow, serves it first.
    late = net._replace(send_overhead=np.array([0]), slow=net.slow.copy())
    tables = list(into_one(4, elements).tables)
    for r in range(3):
        steps = StepList()
        steps.copy((0, 0), (1, 0), 10)
        steps.send(4 + r, 0, 0, elements[r])
        tables[r] = steps.table()
    schedule = dataclasses.replace(into_one(4, elements), tables=tuple(tables))
    late = late._replace(copy_ps=np.full(8, 100.0))
    got = replay(schedule, late, 1, links=shared)
    assert got.finish[4:].tolist() == [1000 + 3 * n for n in (5000, 7000, 10_000, 4000)]


def test_messages_stream_through_several_links():
    net = flat(4, latency=900, byte_ps=1.0)
    two = make_links([2.0, 5.0], 4, {(0, 2): [0, 1], (1, 3): [1]})
    got = replay(into_one(2, [100, 100]), net, 1, links=two)
    # 0 -> 2 is at link 0 at 300 and at link 1 at 600; 1 -> 3 is there at 450 and leaves it free at 950.
    assert got.finish[2:].tolist() == [950 + 300 + 500, 450 + 450 + 500]


@pytest.mark.parametrize("routing, slower", [("adaptive", 1.0), ("static", 1.0), ("ecmp", 1.3)])
def test_a_ring_over_a_fat_tree(routing, slower):
    """A ring in rank order has one flow out of each leaf; with a stride of a leaf all flows leave, and hashes collide."""
    p, chunk = 64, 1 << 16
    rate = 50e9
    tree = FatTree(ports=8, leaves=8, pods=1, middles=8, port_rate=rate, up_rate=rate)
    net = flat(p, latency=10**6, byte_ps=1e12 / rate)
    ring = Generated("ring", p, p * chunk)
    plain = replay(ring, net, 1).picoseconds
    near = replay(ring, net, 1, links=fat_tree(tree, ring, net, routing=routing)).picoseconds
    assert near == plain
    ends = np.arange(p) % 8 * 8 + np.arange(p) // 8  # neighbours are under different leaves
    far = replay(ring, net, 1, links=fat_tree(tree, ring, net, ends=ends, routing=routing, seed=1)).picoseconds
    assert far >= plain * slower
    # Sprayed messages of a leaf leave it one after the other, once: the last starts 7/8 of a chunk's time later.
    assert slower > 1 or far <= plain + int(chunk / rate * 1e12)


def test_an_oversubscribed_leaf_takes_as_much_longer():
    p, chunk, rate = 32, 1 << 18, 50e9
    tree = FatTree(ports=8, leaves=4, pods=1, middles=2, port_rate=rate, up_rate=rate)  # 4 : 1
    net = flat(p, latency=0, byte_ps=1e12 / rate)
    ring = Generated("ring", p, p * chunk)
    ends = np.arange(p) % 4 * 8 + np.arange(p) // 4
    got = replay(ring, net, 1, links=fat_tree(tree, ring, net, ends=ends, routing="adaptive")).picoseconds
    assert 3.9 < got / replay(ring, net, 1).picoseconds < 4.2


@pytest.mark.parametrize("name", ["ring", "tree"])
@pytest.mark.parametrize("ranks", [1, 2, 3, 8, 13])
@pytest.mark.parametrize("channels", [1, 2])
def test_pairs_of_a_formula_are_those_of_its_tables(name, ranks, channels):
    table = build(name, ranks, 1000, channels=channels, slices=2)
    formula = Generated(name, ranks, 1000, channels, 2)
    assert pairs_of(formula).tolist() == pairs_of(table).tolist()
    net = flat(ranks, latency=10**6, byte_ps=20.0)
    tree = FatTree(ports=4, leaves=4, pods=1, middles=2, port_rate=5e10, up_rate=5e10)
    both = [replay(s, net, 4, links=fat_tree(tree, s, net)).finish.tolist() for s in (table, formula)]
    assert both[0] == both[1]


def test_only_what_uses_the_port_passes_the_tree():
    net = network(np.arange(8)[None] // 4, latency=1000, byte_ps=[1.0, 20.0])
    ring = build("ring", 8, 800)
    tree = FatTree(ports=4, leaves=2, pods=1, port_rate=5e10, up_rate=5e10)
    assert len(fat_tree(tree, ring, net).pairs) == 8
    assert fat_tree(tree, ring, net, port=1).pairs.tolist() == [3 * 8 + 4, 7 * 8 + 0]


def test_bad_input_is_an_error():
    ring = build("ring", 8, 800)
    tree = FatTree(ports=2, leaves=2, pods=1)
    with pytest.raises(UserError, match="up to 7 for 8 ranks; accepted: 0 to 3"):
        fat_tree(tree, ring, flat(8, latency=1, byte_ps=1.0))
    with pytest.raises(UserError, match="routing 'best'; accepted: ecmp"):
        fat_tree(tree, ring, flat(8, latency=1, byte_ps=1.0), routing="best")
    with pytest.raises(ValueError, match="finite"):
        make_links([-1.0], 2, {})
    with pytest.raises(ValueError, match="accepted: 0 to 0"):
        make_links([1.0], 2, {(0, 1): [1]})
    with pytest.raises(ValueError, match="accepted: 0 to 1"):
        make_links([1.0], 2, {(0, 2): [0]})
