"""Closing what may be broken."""

from __future__ import annotations

from contextlib import contextmanager, suppress


@contextmanager
def closing(*things):
    """Gives the first of the things, and closes all at the end. Where something went wrong before, what closing says on top is
    left away: a device that is broken says the same of every call, and the first error is the one to read."""
    try:
        yield things[0]
    except BaseException:
        for thing in things:
            quietly_closed(thing)
        raise
    for thing in things:
        thing.close()


def quietly_closed(thing) -> None:
    """Close a thing of which an error has already been told."""
    with suppress(Exception):
        thing.close()
