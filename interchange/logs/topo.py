"""The matrix of nvidia-smi topo -m: how GPUs and NICs reach one another.

        GPU0    GPU1    NIC0    NIC1    CPU Affinity
GPU0     X      NV12    PIX     SYS     0-15
NIC0    PIX     SYS      X      SYS
"""

from __future__ import annotations

import re

MOST = 64  # columns
FAR = ("PIX", "PXB", "PHB", "NODE", "SYS")  # from one PCIe switch between to the link between processors
_END = re.compile(r"(?:GPU|NIC|mlx|bnxt|irdma|efa|rdmap|hfi)\w*$")
_PATH = re.compile(r"X$|NV\d+$|PIX$|PXB$|PHB$|NODE$|SYS$")


class Topo:
    """Takes the matrix's lines as they come."""

    def __init__(self):
        self._columns: list[str] = []
        self.between: list[str] = []  # GPUs
        self.to_nics: list[str] = []

    def take(self, text: str) -> bool:
        """Whether the line was one of the matrix."""
        if not text.startswith(("GPU", "NIC", "mlx", "bnxt", "rdmap")):
            return False
        words = text.split()[: MOST + 1]
        if words[0] == "GPU0" and len(words) > 1 and _END.match(words[1]):
            ends = words[: words.index("CPU")] if "CPU" in words else words
            self._columns = [w for w in ends if _END.match(w)]
            return True
        cells = words[1 : len(self._columns) + 1]
        if not self._columns or len(cells) < len(self._columns) or not all(map(_PATH.match, cells)):
            return False
        if words[0].startswith("GPU") and len(self.between) + len(self.to_nics) < MOST * MOST:
            for end, path in zip(self._columns, cells):
                if path != "X":
                    (self.between if end.startswith("GPU") else self.to_nics).append(path)
        return True

    def facts(self) -> dict[str, str]:
        """What it says that matters, in words."""
        found = {}
        near = [p for p in self.to_nics if p in FAR]
        if near and (best := min(near, key=FAR.index)) in ("PHB", "NODE", "SYS"):
            found["nic_path"] = f"no NIC is on a PCIe switch with a GPU: {best} at best in nvidia-smi topo -m"
        if self.between and not any(p.startswith("NV") for p in self.between):
            worst = max(self.between, key=FAR.index)
            if worst in ("PHB", "NODE", "SYS"):
                found["gpu_path"] = f"GPUs reach one another by {worst} in nvidia-smi topo -m, without NVLink"
        return found
