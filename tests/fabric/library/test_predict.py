"""The closed form by bytes and hops: held against counted traffic, stated figures, and bounds that no model may pass."""

import math
from collections import Counter

import pytest
from busbw.collectives import tree
from busbw.errors import UserError
from busbw.fabric.cards import card
from busbw.fabric.library import clock, nccl, predict
from busbw.fabric.library.predict import Run
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
    assert max(into.values()) == max(out.values()) == clock.tree_share(nodes)

    def hops(rank, links=dict(links)):  # noqa: B006
        return 1 + hops(links[rank]) if rank in links else 0

    assert max(hops(r) for r in range(nodes)) == clock.depth(nodes)


def seconds(machine, ranks, size, algorithm, protocol):
    comm = predict.communicator(machine, ranks) if machine.generation in nccl.GENERATIONS else None
    return clock.seconds(predict.job(machine, ranks, comm), size, algorithm, protocol)


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
    assert busbw(machine, ranks, 1 << 36, algorithm) == pytest.approx(stated, rel=0.06), source


def test_two_nodes_show_more_than_their_nics():
    """A tree over two nodes sends S through the NICs, a ring 2 S (p-1)/p (nccl-tests issue 290)."""
    nics = 4 * 25e9 / 1e9
    alps = PLATFORMS["alps-gh200"]
    assert busbw(alps, 8, 1 << 34, "ring") <= nics < busbw(alps, 8, 1 << 34, "tree") < 2 * nics


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(CARDS), st.integers(2, 600), st.integers(0, 31), st.sampled_from(["ring", "tree"]))
def test_rings_and_trees_never_beat_the_wire_or_the_longest_chain(name, ranks, k, algorithm):
    machine, size = PLATFORMS[name], 8 << k
    nodes, local = predict.shape(machine, ranks)
    found = predict.explain(machine, ranks, size, Run(algorithm=algorithm))
    assert found.algorithm == algorithm and math.isfinite(found.seconds)
    # Every rank's port carries 2 (p-1)/p S a direction, its NVLink or its node's NICs; one node of the job has to.
    port = machine.nics * machine.nic_rate + machine.link_rate if nodes > 1 else machine.link_rate
    assert found.seconds >= 2 * (ranks - 1) / ranks * size / port
    # The fastest hops that anything measured: half a microsecond over NVLink, two over a network.
    chain = 2 * (nodes - 1) if algorithm == "ring" else 2 * math.floor(math.log2(nodes))
    assert found.seconds >= chain * 2e-6 + (local - 1) * 0.5e-6


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(CARDS),
    st.integers(2, 600),
    st.integers(1, 1 << 34),
    st.sampled_from([(a, p) for a in ("ring", "tree") for p in nccl.PROTOCOLS]),
)
def test_more_bytes_take_longer(name, ranks, size, pair):
    more = size + 1 + size // 7
    assert seconds(PLATFORMS[name], ranks, size, *pair) < seconds(PLATFORMS[name], ranks, more, *pair)


def test_more_ranks_take_longer():
    for name in CARDS:
        machine = PLATFORMS[name]
        times = [predict.predict(machine, n * machine.domain, 1 << 20, "ring") for n in (2, 3, 8, 40, 600)]
        assert times == sorted(times)


def test_distance_adds_to_a_hop():
    near = H100._replace(reach=())
    size, ranks = 8, 127 * 8
    added = predict.predict(H100, ranks, size, "tree") - predict.predict(near, ranks, size, "tree")
    inside, beyond = H100.reach[0][1], H100.reach[-1][1]
    assert H100.reach[0][0] == 32 and beyond > inside > 0  # 32 hosts under one leaf
    assert added == pytest.approx(2 * (5 * inside + 2 * beyond))  # 1, 2, 4, 8, 16 hosts apart, then 32, 64


def test_a_rendezvous_costs_from_its_threshold_on():
    alps = PLATFORMS["alps-gh200"]
    short, long = (seconds(alps, 32, n, "tree", "ll") for n in (2048, 2049))  # 4,096 bytes with the flags, and more
    f = clock.figures("hopper", "slingshot")
    assert f.rendezvous > 1e-6
    assert long - short == pytest.approx(2 * 3 * f.rendezvous, rel=1e-2)  # up and down three hops


