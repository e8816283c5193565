"""Diagnosis from warning events and nodes."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.api.conftest import Runway, serve
from tests.api.test_job_recorder import until_metric
from tests.support.environment_fixtures import put_node, warn
from tests.support.fake_cluster import FakeKubernetes

UNSCHEDULABLE = {
    "phase": "Pending",
    "conditions": [
        {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": "0/2 nodes are available: 2 Insufficient nvidia.com/gpu.",
        }
    ],
}


async def condition(runway: Runway, job_id: str, code: str) -> dict[str, Any]:
    """Wait for the condition with this code."""

    async def condition() -> dict[str, Any] | None:
        found = (await runway.view(job_id))["conditions"]
        return next((item for item in found if item["code"] == code), None)

    return dict(await runway.until(condition))


async def submitted(runway: Runway, **spec: Any) -> str:
    return str((await runway.submit(**spec)).json()["id"])


async def waits(runway: Runway) -> str:
    """Submit a job with an unschedulable pod."""
    job_id = await submitted(runway, resources={"gpu": 2})
    pod = runway.kubernetes.start_pod(job_id, running=False, node=None)
    runway.kubernetes.set_status(pod, UNSCHEDULABLE)
    return job_id


async def test_rejection_reported_by_event_only_is_shown(runway: Runway) -> None:
    job_id = await submitted(runway)
    job = runway.kubernetes.job(job_id)
    warn(runway.kubernetes, "Job", job, "FailedCreate", f'pods "{job_id}-x" is forbidden: exceeded quota: runway-quota')
    assert "exceeded quota" in (await condition(runway, job_id, "quota_backstop"))["message"]


async def test_warnings_survive_restart_until_kubernetes_deletes_them(
    kubernetes: FakeKubernetes,
) -> None:
    async with serve(kubernetes) as before:
        job_id = await submitted(before)
        warn(kubernetes, "Job", kubernetes.job(job_id), "FailedCreate", "is forbidden: exceeded quota: runway-quota")
    async with serve(kubernetes) as after:
        await condition(after, job_id, "quota_backstop")
        kubernetes.remove("events", next(iter(kubernetes.objects["events"].values())))
        await condition(after, job_id, "pod_not_created")


async def test_pending_pod_shows_free_capacity_of_all_namespaces(runway: Runway) -> None:
    kubernetes = runway.kubernetes
    put_node(kubernetes, "node-1")
    put_node(kubernetes, "node-2", allocatable={"nvidia.com/gpu": "1"})
    stranger = {
        "metadata": {"name": "stranger", "namespace": "elsewhere"},
        "spec": {
            "nodeName": "node-1",
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "7", "nvidia.com/gpu": "8"}}}],
        },
        "status": {"phase": "Running"},
    }
    kubernetes.add("pods", stranger)
    job_id = await waits(runway)
    message = (await condition(runway, job_id, "unschedulable"))["message"]
    assert "the most free on one node is 1 GPU, 8 CPU and 32Gi" in message
    kubernetes.remove("pods", kubernetes.pod("stranger"))

    async def freed() -> bool:
        return "on one node is 8 GPU" in (await condition(runway, job_id, "unschedulable"))["message"]

    await runway.until(freed)


async def test_failure_of_unscheduled_job_names_free_capacity(runway: Runway) -> None:
    put_node(runway.kubernetes, "node-1", allocatable={"nvidia.com/gpu": "1"})
    job_id = await waits(runway)
    await condition(runway, job_id, "unschedulable")
    pod = f"{job_id}-0"
    runway.kubernetes.terminate_pod(pod)
    runway.kubernetes.remove_pod(pod)
    runway.kubernetes.fail(job_id, "DeadlineExceeded")
    failure = (await runway.until_state(job_id, "failed"))["failure"]
    assert failure["code"] == "unschedulable"
    assert "the most free on one node is 1 GPU" in failure["evidence"]["room"]


async def test_unreachable_node_is_a_condition_until_ready(runway: Runway) -> None:
    put_node(runway.kubernetes)
    job_id = await submitted(runway)
    runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    put_node(runway.kubernetes, ready=False)
    await condition(runway, job_id, "node_unreachable")
    assert (await runway.view(job_id))["state"] == "running"
    put_node(runway.kubernetes)

    async def back() -> bool:
        return not (await runway.view(job_id))["conditions"]

    await runway.until(back)


async def test_faulty_gpus_of_a_node_are_a_condition_and_a_metric_until_repaired(runway: Runway) -> None:
    labels = {"runway.local/gpu-type": "a10g"}
    fault = {"type": "AcceleratedHardwareReady", "status": "False", "reason": "NvidiaXID79Error", "message": "XID 79"}
    put_node(runway.kubernetes, labels=labels)
    job_id = await submitted(runway, resources={"gpu": 1})
    runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    await until_metric(runway, 'runway_pool_faulty_gpu_nodes{pool="a10g"', 0)
    put_node(runway.kubernetes, labels=labels, conditions=[fault])
    assert "NvidiaXID79Error: XID 79" in (await condition(runway, job_id, "gpu_hardware"))["message"]
    await until_metric(runway, 'runway_pool_faulty_gpu_nodes{pool="a10g"', 1)
    put_node(runway.kubernetes, labels=labels)
    await until_metric(runway, 'runway_pool_faulty_gpu_nodes{pool="a10g"', 0)
    assert (await runway.view(job_id))["conditions"] == []


async def test_forbidden_events_and_nodes_affect_nothing_else(kubernetes: FakeKubernetes) -> None:
    kubernetes.forbidden = {"events", "nodes"}
    async with serve(kubernetes) as runway:
        job_id = await waits(runway)
        message = (await condition(runway, job_id, "unschedulable"))["message"]
        assert "free on" not in message
        assert (await runway.client.get("/readyz")).status_code == 200
        assert (await runway.quota())["used"]["gpu"] == 2
        text = (await runway.client.get("/metrics")).text
        assert 'runway_watch_losses_total{kind="nodes"} 1.0' in text
        assert 'runway_watch_age_seconds{kind="events"}' in text


async def test_events_and_nodes_are_listed_once_allowed(kubernetes: FakeKubernetes) -> None:
    kubernetes.forbidden = {"nodes"}
    put_node(kubernetes, ready=False)
    async with serve(kubernetes) as runway:
        job_id = await submitted(runway)
        kubernetes.start_pod(job_id)
        await runway.until_state(job_id, "running")
        kubernetes.forbidden.clear()
        await condition(runway, job_id, "node_unreachable")


async def test_autoscaler_event_explains_the_wait_and_counts_in_metrics(runway: Runway) -> None:
    job_id = await waits(runway)
    await condition(runway, job_id, "unschedulable")
    pod = runway.kubernetes.pod(f"{job_id}-0")
    message = "pod triggered scale-up: [{eks-a10g-36c1 0->1 (max: 2)}]"
    warn(runway.kubernetes, "Pod", pod, "TriggeredScaleUp", message, type_="Normal")
    assert "eks-a10g-36c1 0->1" in (await condition(runway, job_id, "node_starting"))["message"]
    metrics = (await runway.client.get("/metrics")).text
    assert 'runway_waiting_jobs{condition="node_starting",tenant="vision"} 1.0' in metrics
    assert 'condition="unschedulable"' not in metrics

    await asyncio.sleep(2)  # Of virtual time: events have whole seconds.
    refused = "pod didn't trigger scale-up: 1 in backoff after failed scale-up"
    warn(runway.kubernetes, "Pod", pod, "NotTriggerScaleUp", refused, type_="Normal")
    await condition(runway, job_id, "no_capacity")
    metrics = (await runway.client.get("/metrics")).text
    assert 'runway_waiting_jobs{condition="no_capacity",tenant="vision"} 1.0' in metrics

    runway.kubernetes.start_pod(job_id)
    await runway.until_state(job_id, "running")
    assert "runway_waiting_jobs{" not in (await runway.client.get("/metrics")).text


async def test_pool_metrics_follow_nodes_and_running_jobs(runway: Runway) -> None:
    put_node(runway.kubernetes, labels={"runway.local/gpu-type": "a10g"}, allocatable={"cpu": "1"})

    async def shown() -> str | None:
        text = str((await runway.client.get("/metrics")).text)
        return text if 'runway_pool_nodes{pool="a10g",state="ready"} 1.0' in text else None

    text = await runway.until(shown)
    assert 'runway_pool_hourly_usd{pool="a10g"} 5.672' in text
    assert 'runway_pool_undersized_nodes{pool="a10g"} 1.0' in text
    job_id = await submitted(runway, resources={"gpu": 2})
    runway.kubernetes.start_pod(job_id)
    hourly = float((await runway.until_state(job_id, "running"))["cost"]["hourly"])
    assert f'runway_pool_charged_hourly_usd{{pool="a10g"}} {hourly}' in (await runway.client.get("/metrics")).text


# The free capacity of pools

A10G = {"runway.local/gpu-type": "a10g"}
DRY_RUN = {"image": "runway.local/busybox:1", "resources": {"cpu": "500m", "memory": "1Gi", "gpu": 1}}


async def free_capacity(runway: Runway) -> dict[str, Any]:
    pools = (await runway.client.get("/v1/policy")).json()["pools"]
    return {name: pool["free"] for name, pool in pools.items()}


async def dry_run_warnings(runway: Runway) -> list[str]:
    answer = await runway.client.post("/v1/jobs?dry_run=true", json=DRY_RUN, headers={"X-Tenant-ID": "vision"})
    assert answer.json()["decision"] == "admitted"
    return list(answer.json()["warnings"][1:])


async def test_policy_has_the_free_capacity_of_each_pool(runway: Runway) -> None:
    assert set((await free_capacity(runway)).values()) == {None}, "unknown is not zero"
    put_node(runway.kubernetes, labels=A10G)
    await runway.until(lambda: any_known(runway))
    found = await free_capacity(runway)
    assert found["a10g"] == {"nodes": 1, "cpu": "8", "memory": "32Gi", "gpu": 8, "gpu_total": 8}
    job_id = await submitted(runway, resources={"gpu": 2})
    runway.kubernetes.start_pod(job_id, node="node-1")

    async def is_used() -> bool:
        return bool((await free_capacity(runway))["a10g"]["gpu"] == 6)

    await runway.until(is_used)


async def any_known(runway: Runway) -> bool:
    return any((await free_capacity(runway)).values())


async def test_dry_run_warns_when_no_node_has_room_and_still_admits(runway: Runway) -> None:
    assert await dry_run_warnings(runway) == [], "no node is known"
    put_node(runway.kubernetes, labels=A10G, allocatable={"nvidia.com/gpu": "0"})
    await runway.until(lambda: any_known(runway))
    [warning] = await dry_run_warnings(runway)
    assert warning == (
        "no node of pool a10g has 1 GPU, 0.5 CPU and 1Gi of memory free now (at most 0 GPU, 8 CPU and 32Gi of memory): "
        "the job would wait"
    )
    put_node(runway.kubernetes, labels=A10G, ready=False)

    async def is_gone() -> bool:
        return "has no ready node now" in (await dry_run_warnings(runway))[0]

    await runway.until(is_gone)
    put_node(runway.kubernetes, labels=A10G)

    async def has_room() -> bool:
        return await dry_run_warnings(runway) == []

    await runway.until(has_room)
