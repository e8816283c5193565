"""Overload: bounded submissions in progress, and immediate 503 beyond the bound."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import httpx2
import pytest
from starlette.requests import Request

from runway.admission.rate_limit import MAX_BODIES, SUBMISSIONS_PER_CALL
from runway.api.dependencies import read_json
from runway.errors import BodyTooSlow
from runway.kube.transport import Response
from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes


class BlockedCreates(FakeKubernetes):
    """An API server that answers no create before `unblock` is set."""

    def __init__(self, namespaces: set[str]) -> None:
        super().__init__(namespaces)
        self.unblock = asyncio.Event()
        self.waiting = asyncio.Semaphore(0)

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        if (method, path.endswith("/jobs")) == ("POST", True):
            self.waiting.release()
            await self.unblock.wait()
        return await super().request(method, path, query=query, body=body, content_type=content_type, seconds=seconds)


@pytest.fixture
def blocked(kubernetes: FakeKubernetes) -> BlockedCreates:
    return BlockedCreates(kubernetes.namespaces)


async def submit_until_blocked(
    runway: Runway, blocked: BlockedCreates, tenants: Mapping[str, int]
) -> list[asyncio.Task[int]]:
    """Start these submissions of each tenant, and wait until the API server has all of them."""

    async def submit(tenant: str) -> int:
        return (await runway.submit(tenant=tenant)).status_code

    inside = [asyncio.create_task(submit(tenant)) for tenant, number in tenants.items() for _ in range(number)]
    for _ in inside:
        await blocked.waiting.acquire()
    return inside


async def test_submission_above_the_concurrency_limit_is_refused_at_once(blocked: BlockedCreates) -> None:
    async with serve(blocked, max_in_flight=2) as runway:
        inside = await submit_until_blocked(runway, blocked, {"vision": 2, "research": 1, "speech": 1})
        assert len(inside) == 2 * SUBMISSIONS_PER_CALL
        refused = await runway.submit(tenant="speech")
        assert (refused.status_code, refused.json()["code"]) == (503, "too_busy")
        assert refused.headers["retry-after"] == "1"
        assert (await runway.client.get("/v1/jobs")).status_code == 200
        blocked.unblock.set()
        assert await asyncio.gather(*inside) == [201] * len(inside)
        assert (await runway.submit(tenant="speech")).status_code == 201


async def test_one_tenant_gets_half_of_the_submission_slots(blocked: BlockedCreates) -> None:
    async with serve(blocked, max_in_flight=2) as runway:
        inside = await submit_until_blocked(runway, blocked, {"vision": 2})
        refused = await runway.submit(tenant="vision")
        assert (refused.status_code, refused.json()["code"]) == (503, "too_busy")
        assert "vision" in refused.json()["detail"]
        inside += await submit_until_blocked(runway, blocked, {"research": 1})
        refused = await runway.submit(tenant="research")
        assert "1 of them for tenant research" in refused.json()["detail"], "the last slot is for a third tenant"
        inside += await submit_until_blocked(runway, blocked, {"speech": 1})
        blocked.unblock.set()
        assert await asyncio.gather(*inside) == [201] * 4


async def test_disconnected_caller_frees_its_slot(blocked: BlockedCreates) -> None:
    async with serve(blocked, max_in_flight=1) as runway:
        inside = await submit_until_blocked(runway, blocked, {"vision": 1})
        assert (await runway.submit(tenant="vision")).status_code == 503
        inside[0].cancel()
        await asyncio.gather(inside[0], return_exceptions=True)
        blocked.unblock.set()
        assert (await runway.submit(tenant="vision")).status_code == 201


async def test_bodies_in_transit_are_bounded_per_tenant(runway: Runway) -> None:
    arrived, rest = asyncio.Semaphore(0), asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        arrived.release()
        yield b"{"
        await rest.wait()
        yield b"}"

    def send(tenant: str) -> asyncio.Task[httpx2.Response]:
        headers = {"X-Tenant-ID": tenant, "Content-Type": "application/json"}
        return asyncio.create_task(runway.client.post("/v1/jobs", content=slow_body(), headers=headers))

    async def until_they_are_read(tenant: str, bodies: int) -> list[asyncio.Task[httpx2.Response]]:
        sent = [send(tenant) for _ in range(bodies)]
        for _ in sent:
            await arrived.acquire()
        return sent

    inside = await until_they_are_read("vision", MAX_BODIES // 2)
    refused = await runway.submit(tenant="vision")
    assert (refused.status_code, refused.json()["code"]) == (503, "too_busy")
    assert "vision" in refused.json()["detail"]
    assert (await runway.submit(tenant="speech")).status_code == 201
    inside += await until_they_are_read("speech", MAX_BODIES // 4)
    refused = await runway.submit(tenant="speech")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert (await runway.submit(tenant="research")).status_code == 201
    rest.set()
    assert {answer.status_code for answer in await asyncio.gather(*inside)} == {422}
    assert (await runway.submit(tenant="vision")).status_code == 201


async def test_slow_body_times_out() -> None:
    async def receive() -> dict[str, object]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(BodyTooSlow):
        await read_json(Request(scope, receive), limit=100, seconds=0.01)
