"""Numbers as logs print them: with what their last digit leaves open; sizes with units."""

from __future__ import annotations

import math
import re

MAX_SIZE = 1 << 60
_SIZE = re.compile(r"^([\d.,_]+)\s*([kmgtp]?)(i?)(b|bytes)?$", re.IGNORECASE)
_MEASURE = re.compile(r"^\**\s*([+-]?[\d.,_]*\d[\d.,_]*(?:e[+-]?\d{1,3})?)\s*([a-zA-Zµμ%/]*)\s*\**$", re.IGNORECASE)
_POWER = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_TIMES = {"ns": 1e-9, "us": 1e-6, "usec": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0}
_RATE = re.compile(r"([KMGTkmgt]?)(i?)(B|b|bytes?|Bytes?|bits?|bit)(?:/s|/sec|ps)$")


def time_unit(text: str) -> float | None:
    """Seconds of a unit of time ("us", "msec"); None for anything else."""
    return _TIMES.get(text.strip().lower())


def rate_unit(text: str) -> float | None:
    """Bytes a second of a unit of bandwidth. A small b is a bit: GB/s and GBps are bytes, Gb/s, Gbps and Gbit/s bits."""
    found = _RATE.match(text.strip())
    if not found:
        return None
    scale, binary, what = found.groups()
    value = (1024.0 if binary else 1e3) ** _POWER[scale.lower()]
    return value / 8 if what == "b" or what.startswith("bit") else value


def integer(text: str) -> int | None:
    """A whole number, with underscores or commas between digits allowed; None for anything else or beyond 2^60."""
    digits = text if text.isdigit() else text.replace("_", "").replace(",", "")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        return None
    value = int(digits)
    return value if value <= MAX_SIZE else None


_LAST_DIGIT = [0.5 * 10.0**-d for d in range(24)]  # half of the last of d decimals


def real(text: str) -> tuple[float, float] | None:
    """(value, half of its last printed digit), both finite and not negative; None for anything else ("N/A", "nan", "-")."""
    try:
        value = float(text)
    except ValueError:
        return None
    if (
        not 0 <= value < 1e300
        or len(text) > 40
        or not (text[0].isdigit() or text[0] == ".")
        or "_" in text
        or not text.isascii()
    ):
        return None
    at = text.find(".")
    if "e" not in text and "E" not in text:
        decimals = len(text) - at - 1 if at >= 0 else 0
        return value, _LAST_DIGIT[decimals] if decimals < 24 else 0.0
    mantissa, _, exponent = text.lower().partition("e")
    decimals = len(mantissa) - at - 1 if at >= 0 else 0
    return value, 0.5 * 10.0 ** max(-320, min(300, int(exponent) - decimals))


def size(text: str) -> tuple[int, bool] | None:
    """(bytes, exact) of "32_768", "1 MB", "2GiB", "64K": units are powers of two, as in nccl-tests and the tables made of
    it; exact: False where the unit says no "i" and so might have meant powers of ten. None for anything else."""
    text = text.strip().strip("*`")
    found = _SIZE.match(text) if len(text) <= 40 else None
    if not found:
        return None
    digits, unit, binary, _ = found.groups()
    whole = integer(digits)
    if whole is None:
        number = real(digits.replace("_", "").replace(",", ""))
        if number is None or not unit:
            return None
        value = number[0] * 1024 ** _POWER[unit.lower()]
    else:
        value = whole * 1024 ** _POWER[unit.lower()]
    return (round(value), bool(binary) or not unit) if value <= MAX_SIZE else None


def measure(text: str, unit: float = 1.0) -> tuple[float, float] | None:
    """(value, half of its last digit) in SI units, of a cell that may carry its unit ("234.89GBps", "12 us", "**231 GB/s**");
    `unit` scales a bare number. None for anything else."""
    text = text.strip()
    plain = real(text)
    if plain is None:
        found = _MEASURE.match(text) if len(text) <= 60 else None
        if not found:
            return None
        plain = real(found.group(1).replace("_", "").replace(",", ""))
        if plain is None:
            return None
        if found.group(2):
            own = time_unit(found.group(2)) or rate_unit(found.group(2))
            if own is None:
                return None
            unit = own
    return (plain[0] * unit, plain[1] * unit) if math.isfinite(plain[0] * unit) else None
