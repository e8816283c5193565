"""Completion in bash, and the version."""

from __future__ import annotations

import json

import httpx2
import pytest

from runway import __version__
from runway.cli.context import Environment
from tests.support.cli import URL, Answer, FakeRunway, invoke, job, problem, reply, runway


def completed(line: str, *answers: Answer, fake: FakeRunway | None = None) -> list[str]:
    """Return the completions of the last word of a line in bash."""
    fake = fake or FakeRunway(list(answers))
    environment = {
        "_RUNWAY_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "RUNWAY_URL": URL,
        "RUNWAY_TENANT": None,
    }
    edges = Environment(transport=httpx2.MockTransport(fake))
    result = invoke([], edges, environment)
    assert result.stderr == ""
    return result.stdout.split()


JOBS = reply({"jobs": [job(id="rw-abc"), job("failed", id="rw-abd"), job(id="rw-x")], "next_cursor": None})


@pytest.mark.parametrize("command", ["status", "wait", "logs"])
def test_job_ids_are_completed(command: str) -> None:
    assert completed(f"runway {command} rw-a", JOBS) == ["rw-abc", "rw-abd"]


def test_cancel_completes_only_active_jobs() -> None:
    assert completed("runway cancel rw-", JOBS) == ["rw-abc", "rw-x"]


def test_tenants_are_completed_and_scope_the_jobs() -> None:
    assert completed("runway ls --tenant v", reply({"tenants": {"vision": {}, "speech": {}}})) == ["vision"]
    fake = FakeRunway([JOBS])
    completed("runway status --tenant vision rw-", fake=fake)
    assert fake.requests[0].headers["X-Tenant-ID"] == "vision"


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        problem(503, "not_ready"),
        httpx2.Response(200, html="x"),
    ],
    ids=["refused", "slow", "503", "foreign"],
)
def test_completion_without_a_server_is_empty_and_silent(answer: Answer) -> None:
    assert completed("runway status rw-", answer) == []
    assert completed("runway ls --tenant v", answer) == []


def test_completion_passes_only_names_to_the_shell() -> None:
    jobs = [job(id="rw-$(reboot)"), job(id="rw-`id`"), job(id="rw-ok")]
    assert completed("runway status rw-", reply({"jobs": jobs, "next_cursor": None})) == ["rw-ok"]


def test_url_and_server_flags_are_equal() -> None:
    for flag in ("--url", "--server"):
        fake = FakeRunway([JOBS])
        runway("ls", flag, "http://other.test", answers=fake)
        assert fake.requests[0].url.host == "other.test"


def test_version() -> None:
    assert runway("version").stdout == f"runway {__version__}\n"
    assert json.loads(runway("version", "-o", "json").stdout) == {"version": __version__}
