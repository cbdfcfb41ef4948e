"""busbw plot: result files as pictures: curves over size, curves over ranks, and the map of fastest algorithms."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "draw bandwidth and time over message size or ranks, or the fastest algorithms, from result files"

DESCRIPTION = """\
Draw result files. What is drawn follows from what they hold: with one number of ranks, bandwidth and time over message
size; with several, scaling over ranks, and beside it the map of which algorithm is fastest where. --kind says otherwise."""

KINDS = ("size", "ranks", "map")
MAP_RANKS = 3  # numbers of ranks from which a map is worth drawing unasked


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="result files written by busbw sweep or simulate --out, or logs (see busbw import)",
    )
    parser.add_argument(
        "-o",
        "--output",
        action="append",
        metavar="PICTURE",
        help="where to write, as .png, .svg or .pdf; may be given several times (default: beside the first FILE)",
    )
    parser.add_argument(
        "--format", choices=("png", "svg", "pdf"), default="png", help="of the default output (default: png)"
    )
    add_ranks(parser)
    parser.add_argument(
        "--kind",
        choices=KINDS,
        help="what to draw: over size, over ranks, or the map (default: by what the files hold)",
    )
    parser.add_argument(
        "--published", action="append", default=[], metavar="NAME",
        help="draw this published series or system as points too (busbw validate --series lists them); may be given several times",
    )  # fmt: skip


def add_ranks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ranks", type=ranks, metavar="P", help="how many ranks a log is of, where it does not tell (OSU's never does)"
    )


def ranks(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text[:9]) < 1 << 24 or len(text) > 8:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; accepted: a number of ranks, from 1")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Draw, write each output, print the paths. Raises RecordError or PlotError, both with a one-line message."""
    from ..errors import UserError
    from ..interchange.results import results_of
    from ..plots.curves import save

    if args.published and args.kind not in (None, "size"):
        raise UserError(
            f"--published with --kind {args.kind}: published points are drawn over size; accepted: --kind size"
        )
    others = published_series(args.published)
    results = [results_of(path, args.ranks) for path in args.files]
    for result in results:
        for note in result.notes:
            print(f"busbw plot: {note}", file=sys.stderr)
    kinds = [args.kind] if args.kind else ["size"] if others else _kinds(results)
    outputs = [Path(o) for o in args.output or [beside(args.files[0], f".{args.format}", "plot")]]
    for kind in kinds:
        figure = _figure(kind, results, others)
        for output in outputs:
            # The first picture has the name that was given, the others are named after what they show.
            print(
                save(figure, output if kind == kinds[0] else output.with_name(f"{output.stem}-{kind}{output.suffix}"))
            )
    return 0


def beside(file: str, suffix: str, what: str) -> Path:
    """Where to write by default: beside a result file, under its name. A picture that is there, such as the sweep's own, stays."""
    path = Path(file).with_suffix(suffix)
    return path.with_name(f"{path.stem}-{what}{suffix}") if path.exists() else path


def published_series(names: list[str]) -> list:
    """The series of plots.published that the names mean. Raises UserError for a name that none has."""
    if not names:
        return []
    from ..fabric.library.published import named, read
    from ..plots.published import published

    points = read()
    return published(list(dict.fromkeys(p for name in names for p in named(points, name))))


def _kinds(results) -> list[str]:
    """What is worth drawing, the main picture first."""
    from ..plots.best_map import winners
    from ..plots.scaling import rank_counts

    records = [r for f in results for r in f.records]
    # Logs of others are rarely of one machine over several numbers of ranks, which is what scaling is.
    if len(rank_counts(results)) < 2 or any("source" in r.options for r in records):
        return ["size"]
    cells = winners(records)
    contested = any(w.lead < float("inf") for w in cells.values())
    counts, sizes = {p for p, _ in cells}, {s for _, s in cells}
    shared = {(r.clock, r.algorithm, r.size_bytes, r.ranks) for r in records if r.size_bytes and r.ranks > 1}
    series: dict = {}
    for clock, algorithm, size, ranks in shared:
        series.setdefault((clock, algorithm, size), set()).add(ranks)
    if not any(len(ranks) > 1 for ranks in series.values()):
        return ["size"]
    wanted = len(counts) >= MAP_RANKS and len(sizes) > 1 and contested and len({r.clock for r in records}) == 1
    return ["ranks", "map"] if wanted else ["ranks"]


def _figure(kind: str, results, others):
    if kind == "ranks":
        from ..plots.scaling import scaling

        return scaling(results)
    if kind == "map":
        from ..plots.best_map import best_map

        return best_map(results)
    from ..plots.curves import curves

    return curves(results, others=others)
