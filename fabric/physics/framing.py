"""Framing: what packet headers leave of a link's rate.

A message of n bytes is cut into packets of `mtu` bytes of payload, the last one short. Each packet carries headers, the
first one of an RDMA write also an RETH (remote address, key and length)::

    | headers RETH payload | headers payload | headers payload | headers rest |      wire bytes = n + packets * headers + RETH
      first                  middle            middle            last

The limit for long messages is mtu / (mtu + headers): 392 of 400 Gb/s for RoCEv2 with 4,096-byte packets, as perftest
measures (NVIDIA/nccl issue 2409).

Bytes of headers a packet:

    rocev2      preamble and SFD 8, Ethernet 14, FCS 4, inter-packet gap 12, IPv4 20, UDP 8, BTH 12, ICRC 4       = 82
    infiniband  LRH 8, BTH 12, ICRC 4, VCRC 2 (in one subnet: no GRH)                                             = 26
    slingshot   Ethernet 14, FCS 4, IPv4 20, UDP 8, a transport header as long as BTH 12, ICRC 4                  = 62
    ttpoe       Ethernet as for rocev2 38, type header 20, shim 8, transport header 18, NoC header 16             = 100

RoCEv2 and InfiniBand: InfiniBand Architecture Specification, volume 1 and annex A17; IEEE 802.3. Slingshot drops
preamble and inter-packet gap (De Sensi et al. 2020, arXiv 2008.08886); its own transport header is not published, so
its row is an estimate. TTPoE: the structs of teslamotors/ttpoe, include/ttp.h and modttpoe/ttpoe.h; the NoC header is
carried once a packet, the transport header has one place each way in the sequence numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...errors import UserError


class Framing(NamedTuple):
    """Bytes on the wire beside the payload."""

    packet: int  # of every packet
    message: int  # more, of the first packet of a message


FRAMINGS = {
    "rocev2": Framing(8 + 14 + 4 + 12 + 20 + 8 + 12 + 4, 16),
    "infiniband": Framing(8 + 12 + 4 + 2, 16),
    "slingshot": Framing(14 + 4 + 20 + 8 + 12 + 4, 16),
    "ttpoe": Framing(8 + 14 + 4 + 12 + 20 + 8 + 18 + 16, 0),
}


def find(name: str) -> Framing:
    """Raises UserError for a name that is none."""
    if name not in FRAMINGS:
        raise UserError(f"framing {name!r}; accepted: {', '.join(FRAMINGS)}")
    return FRAMINGS[name]


def packets(nbytes, mtu: int):
    """Packets of a message of `nbytes` (int or array); an empty message is one packet."""
    return np.maximum(1, -(-np.asarray(nbytes, np.int64) // mtu))


def wire_bytes(nbytes, framing: str, mtu: int):
    """Bytes that a message of `nbytes` (int or int array) occupies on the wire, headers and gaps included."""
    f = find(framing)
    return np.asarray(nbytes, np.int64) + packets(nbytes, mtu) * f.packet + f.message


def fraction(framing: str, mtu: int) -> float:
    """Payload's part of the wire for a long message: mtu / (mtu + headers)."""
    return mtu / (mtu + find(framing).packet)


def goodput(rate: float, framing: str, mtu: int) -> float:
    """Bytes of payload a second of a link of `rate` bytes a second, for long messages."""
    return rate * fraction(framing, mtu)
