"""The result file: append-only JSON lines, one self-contained record for each message size and algorithm.

Every line is a JSON object with ``schema`` ("busbw.result/1") and ``kind``:

- ``measurement``: one size under one algorithm (class ``Record``), with every sample;
- ``limits``: what this machine's memory allows, measured in the same run (a plain dict under ``limits``);
- ``pairs``: one round of pairs (bench/pairs.py): rows of names, seconds, bytes a second there, back and both ways at once, wrong
  elements.

Lines are written whole and flushed, so a killed run loses at most the size in progress. A last line cut short by a
kill is passed over with a note; anything else that does not parse is an error that names the line. Times are in
seconds, sizes in bytes, bandwidths in bytes per second unless a key says GB/s.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path

from ..collectives.collective import COLLECTIVES
from ..errors import UserError
from .log import Pair

SCHEMA = "busbw.result/1"
PAIRS = "pairs"  # the kind of a line
LINE_BEGINS = b'{"schema":"busbw.result/'
MAX_FILE_BYTES = 1 << 30
MAX_LINE_BYTES = 64 << 20
INTEGER_MAX = 1 << 60
TIME_MAX = 1e12  # seconds
RATE_MAX = 1e18  # bytes a second


class RecordError(UserError):
    """A result file that cannot be used; the message names the file, the line and what would be accepted."""


@dataclass(frozen=True)
class Timing:
    """One timed mode (out-of-place or in-place) of one size.

    samples: seconds of one collective each, of the slowest rank (or as `-a` chose); where ``inner`` > 1 a sample is the
    mean of that many back-to-back ones. seconds: the median; ci_low, ci_high: its 95 % confidence interval.
    stopped: "confidence" (interval within the target), "iterations" (a fixed number of samples), "budget" (time ran out
    first) or "exact" (a virtual clock without noise: every sample would be the same). wrong: elements that differ from the
    expected result over all ranks; None: not checked. Times read from a log have no samples where it prints
    none (stopped is then "log"), and no interval: ci_low and ci_high are the time itself.
    """

    seconds: float
    ci_low: float
    ci_high: float
    samples: list[float]
    inner: int
    warmup: int
    stopped: str
    wrong: int | None


@dataclass(frozen=True)
class Record:
    """One message size under one algorithm. Either timing may be None where that mode was not run.

    With a virtual clock, options has fabric, seed and, where given, overrides, noise, stragglers, routing, failed_planes, pace;
    and paced_seconds, by mode: the median wall-clock time of paced all-reduces divided by the dilation, to be held against
    `seconds`.

    A record can hold what others measured (interchange.logs): what their log does not tell is absent, which is 0 for ranks, count,
    channels and slices, "" for texts. options then has source and line, environment what the log tells of the system.
    """

    algorithm: str  # as asked for: ring, tree, ..., auto, mpi-native, numpy, nccl
    chosen: str  # the algorithm that ran; differs from `algorithm` under auto
    transport: str  # shared, mpi, hybrid, mpi-library, numpy; device, peer, gpu-mpi-aware, gpu-mpi-staged, nccl
    clock: str  # "wall", or "fabric:<system>" for a modelled time
    ranks: int
    size_bytes: int
    count: int
    dtype: str
    op: str  # "none" where the collective reduces nothing
    channels: int
    slices: int
    out_of_place: Timing | None
    in_place: Timing | None
    options: dict = field(default_factory=dict)
    environment: dict = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    run: str = ""  # identifies one invocation; lines of one run share it
    time: str = ""  # ISO 8601, when the size was finished
    collective: str = "all_reduce"  # nccl-tests' name
    root: int = -1  # where the collective has one

    @property
    def best(self) -> Timing:
        """The out-of-place timing where there is one, else the in-place one."""
        timing = self.out_of_place or self.in_place
        assert timing is not None, "a record has at least one timing"
        return timing

    def algbw(self, timing: Timing | None = None) -> float:
        """Bytes per second: size / time."""
        t = (timing or self.best).seconds
        return self.size_bytes / t if t > 0 else 0.0

    def busbw(self, timing: Timing | None = None) -> float:
        """Bytes per second: algbw times ``busbw_factor``; 0 for one rank, or where the number of ranks is absent."""
        return self.algbw(timing) * busbw_factor(self.ranks, self.collective)

    def to_json(self) -> str:
        timings = {
            mode: t and vars(t) for mode, t in (("out_of_place", self.out_of_place), ("in_place", self.in_place))
        }
        return json.dumps({"schema": SCHEMA, "kind": "measurement", **vars(self), **timings}, separators=(",", ":"))


# Collectives that only logs of others have, and the one whose bandwidth is counted alike.
COUNTED_LIKE = {"alltoallv": "alltoall", "all_gatherv": "all_gather", "hypercube": "all_gather"}


def busbw_factor(ranks: int, collective: str = "all_reduce") -> float:
    """busbw / algbw as the collective counts it; 1 for one that has no bus bandwidth; 0 for fewer than two ranks."""
    found = COLLECTIVES.get(COUNTED_LIKE.get(collective, collective))
    return 0.0 if ranks < 2 else found.busbw_factor(ranks) if found else 1.0


@dataclass
class ResultFile:
    """What a result file held. limits: the last ``limits`` line or {}; notes: what was passed over; pairs: each in both
    directions."""

    path: str
    records: list[Record]
    limits: dict
    notes: list[str]
    pairs: list[Pair] = field(default_factory=list)


def result_path(text: str, stem: str) -> Path:
    """The result file that --out names: that very file, or a new one called after `stem` and the time in that folder."""
    path = Path(text)
    if path.is_dir() or text.endswith("/"):
        return path / time.strftime(f"{stem}-%Y%m%d-%H%M%S.jsonl")
    return path


@contextlib.contextmanager
def claimed(path: Path, *, resume: bool | None = None):
    """Hold a result file to be written; gives its path as text.

    Its folder is made, and writing is tried, so that a sweep does not fail at its first record. A second run that would write
    into it is refused as long as this one lives, and a file that stayed empty is taken away again. resume: whether the
    file may have records already; None: the command has no --resume. Raises UserError.
    """
    if path.is_file() and path.stat().st_size and not resume:
        other = "name another file" if resume is None else "add --resume to go on from it, or name another file"
        raise UserError(f"--out {path}: exists; {other}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = open(path, "ab")  # noqa: SIM115  closed below
    except OSError as e:
        raise UserError(f"--out {path}: cannot be written: {e.strerror}; name a file in a folder of yours") from None
    with held:
        try:
            if _regular(held.fileno()):
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"--out {path}: another run is writing it; name another file, or wait for its end"
            ) from None
        except OSError:  # a file system without locks
            pass
        try:
            yield str(path)
        finally:
            if path.is_file() and not path.stat().st_size:
                path.unlink()


def _regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def append(path: str | os.PathLike, line: str) -> None:
    """Append one line and flush it to the system, so that a kill afterwards cannot lose it.

    A file that ends in a cut line is first ended with a newline, so that the cut line stays alone. Where the line does not
    fit, what came before it stays as it was, and UserError is raised, with the system's as its context (errors.no_room).
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            _append(descriptor, line.encode() + b"\n", _regular(descriptor))
        finally:
            os.close(descriptor)
    except OSError as e:
        raise UserError(f"{path}: cannot be written: {e.strerror}; what it held is still there") from None


