"""busbw plot: the curves of one result file or several as a picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "draw bandwidth and time over message size from result files"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="result files written by busbw sweep --out")
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


def run(args: argparse.Namespace) -> int:
    """Draw once, write each output, print the paths. Raises RecordError or PlotError, both with a one-line message."""
    from ..bench.record import read
    from ..plots.curves import curves, save

    results = [read(path) for path in args.files]
    for result in results:
        for note in result.notes:
            print(f"busbw plot: {note}", file=sys.stderr)
    figure = curves(results)
    for output in args.output or [Path(args.files[0]).with_suffix(f".{args.format}")]:
        print(save(figure, output))
    return 0
