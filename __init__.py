"""busbw: measure, model and explain the bandwidth of all-reduce and other collectives.

    >>> import busbw
    >>> result = busbw.sweep(ranks=2, first="8", last="1M", algorithms="ring,tree")
    >>> print(result.table())
    >>> result.plot("allreduce.png")

Importing busbw imports nothing heavy; Numba, MPI and matplotlib are loaded when used.
"""

from __future__ import annotations

from ._compiled import keep

__version__ = "0.1.0"

__all__ = ["SweepResult", "__version__", "load", "simulate", "sweep"]


COMPILED_IN = keep()  # a temporary folder, or None where Numba has one of its own


def __getattr__(name: str):
    if name in ("sweep", "simulate", "load", "SweepResult"):
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module 'busbw' has no attribute {name!r}")


def __dir__():
    return __all__
