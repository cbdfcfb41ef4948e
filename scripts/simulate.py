"""busbw simulate: what all-reduce takes on a described system. Under mpirun the points of the sweep are spread over the ranks."""

from __future__ import annotations

if not __package__:
    from _path import run_as_module

    run_as_module(__file__)

from contextlib import nullcontext
from pathlib import Path

from ..errors import UserError
from ._progress import ProgressLine

HELP = "model all-reduce on a system, from one node to 300,000 GPUs"

DESCRIPTION = """\
Model all-reduce on a described system: a name (busbw systems lists them) or your own card, a YAML file.

Prints nccl-tests' table as it goes, then a summary in words; with --out also writes a result file that busbw plot and
busbw report read, beside measured ones. Every time is computed, none is measured, and the same command gives the same times."""

EPILOG = """\
examples:
  busbw simulate memphis-b200-cx8-300k                      ring and tree over all GPUs, 8 B to 8 GiB
  busbw simulate dgx-h100-cx7 --ranks 8,64,512 --algo all   every algorithm; busbw plot draws the map
  busbw simulate dgx-b200-cx7 --set nic.rate=800Gb/s        what if?
  busbw simulate dgx-b200-cx7 --ranks 16 -e 1M --timeline run.png   a picture of every message
  busbw simulate alps-gh200 --ranks 32 --explain --library nccl-2.23.4 --algo auto   what NCCL would run, and why
  busbw simulate memphis-b200-cx8-300k --workload grok-1    a training step's gradients
  busbw simulate memphis-b200-cx8-300k --power 1GW --against memphis-h100-100k
  busbw simulate FILE.goal --loggops 2000,500,100,1,0,65536   a GOAL schedule, as LogGOPSim would
  mpirun -np 8 busbw simulate ...                           points of the sweep spread over 8 processes

models: auto takes the cheapest that is exact; recurrence and replay are exact for the schedule, message by message; loggp is an
estimate; library has the protocols of the communication library; nccl is what NCCL itself believes (docs/simulate.md).

exit codes: 0 fine, 2 bad usage, 130 Ctrl-C (what was finished is in the table and the file)."""


