"""busbw import: read logs of other tools, say what was read and what not, and write them as result files."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = "read logs of nccl-tests, rccl-tests, OSU, IMB and others; say what was read and what not"

DESCRIPTION = """\
Read logs as they are: nccl-tests of all releases (text, -J also cut short), rccl-tests (text, JSON lines, CSV), OSU, Intel MPI
Benchmarks, all_reduce_bench.py, PARAM, Markdown, CSV and tab-separated tables, tables edited by hand, lists and matrices of pairs;
with the prefixes of mpirun, srun, kubectl and others, and NCCL INFO lines between rows, of which the facts are kept.

What is concluded rather than read (ranks, collective, units) is said with its reason. -o writes busbw's own result file; plot,
report and compare take logs directly."""

EPILOG = """\
examples:
  busbw import nccl.log
  busbw import osu.log --ranks 144 -o osu.jsonl
  busbw import nccl.log --json | jq '.[0].tables[0].ranks'"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from .plot import add_ranks

    parser.add_argument("logs", nargs="+", metavar="LOG", help="a log, or - for standard input")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the rows as a result file of busbw (must not exist)"
    )
    parser.add_argument(
        "--json", action="store_true", help="print all that was read as JSON: a list with an object a log"
    )
    parser.add_argument(
        "--collective", metavar="NAME", help="only tables of this collective (all_reduce, all_gather, ...)"
    )
    add_ranks(parser)


def run(args: argparse.Namespace) -> int:
    """Print what was read. Returns 0; 1 where no log had a table or pairs. Raises UserError."""
    from dataclasses import asdict

    from ..bench.record import append, claimed
    from ..errors import UserError
    from ..interchange.logs import read, read_stream
    from ..interchange.logs.collective import collective
    from ..interchange.logs.records import records
    from ..interchange.logs.words import words

    logs = [read_stream(sys.stdin.buffer, "standard input") if path == "-" else read(path) for path in args.logs]
    wanted = collective(args.collective) if args.collective else None
    if wanted and not any(t.collective == wanted for log in logs for t in log.tables):
        found = ", ".join(sorted({t.collective for log in logs for t in log.tables})) or "none"
        raise UserError(f"--collective {args.collective}: no table of it; accepted: what the logs have ({found})")
    if args.json:
        print(json.dumps([asdict(log) for log in logs], indent=1, default=str))
    else:
        for log in logs:
            print("\n".join(words(log)))
    if args.output:
        found = [records(log, args.ranks, wanted) for log in logs]
        rows = [r for f in found for r in f.records]
        if not rows:
            raise UserError(f"-o {args.output}: no log has a time of a collective, so there is nothing to write")
        with claimed(Path(args.output)):
            for record in rows:
                append(args.output, record.to_json())
        for note in (
            n for f in found for n in f.notes if "rows have no time" in n or ("left out" in n and "rows of a" in n)
        ):
            print(f"busbw import: {note}", file=sys.stderr)
        print(f"{args.output}: {len(rows)} records", file=sys.stderr if args.json else sys.stdout)
    return 0 if any(log.tables or log.pairs for log in logs) else 1
