"""`runway wait`: exit codes, and retries while Runway does not respond."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from tests.support.cli import Answer, Clock, FakeRunway, attempt, failure, job, problem, reply, runway

ENDED_WITH_3 = [attempt("failed", exit_code=3, finished_at="2026-11-24T08:02:00Z")]


def failed(code: str, category: str, attempts: list[dict[str, Any]]) -> dict[str, Any]:
    return job("failed", failure=failure(code, category), attempts=attempts)


@pytest.mark.parametrize(
    ("view", "exit_code"),
    [
        (job("succeeded"), 0),
        (failed("exit_nonzero", "user", ENDED_WITH_3), 3),
        (failed("exit_nonzero", "user", [attempt("failed", exit_code=9), *ENDED_WITH_3]), 3),
        (failed("oom_killed", "user", [attempt("failed", exit_code=137, signal="SIGKILL")]), 137),
        (failed("deadline_exceeded", "user", [attempt("failed", exit_code=143)]), 124),
        (failed("deadline_exceeded", "user", []), 124),
        (failed("node_lost", "infra", ENDED_WITH_3), 125),
        (failed("quota_denied", "policy", []), 125),
        (failed("unknown", "runway", []), 125),
        (failed("image_pull_failing", "user", [attempt("waiting")]), 125),
        (failed("exit_nonzero", "user", [attempt("failed", exit_code=0)]), 125),
        (job("failed"), 125),
        (job("cancelled", failure=failure("cancelled", "user"), attempts=ENDED_WITH_3), 130),
    ],
)
def test_exit_code_follows_the_outcome(view: dict[str, Any], exit_code: int) -> None:
    assert runway("wait", "rw-4f2a", answers=[reply(view)]).exit_code == exit_code


@pytest.mark.parametrize("command", ["wait", "status"])
def test_success_that_may_be_incomplete_says_why_and_exits_with_0(command: str) -> None:
    reason = "the pod was terminated (drained) but exited with code 0; its work may be incomplete"
    view = job("succeeded", may_be_incomplete=reason, attempts=[attempt("succeeded", message=reason)])
    result = runway(command, "rw-4f2a", answers=[reply(view)])
    assert result.exit_code == 0
    assert f"may be incomplete: {reason}" in " ".join(result.output.split())
    assert " ".join(result.output.split()).count(reason) == 1


def test_failure_comes_with_the_link_to_stored_logs() -> None:
    link = "https://logs.example.com/?job=rw-4f2a"
    view = failed("exit_nonzero", "user", ENDED_WITH_3) | {"logs_url": link}
    result = runway("wait", "rw-4f2a", answers=[reply(view)])
    assert f"Stored logs: {link}" in result.output


def test_wait_shows_each_change_once() -> None:
    waiting = {"code": "unschedulable", "message": "0/1 nodes: insufficient GPU", "since": "2026-11-24T08:00:00Z"}
    views = [
        job("pending", conditions=[waiting]),
        job("pending", conditions=[waiting]),
        job("running", attempts=[attempt("running")]),
        job("cancelling"),
        job("cancelled"),
    ]
    clock = Clock()
    result = runway("wait", "rw-4f2a", answers=[reply(view) for view in views], clock=clock)
    assert result.exit_code == 130
    assert result.stderr.splitlines() == [
        "rw-4f2a is pending; unschedulable: 0/1 nodes: insufficient GPU (10m of 1h, 0.00 of at most 1.418 USD)",
        "rw-4f2a is running, attempt 1 of 2 on node-1 (10m of 1h, 0.2245 of at most 1.418 USD)",
        "rw-4f2a is cancelling (10m of 1h, 0.00 of at most 1.418 USD)",
    ]
    assert clock.slept == sorted(set(clock.slept)), "each pause is longer than the one before"


def test_wait_shows_cause_and_hint() -> None:
    view = failed("exit_nonzero", "user", ENDED_WITH_3)
    view["cost"]["actual"] = "0.023633"
    result = runway("wait", "rw-4f2a", answers=[reply(view)])
    assert result.stdout.splitlines() == [
        "rw-4f2a failed (0.02363 USD)",
        "  exit_nonzero: the job's own error; retrying will not help",
        "  the process ended with exit code 3",
        "  hint: read the log",
    ]


def test_wait_as_data_prints_only_the_last_view() -> None:
    view = job("succeeded", something_new=[1])
    result = runway("wait", "rw-4f2a", "-o", "json", answers=[reply(job("running")), reply(view)])
    assert json.loads(result.stdout) == view


@pytest.mark.parametrize(
    "outage",
    [
        problem(503, "not_ready"),
        problem(429, "rate_limited"),
        httpx2.Response(502, html="bad gateway"),
        httpx2.ConnectError("connection refused"),
        httpx2.ReadTimeout("timed out"),
    ],
    ids=["503", "429", "502", "refused", "timeout"],
)
def test_outage_is_reported_once_and_retried(outage: Answer) -> None:
    fake = FakeRunway([reply(job("running")), outage, outage, outage, reply(job("succeeded"))])
    result = runway("wait", "rw-4f2a", answers=fake)
    assert result.exit_code == 0
    assert result.stderr.count("retrying for up to 5m") == 1
    assert "Runway answers again" in result.stderr


def test_outage_ends_the_wait_after_five_minutes() -> None:
    clock = Clock()
    result = runway("wait", "rw-4f2a", answers=[httpx2.ConnectError("connection refused")], clock=clock)
    assert result.exit_code == 69
    assert "Error: Runway is unreachable" in result.stderr
    assert 290 < sum(clock.slept) <= 300


def test_retry_after_is_honoured() -> None:
    clock = Clock()
    answers = [problem(429, "rate_limited", retry_after=42), reply(job("succeeded"))]
    assert runway("wait", "rw-4f2a", answers=answers, clock=clock).exit_code == 0
    assert clock.slept == [42]


def test_retry_after_beyond_the_budget_ends_the_wait() -> None:
    clock = Clock()
    result = runway("wait", "rw-4f2a", answers=[problem(503, "not_ready", retry_after=3600)], clock=clock)
    assert result.exit_code == 69
    assert clock.slept == []
    assert "Try again in 3600 s." in result.stderr


def test_unknown_job_ends_the_wait() -> None:
    fake = FakeRunway([problem(404, "job_not_found")])
    assert runway("wait", "rw-4f2a", answers=fake).exit_code == 1
    assert len(fake.requests) == 1


def test_expired_timeout_has_its_exit_code() -> None:
    clock = Clock()
    result = runway("wait", "rw-4f2a", "--timeout", "1m30s", answers=[reply(job("running"))], clock=clock)
    assert result.exit_code == 75
    assert sum(clock.slept) == pytest.approx(90)
    assert "Stopped waiting after 1m30s; rw-4f2a is still running." in result.stderr


def test_timeout_expires_in_an_outage() -> None:
    clock = Clock()
    answers = [httpx2.ConnectError("connection refused")]
    assert runway("wait", "rw-4f2a", "--timeout", "10", answers=answers, clock=clock).exit_code == 75
    assert sum(clock.slept) == pytest.approx(10)


def test_zero_timeout_reads_once() -> None:
    fake = FakeRunway([reply(job("running"))])
    assert runway("wait", "rw-4f2a", "--timeout", "0", answers=fake).exit_code == 75
    assert len(fake.requests) == 1


def test_interrupt_says_that_the_job_continues() -> None:
    def interrupt() -> httpx2.Response:
        raise KeyboardInterrupt

    result = runway("wait", "rw-4f2a", answers=[interrupt])
    assert result.exit_code == 130
    assert "Interrupted; rw-4f2a continues." in result.stderr
    assert "runway wait rw-4f2a" in result.stderr
    assert "runway cancel rw-4f2a" in result.stderr


def test_new_job_without_a_pod_is_no_alarm_and_a_long_message_is_not_repeated() -> None:
    created = {"code": "pod_not_created", "message": "Kubernetes has not created the pod yet", "since": None}
    pulling = {"code": "image_pull_failing", "message": "the registry said no", "since": None}
    new = job("pending", created_at="2026-11-24T08:09:58Z", conditions=[created])
    first = job("pending", created_at="2026-11-24T08:09:58Z", conditions=[pulling], attempts=[attempt("waiting")])
    again = first | {"attempts": [attempt("waiting", node="node-2")]}
    answers: list[Answer] = [reply(new), reply(first), reply(again), reply(job("cancelled"))]
    lines = runway("wait", "rw-4f2a", answers=answers).stderr.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "rw-4f2a is pending",
        "rw-4f2a is pending, attempt 1 of 2 on node-1; image_pull_failing: the registry said no",
        "rw-4f2a is pending, attempt 1 of 2 on node-2; image_pull_failing",
    ]


@pytest.mark.parametrize(
    ("code", "since", "is_shown"),
    [
        ("pod_not_created", None, True),
        ("outcome_pending", "2026-11-24T08:09:58Z", False),
        ("outcome_pending", "2026-11-24T08:09:50Z", True),
    ],
)
def test_job_controller_that_needs_longer_than_usual_is_shown(code: str, since: str | None, is_shown: bool) -> None:
    waits = {"code": code, "message": "the Job controller has not acted", "since": since}
    answers: list[Answer] = [reply(job("pending", conditions=[waits])), reply(job("cancelled"))]
    shown = runway("wait", "rw-4f2a", answers=answers).stderr
    assert (f"{code}: the Job controller has not" in shown) == is_shown


@pytest.mark.parametrize(("found", "output"), [(True, "rw-2 succeeded"), (False, "")])
def test_deleted_job_among_several_hides_no_outcome(found: bool, output: str) -> None:
    missing = problem(404, "job_not_found")
    fake = FakeRunway([missing, reply(job("succeeded", id="rw-2")) if found else missing])
    ids = [f"rw-{letter * 20}" for letter in "ab"]
    result = runway("wait", *ids, answers=fake)
    assert fake.paths == [f"GET /v1/jobs/{job_id}" for job_id in ids]
    assert (result.exit_code, output in result.stdout) == (1, True)
    assert f"{ids[0]}: " in result.stderr
