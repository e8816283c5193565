"""The seam of the command line's tests, a Runway that answers from a script, and what holds for every command."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner, Result

from runway.cli.context import Environment
from runway.cli.main import app

NOW = datetime(2026, 11, 24, 8, 10, tzinfo=UTC)
URL = "http://runway.test"

Answer = httpx2.Response | Exception | Callable[[], httpx2.Response]


@dataclass
class Clock:
    """Time that passes only in `sleep`."""

    time: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@dataclass
class FakeRunway:
    """Gives its answers one after the other, the last one again and again, and keeps the requests.

    Event streams have a script of their own; without one this Runway has none, and a job is read instead.
    """

    answers: list[Answer]
    events: list[Answer] = field(default_factory=lambda: [problem(404, "not_found")])
    requests: list[httpx2.Request] = field(default_factory=list)
    streams: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        streaming = request.url.path.endswith("/events")
        (self.streams if streaming else self.requests).append(request)
        script = self.events if streaming else self.answers
        answer = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]


class Chunks(httpx2.SyncByteStream):
    """A streamed body that breaks at an exception among its chunks."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk


def runway(
    *arguments: str,
    answers: Sequence[Answer] | FakeRunway = (),
    clock: Clock | None = None,
    at_terminal: bool = False,
    stdin: str | None = None,
    tenant: str | None = "vision",
) -> Result:
    """Run `runway ARGUMENTS` against a scripted Runway."""
    clock = clock or Clock()
    fake = answers if isinstance(answers, FakeRunway) else FakeRunway(list(answers))
    edges = Environment(
        transport=httpx2.MockTransport(fake),
        sleep=clock.sleep,
        monotonic=clock.monotonic,
        random=lambda: 0.0,
        now=lambda: NOW,
        at_terminal=lambda: at_terminal,
    )
    environment = {"RUNWAY_URL": URL, "RUNWAY_TENANT": tenant, "RUNWAY_POLICY": None}
    return CliRunner().invoke(app, arguments, obj=edges, env=environment, input=stdin, catch_exceptions=False)


def reply(document: object, status: int = 200, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json=document, headers={name.replace("_", "-"): v for name, v in headers.items()})


