"""A file of results, whoever wrote it: busbw's own, or a log of another tool."""

from __future__ import annotations

import os
from pathlib import Path

from ..bench.log import Log
from ..bench.record import RecordError, ResultFile, read
from .logs import OWN
from .logs import read as read_log
from .logs.records import records


def results_of(path: str | os.PathLike, ranks: int | None = None) -> ResultFile:
    """The records of a result file or of a log. ranks: of a log that does not tell them.

    Raises UserError for a file that cannot be read; RecordError, which says what was found, for a log without any time.
    """
    found, log = opened(path, ranks)
    if log and log.pairs and not found.records:
        raise RecordError(f"{path}: holds pairs, which have no curve; busbw pairs --from {Path(path).name} draws them")
    if not found.records:
        seen = f"{len(log.tables)} tables without a usable row" if log and log.tables else "no table in it"
        raise RecordError(
            f"{path}: neither a busbw result file nor a log with times of a collective ({seen}); see busbw import {Path(path).name}"
        )
    return found


def opened(path: str | os.PathLike, ranks: int | None = None) -> tuple[ResultFile, Log | None]:
    """The records, and the log they are from; None for a result file of busbw with records. A log may have none, or only pairs.

    Raises UserError for a file that cannot be read.
    """
    try:
        with open(path, "rb") as f:
            own = f.read(4096).lstrip().startswith(OWN)
    except OSError as e:
        raise RecordError(f"{path}: cannot be read: {e.strerror}") from None
    if own:
        result = read(path)
        if result.records or not result.pairs:
            return result, None
    log = read_log(path)
    return records(log, ranks), log
