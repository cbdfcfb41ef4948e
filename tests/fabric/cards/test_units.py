"""Quantities read from text: exact, strict about units, and back again."""

from decimal import Decimal

import pytest
from busbw.errors import UserError
from busbw.fabric.cards import units
from hypothesis import given
from hypothesis import strategies as st

# By hand, from the definitions of SI and IEC prefixes; not from the module's table.
MEANINGS = [
    ("400 Gb/s", "rate", 400e9 / 8),
    ("400Gb/s", "rate", 50e9),
    ("8 b/s", "rate", 1.0),
    ("450 GB/s", "rate", 450e9),
    ("3.35 TB/s", "rate", 3.35e12),
    ("1 MiB/s", "rate", 1048576.0),
    ("1.3us", "time", 1.3e-6),
    ("1.3 µs", "time", 1.3e-6),
    ("600 ns", "time", 600e-9),
    ("5 ps", "time", 5e-12),
    ("0.25 s", "time", 0.25),
    ("4096 B", "bytes", 4096.0),
    ("80 GB", "bytes", 80e9),
    ("2 KiB", "bytes", 2048.0),
    ("700 W", "power", 700.0),
    ("1.4 kW", "power", 1400.0),
    ("1 GW", "power", 1e9),
    ("30 m", "length", 30.0),
    ("30 cm", "length", 0.3),
    ("215 Mmsg/s", "messages", 215e6),
    ("10 messages/s", "messages", 10.0),
    ("0.95", "fraction", 0.95),
    ("95 %", "fraction", 0.95),
    ("1.5", "ratio", 1.5),
    ("300_000", "count", 300000),
]


@pytest.mark.parametrize("text, kind, value", MEANINGS)
def test_a_quantity_means_its_si_value_to_the_last_bit(text, kind, value):
    assert units.parse(text, kind) == value


@given(
    st.integers(1, 10**9),
    st.integers(0, 6),
    st.sampled_from([("us", "time", 6), ("kb/s", "rate", -3), ("m", "length", 0)]),
)
def test_decimals_are_read_as_the_nearest_float(digits, places, unit):
    name, kind, exponent = unit
    number = Decimal(digits).scaleb(-places)
    want = number.scaleb(-exponent) / (8 if kind == "rate" else 1)
    assert units.parse(f"{number:f} {name}", kind) == float(want)


REFUSED = [
    ("400", "rate"),
    ("400 GB", "rate"),
    ("400 gb/s", "rate"),
    ("400 Gbps/", "rate"),
    ("1.3", "time"),
    ("1.3 Us", "time"),
    ("4096", "bytes"),
    ("4096 b", "bytes"),
    ("700", "power"),
    ("700 kWh", "power"),
    ("30", "length"),
    ("0.95 W", "fraction"),
    ("2 %", "ratio"),
    ("1.5", "count"),
    ("1e3", "count"),
    ("٣", "count"),
    ("nan", "ratio"),
    ("inf s", "time"),
    ("1e999 s", "time"),
    ("0x10 B", "bytes"),
    ("1 + 1 s", "time"),
    ("", "rate"),
    ("9" * 1000, "count"),
    ("__import__('os')", "count"),
]


@pytest.mark.parametrize("text, kind", REFUSED)
def test_a_missing_or_wrong_unit_says_what_is_accepted(text, kind):
    with pytest.raises(UserError) as e:
        units.parse(text, kind)
    assert "accepted: " in str(e.value) and len(str(e.value)) < 300


KINDS = ("rate", "time", "bytes", "power", "length", "messages", "fraction", "ratio")


@given(st.sampled_from(KINDS), st.floats(1e-12, 1e15))
def test_what_is_written_reads_back_to_six_digits(kind, value):
    assert units.parse(units.format(value, kind), kind) == pytest.approx(value, rel=1e-5)


@given(st.integers(-(10**12), 10**12))
def test_counts_are_exact(n):
    assert units.parse(units.format(n, "count"), "count") == n


@given(st.text(max_size=80), st.sampled_from([*KINDS, "count"]))
def test_any_text_gives_a_finite_number_or_a_user_error(text, kind):
    try:
        value = units.parse(text, kind)
    except UserError:
        return
    assert value == value and abs(value) != float("inf")
