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

OLD_HEADER = """\
#       size         count    type   redop     time   algbw   busbw  error     time   algbw   busbw  error
#        (B)    (elements)                     (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""

# aws/aws-ofi-nccl issue 33: 2 p3dn, a lower rate with another release of EFA. Nothing of the system is in the log.
EFA_RELEASE = (
    OLD_HEADER
    + """\
     1048576        262144   float     sum   1035.3    1.01    1.90  5e-07    643.4    1.63    3.06  5e-07
     2097152        524288   float     sum    671.4    3.12    5.86  5e-07    671.8    3.12    5.85  5e-07
     4194304       1048576   float     sum   1140.5    3.68    6.90  5e-07   1144.3    3.67    6.87  5e-07
     8388608"""
)

# aws/aws-ofi-nccl issue 65: 2 p4d with plug-in 1.1.2 and NCCL 2.7.8, a rate that falls at 64 MiB.
_P4D_INFO = "node0:3695:3748 [7] NCCL INFO comm 0x0 rank 7 nranks 16 cudaDev 7 busId a01d0 - Init COMPLETE\n"
P4D_MIDDLE = (
    devices(2, 8, "A100-SXM4-40GB")
    + _P4D_INFO
    + OLD_HEADER
    + """\
     8388608       2097152   float     sum   1321.5    6.35   11.90  5e-07   1202.2    6.98   13.08  5e-07
    16777216       4194304   float     sum   1896.7    8.85   16.59  5e-07   1872.0    8.96   16.80  5e-07
    33554432       8388608   float     sum   1931.6   17.37   32.57  5e-07   1963.7   17.09   32.04  5e-07
    67108864      16777216   float     sum   6586.3   10.19   19.10  5e-07   6591.5   10.18   19.09  5e-07
   134217728      33554432   float     sum   8189.9   16.39   30.73  5e-07   8157.7   16.45   30.85  5e-07
   268435456      67108864   float     sum    11812   22.72   42.61  5e-07    11919   22.52   42.23  5e-07
"""
)
P4D_BEFORE_THE_FALL = (
    devices(2, 8, "A100-SXM4-40GB")
    + _P4D_INFO
    + OLD_HEADER
    + """\
    33554432       8388608   float     sum   1965.1   17.08   32.02  5e-07   1962.7   17.10   32.06  5e-07
    39845888       9961472   float     sum   2258.8   17.64   33.08  5e-07   2286.6   17.43   32.67  5e-07
    46137344      11534336   float     sum   2549.8   18.09   33.93  5e-07   2624.0   17.58   32.97  5e-07
"""
)

# NCCL issue 527: 4 p4d, the platform told by the plug-in; and its summary with a column of the poster's own.
P4D_TOLD = (
    """\
#   Rank  0 Pid 641217 on node0 device  0 [0x10] A100-SXM4-40GB
node1:416486:416524 [7] NCCL INFO NET/OFI Using aws-ofi-nccl 1.4.0aws
node1:416486:416524 [7] NCCL INFO NET/OFI Running on p4d.24xlarge platform, Setting NCCL_TOPO_FILE environment variable
node1:416486:416524 [7] NCCL INFO NET/OFI Selected Provider is efa
node1:416486:416524 [7] NCCL INFO Using network AWS Libfabric
node2:416604:416646 [5] NCCL INFO comm 0x7fb6 rank 29 nranks 32 cudaDev 5 busId 901d0 - Init COMPLETE
"""
    + OLD_HEADER
    + "  1073741824     268435456   float     sum    70253   15.28   29.61  1e-06    70207   15.29   29.63  1e-06\n"
)
OWN_COLUMN = """\
 p4dn        size         count      type   redop     time   algbw   busbw  error     time   algbw   busbw  error
              (B)    (elements)                       (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)

   1   1073741824     268435456     float     sum   8142.6  131.87  230.77  2e-07   8141.2  131.89  230.81  2e-07
