"""Arrays that grow inside of what Numba compiles.

Element by element: assigned as a slice, Numba would compile the words of an error about shapes first, for seconds.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def grown(values):
    """The values, and as many zeros."""
    out = np.zeros(2 * len(values), values.dtype)
    for i in range(len(values)):
        out[i] = values[i]
    return out


@njit(cache=True, nogil=True)
def grown_rows(rows):
    """The rows, and as many of zeros."""
    out = np.zeros((2 * rows.shape[0], rows.shape[1]), rows.dtype)
    for i in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            out[i, k] = rows[i, k]
    return out
