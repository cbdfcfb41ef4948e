"""Mutated files to all readers: python benchmarks/fuzz_readers.py --count 1000000 --state FILE [--seeds FOLDER] [--seed N].

Each input is a small file of one kind, or two glued together, with bytes, tokens and lines changed, repeated, cut or moved:

    logs      the pass over a log, its words, its records as a result file's; every eighth also its answers, as text and as JSON
    packed    the same, of a gzip file that is damaged
    results   busbw's own result files, and their answers
    GOAL      schedules; cards, workloads: YAML

What must not happen: an exception other than UserError, more than a second for one input, or more than 300 MB. Prints what was
found; exit code 1 where something was. A finding is written to --keep. Input i of a seed is always the same, and --state FILE
keeps the sums: the same command again goes on where the last one ended, up to --count.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import busbw
from busbw.answer import tables
from busbw.answer.forms import junit, plain_data
from busbw.answer.situation import Given
from busbw.answer.words import words as answer_words
from busbw.bench import record
from busbw.errors import UserError
from busbw.fabric import workload
from busbw.fabric.cards import card
from busbw.interchange import goal
from busbw.interchange.logs import read_stream
from busbw.interchange.logs.records import records
from busbw.interchange.logs.words import words

NCCL = """\
mpirun \\
    -np 16 -H node0:8,node1:8 -x NCCL_IB_HCA=mlx5_0,mlx5_1 \\
    ./build/all_reduce_perf -b 8 -e 32M -f 2 -g 1
\tGPU0\tGPU1\tNIC0\tCPU Affinity
GPU0\t X \tNV12\tNODE\t0-15
[1,0]<stdout>:# nThread 1 nGpus 1 minBytes 8 maxBytes 33554432 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 validation: 1
[1,0]<stdout>:# Using devices
[1,0]<stdout>:#  Rank  0 Group  0 Pid  10000 on      node0 device  0 [0x07] NVIDIA H100 80GB HBM3
[1,0]<stdout>:#  Rank  1 Group  0 Pid  10001 on      node1 device  1 [0x17] NVIDIA H100 80GB HBM3
[1,0]<stdout>:#                                                out-of-place                       in-place
[1,0]<stdout>:#       size    count   type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
[1,0]<stdout>:#        (B)  (elements)                          (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
[1,0]<stdout>:    16777216  4194304  float     sum      -1    1334.9   12.57   24.09      0    1336.5   12.55   24.06      0
node0:67:216 [4] NCCL INFO Channel 00/0 : 7[7] -> 8[0] [send] via NET/IB/0/GDRDMA
node0:67:216 [4] NCCL INFO comm 0x5 rank 7 nranks 24 cudaDev 7 busId a01d0 - Init COMPLETE
[1,0]<stdout>:    33554432  8388608  float     sum      -1[1,0]<stdout>:  2180.1  15.39  29.50      0  2285.2  14.68  28.14      0
[1,0]<stdout>:# Out of bounds values : 0 OK
[1,0]<stdout>:# Avg bus bandwidth    : 26.4475
"""
OLD = """\
#                                                 out-of-place                    in-place
#      bytes             N    type      op     time  algbw  busbw      res     time  algbw  busbw      res
#     1048576        262144   float     sum    0.293   3.58   3.58       N/A    0.294   3.57   3.57      N/A
#       size         count    type   redop     time   algbw   busbw  error     time   algbw   busbw  error
     1048576        262144   float     sum   1035.3    1.01    1.90  5e-07    643.4    1.63    3.06  5e-07
     8388608
"""
OTHERS = """\
# OSU MPI-CUDA Allreduce Latency Test v7.3
# Datatype: MPI_CHAR.
# Size       Avg Latency(us)   Min Latency(us)   Max Latency(us)  Iterations
4                      11.69              9.50             14.02        1000
# Benchmarking Allreduce
# #processes = 144
       #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]
            8         1000         4.50        18.59        11.69
\tCOMMS-RES-all_reduce-float32   1048576   262144   58.1   58.9   61.0   57.2   61.3   18.048   33.840
The average bandwidth of all_reduce over 8 ranks (5 warmups / 20 trials):
| payload |    busbw   |    algbw   |
| ------: | ---------: | ---------: |
|   32KiB |   1.31GBps |   0.75GBps |
   D\\D     0      1
     0 1234.50  38.20
     1  38.30 1230.10
node644,node699     49.36
node632,node641     88.36
node284,node678     49.28  # crossing TOR
"""
CSV = """\
numCycle, name, size, type, redop, inPlace, time, algBw, busBw, #wrong
1, "AllReduce", 1024, "float", "sum", 0, 19.184, 0.05337, 0.08006, "0"
1, "AllReduce", 1024, "float", "sum", 1, 19.897, 0.05146, 0.07719, "0"

size\ttype\tredop\tbusbw\talgo\tproto\tnchannels
(B)\t(us)\t(GB/s)\t(GB/s)\t\t\t
33554432\tfloat\tsum\t127.38\tTREE\tLL128\t64

    size    time   algbw   busbw
    32_768   43.83    0.75    1.31
