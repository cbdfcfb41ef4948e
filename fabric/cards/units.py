"""Quantities as people write them ("400 Gb/s", "1.3 us", "700 W") and as the model counts them (SI floats).

A kind says what is accepted and what comes out:

    rate       b/s or B/s with k, M, G, T, P (powers of 1000), KiB/s ... TiB/s   -> bytes a second
    time       ps, ns, us, ms, s                                               -> seconds
    bytes      B with k, M, G, T; KiB, MiB, GiB, TiB                           -> bytes
    power      W with m, k, M, G                                               -> watts
    length     m with m, c, k                                                  -> metres
    messages   msg/s with k, M, G                                              -> messages a second
    fraction   a plain number, or %                                            -> a float
    ratio      a plain number                                                  -> a float
    count      a plain whole number (300000 or 300_000)                        -> an int

A capital B is bytes and a small b is bits; prefixes are as SI spells them, with K taken for k.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ...errors import UserError

_SI = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_IEC = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SMALL = {"m": 3, "u": 6, "µ": 6, "n": 9, "p": 12}

_UNITS: dict[str, dict[str, Fraction | int]] = {
    "rate": {f"{p}b/s": Fraction(f, 8) for p, f in _SI.items()}
    | {f"{p}B/s": f for p, f in _SI.items()}
    | {f"{p}B/s": f for p, f in _IEC.items()},
    "time": {"s": 1} | {f"{p}s": Fraction(1, 10**n) for p, n in _SMALL.items()},
    "bytes": {f"{p}B": f for p, f in _SI.items()} | {f"{p}B": f for p, f in _IEC.items()},
    "power": {f"{p}W": _SI[p] for p in ("", "k", "M", "G")} | {"mW": Fraction(1, 1000)},
    "length": {"mm": Fraction(1, 1000), "cm": Fraction(1, 100), "m": 1, "km": 1000},
    "messages": {f"{p}{unit}": f for p, f in _SI.items() for unit in ("msg/s", "messages/s")},
    "fraction": {"": 1, "%": Fraction(1, 100)},
    "ratio": {"": 1},
    "count": {"": 1},
}

ACCEPTED = {
    "rate": "a rate such as 400 Gb/s or 450 GB/s",
    "time": "a time such as 1.3 us or 600 ns",
    "bytes": "a size such as 4096 B or 80 GB",
    "power": "a power such as 700 W or 1.4 kW",
    "length": "a length such as 30 m",
    "messages": "a rate of messages such as 200 Mmsg/s",
    "fraction": "a fraction such as 0.95 or 95 %",
    "ratio": "a plain number such as 1.5",
    "count": "a whole number such as 64",
}

_QUANTITY = re.compile(r"([+-]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?)\s*([^0-9\s.+-]\S*|)")
_LONGEST = 64  # characters: no figure needs more


def parse(text: str, kind: str) -> float | int:
    """The SI value of `text`, an int for the kind "count" and a float for the others.

    Raises UserError, naming what is accepted, for anything but a finite number and a unit of this kind. KeyError for
    an unknown kind.
    """
    accepted = ACCEPTED[kind]
    text = str(text).strip()
    shown = repr(text if len(text) <= _LONGEST else text[:_LONGEST] + "...")
    match = _QUANTITY.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise UserError(f"{shown} cannot be read; accepted: {accepted}")
    number, unit = match.group(1).replace("_", ""), match.group(2)
    units = _UNITS[kind]
    if unit not in units:
        problem = f"{shown} has no unit" if not unit else f"{shown} has the unit {unit!r}"
        raise UserError(f"{problem}; accepted: {accepted}")
    if kind == "count":
        if not number.lstrip("+-").isdigit():
            raise UserError(f"{shown} is not a whole number; accepted: {accepted}")
        return int(number)
    try:
        value = float(Fraction(number) * units[unit])  # exact until here: 1.9 us is the float nearest to 1.9e-6
    except OverflowError:
        raise UserError(f"{shown} is too large; accepted: {accepted}") from None
    return value


_SHOWN = {
    "rate": ((1e12, "TB/s"), (1e9, "GB/s"), (1e6, "MB/s"), (1e3, "kB/s"), (1.0, "B/s")),
    "time": ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"), (1e-12, "ps")),
    "bytes": ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1.0, "B")),
    "power": ((1e9, "GW"), (1e6, "MW"), (1e3, "kW"), (1.0, "W")),
    "length": ((1e3, "km"), (1.0, "m"), (1e-2, "cm")),
    "messages": ((1e9, "Gmsg/s"), (1e6, "Mmsg/s"), (1e3, "kmsg/s"), (1.0, "msg/s")),
}


def format(value: float | int, kind: str) -> str:
    """`value` (SI) as `parse` reads it, to six significant digits. Raises KeyError for an unknown kind."""
    if kind == "count":
        return str(int(value))
    scales = _SHOWN.get(kind, ((1.0, ""),))
    assert kind in _UNITS, kind
    if value == 0:
        return f"0 {next(u for s, u in scales if s == 1.0)}".rstrip()
    scale, unit = next(((s, u) for s, u in scales if abs(value) >= s * (1 - 1e-9)), scales[-1])
    return f"{value / scale:.6g} {unit}".rstrip()
