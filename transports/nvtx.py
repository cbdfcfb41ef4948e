"""Ranges that NVIDIA's profilers show beside the device's work: what is measured in them has a name there."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, contextmanager, nullcontext


def nvtx_range(name: str) -> AbstractContextManager:
    """A range of that name, where CuPy is at work and has NVTX; without a profiler it costs a call, without CuPy nothing."""
    cupy = sys.modules.get("cupy")
    nvtx = getattr(getattr(cupy, "cuda", None), "nvtx", None)
    return _pushed(nvtx, name) if nvtx is not None and nvtx.available else nullcontext()


@contextmanager
def _pushed(nvtx, name: str):
    nvtx.RangePush(name)
    try:
        yield
    finally:
        nvtx.RangePop()
