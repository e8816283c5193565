"""Every query of the dashboard returns data for a Runway under load."""

from __future__ import annotations

import json
import math
import re
import urllib.parse
from collections.abc import Iterator, Mapping

import httpx2
import pytest

from localcluster import LocalCluster
from localcluster.monitoring import scraping
from testbed.context import Context, Tools
from testbed.http_client import Document, document, shell
from testbed.server import Server
from testbed.waiting import GUARD_SECONDS, wait_for
from tests.cluster.test_diagnosis import job_manifest
from tests.support.panels import Query, dashboard, queries

pytestmark = pytest.mark.cluster

VARIABLES = {
    # Grafana's own: four times the scrape interval, which is 5 s here, and the time that is shown.
    # https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/#use-__rate_interval
    "$__rate_interval": "20s",
    "$__range": "15m",
    "$tenant": ".+",
}
SHOWN_SECONDS, STEP_SECONDS = 120, 5
ONE_GPU = {"cpu": "100m", "memory": "32Mi", "gpu": 1}
SLEEP = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
IGNORE_SIGTERM = "trap '' TERM; echo started; while :; do sleep 1; done"
NOT_LOCAL = re.compile("DCGM|cluster_autoscaler")
# Jobs that Runway would never create: tenant, Job and failure category.
UNMANAGED_JOBS: tuple[tuple[str, Document, str], ...] = (
    ("research", job_manifest({"resources": {"limits": {"cpu": "100m", "memory": "40Gi"}}}, seconds=8), "policy"),
    ("vision", job_manifest({"securityContext": {}}, seconds=8), "runway"),
)


@pytest.fixture(scope="module")
def prometheus(tools: Tools, server: Server, namespaces: Mapping[str, str]) -> Iterator[httpx2.Client]:
    """Return Prometheus after it has scraped a Runway with every event that the dashboard shows."""
    target = urllib.parse.urlsplit(server.url).netloc
    context = Context(tools, show=lambda *_: None)
    with (
        httpx2.Client(base_url=LocalCluster.default().prometheus_url, trust_env=False, timeout=GUARD_SECONDS) as client,
        scraping(target),
    ):
        # Prometheus sees no increase in events before the first scrape.
        wait_for(lambda: ask(client, f'runway_is_writer{{instance="{target}"}} == 1') or None, "the first scrape")
        try:
            generate_load(context, namespaces)
            wait_for(lambda: all_scraped(context, client, target), "all events scraped")
            yield client
        finally:
            context.cancel_jobs()
            for tenant, job, _ in UNMANAGED_JOBS:
                name = job["metadata"]["name"]
                tools.kubernetes.run("delete", "job", name, f"--namespace={namespaces[tenant]}", "--ignore-not-found")


def all_scraped(context: Context, client: httpx2.Client, target: str) -> bool | None:
    """Return True if failures of all categories, requests and records are scraped, else None."""
    document(context.runway.get("/v1/jobs"))
    categories = f'sum by (category) (increase(runway_failures_total{{instance="{target}"}}[15m])) > 0'
    requests = f'rate(runway_http_request_seconds_count{{instance="{target}", route="/v1/jobs"}}[20s]) > 0'
    records = f'rate(runway_records_total{{instance="{target}", outcome="kept"}}[20s]) > 0'
    return (len(ask(client, categories)) == 4 and ask(client, requests) != [] and ask(client, records) != []) or None


