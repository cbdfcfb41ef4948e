"""Times of GPU work with no host in them: the work is held back by a gate until all of it is enqueued.

An event in an idle stream fires at once, while Python still enqueues what is to be timed; between two events there would then
be the host's launches. So every device first gets a kernel that waits (cuda/gate.cu) for a word of pinned host memory::

    host      gate start work work end | is start still to come? open
    device 0  ......................................................  start work work end
    device 1  ......................................................  start work work end
                                                                      all devices begin together

The gate opens by itself after LIMIT_SECONDS, so that nothing hangs where the host cannot go on. A start that fired before the
gate was opened is such a case: that time has the host in it, is refused, and taken again.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

from .session import Unavailable

LIMIT_SECONDS = 2.0
TRIES = 3
LAUNCHES_MAX = (
    256  # behind a gate: a stream takes about a thousand, and then the host waits for a gate that it holds shut
)


class Gate:
    def __init__(self, devices: Sequence, together: Callable[[bool], bool] = bool):
        """devices: device.Device, of this process; together: with several processes, waits until all are here and says
        whether all said True."""
        self.devices, self._together = list(devices), together
        self.holds = all(device.holds for device in self.devices)
        self.refused = 0
        """Times that had the host in them, and were taken again."""
        self._turn = 0
        self._address = self.devices[0].pinned(8) if self.holds else 0
        self._word = ctypes.c_int64.from_address(self._address) if self.holds else None
        if self.holds:
            self._word.value = 0

    def seconds(self, enqueue: Callable[[], None]) -> float:
        """Seconds from the common start to the end of what `enqueue` puts into the devices' streams, of the slowest device;
        `enqueue` must not wait for a device, and makes at most LAUNCHES_MAX launches on each.

        Where a device has no gate, the host's launches are in it. Raises Unavailable where the gate does not hold, TRIES times
        in a row.
        """
        if not self.holds:
            return self._between_events(enqueue)[0]
        for _ in range(TRIES):
            self._turn += 1
            for device in self.devices:
                device.hold(self._address, self._turn, int(LIMIT_SECONDS * 1e9))
            seconds, held = self._between_events(enqueue)
            if held:
                return seconds
            self.refused += 1
        raise Unavailable(
            f"the GPU began before its work was enqueued, {TRIES} times in a row, so no time without the host's can be had; "
            "accepted: a host that is not overloaded, without CUDA_LAUNCH_BLOCKING"
        )

    def _between_events(self, enqueue: Callable[[], None]) -> tuple[float, bool]:
        held = True
        try:
            starts = [device.event() for device in self.devices]
            enqueue()
            ends = [device.event() for device in self.devices]
            if self.holds:
                held = self._together(not any(d.fired(start) for d, start in zip(self.devices, starts)))
        finally:
            if self.holds:
                self._word.value = self._turn
        return max(d.seconds(start, end) for d, start, end in zip(self.devices, starts, ends)), held


def in_parts(count: int, launches_each: int) -> list[int]:
    """`count` repetitions of `launches_each` launches (0: one launch has them all), in parts that fit behind a gate."""
    most = max(1, LAUNCHES_MAX // launches_each) if launches_each else count
    return [min(most, count - first) for first in range(0, count, most)]
