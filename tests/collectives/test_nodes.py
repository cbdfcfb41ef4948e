"""Node-aware algorithms: layouts, proofs over nodes of all sizes, and the bytes between nodes against closed formulas."""

from math import log2

import numpy as np
import pytest
from busbw.collectives import REGISTRY, build
from busbw.collectives.collective import COLLECTIVES
from busbw.collectives.nodes import layout
from busbw.collectives.prove import prove
from busbw.collectives.schedule import SEND
from hypothesis import given, settings
from hypothesis import strategies as st

AWARE = [(c, name) for c, known in REGISTRY.items() for name, a in known.items() if a.takes_nodes]


def between_nodes(schedule, nodes):
    """Elements that each node sends to others."""
    node_of = np.array(layout(nodes, schedule.ranks).node)
    out = np.zeros(node_of.max() + 1, np.int64)
    for rank, table in enumerate(schedule.tables):
        far = table[(table["op"] == SEND) & (node_of[table["peer"]] != node_of[rank])]
        out[node_of[rank]] += far["count"].sum()
    return out


def test_all_three_collectives_have_them():
    assert {c for c, _ in AWARE} == {"all_reduce", "reduce_scatter", "all_gather"}
    assert {name for c, name in AWARE if c == "all_reduce"} >= {"hierarchical", "node-tree", "torus"}


@st.composite
def cases(draw, ranks=24):
    collective, name = draw(st.sampled_from(AWARE))
    a, p = REGISTRY[collective][name], draw(st.integers(1, ranks))
    nodes = draw(
        st.one_of(st.none(), st.integers(1, p + 1), st.lists(st.integers(0, 4), min_size=p, max_size=p).map(tuple))
    )
    return build(
        name,
        p,
        draw(st.sampled_from([0, 1, p - 1, p, 3 * p + 1, 500])),
        collective=collective,
        nodes=nodes,
        in_place=draw(st.booleans()),
        channels=draw(st.integers(1, 3)) if a.takes_channels else 1,
        slices=draw(st.integers(1, 3)) if a.takes_slices else 1,
    )


@settings(max_examples=250, deadline=None)
@given(cases())
def test_proven_for_nodes_of_any_sizes_in_any_order(schedule):
    proof = prove(schedule)
    assert proof.problems == () and proof.identical and len(proof.proven) == 7


@pytest.mark.parametrize(("per_node", "nodes"), [(1, 4), (2, 4), (8, 4), (4, 3), (3, 8), (8, 1)])
def test_no_more_bytes_leave_a_node_than_there_must(per_node, nodes):
    """S elements: 2 (N-1)/N S for an all-reduce, half of it for its halves; a ring over all ranks moves 2 (p-1)/p S."""
    p = per_node * nodes
    size = 2 * p * p
    least = 2 * (nodes - 1) * size // nodes
    for name in ("hierarchical", "torus"):
        assert set(between_nodes(build(name, p, size, nodes=per_node), per_node)) == {least}
    for collective in ("reduce_scatter", "all_gather"):
        for name in ("hierarchical", "hierarchical-direct", "torus"):
            schedule = build(name, p, size // p, collective=collective, nodes=per_node)
            assert set(between_nodes(schedule, per_node)) == {least // 2}
            ring = between_nodes(build("ring", p, size // p, collective=collective), per_node)
            assert least // 2 <= max(ring) or nodes == 1
    assert least <= max(between_nodes(build("ring", p, size), per_node)) or nodes == 1


@pytest.mark.parametrize("nodes", [2, 3, 4, 7, 8, 16])
@pytest.mark.parametrize("per_node", [1, 2, 8])
def test_trees_of_nodes_send_twice_the_message_at_most(per_node, nodes):
    """NCCL's figure: 2 (N-1) S over all nodes, 2 S out of the busiest, where a tree over 8 nodes' ranks sends 3 S."""
    p, size = per_node * nodes, 240 * per_node
    for name in ("node-tree", "hierarchical-tree"):
        out = between_nodes(build(name, p, size, nodes=per_node), per_node)
        assert out.sum() == 2 * (nodes - 1) * size and out.max() <= 2 * size
    if nodes >= 8 and per_node == 8:
        assert between_nodes(build("tree", p, size), per_node).max() == 3 * size


@pytest.mark.parametrize("nodes", [2, 4, 8])
def test_doubling_sends_the_message_once_a_round(nodes):
    out = between_nodes(build("hierarchical-doubling", 4 * nodes, 64, nodes=4), 4)
    assert set(out) == {int(log2(nodes)) * 64}


def test_torus_talks_to_four_neighbours_only():
    per_node, p = 5, 25
    for rank, table in enumerate(build("torus", p, 1000, nodes=per_node, channels=2).tables):
        row, column = divmod(rank, per_node)
        near = {row * per_node + (column + d) % per_node for d in (-1, 1)}
        near |= {(row + d) % 5 * per_node + column for d in (-1, 1)}
        assert set(table[table["op"] == SEND]["peer"]) == near


def test_uneven_nodes_have_as_many_rails_as_the_smallest():
    at = layout([7, 7, 7, 3, 3], 5)
    assert at.members == ((0, 1, 2), (3, 4)) and at.rails == 2 and at.rail(1) == [1, 4]
    out = between_nodes(build("hierarchical", 5, 240, nodes=[7, 7, 7, 3, 3]), [7, 7, 7, 3, 3])
    assert set(out) == {240}


@pytest.mark.parametrize(("collective", "name"), AWARE)
def test_on_one_node_all_is_inside(collective, name):
    schedule = build(name, 6, 12, collective=collective)
    assert between_nodes(schedule, None).tolist() == [0] and prove(schedule).ok
    alone = build(name, 6, 12, collective=collective, nodes=1)
    assert sum(between_nodes(alone, 1)) == sum(t[t["op"] == SEND]["count"].sum() for t in alone.tables)


@pytest.mark.parametrize(("nodes", "message"), [(0, "nodes is 0: accepted"), ((0, 0, 1), "3 ranks.*each of the 4")])
def test_layouts_that_cannot_be_are_refused_in_one_line(nodes, message):
    with pytest.raises(ValueError, match=message) as e:
        build("hierarchical", 4, 8, nodes=nodes)
    assert "\n" not in str(e.value)


def test_algorithms_that_know_no_nodes_leave_them_out():
    for a, b in zip(build("ring", 4, 8, nodes=2).tables, build("ring", 4, 8).tables):
        np.testing.assert_array_equal(a, b)
    assert COLLECTIVES["broadcast"].rooted  # whose algorithms take none