def generate_load(context: Context, namespaces: Mapping[str, str]) -> None:
    """Submit jobs that succeed, fail in every category, are cancelled, stay pending, hang, or are rejected."""
    ended = [
        context.submit("vision", shell("sleep 1", resources=ONE_GPU)),
        context.submit("vision", shell("exit 3")),
        context.submit(
            "research", shell("true", pool="large", resources={"cpu": "8", "memory": "32Mi"}, timeout_seconds=8)
        ),
    ]
    for tenant, job, _ in UNMANAGED_JOBS:  # One of them exceeds the quota of its tenant.
        context.kubernetes.run("create", f"--namespace={namespaces[tenant]}", "-f", "-", stdin=json.dumps(job))
    cancelled, stubborn = (
        context.submit("vision", shell(SLEEP)),
        context.submit("vision", shell(IGNORE_SIGTERM, resources=ONE_GPU, grace_period_seconds=20)),
    )
    context.submit("vision", shell(SLEEP, resources=ONE_GPU, timeout_seconds=300))
    context.submit("vision", shell("true", pool="large", resources={"cpu": "8", "memory": "32Mi"}))
    for view in (cancelled, stubborn):
        context.until_log(view["id"], "started")
        context.runway.cancel(view["id"])

    refusals = [context.runway.submit("vision", {"image": "runway.local/busybox:1"})]
    refusals += [context.runway.submit("research", shell("true", resources=ONE_GPU))]
    refusals += [context.try_to_submit("speech", shell("true", resources=ONE_GPU | {"gpu": 3})) for _ in range(8)]
    assert {answer.json()["code"] for answer in refusals} == {"invalid_spec", "quota_exceeded", "rate_limited"}
    for view in ended:
        context.until_finished(view["id"])
    categories = [(context.runway.job(view["id"])["failure"] or {}).get("category") for view in ended]
    assert categories == [None, "user", "infra"]
    for _, job, category in UNMANAGED_JOBS:
        assert context.until_finished(job["metadata"]["name"])["failure"]["category"] == category


@pytest.mark.parametrize("query", queries(), ids=lambda query: str(query.where))
def test_panel_query_returns_data(prometheus: httpx2.Client, query: Query) -> None:
    """Prometheus must accept a query about an exporter that the local cluster does not have."""
    expression = filled_in(query.expression)
    found = ask(prometheus, expression) if query.instant else ask_over_time(prometheus, expression)
    if NOT_LOCAL.search(expression):
        return
    values = [float(value) for series in found for _, value in series.get("values", [series.get("value")])]
    assert any(math.isfinite(value) for value in values), f"{expression}: {found}"


def test_tenant_variable_lists_every_tenant(prometheus: httpx2.Client, context: Context) -> None:
    chosen = [each for each in dashboard()["templating"]["list"] if each["type"] == "query"]
    for variable in chosen:
        # https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert match, variable["query"]
        series, label = match.groups()
        values = document(prometheus.get(f"/api/v1/label/{label}/values", params={"match[]": series}))["data"]
        assert values == sorted(context.runway.policy()["tenants"])
    assert [variable["name"] for variable in chosen] == ["tenant"]


def test_failure_categories_and_rejections_are_distinguished(prometheus: httpx2.Client) -> None:
    categories = ask(prometheus, "sum by (category) (increase(runway_failures_total[15m])) > 0")
    assert {series["metric"]["category"] for series in categories} == {"user", "infra", "policy", "runway"}
    outcomes = ask(prometheus, "sum by (outcome) (runway_submissions_total) > 0")
    assert {series["metric"]["outcome"] for series in outcomes} >= {
        "created",
        "invalid_spec",
        "quota_exceeded",
        "rate_limited",
    }


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"unknown variable in {expression}"
    return expression


def ask(client: httpx2.Client, expression: str) -> list[Document]:
    """Return the result of an instant query. Raises with Prometheus' message if it rejects the query."""
    return list(document(client.get("/api/v1/query", params={"query": expression}))["data"]["result"])


def ask_over_time(client: httpx2.Client, expression: str) -> list[Document]:
    """Return the result of a range query over the displayed time."""
    now = document(client.get("/api/v1/query", params={"query": "time()"}))["data"]["result"][0]
    query: dict[str, str | float] = {
        "query": expression,
        "start": float(now) - SHOWN_SECONDS,
        "end": float(now),
        "step": STEP_SECONDS,
    }
    return list(document(client.get("/api/v1/query_range", params=query))["data"]["result"])
