"""Runs the groups of a self-test in child processes, so that a crash or a hang costs one part and not the rest.

A child goes through a group's parts and says what it finds on a pipe, a JSON object a line::

    {"begin": 2}                before each part
    {"finding": {...}}          as they come
    {"end": 2}                  after each part

What dies, or lasts longer than its limit, is a finding of the part it was at, with the last lines it printed; a new child goes on
with the part behind. So does one after a part in which something was raised, since an illegal address breaks a whole context.
The parent never touches a GPU.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict

from .findings import Finding, Group, found_by

START_LIMIT = 120.0  # seconds until a child is at its first part: it imports CuPy and may wait for a driver to wake
END_LIMIT = 20.0  # seconds a child has to end, once it has said all, or was killed
PRINTED_MAX = 2000  # characters of what a dead child printed

Command = Callable[[str, int, int], Sequence[str]]
"""(group's name, first part, file descriptor to write to) -> the command of a child that calls `serve` with them."""


def serve(group: Group, first: int, pipe: int) -> None:
    """A child's work: the group's parts from `first` on. Ends early after a part that may have broken the device."""
    with os.fdopen(pipe, "w", buffering=1) as out:

        def say(**message) -> None:
            out.write(json.dumps(message) + "\n")

        for index, part in enumerate(group.parts[first:], first):
            say(begin=index)
            raised = False
            for finding in found_by(part):
                raised |= finding.raised
                say(finding=asdict(finding))
            say(end=index)
            if raised:
                return


def run_in_children(
    groups: Sequence[Group], command: Command, say: Callable[[Finding], None], start_limit: float = START_LIMIT
) -> list[Finding]:
    """Try all of it, in order; `say` is told each finding as it comes."""
    findings: list[Finding] = []
    for group in groups:
        first = 0
        while first < len(group.parts):
            child = _Child(group, first, command, start_limit)
            try:
                for finding in child.findings():
                    findings.append(finding)
                    say(finding)
            finally:
                child.close()
            first = child.next
    return findings


class _Child:
    def __init__(self, group: Group, first: int, command: Command, start_limit: float):
        self.group, self.next = group, first
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115
        self._pipe, writing = os.pipe()
        self._start_limit = start_limit
        try:
            self._process = subprocess.Popen(
                command(group.name, first, writing),
                pass_fds=(writing,),
                stdin=subprocess.DEVNULL,
                stdout=self._printed,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # so that what it starts is ended with it
            )
        finally:
            os.close(writing)

    def findings(self) -> Iterator[Finding]:
        """What the child says, and at last what became of it, if that was not well. `next`: the part to go on with."""
        working, raised = True, False  # starting is part of the first part's work
        self._allow(self._start_limit)
        for message in self._messages():
            if message is None:
                self.kill()
                yield from self._gone(working, f"did not get on within {self._limit:g} s, and was ended")
                return
            if "finding" in message:
                finding = Finding(**message["finding"])
                raised |= finding.raised
                yield finding
                continue
            working = "begin" in message
            self.next = message["begin"] if working else message["end"] + 1
            self._allow(self.group.parts[self.next].limit if working else END_LIMIT)
        try:
            code = self._process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            yield from self._gone(working, f"did not end within {END_LIMIT:g} s")
            return
        if working or (code and not raised):
            yield from self._gone(working, _how_it_ended(code))

    def _gone(self, working: bool, how: str) -> Iterator[Finding]:
        self._printed.seek(0)
        printed = self._printed.read().decode(errors="replace").strip()[-PRINTED_MAX:]
        detail = f"its process {how}" + (f"; it had printed:\n{printed}" if printed else "")
        what = self.group.parts[self.next].name if working else f"end of {self.group.name}"
        self.next += working
        yield Finding(what, False, detail, raised=True)

    def _allow(self, seconds: float) -> None:
        self._limit, self._deadline = seconds, time.monotonic() + seconds

    def _messages(self) -> Iterator[dict | None]:
        """The child's messages until it closes the pipe; None once its time is over."""
        buffer = b""
        while True:
            ready, _, _ = select.select([self._pipe], [], [], max(0.0, self._deadline - time.monotonic()))
            if not ready:
                yield None
                return
            some = os.read(self._pipe, 1 << 16)
            if not some:
                return
            *lines, buffer = (buffer + some).split(b"\n")
            for line in lines:
                yield json.loads(line)

    def kill(self) -> None:
        """End the child and what it started, where they are still there."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            # What is inside the driver may not be ended by anything: then it is left there.
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_LIMIT)

    def close(self) -> None:
        self.kill()
        os.close(self._pipe)
        self._printed.close()


def _how_it_ended(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
