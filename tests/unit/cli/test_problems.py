"""Behaviour of every command: server and tenant, errors, exit codes."""

from __future__ import annotations

import json
import socket

import httpx2
import pytest

from runway.cli.context import Environment
from tests.support.cli import URL, Answer, Clock, FakeRunway, invoke, job, problem, reply, runway, serve


def test_environment_names_tenant_and_server() -> None:
    fake = FakeRunway([reply(job())])
    runway("status", "rw-4f2a", answers=fake)
    assert str(fake.requests[0].url) == f"{URL}/v1/jobs/rw-4f2a"
    assert fake.requests[0].headers["X-Tenant-ID"] == "vision"


def test_options_override_the_environment() -> None:
    fake = FakeRunway([reply(job())])
    runway("status", "rw-4f2a", "--tenant", "speech", "--url", "https://other.test/runway/", answers=fake)
    assert str(fake.requests[0].url) == "https://other.test/runway/v1/jobs/rw-4f2a"
    assert fake.requests[0].headers["X-Tenant-ID"] == "speech"


def test_missing_tenant_error_names_the_option() -> None:
    fake = FakeRunway([problem(400, "tenant_required")])
    result = runway("ls", answers=fake, tenant=None)
    assert "X-Tenant-ID" not in fake.requests[0].headers
    assert result.exit_code == 1
    assert "use --tenant NAME, export RUNWAY_TENANT=NAME" in result.stderr


VIOLATIONS = [
    {
        "field": "resources.cpu",
        "code": "over_limit",
        "message": "is above what a job may ask for",
        "observed": "64",
        "limit": "16",
        "hint": "ask for at most 16",
    },
    {"field": "image", "code": "required", "message": "is required", "observed": None, "limit": None, "hint": None},
]


def test_problem_shows_every_violation() -> None:
    answer = problem(422, "invalid_spec", violations=VIOLATIONS, request_id="req-7")
    result = runway("submit", "--cpu", "64", answers=[answer])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "Error: Not today (invalid_spec)",
        "It is closed.",
        "  resources.cpu  observed 64, limit 16",
        "      is above what a job may ask for",
        "      hint: ask for at most 16",
        "  image",
        "      is required",
        "request id: req-7",
    ]


def test_problem_shows_extra_members_and_retry_after() -> None:
    result = runway("submit", "--image", "x", answers=[problem(429, "closed", retry_after=7, news=["a", 1])])
    assert '  news: ["a", 1]' in result.stderr
    assert "Try again in 7 s." in result.stderr


def test_quota_problem_shows_usage_and_jobs() -> None:
    quota = {
        "limit": {"gpu": 2, "cpu": "16", "disk": None, "gpu_types": {}},
        "used": {"gpu": 1, "cpu": "500m", "disk": "1Gi"},
        "reserved": {"gpu": 1, "cpu": "0"},
        "requested": {"gpu": 1, "cpu": "4", "disk": "1Gi", "gpu_types": {"a10g": 1}},
    }
    holders = [f"rw-{number}" for number in range(10)]
    names, listed = {"rw-0": "train"}, [*holders, "rw-10"]
    answer = problem(403, "quota_exceeded", quota=quota, held_by=listed, held_by_count=60, held_by_names=names)
    result = runway("submit", "--image", "x", answers=[answer])
    assert result.stderr.splitlines()[2:] == [
        "  RESOURCE  USED  RESERVED  REQUESTED  LIMIT",
        "  gpu       1     1         1          2",
        "  cpu       0.5   0         4          16",
        f"  held by {', '.join(['rw-0 (train)', *holders[1:]])} and 50 more",
    ]


def test_emergency_stop_shows_its_reason() -> None:
    """An unknown code is shown like every other problem."""
    answer = problem(503, "submissions_stopped", retry_after=60, detail="the GPU nodes are being replaced")
    result = runway("submit", "--image", "x", answers=[answer])
    assert result.exit_code == 77
    assert result.stderr.splitlines() == [
        "Error: Not today (submissions_stopped)",
        "the GPU nodes are being replaced",
        "Try again in 60 s.",
    ]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_problem_is_data_on_stdout_for_data_formats(form: str) -> None:
    result = runway("status", "rw-4f2a", "-o", form, answers=[problem(404, "job_not_found")])
    assert result.exit_code == 1
    assert result.stderr == ""
    assert "job_not_found" in result.stdout
    if form == "json":
        assert json.loads(result.stdout)["status"] == 404


def test_unknown_outcome_names_the_status_command() -> None:
    result = runway("submit", "--image", "x", answers=[problem(503, "outcome_unknown", retry_after=2, id="rw-9")])
    assert result.exit_code == 69
    assert "`runway status rw-9`" in result.stderr


def test_servers_hint_is_shown() -> None:
    hint = "accepted jobs continue"
    stopped = problem(503, "submissions_stopped", retry_after=60, detail="driver rollout", hint=hint)
    result = runway("submit", "--image", "x", answers=[stopped])
    assert result.exit_code == 77
    assert "submissions_stopped" in result.stderr
    assert "driver rollout" in result.stderr
    assert "hint: accepted jobs continue" in result.stderr
    assert "Try again in 60 s." in result.stderr


