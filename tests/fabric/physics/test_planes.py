"""Planes that fail, and stragglers in words."""

import pytest
from busbw.errors import UserError
from busbw.fabric.physics import planes, stragglers
from hypothesis import given
from hypothesis import strategies as st


@given(st.integers(1, 16), st.data())
def test_planes_that_fail_take_their_part_of_the_rate(n, data):
    k = data.draw(st.integers(0, n - 1))
    assert planes.rate_left(100.0, n, k) == pytest.approx(sum([100.0 / n] * (n - k)))


def test_half_the_planes_are_half_the_rate_and_all_are_an_outage():
    assert planes.fraction_left(2, 1) == 0.5
    with pytest.raises(UserError, match="0 to 1"):
        planes.fraction_left(2, 2)
    with pytest.raises(UserError, match="one plane"):
        planes.fraction_left(1, 1)


def test_stragglers_in_words():
    assert stragglers.parse("17:50%") == stragglers.Straggler(17, 17, ("link", "nic", "memory"), 0.5)
    assert stragglers.parse("0-7:nic:0.25") == stragglers.Straggler(0, 7, ("nic",), 0.25)
    got = stragglers.factors(["3:nic:50%", "2-3:nic:25%", "0:memory:0.1"], 5)
    assert got["nic"].tolist() == [1, 1, 4, 4, 1]
    assert got["memory"].tolist() == [10, 1, 1, 1, 1]
    assert got["link"].tolist() == [1] * 5


@pytest.mark.parametrize(
    "text", ["", "5", "5:", "5:0%", "5:101%", "5:tail:50%", "9-3:50%", "-1:50%", "5:nan", "7" * 99 + ":5%"]
)
def test_stragglers_that_make_no_sense_are_refused(text):
    with pytest.raises(UserError, match="accepted"):
        stragglers.parse(text)


def test_a_straggler_that_does_not_exist_is_refused():
    with pytest.raises(UserError, match="rank 8; accepted: 0 to 7"):
        stragglers.factors(["8:50%"], 8)
