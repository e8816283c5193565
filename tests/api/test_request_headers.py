"""Every response has the security headers: routes, pages, problems, streams."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from starlette.routing import Route

from runway.app import create_app
from runway.policy import load_policy
from runway.settings import Settings
from tests.api.conftest import POLICY, Runway, job, serve
from tests.support.fake_cluster import FakeKubernetes

ROUTES = [
    (method, route.path)
    for route in create_app(Settings(policy=POLICY), load_policy(POLICY)).router.routes
    if isinstance(route, Route)
    for method in sorted(route.methods or ())
]
JOB = "rw-aaaaaaaaaaaaaaaaaaaa"


def must_be_safe(headers: Mapping[str, str], where: object) -> None:
    policy = headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(policy), where
    assert not any("unsafe" in part or "http" in part or "*" in part for part in policy), where
    is_page = headers.get("content-type", "").startswith("text/html")
    assert is_page or len(policy) == 4, f"{where} is no page, and may load nothing"
    assert headers["x-content-type-options"] == "nosniff", where
    assert headers["referrer-policy"] == "no-referrer", where
    assert headers["cross-origin-opener-policy"] == "same-origin", where
    assert headers["cross-origin-resource-policy"] == "same-origin", where
    assert headers["cache-control"].startswith("no-store") or "immutable" in headers["cache-control"], where


def test_routes_include_pages_and_api() -> None:
    assert {("GET", "/v1/jobs"), ("GET", "/docs"), ("GET", "/openapi.json"), ("DELETE", "/v1/jobs/{job_id}")} <= {
        *ROUTES
    }


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_route_sends_security_headers(runway: Runway, method: str, path: str) -> None:
    job_id = (await runway.submit()).json()["id"]
    for known in (job_id, JOB):
        url = path.format(job_id=known, tenant="vision", name="console.css")
        for headers in ({}, {"Accept": "text/html"}, {"X-Tenant-ID": "vision"}, {"X-Tenant-ID": "nobody"}):
            if url.endswith("/events") and known == job_id:
                continue
            answer = await runway.client.request(method, url, headers=headers)
            must_be_safe(answer.headers, (method, url, headers, answer.status_code))


@pytest.mark.parametrize("accept", ["*/*", "text/html"])
async def test_problems_and_error_pages_send_security_headers(runway: Runway, accept: str) -> None:
    calls = {
        ("GET", "/nowhere"): 404,
        ("GET", "/static/nothing"): 404,
        ("GET", "/redoc"): 404,
        ("PUT", "/v1/jobs"): 405,
        ("PUT", "/jobs"): 405,
        ("GET", "/v1/jobs?limit=0"): 422,
        ("POST", "/v1/jobs"): 400,
        ("GET", "/jobs?state=asleep"): 422,
    }
    for (method, path), status in calls.items():
        answer = await runway.client.request(method, path, headers={"Accept": accept})
        assert answer.status_code == status
        must_be_safe(answer.headers, (method, path))


async def test_streams_send_security_headers(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    async with runway.stream(f"/v1/jobs/{job_id}/events") as stream:
        await stream.until(b"pending")
        must_be_safe(stream.headers, "events")
    runway.kubernetes.logs[runway.kubernetes.start_pod(job_id)] = b"a line\n"
    await runway.until_state(job_id, "running")
    async with runway.stream(f"/v1/jobs/{job_id}/logs") as stream:
        await stream.until(b"a line")
        must_be_safe(stream.headers, "logs")


async def test_201_and_503_responses_send_security_headers(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as runway:
        must_be_safe((await runway.submit()).headers, "201")
        dry = await runway.client.post("/v1/jobs?dry_run=true", json=job(), headers={"X-Tenant-ID": "vision"})
        must_be_safe(dry.headers, "a dry run")
    kubernetes.down = True
    async with serve(kubernetes, until=None) as runway:
        for path in ("/v1/jobs", "/jobs", "/readyz"):
            answer = await runway.client.get(path)
            assert answer.status_code == 503
            must_be_safe(answer.headers, path)
