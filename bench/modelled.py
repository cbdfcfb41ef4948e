"""Modelled sweeps as records: fabric/simulate.py's points, in this process or spread over MPI ranks.

The records are those of a measured sweep, with ``clock: fabric:<system>``, and ``transport`` says which model gave the
time. A modelled time has one sample and no confidence interval, since it is the same every time.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import partial

from .. import __version__
from ..collectives.collective import find
from ..errors import UserError
from ..fabric import simulate
from ..fabric.cards.card import System
from ..fabric.simulate import Modelled, Options, Point
from ..fabric.time.recurrence import ring_blocks
from . import record as result_file
from .environment import available_bytes, git_revision
from .record import Record, Timing
from .sizes import format_size, sweep_sizes
from .summary import plain, rate_words, series, settings, size_words, time_words

RANKS_MAX = 64  # numbers of ranks in one sweep
POINTS_MAX = 100_000
# A ring of more messages than this, all of which have to be evaluated, may be cut over the MPI ranks. One core takes some seconds
# for so many; a round of blocks takes a millisecond or two beside its messages.
CUT_MESSAGES = 2_000_000_000
RINGED = ("all_reduce", "reduce_scatter", "all_gather")  # whose endless message a ring in rank order carries best


def sweep(
    system: System,
    options: Options,
    *,
    dtype: str = "float32",
    overrides: Sequence[str] = (),
    out: str | None = None,
    progress: Callable[[int, int, str], None] = lambda index, total, text: None,
    pool=None,
) -> Iterator[Record]:
    """Simulate and yield one Record a point, in order: ranks, then sizes, then algorithms.

    options: checked; dtype: whose size options.itemsize is; overrides: what was set on the card, for the record; out: the
    result file, appended to as each point is finished; progress: (points done, points in all, what is next);
    pool: of `spread`, None for this process alone.
    """
    todo = simulate.points(options)
    environment = {
        "busbw": __version__,
        "git_revision": git_revision(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": " ".join(["busbw", *sys.argv[1:]]),
    }
    run = uuid.uuid4().hex[:12]
    said = {
        k: v
        for k, v in asdict(options).items()
        if v not in (None, ()) and k not in ("ranks", "sizes", "threads", "backend")
    }
    said = {**said, "system": system.name, "overrides": list(overrides)}
    for m in _results(system, options, todo, progress, pool):
        r = _record(system, options, m, dtype, said, environment, run)
        if out:
            result_file.append(out, r.to_json())
        yield r


def _words(point: Point) -> str:
    return f"{format_size(point.size_bytes)} {point.algorithm} over {point.ranks} ranks"


def _results(system, options, todo: list[Point], progress, pool) -> Iterator[Modelled]:
    if pool is not None:
        yield from pool.all(system, options, todo, progress)
    elif len(todo) < 2 or options.threads < 2:
        for index, point in enumerate(todo):
            text = _words(point)
            progress(index, len(todo), text)
            yield simulate.evaluate(
                system, options, point, lambda part, i=index, t=text: progress(i + part, len(todo), t)
            )
    else:
        yield from _in_threads(system, options, todo, progress)


class _Stopped(Exception):
    """Raised in a point under way when the sweep has been given up."""


def _in_threads(system, options, todo: list[Point], progress) -> Iterator[Modelled]:
    """The points in order, several at a time, each on one core: what is compiled runs without the interpreter's lock."""
    stop = threading.Event()
    parts = [0.0] * len(todo)
    alone = replace(options, threads=1)

    def evaluate(index: int) -> Modelled:
        def part(done: float) -> None:
            if stop.is_set():
                raise _Stopped
            parts[index] = done

        part(0.0)
        done = simulate.evaluate(system, alone, todo[index], part)
        parts[index] = 1.0
        return done

    with ThreadPoolExecutor(options.threads) as threads:
        try:
            futures = [threads.submit(evaluate, i) for i in range(len(todo))]
            for point, future in zip(todo, futures):
                while not future.done():
                    wait([future], timeout=0.2)
                    progress(sum(parts), len(todo), _words(point))
                yield future.result()
        finally:
            stop.set()
            threads.shutdown(wait=False, cancel_futures=True)


