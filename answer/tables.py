"""A file's tables and pairs, each answered."""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, replace

from ..bench.log import Log, Pair
from ..bench.record import ResultFile
from ..errors import UserError
from ..interchange.logs import read_stream
from ..interchange.results import opened
from . import pairs
from .causes import FITS, Finding, causes
from .situation import Given, situate
from .verdict import BAD, LOW, UNKNOWN, Answer, judge


@dataclass(frozen=True)
class Answered:
    """answer: None for a list of pairs, whose words are in lines."""

    name: str
    verdict: str
    answer: Answer | None = None
    causes: tuple[Finding, ...] = ()
    lines: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()


def answers(path: str, given: Given, threshold: float | None = None) -> list[Answered]:
    """Everything that can be said of a log, or of a result file of busbw. Raises UserError for a file that has nothing to judge."""
    if path == "-":
        found = answers_of(read_stream(sys.stdin.buffer, "standard input"), given, threshold)
    else:
        result, log = opened(path)
        found = answers_of(log, given, threshold) if log else answers_of_results(result, given, threshold)
    if not found:
        raise UserError(
            f"{path}: no table of a benchmark in it; accepted: what busbw import reads, and busbw's own files"
        )
    return found


def answers_of_results(result: ResultFile, given: Given, threshold: float | None = None) -> list[Answered]:
    """An answer for each algorithm of a result file."""
    from . import own  # simulates, and so takes a while to import

    judged = own.judged(result, given, threshold)
    alone = len(judged) == 1
    found = [
        Answered(result.path if alone else f"{result.path}, {name}", answer.verdict, answer, _why(log, answer))
        for name, log, answer in judged
    ]
    return [_beside(a, found) for a in found]


def answers_of(log: Log, given: Given, threshold: float | None = None) -> list[Answered]:
    """As ``answers``; nothing for a log that has nothing to judge."""
    found = [_table(log, i, given, threshold) for i in range(len(log.tables))]
    found = [_beside(a, found) for a in found]
    if log.pairs and (suspects := pairs.suspects(log.pairs)):
        verdict = LOW if suspects.slow else UNKNOWN
        found.append(Answered(f"{log.path}, pairs", verdict, lines=tuple(pairs.words(suspects)), pairs=log.pairs))
    return found


def _beside(one: Answered, all_of_the_log: list[Answered]) -> Answered:
    """With a remark where another table of the log is a third faster or more over the sizes that both have."""
    best, name = 1.0, ""
    mine = {r.size: r.seconds for r in one.answer.rows}
    for other in all_of_the_log:
        theirs = {r.size: r.seconds for r in other.answer.rows}
        both = sorted(mine.keys() & theirs.keys())[-5:]
        if other is one or other.answer.situation.collective != one.answer.situation.collective or len(both) < 3:
            continue
        ratio = statistics.median(mine[s] / theirs[s] for s in both)
        if ratio > max(best, 4 / 3):
            best, name = ratio, other.name
    if not name:
        return one
    remark = f"{best:.1f} times slower than {name.rpartition(', ')[2]} over the largest sizes that both have"
    return replace(one, answer=replace(one.answer, remarks=(*one.answer.remarks, remark)))


def _table(log: Log, index: int, given: Given, threshold: float | None) -> Answered:
    table = log.tables[index]
    name = log.path + (f", table {index + 1}" if len(log.tables) > 1 else "")
    if table.label:
        name += f" ({table.label})"
    answer = judge(table, situate(log, table, given), threshold)
    return Answered(name, answer.verdict, answer, _why(log, answer))


def _why(log: Log, answer: Answer) -> tuple[Finding, ...]:
    if answer.slow_quarter:
        return tuple(f for f in causes(log, answer) if f.weight >= FITS)
    return tuple(causes(log, answer)) if answer.verdict in BAD or answer.verdict == UNKNOWN else ()