def problem(status: int, code: str, *, retry_after: int | None = None, **members: Any) -> httpx2.Response:
    document = {"type": "about:blank", "title": "Not today", "status": status, "detail": "It is closed.", "code": code}
    headers = {"Content-Type": "application/problem+json"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return httpx2.Response(status, content=json.dumps(document | members), headers=headers)


def job(state: str = "pending", **members: Any) -> dict[str, Any]:
    """A job view; `members` replace its own."""
    spec = {
        "name": "train",
        "image": "runway.local/busybox:1",
        "command": ["sh", "-c"],
        "args": ["echo $HOME"],
        "env": {"TOKEN": "do-not-show"},
        "resources": {"cpu": "4", "memory": "16Gi", "gpu": 1, "gpu_type": "a10g"},
        "timeout_seconds": 3600,
        "retries": 1,
        "grace_period_seconds": 30,
        "max_cost_usd": None,
    }
    cost = {
        "currency": "USD",
        "rate_card": "a10g/g5.12xlarge@5.672",
        "hourly": "1.418000",
        "ceiling": "1.418000",
        "actual": None,
        "lines": [{"resource": "gpu", "quantity": "1", "hourly": "0.83"}],
    }
    view: dict[str, Any] = {
        "id": "rw-4f2a",
        "tenant": "vision",
        "name": "train",
        "state": state,
        "spec": spec,
        "created_at": "2026-11-24T08:00:00Z",
        "started_at": None,
        "finished_at": None,
        "conditions": [],
        "attempts": [],
        "attempts_left_out": 0,
        "disruptions": 0,
        "excerpt": None,
        "usage": None,
        "failure": None,
        "cost": cost,
        "kubernetes": {"namespace": "runway-vision", "job": "rw-4f2a"},
    }
    return view | members


def attempt(state: str = "running", **members: Any) -> dict[str, Any]:
    view: dict[str, Any] = {
        "pod": "rw-4f2a-x7k2p",
        "node": "node-1",
        "state": state,
        "exit_code": None,
        "signal": None,
        "reason": None,
        "created_at": "2026-11-24T08:00:01Z",
        "bound_at": "2026-11-24T08:00:30Z",
        "started_at": "2026-11-24T08:01:00Z",
        "finished_at": None,
        "counted": state == "failed",
        "cause": None,
        "message": None,
    }
    return view | members


def failure(code: str = "exit_nonzero", category: str = "user", **members: Any) -> dict[str, Any]:
    view: dict[str, Any] = {
        "code": code,
        "category": category,
        "retryable": False,
        "message": "the process ended with exit code 3",
        "hint": "read the log",
        "evidence": {"exit_code": "3"},
    }
    return view | members


@contextmanager
def serve(*responses: bytes) -> Iterator[str]:
    """Answer one connection after the other with these bytes and close it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)

        def answer() -> None:
            for response in responses:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(10)
                    received = b""
                    while b"\r\n\r\n" not in received:
                        received += connection.recv(4096)
                    connection.sendall(response)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            thread.join(timeout=30)
            assert not thread.is_alive()


def test_tenant_and_address_come_from_the_environment() -> None:
    fake = FakeRunway([reply(job())])
    runway("status", "rw-4f2a", answers=fake)
    assert str(fake.requests[0].url) == f"{URL}/v1/jobs/rw-4f2a"
    assert fake.requests[0].headers["X-Tenant-ID"] == "vision"


def test_tenant_and_address_given_as_options_win() -> None:
    fake = FakeRunway([reply(job())])
    runway("status", "rw-4f2a", "--tenant", "speech", "--url", "https://other.test/runway/", answers=fake)
    assert str(fake.requests[0].url) == "https://other.test/runway/v1/jobs/rw-4f2a"
    assert fake.requests[0].headers["X-Tenant-ID"] == "speech"


def test_without_a_tenant_no_header_is_sent_and_the_refusal_says_how_to_name_one() -> None:
    fake = FakeRunway([problem(400, "tenant_required")])
    result = runway("ls", answers=fake, tenant=None)
    assert "X-Tenant-ID" not in fake.requests[0].headers
    assert result.exit_code == 1
    assert "--tenant NAME or RUNWAY_TENANT" in result.stderr


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


def test_a_refusal_shows_every_violation_with_what_was_seen_allowed_and_advised() -> None:
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


def test_a_refusal_shows_members_of_its_own_and_when_to_try_again() -> None:
    result = runway("submit", "--image", "x", answers=[problem(429, "closed", retry_after=7, news=["a", 1])])
    assert '  news: ["a", 1]' in result.stderr
    assert "Try again in 7 s." in result.stderr


def test_a_refusal_by_quota_shows_what_is_held_and_by_which_jobs() -> None:
    quota = {
        "limit": {"gpu": 2, "cpu": "16"},
        "used": {"gpu": 1, "cpu": "500m"},
        "reserved": {"gpu": 1, "cpu": "0"},
        "requested": {"gpu": 1, "cpu": "4"},
    }
    holders = [f"rw-{number}" for number in range(10)]
    answer = problem(403, "quota_exceeded", quota=quota, held_by=[*holders, "rw-10"], held_by_count=60)
    result = runway("submit", "--image", "x", answers=[answer])
    assert result.stderr.splitlines()[2:] == [
        "  RESOURCE  USED  RESERVED  REQUESTED  LIMIT",
        "  gpu       1     1         1          2",
        "  cpu       500m  0         4          16",
        f"  held by {', '.join(holders)} and 50 more",
    ]


def test_an_emergency_stop_is_told_with_its_reason() -> None:
    """A code that the command line does not know is shown like every other problem."""
    answer = problem(503, "submissions_stopped", retry_after=60, detail="the GPU nodes are being replaced")
    result = runway("submit", "--image", "x", answers=[answer])
    assert result.exit_code == 125
    assert result.stderr.splitlines() == [
        "Error: Not today (submissions_stopped)",
        "the GPU nodes are being replaced",
        "Try again in 60 s.",
    ]


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_refusal_is_data_on_stdout_where_data_was_asked_for(form: str) -> None:
    result = runway("status", "rw-4f2a", "-o", form, answers=[problem(404, "job_not_found")])
    assert result.exit_code == 1
    assert result.stderr == ""
    assert "job_not_found" in result.stdout
    if form == "json":
        assert json.loads(result.stdout)["status"] == 404


def test_an_unknown_outcome_names_the_command_that_settles_it() -> None:
    result = runway("submit", "--image", "x", answers=[problem(503, "outcome_unknown", retry_after=2, id="rw-9")])
    assert result.exit_code == 125
    assert "`runway status rw-9`" in result.stderr


def test_a_stop_is_shown_with_its_reason_and_what_still_works() -> None:
    stopped = problem(503, "submissions_stopped", retry_after=60, detail="driver rollout", hint="accepted jobs go on")
    result = runway("submit", "--image", "x", answers=[stopped])
    assert result.exit_code == 125
    assert "submissions_stopped" in result.stderr
    assert "driver rollout" in result.stderr
    assert "hint: accepted jobs go on" in result.stderr
    assert "Try again in 60 s." in result.stderr


def test_a_server_that_is_not_there_is_named_with_the_way_to_name_another() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        # Bound but not listening: every connection is refused, and no one else can take the port meanwhile.
        result = CliRunner().invoke(app, ["ls", "--url", url], obj=Environment())
    assert result.exit_code == 125
    assert url in result.stderr
    assert "RUNWAY_URL" in result.stderr


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    page = b'{"jobs": [], "next_cursor": null}'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(page), page)
    with socket.socket() as proxy, serve(answer) as url:
        proxy.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        result = CliRunner().invoke(app, ["ls", "--url", url], obj=Environment(), catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, html="<h1>hello</h1>"),
        httpx2.Response(404, html="<h1>hello</h1>"),
        httpx2.Response(307, headers={"Location": "https://elsewhere.test/"}),
        reply(["not", "a", "page"]),
        reply({"error": "some other service"}),
    ],
    ids=["page", "page-404", "redirect", "list", "other-object"],
)
def test_an_answer_that_is_not_runways_is_an_error_that_says_so(answer: httpx2.Response) -> None:
    result = runway("ls", answers=[answer])
    assert result.exit_code == 125
    assert "is the address right?" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "--url", "ftp://runway.test"),
        ("ls", "--url", "127.0.0.1:8000"),
        ("ls", "--tenant", "vi\nsion"),
        ("ls", "--tenant", "visión"),
        ("submit", "--idempotency-key", "clé"),
        ("status", "../quota"),
        ("cancel", ""),
        ("ls", "--state", "sleeping"),
        ("ls", "--limit", "0"),
        ("ls", "-o", "xml"),
        ("unheard-of",),
    ],
)
def test_a_command_line_that_cannot_be_used_exits_with_2_and_asks_nothing(arguments: tuple[str, ...]) -> None:
    fake = FakeRunway([reply({})])
    result = runway(*arguments, answers=fake)
    assert result.exit_code == 2
    assert fake.requests == []
