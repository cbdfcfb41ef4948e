"""Planes: a NIC whose ports lead into separate networks loses a part of its rate with one of them, not the connection.

ConnectX-8 reaches 800 Gb/s over a "planarized" network (ConnectX-8 firmware release notes 40.44.0208): its ports are
spread over n planes, each a whole fabric. With k of n planes down, every NIC keeps (n - k) / n of its rate. A single
failed port does the same to one NIC only, which is a slow link (stragglers.py). With one plane its failure is an
outage.
"""

from __future__ import annotations

from ...errors import UserError


def fraction_left(planes: int, failed: int) -> float:
    """(planes - failed) / planes. Raises UserError if no plane is left."""
    if planes < 1 or not 0 <= failed < planes:
        accepted = f"0 to {planes - 1}" if planes > 1 else "0: with its one plane the network is down"
        raise UserError(f"{failed} failed planes of {planes}; accepted: {accepted}")
    return (planes - failed) / planes


def rate_left(rate: float, planes: int, failed: int) -> float:
    """Bytes a second that a NIC of `rate` keeps. Raises UserError if no plane is left."""
    return rate * fraction_left(planes, failed)
