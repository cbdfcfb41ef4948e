"""The commands. Each is a thin module with HELP, add_arguments(parser) and run(args) -> exit code.

Nothing heavy is imported before a command runs, so that --help is quick.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys

from .. import COMPILED_IN, __version__
from ..errors import UserError, no_room
from ..transports.launcher import launched, launched_rank

COMMANDS = (
    "sweep",
    "pairs",
    "simulate",
    "import",
    "expect",
    "compare",
    "plot",
    "report",
    "export",
    "tune",
    "fit",
    "doctor",
    "verify",
    "validate",
    "systems",
    "gpu-selftest",
)

COMPILING = ("sweep", "pairs", "simulate", "doctor", "verify", "validate", "gpu-selftest")

MODULES = {"import": "import_log"}  # where the command's name is a word of Python

EXIT_WRONG, EXIT_USAGE, EXIT_STALLED, EXIT_NO_ROOM, EXIT_INTERRUPTED = 1, 2, 3, 4, 130

TRACEBACK = "BUSBW_TRACEBACK"

DESCRIPTION = """\
busbw measures all-reduce bandwidth, models what it should be, and says whether the number is normal.

  busbw sweep                     measure this machine: a table, a result file, a picture, a report
  mpirun -np 4 busbw sweep        the same over MPI ranks
  mpirun ... busbw pairs          which host, link or direction is slow: all pairs, in rounds
  busbw simulate SYSTEM           what that system should get, from one node to all its GPUs
  busbw sweep --fabric SYSTEM     run for real, with that system's clock instead of the wall's
  busbw systems                   the systems it knows, every figure with its source
  busbw validate                  the model against published measurements
  busbw import LOG...             read logs of nccl-tests, rccl-tests, OSU, IMB and others; every command takes them too
  busbw compare A B...            which sizes are slower, and whether that is real; exit code 1 if so
  busbw plot FILE... / report FILE...   draw or write up result files, over one another
  busbw doctor                    what this machine has, and what to install for the rest
  busbw verify                    prove every algorithm's schedule
  busbw export ALGORITHM          a schedule as GOAL, MSCCL XML or a picture"""


class _Parser(argparse.ArgumentParser):
    """One line and exit code 2 on a bad command line; silent on all MPI ranks but the first."""

    def error(self, message):
        fail(self.prog, f"{message} (see {self.prog} --help)")


def fail(program: str, message: str, code: int = EXIT_USAGE) -> None:
    """Say what is wrong in one line, once a job, and exit with that code."""
    line = f"{program}: {message}"
    if guard := _guard():
        guard.end(line, code, shared=code == EXIT_USAGE)  # only the rank that writes knows of no room
    sys.stderr.write(f"{line}\n")
    sys.exit(code)


def interrupted(program: str = "busbw") -> int:
    """Say so, and end the job where there is one. Returns the exit code."""
    if guard := _guard():
        guard.end(f"{program}: {guard.me()} was interrupted (SIGINT) during {guard.phase}", EXIT_INTERRUPTED)
    sys.stderr.write("\ninterrupted\n")
    return EXIT_INTERRUPTED


def _guard():
    """This process's watchdog where it is a rank of a job, begun the first time; None: it is none."""
    if not launched():
        return None
    from ..transports import watchdog

    return watchdog.of_this_process()


def parser() -> argparse.ArgumentParser:
    top = _Parser(prog="busbw", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("--version", action="version", version=f"busbw {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)
    for name in COMMANDS:
        module = importlib.import_module(f".{MODULES.get(name, name.replace('-', '_'))}", __name__)
        sub = commands.add_parser(
            name,
            help=module.HELP,
            description=getattr(module, "DESCRIPTION", module.HELP),
            epilog=getattr(module, "EPILOG", None),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.add_arguments(sub)
        sub.set_defaults(run=module.run)
    return top


def main(arguments: list[str] | None = None) -> int:
    """The console command `busbw`. Returns the exit code: 0; 1 wrong results; 2 bad usage; 3 stalled; 4 no room left to write;
    130 Ctrl-C."""
    guard = _guard()  # before anything that takes time
    program = "busbw"
    try:
        with _flushed():
            args, unknown = parser().parse_known_args(arguments)
            program = f"busbw {args.command}"
            if unknown:
                fail(program, f"unrecognized arguments: {' '.join(unknown)} (see {program} --help)")
            if guard:
                guard.phase = "loading"
                guard.timeout = getattr(args, "timeout", guard.timeout)
            _check_compiling(args.command)
            code = args.run(args)
        if guard:
            guard.depart(code)
        return code
    except KeyboardInterrupt:
        return interrupted(program)
    except BrokenPipeError:
        _to_nowhere()  # the reader left; so do we, quietly
        if guard:
            guard.end(f"{program}: {guard.me()}: nobody reads the output any more", EXIT_NO_ROOM)
        return 0
    except (UserError, MemoryError) as e:
        if no_room(e):
            _to_nowhere()
        fail(program, str(e) or "out of memory", EXIT_NO_ROOM if no_room(e) else EXIT_USAGE)
    except Exception as e:
        if isinstance(e, OSError) and no_room(e):
            _to_nowhere()
            fail(program, f"{e.filename or 'the output'} cannot be written: {e.strerror}", EXIT_NO_ROOM)
        if not guard:
            raise
        if os.environ.get(TRACEBACK):
            import traceback

            traceback.print_exc()
        # The other ranks wait for this one: end the job, and do not bury why under their tracebacks.
        what = " ".join(str(e).split()) or "no more is known"
        guard.end(
            f"{program}: {guard.me()}: {type(e).__name__}: {what} during {guard.phase} ({TRACEBACK}=1 shows where)",
            EXIT_WRONG,
        )
    return EXIT_USAGE


def _check_compiling(command: str) -> None:
    """Raises UserError where nothing would be compiled; says where it is kept if that is a makeshift."""
    if command not in COMPILING:
        return
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        raise UserError("NUMBA_DISABLE_JIT is set, and kernels that are not compiled measure nothing; unset it")
    if COMPILED_IN and launched_rank() == 0:
        sys.stderr.write(
            f"busbw: neither its own folder nor the home can be written: compiled kernels are kept in {COMPILED_IN} "
            "(NUMBA_CACHE_DIR names another)\n"
        )


@contextlib.contextmanager
def _flushed():
    """Have what was printed written before the exit code is settled, not by the interpreter afterwards."""
    try:
        yield
    except SystemExit:  # of --help and --version, too
        sys.stdout.flush()
        raise
    sys.stdout.flush()


def _to_nowhere() -> None:
    """Let what is still to be printed vanish: the interpreter would complain of it once more."""
    with contextlib.suppress(io.UnsupportedOperation):  # a caller's stdout that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