"""
JSON_LINE = (
    '{"#wrong":"0","algBw":0.0533,"busBw":0.0800,"gpus":4,"inPlace":0,"name":"AllReduce","redop":"sum","size":1024,'
    '"time":19.18,"type":"float"}\n'
)
_HALF = {"time": 2984.6, "alg_bw": 179.88, "bus_bw": 356.01, "nwrong": 0.0}
DOCUMENT = json.dumps(
    {
        "version": 2, "args": ["./all_reduce_perf"], "env": ["NCCL_DEBUG=WARN"], "nccl_version": 22907,
        "config": {"nthreads": 1, "ngpus": 8, "devices": [{"rank": 0, "pid": 1, "hostname": "n0", "device": 0}]},
        "results": [
            {"size": 1 << s, "count": 1 << (s - 2), "type": "float", "redop": "sum", "root": "    -1", "out_of_place": _HALF,
             "in_place": _HALF, "in_place_per_iter": {"times_us": [1.0, 2.5], "cv_pct": 3.0}, "actual_iterations": 20}
            for s in (29, 30)
        ],
        "out_of_bounds": {"count": 0, "okay": "true"}, "average_bus_bandwidth": {"bandwidth": 373.1}, "errors": [],
    }
)  # fmt: skip
SEEDS = [s.encode() for s in (NCCL, OLD, OTHERS, CSV, JSON_LINE * 3, DOCUMENT)]
TOKENS = [
    *b"0 -1 1e999 0.00 nan inf N/A 1e-320 1_0 # | , { } [ ] 0: > (GB/s) size busbw time float 18446744073709551616 1e+07".split(),
    *b"true null OSU COMMS-RES-x [1,0]<stdout>: 2024-05-01T12:00:00Z".split(), b"9" * 40, b"9" * 400, b"\xd9\xa3", b"\xff\xfe",
    b"\x00", b"\t", b'"', b" NCCL INFO ", b" via ", b"(" * 50, b"[" * 2000, b" " * 500, b"a" * 3000, b"\r", b"\n", b"Rank 0",
    b"\x1b[0m", b"nranks 99999999999",
]  # fmt: skip
MOST_BYTES = 64 << 10
SECONDS, MEGABYTES = 1.0, 300


def mutate(random: random.Random, seeds: list[bytes]) -> bytes:
    """A few changes to one of the seeds."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.randint(1, 6)):
        if not data:
            break
        at, kind = random.randrange(len(data)), random.randrange(9)
        if kind == 0:
            data[at] = random.randrange(256)
        elif kind == 1:
            del data[at : at + random.randint(1, 40)]
        elif kind == 2:
            data[at:at] = random.choice(TOKENS)
        elif kind == 3:
            data = data[:at]
        elif kind == 4:  # a token becomes another
            end = at
            while end < len(data) and data[end] not in b" \n\t,|":
                end += 1
            data[at:end] = random.choice(TOKENS)
        elif kind == 5:  # lines change places, are repeated or lost
            lines = bytes(data).split(b"\n")
            i, j = random.randrange(len(lines)), random.randrange(len(lines))
            if random.random() < 0.4:
                lines[i], lines[j] = lines[j], lines[i]
            elif random.random() < 0.5:
                lines[i:i] = [lines[j]] * random.randint(1, 20)
            else:
                del lines[i]
            data = bytearray(b"\n".join(lines))
        elif kind == 6:
            data[at:at] = bytes(data[at : at + random.randint(1, 200)]) * random.randint(1, 10)
        elif kind == 7:
            other = random.choice(seeds)
            data[at:at] = other[random.randrange(len(other)) :]
        else:
            data[at] ^= 1 << random.randrange(8)
    return bytes(data[:MOST_BYTES])


def try_readers(data: bytes, answer: bool = False) -> None:
    """All that a log goes through on its way to a record; answer: and to an answer."""
    log = read_stream(io.BufferedReader(io.BytesIO(data)), "fuzz")
    words(log)
    for found in records(log, ranks=8).records:
        found.to_json()
    if answer:
        in_words(tables.answers_of(log, Given()))


def in_words(found: list) -> None:
    """Answers in all their forms."""
    of_tables = [a for a in found if a.answer]
    for a in of_tables:
        answer_words(a.name, a.answer, a.causes)
        json.dumps(plain_data(a.name, a.answer, a.causes))
    junit([(a.name, a.answer, a.causes) for a in of_tables])


def try_results(path: Path) -> None:
    in_words(tables.answers_of_results(record.read(path), Given()))


