"""Logs of other tools: each kind in a short excerpt, and what must be read of it. Sources stand beside what is not ours."""

import json
import os

import pytest
from busbw.errors import UserError
from busbw.interchange.logs import read
from busbw.interchange.logs.records import records
from busbw.interchange.results import results_of

HEADER = """\
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
OLD_HEADER = """\
#                                                     out-of-place                       in-place
#       size         count    type   redop     time   algbw   busbw  error     time   algbw   busbw  error
#        (B)    (elements)                     (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""
# Rows of NVIDIA/nccl issue 1453, over 24 ranks.
ROW_16M = "    16777216       4194304     float     sum      -1    1334.9   12.57   24.09      0    1336.5   12.55   24.06      0\n"
ROW_32M = "    33554432       8388608     float     sum      -1    2180.1   15.39   29.50      0    2285.2   14.68   28.14      0\n"
FOOTER = "# Out of bounds values : 0 OK\n# Avg bus bandwidth    : 26.4475\n#\n"


def devices(ranks: int, per_host: int = 8, name: str = "NVIDIA H100 80GB HBM3") -> str:
    return (
        "# nThread 1 nGpus 1 minBytes 8 maxBytes 128 step: 2(factor) warmup iters: 5 iters: 20\n# Using devices\n"
        + "".join(
            f"#  Rank {r:>2} Group  0 Pid {4000 + r} on node{r // per_host} device {r % per_host} [0x{r:02x}] {name}\n"
            for r in range(ranks)
        )
    )


