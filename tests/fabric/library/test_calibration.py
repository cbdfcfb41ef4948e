"""Calibrated cards: through every measured point, between them, at other scales, and what cannot be a curve."""

import math

import pytest
from busbw.errors import UserError
from busbw.fabric.cards import card
from busbw.fabric.cards.curves import Curve, checked, dump
from busbw.fabric.library import predict
from hypothesis import given, settings
from hypothesis import strategies as st

BASE = "dgx-h100-cx7"
H100 = predict.platform(card.load(BASE))
SIZES = tuple(1 << k for k in range(10, 31, 2))


def curve(ranks=32, factor=1.7, sizes=SIZES, algorithm="auto", **more):
    run = predict.Run(algorithm=algorithm)
    times = tuple(predict.explain(H100, ranks, s, run).seconds * factor for s in sizes)
    given_ = {"nodes": 0, "collective": "all_reduce", "library": "", "harness": "nccl-tests", "source": "log"}
    return Curve(ranks=ranks, algorithm=algorithm, sizes=sizes, seconds=times, **(given_ | more))


def test_a_prediction_at_a_measured_point_is_the_measurement():
    c = curve(factor=1.0)
    bumpy = c._replace(seconds=tuple(t * (1 + 0.3 * math.sin(k)) for k, t in enumerate(c.seconds)))
    machine = H100._replace(curves=(bumpy,))
    for size, seconds in zip(bumpy.sizes, bumpy.seconds):
        told = predict.expect(machine, 32, size)
        assert told.seconds == pytest.approx(seconds, rel=1e-9) and told.kind == "calibrated"


@settings(max_examples=25, deadline=None)
@given(st.integers(1 << 4, 1 << 34), st.floats(0.3, 3))
def test_a_uniform_ratio_is_carried_to_every_size_and_scale(size, factor):
    machine = H100._replace(curves=(curve(factor=factor),))
    for ranks in (16, 32, 128):
        plain = predict.explain(H100, ranks, size).seconds
        assert predict.explain(machine, ranks, size).seconds == pytest.approx(plain * factor, rel=1e-6)
    assert predict.expect(machine, 128, size).kind == "scaled"


def test_the_nearest_scale_counts():
    machine = H100._replace(curves=(curve(ranks=16, factor=2.0), curve(ranks=256, factor=3.0)))
    for ranks, factor in ((32, 2.0), (128, 3.0), (512, 3.0)):
        plain = predict.explain(H100, ranks, 1 << 20).seconds
        assert predict.explain(machine, ranks, 1 << 20).seconds == pytest.approx(plain * factor, rel=1e-6)


def test_between_two_sizes_the_ratio_is_between_theirs():
    c = curve(factor=1.0)
    c = c._replace(seconds=(*c.seconds[:-1], c.seconds[-1] * 4))
    machine = H100._replace(curves=(c,))
    size = math.isqrt(c.sizes[-1] * c.sizes[-2])
    assert predict.explain(machine, 32, size).seconds == pytest.approx(
        predict.explain(H100, 32, size).seconds * 2, rel=1e-3
    )


def test_a_curve_of_another_algorithm_or_collective_is_not_taken():
    machine = H100._replace(curves=(curve(algorithm="tree", factor=5.0),))
    size = 1 << 30
    assert predict.explain(H100, 32, size).algorithm != "tree"
    assert predict.explain(machine, 32, size).seconds == predict.explain(H100, 32, size).seconds
    run = predict.Run(algorithm="tree")
    assert predict.explain(machine, 32, size, run).seconds == pytest.approx(
        predict.explain(H100, 32, size, run).seconds * 5
    )
    other = H100._replace(curves=(curve(collective="all_gather", factor=5.0),))
    assert predict.explain(other, 32, size).seconds == predict.explain(H100, 32, size).seconds


def test_a_written_card_is_read_as_it_was(tmp_path):
    path = tmp_path / "ours.yaml"
    mine = curve(nodes=4, algorithm="ring", library="nccl-2.23.4", source='a "log"')
    path.write_text(dump("ours", BASE, ["nodes=64"], [mine], ["written by hand"]))
    system = card.load(path)
    assert (system.name, system.gpus) == ("ours", 512)
    read = system.curves[0]
    assert read._replace(seconds=(), source="") == mine._replace(seconds=(), source="")
    assert read.seconds == pytest.approx(mine.seconds, rel=1e-5)
    assert card.override(system, ["nodes=32"]).curves == system.curves
    second = tmp_path / "second.yaml"
    second.write_text(dump("second", "./ours.yaml", [], [mine]))
    with pytest.raises(UserError, match="is calibrated itself"):
        card.load(second)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("base: ", "bass: ", "unknown key 'base'|unknown key 'bass'"),
        ('base: "dgx-h100-cx7"', 'base: "dgx-h10"', "base: no system 'dgx-h10'; did you mean"),
        ("ranks: 32", "ranks: 1", "ranks '1'; accepted: 2"),
        ("ranks: 32", "rank: 32", "unknown key 'rank'"),
        ("    source: ", "    sauce: ", "unknown key 'sauce'"),
        ("1024 B, ", "", "11 times; accepted: one a size|10"),
        ("1024 B", "1024 us", "sizes"),
        ("1024 B", "4096 B", "a size twice"),
    ],
)
def test_a_wrong_card_is_refused_in_one_line(tmp_path, old, new, message):
    path = tmp_path / "ours.yaml"
    text = dump("ours", BASE, [], [curve()])
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message) as caught:
        card.load(path)
    assert "\n" not in str(caught.value)


def test_times_of_zero_are_refused():
    with pytest.raises(UserError, match="1024 bytes in 0 s; accepted: times above 0"):
        checked(curve()._replace(seconds=(0.0,) * len(SIZES)), "here")
    with pytest.raises(UserError, match="0 points"):
        checked(curve()._replace(seconds=(), sizes=()), "here")
