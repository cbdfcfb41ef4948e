"""The clock's constants fitted on published points, and what is then wrong on systems that were left out.

Least squares of log(modelled / measured) over the logarithms of the constants, each system and range of sizes counted once
whatever its number of points, with three guards against learning a cluster instead of a class: few constants, by class; a
prior that holds each at where it started, so that a class with few points moves little; and weights that fall with the
residual (soft L1), since a point off by a factor of two is another choice of the library or a sick run, not physics.

``leave_one_out`` fits once for every system without it: its residuals make the bands (band.py).
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import clock, predict, releases
from .validate import Compared, regime

PRIOR = 0.35  # standard deviation of a constant's logarithm about its start
WEAK = 0.7  # the same, where the start knows nothing of the class
SOFT = 0.15  # residual from which a point's weight falls
ITERATIONS = 6
_STEP = 1e-3


class Prepared(NamedTuple):
    """A point with what does not depend on the constants."""

    compared: Compared
    job: clock.Job
    floor: tuple  # of clock.timed, after the seconds


class Fit(NamedTuple):
    constants: dict  # as clock.table()
    interval: dict[str, float]  # relative standard error by key, "us ll.hop ampere"
    points: dict[str, int]  # points that a constant moves


def prepare(compared: Sequence[Compared]) -> list[Prepared]:
    found = []
    for c in compared:
        machine, ranks, run = c.machine.platform, c.point.ranks, c.machine.run
        if machine.generation not in releases.GENERATIONS:
            continue
        comm = predict.communicator(machine, ranks, run.library)
        work = predict.job(machine, ranks, comm)
        found.append(Prepared(c, work, (run.harness, min(ranks, machine.domain // machine.hosts), machine.cpu)))
    return found


def modelled(prepared: Sequence[Prepared], constants: dict) -> np.ndarray:
    """float64 [points]: seconds of each, with these constants."""
    made: dict[tuple[str, str], clock.Figures] = {}
    seconds = np.empty(len(prepared))
    for i, p in enumerate(prepared):
        key = (p.job.generation, p.compared.machine.platform.network)
        if key not in made:
            made[key] = clock.figures_from(constants, *key)
        job = p.job._replace(figures=made[key])
        found = clock.seconds(job, p.compared.point.size, p.compared.algorithm, p.compared.protocol)
        seconds[i] = clock.timed(found, *p.floor)
    return seconds


def keys(constants: dict) -> list[tuple[str, str, str]]:
    return [
        (part, name, cls)
        for part, section in constants.items()
        for name, values in section.items()
        for cls, value in values.items()
        if value > 0
    ]


def _with(constants: dict, names, values) -> dict:
    changed = copy.deepcopy(constants)
    for (part, name, cls), value in zip(names, values):
        changed[part][name][cls] = float(value)
    return changed


def weights(prepared: Sequence[Prepared]) -> np.ndarray:
    """float64 [points]: each system and range of sizes counts once, a tenth more for each doubling of its points."""
    groups = [(p.compared.point.system, regime(p.compared.point.size)) for p in prepared]
    many = Counter(groups)
    return np.array([(1 + math.log2(many[g])) / many[g] for g in groups])


def fit(prepared: Sequence[Prepared], start: dict, *, prior: float = PRIOR, iterations: int = ITERATIONS) -> Fit:
    """The constants that suit the points best, from `start`. Deterministic."""
    names = keys(start)
    origin = np.log([start[a][b][c] for a, b, c in names])
    x = origin.copy()
    target = np.log([p.compared.measured for p in prepared])
    base = weights(prepared)

    def log_model(values, some=None):
        chosen = prepared if some is None else [prepared[i] for i in some]
        return np.log(modelled(chosen, _with(start, names, np.exp(values))))

    everything = np.arange(len(prepared))
    touched = [everything] * len(names)
    jacobian = np.zeros((len(prepared), len(names)))
    for turn in range(iterations):
        now = log_model(x)
        residual = now - target
        weight = base / np.sqrt(1 + (residual / SOFT) ** 2)
        jacobian[:] = 0.0
        for j in range(len(names)):
            if len(touched[j]) == 0:
                continue
            moved = x.copy()
            moved[j] += _STEP
            column = (log_model(moved, touched[j]) - now[touched[j]]) / _STEP
            jacobian[touched[j], j] = column
            if turn == 0:
                wide = x.copy()  # a constant behind a maximum matters once it has moved far enough
                wide[j] += 0.5
                far = np.abs(log_model(wide, touched[j]) - now[touched[j]]) > 1e-9
                touched[j] = touched[j][far | (np.abs(column) > 1e-9)]
        normal = jacobian.T @ (weight[:, None] * jacobian) + np.eye(len(names)) * (0.02 / prior**2)
        gradient = jacobian.T @ (weight * residual) + (x - origin) * (0.02 / prior**2)
        step = np.linalg.solve(normal, gradient)
        x = x - np.clip(step, -0.5, 0.5)
    residual = log_model(x) - target
    weight = base / np.sqrt(1 + (residual / SOFT) ** 2)
    spread = float((weight * residual**2).sum() / max(1e-12, weight.sum()))
    covariance = np.linalg.inv(normal / max(spread, 1e-6))
    labels = [" ".join(n) for n in names]
    return Fit(
        _with(start, names, np.exp(x)),
        dict(zip(labels, np.sqrt(np.diag(covariance)).tolist())),
        {label: len(t) for label, t in zip(labels, touched)},
    )


def neutral(constants: dict) -> dict:
    """The constants without what is known of a class: each class gets the geometric mean of all classes."""
    told = copy.deepcopy(constants)
    for part, name, cls in keys(constants):
        values = [v for v in constants[part][name].values() if v > 0]
        told[part][name][cls] = math.exp(sum(map(math.log, values)) / len(values))
    return told


def leave_one_out(prepared: Sequence[Prepared], start: dict, progress=None) -> np.ndarray:
    """float64 [points]: log(modelled / measured) of each, with constants fitted without its system.

    The fits start from constants that know no class (`neutral`) and are held to them weakly, so that nothing of a left-out
    system's class comes in by the start.
    """
    systems = list(dict.fromkeys(p.compared.point.system for p in prepared))
    blank = neutral(start)
    residual = np.empty(len(prepared))
    for done, system in enumerate(systems):
        inside = [i for i, p in enumerate(prepared) if p.compared.point.system == system]
        rest = [p for p in prepared if p.compared.point.system != system]
        found = fit(rest, blank, prior=WEAK)
        mine = [prepared[i] for i in inside]
        residual[inside] = np.log(modelled(mine, found.constants)) - np.log([p.compared.measured for p in mine])
        if progress:
            progress((done + 1) / len(systems))
    return residual
