"""Fitting the clock: constants that made the points are found again, the prior holds what no point moves, left out is left out."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from busbw.fabric.library import clock, fitting, published, validate

SYSTEMS = ("aiconfigurator h100_sxm", "aiconfigurator a100_sxm", "azure-nd-gb200-v6")


@pytest.fixture(scope="module")
def prepared():
    points = [p for p in published.read() if any(s in p.system for s in SYSTEMS)][::2]
    return fitting.prepare(validate.compare(points).compared)


def measured_by(prepared, constants):
    """The points as if a clock with these constants had been measured."""
    times = fitting.modelled(prepared, constants)
    return [p._replace(compared=replace(p.compared, measured=float(t))) for p, t in zip(prepared, times)]


def test_the_model_of_the_fit_is_the_model(prepared):
    times = fitting.modelled(prepared, clock.table())
    assert times == pytest.approx([p.compared.modelled for p in prepared], rel=1e-12)


def test_constants_that_made_the_points_are_found(prepared):
    start = clock.table()
    truth = copy.deepcopy(start)
    truth["us"]["ll.hop"]["hopper"] *= 1.3
    truth["us"]["ll.base"]["ampere"] *= 0.8
    truth["ratio"]["link"]["hopper"] *= 0.9
    found = fitting.fit(measured_by(prepared, truth), start, prior=2.0).constants
    for part, name, cls in (("us", "ll.hop", "hopper"), ("us", "ll.base", "ampere"), ("ratio", "link", "hopper")):
        assert found[part][name][cls] == pytest.approx(truth[part][name][cls], rel=0.03), name


def test_what_no_point_moves_stays_where_it_started(prepared):
    start = clock.table()
    fit = fitting.fit(prepared, start, iterations=2)
    assert fit.points["us net.tree_ll efa"] == 0
    assert fit.constants["us"]["net.tree_ll"]["efa"] == pytest.approx(start["us"]["net.tree_ll"]["efa"])
    assert (
        fit.points["us ll.hop hopper"] > 10
        and 0 < fit.interval["us ll.hop hopper"] < fit.interval["us net.tree_ll efa"]
    )


def test_a_start_that_knows_no_class_has_one_value_for_all(prepared):
    blank = fitting.neutral(clock.table())
    for classes in blank["us"].values():
        assert len({round(v, 12) for v in classes.values() if v > 0}) <= 1


def test_a_system_left_out_is_not_learned_from(prepared):
    """Were it learned from, its own error would be gone: its times are made half of what the others' constants give."""
    start = clock.table()
    made = measured_by(prepared, start)
    odd = "azure-nd-gb200-v6"
    halved = [
        p._replace(compared=replace(p.compared, measured=p.compared.measured / 2))
        if p.compared.point.system == odd
        else p
        for p in made
    ]
    out = fitting.leave_one_out(halved, start)
    mine = [i for i, p in enumerate(halved) if p.compared.point.system == odd]
    as_it_was = fitting.leave_one_out(made, start)
    assert out[mine] - as_it_was[mine] == pytest.approx(np.log(2.0), abs=1e-9)
