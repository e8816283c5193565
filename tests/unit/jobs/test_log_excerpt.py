"""Log excerpts: short, escaped and without known secrets."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.log_excerpt import EXCERPT_BYTES, HIDDEN, RAW_BYTES, excerpt_of, redact, secrets_of
from tests.support.builders import job, spec

LONG = st.text(st.characters(codec="utf-8"), max_size=3 * EXCERPT_BYTES)


def secrets(**env: str) -> tuple[str, ...]:
    return secrets_of(job(admitted=spec(env=tuple(env.items())))) or ()


def text_of(log: bytes | str, *hidden: str, cut: bool = False) -> str:
    found = excerpt_of("pod", log, hidden, cut=cut)
    assert found is not None
    return found.text


def test_excerpt_is_the_end_of_the_log_and_shows_truncation() -> None:
    whole = excerpt_of("pod", b"first\nlast\n", ())
    assert whole is not None
    assert (whole.text, whole.truncated) == ("first\nlast\n", False)
    end = excerpt_of("pod", b"x" * EXCERPT_BYTES + b"\nlast\n", ())
    assert end is not None
    assert (len(end.text), end.text[-6:], end.truncated) == (EXCERPT_BYTES, "\nlast\n", True)
    cut = excerpt_of("pod", b"last\n", (), cut=True)
    assert cut is not None
    assert cut.truncated


def test_empty_log_has_no_excerpt() -> None:
    assert excerpt_of("pod", b"", ()) is None
    assert excerpt_of("pod", b"\n \n", ()) is None


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (b"a\x00b", "a\\x00b"),
        (b"\x1b[31mred", "\\x1b[31mred"),
        (b"bad \xff\xfe", "bad \ufffd\ufffd"),
        ("right\u202eleft".encode(), "right\\u202eleft"),
        (b"tab\tand\r\nlines\n", "tab\tand\nlines\n"),
        ("gr\u00fc\u00dfe \u2713".encode(), "gr\u00fc\u00dfe \u2713"),
    ],
)
def test_control_characters_are_escaped(log: bytes, shown: str) -> None:
    assert text_of(log) == shown


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (b"epoch 1\n 10%|#  |\r 50%|## |\r100%|###|\nloss 0.3\n", "epoch 1\n100%|###|\nloss 0.3\n"),
        (b"epoch 1\n\r 10%\r 50%", "epoch 1\n 50%"),
        (b"epoch 1\n 10%\r 50%\r", "epoch 1\n 50%"),
        (b"one\r\ntwo\r\r\n", "one\ntwo\n"),
        (b"\r outer 1%\n\r inner 5%\x1b[A\n\r inner 9%\x1b[A\n\r inner 99%\x1b[A\nKilled\n", " outer 1%\nKilled\n"),
        (b"\r outer 1%\n\r inner 5%\x1b[A\n\r inner 9%\x1b[A", " outer 1%\n inner 9%"),
        (b"\r 1%\n\r 2%\x1b[A\n\n\r 3%\x1b[A\x1b[A\n\n\r 4%\x1b[A\x1b[A\n\n\nend\n", " 1%\n\n\nend\n"),
        (b"\r\r\n\rx\n", "\nx\n"),
    ],
)
def test_progress_bar_is_shown_in_its_end_state(log: bytes, shown: str) -> None:
    """https://github.com/argoproj/argo-workflows/issues/7671, https://github.com/tqdm/tqdm/issues/1319"""
    assert text_of(log) == shown


def test_secret_after_a_carriage_return_is_redacted() -> None:
    value = "hunter22\rhunter2222"
    assert text_of(f"it is {value}", *secrets(API_TOKEN=value)) == HIDDEN


@given(st.binary(max_size=2 * RAW_BYTES))
def test_excerpt_of_any_bytes_is_bounded_and_sanitized(log: bytes) -> None:
    found = excerpt_of("pod", log, ())
    if found is not None:
        assert len(found.text.encode()) <= EXCERPT_BYTES
        assert all(letter.isprintable() or letter in "\n\t" for letter in found.text)


@pytest.mark.parametrize(
    "name", ["DB_PASSWORD", "api_token", "AWS_SECRET_ACCESS_KEY", "GIT_CREDENTIALS", "PGPASS", "MY_PWD", "AUTH_HEADER"]
)
def test_secrets_are_detected_by_variable_names(name: str) -> None:
    assert secrets(**{name: "hunter22", "LR": "0.001"}) == ("hunter22",)
    assert secrets(**{name: "abc"}) == ()


def test_passwords_in_urls_are_secrets() -> None:
    assert secrets(AUTHOR="somebody", PASSES="1000000", PWD="/work") == ()
    value = "hunter22"
    assert secrets(DATABASE_URL=f"postgres://me:{value}@db/x") == (value,)
    assert secrets(MIRROR="http://proxy:8080/me@home") == ()


def test_multi_line_secret_is_redacted_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nAAAABBBBCCCC\nDDDDEEEE\n-----END KEY-----"
    shown = text_of(f"> AAAABBBBCCCC\n> DDDDEEEE\n{key}\n", *secrets(SSH_KEY=key))
    assert "AAAA" not in shown
    assert "DDDD" not in shown


def test_secret_is_redacted_also_if_cut() -> None:
    assert redact("x hunter22 y hunter22", ["hunter22"]) == f"x {HIDDEN} y {HIDDEN}"
    assert redact("nter22 is the end of it", ["hunter22"]) == f"{HIDDEN} is the end of it"
    assert redact("it begins hunte", ["hunter22"]) == f"it begins {HIDDEN}"
    assert redact("nothing here: hunt is 4, hun is not", ["hunter22"]) == "nothing here: hunt is 4, hun is not"


@given(st.text("ab", max_size=40), st.text("ab", min_size=4, max_size=12), st.integers(0, 60), st.integers(0, 60))
def test_no_part_of_a_secret_is_left_at_a_cut(text: str, secret: str, start: int, end: int) -> None:
    whole = text + secret + text
    part = whole[min(start, len(whole)) : max(0, len(whole) - end)]
    shown = redact(part, [secret])
    assert secret not in shown
    assert not any(shown.startswith(secret[at:]) for at in range(1, len(secret) - 3))
    assert not any(shown.endswith(secret[:at]) for at in range(4, len(secret)))


@given(LONG, st.lists(st.text("abcdefgh", min_size=4, max_size=6000), min_size=1, max_size=3), st.data())
def test_secret_is_redacted_before_truncation(text: str, hidden: list[str], data: st.DataObject) -> None:
    log = text
    for secret in hidden:
        at = data.draw(st.integers(0, len(log)))
        log = log[:at] + secret + log[at:]
    raw = log.encode()
    found = excerpt_of("pod", raw[-RAW_BYTES:], sorted(hidden, key=len, reverse=True), cut=len(raw) > RAW_BYTES)
    if found is not None:
        assert len(found.text.encode()) <= EXCERPT_BYTES
        assert not any(re.search(re.escape(secret), found.text) for secret in hidden)
