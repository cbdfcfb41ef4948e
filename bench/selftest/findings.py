"""What a self-test found."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ...transports.session import Unavailable

PROBLEMS_MAX = 20  # of one finding: then it is given up, as one cause seldom shows less often
RAISED_MAX = 2  # each may have waited for its time limit, or may have left the device unable to do anything more


@dataclass(frozen=True)
class Finding:
    """ok: None where it was not tried; detail: one line or several; figures: JSON-ready numbers; raised: something went wrong
    that the device may not have survived."""

    what: str
    ok: bool | None
    detail: str = ""
    figures: dict = field(default_factory=dict)
    raised: bool = False


@dataclass(frozen=True)
class Part:
    """Findings that belong together, found within `limit` seconds or given up."""

    name: str
    limit: float
    find: Callable[[], Iterable[Finding]]


@dataclass(frozen=True)
class Group:
    """Parts that a process goes through in order, sharing what it has imported and compiled. beside: they may as well be tried
    in processes of their own at the same time, and beside those of other such groups: nothing is measured or waited for."""

    name: str
    parts: tuple[Part, ...]
    beside: bool = False


def run_here(
    groups: Iterable[Group], say: Callable[[Finding], None], late: Callable[[Part], None] | None = None
) -> list[Finding]:
    """Try all of it, in order, in this process; `say` is told each finding as it comes. late: called from another thread when a
    part lasts longer than its limit, to end what cannot go on."""
    findings = []
    for part in (part for group in groups for part in group.parts):
        timer = threading.Timer(part.limit, late, [part]) if late else None
        if timer:
            timer.daemon = True
            timer.start()
        for finding in found_by(part):
            findings.append(finding)
            say(finding)
        if timer:
            timer.cancel()
    return findings


def words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"


def found_by(part: Part) -> Iterator[Finding]:
    """The part's findings; what it raises is the last."""
    try:
        yield from part.find()
    except Exception as error:  # the rest goes on, whatever this was
        yield Finding(part.name, False, words(error), {"traceback": traceback.format_exc()[-4000:]}, raised=True)


def tally(what: str, trials: Iterable[Callable[[], str | None]]) -> Finding:
    """Run all trials; each returns None or what was wrong."""
    tried = raised = 0
    problems: list[str] = []
    for trial in trials:
        tried += 1
        try:
            problem = trial()
        except Unavailable as error:
            problem = words(error)
        except Exception as error:  # a finding like any other
            problem = words(error)
            raised += 1
        if problem:
            problems.append(problem)
        if len(problems) >= PROBLEMS_MAX or raised >= RAISED_MAX:
            break
    lines = [f"{tried} tried, {len(problems)} wrong" if problems else f"{tried} tried", *problems]
    if len(problems) >= PROBLEMS_MAX or raised >= RAISED_MAX:
        lines.append(f"given up after {tried} of them")
    return Finding(what, not problems, "\n".join(lines), {"tried": tried, "wrong": len(problems)}, raised=raised > 0)


def line_of(finding: Finding) -> str:
    mark = {True: "ok   ", False: "WRONG", None: "-    "}[finding.ok]
    return f"{mark} {finding.what}: " + finding.detail.replace("\n", "\n        ")
