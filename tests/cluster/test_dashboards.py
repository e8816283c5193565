"""Every query of the dashboard returns data from the Prometheus that scrapes a Runway in use."""

from __future__ import annotations

import json
import math
import re
import urllib.parse
from collections.abc import Iterator, Mapping

import httpx2
import pytest
import yaml

from localcluster import LocalCluster
from localcluster.monitoring import scraping
from testbed.context import Context, Tools
from testbed.http_client import Document, document, shell
from testbed.kubectl import Kubectl
from testbed.server import CHECKOUT, Server
from testbed.waiting import wait_for
from tests.cluster.test_diagnosis import by_hand
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
ON_A_GPU = {"cpu": "100m", "memory": "32Mi", "gpu": 1}
STAY = "trap 'exit 0' TERM; echo started; sleep 600 & wait"
STUBBORN = "trap '' TERM; echo started; while :; do sleep 1; done"
# Jobs that no manifest of Runway could be: each tenant, Job and the category of its failure.
BY_HAND: tuple[tuple[str, Document, str], ...] = (
    ("research", by_hand({"resources": {"limits": {"cpu": "100m", "memory": "40Gi"}}}, seconds=8), "policy"),
    ("vision", by_hand({"securityContext": {}}, seconds=8), "runway"),
)


@pytest.fixture(scope="module")
def prometheus(tools: Tools, server: Server, namespaces: Mapping[str, str]) -> Iterator[httpx2.Client]:
    """Prometheus, once it has scraped a Runway in which everything happens that a dashboard shows."""
    target = urllib.parse.urlsplit(server.url).netloc
    context = Context(tools, show=lambda *_: None)
    with (
        httpx2.Client(base_url=LocalCluster.default().prometheus_url, trust_env=False, timeout=30) as client,
        scraping(target),
    ):
        # What happens before the first scrape is no increase to Prometheus.
        wait_for(lambda: ask(client, f'runway_is_writer{{instance="{target}"}} == 1') or None, "the first scrape", 30)
        try:
            use(context, namespaces)
            wait_for(lambda: all_scraped(context, client, target), "all that happened has been scraped", 60)
            yield client
        finally:
            context.cancel_jobs()
            for tenant, job, _ in BY_HAND:
                name = job["metadata"]["name"]
                tools.kubernetes.run("delete", "job", name, f"--namespace={namespaces[tenant]}", "--ignore-not-found")


def all_scraped(context: Context, client: httpx2.Client, target: str) -> bool | None:
    """Whether failures of all categories are known, and requests too: a series of those begins with the first."""
    document(context.runway.get("/v1/jobs"))
    categories = f'sum by (category) (increase(runway_failures_total{{instance="{target}"}}[15m])) > 0'
    requests = f'rate(runway_http_request_seconds_count{{instance="{target}", route="/v1/jobs"}}[20s]) > 0'
    records = f'rate(runway_records_total{{instance="{target}", outcome="kept"}}[20s]) > 0'
    return (len(ask(client, categories)) == 4 and ask(client, requests) != [] and ask(client, records) != []) or None


def use(context: Context, namespaces: Mapping[str, str]) -> None:
    """Jobs that succeed, fail for each kind of reason, are cancelled, wait, hang, are refused in every way."""
    for tenant, job, _ in BY_HAND:
        context.kubernetes.run("create", f"--namespace={namespaces[tenant]}", "-f", "-", stdin=json.dumps(job))
    ended = [
        context.submit("vision", shell("sleep 1", resources=ON_A_GPU)),
        context.submit("vision", shell("exit 3")),
        context.submit("research", shell("true", resources={"cpu": "8", "memory": "32Mi"}, timeout_seconds=8)),
    ]
    cancelled, stubborn = (
        context.submit("vision", shell(STAY)),
        context.submit("vision", shell(STUBBORN, resources=ON_A_GPU, grace_period_seconds=20)),
    )
    context.submit("vision", shell(STAY, resources=ON_A_GPU, timeout_seconds=300))
    context.submit("vision", shell("true", resources={"cpu": "8", "memory": "32Mi"}))
    for view in (cancelled, stubborn):
        context.until_log(view["id"], "started")
        context.runway.cancel(view["id"])

    refusals = [context.runway.submit("vision", {"image": "runway.local/busybox:1"})]
    refusals += [context.runway.submit("research", shell("true", resources=ON_A_GPU))]
    refusals += [context.try_to_submit("speech", shell("true", resources=ON_A_GPU | {"gpu": 3})) for _ in range(8)]
    assert {answer.json()["code"] for answer in refusals} == {"invalid_spec", "quota_exceeded", "rate_limited"}
    for view in ended:
        context.until_finished(view["id"])
    categories = [(context.runway.job(view["id"])["failure"] or {}).get("category") for view in ended]
    assert categories == [None, "user", "infra"]
    for _, job, category in BY_HAND:
        assert context.until_finished(job["metadata"]["name"])["failure"]["category"] == category


