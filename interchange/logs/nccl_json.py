"""nccl-tests' -J document, whole or cut short by a kill.

The layout is src/util.cu's: booleans and nan are strings, the list of devices lies in "config" (or, as others write it, at the top)
and has one entry a process, so p is its length times nthreads times ngpus.
"""

from __future__ import annotations

import json
import re

from ...bench.log import Device, Figures, Row
from . import numbers
from .collective import collective, in_words
from .draft import Draft
from .info import SystemBuilder

MAX_BYTES = 24 << 20  # its objects take several times that
MAX_SAMPLES = 100_000  # of one row
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],]|[^\s{}\[\],"]+')


def parse(text: str) -> tuple[object, bool] | None:
    """(value, whole) of a JSON document. One that ends too early is read up to the last whole element of the list that it ends in.
    None where it is none."""
    try:
        return json.loads(text), True
    except (ValueError, RecursionError):
        pass
    cut = _last_whole(text)
    if cut is None:
        return None
    try:
        return json.loads(cut), False
    except (ValueError, RecursionError):
        return None


def _last_whole(text: str) -> str | None:
    """The text up to the last element that is whole of the outermost list it ends in, and brackets to close what is open."""
    stack: list[str] = []
    lists = 0
    safe: tuple[int, str] | None = None
    for found in _TOKEN.finditer(text):
        token = found.group()
        if token in "{[":
            stack.append("}" if token == "{" else "]")
            lists += token == "["
            if len(stack) > 64:
                return None
        elif token in "}]":
            if not stack or stack.pop() != token:
                return None
            lists -= token == "]"
            if not stack:
                return text[: found.end()]
        elif token == "," and (lists == 0 or (lists == 1 and stack[-1] == "]")):
            safe = found.start(), "".join(reversed(stack))
            continue
        if token in "}]" and (lists == 0 or (lists == 1 and stack[-1] == "]")):
            safe = found.end(), "".join(reversed(stack))
    return text[: safe[0]] + safe[1] if safe else None


def read(text: str, builder: SystemBuilder, first_line: int = 1) -> Draft | None:
    """The document's table; None where the text is no document of nccl-tests."""
    parsed = parse(text)
    if parsed is None or not isinstance(parsed[0], dict):
        return None
    document, whole = parsed
    results = document.get("results")
    if not isinstance(results, list) and not ("nccl_version" in document or "config" in document):
        return None
    draft = Draft("nccl-tests-json", "nccl-tests", builder, first_line)
    draft.last_line = first_line + text.count("\n")
    if not whole:
        draft.note(
            draft.last_line,
            "torn",
            "the document ends too early (the job was killed?); whole results are kept, the last one begun is not",
        )
    results = results if isinstance(results, list) else []
    config = document.get("config") if isinstance(document.get("config"), dict) else {}
    draft.parameters = {
        str(k)[:40]: str(v)[:80] for k, v in list(config.items())[:60] if isinstance(v, (int, float, str))
    }
    for key in ("start_time", "end_time"):
        if isinstance(document.get(key), str):
            draft.parameters[key] = document[key][:40]
    _system(document, config, builder, draft)
    names = {r.get("experiment_name") for r in results if isinstance(r, dict)} - {None}
    arguments = (
        " ".join(str(a)[:200] for a in document.get("args", [])[:100]) if isinstance(document.get("args"), list) else ""
    )
    if len(names) == 1 and isinstance(name := names.pop(), str):
        draft.collective, draft.collective_from = collective(name.removesuffix("_mpi")), "experiment_name"
    elif name := in_words(arguments):
        draft.collective, draft.collective_from = name, "args"
    for i, result in enumerate(results):
        if len(draft.rows) >= draft.room:
            draft.dropped = len(results) - i
            break
        row = _row(result, first_line, draft) if isinstance(result, dict) else None
        if row is None:
            draft.note(first_line, "skipped", f"result {i + 1} has no size or no times")
        else:
            draft.rows.append(row)
    bounds, average = document.get("out_of_bounds"), document.get("average_bus_bandwidth")
    if isinstance(bounds, dict) and (n := figure(bounds.get("count"))) is not None:
        draft.out_of_bounds = int(n)
    if isinstance(average, dict) and (rate := figure(average.get("bandwidth"))) is not None:
        draft.average = rate * 1e9
    for e in (document.get("errors") or [])[:20] if isinstance(document.get("errors"), list) else []:
        draft.note(first_line, "warning", f"error in the log: {str(e)[:200]}")
    return draft


def _system(document: dict, config: dict, builder: SystemBuilder, draft: Draft) -> None:
    version = document.get("nccl_version")
    if isinstance(version, int) and 2000 < version < 1_000_000:
        major, minor, patch = (
            (version // 10000, version // 100 % 100, version % 100)
            if version >= 10000
            else (version // 1000, version // 100 % 10, version % 100)
        )
        builder.values.setdefault("nccl", f"{major}.{minor}.{patch}")
    for text in (document.get("env") or [])[:5000] if isinstance(document.get("env"), list) else []:
        if (isinstance(text, str) and "=" in text and "CCL" in text) or (
            isinstance(text, str) and text.startswith(("UCX_", "FI_", "CUDA_"))
        ):
            builder.other(0, text[:1000])
    if isinstance(document.get("args"), list):
        builder.sets["commands"].setdefault(" ".join(str(a)[:200] for a in document["args"][:100])[:2000])
    devices = next((d for d in (config.get("devices"), document.get("devices")) if isinstance(d, list)), [])
    for d in devices[:400_000]:
        if isinstance(d, dict) and isinstance(d.get("rank"), int) and 0 <= d["rank"] < 1 << 40:
            text = {k: str(d.get(k) or "")[:200] for k in ("hostname", "device_hex", "device_info")}
            whole = {k: d[k] if isinstance(d.get(k), int) else None for k in ("device", "pid", "group")}
            builder.add_device(
                Device(
                    draft.line,
                    d["rank"],
                    text["hostname"],
                    whole["device"],
                    text["device_info"],
                    text["device_hex"],
                    whole["pid"],
                    whole["group"],
                )
            )
    threads, gpus = figure(config.get("nthreads")), figure(config.get("ngpus"))
    processes = {(d.host, d.pid) for d in builder.devices}
    if threads and gpus and threads * gpus > 1 and len(processes) == len(builder.devices) > 0:
        draft.devices_hold = int(min(threads * gpus, 1 << 20))


def _row(result: dict, line: int, draft: Draft) -> Row | None:
    size = result.get("size")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= numbers.MAX_SIZE:
        return None
    halves = [_half(result.get(k), result.get(f"{k}_per_iter"), draft) for k in ("out_of_place", "in_place")]
    if not any(halves):
        return None
    root = str(result.get("root", "")).strip()
    count, iterations = result.get("count"), figure(result.get("actual_iterations"))
    return Row(
        line, size, *halves, count if isinstance(count, int) and 0 <= count <= numbers.MAX_SIZE else None,
        str(result.get("type", ""))[:20],
        str(result.get("redop", ""))[:20], int(root) if re.fullmatch(r"-?\d{1,9}", root) else None,
        int(iterations) if iterations else None, str(result.get("algorithm", ""))[:40],
    )  # fmt: skip


def _half(value: object, more: object, draft: Draft) -> Figures | None:
    if not isinstance(value, dict):
        return None
    if "time" not in value and "cpu_time" in value and not draft.host_time:
        draft.host_time = True
        draft.note(
            draft.line,
            "units",
            "the times are CPU times (-C): how long the host was busy, not how long the collective took",
        )
    time, algbw, busbw = (figure(value.get(k)) for k in ("time" if "time" in value else "cpu_time", "alg_bw", "bus_bw"))
    if time is None and algbw is None and busbw is None:
        return None
    more = more if isinstance(more, dict) else {}
    per = {k: v * 1e-6 for k, name in _PER_ITERATION if (v := figure(more.get(name))) is not None}
    samples = more.get("times_us")
    if isinstance(samples, list):
        per["samples"] = tuple(n * 1e-6 for s in samples[:MAX_SAMPLES] if (n := figure(s)) is not None)
    cv = figure(more.get("cv_pct"))
    # %lf prints six decimals.
    return Figures(
        seconds=None if time is None else time * 1e-6, algbw=None if algbw is None else algbw * 1e9,
        busbw=None if busbw is None else busbw * 1e9, wrong=figure(value.get("nwrong")), seconds_error=_error(time) * 1e-6,
        algbw_error=_error(algbw) * 1e9, busbw_error=_error(busbw) * 1e9, cv=None if cv is None else cv / 100, **per,
    )  # fmt: skip


_PER_ITERATION = (("low", "min_us"), ("high", "max_us"), ("p50", "p50_us"), ("p95", "p95_us"), ("p99", "p99_us"))


def _error(value: float | None) -> float:
    """Half of the last digit that the number shows: programs that rewrite the file round it to two decimals."""
    if value is None:
        return 0.0
    text = repr(value)
    got = numbers.real(text if "e" not in text else "0.000001")
    return got[1] if got else 0.0


def figure(value: object) -> float | None:
    """A finite number that is not negative, also as a string (\"12.5\"); None for anything else (\"nan\", true)."""
    if isinstance(value, str):
        got = numbers.real(value)
        return got[0] if got else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e300:
        return None
    return float(value)
