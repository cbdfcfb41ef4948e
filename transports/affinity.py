"""Which cores ranks run on: what the machine looks like, what the process may use, and one core for each rank.

Read from Linux's /sys: sockets, groups of cores behind one last-level cache, and hardware threads (CPUs in Linux's words) of
one core. Ranks are spread evenly over sockets, then over the caches of a socket, then over cores, and a second hardware thread
of a core is taken only where cores run out. Neighbouring ranks stay neighbours, so that a ring crosses sockets twice only.
4 ranks on 2 sockets of 2 caches (|) of 2 cores, each of 2 threads::

    socket 0   core 0: rank 0   core 1   |   core 2: rank 1   core 3
    socket 1   core 4: rank 2   core 5   |   core 6: rank 3   core 7

"Core" elsewhere in busbw is what Linux calls a CPU: something a thread can be bound to.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

CPUS = Path("/sys/devices/system/cpu")
CGROUPS = Path("/sys/fs/cgroup")
BOOT = Path("/proc/sys/kernel/random/boot_id")
OWN_CGROUPS = Path("/proc/self/cgroup")


@dataclass(frozen=True)
class Place:
    """Where a CPU is. socket: its package; cache: the lowest CPU behind the same last-level cache; core: the lowest CPU that
    is a thread of the same core."""

    socket: int
    cache: int
    core: int


def machine() -> str:
    """What is the same for all who share this machine's cores, also in containers with host names of their own: the kernel's name
    for its boot, or where it tells none the host's name."""
    return text_of(BOOT) or os.uname().nodename


def usable() -> list[int]:
    """The CPUs that the calling thread may run on; control groups' cpusets are in it."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def pin(cpus: Iterable[int]) -> None:
    """Bind the calling thread to these CPUs; nothing where the system has no such call."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(cpus))


def places(cpus: Iterable[int], root: Path = CPUS) -> dict[int, Place]:
    """The place of each CPU. What /sys does not tell is taken as: one socket, one cache, a core of its own."""
    found = {}
    for cpu in cpus:
        folder = root / f"cpu{cpu}"
        socket = text_of(folder / "topology/physical_package_id")
        threads = _numbers(
            text_of(folder / "topology/core_cpus_list") or text_of(folder / "topology/thread_siblings_list")
        )
        shared = _last_level(folder / "cache")
        found[cpu] = Place(
            socket=int(socket) if socket and socket.isdigit() else 0,
            cache=min(shared, default=0),
            core=min(threads, default=cpu),
        )
    return found


def _last_level(folder: Path) -> list[int]:
    """The CPUs behind the same cache of the highest level."""
    levels = {}
    for cache in folder.glob("index[0-9]*"):
        level = text_of(cache / "level")
        if level and level.isdigit():
            levels[int(level)] = cache
    return _numbers(text_of(levels[max(levels)] / "shared_cpu_list")) if levels else []


def text_of(path: Path) -> str | None:
    """What a small file of the system says, without blanks around it; None where it says nothing or is not there."""
    try:
        return path.read_text(errors="replace")[:4096].strip() or None
    except OSError:
        return None


def _numbers(text: str | None) -> list[int]:
    """The numbers of a list as Linux writes it: 0-3,8."""
    found: list[int] = []
    for part in (text or "").split(","):
        if span := re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part.strip()):
            found += range(int(span[1]), int(span[2] or span[1]) + 1)
    return found


def choose(where: Mapping[int, Place], ranks: int) -> list[int] | None:
    """A CPU of its own for each rank, spread as the module says; None where there are not as many."""
    if ranks > len(where):
        return None
    first_threads: dict[int, int] = {}
    for cpu in sorted(where):
        first_threads.setdefault(where[cpu].core, cpu)
    cpus = list(first_threads.values()) if ranks <= len(first_threads) else sorted(where)
    return _spread(cpus, ranks, [lambda c: where[c].socket, lambda c: where[c].cache, lambda c: where[c].core])


