"""The values for kube-prometheus-stack: known keys, no secrets, Runway's needs.

The chart is not available here, so no test renders it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest
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
    "defaultRules.disabled",
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
    "prometheus-node-exporter.hostNetwork",
    "prometheus-node-exporter.tolerations",
}
# Of the chart's rules. A name that the chart does not know would disable nothing, without an error.
CHART_ALERTS = {
    *("KubeJobFailed", "KubeJobNotCompleted", "KubeContainerWaiting", "KubeQuotaAlmostFull", "KubeQuotaFullyUsed"),
    *("KubeCPUOvercommit", "KubeMemoryOvercommit", "KubeCPUQuotaOvercommit", "KubeMemoryQuotaOvercommit"),
    *("CPUThrottlingHigh", "NodeCPUHighUsage", "NodeSystemSaturation", "NodeMemoryHighUtilization"),
    *("NodeMemoryMajorPagesFaults", "NodeDiskIOSaturation", "NodeRAIDDegraded", "KubeNodeNotReady", "Watchdog"),
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
    """tests/observability sends alerts through the routing."""
    config = VALUES["alertmanager"]["config"]
    routes = {route["matchers"][0]: route["receiver"] for route in config["route"]["routes"]}
    severities = {rule["labels"]["severity"] for group in rule_file()["groups"] for rule in group["rules"]}
    assert routes == {
        "alertname = Watchdog": "heartbeat",
        'severity =~ "page|critical"': "pager",
        'severity =~ "ticket|warning"': "tickets",
    }
    assert severities == {"page", "ticket"}
    assert {*routes.values(), config["route"]["receiver"]} == {each["name"] for each in config["receivers"]}


def test_inhibit_rules_name_existing_alerts() -> None:
    alerts = {rule["alert"] for group in rule_file()["groups"] for rule in group["rules"]}
    for inhibition in VALUES["alertmanager"]["config"]["inhibit_rules"]:
        for matchers in (inhibition["source_matchers"], inhibition["target_matchers"]):
            assert set(re.findall(r"Runway\w+", matchers[0])) <= alerts


def test_chart_alerts_that_are_normal_for_batch_jobs_are_disabled() -> None:
    disabled = VALUES["defaultRules"]["disabled"]
    assert set(disabled.values()) == {True}
    assert disabled.keys() == CHART_ALERTS - {"NodeRAIDDegraded", "KubeNodeNotReady", "Watchdog"}


Pod = tuple[str, dict[str, str]]
"""A pod's namespace and labels."""
JOB: Pod = ("runway-vision", {"app.kubernetes.io/name": "prometheus"})
OTHER: Pod = ("default", {})
RUNWAY: Pod = ("runway", {"app.kubernetes.io/name": "runway"})
PROMETHEUS: Pod = ("monitoring", {"app.kubernetes.io/name": "prometheus"})
OPERATOR: Pod = ("monitoring", {"app": "kube-prometheus-stack-operator"})
SERVICES: dict[str, tuple[Pod, int]] = {
    "alertmanager": (("monitoring", {"app.kubernetes.io/name": "alertmanager"}), 9093),
    "prometheus": (PROMETHEUS, 9090),
    "grafana": (("monitoring", {"app.kubernetes.io/name": "grafana"}), 3000),
    "kube-state-metrics": (("monitoring", {"app.kubernetes.io/name": "kube-state-metrics"}), 8080),
    "node-exporter": (("monitoring", {"app.kubernetes.io/name": "prometheus-node-exporter"}), 9100),
    "dcgm-exporter": (("kube-system", {"app.kubernetes.io/name": "dcgm-exporter"}), 9400),
    "cluster-autoscaler": (("kube-system", {"app.kubernetes.io/name": "cluster-autoscaler"}), 8085),
}


@pytest.mark.parametrize("service", SERVICES)
def test_jobs_reach_no_part_of_the_monitoring(service: str) -> None:
    to, port = SERVICES[service]
    assert not is_allowed(JOB, to, port)
    assert not is_allowed(OTHER, to, port)
    assert is_allowed(PROMETHEUS, to, port)
    assert VALUES["prometheus-node-exporter"]["hostNetwork"] is False, "a policy does not apply to the host's network"


def test_runway_reaches_prometheus_only_and_the_api_server_the_operator() -> None:
    reached = {name for name, (to, port) in SERVICES.items() if is_allowed(RUNWAY, to, port)}
    assert reached == {"prometheus"}
    assert not is_allowed(RUNWAY, PROMETHEUS, 8080)
    assert is_allowed(("", {}), OPERATOR, 10250)
    assert not is_allowed(("", {}), OPERATOR, 9090)


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


POLICIES = list(yaml.safe_load_all(VALUES_FILE.with_name("network-policy.yaml").read_text(encoding="utf-8")))


def is_allowed(source: Pod, to: Pod, port: int) -> bool:
    """Return whether the policies admit a connection.

    https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    (namespace, labels) = to
    policies = [
        policy["spec"]
        for policy in POLICIES
        if policy["metadata"]["namespace"] == namespace and selects(policy["spec"]["podSelector"], labels)
    ]
    return not policies or any(
        ("ports" not in rule or port in {each["port"] for each in rule["ports"]})
        and ("from" not in rule or any(is_peer(peer, source, namespace) for peer in rule["from"]))
        for policy in policies
        for rule in policy["ingress"]
    )


def is_peer(peer: dict[str, Any], source: Pod, namespace: str) -> bool:
    (name, labels) = source
    within = {"kubernetes.io/metadata.name": name}
    selector = peer.get("namespaceSelector", {"matchLabels": {"kubernetes.io/metadata.name": namespace}})
    return selects(selector, within) and selects(peer.get("podSelector", {}), labels)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    expressions = selector.get("matchExpressions", [])
    assert {each["operator"] for each in expressions} <= {"In"}
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in expressions
    )
