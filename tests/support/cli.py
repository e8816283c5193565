"""Command line tests: a fake Runway with scripted responses of the API."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import httpx2
from typer.main import get_command
from typer.testing import CliRunner, Result

from runway.cli.context import Environment
from runway.cli.main import app
from testbed.waiting import GUARD_SECONDS

NOW = datetime(2026, 11, 24, 8, 10, tzinfo=UTC)
URL = "http://runway.test"
COMMAND = get_command(app)
"""The command tree. `CliRunner.invoke` builds it for each call, which takes longer than most commands."""

Answer = httpx2.Response | Exception | Callable[[], httpx2.Response]


@dataclass
class Clock:
    """A clock that advances only in `sleep`."""

    time: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@dataclass
class FakeRunway:
    """Gives its answers one after the other, repeats the last one, and records the requests.

    Event streams have their own script; without one there are no streams, and the command line polls. So have searches
    by name or the start of an id; without one every search finds one job of exactly that id.
    """

    answers: list[Answer]
    found: list[Answer] | None = None
    events: list[Answer] = field(default_factory=lambda: [problem(404, "not_found")])
    requests: list[httpx2.Request] = field(default_factory=list)
    streams: list[httpx2.Request] = field(default_factory=list)
    searches: list[httpx2.Request] = field(default_factory=list)

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        streaming = request.url.path.endswith("/events")
        text = request.url.params.get("name") or request.url.params.get("id_prefix")
        (self.streams if streaming else self.searches if text else self.requests).append(request)
        if text and self.found is None:
            return jobs(job(id=text))
        script = self.events if streaming else (self.found if text else None) or self.answers
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
    variables: Mapping[str, str | None] = MappingProxyType({}),
) -> Result:
    """Run `runway ARGUMENTS` against a scripted Runway, without the configuration of the person who runs the tests."""
    clock = clock or Clock()
    fake = answers if isinstance(answers, FakeRunway) else FakeRunway(list(answers))
    environment = Environment(
        transport=httpx2.MockTransport(fake),
        sleep=clock.sleep,
        monotonic=clock.monotonic,
        random=lambda: 0.0,
        now=lambda: NOW,
        at_terminal=lambda: at_terminal,
    )
    own = {"RUNWAY_URL": URL, "RUNWAY_TENANT": tenant, "RUNWAY_POLICY": None, "XDG_CONFIG_HOME": "/nonexistent"}
    return invoke(arguments, environment, {**own, **variables}, stdin)


def invoke(
    arguments: Sequence[str],
    environment: Environment,
    variables: Mapping[str, str | None] = MappingProxyType({}),
    stdin: str | None = None,
) -> Result:
    """Run `runway ARGUMENTS` in this process; an exception of the command is raised here."""
    runner, code = CliRunner(), 0
    with runner.isolation(stdin, variables) as (stdout, stderr, output):
        try:
            COMMAND.main(list(arguments), prog_name="runway", obj=environment)
        except SystemExit as ended:
            code = int(ended.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        return Result(runner, stdout.getvalue(), stderr.getvalue(), output.getvalue(), None, code, None)


def reply(document: object, status: int = 200, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json=document, headers={name.replace("_", "-"): v for name, v in headers.items()})


def jobs(*views: dict[str, Any], more: str | None = None) -> httpx2.Response:
    """Return a page of jobs; `more` is its cursor."""
    return reply({"jobs": list(views), "next_cursor": more})


def problem(status: int, code: str, *, retry_after: int | None = None, **members: Any) -> httpx2.Response:
    document = {"type": "about:blank", "title": "Not today", "status": status, "detail": "It is closed.", "code": code}
    headers = {"Content-Type": "application/problem+json"}
    if retry_after is not None:
        headers["Retry-After"] = str(retry_after)
    return httpx2.Response(status, content=json.dumps(document | members), headers=headers)


def job(state: str = "pending", **members: Any) -> dict[str, Any]:
    """Return a job view; `members` replace the defaults."""
    spec = {
        "name": "train",
        "image": "runway.local/busybox:1",
        "command": ["sh", "-c"],
        "args": ["echo $HOME"],
        "env": {"TOKEN": "do-not-show"},
        "secrets": {"HF_TOKEN": "huggingface/token"},
        "volumes": ["datasets", "checkpoints"],
        "resources": {
            "cpu": "4",
            "memory": "16Gi",
            "gpu": 1,
            "gpu_type": "a10g",
            "disk": "50Gi",
            "shared_memory": "8Gi",
        },
        "timeout_seconds": 3600,
        "start_timeout_seconds": 900,
        "retries": 1,
        "grace_period_seconds": 30,
        "max_cost_usd": None,
        "working_dir": "/scratch",
        "user": 65532,
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
    """Serve one connection after the other: send these bytes and close it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(GUARD_SECONDS)

        def answer() -> None:
            for response in responses:
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(GUARD_SECONDS)
                    received = b""
                    while b"\r\n\r\n" not in received:
                        received += connection.recv(4096)
                    connection.sendall(response)

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            thread.join(timeout=GUARD_SECONDS)
            assert not thread.is_alive()
