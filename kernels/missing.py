"""One line that says what a GPU backend lacks. Imports nothing of CUDA."""

from __future__ import annotations

INSTALL = "pip install 'busbw[cuda13]' (or 'busbw[cuda12]' for a driver of CUDA 12)"


def reason_for_package(package: str, error: BaseException) -> str:
    """What to install where `package` cannot be imported."""
    detail = str(error).strip().splitlines()
    if isinstance(error, ModuleNotFoundError) or not detail:
        return f"{package} is not installed: {INSTALL}"
    return f"{package} cannot be imported ({detail[0]}): {INSTALL}"


def reason_for_driver(package: str, error: BaseException) -> str:
    """What is missing where `package` is there and the device does not answer."""
    detail = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"the NVIDIA driver is missing or too old for {package}: install one that nvidia-smi can talk to ({detail})"
