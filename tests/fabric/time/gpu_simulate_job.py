"""Run by test_gpu_ring.py with NUMBA_ENABLE_CUDASIM=1: rings of `busbw simulate --backend numba-cuda` against the CPU's."""

import json
import warnings
from dataclasses import replace

from busbw.fabric import simulate
from busbw.fabric.cards import card
from busbw.fabric.simulate import Options
from busbw.fabric.time import gpu_ring

warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns where the hash of the noise wraps around
bad, kernels = [], 0
steps = gpu_ring.one_ring_steps


def counted(*arguments, **more):
    global kernels
    kernels += 1
    return steps(*arguments, **more)


gpu_ring.one_ring_steps = counted
system = card.load("dgx-h100-cx7")
options = Options((2, 9), (20, 4096), ("ring",), "recurrence", slices=1, noise="exponential:mean=2us")
on_gpu = simulate.checked(system, replace(options, slices=None, backend="numba-cuda"))
for point in simulate.points(options):
    want, found = (simulate.evaluate(system, o, point) for o in (options, on_gpu))
    if want != found:
        bad.append(f"{found}, not {want}")
print(json.dumps({"bad": bad, "tried": kernels}))
