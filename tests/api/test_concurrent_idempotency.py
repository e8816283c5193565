"""Concurrent submissions under one idempotency key wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2
import pytest

from runway.errors import AmbiguousOutcome
from runway.kube.transport import Response
from tests.api.conftest import LOCAL, Runway, serve
from tests.support.fake_cluster import FakeKubernetes

THROTTLED = Response(429, b"{}", retry_after=1)


class SlowCreates(FakeKubernetes):
    """The first two creates wait for the test to set a response, or None to execute them. Later ones get `then`."""

    def __init__(self, namespaces: set[str]) -> None:
        super().__init__(namespaces)
        self.creates = 0
        self.fates: list[asyncio.Future[Response | None]] = [asyncio.Future(), asyncio.Future()]
        self.then: Response | None = None

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        if method == "POST" and path.endswith("/jobs"):
            self.creates += 1
            fate = await self.fates[self.creates - 1] if self.creates <= len(self.fates) else self.then
            if fate is not None:
                return fate
        return await super().request(method, path, query=query, body=body, content_type=content_type, seconds=seconds)


@pytest.fixture
async def kubernetes() -> SlowCreates:
    return SlowCreates({tenant.namespace for tenant in LOCAL.tenants.values()})


async def _second_and_third(
    runway: Runway, kubernetes: SlowCreates
) -> tuple[asyncio.Task[httpx2.Response], asyncio.Task[httpx2.Response]]:
    """Return the second and third submission under one key, after the first has failed. The second create is open.

    All are tasks, because tasks start in order: once a later call has a response, an earlier one waits or is done.
    """

    def submit(gpus: int, headers: dict[str, str]) -> asyncio.Task[httpx2.Response]:
        return asyncio.create_task(runway.submit(headers=headers, resources={"gpu": gpus}))

    async def sent(number: int) -> bool:
        return kubernetes.creates == number

    key = {"Idempotency-Key": "k"}
    first = submit(4, key)
    await runway.until(lambda: sent(1))
    second = submit(4, key)
    assert (await submit(1, {})).json()["code"] == "quota_exceeded"
    kubernetes.fates[0].set_result(THROTTLED)
    assert (await first).json()["code"] == "kubernetes_unavailable"
    await runway.until(lambda: sent(2))
    third = submit(4, key)
    assert (await submit(1, {})).json()["code"] == "quota_exceeded"
    return second, third


async def test_later_create_does_not_end_the_reservation_of_an_open_one(kubernetes: SlowCreates) -> None:
    kubernetes.then = THROTTLED
    async with serve(kubernetes) as runway:
        second, third = await _second_and_third(runway, kubernetes)
        kubernetes.fates[1].set_result(None)
        assert ((await second).status_code, (await third).status_code) == (201, 200)
        assert (await runway.quota())["used"]["gpu"] == 4


async def test_job_is_answered_as_new_once(kubernetes: SlowCreates) -> None:
    async with serve(kubernetes) as runway:
        second, third = await _second_and_third(runway, kubernetes)
        kubernetes.fates[1].set_exception(AmbiguousOutcome("no answer within 2.5 s"))
        assert ((await second).status_code, (await third).status_code) == (503, 201)
