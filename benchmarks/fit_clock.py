"""Fit the library clock's constants on the published points, and measure what is then wrong on systems left out.

    python benchmarks/fit_clock.py           print the tables of docs/validation.md: shipped, left out, calibrated, coverage
    python benchmarks/fit_clock.py --write   also write fabric/library/data/clock.yaml and bands.yaml

About five minutes: one fit for each system without it. Deterministic.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
from busbw.fabric.cards.curves import Curve
from busbw.fabric.library import band, clock, fitting, predict, published, validate

DATA = Path(clock.DATA)
FEW, MIRROR = 6, 0.7
OUTER = (0.03, 0.24, 0.76, 0.97)


def kinds(prepared) -> list[str]:
    """What each point is for the fit that leaves its system out."""
    systems = defaultdict(set)
    for p in prepared:
        systems[key(p)].add(p.compared.point.system)
    told = []
    for p in prepared:
        c = p.compared
        if clock.asks_first(p.job, c.point.size, c.algorithm, c.protocol):
            told.append("rendezvous")
        else:
            told.append("known" if len(systems[key(p)]) > 1 else "unseen")
    return told


def key(p) -> tuple[str, ...]:
    m = p.compared.machine.platform
    return band.class_of(m.generation, p.job.nodes, m.network, m.hosts > 1)


def weighted_quantiles(values, weights, at) -> list[float]:
    order = np.argsort(values)
    values, weights = np.asarray(values)[order], np.asarray(weights)[order]
    place = (np.cumsum(weights) - weights / 2) / weights.sum()
    return [float(np.interp(q, place, values)) for q in at]


def each_once(names) -> np.ndarray:
    """Weights that count a system once, a little more for each doubling of its points."""
    many = defaultdict(int)
    for n in names:
        many[n] += 1
    return np.array([(1 + math.log2(many[n])) / many[n] for n in names])


def strata(log, kind, regime, system) -> dict:
    """{kind: {range: (quantiles, points, systems)}} of log(measured / modelled).

    A new system is not one of those measured: the outer quantiles are taken further out than a half of 10 %.
    """
    found: dict = {}
    for k in dict.fromkeys(kind):
        for r in validate.REGIMES:
            rows = [i for i in range(len(log)) if kind[i] == k and regime[i] == r]
            if len(rows) < 8:
                continue
            names = [system[i] for i in rows]
            q = weighted_quantiles([log[i] for i in rows], each_once(names), OUTER)
            # Half of the mass on each side at least: a class that all measured systems beat may be met by one that does not.
            q = [min(q[0], -0.02), min(q[1], -0.005), max(q[2], 0.005), max(q[3], 0.02)]
            if len(set(names)) < FEW:  # too few systems to say to which side the next one lies
                q = [
                    min(q[0], -MIRROR * q[3]),
                    min(q[1], -MIRROR * q[2]),
                    max(q[2], -MIRROR * q[1]),
                    max(q[3], -MIRROR * q[0]),
                ]
            found.setdefault(k, {})[r] = (q, len(rows), len(set(names)))
    return found


def coverage(log, kind, regime, system) -> dict:
    """{range: (part inside 90 %, inside 50 %, median width of the 90 % band)}, with bands made without the point's system."""
    inside = defaultdict(list)
    for name in dict.fromkeys(system):
        mine = [i for i in range(len(log)) if system[i] == name]
        rest = [i for i in range(len(log)) if system[i] != name]
        bands = strata(*([column[i] for i in rest] for column in (log, kind, regime, system)))
        for i in mine:
            rows = bands.get(kind[i], {}).get(regime[i]) or bands.get("unseen", {}).get(regime[i])
            q = rows[0]
            inside[regime[i]].append((q[0] <= log[i] <= q[3], q[1] <= log[i] <= q[2], math.exp(q[3] - q[0])))
    return {
        r: (*(float(np.mean([v[j] for v in rows])) for j in (0, 1)), float(np.median([v[2] for v in rows])))
        for r, rows in inside.items()
    }


def series(compared) -> dict:
    """Points of one series at one scale, by size."""
    found = defaultdict(list)
    for c in compared:
        p = c.point
        found[(p.series, p.system, p.ranks, p.algorithm, p.library)].append(c)
    return {k: sorted(v, key=lambda c: c.point.size) for k, v in found.items()}


def curve_of(rows) -> Curve:
    c = rows[0]
    run = c.machine.run
    return Curve(
        c.point.ranks, 0, run.collective, run.algorithm, run.library or "", run.harness, c.point.series,
        tuple(r.point.size for r in rows), tuple(r.measured for r in rows),
    )  # fmt: skip


def bent(c, curve) -> float:
    machine = c.machine.platform._replace(curves=(curve,))
    return math.log(c.measured / predict.explain(machine, c.point.ranks, c.point.size, c.machine.run).seconds)


def calibrated(compared):
    """(compared, log residual) of every second size from the others."""
    out = []
    for rows in series(compared).values():
        rows = list({c.point.size: c for c in rows}.values())
        if len(rows) >= 6:
            curve = curve_of(rows[::2])
            out += [(c, bent(c, curve)) for c in rows[1::2]]
    return out


def scaled(compared, times=4):
    """(compared, log residual) at `times` the ranks of another series of the same system and library."""
    out, all_ = [], series(compared)
    for (_, system, ranks, algorithm, library), rows in all_.items():
        for (_, system2, ranks2, algorithm2, library2), bigger in all_.items():
            same = (system, algorithm, library) == (system2, algorithm2, library2)
            if same and ranks2 == times * ranks and len(rows) >= 6 and rows[0].point.nodes > 1:
                curve = curve_of(list({c.point.size: c for c in rows}.values()))
                out += [(c, bent(c, curve)) for c in bigger]
    return out


