"""Ctrl-C ends a command with one line and exit code 130, wherever it falls."""

import pytest

PROGRAM = """
import atexit, ctypes, importlib.abc, os, signal, sys, time
from busbw.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it

def strike():
    os.kill(os.getpid(), signal.SIGINT)

def until_interrupted():
    until = time.monotonic() + 10
    while time.monotonic() < until:
        pass

class Importing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "busbw.errors":
            sys.meta_path.remove(self)
            try:
                strike()
            except KeyboardInterrupt:  # as NumPy's C code
                raise ImportError("this module could not be loaded") from None

class Deleted:
    def __del__(self):
        strike()

def in_a_callback():
    ctypes.CFUNCTYPE(None)(strike)()
    until_interrupted()

def deleted():
    Deleted()
    until_interrupted()

def in_llvmlite():
    half_made = "try: strike()\\nexcept KeyboardInterrupt: raise RuntimeError('no compiled object yet') from None"
    exec(compile(half_made, "/site-packages/llvmlite/binding/ffi.py", "exec"))
    until_interrupted()

place = sys.argv.pop(1)
if place == "import":
    sys.meta_path.insert(0, Importing())
elif place == "exit":
    atexit.register(strike)
else:
    from busbw.scripts import systems
    systems.run = lambda args: globals()[place]()
sys.exit(main())
"""


@pytest.mark.parametrize("place", ["import", "in_llvmlite", "in_a_callback", "deleted"])
def test_an_interrupt_that_foreign_code_would_swallow_ends_the_command(python, place):
    done = python("-c", PROGRAM, place, "systems", timeout=60)
    assert (done.returncode, done.stderr) == (130, "\ninterrupted\n")


def test_an_interrupt_once_the_command_is_over_changes_nothing(python):
    done = python("-c", PROGRAM, "exit", "systems", timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
