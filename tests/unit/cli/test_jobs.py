"""`runway ls` and `runway cancel`."""

from __future__ import annotations

import json

import httpx2
import pytest

from tests.support.cli import (
    Answer,
    FakeRunway,
    attempt,
    failure,
    job,
    problem,
    reply,
    runway,
)


def test_ls_shows_one_row_for_each_job() -> None:
    jobs = [
        job("running", conditions=[{"code": "node_unreachable", "message": "...", "since": None}]),
        job("failed", id="rw-9", name=None, failure=failure("oom_killed"), cost=job()["cost"] | {"actual": "0.09"}),
        job("pending", id="rw-8", name="", spec=None, cost=None, created_at=None),
    ]
    result = runway("ls", answers=[reply({"jobs": jobs, "next_cursor": None})])
    assert result.stdout.splitlines() == [
        "ID       NAME   STATE    WHY               AGE  GPU   COST USD",
        "rw-4f2a  train  running  node_unreachable  10m    1  max 1.418",
        "rw-9            failed   oom_killed        10m    1       0.09",
        "rw-8            pending",
    ]


def test_ls_of_all_tenants_has_a_tenant_column() -> None:
    jobs = [job(), job(id="rw-9", tenant="speech")]
    result = runway("ls", answers=[reply({"jobs": jobs, "next_cursor": None})], tenant=None)
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        ["ID", "TENANT"],
        ["rw-4f2a", "vision"],
        ["rw-9", "speech"],
    ]


def test_ls_wide_shows_every_column() -> None:
    view = job("running", attempts=[attempt(node="node-7")], attempts_left_out=4)
    lines = runway("ls", "-o", "wide", answers=[reply({"jobs": [view], "next_cursor": None})]).stdout.splitlines()
    assert lines[0].endswith("COST USD  ATTEMPTS  NODE    CREATED               IMAGE")
    assert lines[1].endswith("max 1.418  5         node-7  2026-11-24T08:00:00Z  runway.local/busybox:1")


def test_ls_filters_by_several_states() -> None:
    fake = FakeRunway([reply({"jobs": [], "next_cursor": None})])
    result = runway("ls", "--state", "running", "--state", "pending", answers=fake)
    assert fake.requests[0].url.params.get_list("state") == ["running", "pending"]
    assert "No jobs." in result.stderr


def test_ls_follows_pages_up_to_its_limit() -> None:
    def page(first: int, count: int, cursor: str | None) -> httpx2.Response:
        return reply({"jobs": [job(id=f"rw-{n}") for n in range(first, first + count)], "next_cursor": cursor})

    fake = FakeRunway([page(0, 100, "c1"), page(100, 100, "c2"), page(200, 50, "c3")])
    result = runway("ls", "--limit", "250", "--state", "running", "-o", "name", answers=fake)
    assert result.stdout.split() == [f"rw-{number}" for number in range(250)]
    assert [dict(request.url.params) for request in fake.requests] == [
        {"limit": "100", "state": "running"},
        {"limit": "100", "state": "running", "cursor": "c1"},
        {"limit": "50", "state": "running", "cursor": "c2"},
    ]
    assert result.stderr == "", "-o name is for programs"


def test_ls_all_follows_every_page() -> None:
    pages: list[Answer] = [
        reply({"jobs": [job(id=f"rw-{number}")], "next_cursor": str(number) if number < 29 else None})
        for number in range(30)
    ]
    result = runway("ls", "--all", "-o", "name", answers=pages)
    assert result.stdout.split() == [f"rw-{number}" for number in range(30)]
    assert result.stderr == ""


def test_ls_ends_with_the_last_page() -> None:
    fake = FakeRunway([reply({"jobs": [job()], "next_cursor": "c"}), reply({"jobs": [job()], "next_cursor": None})])
    result = runway("ls", "-o", "json", answers=fake)
    assert json.loads(result.stdout) == {"jobs": [job(), job()], "next_cursor": None}
    assert result.stderr == ""


def test_ls_stops_at_an_empty_page() -> None:
    answers: list[Answer] = [reply({"jobs": [], "next_cursor": "c"}), AssertionError("asked again")]
    assert runway("ls", answers=answers).exit_code == 0


# cancel


def test_cancel_on_a_terminal_stops_at_no() -> None:
    fake = FakeRunway([reply(job("running"))])
    result = runway("cancel", "rw-4f2a", answers=fake, at_terminal=True, stdin="n\n")
    assert result.exit_code == 1
    assert fake.paths == ["GET /v1/jobs/rw-4f2a"]