def add_arguments(parser) -> None:
    parser.add_argument("system", metavar="SYSTEM", help=(
        "a system's name or a card of your own (.yaml); with --loggops a schedule (.goal)"
    ))  # fmt: skip

    sizes = parser.add_argument_group("sizes (as in nccl-tests)")
    sizes.add_argument("-b", "--minbytes", default="8", metavar="SIZE", help="smallest message (default 8)")
    sizes.add_argument("-e", "--maxbytes", default=None, metavar="SIZE", help="largest message (default 8G)")
    step = sizes.add_mutually_exclusive_group()
    step.add_argument("-f", "--stepfactor", metavar="N", help="multiply the size by N each time (default 2)")
    step.add_argument("-i", "--stepbytes", metavar="SIZE", help="add SIZE each time instead")
    sizes.add_argument("-d", "--datatype", default="float", metavar="TYPE", help="element type (default float)")

    what = parser.add_argument_group("what to simulate")
    what.add_argument("--ranks", metavar="LIST", help="numbers of ranks, such as 8,64,512,300k (default: all GPUs)")
    what.add_argument("--collective", default="all_reduce", metavar="NAME", help=(
        "all_reduce (default), reduce_scatter, all_gather, broadcast, reduce, alltoall, gather, scatter, sendrecv or "
        "pingpong; the others are replayed message by message"
    ))  # fmt: skip
    what.add_argument("--root", type=int, default=0, metavar="RANK", help="of those that have one (default 0)")
    what.add_argument("--algo", default=None, metavar="LIST", help=(
        "comma list; for all_reduce of ring, tree, binomial, recursive-doubling, halving-doubling, one-shot, two-shot, and "
        "where switches add nvls, nvls-tree, sharp; auto (the fastest of ring and tree, or the library's choice), all "
        "(default ring,tree; for another collective all that it has)"
    ))  # fmt: skip
    what.add_argument(
        "--model", default="auto", help="auto, closed, loggp, recurrence, replay, library or nccl (default auto)"
    )
    what.add_argument("--library", metavar="RELEASE", help=(
        "with --model library or nccl: the release that runs, such as nccl-2.23.4 (default: the newest, or what the card says)"
    ))  # fmt: skip
    what.add_argument("--protocol", metavar="NAME", help="force the library's protocol: ll, ll128 or simple")
    what.add_argument("--explain", action="store_true", help=(
        "print what the library considers at each size, what it believes each pair takes, and why it chooses as it does"
    ))  # fmt: skip
    what.add_argument("--channels", type=int, default=1, metavar="N", help="independent rings or trees (default 1)")
    what.add_argument(
        "--slices", type=int, metavar="N", help="pieces of a chunk in flight (default: an estimate's best)"
    )

    what.add_argument("--backend", default="cpu", help=(
        "numba-cuda: evaluate rings on a GPU, with --model recurrence --algo ring (default cpu)"
    ))  # fmt: skip

    system = parser.add_argument_group("the system")
    system.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=(
        "a figure of the card, such as nic.rate=400Gb/s or nodes=64; may be given several times"
    ))  # fmt: skip
    system.add_argument("--routing", metavar="HOW", help="ecmp, static or adaptive (default: the card's)")
    system.add_argument("--contention", action="store_true", help=(
        "let messages meet on the links of the fat tree, each by its own way (up to 1,024 ranks; with --model auto or replay)"
    ))  # fmt: skip
    system.add_argument("--rails", metavar="HOW", help=(
        "aggregate (one rank of a domain has all its NICs), own (each rank its share), or how many share them (default: counted "
        "from the algorithm's schedule)"
    ))  # fmt: skip
    system.add_argument("--fail-planes", type=int, default=0, metavar="N", help="planes of every NIC that are down")
    system.add_argument("--straggler", action="append", default=[], metavar="RANK:SPEED", help=(
        "17:50%% or 0-7:nic:0.5 (link, nic, memory): slower ranks; may be given several times"
    ))  # fmt: skip
    system.add_argument("--noise", metavar="CAUSES", help="such as exponential:mean=2us+os:period=10ms,duration=20us")
    system.add_argument("--seed", type=int, default=0, metavar="N", help="of noise and of ECMP's hashes (default 0)")

    uses = parser.add_argument_group("uses")
    uses.add_argument("--timeline", action="append", default=[], metavar="FILE", help=(
        "one all-reduce of the size -e, up to 64 ranks, as a space-time diagram (.png, .svg, .pdf) or a trace for Perfetto "
        "(.json); may be given several times"
    ))  # fmt: skip
    uses.add_argument(
        "--workload", metavar="NAME", help="a training step's gradients: grok-1, or a file of your own (.yaml)"
    )
    uses.add_argument("--buckets", metavar="LIST", help="gradient buckets instead: 25M,25M,8M or 40x25M")
    uses.add_argument(
        "--shards", type=int, metavar="N", help="GPUs that share one copy of the model (default: the workload's)"
    )
    uses.add_argument("--gradient-bytes", type=int, metavar="N", help="bytes of one gradient (default: the workload's)")
    uses.add_argument("--power", metavar="W", help="size the system to a power budget, such as 1GW")
    uses.add_argument(
        "--against", metavar="SYSTEM", help="with --power: the system to compare with (default: memphis-h100-100k)"
    )

    uses.add_argument("--loggops", metavar="L,o,g,G,O,S", help=(
        "simulate a GOAL file, of `busbw export` or others, under LogGOPSim's model: latency, overhead, gap, gap a byte, overhead "
        "a byte, rendezvous size; whole numbers of one unit of time"
    ))  # fmt: skip

    output = parser.add_argument_group("output")
    output.add_argument("--out", metavar="FILE", help="result file")
    output.add_argument("-q", "--quiet", action="store_true", help="no progress line and no summary")


