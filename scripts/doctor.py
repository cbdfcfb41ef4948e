"""busbw doctor: what this machine has, and what to install for the rest."""

if not __package__:
    from _path import run_as_module

    run_as_module(__file__)

HELP = "say what this machine has (cores, memory bandwidth, MPI, GPU) and what to install for the rest"


def add_arguments(parser) -> None:
    parser.add_argument("--no-measure", action="store_true", help="do not measure memory bandwidth (about a second)")
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args) -> int:
    import json

    from ..bench.doctor import examine

    findings = examine(measure=not args.no_measure)
    if args.json:
        print(json.dumps([f.__dict__ for f in findings], indent=1))
        return 0
    width = max(len(f.what) for f in findings)
    for f in findings:
        print(f"{'ok ' if f.ok else '-- '} {f.what:<{width}}  {f.found}")
        if f.advice:
            print(f"    {'':<{width}}  {f.advice}")
    return 0
