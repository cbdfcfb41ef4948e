"""Bytes on the wire, counted packet by packet, and the published goodput of RoCEv2."""

import pytest
from busbw.errors import UserError
from busbw.fabric.physics import framing
from hypothesis import given
from hypothesis import strategies as st


def test_rocev2_reaches_what_perftest_measures():
    """392 Gb/s on a 400 Gb/s ConnectX-7 (NVIDIA/nccl issue 2409)."""
    assert framing.goodput(400, "rocev2", 4096) == pytest.approx(392, rel=0.001)


def test_infiniband_frames_cost_less_than_ethernet_frames():
    fractions = [framing.fraction(name, 4096) for name in ("infiniband", "slingshot", "rocev2")]
    assert fractions == sorted(fractions, reverse=True)
    assert all(0.97 < f < 1 for f in fractions)


@given(
    st.integers(1, 200_000),
    st.sampled_from(sorted(framing.FRAMINGS)),
    st.sampled_from([256, 1024, 1500, 4096, 9000]),
)
def test_wire_bytes_are_those_of_the_packets_sent_one_by_one(nbytes, name, mtu):
    left, wire, first = nbytes, 0, True
    while left:
        payload = min(left, mtu)
        wire += framing.FRAMINGS[name].packet + payload + (framing.FRAMINGS[name].message if first else 0)
        left -= payload
        first = False
    assert framing.wire_bytes(nbytes, name, mtu) == wire


@given(st.integers(1, 1 << 40), st.sampled_from(sorted(framing.FRAMINGS)))
def test_no_message_does_better_than_the_limit_and_long_ones_reach_it(nbytes, name):
    limit = framing.fraction(name, 4096)
    got = nbytes / int(framing.wire_bytes(nbytes, name, 4096))
    assert got <= limit
    if nbytes > 1 << 24:
        assert got == pytest.approx(limit, rel=1e-3)


def test_an_empty_message_is_one_packet():
    assert framing.packets(0, 4096) == 1
    assert framing.wire_bytes(0, "infiniband", 4096) == 26 + 16


def test_an_unknown_framing_is_named():
    with pytest.raises(UserError, match="carrier pigeon"):
        framing.goodput(1e9, "carrier pigeon", 4096)
