"""PCIe, message rate and reduction speed, against datasheet arithmetic."""

import numpy as np
import pytest
from busbw.errors import UserError
from busbw.fabric.physics import host
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("generation", "lanes", "gigabytes"),
    [(1, 16, 4.0), (3, 8, 7.877), (3, 16, 15.754), (4, 16, 31.508), (5, 16, 63.015), (6, 16, 118.0)],
)
def test_line_rates_are_those_of_the_specification(generation, lanes, gigabytes):
    assert host.pcie_rate(generation, lanes) / 1e9 == pytest.approx(gigabytes, rel=1e-3)


def test_a_generation_5_host_halves_a_connectx_8():
    nic = 800e9 / 8
    assert host.host_rate(nic, host.pcie_rate(6, 16)) == nic
    gen5 = host.host_rate(nic, host.pcie_rate(5, 16, host.tlp_efficiency(5, 256)))
    assert 50e9 < gen5 < 60e9  # one x16 Gen5 link gives 50 to 55 GB/s, flow control included
    assert host.host_rate(nic / 2, host.pcie_rate(5, 16, host.tlp_efficiency(5, 256))) == nic / 2


def test_headers_of_a_transaction():
    assert host.tlp_efficiency(5, 256) == pytest.approx(256 / 280)
    assert host.tlp_efficiency(6, 256) == pytest.approx(256 / 272)
    assert host.tlp_efficiency(3, 512) > host.tlp_efficiency(3, 128)


@given(st.floats(1, 1e9), st.floats(1e6, 1e12), st.floats(0, 1e-5), st.floats(1e5, 1e9))
def test_a_stream_of_messages_is_as_fast_as_its_slowest_part(nbytes, rate, overhead, message_rate):
    """Against a pipeline of three stages stepped message by message: 100 messages leave as the slowest stage lets them."""
    stages = (overhead, 1 / message_rate, nbytes / rate)
    free = [0.0, 0.0, 0.0]
    ends = []
    for _ in range(100):
        t = 0.0
        for i, cost in enumerate(stages):
            free[i] = max(t, free[i]) + cost
            t = free[i]
        ends.append(t)
    each = host.message_seconds(nbytes, rate, overhead=overhead, message_rate=message_rate)
    assert np.diff(ends) == pytest.approx(np.full(99, each), rel=1e-9)
    half = host.half_rate_bytes(rate, overhead=overhead, message_rate=message_rate)
    assert (nbytes / rate >= each * (1 - 1e-12)) == (nbytes >= half * (1 - 1e-12))


def test_reduction_moves_three_bytes_for_one():
    assert host.reduce_seconds_per_byte(3e12) == pytest.approx(1e-12)
    assert host.copy_seconds_per_byte(3e12) == pytest.approx(2e-12 / 3)


@pytest.mark.parametrize("arguments", [(0, 16), (8, 16), (5, 0)])
def test_what_pcie_has_not_is_refused(arguments):
    with pytest.raises(UserError, match="accepted"):
        host.pcie_rate(*arguments)
