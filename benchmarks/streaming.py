"""When results should be written around the cache: python benchmarks/streaming.py [--ranks 2]

The ring over local ranks with no, some and all results streamed (transports/program.py), in turn, for working sets
around the last-level cache. Inputs are filled first: pages that were never written may all be one page of zeros to the
hypervisor, and then fit any cache. transports/tuning.py has the thresholds that follow.
"""

from __future__ import annotations

import argparse

import numpy as np
from busbw.bench.environment import last_level_cache
from busbw.bench.pattern import pattern
from busbw.transports.session import Job, Session
from busbw.transports.shared import LocalCrew
from busbw.transports.tuning import STREAM_ALL_FROM, STREAM_AWAY_FROM

ROUNDS, WARM_UPS = 5, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    ranks = parser.parse_args().ranks
    cache = last_level_cache()
    shares = (0.25, 0.5, 0.75, 1, 1.5, 2, 4)
    sizes = [int(share * cache / (2 * ranks)) // 64 * 64 for share in shares]
    session = Session(LocalCrew(ranks, sizes[-1], 0))
    print(f"float32 sum, out-of-place, {ranks} ranks; us, median of {ROUNDS} rounds")
    print(f"{'working set / cache':>20} {'cached':>9} {'away':>9} {'all':>9}")
    for share, size in zip(shares, sizes):
        working_set = 2 * ranks * size
        # What the session takes the cache to be decides how it streams.
        pretended = {
            "cached": working_set / STREAM_AWAY_FROM * 2,
            "away": working_set / ((STREAM_AWAY_FROM + STREAM_ALL_FROM) / 2),
            "all": working_set / STREAM_ALL_FROM / 2,
        }
        session.prepare(Job("ring", size // 4, "float32", "sum"))
        session.fill(pattern("float32", "sum", ranks).table)
        times: dict[str, list[float]] = {name: [] for name in pretended}
        for _ in range(ROUNDS):
            for name, cache_bytes in pretended.items():
                session.cache_bytes = int(cache_bytes)
                session.prepare(Job("ring", size // 4, "float32", "sum"))
                for _ in range(WARM_UPS):  # the caches hold what the variant before left in them
                    session.run()
                times[name].append(float(np.median(session.time(25, 1)[0])))
        print(f"{share:>20} " + " ".join(f"{np.median(t) * 1e6:9.1f}" for t in times.values()))


if __name__ == "__main__":
    main()
