"""Nodes, device plugins and the Job controller that go away and come back, and Jobs deleted without their pods."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import Runway
from tests.api.test_events_and_nodes import condition, waits
from tests.api.test_job_recorder import metric, until_metric
from tests.support.environment_fixtures import put_node
from tests.support.fake_cluster import NOW

A10G = {"runway.local/gpu-type": "a10g"}
LATER = "2026-11-24T08:10:00Z"


async def gpus(runway: Runway, number: int) -> None:
    """Wait until the tenant uses this many GPUs."""

    async def uses() -> bool:
        return bool((await runway.quota())["used"]["gpu"] == number)

    await runway.until(uses)


async def runs(runway: Runway, **spec: Any) -> tuple[str, str]:
    """Submit a job with two GPUs and start it; return its id and pod."""
    job_id = (await runway.submit(resources={"gpu": 2}, **spec)).json()["id"]
    pod = runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    return job_id, pod


def collect_garbage(runway: Runway, pod: str) -> None:
    """Fail and delete a pod as PodGC does after its node is gone.

    https://github.com/kubernetes/kubernetes/blob/v1.35.0/pkg/controller/podgc/gc_controller.go
    """
    reason = {"reason": "DeletionByPodGC", "message": "PodGC: node no longer exists"}
    target = {"type": "DisruptionTarget", "status": "True", "lastTransitionTime": LATER, **reason}
    known = runway.kubernetes.pod(pod)["status"]
    conditions = [*known["conditions"], target]
    runway.kubernetes.set_status(pod, {**known, "phase": "Failed", "conditions": conditions})
    runway.kubernetes.remove_pod(pod)


async def test_waiting_job_names_the_node_whose_device_plugin_is_away(runway: Runway) -> None:
    put_node(runway.kubernetes, labels=A10G)
    _, running = await runs(runway)
    put_node(runway.kubernetes, labels=A10G, allocatable={"nvidia.com/gpu": "0"})
    job_id = await waits(runway)
    found = await condition(runway, job_id, "unschedulable")
    assert found["message"].endswith("; 1 of 1 nodes has no GPUs registered")
    assert (await runway.view(running.rsplit("-", 1)[0]))["state"] == "running"
    assert (await runway.quota())["used"]["gpu"] == 4

    put_node(runway.kubernetes, labels=A10G)

    async def registered() -> bool:
        return "registered" not in (await condition(runway, job_id, "unschedulable"))["message"]

    await runway.until(registered)


async def test_failure_of_a_job_that_no_device_plugin_let_start_names_who_can_help(runway: Runway) -> None:
    put_node(runway.kubernetes, labels=A10G, allocatable={"nvidia.com/gpu": "0"})
    job_id = await waits(runway)
    await condition(runway, job_id, "unschedulable")
    runway.kubernetes.terminate_pod(f"{job_id}-0")
    runway.kubernetes.remove_pod(f"{job_id}-0")
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    failure = (await runway.until_state(job_id, "failed"))["failure"]
    assert (failure["code"], failure["category"]) == ("unschedulable", "infra")
    assert "device plugin" in failure["hint"]


async def test_job_of_a_deleted_node_runs_again_with_its_quota_and_its_cost(runway: Runway) -> None:
    put_node(runway.kubernetes, labels=A10G)
    job_id, pod = await runs(runway)
    node = runway.kubernetes.objects["nodes"]["", "node-1"]
    runway.kubernetes.remove("nodes", node)
    assert (await runway.view(job_id))["state"] == "running"
    collect_garbage(runway, pod)
    view = await runway.until_state(job_id, "pending")
    assert [item["code"] for item in view["conditions"]] == ["retrying"]
    assert (await runway.quota())["used"]["gpu"] == 2

    second = runway.kubernetes.start_pod(job_id, node="node-2")
    await runway.until_state(job_id, "running")
    assert (await runway.quota())["used"]["gpu"] == 2
    runway.kubernetes.end_pod(second)
    runway.kubernetes.complete(job_id)
    view = await runway.until_state(job_id, "succeeded")
    await gpus(runway, 0)
    lost, replaced = view["attempts"]
    assert (lost["cause"], lost["counted"], lost["finished_at"]) == ("node_lost", False, LATER)
    assert (replaced["cause"], view["disruptions"]) == (None, 1)
    # The node ran the first attempt for ten minutes; the second one ended in the second of its start.
    assert float(view["cost"]["actual"]) == pytest.approx(float(view["cost"]["hourly"]) / 6, abs=1e-5)


@pytest.mark.parametrize("exit_code", [0, 1])
async def test_job_whose_end_the_job_controller_has_not_counted_says_so_and_counts_once(
    runway: Runway, exit_code: int
) -> None:
    """The controller keeps a pod with its finalizer until it has counted it."""
    kubernetes = runway.kubernetes
    job_id, pod = await runs(runway)
    kubernetes.end_pod(pod, exit_code)
    found = await condition(runway, job_id, "outcome_pending")
    assert (found["since"], "kube-controller-manager" in found["message"]) == (NOW, True)
    assert (await runway.view(job_id))["state"] == "running"
    # Only a success is certain to be the last pod.
    await gpus(runway, 2 if exit_code else 0)
    kubernetes.terminate_pod(pod)
    assert (await runway.view(job_id))["state"] == "running"

    if exit_code:
        kubernetes.fail(job_id)
    else:
        kubernetes.complete(job_id)
    state = "failed" if exit_code else "succeeded"
    view = await runway.until_state(job_id, state)
    assert view["conditions"] == []
    await gpus(runway, 0)
    await until_metric(runway, "runway_jobs_finished_total", 1)
    charged = await metric(runway, "runway_actual_cost_usd_total")
    kubernetes.remove_pod(pod)
    assert (await runway.view(job_id))["state"] == state
    assert await metric(runway, "runway_jobs_finished_total") == 1
    assert await metric(runway, "runway_actual_cost_usd_total") == charged
    assert len((await runway.view(job_id))["attempts"]) == 1


async def test_cancelled_job_without_a_job_controller_waits_for_it(runway: Runway) -> None:
    job_id = (await runway.submit(resources={"gpu": 2})).json()["id"]
    view = (await runway.cancel(job_id)).json()
    assert (view["state"], [item["code"] for item in view["conditions"]]) == ("cancelling", ["outcome_pending"])
    assert (await runway.quota())["used"]["gpu"] == 2


async def orphans(runway: Runway) -> list[dict[str, Any]]:
    return [holder for holder in (await runway.quota())["jobs"] if holder["orphaned"]]


async def test_pod_of_a_job_deleted_without_it_is_reported_and_keeps_its_quota(runway: Runway) -> None:
    job_id, pod = await runs(runway)
    assert await orphans(runway) == []
    runway.kubernetes.delete_job(job_id)

    async def orphaned() -> bool:
        return bool(await orphans(runway))

    await runway.until(orphaned)
    (holder,) = await orphans(runway)
    assert (holder["id"], holder["state"], holder["gpu"], holder["terminating"]) == (job_id, None, 2, False)
    assert await metric(runway, 'runway_orphaned_pods{tenant="vision"}') == 1
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/logs"), ("GET", "/usage"), ("GET", "/events")):
        headers = {"X-Tenant-ID": "vision"}
        answer = await runway.client.request(method, f"/v1/jobs/{job_id}{path}", headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
        assert pod in answer.json()["detail"]
        assert "operators" in answer.json()["hint"]
    other = await runway.client.get(f"/v1/jobs/{job_id}", headers={"X-Tenant-ID": "speech"})
    assert (other.status_code, pod in other.text) == (404, False)
    assert (await runway.submit(resources={"gpu": 3})).json()["held_by"] == [job_id]

    runway.kubernetes.terminate_pod(pod)
    await until_metric(runway, 'runway_orphaned_pods{tenant="vision"}', 0)
    await gpus(runway, 2)
    runway.kubernetes.remove_pod(pod)
    await gpus(runway, 0)


async def test_new_job_under_the_key_of_an_orphan_counts_beside_it(runway: Runway) -> None:
    key = {"Idempotency-Key": "run-42"}
    job_id, pod = await runs(runway, headers=key)
    runway.kubernetes.delete_job(job_id)
    await until_metric(runway, "runway_orphaned_pods", 1)
    again = await runway.submit(headers=key, resources={"gpu": 2})
    assert (again.status_code, again.json()["id"]) == (201, job_id)
    assert again.json()["attempts"] == []
    await gpus(runway, 4)
    assert [holder["orphaned"] for holder in (await runway.quota())["jobs"]] == [True]
    runway.kubernetes.end_pod(pod)
    await gpus(runway, 2)
    assert await metric(runway, "runway_orphaned_pods") == 0
    assert (await runway.view(job_id))["state"] == "pending"


async def test_job_deleted_with_its_pods_leaves_no_orphan(runway: Runway) -> None:
    job_id, pod = await runs(runway)
    runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.delete_job(job_id)

    async def deleted() -> bool:
        return (await runway.client.get(f"/v1/jobs/{job_id}")).status_code == 404

    await runway.until(deleted)
    assert await orphans(runway) == []
    assert await metric(runway, "runway_orphaned_pods") == 0
    assert (await runway.quota())["used"]["gpu"] == 2
