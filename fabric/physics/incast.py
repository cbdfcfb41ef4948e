"""Incast: k senders to one receiver share its port.

Whatever shares the port out, its last byte arrives no sooner than k n / B. Fair sharing (what TCP or DCQCN aim at) and
the table-order walk of network.py differ in between and agree at the end, for k equal messages that start together::

    fair      all end at  k n / B                           mean  k n / B
    in turn   they end at n / B, 2 n / B, ..., k n / B      mean  (k + 1) / 2 * n / B

`network.in_free` serves them in turn. For a tree node with two children the walk is thus optimistic about the first child's
message and exact about the second's, and a node can pass nothing on before it has both.

The network must hold what the port cannot take: (k - 1) B bytes a second arrive in excess. A switch stops the senders
(PFC, IEEE 802.1Qbb) when a threshold is reached; what is on the way then still needs room, `headroom_bytes`. A paused
link stops all traffic that comes over it, also that to other receivers (congestion spreading), which the model leaves
out: victims are not slowed.
"""

from __future__ import annotations

import numpy as np

FIBRE_SECONDS_PER_METRE = 4.9e-9


def seconds(senders: int, nbytes: float, rate: float) -> float:
    """Until all of `senders` messages of `nbytes` have arrived through one port of `rate` bytes a second."""
    return senders * nbytes / rate


def fair_finish(nbytes: np.ndarray, rate: float) -> np.ndarray:
    """float64 [senders] seconds: when each message ends if all start at 0 and those left always share `rate` equally.

    nbytes: [senders]. Processor sharing: in order of size, each next one's rest goes at rate / (those left).
    """
    nbytes = np.asarray(nbytes, np.float64)
    order = np.argsort(nbytes, kind="stable")
    rests = np.diff(nbytes[order], prepend=0.0)
    left = np.arange(len(nbytes), 0, -1)
    finish = np.empty(len(nbytes))
    finish[order] = np.cumsum(rests * left) / rate
    return finish


def in_turn_finish(nbytes: np.ndarray, rate: float) -> np.ndarray:
    """float64 [senders] seconds: when each message ends if the port takes them one after the other, in this order."""
    return np.cumsum(np.asarray(nbytes, np.float64)) / rate


def buffer_seconds(senders: int, buffer_bytes: float, rate: float) -> float:
    """How long `buffer_bytes` of switch memory take the excess of `senders` ports of `rate` into one; inf for one sender."""
    return buffer_bytes / ((senders - 1) * rate) if senders > 1 else float("inf")


def headroom_bytes(rate: float, metres: float, mtu: int, response_seconds: float = 0.0) -> float:
    """Bytes that still arrive over one link after its switch decides to pause it.

    The pause frame may wait for a full packet that has just begun, travels the cable, takes the sender `response_seconds`, who then
    finishes a packet of his own; meanwhile the cable is full both ways (IEEE 802.1Qbb-2011, annex O).
    """
    return 2 * mtu + rate * (2 * metres * FIBRE_SECONDS_PER_METRE + response_seconds)
