"""A tenant with a thousand failing jobs displaces nothing of another tenant."""

from __future__ import annotations

import asyncio

import pytest

from runway.controllers.job_recorder import WORKERS
from tests.api.conftest import Runway, serve
from tests.api.test_job_recorder import final_record, metric, until_metric
from tests.support.environment_fixtures import warn
from tests.support.fake_cluster import NOW, FakeKubernetes, Json
from tests.support.fake_logs import FakeLog


def fail_many(kubernetes: FakeKubernetes, template: Json, jobs: int, log: FakeLog) -> None:
    """Fail Jobs like this one, all at once, each with a pod, a long warning and this log."""
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "lastTransitionTime": NOW}
    ended = {"exitCode": 1, "reason": "Error", "startedAt": NOW, "finishedAt": NOW}
    for number in range(jobs):
        name = f"rw-{number:020}".translate(str.maketrans("0189", "abcd"))
        metadata = {**template["metadata"], "name": name, "uid": f"uid-{name}"}
        failed = {**template, "metadata": metadata, "status": {"conditions": [condition]}}
        kubernetes.put("jobs", failed, "ADDED")
        labels = {"batch.kubernetes.io/controller-uid": metadata["uid"], "batch.kubernetes.io/job-name": name}
        pod = {
            "metadata": {"name": f"{name}-x", "namespace": "runway-vision", "uid": f"{name}-x", "labels": labels},
            "spec": {"nodeName": "node-1", "containers": template["spec"]["template"]["spec"]["containers"]},
            "status": {"phase": "Failed", "containerStatuses": [{"name": "job", "state": {"terminated": ended}}]},
        }
        kubernetes.put("pods", pod, "ADDED")
        kubernetes.logs[f"{name}-x"] = log
        warn(kubernetes, "Job", failed, "BackoffLimitExceeded", "Job has reached the backoff limit " + "x" * 900)


async def running(runway: Runway, tenant: str) -> str:
    """Start a job of this tenant, and return its id."""
    job_id = str((await runway.submit(tenant)).json()["id"])
    runway.kubernetes.logs[runway.kubernetes.start_pod(job_id)] = b"ValueError: no such column\n"
    await runway.until_state(job_id, "running")
    return job_id


@pytest.mark.parametrize(("jobs", "silent"), [(200, False), (1000, True)], ids=["quick kubelets", "silent kubelets"])
async def test_failing_jobs_of_one_tenant_displace_nothing_of_another(
    kubernetes: FakeKubernetes, jobs: int, silent: bool
) -> None:
    """A silent kubelet accepts the connection for a log and never answers."""
    log = FakeLog(stuck=True) if silent else FakeLog.of(b"some text\n")
    async with serve(kubernetes) as runway:
        noisy = str((await runway.submit()).json()["id"])
        job_id, waits = await running(runway, "speech"), str((await runway.submit("speech")).json()["id"])
        started, earlier = asyncio.get_running_loop().time(), len(kubernetes.patches)

        fail_many(kubernetes, kubernetes.job(noisy), jobs, log)
        kubernetes.end_pod(f"{job_id}-0", exit_code=1)
        kubernetes.fail(job_id)
        warn(kubernetes, "Job", kubernetes.job(waits), "FailedCreate", "is forbidden: exceeded quota: runway-quota")
        async with runway.stream(f"/v1/jobs/{waits}/events", x_tenant_id="speech") as events:
            record = await final_record(runway, job_id)
            assert record["excerpt"]["text"] == "ValueError: no such column\n"
            recorded = [patch["metadata"]["uid"] for patch in kubernetes.patches[earlier:]]
            assert recorded.index(kubernetes.job(job_id)["metadata"]["uid"]) <= WORKERS
            assert asyncio.get_running_loop().time() - started < 2
            await until_metric(runway, 'runway_jobs_finished_total{state="failed",tenant="speech"}', 1)
            assert (
                await metric(runway, 'runway_failures_total{category="user",code="exit_nonzero",tenant="speech"}') == 1
            )

            await events.until(b"exceeded quota")
            assert [found["code"] for found in (await runway.view(waits))["conditions"]] == ["quota_backstop"]
            assert (await runway.submit("speech")).status_code == 201
            answer = await runway.client.get(f"/v1/jobs/{job_id}/logs", headers={"X-Tenant-ID": "speech"})
            assert answer.text == "ValueError: no such column\n"
            listed = (await runway.client.get("/v1/jobs", headers={"X-Tenant-ID": "speech"})).json()["jobs"]
            assert {job_id, waits} < {found["id"] for found in listed}


async def test_open_streams_of_two_tenants_leave_some_for_a_third(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, max_streams=8) as runway:
        paths = {}
        for tenant in ("vision", "research", "speech"):
            paths[tenant] = f"/v1/jobs/{(await runway.submit(tenant)).json()['id']}/events"
        opened = []
        for tenant, streams in (("vision", 4), ("research", 2)):
            for _ in range(streams):
                opened.append(runway.stream(paths[tenant], x_tenant_id=tenant))
                await opened[-1].__aenter__()
                assert await opened[-1].begun() == 200
            refused = await runway.client.get(paths[tenant], headers={"X-Tenant-ID": tenant})
            assert (refused.status_code, refused.json()["code"], refused.headers["retry-after"]) == (
                503,
                "too_busy",
                "10",
            )
            assert f"{streams} of them for tenant {tenant}" in refused.json()["detail"]
        async with runway.stream(paths["speech"], x_tenant_id="speech") as stream:
            assert await stream.begun() == 200
        for each in opened:
            await each.go()


async def test_undecodable_objects_of_one_tenant_hide_none_of_another(runway: Runway) -> None:
    for namespace, number in (("runway-vision", 50), ("runway-speech", 1)):
        for index in range(number):
            metadata = {"name": f"{namespace}-{index}", "namespace": namespace}
            runway.kubernetes.add("pods", {"metadata": metadata, "status": {"startTime": "10000-01-01T00:00:00Z"}})

    async def named() -> bool:
        ready = (await runway.client.get("/readyz")).json()
        return "runway-speech-0" in [found["name"] for found in ready["undecodable"]]

    await runway.until(named)
