"""The committed dashboards are those of the source, ask only for what exists, and lead to what is to be done."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from deploy.dashboards import DIRECTORY, rendered
from deploy.export_rules import OBSERVABILITY, rule_file
from tests.support.metric_names import faults, sections
from tests.support.panels import Query, dashboards, panels, queries

ALL = [panel for dashboard in dashboards().values() for panel in panels(dashboard)]
ALERTS = {rule["alert"]: rule["expr"] for group in rule_file()["groups"] for rule in group["rules"]}
WITHOUT_A_PANEL = {"RunwayGpuIdle"}
"""It needs real GPUs, so no query for it could be run against data."""
OWN_THRESHOLDS = {
    "Objects that cannot be read",
    "Memory of the process",
    "CPU of the process",
    "Corrections by a resync, last hour",
    "Defects, last 30 min",
    "Submissions are open",
    "A process may write",
    "All jobs and pods listed",
}
"""Panels whose colours are not those of an alert's comparison."""

Json = dict[str, Any]


@pytest.fixture(params=ALL, ids=lambda panel: str(panel["title"]))
def panel(request: pytest.FixtureRequest) -> Json:
    found: Json = request.param
    return found


def test_what_is_committed_is_what_the_source_makes() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in DIRECTORY.iterdir()}
    assert committed == rendered(), "run `python -m deploy.dashboards` and commit what it writes"


def test_each_is_delivered_to_grafana_as_a_config_map() -> None:
    kustomization = yaml.safe_load((OBSERVABILITY / "kustomization.yaml").read_text())
    assert kustomization["generatorOptions"]["labels"]["grafana_dashboard"] == "1"
    files = [file for made in kustomization["configMapGenerator"] for file in made["files"]]
    assert sorted(files) == sorted(f"{DIRECTORY.name}/{name}" for name in rendered())


@pytest.mark.parametrize("query", queries(), ids=lambda query: str(query.where))
def test_every_query_asks_for_metrics_and_labels_that_exist(query: Query) -> None:
    assert faults(query.expression) == []


def test_a_query_for_what_does_not_exist_is_noticed() -> None:
    assert faults("rate(runway_nosuch_total[5m])") == ["runway_nosuch_total is not exported"]
    assert faults('sum by (queue) (runway_jobs{colour="red"})') == [
        "runway_jobs has no label colour",
        "nothing has a label queue",
    ]


def test_every_panel_says_what_it_shows_and_where_to_read_on(panel: Json) -> None:
    text, _, links = panel["description"].partition("Runbook: ")
    assert len(text) > 30
    anchors = re.findall(r"\]\(https://\S+/docs/runbooks\.md#([\w-]+)\)", links)
    assert anchors, "no runbook"
    assert set(anchors) <= sections("runbooks.md").keys()


def test_every_panel_has_a_unit_a_scale_and_names_for_its_series(panel: Json) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert all(target["legendFormat"] for target in panel["targets"])


def test_red_begins_where_the_alert_does(panel: Json) -> None:
    red = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"] if step["color"] == "red"]
    if panel["title"] in OWN_THRESHOLDS:
        assert red
        return
    limits = {
        float(value) for alert in alerts_of(panel) for value in re.findall(r">=? ([\d.]+)\s", ALERTS[alert] + "\n")
    }
    assert set(red) <= limits


def test_every_alert_has_a_panel() -> None:
    assert {alert for panel in ALL for alert in alerts_of(panel)} == ALERTS.keys() - WITHOUT_A_PANEL


@pytest.mark.parametrize(("name", "dashboard"), dashboards().items(), ids=dashboards())
def test_no_two_panels_are_in_one_place_and_all_ask_the_chosen_source(name: str, dashboard: Json) -> None:
    assert dashboard["uid"] == name
    assert dashboard["templating"]["list"][0]["name"] == "datasource"
    assert len({each["id"] for each in dashboard["panels"]}) == len(dashboard["panels"])
    taken = [
        (x, y)
        for each in dashboard["panels"]
        for x in range(each["gridPos"]["x"], each["gridPos"]["x"] + each["gridPos"]["w"])
        for y in range(each["gridPos"]["y"], each["gridPos"]["y"] + each["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
    for each in panels(dashboard):
        assert {source["uid"] for source in (each["datasource"], *(of["datasource"] for of in each["targets"]))} == {
            "${datasource}"
        }


def test_the_chosen_tenants_are_all_that_the_tenants_dashboard_asks_for() -> None:
    for query in queries():
        if query.where.startswith("runway-tenants"):
            selectors = re.findall(r"runway_\w+(\{[^}]*\})?", query.expression)
            assert all('tenant=~"$tenant"' in selector for selector in selectors), query


def alerts_of(panel: Json) -> list[str]:
    return re.findall(r"\[(Runway\w+)\]", panel["description"])
