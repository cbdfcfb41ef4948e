"""busbw pairs: which host, link or direction is slow. Latency and bandwidth between all pairs, in rounds of disjoint pairs."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from ..errors import UserError
from ._output import RESULT_FOLDER, Speaker, result_file

HELP = "which host, link or direction is slow: all pairs measured, in rounds"

DESCRIPTION = """\
Measure latency and bandwidth between all pairs of hosts (of ranks, where there is one host), in rounds of disjoint pairs: p take
p - 1 rounds, p where p is odd. In each round a small message goes to and fro, a large one goes there, one goes back, and then one
each way at once, whose data is checked.

Prints the bandwidths as a matrix, names the slow host, its slow direction, the slow link or path, each with how often chance would
show as much, and where a ring can avoid what is slow, measures the all-reduce in that order against the given one."""

EPILOG = """\
examples:
  mpirun -np 16 --map-by node busbw pairs         one rank or more a host: pairs of hosts
  mpirun -np 8 busbw pairs --between ranks        pairs of ranks
  busbw pairs --ranks 4 -s 1M                     local emulated ranks
  mpirun -np 16 busbw pairs --bisect              pairs are well, and an all-reduce is slow all the same
  busbw pairs --from pairs.jsonl -o map.png       read a result file, or another tool's list or matrix of pairs