def _append(descriptor: int, line: bytes, regular: bool) -> None:
    end = os.lseek(descriptor, 0, os.SEEK_END) if regular else 0
    if end and os.pread(descriptor, 1, end - 1) != b"\n":
        line = b"\n" + line
    try:
        while line:
            line = line[os.write(descriptor, line) :]
        if regular:
            os.fsync(descriptor)
    except OSError:
        if regular:
            os.ftruncate(descriptor, end)
        raise


def limits_line(limits: dict, run: str) -> str:
    return json.dumps({"schema": SCHEMA, "kind": "limits", "run": run, "limits": limits}, separators=(",", ":"))


def read(path: str | os.PathLike, *, unfinished: bool = False) -> ResultFile:
    """Read a result file. unfinished: it may be without a record, since a run ended before its first.

    Raises RecordError for a file that is missing, empty, too large, of another schema version or not a result file.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise RecordError(f"{path}: {size} bytes is more than a result file may have ({MAX_FILE_BYTES})")
        lines = path.read_bytes().split(b"\n")
    except OSError as e:
        raise RecordError(f"{path}: cannot be read: {e.strerror}") from None

    result = ResultFile(str(path), [], {}, [])
    for number, raw in enumerate(lines, 1):
        if not raw.strip():
            continue
        if len(raw) > MAX_LINE_BYTES:
            raise RecordError(f"{path}:{number}: line of {len(raw)} bytes; at most {MAX_LINE_BYTES} are accepted")
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            # Only a line that a kill cut short may be passed over: the last of the file, or the last before a --resume.
            if raw.startswith(LINE_BEGINS) or LINE_BEGINS.startswith(raw):
                result.notes.append(f"{path}:{number}: passed over a line cut short")
                continue
            raise RecordError(
                f"{path}:{number}: not a busbw result line; accepted is a file written by busbw sweep --out ({SCHEMA})"
            ) from None
        _take(result, value, f"{path}:{number}", number)
    if not result.records and not result.pairs and not unfinished:
        raise RecordError(f"{path}: holds no finished measurement; write one with busbw sweep --out {path}")
    return result


def _take(result: ResultFile, value, where: str, number: int) -> None:
    if not isinstance(value, dict) or "schema" not in value:
        raise RecordError(f"{where}: not a busbw result line (no schema); accepted: {SCHEMA}")
    if value["schema"] != SCHEMA:
        raise RecordError(f"{where}: schema {str(value['schema'])[:60]!r} is of another version; accepted: {SCHEMA}")
    kind = value.get("kind")
    if kind == "limits" and isinstance(value.get("limits"), dict):
        result.limits = value["limits"]
    elif kind == "measurement":
        result.records.append(_record(value, where))
    elif kind == PAIRS and isinstance(value.get("pairs"), list):
        for row in value["pairs"]:
            result.pairs += _both_ways(row, where, number)
    else:
        raise RecordError(f"{where}: kind {str(kind)[:60]!r}; accepted: measurement, limits, {PAIRS}")


def _both_ways(row, where: str, number: int) -> tuple[Pair, Pair]:
    """One row of a line of pairs."""
    if not isinstance(row, list) or len(row) != 7 or not all(isinstance(name, str) and name for name in row[:2]):
        raise RecordError(f"{where}: a row of pairs; accepted: two names, seconds, three bandwidths, wrong elements")
    if not all(isinstance(v, _NUMBER) and not isinstance(v, bool) and 0 < v < RATE_MAX for v in row[2:6]):
        raise RecordError(f"{where}: seconds and bandwidths of pairs must be finite numbers > 0")
    a, b, seconds, there, back, both = row[:6]
    return Pair(number, a, b, there, seconds, both), Pair(number, b, a, back, seconds, both)


_NUMBER = (int, float)
_RECORD_TYPES = {
    "algorithm": str, "chosen": str, "transport": str, "clock": str, "ranks": int, "size_bytes": int, "count": int,
    "dtype": str, "op": str, "channels": int, "slices": int, "options": dict, "environment": dict, "warnings": list,
    "run": str, "time": str, "collective": str, "root": int,
}  # fmt: skip
_TIMING_TYPES = {
    "seconds": _NUMBER, "ci_low": _NUMBER, "ci_high": _NUMBER, "samples": list, "inner": int, "warmup": int,
    "stopped": str, "wrong": (int, type(None)),
}  # fmt: skip


def _record(value: dict, where: str) -> Record:
    fields = _checked({"collective": "all_reduce", "root": -1, **value}, _RECORD_TYPES, where)
    told = 0 if "source" in fields["options"] else 1  # a log of others may not tell
    least_of = {"ranks": told, "size_bytes": 0, "count": 0, "channels": told, "slices": told, "root": -1}
    for key, least in least_of.items():
        if not least <= fields[key] < INTEGER_MAX:
            raise RecordError(f"{where}: {key} must be from {least} to {INTEGER_MAX}")
    if not all(isinstance(w, str) for w in fields["warnings"]):
        raise RecordError(f"{where}: warnings must be texts")
    timings = {}
    for mode in ("out_of_place", "in_place"):
        t = value.get(mode)
        if t is None:
            timings[mode] = None
            continue
        if not isinstance(t, dict):
            raise RecordError(f"{where}: {mode} must be an object or null")
        t = _checked(t, _TIMING_TYPES, f"{where}: {mode}")
        times = [t["seconds"], t["ci_low"], t["ci_high"], *t["samples"]]
        if not all(isinstance(s, _NUMBER) and 0 <= s < TIME_MAX for s in times):
            raise RecordError(f"{where}: {mode}: times must be finite numbers >= 0")
        timings[mode] = Timing(**t)
    if not any(timings.values()):
        raise RecordError(f"{where}: neither out_of_place nor in_place was measured")
    return Record(**fields, **timings)


def _checked(value: dict, types: dict, where: str) -> dict:
    out = {}
    for key, kind in types.items():
        if key not in value:
            raise RecordError(f"{where}: the key {key!r} is missing")
        if not isinstance(value[key], kind) or isinstance(value[key], bool):
            raise RecordError(f"{where}: {key} is {type(value[key]).__name__}, which is not accepted there")
        out[key] = value[key]
    return out