def own_results() -> bytes:
    """A small result file."""
    timing = record.Timing(1e-3, 9e-4, 1.1e-3, [1e-3, 9e-4, 1.1e-3], 1, 1, "confidence", 0)
    lines = [
        record.Record(
            algorithm="ring", chosen="ring", transport=transport, clock="wall", ranks=2, size_bytes=4 << size, count=1 << size,
            dtype="float32", op="sum", channels=1, slices=1, out_of_place=timing, in_place=None, warnings=["load"],
            options={"first": 8}, environment={"hostnames": ["a"], "caches": {"L3": 1 << 20}, "gpus": ["NVIDIA H100"]},
        ).to_json()
        for transport in ("shared", "nccl")
        for size in (18, 24)
    ]  # fmt: skip
    lines.append(record.limits_line({"copy": 2e10, "add": 3e10, "least_seconds": {"ring/out_of_place": 1e-3},
                                     "least_seconds_size": 1 << 26}, ""))  # fmt: skip
    pairs = {"schema": record.SCHEMA, "kind": "pairs", "pairs": [["a", "b", 1e-6, 1e9, 1e9, 2e9, 0]]}
    return "\n".join([*lines, json.dumps(pairs)]).encode() + b"\n"


GOAL = """\
num_ranks 2
// a remark
rank 0 {
o0: send 8b to 1 tag 0
o1: calc 100 cpu 1
o1 requires o0
}
rank 1 {
o0: recv 8b from 0 tag 0 nic 1
o1: calc 5
o1 irequires o0
}
"""


def readers(folder: Path, more: list[bytes]) -> dict[str, tuple[float, list[bytes], object]]:
    """By kind: how often, seeds, and what an input (of bytes, its number) goes through. more: further logs."""
    here, scratch = Path(busbw.__file__).parent, folder / "input.yaml"

    def by_path(read):
        def through(data: bytes, i: int) -> None:
            scratch.write_bytes(data)
            read(scratch)

        return through

    logs = SEEDS + more
    cards = [p.read_bytes() for p in sorted((here / "fabric/cards/systems").glob("*.yaml"))]
    works = [p.read_bytes() for p in sorted((here / "fabric/workloads").glob("*.yaml"))]
    return {
        "logs": (0.45, logs, lambda data, i: try_readers(data, answer=i % 8 == 0)),
        "packed": (0.2, [gzip.compress(s) for s in logs], lambda data, i: try_readers(data)),
        "results": (0.1, [own_results()], by_path(try_results)),
        "GOAL": (0.1, [GOAL.encode()], lambda data, i: goal.parse(data.decode("ascii", "replace"))),
        "cards": (0.05, cards, by_path(card.load)),
        "workloads": (0.1, works, by_path(workload.load)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", metavar="FOLDER", help="logs to mutate besides those in this file")
    parser.add_argument("--keep", metavar="FOLDER", help="where to write inputs that were found")
    parser.add_argument("--state", metavar="FILE", help="sums so far: read, and written every 1000 inputs")
    args = parser.parse_args()
    more = [p.read_bytes()[: 16 << 10] for p in sorted(Path(args.seeds).iterdir())] if args.seeds else []
    sums = {
        "seed": args.seed,
        "inputs": 0,
        "found": 0,
        "refused": 0,
        "slowest": 0.0,
        "peak_mb": 0.0,
        "seconds": 0.0,
        "kinds": {},
    }
    if args.state and Path(args.state).exists():
        sums = json.loads(Path(args.state).read_text())
    kinds, before, started = collections.Counter(sums["kinds"]), sums["seconds"], time.monotonic()

    def keep_sums() -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        sums["peak_mb"], sums["seconds"] = max(sums["peak_mb"], peak), before + time.monotonic() - started
        sums["kinds"] = dict(kinds)
        if args.state:
            Path(args.state).write_text(json.dumps(sums))

    with tempfile.TemporaryDirectory() as folder:
        found = readers(Path(folder), more)
        names, shares = list(found), [share for share, *_ in found.values()]
        try:
            while sums["inputs"] < args.count:
                i = sums["inputs"]
                source = random.Random(f"{sums['seed']}/{i}")
                kind = source.choices(names, shares)[0]
                _, seeds, through = found[kind]
                data = mutate(source, seeds)
                used, error = time.process_time(), ""
                try:
                    through(data, i)
                except UserError:
                    sums["refused"] += 1
                except Exception:
                    error = traceback.format_exc()
                used = time.process_time() - used
                sums["inputs"] += 1
                kinds[kind] += 1
                sums["slowest"] = max(sums["slowest"], used)
                if error or used > SECONDS:
                    sums["found"] += 1
                    if sums["found"] <= 20:
                        print(f"input {i} ({kind}): {error or f'{used:.2f} s'}", flush=True)
                    if args.keep:
                        Path(args.keep, f"{i}.{kind}").write_bytes(data)
                if sums["inputs"] % 1000 == 0:
                    keep_sums()
        except KeyboardInterrupt:
            pass
    keep_sums()
    print(
        f"{sums['inputs']} inputs in {sums['seconds']:.0f} s ({', '.join(f'{n} {k}' for k, n in kinds.items())}): {sums['found']} "
        f"with a traceback or over {SECONDS:g} s of processor time, {sums['refused']} refused in one line; slowest "
        f"{sums['slowest']:.3f} s; peak memory of the whole process {sums['peak_mb']:.0f} MB"
    )
    return 1 if sums["found"] or sums["peak_mb"] > MEGABYTES else 0


if __name__ == "__main__":
    sys.exit(main())