exit codes: 0 nothing slow is named, 1 something is, or data arrived wrong, 2 bad usage, 3 a host stalled (it is named, and what
was measured is in the file), 130 Ctrl-C. What may be chance is said and not counted."""

SIZE_MAX = 1 << 30  # one MPI message is below 2 GiB
SETTLED = 10  # rounds after which the time that all take is known
SECOND_LOOKS = 8  # rounds that are measured again, at most
WORTH = 1.1  # times the given order's slowest pair, that another order's must have to be tried


def add_arguments(parser) -> None:
    what = parser.add_argument_group("what to measure")
    what.add_argument("--between", choices=("auto", "hosts", "ranks"), default="auto", help=(
        "pairs of hosts, each with all its ranks at once, or of ranks (default: hosts where there are several)"
    ))  # fmt: skip
    what.add_argument("--ranks", type=int, metavar="P", help="local emulated ranks (default: one a core, 2 to 8)")
    what.add_argument("-s", "--size", default="4M", metavar="SIZE", help="message for the bandwidth (default 4M)")
    what.add_argument("--latency-size", default="8", metavar="SIZE", help="message for the latency (default 8)")
    what.add_argument("-n", "--iters", type=int, default=5, metavar="N", help="samples of each pair (default 5)")
    what.add_argument("--budget", type=float, default=240.0, metavar="S", help=(
        "seconds that all rounds may take; beyond, samples become fewer, one at least (default 240)"
    ))  # fmt: skip
    what.add_argument(
        "--bisect", action="store_true", help="also all-reduce over halves, and halves of the slower half"
    )
    what.add_argument("--no-ring", action="store_true", help="look for no better order of a ring")
    what.add_argument("--backend", choices=("cpu", "cupy"), default="cpu", help=(
        "where the buffers are: cupy: on GPUs, one a rank of an MPI job (default cpu)"
    ))  # fmt: skip
    what.add_argument("--transport", default="auto", help="auto (shared inside a host, mpi between), shared, mpi")
    what.add_argument("--no-pin", action="store_true", help="leave ranks where the launcher put them")
    what.add_argument("-T", "--timeout", type=float, default=60.0, metavar="S", help=(
        "give up when a rank does not come back for S seconds, and name it (default 60)"
    ))  # fmt: skip
    output = parser.add_argument_group("output")
    output.add_argument("--from", dest="source", metavar="FILE", help="measure nothing; answer from a file or log")
    output.add_argument("--out", metavar="FILE", help=(
        f"result file, or a folder for a new one (default: {RESULT_FOLDER}/)"
    ))  # fmt: skip
    output.add_argument("--no-out", action="store_true", help="write no file and no picture")
    output.add_argument(
        "-o", "--output", metavar="FILE", help="the heat map as .png, .svg or .pdf (default: beside --out)"
    )
    output.add_argument("--json", action="store_true", help="print JSON instead of the tables")
    output.add_argument("-q", "--quiet", action="store_true", help="no progress line")


def run(args) -> int:
    """Print what the pairs say. Returns 0; 1 where something slow is named or data was wrong; 3 where a rank stalled. Raises
    UserError."""
    if args.output and Path(args.output).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UserError(f"-o {args.output}: accepted: a path that ends in .png, .svg or .pdf")
    if args.source:
        return _from_file(args)
    options, effort = _options(args)
    with result_file(args, "pairs") as out:
        return _measured(args, options, effort, out)


def _options(args):
    from ..bench.options import OptionError, Options, checked
    from ..bench.pairs import ITEMSIZE, Effort
    from ..bench.sizes import parse_size
    from ..transports import launcher

    if args.backend != "cpu" and not launcher.launched():
        raise UserError(
            f"--backend {args.backend}: a rank has a process and a GPU of its own; accepted: under mpirun, or --backend cpu"
        )
    sizes = {}
    for flag, text in (("-s", args.size), ("--latency-size", args.latency_size)):
        try:
            sizes[flag] = parse_size(text)
        except ValueError as e:
            raise OptionError(f"{flag}: {e}") from None
        if not ITEMSIZE <= sizes[flag] <= SIZE_MAX:
            raise OptionError(f"{flag} {text}: accepted are {ITEMSIZE} bytes to {SIZE_MAX >> 30} GiB")
    if sizes["--latency-size"] > sizes["-s"]:
        raise OptionError(f"--latency-size {args.latency_size}: accepted are sizes up to -s {args.size}")
    if not 1 <= args.iters <= 1000:
        raise OptionError(f"-n {args.iters}: accepted are 1 to 1000 samples")
    if not 0 < args.budget < 1e6:
        raise OptionError(f"--budget {args.budget:g}: accepted are seconds above 0, up to 1e6")
    effort = Effort(sizes["-s"], sizes["--latency-size"], args.iters, args.budget)
    options = Options(
        first=effort.size_bytes, last=effort.size_bytes, algorithms=("ring",), ranks=args.ranks, backend=args.backend,
        transport=args.transport, modes=("out_of_place",), timeout=args.timeout, pin=not args.no_pin,
    )  # fmt: skip
    return checked(options, mpi=launcher.launched()), effort


def _measured(args, options, effort, out: str | None) -> int:
    from ..bench import gpu, pairs, record
    from ..bench.opening import session_for
    from ..transports.session import Stalled

    said = Speaker(args.quiet or args.json)
    found: list[pairs.Meeting] = []  # on the first rank
    answer = None
    try:
        said.progress(0, 0, "starting; the first time, kernels are compiled for this machine (some seconds)")
        with session_for(options) as session:
            hosts = list(session.crew.hosts)
            who = pairs.players(hosts, args.between)
            if len(who) < 2:
                raise UserError(f"--between {args.between}: there is one, which has no pairs; accepted: two or more")
            if not args.json:
                said.line(_preamble(options, session, who, effort, args.between))
            host_of = {p.name: hosts[p.ranks[0]] for p in who}
            on_gpu = options.backend != "cpu"
            file = pairs.PairsFile(session, who, effort, gpu.record(options, session) if on_gpu else None)
            for round, here in _rounds(session, who, effort, said, args):
                if session.is_root:
                    found += here
                    if out:
                        record.append(out, file.line(round, here))
            answer = _Answer(found, host_of) if session.is_root else None
            doubtful = session.crew.agree(answer and answer.doubtful(SECOND_LOOKS))
            for round, again in pairs.measure(session, who, effort, doubtful):
                said.progress(0, 0, f"a second look at round {round + 1}, which has a slow link")
                if session.is_root:
                    looked = {m[:3]: m for m in again}
                    found = [m.better(looked[m[:3]]) if m[:3] in looked else m for m in found]
                    if out:
                        record.append(out, file.line(round, [m for m in found if m[:3] in looked]))
            answer = _Answer(found, host_of) if session.is_root else None
            if answer and not args.json:
                _say(said, answer)
            rings = {} if args.no_ring else _rings(session, who, answer, effort.size_bytes)
            halves = _bisected(session, who, effort.size_bytes) if args.bisect else []
    except KeyboardInterrupt:
        said.line(f"# interrupted: {len(found)} finished pairs are kept" + (f" in {out}" if out else ""))
        raise
    except UserError:
        said.clear()
        raise
    except Stalled as e:
        said.clear()
        sys.stderr.write(f"busbw pairs: {e}; {len(found)} finished pairs are kept{f' in {out}' if out else ''}\n")
        return 3
    if answer is None:
        return 0  # one rank's exit code is enough for the launcher
    if args.json:
        said.line(_json(answer, rings, halves))
    else:
        for line in [*_ring_words(rings), *_half_words(halves)]:
            said.line(line)
    if out:
        said.line(f"wrote {out}")
    if args.output or out:
        _draw(args.output or Path(out).with_suffix(".png"), answer.pairs, answer.lines(), said)
    return 1 if answer.bad else 0


def _rounds(session, who, effort, said, args):
    """`pairs.measure` with a line of progress, and one that says so if it will take longer than --budget."""
    from ..bench import pairs

    n = pairs.rounds(len(who))
    began = time.monotonic()
    for done, (round, here) in enumerate(pairs.measure(session, who, effort), 1):
        yield round, here
        said.progress(done, n, "rounds") if done < n else said.clear()
        needs = (time.monotonic() - began) / done * n
        if done == SETTLED and n > 4 * SETTLED and needs > args.budget and not args.json:
            said.line(f"# all {n} rounds will take about {needs:.0f} s; with a smaller -s less")


def _preamble(options, session, who, effort, between: str) -> str:
    from .. import __version__
    from ..bench import gpu
    from ..bench.pairs import rounds
    from ..bench.summary import size_words

    crew = session.crew
    what = "hosts" if between != "ranks" and len(set(crew.hosts)) > 1 else "ranks"
    lines = [
        f"# busbw version {__version__}",
        f"# all pairs of {len(who)} {what}, {session.ranks} {crew.kind}, transport {crew.transport}: {rounds(len(who))} rounds",
        f"# bandwidth of {size_words(effort.size_bytes)}, latency of {size_words(effort.latency_bytes)}; medians of samples",
        *(gpu.lines(options, session) if options.backend != "cpu" else ()),
    ]
    unequal = {len(p.ranks) for p in who}
    if len(unequal) > 1:
        lines.append(f"# hosts have {min(unequal)} to {max(unequal)} ranks: a pair plays with the fewer of its two")
    return "\n".join([*lines, "#"])


class _Answer:
    """What the pairs say. Pairs inside a host and pairs between hosts are judged apart."""

    def __init__(self, found, host_of: dict[str, str]):
        from ..answer.pairs import suspects

        self.found = found
        self.pairs = [p for m in found for p in m.pairs]
        self.wrong = [m for m in found if m.wrong]
        kinds: dict[str, list] = {}
        for p in self.pairs:
            kinds.setdefault("inside hosts" if host_of[p.source] == host_of[p.target] else "between hosts", []).append(
                p
            )
        self.judged = [
            (kind if len(kinds) > 1 else "", judged)
            for kind, some in kinds.items()
            for figure in ("bandwidth", "seconds", "both")
            if (judged := suspects(some, figure))
        ]

    @property
    def bad(self) -> bool:
        return bool(self.wrong) or any(judged.sure for _, judged in self.judged)

    def doubtful(self, most: int) -> list[int]:
        """Rounds of links that are slow alone, the slowest first: it may be that something else ran there at that moment."""
        links = sorted((link for _, judged in self.judged for link in judged.links), key=lambda link: link.share)
        names = [{link.source, link.target} for link in links]
        wanted = [m for pair in names for m in self.found if {m.a.name, m.b.name} == pair]
        return list(dict.fromkeys(m.round for m in wanted))[:most]

    def of(self, figure: str):
        """The judgements of a figure."""
        return [judged for _, judged in self.judged if judged.figure == figure]

    def lines(self) -> list[str]:
        """What is to be said, a sentence each."""
        from ..answer.pairs import words

        out = [f"WRONG DATA between {m.a.name} and {m.b.name}: {m.wrong} elements" for m in self.wrong]
        one_way_slow = any(judged.slow for judged in self.of("bandwidth"))
        for kind, judged in self.judged:
            if judged.figure == "both" and (one_way_slow or not judged.slow):
                continue  # says the same once more
            out += [f"{kind}: {line}" if kind else line for line in words(judged)]
        if not self.judged:
            out.append("fewer than three pairs: nothing to hold them against")
        return out


def _rings(session, who, answer: _Answer | None, size_bytes: int) -> dict[str, float]:
    """Bus bandwidths of a ring all-reduce in the given order, in one that avoids slow pairs, and without slow hosts; {} where
    there is nothing to avoid. What is tried is the first rank's choice, who has the answer."""
    from ..answer.ring_order import cheapest, slow_cost, slowest
    from ..bench import rings
    from ..plots.pair_map import matrix

    tried: dict[str, list[int]] = {}
    if answer and len(who) >= 3 and session.ranks <= rings.RANKS_MAX and (judged := answer.of("bandwidth")):
        at = {p.name: i for i, p in enumerate(who)}
        names, values = matrix(answer.pairs, "bandwidth")
        bandwidth = values[[names.index(n) for n in at]][:, [names.index(n) for n in at]]
        worst = min(judged, key=lambda j: j.good)
        given = list(range(len(who)))
        order = cheapest(slow_cost(bandwidth, worst.good, worst.line), given)
        if slowest(bandwidth, order) > WORTH * slowest(bandwidth, given):
            tried["avoiding slow pairs"] = order
        named = {e.name for e in worst.ends}
        if named and len(who) - len(named) >= 2:
            tried[f"without {', '.join(sorted(named))[:80]}"] = [i for i in order if who[i].name not in named]
    tried = session.crew.agree(tried)
    if not tried:
        return {}
    candidates = {"as given": [who], **{name: [[who[i] for i in order]] for name, order in tried.items()}}
    found = rings.time_rings(session, candidates, size_bytes)
    return {
        f"{name}: {rings.names(candidates[name][0])}" if name == "avoiding slow pairs" else name: values[0]
        for name, values in found.items()
    }


