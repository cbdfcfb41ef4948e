"""Taking turns at compiling: the first alone, the others together once it is done; and nothing compiled twice."""

import threading
import time

import pytest
from busbw.kernels import cpu
from busbw.transports import compiling, program, walker
from busbw.transports.session import Job, Session
from busbw.transports.shared import LocalCrew


def test_the_first_is_alone_and_the_others_follow_together(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "_folder", lambda: str(tmp_path))
    waiting, all_wait = set(), threading.Event()

    def wait(seconds):
        waiting.add(threading.get_ident())
        if len(waiting) == 3:
            all_wait.set()
        time.sleep(seconds)

    monkeypatch.setattr(compiling, "_pause", wait)
    first_done, too_early = threading.Event(), []
    together = threading.Barrier(3)  # breaks unless three are inside at once

    def follow():
        with compiling.in_turn("x"):
            too_early.append(not first_done.is_set())
            together.wait(timeout=30)

    followers = [threading.Thread(target=follow) for _ in range(3)]
    with compiling.in_turn("x"):
        for f in followers:
            f.start()
        assert all_wait.wait(timeout=30)
        with compiling.in_turn("y"):  # another matter has a lock of its own
            pass
        first_done.set()
    for f in followers:
        f.join(timeout=60)
    assert too_early == [False] * 3
    assert not together.broken


@pytest.mark.parametrize("folder", ["/proc/no/such/folder", None])
def test_without_a_place_for_locks_all_go_ahead(folder, monkeypatch):
    monkeypatch.setattr(compiling, "_folder", lambda: folder)
    with compiling.in_turn("x"), compiling.in_turn("x"):
        pass


def test_nothing_is_compiled_for_a_literal_and_no_kernel_that_is_not_called():
    cpu._pointers.cache_clear()  # of what other tests have called
    session = Session(LocalCrew(2, 4096, 4096))
    session.prepare(Job("ring", 2, "float32", "prod"))
    session.close()
    for module in (walker, program):
        for function in vars(module).values():
            for signature in getattr(function, "signatures", ()):
                assert "Literal" not in str(signature), function
    assert "reduce_nt" not in cpu.pointers("prod", "float32").compiled
    assert cpu.pointers("prod", "float32").compiled
