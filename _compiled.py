"""Where compiled functions are kept if Numba itself finds no folder: a read-only install without a writable home (containers)."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def keep() -> Path | None:
    """Before Numba is imported: give it a temporary folder, which is returned, where none of its own can be written.

    The folder is this user's, and the same for every run, so that they and the ranks of a job share what was compiled.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    given = os.environ.get("NUMBA_CACHE_DIR")
    if any(_can_be_written(Path(folder)) for folder in (given, HERE / "kernels" / "__pycache__", cache) if folder):
        return None
    import tempfile

    try:
        folder = _own_folder(Path(tempfile.gettempdir()))
    except OSError:  # nowhere: what needs compiled functions will say so
        return None
    os.environ["NUMBA_CACHE_DIR"] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    return folder


def _can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder that is there, or can be made itself."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _own_folder(temporary: Path) -> Path:
    """A folder in `temporary` that nobody else can write: what is in it is run."""
    folder = temporary / f"busbw-compiled-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o022:
            import atexit
            import shutil
            import tempfile

            folder = Path(tempfile.mkdtemp(prefix="busbw-compiled-"))
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
