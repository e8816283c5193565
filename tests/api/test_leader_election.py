"""One leader writes; a second process reads and takes over."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes


async def _role(runway: Runway) -> str:
    return str((await runway.client.get("/readyz")).json().get("role"))


async def test_second_process_serves_reads_and_rejects_writes(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, instance="one") as first, serve(kubernetes, instance="two", until="reader") as second:
        job_id = (await first.submit(resources={"gpu": 2})).json()["id"]

        async def seen() -> bool:
            return (await second.client.get(f"/v1/jobs/{job_id}")).status_code == 200

        await second.until(seen)
        assert (await second.quota())["used"]["gpu"] == 2
        for answer in (await second.submit(), await second.cancel(job_id)):
            assert (answer.status_code, answer.json()["code"]) == (503, "not_leader")
            assert "one" in answer.json()["detail"]
            assert answer.headers["retry-after"]
        assert (await first.view(job_id))["state"] == "pending"
        assert "runway_is_writer 1.0" in (await first.client.get("/metrics")).text
        assert "runway_is_writer 0.0" in (await second.client.get("/metrics")).text


async def test_stopping_leader_releases_lease(kubernetes: FakeKubernetes) -> None:
    async with serve(kubernetes, instance="one"):
        assert kubernetes.lease["spec"]["holderIdentity"] == "one"
    assert kubernetes.lease["spec"]["holderIdentity"] == ""
    async with serve(kubernetes, instance="two") as second:
        assert (await second.submit()).status_code == 201


async def test_restart_with_same_identity_acquires_lease_at_once(kubernetes: FakeKubernetes) -> None:
    kubernetes.lease = _lease("one")
    async with serve(kubernetes, instance="one") as again:
        assert (await again.submit()).status_code == 201


async def test_other_identity_waits_until_lease_expires(kubernetes: FakeKubernetes) -> None:
    kubernetes.lease = _lease("one")
    async with serve(kubernetes, instance="two", until="reader") as other:
        assert (await other.submit()).json()["code"] == "not_leader"


async def test_jobs_of_previous_leader_are_counted_before_first_write(kubernetes: FakeKubernetes) -> None:
    """The watches of a process may lag, so it relists after it became the leader."""
    async with AsyncExitStack() as one:
        first = await one.enter_async_context(serve(kubernetes, instance="one"))
        async with serve(kubernetes, instance="two", until="reader") as second:
            kubernetes.mute = True
            await first.submit(resources={"gpu": 4})
            await one.aclose()

            async def writes() -> bool:
                return await _role(second) == "writer"

            await second.until(writes)
            assert (await second.submit(resources={"gpu": 1})).json()["code"] == "quota_exceeded"


def _lease(holder: str) -> dict[str, Any]:
    metadata = {"name": "runway-writer", "namespace": "default", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15}}
