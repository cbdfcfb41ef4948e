"""Logs of other tools, read into ``bench.log.Log``: one file a format, ``scan`` the pass that goes over a log once.

    lines        prefixes of launchers, line ends, encodings        nccl_text, nccl_json     nccl-tests (and rccl-tests' text)
    numbers      figures as printed, sizes with units               rccl_json, delimited     rccl-tests -Z json, csv; tab-separated
    collective   names of collectives, busbw factors                osu, imb, param          OSU, Intel MPI Benchmarks, PARAM
    ranks        p from busbw / algbw                               markdown, plain, grid    Markdown, all_reduce_bench.py, by hand
    info         NCCL INFO lines, settings, devices                 pairs                    lists and matrices of pairs
    draft        a table's collective and ranks, concluded          records                  tables as result records
    packed       gzip, unpacked as it is read                       launched, topo           launchers' commands, nvidia-smi topo -m

A new format is one file with a class that has ``take`` and a line in ``scan``.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO

from ...bench.log import Log, System
from ...bench.record import read as read_own
from ...errors import UserError
from . import packed

MAX_BYTES = packed.MOST
OWN = b'{"schema":"busbw.'  # how a result file of busbw begins


def read(path: str | os.PathLike) -> Log:
    """The log in a file, packed by gzip or not; of busbw's own, the pairs.

    Raises UserError for a file that is missing, no file, or too large.
    """
    path = Path(path)
    try:
        if not path.is_file():
            what = "is no file, but a folder, pipe or device" if path.exists() else "no such file"
            raise UserError(
                f"{path}: {what}; accepted: a log that nccl-tests, rccl-tests, OSU, IMB or the like printed, or - for one "
                "on standard input"
            )
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: more than {MAX_BYTES >> 30} GiB; accepted: a log of at most that")
        with path.open("rb") as file:
            if file.peek(64).startswith(OWN):
                own = read_own(path)
                if own.pairs:
                    lines = own.pairs[-1].line
                    return Log(str(path), (), System(), lines, lines, pairs=tuple(own.pairs))
                raise UserError(
                    f"{path}: is a result file of busbw, which every command takes; accepted: a log of another tool"
                )
            return _scanned(file, str(path))
    except OSError as e:
        raise UserError(f"{path}: cannot be read: {e.strerror}") from None


def read_stream(stream: BinaryIO, name: str) -> Log:
    """The log in a stream that cannot be gone back in (a pipe)."""
    return _scanned(io.BufferedReader(stream) if not hasattr(stream, "peek") else stream, name)


def _scanned(file: io.BufferedReader, name: str) -> Log:
    from .scan import Scan

    scan = Scan(name)
    if file.peek(2).startswith(packed.MAGIC):
        file = io.BufferedReader(packed.Unpacked(file, scan.notes), packed.CHUNK)
        if file.peek(64).startswith(OWN):
            raise UserError(f"{name}: is a packed result file of busbw; unpack it first (gunzip)")
    return scan.run(file)
