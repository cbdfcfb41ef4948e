"""Logs for the tests: figures of public ones with their sources (host names are ours), and a writer of nccl-tests' tables."""

from __future__ import annotations

HEADER = """\
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""


def devices(hosts: int, each: int, gpu: str, first_pid: int = 100) -> str:
    """nccl-tests' list of devices, ranks filling hosts."""
    lines = ["# Using devices"]
    for r in range(hosts * each):
        lines.append(
            f"#  Rank {r:2} Group  0 Pid {first_pid + r:6} on node{r // each} device {r % each:2} [0x{7 + r % each:02x}] {gpu}"
        )
    return "\n".join(lines) + "\n"


def rows(ranks: int, busbw: dict[int, float], wrong: int = 0) -> str:
    """Rows of an all-reduce: busbw in GB/s by size."""
    out = []
    for size, value in busbw.items():
        algbw = value / (2 * (ranks - 1) / ranks)
        micros = size / algbw / 1e3
        half = f"{micros:9.2f} {algbw:7.2f} {value:7.2f} {wrong:6d}"
        out.append(f"{size:12d} {size // 4:13d}     float     sum      -1  {half}  {half}")
    return "\n".join(out) + "\n"


def nccl_log(hosts: int, each: int, gpu: str, busbw: dict[int, float], info: str = "", wrong: int = 0) -> str:
    return devices(hosts, each, gpu) + info + HEADER + rows(hosts * each, busbw, wrong)


H100 = "NVIDIA H100 80GB HBM3"
A100 = "NVIDIA A100-SXM4-80GB"

# NCCL issue 1453: 3 nodes of 8 H100 over two racks.
ACROSS_RACKS = (
    devices(3, 8, H100)
    + HEADER
    + """\
       524288        131072     float     sum      -1    366.5    1.43    2.74      0    340.8    1.54    2.95      0
      1048576        262144     float     sum      -1   1626.5    0.64    1.24      0   2302.3    0.46    0.87      0
      2097152        524288     float     sum      -1   2325.3    0.90    1.73      0    416.7    5.03    9.65      0
      4194304       1048576     float     sum      -1    622.6    6.74   12.91      0    625.8    6.70   12.85      0
      8388608       2097152     float     sum      -1    992.6    8.45   16.20      0    986.0    8.51   16.31      0
     16777216       4194304     float     sum      -1   1334.9   12.57   24.09      0   1336.5   12.55   24.06      0
     33554432       8388608     float     sum      -1   2180.1   15.39   29.50      0   2285.2   14.68   28.14      0
     67108864      16777216     float     sum      -1    24410    2.75    5.27      0    24425    2.75    5.27      0
    134217728      33554432     float     sum      -1    49264    2.72    5.22      0    48558    2.76    5.30      0
    268435456      67108864     float     sum      -1   125807    2.13    4.09      0   121575    2.21    4.23      0
    536870912     134217728     float     sum      -1   193909    2.77    5.31      0   192903    2.78    5.33      0
"""
)

# nccl-tests issue 107: built without MPI, two jobs of one rank.
TWO_RUNS = (
    """\
# nThread 1 nGpus 1 minBytes 8 maxBytes 134217728 step: 2(factor) warmup iters: 5 iters: 20 validation: 1
# Using devices
#   Rank  0 Pid  10000 on      node1 device  0 [0x89] Tesla V100-SXM2-16GB
# nThread 1 nGpus 1 minBytes 8 maxBytes 134217728 step: 2(factor) warmup iters: 5 iters: 20 validation: 1
# Using devices
#   Rank  0 Pid  20000 on      node0 device  0 [0x89] Tesla V100-SXM2-16GB
#
"""
    + HEADER
)

# nccl-tests issue 249: one GPU.
ONE_GPU = """\
# Collective test starting: all_reduce_perf
# nThread 1 nGpus 1 minBytes 536870912 maxBytes 8589934592 step: 2(factor) warmup iters: 5 iters: 20
# Out of bounds values : 0 OK
# Avg bus bandwidth    : 0
"""

# nccl-tests issue 106: busbw between pairs of nodes; node 644 was slow.
PAIRS = """\
node644,node699     49.36
node632,node641     88.36
node284,node678     49.28  # crossing TOR
node641,node644     49.30
node404,node699     86.81  # crossing TOR
"""

# Oracle's tutorial on 4 nodes of 36 ranks: Intel MPI Benchmarks 2018 over Open MPI 4.1.
IMB_KNEE = """\
#    Intel (R) MPI Benchmarks 2018, MPI-1 part
# Benchmarking Allreduce
# #processes = 144
       #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]
       131072          320        94.22        96.21        95.28
       262144          160       148.11       151.03       149.60
       524288           80       254.10       258.91       256.77
      1048576           40       441.51       455.22       448.39
      2097152           20      3570.11      3612.77      3592.02
      4194304           10      5302.40      5411.31      5360.01
"""

# Open MPI pull request 12318: OSU 7.3 on GPU buffers of 12 p4d instances.
OSU_CUDA = """\
# OSU MPI-CUDA Reduce Latency Test v7.3
# Size       Avg Latency(us)
1                      50.92
2                      49.91
4                      50.08
8                      50.01
16                     50.37
"""

# OSU 5.8 over 192 ranks (flux on Azure): a queue pair could not be made, and 128 KiB takes four times as long as 256 KiB.
OSU_SPIKE = """\
[ 3420.098285] infiniband mlx5_1: create_qp:3323:(pid 300371): Create QP type 2 failed
# OSU MPI Allreduce Latency Test v5.8
# Size       Avg Latency(us)
8192                  100.91
16384                 104.84
32768                 118.40
65536                 157.01
131072               2041.94
262144                505.41
524288               1023.61
1048576              2066.89
"""
