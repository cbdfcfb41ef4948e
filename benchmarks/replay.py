"""Messages a second and memory of the message-level simulators: python benchmarks/replay.py [--large] [--json FILE]

Every row runs in a process of its own, so that its peak memory is its own: "memory" is what the process grew by over an idle one
that has imported and compiled everything. A row is the best of several runs of the simulator alone ("build" is the time to make
its input); CPU time is given beside wall-clock time because the simulators use one core and other jobs may share it.

LogGOPSim's figures for the same rings and trees, on another day on such a machine: 1.0 million messages/s at p = 1,024
(2.07 s, 176 MB), 38 s and 2.8 GB at p = 4,096, and 3.0 s for the binomial tree over 300,000 ranks.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
import time

import numpy as np


def _network(ranks):
    from busbw.fabric.physics.network import flat

    return flat(
        ranks, latency=700_000, byte_ps=10.0, send_overhead=200_000, recv_overhead=200_000, gap=5_000, reduce_ps=0.5
    )


def replay_table(ranks):
    from busbw.collectives import build
    from busbw.fabric.time.replay import replay

    schedule, net = build("ring", ranks, 1 << 28), _network(ranks)
    return lambda: replay(schedule, net, 4)


def replay_formula(name, ranks, slices=1):
    from busbw.fabric.time.generated import Generated
    from busbw.fabric.time.replay import replay

    schedule, net = Generated(name, ranks, 1 << 28, slices=slices), _network(ranks)
    return lambda: replay(schedule, net, 4)


def replay_fat_tree(ranks):
    from busbw.fabric.physics.routing import FatTree
    from busbw.fabric.time.contention import fat_tree
    from busbw.fabric.time.generated import Generated
    from busbw.fabric.time.replay import replay

    side = round(ranks**0.5)
    tree = FatTree(ports=side, leaves=side, pods=1, middles=side, port_rate=100e9, up_rate=100e9)
    schedule, net = Generated("ring", ranks, 1 << 28), _network(ranks)
    ends = np.arange(ranks) % side * side + np.arange(ranks) // side  # every hop leaves its leaf
    links = fat_tree(tree, schedule, net, ends=ends)
    return lambda: replay(schedule, net, 4, links=links)


PICOSECONDS = (700_000, 200_000, 5_000, 10)  # L, o, g, G of the peers' runs


def loggops_ring(ranks):
    from busbw.fabric.time.loggops import LogGOPS, RingGoal, simulate

    return lambda: simulate(RingGoal(ranks, 1 << 30), LogGOPS(*PICOSECONDS))


def loggops_goal(name, ranks):
    from busbw.collectives import build
    from busbw.fabric.time.loggops import LogGOPS, simulate
    from busbw.interchange.goal import from_schedule

    goal = from_schedule(build(name, ranks, 1 << 28, in_place=True), 4)
    return lambda: simulate(goal, LogGOPS(*PICOSECONDS))


ROWS = [
    ("replay, table", "ring", 1024, replay_table, (1024,), 5),
    ("replay, formula", "ring", 1024, replay_formula, ("ring", 1024), 5),
    ("replay, formula", "ring", 4096, replay_formula, ("ring", 4096), 2),
    ("replay, formula", "double binary tree, 8 slices", 100_000, replay_formula, ("tree", 100_000, 8), 2),
    ("replay, fat tree, ECMP", "ring", 256, replay_fat_tree, (256,), 5),
    ("LogGOPS, formula", "ring", 1024, loggops_ring, (1024,), 5),
    ("LogGOPS, formula", "ring", 4096, loggops_ring, (4096,), 2),
    ("LogGOPS, GOAL", "ring", 1024, loggops_goal, ("ring", 1024), 3),
    ("LogGOPS, GOAL", "binomial tree", 65_536, loggops_goal, ("binomial", 65_536), 3),
]
LARGE = [("replay, formula", "ring", 16_384, replay_formula, ("ring", 16_384), 1)]


def _peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _measure(row, pipe):
    """In a process of its own: compile on a small case, then build, run, report."""
    make, arguments, runs = row[3:]
    small = [16 if isinstance(a, int) and a > 100 else a for a in arguments]
    make(*small)()
    idle = _peak_mb()
    start = time.perf_counter()
    run = make(*arguments)
    build = time.perf_counter() - start
    best = None
    for _ in range(runs):
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        best = min(best or (wall, cpu), (wall, cpu))
    predicted = result.seconds * 1e3 if hasattr(result, "seconds") else result.time / 1e9
    pipe.send({
        "messages": result.messages, "build_seconds": build, "seconds": best[0], "cpu_seconds": best[1],
        "messages_per_second": result.messages / best[0], "memory_mb": _peak_mb() - idle, "peak_mb": _peak_mb(),
        "predicted_ms": predicted,
    })  # fmt: skip


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="also a ring over 16,384 ranks (half a minute)")
    parser.add_argument("--json", help="write the figures to this file too")
    args = parser.parse_args(argv)
    out = []
    print(f"{'simulator':<24}{'schedule':<30}{'ranks':>8}{'messages':>13}{'build s':>9}{'wall s':>9}{'cpu s':>8}"
          f"{'M msg/s':>9}{'memory MB':>11}{'peak MB':>9}{'predicted ms':>14}")  # fmt: skip
    context = multiprocessing.get_context("spawn")
    for row in ROWS + (LARGE if args.large else []):
        here, there = context.Pipe()
        process = context.Process(target=_measure, args=(row, there))
        process.start()
        there.close()
        try:
            got = here.recv()
        except EOFError:
            print(f"{row[0]} {row[1]} {row[2]}: the process ended without a result", file=sys.stderr)
            return 1
        process.join()
        out.append({"simulator": row[0], "schedule": row[1], "ranks": row[2], **got})
        print(f"{row[0]:<24}{row[1]:<30}{row[2]:>8}{got['messages']:>13}{got['build_seconds']:>9.2f}{got['seconds']:>9.3f}"
              f"{got['cpu_seconds']:>8.3f}{got['messages_per_second'] / 1e6:>9.2f}{got['memory_mb']:>11.0f}"
              f"{got['peak_mb']:>9.0f}{got['predicted_ms']:>14.6f}", flush=True)  # fmt: skip
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(out, file, indent=1)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
