"""The CUDA C++ as HIP: compiled by clang to machine code of AMD GPUs, without ROCm, a driver or a device. Nothing of it is run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from busbw.kernels import cuda_source
from busbw.transports import cupy_device

HERE = Path(__file__).parent
MI200, MI300 = "gfx90a", "gfx942"
NAMES = ["clang++", *(f"clang++-{version}" for version in range(25, 17, -1))]


def clang():
    """A clang that compiles for AMD GPUs, or None."""
    for name in NAMES:
        path = shutil.which(name)
        if path and "amdgcn" in subprocess.run([path, "--print-targets"], capture_output=True, text=True).stdout:
            return path
    return None


CLANG = clang()
pytestmark = pytest.mark.skipif(CLANG is None, reason="no clang++ that compiles for AMD GPUs: apt install clang-19")


def assembly(source: Path, options, architecture: str) -> str:
    command = [
        CLANG,
        "-x",
        "hip",
        "--cuda-device-only",
        f"--offload-arch={architecture}",
        "-nogpuinc",
        "-nogpulib",
        "-O2",
    ]
    command += [*options, "-include", str(HERE / "hip_builtins.h"), "-S", "-o", "-", str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(re.findall(r"\.private_segment_fixed_size: (\d+)", done.stdout)) == {"0"}  # no spills
    return done.stdout


@pytest.mark.parametrize("dtype, architecture", [("float32", MI200), ("float8_e4m3", MI300)])
def test_every_kernel_compiles_with_128_bit_accesses(dtype, architecture):
    made = assembly(cuda_source.FOLDER / "kernels.cu", cuda_source.options(dtype), architecture)
    assert set(re.findall(r"\.amdhsa_kernel (\w+)", made)) == set(cuda_source.kernel_names(dtype))
    assert "global_load_dwordx4" in made and "global_store_dwordx4" in made
    assert "flat_load_dwordx4" not in made  # the address is known to be of global memory


@pytest.mark.parametrize("dtype, op, architecture", [("float32", "sum", MI200), ("float16", "avg", MI300)])
def test_the_walk_has_flags_of_the_scope_that_is_asked_for(dtype, op, architecture):
    walk = cupy_device.FOLDER / "walk.cu"
    of_gpu, of_system = (
        assembly(walk, cupy_device.walk_options(dtype, op, system_scope=system), architecture)
        for system in (False, True)
    )
    for made in (of_gpu, of_system):
        assert {"walk", "run_rows"} == set(re.findall(r"\.amdhsa_kernel (\w+)", made))
        assert "_atomic_add_x2" in made and "s_barrier" in made and "s_memrealtime" in made
    # Release at the system's scope writes the L2 back, on both; at the GPU's scope MI200 need not.
    assert "buffer_wbl2" in of_system
    assert of_gpu.count("buffer_wbl2") == 0 or architecture != MI200


def test_the_gate_reads_the_hosts_word_in_its_loop():
    made = assembly(cupy_device.FOLDER / "gate.cu", cuda_source.common_options(), MI200)
    assert re.search(r"\.LBB0_\d+:.*?(global|flat)_load_dwordx2 .* glc", made, re.S) and "s_memrealtime" in made
