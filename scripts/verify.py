"""busbw verify: prove every algorithm's schedule."""

if not __package__:
    from _path import run_as_module

    run_as_module(__file__)

import time

from ._progress import ProgressLine

HELP = "prove every algorithm's schedule for all rank counts up to --ranks"

DESCRIPTION = """\
Prove, for every algorithm and every world size up to --ranks, that each rank ends with what the collective says, every
contribution exactly once, that nothing deadlocks, and that no chunk is read before it is written or overwritten before it is sent.

The proof is about the schedule tables, the same that `busbw sweep` runs, and holds for any transport."""


def add_arguments(parser) -> None:
    parser.add_argument("--ranks", type=int, default=16, metavar="P", help="largest world size (default 16)")
    parser.add_argument("--algo", default="all", metavar="LIST", help="comma list of algorithms (default all)")
    parser.add_argument(
        "--collective", default="all_reduce", metavar="LIST", help="comma list, or all (default all_reduce)"
    )


def run(args) -> int:
    from ..collectives import algorithms
    from ..collectives.collective import COLLECTIVES, find
    from ..collectives.prove import prove_all
    from ..errors import UserError

    if not 1 <= args.ranks <= 512:
        raise UserError(f"--ranks {args.ranks}: accepted are 1 to 512")
    try:
        said = [find(c) for c in args.collective.split(",")] if args.collective != "all" else COLLECTIVES.values()
    except ValueError as e:
        raise UserError(f"--collective: {e}") from None
    names = [a.strip() for a in args.algo.split(",")]
    known = list(dict.fromkeys(a for c in said for a in algorithms(c)))
    unknown = [n for n in names if n not in (*known, "all")]
    if unknown:
        raise UserError(f"--algo {unknown[0]}: accepted are {', '.join(known)}, all")

    started = time.monotonic()
    shown = ProgressLine(True)
    failed = False
    for collective in said:
        of = "" if len(said) == 1 else f"{collective.name} "
        for name in algorithms(collective):
            if name not in names and "all" not in names:
                continue
            done = bad = steps = messages = 0
            for _, ranks, options, proof in prove_all(args.ranks, collective=collective, algorithms=[name]):
                done, bad = done + 1, bad + (not proof.ok)
                steps, messages = steps + proof.steps, messages + proof.messages
                shown.progress(0, 0, f"{of}{name}, {ranks} ranks")
                for problem in proof.problems:
                    print(f"FAILED {of}{name}, {ranks} ranks, {options}: {problem}")
            shown.clear()
            failed |= bad > 0
            verdict = f"{bad} FAILED" if bad else "proved"
            print(f"{of}{name:<20} {done:>6} schedules  {steps:>10} steps  {messages:>10} messages  {verdict}")
    print(
        f"up to {args.ranks} ranks, in {time.monotonic() - started:.1f} s: exactly-once, no deadlock, no overwrite hazard"
    )
    return int(failed)
