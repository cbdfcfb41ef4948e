"""nccl-tests' JSON (its -J), written from our records, for tools that read that."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from ..bench.record import Record, Timing
from ..errors import UserError
from ..kernels.dtypes import find_device_dtype

FILE_VERSION = 2  # JSON_FILE_VERSION in nccl-tests' src/util.cu


def to_json(records: Sequence[Record]) -> dict:
    """The document that nccl-tests' -J writes (writeDeviceReport and its neighbours in src/util.cu), from records of one run.

    Times are in microseconds and bandwidths in GB/s, clock times local and without a zone, booleans the strings "true" and
    "false", as there; what busbw does not know of a device (its process, its PCI address) is null. Each result has one key more:
    "algorithm".
    """
    first = records[0]
    wrong = sum(t.wrong or 0 for r in records for t in (r.out_of_place, r.in_place) if t)
    rates = [r.busbw(t) / 1e9 for r in records for t in (r.out_of_place, r.in_place) if t]
    options = first.options
    step = {"step_bytes": options["step"]} if options.get("step") else {"step_factor": options.get("factor") or 2}
    effort = options.get("effort", {})
    several = bool(first.environment.get("mpi"))  # processes of a job, each with one rank
    return {
        "version": FILE_VERSION,
        "start_time": _local(first.environment.get("time")),
        "args": sys.argv,
        "env": [],
        "nccl_version": 0,
        "config": {
            "nthreads": 1 if several else first.ranks,
            "ngpus": 1,
            "minimum_bytes": options.get("first"),
            "maximum_bytes": options.get("last"),
            **step,
            "warmup_iters": effort.get("warmup"),
            "iterations": effort.get("iterations"),
            "aggregated_iterations": 1,
            "validation": int(bool(effort.get("check", True))),
            "graph": 0,
            "blocking_collectives": "false",
            "per_iter_timing": "true",
            "parallel_init": "false",
            "devices": [_device(first, rank) for rank in range(first.ranks)],
        },
        "results": [_result(r) for r in records],
        "out_of_bounds": {"count": wrong, "okay": "false" if wrong else "true"},
        "average_bus_bandwidth": {"bandwidth": sum(rates) / len(rates), "okay": "unchecked"},
        "errors": [],
        "end_time": _local(records[-1].time),
    }  # fmt: skip


def _local(time: str | None) -> str | None:
    """A record's ISO 8601 time as nccl-tests writes it: on this machine's clock."""
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else None


def _device(record: Record, rank: int) -> dict:
    """A rank as an entry of "devices". Ranks share GPUs evenly where there are fewer, as transports.device deals them out."""
    env = record.environment
    hosts = env.get("rank_hosts") or list(env.get("hostnames") or [None]) * record.ranks
    gpus = (env.get("gpu") or {}).get("devices") or []
    index = rank * len(gpus) // record.ranks if gpus and not env.get("mpi") else rank
    gpu = gpus[index] if index < len(gpus) else {}
    return {
        "rank": rank,
        "group": 0,
        "pid": None,
        "hostname": hosts[rank],
        "device": index,
        "device_hex": gpu.get("pci_bus_id"),
        "device_info": gpu.get("name") or env.get("cpu_model"),
    }


def _result(record: Record) -> dict:
    out = {
        "size": record.size_bytes,
        "count": record.count,
        "type": find_device_dtype(record.dtype).nccl,
        "redop": record.op,
        "root": f"{record.root:>6}",
        "algorithm": record.chosen,
    }
    for key, timing in (("out_of_place", record.out_of_place), ("in_place", record.in_place)):
        out[key] = timing and {
            "time": timing.seconds * 1e6,
            "alg_bw": record.algbw(timing) / 1e9,
            "bus_bw": record.busbw(timing) / 1e9,
            "nwrong": timing.wrong,
        }
        if timing:
            out[f"{key}_per_iter"] = _per_iteration(timing)
    out["actual_iterations"] = len(record.best.samples) * record.best.inner
    out["experiment_name"] = record.collective
    return out


def _per_iteration(timing: Timing) -> dict:
    t = np.array(timing.samples) * 1e6
    return {
        "min_us": float(t.min()),
        "max_us": float(t.max()),
        "avg_us": float(t.mean()),
        **{f"p{q}_us": float(np.percentile(t, q, method="inverted_cdf")) for q in (50, 95, 99)},
        "stdev_us": float(t.std()),
        "cv_pct": float(100 * t.std() / t.mean()) if t.mean() > 0 else 0.0,
        "times_us": t.tolist(),
    }


def write_json(path: str, records: Sequence[Record]) -> None:
    """Raises UserError where the file cannot be written."""
    try:
        Path(path).write_text(json.dumps(to_json(records), indent=1))
    except OSError as e:
        raise UserError(f"-J {path}: cannot be written: {e.strerror}") from None
