"""Submissions to a real API server: idempotency, quota, dry run, invalid bodies."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from testbed.context import Context
from testbed.http_client import Document, document, shell
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS

pytestmark = pytest.mark.cluster


def test_same_idempotency_key_and_spec_return_first_job(context: Context) -> None:
    key, spec = new_key(), shell("true")
    first = context.accepted(context.runway.submit("vision", spec, key=key))
    again = context.runway.submit("vision", spec, key=key)

    assert (again.status_code, again.headers["Idempotent-Replay"]) == (200, "true")
    assert again.json()["id"] == first["id"]
    conflict = context.runway.submit("vision", shell("false"), key=key)
    assert (conflict.status_code, conflict.json()["code"]) == (409, "idempotency_conflict")
    others = context.accepted(context.runway.submit("research", spec, key=key))
    assert others["id"] != first["id"]


def test_20_identical_concurrent_submissions_create_one_job(context: Context) -> None:
    key, spec = new_key(), shell("true")
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: context.runway.submit("vision", spec, key=key), range(20)))

    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    created = next(answer for answer in answers if answer.status_code == 201)
    view = context.accepted(created)
    assert {answer.json()["id"] for answer in answers} == {view["id"]}
    assert [holder["id"] for holder in context.runway.quota("vision")["jobs"]] in ([view["id"]], [])
    context.until_finished(view["id"])
    assert len(context.kubernetes.pods(view["kubernetes"]["namespace"], view["id"])) == 1


def test_concurrent_submissions_never_exceed_quota(context: Context) -> None:
    spec = shell("sleep 600", resources={"cpu": "100m", "memory": "32Mi", "gpu": 1})
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: context.respond("vision", spec), range(12)))

    accepted = [context.accepted(answer) for answer in answers if answer.is_success]
    refused = [answer for answer in answers if not answer.is_success]
    assert len(accepted) == 4
    assert {answer.json()["code"] for answer in refused} == {"quota_exceeded"}
    quota = context.runway.quota("vision")
    assert (quota["used"]["gpu"], quota["reserved"]["gpu"]) == (4, 0)


def test_dry_run_validates_with_kubernetes_and_creates_nothing(context: Context) -> None:
    namespace = context.runway.policy()["tenants"]["vision"]["namespace"]
    before = {job["metadata"]["name"] for job in context.kubernetes.select("jobs", f"--namespace={namespace}")}
    spec = shell("true", resources={"cpu": "1", "memory": "1Gi", "gpu": 2}, timeout_seconds=3600)
    decision = document(context.runway.submit("vision", spec, dry_run=True))

    assert (decision["decision"], decision["violations"]) == ("admitted", [])
    # Pods of other tests may use the node's CPUs.
    assert [warning for warning in decision["warnings"] if "free now" not in warning] == []
    context.kubernetes.run("create", "--dry-run=server", "--filename=-", stdin=json.dumps(decision["manifest"]))
    assert sum(float(line["hourly"]) for line in decision["cost"]["lines"]) == pytest.approx(
        float(decision["cost"]["hourly"])
    )
    after = {job["metadata"]["name"] for job in context.kubernetes.select("jobs", f"--namespace={namespace}")}
    assert after == before
    assert context.runway.quota("vision")["used"]["gpu"] == context.runway.quota("vision")["reserved"]["gpu"] == 0


def test_dry_run_reports_violations(context: Context) -> None:
    spec = shell("true", resources={"cpu": "100m", "memory": "32Mi", "gpu": 1})
    decision = document(context.runway.submit("research", spec, dry_run=True))

    assert decision["decision"] == "refused"
    assert [violation["field"] for violation in decision["violations"]] == ["resources.gpu"]


GOOD = shell("true")
BODIES: dict[str, tuple[bytes, int, str]] = {
    "not JSON": (b"{", 422, "invalid_spec"),
    "invalid UTF-8": (b'{"image": "\xff"}', 422, "invalid_spec"),
    "a list": (b"[]", 422, "invalid_spec"),
    "NaN": (b'{"timeout_seconds": NaN}', 422, "invalid_spec"),
    "nothing": (b"", 422, "invalid_spec"),
    "an unknown field": (json.dumps(GOOD | {"hostNetwork": True}).encode(), 422, "invalid_spec"),
    "wrong types": (json.dumps(GOOD | {"command": {"sh": 1}, "retries": "two"}).encode(), 422, "invalid_spec"),
    "a digit separator": (
        json.dumps(GOOD | {"resources": {"cpu": "1_000m", "memory": "32Mi"}}).encode(),
        422,
        "invalid_spec",
    ),
    "a newline in the name": (json.dumps(GOOD | {"name": "a\nb"}).encode(), 422, "invalid_spec"),
    "a control character in the name": (json.dumps(GOOD | {"name": "a\x1b[31mb"}).encode(), 422, "invalid_spec"),
    "10,000 environment entries": (
        json.dumps(GOOD | {"env": {f"NAME_{number}": "value" for number in range(10_000)}}).encode(),
        422,
        "invalid_spec",
    ),
    "deep nesting": (b'{"env":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 422, "invalid_spec"),
    "10 MiB": (b'{"name": "' + b"a" * (10 << 20) + b'"}', 413, "body_too_large"),
}


@pytest.mark.parametrize(("body", "status", "code"), BODIES.values(), ids=BODIES.keys())
def test_invalid_body_gets_problem_document(body: bytes, status: int, code: str, server: Server) -> None:
    headers = {"X-Tenant-ID": "vision", "Content-Type": "application/json", "X-Request-ID": "bad-body"}
    answer = httpx2.post(f"{server.url}/v1/jobs", content=body, headers=headers, trust_env=False, timeout=GUARD_SECONDS)

    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.headers["X-Request-ID"] == answer.json()["request_id"] == "bad-body"
    assert answer.json()["code"] == code


def test_job_of_another_tenant_is_not_found(context: Context, server: Server) -> None:
    view: Document = context.submit("vision", shell("true"))
    for method, path in (("GET", ""), ("GET", "/logs"), ("DELETE", "")):
        url = f"{server.url}/v1/jobs/{view['id']}{path}"
        answer = httpx2.request(method, url, headers={"X-Tenant-ID": "speech"}, timeout=GUARD_SECONDS, trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert context.until_finished(view["id"])["state"] == "succeeded"


def new_key() -> str:
    return f"test {uuid.uuid4()}"
