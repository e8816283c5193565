"""The committed dashboard: current, with existing metrics and runbook links."""

from __future__ import annotations

import re
from typing import Any

import pytest

from deploy.dashboards import FILE, rendered
from deploy.export_rules import rule_file
from tests.support.metric_names import faults, metric_names, sections
from tests.support.panels import Query, dashboard, panels, queries

ALL = panels()
ALERTS = {rule["alert"]: rule["expr"] for group in rule_file()["groups"] for rule in group["rules"]}
OWN_THRESHOLDS = {
    "Undecodable objects",
    "Process memory",
    "Process CPU",
    "Corrections by a resync, last hour",
    "Internal errors, last 30 min",
    "Submissions are open",
    "Leader can write",
    "Jobs and pods listed",
}
"""Panels whose colours do not come from the comparison of an alert."""
OF_ALL_TENANTS = {"Longest wait", "Error budget burn rate, 1 h", "Error budget burn rate by window"}
FIRST_ROWS = ["Health", "Capacity and cost", "Tenants", "GPUs", "Waiting by reason"]

Json = dict[str, Any]


@pytest.fixture(params=ALL, ids=lambda panel: str(panel["title"]))
def panel(request: pytest.FixtureRequest) -> Json:
    found: Json = request.param
    return found


def test_committed_dashboard_is_current() -> None:
    assert FILE.read_text(encoding="utf-8") == rendered(), "run `python -m deploy.dashboards` and commit the file"


@pytest.mark.parametrize("query", queries(), ids=lambda query: str(query.where))
def test_queries_use_existing_metrics_and_labels(query: Query) -> None:
    assert faults(query.expression) == []


def test_unknown_metrics_and_labels_are_reported() -> None:
    assert faults("rate(runway_nosuch_total[5m])") == ["runway_nosuch_total is not exported"]
    assert faults('sum by (queue) (runway_jobs{colour="red"})') == [
        "runway_jobs has no label colour",
        "nothing has a label queue",
    ]


def test_panel_has_a_description_and_links_to_runbooks(panel: Json) -> None:
    text, _, links = panel["description"].partition("Runbook: ")
    assert text
    anchors = re.findall(r"\]\(https://\S+/docs/runbooks\.md#([\w-]+)\)", links)
    assert anchors, "no runbook"
    assert set(anchors) <= sections("runbooks.md").keys()


def test_panel_has_a_unit_thresholds_and_legends(panel: Json) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"][0]["value"] is None
    assert all(target["legendFormat"] for target in panel["targets"])


def test_red_threshold_is_the_threshold_of_the_alert(panel: Json) -> None:
    red = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"] if step["color"] == "red"]
    if panel["title"] in OWN_THRESHOLDS:
        assert red
        return
    limits = {
        float(value) for alert in alerts_of(panel) for value in re.findall(r">=? ([\d.]+)\s", ALERTS[alert] + "\n")
    }
    assert set(red) <= limits


def test_every_alert_has_a_panel() -> None:
    assert {alert for panel in ALL for alert in alerts_of(panel)} == ALERTS.keys()


def test_rows_answer_the_questions_of_an_operator_first() -> None:
    rows = [each["title"] for each in dashboard()["panels"] if each["type"] == "row"]
    assert rows[: len(FIRST_ROWS)] == FIRST_ROWS


def test_panels_do_not_overlap_and_use_the_selected_data_source() -> None:
    found = dashboard()
    assert found["uid"] == "runway"
    assert [variable["name"] for variable in found["templating"]["list"]] == ["datasource", "tenant"]
    for key in ("id", "title"):
        assert len({each[key] for each in found["panels"]}) == len(found["panels"])
    taken = [
        (x, y)
        for each in found["panels"]
        for x in range(each["gridPos"]["x"], each["gridPos"]["x"] + each["gridPos"]["w"])
        for y in range(each["gridPos"]["y"], each["gridPos"]["y"] + each["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < 24
    for each in ALL:
        assert {source["uid"] for source in (each["datasource"], *(of["datasource"] for of in each["targets"]))} == {
            "${datasource}"
        }


def test_queries_by_tenant_ask_for_the_selected_tenants() -> None:
    by_tenant = {name for name, labels in metric_names().items() if "tenant" in labels}
    for each in ALL:
        for target in each["targets"] if each["title"] not in OF_ALL_TENANTS else ():
            for name, selector in re.findall(r"(runway_\w+)(\{[^}]*\})?", target["expr"]):
                assert name not in by_tenant or 'tenant=~"$tenant"' in selector, target["expr"]


def alerts_of(panel: Json) -> list[str]:
    return re.findall(r"\[(Runway\w+)\]", panel["description"])
