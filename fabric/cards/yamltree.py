"""YAML as a tree that knows its lines, built from the parser's events, so that nothing is expanded or constructed.

Files are hostile: 256 KiB at most, UTF-8, one document, no anchors, aliases or tags, no key twice, no deep nesting.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ...errors import UserError

MAX_BYTES = 256 * 1024
MAX_DEPTH = 8


class Branch(NamedTuple):
    where: str  # "file:line"
    value: object  # str, list[Branch] or dict[str, Branch]


def read(path: Path, *, what: str = "a system card", most: int = MAX_BYTES) -> Branch:
    """The mapping that a file of `most` bytes at most holds. what: it is said to be. Raises UserError that names file and line."""
    import yaml

    try:
        if not path.is_file():
            raise UserError(f"{path}: no such file")
        with path.open("rb") as f:
            raw = f.read(most + 1)
    except OSError as e:
        raise UserError(f"{path}: {e.strerror}") from None
    if len(raw) > most:
        raise UserError(f"{path}: more than {most // 1024} KiB; accepted: {what} (a few KiB)")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8 text; accepted: {what} in YAML") from None
    try:
        events = yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return _tree(events, path, what)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: not YAML: {' '.join(str(getattr(e, 'problem', None) or e).split())}") from None


def _tree(events, path: Path, what: str) -> Branch:
    import yaml

    top: list[Branch] = []
    stack: list[tuple[Branch, list]] = []  # open collections and, for a mapping, the key that waits for its value
    for event in events:
        where = f"{path}:{event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UserError(f"{where}: anchors and aliases (& and *) are not accepted")
        if getattr(event, "tag", None):
            raise UserError(f"{where}: the tag {event.tag[:60]!r} is not accepted")
        if isinstance(event, yaml.DocumentStartEvent) and top:
            raise UserError(f"{where}: a second document; accepted: one")
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            stack.pop()
            continue
        if isinstance(event, yaml.ScalarEvent):
            node = Branch(where, event.value)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = Branch(where, [])
        elif isinstance(event, yaml.MappingStartEvent):
            node = Branch(where, {})
        else:
            continue
        if not stack:
            top.append(node)
        elif isinstance(stack[-1][0].value, list):
            stack[-1][0].value.append(node)
        else:
            mapping, waiting = stack[-1]
            if not waiting:
                if not isinstance(node.value, str):
                    raise UserError(f"{where}: a key must be a word")
                if node.value in mapping.value:
                    raise UserError(f"{where}: the key {node.value[:60]!r} stands twice")
                waiting.append(node.value)
            else:
                mapping.value[waiting.pop()] = node
        if not isinstance(node.value, str):
            if len(stack) >= MAX_DEPTH:
                raise UserError(f"{where}: nested deeper than {MAX_DEPTH} levels")
            stack.append((node, []))
    if not top or not isinstance(top[0].value, dict):
        raise UserError(f"{path}: no keys; accepted: {what} in YAML")
    return top[0]
