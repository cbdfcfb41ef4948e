"""busbw pairs over six hosts, one of them behind a link of half the rate: what it says, and its picture.

    python benchmarks/pairs.py [PICTURE]

The hosts are network namespaces of this machine (tests/hosts.py; needs root and iproute2).
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path

_spec = importlib.util.spec_from_file_location("busbw_test_hosts", Path(__file__).parent.parent / "tests" / "hosts.py")
hosts = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = hosts
_spec.loader.exec_module(hosts)


def main(picture: str) -> None:
    with tempfile.TemporaryDirectory() as folder, hosts.hosts(6, megabits=40) as cluster:
        cluster.slow(3, 20)
        out = Path(folder) / "pairs.jsonl"
        done = cluster.mpirun([1] * 6, "-m", "busbw", "pairs", "-s", "256K", "--out", out, "-o", picture, timeout=300)
        print(done.stdout)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pairs.png")
