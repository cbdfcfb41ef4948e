"""busbw report: one self-contained HTML page about one result file or several."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .plot import add_ranks, beside

HELP = "write a self-contained HTML report from result files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="result files written by busbw sweep --out, or logs (see busbw import)"
    )
    parser.add_argument(
        "-o", "--output", metavar="PAGE", help="where to write, as .html (default: beside the first FILE)"
    )
    add_ranks(parser)
    parser.add_argument(
        "--published", action="append", default=[], metavar="NAME",
        help="draw this published series or system as points too (busbw validate --series lists them); may be given several times",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path. Raises RecordError or ReportError, both with a one-line message."""
    from ..interchange.results import results_of
    from ..plots.report import report, save
    from .plot import published_series

    output = Path(args.output) if args.output else beside(args.files[0], ".html", "report")
    others = published_series(args.published)
    results = [results_of(path, args.ranks) for path in args.files]
    for result in results:
        for note in result.notes:
            print(f"busbw report: {note}", file=sys.stderr)
    print(save(report(results, others=others), output))
    return 0
