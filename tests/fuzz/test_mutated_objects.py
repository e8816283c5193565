"""Random parts of Kubernetes objects are hostile: no response is 500, and other tenants notice nothing."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest

from runway.jobs.annotations import ANNOTATION_COST, ANNOTATION_RECORD, ANNOTATION_SPEC
from runway.policy import Policy, Quota, TenantRate, load_policy
from tests.api.conftest import POLICY, Runway, serve
from tests.api.test_hostile_objects import follows_another_tenants_job
from tests.support.fake_cluster import FakeKubernetes, Json, copy_of
from tests.support.mutated import mutated
from tests.support.virtual_time import VirtualLoop

PAGES = ("/", "/jobs", "/tenants/vision")
ROOM = {"gpu": 100_000, "cpu": "1000000", "memory": "100Ti", "jobs": 100_000}
FAST = {"per_minute": 1_000_000, "burst": 1_000_000}
ROUNDS = int(os.environ.get("RUNWAY_FUZZ_ROUNDS", "100"))


def roomy() -> Policy:
    """Return the local policy with enough quota for these tests."""
    policy = load_policy(POLICY)
    changes = {
        "quota": Quota.model_validate(ROOM),
        "rate": TenantRate.model_validate({**FAST, "reads": FAST, "streams": 10}),
    }
    tenants = {name: tenant.model_copy(update=changes) for name, tenant in policy.tenants.items()}
    return policy.model_copy(update={"tenants": tenants})


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Use a loop in virtual time, so that pauses take no real time."""
    return "asyncio", {"loop_factory": VirtualLoop}


async def test_mutated_objects_cause_no_500_and_affect_no_other_tenant() -> None:
    """Replace random parts of Jobs, pods, events, nodes and annotations by hostile values."""
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    kubernetes = FakeKubernetes({tenant.namespace for tenant in roomy().tenants.values()})
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
