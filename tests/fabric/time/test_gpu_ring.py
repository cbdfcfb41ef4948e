"""The ring recurrence as a GPU kernel: under Numba's simulator against replay, and compiled with no GPU."""

from pathlib import Path

import pytest
from busbw.errors import UserError
from busbw.fabric import simulate
from busbw.fabric.cards import card
from busbw.fabric.physics.network import flat
from busbw.fabric.time import gpu_ring
from busbw.kernels import offline

HERE = Path(__file__).parent
REASON = offline.unavailable()


def test_every_rank_finishes_to_the_picosecond_as_in_replay(python):
    assert python(HERE / "gpu_ring_job.py", NUMBA_ENABLE_CUDASIM="1").result == {"bad": [], "tried": 24}


def test_a_simulation_on_the_gpu_gives_the_times_of_the_cpu(python):
    assert python(HERE / "gpu_simulate_job.py", NUMBA_ENABLE_CUDASIM="1").result == {"bad": [], "tried": 4}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model": "auto"}, "goes with --model recurrence"),
        ({"algorithms": ("ring", "tree")}, "one channel and one slice"),
        ({"slices": 2}, "one channel and one slice"),
        ({"backend": "numba-cdua"}, "did you mean numba-cuda"),
    ],
)
def test_what_a_gpu_does_not_take_is_refused(changes, says):
    asked = {"algorithms": ("ring",), "model": "recurrence", "backend": "numba-cuda", **changes}
    with pytest.raises(UserError, match=says):
        simulate.checked(card.load("dgx-h100-cx7"), simulate.Options((8,), (1024,), **asked))


@pytest.mark.skipif(gpu_ring.available() is None, reason="there is a GPU")
def test_a_simulation_without_a_gpu_says_what_is_missing():
    options = simulate.Options((8,), (1024,), ("ring",), "recurrence", backend="numba-cuda")
    with pytest.raises(UserError, match=r"--backend numba-cuda: .*accepted: --backend cpu"):
        simulate.checked(card.load("dgx-h100-cx7"), options)


@pytest.mark.skipif(gpu_ring.available() is None, reason="there is a GPU")
def test_without_a_gpu_it_says_what_is_missing():
    with pytest.raises(
        UserError, match=r"on a GPU: (numba-cuda is not installed: pip install|the NVIDIA driver is missing)"
    ):
        gpu_ring.one_ring_steps(flat(4, latency=1, byte_ps=1.0), 100, 4)


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
@pytest.mark.parametrize("architecture", offline.ARCHITECTURES)
def test_the_kernel_compiles_and_keeps_its_figures_in_registers(architecture):
    compiled = offline.compile_python(gpu_ring.kernel(gpu_ring.THREADS), gpu_ring.signature(), architecture)
    (ptx,) = compiled.kernels().values()
    assert ".local" not in ptx
    assert list(compiled.spilled.values()) == [0]
    assert "bar.sync" in ptx and "st.shared" in ptx
