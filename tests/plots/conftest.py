"""Result files made up from t = alpha + n beta with noise, so that no measurement is needed to test what is drawn."""

import random
import statistics

import pytest
from busbw.bench.record import Record, ResultFile, Timing

ENVIRONMENT = {
    "cpu_model": "Test CPU 9000",
    "cores": 16,
    "hostnames": ["node-17"],
    "mpi": "Open MPI 5.0.8",
    "time": "2026-01-02T03:04:05+00:00",
    "memory_bytes": 1 << 36,
    "caches": {"L1d": 32768, "L3": 1 << 25},
    "governor": None,
    "command": "busbw sweep -b 8 -e 16M --ranks 8",
}
MODEL = {"ring": (14e-6, 1 / 6.2e9), "tree": (5e-6, 1 / 3.4e9), "mpi-native": (3e-6, 1 / 2.6e9)}
LIMITS = {"read": 210e9, "copy": 150e9, "add_nt": 171e9}


def timing(seconds, rng, samples=30, wrong=0):
    taken = [seconds * (1 + abs(rng.gauss(0, 0.02))) * (3 if rng.random() < 0.03 else 1) for _ in range(samples)]
    middle = statistics.median(taken)
    ends = (min(middle * 0.99, max(min(taken), middle * 0.98)), middle * 1.02)
    return Timing(middle, *ends, taken, 10, 5, "confidence", wrong)


def make(model=None, *, ranks=8, sizes=None, seed=1, samples=30, in_place=True, path="run.jsonl", limits=None, **more):
    """A ResultFile; `more` overrides fields of every record."""
    rng = random.Random(seed)
    fields = {
        "transport": "shared",
        "clock": "wall",
        "dtype": "float32",
        "op": "sum",
        "channels": 2,
        "slices": 4,
        "options": {"ranks": ranks},
        "environment": ENVIRONMENT,
        "warnings": [],
        "run": "r1",
        "time": "2026-01-02T03:04:05+00:00",
        **more,
    }
    records = []
    for n in sizes or [8 << i for i in range(0, 22)]:
        for algorithm, (alpha, beta) in (model or MODEL).items():
            modes = {
                "out_of_place": timing(alpha + beta * n, rng, samples),
                "in_place": timing(0.9 * (alpha + beta * n), rng, samples) if in_place else None,
            }
            own = {"algorithm": algorithm, "chosen": algorithm, "ranks": ranks, "size_bytes": n, "count": n // 4}
            records.append(Record(**{**own, **modes, **fields}))
    return ResultFile(path, records, LIMITS if limits is None else limits, [])


@pytest.fixture(name="make")
def _make():
    return make
