"""Restart after a kill: Runway rebuilds jobs and quota from Kubernetes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import suppress

import httpx2
import pytest

from testbed.context import Context
from testbed.http_client import Document, shell
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS, TimedOut, wait_for
from tests.support.views import but_for_free_capacity

pytestmark = pytest.mark.cluster

SLEEP = "trap 'exit 0' TERM; echo started; sleep 600 & wait"


def test_restart_after_kill_restores_jobs_and_quota(context: Context, server: Server) -> None:
    key, spec = f"test {uuid.uuid4()}", shell(SLEEP, resources={"cpu": "100m", "memory": "32Mi", "gpu": 2})
    running = context.accepted(context.runway.submit("vision", spec, key=key))
    waiting = context.submit("research", shell("true", pool="large", resources={"cpu": "8", "memory": "32Mi"}))
    failed = context.submit("vision", shell("exit 3"))
    cancelled = context.submit("vision", shell(SLEEP))
    context.until_log(cancelled["id"], "started")
    context.runway.cancel(cancelled["id"])
    context.until_finished(cancelled["id"])
    context.until_finished(failed["id"])
    context.until_log(running["id"], "started")
    context.until(waiting["id"], lambda view: view["conditions"] != [], "unschedulable")
    views = views_of(context, [job["id"] for job in (running, waiting, failed)])
    quota, states = whole_quota(context), states_of_all(context)

    server.kill()
    server.launch()
    seen = wait_for(lambda: first_answer(server), "Runway answers for quota")

    # The first response is complete; before it, Runway reports that it is not ready.
    assert seen == quota
    wait_for(lambda: context.runway.get("/readyz").status_code == 200 or None, "ready")
    assert states_of_all(context) == states
    # Diagnosis also needs events, which may arrive a moment later.
    with suppress(TimedOut):
        wait_for(lambda: views_of(context, views) == views or None, "the same views")
    assert views_of(context, views) == views
    assert context.runway.job(cancelled["id"])["state"] == "cancelled"
    replay = context.runway.submit("vision", spec, key=key)
    assert (replay.status_code, replay.json()["id"]) == (200, running["id"])
    refused = context.runway.submit("vision", spec | {"resources": {"cpu": "100m", "memory": "32Mi", "gpu": 3}})
    assert (refused.status_code, refused.json()["held_by"]) == (403, [running["id"]])
    assert context.runway.log(running["id"]).text == "started\n"


def test_resubmission_resolves_create_interrupted_by_kill(context: Context, server: Server) -> None:
    """Whether the create succeeded or not, the same request leads to one job."""
    key, spec = f"test {uuid.uuid4()}", shell("true")
    try:
        with httpx2.Client(base_url=server.url, trust_env=False, timeout=0.004) as impatient:
            impatient.post("/v1/jobs", json=spec, headers={"X-Tenant-ID": "vision", "Idempotency-Key": key})
    except httpx2.TimeoutException:
        pass
    server.kill()
    server.start()
    answer = context.runway.submit("vision", spec, key=key)

    assert answer.status_code in (200, 201)
    job_id = answer.json()["id"]
    context.until_finished(job_id)
    namespace = context.runway.policy()["tenants"]["vision"]["namespace"]
    assert len(context.kubernetes.pods(namespace, job_id)) == 1
    assert context.runway.quota("vision")["reserved"]["jobs"] == 0


def views_of(context: Context, job_ids: Iterable[str]) -> dict[str, Document]:
    return {job_id: but_for_free_capacity(context.runway.job(job_id)) for job_id in job_ids}


def first_answer(server: Server) -> list[Document] | None:
    """Return the first quota that Runway serves; before it, only 503 is allowed."""
    try:
        answer = httpx2.get(f"{server.url}/v1/quota", trust_env=False, timeout=GUARD_SECONDS)
    except httpx2.ConnectError:
        return None
    if answer.status_code == 503:
        assert answer.json()["code"] == "not_ready"
        assert int(answer.headers["Retry-After"]) > 0
        return None
    assert answer.status_code == 200
    return by_tenant(answer)


def whole_quota(context: Context) -> list[Document]:
    return by_tenant(context.runway.get("/v1/quota"))


def by_tenant(answer: httpx2.Response) -> list[Document]:
    """Return the quota of all tenants with jobs sorted by id, because their order is undefined."""
    tenants: list[Document] = answer.json()["tenants"]
    return [tenant | {"jobs": sorted(tenant["jobs"], key=lambda job: job["id"])} for tenant in tenants]


def states_of_all(context: Context) -> dict[str, str]:
    """Return the state of every job, from all pages."""
    found: dict[str, str] = {}
    query: dict[str, str] = {}
    while True:
        page = context.runway.get("/v1/jobs", limit=40, **query).json()
        found |= {job["id"]: job["state"] for job in page["jobs"]}
        if page["next_cursor"] is None:
            return found
        query = {"cursor": page["next_cursor"]}