def run(args) -> int:
    from ..bench import modelled

    if args.loggops or args.system.endswith(".goal"):
        return _loggops(args)
    with modelled.spread() as pool:
        if pool is False:  # this MPI rank works for rank 0
            return 0
        return _run(args, pool)


def _run(args, pool) -> int:
    from ..fabric import simulate
    from ..fabric.cards import card

    system = card.override(card.load(args.system), args.set)
    if args.explain and args.model == "auto":
        args.model = "library"
    uses = [name for name in ("timeline", "workload", "buckets", "power") if getattr(args, name)]
    if len(uses) > 1:
        raise UserError(f"--{uses[0]} and --{uses[1]}: accepted is one of them at a time")
    if args.against and not args.power:
        raise UserError("--against goes with --power, such as --power 1GW")
    for name in ("shards", "gradient_bytes"):
        if getattr(args, name) is not None and not args.workload:
            raise UserError(f"--{name.replace('_', '-')} goes with --workload")
    options = simulate.checked(system, _options(args, system))
    if args.explain:
        return _explain(system, options)
    if args.timeline:
        return _timeline(args, system, options)
    if args.workload or args.buckets:
        return _workload(args, system, options)
    if args.power:
        return _power(args, system, options)
    return _sweep(args, system, options, pool)


def _loggops(args) -> int:
    from ..fabric.time.loggops import LogGOPS, simulate
    from ..interchange import goal

    if not args.loggops:
        raise UserError(
            f"{args.system}: a GOAL file needs --loggops L,o,g,G,O,S, such as --loggops 2000,500,100,1,0,65536"
        )
    if not args.system.endswith(".goal"):
        raise UserError(f"--loggops goes with a GOAL file; {args.system[:60]} does not end in .goal")
    words = args.loggops.split(",")
    if not 4 <= len(words) <= 6 or not all(w.strip().isdigit() and len(w) < 19 for w in words):
        raise UserError(f"--loggops {args.loggops[:60]}: accepted are 4 to 6 whole numbers, L,o,g,G[,O[,S]]")
    schedule = goal.read(args.system)
    try:
        done = simulate(schedule, LogGOPS(*(int(w) for w in words)))
    except ValueError as e:
        raise UserError(f"--loggops: {e}") from None
    print(f"# {args.system}: {schedule.ranks} ranks, {len(schedule.kind)} operations, {done.messages} messages")
    print(f"# LogGOPS {args.loggops}; times in its unit")
    print(f"{'# rank':>8}  {'finished':>20}")
    shown = range(schedule.ranks) if schedule.ranks <= 64 else ()
    for rank in shown:
        print(f"{rank:>8}  {int(done.finish[rank]):>20}")
    print(f"{'last':>8}  {done.time:>20}")
    return 0


