"""One MPI job that goes through many cases: sets of its ranks, each with a transport. Used by the jobs beside it."""

import json
import sys
import time
from collections.abc import Callable

from busbw.transports import mpi


def run_cases(tried: Callable[..., dict]) -> None:
    """Call tried(comm, transport, node_size) on the ranks of each case, and print what each case's first rank returned.

    The first argument of the program is a JSON list of cases: [ranks of the world in this order, transport, ranks a node or 0
    for the real nodes, ...].
    """
    MPI = mpi.load()
    world = MPI.COMM_WORLD
    found = []
    for members, transport, node_size, *_ in json.loads(sys.argv[1]):
        mine = world.rank in members
        comm = world.Split(0 if mine else MPI.UNDEFINED, members.index(world.rank) if mine else 0)
        here = tried(comm, transport, node_size or None) if mine else None
        everyone = world.Ibarrier()
        while not everyone.Test():  # not a poll that takes the cores from those who work
            time.sleep(0.01)
        found.append(world.bcast(here, root=members[0]))
    if world.rank == 0:
        print(json.dumps({"cases": found}))
