"""busbw validate: the model held against published measurements."""

from __future__ import annotations

import argparse

HELP = "compare the model with published measurements, system by system"
DESCRIPTION = """\
Predict every point of a table of published all-reduce measurements and print the errors: of busbw for messages of
64 MiB and more, of time below, and how many points the model's bands hold. The constants of its clock were fitted on the points
that come with busbw (docs/validation.md has the errors on systems left out); a table of your own is new to it."""
EPILOG = """\
examples:
  busbw validate                                  all published points that come with busbw
  busbw validate --model nccl --system alps       NCCL's own tuning model, one system
  busbw validate points.csv --out rows.csv --plot validation.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "csv", nargs="?", metavar="CSV", help="a table with the columns of data/published_allreduce.csv (default: that)"
    )
    parser.add_argument("--model", choices=("fabric", "nccl"), default="fabric", help="which model (default: fabric)")
    parser.add_argument("--system", metavar="NAME", help="only systems or series whose name contains NAME")
    parser.add_argument("--series", action="store_true", help="one line a series instead of one a system")
    parser.add_argument(
        "--constants", action="store_true", help="print the clock's constants instead: value, 90 %% interval, standing"
    )
    parser.add_argument("--out", metavar="FILE", help="write one row a point, measured and modelled, as CSV")
    parser.add_argument("--plot", metavar="FILE", help="draw measured against modelled, as .png, .svg or .pdf")


def run(args: argparse.Namespace) -> int:
    """Print the comparison. Raises UserError for a table, system or path that cannot be used."""
    from ..errors import UserError
    from ..fabric.library.published import read
    from ..fabric.library.validate import compare, write

    if args.constants:
        print("\n".join(constants()))
        return 0
    report = compare(read(args.csv), args.model, args.system)
    if not report.compared:
        reasons = "; ".join(f"{n} points: {why}" for why, n in report.skipped.most_common(5))
        raise UserError(f"no point could be compared ({reasons}); accepted: points of NVIDIA GPUs under NCCL")
    for line in lines(report, args.series, shipped=args.csv is None and args.system is None):
        print(line)
    if args.out:
        print(f"rows: {write(report, args.out)}")
    if args.plot:
        from ..plots.curves import save
        from ..plots.validation import validation

        print(f"picture: {save(validation(report), args.plot)}")
    return 0


def constants() -> list[str]:
    """The table of the clock's constants (fabric/library/data/clock.yaml)."""
    from ..fabric.library import clock

    text = [f"# {'constant':<18} {'class':<14} {'value':>9} {'unit':<12} {'90 % interval':>19}  standing"]
    for part, names in clock.constants().items():
        for name, classes in names.items():
            unit = "us a KiB" if name == "net.ll_copy" else "us" if part == "us" else "ratio"
            for cls, leaf in classes.items():
                interval = f"{leaf['low']:.3g} to {leaf['high']:.3g}" if leaf["status"] == "fitted" else ""
                standing = f"fitted on {leaf['points']} points" if leaf["status"] == "fitted" else "estimated"
                text.append(f"  {name:<18} {cls:<14} {leaf['value']:>9.4g} {unit:<12} {interval:>19}  {standing}")
    return text


def lines(report, by_series: bool = False, shipped: bool = False) -> list[str]:
    """The printed report. shipped: of the points that come with busbw, all of them."""
    import statistics

    from ..bench.summary import plain, size_words
    from ..fabric.library import band
    from ..fabric.library.validate import TARGETS, assumptions, coverage, defaults, summaries, summary

    def percent(value):
        return "" if value is None else f"{value:.1%}"

    def lean(value):
        return "" if value is None or abs(value) < 0.005 else "+" if value > 0 else "-"

    def row(s):
        cells = [f"{lean(s.signed[r])}{percent(s.absolute[r])}" for r in ("small", "between", "large")]
        worst = ""
        if s.worst is not None:
            worst = f"{s.worst.error:+.0%} at {size_words(s.worst.point.size)}, {s.worst.point.ranks} ranks"
        return (
            f"{plain(s.name, 44):<44} {s.points:>6} {cells[0]:>8} {cells[1]:>8} {cells[2]:>8}  {worst:<32} "
            f"{', '.join(s.chosen)}"
        )

    everything = summary("all", report.compared)
    text = [
        f"# model: {report.model}; {len(report.compared)} published points; median absolute errors",
        "# time below 64 KiB, time between, busbw from 64 MiB up; +: the model says more than was measured",
        f"# {'series' if by_series else 'system':<42} {'points':>6} {'<64 KiB':>8} {'between':>8} {'>=64 MiB':>8}  "
        f"{'worst point':<32} algorithms taken",
    ]
    groups = summaries(report.compared, by_series)
    text += [row(s) for s in groups]
    text.append(row(everything))
    if len(groups) > 1:
        over = {r: [s.absolute[r] for s in groups if s.absolute[r] is not None] for r in ("small", "between", "large")}
        each = [percent(statistics.median(over[r]) if over[r] else None) for r in over]
        what = f"# each {'series' if by_series else 'system'} counted once"
        text.append(f"{what:<44} {'':>6} {each[0]:>8} {each[1]:>8} {each[2]:>8}")
    names = {"small": "of time below 64 KiB", "between": "of time between", "large": "of busbw from 64 MiB up"}
    once = {r: statistics.median([s.absolute[r] for s in groups if s.absolute[r] is not None] or [0.0]) for r in names}
    told = [r for r in names if everything.absolute[r] is not None]
    if report.model == "fabric":
        text += [
            f"# aimed at {TARGETS[r]:.0%} {names[r]}, each counted once: {once[r]:.1%}"
            f" ({'reached' if once[r] <= TARGETS[r] else 'missed'})"
            for r in told
        ]
    for r, c in coverage(report.compared).items():
        text.append(
            f"# bands, {names[r].split(' ', 2)[2]}: the 90 % band holds {c.inside90:.1%} of {c.points} points, the 50 % band "
            f"{c.inside50:.1%}; the 90 % band is a factor {c.width:.2f} wide (median)"
        )
        if len(groups) > 1 and shipped:
            out = band.left_out()[r]
            text.append(
                f"#   systems left out of the fit: error {out['error']:.1%}, the 90 % band holds {out['holds90']:.1%}, "
                f"the 50 % band {out['holds50']:.1%}, width {out['width']:.2f}"
            )
    chosen = defaults(report.compared)
    if chosen:
        words = ", ".join(f"{a} {p} {n}" for (a, p), n in chosen.most_common())
        text.append(f'# where the library chose ("default"), NCCL\'s model of the choice was taken: {words}')
    text += [f"# assumed for {n} points: {plain(what, 150)}" for what, n in assumptions(report.compared).most_common()]
    text += [f"# skipped {n} points: {plain(why, 150)}" for why, n in report.skipped.most_common()]
    return text
