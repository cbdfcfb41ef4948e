"""busbw export: a schedule for other tools, or as a picture."""

from __future__ import annotations

if not __package__:
    from _path import run_as_module

    run_as_module(__file__)

import sys
from pathlib import Path

from ..errors import UserError, no_room

HELP = "write a schedule as GOAL, MSCCL XML, a picture or text"

DESCRIPTION = """\
Write the schedule of an algorithm, the very steps that `busbw sweep` runs and `busbw simulate` models, for other tools:

  goal    GOAL, which LogGOPSim and ATLAHS simulate, and `busbw simulate FILE.goal --loggops L,o,g,G,O,S`
  msccl   MSCCL XML, which MSCCL's and RCCL's interpreters run on GPUs
  svg     a picture: every message from rank to rank, step by step (up to 16 ranks)
  text    every step in words"""

EPILOG = """\
examples:
  busbw export ring --ranks 8 -b 1M --format goal --out ring8.goal
  busbw export tree --ranks 8 --format svg --out tree.svg
  busbw export pat --collective all_gather --ranks 8 -b 64K --format msccl
  busbw simulate ring8.goal --loggops 2000,500,100,1,0,65536"""

FORMATS = ("goal", "msccl", "svg", "text")


def add_arguments(parser) -> None:
    parser.add_argument("algorithm", metavar="ALGORITHM", help="as busbw sweep --algo takes it: ring, tree, ...")
    parser.add_argument("--collective", default="all_reduce", metavar="NAME", help="default all_reduce")
    parser.add_argument("--ranks", type=int, default=4, metavar="P", help="default 4")
    parser.add_argument("--root", type=int, default=0, metavar="RANK", help="of those that have one (default 0)")
    parser.add_argument("-b", "--bytes", default="1K", metavar="SIZE", help="message size (default 1K)")
    parser.add_argument("-d", "--datatype", default="float", metavar="TYPE", help="element type (default float)")
    parser.add_argument("--channels", type=int, default=1, metavar="N", help="default 1")
    parser.add_argument("--slices", type=int, default=1, metavar="N", help="pieces of a chunk in flight (default 1)")
    parser.add_argument(
        "--node-size", type=int, metavar="N", help="ranks a node, of node-aware algorithms (default all)"
    )
    parser.add_argument("--in-place", action="store_true", help="the in-place schedule")
    parser.add_argument("--format", default="goal", metavar="WHAT", help=f"{', '.join(FORMATS)} (default goal)")
    parser.add_argument("--reduce-per-byte", type=float, default=0.0, metavar="T", help=(
        "goal: time of reducing a byte, in the simulator's unit (default 0: reductions take none)"
    ))  # fmt: skip
    parser.add_argument("--out", metavar="FILE", help="default: standard output")


def run(args) -> int:
    text = _text(args, _schedule(args))
    if not args.out:
        sys.stdout.write(text)
        return 0
    path = Path(args.out)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as e:
        if no_room(e):
            raise
        raise UserError(f"--out {path}: cannot be written: {e.strerror}; name a file in a folder of yours") from None
    print(f"wrote {path}")
    return 0


def _schedule(args):
    from ..bench.sizes import parse_size
    from ..collectives import build
    from ..collectives.collective import find
    from ..kernels.dtypes import find_dtype

    if args.format not in FORMATS:
        raise UserError(f"--format {args.format[:40]}: accepted are {', '.join(FORMATS)}")
    if not 2 <= args.ranks <= 4096:
        raise UserError(f"--ranks {args.ranks}: accepted are 2 to 4096")
    if not 0 <= args.reduce_per_byte < 1e9:
        raise UserError(f"--reduce-per-byte {args.reduce_per_byte:g}: accepted are 0 to 1e9")
    try:
        collective = find(args.collective)
        count = collective.count_of(args.ranks, parse_size(args.bytes) // find_dtype(args.datatype).itemsize)
        return build(
            args.algorithm, args.ranks, count, collective=collective, root=args.root, channels=args.channels,
            slices=args.slices, in_place=args.in_place, nodes=args.node_size,
        )  # fmt: skip
    except ValueError as e:
        raise UserError(str(e)) from None


def _text(args, schedule) -> str:
    if args.format == "goal":
        from ..interchange import goal
        from ..kernels.dtypes import find_dtype

        itemsize = find_dtype(args.datatype).itemsize
        return goal.write(goal.from_schedule(schedule, itemsize, reduce_per_byte=args.reduce_per_byte))
    if args.format == "msccl":
        from ..interchange import msccl

        return msccl.write(schedule)
    if args.format == "svg":
        from ..plots.curves import render
        from ..plots.schedule_picture import message_picture

        return render(message_picture(schedule), "svg").decode()
    from ..collectives.schedule import describe

    return "".join(f"rank {rank}\n{describe(table)}\n" for rank, table in enumerate(schedule.tables))
