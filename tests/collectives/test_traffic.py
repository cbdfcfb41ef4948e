"""What each algorithm sends and how long its chains are, against closed forms. Counted from the tables alone."""

from collections import defaultdict, deque
from math import ceil, floor, log2

import numpy as np
import pytest
from busbw.collectives import build
from busbw.collectives.schedule import RECV, RECV_REDUCE, SEND

POWERS = [2, 4, 8, 16, 64]
ANY = [2, 3, 4, 5, 6, 7, 12, 17, 31, 33, 100]


def sent(schedule):
    """Messages and elements that each rank sends."""
    out = [t[t["op"] == SEND] for t in schedule.tables]
    return [len(t) for t in out], [int(t["count"].sum()) for t in out]


def longest_chain(schedule):
    """Messages one after the other, on the longest path: what latency multiplies."""
    sends = defaultdict(deque)
    clock = defaultdict(int)
    at = [0] * schedule.ranks
    moved = True
    while moved:
        moved = False
        for rank, table in enumerate(schedule.tables):
            while at[rank] < len(table):
                step = table[at[rank]]
                line = (rank, int(step["channel"]))
                if step["op"] == SEND:
                    sends[rank, int(step["peer"]), line[1]].append(clock[line] + 1)
                elif step["op"] in (RECV, RECV_REDUCE):
                    lane = sends[int(step["peer"]), rank, line[1]]
                    if not lane:
                        break
                    clock[line] = max(clock[line], lane.popleft())
                at[rank] += 1
                moved = True
    return max(clock.values())


