"""Ranks and nodes of launchers' commands, and the matrix of nvidia-smi topo -m."""

import io

import pytest
from busbw.interchange.logs import launched, read_stream
from busbw.interchange.logs.topo import Topo

# NCCL issue 595: two NICs, each on a switch with one of four A100; nccl-tests issue 350: a NIC of the GPU's processor.
SOME_NEAR = """\
\tGPU0\tGPU1\tGPU2\tGPU3\tmlx5_0\tmlx5_1\tCPU Affinity\tNUMA Affinity
GPU0\t X \tNV4\tNV4\tNV4\tSYS\tSYS\t16-31,80-95\t1
GPU1\tNV4\t X \tNV4\tNV4\tPIX\tSYS\t0-15,64-79\t0
GPU2\tNV4\tNV4\t X \tNV4\tSYS\tPIX\t48-63,112-127\t3
GPU3\tNV4\tNV4\tNV4\t X \tSYS\tSYS\t32-47,96-111\t2
mlx5_0\tSYS\tPIX\tSYS\tSYS\t X \tSYS
mlx5_1\tSYS\tSYS\tPIX\tSYS\tSYS\t X
"""
NONE_NEAR = """\
\tGPU0\tNIC0\tNIC1\tNIC2\tNIC3\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID
GPU0\t X \tSYS\tSYS\tNODE\tNODE\t64-127,192-255\t1\t\tN/A
NIC0\tSYS\t X \tPIX\tSYS\tSYS
"""


@pytest.mark.parametrize(
    "command, ranks, nodes",
    [
        (
            "mpirun -np 32 -H server1:8,server2:8,server3:8,server4:8 -x NCCL_DEBUG=INFO ./build/all_reduce_perf -b 8 -g 1",
            32,
            4,
        ),
        ("/opt/amazon/openmpi/bin/mpirun -n 16 --host 10.0.0.1,10.0.0.2 ./all_reduce_perf -b 8", 16, 2),
        (
            "mpirun -np 300 -N 1 --hostfile /nccl/hostfile -mca btl tcp,self /nccl-tests/build/all_reduce_perf -g 8",
            300,
            300,
        ),
        ("mpirun -np 16 --map-by ppr:8:node ./all_reduce_perf -n 20", 16, 2),
        ("srun --nodes=4 --ntasks-per-node=8 --label -- all_gather_perf -b 64K -e 4G", None, 4),
        ("mpirun -np 16 --hostfile hosts ./all_reduce_perf -N 2 -n 5", 16, None),
        ("mpiexec.hydra -n 8 -ppn 3 IMB-MPI1 allreduce", 8, None),
    ],
)
def test_commands_tell_ranks_and_nodes(command, ranks, nodes):
    assert (launched.ranks([command]), launched.nodes([command])) == (ranks, nodes)


def test_two_commands_that_disagree_tell_nothing_and_odd_ones_break_nothing():
    assert launched.nodes(["mpirun -np 8 -N 4 x", "mpirun -np 8 -N 2 x"]) is None
    hostile = ["srun " + "a_perf" * 600, "mpirun -H " + "a," * 1900, "srun " * 700, "mpirun -np " * 350]
    for command in hostile * 50:
        launched.ranks([command]), launched.nodes([command])


def test_a_command_of_several_lines_is_one():
    text = (
        "/usr/bin/mpirun \\\n    -n 16 -H a:8,b:8 \\\n    -x NCCL_MIN_NCHANNELS=4 \\\n  all_gather_perf -b 32M -g 1\n"
    )
    text += "#  size count type redop root time algbw busbw #wrong time algbw busbw #wrong\n"
    text += "    33554432  524288  float  none  -1  2180.1  15.39  14.43  0  2180.1  15.39  14.43  0\n"
    (table,) = read_stream(io.BytesIO(text.encode()), "log").tables
    assert (table.collective, table.system.facts["nodes"], table.label) == ("all_gather", "2", "")
    assert table.system.environment["NCCL_MIN_NCHANNELS"] == "4"


@pytest.mark.parametrize("text, facts", [(SOME_NEAR, set()), (NONE_NEAR, {"nic_path"})])
def test_where_nics_are(text, facts):
    topo = Topo()
    assert all(topo.take(line.strip()) for line in text.splitlines())
    assert set(topo.facts()) == facts


def test_gpus_without_nvlink_are_said():
    topo = Topo()
    for line in ("GPU0 GPU1 GPU2 CPU Affinity", "GPU0 X PIX SYS 0-7", "GPU1 PIX X SYS 0-7", "GPU2 SYS SYS X 8-15"):
        assert topo.take(line)
    assert "by SYS" in topo.facts()["gpu_path"]
    assert not topo.take("GPU0 1.5 2.5 3.5") and not Topo().take("GPU0 is hot")


def test_bridged_pairs_are_no_ring_of_nvlink_and_a_cube_is():
    """nccl-tests issue 178: four A100 in pairs; and rows of a DGX-1, whose rings go by NVLink."""
    pairs, cube = Topo(), Topo()
    for line in (
        "GPU0 GPU1 GPU2 GPU3 CPU Affinity",
        "GPU0 X NV12 NODE SYS",
        "GPU1 NV12 X NODE SYS",
        "GPU2 NODE NODE X NV12",
    ):
        assert pairs.take(line)
    for line in ("GPU0 GPU1 GPU2 GPU3 CPU Affinity", "GPU0 X NV1 NV2 SYS", "GPU1 NV1 X SYS NV2", "GPU2 NV2 SYS X NV1"):
        assert cube.take(line)
    assert "pairs only" in pairs.facts()["gpu_path"] and cube.facts() == {}
