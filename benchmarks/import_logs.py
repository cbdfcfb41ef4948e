"""How fast `busbw import` reads a large log, and in how much memory: python benchmarks/import_logs.py --mb 500.

Three logs are made in a temporary folder, each of the size asked for: "info": what NCCL_DEBUG=INFO of many ranks prints, behind
mpirun's tags, with rows between; "tables": the same small log again and again; "rows": nothing but rows. Each is read in a process
of its own, whose processor time, wall-clock time (of the run with the least processor time) and peak resident memory are printed,
beside the time that `wc -l` takes.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HEADER = (
    "#                                                              out-of-place                       in-place\n"
    "#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong\n"
    "#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)\n"
)


def row(size: int) -> str:
    seconds = 30e-6 + size / 200e9
    algbw = size / seconds / 1e9
    figures = f"{seconds * 1e6:7.1f}  {algbw:6.2f}  {algbw * 1.875:6.2f}      0"
    return f"{size:>12}  {size // 4:>12}     float     sum      -1  {figures}  {figures}\n"


def preamble(ranks: int) -> str:
    lines = [
        "# nThread 1 nGpus 1 minBytes 8 maxBytes 8589934592 step: 2(factor) warmup iters: 5 iters: 20 agg iters: 1 "
        "validation: 1 graph: 0\n"
    ]
    lines += ["# Using devices\n"]
    lines += [
        f"#  Rank {r:>2} Group  0 Pid {10000 + r} on node{r // 8} device {r % 8} [0000:{r % 8}7:00] NVIDIA H100 80GB HBM3\n"
        for r in range(ranks)
    ]
    return "".join(lines) + HEADER


def make(kind: str, path: Path, size: int) -> None:
    """Write a log of about `size` bytes."""
    ranks = 16
    with path.open("w") as f:
        if kind == "rows":
            f.write(preamble(ranks))
            block = "".join(row(8 << (i % 31)) for i in range(3100))
        elif kind == "tables":
            block = preamble(ranks) + "".join(row(8 << i) for i in range(31))
            block += "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 92.3405\n#\n"
        else:
            f.write(preamble(ranks))
            lines = []
            for r in range(512):
                tag, who = f"[1,{r}]<stdout>:", f"node{r // 8}:{10000 + r}:{10800 + r} [{r % 8}] NCCL INFO "
                for c in range(16):
                    lines.append(
                        f"{tag}{who}Channel {c:02d}/0 : {r}[{r % 8}] -> {r + 1}[{(r + 1) % 8}] [send] via NET/IB/{c % 8}/GDRDMA\n"
                    )
                    lines.append(f"{tag}{who}Channel {c:02d}/0 : {r}[{r % 8}] -> {r ^ 1}[{r % 8 ^ 1}] via P2P/CUMEM\n")
                lines.append(f"{tag}{who}Trees [0] {r + 1}/-1/-1->{r}->{r - 1} [1] {r + 1}/-1/-1->{r}->{r - 1}\n")
                lines.append(f"{tag}{who}Connected all rings, use ring PXN 0 GDR 1\n")
                lines.append(
                    f"{tag}{who}comm 0x55d0c8{r:06x} rank {r} nranks 512 cudaDev {r % 8} busId {r:x}000 - Init COMPLETE\n"
                )
                lines.append(f"[1,0]<stdout>:{row(8 << (r % 31))}")
            block = "".join(lines)
        data = block.encode()
    with path.open("ab") as f:
        while f.tell() < size:
            f.write(data)


def read_once(path: str) -> None:
    """In a process of its own: processor seconds, wall-clock seconds, peak resident MB, tables, rows, lines."""
    from busbw.interchange.logs import read

    start, used = time.perf_counter(), time.process_time()
    log = read(path)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{used:.3f} {seconds:.3f} {peak:.0f} {len(log.tables)} {sum(len(t.rows) for t in log.tables)} {log.lines}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mb", type=int, default=500)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--kinds", default="info,tables,rows")
    parser.add_argument(
        "--read", metavar="LOG", help="read one log and print what it took (used by this program itself)"
    )
    args = parser.parse_args()
    if args.read:
        read_once(args.read)
        return
    print(
        f"{'log':>8}  {'lines':>9}  {'cpu s':>8}  {'wall s':>8}  {'MB/cpu s':>8}  {'peak MB':>8}  {'tables':>6}"
        f"  {'rows':>6}  {'wc -l s':>8}"
    )
    with tempfile.TemporaryDirectory(prefix="import-") as folder:
        for kind in args.kinds.split(","):
            path = Path(folder) / f"{kind}.log"
            make(kind, path, args.mb << 20)
            start = time.perf_counter()
            subprocess.run(["wc", "-l", path], check=True, capture_output=True)
            count = time.perf_counter() - start
            runs = []
            for _ in range(args.times):
                done = subprocess.run(
                    [sys.executable, __file__, "--read", path], check=True, capture_output=True, text=True
                )
                runs.append([float(x) for x in done.stdout.split()])
            best = min(runs)
            print(
                f"{kind:>8}  {best[5]:>9.0f}  {best[0]:>8.2f}  {best[1]:>8.2f}  {args.mb / best[0]:>8.0f}"
                f"  {max(r[2] for r in runs):>8.0f}  {best[3]:>6.0f}  {best[4]:>6.0f}  {count:>8.2f}",
                flush=True,
            )
            path.unlink()


if __name__ == "__main__":
    main()
