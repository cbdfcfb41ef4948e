"""busbw sweep: measure a collective over message sizes. Under mpirun the ranks are MPI's, else threads of this process."""

if not __package__:
    from _path import run_as_module

    run_as_module(__file__)

import os
import sys
from pathlib import Path

from ..errors import UserError, no_room
from . import _nccl_tests
from ._output import RESULT_FOLDER, Speaker, result_file

HELP = "measure all-reduce, or another collective, over message sizes"

DESCRIPTION = """\
Measure bandwidth and latency of all-reduce, or of another collective, over message sizes.

Without MPI the ranks are threads of this process (local emulated ranks); under mpirun they are the job's ranks. Prints
nccl-tests' table as it goes, then a summary in words; writes a result file, a picture and a report beside it."""

EPILOG = """\
examples:
  busbw sweep                                    8 B to 128 MiB, ring and tree, one rank a core
  busbw sweep --ranks 4 --algo all -b 1K -e 16M  every algorithm over four ranks
  busbw sweep -b 8 -e 8 -n 1000                  latency only
  busbw sweep --collective all_gather,bcast      other collectives; all: every one
  mpirun -np 4 busbw sweep --algo auto,mpi-native   our best against the MPI library's own
  busbw sweep --backend cupy --algo ring,tree,nccl   on GPUs, against NCCL
  busbw sweep --out a.jsonl --resume             go on where an interrupted sweep stopped
  busbw sweep --fabric memphis-b200-cx8-300k --ranks 32   real ranks and data, the time of that network

options of nccl-tests that are not named here are accepted where they ask for nothing special (-N 1, -m 1, -y 0, -C 0), and else
say what busbw has instead.

sizes take K, M and G as powers of two. exit codes: 0 fine, 1 wrong results, 2 bad usage, 3 a rank died or stalled,
4 no room left to write, 130 Ctrl-C (what was finished is in the table and the file)."""


