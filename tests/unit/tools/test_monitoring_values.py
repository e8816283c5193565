"""The values for kube-prometheus-stack: known keys, no secrets, Runway's needs.

The chart is not available here, so no test renders it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import yaml

from deploy.export_rules import rule_file
from testbed.server import CHECKOUT
from tests.support.metric_names import sections

VALUES_FILE = CHECKOUT / "infra" / "kubernetes" / "monitoring" / "kube-prometheus-stack.values.yaml"
VALUES: dict[str, Any] = yaml.safe_load(VALUES_FILE.read_text(encoding="utf-8"))
SYSTEM = {"runway.internal/pool": "system"}

SPEC, KUBELET, ALERTS = "prometheus.prometheusSpec", "kubelet.serviceMonitor", "alertmanager.alertmanagerSpec"
SELECTORS = ("serviceMonitor", "podMonitor", "rule", "probe", "scrapeConfig")
# The keys of the chart's values.yaml at commit 001f3a6d of prometheus-community/helm-charts and of its sub-charts
# (grafana, kube-state-metrics, prometheus-node-exporter). The chart does not define the keys below them.
KNOWN = {
    "fullnameOverride",
    *(f"{name}.enabled" for name in ("kubeControllerManager", "kubeScheduler", "kubeEtcd", "kubeProxy")),
    *(f"defaultRules.rules.{name}" for name in ("etcd", "kubeControllerManager", "kubeProxy")),
    *(f"defaultRules.rules.{name}" for name in ("kubeSchedulerAlerting", "kubeSchedulerRecording")),
    *(f"{SPEC}.{kind}SelectorNilUsesHelmValues" for kind in SELECTORS),
    *(f"{SPEC}.{name}" for name in ("scrapeInterval", "evaluationInterval", "storageSpec", "retention")),
    *(f"{SPEC}.{name}" for name in ("retentionSize", "resources", "nodeSelector")),
    *(f"{KUBELET}.{name}" for name in ("cAdvisor", "cAdvisorInterval", "honorLabels", "trackTimestampsStaleness")),
    f"{KUBELET}.cAdvisorMetricRelabelings",
    *(f"{ALERTS}.{name}" for name in ("storage", "secrets", "resources", "nodeSelector")),
    "alertmanager.config",
    *(f"grafana.{name}" for name in ("fullnameOverride", "resources", "nodeSelector", "grafana.ini")),
    *(f"grafana.admin.{name}" for name in ("existingSecret", "userKey", "passwordKey")),
    "grafana.persistence.enabled",
    *(f"grafana.sidecar.dashboards.{name}" for name in ("enabled", "label", "labelValue", "searchNamespace")),
    *(f"grafana.sidecar.datasources.{name}" for name in ("enabled", "defaultDatasourceEnabled")),
    "prometheusOperator.resources",
    "prometheusOperator.nodeSelector",
    "prometheusOperator.admissionWebhooks.patch.nodeSelector",
    "kube-state-metrics.nodeSelector",
    "prometheus-node-exporter.tolerations",
}


def test_every_value_key_exists_in_chart() -> None:
    assert set(keys(VALUES)) == KNOWN


def test_runway_monitors_are_selected_without_release_label() -> None:
    spec = VALUES["prometheus"]["prometheusSpec"]
    assert {spec[f"{kind}SelectorNilUsesHelmValues"] for kind in SELECTORS} == {False}
    dashboards = VALUES["grafana"]["sidecar"]["dashboards"]
    template = (CHECKOUT / "deploy" / "chart" / "templates" / "monitoring.yaml").read_text()
    assert f'    {dashboards["label"]}: "{dashboards["labelValue"]}"\n' in template
    assert dashboards["searchNamespace"] == "ALL"


def test_series_of_job_usage_are_kept() -> None:
    names = re.findall(r"`(container_\w+)`", sections("operations.md")["prometheus"])
    assert names
    for name, container in itertools.product(names, ("", "job")):
        labels = {"__name__": name, "pod": "rw-a-1", "container": container, "id": "/kubepods.slice/pod1"}
        assert not dropped(labels | {"namespace": "runway-vision", "image": ""}), (name, container)
    assert dropped({"__name__": names[0], "id": "/system.slice/sshd.service"})


def test_values_contain_no_password_and_no_receiver_url() -> None:
    assert "adminPassword" not in VALUES["grafana"]
    assert VALUES["grafana"]["admin"]["existingSecret"] == "runway-grafana"  # pragma: allowlist secret
    for receiver in VALUES["alertmanager"]["config"]["receivers"]:
        for webhook in receiver.get("webhook_configs", []):
            (secret,) = VALUES["alertmanager"]["alertmanagerSpec"]["secrets"]
            assert webhook["url_file"].startswith(f"/etc/alertmanager/secrets/{secret}/")
            assert "url" not in webhook


def test_every_alert_severity_has_a_receiver() -> None:
    config = VALUES["alertmanager"]["config"]
    routes = {route["matchers"][0]: route["receiver"] for route in config["route"]["routes"]}
    severities = {rule["labels"]["severity"] for group in rule_file()["groups"] for rule in group["rules"]}
    assert routes == {"severity = page": "pager", "severity = ticket": "tickets"}
    assert severities == {"page", "ticket"}
    assert {*routes.values(), config["route"]["receiver"]} == {each["name"] for each in config["receivers"]}
    alerts = {rule["alert"] for group in rule_file()["groups"] for rule in group["rules"]}
    for inhibition in config["inhibit_rules"]:
        for matchers in (inhibition["source_matchers"], inhibition["target_matchers"]):
            assert set(re.findall(r"Runway\w+", matchers[0])) < alerts


def test_monitoring_runs_on_system_nodes_without_volumes() -> None:
    operator = VALUES["prometheusOperator"]
    for place in (
        VALUES["prometheus"]["prometheusSpec"],
        VALUES["alertmanager"]["alertmanagerSpec"],
        VALUES["grafana"],
        operator,
        operator["admissionWebhooks"]["patch"],
        VALUES["kube-state-metrics"],
    ):
        assert place["nodeSelector"] == SYSTEM
    assert "volumeClaimTemplate:" not in VALUES_FILE.read_text(encoding="utf-8")
    assert VALUES["grafana"]["persistence"]["enabled"] is False


def keys(values: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the paths of the set values, down to the depth of the chart's keys."""
    for name, value in values.items():
        here = f"{path}{name}"
        if here in KNOWN or not isinstance(value, dict):
            yield here
        else:
            yield from keys(value, f"{here}.")


def dropped(labels: dict[str, str]) -> bool:
    """Return whether the relabelling drops this series of cAdvisor.

    https://prometheus.io/docs/prometheus/latest/configuration/configuration/#relabel_config
    """
    rules = VALUES["kubelet"]["serviceMonitor"]["cAdvisorMetricRelabelings"]
    assert {rule["action"] for rule in rules} == {"drop"}
    return any(
        re.fullmatch(rule["regex"], ";".join(labels.get(name, "") for name in rule["sourceLabels"])) for rule in rules
    )