def test_unreachable_server_error_names_the_url_option() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        # Bound but not listening: the port refuses every connection and no other process can use it.
        clock = Clock()
        result = invoke(["ls", "--url", url], Environment(sleep=clock.sleep, monotonic=clock.monotonic))
    assert result.exit_code == 69
    assert url in result.stderr
    assert "RUNWAY_URL" in result.stderr


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        (("status", "rw-4f2a"), job()),
        (("ls",), {"jobs": [job()], "next_cursor": None}),
        (("cancel", "rw-4f2a", "-y"), job("cancelling")),
        (("quota",), {"tenants": []}),
    ],
)
@pytest.mark.parametrize("lost", [httpx2.ConnectError("refused"), problem(503, "not_leader", retry_after=2)])
def test_restart_of_runway_is_a_short_wait(
    command: tuple[str, ...], answer: dict[str, object], lost: httpx2.Response | Exception
) -> None:
    clock = Clock()
    result = runway(*command, answers=[lost, lost, reply(answer)], clock=clock)
    assert result.exit_code == 0
    assert result.stderr.splitlines()[-1] == "Runway answers again"
    assert 0 < sum(clock.slept) < 15


def test_log_survives_a_restart_of_runway() -> None:
    log = httpx2.Response(200, text="hello\n")
    result = runway("logs", "rw-4f2a", answers=[httpx2.ConnectError("refused"), log], clock=Clock())
    assert (result.exit_code, result.stdout) == (0, "hello\n")


@pytest.mark.parametrize("code", ["rate_limited", "submissions_stopped"])
def test_refused_call_is_not_repeated(code: str) -> None:
    fake = FakeRunway([problem(429 if code == "rate_limited" else 503, code, retry_after=1)])
    assert runway("quota", answers=fake).exit_code in (1, 77)
    assert len(fake.requests) == 1


def test_loopback_server_ignores_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    page = b'{"jobs": [], "next_cursor": null}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
    with socket.socket() as proxy, serve(answer) as url:
        proxy.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        result = invoke(["ls", "--url", url], Environment())
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, html="<h1>hello</h1>"),
        httpx2.Response(404, html="<h1>hello</h1>"),
        httpx2.Response(307, headers={"Location": "https://elsewhere.test/"}),
        reply(["not", "a", "page"]),
        reply({"error": "some other service"}),
        httpx2.Response(200, content=b"[" * 100_000),
        httpx2.Response(500, json={}, headers={"Content-Type": "application/problem+json"}),
    ],
    ids=["page", "page-404", "redirect", "list", "other-object", "deep-nesting", "empty-problem"],
)
def test_answer_of_another_service_is_an_error(answer: httpx2.Response) -> None:
    result = runway("ls", answers=[answer])
    assert result.exit_code == 69
    assert "check the address" in result.stderr


@pytest.mark.parametrize("violations", ["none", 5, [3], {"field": "image"}])
def test_problem_with_malformed_violations_is_shown_without_them(violations: object) -> None:
    result = runway("ls", answers=[problem(422, "invalid_parameter", violations=violations)])
    assert result.exit_code == 1
    assert "It is closed." in result.stderr


@pytest.mark.parametrize("field", ["created_at", "started_at", "finished_at"])
def test_time_without_a_zone_is_an_error_of_the_server(field: str) -> None:
    result = runway("status", "rw-4f2a", answers=[reply(job("failed", **{field: "2026-11-24T08:05:00"}))])
    assert result.exit_code == 69
    assert f"({field}: Input should have timezone info)" in " ".join(result.stderr.split())


@pytest.mark.parametrize("answer", [httpx2.ConnectError("refused"), httpx2.Response(502), problem(404, "x")])
@pytest.mark.parametrize("command", [("ls",), ("config",), ("config", "-o", "json"), ("cancel", "-y", "rw-4f2a")])
def test_password_of_the_url_is_sent_and_never_shown(command: tuple[str, ...], answer: Answer) -> None:
    fake = FakeRunway([answer])
    result = runway(*command, "--url", "http://me:hunter2@runway.test", answers=fake)
    assert "hunter2" not in result.output
    assert all(request.headers["Authorization"].startswith("Basic ") for request in fake.requests)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "--url", "ftp://runway.test"),
        ("ls", "--url", "127.0.0.1:8000"),
        ("ls", "--tenant", "vi\nsion"),
        ("ls", "--tenant", "visión"),
        ("submit", "--idempotency-key", "clé"),
        ("submit", "--idempotency-key", ""),
        ("status", "../quota"),
        ("cancel", ""),
        ("ls", "--state", "sleeping"),
        ("ls", "--limit", "0"),
        ("ls", "-o", "xml"),
        ("unheard-of",),
    ],
)
def test_invalid_command_line_exits_with_2_without_a_request(arguments: tuple[str, ...]) -> None:
    fake = FakeRunway([reply({})])
    result = runway(*arguments, answers=fake)
    assert result.exit_code == 2
    assert fake.requests == []