def error(c, log) -> float:
    return abs(math.expm1(log) if validate.regime(c.point.size) == "large" else math.expm1(-log))


def medians(pairs) -> dict[str, float]:
    """Median over systems of each one's median absolute error (validate.py's), by range of sizes."""
    each = defaultdict(lambda: defaultdict(list))
    for c, log in pairs:
        each[validate.regime(c.point.size)][c.point.system].append(error(c, log))
    return {r: float(np.median([np.median(v) for v in s.values()])) for r, s in each.items()}


def row(name, told) -> str:
    return f"{name:<46}" + "".join(f"{told[r]:>9.1%}" if r in told else " " * 9 for r in validate.REGIMES)


def write_clock(found, start) -> None:
    text = (DATA / "clock.yaml").read_text()
    lines = [line + "\n" for line in text.splitlines() if line.startswith("#")]
    for part, names in start.items():
        lines.append(f"{part}:\n")
        for name, classes in names.items():
            lines.append(f"  {name}:\n")
            for cls, first in classes.items():
                label = f"{part} {name} {cls}"
                points, spread = found.points.get(label, 0), found.interval.get(label, 0.0)
                value = found.constants[part][name][cls] if points else first
                low, high = (value * math.exp(s * 1.645 * spread) for s in (-1, 1))
                status = "fitted" if points else "estimated"
                lines.append(
                    f"    {cls}: {{value: {value:.4g}, low: {low:.3g}, high: {high:.3g}, status: {status}, "
                    f"points: {points}, start: {first:.4g}}}\n"
                )
    (DATA / "clock.yaml").write_text("".join(lines))


def write_bands(bands, classes, left_out) -> None:
    lines = [
        "# Written by benchmarks/fit_clock.py. bands: log(measured / modelled) that 90 % and 50 % of measurements lie between\n",
        "# on systems that the fit had not seen, by kind and range of sizes (band.py); left_out: what these held; classes:\n",
        "# those that were fitted.\n",
        "bands:\n",
    ]
    for kind in band.KINDS:
        if kind in bands:
            lines.append(f"  {kind}:\n")
            for r, (q, points, systems) in bands[kind].items():
                values = ", ".join(f"{v:.4f}" for v in q)
                lines.append(f"    {r}: {{log: [{values}], points: {points}, systems: {systems}}}\n")
    lines.append("left_out:\n")
    for r, (error_, (nine, half, width)) in left_out.items():
        lines.append(f"  {r}: {{error: {error_:.4f}, holds90: {nine:.4f}, holds50: {half:.4f}, width: {width:.3f}}}\n")
    lines.append("classes:\n")
    lines += [f"  - [{', '.join(c)}]\n" for c in sorted(classes)]
    (DATA / "bands.yaml").write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the constants and the bands")
    parser.add_argument("--quick", action="store_true", help="no systems left out")
    args = parser.parse_args()
    report = validate.compare(published.read())
    prepared = fitting.prepare(report.compared)
    measured = np.log([p.compared.measured for p in prepared])
    start = clock.table("start")
    found = fitting.fit(prepared, start)
    own = measured - np.log(fitting.modelled(prepared, found.constants))
    compared = [p.compared for p in prepared]
    print(f"{'median error, each system once':<46}{'<64 KiB':>9}{'between':>9}{'>=64 MiB':>9}")
    print(row("shipped points", medians(zip(compared, own))))
    if args.write:
        write_clock(found, start)
        (
            clock.constants.cache_clear(),
            clock._values.cache_clear(),
            clock.figures.cache_clear(),
            predict._plan.cache_clear(),
        )
    if args.quick:
        return
    out = -fitting.leave_one_out(prepared, start)
    kind = kinds(prepared)
    regime = [validate.regime(p.compared.point.size) for p in prepared]
    system = [p.compared.point.system for p in prepared]
    print(row("systems left out", medians(zip(compared, out))))
    for k in ("known", "unseen", "rendezvous"):
        print(row(f"  class {k}", medians([(c, e) for c, e, kk in zip(compared, out, kind) if kk == k])))
    every, scale = calibrated(compared), scaled(compared)
    print(row("calibrated on every second size", medians(every)))
    print(row("calibrated at one scale, at four times the ranks", medians(scale)))
    held = coverage(out.tolist(), kind, regime, system)
    for r, (nine, half, width) in held.items():
        print(
            f"coverage, left out, {r:<8}: 90 % band holds {nine:.1%}, 50 % band {half:.1%}; width a factor {width:.2f}"
        )
    bands = strata(out.tolist(), kind, regime, system)
    for name, pairs in (("calibrated", every), ("scaled", scale)):
        rows = [([e for _, e in pairs], [name] * len(pairs), [validate.regime(c.point.size) for c, _ in pairs],
                 [c.point.system for c, _ in pairs])]  # fmt: skip
        bands |= strata(*rows[0])
    for k, rows in bands.items():
        for r, (q, n, s) in rows.items():
            print(f"band {k:<11} {r:<8} {n:>4} points {s:>2} systems: " + " ".join(f"{math.exp(v):.2f}" for v in q))
    if args.write:
        errors = medians(zip(compared, out))
        write_bands(bands, {key(p) for p in prepared}, {r: (errors[r], held[r]) for r in validate.REGIMES})


if __name__ == "__main__":
    main()
