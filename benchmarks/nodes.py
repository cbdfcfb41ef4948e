"""Node-aware collectives over several hosts of several ranks, beside the MPI library at its best setting.

    python benchmarks/nodes.py --hosts 4 --ranks 2 --megabits 200

The hosts are network namespaces of this machine (tests/hosts.py; needs root and iproute2), so that the links are the slow part and
two cores can drive them. In each round every contender runs once, in turn, so that drift of the machine hits all alike; a figure is
the median over the rounds. The library runs with its defaults, with its two-level module (HAN), and with each of its algorithms
below forced; its figure is, size by size, that of its fastest setting. As ranks outnumber cores, it is told to give the core away.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median

from busbw.bench.record import read
from busbw.bench.sizes import format_size

_spec = importlib.util.spec_from_file_location("busbw_test_hosts", Path(__file__).parent.parent / "tests" / "hosts.py")
hosts = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = hosts
_spec.loader.exec_module(hosts)

YIELD = {"OMPI_MCA_mpi_yield_when_idle": "1"}
OURS = {
    "all_reduce": "hierarchical,hierarchical-doubling,node-tree",
    "reduce_scatter": "hierarchical,hierarchical-direct",
    "all_gather": "hierarchical,hierarchical-direct",
}
TUNED = {
    "all_reduce": ("allreduce", {"recursive doubling": 3, "ring": 4, "segmented ring": 5, "rabenseifner": 6}),
    "reduce_scatter": ("reduce_scatter_block", {"recursive doubling": 2, "recursive halving": 3}),
    "all_gather": ("allgather", {"bruck": 2, "recursive doubling": 3, "ring": 4}),
}


def settings(collective: str) -> dict[str, dict[str, str]]:
    """Name -> environment."""
    name, forced = TUNED[collective]
    out = {"default": {}, "han": {"OMPI_MCA_coll_han_priority": "100"}}
    for what, number in forced.items():
        out[what] = {
            "OMPI_MCA_coll_tuned_use_dynamic_rules": "1",
            f"OMPI_MCA_coll_tuned_{name}_algorithm": str(number),
        }
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collective", default="all_reduce", choices=list(OURS))
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--ranks", type=int, default=2, help="a host")
    parser.add_argument("--megabits", type=float, default=200)
    parser.add_argument("-b", dest="first", default="1K")
    parser.add_argument("-e", dest="last", default="16M")
    parser.add_argument("-f", dest="factor", default="4")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if problem := hosts.missing():
        sys.exit(problem)
    times: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with (
        tempfile.TemporaryDirectory(prefix="busbw-nodes-") as folder,
        hosts.hosts(args.hosts, megabits=args.megabits) as cluster,
    ):
        out = Path(folder) / "measured.jsonl"

        def run(name: str, algorithms: str, environment: dict[str, str]) -> None:
            out.unlink(missing_ok=True)
            done = cluster.mpirun(
                [args.ranks] * args.hosts, "-m", "busbw", "sweep", "--collective", args.collective, "--algo", algorithms,
                "-b", args.first, "-e", args.last, "-f", args.factor, "-n", args.samples, "--in-place", "no", "--no-report", "-q",
                "--out", out, timeout=1800, **YIELD, **environment,
            )  # fmt: skip
            if done.returncode != 0:
                sys.exit(done.stdout + done.stderr)
            for r in read(out).records:
                times[f"{name}{r.algorithm}"][r.size_bytes].append(r.out_of_place.seconds)

        for round_ in range(args.rounds):
            print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr)
            run("", OURS[args.collective], {})
            for setting, environment in settings(args.collective).items():
                run(f"{setting}: ", "mpi-native", environment)
    shape = f"{args.hosts} hosts of {args.ranks} ranks, links of {args.megabits:g} Mb/s"
    print(f"{args.collective}, {shape}, float32, out of place; ms, median of {args.rounds} rounds")
    print("| size | ours | algorithm | library | setting | library / ours |\n|---|---|---|---|---|---|")
    for size in sorted(times["hierarchical"]):
        at = {name: median(by_size[size]) for name, by_size in times.items()}
        ours, algorithm = min((t, n) for n, t in at.items() if ":" not in n)
        library, setting = min((t, n) for n, t in at.items() if ":" in n)
        print(
            f"| {format_size(size)} | {1e3 * ours:.2f} | {algorithm} | {1e3 * library:.2f} | {setting.split(':')[0]} | "
            f"{library / ours:.2f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