def test_cancel_on_a_terminal_continues_after_yes() -> None:
    fake = FakeRunway([reply(job("running", name="evil\x1b[2J")), reply(job("cancelling"), 202)])
    result = runway("cancel", "rw-4f2a", answers=fake, at_terminal=True, stdin="y\n")
    assert result.exit_code == 0
    assert "rw-4f2a evil\\x1b[2J running of vision" in result.stderr
    assert "Cancel job rw-4f2a?" in result.stderr
    assert result.stdout.endswith("rw-4f2a is cancelling\n")
    assert fake.paths == ["GET /v1/jobs/rw-4f2a", "DELETE /v1/jobs/rw-4f2a"]


def test_cancel_with_yes_flag_does_not_ask() -> None:
    fake = FakeRunway([reply(job("cancelling"), 202)])
    assert runway("cancel", "rw-4f2a", "-y", answers=fake, at_terminal=True).exit_code == 0
    assert fake.paths == ["DELETE /v1/jobs/rw-4f2a"]
    assert fake.requests[0].headers["X-Tenant-ID"] == "vision"


def test_cancel_without_a_terminal_requires_yes_flag() -> None:
    fake = FakeRunway([reply(job("cancelling"), 202)])
    result = runway("cancel", "rw-4f2a", answers=fake)
    assert result.exit_code == 2
    assert "pass -y to confirm" in result.stderr
    assert fake.requests == []


def test_cancel_reports_a_finished_job() -> None:
    result = runway("cancel", "-y", "rw-4f2a", answers=[reply(job("succeeded"), 202)])
    assert result.stdout == "rw-4f2a was already succeeded\n"


@pytest.mark.parametrize("flags", [("-y",), (), ("-y", "-o", "json"), ("-y", "--tenant", "")])
def test_cancel_without_a_tenant_is_a_usage_error(flags: tuple[str, ...]) -> None:
    fake = FakeRunway([reply(job("cancelling"), 202)])
    result = runway("cancel", "rw-4f2a", *flags, answers=fake, tenant=None, at_terminal=True)
    assert result.exit_code == 2
    assert "cancel requires the tenant of the jobs" in result.stderr
    assert "RUNWAY_TENANT" in result.stderr
    assert fake.requests == []


SEVERAL: list[Answer] = [
    reply(job("cancelling", id="rw-1"), 202),
    problem(404, "job_not_found"),
    reply(job("failed", id="rw-3"), 202),
]


def test_cancel_of_several_continues_after_a_failure() -> None:
    fake = FakeRunway(list(SEVERAL))
    result = runway("cancel", "-y", "rw-1", "rw-2", "rw-1", "rw-3", answers=fake)
    assert result.exit_code == 1
    assert result.stdout == "rw-1 is cancelling\nrw-3 was already failed\n"
    assert "rw-2 was not cancelled:" in result.stderr
    assert len(fake.requests) == 3, "a job that is named twice is cancelled once"


@pytest.mark.parametrize("remaining", [["rw-2"], []])
def test_cancel_on_a_terminal_continues_without_a_job_that_does_not_exist(remaining: list[str]) -> None:
    known = [reply(job("running", id=job_id)) for job_id in remaining]
    cancelled = [reply(job("cancelling", id=job_id), 202) for job_id in remaining]
    fake = FakeRunway([problem(404, "job_not_found"), *known, *cancelled])
    result = runway("cancel", "rw-1", *remaining, answers=fake, at_terminal=True, stdin="y\n")
    assert result.exit_code == 1
    assert ("Cancel job rw-2?" in result.stderr) == bool(remaining)
    assert "rw-1 was not cancelled:" in result.stderr
    assert [path for path in fake.paths if "DELETE" in path] == [f"DELETE /v1/jobs/{job_id}" for job_id in remaining]


def test_cancel_as_data_lists_jobs_and_problems() -> None:
    result = runway("cancel", "-y", "rw-1", "rw-2", "rw-3", "-o", "json", answers=list(SEVERAL))
    document = json.loads(result.stdout)
    assert [view["id"] for view in document["jobs"]] == ["rw-1", "rw-3"]
    assert [(trouble["id"], trouble["code"]) for trouble in document["problems"]] == [("rw-2", "job_not_found")]
    assert result.stderr == ""
    assert runway("cancel", "-y", "rw-1", "-o", "name", answers=list(SEVERAL)).stdout == "rw-1\n"


def test_cancel_asks_once_for_several() -> None:
    running = [reply(job("running", id=f"rw-{number}")) for number in (1, 2)]
    fake = FakeRunway([*running, reply(job("cancelling"), 202)])
    result = runway("cancel", "rw-1", "rw-2", answers=fake, at_terminal=True, stdin="y\n")
    assert "Cancel these 2 jobs?" in result.stderr
    assert fake.paths[2:] == ["DELETE /v1/jobs/rw-1", "DELETE /v1/jobs/rw-2"]