def add_arguments(parser) -> None:
    sizes = parser.add_argument_group("sizes (as in nccl-tests)")
    sizes.add_argument("-b", "--minbytes", default="8", metavar="SIZE", help="smallest message (default 8)")
    sizes.add_argument("-e", "--maxbytes", default=None, metavar="SIZE", help="largest message (default 128M)")
    step = sizes.add_mutually_exclusive_group()
    step.add_argument("-f", "--stepfactor", metavar="N", help="multiply the size by N each time (default 2)")
    step.add_argument("-i", "--stepbytes", metavar="SIZE", help="add SIZE each time instead")

    what = parser.add_argument_group("what to run (as in nccl-tests)")
    what.add_argument("--collective", default="all_reduce", metavar="LIST", help=(
        "comma list of all_reduce, reduce_scatter, all_gather, broadcast, reduce, alltoall, gather, scatter, sendrecv (ring "
        "shift), pingpong (pairs), or all; MPI's and NCCL's spellings too (default all_reduce)"
    ))  # fmt: skip
    what.add_argument(
        "-r", "--root", type=int, metavar="RANK", help="of broadcast, reduce, gather, scatter (default 0)"
    )
    what.add_argument("-d", "--datatype", default="float", metavar="TYPE", help=(
        "element type, or all (default float); on GPUs through CuPy f8e4m3 and f8e5m2 too"
    ))  # fmt: skip
    what.add_argument("-o", "--op", default="sum", metavar="OP", help="sum, prod, min, max, avg, or all (default sum)")

    how = parser.add_argument_group("how to run it")
    how.add_argument("--ranks", type=int, metavar="P", help="local emulated ranks (default: one a core, 2 to 8)")
    how.add_argument("--algo", default=None, metavar="LIST", help=(
        "comma list; for all_reduce of ring, tree, binomial, recursive-doubling, halving-doubling, one-shot, two-shot "
        "(docs/schedule.md has the others'); auto (the fastest at each size), all; references: mpi-native (the MPI "
        "library's own), numpy, nccl (one rank a GPU) (default: a collective's first two; for all_reduce ring,tree)"
    ))  # fmt: skip
    how.add_argument("--backend", default="auto", metavar="WHAT", help=(
        "cpu, cupy or numba-cuda (buffers on GPUs, docs/gpu.md), or auto: a GPU where there is one (default)"
    ))  # fmt: skip
    how.add_argument(
        "-g", "--gpus", "--ngpus", type=int, metavar="N", help="take the first N GPUs (default: all, one rank each)"
    )
    _nccl_tests.add_arguments(how)
    how.add_argument("--transport", default="auto", help="auto (shared inside a host, mpi between), shared, mpi")
    how.add_argument("--channels", type=int, default=1, metavar="N", help="independent rings or trees (default 1)")
    how.add_argument("--slices", type=int, metavar="N", help="pieces of a chunk (default: by size; over MPI by trial)")
    how.add_argument("--node-size", type=int, metavar="N", help=(
        "take every N consecutive ranks as a node: for node-aware algorithms (hierarchical, node-tree, torus), and under mpirun "
        "also for the transport, to try the hybrid on one machine (default: hosts, with --fabric the system's nodes)"
    ))  # fmt: skip
    how.add_argument(
        "--eager",
        metavar="SIZE",
        help="largest message sent through a mailbox (default 512; GPUs: where it saves an ack)",
    )
    how.add_argument(
        "--no-pin",
        action="store_true",
        help="leave ranks where the launcher put them (default: one core each where they fit)",
    )

    measuring = parser.add_argument_group("measuring")
    measuring.add_argument("-n", "--iters", type=int, metavar="N", help=(
        "exactly N samples a size (default: until the median's 95 %% interval is within 5 %%)"
    ))  # fmt: skip
    measuring.add_argument(
        "-w", "--warmup-iters", type=int, metavar="N", help="exactly N warm-ups (default: until steady)"
    )
    measuring.add_argument(
        "--budget", type=float, default=0.25, metavar="S", help="seconds a size and mode (default 0.25)"
    )
    measuring.add_argument(
        "-c", "--check", type=int, default=1, metavar="N", help="check results; 0: do not (default 1)"
    )
    measuring.add_argument("-a", "--average", type=int, choices=(0, 1, 2, 3), default=3, help=(
        "a sample's time is that of rank 0 (0), the ranks' mean (1), min (2) or max (3, default)"
    ))  # fmt: skip
    measuring.add_argument("--fresh", action="store_true", help=(
        "every rank rewrites its input before each sample, as a program that computes it would; otherwise inputs stay in "
        "the caches of all who read them, as in every benchmark of this kind"
    ))  # fmt: skip
    measuring.add_argument(
        "-I", "--per-iteration", type=int, choices=(0, 1), nargs="?", const=1, default=0,
        help="add columns i_min, i_max, i_p99, i_cv%%",
    )  # fmt: skip
    measuring.add_argument("--in-place", choices=("both", "only", "no"), default="both", help="modes (default both)")
    measuring.add_argument("-T", "--timeout", type=float, default=60.0, metavar="S", help=(
        "give up when a rank does not come back for S seconds (default 60)"
    ))  # fmt: skip

    nccl = parser.add_argument_group("how --algo nccl is measured, on GPUs (as in nccl-tests)")
    nccl.add_argument("-R", "--local-register", type=int, metavar="0/1/2", help=(
        "buffers in NCCL's own memory, registered (1) or symmetric (2) (default 0)"
    ))  # fmt: skip
    nccl.add_argument("-G", "--cudagraph", type=int, metavar="N", help=(
        "all-reduces in a CUDA graph, which a sample launches N times (default 0: no graph)"
    ))  # fmt: skip
    nccl.add_argument("-z", "--blocking", type=int, choices=(0, 1), metavar="0/1", help=(
        "the host waits after each all-reduce, and its clock is read (default 0)"
    ))  # fmt: skip

    fabric = parser.add_argument_group("on a modelled network (docs/emulation.md)", (
        "Ranks move and reduce real data, but time is virtual: every message carries a time, every rank a clock, and both "
        "follow the network's figures. -n, -w and --budget are not needed."
    ))  # fmt: skip
    fabric.add_argument("--fabric", metavar="SYSTEM", help=(
        "a system card's name (busbw systems lists them) or YAML file; rank i is its i-th GPU"
    ))  # fmt: skip
    fabric.add_argument("--set", action="append", metavar="KEY=VALUE", help=(
        "another figure than the card's, such as nic.rate=400Gb/s or nodes=64; may be repeated"
    ))  # fmt: skip
    fabric.add_argument("--noise", metavar="WORDS", help=(
        "delays of receives, such as exponential:mean=2us; then a time is the median of 25 samples (or -n)"
    ))  # fmt: skip
    fabric.add_argument("--seed", type=int, metavar="N", help="of the noise and of ECMP's hashes (default 0)")
    fabric.add_argument("--routing", metavar="HOW", help="ecmp, static or adaptive (default: the card's)")
    fabric.add_argument("--fail-planes", type=int, metavar="N", help="planes of every NIC that are down")
    fabric.add_argument("--straggler", action="append", metavar="RANK:SPEED", help=(
        "a rank, or RANK:PART:SPEED with PART link, nic or memory, at a part of its speed: 17:50%%; may be repeated"
    ))  # fmt: skip
    fabric.add_argument("--pace", type=float, metavar="DILATION", help=(
        "also hold each message in wall-clock time until its virtual arrival times DILATION, and measure that"
    ))  # fmt: skip

    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="FILE", help=(
        f"result file, or a folder for a new one (default: {RESULT_FOLDER}/)"
    ))  # fmt: skip
    output.add_argument("--resume", action="store_true", help="go on from the records that --out already holds")
    output.add_argument("--no-out", action="store_true", help="write no file, picture or report")
    output.add_argument("--no-report", action="store_true", help="write the result file only")
    output.add_argument("-J", "--json", metavar="FILE", help="also write nccl-tests' JSON")
    output.add_argument("-q", "--quiet", action="store_true", help="no progress line and no summary")