def _options(args, system):
    from ..bench import modelled
    from ..bench.sizes import parse_size
    from ..collectives.collective import ALL_REDUCE, COLLECTIVES
    from ..fabric.simulate import Options
    from ..kernels.dtypes import find_dtype

    def size(flag: str, text: str | None) -> int | None:
        try:
            return None if text is None else parse_size(text)
        except ValueError as e:
            raise UserError(f"{flag}: {e}") from None

    try:
        factor = None if args.stepfactor is None else float(args.stepfactor)
    except ValueError:
        raise UserError(f"-f {args.stepfactor}: accepted is a number above 1") from None
    try:
        itemsize = find_dtype(args.datatype).itemsize
    except ValueError as e:
        raise UserError(f"-d: {e}") from None
    first = size("-b", args.minbytes)
    last = size("-e", args.maxbytes)
    ranks = args.ranks
    if args.timeline:
        first = last = 1 << 20 if last is None else last
        ranks = str(min(16, system.gpus)) if ranks is None else ranks
    elif args.power:
        first = last = 1 << 30 if last is None else last
    collective = COLLECTIVES[modelled.collective_of(args.collective)]
    numbers = modelled.numbers_of_ranks(ranks, system)
    if args.minbytes == "8":  # the default: each rank needs an element
        first = max(first, collective.size_count(max(numbers), 1) * itemsize)
    last = max(first, 8 << 30) if last is None else last
    for use in ("workload", "buckets", "power"):
        if getattr(args, use) and collective != ALL_REDUCE:
            raise UserError(f"--{use} is about all-reduce; accepted: without --collective {args.collective}")
    return Options(
        ranks=numbers,
        sizes=modelled.sizes_of(first, last, factor, size("-i", args.stepbytes), itemsize),
        algorithms=None if args.algo is None else tuple(a.strip() for a in args.algo.split(",") if a.strip()),
        collective=collective.name,
        root=args.root,
        model=args.model,
        itemsize=itemsize,
        channels=args.channels,
        slices=args.slices,
        seed=args.seed,
        noise=args.noise,
        stragglers=tuple(args.straggler),
        failed_planes=args.fail_planes,
        routing=args.routing,
        rails=_rails(args.rails),
        threads=_threads(),
        backend=args.backend,
        library=args.library,
        protocol=args.protocol,
        contention=args.contention,
    )


def _rails(text: str | None) -> str | float | None:
    try:
        return text if text is None else float(text)
    except ValueError:
        return text


