"""The progress line of the commands."""

from __future__ import annotations

import os
import sys
import time


class ProgressLine:
    """One line on stderr that is written over; for terminals only."""

    def __init__(self, shows: bool, *, every: float = 0.0, settle: float = 0.0):
        """shows: whether it is wanted; every: least seconds between two writings; settle: seconds before the time left is
        estimated."""
        self.shows = shows and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.every, self.settle = every, settle
        self.started = self.last = time.monotonic()
        self.shown = False

    def progress(self, done: float, total: int, text: str) -> None:
        """done: cells finished, parts of one counted, of `total`; total 0: not known yet."""
        now = time.monotonic()
        if not self.shows or (self.shown and now - self.last < self.every):
            return
        eta = ""
        if done and now - self.started > self.settle:
            eta = f", about {(now - self.started) / done * (total - done):.0f} s to go"
        count = f"[{int(done) + 1}/{total}] " if total else ""
        sys.stderr.write(f"\r\033[K{count}{text}{eta}")
        sys.stderr.flush()
        self.shown, self.last = True, now

    def clear(self) -> None:
        if self.shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
            self.shown = False
