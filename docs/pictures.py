"""Draws docs/img/ again: python docs/pictures.py [FOLDER]. The pictures are read off the schedules that run."""

import sys
from pathlib import Path

from busbw.collectives import build
from busbw.fabric.library.published import read
from busbw.fabric.library.validate import compare
from busbw.plots.curves import save
from busbw.plots.schedule_picture import ring_picture, tree_picture
from busbw.plots.validation import validation


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    print(save(ring_picture(build("ring", 4, 4)), folder / "ring.svg"))
    print(save(tree_picture(build("tree", 8, 16)), folder / "tree.svg"))
    print(save(validation(compare(read())), folder / "validation.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "img")
