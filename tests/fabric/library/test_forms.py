"""Hockney's form: parameters that made a curve are found again, intervals hold them, and what cannot be told is said."""

import numpy as np
import pytest
from busbw.errors import UserError
from busbw.fabric.cards.curves import Curve
from busbw.fabric.library import forms
from hypothesis import given, settings
from hypothesis import strategies as st

SIZES = tuple(1 << k for k in range(3, 31))


def made(alpha, beta, gamma=0.0, ranks=16, algorithm="ring", collective="all_reduce", noise=None, sizes=SIZES):
    blank = Curve(ranks, 0, collective, algorithm, "", "nccl-tests", "made", sizes, sizes)
    times = [float(np.dot(forms.terms(blank, s), (alpha, beta, gamma))) for s in sizes]
    if noise is not None:
        times = (np.array(times) * noise).tolist()
    return blank._replace(seconds=tuple(times))


@settings(max_examples=50, deadline=None)
@given(
    st.floats(1e-7, 1e-4), st.floats(1e-12, 1e-9), st.sampled_from([2, 8, 72, 1000]), st.sampled_from(["ring", "tree"])
)
def test_alpha_and_beta_that_made_a_curve_are_found(alpha, beta, ranks, algorithm):
    fit = forms.hockney([made(alpha, beta, ranks=ranks, algorithm=algorithm)], ("alpha", "beta"))
    assert fit.parameters["alpha"].value == pytest.approx(alpha, rel=1e-6)
    assert fit.parameters["beta"].value == pytest.approx(beta, rel=1e-6)
    assert fit.median_error < 1e-9


def test_gamma_needs_curves_that_tell_it_from_beta():
    alone = forms.hockney([made(5e-6, 2e-11, 4e-12)])
    assert alone.joined == {"gamma": "beta"}
    assert alone.parameters["beta"].value == pytest.approx(
        2e-11 + 4e-12 / 2, rel=1e-6
    )  # half a byte reduced a byte sent
    gather = made(5e-6, 2e-11, 4e-12, collective="all_gather")
    both = forms.hockney([made(5e-6, 2e-11, 4e-12), gather])
    assert both.joined == {}
    for name, value in (("alpha", 5e-6), ("beta", 2e-11), ("gamma", 4e-12)):
        assert both.parameters[name].value == pytest.approx(value, rel=1e-6)


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(300):
        fit = forms.hockney([made(5e-6, 2e-11, noise=rng.normal(1, 0.05, len(SIZES)))], ("alpha", "beta"))
        p = fit.parameters["alpha"]
        held += p.low <= 5e-6 <= p.high
    assert 0.90 <= held / 300 <= 0.99


def test_t_quantiles_are_those_of_the_tables():
    for degrees, t in ((1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)):
        assert forms.student(degrees) == pytest.approx(t, rel=0.01)


def test_too_few_points_are_refused():
    with pytest.raises(
        UserError, match="2 points cannot fit alpha, beta; accepted: 3 or more sizes, or fewer parameters"
    ):
        forms.hockney([made(1e-6, 1e-11, sizes=(8, 16))], ("alpha", "beta"))
    assert forms.hockney([made(1e-6, 1e-11, sizes=(8, 16, 32))], ("alpha", "beta")).parameters["alpha"].value > 0


def test_half_of_the_best_bandwidth():
    c = made(1e-6, 1e-10, ranks=2)  # T = 2 us + S 1e-10: half at S = 2e-6 / 1e-10 = 20,000 bytes
    assert forms.half_size(c) == pytest.approx(20_000, rel=0.04)  # straight between sizes a factor of two apart
    assert forms.half_size(c._replace(sizes=c.sizes[-4:], seconds=c.seconds[-4:])) is None


def test_curves_cross_where_they_are_equal():
    ring, tree = made(1e-6, 1e-10, ranks=32), made(1e-6, 1e-10, ranks=32, algorithm="tree")
    # 62 us + S 62/32 1e-10 = 10 us + 2 S 1e-10
    found = forms.crossings([ring, tree])
    assert [(x.first, x.second) for x in found] == [("tree", "ring")]
    assert found[0].size == pytest.approx(52e-6 / (0.0625 * 1e-10), rel=0.05)
    assert forms.crossings([ring, tree._replace(ranks=16)]) == []


def test_a_switch_of_protocol_is_seen():
    c = made(5e-6, 2e-11)
    assert forms.switches(c) == []
    worse = tuple(t * (5 if k == 15 else 1) for k, t in enumerate(c.seconds))
    assert forms.switches(c._replace(seconds=worse)) == [c.sizes[15], c.sizes[16]]
