"""Commands where Numba finds no folder for what it compiles, or is told not to compile."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import busbw
import pytest
from busbw import _compiled

PROGRAM = """
import os
real = os.access
os.access = lambda path, mode, **more: str(path).startswith(os.environ["TMPDIR"]) and real(path, mode, **more)
import numba.core.caching as caching  # as on a read-only file system, which root does not otherwise see
ensure = caching._CacheLocator.ensure_cache_path
def refuse(self):
    if not self.get_cache_path().startswith(os.environ["TMPDIR"]):
        raise PermissionError(self.get_cache_path())
    ensure(self)
caching._CacheLocator.ensure_cache_path = refuse
import sys
from busbw.scripts import main
code = main(sys.argv[1:])
from busbw.kernels import cpu
cpu.pointers("sum", "float32").reduce  # something to keep
sys.exit(code)
"""


def run(*command, program=PROGRAM, **environment):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA_CACHE")}
    return subprocess.run(
        [sys.executable, "-c", program, *command], env={**kept, **environment}, capture_output=True, text=True
    )


def test_a_temporary_folder_is_taken_said_once_and_used_again(tmp_path):
    for _ in range(2):
        done = run("validate", "--series", TMPDIR=str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("\n") == 1 and f"kept in {tmp_path}/busbw-compiled-" in done.stderr
    (folder,) = tmp_path.glob("busbw-compiled-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.rglob("*.nbi"))
    assert run("systems", TMPDIR=str(tmp_path)).stderr == ""  # it compiles nothing


def test_a_folder_that_others_can_write_is_not_trusted(tmp_path):
    own = tmp_path / f"busbw-compiled-{os.getuid()}"
    own.mkdir()
    own.chmod(0o777)
    taken = _compiled._own_folder(tmp_path)
    assert taken != own and stat.S_IMODE(taken.stat().st_mode) == 0o700
    own.rmdir()
    own.symlink_to(tmp_path)
    assert _compiled._own_folder(tmp_path) != own


def test_where_a_folder_of_numbas_own_can_be_written_nothing_changes(monkeypatch, tmp_path):
    assert busbw.COMPILED_IN is None
    monkeypatch.setattr(_compiled, "HERE", Path("/proc/nowhere"))
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "made" / "later"))
    assert _compiled.keep() is None and "NUMBA_CACHE_DIR" not in os.environ


@pytest.mark.parametrize("command", [["sweep", "-b", "8", "-e", "8"], ["doctor"], ["simulate", "dgx-h100-cx7"]])
def test_without_compiling_one_sentence_says_why_not(command, tmp_path):
    program = "import sys; from busbw.scripts import main; sys.exit(main(sys.argv[1:]))"
    done = run(*command, program=program, NUMBA_DISABLE_JIT="1")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "NUMBA_DISABLE_JIT is set" in done.stderr
