"""Lets a command run as a file, `python scripts/sweep.py`, with or without busbw installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def run_as_module(file: str) -> None:
    """Run busbw's command of that file name from this very checkout, and exit with its code."""
    root = Path(file).resolve().parent.parent
    spec = importlib.util.spec_from_file_location("busbw", root / "__init__.py", submodule_search_locations=[str(root)])
    package = importlib.util.module_from_spec(spec)
    sys.modules["busbw"] = package
    spec.loader.exec_module(package)
    from busbw.scripts import main

    sys.exit(main([Path(file).stem.replace("_", "-"), *sys.argv[1:]]))
