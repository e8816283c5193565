"""More submissions at once than can be borne: those let in are carried out, the others are refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from runway.cluster.connection import Answer
from runway.http.crowd import PER_CALL
from tests.http.conftest import serve
from tests.support.fake_cluster import FakeKubernetes


class Held(FakeKubernetes):
    """An API server that answers no create before `let_go` is set."""

    def __init__(self, namespaces: set[str]) -> None:
        super().__init__(namespaces)
        self.let_go = asyncio.Event()

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Answer:
        if (method, path.endswith("/jobs")) == ("POST", True):
            await self.let_go.wait()
        return await super().request(method, path, query=query, body=body, content_type=content_type, seconds=seconds)


async def test_beyond_so_many_in_progress_a_submission_is_refused_at_once(kubernetes: FakeKubernetes) -> None:
    held = Held(kubernetes.namespaces)
    async with serve(held, max_in_flight=2) as runway:
        inside = [asyncio.create_task(runway.submit()) for _ in range(2 * PER_CALL)]
        await asyncio.sleep(0)
        refused = await runway.submit()
        assert (refused.status_code, refused.json()["code"]) == (503, "too_busy")
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["request_id"] == refused.headers["x-request-id"]
        assert (await runway.client.get("/v1/jobs")).status_code == 200
        held.let_go.set()
        assert [answer.status_code for answer in await asyncio.gather(*inside)] == [201] * len(inside)
        assert (await runway.submit()).status_code == 201
    assert len(held.objects["jobs"]) == len(inside) + 1


async def test_a_caller_that_goes_away_makes_room(kubernetes: FakeKubernetes) -> None:
    held = Held(kubernetes.namespaces)
    async with serve(held, max_in_flight=1) as runway:
        inside = [asyncio.create_task(runway.submit()) for _ in range(PER_CALL)]
        await asyncio.sleep(0)
        assert (await runway.submit()).status_code == 503
        inside[0].cancel()
        await asyncio.gather(inside[0], return_exceptions=True)
        another = asyncio.create_task(runway.submit())
        held.let_go.set()
        assert (await another).status_code == 201
        assert (await inside[1]).status_code == 201
