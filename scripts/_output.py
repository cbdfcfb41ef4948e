"""Where the commands that measure write: their result file, the table on stdout, the progress line on stderr."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from ..errors import UserError
from ..transports import launcher
from ._progress import ProgressLine

RESULT_FOLDER = "busbw-results"


def result_file(args, stem: str, *, resume: bool | None = None):
    """A context that holds the result file of --out and gives its path, on the first rank; None for --no-out.

    resume: as --resume was given; None: the command has none.
    """
    if args.no_out:
        if args.out or resume:
            raise UserError("--no-out goes with neither --out nor --resume")
        return nullcontext()
    if resume and not args.out:
        raise UserError("--resume needs --out FILE, the file to go on from")
    if launcher.launched_rank() != 0:
        return nullcontext(args.out or "the first rank's")
    from ..bench.record import claimed, result_path

    path = result_path(args.out or f"{RESULT_FOLDER}/", stem)
    if resume and path != Path(args.out):
        raise UserError(f"--resume with --out {args.out}: a folder; accepted: the file to go on from")
    return claimed(path, resume=resume)


class Speaker:
    """Lines on stdout, a progress line on stderr where that is a terminal; nothing from ranks but the first."""

    def __init__(self, quiet: bool):
        self.silent = launcher.launched_rank() != 0
        self._line = ProgressLine(not quiet)

    def line(self, text: str) -> None:
        if not self.silent:
            self.clear()
            print(text, flush=True)

    def progress(self, index: int, total: int, text: str) -> None:
        if not self.silent:
            self._line.progress(index, total, text)

    def clear(self) -> None:
        self._line.clear()
