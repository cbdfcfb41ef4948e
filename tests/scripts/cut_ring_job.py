"""Run by test_simulate_command.py under mpirun: `busbw simulate ARGUMENTS` with rings cut from a thousand messages on.

Each rank says at the end how many blocks it has advanced.
"""

import sys

from busbw.bench import modelled
from busbw.fabric import simulate
from busbw.scripts import main
from busbw.scripts import simulate as command

modelled.CUT_MESSAGES = 1000
blocks = 0
ring_block = simulate.ring_block


def counted(*arguments):
    global blocks
    blocks += 1
    return ring_block(*arguments)


simulate.ring_block = counted
counted.__module__, counted.__qualname__ = simulate.__name__, "ring_block"  # so that it travels by name
run = command.run


def told(args):
    code = run(args)
    print(f"blocks: {blocks}", file=sys.stderr, flush=True)
    return code


command.run = told  # under a launcher `main` leaves with the other ranks and does not come back
sys.exit(main(sys.argv[1:]))
