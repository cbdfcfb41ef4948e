"""Real MPI jobs for tests: mpirun from the environment the tests run in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

_BESIDE = Path(sys.executable).parent / "mpirun"
MPIRUN = str(_BESIDE) if _BESIDE.exists() else shutil.which("mpirun")


def mpirun(ranks: int, *command: str, inject: str | None = None, timeout: float = 120, cwd=None):
    """Run `python COMMAND...` over `ranks` processes; returns the finished subprocess, output as text."""
    env = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if inject:
        env["BUSBW_INJECT"] = inject
    # More ranks than cores are fine; so is a test run that itself is bound to one core.
    launch = [MPIRUN, "-np", str(ranks), "--oversubscribe", "--bind-to", "none"]
    return subprocess.run(
        [*launch, sys.executable, *command], env=env, capture_output=True, text=True, timeout=timeout, cwd=cwd
    )
