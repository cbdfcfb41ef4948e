"""The console command: nothing takes time before Ctrl-C is looked after, and Ctrl-C ends it with one line, whatever it is about."""

import signal
import sys
from contextlib import contextmanager
from threading import current_thread, main_thread

AGAIN_SECONDS = 0.05
# In the file names of code that KeyboardInterrupt would not come through.
FOREIGN = ("<frozen importlib._bootstrap>", "/llvmlite/")


def main(arguments: list[str] | None = None) -> int:
    """As scripts.main, interrupted while that is imported or not. Without arguments it is the process's own command: once that is
    over, its exit code stands, and Ctrl-C is ignored for what is left of the process."""
    try:
        with _interrupts(over=arguments is None):
            try:
                from .scripts import main

                return main(arguments)
            except KeyboardInterrupt:
                from .scripts import interrupted

                return interrupted()
    except KeyboardInterrupt:  # once more, while that was said
        return 128 + signal.SIGINT


@contextmanager
def _interrupts(over: bool):
    """Inside, SIGINT raises KeyboardInterrupt where that reaches us; elsewhere it is tried again a moment later.

    Within an import it is changed: NumPy makes an ImportError of it. In llvmlite it leaves half-made objects,
    which are errors later. Within other callbacks from C, a __del__ and the like it goes no further than sys.unraisablehook. It is
    the alarm clock that tries again: a thread might have to wait for a lock that what was interrupted holds.
    """

    def again():
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)

    def interrupt(number, frame):
        while frame and frame.f_code is not main.__code__:
            if any(name in frame.f_code.co_filename for name in FOREIGN):
                return again()
            frame = frame.f_back
        raise KeyboardInterrupt

    def unraisable(what):
        if what.exc_type is KeyboardInterrupt:
            again()
        else:
            hook(what)

    # Elsewhere it is ignored, as in a shell's background, or looked after by who calls us, or does not come to this thread.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler or current_thread() is not main_thread():
        yield
        return
    hook = sys.unraisablehook
    alarm = signal.signal(signal.SIGALRM, lambda number, frame: signal.raise_signal(signal.SIGINT))
    signal.signal(signal.SIGINT, interrupt)
    sys.unraisablehook = unraisable
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN if over else signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        sys.unraisablehook = hook


if __name__ == "__main__":
    sys.exit(main())
