"""Run by test_gpu_numba_simulator.py with NUMBA_ENABLE_CUDASIM=1: prints what was wrong, and how much was tried."""

import json
import sys
import warnings

from busbw.kernels import backend, selftest
from busbw.kernels.dtypes import DTYPES
from busbw.kernels.numba_cuda import SIMULATED_BLOCKS, SIMULATED_THREADS, simulated

assert simulated()
warnings.simplefilter(
    "ignore", RuntimeWarning
)  # NumPy warns where scalars wrap around or become infinite; Numba's numbers do not
numba_cuda = backend("numba-cuda")
assert numba_cuda.available() is None
memory = selftest.host_memory()

bad, tried = [], 0
for seed in range(int(sys.argv[1])):
    for case in selftest.cases(DTYPES, SIMULATED_BLOCKS * SIMULATED_THREADS, seed):
        tried += 1
        if problem := selftest.run_case(numba_cuda, memory, case):
            bad.append(str(problem))
for dtype in DTYPES:
    for count, offset, start in ((1, 0, 0), (33, 1, 5), (150, 3, 2**40 - 7)):
        tried += 1
        if problem := selftest.run_pattern(numba_cuda, memory, dtype, count, offset, start):
            bad.append(str(problem))
print(json.dumps({"bad": bad, "tried": tried}))
