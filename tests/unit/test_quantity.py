"""The Kubernetes quantity grammar, to and from integers."""

from __future__ import annotations

import math
from contextlib import suppress
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.quantity import MAX_LENGTH, ceil_units, format_bytes, format_cpu, parse_bytes, parse_cpu


@pytest.mark.parametrize(
    ("text", "milli"),
    [
        ("0", 0),
        ("1", 1000),
        ("500m", 500),
        ("1m", 1),
        ("0.5", 500),
        ("5.", 5000),
        (".5", 500),
        ("0.001", 1),
        ("007", 7000),
        ("1000u", 1),
        ("1000000n", 1),
        ("2k", 2_000_000),
        ("1e3", 1_000_000),
        ("1E3", 1_000_000),
        ("5e-1", 500),
        ("1e+1", 10_000),
    ],
)
def test_cpu_is_read_as_milli_cpu(text: str, milli: int) -> None:
    assert parse_cpu(text) == milli


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("0", 0),
        ("1", 1),
        ("1000m", 1),
        ("1k", 1000),
        ("1Ki", 1024),
        ("64Mi", 64 * 1024**2),
        ("1.5Gi", 1536 * 1024**2),
        ("1M", 10**6),
        ("1G", 10**9),
        ("2T", 2 * 10**12),
        ("1P", 10**15),
        ("1E", 10**18),
        ("1E3", 1000),
        ("1e3", 1000),
        ("1Ei", 1024**6),
    ],
)
def test_memory_is_read_as_bytes(text: str, amount: int) -> None:
    assert parse_bytes(text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "Infinity",
        "inf",
        "NaN",
        "1_000",
        "1,000",
        "1 Gi",
        " 1Gi",
        "1Gi ",
        "1Gi\n",
        "-1",
        "+1",
        "1K",
        "1ki",
        "1gi",
        "1GB",
        "1i",
        "1mi",
        ".",
        "..5",
        "1.2.3",
        "0x10",
        "1e",
        "1e1000",
        "1e3Gi",
        "1e3m",
        "Gi",
        "m",
        "１",
        "٣",
        "1\N{ZERO WIDTH SPACE}",
        "1\0",
    ],
)
def test_text_outside_the_grammar_is_rejected(text: str) -> None:
    for read in (parse_cpu, parse_bytes, ceil_units):
        with pytest.raises(ValueError, match="not a Kubernetes quantity"):
            read(text)


def test_quantity_length_is_limited() -> None:
    assert parse_bytes("0" * 19 + "1." + "0" * 9 + "Mi") == 1 << 20
    with pytest.raises(ValueError, match="at most 32 characters"):
        parse_bytes("0" * (MAX_LENGTH + 1))


@pytest.mark.parametrize("text", ["0.5m", "0.0001", "1u", "1500n", "1e-4"])
def test_cpu_finer_than_one_milli_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="finer than 1m"):
        parse_cpu(text)


@pytest.mark.parametrize("text", ["100m", "400m", "0.5", "1.0001Ki", "1u"])
def test_fractional_bytes_are_rejected_with_a_hint(text: str) -> None:
    with pytest.raises(ValueError, match="Mi means mebibytes"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("text", "per_unit", "units"),
    [
        ("100m", 1, 1),
        ("1500u", 1000, 2),
        ("1n", 1000, 1),
        ("0", 1, 0),
        ("1.5", 1, 2),
        ("2", 1000, 2000),
        ("400m", 1, 1),
    ],
)
def test_kubernetes_quantity_is_rounded_up(text: str, per_unit: int, units: int) -> None:
    assert ceil_units(text, per_unit) == units
    assert ceil_units(text) == ceil_units(text, 1)


@pytest.mark.parametrize(("milli", "text"), [(0, "0"), (1, "1m"), (500, "500m"), (1000, "1"), (1500, "1500m")])
def test_cpu_is_written_as_kubernetes_writes_it(milli: int, text: str) -> None:
    assert format_cpu(milli) == text


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0"), (1, "1"), (1000, "1000"), (1024, "1Ki"), (1536 * 1024**2, "1536Mi"), (128 * 1024**3, "128Gi")],
)
def test_memory_is_written_with_the_largest_suffix_that_divides_it(amount: int, text: str) -> None:
    assert format_bytes(amount) == text


@given(st.integers(0, 10**15))
def test_formatted_quantity_round_trips(amount: int) -> None:
    assert parse_cpu(format_cpu(amount)) == amount
    assert parse_bytes(format_bytes(amount)) == amount


@given(
    st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(["", "m", "k", "Mi", "u"]), st.sampled_from([1, 1000])
)
def test_rounding_up_adds_less_than_one_unit(whole: int, parts: int, suffix: str, per_unit: int) -> None:
    scale = {
        "": Fraction(1),
        "m": Fraction(1, 1000),
        "k": Fraction(1000),
        "Mi": Fraction(1 << 20),
        "u": Fraction(1, 10**6),
    }
    exact = (whole + Fraction(parts, 10 ** len(str(parts)))) * scale[suffix] * per_unit
    found = ceil_units(f"{whole}.{parts}{suffix}", per_unit)
    assert found == math.ceil(exact)


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_rejected(text: str) -> None:
    for read in (parse_cpu, parse_bytes):
        with suppress(ValueError):
            assert read(text) >= 0
            assert text.isascii()
