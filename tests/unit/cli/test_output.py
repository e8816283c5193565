"""Output: colours only on a terminal, and no untrusted text that steers it."""

from __future__ import annotations

import os
import pty
import unicodedata
from contextlib import redirect_stdout

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.cli.output import Screen, show_state, to_yaml
from runway.cli.views.tables import columns
from runway.text import escape
from tests.support.cli import attempt, failure, job, problem, reply, runway

HOSTILE = "\x1b[2J\x1b]0;owned\x07\r\n\t\x7f\x9b31m\u202eevil\u2028[bold red]markup[/][link=http://x]:smile:"
HARMLESS = "\\x1b[2J\\x1b]0;owned\\x07\\r\\n\\t\\x7f\\x9b31m\\u202eevil\\u2028[bold red]markup[/][link=http://x]:smile:"


@pytest.mark.parametrize("command", [("status", "rw-4f2a"), ("wait", "rw-4f2a"), ("ls",)])
def test_hostile_text_is_escaped(command: tuple[str, ...]) -> None:
    view = job(
        "failed",
        name=HOSTILE,
        tenant=HOSTILE,
        conditions=[{"code": HOSTILE, "message": HOSTILE, "since": None}],
        attempts=[attempt(HOSTILE, pod=HOSTILE, node=HOSTILE, reason=HOSTILE, signal=HOSTILE)],
        failure=failure(HOSTILE, HOSTILE, message=HOSTILE, hint=HOSTILE, evidence={HOSTILE: HOSTILE}),
        finished_at="2026-11-24T08:00:00Z",
    )
    answer = reply({"jobs": [view], "next_cursor": None}) if command[0] == "ls" else reply(view)
    result = runway(*command, answers=[answer])
    assert HARMLESS in result.output
    assert steering(result.output) == set()


def test_hostile_problem_is_escaped() -> None:
    violation = {"field": HOSTILE, "message": HOSTILE, "observed": HOSTILE, "limit": HOSTILE, "hint": HOSTILE}
    answer = problem(403, HOSTILE, title=HOSTILE, detail=HOSTILE, violations=[violation], request_id=HOSTILE)
    result = runway("ls", answers=[answer])
    assert result.stderr.count(HARMLESS) == 9
    assert steering(result.output) == set()


@pytest.mark.parametrize("form", ["json", "yaml", "name"])
def test_hostile_text_is_escaped_in_data_too(form: str) -> None:
    result = runway("status", "rw-4f2a", "-o", form, answers=[reply(job(id=HOSTILE, name=HOSTILE))])
    assert steering(result.output) <= {"\x7f"}, "DEL moves nothing, and JSON has no need to escape it"


def steering(output: str) -> set[str]:
    """Return the characters that could steer a terminal or hide text."""
    return {letter for letter in output if letter != "\n" and unicodedata.category(letter) in {"Cc", "Cf", "Zl", "Zp"}}


@given(st.text())
def test_escaped_text_is_one_printable_line(text: str) -> None:
    shown = escape(text)
    assert steering(shown) == set()
    assert "\n" not in shown
    shown.encode("utf-8")
    assert escape(shown) == shown


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_terminal_gets_colours_unless_disabled(
    environment: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ({"TERM": "xterm-256color"} | environment).items():
        monkeypatch.setenv(name, value)
    if "NO_COLOR" not in environment:
        monkeypatch.delenv("NO_COLOR", raising=False)
    assert ("\x1b[" in shown_on_a_terminal()) is coloured


def shown_on_a_terminal() -> str:
    terminal, end = pty.openpty()
    try:
        with os.fdopen(end, "w") as stream, redirect_stdout(stream):
            screen = Screen()
            screen.out("title", style="bold")
            screen.table(columns("STATE"), [[show_state("failed")]])
            return os.read(terminal, 65_536).decode()
    finally:
        os.close(terminal)


def test_pipe_gets_no_colours_with_force_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = runway("status", "rw-4f2a", answers=[reply(job("failed", failure=failure()))])
    assert "\x1b" not in result.output


def test_pipe_gets_one_untruncated_line_for_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    result = runway("ls", answers=[reply({"jobs": [job(name="n" * 300)], "next_cursor": None})])
    assert len(result.stdout.splitlines()) == 2
    assert "n" * 300 in result.stdout


@pytest.mark.parametrize("text", ["y", "n", "yes", "1e3", "1234e56", "0o17", "0x1f", "12:30", "2026-01-01"])
def test_yaml_quotes_text_that_another_reader_takes_for_a_number_or_a_boolean(text: str) -> None:
    """kubectl reads the label `1234e56`, a short hash of git, as a number, which the API server refuses."""
    assert to_yaml([{"a": text, "b": "train", "c": 1, "d": 0.5}]) == f"a: '{text}'\nb: train\nc: 1\nd: 0.5\n"
