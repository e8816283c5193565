"""A defect that ends a controller: it is counted and logged, and the controller starts again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping

import pytest
from structlog.testing import capture_logs

from runway.errors import AmbiguousOutcome
from runway.jobs.manifest import keyed_job_id
from runway.kube.leader_election import DURATION_SECONDS
from runway.kube.transport import Response
from runway.services.resolve_outcome import ABSENCE_CONFIRMED_AFTER_SECONDS
from tests.api.conftest import LOCAL, Runway, serve
from tests.support.environment_fixtures import put_node
from tests.support.fake_cluster import FakeKubernetes


class Defective(FakeKubernetes):
    """An API server whose transport has a defect: the next requests of a path raise what Runway does not expect."""

    path = ""
    left = 0
    """The requests that still fail."""

    def _fail(self, path: str) -> None:
        if self.left and self.path in path:
            self.left -= 1
            raise RuntimeError("a defect")

    async def request(
        self, method: str, path: str, *, query: Mapping[str, str], body: bytes | None, content_type: str, seconds: float
    ) -> Response:
        self._fail(path)
        return await super().request(method, path, query=query, body=body, content_type=content_type, seconds=seconds)

    async def stream(self, path: str, *, query: Mapping[str, str], idle: float | None) -> AsyncGenerator[bytes, None]:
        self._fail(path)
        async for chunk in super().stream(path, query=query, idle=idle):
            yield chunk


@pytest.fixture
def kubernetes() -> Defective:
    return Defective({tenant.namespace for tenant in LOCAL.tenants.values()})


async def internal_errors(runway: Runway) -> float:
    """Return the counted defects."""
    metrics = (await runway.client.get("/metrics")).text.splitlines()
    return float(next(line for line in metrics if line.startswith("runway_internal_errors_total ")).split()[1])


async def role(runway: Runway) -> object:
    return (await runway.client.get("/readyz")).json().get("role")


async def test_leader_keeps_the_lease_after_a_defect_of_its_election(kubernetes: Defective) -> None:
    with capture_logs() as logged:
        async with serve(kubernetes) as runway:
            assert await internal_errors(runway) == 0
            kubernetes.path, kubernetes.left = "/leases", 1
            await asyncio.sleep(2 * DURATION_SECONDS)
            assert await role(runway) == "writer"
            assert await internal_errors(runway) == 1
            assert (await runway.submit()).status_code == 201
    ended = [line for line in logged if line["event"] == "controller ended by a defect"]
    assert [(line["controller"], line["exc_info"]) for line in ended] == [("leader election", True)]


async def test_events_and_nodes_are_watched_again_after_a_defect(kubernetes: Defective) -> None:
    async with serve(kubernetes) as runway:
        put_node(kubernetes, "node-1")
        job_id = (await runway.submit()).json()["id"]
        kubernetes.start_pod(job_id, node="node-1")
        kubernetes.path, kubernetes.left = "/nodes", 1
        kubernetes.go_down()
        await asyncio.sleep(1)
        kubernetes.come_back()
        await asyncio.sleep(30)
        assert (kubernetes.left, await internal_errors(runway)) == (0, 1)
        put_node(kubernetes, "node-1", ready=False)

        async def is_unreachable() -> bool:
            return "node_unreachable" in [found["code"] for found in (await runway.view(job_id))["conditions"]]

        await runway.until(is_unreachable)


async def test_repeated_defects_of_one_controller_are_bounded_by_back_off(kubernetes: Defective) -> None:
    async with serve(kubernetes) as runway:
        kubernetes.path, kubernetes.left = "/leases", 1_000_000
        await asyncio.sleep(300)
        assert 5 <= await internal_errors(runway) <= 16
        kubernetes.left = 0
        await asyncio.sleep(60)
        assert await role(runway) == "writer"


async def test_defect_of_the_sync_loop_fails_the_health_check_and_is_counted(kubernetes: Defective) -> None:
    async with serve(kubernetes) as runway:
        kubernetes.path, kubernetes.left = "/jobs", 1
        kubernetes.go_down()
        await asyncio.sleep(1)
        kubernetes.come_back()
        await asyncio.sleep(30)
        assert (await runway.client.get("/healthz")).status_code == 503
        assert await internal_errors(runway) == 1


async def test_reservation_of_an_ambiguous_create_ends_after_a_defect_of_its_lookup(kubernetes: Defective) -> None:
    def time_out() -> Response:
        kubernetes.path, kubernetes.left = f"/jobs/{job_id_of_k}", 2
        raise AmbiguousOutcome("no answer within 2.5 s")

    job_id_of_k = keyed_job_id("vision", "k")
    async with serve(kubernetes) as runway:
        kubernetes.before_create.append(time_out)
        answer = await runway.submit(resources={"gpu": 1}, headers={"Idempotency-Key": "k"})
        assert answer.status_code == 500
        assert (await runway.quota())["reserved"]["gpu"] == 1
        await asyncio.sleep(2 * ABSENCE_CONFIRMED_AFTER_SECONDS)
        assert kubernetes.left == 0
        assert (await runway.quota())["reserved"]["gpu"] == 0
