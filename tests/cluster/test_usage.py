"""Usage of jobs from the kernel's cgroups through cAdvisor and Prometheus."""

from __future__ import annotations

import urllib.parse
import uuid
from collections.abc import Callable, Iterator

import httpx2
import pytest

from localcluster import LocalCluster
from localcluster.component import Component
from localcluster.monitoring import scraping
from runway.jobs.usage import THROTTLED_RATIO
from testbed.context import Context
from testbed.http_client import Document, document, shell
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.support.held_jobs import HeldJob

pytestmark = pytest.mark.cluster

MIB = 1 << 20
MEASURED = ("cpu_seconds", "cpu_cores", "throttled_ratio", "memory_bytes", "memory_peak_bytes", "gpu_utilisation")
BUSY = "while :; do :; done"


@pytest.fixture
def cluster() -> LocalCluster:
    return LocalCluster.default()


@pytest.fixture
def prometheus(cluster: LocalCluster) -> Iterator[Component]:
    """Return the Prometheus component for fault injection, and repair it afterwards."""
    component = cluster.component("prometheus")
    assert component.why_not_healthy() is None
    yield component
    cluster.up()


def usage(context: Context, job_id: str) -> Document:
    return document(context.runway.get(f"/v1/jobs/{job_id}/usage"))


def until_usage(context: Context, job_id: str, done: Callable[[Document], bool], what: str) -> Document:
    # On a busy node, cAdvisor finds a cgroup only by its check once a minute.
    def probe() -> Document | None:
        found = usage(context, job_id)
        return found if done(found) else None

    return wait_for(probe, what)


def test_throttled_job_reports_throttling_while_running_and_finished(context: Context) -> None:
    job_id = context.submit("vision", shell(BUSY, resources={"cpu": "100m", "memory": "32Mi"}))["id"]
    context.until(job_id, lambda view: view["state"] == "running", "running")

    def is_measured(seen: Document) -> bool:
        return (seen["cpu_seconds"] or 0) >= 1 and seen["findings"] != []

    found = until_usage(context, job_id, is_measured, "a CPU second and a finding")
    assert (found["source"], found["problem"]) == ("prometheus", None)
    # On a busy node the loop gets less than its limit, and is throttled less often.
    assert found["throttled_ratio"] >= THROTTLED_RATIO
    assert 0 < found["cpu_cores"] < 0.13
    assert found["cpu_limit_cores"] == 0.1
    assert found["findings"] == [f"throttled in {found['throttled_ratio']:.0%} of its CPU periods: raise resources.cpu"]

    context.runway.cancel(job_id)
    context.until_finished(job_id)
    after = usage(context, job_id)
    assert after["cpu_seconds"] >= found["cpu_seconds"]
    assert after["throttled_ratio"] > 0


def test_hint_of_failed_job_mentions_throttling(context: Context) -> None:
    name = f"busy-{uuid.uuid4().hex}"
    script = f"sh -c '{BUSY}' {name} & wait $!; echo 'not done in time'; exit 3"
    job = HeldJob(script, f"sh\0-c\0{BUSY}\0{name}\0")
    job_id = context.submit("vision", shell(job.script, resources={"cpu": "100m", "memory": "32Mi"}))["id"]
    until_usage(context, job_id, lambda seen: seen["findings"] != [], "a finding")
    job.end()
    context.until_finished(job_id)
    kept = context.until(job_id, lambda view: view["usage"] is not None, "its usage is kept")
    assert kept["failure"]["code"] == "exit_nonzero"
    assert "throttled in " in kept["failure"]["hint"]
    assert float(kept["failure"]["evidence"]["throttled_ratio"]) >= THROTTLED_RATIO


def test_memory_peak_near_limit_is_a_finding(context: Context) -> None:
    # dd keeps its full buffer while no process reads from the pipe.
    script = "dd if=/dev/zero bs=58M count=1 | sleep 600"
    job_id = context.submit("vision", shell(script, resources={"cpu": "500m", "memory": "64Mi"}))["id"]
    found = until_usage(context, job_id, lambda seen: (seen["memory_bytes"] or 0) > 58 * MIB, "58 MiB")

    assert 58 * MIB < found["memory_bytes"] <= found["memory_peak_bytes"] <= found["memory_limit_bytes"] == 64 * MIB
    peak = found["memory_peak_bytes"] / found["memory_limit_bytes"]
    assert found["findings"] == [f"memory peaked at {peak:.0%} of its limit"]


