"""The environment record: what the numbers were measured on. Everything is read, nothing is guessed; null means unknown."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from .. import __version__
from ..transports.affinity import quota, text_of, usable

SETTINGS = (
    "NCCL_",
    "RCCL_",
    "UCX_",
    "FI_",
    "OMPI_MCA_coll_",
    "OMPI_MCA_pml",
    "OMPI_MCA_btl",
    "MPIR_CVAR_",
    "I_MPI_ADJUST_",
)
_CPU = Path("/sys/devices/system/cpu")


def environment(hostnames: list[str] | None = None, mpi: str | None = None) -> dict:
    """A JSON-ready record of this host. hostnames: of all ranks, each once; mpi: the library's version string."""
    import numba

    return {
        "busbw": __version__,
        "git_revision": git_revision(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hostnames": hostnames or [platform.node()],
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpu_model": cpu_model(),
        "cores": os.cpu_count(),
        "affinity": usable(),
        "cpu_quota": quota(),
        "caches": caches(),
        "governor": governor(),
        "memory_bytes": memory_bytes(),
        "load_average": round(os.getloadavg()[0], 2),
        "transparent_hugepage": _chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "clocksource": text_of(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "gpus": gpus(),
        "mpi": mpi,
        "settings": settings(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
        "command": " ".join(["busbw", *sys.argv[1:]]),
    }


def settings() -> dict[str, str]:
    """Environment variables that change what a communication library does, by name."""
    return {k: v[:200] for k, v in sorted(os.environ.items()) if k.startswith(SETTINGS)}


def _chosen(path: Path) -> str | None:
    """The word in [brackets] of a sysfs choice."""
    found = re.search(r"\[(\w+)\]", text_of(path) or "")
    return found.group(1) if found else None


def cpu_model() -> str | None:
    found = re.search(r"^model name\s*:\s*(.+)$", text_of(Path("/proc/cpuinfo")) or "", re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or None


def caches() -> dict[str, int]:
    """Bytes of each cache that the first core sees, by name: {"L1d": 32768, "L2": ..., "L3": ...}."""
    found = {}
    for folder in sorted((_CPU / "cpu0/cache").glob("index*")):
        level, kind, size = (text_of(folder / name) for name in ("level", "type", "size"))
        if level and size and kind != "Instruction":
            unit = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(size[-1], 1)
            found[f"L{level}" + ("d" if kind == "Data" else "")] = int(size.rstrip("KMG")) * unit
    return found


def last_level_cache(default: int = 32 << 20) -> int:
    """Bytes of the largest cache; `default` where the system does not say."""
    return max(caches().values(), default=default)


def governor() -> str | None:
    return text_of(_CPU / "cpu0/cpufreq/scaling_governor")


def memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def available_bytes() -> int | None:
    """Memory that can still be taken, as the kernel estimates it and the control group allows it."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", text_of(Path("/proc/meminfo")) or "", re.MULTILINE)
    free = int(found.group(1)) * 1024 if found else None
    limit, used = (text_of(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    if limit and used and limit.isdigit() and used.isdigit():
        room = int(limit) - int(used)
        free = room if free is None else min(free, room)
    return free


def gpus() -> list[str]:
    """Names of the NVIDIA GPUs the driver knows."""
    names = []
    for folder in sorted(Path("/proc/driver/nvidia/gpus").glob("*")):
        found = re.search(r"^Model:\s*(.+)$", text_of(folder / "information") or "", re.MULTILINE)
        names.append(found.group(1).strip() if found else "unknown NVIDIA GPU")
    return names


def git_revision() -> str | None:
    """The checkout busbw runs from, with "-dirty" where files differ; null for an installed package."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=here, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None


def before_warnings(env: dict, ranks_here: int, meetings: Sequence[tuple[str, int, list[int]]] = ()) -> list[str]:
    """What in this environment spoils a measurement: what was seen, why it matters, what to try.

    env: as `environment` has it, its "affinity" the cores of all ranks of this host; ranks_here: how many these are;
    meetings: (host, core, ranks) where several ranks are bound to one core.
    """
    found = []
    cores = len(env["affinity"])
    if meetings:
        host, core, ranks = meetings[0]
        more = f" (and on {len(meetings) - 1} more cores)" if len(meetings) > 1 else ""
        found.append(
            f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]} are bound to core {core} of {host}{more}: they take turns, "
            "so latency and bandwidth are those of the scheduler; try mpirun --bind-to none, and busbw binds them, or fewer ranks"
        )
    elif ranks_here > cores:
        found.append(
            f"{ranks_here} ranks share {cores} core{'s' * (cores > 1)}: ranks take turns, so latency and bandwidth are those of "
            f"the scheduler; try --ranks {cores} or a larger machine"
        )
    allowed = env["cpu_quota"]
    if allowed is not None and allowed < cores:
        found.append(
            f"a control group's quota allows {allowed:g} CPUs' time on {cores} cores: ranks that wait use it up too, and are "
            f"then stopped for tens of milliseconds; try --ranks {max(1, int(allowed))} or a higher limit (docker run --cpus, "
            "limits.cpu of Kubernetes)"
        )
    if env["load_average"] > 0.5 * cores and env["load_average"] > 1:
        found.append(
            f"the load average is {env['load_average']:g} on {cores} cores: other programs compete for cores and memory "
            "bandwidth; stop them and measure again"
        )
    if env["governor"] not in (None, "performance"):
        found.append(
            f"the CPU frequency governor is {env['governor']!r}: the clock may change while measuring; try "
            "cpupower frequency-set -g performance"
        )
    if env["clocksource"] not in (None, "tsc", "arch_sys_counter", "kvm-clock"):
        found.append(
            f"the clock source is {env['clocksource']!r}, which is slow to read: times below about 1 us are too long; "
            "boot with clocksource=tsc where the CPU has a constant one"
        )
    return found
