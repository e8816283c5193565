"""Completion in the shell, as bash asks for it, and what `runway` says of itself."""

from __future__ import annotations

import json

import httpx2
import pytest
from typer.testing import CliRunner

from runway import __version__
from runway.cli.context import Environment
from runway.cli.main import app
from tests.support.cli import URL, Answer, FakeRunway, job, problem, reply, runway


def completed(line: str, *answers: Answer, fake: FakeRunway | None = None) -> list[str]:
    """What bash is offered for the last word of a line."""
    fake = fake or FakeRunway(list(answers))
    environment = {
        "_RUNWAY_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")),
        "RUNWAY_URL": URL,
        "RUNWAY_TENANT": None,
    }
    edges = Environment(transport=httpx2.MockTransport(fake))
    result = CliRunner().invoke(app, [], prog_name="runway", obj=edges, env=environment)
    assert result.stderr == ""
    return result.stdout.split()


JOBS = reply({"jobs": [job(id="rw-abc"), job("failed", id="rw-abd"), job(id="rw-x")], "next_cursor": None})


@pytest.mark.parametrize("command", ["status", "wait", "logs"])
def test_job_ids_are_completed(command: str) -> None:
    assert completed(f"runway {command} rw-a", JOBS) == ["rw-abc", "rw-abd"]


def test_only_what_is_not_over_is_offered_to_cancel() -> None:
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
def test_without_an_answer_nothing_is_offered_and_nothing_said(answer: Answer) -> None:
    assert completed("runway status rw-", answer) == []
    assert completed("runway ls --tenant v", answer) == []


def test_what_is_no_name_is_not_handed_to_a_shell() -> None:
    jobs = [job(id="rw-$(reboot)"), job(id="rw-`id`"), job(id="rw-ok")]
    assert completed("runway status rw-", reply({"jobs": jobs, "next_cursor": None})) == ["rw-ok"]


def test_the_server_may_be_named_by_either_flag() -> None:
    for flag in ("--url", "--server"):
        fake = FakeRunway([JOBS])
        runway("ls", flag, "http://other.test", answers=fake)
        assert fake.requests[0].url.host == "other.test"


def test_the_version() -> None:
    assert runway("version").stdout == f"runway {__version__}\n"
    assert json.loads(runway("version", "-o", "json").stdout) == {"version": __version__}
