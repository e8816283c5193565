"""The exit codes and their documentation."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from runway.cli.context import Exit
from tests.support.cli import Answer, failure, job, problem, reply, runway

FEATURES = Path(__file__).parents[3] / "docs" / "features.md"


def test_documented_exit_codes_match() -> None:
    rows = [line for line in FEATURES.read_text().split("**Exit codes.**")[1].splitlines() if line.startswith("| ")]
    assert rows[2:] == [f"| {code.value} | {code.doc} |" for code in Exit]


def test_exit_codes_are_listed_once_in_80_columns() -> None:
    text = runway("--help").stdout
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert all(f" {code.value} {code.doc}" in words for code in Exit)
    for command in ("wait", "run", "submit", "ls"):
        assert "124" not in runway(command, "--help").stdout


@pytest.mark.parametrize("group", [[], ["policy"], ["tenants"]])
def test_list_of_commands_cuts_no_sentence(group: list[str]) -> None:
    assert "..." not in runway(*group, "--help").stdout.partition("Commands:")[2].partition("Exit codes")[0]


@pytest.mark.parametrize("command", [[], ["submit"], ["run"], ["ls"], ["status"], ["logs"], ["wait"], ["cancel"]])
def test_help_begins_with_an_example(command: list[str]) -> None:
    usage, example, *_ = runway(*command, "--help").stdout.split("\n\n")
    assert usage.startswith("Usage: runway")
    assert example.split("\n")[-1].startswith(f"  runway {command[0] if command else 'run'}")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(403, "quota_exceeded"), Exit.REJECTED),
        (problem(503, "submissions_stopped", retry_after=60), Exit.STOPPED),
        (problem(503, "kubernetes_unavailable"), Exit.UNAVAILABLE),
        (httpx2.ConnectError("refused"), Exit.UNAVAILABLE),
        (reply(job("failed", failure=failure("node_lost", "infra")), 201), Exit.FAILED),
    ],
    ids=["refusal", "stop", "outage of Kubernetes", "outage of Runway", "infrastructure failure of the job"],
)
def test_stop_outage_refusal_and_failure_have_codes_of_their_own(answer: Answer, code: Exit) -> None:
    assert runway("submit", "--wait", "--image", "x", answers=[answer]).exit_code == code
