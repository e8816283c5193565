"""Where a job's usage is taken from, and what is asked of Prometheus: below HTTP, on a store and a fake Prometheus."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from runway.controllers.sync import Observer
from runway.errors import JobNotFound, PrometheusUnavailable
from runway.jobs.identity import LABEL_MANAGED_BY, MANAGED_BY
from runway.jobs.usage import Usage
from runway.kube.client import KubeClient
from runway.kube.objects import Job
from runway.prometheus import Prometheus
from runway.services.job_usage import MAX_PODS, UsageReport, query_usage, report_usage
from runway.state.job_store import JobKey
from runway.telemetry.metrics import Metrics
from tests.support.builders import JOB, NAMESPACE, ended, job, moment, pod, policy, running
from tests.support.fake_cluster import FakeKubernetes
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
def observer() -> Observer:
    """It has seen one job, and no pod of it yet."""
    seen = Observer(KubeClient(FakeKubernetes({NAMESPACE}), 1.0), policy(), Metrics(), resync_seconds=300)
    seen.store.upsert_job(ours(job()))
    return seen


def ours(made: Job) -> Job:
    made.metadata.labels[LABEL_MANAGED_BY] = MANAGED_BY
    return made


def now() -> datetime:
    return moment(100)


async def test_what_was_kept_is_shown_and_nobody_is_asked(
    observer: Observer, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    observer.store.upsert_pod(pod(state=ended()))
    kept = Usage(cpu_seconds=3.0, throttled_ratio=0.9)

    assert await report_usage(observer, prometheus, KEY, kept, now=now) == UsageReport(kept, "kept")
    assert await report_usage(observer, None, KEY, kept, now=now) == UsageReport(kept, "kept")
    assert fake.queries == []


async def test_where_nothing_could_be_kept_prometheus_is_asked_again(
    observer: Observer, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    observer.store.upsert_pod(pod("a", state=ended()))
    fake.knows("a", cpu_seconds=3.0)
    report = await report_usage(observer, prometheus, KEY, LIMITS, now=now)

    assert (report.source, report.problem, report.usage.cpu_seconds) == ("prometheus", None, 3.0)


async def test_whoever_keeps_the_usage_learns_that_prometheus_has_not_answered(
    observer: Observer, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    observer.store.upsert_pod(pod(state=ended()))
    fake.status = 500
    with pytest.raises(PrometheusUnavailable, match="answered 500"):
        await query_usage(observer, prometheus, KEY, now=now)
    report = await report_usage(observer, prometheus, KEY, None, now=now)
    assert report == UsageReport(LIMITS, "prometheus", "Prometheus answered 500")


async def test_a_job_that_is_not_known_is_not_found(observer: Observer, prometheus: Prometheus) -> None:
    stranger = JobKey(NAMESPACE, "rw-zzzzzzzzzzzzzzzzzzzz")
    for source in (prometheus, None):
        with pytest.raises(JobNotFound):
            await report_usage(observer, source, stranger, None, now=now)
    with pytest.raises(JobNotFound):
        await query_usage(observer, prometheus, stranger, now=now)


async def test_only_attempts_that_started_are_asked_for_and_the_last_of_them_is_shown(
    observer: Observer, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    observer.store.upsert_pod(pod("first", created=1, state=ended(1, started=10, finished=40)))
    observer.store.upsert_pod(pod("second", created=50, state=running(60)))
    observer.store.upsert_pod(pod("third", created=70))
    fake.knows("first", cpu_seconds=9, cpu_sampled_at=moment(40).timestamp(), memory_peak=9000)
    fake.knows("second", cpu_seconds=2, cpu_sampled_at=moment(80).timestamp(), memory_peak=5000)
    found = await query_usage(observer, prometheus, KEY, now=now)

    assert (found.cpu_seconds, found.cpu_cores, found.memory_peak_bytes) == (2.0, 0.1, 9000)
    (query,) = fake.queries
    assert 'pod=~"first|second"' in query["query"]
    assert "time" not in query
    # From the first pod, created at 1, until now, 100, and a minute more.
    assert set(re.findall(r"\[(\d+)s\]", query["query"])) == {"159"}


async def test_the_query_is_bounded_however_many_attempts_there_were(
    observer: Observer, prometheus: Prometheus, fake: FakePrometheus
) -> None:
    for number in range(MAX_PODS + 5):
        observer.store.upsert_pod(
            pod(f"p{number:02}", created=number, state=ended(1, started=number, finished=number + 1))
        )
    await query_usage(observer, prometheus, KEY, now=now)

    asked = re.search(r'pod=~"([^"]*)"', fake.queries[0]["query"])
    assert asked is not None
    assert asked[1].split("|") == [f"p{number:02}" for number in range(5, MAX_PODS + 5)]
    assert float(fake.queries[0]["time"]) == moment(MAX_PODS + 5 + 1).timestamp()
