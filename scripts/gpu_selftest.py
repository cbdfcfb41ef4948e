"""busbw gpu-selftest: try everything there is for GPUs on this machine, and write a report to send."""

if not __package__:
    from _path import run_as_module

    run_as_module(__file__)

import os
import sys
import time
from pathlib import Path

CHILDREN_MAX = 8  # side by side: each holds half a gigabyte of the GPU for its context

HELP = "try every GPU kernel and transport on this machine's GPUs, and write a report to send"

DESCRIPTION = """\
Compile and check every GPU kernel against NumPy, run every way of all-reduce there is here (persistent walk, one launch a
step, several GPUs, NCCL; under mpirun one GPU a rank), and measure bandwidth and latency against the device's own limits.
Takes some minutes. Each group of tests runs in a process of its own, with a time limit for each part: what fails, crashes or
hangs is reported, and the rest goes on."""

EPILOG = """\
examples:
  busbw gpu-selftest
  mpirun -np 2 busbw gpu-selftest   one GPU a rank, MPI between

exit codes: 0 all right, 1 something was wrong, 2 there is no GPU to try (it says what is missing).
The report has no host name and no command line; docs/gpu.md says where to send it."""


def add_arguments(parser) -> None:
    parser.add_argument(
        "--out", metavar="FILE", help="the report (default: busbw-gpu-selftest-TIME.json), and FILE.txt"
    )
    parser.add_argument(
        "--quick", action="store_true", help="compile fewer dtypes and ops, and measure 64 MiB, not 256"
    )


def run(args) -> int:
    import json

    from ..bench import gpu
    from ..bench.selftest.children import run_in_children
    from ..bench.selftest.findings import Finding, line_of, run_here
    from ..bench.selftest.machine import large_bytes, machine_groups
    from ..bench.selftest.ranks import rank_groups
    from ..bench.selftest.report import devices_in, report, text
    from ..errors import UserError
    from ..transports import launcher

    root = launcher.launched_rank() == 0
    path = Path(args.out or time.strftime("busbw-gpu-selftest-%Y%m%d-%H%M%S.json"))
    readable = path.with_name(path.name + ".txt")
    groups = rank_groups(large_bytes(args.quick)) if launcher.launched() else machine_groups(args.quick)
    found: list = []
    before: dict = {}

    def write() -> dict:
        made = report(found, before, gpu.telemetry(devices_in(found)))
        if root:
            try:
                path.write_text(json.dumps(made, indent=1) + "\n")
                readable.write_text(text(made))
            except OSError as error:
                raise UserError(f"--out {path}: cannot be written: {error.strerror}") from None
        return made

    def say(finding) -> None:
        found.append(finding)
        if not before:
            before.update(gpu.telemetry(devices_in(found)))
        if root:
            print(line_of(finding), flush=True)
            write()  # so that what a hang or a crash leaves can be sent

    def late(part) -> None:
        say(Finding(part.name, False, f"no end after {part.limit:g} s: the job is ended", raised=True))
        from ..transports import mpi

        mpi.load().COMM_WORLD.Abort(1)

    write()  # a file that cannot be written is said before the minutes of work
    if launcher.launched():
        run_here(groups, say, late)
    else:
        workers = max(1, min(CHILDREN_MAX, len(os.sched_getaffinity(0)) // 2))
        run_in_children(groups, lambda *which: _child(*which, args.quick), say, workers)
    made = write()
    if root:
        print(f"{made['wrong']} wrong of {len(found)}\nwrote {path}\nwrote {readable}")
    return 1 if made["wrong"] else 0


def _child(group: str, first: int, stop: int, pipe: int, quick: bool) -> list[str]:
    numbers = (str(n) for n in (first, stop, pipe))
    return [sys.executable, "-m", "busbw.bench.selftest", group, *numbers, *(["quick"] if quick else [])]
