"""The logic of gpu-selftest, on stand-ins: walk.cu compiled for the CPU, and kernels in NumPy that can be made wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import shim_device
from busbw import scripts
from busbw.bench import gpu
from busbw.bench.selftest import children, machine, report, trials
from busbw.bench.selftest.findings import Finding, run_here
from busbw.bench.selftest.rig import DeviceRig, KernelRig, Rig
from busbw.collectives import ALGORITHMS
from busbw.kernels import selftest
from busbw.kernels.dtypes import DEVICE_DTYPES, DTYPES
from busbw.transports import nccl
from fake_nccl import FakeNccl

HERE = Path(__file__).parent

TRIED = len(ALGORITHMS) * 5 * 2  # algorithms, dtypes and ops, counts


class NumpyKernels:
    """kernels.DeviceBackend in NumPy, on host arrays; wrong: a function of the dtype and op that damages a result."""

    def __init__(self, wrong=lambda dtype, op: False):
        self.wrong = wrong

    def reduce_many(self, dst, sources, op, dtype=None, contributions=None, *, dst2=None, stream=None):
        kind = DEVICE_DTYPES[dtype]
        result = selftest.reference(op, kind, list(sources), contributions)
        if self.wrong(dtype, op):
            result.view(np.uint8)[0] ^= 0x10
        for out in (dst, dst2) if dst2 is not None else (dst,):
            out[...] = result

    def reduce(self, dst, a, b, op, dtype=None, contributions=None, *, dst2=None, stream=None):
        self.reduce_many(dst, (a, b), op, dtype, contributions, dst2=dst2)

    def copy(self, dst, src, *, dst2=None, stream=None):
        dst[...] = src
        if dst2 is not None:
            dst2[...] = src

    @staticmethod
    def _where(count, start):
        return [selftest.table_index(start + i) for i in range(count)]

    def fill(self, dst, table, start=0, *, stream=None):
        dst[...] = table[self._where(len(dst), start)]

    def check(self, dst, low, high=None, start=0, dtype=None, *, stream=None):
        where = self._where(len(dst), start)
        if high is None:
            return int((dst != low[where]).sum())
        values = selftest.numbers(dst, DEVICE_DTYPES[dtype])
        return int((~((low[where] <= values) & (values <= high[where]))).sum())


class Damaged(shim_device.ShimDevice):
    """A device whose reductions are right but for a bit of every large float32 all-reduce by steps."""

    def launch_graph(self, graph):
        super().launch_graph(graph)
        dtype, _, steps = graph
        if dtype == "float32":
            for address, _, _ in steps[-1:]:
                row = self.download(address, np.dtype(np.int64), 16)
                from busbw.transports.program import DST

                if row[DST]:
                    self.upload(int(row[DST]), np.full(4, 0x7B, np.uint8))


def rig(shim_folder, *, kernels=None, device=shim_device.ShimDevice, **more):
    fields = {
        "kernels": [KernelRig("numpy", kernels or NumpyKernels(), selftest.host_memory(), ("float32", "int8"), 2)],
        "devices": [DeviceRig("shim", lambda: [device(shim_folder)], ("walk", "steps"), programs=(("float32", "sum"),))],
        "counts": (1, 333), "patterns": ((1, 0, 0), (50, 3, 7)), "ranks": (2,), "large_bytes": 1 << 16,
        "array_bytes": 1 << 16, **more,
    }  # fmt: skip
    return Rig(**fields)


def run(made, say=lambda finding: None):
    return run_here(trials.groups(made), say)


def by_name(findings):
    assert len({f.what for f in findings}) == len(findings)
    return {f.what: f for f in findings}


def test_everything_is_tried_and_found_right(shim_folder):
    told = []
    findings = run(rig(shim_folder, lacks=[("backend numba-cuda", "not installed")]), told.append)
    assert told == findings
    found = by_name(findings)
    assert [f.what for f in findings if f.ok is False] == []
    assert found["backend numba-cuda"].ok is None
    assert set(found) - {"backend numba-cuda"} == {
        "compile walk.cu float32, shim", "kernels float32, numpy", "kernels int8, numpy",
        "all-reduce of 2 ranks, shim, walk", "all-reduce of 2 ranks, shim, steps",
        "copy kernel, shim", "reduce kernel, shim", "8 bytes, 2 ranks, shim, walk", "8 bytes, 2 ranks, shim, steps",
        "ring, shim, walk", "ring, shim, steps",
    }  # fmt: skip
    assert found["all-reduce of 2 ranks, shim, walk"].figures == {"tried": TRIED, "wrong": 0}
    assert found["copy kernel, shim"].figures["share"] > 0
    assert found["ring, shim, steps"].figures["share"] > 0
    assert found["8 bytes, 2 ranks, shim, walk"].figures["ratio"] > 0


def test_a_wrong_kernel_is_found_by_dtype_and_op_and_the_rest_goes_on(shim_folder):
    kernels = NumpyKernels(lambda dtype, op: (dtype, op) == ("int8", "max"))
    found = by_name(run(rig(shim_folder, kernels=kernels, devices=())))
    assert found["kernels float32, numpy"].ok
    wrong = found["kernels int8, numpy"]
    assert wrong.ok is False and "max int8" in wrong.detail and "min int8" not in wrong.detail
    assert wrong.figures["wrong"] > 0


def test_a_transport_that_damages_data_is_found(shim_folder):
    found = by_name(run(rig(shim_folder, kernels=(), device=Damaged)))
    assert found["all-reduce of 2 ranks, shim, walk"].ok
    wrong = found["all-reduce of 2 ranks, shim, steps"]
    assert wrong.ok is False and "elements wrong" in wrong.detail and "float32" in wrong.detail
    assert "int8" not in wrong.detail
    assert "ring, shim, walk" in found  # and went on


def test_what_raises_is_a_finding_and_the_rest_goes_on(shim_folder):
    def broken():
        raise RuntimeError("cudaErrorIllegalAddress")

    devices = [
        DeviceRig("broken", broken, ("steps",), programs=(("float32", "sum"),)),
        DeviceRig("shim", lambda: [shim_device.ShimDevice(shim_folder, resident=0)], ("steps",)),
    ]
    found = by_name(run(rig(shim_folder, kernels=(), devices=devices)))
    assert found["compile walk.cu float32, broken"].ok is False
    assert "cudaErrorIllegalAddress" in found["all-reduce of 2 ranks, broken, steps"].detail
    assert "given up after 2" in found["all-reduce of 2 ranks, broken, steps"].detail
    measured = [found[name].ok for name in ("bandwidth, broken", "8 bytes, broken, steps", "ring, broken, steps")]
    assert measured == [False] * 3
    assert found["all-reduce of 2 ranks, shim, steps"].ok and found["ring, shim, steps"].ok


def test_nccl_is_checked_where_it_can_be_and_else_says_why(shim_folder):
    class Complete(FakeNccl):  # JOBS has dtypes that the stand-in does not reduce
        pass

    fake = Complete()
    two = [shim_device.ShimDevice(shim_folder, resident=0, id=i) for i in range(2)]
    open_nccl = lambda ids: nccl.of_this_process(ids, fake)  # noqa: E731
    devices = [DeviceRig("two", lambda: two, (), open_nccl)]
    found = by_name(run(rig(shim_folder, kernels=(), devices=devices)))
    assert "bfloat16" in found["NCCL, two"].detail and found["NCCL, two"].ok is False  # refused dtypes are problems
    assert found["NCCL, two"].figures["wrong"] == 2 * 4  # those but float32, by counts
    assert found["NCCL, two, bandwidth"].figures["busbw_bytes_per_second"] > 0

    def none(ids):
        raise nccl.Unavailable("--algo nccl: CuPy finds no libnccl.so.2")

    devices = [DeviceRig("one", lambda: [shim_device.ShimDevice(shim_folder, resident=0)], (), none)]
    found = by_name(run(rig(shim_folder, kernels=(), devices=devices)))
    assert found["NCCL, one"] == Finding("NCCL, one", None, "--algo nccl: CuPy finds no libnccl.so.2")


def test_the_command_writes_a_report_and_exits_by_what_was_wrong(shim_folder, tmp_path, monkeypatch, capsys):
    state = {"driver": "580", "devices": [{"slowed_by": ["heat (software)"]}]}
    monkeypatch.setattr(gpu, "telemetry", lambda devices: state)
    devices = [{"name": "shim", "pci_bus_id": "0"}]
    monkeypatch.setattr(machine, "describe_devices", lambda: devices)
    # The children's place is taken by this process; test_selftest_children.py has real ones.
    monkeypatch.setattr(children, "run_in_children", lambda groups, command, say, workers: run_here(groups, say))
    for wrong, code in ((False, 0), (True, 1)):
        kernels = NumpyKernels(lambda dtype, op: wrong)  # noqa: B023
        made = rig(shim_folder, kernels=kernels, devices=())
        monkeypatch.setattr(machine, "real_rig", lambda quick, made=made: made)
        out = tmp_path / f"report-{code}.json"
        assert scripts.main(["gpu-selftest", "--out", str(out)]) == code
        said = json.loads(out.read_text())
        assert said["schema"] == report.SCHEMA and (said["wrong"] > 0) == wrong and said["devices"] == devices
        assert said["telemetry"]["before"] == state and "heat" in said["warnings"][0]
        assert "hostnames" not in said["machine"] and "command" not in said["machine"]
        readable = out.with_name(out.name + ".txt").read_text()
        assert ("WRONG kernels float32" in readable) == wrong and "GPU: name shim" in readable
        assert f"{said['wrong']} wrong of 3" in capsys.readouterr().out


def test_a_child_of_the_command_knows_its_group_by_name(shim_folder, monkeypatch):
    import os

    from busbw.bench.selftest import __main__ as entry
    from busbw.scripts.gpu_selftest import _child

    made = rig(shim_folder, devices=())
    monkeypatch.setattr(machine, "real_rig", lambda quick, made=made: made)
    reading, writing = os.pipe()
    entry.main(*_child("kernels, numpy", 1, 2, writing, True)[3:])
    with os.fdopen(reading) as lines:
        said = [json.loads(line) for line in lines]
    assert [next(iter(m)) for m in said] == ["begin", "finding", "end"]
    assert said[1]["finding"]["what"] == "kernels int8, numpy" and said[1]["finding"]["ok"]


def test_without_a_gpu_the_command_says_what_is_missing_and_exits_with_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(gpu, "missing", lambda name: f"{name} is not installed: pip install x")
    with pytest.raises(SystemExit) as end:
        scripts.main(["gpu-selftest", "--out", str(tmp_path / "r.json")])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "cupy is not installed: pip install x" in line and "numba-cuda is not installed" in line
    assert list(tmp_path.iterdir()) == []


def test_numbas_simulator_is_not_taken_for_a_gpu(monkeypatch, capsys):
    monkeypatch.setenv("NUMBA_ENABLE_CUDASIM", "1")
    with pytest.raises(SystemExit) as end:
        scripts.main(["gpu-selftest"])
    assert end.value.code == 2 and "NUMBA_ENABLE_CUDASIM" in capsys.readouterr().err


def test_the_stand_in_passes_for_every_dtype():
    # So that the tests above are about the selftest, and not about their own kernels.
    for case in list(selftest.cases(list(DTYPES), 1))[::7]:
        assert selftest.run_case(NumpyKernels(), selftest.host_memory(), case) is None


def test_mpi_ranks_are_tried_with_every_algorithm(mpirun):
    found = mpirun(2, HERE / "gpu_selftest_job.py").result
    checked, rate = found["findings"]
    assert checked["ok"] and checked["figures"] == {"tried": TRIED, "wrong": 0}
    assert rate["ok"] and rate["figures"]["busbw_bytes_per_second"] > 0
