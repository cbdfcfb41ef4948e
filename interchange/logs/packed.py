"""A log packed by gzip, unpacked piece by piece as it is read, and never to more bytes than a log may have."""

from __future__ import annotations

import gzip
import io
import zlib

from ...bench.log import Note

MAGIC = b"\x1f\x8b"
CHUNK = 1 << 20  # bytes that are unpacked at once
MOST = 64 << 30  # bytes, of a log
FREE = 64 << 20  # bytes, to which a packed log may grow however small it is
MOST_TIMES = 200  # that a larger one may grow: logs pack 5 to 30 times, nothing beyond 1032 times


class Unpacked(io.RawIOBase):
    """The bytes of a gzip file, up to where it is whole and grows no more than a log does; `notes` is told of the rest."""

    def __init__(self, file: io.BufferedIOBase, notes: list[Note]):
        self._counted = _Counted(file)
        self._file = gzip.GzipFile(fileobj=self._counted)
        self._notes = notes
        self._out = 0
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        if self._ended:
            return 0
        try:
            count = self._file.readinto(memoryview(buffer)[:CHUNK])
        except (EOFError, zlib.error, gzip.BadGzipFile) as e:
            return self._end("torn", f"the packed file ends too early or is damaged: {str(e)[:80]}; read up to there")
        self._out += count
        if self._out > min(MOST, max(FREE, MOST_TIMES * self._counted.read_bytes)):
            return self._end(
                "limit", f"a packed log that grows more than {MOST_TIMES} times is read up to {self._out >> 20} MiB"
            )
        return count

    def _end(self, kind: str, text: str) -> int:
        self._notes.append(Note(0, kind, text))
        self._ended = True
        return 0


class _Counted:
    """A file of which is known how much was read."""

    def __init__(self, file: io.BufferedIOBase):
        self._file = file
        self.read_bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.read_bytes += len(data)
        return data
