"""A child of a self-test whose parts crash, hang, raise and report: selftest_child.py GROUP FIRST_PART STOP_PART PIPE.

Imported by its parent for the same groups, whose parts it does not run."""

import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from busbw.bench.selftest.children import serve
from busbw.bench.selftest.findings import Finding, Group, Part


def fine(name):
    return lambda: [Finding(name, True, "1 tried", {"tried": 1, "process": os.getpid()})]


def crash():
    yield Finding("before the crash", True)
    print("CUDA says: something unspeakable", flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def hang():
    yield Finding("before the hang", True)
    time.sleep(1000)


def broken():
    raise RuntimeError("cudaErrorIllegalAddress")


def dies_at_its_end():
    import atexit

    atexit.register(os._exit, 7)
    return fine("reported")()


def meet(name, mine, other):
    """Ends well once another process is in `meet` with the names turned round; both have the parent's process group."""

    def find():
        folder = Path(tempfile.gettempdir())
        (folder / f"busbw-meet-{os.getppid()}-{mine}").touch()
        until = time.monotonic() + 50
        there = folder / f"busbw-meet-{os.getppid()}-{other}"
        while not there.exists() and time.monotonic() < until:
            time.sleep(0.01)
        found = there.exists()
        yield Finding(name, found)
        if found:
            there.unlink()

    return find


GROUPS = [
    Group("mixed", (
        Part("first", 60, fine("first")), Part("crash", 60, crash), Part("second", 60, fine("second")),
        Part("hang", 1.5, hang), Part("broken", 60, broken), Part("third", 60, fine("third")),
        Part("fourth", 60, fine("fourth")),
    )),
    Group("late", (Part("reported", 60, dies_at_its_end),)),
]  # fmt: skip

BESIDE = [
    Group("beside", (
        Part("meets the second", 60, meet("meets the second", 1, 2)),
        Part("meets the first", 60, meet("meets the first", 2, 1)),
    ), beside=True),
    Group("beside, too", (Part("meets no other", 60, fine("meets no other")),), beside=True),
    Group("one", (Part("alone", 60, fine("alone")),)),
]  # fmt: skip

if __name__ == "__main__":
    name, first, stop, pipe = sys.argv[1:]
    if name == "mute":
        sys.exit(3)
    (group,) = (g for g in GROUPS + BESIDE if g.name == name)
    serve(group, int(first), int(stop), int(pipe))
