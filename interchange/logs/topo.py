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
        self.neighbours: list[int] = []  # of each GPU, over NVLink
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
            self.neighbours.append(sum(p.startswith("NV") for p in cells))
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
        far = [p for p in self.between if p in FAR]
        if far and max(self.neighbours) < 2 and (worst := max(far, key=FAR.index)) in ("PHB", "NODE", "SYS"):
            linked = "NVLink joins pairs only" if max(self.neighbours) else "without NVLink"
            found["gpu_path"] = f"GPUs reach one another by {worst} in nvidia-smi topo -m, {linked}"
        return found
