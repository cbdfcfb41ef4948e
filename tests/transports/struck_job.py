"""Run under mpirun: a sweep of which one rank is struck at a place of its choice. Arguments: PLACE RANK STROKE [sweep's own ...].

PLACE: loading, MPI_Init, windows, limits, MPI_Finalize; STROKE: a signal's name, which the rank sends itself, or "raise".
"""

import os
import signal
import sys

from busbw.transports.launcher import launched_rank

place, victim, stroke, *arguments = sys.argv[1:]


def struck(function):
    def strike(*words, **named):
        if launched_rank() == int(victim):
            if stroke == "raise":
                raise ArithmeticError("two and two\nare five")
            os.kill(os.getpid(), getattr(signal, stroke))
        return function(*words, **named)

    return strike


import busbw.scripts as scripts  # noqa: E402
from busbw.transports import watchdog  # noqa: E402

if place == "loading":
    import busbw.scripts.sweep as sweep

    sweep.run = struck(sweep.run)
elif place == "windows":
    from busbw.transports.mpi import MpiCrew

    MpiCrew._open = struck(MpiCrew._open)
elif place == "limits":
    import busbw.bench.sweep as bench

    bench.measure_limits = struck(bench.measure_limits)
else:
    entered = watchdog._Waiting.__enter__
    struck_entered = struck(entered)

    def enter(waiting):
        return (struck_entered if waiting.watchdog.phase == place else entered)(waiting)

    watchdog._Waiting.__enter__ = enter
sys.exit(scripts.main(["sweep", *arguments]))
