"""The imports of the package are those that docs/architecture.md allows."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"
FREE = {"errors", "_compiled", "__version__", "COMPILED_IN", ""}  # of everybody; "": busbw itself


def allowed(heading: str) -> dict[str, set[str]]:
    """The table under a heading: room -> what it may import."""
    table = PAGE.read_text().split(f"| {heading} | holds | may import |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\w, ]*)\|$", table, re.MULTILINE)
    assert len(rows) > 3
    return {room: {word for word in re.split(r"[, ]+", may) if word} for room, may in rows}


def imports(path: Path):
    """(module as a path of names below busbw, line) of every import of our own in a file, wherever it stands."""
    place = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*place[: len(place) - node.level]]
            names = [node.module.split(".")] if node.module else [[a.name] for a in node.names]
            for name in names:
                yield [*base, *name], node.lineno
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "busbw":
            yield node.module.split(".")[1:] or [""], node.lineno
        elif isinstance(node, ast.Import):
            for a in node.names:
                if a.name.split(".")[0] == "busbw":
                    yield a.name.split(".")[1:] or [""], node.lineno


def files(room: str) -> list[Path]:
    alone = ROOT / f"{room}.py"
    return [alone] if alone.exists() else sorted((ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("room", list(allowed("room")))
def test_a_room_imports_only_what_lies_below(room):
    rooms = allowed("room")
    wrong = []
    for path in files(room):
        for module, line in imports(path):
            first = module[0]
            if first in rooms and first != room and first not in rooms[room]:
                wrong.append(f"{path.relative_to(ROOT)}:{line} imports {first}")
            assert first in rooms or first in FREE, (path, line, module)
    assert wrong == []


@pytest.mark.parametrize("floor", list(allowed("floor of fabric")))
def test_a_floor_of_the_fabric_stands_on_those_below(floor):
    floors = allowed("floor of fabric")
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {'.'.join(module)}"
        for path in files(f"fabric/{floor}")
        for module, line in imports(path)
        if module[0] == "fabric" and module[1] != floor and module[1] not in floors[floor]
    ]
    assert wrong == []


def test_the_rooms_have_no_circle():
    rooms, below = allowed("room"), {}
    for room in rooms:  # in the table's order everything that is imported has come before
        assert all(other in below for other in rooms[room] - {room}), room
        below[room] = True


def test_every_folder_of_the_package_is_a_room():
    folders = {p.parent.name for p in ROOT.glob("*/__init__.py")} - {"tests"}
    assert folders <= set(allowed("room"))
