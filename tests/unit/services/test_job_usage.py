"""Usage of a job from a store and a fake Prometheus, below HTTP."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from runway.errors import JobNotFound, PrometheusUnavailable
from runway.jobs.annotations import LABEL_MANAGED_BY, MANAGED_BY
from runway.jobs.models import Usage
from runway.kube.objects import Job
from runway.prometheus import Prometheus
from runway.services.job_usage import MAX_PODS, UsageReport, query_usage, report_usage
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
from runway.telemetry import Metrics
from tests.support.builders import JOB, NAMESPACE, ended, job, moment, pod, policy, running
from tests.support.fake_prometheus import FakePrometheus, fake_prometheus

KEY = JobKey(NAMESPACE, JOB)
LIMITS = Usage(cpu_limit_cores=1.0, memory_limit_bytes=1 << 30)


@pytest.fixture
async def fake() -> AsyncIterator[FakePrometheus]:
    async with fake_prometheus() as serving:
        yield serving


@pytest.fixture
async def prometheus(fake: FakePrometheus) -> AsyncIterator[Prometheus]:
    client = Prometheus(fake.url)
    yield client
    await client.close()


@pytest.fixture
def cluster() -> ClusterState:
    """Return a cluster state with one job without pods."""
    cluster = ClusterState(policy(), Metrics())
    cluster.apply_job(ours(job()))
    return cluster


def ours(made: Job) -> Job:
    made.metadata.labels[LABEL_MANAGED_BY] = MANAGED_BY
    return made


def now() -> datetime:
    return moment(100)


async def test_recorded_usage_is_shown_without_a_query(
    cluster: ClusterState, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    cluster.store.upsert_pod(pod(state=ended()))
    kept = Usage(cpu_seconds=3.0, throttled_ratio=0.9)

    assert await report_usage(cluster, prometheus, KEY, kept, now=now) == UsageReport(kept, "kept")
    assert await report_usage(cluster, None, KEY, kept, now=now) == UsageReport(kept, "kept")
    assert fake.queries == []


async def test_unmeasured_record_queries_prometheus_again(
    cluster: ClusterState, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    cluster.store.upsert_pod(pod("a", state=ended()))
    fake.knows("a", cpu_seconds=3.0)
    report = await report_usage(cluster, prometheus, KEY, LIMITS, now=now)

    assert (report.source, report.problem, report.usage.cpu_seconds) == ("prometheus", None, 3.0)


async def test_query_usage_raises_if_prometheus_is_unavailable(
    cluster: ClusterState, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    cluster.store.upsert_pod(pod(state=ended()))
    fake.status = 500
    with pytest.raises(PrometheusUnavailable, match="answered 500"):
        await query_usage(cluster, prometheus, KEY, now=now)
    report = await report_usage(cluster, prometheus, KEY, None, now=now)
    assert report == UsageReport(LIMITS, "prometheus", "Prometheus answered 500")


async def test_unknown_job_is_not_found(cluster: ClusterState, prometheus: Prometheus) -> None:
    stranger = JobKey(NAMESPACE, "rw-zzzzzzzzzzzzzzzzzzzz")
    for source in (prometheus, None):
        with pytest.raises(JobNotFound):
            await report_usage(cluster, source, stranger, None, now=now)
    with pytest.raises(JobNotFound):
        await query_usage(cluster, prometheus, stranger, now=now)


async def test_query_covers_started_attempts_and_shows_the_last(
    cluster: ClusterState, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    cluster.store.upsert_pod(pod("first", created=1, state=ended(1, started=10, finished=40)))
    cluster.store.upsert_pod(pod("second", created=50, state=running(60)))
    cluster.store.upsert_pod(pod("third", created=70))
    fake.knows("first", cpu_seconds=9, cpu_sampled_at=moment(40).timestamp(), memory_peak=9000)
    fake.knows("second", cpu_seconds=2, cpu_sampled_at=moment(80).timestamp(), memory_peak=5000)
    found = await query_usage(cluster, prometheus, KEY, now=now)

    assert (found.cpu_seconds, found.cpu_cores, found.memory_peak_bytes) == (2.0, 0.1, 9000)
    (query,) = fake.queries
    assert 'pod=~"first|second"' in query["query"]
    assert "time" not in query
    # From the creation of the first pod, 1, until now, 100, plus a minute.
    assert set(re.findall(r"\[(\d+)s\]", query["query"])) == {"159"}


async def test_usage_of_pod_with_injected_container_is_that_of_the_job_container(
    cluster: ClusterState, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    """https://github.com/kubeflow/trainer/issues/1182: the cgroup of the pod includes the other containers."""
    cluster.store.upsert_pod(pod("alone", created=1, state=ended(1)))
    cluster.store.upsert_pod(pod("proxied", created=50, state=running(60), others={"istio-proxy": running()}))
    await query_usage(cluster, prometheus, KEY, now=now)

    query = fake.queries[0]["query"]
    assert 'pod=~"alone",container="",image=""' in query
    assert 'pod=~"proxied",container="job"' in query


async def test_peak_of_out_of_memory_kill_is_the_limit(
    cluster: ClusterState, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    cluster.store.upsert_pod(pod("first", state=ended(137, "OOMKilled")))
    fake.knows("first", memory_peak=41 << 20)
    found = await query_usage(cluster, prometheus, KEY, now=now)
    assert found.memory_peak_bytes == found.memory_limit_bytes == 1 << 30


async def test_query_is_bounded_for_many_attempts(
    cluster: ClusterState, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    for number in range(MAX_PODS + 5):
        cluster.store.upsert_pod(
            pod(f"p{number:02}", created=number, state=ended(1, started=number, finished=number + 1))
        )
    await query_usage(cluster, prometheus, KEY, now=now)

    asked = re.search(r'pod=~"([^"]*)"', fake.queries[0]["query"])
    assert asked is not None
    assert asked[1].split("|") == [f"p{number:02}" for number in range(5, MAX_PODS + 5)]
    assert float(fake.queries[0]["time"]) == moment(MAX_PODS + 5 + 1).timestamp()
