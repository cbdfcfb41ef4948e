"""NCCL's constants by release: those the maintainers' sources state, and what words of a release are taken for."""

import dataclasses
import itertools

import pytest
from busbw.errors import UserError
from busbw.fabric.cards import card
from busbw.fabric.library import nccl, releases
from hypothesis import given
from hypothesis import strategies as st

US, GB = 1e-6, 1e9


def tables(version, generation="hopper", vendor="intel"):
    return releases.tables(releases.find(f"nccl-{version}"), generation, vendor)


@pytest.mark.parametrize("generation", ["ampere", "hopper", "blackwell"])
def test_the_cards_constants_are_the_newest_releases(generation):
    """A run without a release takes the card's constants, one with the newest release the table's: they must be the same."""
    newest = releases.tables(releases.newest(), generation)
    stated = releases._figures(card.software(f"nccl-{generation}"))
    for name, value in stated.items():
        mine = getattr(newest, name)
        if name in ("ring", "tree"):
            value, mine = ([getattr(getattr(h, k), p) for k in ("base", "nvlink", "pcie", "network") for p in nccl.PROTOCOLS]
                           for h in (value, mine))  # fmt: skip
        if not (name == "nvls_efficiency" and generation == "ampere"):
            assert value == pytest.approx(mine), name


def test_a_card_that_says_otherwise_is_heard():
    usual = card.software("nccl-hopper")
    own = dataclasses.replace(usual, nvls_link=50e-6)
    newest = releases.tables(releases.newest(), "hopper", "amd")
    made = releases.with_software(newest, own, usual)
    assert made.nvls_link == 50e-6 and made._replace(nvls_link=newest.nvls_link) == newest


@pytest.mark.parametrize(
    "version, name, microseconds",  # NVIDIA/nccl src/graph/tuning.cc at each tag: tree, Simple, a hop of NVLink
    [
        ("2.16.5", "tree", 28),
        ("2.18.5", "tree", 4),
        ("2.19.4", "tree", 28),
        ("2.22.3", "tree", 28),
        ("2.23.4", "tree", 4),
    ],
)
def test_a_hop_of_the_tree_by_release(version, name, microseconds):
    assert getattr(tables(version), name).nvlink.simple == pytest.approx(microseconds * US)


def test_caps_by_release_generation_and_host():
    assert tables("2.20.5").ll == pytest.approx((87.7 * GB, 39 * GB, 20.4 * GB))
    assert tables("2.21.5").ll == pytest.approx((141 * GB, 39 * GB, 20.4 * GB))
    assert tables("2.21.5", vendor="amd").ll[1:] == pytest.approx((22.5 * GB, 19 * GB))
    assert tables("2.30.7", "blackwell").tree_simple == pytest.approx((70 * GB, 42.8 * GB, 24 * GB))
    assert tables("2.26.2", "blackwell").tree_simple == pytest.approx((77.4 * GB, 82.8 * GB, 72 * GB))
    assert tables("2.20.5", "blackwell").tree_simple == tables("2.20.5", "hopper").tree_simple  # newer than the release


def comm(version, generation, path, nodes=4):
    return nccl.communicator(
        generation,
        nodes * 4,
        nodes,
        tables=tables(version, generation),
        link_rate=370e9,
        nics=4,
        nic_rate=25e9,
        path=path,
    )


@pytest.mark.parametrize(
    "version, generation, path, allowed",
    [
        ("2.16.5", "hopper", "pxn", False),
        ("2.23.4", "hopper", "pxn", True),
        ("2.23.4", "ampere", "pxn", False),
        ("2.23.4", "hopper", "p2c", False),  # Grace's PCIe counts as the processor before 2.27
        ("2.27.5", "hopper", "p2c", True),
        ("2.30.7", "ampere", "phb", False),
        ("2.30.7", "hopper", "phb", False),
        ("2.23.4", "blackwell", "pxb", False),
        ("2.25.1", "blackwell", "pxb", True),
    ],
)
def test_ll128_needs_a_path_that_keeps_its_lines_together(version, generation, path, allowed):
    made = comm(version, generation, path)
    assert nccl.available(made, "tree", "ll128") is allowed
    assert (nccl.ll128(made) == "") is allowed
    assert nccl.available(comm(version, generation, path, nodes=1), "tree", "ll128") is (nccl.ll128(made)[:4] != "NCCL")


@pytest.mark.parametrize(
    "words, name, assumed",
    [
        ("NCCL 2.23.4", "2.23.4", ""),
        ("nccl-2.18.5", "2.18.5", ""),
        ("NCCL 2.18", "2.18.6", ""),
        ("NCCL 2.18.5 / aws-ofi-nccl 1.7.3", "2.18.5", ""),
        ("NCCL 2.31.2", "2.30.7", "NCCL 2.30.7 for 2.31.2"),
        ("NCCL 2.26.4", "2.26.3", "NCCL 2.26.3 for 2.26.4"),
        ("2.10.3", "2.16.2", "NCCL 2.16.2 for 2.10.3"),
    ],
)
def test_words_of_others_become_the_nearest_release(words, name, assumed):
    found = releases.nearest(words)
    assert (found.name, found.assumed) == (name, assumed)


@pytest.mark.parametrize("words", ["NCCL", "NCCL (nccl-tests 2.17.1)", "NCCL (not stated)", "", "RCCL 2.22"])
def test_words_without_a_release_state_none(words):
    assert releases.nearest(words) is None


def test_an_unknown_release_is_refused_with_the_nearest():
    for words in ("nccl-2.99", "nccl-1.3.5", "nccl-2.31.2"):
        with pytest.raises(UserError, match=r"nearest known: nccl-2\.\d+\.\d+.*assumed") as caught:
            releases.find(words)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="accepted: nccl-VERSION"):
        releases.find("latest")
    assert releases.find("nccl-2.26.4").assumed == "NCCL 2.26.3 for 2.26.4"


@given(
    st.sampled_from(releases.known()), st.sampled_from(releases.GENERATIONS), st.sampled_from([1, 2, 4, 64]),
    st.sampled_from(list(nccl.COLLECTIVES)), st.integers(3, 34),
)  # fmt: skip
def test_every_release_chooses_for_every_collective(release, generation, nodes, collective, k):
    made = nccl.communicator(
        generation, 8 * nodes, nodes, tables=releases.tables(release, generation), link_rate=300e9, nics=8, nic_rate=25e9,
        nvls=generation in ("hopper", "blackwell"),
    )  # fmt: skip
    found = nccl.candidates(made, 1 << k, collective=collective)
    assert found[0] == nccl.choose(made, 1 << k, collective=collective)
    assert all(a.seconds <= b.seconds for a, b in itertools.pairwise(found))
    for c in found:
        assert 0 < c.seconds < nccl.time(made, c.algorithm, c.protocol, 2 << k, collective)
        assert 1 <= nccl.channels(made, c.algorithm, c.protocol, 1 << k) <= 64
