"""busbw report: one self-contained page about result files and logs, the answer first."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .expect import add_given
from .plot import beside

HELP = "write a self-contained report from result files and logs: the verdict first, then why, then everything"

DESCRIPTION = """\
Write one page about result files (busbw sweep --out) and logs of other tools (see busbw import). It says first whether
their numbers are normal, as busbw expect does, with likely causes and their evidence; then it draws what was measured over the
model's band and over what others have published on such machines, with the values as tables behind the figures.

HTML is one file without scripts that opens offline; hover over a figure, tap it, or go through it with the Tab key for its values.
PDF is that page printed by a Chromium or Chrome on this machine ($BUSBW_CHROMIUM names another). Markdown has no figures."""

EPILOG = """\
examples:
  busbw report nccl.log
  busbw report before.log after.log -o both.html      # what differs between their environments stands there too
  busbw report nccl.log --system dgx-h100-cx7 --nodes 4 --format pdf
  busbw report sweep.jsonl --published together-h100-8r-ring"""

FORMATS = {"html": ".html", "md": ".md", "pdf": ".pdf"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE", help="result files written by busbw sweep --out, or logs (see busbw import)"
    )
    parser.add_argument(
        "-o", "--output", metavar="PAGE", help="where to write: .html, .md or .pdf (default: beside the first FILE)"
    )
    parser.add_argument("--format", choices=FORMATS, help="what to write (default: by -o's suffix, else html)")
    parser.add_argument(
        "--published", action="append", default=[], metavar="NAME",
        help="draw this published series or system as points too (busbw validate --series lists them); may be given several times",
    )  # fmt: skip
    add_given(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path. Raises UserError."""
    from ..answer.tables import answers_of, answers_of_results
    from ..errors import UserError
    from ..interchange.results import opened, results_of
    from ..plots import printing
    from ..plots.report import report, save
    from ..plots.report_markdown import markdown
    from .expect import given_by
    from .plot import published_series

    kind, output = _where(args)
    if kind == "pdf":
        printing.browser()  # before anything that takes time
    others = published_series(args.published)
    given, results, answers = given_by(args), [], []
    for path in args.files:
        result, log = opened(path, args.ranks)
        found = answers_of(log, given, args.threshold) if log else answers_of_results(result, given, args.threshold)
        if not result.records and not found:
            results_of(path, args.ranks)
            raise UserError(f"{path}: nothing to report; accepted: a result file or a log with times")
        results.append(result)
        answers += found
        for note in result.notes:
            print(f"busbw report: {note}", file=sys.stderr)
    if kind == "md":
        print(save(markdown(results, answers), output))
        return 0
    html = report(results, others=others, answers=answers)
    print(printing.pdf(html, output) if kind == "pdf" else save(html, output))
    return 0


def _where(args: argparse.Namespace) -> tuple[str, Path]:
    """The format and the path. Raises UserError where --format and the suffix of -o disagree."""
    from ..errors import UserError

    if not args.output:
        kind = args.format or "html"
        return kind, beside(args.files[0], FORMATS[kind], "report")
    output = Path(args.output)
    suffixes = {**{s: k for k, s in FORMATS.items()}, ".htm": "html"}
    kind = suffixes.get(output.suffix.lower())
    if kind is None or kind != (args.format or kind):
        wanted = FORMATS[args.format] if args.format else ", ".join(FORMATS.values())
        raise UserError(f"-o {output}: accepted: a path that ends in {wanted}")
    return kind, output
