"""The replay's shared links held against packets: a ring, permutations and incast on a two-tier fat tree; and back-pressure."""

import dataclasses

import numpy as np
import pytest
from busbw.collectives import build
from busbw.collectives.schedule import StepList
from busbw.fabric.physics.network import flat
from busbw.fabric.physics.routing import FatTree, permutation_flows
from busbw.fabric.time.contention import fat_tree
from busbw.fabric.time.generated import Generated
from busbw.fabric.time.replay import replay
from packet_switches import send

BYTE_PS, LATENCY = 20.0, 2_000_000  # 50 GB/s a port, 2 us
TREE = FatTree(16, 16, 1, 8, 1, port_rate=50e9, up_rate=50e9)  # 256 ports, leaves with 8 uplinks for 16 ports


def ways_of(links, ranks):
    return {
        int(p): links.hops[links.starts[i] : links.starts[i + 1]].tolist() for i, p in enumerate(links.pairs)
    }, ranks


def flows(sources, destinations, nbytes):
    """One message from each source to its destination, all at once."""
    ranks = int(max(sources.max(), destinations.max())) + 1
    steps = [StepList() for _ in range(ranks)]
    for a, b in zip(sources, destinations):
        steps[a].send(int(b), 0, 0, nbytes)
    for b, a in sorted(zip(destinations, sources)):
        steps[b].recv(int(a), 1, 0, nbytes)
    return dataclasses.replace(build("ring", ranks, 4), tables=tuple(s.table() for s in steps))


def packets_of_flows(links, net, sources, destinations, nbytes, **more):
    ways, ranks = ways_of(links, net.ranks)
    mine = [ways[int(a) * ranks + int(b)] for a, b in zip(sources, destinations)]
    return send(links.byte_ps, LATENCY, [nbytes] * len(mine), mine, [-1] * len(mine), **more)


def test_one_message_alone_takes_its_bytes_its_way_and_a_packet_a_switch():
    got = send([BYTE_PS] * 4, 4000, [10 * 4096], [[0, 1, 2, 3]], [-1])
    assert got.finish[0] == 4000 + (10 + 3) * 4096 * BYTE_PS
    two = send([BYTE_PS] * 2, 2000, [4096, 4096], [[0, 1], [0, 1]], [-1, 0])
    assert two.finish[1] == 2 * two.finish[0] == 2 * (2000 + 2 * 4096 * BYTE_PS)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_ring_of_256_shuffled_ranks_is_within_10_percent(seed):
    """Neighbours in the ring are anywhere, so ECMP lets their messages meet on the leaves' uplinks: all 510 steps of both."""
    ranks, chunk, slow = 256, 32 << 10, 4
    ends = np.random.default_rng(seed).permutation(ranks)
    net = flat(ranks, latency=LATENCY, byte_ps=slow * BYTE_PS)
    schedule = Generated("ring", ranks, ranks * chunk)
    tree = TREE._replace(port_rate=50e9 / slow, up_rate=50e9 / slow)
    links = fat_tree(tree, schedule, net, ends=ends, seed=seed)
    whole = replay(schedule, net, 1, links=links).picoseconds
    ways, _ = ways_of(links, ranks)
    steps = 2 * (ranks - 1)
    mine = [ways[r * ranks + (r + 1) % ranks] for _ in range(steps) for r in range(ranks)]
    after = [-1] * ranks + [(k - 1) * ranks + (r - 1) % ranks for k in range(1, steps) for r in range(ranks)]
    got = send(links.byte_ps, LATENCY, [chunk] * len(mine), mine, after)
    assert whole > 1.3 * steps * (LATENCY + chunk * slow * BYTE_PS)  # they do meet
    assert whole == pytest.approx(got.finish.max(), rel=0.10)


@pytest.mark.parametrize("seed", range(4))
def test_a_permutation_is_within_15_percent(seed):
    sources, destinations = permutation_flows(TREE.ends, seed)
    net = flat(TREE.ends, latency=LATENCY, byte_ps=BYTE_PS)
    nbytes = 1 << 20
    schedule = flows(sources, destinations, nbytes)
    links = fat_tree(TREE, schedule, net, seed=seed)
    got = packets_of_flows(links, net, sources, destinations, nbytes)
    whole = replay(schedule, net, 1, links=links).picoseconds
    assert whole > 2 * (LATENCY + nbytes * BYTE_PS)
    assert whole == pytest.approx(got.finish.max(), rel=0.15)


@pytest.mark.parametrize("senders", [2, 8, 64])
@pytest.mark.parametrize("pause", [0, 64 << 10])
def test_incast_is_within_15_percent_with_and_without_back_pressure(senders, pause):
    ports = np.append(np.arange(1, senders + 1) * 3 % 255 + 1, np.zeros(senders, np.int64))
    ranks = np.arange(2 * senders)  # each sender has a receiver of its own, all behind one port
    net = flat(2 * senders, latency=LATENCY, byte_ps=BYTE_PS)
    nbytes = 256 << 10
    schedule = flows(ranks[:senders], ranks[senders:], nbytes)
    links = fat_tree(TREE, schedule, net, ends=ports, routing="static")
    got = packets_of_flows(links, net, ranks[:senders], ranks[senders:], nbytes, pause=pause)
    whole = replay(schedule, net, 1, links=links).picoseconds
    assert whole > senders * nbytes * BYTE_PS
    assert whole == pytest.approx(got.finish.max(), rel=0.15)


def test_back_pressure_bounds_the_queues_and_slows_a_victim():
    """A flow that only shares an uplink with an incast waits for it where links are paused (congestion spreading)."""
    # Ports 0 to 3 go up by link 4 (up) and down by 5; three of them send to port 8, the last to port 9, over the same links.
    byte_ps = [BYTE_PS] * 8
    ways = [[0, 4, 6], [1, 4, 6], [2, 5, 6], [3, 4, 7]]
    nbytes = [1 << 20] * 3 + [64 << 10]
    lossy = send(byte_ps, 3000, nbytes, ways, [-1] * 4)
    paused = send(byte_ps, 3000, nbytes, ways, [-1] * 4, pause=32 << 10)
    assert paused.waiting[4] <= (32 << 10) + 2 * 4096 < lossy.waiting[4]
    assert paused.finish[3] > 1.2 * lossy.finish[3]
    assert paused.finish.max() == pytest.approx(
        lossy.finish.max(), rel=0.05
    )  # the port that all want is busy either way