def _bisected(session, who, size_bytes: int) -> list[dict[str, float]]:
    from ..bench import rings

    if session.ranks > rings.RANKS_MAX:
        raise UserError(f"--bisect with {session.ranks} ranks: accepted are up to {rings.RANKS_MAX}")
    return rings.bisect(session, who, size_bytes)


def _json(answer: _Answer, rings: dict[str, float], halves: list[dict[str, float]]) -> str:
    from dataclasses import asdict

    return json.dumps(
        {
            "pairs": [{k: v for k, v in asdict(p).items() if k != "line"} for p in answer.pairs],
            "judged": [{"pairs_of": kind or "all", **_plain(judged)} for kind, judged in answer.judged],
            "wrong": [[m.a.name, m.b.name, m.wrong] for m in answer.wrong],
            "said": answer.lines(),
            "rings": rings,
            "bisected": halves,
        }
    )


def _plain(judged) -> dict:
    lists = {name: [found._asdict() for found in getattr(judged, name)] for name in ("paths", "ends", "links")}
    slow = [[p.source, p.target] for p in judged.slow]
    return {**judged._asdict(), **lists, "slow": slow}


def _say(said, answer: _Answer) -> None:
    """The matrices, and what they say."""
    from ..plots.pair_map import text

    for figure in ("bandwidth", "seconds"):
        judged = answer.of(figure)
        lines = text(answer.pairs, figure, *((judged[0].line, judged[0].good) if len(judged) == 1 else ()))
        said.line(
            "\n".join([*lines, ""]) if lines else f"# {figure} of more pairs than a terminal shows: see the picture"
        )
    for line in answer.lines():
        said.line(line)


