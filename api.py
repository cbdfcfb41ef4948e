"""The Python API: a sweep, measured or modelled, as one call, and what it returns."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

from .bench import record
from .bench.measure import Effort
from .bench.opening import session_for
from .bench.options import Options, checked
from .bench.record import Record, ResultFile
from .bench.sizes import parse_size
from .bench.sweep import sweep as run_sweep


@dataclass(frozen=True)
class SweepResult:
    """What a sweep found. records: one a size and algorithm; limits: memory bandwidths in bytes/s, or {}.

    Under mpirun every rank gets one; all hold the same times.
    """

    records: list[Record]
    limits: dict

    @property
    def rows(self) -> list[dict]:
        """One flat dict a record, ready for pandas.DataFrame(result.rows): sizes in bytes, times in seconds, bandwidths in
        bytes a second; keys of the two modes are prefixed out_of_place_ and in_place_ (None where not measured)."""
        return [_row(r) for r in self.records]

    def to_dataframe(self):
        """A pandas.DataFrame of `rows`; raises ImportError without pandas, which busbw does not install."""
        import pandas

        return pandas.DataFrame(self.rows)

    def table(self) -> str:
        """nccl-tests' table."""
        from .bench.table import footer, header, row

        named = len({r.algorithm for r in self.records}) > 1
        names = dict.fromkeys(r.collective for r in self.records)
        lines = []
        for name in names:
            lines += [f"# Collective test starting: {name}"] * (len(names) > 1)
            lines += [header(named), *(row(r, named) for r in self.records if r.collective == name)]
        return "\n".join([*(lines or [header(named)]), footer(self.records)])

    def summary(self) -> list[str]:
        """A few sentences: fastest algorithm by size, latency, peak busbw, crossover, share of the memory's limit."""
        from .bench.summary import words

        return words(self.records, self.limits)

    def plot(self, path: str | os.PathLike | None = None):
        """The curves as a matplotlib Figure; with `path` (.png, .svg, .pdf) also saved there."""
        from .plots.curves import curves, save

        figure = curves([ResultFile("", self.records, self.limits, [])])
        if path is not None:
            save(figure, path)
        return figure

    def report(self, path: str | os.PathLike) -> None:
        """Write one self-contained HTML page."""
        from .plots.report import report, save

        save(report([ResultFile(str(path), self.records, self.limits, [])]), path)


def _row(r: Record) -> dict:
    names = ("collective", "root", "algorithm", "chosen", "transport", "clock", "ranks", "size_bytes", "count", "dtype", "op",
             "channels", "slices")  # fmt: skip
    row = {name: getattr(r, name) for name in names}
    for mode in ("out_of_place", "in_place"):
        t = getattr(r, mode)
        row[f"{mode}_seconds"] = t and t.seconds
        row[f"{mode}_ci_low"] = t and t.ci_low
        row[f"{mode}_ci_high"] = t and t.ci_high
        row[f"{mode}_algbw"] = t and r.algbw(t)
        row[f"{mode}_busbw"] = t and r.busbw(t)
        row[f"{mode}_samples"] = t and len(t.samples)
        row[f"{mode}_wrong"] = t and t.wrong
    return row


def sweep(
    *,
    first: int | str = 8,
    last: int | str = "16M",
    collective: str | Sequence[str] = "all_reduce",
    root: int | None = None,
    algorithms: str | Sequence[str] | None = None,
    dtypes: str | Sequence[str] = "float32",
    ops: str | Sequence[str] = "sum",
    budget: float = 0.1,
    iterations: int | None = None,
    on_record: Callable[[Record], None] | None = None,
    **options,
) -> SweepResult:
    """Measure a collective over message sizes; under mpirun called by all ranks.

    first, last: bytes, or text as on the command line ("64K"); collective: all_reduce, all_gather, ... (a comma list, or "all"),
    root: of those that have one; algorithms, dtypes, ops: names, or a comma list (algorithms by default the first two that a
    collective has); budget: seconds for one size and mode; iterations: a fixed number of samples instead; on_record: called as
    each is finished; options: any other field of busbw.bench.options.Options (ranks, channels, slices, transport, ...).

    Raises busbw.errors.UserError for values that cannot be measured, TypeError for an unknown option.
    """
    known = {f.name for f in fields(Options)}
    for name in options:
        if name not in known:
            raise TypeError(f"sweep() has no option {name!r}; there are {', '.join(sorted(known))}")
    from .transports import launcher

    options = checked(
        Options(
            first=_size(first),
            last=_size(last),
            collectives=_names(collective),
            root=root,
            algorithms=None if algorithms is None else _names(algorithms),
            dtypes=_names(dtypes),
            ops=_names(ops),
            **{"effort": Effort(budget=budget, iterations=iterations), **options},
        ),
        mpi=launcher.launched(),
    )
    records: list[Record] = []
    limits: dict = {}
    with session_for(options) as session:
        for r in run_sweep(options, session, on_limits=limits.update):
            records.append(r)
            if on_record:
                on_record(r)
    return SweepResult(records, limits)


def simulate(
    system,
    *,
    ranks: int | str | Sequence[int] | None = None,
    first: int | str = 8,
    last: int | str = "8G",
    factor: float = 2,
    algorithms: str | Sequence[str] | None = None,
    collective: str = "all_reduce",
    dtype: str = "float32",
    overrides: Sequence[str] = (),
    on_record: Callable[[Record], None] | None = None,
    **options,
) -> SweepResult:
    """Simulate a collective on a system: its name, the path of a card, or a fabric.cards.card.System.

    ranks: one number, several, or text as on the command line; None: all GPUs. first, last: bytes, or text ("64K"); overrides:
    "nic.rate=400Gb/s", ...; options: any other field of busbw.fabric.simulate.Options (model, noise, stragglers,
    slices, seed, ...). Raises busbw.errors.UserError for what cannot be simulated, TypeError for an unknown option.
    """
    from .bench import modelled
    from .fabric import simulate as model
    from .fabric.cards import card
    from .kernels.dtypes import find_device_dtype

    known = {f.name for f in fields(model.Options)} - {"sizes", "itemsize"}
    for name in options:
        if name not in known:
            raise TypeError(f"simulate() has no option {name!r}; there are {', '.join(sorted(known))}")
    loaded = card.override(system if isinstance(system, card.System) else card.load(system), overrides)
    d = find_device_dtype(dtype)
    chosen = model.checked(
        loaded,
        model.Options(
            ranks=modelled.numbers_of_ranks(ranks, loaded),
            sizes=modelled.sizes_of(_size(first), _size(last), factor, None, d.itemsize),
            algorithms=None if algorithms is None else _names(algorithms),
            collective=modelled.collective_of(collective),
            itemsize=d.itemsize,
            **{"threads": os.cpu_count() or 1, **options},
        ),
    )
    modelled.check_memory(loaded, chosen)
    records = []
    for r in modelled.sweep(loaded, chosen, dtype=d.name, overrides=overrides):
        records.append(r)
        if on_record:
            on_record(r)
    return SweepResult(records, {})


def load(path: str | os.PathLike) -> SweepResult:
    """A result file that `busbw sweep` wrote. Raises busbw.bench.record.RecordError."""
    found = record.read(path)
    return SweepResult(found.records, found.limits)


def _size(value: int | str) -> int:
    from .bench.options import OptionError

    try:
        return parse_size(value) if isinstance(value, str) else int(value)
    except ValueError as e:
        raise OptionError(str(e)) from None


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    return tuple(n.strip() for n in value.split(",")) if isinstance(value, str) else tuple(value)
