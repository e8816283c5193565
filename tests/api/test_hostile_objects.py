"""No undecodable object affects Runway or other jobs."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import msgspec
import pytest

from runway.jobs.annotations import ANNOTATION_COST, ANNOTATION_RECORD, ANNOTATION_SPEC
from runway.policy import Policy, Quota, TenantRate, load_policy
from tests.api.conftest import POLICY, Runway, serve
from tests.support.fake_cluster import FakeKubernetes, Json, copy_of
from tests.support.mutated import mutated

YEAR_10000 = "10000-01-01T00:00:00Z"
PAGES = ("/", "/jobs", "/tenants/vision")
ROOM = {"gpu": 100_000, "cpu": "1000000", "memory": "100Ti", "jobs": 100_000}
FAST = {"per_minute": 1_000_000, "burst": 1_000_000}
ROUNDS = int(os.environ.get("RUNWAY_FUZZ_ROUNDS", "60"))


async def broken(runway: Runway, kind: str, **status: Any) -> str:
    """Submit a job, and break the status of its Job or pod."""
    job_id = str((await runway.submit(resources={"gpu": 2})).json()["id"])
    item = (
        runway.kubernetes.job(job_id) if kind == "jobs" else runway.kubernetes.pod(runway.kubernetes.start_pod(job_id))
    )
    runway.kubernetes.put(kind, {**copy_of(item), "status": {**item["status"], **status}}, "MODIFIED")
    return job_id


async def until_named(runway: Runway, kind: str) -> Json:
    """Wait until `/readyz` names an undecodable object of this kind."""

    async def named() -> Json | None:
        ready = (await runway.client.get("/readyz")).json()
        return dict(ready) if any(item["kind"] == kind for item in ready.get("undecodable", ())) else None

    return dict(await runway.until(named))


def roomy() -> Policy:
    """Return the local policy with enough quota for these tests."""
    policy = load_policy(POLICY)
    changes = {
        "quota": Quota.model_validate(ROOM),
        "rate": TenantRate.model_validate({**FAST, "reads": FAST, "streams": 10}),
    }
    tenants = {name: tenant.model_copy(update=changes) for name, tenant in policy.tenants.items()}
    return policy.model_copy(update={"tenants": tenants})


async def follows_another_tenants_job(runway: Runway) -> None:
    job_id = (await runway.submit("speech")).json()["id"]
    runway.kubernetes.end_pod(runway.kubernetes.start_pod(job_id))
    runway.kubernetes.complete(job_id)
    assert (await runway.until_state(job_id, "succeeded"))["tenant"] == "speech"


@pytest.mark.parametrize("kind", ["jobs", "pods"])
async def test_impossible_date_in_status_affects_no_other_job(runway: Runway, kind: str) -> None:
    job_id = await broken(runway, kind, startTime=YEAR_10000)
    ready = await until_named(runway, kind)
    assert ready["status"] == "ready"
    assert ready["undecodable_objects"] == 1
    assert ready["undecodable"][0]["fields"] == ["status.startTime"]
    await follows_another_tenants_job(runway)
    assert (await runway.quota())["used"]["gpu"] == 2
    assert (await runway.view(job_id))["state"] in ("pending", "running")
    metrics = (await runway.client.get("/metrics")).text
    assert f'runway_undecodable_objects{{kind="{kind}"}} 1.0' in metrics


@pytest.mark.parametrize("kind", ["jobs", "pods", "events"])
async def test_deeply_nested_object_affects_no_other_job(kubernetes: FakeKubernetes, kind: str) -> None:
    async with serve(kubernetes) as watching:
        meta = {"name": "deep", "namespace": "default", "uid": "deep"}
        item = kubernetes.put(kind, {"metadata": meta, "spec": {}, "status": {}, "type": "Warning"}, "ADDED")
        item["metadata"]["managedFields"] = [{"fieldsV1": msgspec.Raw(b'{"f:a":' * 9990 + b"{}" + b"}" * 9990)}]
        await follows_another_tenants_job(watching)
    async with serve(kubernetes) as starting:
        await follows_another_tenants_job(starting)


async def test_undecodable_event_affects_no_other_explanation(runway: Runway) -> None:
    about = {"kind": "Job", "namespace": "runway-vision", "name": "x"}
    event = {"metadata": {"name": "e", "namespace": "runway-vision"}, "type": "Warning", "involvedObject": about}
    runway.kubernetes.add("events", {**event, "lastTimestamp": YEAR_10000})
    await until_named(runway, "events")
    await follows_another_tenants_job(runway)


async def test_undecodable_object_in_foreign_namespace_is_not_counted(runway: Runway) -> None:
    status = {"conditions": [], "startTime": YEAR_10000}
    pod = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": []}, "status": status}
    runway.kubernetes.add("pods", pod)
    await follows_another_tenants_job(runway)
    assert (await runway.client.get("/readyz")).json()["undecodable_objects"] == 0


async def test_restart_with_undecodable_object_becomes_ready_and_keeps_usage(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes) as before:
        await broken(before, "pods", startTime=YEAR_10000)
    async with serve(kubernetes) as after:
        assert (await after.quota())["used"]["gpu"] == 2
        await until_named(after, "pods")
        await follows_another_tenants_job(after)


async def test_repaired_or_deleted_object_is_no_longer_reported(runway: Runway) -> None:
    repaired, deleted = [await broken(runway, "jobs", startTime=YEAR_10000) for _ in range(2)]
    await until_named(runway, "jobs")
    runway.kubernetes.put("jobs", {**copy_of(runway.kubernetes.job(repaired)), "status": {}}, "MODIFIED")
    runway.kubernetes.delete_job(deleted)

    async def forgotten() -> bool:
        return bool((await runway.client.get("/readyz")).json()["undecodable_objects"] == 0)

    await runway.until(forgotten)


async def test_annotation_with_absurd_timeout_breaks_no_view(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    job = copy_of(runway.kubernetes.job(job_id))
    spec = json.loads(job["metadata"]["annotations"][ANNOTATION_SPEC])
    job["metadata"]["annotations"][ANNOTATION_SPEC] = json.dumps(spec | {"timeout_seconds": 10**18})
    runway.kubernetes.put("jobs", job, "MODIFIED")

    async def without_spec() -> bool:
        return (await runway.view(job_id))["spec"] is None

    await runway.until(without_spec)
    assert (await runway.client.get(f"/jobs/{job_id}")).status_code == 200


async def test_hostile_reason_is_escaped_and_cut(runway: Runway) -> None:
    job_id = await broken(runway, "pods", phase="Failed", reason="\x1b[31m\u202e" + "x" * 300_000)

    async def seen() -> Any:
        attempts = (await runway.view(job_id))["attempts"]
        return attempts and attempts[0]["reason"]

    reason = await runway.until(seen)
    assert reason.isprintable()
    assert len(reason) <= 256


async def test_mutated_objects_cause_no_500_and_affect_no_other_tenant(kubernetes: FakeKubernetes) -> None:
    """Replace random parts of Jobs, pods, events, nodes and annotations by hostile values."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    async with serve(kubernetes, policy=roomy()) as runway:
        template = await _a_failed_job_with_its_record(runway)
        for number in range(ROUNDS):
            job_id = f"rw-{number:020d}".translate(str.maketrans("0189", "wxyz"))
            items = _a_job_with_everything(kubernetes, template, job_id, chance)
            for kind, item in items:
                kubernetes.put(kind, mutated(item, chance, chance.randint(1, 3)), "MODIFIED")
            await _settled(runway)
            for path in (
                f"/v1/jobs/{job_id}",
                f"/jobs/{job_id}",
                "/v1/jobs?limit=500",
                "/v1/quota",
                "/metrics",
                *PAGES,
            ):
                answer = await runway.client.get(path, headers={"X-Tenant-ID": "vision"})
                assert answer.status_code in (200, 404), (seed, path, answer.text)
            assert (await runway.client.get("/readyz")).status_code == 200, seed
            assert (
                await runway.client.delete(f"/v1/jobs/{job_id}", headers={"X-Tenant-ID": "vision"})
            ).status_code in (202, 404)
            for kind, item in items:
                kubernetes.remove(kind, item)
        await follows_another_tenants_job(runway)

        async def released() -> bool:
            return bool((await runway.quota())["used"]["jobs"] == 0)

        await runway.until(released)
        assert runway.app.state.services.metrics.internal_errors._value.get() == 0
    async with serve(kubernetes, policy=roomy()) as again:
        await follows_another_tenants_job(again)


