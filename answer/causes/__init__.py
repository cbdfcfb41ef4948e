"""Causes, ranked by evidence. A rule is a function from a ``Case`` to a ``Finding`` or None; its docstring is its signature."""

from __future__ import annotations

from collections.abc import Callable

from ...bench.log import Log
from ..situation import OWN_TOOL
from ..verdict import Answer
from . import library, network, node, run
from .case import Case, Finding

Rule = Callable[[Case], Finding | None]

RULES: tuple[Rule, ...] = (*run.RULES, *network.RULES, *node.RULES, *library.RULES)
SCHEDULES: tuple[Rule, ...] = (
    run.one_rank, run.wrong_data, run.warned, network.inter_rack_path, network.slow_node, library.noise,
)  # fmt: skip
"""Those that hold of busbw's own schedules too, which no communication library runs."""
LEAST, FITS, STATED, NO_RUN = 0.15, 0.4, 0.85, 0.95  # weights


def causes(log: Log, answer: Answer) -> list[Finding]:
    """The likely causes of what is wrong with a table, most likely first."""
    case = Case(log, answer)
    own = answer.table.tool == OWN_TOOL and answer.situation.platform is None
    found = [f for rule in (SCHEDULES if own else RULES) if (f := rule(case)) is not None and f.weight >= LEAST]
    found.sort(key=lambda f: -f.weight)
    # Where the log says that the run was none, its figures are evidence of nothing else.
    return [f for f in found if f.weight >= STATED] if found and found[0].weight >= NO_RUN else found