def _record(system: System, options: Options, m: Modelled, dtype: str, said, environment, run) -> Record:
    c = options.of
    count = c.count_of(m.point.ranks, m.point.size_bytes // options.itemsize)
    warnings = []
    if options.model == "auto" and m.level == "loggp":
        warnings.append("an estimate: no exact level is affordable here (see docs/simulate.md)")
    exact = m.level in simulate.EXACT
    low, high = (m.band.low90, m.band.high90) if m.band else (m.seconds, m.seconds)
    inner = {"band50": [m.band.low50, m.band.high50]} if m.band else {}
    return Record(
        algorithm=m.point.algorithm,
        chosen=m.chosen,
        transport="exact" if options.model == "auto" and exact else m.level,
        clock=f"fabric:{system.name}",
        ranks=m.point.ranks,
        size_bytes=c.size_count(m.point.ranks, count) * options.itemsize,
        count=count,
        dtype=dtype,
        op="sum" if c.reduces else "none",
        channels=m.channels,
        slices=m.slices,
        out_of_place=Timing(m.seconds, low, high, [m.seconds], 1, 0, "exact" if exact else "formula", None),
        in_place=None,
        options={**said, **inner, "level": m.level, "messages": m.messages},
        environment=environment,
        warnings=warnings,
        run=run,
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        collective=c.name,
        root=options.root if c.rooted else -1,
    )


def check_memory(system: System, options: Options) -> None:
    """Raises UserError where a point would not fit in memory, saying what would."""
    free = available_bytes()
    if free is None:
        return
    for point in simulate.points(options):
        need = simulate.memory_bytes(system, options, point)
        if need <= 0.8 * free:
            continue
        ranks = point.ranks
        while (
            ranks > 2
            and simulate.memory_bytes(system, options, Point(point.algorithm, ranks, point.size_bytes)) > 0.8 * free
        ):
            ranks = ranks * 9 // 10
        other = "--model recurrence" if point.algorithm in simulate.REGULAR else "--model loggp"
        fits = (
            f"{other} would fit, or --ranks {ranks}"
            if not simulate.only_replayed(options.of, point.algorithm)
            else f"--ranks {ranks} would fit"
        )
        raise UserError(
            f"--model {options.model}: {point.algorithm} over {point.ranks} ranks needs {format_size(need)}, but "
            f"{format_size(free)} are free here; {fits}"
        )


# Over MPI ranks.


class Pool:
    """Points over the ranks of an MPI job: the others take them as they come, and so does this one in between.

    Where a sweep has fewer large rings than the job has ranks, each of them is cut into blocks, one a rank.
    """

    def __init__(self, executor):
        self.executor = executor

    @property
    def processes(self) -> int:
        return self.executor.num_workers + 1

    def all(self, system: System, options: Options, todo: list[Point], progress) -> Iterator[Modelled]:
        """The points' results, in order."""
        large = {p for p in todo if simulate.stepped_messages(system, options, p, CUT_MESSAGES)}
        if len(large) >= self.processes:
            large = set()  # whole rings keep everybody busy, and need no halo
        at = 0
        for cut, some in itertools.groupby(todo, large.__contains__):
            some = list(some)
            if not cut:
                yield from self.ordered(system, options, some)
            for i, point in enumerate(some if cut else (), at):
                yield self.cut(
                    system, options, point, lambda part, i=i, p=point: progress(i + part, len(todo), _words(p))
                )
            at += len(some)

    def cut(self, system: System, options: Options, point: Point, progress) -> Modelled:
        """One point, the ring of it in blocks of ranks, one a process; only begins travel, as each process builds the network."""

        def advance(count: int, tasks: list) -> list:
            given = [
                self.executor.submit(simulate.ring_block, system, options, point.ranks, count, *t) for t in tasks[1:]
            ]
            mine = simulate.ring_block(system, options, point.ranks, count, *tasks[0])
            return [mine, *(f.result() for f in given)]

        def ring(net, count: int) -> int:
            blocks = partial(advance, count)
            return int(ring_blocks(net, count, options.itemsize, self.processes, blocks, progress=progress).max())

        return simulate.evaluate(system, options, point, progress, ring)

    def ordered(self, system: System, options: Options, todo: list[Point]) -> Iterator[Modelled]:
        """The points' results, in order."""
        waiting = deque(range(len(todo)))
        found: dict[int, Modelled] = {}
        given: dict = {}

        def give(_=None):
            # Called again by the executor's own thread as each is done, so that every worker has one point at a time.
            try:
                i = waiting.popleft()
            except IndexError:
                return
            given[i] = self.executor.submit(simulate.evaluate, system, options, todo[i])
            given[i].add_done_callback(give)

        try:
            for _ in range(self.executor.num_workers):
                give()
            for i in range(len(todo)):
                while i not in found:
                    if i in given and (given[i].done() or not waiting):
                        found[i] = given[i].result()
                        continue
                    try:
                        mine = waiting.popleft()
                    except IndexError:
                        time.sleep(0.001)  # a worker's thread has just taken point i
                        continue
                    found[mine] = simulate.evaluate(system, options, todo[mine])
                yield found.pop(i)
        finally:
            waiting.clear()  # Ctrl-C: what is under way is finished, nothing else begun


@contextmanager
def spread():
    """Under mpirun with several ranks: a Pool on rank 0 and False on the others, which work until it is closed. Else None."""
    from ..transports import launcher, mpi

    if not launcher.launched():
        yield None
        return
    mpi.load(threads=True)  # the executor's
    from mpi4py import MPI

    if MPI.COMM_WORLD.size == 1:
        yield None
        return
    from mpi4py.futures import MPICommExecutor

    with MPICommExecutor(MPI.COMM_WORLD, root=0) as executor:
        yield False if executor is None else Pool(executor)


def collective_of(name: str) -> str:
    """Its own name, of any spelling. Raises UserError."""
    try:
        return find(name).name
    except ValueError as e:
        raise UserError(f"--collective: {e}") from None


def numbers_of_ranks(text: int | str | Sequence[int] | None, system: System) -> tuple[int, ...]:
    """Ascending numbers of ranks out of "8,64,4k" (k: a thousand), or of numbers; None or "all": all GPUs. Raises UserError."""
    if text is None:
        return (system.gpus,)
    items = text.split(",") if isinstance(text, str) else [text] if isinstance(text, int) else list(text)
    found = []
    for item in items:
        word = str(item).strip().replace("_", "")
        number, thousand = (word[:-1], 1000) if word[-1:] in ("k", "K") else (word, 1)
        if word == "all":
            found.append(system.gpus)
        elif number.isdigit() and len(number) <= 9 and int(number) >= 1:
            found.append(int(number) * thousand)
        else:
            raise UserError(f"--ranks {word[:40]}: accepted are whole numbers such as 8,64,512 or 300k, or all")
    if len(set(found)) > RANKS_MAX:
        raise UserError(f"--ranks: {len(set(found))} numbers; accepted: at most {RANKS_MAX}")
    return tuple(sorted(set(found)))


def sizes_of(first: int, last: int, factor: float | None, step: int | None, itemsize: int) -> tuple[int, ...]:
    """The sizes of a sweep in whole elements, each once. Raises UserError."""
    try:
        sizes = sweep_sizes(first, last, factor, step)
    except ValueError as e:
        raise UserError(str(e)) from None
    whole = dict.fromkeys(s // itemsize * itemsize for s in sizes)
    found = tuple(s for s in whole if s)
    if not found:
        raise UserError(
            f"-b {first} -e {last}: no size has one element of {itemsize} bytes; accepted: -e {itemsize} or more"
        )
    return found


# In words.

BYTES_MATTER_LITTLE = 64  # a message so many times smaller than the largest tells the latency of all


def words(system: System, options: Options, records: Sequence[Record]) -> list[str]:
    """What the sweep says, after bench.summary.words: which port bounds the bandwidth, and what is in the way of it."""
    lines = []
    everything = series(records)
    for setting in settings(everything):
        curves = [c for c in everything if c.setting == setting and c.records[-1].size_bytes > 0]
        if setting.ranks < 2 or not curves or setting.collective not in RINGED:
            continue
        limit, name = simulate.busbw_limit(system, options, setting.ranks)
        size = max(c.records[-1].size_bytes for c in curves)
        best = min((c for c in curves if c.at(size)), key=lambda c: c.at(size).best.seconds)
        at_end = best.at(size)
        share = at_end.busbw() / limit
        smallest = best.records[0]
        start = smallest.best.seconds
        head = f"{setting.ranks} ranks: " if len(settings(everything)) > 1 else ""
        text = (
            f"{head}The {name} would carry {rate_words(limit)} busbw; at {size_words(size)} {plain(best.algorithm, 30)} gets "
            f"{share:.0%} of it"
        )
        if share < 0.9 and smallest.size_bytes <= size / BYTES_MATTER_LITTLE:
            latency = start / at_end.best.seconds
            text += (
                f", held back by latency: {time_words(start)} of its {time_words(at_end.best.seconds)} pass at any size"
                if latency > 0.4
                else ", held back by what a message costs beside its bytes, and by waiting for one another"
            )
        lines.append(text + ".")
    return lines


__all__ = ["Pool", "check_memory", "numbers_of_ranks", "sizes_of", "spread", "sweep", "words"]