async def _settled(runway: Runway) -> None:
    """Wait until Runway has applied all earlier events."""
    marker = (await runway.submit("speech")).json()["id"]
    pod = runway.kubernetes.start_pod(marker)
    await runway.until_state(marker, "running")
    runway.kubernetes.remove_pod(pod)
    runway.kubernetes.delete_job(marker)


async def _a_failed_job_with_its_record(runway: Runway) -> Json:
    job_id = (await runway.submit(env={"TOKEN": "secret-value"}, retries=1)).json()["id"]
    runway.kubernetes.end_pod(runway.kubernetes.start_pod(job_id), exit_code=1, message="the end of the log")
    runway.kubernetes.fail(job_id)

    async def recorded() -> bool:
        return ANNOTATION_RECORD in runway.kubernetes.job(job_id)["metadata"]["annotations"]

    await runway.until(recorded)
    return copy_of(runway.kubernetes.job(job_id))


def _a_job_with_everything(
    kubernetes: FakeKubernetes, template: Json, job_id: str, chance: random.Random
) -> list[tuple[str, Json]]:
    job = copy_of(template)
    uid = job["metadata"]["uid"]
    job = json.loads(json.dumps(job).replace(uid, f"uid-{job_id}"))
    job["metadata"]["name"] = job_id
    if chance.random() < 0.5:
        del job["metadata"]["annotations"][ANNOTATION_RECORD]
    job["status"] = {}
    kubernetes.add("jobs", job)
    pod = kubernetes.start_pod(job_id)
    if chance.random() < 0.7:
        kubernetes.end_pod(pod, exit_code=chance.choice((0, 1, 137)), message="the end of the log")
    if chance.random() < 0.5:
        kubernetes.fail(job_id, chance.choice(("BackoffLimitExceeded", "DeadlineExceeded")))
    job = copy_of(kubernetes.job(job_id))
    notes = job["metadata"]["annotations"]
    for name in (ANNOTATION_SPEC, ANNOTATION_COST, ANNOTATION_RECORD):
        if name in notes and chance.random() < 0.4:
            notes[name] = json.dumps(mutated({"x": json.loads(notes[name])}, chance, 2).get("x"))
    job["status"].setdefault("startTime", "2026-11-24T08:00:00Z")
    event = {
        "metadata": {"name": f"e-{job_id}", "namespace": "runway-vision", "uid": f"e-{job_id}"},
        "involvedObject": {"kind": "Pod", "namespace": "runway-vision", "name": pod, "uid": f"uid-{pod}"},
        "type": "Warning", "reason": "Failed", "message": "Failed to pull image", "count": 3,
        "firstTimestamp": "2026-11-24T08:00:00Z", "lastTimestamp": "2026-11-24T08:00:00Z",
        "series": {"count": 2, "lastObservedTime": "2026-11-24T08:00:00.000000Z"},
    }  # fmt: skip
    node = {
        "metadata": {"name": "node-1", "uid": "node-1", "labels": {"pool": "cpu"}},
        "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {
            "conditions": [
                {"type": "Ready", "status": "False", "message": "kubelet", "lastTransitionTime": "2026-11-24T08:00:00Z"}
            ],
            "allocatable": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "2"},
        },
    }  # fmt: skip
    return [("jobs", job), ("pods", copy_of(kubernetes.pod(pod))), ("events", event), ("nodes", node)]
