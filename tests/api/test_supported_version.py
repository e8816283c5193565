"""Runway leaves a cluster alone that is older than it supports."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from runway.controllers.supported_version import RECHECK_SECONDS
from runway.kube.transport import Response
from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import FakeKubernetes, server_version

OLD = server_version("1", "28+")
REASON = "the API server is v1.28+.0; Runway needs Kubernetes 1.30 or later"


async def assert_left_alone(runway: Runway) -> None:
    """Runway has only asked for the version, and every route but `/healthz` gives the reason."""
    kubernetes = runway.kubernetes
    assert {path for _, path in kubernetes.calls} == {"/version"}
    assert kubernetes.lease == {}
    for answer in (await runway.client.get("/readyz"), await runway.client.get("/v1/jobs"), await runway.submit()):
        assert (answer.status_code, answer.json()["code"], answer.json()["detail"]) == (503, "not_ready", REASON)
        assert answer.headers["retry-after"] == "60"
    assert (await runway.client.get("/healthz")).status_code == 200, "a restart does not help"
    overview = (await runway.client.get("/", headers={"Accept": "text/html"})).text
    assert f"<strong>Runway leaves this cluster alone.</strong> {REASON[0].upper()}{REASON[1:]}." in overview
    assert "is listing the cluster" not in overview


async def test_old_cluster_is_left_alone_and_logged_once(kubernetes: FakeKubernetes) -> None:
    kubernetes.version_answer = OLD
    with capture_logs() as logged:
        async with serve(kubernetes, until=None) as runway:
            await asyncio.sleep(3 * RECHECK_SECONDS)
            await assert_left_alone(runway)
    assert [(line["log_level"], line["reason"]) for line in logged if "reason" in line] == [("critical", REASON)]


async def test_runway_starts_once_the_cluster_is_upgraded(kubernetes: FakeKubernetes) -> None:
    kubernetes.version_answer = OLD
    async with serve(kubernetes, until=None) as runway:
        await asyncio.sleep(RECHECK_SECONDS / 2)
        await assert_left_alone(runway)
        kubernetes.version_answer = server_version("1", "30")
        await asyncio.sleep(RECHECK_SECONDS)

        async def is_leader() -> bool:
            return bool((await runway.client.get("/readyz")).json().get("role") == "writer")

        await runway.until(is_leader)
        assert (await runway.submit()).status_code == 201


async def test_old_cluster_is_recognised_after_an_outage_at_the_start(kubernetes: FakeKubernetes) -> None:
    kubernetes.version_answer = OLD
    kubernetes.go_down()
    async with serve(kubernetes, until=None) as runway:
        await asyncio.sleep(30)
        assert (await runway.client.get("/readyz")).status_code == 503
        kubernetes.come_back()
        await asyncio.sleep(10)
        await assert_left_alone(runway)


@pytest.mark.parametrize(
    "answer",
    [
        Response(404, b"not found"),
        Response(403, b'{"kind": "Status", "reason": "Forbidden"}'),
        Response(200, b""),
        Response(200, b"<html>"),
        Response(200, b"[" * 100_000),
        Response(200, b'["1", "28"]'),
        Response(200, b'{"gitVersion": "v1.28.0"}'),
        Response(200, b'{"major": "one", "minor": null}'),
        Response(200, b'{"major": "1", "minor": "30"}', date=f"Sun, 29 Nov {1 << 63} 08:00:00 GMT"),
    ],
)
async def test_absent_or_odd_version_stops_nothing(kubernetes: FakeKubernetes, answer: Response) -> None:
    kubernetes.version_answer = answer
    async with serve(kubernetes) as runway:
        assert (await runway.submit()).status_code == 201


class Defect(FakeKubernetes):
    """A transport with a defect, which no error of Runway describes."""

    async def request(self, method: str, path: str, **options: Any) -> Response:
        if path == "/version":
            raise ZeroDivisionError("a defect")
        return await super().request(method, path, **options)


async def test_defect_at_the_start_asks_for_a_restart(kubernetes: FakeKubernetes) -> None:
    """Without this, the process would neither work nor say why, and no probe would restart it."""
    with capture_logs() as logged:
        async with serve(Defect(kubernetes.namespaces), until=None) as runway:
            await asyncio.sleep(1)
            for path in ("/healthz", "/readyz", "/v1/jobs"):
                answer = await runway.client.get(path)
                assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
                assert "a defect" in answer.json()["detail"]
    assert [line["log_level"] for line in logged if line["event"] == "start failed"] == ["critical"]
