"""Run by test_gpu_ring.py with NUMBA_ENABLE_CUDASIM=1: rings on the simulated GPU against the written-out schedule, replayed."""

import json
import warnings

import numpy as np
from busbw.collectives import build
from busbw.fabric.physics.network import network
from busbw.fabric.time import gpu_ring
from busbw.fabric.time.replay import replay

warnings.simplefilter("ignore", RuntimeWarning)  # NumPy warns where the hash of the noise wraps around
rng = np.random.default_rng(11)
BLOCK = gpu_ring.SIMULATED_THREADS


def a_network(ranks, noisy):
    levels = int(rng.integers(0, 3))
    groups = np.array([np.arange(ranks) // 3**level for level in range(1, levels + 1)]).reshape(levels, ranks)
    classes = levels + 1
    return network(
        groups,
        latency=rng.integers(0, 10**7, classes),
        byte_ps=rng.uniform(0, 200, classes),
        send_overhead=rng.integers(0, 10**6, classes),
        recv_overhead=rng.integers(0, 10**6, classes),
        gap=rng.integers(0, 10**7, classes),
        slow=1 + rng.integers(0, 2, (1 if levels == 0 else 2, ranks)) * 0.7,
        reduce_ps=rng.uniform(0, 300, ranks),
        noise=np.sort(rng.integers(0, 10**7, 4096)) if noisy else None,
        seed=int(rng.integers(2**31)),
    )


bad, tried = [], 0
# One block (up to BLOCK ranks) and several; chunks of one length, of two, and some empty. The simulator is slow.
for ranks in (2, 3, BLOCK, BLOCK + 1, 2 * BLOCK + 1):
    for count in (ranks - 1, ranks, 5 * ranks + ranks // 2):
        for noisy in (False, True) if ranks <= BLOCK else (True,):
            net = a_network(ranks, noisy)
            reports = []
            finish = gpu_ring.one_ring_steps(net, count, 4, progress=reports.append)
            want = replay(build("ring", ranks, count), net, 4).finish
            tried += 1
            if finish.dtype != np.int64 or finish.tolist() != want.tolist():
                bad.append(f"{ranks} ranks, {count} elements, noisy {noisy}: {finish.tolist()}, not {want.tolist()}")
            if reports != sorted(reports) or (reports and reports[-1] != 1):
                bad.append(f"{ranks} ranks: progress {reports}")
print(json.dumps({"bad": bad, "tried": tried}))
