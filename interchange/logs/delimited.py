"""Tables with commas, semicolons or tabs between cells: rccl-tests -Z csv (blanks after commas, quotes that stay), spreadsheets."""

from __future__ import annotations

import csv
from collections.abc import Callable

NAME = "delimited"


def splitter(header: str) -> Callable[[str], list[str] | None] | None:
    """How to split rows under this header; None where nothing separates its cells."""
    mark = next((m for m in ("\t", ",", ";") if header.count(m) >= 1), None)
    if mark is None:
        return None

    def split(text: str) -> list[str] | None:
        if mark not in text or len(text) > 4000:
            return None
        try:
            cells = next(csv.reader([text], delimiter=mark, skipinitialspace=True), None)
        except csv.Error:
            return None
        return [c.strip() for c in cells] if cells else None

    return split
