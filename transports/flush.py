"""Puts unrelated lines into a GPU's last-level cache before what is timed begins."""

from __future__ import annotations

import numpy as np

CACHES = 2  # the buffer that is read, in last-level caches
BYTES_MIN = 1 << 20
ENTRIES = 256


class Flush:
    """Reads a buffer of its own, so that the cache has clean lines afterwards: writing one would leave the cache full of lines
    that the timed work must write back first, 50 MB of them. The values vary, since a cache may compress zeros."""

    def __init__(self, device, cache_bytes: int):
        """device: device.Device, whose memory this takes until it is closed. Raises MemoryError."""
        self._device = device
        self._nbytes = max(BYTES_MIN, CACHES * cache_bytes) // 8 * 8
        self._buffer = device.allocate(self._nbytes)
        self._table, self._wrong = device.allocate(8 * ENTRIES), device.allocate(8)
        device.upload(self._table, np.random.default_rng(0).integers(0, 2**63, ENTRIES))
        device.launch("fill_8", "uint8", (self._buffer, self._table, self._nbytes // 8, 0), self._nbytes)

    def __call__(self) -> None:
        # The check finds nothing wrong, and so writes nothing.
        arguments = (self._buffer, self._table, self._nbytes // 8, 0, self._wrong)
        self._device.launch("check_exact_8", "uint8", arguments, self._nbytes)
