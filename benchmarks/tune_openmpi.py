"""What `busbw tune` gains with Open MPI: python benchmarks/tune_openmpi.py [--ranks 2]

Measures each algorithm of coll/tuned and Open MPI's own choice, in turn, several rounds; has `busbw tune` write rules from that;
then measures Open MPI with those rules and without, in turn, in runs that the rules have not seen. Prints the ratio of times,
default over tuned, size by size: above 1 the rules are faster. "slower" stands where the rules' times are above the default's by
more than 5 % and beyond the noise (Mann-Whitney over all samples, corrected for the number of sizes).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from busbw.bench.choice import pooled
from busbw.bench.compare import benjamini_hochberg, mann_whitney
from busbw.bench.record import read
from busbw.bench.sizes import format_size
from busbw.interchange.tuner import OPEN_MPI_ALGORITHMS

DYNAMIC = "OMPI_MCA_coll_tuned_use_dynamic_rules"
FORCED = "OMPI_MCA_coll_tuned_allreduce_algorithm"
RULES = "OMPI_MCA_coll_tuned_dynamic_rules_filename"


def sweep(out: Path, settings: dict[str, str], args) -> Path:
    command = [
        "mpirun",
        "-np",
        str(args.ranks),
        "--oversubscribe",
        sys.executable,
        "-m",
        "busbw",
        "sweep",
        "--algo",
        "mpi-native",
    ]
    command += [
        "-b",
        args.first,
        "-e",
        args.last,
        "-f",
        str(args.factor),
        "--budget",
        str(args.budget),
        "--no-report",
        "--out",
        str(out),
    ]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr[-400:]}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="of learning (default 3)")
    parser.add_argument("--checks", type=int, default=3, help="rounds with the rules and without (default 3)")
    parser.add_argument("--budget", type=float, default=0.1, help="seconds a size (default 0.1)")
    parser.add_argument("-b", dest="first", default="64")
    parser.add_argument("-e", dest="last", default="4M")
    parser.add_argument("-f", dest="factor", type=int, default=4)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="busbw-tune-") as name:
        folder = Path(name)
        learned = []
        for i in range(args.rounds):
            learned.append(sweep(folder / f"default-{i}.jsonl", {}, args))
            for number in list(OPEN_MPI_ALGORITHMS.values())[:6]:  # the seventh cannot be forced in release 5.0
                learned.append(sweep(folder / f"{number}-{i}.jsonl", {DYNAMIC: "1", FORCED: str(number)}, args))
        rules = folder / "rules"
        command = [sys.executable, "-m", "busbw", "tune", *map(str, learned), "--for", "openmpi", "-o", str(rules)]
        print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        times: dict[str, dict[int, list]] = {"default": {}, "tuned": {}}
        for i in range(args.checks):
            for kind, settings in (("default", {}), ("tuned", {DYNAMIC: "1", RULES: str(rules)})):
                for r in read(sweep(folder / f"{kind}-check-{i}.jsonl", settings, args)).records:
                    times[kind].setdefault(r.size_bytes, []).append(r.best)
    rows = [(size, pooled(times["default"][size]), pooled(times["tuned"][size])) for size in sorted(times["default"])]
    sure = benjamini_hochberg([mann_whitney(a.samples, b.samples) for _, a, b in rows])
    print(f"{'size':>10} {'default, us':>12} {'tuned, us':>12} {'ratio':>7}")
    for (size, a, b), p in zip(rows, sure):
        ratio = a.seconds / b.seconds
        word = "" if p > 0.05 else "faster" if ratio > 1.05 else "slower" if ratio < 1 / 1.05 else ""
        print(f"{format_size(size):>10} {1e6 * a.seconds:12.2f} {1e6 * b.seconds:12.2f} {ratio:7.2f} {word}")


if __name__ == "__main__":
    main()