@pytest.mark.parametrize("query", queries(), ids=lambda query: str(query.where))
def test_no_query_of_a_panel_is_empty_or_an_error(prometheus: httpx2.Client, query: Query) -> None:
    expression = filled_in(query.expression)
    found = ask(prometheus, expression) if query.instant else ask_over_time(prometheus, expression)
    values = [float(value) for series in found for _, value in series.get("values", [series.get("value")])]
    assert any(math.isfinite(value) for value in values), f"{expression}: {found}"


def test_the_tenant_to_choose_is_every_tenant(prometheus: httpx2.Client, context: Context) -> None:
    chosen = [each for each in dashboard()["templating"]["list"] if each["type"] == "query"]
    for variable in chosen:
        # https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/
        match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert match, variable["query"]
        series, label = match.groups()
        values = document(prometheus.get(f"/api/v1/label/{label}/values", params={"match[]": series}))["data"]
        assert values == sorted(context.runway.policy()["tenants"])
    assert [variable["name"] for variable in chosen] == ["tenant"]


def test_failures_of_every_category_and_each_refusal_are_told_apart(prometheus: httpx2.Client) -> None:
    categories = ask(prometheus, "sum by (category) (increase(runway_failures_total[15m])) > 0")
    assert {series["metric"]["category"] for series in categories} == {"user", "infra", "policy", "runway"}
    outcomes = ask(prometheus, "sum by (outcome) (runway_submissions_total) > 0")
    assert {series["metric"]["outcome"] for series in outcomes} >= {
        "created",
        "invalid_spec",
        "quota_exceeded",
        "rate_limited",
    }


def test_api_server_accepts_the_dashboard_as_a_config_map_with_the_label_of_grafana(kubernetes: Kubectl) -> None:
    made = yaml.safe_load_all(kubernetes.run("kustomize", str(CHECKOUT / "deploy" / "observability")))
    [config_map] = [manifest for manifest in made if manifest["kind"] == "ConfigMap"]
    # The namespace of Runway need not exist for a dry run in another one.
    config_map["metadata"]["namespace"] = "default"
    created = json.loads(
        kubernetes.run("create", "--dry-run=server", "--output=json", "-f", "-", stdin=json.dumps(config_map))
    )
    assert created["metadata"]["labels"]["grafana_dashboard"] == "1"
    (content,) = created["data"].values()
    assert json.loads(content) == dashboard()


def filled_in(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"a variable that the test does not know: {expression}"
    return expression


def ask(client: httpx2.Client, expression: str) -> list[Document]:
    """What Prometheus answers for now. Raises with its message where it refuses the query."""
    return list(document(client.get("/api/v1/query", params={"query": expression}))["data"]["result"])


def ask_over_time(client: httpx2.Client, expression: str) -> list[Document]:
    """What Prometheus answers for the time that is shown."""
    now = document(client.get("/api/v1/query", params={"query": "time()"}))["data"]["result"][0]
    query: dict[str, str | float] = {
        "query": expression,
        "start": float(now) - SHOWN_SECONDS,
        "end": float(now),
        "step": STEP_SECONDS,
    }
    return list(document(client.get("/api/v1/query_range", params=query))["data"]["result"])