def _threads() -> int:
    """Cores of this process: those it may use, shared among the MPI ranks of this host."""
    from ..transports.affinity import room
    from ..transports.launcher import launch

    started = launch()
    return max(1, room() // max(1, (started and started.ranks_here) or 1))


def _sweep(args, system, options, pool) -> int:
    from ..bench import modelled
    from ..bench.record import claimed, result_path

    modelled.check_memory(system, options)
    with claimed(result_path(args.out, "simulate")) if args.out else nullcontext() as out:
        return _swept(args, system, options, pool, out)


def _swept(args, system, options, pool, out: str | None) -> int:
    from ..bench import modelled
    from ..bench.summary import words
    from ..bench.table import footer, header, row
    from ..kernels.dtypes import find_dtype

    said = ProgressLine(not args.quiet, every=0.1, settle=1.0)
    print(_preamble(system, options, pool, args.set), flush=True)
    lines = header().split("\n")
    print("\n".join([lines[0], f"{lines[1]}  # algorithm, ranks", lines[2]]), flush=True)
    records = []
    dtype = find_dtype(args.datatype).name
    swept = modelled.sweep(system, options, dtype=dtype, overrides=args.set, out=out, progress=said.progress, pool=pool)
    try:
        for r in swept:
            records.append(r)
            said.clear()
            chosen = "" if r.chosen in (r.algorithm, f"{r.algorithm}/simple") else f" ({r.chosen})"
            print(f"{row(r)}  # {r.algorithm}{chosen}, {r.ranks}{_band(r)}", flush=True)
    except KeyboardInterrupt:
        swept.close()
        said.clear()
        print(f"# interrupted: {len(records)} finished points are kept" + (f" in {out}" if out else ""), flush=True)
        raise
    said.clear()
    print(footer(records).split("\n")[1] + "\n#")
    if not args.quiet:
        print("\n".join([*words(records, {}), *modelled.words(system, options, records)]))
        _warn(records)
    if out:
        print(f"wrote {out}; busbw plot {out} draws it")
    return 0


def _band(r) -> str:
    """The interval of a model that has one, behind the table's row."""
    from ..bench.summary import time_words

    t = r.best
    return f"; 90 %: {time_words(t.ci_low)} to {time_words(t.ci_high)}" if t.ci_high > t.ci_low else ""


def _explain(system, options) -> int:
    """What the library considers at each size, and why it runs what it runs."""
    from ..bench.summary import size_words, time_words
    from ..fabric.library import predict, releases
    from ..fabric.simulate import run_of

    print(f"# {system.name}: {system.title}")
    machine = predict.platform(system)
    if machine.generation in releases.GENERATIONS:
        print(
            f"# NCCL {predict.tables(machine, options.library).release.name}, {machine.generation}, {machine.network}"
        )
    for ranks in options.ranks:
        for algorithm in options.algorithms:
            for size in options.sizes:
                told = predict.expect(machine, ranks, size, run_of(options, algorithm))
                c, b = told.choice, told.band
                print(
                    f"#\n# {algorithm}, {ranks} ranks, {size_words(size)}: {c.algorithm} {c.protocol.upper()}"
                    + (f", {c.channels} channels" if c.channels else "")
                    + f": {time_words(told.seconds)}; half of measurements within {time_words(b.low50)} to {time_words(b.high50)}, "
                    f"90 % within {time_words(b.low90)} to {time_words(b.high90)} ({told.kind})"
                )
                for why in told.why:
                    print(f"#   {why}")
                _candidates(machine, ranks, size, told, options.library)
    return 0


def _candidates(machine, ranks: int, size: int, told, library: str | None) -> None:
    from ..bench.summary import time_words
    from ..fabric.library import clock, predict

    if not told.candidates:
        return
    comm = predict.communicator(machine, ranks, library)
    work = predict.job(machine, ranks, comm)
    print(f"  {'algorithm':<15} {'protocol':<9} {'the library believes':>21} {'the clock says':>15}")
    for c in told.candidates:
        real = clock.seconds(work, size, c.algorithm, c.protocol)
        mark = " <- runs" if (c.algorithm, c.protocol) == (told.choice.algorithm, told.choice.protocol) else ""
        print(f"  {c.algorithm:<15} {c.protocol:<9} {time_words(c.seconds):>21} {time_words(real):>15}{mark}")


def _best(system, options, ranks: int, size_bytes: int) -> tuple[str, float]:
    """(algorithm, seconds) of the fastest algorithm asked for."""
    from ..fabric.simulate import Point, evaluate

    size_bytes = max(size_bytes // options.itemsize, 1) * options.itemsize
    tried = [evaluate(system, options, Point(a, ranks, size_bytes)) for a in options.algorithms]
    best = min(tried, key=lambda m: m.seconds)
    return best.chosen, best.seconds


def _timeline(args, system, options) -> int:
    from ..bench.summary import size_words
    from ..fabric.physics.network import PS
    from ..fabric.simulate import traced
    from ..plots.timeline import MOST_RANKS, title_of

    if len(options.ranks) > 1 or options.ranks[0] > MOST_RANKS:
        raise UserError(f"--timeline: accepted is one number of --ranks, 2 to {MOST_RANKS}")
    for text in args.timeline:
        if Path(text).suffix.lower() not in (".png", ".svg", ".pdf", ".json"):
            raise UserError(f"--timeline {text}: accepted are files that end in .png, .svg, .pdf or .json")
    ranks, size = options.ranks[0], options.sizes[0]
    for algorithm in options.algorithms:
        done, schedule = traced(system, options, algorithm, ranks, size)
        said = f"{schedule.channels} channel{'s' * (schedule.channels > 1)}, {len(done.trace.messages):,} messages"
        title = title_of(algorithm, ranks, size, done.picoseconds)
        note = f"modelled on {system.name} · {said}"
        for text in args.timeline:
            path = Path(text)
            if len(options.algorithms) > 1:
                path = path.with_name(f"{path.stem}-{algorithm}{path.suffix}")
            _draw(path, done.trace, ranks, title, note, system)
            print(f"{algorithm}, {ranks} ranks, {size_words(size)}: {done.picoseconds / PS * 1e6:.3f} us; wrote {path}")
    return 0


def _draw(path: Path, trace, ranks: int, title: str, note: str, system) -> None:
    ports = (system.node.link.name.split(",")[0], "NIC")
    if path.suffix.lower() == ".json":
        from ..fabric.time.timeline import chrome_trace

        try:
            path.write_text(chrome_trace(trace, name=title, port_names=ports), encoding="utf-8")
        except OSError as e:
            raise UserError(f"--timeline {path}: cannot be written: {e.strerror}") from None
        return
    from ..plots.curves import save
    from ..plots.timeline import timeline

    save(timeline(trace, ranks, title=title, note=note, port_names=ports), path)


def _workload(args, system, options) -> int:
    from dataclasses import replace

    from ..fabric import workload

    for gpus in options.ranks:
        if args.buckets:
            buckets = _buckets(args.buckets)
            group, stride = gpus, 1
            about = [f"# {sum(b.times for b in buckets)} gradient buckets over {gpus} ranks of {system.name}"]
        else:
            load = workload.load(args.workload)
            shards = _count("--shards", args.shards, load["shards"], system.gpus)
            each = _count("--gradient-bytes", args.gradient_bytes, load["gradient_bytes"], 16)
            group, stride = workload.group_ranks(gpus, shards), shards
            buckets = workload.buckets(load, group, shards=shards, gradient_bytes=each)
            about = _about(load, system, gpus, shards, each, args)
        own = replace(options, ranks=(group,), stride=stride)
        step = workload.step(buckets, group, lambda size, o=own, p=group: _best(system, o, p, size))
        print("\n".join([*about, *_step_table(step)]))
    return 0


def _count(flag: str, value: int | None, default: int, most: int) -> int:
    value = default if value is None else value
    if not 1 <= value <= most:
        raise UserError(f"{flag} {value}: accepted are 1 to {most}")
    return value


def _about(load, system, gpus: int, shards: int, each: int, args) -> list[str]:
    """The assumptions, each with its standing."""

    def standing(key: str, given) -> str:
        figure = load.figures[key]
        return "given" if given is not None else f"{figure.status}: {figure.how or figure.source}"

    largest = max(load["bucket.least"], load["bucket.each_rank"] * (gpus // shards))
    return [
        f"# {load.title}",
        f"# {load.parameters / 1e9:.1f} billion parameters ({load.figures['parameters.layer'].source})",
        f"# one copy on {shards} GPUs ({standing('shards', args.shards)})",
        f"# {each} bytes a gradient ({standing('gradient_bytes', args.gradient_bytes)})",
        f"# buckets of {largest / 1e6:.0f} million parameters ({standing('bucket.least', None)})",
        f"# {gpus} GPUs of {system.name}: {gpus // shards} copies; every GPU's gradients are summed over {gpus // shards} ranks,",
        f"# all {shards} groups at once, each rank with its own share of the NICs",
    ]


def _step_table(step) -> list[str]:
    from ..bench.record import busbw_factor
    from ..bench.summary import size_words, time_words

    lines = [
        "#",
        f"# {'bucket':>12}  {'times':>7}  {'algorithm':>18}  {'time of one':>12}  {'together':>10}  {'busbw':>7}",
    ]
    lines.append(f"# {'':>12}  {'':>7}  {'':>18}  {'':>12}  {'':>10}  (GB/s)")
    for r in step.rows:
        rate = r.bucket.size_bytes / r.seconds * busbw_factor(step.ranks) / 1e9 if r.seconds else 0.0
        lines.append(
            f"  {size_words(r.bucket.size_bytes):>12}  {r.bucket.times:>7}  {r.algorithm:>18}  {time_words(r.seconds):>12}  "
            f"{time_words(r.seconds * r.bucket.times):>10}  {rate:>7.1f}"
        )
    return [
        *lines,
        "#",
        f"Not overlapped: a step spends {time_words(step.seconds)} on {size_words(step.size_bytes)} of gradients a GPU.",
        f"Overlapped: with a backward pass of {time_words(step.seconds - step.last_seconds)} or more, "
        f"{time_words(step.last_seconds)} (the last bucket) stay visible.",
    ]


def _buckets(text: str):
    """Buckets of "25M,25M,8M" and "40x25M"."""
    from ..bench.sizes import parse_size
    from ..fabric.workload import BUCKETS_MAX, Bucket

    found = []
    for item in text.split(","):
        times, x, size = item.lower().partition("x")
        times, size = (times.strip(), size) if x else ("1", times)
        if not times.isdigit() or len(times) > 7 or not 1 <= int(times) <= BUCKETS_MAX:
            raise UserError(
                f"--buckets {item.strip()[:40]}: accepted are sizes such as 25M, or 40x25M for forty of them"
            )
        try:
            found.append(Bucket(parse_size(size), int(times)))
        except ValueError as e:
            raise UserError(f"--buckets: {e}") from None
        if not found[-1].size_bytes:
            raise UserError("--buckets: a bucket of 0 bytes; accepted: 1 byte or more")
    return tuple(found)


def _power(args, system, options) -> int:
    from dataclasses import replace

    from ..fabric import power
    from ..fabric.cards import card

    watts = power.parse(args.power)
    other = card.load(args.against or "memphis-h100-100k")

    def time(system, ranks, size):
        return _best(system, replace(options, ranks=(ranks,)), ranks, size)

    found = power.compare([system, other], watts, options.sizes[-1], time)
    print("\n".join([*_power_table(found), *power.words(found)]))
    return 0


def _power_table(c) -> list[str]:
    from ..bench.record import busbw_factor
    from ..bench.summary import size_words, time_words
    from ..fabric.cards import units

    sites, size = c.sites, c.size_bytes
    rates = [size / t * busbw_factor(s.gpus) / 1e9 for s, t in zip(sites, c.seconds)]
    rows = [
        ("GPU", [s.system.gpu.name for s in sites]),
        ("power a GPU, all in", [f"{s.system.power.all_in_per_gpu:.0f} W" for s in sites]),
        ("  of which the GPU", [f"{s.system.gpu.power:.0f} W" for s in sites]),
        ("GPUs", [f"{s.gpus:,}" for s in sites]),
        ("nodes", [f"{s.nodes:,}" for s in sites]),
        ("NIC bandwidth, all, a direction", [f"{s.nic_rate / 1e15:.1f} PB/s" for s in sites]),
        ("  of which PCIe lets through", [f"{s.usable_rate / 1e15:.1f} PB/s" for s in sites]),
        ("dense BF16, peak", ["not known" if s.flops is None else f"{s.flops / 1e18:.0f} EFLOP/s" for s in sites]),
        (f"all-reduce of {size_words(size)}, all GPUs", [time_words(t) for t in c.seconds]),
        ("  busbw", [f"{r:.1f} GB/s" for r in rates]),
        ("  algorithm", list(c.algorithms)),
    ]
    head = [f"# {units.format(c.budget, 'power')}", "#", f"# {'':<36}" + "".join(f"{s.system.name:>26}" for s in sites)]
    return [*head, *(f"  {name:<36}" + "".join(f"{v:>26}" for v in values) for name, values in rows), "#"]


def _warn(records) -> None:
    seen: dict[str, set] = {}
    for r in records:
        for text in r.warnings:
            seen.setdefault(text, set()).add(r.algorithm)
    for text, names in seen.items():
        print(f"Warning: {', '.join(sorted(names))}: {text}.")


def _preamble(system, options, pool, settings) -> str:
    from .. import __version__

    processes = f", {pool.executor.num_workers + 1} MPI processes" if pool else ""
    lines = [
        f"# busbw version {__version__}",
        f"# Modelled, not measured: {options.collective}",
        f"# {system.name}: {system.title}",
        f"# {system.gpus} GPUs ({system.gpu.name}) in {system.nodes} nodes, model {options.model}{processes}",
    ]
    if settings:
        lines.append(f"# set: {', '.join(settings)}")
    return "\n".join([*lines, "#"])
