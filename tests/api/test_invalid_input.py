"""Every invalid input gets a problem document with a stable code, never 500."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.conftest import Runway, job

JSON = {"X-Tenant-ID": "vision", "Content-Type": "application/json"}


def _with(**changes: Any) -> bytes:
    return json.dumps(job(**changes)).encode()


BODIES: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 422, "invalid_spec"),
    "malformed JSON": (b'{"image":', 422, "invalid_spec"),
    "invalid UTF-8": (b'{"image": "\xff"}', 422, "invalid_spec"),
    "not an object": (b"[1, 2]", 422, "invalid_spec"),
    "null": (b"null", 422, "invalid_spec"),
    "NaN": (b'{"timeout_seconds": NaN}', 422, "invalid_spec"),
    "a key twice": (b'{"image": "a", "image": "b"}', 422, "invalid_spec"),
    "a number of 5,000 digits": (b'{"timeout_seconds": ' + b"9" * 5000 + b"}", 422, "invalid_spec"),
    "deep nesting": (b"[" * 100_000 + b"]" * 100_000, 422, "invalid_spec"),
    "deep nesting in a field": (b'{"name": ' + b"[" * 900 + b"]" * 900 + b"}", 422, "invalid_spec"),
    "10 MiB": (b'{"image": "' + b"x" * (10 << 20) + b'"}', 413, "body_too_large"),
    "10,000 env entries": (_with(env={f"K{i}": "v" for i in range(10_000)}), 422, "invalid_spec"),
    "an unknown field": (_with(surprise=1), 422, "invalid_spec"),
    "a newline in the name": (_with(name="a\nb"), 422, "invalid_spec"),
    "an escape in the name": (_with(name="\x1b[31m"), 422, "invalid_spec"),
    "NUL in the command": (_with(command=["a\0b"]), 422, "invalid_spec"),
    "a lone surrogate": (b'{"name": "\\ud800", "command": ["\\ud800"]}', 422, "invalid_spec"),
    "a lone surrogate as a field": (b'{"\\ud800": 1}', 422, "invalid_spec"),
    "NaN as a quantity": (_with(resources={"cpu": "NaN"}), 422, "invalid_spec"),
    "Infinity as a quantity": (_with(resources={"memory": "Infinity"}), 422, "invalid_spec"),
    "1_000 as a quantity": (_with(resources={"cpu": "1_000"}), 422, "invalid_spec"),
    "an absurd quantity": (_with(resources={"memory": "99999999999999999999Ei"}), 422, "invalid_spec"),
    "an absurd timeout": (_with(timeout_seconds=10**19, max_cost_usd="1"), 422, "invalid_spec"),
    "a float for an integer": (_with(timeout_seconds=60.0), 422, "invalid_spec"),
    "infinity for an integer": (b'{"timeout_seconds": 1e999}', 422, "invalid_spec"),
    "true for an integer": (_with(retries=True), 422, "invalid_spec"),
    "a string for resources": (b'{"image": "a", "resources": "all"}', 422, "invalid_spec"),
    "root": (_with(user=0), 422, "invalid_spec"),
    "a negative user": (_with(user=-1), 422, "invalid_spec"),
    "true for a user": (_with(user=True), 422, "invalid_spec"),
    "a user of 30 digits": (b'{"user": ' + b"9" * 30 + b"}", 422, "invalid_spec"),
    "a working directory with ..": (_with(working_dir="/scratch/../root"), 422, "invalid_spec"),
    "NUL in the working directory": (_with(working_dir="/a\0b"), 422, "invalid_spec"),
    "a working directory of 100,000 bytes": (_with(working_dir="/" + "a" * 100_000), 422, "invalid_spec"),
    "shared memory above memory": (_with(resources={"shared_memory": "1Ti"}), 422, "invalid_spec"),
    "disk above the limit": (_with(resources={"disk": "1Ei"}), 422, "invalid_spec"),
    "a number for disk": (_with(resources={"disk": 10**19}), 422, "invalid_spec"),
    "a Secret reference of 300 characters": (_with(secrets={"VALUE": "a" * 295 + "/b..c"}), 422, "invalid_spec"),
    "a Secret reference with two slashes": (_with(secrets={"VALUE": "a/b/c"}), 422, "invalid_spec"),
    "a variable in env and in secrets": (
        _with(env={"VALUE": "x"}, secrets={"VALUE": "huggingface/token"}),
        422,
        "invalid_spec",
    ),
    "a reserved variable": (_with(env={"NVIDIA_VISIBLE_DEVICES": "all"}), 422, "invalid_spec"),
}


@pytest.mark.parametrize("case", BODIES, ids=str)
async def test_hostile_body_gets_documented_problem(runway: Runway, case: str) -> None:
    body, status, code = BODIES[case]
    answer = await runway.client.post("/v1/jobs", content=body, headers=JSON)
    _is_problem(answer, status, code)
    assert answer.text.isprintable() or "\n" not in answer.text
    assert len(answer.content) < 20_000
    assert runway.kubernetes.objects["jobs"] == {}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 400, "tenant_required"),
        ({"X-Tenant-ID": ""}, 400, "tenant_required"),
        ({"X-Tenant-ID": "Vision"}, 400, "tenant_required"),
        ({"X-Tenant-ID": "a" * 300}, 400, "tenant_required"),
        ({"X-Tenant-ID": "vision, speech"}, 400, "tenant_required"),
        ({"X-Tenant-ID": "nobody"}, 403, "unknown_tenant"),
        ({"X-Tenant-ID": "vision", "Idempotency-Key": ""}, 422, "invalid_parameter"),
        ({"X-Tenant-ID": "vision", "Idempotency-Key": "k" * 300}, 422, "invalid_parameter"),
        ({"X-Tenant-ID": "vision", "Idempotency-Key": "a\tb"}, 422, "invalid_parameter"),
        ({"X-Tenant-ID": "vision", "Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        ({"X-Tenant-ID": "vision", "Content-Type": "application/json; charset=latin-1"}, 415, "unsupported_media_type"),
    ],
)
async def test_hostile_headers_get_documented_problem(
    runway: Runway, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await runway.client.post(
        "/v1/jobs", content=_with(), headers={"Content-Type": "application/json", **headers}
    )
    _is_problem(answer, status, code)


async def test_repeated_tenant_header_is_rejected(runway: Runway) -> None:
    headers = [("X-Tenant-ID", "vision"), ("X-Tenant-ID", "vision"), ("Content-Type", "application/json")]
    answer = await runway.client.post("/v1/jobs", content=_with(), headers=headers)
    _is_problem(answer, 400, "tenant_required")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/v1/jobs/../../etc/passwd", 404, "not_found"),
        ("GET", "/v1/jobs/", 404, "not_found"),
        ("PUT", "/v1/jobs", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/jobs/", 404, "not_found"),
        ("HEAD", "/v1/jobs/", 404, None),
        ("HEAD", "/v1/jobs/rw-aaaaaaaaaaaaaaaaaaaa", 404, None),
        ("TRACE", "/v1/quota", 405, "method_not_allowed"),
        ("POST", "/v1/quota", 405, "method_not_allowed"),
        ("GET", "/v1/jobs/rw-%00", 404, "job_not_found"),
        ("GET", "/v1/jobs/" + "x" * 5000, 404, "job_not_found"),
        ("DELETE", "/v1/jobs/rw-aaaaaaaaaaaaaaaaaaaa", 404, "job_not_found"),
        ("GET", "/v1/jobs/rw-aaaaaaaaaaaaaaaaaaaa/logs", 404, "job_not_found"),
        ("GET", "/v1/jobs?limit=0", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?limit=ten", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?state=asleep", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?cursor=nonsense", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?cursor=%ff%fe", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?tenant=nobody", 403, "unknown_tenant"),
        ("GET", "/v1/jobs/rw-aaaaaaaaaaaaaaaaaaaa/logs?tail=-1", 422, "invalid_parameter"),
        ("POST", "/v1/jobs?dry_run=perhaps", 422, "invalid_parameter"),
        ("POST", "/v1/jobs?dry_run=true&dry_run=false", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?%ff=%00", 422, "invalid_parameter"),
        ("GET", "/v1/jobs?" + "&".join(f"a{i}=1" for i in range(2000)), 422, "invalid_parameter"),
        ("GET", "/v1/policy?verbose", 422, "invalid_parameter"),
    ],
)
async def test_hostile_paths_and_parameters_get_documented_problem(
    runway: Runway, method: str, path: str, status: int, code: str | None
) -> None:
    headers = {"X-Tenant-ID": "vision"} if method in ("POST", "DELETE") else {}
    answer = await runway.client.request(method, path, headers=headers)
    if code is None:
        assert (answer.status_code, answer.content) == (status, b"")
    else:
        _is_problem(answer, status, code)


async def test_misspelt_dry_run_parameter_creates_no_job(runway: Runway) -> None:
    answer = await runway.client.post("/v1/jobs?dryrun=true", json=job(), headers={"X-Tenant-ID": "vision"})
    _is_problem(answer, 422, "invalid_parameter")
    (violation,) = answer.json()["violations"]
    assert (violation["field"], violation["hint"]) == ("dryrun", "did you mean dry_run? parameters here: dry_run")
    assert runway.kubernetes.objects["jobs"] == {}


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/v1/jobs", "GET, HEAD, POST, OPTIONS"),
        ("/v1/jobs/x", "GET, HEAD, DELETE, OPTIONS"),
        ("/v1/quota", "GET, HEAD, OPTIONS"),
        ("/docs", "GET, HEAD, OPTIONS"),
    ],
)
async def test_405_and_options_list_the_allowed_methods(runway: Runway, path: str, allow: str) -> None:
    refused = await runway.client.request("PATCH", path)
    assert (refused.status_code, refused.headers["allow"]) == (405, allow)
    for accept in ("*/*", "text/html"):
        options = await runway.client.request("OPTIONS", path, headers={"Accept": accept})
        assert (options.status_code, options.headers["allow"], options.content) == (204, allow, b"")


async def test_head_has_the_status_and_headers_of_get_without_a_body(runway: Runway) -> None:
    """Load balancers and link checkers send HEAD (tiangolo/fastapi issue 1773)."""
    job_id = (await runway.submit("vision")).json()["id"]
    paths = [str(vars(route)["path"]) for route in runway.app.routes if "GET" in getattr(route, "methods", ())]
    replaced = {"{job_id}": job_id, "{tenant}": "vision", "{name}": "console.css"}
    assert len(paths) > 12
    for path in paths:
        if path.endswith("/events"):
            continue  # GET of an unfinished job does not end.
        for name, value in replaced.items():
            path = path.replace(name, value)
        got, head = [await runway.client.request(method, path) for method in ("GET", "HEAD")]
        assert (head.status_code, head.content) == (got.status_code, b""), path
        assert head.headers["content-type"] == got.headers["content-type"], path


async def test_head_of_a_stream_opens_none(runway: Runway) -> None:
    job_id = (await runway.submit("vision")).json()["id"]
    answer = await runway.client.head(f"/v1/jobs/{job_id}/events")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert answer.content == b""
    assert "runway_open_streams 0.0" in (await runway.client.get("/metrics")).text


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "application/json"), ("Content-Type", "text/plain")],
        [("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
    ],
)
async def test_contradictory_body_headers_are_415(runway: Runway, headers: list[tuple[str, str]]) -> None:
    answer = await runway.client.post("/v1/jobs", content=_with(), headers=[("X-Tenant-ID", "vision"), *headers])
    _is_problem(answer, 415, "unsupported_media_type")


async def test_job_of_another_tenant_is_not_found(runway: Runway) -> None:
    job_id = (await runway.submit("vision")).json()["id"]
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/logs")):
        answer = await runway.client.request(method, f"/v1/jobs/{job_id}{path}", headers={"X-Tenant-ID": "speech"})
        _is_problem(answer, 404, "job_not_found")
    assert (await runway.view(job_id))["state"] == "pending"


async def test_valid_request_id_is_echoed_and_invalid_one_replaced(runway: Runway) -> None:
    echoed = await runway.client.get("/v1/policy", headers={"X-Request-ID": "trace-1"})
    assert echoed.headers["x-request-id"] == "trace-1"
    replaced = await runway.client.get("/nowhere", headers={"X-Request-ID": "a b\tc"})
    assert len(replaced.headers["x-request-id"]) == 32
    assert replaced.json()["request_id"] == replaced.headers["x-request-id"]


def _is_problem(answer: Any, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    problem = answer.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert {"type", "title", "detail", "hint", "request_id", "violations"} <= problem.keys()
    assert all(
        item.keys() == {"field", "code", "message", "observed", "limit", "hint"} for item in problem["violations"]
    )


@pytest.mark.parametrize("tenant", [{}, {"X-Tenant-ID": "nobody"}], ids=["missing", "unknown"])
async def test_parameter_names_are_checked_before_the_tenant(runway: Runway, tenant: dict[str, str]) -> None:
    answer = await runway.client.post("/v1/jobs?dryrun=true&x=1&x=2", headers=tenant, json={})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_parameter")
    assert [(fault["field"], fault["code"]) for fault in answer.json()["violations"]] == [
        ("dryrun", "unknown_parameter"),
        ("x", "unknown_parameter"),
    ]


async def test_unknown_state_is_named_once_and_the_states_are_the_hint(runway: Runway) -> None:
    answer = await runway.client.get("/v1/jobs?state=pending&state=done")
    [violation] = answer.json()["violations"]
    assert (violation["field"], violation["code"], violation["observed"]) == ("state", "enum", "done")
    assert violation["hint"].startswith("use pending, running, succeeded")
