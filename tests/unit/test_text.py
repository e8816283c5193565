"""Sanitized text, and amounts, times and money for people."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.text import (
    amounts_in_words,
    did_you_mean,
    escape_controls,
    last_lines,
    one_line,
    shorten,
    show_between,
    show_bytes,
    show_duration,
    show_ratio,
    show_usd,
    twice,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, ""),
        ("", ""),
        ("  a\r\n\tb  ", "a b"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202eb\u200b", "a\\u202eb\\u200b"),
        ("\x00\x9b", "\\x00\\x9b"),
        ("größer 语 ok", "größer 语 ok"),
    ],
)
def test_message_is_one_sanitized_line(text: str | None, shown: str) -> None:
    assert one_line(text) == shown


def test_long_message_keeps_both_ends() -> None:
    shown = one_line("failed to pull " + "x" * 100_000 + " manifest unknown", 60)
    assert len(shown) == 60
    assert shown.startswith("failed to pull ")
    assert shown.endswith(" manifest unknown")


def test_end_of_log_keeps_line_breaks() -> None:
    assert last_lines("one\ntwo\tthree\x07\n") == "one\ntwo\tthree\\x07\n"
    assert last_lines("x" * 100 + "end", 10) == "xxxxxxxend"
    assert last_lines("\x07" * 100, 10) == "07\\x07\\x07"


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "0"), (1023, "1023"), (1024, "1Ki"), (10 * 1024**3 - 1, "9.9Gi"), (1536 * 1024**2, "1.5Gi"), (2**41, "2Ti")],
)
def test_bytes_are_rounded_down(amount: int, words: str) -> None:
    assert show_bytes(amount) == words


def test_amounts() -> None:
    assert amounts_in_words(1, 3500, 10 * 1024**3) == "1 GPU, 3.5 CPU and 10Gi of memory"
    assert amounts_in_words(None, 2000, 1024**2) == "2 CPU and 1Mi of memory"


@pytest.mark.parametrize(
    ("amount", "double"), [("512Mi", "1Gi"), ("1Gi", "2Gi"), ("1000M", "1953125Ki"), ("much", "twice much")]
)
def test_twice_an_amount_of_memory(amount: str, double: str) -> None:
    assert twice(amount) == double


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "0s"),
        (0.9, "0s"),
        (59, "59s"),
        (200, "3m20s"),
        (3601, "1h"),
        (7200, "2h"),
        (86_460, "1d"),
        (90_061, "1d1h"),
    ],
)
def test_duration_shows_its_two_largest_units(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


def test_time_between_two_times_is_empty_where_one_is_unknown() -> None:
    start = datetime(2026, 11, 24, 8, tzinfo=UTC)
    assert show_between(start, start + timedelta(hours=2)) == "2h"
    assert show_between(start, None) == show_between(None, start) == ""


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        ("0.000000", "0.00"),
        ("3", "3.00"),
        ("12.5", "12.50"),
        ("0.012500", "0.0125"),
        ("0.720000", "0.72"),
        ("0.0168464", "0.01685"),
        ("1.4184", "1.418"),
        ("9.99996", "10.00"),
        ("123.456", "123.46"),
        ("1234567.5", "1234567.50"),
        ("0.0001", "0.0001"),
        ("0.000099", "<0.0001"),
        ("-1.50", "-1.50"),
        ("-0.000001", ">-0.0001"),
        (Decimal("0E-9"), "0.00"),
        (Decimal("1E-9"), "<0.0001"),
        (Decimal("NaN"), "NaN"),
        ("a\x1b", "a\\x1b"),
    ],
)
def test_money_has_cents_and_four_significant_digits(usd: object, shown: str) -> None:
    assert show_usd(usd) == shown


@pytest.mark.parametrize(
    ("usd", "limit", "shown"),
    [
        (Decimal("0.0000123"), "0.000084", "0.0000123"),
        ("0.000084", "0.000084", "0.000084"),
        (Decimal("1E-9"), "0.000084", "<0.000001"),
        ("0.000084", "0.0001", "<0.0001"),
        ("0.000084", None, "<0.0001"),
    ],
)
def test_money_beside_a_tiny_limit_keeps_its_digits(usd: object, limit: str | None, shown: str) -> None:
    assert show_usd(usd, limit) == shown


MONEY = st.decimals(0, 10**9, places=6)


@given(MONEY)
def test_shown_money_is_within_half_a_unit_of_its_last_digit(usd: Decimal) -> None:
    shown = show_usd(usd)
    assert re.fullmatch(r"[0-9]+\.[0-9]{2,7}|<0\.0001", shown)
    if shown != "<0.0001":
        assert abs(Decimal(shown) - usd) <= min(usd / 2000, Decimal("0.005"))


@given(MONEY, MONEY)
def test_shown_money_keeps_the_order_of_amounts(one: Decimal, other: Decimal) -> None:
    low, high = (Decimal(show_usd(usd).replace("<0.0001", "0.00005")) for usd in sorted((one, other)))
    assert low <= high


def test_misspelt_word_gets_the_nearest_known_one() -> None:
    known = ["timeout_seconds", "gpu", "gpu_type", "memory"]
    words = ("timeout", "gpus", "gputype", "memroy", "x", "y" * 100_000)
    assert [did_you_mean(word, known).removeprefix("did you mean ") for word in words] == [
        "timeout_seconds? ", "gpu? ", "gpu_type? ", "memory? ", "", "",
    ]  # fmt: skip


def test_positive_ratio_is_never_zero_percent() -> None:
    assert [show_ratio(ratio) for ratio in (0, 0.001, 0.01, 1)] == ["0%", "under 1%", "1%", "100%"]


def test_text_of_a_caller_is_cut_after_its_limit() -> None:
    assert shorten("x" * 81) == "x" * 80 + "…"
    assert (shorten("a\x00b"), shorten("")) == ("a\\x00b", '""')


def test_log_keeps_glyphs_that_python_does_not_know() -> None:
    assert escape_controls("\ue0b0 \u3000 \U0001fae8 \x1b \u202e") == "\ue0b0 \u3000 \U0001fae8 \\x1b \\u202e"
