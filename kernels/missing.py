"""One line that says what a GPU backend lacks. Imports nothing of CUDA."""

from __future__ import annotations

INSTALL = "pip install 'busbw[cuda13]' (or 'busbw[cuda12]' for a driver of CUDA 12)"


def detail(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split()).strip(" :")[:300] or type(error).__name__


def reason_for_package(package: str, error: BaseException) -> str:
    """What to install where `package` cannot be imported."""
    if isinstance(error, ModuleNotFoundError):
        return f"{package} is not installed: {INSTALL}"
    return f"{package} cannot be imported ({detail(error)}): {INSTALL}"


def reason_for_driver(package: str, error: BaseException) -> str:
    """What is missing where `package` is there and the device does not answer."""
    return f"the NVIDIA driver is missing or too old for {package}: nvidia-smi must find a GPU first ({detail(error)})"


def reason_for_numpy(package: str, error: BaseException) -> str:
    """Where `package` is there and cannot be used with the NumPy beside it: what each is, and what to install."""
    import numpy as np

    return f"{package} does not work with NumPy {np.__version__} ({detail(error)}): pip install 'numpy<2.5'"