def _ring_words(rings: dict[str, float]) -> list[str]:
    from ..bench.summary import rate_words

    if not rings:
        return []
    given = rings["as given"]
    out = [f"ring all-reduce as given: busbw {rate_words(given)}"]
    for name, value in rings.items():
        if name != "as given":
            out.append(
                f"ring all-reduce {name}: busbw {rate_words(value)}, {value / given:.2f} times the given order's"
            )
    return out


def _half_words(halves: list[dict[str, float]]) -> list[str]:
    from ..bench.rings import LEVEL
    from ..bench.summary import plain, rate_words

    out = []
    for step in halves:
        over = "all-reduce " if any(name.startswith("without ") for name in step) else "all-reduce over "
        out.append(over + "; ".join(f"{plain(n, 60)}: busbw {rate_words(v)}" for n, v in step.items()))
    if not halves:
        return out
    last = halves[-1]
    best = max(last, key=last.get)
    if best.startswith("without ") and min(last.values()) < LEVEL * last[best]:
        out.append(f"the all-reduce is slow with {best.removeprefix('without ')}, and fast without")
    elif len(halves) == 1 and (values := list(last.values()))[0] < LEVEL * min(values[1:]):
        out.append("both halves are well and the whole is not: what joins them is slow when all send at once")
    else:
        out.append("no half is slower than the other")
    return out


def _draw(path, pairs, lines: list[str], said) -> None:
    from ..plots.curves import save
    from ..plots.pair_map import order, pair_map

    names = order(pairs)
    said.progress(0, 0, "drawing")
    save(pair_map(pairs, f"All pairs of {len(names)}", lines), path)
    said.line(f"wrote {path}")


def _from_file(args) -> int:
    from ..answer.pairs import suspects, words
    from ..interchange.logs import read

    log = read(args.source)
    if not log.pairs:
        raise UserError(
            f"--from {args.source}: no pairs in it; accepted: what busbw pairs wrote, or a list or matrix of pairs"
        )
    judged = [found for figure in ("bandwidth", "seconds") if (found := suspects(log.pairs, figure))]
    lines = [line for found in judged for line in words(found)] or [
        "fewer than three pairs: nothing to hold them against"
    ]
    said = Speaker(args.quiet)
    if args.json:
        said.line(json.dumps({"judged": [_plain(found) for found in judged], "said": lines}))
    else:
        said.line("\n".join(lines))
    if args.output:
        _draw(args.output, log.pairs, lines, said)
    return 1 if any(found.sure for found in judged) else 0
