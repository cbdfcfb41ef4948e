"""Run under mpirun: a sweep of which one rank is struck at a place of its choice. Arguments: PLACE RANK STROKE [sweep's own ...].

PLACE: importing, loading, MPI_Init, windows, limits, MPI_Finalize; STROKE: a signal's name, which the rank sends
itself, or "raise".
"""

import importlib.abc
import os
import signal
import sys
import time

from busbw.__main__ import main
from busbw.transports.launcher import launched_rank

place, victim, stroke, *arguments = sys.argv[1:]


def strike():
    if launched_rank() != int(victim):
        return
    if stroke == "raise":
        raise ArithmeticError("two and two\nare five")
    os.kill(os.getpid(), getattr(signal, stroke))


def struck(function):
    def struck_function(*words, **named):
        strike()
        return function(*words, **named)

    return struck_function


class Importing(importlib.abc.MetaPathFinder):
    """Strikes in the midst of the first import of the command's own modules."""

    def find_spec(self, name, path, target=None):
        if name == "busbw.errors":
            sys.meta_path.remove(self)
            strike()


if place == "importing":
    sys.meta_path.insert(0, Importing())
elif place == "loading":
    import busbw.scripts.sweep as sweep

    sweep.run = struck(sweep.run)
elif place == "windows":
    from busbw.transports.mpi import MpiCrew

    MpiCrew._open = struck(MpiCrew._open)
elif place == "limits":
    import busbw.bench.sweep as bench
    from busbw.transports.memory import ABORT
    from busbw.transports.session import Session

    bench.measure_limits = struck(bench.measure_limits)
    abort = Session.abort

    def abort_first_and_speak_last(session, error):
        """The other rank has seen that somebody aborted well before the victim says why."""
        word = session.crew.arena.word(ABORT)
        if launched_rank() == int(victim):
            abort(session, error)
            seen = 0.0
            while not seen or time.monotonic() < seen + 1:  # busily: a rank that does nothing is late itself
                if word.value == 2:
                    seen = seen or time.monotonic()
        else:
            word.value = 2
            abort(session, error)

    Session.abort = abort_first_and_speak_last
else:
    from busbw.transports import watchdog

    entered = watchdog._Waiting.__enter__
    struck_entered = struck(entered)

    def enter(waiting):
        return (struck_entered if waiting.watchdog.phase == place else entered)(waiting)

    watchdog._Waiting.__enter__ = enter
sys.exit(main(["sweep", *arguments]))