def test_memory_peak_includes_short_spikes_and_excludes_page_cache(context: Context) -> None:
    resources = {"cpu": "500m", "memory": "64Mi"}
    spike = context.submit(
        "vision", shell("dd if=/dev/zero of=/dev/null bs=40M count=1; sleep 600", resources=resources)
    )
    file = context.submit(
        "vision", shell("dd if=/dev/zero of=/tmp/file bs=1M count=40; sleep 600", resources=resources)
    )
    for view in (spike, file):
        context.until_log(view["id"], "records out")

    def is_measured(seen: Document) -> bool:
        # A first sample of 0 is unknown, so the current memory may follow the peak; a sample may also be of the spike.
        return (seen["memory_peak_bytes"] or 0) > 40 * MIB and 0 < (seen["memory_bytes"] or 0) < 10 * MIB

    until_usage(context, spike["id"], is_measured, "the spike, and less memory after it")
    found = until_usage(context, file["id"], lambda seen: seen["memory_peak_bytes"] is not None, "a sample")
    assert found["memory_peak_bytes"] < 20 * MIB
    assert found["findings"] == []


def test_usage_of_unstarted_job_is_null(context: Context) -> None:
    view = context.submit("research", shell("true", pool="large", resources={"cpu": "8", "memory": "32Mi"}))
    found = usage(context, view["id"])

    assert (found["source"], found["problem"]) == ("prometheus", None)
    assert {found[name] for name in MEASURED} == {None}
    assert (found["cpu_limit_cores"], found["memory_limit_bytes"]) == (8.0, 32 * MIB)


@pytest.mark.alone
def test_usage_reports_prometheus_outage_and_samples_survive(
    context: Context, cluster: LocalCluster, prometheus: Component
) -> None:
    job_id = context.submit("vision", shell("sleep 600"))["id"]
    known = until_usage(context, job_id, lambda seen: seen["cpu_seconds"] is not None, "a sample")
    # Every container is throttled at its start; that is not a finding.
    assert known["findings"] == []
    for inject_fault, words in ((prometheus.freeze, "did not answer within 2 s"), (prometheus.kill, "refused")):
        inject_fault()
        found = usage(context, job_id)
        assert words in found["problem"]
        assert {found[name] for name in MEASURED} == {None}
        assert context.runway.job(job_id)["state"] == "running"

    cluster.up()
    found = usage(context, job_id)
    assert found["problem"] is None
    assert found["cpu_seconds"] >= known["cpu_seconds"]


def test_prometheus_scrapes_kubelet_and_listed_runway_targets(cluster: LocalCluster, server: Server) -> None:
    target = urllib.parse.urlsplit(server.url).netloc

    def samples(query: str) -> list[Document] | None:
        url = f"{cluster.prometheus_url}/api/v1/query"
        answer = httpx2.get(url, params={"query": query}, timeout=GUARD_SECONDS, trust_env=False)
        return list(document(answer)["data"]["result"]) or None

    wait_for(lambda: samples('up{job="cadvisor"} == 1'), "the kubelet scraped")
    with scraping(target):
        wait_for(lambda: samples(f'runway_synced{{instance="{target}"}} == 1'), "Runway scraped")


def test_prometheus_account_may_read_only_kubelet_metrics(cluster: LocalCluster) -> None:
    allowed = cluster.kubectl("auth", "can-i", "--list", "--as=runway-prometheus", "--no-headers")
    rules = [line.split() for line in allowed.splitlines()]

    # Every user has the other rules: discovery, and reviews of its own permissions.
    own = {"selfsubjectreviews.authentication.k8s.io", "selfsubjectaccessreviews.authorization.k8s.io"}
    own.add("selfsubjectrulesreviews.authorization.k8s.io")
    assert {words[0] for words in rules if not words[0].startswith("[")} - own == {"nodes/metrics"}
