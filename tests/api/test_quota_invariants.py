"""Quota counts all jobs and pods, and a resync corrects missed events."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from runway.policy import parse_policy
from testbed.waiting import GUARD_SECONDS
from tests.api.conftest import POLICY, Runway, serve
from tests.support.fake_cluster import FakeKubernetes
from tests.support.fake_logs import FakeLog


async def _until_gpus(runway: Runway, used: int) -> None:
    async def reached() -> bool:
        return bool((await runway.quota())["used"]["gpu"] == used)

    await runway.until(reached)


def _pod(name: str, gpus: int, **status: Any) -> dict[str, Any]:
    requests = {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": str(gpus)}
    return {
        "metadata": {"name": name, "namespace": "runway-vision"},
        "spec": {"containers": [{"name": "main", "resources": {"requests": requests}}]},
        "status": {"phase": "Running", **status},
    }


async def test_pod_created_outside_runway_uses_quota(runway: Runway) -> None:
    runway.kubernetes.add("pods", _pod("by-hand", 3))
    await _until_gpus(runway, 3)
    answer = await runway.submit(resources={"gpu": 2})
    assert (answer.json()["code"], answer.json()["held_by"]) == ("quota_exceeded", ["by-hand"])
    assert (await runway.client.get("/v1/jobs")).json()["jobs"] == []
    runway.kubernetes.remove_pod("by-hand")
    await _until_gpus(runway, 0)


async def test_job_created_outside_runway_uses_quota_for_all_its_pods(runway: Runway) -> None:
    template = {"spec": _pod("unused", 1)["spec"]}
    meta = {"name": "by-hand", "namespace": "runway-vision"}
    runway.kubernetes.add("jobs", {"metadata": meta, "spec": {"parallelism": 3, "template": template}, "status": {}})
    await _until_gpus(runway, 3)
    assert (await runway.client.get("/v1/jobs/by-hand")).status_code == 404


async def test_quota_is_released_on_pod_success(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 4})).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.end_pod(pod)
    await _until_gpus(runway, 0)
    assert (await runway.view(job_id))["state"] == "running"
    assert (await runway.submit(resources={"gpu": 4})).status_code == 201


async def test_terminating_pod_does_not_release_quota(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 4})).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.end_pod(pod)

    async def ended() -> bool:
        return [attempt["state"] for attempt in (await runway.view(job_id))["attempts"]] == ["succeeded"]

    await runway.until(ended)
    assert (await runway.quota())["used"]["gpu"] == 4


async def test_deleted_job_counts_until_its_pods_are_listed(runway: Runway) -> None:
    """The Job is deleted before the watch reports its pod: a list finds the pod."""
    job_id = (await runway.submit(resources={"gpu": 4})).json()["id"]
    pod = runway.kubernetes.start_pod(job_id, running=False)
    runway.kubernetes.history["pods"].clear()
    runway.kubernetes.delete_job(job_id)
    assert (await runway.submit(resources={"gpu": 1})).json()["code"] == "quota_exceeded"

    async def listed() -> bool:
        assert (await runway.quota())["used"]["gpu"] == 4
        return runway.kubernetes.calls.count(("GET", "/api/v1/pods")) > 1

    await runway.until(listed)
    runway.kubernetes.remove_pod(pod)
    await _until_gpus(runway, 0)


async def test_deleted_job_without_pods_releases_quota(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 4})).json()["id"]
    runway.kubernetes.delete_job(job_id)
    await _until_gpus(runway, 0)


async def test_resync_corrects_and_counts_drift(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, resync_seconds=1) as runway:
        job_id = (await runway.submit(resources={"gpu": 4})).json()["id"]
        kubernetes.lose("jobs", job_id)
        await _until_gpus(runway, 0)
        assert 'runway_resync_corrections_total{kind="jobs"} 1.0' in (await runway.client.get("/metrics")).text


async def test_quota_below_usage_admits_nothing(kubernetes: FakeKubernetes) -> None:
    kubernetes.add("pods", _pod("before-the-change", 9))
    async with serve(kubernetes) as runway:
        await _until_gpus(runway, 9)
        problem = (await runway.submit(resources={"gpu": 1})).json()
        assert problem["code"] == "quota_exceeded"
        assert "0 free" in problem["violations"][0]["message"]
        assert (await runway.submit()).status_code == 201


async def test_restart_restores_the_submission_rate(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as before:
        created = [(await before.submit("speech")).json()["id"] for _ in range(5)]
    for job_id in created:
        kubernetes.job(job_id)["metadata"]["creationTimestamp"] = _now()
    async with serve(kubernetes) as after:
        answer = await after.submit("speech")
        assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
        assert (await after.submit("vision")).status_code == 201


async def test_reads_and_streams_have_their_own_limits(kubernetes: FakeKubernetes) -> None:
    rate = "rate: {per_minute: 6, burst: 5"
    slow = POLICY.read_text().replace(rate, f"{rate}, reads: {{per_minute: 1, burst: 2}}")
    async with serve(kubernetes, policy=parse_policy(slow), max_streams=1) as runway:
        job_id = (await runway.submit("speech")).json()["id"]
        kubernetes.logs[pod := kubernetes.start_pod(job_id)] = FakeLog()

        async def has_pod() -> bool:
            return bool((await runway.view(job_id))["attempts"])

        await runway.until(has_pod)
        url = f"/v1/jobs/{job_id}/logs?follow=true"
        first = asyncio.create_task(runway.client.get(url))

        async def refused() -> bool:
            # A task of its own: since Python 3.12 wait_for would start this request before `first`.
            second = asyncio.create_task(runway.client.get(url))
            return bool((await asyncio.wait_for(second, GUARD_SECONDS)).status_code == 429)

        await runway.until(refused)
        kubernetes.end_pod(pod)
        assert (await first).status_code == 200

        headers = {"X-Tenant-ID": "speech"}
        answers = [await runway.client.get("/v1/jobs", headers=headers) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert (await runway.client.get("/v1/jobs", headers={"X-Tenant-ID": "vision"})).status_code == 200
        assert (await runway.submit("speech")).status_code == 201


def _now() -> str:
    """Now, as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