def run(args) -> int:
    from ..bench.options import checked
    from ..transports import launcher

    _nccl_tests.check(args)
    options = checked(_options(args, mpi=launcher.launched()), mpi=launcher.launched())
    with result_file(args, "sweep", resume=args.resume) as out:
        _check_json(args)
        return _measured(args, options, out)


def _measured(args, options, out: str | None) -> int:
    from ..bench import record
    from ..bench.opening import session_for
    from ..bench.resume import resumable
    from ..bench.sweep import key, sweep
    from ..bench.table import footer, header, row
    from ..transports.session import Stalled

    said = Speaker(args.quiet)
    done: list = []
    finished: list = []
    limits: dict = {}
    try:
        said.progress(0, 0, "starting; the first time, kernels are compiled for this machine (some seconds)")
        with session_for(options) as session:
            said.silent = not session.is_root
            if out and args.resume and session.is_root:
                done = resumable(record.read(out, unfinished=True), options, session.ranks)
            keys = session.crew.agree([key(r) for r in done])
            said.line(_preamble(options, session, out, len(done)))
            named = len(options.algorithms) > 1
            for r in sweep(
                options, session, done=done, done_keys=keys, out=out, progress=said.progress, on_limits=limits.update
            ):
                if not finished or finished[-1].collective != r.collective:
                    if len(options.collectives) > 1:
                        said.line(f"#\n# Collective test starting: {r.collective}")
                    said.line(header(named, args.per_iteration))
                finished.append(r)
                said.line(row(r, named, args.per_iteration))
    except KeyboardInterrupt:
        said.line(f"# interrupted: {len(finished)} finished sizes are kept" + (f" in {out}" if out else ""))
        raise
    except UserError:
        said.clear()
        raise
    except OSError as e:
        if not no_room(e):
            raise
        kept = f"; {len(finished)} finished sizes are kept in {out}" if out else ""
        raise UserError(f"the table cannot be written: {e.strerror}{kept}") from None
    except Stalled as e:
        said.clear()
        sys.stderr.write(f"busbw sweep: {e}; {len(finished)} finished sizes are kept{f' in {out}' if out else ''}\n")
        return 3
    said.line(footer(finished) + "\n#")
    if said.silent:
        return 0 if _all_right(finished) else 1
    if not args.quiet:
        _summarise(finished, limits)
    _write(args, options, out, finished, said)
    return 0 if _all_right(finished) else 1


def _all_right(records) -> bool:
    return not any(t.wrong for r in records for t in (r.out_of_place, r.in_place) if t)


def _options(args, *, mpi: bool):
    from ..bench.measure import Effort
    from ..bench.options import OptionError, Options
    from ..bench.sizes import parse_size

    def size(flag: str, text: str | None) -> int | None:
        try:
            return None if text is None else parse_size(text)
        except ValueError as e:
            raise OptionError(f"{flag}: {e}") from None

    ranks, gpus = _nccl_tests.ranks_and_gpus(args, mpi=mpi)
    if args.check < 0:
        raise OptionError(f"-c {args.check}: accepted are 0 (do not check) and whole numbers above")
    first = size("-b", args.minbytes)
    last = size("-e", args.maxbytes)
    try:
        factor = None if args.stepfactor is None else float(args.stepfactor)
    except ValueError:
        raise OptionError(f"-f {args.stepfactor}: accepted is a number above 1") from None
    return Options(
        first=first,
        last=last if last is not None else max(first, 128 << 20),
        factor=factor,
        step=size("-i", args.stepbytes),
        collectives=_list(args.collective),
        root=None if args.root == -1 else args.root,
        algorithms=None if args.algo is None else _list(args.algo),
        dtypes=_list(args.datatype),
        ops=_list(args.op),
        ranks=ranks,
        backend=args.backend,
        gpus=gpus,
        transport=args.transport,
        channels=args.channels,
        slices=args.slices,
        node_size=args.node_size,
        eager_bytes=size("--eager", args.eager),
        modes={"both": ("out_of_place", "in_place"), "only": ("in_place",), "no": ("out_of_place",)}[args.in_place],
        effort=Effort(
            iterations=args.iters,
            warmup=args.warmup_iters,
            budget=args.budget,
            across=("first", "mean", "min", "max")[args.average],
            check=bool(args.check),
            fresh=args.fresh,
        ),
        nccl_register=args.local_register,
        nccl_graph=args.cudagraph,
        nccl_blocking=None if args.blocking is None else bool(args.blocking),
        timeout=args.timeout,
        pin=not args.no_pin,
        fabric=args.fabric,
        overrides=None if args.set is None else tuple(args.set),
        seed=args.seed,
        noise=args.noise,
        stragglers=None if args.straggler is None else tuple(args.straggler),
        routing=args.routing,
        failed_planes=args.fail_planes,
        pace=args.pace,
    )