def test_the_bubble_is_a_call_that_sends_nothing():
    """Two GPUs send two halves and wait for a third call, so they get 2 / (2 + f) of their link; more hide it behind others."""
    f = clock.figures("hopper", "infiniband")
    for ranks in (2, 4, 8):
        busy = 2 * (ranks - 1)
        bubble = f.bubble if ranks == 2 else 0.0  # of the last slice alone, next to nothing of 64 GiB
        expected = busy / (busy + bubble) * f.link * H100.link_rate / 1e9
        rate = 2 * (ranks - 1) / ranks * (1 << 36) / seconds(H100, ranks, 1 << 36, "ring", "simple") / 1e9
        assert rate == pytest.approx(expected, rel=2e-3)


def test_nvlink_sharp_gets_the_same_busbw_in_any_domain():
    """Measured: 844 GB/s over 8 B200, 839 over the 72 of a rack."""
    rack = PLATFORMS["gb200-nvl72-cx7"]
    eight, all_ = (2 * (p - 1) / p * (1 << 40) / seconds(rack, p, 1 << 40, "nvls", "simple") for p in (8, 72))
    assert eight == pytest.approx(all_, rel=0.01)


def test_a_harness_adds_what_it_adds():
    plain = predict.explain(H100, 8, 8).seconds
    torch = predict.explain(H100, 8, 8, Run(harness="pytorch")).seconds
    assert 15e-6 < torch - plain < 25e-6
    amd = H100._replace(cpu="amd")
    assert predict.explain(amd, 8, 8, Run(harness="one-process")).seconds == pytest.approx(8 * 5e-6, rel=0.3)
    long = predict.explain(amd, 8, 1 << 30).seconds
    assert predict.explain(amd, 8, 1 << 30, Run(harness="one-process")).seconds == long


def test_the_library_chooses_where_it_knows_the_gpu():
    found = predict.explain(H100, 32, 1 << 20)
    comm = predict.communicator(H100, 32)
    expected = nccl.choose(comm, 1 << 20, tuple(a for a in nccl.ALGORITHMS if "collnet" not in a))
    assert found[1:3] == expected[:2]
    assert predict.explain(H100, 32, 1 << 20, model="nccl").seconds == expected.seconds
    frontier = PLATFORMS["frontier"]
    best = min(predict.predict(frontier, 64, 1 << 24, a) for a in ("ring", "tree"))
    assert predict.predict(frontier, 64, 1 << 24, "auto") == best
    assert predict.explain(H100, 32, 1 << 30, Run(without=("nvls-tree",))).algorithm in ("ring", "tree")


def test_a_run_may_force_the_protocol_and_the_release():
    for protocol in nccl.PROTOCOLS:
        assert predict.explain(H100, 32, 1 << 20, Run(protocol=protocol, algorithm="ring")).protocol == protocol
    # Releases 2.19 to 2.22 count 28 us a hop for the tree's Simple, so they keep to LL where later ones change over.
    alps = PLATFORMS["alps-gh200"]
    chosen = {v: predict.explain(alps, 256, 1 << 21, Run(library=f"nccl-{v}")).protocol for v in ("2.20.5", "2.23.4")}
    assert chosen == {"2.20.5": "ll", "2.23.4": "simple"}


def test_a_layout_takes_part_of_a_host_and_its_nics():
    few = predict.laid_out(H100, 4, 4)
    assert (few.domain, few.nics) == (1, 1) and predict.laid_out(H100, 32, 4) is H100
    rack = predict.laid_out(PLATFORMS["gb200-nvl72-cx7"], 36, 18)
    assert rack.domain == 36 and rack.nics == 36
    with pytest.raises(UserError, match="12 ranks on 5 nodes"):
        predict.laid_out(H100, 12, 5)
    with pytest.raises(UserError, match="1 to 8 on each"):
        predict.laid_out(H100, 32, 2)


def test_switches_that_reduce_need_fewer_bytes():
    ranks, size = 32 * 8, 1 << 33
    assert predict.explain(B200, ranks, size, Run(algorithm="sharp")).algorithm == "collnet-direct"
    assert predict.predict(B200, ranks, size, "sharp") < predict.predict(B200, ranks, size, "ring")
    assert predict.explain(B200, 8, size, Run(algorithm="sharp")).algorithm == "nvls"
    assert predict.explain(B200, 16, size, Run(algorithm="nvls")).algorithm == "nvls-tree"


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
