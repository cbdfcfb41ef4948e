"""gpu-selftest's children: whatever becomes of one, its part is a finding and the parts behind it are tried."""

import importlib.util
import os
import sys
import time
from pathlib import Path

import pytest
from busbw.bench.selftest.children import run_in_children
from busbw.bench.selftest.closing import closing
from busbw.bench.selftest.findings import Finding, Group, Part, run_here, tally
from busbw.transports.session import Stalled, Unavailable

CHILD = Path(__file__).parent / "selftest_child.py"
_spec = importlib.util.spec_from_file_location("busbw_selftest_child", CHILD)
child = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(child)


def command(name, *numbers):
    return [sys.executable, str(CHILD), name, *map(str, numbers)]


def run(groups, **options):
    told = []
    findings = run_in_children(groups, command, told.append, **options)
    assert told == findings
    return findings


def test_a_crash_a_hang_and_an_error_cost_one_part_each():
    before = time.monotonic()
    found = run(child.GROUPS[:1])
    assert time.monotonic() - before < 60  # the part that hangs would for 1000 s
    assert [(f.what, f.ok) for f in found] == [
        ("first", True), ("before the crash", True), ("crash", False), ("second", True), ("before the hang", True),
        ("hang", False), ("broken", False), ("third", True), ("fourth", True),
    ]  # fmt: skip
    by_name = {f.what: f for f in found}
    assert "SIGSEGV" in by_name["crash"].detail and "CUDA says: something unspeakable" in by_name["crash"].detail
    assert "did not get on within 1.5 s" in by_name["hang"].detail
    assert (
        "cudaErrorIllegalAddress" in by_name["broken"].detail and "Traceback" in by_name["broken"].figures["traceback"]
    )
    # After a crash, a hang and an error another process goes on; without one the same does.
    process = {name: by_name[name].figures["process"] for name in ("first", "second", "third", "fourth")}
    assert len({process[name] for name in ("first", "second", "third")}) == 3
    assert process["third"] == process["fourth"]
    for pid in process.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_that_dies_after_its_last_word_or_before_its_first_is_said():
    found = run(child.GROUPS[1:])
    assert [(f.what, f.ok) for f in found] == [("reported", True), ("end of late", False)]
    assert "exit code 7" in found[1].detail
    mute = Group("mute", (Part("one", 60, list), Part("two", 60, list)))
    assert [(f.what, "exit code 3" in f.detail) for f in run([mute])] == [("one", True), ("two", True)]


def test_a_child_that_does_not_start_is_ended():
    def sleeps(name, first, stop, pipe):
        return [sys.executable, "-c", "import time; time.sleep(1000)"]

    (found,) = run_in_children([Group("g", (Part("p", 60, list),))], sleeps, lambda finding: None, start_limit=0.2)
    assert found.ok is False and "within 0.2 s" in found.detail


def test_parts_that_may_be_are_tried_side_by_side_and_all_else_in_order():
    found = run(child.BESIDE, workers=2)
    assert all(f.ok for f in found)  # two can only meet while both are there
    assert {f.what for f in found[:3]} == {"meets the second", "meets the first", "meets no other"}
    assert found[3].what == "alone"


def test_two_stalls_are_enough_and_what_is_not_available_is_not_a_stall():
    def stalls():
        raise Stalled("a rank did not get on within 3 s")

    def refused():
        raise Unavailable("not here")

    found = tally("t", [stalls] * 60)
    assert found.figures == {"tried": 2, "wrong": 2} and "given up after 2" in found.detail and found.raised
    found = tally("t", [refused] * 5 + [lambda: None])
    assert found.figures == {"tried": 6, "wrong": 5} and not found.raised
    assert tally("t", [lambda: "wrong"] * 60).figures == {"tried": 20, "wrong": 20}


def test_closing_a_broken_device_does_not_hide_the_first_error():
    class Broken:
        def close(self):
            raise RuntimeError("cudaErrorIllegalAddress again")

    with pytest.raises(ValueError, match="the first"), closing(Broken(), Broken()):
        raise ValueError("the first")
    with pytest.raises(RuntimeError, match="again"), closing(Broken()):
        pass


def test_in_this_process_a_part_that_lasts_too_long_is_told_while_it_lasts():
    import threading

    over = threading.Event()
    part = Part("slow", 0.05, lambda: [Finding("slow", over.wait(30))])
    told = []

    def late(part):
        told.append(part.name)
        over.set()

    (found,) = run_here([Group("g", (part,))], lambda finding: None, late)
    assert found.ok and told == ["slow"]
