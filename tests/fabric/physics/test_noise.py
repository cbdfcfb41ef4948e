"""Noise tables against the distributions they stand for, and against samples drawn another way."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from busbw.errors import UserError
from busbw.fabric.physics import noise
from busbw.fabric.physics.network import NOISE_ENTRIES, PS
from hypothesis import given, settings
from hypothesis import strategies as st

N = NOISE_ENTRIES


def quantile(table, u):
    return table[int(u * N)] / PS


def test_exponential():
    table = noise.table((noise.exponential(2e-6),))
    assert table.mean() / PS == pytest.approx(2e-6, rel=1e-6)
    for u in (0.1, 0.5, 0.9, 0.99):
        assert quantile(table, u) == pytest.approx(-2e-6 * math.log(1 - u), rel=2e-2 if u == 0.99 else 3e-3)
    assert (table / PS).std() == pytest.approx(2e-6, rel=2e-3)


def test_lognormal():
    table = noise.table((noise.lognormal(1e-6, 0.8),))
    assert table.mean() / PS == pytest.approx(1e-6 * math.exp(0.32), rel=1e-6)
    for u in (0.1, 0.5, 0.9):
        assert quantile(table, u) == pytest.approx(1e-6 * math.exp(0.8 * NormalDist().inv_cdf(u)), rel=3e-3)


@pytest.mark.parametrize("shape", [0.7, 1.0, 1.5, 3.0])
def test_bounded_pareto(shape):
    least, most = 1e-6, 1e-3
    table = noise.table((noise.pareto(shape, least, most),))
    if shape == 1:
        mean = least * most / (most - least) * math.log(most / least)
    else:  # the textbook's closed form
        mean = least**shape / (1 - (least / most) ** shape) * shape / (shape - 1)
        mean *= least ** (1 - shape) - most ** (1 - shape)
    assert table.mean() / PS == pytest.approx(mean, rel=1e-6)
    assert table[0] >= least * PS and table[-1] <= most * PS
    for x in (2e-6, 1e-5, 1e-4):
        above = (x**-shape - most**-shape) / (least**-shape - most**-shape)
        assert (table / PS > x).mean() == pytest.approx(above, abs=1.5 / N)


def test_os_noise_hits_as_often_as_a_clock_with_detours():
    """Against receives placed evenly over one period of a machine that is away for the first `duration` of it."""
    period, duration, exposed = 1e-3, 5e-5, 2e-5
    start = (np.arange(200_000) + 0.5) / 200_000 * period
    end = np.where(start < duration, duration, start) + exposed
    end += np.where(end > period, duration, 0)  # the next detour begins before the receive is through
    late = np.sort(end - start - exposed)
    table = noise.table((noise.os_noise(period, duration, exposed),)) / PS
    assert table.mean() == pytest.approx(late.mean(), rel=1e-3)
    assert table.mean() == pytest.approx(duration**2 / 2 / period + duration * exposed / period, rel=1e-5)
    assert (table > 0).mean() == pytest.approx((late > 1e-12).mean(), abs=1.5 / N)
    assert table[-1] == pytest.approx(duration)
    for u in (0.94, 0.96, 0.975, 0.99):
        assert table[int(u * N)] == pytest.approx(late[int(u * 200_000)], abs=duration / (0.05 * N))


def test_causes_add_up():
    """Two exponentials are a gamma distribution of shape 2: survival (1 + x) exp(-x)."""
    causes = noise.parse("exponential:mean=1us + exponential:mean=1us")
    table = noise.table(causes, seed=5)
    assert table.mean() / PS == pytest.approx(2e-6, rel=1e-6)
    assert (table / PS).std() == pytest.approx(math.sqrt(2) * 1e-6, rel=0.02)
    for x in (0.5, 1, 2, 4, 8):
        assert (table / PS > x * 1e-6).mean() == pytest.approx((1 + x) * math.exp(-x), abs=0.006)


def test_the_sum_keeps_the_mean_of_heavy_tails():
    text = "lognormal:median=0.5us,sigma=1+os:period=10ms,duration=20us+pareto:shape=1.2,least=100ns,most=1ms"
    causes = noise.parse(text)
    table = noise.table(causes, seed=1)
    assert table.mean() / PS == pytest.approx(sum(c.mean for c in causes), rel=1e-6)
    assert np.all(np.diff(table) >= 0) and table.shape == (N,) and table.dtype == np.int64


def test_the_seed_decides():
    causes = noise.parse("exponential:mean=1us+lognormal:median=1us,sigma=1")
    assert np.array_equal(noise.table(causes, 3), noise.table(causes, 3))
    assert not np.array_equal(noise.table(causes, 3), noise.table(causes, 4))


@settings(deadline=None)
@given(
    st.sampled_from(["exponential", "lognormal", "pareto", "os"]),
    st.floats(1e-9, 1e-2),
    st.floats(0.05, 3.0),
    st.floats(1.01, 1e4),
)
def test_any_table_ascends_and_has_its_mean(kind, a, b, ratio):
    cause = {
        "exponential": lambda: noise.exponential(a),
        "lognormal": lambda: noise.lognormal(a, b),
        "pareto": lambda: noise.pareto(b, a, a * ratio),
        "os": lambda: noise.os_noise(a * ratio, a),
    }[kind]()
    table = noise.table((cause,))
    assert np.all(np.diff(table) >= 0) and table[0] >= 0
    assert table.mean() / PS == pytest.approx(cause.mean, rel=1e-3, abs=0.51 / PS)


def test_no_noise():
    assert noise.parse("none") == ()
    assert not noise.table(()).any()


@pytest.mark.parametrize(
    "text",
    [
        "gauss:mean=1us",
        "exponential",
        "exponential:mean=2",
        "exponential:mean=-2us",
        "exponential:mean=2us,mean=3us",
        "exponential:mean=2us,sigma=1",
        "lognormal:median=1us,sigma=99",
        "pareto:shape=1,least=2us,most=1us",
        "os:period=1us,duration=2us",
        "os:period=1ms",
        "+",
        "exponential:mean=2us+",
        "exponential:mean=nan us",
        "x" * 2000,
    ],
)
def test_noise_that_makes_no_sense_is_refused(text):
    with pytest.raises(UserError, match="accepted"):
        noise.parse(text)
