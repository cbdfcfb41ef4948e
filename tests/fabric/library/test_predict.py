"""The closed form by bytes and hops: held against counted traffic, stated figures, and bounds that no model may pass."""

import math
from collections import Counter

import pytest
from busbw.collectives import tree
from busbw.errors import UserError
from busbw.fabric.cards import card
from busbw.fabric.library import nccl, predict
from hypothesis import given, settings
from hypothesis import strategies as st

CARDS = ("dgx-h100-cx7", "dgx-b200-cx7", "gb200-nvl72-cx7", "alps-gh200", "polaris-a100", "frontier")
PLATFORMS = {name: predict.platform(card.load(name)) for name in CARDS}
H100, B200 = PLATFORMS["dgx-h100-cx7"], PLATFORMS["dgx-b200-cx7"]


def busbw(machine, ranks, size, algorithm):
    return 2 * (ranks - 1) / ranks * size / predict.predict(machine, ranks, size, algorithm) / 1e9


@pytest.mark.parametrize("nodes", [2, 3, 4, 5, 6, 8, 13, 16, 53, 64, 100, 540])
def test_the_trees_bytes_and_depth_are_those_of_the_double_binary_tree(nodes):
    """Each tree carries half of the message up and down; a node's NICs carry the sum of both."""
    links = [(r, tree.parent(r, nodes)) for r in range(nodes) if tree.parent(r, nodes) is not None]
    mirrored = [tuple((nodes - 1 - x) if nodes % 2 == 0 else (x + 1) % nodes for x in link) for link in links]
    into, out = Counter(), Counter()
    for child, parent in links + mirrored:
        out[child] += 0.5
        into[parent] += 0.5
        out[parent] += 0.5
        into[child] += 0.5
    assert max(into.values()) == max(out.values()) == predict._tree_share(nodes)

    def hops(rank, links=dict(links)):  # noqa: B006
        return 1 + hops(links[rank]) if rank in links else 0

    assert max(hops(r) for r in range(nodes)) == predict._depth(nodes)


@pytest.mark.parametrize(
    "machine, ranks, algorithm, stated, source",
    [
        (H100, 8, "ring", 370, "nccl-tests issue 212"),
        (H100, 8, "nvls", 480, "nccl-tests issue 212"),
        (B200, 8, "nvls", 830, "nccl issue 1807"),
        (B200, 64, "ring", 8 * 48, "nccl-tests issue 290: 46 to 48 GB/s for each NIC"),
        (PLATFORMS["alps-gh200"], 32, "ring", 4 * 24, "nccl-tests issue 309: 24 GB/s for each 200 Gb/s"),
    ],
)
def test_long_messages_reach_what_maintainers_state(machine, ranks, algorithm, stated, source):
    assert busbw(machine, ranks, 1 << 36, algorithm) == pytest.approx(stated, rel=0.03), source


def test_two_nodes_show_more_than_their_nics():
    """A tree over two nodes sends S through the NICs, a ring 2 S (p-1)/p (nccl-tests issue 290)."""
    nics = 4 * 25e9 * predict.NIC_FRACTION / 1e9
    alps = PLATFORMS["alps-gh200"]
    assert busbw(alps, 8, 1 << 34, "ring") <= nics < busbw(alps, 8, 1 << 34, "tree") < 2 * nics


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CARDS), st.integers(2, 600), st.integers(0, 31), st.sampled_from(["ring", "tree"]))
def test_rings_and_trees_never_beat_the_wire_or_the_longest_chain(name, ranks, k, algorithm):
    machine, size = PLATFORMS[name], 8 << k
    nodes, _local = predict.shape(machine, ranks)
    found = predict.explain(machine, ranks, size, algorithm)
    assert found.algorithm == algorithm and math.isfinite(found.seconds)
    # Every rank's port carries 2 (p-1)/p S a direction, its NVLink or its node's NICs; one node of the job has to.
    port = machine.nics * machine.nic_rate + machine.link_rate if nodes > 1 else machine.link_rate
    assert found.seconds >= 2 * (ranks - 1) / ranks * size / port
    hops = getattr(machine.software, algorithm)
    cheapest = min(getattr(hops.network, found.protocol), getattr(machine.software.ring.network, found.protocol))
    chain = 2 * (nodes - 1) if algorithm == "ring" else 2 * math.floor(math.log2(nodes))
    assert found.seconds >= chain * cheapest + getattr(hops.base, found.protocol)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(CARDS),
    st.integers(2, 600),
    st.integers(1, 1 << 34),
    st.sampled_from(["ring", "tree"]),
    st.sampled_from(nccl.PROTOCOLS),
)
def test_more_bytes_take_longer(name, ranks, size, algorithm, protocol):
    machine = PLATFORMS[name]
    comm = predict.communicator(machine, ranks) if machine.generation in nccl.GENERATIONS else None
    more = size + 1 + size // 7
    a, b = (predict.fabric(machine, ranks, n, algorithm, protocol, comm) for n in (size, more))
    assert a < b


def test_more_ranks_take_longer():
    for name in CARDS:
        times = [
            predict.predict(PLATFORMS[name], n * PLATFORMS[name].domain, 1 << 20, "ring") for n in (2, 3, 8, 40, 600)
        ]
        assert times == sorted(times)


def test_distance_and_slower_nics_add_to_a_hop():
    near = H100._replace(reach=())
    size, ranks = 8, 127 * 8
    added = predict.predict(H100, ranks, size, "tree") - predict.predict(near, ranks, size, "tree")
    inside, beyond = H100.reach[0][1], H100.reach[-1][1]
    assert H100.reach[0][0] == 32 and beyond > inside > 0  # 32 hosts under one leaf
    assert added == pytest.approx(2 * (5 * inside + 2 * beyond))  # 1, 2, 4, 8, 16 hosts apart, then 32, 64
    late = near._replace(network_latency=10e-6)
    waits = predict.predict(late, ranks, size, "tree") - predict.predict(near, ranks, size, "tree")
    assert waits == pytest.approx(2 * 7 * 10e-6)


