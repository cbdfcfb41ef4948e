"""busbw expect: is this number normal? A log held against the model, with a verdict by size and its likely causes."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = "is this number normal? hold a log against the model, and name likely causes"

DESCRIPTION = """\
Hold what a benchmark printed against what that system should give. Takes logs of nccl-tests, OSU, IMB and others, as busbw import
does, and busbw's own result files, which are held against the memory that the run measured, or --system. The system is taken from
the log where it tells it (GPU, nodes, NICs, NCCL's release), else from the options below; what had to be assumed is said, and
nothing is called low on an assumption.

For each range of sizes: measured, modelled with the band that holds 90 % of systems that the model had not seen, and a verdict:
healthy, low, high latency, collapses, impossible (above any wire), wrong data, cannot say. Then likely causes, each with its
evidence in this log and the command or setting that confirms it."""

EPILOG = """\
examples:
  busbw expect nccl.log
  busbw expect nccl.log --system dgx-h100-cx7 --nodes 4
  busbw expect nccl.log --gpu H100 --nics "8x400 Gb/s RoCE"
  busbw expect nccl.log --threshold 0.9 --junit result.xml && echo accepted

exit codes: 0 healthy, 1 something is wrong, 2 cannot say (or bad usage)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("logs", nargs="+", metavar="LOG", help="a log, a result file, or - for a log on standard input")
    add_given(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--junit", metavar="FILE", help="also write JUnit XML, a test case a range of sizes")
    parser.add_argument("-q", "--quiet", action="store_true", help="one line a table")


def add_given(parser: argparse.ArgumentParser) -> None:
    """What a log may not tell of its run, and when a size is low."""
    parser.add_argument("--system", metavar="NAME", help="a system card: a name of busbw systems, or a YAML file")
    parser.add_argument("--gpu", metavar="WORDS", help='the GPU where the log does not tell it, such as "H100"')
    parser.add_argument("--nics", metavar="WORDS", help='NICs of a node, such as "8x400 Gb/s InfiniBand"')
    parser.add_argument("--nodes", type=int, metavar="N", help="nodes of the job")
    parser.add_argument("--ranks", type=int, metavar="P", help="ranks of the job")
    parser.add_argument("--library", metavar="RELEASE", help="such as nccl-2.23.4")
    parser.add_argument("--threshold", type=_share, metavar="SHARE", help=(
        "call a size low below that share of the modelled bandwidth (0.9, 90%%) instead of outside the band"
    ))  # fmt: skip


def given_by(args: argparse.Namespace):
    """What the options of ``add_given`` say. Raises UserError."""
    from ..answer.situation import Given, check
    from ..fabric.cards import card

    system = card.load(args.system) if args.system else None
    given = Given(system, args.gpu, args.nics, args.nodes, args.ranks, args.library)
    check(given)
    return given


def _share(text: str) -> float:
    from .compare import share

    value = share(text)
    if not 0 < value <= 2:
        raise argparse.ArgumentTypeError(f"{text[:40]!r}; accepted: a share of the bandwidth such as 0.9 or 90%")
    return value


def run(args: argparse.Namespace) -> int:
    """Print the answer. Returns 0 healthy, 1 something is wrong, 2 cannot say. Raises UserError."""
    from ..answer.forms import junit, plain_data
    from ..answer.tables import answers
    from ..answer.verdict import BAD, HEALTHY
    from ..answer.words import headline, words

    given = given_by(args)
    found = [a for path in args.logs for a in answers(path, given, args.threshold)]
    if args.json:
        print(json.dumps([plain_data(a.name, a.answer, a.causes) for a in found if a.answer], indent=1))
    else:
        for i, a in enumerate(found):
            if a.answer is None:
                lines = [a.name, *(f"  {line}" for line in a.lines)]
            elif args.quiet:
                lines = [f"{a.name}: {headline(a.answer)}"]
            else:
                lines = words(a.name, a.answer, a.causes)
            print("\n".join([*([""] if i and not args.quiet else []), *lines]))
    if args.junit:
        Path(args.junit).write_text(junit([(a.name, a.answer, a.causes) for a in found if a.answer]), encoding="utf-8")
    verdicts = {a.verdict for a in found}
    sys.stdout.flush()
    if verdicts & BAD:
        return 1
    return 0 if HEALTHY in verdicts else 2
