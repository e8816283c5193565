"""Unexpected exceptions: problem document and counter."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from runway.api import problems
from runway.api.middleware import RequestContext
from runway.errors import NotReady
from runway.telemetry import Metrics
from tests.api.conftest import Runway, job


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def app(metrics: Metrics) -> FastAPI:
    """Return an app with an unexpected and an expected error."""
    app = FastAPI()

    @app.get("/defect")
    async def defect() -> None:
        raise RuntimeError("unexpected")

    @app.get("/not-ready")
    async def not_ready() -> None:
        raise NotReady("still listing")

    problems.install_error_handlers(app)
    app.add_middleware(RequestContext, metrics=metrics)
    return app


async def get(app: FastAPI, path: str) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://runway") as client:
        return await client.get(path)


def counted(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("runway_internal_errors_total")


async def test_unexpected_exception_is_a_problem_and_counted(app: FastAPI, metrics: Metrics) -> None:
    assert counted(metrics) == 0
    answer = await get(app, "/defect")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "unexpected" not in answer.text
    assert counted(metrics) == 1


async def test_expected_errors_are_not_counted(app: FastAPI, metrics: Metrics) -> None:
    assert (await get(app, "/not-ready")).status_code == 503
    assert (await get(app, "/nowhere")).status_code == 404
    assert counted(metrics) == 0


async def test_client_disconnect_during_upload_is_not_counted(runway: Runway) -> None:
    sent: list[Any] = []
    messages = [{"type": "http.request", "body": b'{"image":', "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"x-tenant-id", b"vision")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/jobs",
        "raw_path": b"/v1/jobs",
        "query_string": b"",
        "root_path": "",
        "headers": headers,
    }
    await runway.app(scope, receive, send)
    assert sent == []
    assert "runway_internal_errors_total 0.0" in (await runway.client.get("/metrics")).text
    assert (await runway.client.post("/v1/jobs", json=job(), headers={"X-Tenant-ID": "vision"})).status_code == 201


async def test_submission_with_internal_error_is_counted_as_outcome(runway: Runway) -> None:
    # Without this count, a Runway that fails at every submission looks idle.
    def defect() -> None:
        raise RuntimeError("unexpected")

    runway.kubernetes.before_create.append(defect)
    assert (await runway.submit()).status_code == 500
    text = (await runway.client.get("/metrics")).text
    assert 'runway_submissions_total{outcome="internal_error",tenant="vision"} 1.0' in text
    assert "runway_internal_errors_total 1.0" in text
