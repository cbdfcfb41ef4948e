"""busbw verify: prove every algorithm's schedule."""

if not __package__:
    from _path import run_as_module

    run_as_module(__file__)

import sys
import time

HELP = "prove every algorithm's schedule for all rank counts up to --ranks"

DESCRIPTION = """\
Prove, for every algorithm and every world size up to --ranks, that each rank ends with every rank's contribution exactly
once, that nothing deadlocks, and that no chunk is read before it is written or overwritten before it is sent.

The proof is about the schedule tables, the same that `busbw sweep` runs, and holds for any transport."""


def add_arguments(parser) -> None:
    parser.add_argument("--ranks", type=int, default=16, metavar="P", help="largest world size (default 16)")
    parser.add_argument("--algo", default="all", metavar="LIST", help="comma list of algorithms (default all)")


def run(args) -> int:
    from ..bench.options import OptionError
    from ..collectives import ALGORITHMS
    from ..collectives.prove import prove_all

    if not 1 <= args.ranks <= 512:
        raise OptionError(f"--ranks {args.ranks}: accepted are 1 to 512")
    names = list(ALGORITHMS) if args.algo == "all" else [a.strip() for a in args.algo.split(",")]
    unknown = [n for n in names if n not in ALGORITHMS]
    if unknown:
        raise OptionError(f"--algo {unknown[0]}: accepted are {', '.join(ALGORITHMS)}, all")

    started = time.monotonic()
    shows = sys.stderr.isatty()
    proofs: dict[str, list] = {n: [] for n in names}
    for algorithm, ranks, options, proof in prove_all(args.ranks, algorithms=names):
        proofs[algorithm].append(proof)
        if shows:
            sys.stderr.write(f"\r\033[K{algorithm}, {ranks} ranks")
        for problem in proof.problems:
            print(f"FAILED {algorithm}, {ranks} ranks, {options}: {problem}")
    if shows:
        sys.stderr.write("\r\033[K")
    for name, done in proofs.items():
        bad = sum(not p.ok for p in done)
        verdict = f"{bad} FAILED" if bad else "proved"
        steps, messages = sum(p.steps for p in done), sum(p.messages for p in done)
        print(f"{name:<20} {len(done):>6} schedules  {steps:>10} steps  {messages:>10} messages  {verdict}")
    print(
        f"up to {args.ranks} ranks, in {time.monotonic() - started:.1f} s: exactly-once, no deadlock, no overwrite hazard"
    )
    return 1 if any(not p.ok for done in proofs.values() for p in done) else 0