@pytest.fixture
def log(tmp_path):
    def write(text: str | bytes, name: str = "a.log"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(path)

    return write


def kinds(log) -> set[str]:
    return {n.kind for n in log.all_notes}


def test_a_plain_nccl_tests_table(log):
    (table,) = log(devices(24) + HEADER + ROW_16M + ROW_32M + FOOTER).tables
    assert (table.tool, table.collective, table.ranks, table.average) == ("nccl-tests", "all_reduce", 24, 26.4475e9)
    row = table.rows[1]
    assert (row.size_bytes, row.count, row.dtype, row.op, row.root) == (33554432, 8388608, "float", "sum", -1)
    assert row.out_of_place.seconds == pytest.approx(2180.1e-6)
    assert row.in_place.busbw == pytest.approx(28.14e9) and row.in_place.wrong == 0
    assert table.system.hosts == ["node0", "node1", "node2"] and table.system.gpus == ["NVIDIA H100 80GB HBM3"]
    assert table.parameters["step"] == "2(factor)"


PREFIXES = {
    "mpirun --tag-output": "[1,0]<stdout>:",
    "prterun": "[prterun-node0-9@1,0]<stdout>:",
    "mpich": "[0] ",
    "srun --label": " 0: ",
    "pdsh": "node17: ",
    "kubectl": "[pod/job-launcher-x7k2p/launcher] ",
    "kubectl --timestamps": "[pod/job-launcher-x7k2p/launcher] 2024-05-01T12:00:00.123456789Z ",
    "skypilot": "(head, rank=0, pid=3031) ",
    "skypilot and mpirun": "(head, rank=0, pid=3031) [1,0]<stdout>:",
    "mpirun --timestamp-output": "Thu Jul 18 15:41:05 2024[1,0]<stdout>:",
    "date only": "Thu Jul 18 15:41:05 2024<stdout>:",
    "bracketed time": "[2024-05-01 12:00:00] ",
    "clock": "12:00:00.123 ",
    "python logging": "2024-07-18 15:41:05,123 - bench.nccl - INFO - ",
    "stern": "job-launcher-x7k2p launcher ",
    "syslog": "May  1 12:00:00 node7 launcher[812]: ",
    "compose": "launcher-1  | ",
    "indented": "        [1,0]<stdout>:",
    "quoted in an issue": "> ",
    "of no known launcher": "nccl-job launcher=3 >> ",
    "coloured": "\x1b[32m[1,0]<stdout>:\x1b[0m",
}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_prefixes_of_launchers_change_nothing(log, prefix):
    text = devices(24) + HEADER + ROW_16M + ROW_32M + FOOTER
    (table,) = log("".join(prefix + line for line in text.splitlines(keepends=True))).tables
    assert [r.size_bytes for r in table.rows] == [16777216, 33554432]
    assert (table.ranks, table.average, len(table.system.devices)) == (24, 26.4475e9, 24)


@pytest.mark.parametrize("prefix", ["[0]", "[1,0]<stdout>:", "Thu Jul 18 15:41:05 2024[1,0]<stdout>:"])
def test_a_prefix_inside_a_row(log, prefix):
    """nccl-tests flushes twice in a row; some launchers then begin a new "line" each time (as in NVIDIA/nccl issue 1453)."""
    broken = ROW_32M.replace("-1    2180.1", f"-1{prefix}    2180.1").replace("0    2285.2", f"0{prefix}    2285.2")
    (table,) = log("".join(prefix + line for line in (HEADER + broken).splitlines(keepends=True))).tables
    assert table.rows[0].in_place.busbw == pytest.approx(28.14e9) and table.ranks == 24


def test_nccl_info_between_and_inside_rows(log):
    head, figures = ROW_32M[:52], ROW_32M[52:]
    assert head.endswith("-1")
    found = log(
        HEADER + "node0:67:216 [4] NCCL INFO Connected all trees\n" + ROW_16M + head
        + "node0:67:216 [4] NCCL INFO Channel 00/0 : 7[7] -> 8[0] [send] via NET/IB/0/GDRDMA\n"
        + "node1:77:229 [2] NCCL INFO comm 0x5 rank 7 nranks 24 cudaDev 7 busId a01d0 - Init COMPLETE\n" + figures
    )  # fmt: skip
    (table,) = found.tables
    assert [r.size_bytes for r in table.rows] == [16777216, 33554432]
    assert table.rows[1].out_of_place.seconds == pytest.approx(2180.1e-6)
    assert table.system.transports == {"NET/IB/0/GDRDMA": 1} and table.system.gdr is True
    assert table.system.comm_ranks == 24


def test_a_row_broken_into_three(log):
    """Each half is flushed by itself, and INFO lines of other ranks fall between."""
    pieces = ROW_32M[:52], ROW_32M[52:85], ROW_32M[85:]
    assert [len(p.split()) for p in pieces] == [5, 4, 4]
    info = "node0:67:216 [4] NCCL INFO Launch mode Parallel\n"
    text = HEADER + pieces[0] + info + info + pieces[1] + info + pieces[2] + ROW_16M
    (table,) = log(text).tables
    assert [r.size_bytes for r in table.rows] == [33554432, 16777216]
    assert table.rows[0].in_place.seconds == pytest.approx(2285.2e-6)


def test_a_row_broken_by_another_ranks_tag_and_by_a_line_end(log):
    tag, info = "[1,0]<stdout>:", "[1,3]<stdout>:node0:67:216 [4] NCCL INFO Connected all trees\n"
    text = tag + ROW_32M[:52] + info + tag + ROW_32M[52:] + tag + ROW_16M[:52] + "\n" + tag + ROW_16M[52:]
    (table,) = log("".join(tag + line for line in HEADER.splitlines(keepends=True)) + text).tables
    assert [(r.size_bytes, r.in_place.wrong) for r in table.rows] == [(33554432, 0), (16777216, 0)]


def test_old_tables_without_root_whose_error_is_a_deviation(log):
    rows = (
        "     1048576        262144   float     sum   1035.3    1.01    1.90  5e-07    643.4    1.63    3.06  5e-07\n"
    )
    (table,) = log(OLD_HEADER + rows).tables
    figures = table.rows[0].out_of_place
    assert (figures.wrong, figures.deviation, table.rows[0].root) == (None, 5e-07, None)


def test_rows_of_2018_begin_with_a_hash_and_are_in_milliseconds(log):
    """nccl-tests 2.0's layout."""
    text = """\
#                                                 out-of-place                    in-place
#      bytes             N    type      op     time  algbw  busbw      res     time  algbw  busbw      res
#           0             0   float     sum    0.009   0.00   0.00       N/A    0.010   0.00   0.00      N/A
#     1048576        262144   float     sum    0.293   3.58   3.58       N/A    0.294   3.57   3.57      N/A
"""
    (table,) = log(text).tables
    assert [r.size_bytes for r in table.rows] == [0, 1048576] and table.ranks == 2
    assert table.rows[1].out_of_place.seconds == pytest.approx(293e-6) and table.rows[1].out_of_place.wrong is None


def test_per_iteration_columns_and_odd_forms_of_numbers(log):
    head = "#       size  count  type  redop  root  time  algbw  busbw  #wrong  i_min  i_max  i_p99  i_cv%"
    head += "  time  algbw  busbw  #wrong  i_min  i_max  i_p99  i_cv%\n"
    row = "  8589934592  2147483648  float  sum  -1  1.2e+07  0.72  1.34  1e+06  1.1e+07  1.3e+07  1.3e+07  4.20"
    row += "  1.2e+07  0.72  1.34  0  1.1e+07  1.3e+07  1.3e+07  4.20\n"
    (table,) = log(head + row).tables
    first = table.rows[0].out_of_place
    assert first.seconds == pytest.approx(12.0) and first.wrong == 1e6 and table.wrong == 1e6
    assert first.cv == pytest.approx(0.042) and first.p99 == pytest.approx(13.0)


def test_cpu_time_and_timestamps(log):
    head = (
        "#  size  count  type  redop  root  cputime  algbw  busbw  #wrong  cputime  algbw  busbw  #wrong   timestamp\n"
    )
    row = "  536870912  134217728  float  sum  -1  4627.5  116.02  203.03  N/A  4250.9  126.30  221.02  N/A  2026-05-01 12:00:00\n"
    (table,) = log(devices(8) + head + row).tables
    assert table.host_time and table.rows[0].timestamp == "2026-05-01 12:00:00" and table.ranks == 8
    assert any("CPU times" in n.text for n in table.notes)


def test_a_row_with_only_in_place_figures(log):
    row = "    33554432       8388608     float     sum      -1" + " " * 32 + "    2285.2   14.68   28.14      0\n"
    (table,) = log(HEADER + row).tables
    assert table.rows[0].out_of_place is None and table.rows[0].in_place.seconds == pytest.approx(2285.2e-6)


def test_algorithm_and_protocol_by_row(log):
    """rccl-tests -A 1."""
    head = HEADER.replace(
        "#wrong     time   algbw   busbw #wrong",
        "#wrong     time   algbw   busbw #wrong     algo     proto   nchannels",
    )
    row = ROW_32M.replace("28.14      0", "28.14      0    RING    SIMPLE          32")
    (table,) = log("rccl-tests: Version develop:6405c76\nRCCL version : 2.27.7-develop:29e1567\n" + head + row).tables
    assert (table.rows[0].algorithm, table.rows[0].protocol, table.rows[0].channels) == ("RING", "SIMPLE", 32)
    assert table.tool == "rccl-tests" and table.system.rccl.startswith("2.27.7")


def test_torn_ends_are_left_out_and_said_with_their_line(log):
    found = log(HEADER + ROW_16M + ROW_32M[:70])
    assert [r.size_bytes for r in found.tables[0].rows] == [16777216]
    assert [(n.line, n.kind) for n in found.all_notes if n.kind == "torn"] == [(5, "torn")]


def test_several_tables_with_what_stood_before_them(log):
    found = log("before (ACS as delivered)\n" + HEADER + "\n" + ROW_16M + "\nafter\n" + HEADER + ROW_32M)
    assert [(t.label, len(t.rows)) for t in found.tables] == [("before (ACS as delivered)", 1), ("after", 1)]


def test_a_setting_between_two_runs_belongs_to_the_second(log):
    run = devices(24) + HEADER + ROW_16M + FOOTER
    first, second = log("NCCL_NET=Socket\n" + run + "NCCL_SOCKET_NTHREADS=4 NCCL_NET=IB\n" + run).tables
    assert first.system.environment == {"NCCL_NET": "Socket"}
    assert second.system.environment == {"NCCL_SOCKET_NTHREADS": "4", "NCCL_NET": "IB"}


def test_rows_without_their_header(log):
    found = log(ROW_16M + ROW_32M)
    assert len(found.tables[0].rows) == 2 and found.tables[0].ranks == 24
    assert any("no header" in n.text for n in found.all_notes)


def test_a_header_that_is_not_the_rows(log):
    found = log("#       size         count      type   redop    root     time   algbw\n" + ROW_16M + ROW_32M)
    assert len(found.tables[0].rows) == 2 and found.tables[0].ranks == 24
    assert any("no header" in n.text for n in found.all_notes)


def test_ranks_of_the_command_line_are_the_launchers(log):
    osu = "# OSU MPI Allreduce Latency Test v7.5\n# Size  Avg Latency(us)\n4   11.69\n"
    (table,) = log("$ mpirun -np 144 --bind-to core ./osu_allreduce -m 4:8 -n 20\n" + osu).tables
    assert (table.ranks, table.ranks_from) == (144, "the command line")
    small = "           8             2     float     sum      -1    43.04    0.00    0.00      0    41.82    0.00    0.00      0\n"
    (table,) = log("$ ./build/all_reduce_perf -b 8 -n 20 -c 1\n" + HEADER + small).tables
    assert (table.ranks, table.collective, table.collective_from) == (None, "all_reduce", "the command line")


def test_ranks_by_figures_against_the_list_of_devices(log):
    found = log(devices(8) + HEADER + ROW_16M + ROW_32M)
    assert found.tables[0].ranks == 24
    assert any(n.kind == "ranks" and "says 8 ranks" in n.text for n in found.all_notes)


def test_ranks_that_digits_do_not_tell_are_an_interval(log):
    row = "         512           128     float     sum      -1    44.28    0.01    0.02      0    42.53    0.01    0.02      0\n"
    (table,) = log(HEADER + row).tables
    assert table.ranks is None and table.ranks_low > 1
    assert any("--ranks" in n.text for n in table.notes)


def test_a_count_of_one_rank_gives_the_ranks_exactly(log):
    row = "    33554432       2097152     float    none      -1    973.2   34.48   25.86      0    969.7   34.60   25.95      0\n"
    (table,) = log(HEADER + row).tables
    assert (table.collective, table.ranks, table.ranks_from.split(",")[0]) == ("all_gather", 4, "size over count")


def test_two_jobs_of_one_rank_are_named(log):
    """nccl-tests built without MPI (nccl-tests issue 107 and others)."""
    start = "# nThread 1 nGpus 1 minBytes 8 maxBytes 8 step: 1048576(bytes)\n# Using devices\n"
    ranks = (
        "#   Rank  0 Pid   1320 on node1 device  0 [0x00] V100\n#   Rank  0 Pid   2066 on node0 device  0 [0x00] V100\n"
    )
    found = log(2 * start + ranks + 2 * OLD_HEADER)
    assert (found.tables[0].runs, found.tables[0].ranks) == (2, 1)
    assert any("2 separate runs of 1 rank" in n.text for n in found.all_notes)


def test_an_average_of_zero_without_rows(log):
    found = log(
        "# Collective test starting: all_reduce_perf\n# nThread 1 nGpus 1 minBytes 8 maxBytes 8\n"
        + FOOTER.replace("26.4475", "0")
    )
    (table,) = found.tables
    assert (table.rows, table.average, table.ranks, table.collective) == ((), 0.0, 1, "all_reduce")


def test_a_list_of_devices_that_the_program_cut_tells_no_ranks(log):
    """nccl-tests prints 2048 characters of it and "..."."""
    small = "           8             2     float     sum      -1    43.04    0.00    0.00      0    41.82    0.00    0.00      0\n"
    found = log(devices(20) + "...\n#\n" + HEADER + small)
    assert found.tables[0].ranks is None and any("is cut after 20 lines" in n.text for n in found.all_notes)


def test_the_same_size_again_is_kept(log):
    """-N runs all sizes several times."""
    assert [r.size_bytes for r in log(HEADER + 3 * (ROW_16M + ROW_32M)).tables[0].rows] == 3 * [16777216, 33554432]


def test_groups_of_a_split_communicator(log):
    lines = devices(24).replace("Group  0", "Group  1", 12)
    (table,) = log(lines + HEADER).tables
    assert table.ranks == 12


def document(results: list, **more) -> str:
    lines = [
        {"rank": 8 * i, "group": 0, "pid": 1000 + i, "hostname": f"node{i}", "device": 0, "device_info": "H100"}
        for i in range(12)
    ]
    base = {"version": 2, "args": ["./all_reduce_perf", "-g", "8"], "env": ["NCCL_DEBUG=WARN"], "nccl_version": 22907}
    return json.dumps({**base, "config": {"nthreads": 1, "ngpus": 8, "devices": lines}, "results": results, **more})


RESULT = {
    "size": 536870912, "count": 134217728, "type": "float", "redop": "sum", "root": "    -1",
    "out_of_place": {"time": 2984.6, "alg_bw": 179.88, "bus_bw": 356.01, "nwrong": 0.0},
    "in_place": {"time": 2979.7, "alg_bw": 180.18, "bus_bw": 356.6, "nwrong": "nan"}, "actual_iterations": 20,
}  # fmt: skip


def test_nccl_tests_json_lists_a_process_not_a_gpu(log):
    (table,) = log(document([RESULT])).tables
    assert (table.ranks, table.system.nccl, len(table.rows), table.collective) == (96, "2.29.7", 1, "all_reduce")
    assert table.rows[0].in_place.wrong is None


@pytest.mark.parametrize("cut", [0.35, 0.6, 0.97])
def test_nccl_tests_json_of_a_killed_job_keeps_whole_results(log, cut):
    text = document([{**RESULT, "size": RESULT["size"] << i} for i in range(4)])
    start = text.index('"results"')
    at = start + int(cut * (len(text) - start))
    found = log(text[:at])
    whole = text[:at].count('"actual_iterations": 20}')
    assert len(found.tables[0].rows) == whole and "torn" in kinds(found)
    assert all(r.in_place for r in found.tables[0].rows)


def test_per_iteration_times_in_json_become_samples(log):
    more = {"times_us": [10.0, 12.0, 11.0], "min_us": 10.0, "max_us": 12.0, "cv_pct": 7.4}
    found = log(document([{**RESULT, "out_of_place_per_iter": more}]))
    record = records(found).records[0]
    assert record.out_of_place.samples == pytest.approx([10e-6, 12e-6, 11e-6])
    assert record.out_of_place.seconds == pytest.approx(11e-6)


def test_rccl_tests_json_lines_and_csv(log):
    one = {"#wrong": "0", "algBw": 0.0533773, "busBw": 0.0800660, "gpus": 4, "inPlace": 0, "name": "AllReduce", "redop": "sum",
           "size": 1024, "time": 19.18415, "type": "float"}  # fmt: skip
    lines = "\n".join(json.dumps({**one, "size": s, "inPlace": i}) for s in (1024, 2048) for i in (0, 1))
    (table,) = log(lines).tables
    assert [(r.size_bytes, bool(r.in_place)) for r in table.rows] == [(1024, True), (2048, True)] and table.ranks == 4
    as_list = log(json.dumps([json.loads(line) for line in lines.split("\n")])).tables[0]
    assert [(r.size_bytes, r.in_place) for r in as_list.rows] == [(r.size_bytes, r.in_place) for r in table.rows]
    csv = "numCycle, name, size, type, redop, inPlace, time, algBw, busBw, #wrong\n"
    csv += '1, "AllReduce", 1024, "float", "sum", 0, 19.184, 0.053377397, 0.080066096, "0"\n'
    csv += '1, "AllReduce", 1024, "float", "sum", 1, 19.897, 0.051463363, 0.077195045, "0"\n'
    (table,) = log(csv).tables
    assert len(table.rows) == 1 and table.rows[0].in_place.seconds == pytest.approx(19.897e-6)
    assert (table.ranks, table.collective, table.rows[0].out_of_place.wrong) == (4, "all_reduce", 0)


def test_osu_of_several_releases_and_tests(log):
    text = """\
# OSU MPI Allreduce Latency Test v7.5
# Datatype: MPI_INT.
# Size       Avg Latency(us)
4                      11.69
8                      15.34
# OSU MPI-CUDA Reduce Latency Test v7.3
# Size       Avg Latency(us)
1                      50.89             18.27             89.23        1000
# OSU MPI Barrier Latency Test v5.8
# Avg Latency(us)
             8.32
# OSU MPI Init Test v5.6.2
nprocs: 4, min: 67 ms, max: 67 ms, avg: 67 ms
# OSU MPI Bi-Directional Bandwidth Test v5.6.2
# Size      Bandwidth (MB/s)
1                       2.10
# OSU MPI Allreduce Latency Test v7.1
# Datat"""
    found = log(text)
    assert [(t.collective, len(t.rows)) for t in found.tables] == [
        ("all_reduce", 2), ("reduce", 1), ("barrier", 1), ("init", 0), ("bibw", 1), ("all_reduce", 0)
    ]  # fmt: skip
    assert found.tables[0].ranks is None and found.tables[0].rows[0].dtype == "int32"
    full = found.tables[1].rows[0]
    assert (full.repetitions, full.out_of_place.high) == (1000, pytest.approx(89.23e-6))
    assert found.tables[4].rows[0].out_of_place.algbw == pytest.approx(2.10e6)
    kept = records(found, ranks=4)
    assert {r.collective for r in kept.records} == {"all_reduce", "reduce", "barrier"}
    assert any("bibw" in n for n in kept.notes)


def test_osu_bandwidth_tests_are_rates_and_validation_is_passed_over(log):
    text = "# OSU MPI Bandwidth Test v5.8\n# Size      Bandwidth (MB/s)\n1                       2.10\n"
    text += "# OSU MPI Allreduce Latency Test v7.3\n# Size   Avg Latency(us)   Validation\n4      11.69       Pass\n"
    bandwidth, reduce = log(text).tables
    assert bandwidth.collective == "bandwidth" and bandwidth.rows[0].out_of_place.algbw == pytest.approx(2.10e6)
    assert reduce.rows[0].out_of_place.seconds == pytest.approx(11.69e-6)


IMB = """\
    #    Intel (R) MPI Benchmarks 2018, MPI-1 part
    # MPI_Datatype                   :   MPI_BYTE
    # MPI_Datatype for reductions    :   MPI_FLOAT
    # MPI_Op                         :   MPI_SUM
    #----------------------------------------------------------------
    # Benchmarking Allreduce
    # #processes = 144
    #----------------------------------------------------------------
           #bytes #repetitions  t_min[usec]  t_max[usec]  t_avg[usec]
                0         1000         0.03         0.03         0.03
                8         1000         4.50        18.59        11.69

    # Benchmarking PingPong
    # #processes = 2
           #bytes #repetitions      t[usec]   Mbytes/sec
                1         1000         1.71         0.58
"""


def test_intel_mpi_benchmarks(log):
    reduce, pingpong = log(IMB).tables
    assert (reduce.collective, reduce.ranks, reduce.version, len(reduce.rows)) == ("all_reduce", 144, "2018", 2)
    row = reduce.rows[1]
    assert (row.dtype, row.op, row.repetitions) == ("float", "sum", 1000)
    assert row.out_of_place.seconds == pytest.approx(11.69e-6) and row.out_of_place.high == pytest.approx(18.59e-6)
    assert pingpong.collective == "pingpong" and any("no all-reduce" in n.text for n in pingpong.notes)


def test_all_reduce_bench(log):
    text = """\
The average bandwidth of all_reduce over 8 ranks (5 warmups / 20 trials):

| payload |    busbw   |    algbw   |
| ------: | ---------: | ---------: |
|   32KiB |   1.31GBps |   0.75GBps |
|   16GiB | 234.89GBps | 134.22GBps |
Legend: 1KiB = 2**10 Bytes
"""
    (table,) = log(text).tables
    assert (table.tool, table.ranks, [r.size_bytes for r in table.rows]) == (
        "all_reduce_bench.py",
        8,
        [32768, 16 << 30],
    )
    record = records(log(text)).records[1]
    assert record.best.seconds == pytest.approx((16 << 30) / 134.22e9)


def test_param_lines(log):
    text = "\tCOMMS-RES-all_reduce-float32  1048576  262144  58.1  58.9  61.0  57.2  61.3  18.048  33.840\n"
    (table,) = log(
        "\n\tCOMMS-RES\tsize (B)  nElementsPerRank  Latency(us):p50  p75  p95  Min  Max  AlgBW(GB/s)  BusBW(GB/s)\n"
        + text
    ).tables
    assert (table.tool, table.collective, table.ranks, table.rows[0].dtype) == ("PARAM", "all_reduce", 16, "float")
    assert table.rows[0].out_of_place.p50 == pytest.approx(58.1e-6)


def test_two_series_of_a_markdown_table(log):
    """Two columns of the same kind, as in SkyPilot's documentation."""
    text = """\
| Message Size | busbw GPUDirect-TCPX (GB/s) | busbw Non-GPUDirect-TCPX (GB/s) | Speed-up |
|--------------|------------|-------------|--------------|
| 1 MB         | 1.33       | 0.95        | 1.4 x        |
| 256 MB       | 67.82      | 20.93       | 3.2 x        |
"""
    first, second = log(text).tables
    assert (first.label, second.label) == ("GPUDirect-TCPX", "Non-GPUDirect-TCPX")
    assert [r.out_of_place.busbw for r in second.rows] == pytest.approx([0.95e9, 20.93e9])
    assert not records(log(text)).records  # busbw alone, and no p
    assert [r.ranks for r in records(log(text), ranks=16).records] == [16] * 4


def test_a_table_edited_by_hand(log):
    text = """\
           size    time   algbw   busbw
            (B)    (us)  (GB/s)  (GB/s)
         32_768   43.83    0.75    1.31
  1_073_741_824  8203.9  130.88  229.04
"""
    (table,) = log(text).tables
    assert [r.size_bytes for r in table.rows] == [32768, 1 << 30] and table.ranks == 8


def test_tabs_and_a_row_of_units_that_does_not_fit(log):
    rows = (
        "size type redop busbw algo proto nchannels",
        "(B) (us) (GB/s) (GB/s)   ",
        "33554432 float sum 127.38 TREE LL128 64",
    )
    (table,) = log("".join(r.replace(" ", "\t") + "\n" for r in rows)).tables
    row = table.rows[0]
    assert (row.out_of_place.busbw, row.algorithm, row.channels) == (pytest.approx(127.38e9), "TREE", 64)
    assert any("does not stand under" in n.text for n in table.notes) and table.ranks is None


@pytest.mark.parametrize(
    "text",
    [
        "size,time_us,busbw_GBps\n1048576,76.26,25.78\n",
        "| Size (MiB) | Latency (us) | Bus BW (GB/s) |\n|---|---|---|\n| 1 | 76.26 | 25.78 |\n",
        "size(bytes)  nodes  time(us)  busbw(GB/s)\n1048576   2  76.26   25.78\n",
        "Message size; time [ms]; bus bandwidth\n1 MiB; 0.07626; 25.78 GB/s\n",
    ],
)
def test_headers_in_other_words(log, text):
    (table,) = log(text).tables
    (row,) = table.rows
    assert row.size_bytes == 1 << 20 and row.out_of_place.busbw == pytest.approx(25.78e9)
    assert row.out_of_place.seconds == pytest.approx(76.26e-6)
    assert table.ranks_low <= 16 <= table.ranks_high


def test_pairs_as_a_list_and_as_a_matrix(log):
    found = log("node644,node699     49.36\nnode632,node641     88.36 \nnode404,node699     86.81  # crossing TOR\n")
    assert (found.pairs[0].source, found.pairs[0].target) == ("node644", "node699") and not found.tables
    matrix = "P2P=Enabled Bandwidth Matrix (GB/s)\n   D\\D     0      1\n     0 1234.50  38.20\n     1  38.30 1230.10\n"
    found = log(matrix)
    assert {(p.source, p.target): p.bandwidth for p in found.pairs}[("0", "1")] == pytest.approx(38.2e9)


def test_prose_after_a_table_is_no_row_of_it(log):
    table = "size,time_us,busbw_GBps\n1048576,76.26,25.78\n"
    osu = "# OSU MPI Allreduce Latency Test v7.5\n# Size  Avg Latency(us)\n4   11.69\n"
    first, second = log(table + "Well, that was it\n" + osu).tables
    assert (len(first.rows), len(second.rows)) == (1, 1)
    hand = log("size  time  busbw\n1048576  76.26  25.78\nall done\n")
    assert len(hand.tables[0].rows) == 1 and "torn" not in kinds(hand)


def test_prose_is_not_taken_for_a_table(log):
    found = log("| test | result |\n|---|---|\n| `all_reduce_perf`, 16 ranks, 1 GiB | **216.5 GB/s** busbw |\n")
    assert not found.tables and "skipped" in kinds(found)
    assert not log("Dear all,\nour cluster gives 49 GB/s instead of 88. Why?\n").tables


def test_what_nccl_says_of_the_system(log):
    info = "node0:1:2 [0] NCCL INFO "
    text = "".join(
        info + m + "\n"
        for m in (
            "NCCL version 2.22.3+cuda12.5",
            "NET/IB : Using [0]mlx5_0:1/IB [1]mlx5_1:1/RoCE [RO]; OOB eth0:10.0.0.1<0>",
            "Using network IB",
            "NCCL_IB_HCA set by environment to mlx5.",
            "Channel 00/02 :    0   1   2   3",
            "Trees [0] 1/-1/-1->0->-1",
            "Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM",
            "Channel 00/0 : 7[7] -> 8[0] [send] via NET/IB/0",
            "24 coll channels, 16 collnet channels, 8 nvls channels, 32 p2p channels, 2 p2p channels per peer",
            "comm 0x1 rank 0 nRanks 16 nNodes 2 localRanks 8 localRank 0 MNNVL 0",
            "GPU Direct RDMA Disabled for HCA 0 'mlx5_0'",
        )
    )
    system = log(text + "node0:1:2 [0] NCCL WARN Call to connect failed\n" + HEADER + ROW_16M).tables[0].system
    assert (system.nccl, system.cuda, system.network, system.nics) == (
        "2.22.3",
        "12.5",
        "IB",
        ("mlx5_0:1/IB", "mlx5_1:1/RoCE"),
    )
    assert (system.channels, system.nvls_channels, system.rings, system.trees, system.gdr) == (24, 8, 1, 1, False)
    assert system.transports == {"P2P/CUMEM": 1, "NET/IB/0": 1} and system.environment["NCCL_IB_HCA"] == "mlx5"


@pytest.mark.parametrize(
    "line, mpi",
    [
        ("mpirun (Open MPI) 4.1.2a1", "Open MPI 4.1.2a1"),
        ("Open MPI v5.0.3, package: x", "Open MPI 5.0.3"),
        ("MVAPICH2 Version 2.3.7", "MVAPICH2 2.3.7"),
        ("MPI startup(): Intel(R) MPI Library, Version 2021.6  Build 20220227", "Intel(R) MPI Library 2021.6"),
    ],
)
def test_the_mpi_library_that_a_line_names(log, line, mpi):
    assert log(line + "\n" + HEADER + ROW_16M).tables[0].system.mpi == mpi


def test_trouble_between_lines_is_kept_with_its_line(log):
    found = log("[ 3420.09] infiniband mlx5_1: create_qp:3323: Create QP type 2 failed\n" + HEADER + ROW_16M
                + "node0: Test NCCL failure all_reduce.cu:44 'unhandled system error' \n")  # fmt: skip
    assert [(n.line, n.kind) for n in found.all_notes if n.kind == "warning"] == [(1, "warning"), (6, "warning")]


def test_records_bear_the_names_that_busbw_gives_libraries(log):
    assert {(r.algorithm, r.transport) for r in records(log(HEADER + ROW_16M)).records} == {("nccl", "nccl")}
    assert {(r.algorithm, r.transport) for r in records(log(IMB)).records} == {("mpi-native", "mpi-library")}
    rows = "size,time_us,busbw_GBps\n1048576,76.26,25.78\n"
    assert {(r.algorithm, r.transport) for r in records(log(rows), ranks=16).records} == {("library", "library")}


def test_wrong_results_are_said(log):
    found = log(HEADER + ROW_32M.replace("29.50      0", "29.50     16"))
    assert found.tables[0].wrong == 16 and any("wrong results" in n.text for n in found.all_notes)
    assert records(found).records[0].out_of_place.wrong == 16


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_and_line_ends(log, encoding):
    text = (HEADER + ROW_16M + ROW_32M).replace("\n", "\r\n")
    assert len(log(text.encode(encoding)).tables[0].rows) == 2


def test_records_of_a_log_go_where_records_go(tmp_path):
    from busbw.bench.record import read as read_result
    from busbw.bench.summary import words
    from busbw.plots.curves import curves
    from busbw.plots.report import report

    path = tmp_path / "a.log"
    path.write_text(devices(24) + HEADER + ROW_16M + ROW_32M)
    result = results_of(path)
    assert [r.busbw() / 1e9 for r in result.records] == pytest.approx([24.09, 29.50], abs=0.01)
    assert words(result.records, {}) and curves([result]) and "<script" not in report([result])
    (tmp_path / "own.jsonl").write_text("\n".join(r.to_json() for r in result.records))
    assert read_result(tmp_path / "own.jsonl").records == result.records == results_of(tmp_path / "own.jsonl").records
    gather = tmp_path / "g.log"
    row = "    33554432       2097152     float    none      -1    973.2   34.48   25.86      0    969.7   34.60   25.95      0\n"
    gather.write_text(HEADER + row)
    assert results_of(gather).records[0].busbw() / 1e9 == pytest.approx(25.86, abs=0.01)


def test_logs_of_two_collectives_are_drawn_over_size(tmp_path):
    from busbw.scripts.plot import _kinds

    row = "    33554432       2097152     float    none      -1    973.2   34.48   25.86      0    969.7   34.60   25.95      0\n"
    (tmp_path / "a.log").write_text(HEADER + ROW_32M)
    (tmp_path / "b.log").write_text(HEADER + row)
    assert _kinds([results_of(tmp_path / n) for n in ("a.log", "b.log")]) == ["size"]


def test_what_cannot_be_read_is_one_line(tmp_path):
    for path, text in (("none.log", None), ("empty.log", ""), ("prose.log", "no figures here\n")):
        if text is not None:
            (tmp_path / path).write_text(text)
        with pytest.raises(UserError) as e:
            results_of(tmp_path / path)
        assert "\n" not in str(e.value)


def test_what_is_no_file_is_said_with_what_would_do(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # as <(ssh node17 cat log)
    for path, what in (
        (tmp_path / "absent", "no such file"),
        (tmp_path, "is no file"),
        (tmp_path / "pipe", "is no file"),
    ):
        with pytest.raises(UserError, match=f"{what}.*- for one on standard input"):
            read(path)
