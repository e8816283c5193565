"""The first start after version 0.7, on what 0.7 stored in a real cluster."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.api.conftest import Runway, serve
from tests.api.test_job_recorder import metric
from tests.support.fake_cluster import FakeKubernetes
from tests.support.stored_0_7 import FINAL, RECORD, STORED, USED, StoredJob, as_0_7_showed, only_fields_of

TENANT = {"X-Tenant-ID": "vision"}


@pytest.fixture
async def upgraded(kubernetes: FakeKubernetes) -> AsyncIterator[Runway]:
    for stored in STORED.values():
        kubernetes.put("jobs", stored.job, "ADDED")
        for pod in stored.pods:
            kubernetes.put("pods", pod, "ADDED")
    async with serve(kubernetes) as running:
        yield running


async def view(runway: Runway, stored: StoredJob) -> httpx2.Response:
    return await runway.client.get(f"/v1/jobs/{stored.name}", headers=TENANT)


@pytest.mark.parametrize("name", STORED)
async def test_job_of_0_7_has_the_view_that_0_7_gave_it(upgraded: Runway, name: str) -> None:
    stored = STORED[name]
    expected, found = as_0_7_showed(stored.view), as_0_7_showed((await view(upgraded, stored)).json())
    for attempt, known in zip(found["attempts"], expected["attempts"], strict=True):
        # 0.7 knew no reason of an attempt that waits.
        attempt["reason"] = attempt["reason"] and known["reason"]
    assert only_fields_of(expected, found) == expected


async def test_usage_of_jobs_of_0_7_is_what_0_7_counted(upgraded: Runway) -> None:
    quota = await upgraded.quota()
    assert only_fields_of(USED, quota["used"]) == USED
    assert {holder["id"] for holder in quota["jobs"]} == {STORED[name].name for name in STORED if name not in FINAL}


async def test_records_of_0_7_stay_as_they_are_and_count_no_job_again(upgraded: Runway) -> None:
    # The recorder looks at every job once it has the Lease; this job ends after all of them.
    job_id = (await upgraded.submit()).json()["id"]
    upgraded.kubernetes.end_pod(upgraded.kubernetes.start_pod(job_id))
    upgraded.kubernetes.complete(job_id)

    async def recorded() -> bool:
        return RECORD in upgraded.kubernetes.job(job_id)["metadata"]["annotations"]

    await upgraded.until(recorded)
    assert await metric(upgraded, "runway_jobs_finished_total") == 1
    for name in FINAL:
        stored = STORED[name]
        assert upgraded.kubernetes.job(stored.name)["metadata"]["annotations"][RECORD] == stored.record


async def test_interim_record_of_0_7_is_continued(upgraded: Runway) -> None:
    """Its first attempt is known from the record alone, because its pod is deleted."""
    stored = STORED["retrying"]
    known = json.loads(stored.record or "")["attempts"]
    pods = [pod["metadata"]["name"] for pod in stored.pods]
    assert [attempt["pod"] for attempt in known] != pods
    attempts = (await view(upgraded, stored)).json()["attempts"]
    assert [attempt["pod"] for attempt in attempts] == [known[0]["pod"], *pods]
    (last,) = pods
    upgraded.kubernetes.end_pod(last)
    upgraded.kubernetes.complete(stored.name)

    async def final() -> bool:
        return "state" in json.loads(upgraded.kubernetes.job(stored.name)["metadata"]["annotations"][RECORD])

    await upgraded.until(final)
    upgraded.kubernetes.remove_pod(last)
    found = (await view(upgraded, stored)).json()
    assert (found["state"], [attempt["pod"] for attempt in found["attempts"]]) == (
        "succeeded",
        [known[0]["pod"], last],
    )


@pytest.mark.parametrize("name", STORED)
async def test_repeated_submission_to_0_7_gets_its_job(upgraded: Runway, name: str) -> None:
    stored = STORED[name]
    headers = TENANT | {"Idempotency-Key": stored.key}
    answer = await upgraded.client.post("/v1/jobs", json=stored.request, headers=headers)
    assert (answer.status_code, answer.json()["id"]) == (200, stored.name)


@pytest.mark.parametrize("name", ["running", "waiting", "retrying"])
async def test_unfinished_job_of_0_7_is_cancelled_and_releases_its_quota(upgraded: Runway, name: str) -> None:
    stored, kubernetes = STORED[name], upgraded.kubernetes
    used = (await upgraded.quota())["used"]["jobs"]
    assert (await upgraded.cancel(stored.name)).json()["state"] == "cancelling"
    for pod in stored.pods:
        kubernetes.remove_pod(pod["metadata"]["name"])
    kubernetes.fail(stored.name, "DeadlineExceeded")
    found = await upgraded.until_state(stored.name, "cancelled")
    assert found["failure"] is None
    assert (await upgraded.quota())["used"]["jobs"] == used - 1
