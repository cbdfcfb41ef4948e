"""The host's side of a NIC: PCIe, the cost of a message, and how fast memory reduces.

**PCIe.** rate = GT/s * lanes / 8 * encoding * efficiency. Encoding is 8b/10b up to generation 2, 128b/130b for 3 to 5
and none (PAM4 with FEC in 256-byte flits of which 236 carry packets) from 6. `tlp_efficiency` says what packet headers
leave: a write of up to `max_payload` bytes has a 16-byte header (64-bit address) and, up to generation 5, a 4-byte
framing token with the sequence number and a 4-byte LCRC (PCI Express Base Specification 5.0 and 6.0, section 2.2 and
4.2). Acknowledgements and flow control take some percent more, which a card's nic.pcie_efficiency includes. A
generation 5 host of 16 lanes carries 63 GB/s raw, so it halves a ConnectX-8 of 100 GB/s.

**Messages.** A NIC starts `message_rate` messages a second, and a message occupies the wire for n / rate seconds. So a
stream of messages of n bytes takes max(1 / message_rate, n / rate, overhead) each, `overhead` being the processor's
time to post one.

**Reduction.** dst = a + b reads two bytes and writes one for each byte of the result: 3 / memory_bandwidth seconds a byte. A
copy moves 2. Arithmetic is free: a GPU adds tens of times faster than it reads.
"""

from __future__ import annotations

from ...errors import UserError

TRANSFERS = {1: 2.5e9, 2: 5e9, 3: 8e9, 4: 16e9, 5: 32e9, 6: 64e9, 7: 128e9}  # a second and lane
REDUCE_TRAFFIC = 3  # bytes moved for a byte of a + b
COPY_TRAFFIC = 2


def pcie_encoding(generation: int) -> float:
    """Data bits for a bit on the lane. Raises UserError for an unknown generation."""
    if generation not in TRANSFERS:
        raise UserError(f"PCIe generation {generation}; accepted: {min(TRANSFERS)} to {max(TRANSFERS)}")
    if generation <= 2:
        return 8 / 10
    return 128 / 130 if generation <= 5 else 236 / 256


def pcie_rate(generation: int | None, lanes: int | None, efficiency: float | None = 1.0) -> float:
    """Bytes a second a direction. `efficiency` 1.0: before packet headers. generation None, where the network ends in the
    processor itself: inf. Raises UserError for an unknown generation."""
    if generation is None:
        return float("inf")
    if lanes < 1:
        raise UserError(f"{lanes} PCIe lanes; accepted: 1 or more")
    encoding = pcie_encoding(generation)
    return TRANSFERS[generation] * lanes / 8 * encoding * (1.0 if efficiency is None else efficiency)


def tlp_efficiency(generation: int, max_payload: int = 256) -> float:
    """What headers leave of the line rate in a stream of full writes of `max_payload` bytes."""
    overhead = 16 if generation >= 6 else 16 + 4 + 4
    return max_payload / (max_payload + overhead)


def host_rate(nic_goodput: float, pcie: float) -> float:
    """Bytes a second that reach memory: the NIC's payload and PCIe's, whichever is less."""
    return min(nic_goodput, pcie)


def message_seconds(nbytes: float, rate: float, *, overhead: float = 0.0, message_rate: float = float("inf")) -> float:
    """Seconds each of a long stream of messages of `nbytes` over one port: the slowest of wire, NIC and processor."""
    return max(1 / message_rate, nbytes / rate, overhead)


def half_rate_bytes(rate: float, *, overhead: float = 0.0, message_rate: float = float("inf")) -> float:
    """The message size below which messages, not bytes, limit a stream: there the wire is as busy as the message costs."""
    return rate * max(overhead, 1 / message_rate)


def reduce_seconds_per_byte(memory_bandwidth: float) -> float:
    """Seconds a byte of the result of a + b; `memory_bandwidth` is bytes a second, reads and writes together."""
    return REDUCE_TRAFFIC / memory_bandwidth


def copy_seconds_per_byte(memory_bandwidth: float) -> float:
    return COPY_TRAFFIC / memory_bandwidth