def _spread(cpus: list[int], ranks: int, groupings: Sequence[Callable[[int], int]]) -> list[int]:
    """`ranks` of the CPUs, evenly from the groups of the first grouping, and so on within each."""
    if not groupings:
        return cpus[:ranks]
    groups: dict[int, list[int]] = defaultdict(list)
    for cpu in cpus:
        groups[groupings[0](cpu)].append(cpu)
    members = [groups[key] for key in sorted(groups)]
    shares = [0] * len(members)
    for _ in range(ranks):
        with_room = [i for i, here in enumerate(members) if shares[i] < len(here)]
        shares[min(with_room, key=lambda i: shares[i])] += 1
    return [cpu for share, here in zip(shares, members) for cpu in _spread(here, share, groupings[1:])]


def assign(masks: Sequence[Sequence[int]], where: Mapping[int, Place]) -> list[int | None] | None:
    """A CPU for each rank of a host, within what its launcher left it.

    masks: the CPUs that each rank may use. A rank that is bound to one core already gets None: it stays as it is. The answer
    is None where not every other rank can have a CPU of its own, and nobody is to be bound.
    """
    taken = {cpu for mask in masks if _one_core(mask, where) for cpu in mask}
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for rank, mask in enumerate(masks):
        if not _one_core(mask, where):
            groups[tuple(sorted(mask))].append(rank)
    chosen: list[int | None] = [None] * len(masks)
    for mask in sorted(groups, key=len):  # who has the least choice chooses first
        taken_cores = {where[cpu].core for cpu in taken}
        untouched = {cpu: where[cpu] for cpu in mask if where[cpu].core not in taken_cores}
        free = {cpu: where[cpu] for cpu in mask if cpu not in taken}
        cores = choose(untouched, len(groups[mask])) or choose(free, len(groups[mask]))
        if cores is None:
            return None
        taken.update(cores)
        for rank, cpu in zip(groups[mask], cores):
            chosen[rank] = cpu
    return chosen


def _one_core(mask: Iterable[int], where: Mapping[int, Place]) -> bool:
    return len({where[cpu].core for cpu in mask}) == 1


def meetings(masks: Sequence[Sequence[int]], where: Mapping[int, Place]) -> list[tuple[int, list[int]]]:
    """(core, ranks) of every core that several ranks are bound to."""
    bound: dict[int, list[int]] = defaultdict(list)
    for rank, mask in enumerate(masks):
        if _one_core(mask, where):
            bound[where[next(iter(mask))].core].append(rank)
    return [(core, ranks) for core, ranks in sorted(bound.items()) if len(ranks) > 1]


def quota(own: Path = OWN_CGROUPS, root: Path = CGROUPS) -> float | None:
    """How many CPUs' time the control groups of this process allow; None: no limit.

    Both versions: cpu.max (2), cpu.cfs_quota_us and cpu.cfs_period_us (1); a group is held to its parents' limits too.
    """
    limits = []
    for line in (text_of(own) or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        names = controllers.split(",")
        if controllers == "":
            mounts, read = (root, root / "unified"), _limit_2
        elif "cpu" in names:
            mounts, read = (root / controllers, root / "cpu"), _limit_1
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        for mount in mounts:
            # A container often sees its own group as the mount itself, under whatever name /proc has it.
            folders = [mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1)]
            limits += [limit for folder in folders if (limit := read(folder)) is not None]
    return min(limits, default=None)


def _limit_2(folder: Path) -> float | None:
    allowed, _, period = (text_of(folder / "cpu.max") or "").partition(" ")
    return int(allowed) / int(period) if allowed.isdigit() and period.isdigit() and int(period) else None


def _limit_1(folder: Path) -> float | None:
    allowed, period = (text_of(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period"))
    return int(allowed) / int(period) if allowed.isdigit() and period.isdigit() and int(period) else None


def room() -> int:
    """How many ranks can run at once here: usable CPUs, or as many as a quota has whole CPUs' time for; at least 1."""
    allowed = quota()
    here = len(usable())
    return here if allowed is None else max(1, min(here, int(allowed)))
