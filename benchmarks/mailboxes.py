"""What asking ahead for a mailbox's lines saves: python benchmarks/mailboxes.py

Two local ranks; each collective and size as it is, and as it would be without (program.Tuning.ahead), in turn within one process.
On a virtual machine two cores may be near one another for some seconds, and far for others: 8 B are timed before and after each
cell, which is counted for the state that both show, or not at all. A figure is the median over the rounds of the first fifth of
the samples.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace

import numpy as np
from busbw.bench.pattern import pattern
from busbw.collectives.collective import COLLECTIVES
from busbw.transports import session
from busbw.transports.session import Job, Session
from busbw.transports.shared import LocalCrew

CELLS = [
    (collective, algorithm, size, in_place)
    for collective, algorithm, sizes in (
        ("all_reduce", "one-shot", (128, 256, 512)),
        ("all_reduce", "ring", (256, 512, 1024)),
        ("all_gather", "ring", (256, 512, 1024)),
        ("reduce_scatter", "ring", (256, 512, 1024)),
        ("alltoall", "direct", (256, 512, 1024)),
    )
    for size in sizes
    for in_place in ((False, True) if collective == "all_reduce" else (False,))
]
FAR_MICROSECONDS = 0.13  # 8 B between cores that are far from one another
SAMPLES, CALLS = 30, 150


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    tuning = session.Tuning
    crew = LocalCrew(2, 1 << 20, 1 << 20, timeout=60)
    ranks = Session(crew)
    values = pattern("float32", "sum", 2)

    def microseconds(job: Job, ahead: bool) -> float:
        session.Tuning = lambda *given, **named: replace(tuning(*given, **named), ahead=ahead)
        ranks.prepare(job)
        ranks.fill(values.table)
        return float(np.percentile(ranks.time(SAMPLES, CALLS)[0], 20)) * 1e6

    def state() -> str:
        return "far" if microseconds(Job("one-shot", 2, "float32", "sum"), True) > FAR_MICROSECONDS else "near"

    found = defaultdict(list)
    for _ in range(args.rounds):
        for cell in CELLS:
            collective, algorithm, size, in_place = cell
            count = COLLECTIVES[collective].count_of(2, size // 4)
            job = Job(algorithm, count, "float32", "sum", in_place, collective=collective)
            before = state()
            times = [microseconds(job, ahead) for ahead in (False, True)]
            if state() == before:
                found[cell, before].append(times)
    print("| collective | size | cores | rounds | without, us | with | without / with |\n" + "|---" * 7 + "|")
    for (cell, where), times in sorted(found.items(), key=lambda item: (CELLS.index(item[0][0]), item[0][1])):
        collective, algorithm, size, in_place = cell
        without, ahead = np.median(times, axis=0)
        name = f"{collective}, {algorithm}" + ", in place" * in_place
        print(f"| {name} | {size} B | {where} | {len(times)} | {without:.3f} | {ahead:.3f} | {without / ahead:.2f} |")
    crew.close()


if __name__ == "__main__":
    main()
