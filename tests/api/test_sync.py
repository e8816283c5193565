"""A job and its quota over HTTP; the test acts as the Kubernetes controllers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from runway.jobs.models import JobState
from testbed.waiting import GUARD_SECONDS
from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes
from tests.support.fake_logs import FakeLog


async def _until_state(runway: Runway, job_id: str, state: str) -> dict[str, Any]:
    async def reached() -> dict[str, Any] | None:
        view = await runway.view(job_id)
        return view if view["state"] == state else None

    return dict(await runway.until(reached))


async def _until_gpus(runway: Runway, used: int) -> None:
    async def reached() -> bool:
        return bool((await runway.quota())["used"]["gpu"] == used)

    await runway.until(reached)


async def test_job_succeeds_and_releases_quota(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 2})).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    running = await _until_state(runway, job_id, "running")
    assert running["attempts"][0]["node"] == "node-1"
    runway.kubernetes.end_pod(pod)
    runway.kubernetes.complete(job_id)
    done = await _until_state(runway, job_id, "succeeded")
    assert (done["failure"], done["finished_at"]) == (None, "2026-11-24T08:00:00Z")
    await _until_gpus(runway, 0)


async def test_quota_stays_in_use_between_attempts(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 2}, retries=1)).json()["id"]
    first = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.end_pod(first, exit_code=1)

    async def retrying() -> bool:
        view = await runway.view(job_id)
        return view["state"] == "pending" and [c["code"] for c in view["conditions"]] == ["retrying"]

    await runway.until(retrying)
    assert (await runway.quota())["used"]["gpu"] == 2
    second = runway.kubernetes.start_pod(job_id)
    runway.kubernetes.end_pod(second, exit_code=3, message="last words")
    runway.kubernetes.fail(job_id)
    failed = await _until_state(runway, job_id, "failed")
    assert [attempt["exit_code"] for attempt in failed["attempts"]] == [1, 3]
    assert failed["failure"]["code"] == "exit_nonzero"
    assert failed["failure"]["evidence"]["last_words"] == "last words"
    await _until_gpus(runway, 0)


async def test_quota_stays_in_use_until_pod_is_deleted(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 4})).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    await _until_state(runway, job_id, "running")
    runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.delete_job(job_id)

    async def terminating() -> bool:
        return bool((await runway.quota())["held_by_terminating"]["gpu"] == 4)

    await runway.until(terminating)
    assert (await runway.client.get(f"/v1/jobs/{job_id}")).status_code == 404
    assert (await runway.submit(resources={"gpu": 1})).json()["code"] == "quota_exceeded"
    runway.kubernetes.remove_pod(pod)
    await _until_gpus(runway, 0)
    assert (await runway.submit(resources={"gpu": 1})).status_code == 201


async def test_cancel_is_idempotent_and_leaves_a_record(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    answers = [await runway.cancel(job_id) for _ in range(2)]
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(202, "cancelling")] * 2
    assert sum("spec" in patch for patch in runway.kubernetes.patches) == 1
    assert runway.kubernetes.job(job_id)["spec"]["activeDeadlineSeconds"] == 0
    runway.kubernetes.end_pod(pod, exit_code=143)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    cancelled = await _until_state(runway, job_id, "cancelled")
    assert cancelled["failure"] is None
    assert cancelled["spec"]["timeout_seconds"] == 3600


async def test_restart_rebuilds_jobs_and_quota_before_ready(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as before:
        job_id = (await before.submit(resources={"gpu": 3})).json()["id"]
        kubernetes.start_pod(job_id)
        await _until_state(before, job_id, "running")
    async with serve(kubernetes) as after:
        assert (await after.view(job_id))["state"] == "running"
        assert (await after.quota())["used"]["gpu"] == 3
        assert (await after.submit(resources={"gpu": 2})).json()["code"] == "quota_exceeded"


async def test_submissions_are_rejected_before_first_lists(kubernetes: FakeKubernetes) -> None:
    kubernetes.go_down()
    async with serve(kubernetes, until=None) as runway:
        for answer in (await runway.submit(), await runway.client.get("/readyz"), await runway.client.get("/v1/quota")):
            assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
            assert answer.headers["retry-after"]
        assert (await runway.client.get("/healthz")).status_code == 200


async def test_outage_is_reported_and_recovered(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 1})).json()["id"]
    runway.kubernetes.go_down()

    async def lost() -> bool:
        return (await runway.client.get("/readyz")).status_code == 503

    await runway.until(lost)
    assert (await runway.submit()).json()["code"] == "kubernetes_unavailable"
    assert (await runway.view(job_id))["state"] == "pending"
    runway.kubernetes.come_back()
    runway.kubernetes.delete_job(job_id)
    await _until_gpus(runway, 0)

    async def ready() -> bool:
        return (await runway.client.get("/readyz")).status_code == 200

    await runway.until(ready)


async def test_copied_labels_in_foreign_namespace_are_ignored(runway: Runway) -> None:
    labels = {"app.kubernetes.io/managed-by": "runway", "runway.internal/job": "rw-" + "a" * 20}
    stranger = {"metadata": {"name": "rw-" + "a" * 20, "namespace": "default", "labels": labels}}
    runway.kubernetes.add("jobs", stranger)
    job_id = (await runway.submit()).json()["id"]
    jobs = (await runway.client.get("/v1/jobs")).json()["jobs"]
    assert [view["id"] for view in jobs] == [job_id]


async def test_jobs_are_listed_newest_first_by_page_state_and_tenant(runway: Runway) -> None:
    ids = [(await runway.submit()).json()["id"] for _ in range(5)]
    other = (await runway.submit("research")).json()["id"]
    runway.kubernetes.start_pod(ids[0])
    await _until_state(runway, ids[0], "running")

    async def listed(query: str, headers: dict[str, str] | None = None) -> tuple[list[str], str | None]:
        page = (await runway.client.get(f"/v1/jobs?{query}", headers=headers or {})).json()
        return [view["id"] for view in page["jobs"]], page["next_cursor"]

    first, cursor = await listed("limit=4")
    rest, end = await listed(f"limit=4&cursor={cursor}")
    assert (len(first), len(rest), end) == (4, 2, None)
    assert sorted(first + rest) == sorted([*ids, other])
    assert await listed("state=running") == ([ids[0]], None)
    assert sorted((await listed("state=running&state=pending"))[0]) == sorted([*ids, other])
    assert await listed("state=failed&state=cancelled") == ([], None)
    assert await listed("tenant=research") == ([other], None)
    assert await listed("", {"X-Tenant-ID": "research"}) == ([other], None)


async def test_logs_are_not_ready_then_served_then_gone_with_excerpt(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]

    async def logs() -> Any:
        return await runway.client.get(f"/v1/jobs/{job_id}/logs")

    assert (await logs()).json()["code"] == "logs_not_ready"
    waiting = (await runway.submit()).json()["id"]
    runway.kubernetes.start_pod(waiting, running=False, node=None)

    async def has_pod() -> bool:
        return bool((await runway.view(waiting))["attempts"])

    await runway.until(has_pod)
    assert (await runway.client.get(f"/v1/jobs/{waiting}/logs")).json()["code"] == "logs_not_ready"
    pod = runway.kubernetes.start_pod(job_id)
    await _until_state(runway, job_id, "running")
    assert (await logs()).json()["code"] == "logs_not_ready"
    runway.kubernetes.logs[pod] = b"line\n\xff binary\n"
    answer = await logs()
    assert (answer.status_code, answer.content) == (200, b"line\n\xff binary\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    runway.kubernetes.end_pod(pod, exit_code=143, message="kept")
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    runway.kubernetes.remove_pod(pod)
    await _until_state(runway, job_id, "failed")

    async def gone() -> Any:
        answer = await logs()
        return answer if answer.status_code == 410 else None

    answer = await runway.until(gone)
    assert (answer.json()["code"], answer.json()["excerpt"]) == ("logs_gone", "kept")


async def test_log_streams_are_bounded_and_release_their_slot(kubernetes: FakeKubernetes) -> None:
    own = {"X-Tenant-ID": "vision"}
    async with serve(kubernetes, max_streams=1) as runway:
        job_id = (await runway.submit()).json()["id"]
        kubernetes.logs[pod := kubernetes.start_pod(job_id)] = log = FakeLog()
        log.write(b"x")
        await _until_state(runway, job_id, "running")
        url = f"/v1/jobs/{job_id}/logs?follow=true"
        first = asyncio.create_task(runway.client.get(url, headers=own))

        async def refused() -> bool:
            if first.done():
                return False
            # A task of its own: since Python 3.12 wait_for would start this request before `first`.
            second = asyncio.create_task(runway.client.get(url, headers=own))
            return bool((await asyncio.wait_for(second, GUARD_SECONDS)).json()["code"] == "too_busy")

        await runway.until(refused)
        kubernetes.end_pod(pod)
        assert (await first).content == b"x\n"
        assert (await runway.client.get(url, headers=own)).status_code == 200


async def test_metrics_show_quota_submissions_and_jobs(runway: Runway) -> None:
    await runway.submit(resources={"gpu": 2})
    await runway.submit(image="evil.example/x")
    text = (await runway.client.get("/metrics")).text
    assert 'runway_quota_used{resource="gpu",tenant="vision"} 2.0' in text
    assert 'runway_quota_limit{resource="gpu",tenant="vision"} 4.0' in text
    assert 'runway_jobs{state="pending",tenant="vision"} 1.0' in text
    assert 'runway_submissions_total{outcome="created",tenant="vision"} 1.0' in text
    assert 'runway_submissions_total{outcome="invalid_spec",tenant="vision"} 1.0' in text
    assert 'runway_watch_age_seconds{kind="pods"}' in text
    assert "runway_is_writer 1.0" in text
    assert 'runway_tenant_info{namespace="runway-vision",tenant="vision"} 1.0' in text
    assert 'runway_kubernetes_requests_total{kind="jobs",outcome="ok",verb="create"} 1.0' in text
    assert "rw-" not in text


async def test_counters_of_alerts_and_dashboards_start_at_zero(runway: Runway) -> None:
    text = (await runway.client.get("/metrics")).text
    assert 'runway_failures_total{category="infra",code="node_lost",tenant="speech"} 0.0' in text
    assert 'runway_jobs_finished_total{state="failed",tenant="speech"} 0.0' in text
    assert 'runway_actual_cost_usd_total{tenant="speech"} 0.0' in text
    assert 'runway_resync_corrections_total{kind="pods"} 0.0' in text
    for kind in ("jobs", "pods", "events", "nodes"):
        assert f'runway_watch_losses_total{{kind="{kind}"}} 0.0' in text
    assert 'runway_submissions_total{outcome="created",tenant="speech"} 0.0' in text
    assert 'runway_rate_limited_total{tenant="speech"} 0.0' in text
    assert 'runway_submission_seconds_count{stage="create"} 0.0' in text


async def test_metrics_show_every_state_and_the_process(runway: Runway) -> None:
    text = (await runway.client.get("/metrics")).text
    assert text.count("\nrunway_jobs{") == 3 * len(JobState)
    assert 'runway_jobs{state="succeeded",tenant="research"} 0.0' in text
    (memory,) = [line for line in text.splitlines() if line.startswith("process_resident_memory_bytes ")]
    assert 10 << 20 < float(memory.split()[-1]) < 4 << 30


async def test_metrics_show_age_of_oldest_pending_job(runway: Runway) -> None:
    async def pending(tenant: str = "vision") -> float:
        lines = (await runway.client.get("/metrics")).text.splitlines()
        (line,) = [line for line in lines if line.startswith(f'runway_oldest_pending_seconds{{tenant="{tenant}"}}')]
        return float(line.split()[-1])

    async def submitted(age: float) -> str:
        created = datetime.now(UTC) - timedelta(seconds=age)
        runway.kubernetes.now = lambda: created.isoformat(timespec="seconds").replace("+00:00", "Z")
        return str((await runway.submit()).json()["id"])

    younger, older, youngest = [await submitted(age) for age in (600, 7200, 60)]
    assert 7200 <= await pending() < 7300
    assert await pending("speech") == 0
    for started, left in ((older, 600), (youngest, 600), (younger, 0)):
        runway.kubernetes.start_pod(started)
        await _until_state(runway, started, "running")
        assert left <= await pending() <= left * 1.1


async def test_policy_shows_bounds_pools_prices_and_tenants(runway: Runway) -> None:
    policy = (await runway.client.get("/v1/policy")).json()
    assert policy["limits"]["memory"] == {"min": "32Mi", "max": "128Gi"}
    assert policy["limits"]["disk"] == {"min": "64Mi", "max": "4Gi", "default": "1Gi"}
    assert policy["limits"]["user"] == {"min": 1, "max": 65_535, "default": 1000}
    assert policy["limits"]["ephemeral_storage"] == {"per_job": "1Gi"}, "callers of version 0.7 need it"
    assert policy["pools"]["a10g"]["hourly_usd"] == "5.672"
    assert policy["tenants"]["speech"]["rate"] == {
        "per_minute": 6,
        "burst": 5,
        "reads": {"per_minute": 6000, "burst": 600},
        "streams": 20,
    }
