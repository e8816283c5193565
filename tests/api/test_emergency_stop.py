"""The emergency stop: it rejects submissions and changes nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.conftest import Runway, job, serve
from tests.support.fake_cluster import FakeKubernetes

REASON = "GPU driver rollout, back at 15:00"
KEY = {"Idempotency-Key": "one"}


@pytest.fixture
async def before(kubernetes: FakeKubernetes) -> str:
    """Return a job that an earlier process admitted before the stop."""
    async with serve(kubernetes, instance="one") as earlier:
        job_id = str((await earlier.submit(headers=KEY, resources={"gpu": 3})).json()["id"])
    kubernetes.annotate_lease(submissions_stopped=REASON)
    return job_id


@pytest.fixture
async def stopped(kubernetes: FakeKubernetes, before: str) -> AsyncIterator[Runway]:
    """Start a process during the stop."""
    assert kubernetes.job(before)
    async with serve(kubernetes, instance="two") as running:
        yield running


async def test_stopped_submission_gets_reason_and_retry_after(stopped: Runway) -> None:
    answer = await stopped.submit()
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["detail"]) == (503, "submissions_stopped", REASON)
    assert answer.headers["retry-after"] == "60"
    assert "you can read and cancel" in problem["hint"]
    assert len(stopped.kubernetes.objects["jobs"]) == 1


async def test_stopped_submission_uses_no_rate_and_no_quota(kubernetes: FakeKubernetes, stopped: Runway) -> None:
    codes = {(await stopped.submit("speech")).json()["code"] for _ in range(20)}
    assert codes == {"submissions_stopped"}
    assert (await stopped.quota("speech"))["reserved"]["jobs"] == 0
    kubernetes.annotate_lease(submissions_stopped=None)
    async with serve(kubernetes, instance="two") as after:
        assert (await after.submit("speech")).status_code == 201


async def test_reads_and_cancels_work_during_a_stop(stopped: Runway, before: str) -> None:
    for path in ("/v1/jobs", f"/v1/jobs/{before}", "/v1/quota", "/v1/policy", "/healthz", "/readyz"):
        assert (await stopped.client.get(path)).status_code == 200, path
    assert (await stopped.cancel(before)).status_code == 202


async def test_replay_is_answered_during_a_stop(stopped: Runway, before: str) -> None:
    """A replay creates nothing, and its caller may wait for this response."""
    again = await stopped.submit(headers=KEY, resources={"gpu": 3})
    assert (again.status_code, again.json()["id"]) == (200, before)
    assert again.headers["idempotent-replay"] == "true"
    other = await stopped.submit(headers=KEY, resources={"gpu": 2})
    assert other.json()["code"] == "idempotency_conflict"
    assert (await stopped.submit(headers={"Idempotency-Key": "two"})).json()["code"] == "submissions_stopped"


async def test_dry_run_reports_the_stop_beside_other_violations(stopped: Runway) -> None:
    async def dry_run(**spec: Any) -> Any:
        answer = await stopped.client.post("/v1/jobs?dry_run=true", json=job(**spec), headers={"X-Tenant-ID": "vision"})
        assert answer.status_code == 200
        assert answer.json()["decision"] == "refused"
        return answer.json()

    good = await dry_run()
    assert [(item["code"], item["message"]) for item in good["violations"]] == [("submissions_stopped", REASON)]
    assert good["manifest"]["kind"] == "Job"
    assert good["warnings"] == ['299 - "a warning of the API server"']
    over_quota = await dry_run(resources={"gpu": 2})
    assert [item["code"] for item in over_quota["violations"]] == ["submissions_stopped", "quota_exceeded"]
    bad = await dry_run(image="evil.example/x")
    assert [item["code"] for item in bad["violations"]] == ["submissions_stopped", "image_not_allowed"]


async def test_health_and_metrics_report_the_stop(stopped: Runway) -> None:
    ready = (await stopped.client.get("/readyz")).json()
    assert (ready["role"], ready["submissions"], ready["stop_reason"]) == ("writer", "stopped", REASON)
    await stopped.submit()
    text = (await stopped.client.get("/metrics")).text
    assert "runway_submissions_stopped 1.0" in text
    assert 'runway_submissions_total{outcome="submissions_stopped",tenant="vision"} 1.0' in text


async def test_health_and_metrics_without_a_stop(runway: Runway) -> None:
    ready = (await runway.client.get("/readyz")).json()
    assert (ready["submissions"], ready["stop_reason"]) == ("open", None)
    assert "runway_submissions_stopped 0.0" in (await runway.client.get("/metrics")).text


@pytest.mark.usefixtures("stopped")
async def test_standby_process_reports_the_stop(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, instance="three", until="reader") as reader:
        ready = (await reader.client.get("/readyz")).json()
        assert (ready["role"], ready["stop_reason"]) == ("reader", REASON)
        assert "runway_submissions_stopped 1.0" in (await reader.client.get("/metrics")).text
