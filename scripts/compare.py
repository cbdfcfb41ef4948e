"""busbw compare: result files and logs side by side, with a verdict at each size."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from .plot import add_ranks

HELP = "hold result files or logs against the first: a ratio, its interval and a verdict at each size"

DESCRIPTION = """\
Hold each file after the first against the first: result files of busbw, or logs of nccl-tests, OSU and others (see busbw import).

A size is SLOWER or faster where the difference is real (Mann-Whitney on samples; without samples, the scatter of repeated published
measurements; corrected for the number of sizes after Benjamini and Hochberg) and larger than --threshold. Differences of the
environments stand beside the numbers. Exit code 1 if any size is slower or gives wrong results."""

EPILOG = """\
examples:
  busbw compare before.log after.log
  busbw compare both.log                      # its first table against the others
  busbw compare main.jsonl branch.jsonl --threshold 0.1 -o comment.md -o picture.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="the baseline, then what is held against it",
    )
    parser.add_argument(
        "--threshold", type=share, default=0.05, metavar="SHARE", help="of the time, as 0.05 or 5%% (default: 0.05)"
    )
    parser.add_argument(
        "--in-place", action="store_true", help="compare in-place times (default: out-of-place where there are)"
    )
    parser.add_argument("--markdown", action="store_true", help="print Markdown, for a pull request")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "-o", "--output", action="append", default=[], metavar="FILE",
        help="also write .md, or a picture as .png, .svg or .pdf; may be given several times",
    )  # fmt: skip
    add_ranks(parser)


def share(text: str) -> float:
    """0.05 or 5%."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; accepted: a share of the time such as 0.05 or 5%")
    return value


def run(args: argparse.Namespace) -> int:
    """Print the comparison and write what -o names. Returns 1 where a size is slower or wrong, else 0. Raises UserError."""
    from dataclasses import asdict

    from ..bench.compare import apart, compare
    from ..bench.summary import IN_PLACE
    from ..errors import UserError
    from ..interchange.results import results_of
    from ..plots.comparison import markdown, picture, text

    for output in args.output:
        if Path(output).suffix.lower() not in (".md", ".png", ".svg", ".pdf"):
            raise UserError(f"-o {output}: accepted: a path that ends in .md, .png, .svg or .pdf")
    results = [results_of(path, args.ranks) for path in args.files]
    if len(results) == 1:
        results = apart(results[0])
        if len(results) < 2:
            raise UserError(f"{args.files[0]}: has one series; accepted: two files or more, or one of several tables")
    for note in (n for r in results for n in r.notes):
        print(f"busbw compare: {note}", file=sys.stderr)
    found = compare(results, args.threshold, IN_PLACE if args.in_place else None)
    if args.json:
        print(json.dumps([asdict(c) for c in found], indent=1))
    else:
        print((markdown if args.markdown else text)(found, args.threshold))
    for output in map(Path, args.output):
        if output.suffix.lower() == ".md":
            try:
                output.write_text(markdown(found, args.threshold), encoding="utf-8")
            except OSError as e:
                raise UserError(f"-o {output}: cannot be written: {e.strerror}") from None
        else:
            from ..plots.curves import save

            save(picture(found, args.threshold), output)
        print(output, file=sys.stderr)
    return 1 if any(c.slower for c in found) else 0
