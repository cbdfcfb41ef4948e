"""Sizing systems to a power budget."""

import pytest
from busbw.errors import UserError
from busbw.fabric import power
from busbw.fabric.cards import card
from hypothesis import given, settings
from hypothesis import strategies as st

B200, H100 = card.load("memphis-b200-cx8-300k"), card.load("memphis-h100-100k")


@given(st.floats(2e4, 2e9))
@settings(max_examples=30, deadline=None)
def test_a_site_is_as_large_as_the_budget_feeds_in_whole_domains(watts):
    site = power.site(H100, watts)
    each = H100.power.all_in_per_gpu
    assert site.gpus % H100.node.domain == 0
    assert site.gpus * each <= watts * (1 + 1e-12) < (site.gpus + H100.node.domain) * each * (1 + 1e-12)
    assert site.nodes * H100.node.gpus == site.gpus
    assert site.nic_rate == pytest.approx(site.gpus * H100.nic.rate)  # one NIC a GPU on this card


def test_a_generation_5_host_halves_what_the_nics_may_use():
    slow = card.override(B200, ["nic.pcie_generation=5"])
    site = power.site(slow, 1e8)
    assert site.nic_rate == power.site(B200, 1e8).nic_rate
    assert site.usable_rate / site.nic_rate < 0.65


def test_a_network_that_is_too_small_gets_one_tier_more_and_says_so():
    site = power.site(H100, 1e9)
    assert site.system.network.tiers == H100.network.tiers + 1
    compared = power.compare([B200, H100], 1e9, 1 << 20, lambda system, ranks, size: ("ring", 1e-3))
    text = " ".join(power.words(compared))
    assert "4 in all" in text
    assert "estimated" in text
    assert compared.sites[0].flops > compared.sites[1].flops


def test_flops_are_dense_and_sourced():
    for name, most in (("H100 SXM 80GB", 1e15), ("B200 SXM 180GB", 2.5e15)):
        value, source = power.flops(name)
        assert 0.9e15 < value < most
        assert source
    assert power.flops("abacus") == (None, "")


def test_systems_without_a_figure_are_compared_without_arithmetic():
    frontier = card.load("frontier")
    compared = power.compare([B200, frontier], 1e7, 1 << 20, lambda system, ranks, size: ("ring", 1e-3))
    assert "no arithmetic is compared" in " ".join(power.words(compared))


@pytest.mark.parametrize("text", ["1", "GW", "-1 GW", "1e30 W", "5 W", "nan W"])
def test_bad_budgets_are_refused(text):
    with pytest.raises(UserError):
        power.parse(text)


def test_too_little_power_names_what_would_do():
    with pytest.raises(UserError, match=r"accepted: 11\.2 kW or more"):
        power.site(H100, 5000)
