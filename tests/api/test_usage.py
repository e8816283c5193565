"""`GET /v1/jobs/{id}/usage`: measurements, or null with the reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from tests.api.conftest import Runway, serve
from tests.support.fake_cluster import NOW, FakeKubernetes
from tests.support.fake_prometheus import FakePrometheus, fake_prometheus

MEASURED = (
    "cpu_seconds",
    "cpu_cores",
    "memory_bytes",
    "memory_peak_bytes",
    "throttled_ratio",
    "cpu_periods",
    "gpu_utilisation",
    "sampled_at",
)
STARTED = datetime.fromisoformat(NOW).timestamp()
MIB = 1 << 20


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """Use real time: the fake Prometheus answers through a socket."""
    return "asyncio"


@pytest.fixture
async def prometheus() -> AsyncIterator[FakePrometheus]:
    async with fake_prometheus() as fake:
        yield fake


@pytest.fixture
async def measured(kubernetes: FakeKubernetes, prometheus: FakePrometheus) -> AsyncIterator[Runway]:
    """Serve Runway beside a Prometheus."""
    async with serve(kubernetes, prometheus_url=prometheus.url) as running:
        yield running


async def usage(runway: Runway, job_id: str) -> dict[str, Any]:
    answer = await runway.client.get(f"/v1/jobs/{job_id}/usage")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def until_attempts(runway: Runway, job_id: str, *states: str) -> None:
    async def reached() -> bool:
        return tuple(attempt["state"] for attempt in (await runway.view(job_id))["attempts"]) == states

    await runway.until(reached)


async def test_measurements_are_null_without_prometheus(runway: Runway) -> None:
    job_id = (await runway.submit()).json()["id"]
    runway.kubernetes.start_pod(job_id)
    await until_attempts(runway, job_id, "running")
    found = await usage(runway, job_id)

    assert (found["id"], found["source"], found["problem"], found["findings"]) == (job_id, None, None, [])
    assert {found[name] for name in MEASURED} == {None}
    assert (found["cpu_limit_cores"], found["memory_limit_bytes"]) == (0.1, 64 * MIB)


async def test_running_job_has_measurements_and_findings(measured: Runway, prometheus: FakePrometheus) -> None:
    job_id = (await measured.submit()).json()["id"]
    pod = measured.kubernetes.start_pod(job_id)
    await until_attempts(measured, job_id, "running")
    prometheus.knows(pod, cpu_seconds=2.0, cpu_sampled_at=STARTED + 20, cpu_periods=100, cpu_periods_throttled=87)
    prometheus.knows(pod, memory=32 * MIB, memory_peak=62 * MIB, memory_most=62 * MIB, cache_peak=0, gpu_percent=35)
    found = await usage(measured, job_id)

    assert found == {
        "id": job_id,
        "source": "prometheus",
        "problem": None,
        "cpu_seconds": 2.0,
        "cpu_cores": 0.1,
        "cpu_limit_cores": 0.1,
        "memory_bytes": 32 * MIB,
        "memory_peak_bytes": 62 * MIB,
        "memory_limit_bytes": 64 * MIB,
        "throttled_ratio": 0.87,
        "cpu_periods": 100,
        "gpu_utilisation": 0.35,
        "sampled_at": "2026-11-24T08:00:20Z",
        "findings": [
            "throttled in 87% of its CPU periods: raise resources.cpu",
            "memory peaked at 97% of its limit",
        ],
    }
    assert "time" not in prometheus.queries[-1]


async def test_peak_covers_all_attempts_and_query_time_is_end_of_job(
    measured: Runway, prometheus: FakePrometheus
) -> None:
    job_id = (await measured.submit(retries=1)).json()["id"]
    first = measured.kubernetes.start_pod(job_id)
    measured.kubernetes.end_pod(first, exit_code=1)
    second = measured.kubernetes.start_pod(job_id)
    measured.kubernetes.end_pod(second)
    measured.kubernetes.complete(job_id)
    await until_attempts(measured, job_id, "failed", "succeeded")
    prometheus.knows(first, memory_peak=60 * MIB, cpu_periods=10, cpu_periods_throttled=10)
    prometheus.knows(second, memory_peak=20 * MIB, cpu_periods=10, cpu_periods_throttled=1)
    prometheus.knows("another", memory_peak=64 * MIB)
    found = await usage(measured, job_id)

    assert (found["memory_peak_bytes"], found["throttled_ratio"], found["cpu_seconds"]) == (60 * MIB, 0.1, None)
    query = prometheus.queries[-1]
    assert f'namespace="runway-vision",pod=~"{first}|{second}"' in query["query"]
    assert float(query["time"]) == STARTED + 1


async def test_job_without_container_sends_no_query(measured: Runway, prometheus: FakePrometheus) -> None:
    job_id = (await measured.submit()).json()["id"]
    found = await usage(measured, job_id)

    assert (found["source"], found["problem"]) == ("prometheus", None)
    assert {found[name] for name in MEASURED} == {None}
    assert prometheus.queries == []


async def test_invalid_samples_are_null_not_zero(measured: Runway, prometheus: FakePrometheus) -> None:
    job_id = (await measured.submit()).json()["id"]
    pod = measured.kubernetes.start_pod(job_id)
    await until_attempts(measured, job_id, "running")
    prometheus.knows(pod, cpu_seconds="NaN", memory="+Inf", memory_peak="-1", invented="7")
    found = await usage(measured, job_id)

    assert {found[name] for name in MEASURED} == {None}
    assert len(prometheus.queries) == 1


@pytest.mark.parametrize(
    ("status", "body", "problem"),
    [
        (503, b"", "Prometheus answered 503"),
        (422, b'{"error": "too many samples"}', "Prometheus answered 422: too many samples"),
        (200, b"<html>", "could not be read"),
    ],
)
async def test_prometheus_error_is_reported_as_problem(
    measured: Runway, prometheus: FakePrometheus, status: int, body: bytes, problem: str
) -> None:
    job_id = (await measured.submit()).json()["id"]
    measured.kubernetes.start_pod(job_id)
    await until_attempts(measured, job_id, "running")
    prometheus.status, prometheus.body = status, body
    found = await usage(measured, job_id)

    assert problem in found["problem"]
    assert (found["source"], found["memory_limit_bytes"]) == ("prometheus", 64 * MIB)
    assert {found[name] for name in MEASURED} == {None}


async def test_usage_of_another_tenant_is_not_found(measured: Runway) -> None:
    job_id = (await measured.submit()).json()["id"]
    answer = await measured.client.get(f"/v1/jobs/{job_id}/usage", headers={"X-Tenant-ID": "speech"})

    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_openapi_declares_nullable_measurements(runway: Runway) -> None:
    document = (await runway.client.get("/openapi.json")).json()
    answers = document["paths"]["/v1/jobs/{job_id}/usage"]["get"]["responses"]
    name = answers["200"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
    properties = document["components"]["schemas"][name]["properties"]

    assert {"400", "403", "404", "429", "503"} <= answers.keys()
    for figure in MEASURED:
        assert {"type": "null"} in properties[figure]["anyOf"]