@pytest.mark.parametrize("p", ANY)
@pytest.mark.parametrize("in_place", [False, True])
def test_ring_sends_the_least_there_is(p, in_place):
    n = 12 * p
    schedule = build("ring", p, n, in_place=in_place)
    messages, elements = sent(schedule)
    assert messages == [2 * (p - 1)] * p
    assert elements == [2 * (p - 1) * n // p] * p
    assert longest_chain(schedule) == 2 * (p - 1)
    cut = build("ring", p, n, channels=2, slices=3)
    messages, elements = sent(cut)
    assert messages == [2 * (p - 1) * 2 * 3] * p
    assert elements == [2 * (p - 1) * n // p] * p
    assert longest_chain(cut) == 2 * (p - 1)


@pytest.mark.parametrize("p", ANY)
def test_ring_owner_of_a_chunk_is_its_number_on_a_forward_channel(p):
    schedule = build("ring", p, p)
    for rank, table in enumerate(schedule.tables):
        final = table[table["final"] == 1]
        assert final["dst_offset"].tolist() == [rank]


def test_ring_channels_turn_alternately():
    for rank, table in enumerate(build("ring", 5, 50, channels=2).tables):
        sends = table[table["op"] == SEND]
        assert set(sends[sends["channel"] == 0]["peer"]) == {(rank + 1) % 5}
        assert set(sends[sends["channel"] == 1]["peer"]) == {(rank - 1) % 5}


@pytest.mark.parametrize(("per_node", "nodes"), [(2, 2), (4, 3), (5, 5)])
def test_a_torus_takes_as_many_steps_as_its_two_rings(per_node, nodes):
    p = per_node * nodes
    steps = 2 * (per_node - 1) + 2 * (nodes - 1)
    assert longest_chain(build("torus", p, 4 * p, nodes=per_node)) == steps
    for collective in ("reduce_scatter", "all_gather"):
        schedule = build("torus", p, 4, collective=collective, nodes=per_node)
        assert longest_chain(schedule) == steps // 2


@pytest.mark.parametrize("p", ANY)
def test_binomial_tree(p):
    schedule = build("binomial", p, 10)
    messages, elements = sent(schedule)
    assert sum(messages) == 2 * (p - 1)
    assert messages[0] == ceil(log2(p))
    assert sum(elements) == 20 * (p - 1)
    assert longest_chain(schedule) <= 2 * ceil(log2(p))


def parents(schedule, channel):
    """Each rank's parent in the tree on `channel`: whom it sends to before it first gets a plain receive."""
    found = {}
    for rank, table in enumerate(schedule.tables):
        t = table[table["channel"] == channel]
        receives = t[t["op"] == RECV]
        found[rank] = int(receives["peer"][0]) if len(receives) else None
    return found


@pytest.mark.parametrize("p", ANY)
def test_double_binary_tree(p):
    n, slices = 240, 3
    schedule = build("tree", p, n, slices=slices)
    messages, elements = sent(schedule)
    assert sum(messages) == 2 * 2 * (p - 1) * slices
    assert sum(elements) == 2 * (p - 1) * n
    assert max(elements) <= 2 * n
    assert longest_chain(build("tree", p, n)) <= 2 * (ceil(log2(p)) + 1)

    inside = []
    for channel in (0, 1):
        parent = parents(schedule, channel)
        roots = [rank for rank, up in parent.items() if up is None]
        assert len(roots) == 1
        depth = 0
        for rank in range(p):
            hops, up = 0, rank
            while parent[up] is not None:
                hops, up = hops + 1, parent[up]
            depth = max(depth, hops)
        assert depth <= ceil(log2(p)) + 1
        children = [sum(up == rank for up in parent.values()) for rank in range(p)]
        assert max(children) <= 2
        inside.append({rank for rank in range(p) if children[rank]})
    # Odd p has one more node inside than leaves: NCCL's shift makes it rank 0, the root of tree 0.
    assert inside[0] & inside[1] <= ({0} if p % 2 else set())


def test_tree_slices_travel_as_a_pipeline():
    """Slice k+1 starts its way up before slice k is down, so few slices cost few messages of time."""
    p, slices = 32, 40
    schedule = build("tree", p, 10_000, slices=slices)
    leaf = schedule.tables[1]
    leaf = leaf[leaf["channel"] == 0]
    ahead = np.cumsum(np.where(leaf["op"] == SEND, 1, -1))
    assert ahead.max() >= 2


@pytest.mark.parametrize("p", POWERS)
def test_recursive_doubling_of_a_power_of_two(p):
    schedule = build("recursive-doubling", p, 10)
    messages, elements = sent(schedule)
    assert messages == [log2(p)] * p
    assert elements == [10 * log2(p)] * p
    assert longest_chain(schedule) == log2(p)


@pytest.mark.parametrize("p", POWERS)
def test_halving_doubling_of_a_power_of_two(p):
    n = 3 * p
    schedule = build("halving-doubling", p, n)
    messages, elements = sent(schedule)
    assert messages == [2 * log2(p)] * p
    assert elements == [2 * (p - 1) * n // p] * p
    assert longest_chain(schedule) == 2 * log2(p)


@pytest.mark.parametrize("p", [3, 5, 6, 7, 12, 100])
@pytest.mark.parametrize(("name", "rounds"), [("recursive-doubling", 1), ("halving-doubling", 2)])
def test_other_worlds_fold_with_up_to_two_steps_more(p, name, rounds):
    core = floor(log2(p))
    schedule = build(name, p, 4 * p)
    # The way in and the way out are one step each; no chain has both where partners that stand alone are ahead.
    assert rounds * core + 1 <= longest_chain(schedule) <= rounds * core + 2
    messages, _ = sent(schedule)
    folded = p - 2**core
    assert sum(messages) == 2**core * rounds * core + 2 * folded


@pytest.mark.parametrize("p", [2, 3, 4, 7, 20])
@pytest.mark.parametrize("in_place", [False, True])
def test_direct(p, in_place):
    n = 6 * p
    one = build("one-shot", p, n, in_place=in_place)
    assert sent(one) == ([p - 1] * p, [(p - 1) * n] * p)
    assert longest_chain(one) == 1
    two = build("two-shot", p, n, in_place=in_place)
    assert sent(two) == ([2 * (p - 1)] * p, [2 * (p - 1) * n // p] * p)
    assert longest_chain(two) == 2
    assert sent(build("two-shot", p, n, slices=3))[0] == [3 * 2 * (p - 1)] * p


@pytest.mark.parametrize("name", ["ring", "two-shot"])
@pytest.mark.parametrize("in_place", [False, True])
def test_two_ranks_take_four_steps(name, in_place):
    for rank, table in enumerate(build(name, 2, 8, in_place=in_place).tables):
        mine, other = 4 * rank, 4 * (1 - rank)
        assert [tuple(s)[:2] for s in table.tolist()] == [(SEND, 0), (RECV_REDUCE, 1), (SEND, 0), (RECV, 0)]
        assert table["count"].tolist() == [4] * 4 and (table["after"] == -1).all()
        assert [int(s["src_offset"]) for s in table[:3]] == [other, mine, mine]
        assert [int(s["dst_offset"]) for s in table[[1, 3]]] == [mine, other]


def test_one_shot_of_two_ranks_out_of_place_is_one_exchange():
    for table in build("one-shot", 2, 8).tables:
        assert [tuple(s)[:2] for s in table.tolist()] == [(SEND, 0), (RECV_REDUCE, 1)]
