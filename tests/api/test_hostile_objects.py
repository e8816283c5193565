"""No undecodable object affects Runway or other jobs."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from runway.jobs.annotations import ANNOTATION_SPEC
from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes, Json, copy_of

YEAR_10000 = "10000-01-01T00:00:00Z"


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


async def until_none_is_named(runway: Runway) -> None:
    async def forgotten() -> bool:
        return bool((await runway.client.get("/readyz")).json()["undecodable_objects"] == 0)

    await runway.until(forgotten)


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
    await until_none_is_named(runway)


async def test_object_that_a_response_shows_repaired_is_no_longer_reported(runway: Runway) -> None:
    job_id = await broken(runway, "jobs", startTime=YEAR_10000)
    await until_named(runway, "jobs")
    runway.kubernetes.job(job_id)["status"] = {}
    assert (await runway.cancel(job_id)).status_code == 202
    await until_none_is_named(runway)


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
