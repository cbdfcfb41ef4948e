"""One child of a self-test: python -m busbw.bench.selftest GROUP FIRST_PART STOP_PART PIPE [quick]. Run by busbw gpu-selftest."""

import sys

from .children import serve
from .machine import machine_groups


def main(name: str, first: str, stop: str, pipe: str, quick: str = "") -> None:
    (group,) = (g for g in machine_groups(quick=bool(quick)) if g.name == name)
    serve(group, int(first), int(stop), int(pipe))


if __name__ == "__main__":
    main(*sys.argv[1:])
