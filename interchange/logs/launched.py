"""What the command lines of launchers in a log say of its job: ranks and nodes."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator

MOST = 4000  # characters of a command that are kept
_LAUNCHER = re.compile(r"\b(mpirun|mpiexec(?:\.hydra)?|prterun|srun)\s")
_PROGRAM = re.compile(r"(?:.*[/\s])?(?:\w+_perf|osu_\w+|IMB-\w+)$")
_NP = re.compile(r"(?:^|\s)(?:-np?|--np?|--ntasks)[= ]\s?(\d{1,7})(?=\s|$)")
_HOSTS = re.compile(r"(?:^|\s)(?:-H|--?hosts?)[= ]\s?([\w.:,-]{1,3900})(?=\s|$)")
_EACH = re.compile(
    r"(?:^|\s)(?:(?:-N|-ppn|-perhost|--?npernode|--ntasks-per-node)[= ]\s?|--map-by ppr:)(\d{1,4})(?=\s|:node|$)"
)
_NODES = re.compile(r"(?:^|\s)(?:-N|--nodes)[= ]\s?(\d{1,6})(?=\s|$)")


def _words(commands: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(launcher, its options) of each command that is whole."""
    for command in commands:
        found = _LAUNCHER.search(command)
        if found and len(command) < MOST:
            words = command[found.end() :].split()
            end = next((i for i, w in enumerate(words) if _PROGRAM.match(w)), len(words))
            yield found.group(1), " ".join(words[:end])


def ranks(commands: Iterable[str]) -> int | None:
    """p of -np 144 and the like, where exactly one stands in the log."""
    found = {int(n) for _, words in _words(commands) for n in _NP.findall(words)[:1]}
    return found.pop() if len(found) == 1 else None


def nodes(commands: Iterable[str]) -> int | None:
    """p over the ranks a node, or how many of the hosts that -H names p ranks fill, or srun's --nodes; None where commands say
    nothing, or several things."""
    found = {n for launcher, words in _words(commands) if (n := _nodes(launcher, words))}
    return found.pop() if len(found) == 1 else None


def _nodes(launcher: str, words: str) -> int | None:
    if launcher == "srun":
        return int(told.group(1)) if (told := _NODES.search(words)) else None
    p, each, hosts = _NP.search(words), _EACH.search(words), _HOSTS.search(words)
    if p and each and int(each.group(1)) and int(p.group(1)) % int(each.group(1)) == 0:
        return int(p.group(1)) // int(each.group(1))
    if not hosts:
        return None
    slots: dict[str, int] = {}
    for host, _, count in (h.partition(":") for h in hosts.group(1).split(",") if h):
        slots[host] = slots.get(host, 0) + (int(count[:7]) if count[:7].isdigit() else 1)
    if not p or "map-by node" in words or sum(slots.values()) <= int(p.group(1)):
        return len(slots)
    filled = itertools.accumulate(slots.values())
    return next(i for i, n in enumerate(filled, 1) if n >= int(p.group(1)))
