"""A log as numbered lines of text, and the prefixes that launchers put before (and into) them.

    [1,0]<stdout>:      mpirun --tag-output, --output tag          [0]            MPICH and Intel MPI -prepend-rank, -l
    0:                  srun --label                               node7:         pdsh, clush
    [pod/NAME/NAME]     kubectl logs --prefix                      2024-05-01T12:00:00.123Z  --timestamps, journals, CI
    (head, rank=0, pid=100)   Ray and SkyPilot                     Thu Jul 18 15:41:05 2024  mpirun --timestamp-output

They come doubled, in any order. A prefix that is none of these is learnt from the line it stands before ("# nThread", "# size").
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

from ...bench.log import Note

CHUNK = 1 << 20
MAX_LINE = 1 << 20  # characters of one line that are looked at

_DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_DATE = rf"{_DAY}[ ]{_MONTH}[ ][ \d]\d[ ]\d\d:\d\d:\d\d[ ](?:[A-Z]{{2,5}}[ ])?\d{{4}}:?"
_TAG = r"\[[\w.@-]{0,80}?\d{1,9}(?:,\d{1,9})?\](?:<std(?:out|err|diag)>)?:?|<std(?:out|err|diag)>:?"
_TABLE_NEXT = r"(?=\s{0,40}(?:\#|\d[\d_]{0,20}\s+\d))"
_PREFIX = re.compile(
    rf"""(?:\s{{0,40}}(?:
      {_TAG}
    | {_DATE}
    | \[(?:pod|container)/[^\]\s]{{1,200}}\](?=\s)
    | \([^()]{{0,80}}\b(?:pid|rank|ip)=[^()]{{0,80}}\)(?=\s)
    | \[?\d{{4}}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})?(?:[ ]?Z|[ ]?[+-]\d\d:?\d\d)?\]?:?(?=\s)
    | \[?\d\d:\d\d:\d\d(?:[.,]\d{{1,9}})?\]?:?(?=\s)
    | {_MONTH}[ ][ \d]\d[ ]\d\d:\d\d:\d\d[ ][\w.-]{{1,80}}[ ][\w./-]{{1,80}}(?:\[\d{{1,9}}\])?:(?=\s)
    | -[ ](?:[\w.]{{1,60}}[ ]-[ ])?(?:INFO|DEBUG|WARNING|ERROR)[ ]-(?=\s|$)
    | [IWEF]\d{{4}}[ ]\d\d:\d\d:\d\d\.\d{{1,9}}[ ]{{1,8}}\d{{1,9}}[ ][^\]\s]{{1,80}}\](?=\s)
    | \[?(?:INFO|DEBUG|WARNING|ERROR|stdout|stderr)\]?\s?[:|-]?{_TABLE_NEXT}
    | \d{{1,7}}:(?=\s|$)
    | >(?=[ ]|$)
    | [A-Za-z][\w.-]{{0,80}}(?::|\s{{0,8}}\|)\s{_TABLE_NEXT}
    )){{1,6}}""",
    re.VERBOSE,
)
INSIDE = re.compile(rf"(?:{_DATE})?(?:{_TAG})")
_ANSI = re.compile(r"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_KNOWN_START = re.compile(
    r"#\s{0,80}(?:nThread|nccl-tests version|Using devices|Rank\s|size\s+count|bytes\s+N\s|\(B\)\s)"
)
_PREFIX_STARTS = frozenset("[(<>0123456789")


def lines(file: BinaryIO, notes: list[Note]) -> Iterator[list[str]]:
    """The file's lines, in lists of about a megabyte, without their ends. UTF-8 (what is not becomes U+FFFD), or UTF-16 where it
    begins with its mark. Of a longer line than MAX_LINE only the beginning is given; `notes` takes a Note of each."""
    head = file.read(CHUNK)
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    decoder = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")("replace")
    rest, number, cut = "", 0, False
    while head:
        text = decoder.decode(head)
        head = file.read(CHUNK)
        found = text.split("\n")
        if cut:  # the beginning of this line was given already
            found[0] = ""
        found[0] = rest + found[0]
        rest = found.pop()
        if found:
            cut = False
            if "\r" in text or max(map(len, found)) > MAX_LINE:
                found = [_shown(f, number + i, notes) for i, f in enumerate(found, 1)]
            number += len(found)
            yield found
        if len(rest) > MAX_LINE:
            rest, cut = _shown(rest, number + 1, notes), True
    rest += decoder.decode(b"", True)
    if rest:
        yield [_shown(rest, number + 1, notes)]


def _shown(line: str, number: int, notes: list[Note]) -> str:
    line = line.rstrip("\r")
    if "\r" in line:  # a progress bar that wrote over itself: what stood there last
        line = line[line.rfind("\r") + 1 :]
    if len(line) > MAX_LINE:
        notes.append(Note(number, "limit", f"a line of more than {MAX_LINE} characters; only its beginning is read"))
        line = line[:MAX_LINE]
    return line


class Stripper:
    """Takes prefixes off lines. prefix: what was taken off last."""

    def __init__(self):
        self.prefix = ""
        self._learnt: re.Pattern | None = None
        self._last = "\x00"  # no line begins so

    def __call__(self, line: str) -> str:
        """The line without its prefixes, its leading blanks kept."""
        if "\x1b" in line:
            line = _ANSI.sub("", line)
        if line.startswith(self._last):
            self.prefix = self._last
            return line[len(self._last) :]
        if self._learnt and (found := self._learnt.match(line)):
            self.prefix = line[: found.end()]
            return line[found.end() :]
        start = line.lstrip()[:1]
        if start in _PREFIX_STARTS or start.isalpha():
            found = _PREFIX.match(line, 0, 400)
            if found:
                rest = line[found.end() :]
                if rest.lstrip()[:1] != "#" and "#" in rest and (known := self._learn(line)):
                    return known
                self.prefix = line[: found.end()]
                if not any(c.isdigit() for c in self.prefix) or self.prefix.lstrip()[:1] in "[(<":
                    self._last = self.prefix
                elif self._last != "\x00":
                    self._last = "\x00"
                return rest
        self.prefix = ""
        return (self._learn(line) if start != "#" and "#" in line else "") or line

    def _learn(self, line: str) -> str:
        """What follows an unknown prefix, if a line of a table does; later lines are then known by that prefix's shape."""
        found = _KNOWN_START.search(line, 0, 400)
        if not found or not line[: found.start()].strip():
            return ""
        self.prefix = line[: found.start()]
        shape = re.sub(r"\d+", r"\\d+", re.sub(r"([^\w\s])", r"\\\1", self.prefix.rstrip()))
        self._learnt = re.compile(re.sub(r"\s+", r"\\s+", shape) + r"(?=\s|#)")
        return line[found.start() :]

    def inside(self, text: str) -> str:
        """A row without the prefixes that a launcher put into it, where the program flushed in the middle of a line."""
        own = self.prefix.strip()
        if len(own) > 2 and own in text:
            text = text.replace(own, " ")
        return INSIDE.sub(" ", text) if "[" in text or "<" in text else text