def _list(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _check_json(args) -> None:
    """Make -J's folder and try to write, before anything is measured."""
    from ..transports import launcher

    if not args.json or launcher.launched_rank() != 0:
        return
    path = Path(args.json)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        there = path.exists()
        with open(path, "ab"):
            pass
        if not there:
            path.unlink()
    except OSError as e:
        raise UserError(f"-J {path}: cannot be written: {e.strerror}; name a file in a folder of yours") from None


def _preamble(options, session, out, resumed: int) -> str:
    from .. import __version__
    from ..bench.environment import cpu_model

    crew = session.crew
    pinned = ", pinned" if crew.pinned else ""
    hosts = len(set(crew.hosts))
    lines = [
        f"# busbw version {__version__}",
        f"# Collective test starting: {', '.join(options.collectives)}",
        f"# {session.ranks} {crew.kind} on {hosts} host{'s' * (hosts > 1)}{pinned}, transport {crew.transport}",
        f"# {cpu_model()}, {os.cpu_count()} cores",
        *_backend_lines(options, session),
        f"# algorithms {','.join(options.algorithms)}; a time is the median of the samples of the slowest rank",
        *_fabric_lines(options, session),
    ]
    if resumed:
        lines.append(f"# resuming: {resumed} finished rows are taken from {out}")
    return "\n".join([*lines, "#"])


def _backend_lines(options, session) -> list[str]:
    """What was taken for --backend, where that is not simply the CPU."""
    if options.backend == "cpu":
        return [f"# {options.backend_note}"] if options.backend_note else []
    from ..bench import gpu

    return gpu.lines(options, session)


def _fabric_lines(options, session) -> list[str]:
    """What the table's reader must know of a virtual clock."""
    if not session.clock:
        return []
    changed = [*(options.overrides or ()), *(f"straggler {s}" for s in options.stragglers or ())]
    if options.noise:
        changed.append(f"noise {options.noise}")
    if options.routing:
        changed.append(f"{options.routing} routing")
    if options.failed_planes:
        changed.append(f"{options.failed_planes} planes down")
    if options.noise or options.seed:
        changed.append(f"seed {options.seed}")
    lines = [
        f"# VIRTUAL TIMES: the ranks and the data are real, the clock is that of fabric {session.clock.name}"
        + (f" with {'; '.join(changed)}" if changed else "")
    ]
    if options.pace:
        lines.append(
            f"# paced: messages are held for {options.pace:g} wall-clock seconds a virtual second; behind each row the wall-clock "
            "time / that"
        )
    return lines


def _summarise(records, limits) -> None:
    from ..bench.summary import words

    print("\n".join(words(records, limits)))
    seen: dict[str, list] = {}
    for r in records:
        for text in r.warnings:
            seen.setdefault(text, []).append(r)
    if not seen:
        return
    everywhere = [text for text, where in seen.items() if len(where) == len(records)]
    here = {text: where for text, where in seen.items() if len(where) < len(records)}
    for text in everywhere:
        print(f"Warning: {text}.")
    if here:
        some = next(iter(here.items()))
        from ..bench.sizes import format_size

        r = some[1][0]
        print(
            f"Warning: {len({id(r) for where in here.values() for r in where})} of {len(records)} rows are uncertain, "
            f"for instance {format_size(r.size_bytes)} {r.algorithm}: {some[0]}."
        )


def _write(args, options, out, records, said) -> None:
    if args.json:
        from ..interchange.nccl_tests import write_json

        write_json(args.json, records)
        print(f"wrote {args.json}")
    if not out:
        return
    print(f"wrote {out}")
    if args.no_report or len({r.size_bytes for r in records}) < 2:
        return
    said.progress(0, 0, "drawing")
    from ..answer.situation import Given
    from ..answer.tables import answers_of_results
    from ..bench.record import read
    from ..plots.curves import curves, save
    from ..plots.report import report
    from ..plots.report import save as save_page

    result = read(out)
    picture, page = Path(out).with_suffix(".png"), Path(out).with_suffix(".html")
    save(curves([result]), picture)
    answers = [] if options.fabric else answers_of_results(result, Given())
    save_page(report([result], answers=answers), page)
    said.clear()
    print(f"wrote {picture}\nwrote {page}")
