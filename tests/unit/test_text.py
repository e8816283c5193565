"""Foreign text made harmless and short, and amounts as people read them."""

from __future__ import annotations

import pytest

from runway.text import amounts_in_words, bytes_in_words, last_lines, one_line, twice


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
def test_a_message_is_one_harmless_line(text: str | None, shown: str) -> None:
    assert one_line(text) == shown


def test_a_long_message_keeps_its_two_ends() -> None:
    shown = one_line("failed to pull " + "x" * 100_000 + " manifest unknown", 60)
    assert len(shown) == 60
    assert shown.startswith("failed to pull ")
    assert shown.endswith(" manifest unknown")


def test_the_end_of_a_log_keeps_its_lines() -> None:
    assert last_lines("one\ntwo\tthree\x07\n") == "one\ntwo\tthree\\x07\n"
    assert last_lines("x" * 100 + "end", 10) == "xxxxxxxend"
    assert last_lines("\x07" * 100, 10) == "07\\x07\\x07"


@pytest.mark.parametrize(
    ("amount", "words"),
    [(0, "0"), (1023, "1023"), (1024, "1Ki"), (10 * 1024**3 - 1, "9.9Gi"), (1536 * 1024**2, "1.5Gi"), (2**41, "2Ti")],
)
def test_bytes_are_rounded_down_to_what_is_surely_there(amount: int, words: str) -> None:
    assert bytes_in_words(amount) == words


def test_amounts_in_words() -> None:
    assert amounts_in_words(1, 3500, 10 * 1024**3) == "1 GPU, 3.5 CPU and 10Gi of memory"
    assert amounts_in_words(None, 2000, 1024**2) == "2 CPU and 1Mi of memory"


@pytest.mark.parametrize(
    ("amount", "double"), [("512Mi", "1Gi"), ("1Gi", "2Gi"), ("1000M", "1953125Ki"), ("much", "twice much")]
)
def test_twice_an_amount_of_memory(amount: str, double: str) -> None:
    assert twice(amount) == double
