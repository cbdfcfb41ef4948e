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
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from itertools import groupby

from .findings import Finding, Group, found_by

START_LIMIT = 120.0  # seconds until a child is at its first part: it imports CuPy and may wait for a driver to wake
END_LIMIT = 20.0  # seconds a child has to end, once it has said all, or was killed
PRINTED_MAX = 2000  # characters of what a dead child printed

Command = Callable[[str, int, int, int], Sequence[str]]
"""(group's name, first part, the part before which to end, file descriptor to write to) -> the command of a child that calls
`serve` with them."""


def serve(group: Group, first: int, stop: int, pipe: int) -> None:
    """A child's work: the group's parts from `first` to before `stop`. Ends early after one that may have broken the device."""
    with os.fdopen(pipe, "w", buffering=1) as out:

        def say(**message) -> None:
            out.write(json.dumps(message) + "\n")

        for index, part in enumerate(group.parts[first:stop], first):
            say(begin=index)
            raised = False
            for finding in found_by(part):
                raised |= finding.raised
                say(finding=asdict(finding))
            say(end=index)
            if raised:
                return


def run_in_children(
    groups: Sequence[Group],
    command: Command,
    say: Callable[[Finding], None],
    workers: int = 1,
    start_limit: float = START_LIMIT,
) -> list[Finding]:
    """Try all of it, in order, or where groups allow it by up to `workers` children side by side; `say` is told each finding as
    it comes, one at a time."""
    findings: list[Finding] = []
    one_at_a_time = threading.Lock()
    alive: set[_Child] = set()
    given_up = threading.Event()

    def try_parts(group: Group, first: int, stop: int) -> None:
        while first < stop and not given_up.is_set():
            child = _Child(group, first, stop, command, start_limit)
            alive.add(child)
            if given_up.is_set():  # meanwhile, and who gave up may not have seen this one
                child.kill()
            try:
                for finding in child.findings():
                    with one_at_a_time:
                        findings.append(finding)
                        say(finding)
            finally:
                alive.discard(child)
                child.close()
            first = child.next

    for beside, some in groupby(groups, lambda group: group.beside):
        if not beside or workers == 1:  # one after another, and what a process has imported serves all its parts
            for group in some:
                try_parts(group, 0, len(group.parts))
            continue
        with ThreadPoolExecutor(workers) as pool:
            jobs = [pool.submit(try_parts, group, i, i + 1) for group in some for i in range(len(group.parts))]
            try:
                for job in jobs:
                    job.result()
            except BaseException:  # Ctrl-C, say: the rest is not waited for
                given_up.set()
                for child in list(alive):
                    child.kill()
                raise
    return findings


class _Child:
    def __init__(self, group: Group, first: int, stop: int, command: Command, start_limit: float):
        self.group, self.next = group, first
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115
        self._pipe, writing = os.pipe()
        self._start_limit = start_limit
        try:
            self._process = subprocess.Popen(
                command(group.name, first, stop, writing),
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
