"""busbw tune: from curves to a file that tells NCCL or Open MPI which algorithm to take at which size."""

from __future__ import annotations

if not __package__:
    from _path import run_as_module

    run_as_module(__file__)

import argparse
import re
import sys
from pathlib import Path

from .compare import share
from .plot import ranks

HELP = "write a tuner's file for NCCL or Open MPI from measured, imported or modelled curves"

DESCRIPTION = """\
Write which algorithm a library should take at which size: for NCCL the CSV of its example tuner plug-in, for Open MPI a file of
dynamic rules of coll/tuned (all-reduce). From result files and logs, one or several, of as many algorithms as there are.

Which algorithm a curve is of is taken from the file where it tells: NCCL_ALGO and NCCL_PROTO, what NCCL chose, Open MPI's
coll_tuned_allreduce_algorithm, busbw's own name. Else say it: NAME=FILE, as in ring/ll128=a.log, rabenseifner=b.log, default=c.log.

With a curve of the library's own choice (default), an algorithm is written only where it is faster than that by more than
--threshold and beyond the noise. Sizes that were not measured, and communicators of other sizes, stay with the library."""

EPILOG = """\
examples:
  for a in 1 2 3 4 5 6; do mpirun -np 8 --mca coll_tuned_use_dynamic_rules 1 --mca coll_tuned_allreduce_algorithm $a \\
      busbw sweep --algo mpi-native --out $a.jsonl; done
  mpirun -np 8 busbw sweep --algo mpi-native --out default.jsonl
  busbw tune *.jsonl --for openmpi -o rules.txt
  mpirun -np 8 --mca coll_tuned_use_dynamic_rules 1 --mca coll_tuned_dynamic_rules_filename rules.txt ./program

  busbw tune ring/simple=ring.log tree/ll=tree.log default=auto.log --for nccl --nodes 4 -o nccl_tuner.conf
  NCCL_TUNER_PLUGIN=libnccl-tuner-example.so NCCL_TUNER_CONFIG_FILE=nccl_tuner.conf ./all_reduce_perf"""

LIBRARIES = {"nccl": "nccl_tuner.conf", "openmpi": "coll_tuned.rules"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="a result file or a log; NAME=FILE says what it is of")
    parser.add_argument("--for", dest="library", required=True, choices=LIBRARIES, help="whose file to write")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to write; - for standard output (default: "
                        + ", ".join(f"{v} for {k}" for k, v in LIBRARIES.items()) + ")")  # fmt: skip
    parser.add_argument("--nodes", type=ranks, metavar="N", help="nccl: for jobs of that many nodes (default: any)")
    parser.add_argument("--ranks", type=ranks, metavar="P", help="how many ranks a log is of, where it does not tell")
    parser.add_argument("--threshold", type=share, default=0.05, metavar="SHARE", help=(
        "take an algorithm where it is faster than the default by more than that (default: 0.05)"
    ))  # fmt: skip


def run(args) -> int:
    """Write the file, print what it says. Raises UserError."""
    from .. import __version__
    from ..bench.choice import choose
    from ..errors import UserError, no_room
    from ..interchange import tuner

    name_of = tuner.nccl_name if args.library == "nccl" else tuner.openmpi_name
    curves, named, unnamed = _curves(args, name_of)
    if unnamed:
        print(f"busbw tune: left out, not known to {args.library}: {', '.join(sorted(unnamed)[:8])}", file=sys.stderr)
    choices = {}
    for key, found in curves.items():
        default = found.pop(tuner.DEFAULT, None)
        if found:
            choices[key] = choose(found, default, args.threshold)
    if not choices:
        raise UserError(
            f"no curve of an algorithm that {args.library} has; accepted: NAME=FILE, NAME one of "
            + (
                ", ".join(tuner.OPEN_MPI_ALGORITHMS)
                if args.library == "openmpi"
                else f"{', '.join(tuner.NCCL_ALGORITHMS)} with /{', /'.join(tuner.NCCL_PROTOCOLS)}"
            )
        )
    about = [f"busbw {__version__}, from {', '.join(named)}"]
    if args.library == "openmpi":
        text = tuner.openmpi_rules(choices, about)
    else:
        text = tuner.nccl_csv({(c, p, args.nodes): found for (c, p), found in choices.items()}, about)
    said = "\n".join(_words(choices, curves))
    if args.output == "-":
        sys.stdout.write(text)
        print(said, file=sys.stderr)
        return 0
    path = Path(args.output or LIBRARIES[args.library])
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        if no_room(e):
            raise
        raise UserError(f"{path}: cannot be written: {e.strerror}") from None
    print(f"{said}\n{path}")
    return 0


def _curves(args, name_of):
    """({(collective, ranks): {name: {size: timing}}}, the files' names, names that the library does not have)."""
    from ..bench.choice import pooled
    from ..errors import UserError
    from ..interchange.results import results_of

    curves: dict = {}
    named, unnamed = [], set()
    for words in args.files:
        label, path = _labelled(words)
        result = results_of(path, args.ranks)
        named.append(Path(path).name)
        for r in result.records:
            name = name_of(r, label)
            if name is None:
                if label is not None:
                    raise UserError(f"{words}: {args.library} has no algorithm {label!r}")
                unnamed.add(r.chosen)
                continue
            if not r.ranks:
                raise UserError(f"{path}: the number of ranks is not in it: name it with --ranks P")
            times = curves.setdefault((r.collective, r.ranks), {}).setdefault(name, {})
            times.setdefault(r.size_bytes, []).append(r.best)
    for by_name in curves.values():
        for name, times in by_name.items():
            by_name[name] = {size: pooled(several) for size, several in times.items()}
    return curves, named, unnamed


def _labelled(words: str) -> tuple[str | None, str]:
    """NAME=FILE apart; a file whose own name has an equals sign is taken as it is."""
    found = re.fullmatch(r"([\w/-]*)=(.+)", words)
    return (found[1], found[2]) if found and not Path(words).exists() else (None, words)


def _words(choices, curves) -> list[str]:
    from ..bench.summary import ranks_words, size_words

    lines = []
    for key, found in choices.items():
        collective, ranks = key
        lines.append(f"{collective}, {ranks_words(ranks)}: {len(curves[key])} algorithms")
        for c in found:
            gain = "" if c.least is None else f", {c.least:.2f} to {c.most:.2f} times as fast as the default"
            lines.append(f"  {size_words(c.first)} to {size_words(c.last)}: {c.name}{gain}")
        if not found:
            lines.append("  nothing is faster than the default beyond noise: the file leaves all to it")
    return lines