def test_a_rendezvous_costs_from_its_threshold_on():
    alps = PLATFORMS["alps-gh200"]
    free = alps._replace(eager=math.inf)
    comm = predict.communicator(alps, 32)

    def cost(size):
        return predict.fabric(alps, 32, size, "tree", "ll", comm) - predict.fabric(free, 32, size, "tree", "ll", comm)

    assert cost(2048) == 0  # 4,096 bytes with its flags
    assert cost(2052) == pytest.approx(2 * 3 * 2 * 2.7e-6)  # up and down three hops, each with two messages more


def test_the_flags_of_ll_send_a_message_through_host_memory():
    alps = PLATFORMS["alps-gh200"]
    comm = predict.communicator(alps, 32)

    def cost(size, host_rate):
        return predict.fabric(alps._replace(host_rate=host_rate), 32, size, "tree", "ll", comm)

    slow, fast = 25e9, 50e9  # both more than a NIC's 24 GB/s
    for size, busiest in ((1024, 1024), (4096, 4096), (16384, 4096), (65536, 16384)):  # 4 NICs, once all are used
        added = cost(size, slow) - cost(size, fast)
        assert added == pytest.approx(2 * 3 * 2 * busiest * 2 * (1 / slow - 1 / fast))  # depth 3, in and out, flags


def test_a_tree_of_simple_chunks_fills_hop_by_hop():
    """Beyond its latency and its bytes, the first chunks of 512 KiB a channel pass all hops up and down, two at a node."""
    bare = H100._replace(reach=(), link_rate=1e15)  # the links inside a node take no time
    size, wait = 1 << 36, 8.4e-6 + 2 * (7 * 4.0e-6 + 3 * 14e-6)
    comm = predict.communicator(H100, 64)
    rate = comm.graphs["tree"].channels * 36e9 / 2
    seconds = predict.fabric(bare, 64, size, "tree", "simple", comm)
    chunk = (512 << 10) * comm.graphs["tree"].channels / (8 * 48e9)
    assert seconds - size / rate - wait == pytest.approx(2 * 3 * 2 * chunk, rel=0.02)


@pytest.mark.parametrize(
    "size, rounds, waits", [(1 << 20, 1, 0), (1 << 23, 2, 0.5), (1 << 26, 8, 3), (1 << 31, 128, 0)]
)
def test_nvlink_sharp_is_a_pipeline_of_three_stages(size, rounds, waits):
    """H100: 16 channels x 8 heads hold 2 MiB to 16 MiB at a time, in chunks that grow with the message (src/enqueue.cc)."""
    seconds = predict.fabric(H100, 8, size, "nvls", "simple", predict.communicator(H100, 8))
    rate = 370.8e9 * 0.85 * 8 / 9
    held = size / rounds  # the first passes two stages before the third begins
    assert seconds == pytest.approx(25e-6 + (size + 2 * held) / rate + waits * 3.4e-6, rel=1e-6)


def test_the_library_chooses_where_it_knows_the_gpu():
    found = predict.explain(H100, 32, 1 << 20)
    comm = predict.communicator(H100, 32)
    expected = nccl.choose(comm, 1 << 20, tuple(a for a in nccl.ALGORITHMS if "collnet" not in a))
    assert found[1:] == expected[:2]
    assert predict.explain(H100, 32, 1 << 20, model="nccl").seconds == expected.seconds
    frontier = PLATFORMS["frontier"]
    best = min(predict.predict(frontier, 64, 1 << 24, a) for a in ("ring", "tree"))
    assert predict.predict(frontier, 64, 1 << 24, "auto") == best
    assert predict.explain(H100, 32, 1 << 30, without=("nvls-tree",)).algorithm in ("ring", "tree")


def test_switches_that_reduce_need_fewer_bytes():
    ranks, size = 32 * 8, 1 << 33
    assert predict.explain(B200, ranks, size, "sharp").algorithm == "collnet-direct"
    assert predict.predict(B200, ranks, size, "sharp") < predict.predict(B200, ranks, size, "ring")
    assert predict.explain(B200, 8, size, "sharp").algorithm == "nvls"
    assert predict.explain(B200, 16, size, "nvls").algorithm == "nvls-tree"


def test_a_card_and_its_platform_agree():
    assert predict.predict(card.load("dgx-h100-cx7"), 64, 1 << 22) == predict.predict(H100, 64, 1 << 22)


def test_wrong_input_is_named():
    with pytest.raises(UserError, match=r"butterfly.*accepted: ring"):
        predict.predict(H100, 8, 8, "butterfly")
    with pytest.raises(UserError, match=r"magic.*accepted: fabric, nccl"):
        predict.predict(H100, 8, 8, "ring", "magic")
    with pytest.raises(UserError, match="1 ranks"):
        predict.predict(H100, 1, 8)
    with pytest.raises(UserError, match="0 bytes"):
        predict.predict(H100, 8, 0)
    with pytest.raises(UserError, match="need a network"):
        predict.predict(H100._replace(nics=0), 16, 8)
    with pytest.raises(UserError, match="cdna2"):
        predict.predict(PLATFORMS["frontier"], 16, 8, model="nccl")
    with pytest.raises(UserError, match="runs no nvls"):
        predict.predict(PLATFORMS["frontier"], 16, 8, "nvls")
