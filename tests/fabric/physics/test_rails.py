"""How many ranks share a domain's NICs: counted from tables, against what is known of each algorithm."""

import numpy as np
import pytest
from busbw.collectives import ALGORITHMS
from busbw.collectives import build as schedule_of
from busbw.errors import UserError
from busbw.fabric.cards import card
from busbw.fabric.physics.build import build, nic_rate
from busbw.fabric.physics.rails import crossing_elements, sharing, sharing_of
from busbw.fabric.time.replay import replay


@pytest.mark.parametrize("domain", [2, 4, 8, 12])
def test_one_end_of_a_domain_sends_in_a_ring_and_both_in_two(domain):
    assert sharing("ring", 100 * domain, domain) == 1
    assert sharing("ring", 100 * domain, domain, channels=2) == pytest.approx(2)
    assert sharing("ring", 100 * domain, domain, channels=3) == pytest.approx(3 / 2)  # two of three turn one way


@pytest.mark.parametrize("domain", [4, 8, 16])
def test_all_ranks_of_a_domain_send_where_all_exchange(domain):
    for algorithm in ("one-shot", "two-shot", "recursive-doubling", "halving-doubling"):
        assert sharing(algorithm, 8 * domain, domain) == pytest.approx(domain)


def test_a_tree_over_ranks_crosses_a_hosts_border_in_several_places():
    assert sharing("tree", 64, 8) == pytest.approx(2)
    assert sharing("tree", 96, 12) == pytest.approx(4)  # 12 is no power of two


@pytest.mark.parametrize("algorithm", ["ring", "tree", "binomial", "one-shot", "two-shot"])
@pytest.mark.parametrize(("domain", "domains"), [(3, 150), (8, 70)])
def test_a_few_domains_stand_for_many(algorithm, domain, domains):
    whole = sharing_of(schedule_of(algorithm, domain * domains, 4 * domain * domains), domain)
    assert sharing(algorithm, domain * domains, domain) == pytest.approx(whole, rel=0.15)


@pytest.mark.parametrize("algorithm", ["halving-doubling", "recursive-doubling"])
def test_powers_of_two_stand_for_powers_of_two(algorithm):
    whole = sharing_of(schedule_of(algorithm, 512, 2048), 8)
    assert sharing(algorithm, 512, 8) == pytest.approx(whole)


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_nics_carry_no_more_than_they_can(algorithm):
    """Large messages over four hosts: the time is at least what the busiest host's bytes need on all its NICs."""
    system = card.load("dgx-h100-cx7")
    count = 1 << 28
    schedule = schedule_of(algorithm, 32, count, slices=8, nodes=8)
    out, into = crossing_elements(schedule, 8)
    busiest = max(x.reshape(4, 8).sum(axis=1).max() for x in (out, into))
    needed = busiest * 4 / (8 * nic_rate(system))
    net = build(system, 32, rails=sharing_of(schedule, 8))
    assert replay(schedule, net, 4).seconds >= needed
    if algorithm == "tree":  # which shows what too small a number does
        assert replay(schedule, build(system, 32), 4).seconds < needed


def test_numbers_between_one_ring_and_all_ranks():
    system = card.load("dgx-h100-cx7")
    one, two, many, own = (build(system, 32, rails=r) for r in ("aggregate", 2, 99.0, "own"))
    assert two.byte_ps[1] == pytest.approx(2 * one.byte_ps[1])
    assert np.array_equal(many.byte_ps, own.byte_ps) and own.byte_ps[1] == pytest.approx(8 * one.byte_ps[1])
    for wrong in (0.5, float("nan"), "all"):
        with pytest.raises(UserError, match="accepted"):
            build(system, 32, rails=wrong)


def test_within_one_domain_nobody_crosses():
    assert sharing("one-shot", 8, 8) == 1
    assert sharing("one-shot", 64, 1) == 1
