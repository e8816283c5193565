"""Submissions while Kubernetes accepts writes, but lists and watches fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest

from runway.controllers.leadership import DISCONNECT_GRACE_SECONDS
from runway.kube.transport import Response
from runway.policy import load_policy
from tests.api.conftest import POLICY, Runway, job, serve
from tests.support.fake_cluster import KINDS, FakeKubernetes

KEY = {"Idempotency-Key": "one"}


class Blind(FakeKubernetes):
    """While it is down, lists and watches fail, and all other calls succeed."""

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        if self.down and path not in KINDS:
            return self.handle(method, path, query=query, body=body, content_type=content_type)
        return await super().request(method, path, query=query, body=body, content_type=content_type, seconds=seconds)


@pytest.fixture
async def blind() -> AsyncIterator[Runway]:
    """Runway with one job, just after the disconnect."""
    kubernetes = Blind({tenant.namespace for tenant in load_policy(POLICY).tenants.values()})
    async with serve(kubernetes) as runway:
        assert (await runway.submit(headers=KEY)).status_code == 201
        kubernetes.go_down()

        async def lost() -> bool:
            return all(watch.disconnect_reason for watch in runway.app.state.services.cluster.watches.values())

        await runway.until(lost)
        yield runway


async def test_short_disconnect_rejects_nothing(blind: Runway) -> None:
    await asyncio.sleep(DISCONNECT_GRACE_SECONDS - 5)
    assert (await blind.client.get("/readyz")).status_code == 503
    assert (await blind.submit()).status_code == 201


async def test_long_disconnect_rejects_submissions_without_trace(blind: Runway) -> None:
    await asyncio.sleep(DISCONNECT_GRACE_SECONDS)
    answer = await blind.submit()
    assert (answer.status_code, answer.json()["code"]) == (503, "kubernetes_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    assert "contact with Kubernetes has been lost for 15 s" in answer.json()["detail"]
    assert len(blind.kubernetes.objects["jobs"]) == 1
    assert (await blind.quota())["reserved"]["jobs"] == 0


async def test_reads_cancels_and_replays_work_during_disconnect(blind: Runway) -> None:
    await asyncio.sleep(DISCONNECT_GRACE_SECONDS)
    replay = await blind.submit(headers=KEY)
    job_id = replay.json()["id"]
    assert (replay.status_code, replay.headers["idempotent-replay"]) == (200, "true")
    for path in ("/v1/jobs", f"/v1/jobs/{job_id}", "/v1/quota", f"/jobs/{job_id}"):
        assert (await blind.client.get(path)).status_code == 200, path
    assert (await blind.cancel(job_id)).json()["state"] == "cancelling"


async def test_dry_run_reports_disconnect_with_other_violations(blind: Runway) -> None:
    await asyncio.sleep(DISCONNECT_GRACE_SECONDS)
    answer = await blind.client.post(
        "/v1/jobs?dry_run=true", json=job(resources={"gpu": 99}), headers={"X-Tenant-ID": "vision"}
    )
    assert answer.json()["decision"] == "refused"
    found = {violation["code"]: violation for violation in answer.json()["violations"]}
    assert len(found) > 1
    assert found["kubernetes_unavailable"]["field"] == "submissions"
    assert found["kubernetes_unavailable"]["hint"].startswith("submit again in")


async def test_submissions_are_accepted_after_reconnect(blind: Runway) -> None:
    await asyncio.sleep(DISCONNECT_GRACE_SECONDS)
    assert (await blind.submit()).status_code == 503
    blind.kubernetes.come_back()

    async def taken() -> bool:
        return (await blind.submit()).status_code == 201

    await blind.until(taken)