"""

# nccl-tests issue 37: a release of 2020 that prints busbw in both columns of all_gather; pasted without its "#".
OUT_OF_BOUNDS = """\
all_gather_perf -g 8 -b 4294967296 -e 4294967296 -n 100
       size         count    type     time   algbw   busbw  error     time   algbw   busbw  error
        (B)    (elements)             (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
  4294967296     134217728   float    29122  129.05  129.05  1e+00    29169  128.84  128.84  1e+00
 Out of bounds values : 2 FAILED
 Avg bus bandwidth    : 128.942
"""

# nccl-tests issue 347: one node of the two; the host was called "NODE A".
HOST_OF_TWO_WORDS = (
    "".join(
        f"#  Rank  {i} Group  0 Pid {1976149 + i} on NODE A  device  {i} [0000:{bus}:00] {H100}\n"
        for i, bus in enumerate(("04", "23", "44", "63", "84", "a3", "c3", "e4"))
    )
    + HEADER
    + "  8589934592    2147483648     float     sum      -1    31356  273.95  479.41      0    31308  274.36  480.14      0\n"
)

# NCCL issue 1161: two H100 PCIe under an NVLink bridge, lines of NCCL without their host.
BRIDGED = (
    "#  Rank  0 Pid 100 on node0 device  0 [0x01] NVIDIA H100 PCIe\n#  Rank  1 Pid 100 on node0 device  1 [0x21] NVIDIA H100 PCIe\n"
    "NCCL INFO Trees [0] 1/-1/-1->0->-1 [1] 1/-1/-1->0->-1\n"
    "[1] NCCL INFO Channel 00/0 : 1[21000] -> 0[1000] via P2P/direct pointer\n"
    + HEADER
    + """\
  1073741824     268435456     float     sum      -1   9306.7  115.37  115.37      0   9291.5  115.56  115.56      0
  2147483648     536870912     float     sum      -1    18535  115.86  115.86      0    18524  115.93  115.93      0
"""
)

# nccl-tests issue 232: one H100 a node, 4 NICs named; one GPU takes what its PCIe link gives.
ONE_GPU_OF_FOUR_NICS = (
    "$ mpirun --hostfile hosts.txt -x NCCL_ALGO=Tree -x NCCL_IB_GID_INDEX=3 -x NCCL_IB_HCA=mlx5_0,mlx5_1,mlx5_4,mlx5_5 -np 2 "
    "./all_reduce_perf -b 2M -e 16G -f 2 -n 10 -g 1 -w 10\n"
    + HEADER
    + """\
     2097152        524288     float     sum      -1    113.2   18.53   18.53      0    93.35   22.46   22.46      0
     8388608       2097152     float     sum      -1    231.4   36.24   36.24      0    227.8   36.83   36.83      0
    33554432       8388608     float     sum      -1    812.3   41.31   41.31      0    808.2   41.52   41.52      0
"""
)

# nccl-tests issue 322: about 1,024 ranks, which the figures do not tell; the job failed later.
MANY_RANKS = (
    HEADER
    + """\
  1073741824     268435456     float     sum      -1    19355   55.48  110.84      0    19189   55.96  111.80      0
  4294967296    1073741824     float     sum      -1    25377  169.24  338.16      0    25456  168.72  337.11      0
 17179869184    4294967296     float     sum      -1    93457  183.83  367.29      0    93420  183.90  367.44      0
node1: Test NCCL failure common.cu:1204 'unhandled cuda error (run with NCCL_DEBUG=INFO for details) / '
"""
)

# NCCL issue 644: rows of an all_gather without their header, of a release without redop.
OLD_ALL_GATHER = """\
       65536          2048     float    52.01    1.26    1.10  0e+00    50.09    1.31    1.14  0e+00
     1048576         32768     float    162.1    6.47    5.66  0e+00    162.0    6.47    5.66  0e+00
   134217728       4194304     float    16059    8.36    7.31  0e+00    16111    8.33    7.29  0e+00
"""

# nccl-tests issue 44: two cards, all_gather, busbw in both columns.
OLD_ALL_GATHER_OF_TWO = """\
       32768          4096   float    13.39    1.22    1.22  0e+00    11.85    1.38    1.38  0e+00
     1048576        131072   float    47.38   11.06   11.06  0e+00    46.84   11.19   11.19  0e+00
   134217728      16777216   float   3298.6   20.34   20.34  0e+00   3070.3   21.86   21.86  0e+00
"""

# NCCL issue 428: one node, whose network is not used, and libibverbs is missing.
ONE_NODE_SOCKETS = """\
node0:93569:93569 [0] NCCL INFO NET/Plugin : No plugin found (libnccl-net.so), using internal implementation
node0:93569:93569 [0] misc/ibvwrap.cc:63 NCCL WARN Failed to open libibverbs.so[.1]
node0:93569:93569 [0] NCCL INFO NET/Socket : Using [0]em1:192.0.2.3<0> [1]tunl0:192.0.2.12<0>
node0:93569:93569 [0] NCCL INFO Using network Socket
"""

# nccl-tests issue 29: each host's one NIC has another name.
NICS_OF_OTHER_NAMES = """\
node0:117953:117953 [7] NCCL INFO NET/IB : Using [0]mlx5_1:1/IB ; OOB enp41s0f1:<0>
node1:15221:15221 [5] NCCL INFO NET/IB : Using [0]mlx5_0:1/IB ; OOB enp41s0f1:<0>
"""

# Lines of NCCL's: NCCL issue 229 (the plug-in over TCP), nccl-tests issue 62 (PCIe Gen3 on an A100), NCCL issue 1403 (two hosts of
# one name).
PLUGIN_OVER_TCP = "node0:1:1 [0] NCCL INFO NET/OFI Selected Provider is tcp;ofi_rxm\n"
PCIE_GEN3 = """\
[0] NCCL INFO + PCI[12.0] - PCI/1000
[0] NCCL INFO               + PCI[12.0] - PCI/6000
[0] NCCL INFO                             + PCI[12.0] - PCI/C000
[0] NCCL INFO                                           + PCI[12.0] - GPU/E000 (0)
"""
ONE_NAME = "".join(
    f"#  Rank {2 * i + k:2} Group  0 Pid {(283571, 287301)[k] + i} on xx device  {i} [0x{bus}] {H100}\n"
    for i, bus in enumerate(("1b", "29", "45", "4e", "83", "95", "b1", "c4"))
    for k in range(2)
)
