"""Jobs that cannot start: their end, their failure, and their quota, as callers see them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes

NOT_FOUND = {"reason": "ErrImagePull", "message": "failed to resolve reference: x: not found"}
LIMIT_SECONDS = 300
"""Of the local policy, for an image that does not exist."""
GPUS = {"gpu": 4, "gpu_type": "a10g"}


@pytest.fixture
async def runway(kubernetes: FakeKubernetes) -> AsyncIterator[Runway]:
    """Serve a cluster with a ready node."""
    status = {"conditions": [{"type": "Ready", "status": "True"}]}
    kubernetes.add("nodes", {"metadata": {"name": "node-1"}, "status": status})
    async with serve(kubernetes) as running:
        yield running


async def stuck(runway: Runway, **fields: Any) -> tuple[str, str]:
    """Submit a job whose image does not exist; return its id and pod."""
    job_id = str((await runway.submit(**fields)).json()["id"])
    pod = runway.kubernetes.start_pod(job_id, running=False)
    statuses = [{"name": "job", "state": {"waiting": NOT_FOUND}}]
    runway.kubernetes.set_status(pod, {"phase": "Pending", "containerStatuses": statuses})
    await asyncio.sleep(1)
    return job_id, pod


async def until_ended(runway: Runway, job_id: str, seconds: float = LIMIT_SECONDS) -> None:
    """Wait for the patch of the start deadline."""
    await asyncio.sleep(seconds + 5)
    assert runway.kubernetes.job(job_id)["spec"]["activeDeadlineSeconds"] == 0


async def test_missing_image_frees_the_gpus_at_the_limit(runway: Runway) -> None:
    job_id, pod = await stuck(runway, resources=GPUS, timeout_seconds=86_400)
    assert (await runway.submit(resources=GPUS)).json()["code"] == "quota_exceeded"
    (condition,) = (await runway.view(job_id))["conditions"]
    assert (condition["code"], condition["start_timeout_seconds"]) == ("image_pull_failing", LIMIT_SECONDS)
    await until_ended(runway, job_id)
    runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.announce_failure(job_id, "DeadlineExceeded")
    assert (await runway.quota())["used"]["gpu"] == 4
    runway.kubernetes.remove_pod(pod)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    view = await runway.until_state(job_id, "failed")
    failure = view["failure"]
    assert (failure["code"], failure["category"], failure["retryable"]) == ("image_not_found", "user", False)
    assert "Runway ended the job because it had not started for 300 s" in failure["message"]
    evidence = failure["evidence"]
    assert {name: evidence[name] for name in ("cause", "limit", "limit_seconds")} == {
        "cause": "image_not_found", "limit": "image", "limit_seconds": "300"
    }  # fmt: skip
    assert (await runway.submit(resources=GPUS)).status_code == 201


async def test_failure_is_the_same_after_a_restart_without_pods(kubernetes: FakeKubernetes) -> None:
    """Kubernetes has deleted the pod and its events before the record was written."""
    kubernetes.add(
        "nodes", {"metadata": {"name": "node-1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    )
    async with serve(kubernetes) as before:
        job_id, pod = await stuck(before)
        await until_ended(before, job_id)
    kubernetes.remove_pod(pod)
    kubernetes.fail(job_id, "DeadlineExceeded")
    async with serve(kubernetes) as after:
        view = await after.until_state(job_id, "failed")
        assert view["failure"]["code"] == "image_not_found"
        assert view["failure"]["evidence"]["limit_seconds"] == "300"


async def test_container_that_starts_at_the_moment_of_the_end_is_shown(runway: Runway) -> None:
    job_id, pod = await stuck(runway)

    def started() -> None:
        running = {"running": {"startedAt": runway.kubernetes.now()}}
        runway.kubernetes.set_status(
            pod, {"phase": "Running", "containerStatuses": [{"name": "job", "state": running}]}
        )

    runway.kubernetes.before_patch.append(started)
    await until_ended(runway, job_id)
    await runway.until_state(job_id, "running")
    runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.end_pod(pod, 143)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    failure = (await runway.until_state(job_id, "failed"))["failure"]
    assert (failure["code"], failure["retryable"]) == ("start_timeout", True)
    assert "at the moment when its container started" in failure["message"]
    assert failure["evidence"]["cause"] == "image_not_found"


async def test_cancel_after_the_end_is_a_cancel(runway: Runway) -> None:
    job_id, pod = await stuck(runway)
    await until_ended(runway, job_id)
    assert (await runway.cancel(job_id)).json()["state"] == "cancelling"
    runway.kubernetes.remove_pod(pod)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    assert (await runway.until_state(job_id, "cancelled"))["failure"] is None


async def test_start_timeout_of_the_job_is_shown_and_ends_it(runway: Runway) -> None:
    answer = await runway.submit(start_timeout_seconds=60)
    job_id = answer.json()["id"]
    assert answer.json()["spec"]["start_timeout_seconds"] == 60
    pod = runway.kubernetes.start_pod(job_id, running=False)
    await until_ended(runway, job_id, 60)
    runway.kubernetes.remove_pod(pod)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    failure = (await runway.until_state(job_id, "failed"))["failure"]
    assert (failure["code"], failure["evidence"]["limit"]) == ("start_timeout", "job")


@pytest.mark.parametrize(
    ("value", "code"),
    [(0, "too_small"), (-5, "too_small"), (61, "too_large"), (10**12, "too_large"), ("60", "wrong_type"), (1.5, None)],
)
async def test_impossible_start_timeout_is_a_violation(runway: Runway, value: object, code: str | None) -> None:
    answer = await runway.submit(start_timeout_seconds=value, timeout_seconds=60)
    assert answer.status_code == 422
    (violation,) = answer.json()["violations"]
    assert violation["field"] == "start_timeout_seconds"
    assert code in (None, violation["code"])
    if code == "too_large":
        assert violation["limit"] == "60"


async def test_policy_shows_the_limits(runway: Runway) -> None:
    limits = (await runway.client.get("/v1/policy")).json()["limits"]
    assert limits["start_timeout_seconds"] == {"image": 300, "registry": 1800, "config": 600, "unschedulable": None}


async def test_metrics_show_jobs_that_cannot_start_and_their_end(runway: Runway) -> None:
    job_id, _ = await stuck(runway)
    waits = 'runway_jobs_not_starting{cause="image",tenant="vision"} '
    ends = 'runway_start_timeouts_total{cause="image"} '
    before = (await runway.client.get("/metrics")).text
    assert waits + "1.0" in before
    assert ends + "0.0" in before
    await until_ended(runway, job_id)
    after = (await runway.client.get("/metrics")).text
    assert waits + "0.0" in after
    assert ends + "1.0" in after


async def test_rejected_pod_is_replaced_in_a_job_without_retries(runway: Runway) -> None:
    job_id = str((await runway.submit()).json()["id"])
    pod = runway.kubernetes.start_pod(job_id, running=False)
    rejection = {"reason": "OutOfcpu", "message": "Pod was rejected: Node didn't have enough resource: cpu"}
    runway.kubernetes.set_status(pod, {"phase": "Failed", **rejection})

    async def retries() -> bool:
        return [item["code"] for item in (await runway.view(job_id))["conditions"]] == ["retrying"]

    await runway.until(retries)
    second = runway.kubernetes.start_pod(job_id)
    view = await runway.until_state(job_id, "running")
    assert [attempt["cause"] for attempt in view["attempts"]] == ["admission_rejected", None]
    runway.kubernetes.end_pod(second, 3)
    runway.kubernetes.fail(job_id, "PodFailurePolicy")
    failure = (await runway.until_state(job_id, "failed"))["failure"]
    assert (failure["code"], failure["evidence"]["job_reason"]) == ("exit_nonzero", "PodFailurePolicy")
