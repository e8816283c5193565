"""The rendered chart: values that several objects must agree on, and values that the schema refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from deploy.export_rules import rule_file
from deploy.helm import CHART, VALUES, Helm, HelmFailed, policy_option
from runway import __version__
from runway.cli.main import SHUTDOWN_SECONDS
from runway.kube.server_version import MIN_VERSION
from runway.policy import parse_policy
from runway.tenant_manifests import RUNWAY_USER, render
from testbed.server import CHECKOUT

Json = dict[str, Any]

POLICY = CHECKOUT / "config" / "policy.local.yaml"
LOCAL, EKS = (f"--values={VALUES / name}" for name in ("local.yaml", "eks.example.yaml"))
MONITORING = "--set=serviceMonitor.enabled=true,rules.enabled=true,dashboard.enabled=true"


@pytest.fixture(scope="module")
def helm() -> Helm:
    return Helm()


def rendered(helm: Helm, *options: str, policy: str = policy_option(POLICY)) -> list[Json]:
    return [item for item in yaml.safe_load_all(helm.template(policy, *options)) if item]


def one(objects: list[Json], kind: str, name: str = "runway") -> Json:
    (item,) = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return item


def container(objects: list[Json]) -> Json:
    (only,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return dict(only)


@pytest.mark.parametrize("values", [LOCAL, EKS])
def test_lint_finds_no_fault(helm: Helm, values: str) -> None:
    assert "0 chart(s) failed" in helm.run("lint", "--strict", str(CHART), values, policy_option(POLICY))


def test_chart_has_the_version_of_runway_and_its_minimum_kubernetes() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    assert chart["kubeVersion"] == f">={MIN_VERSION[0]}.{MIN_VERSION[1]}.0-0"


def test_old_kubernetes_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmFailed, match="incompatible with Kubernetes"):
        rendered(helm, "--kube-version=1.29.15")


@pytest.mark.parametrize("as_mapping", [False, True])
def test_policy_arrives_unchanged_in_the_pod_and_in_the_check(helm: Helm, as_mapping: bool, tmp_path: Path) -> None:
    policy = policy_option(POLICY)
    if as_mapping:
        (tmp_path / "values.yaml").write_text(yaml.safe_dump({"policy": yaml.safe_load(POLICY.read_text())}))
        policy = f"--values={tmp_path / 'values.yaml'}"
    objects = rendered(helm, policy=policy)
    for name in ("runway-policy", "runway-policy-check"):
        text = one(objects, "ConfigMap", name)["data"]["policy.yaml"]
        assert parse_policy(text) == parse_policy(POLICY.read_text())
    check = one(objects, "Job", "runway-policy-check")
    assert set(check["metadata"]["annotations"]["helm.sh/hook"].split(",")) == {"pre-install", "pre-upgrade"}
    pod = check["spec"]["template"]["spec"]
    assert pod["containers"][0]["args"] == ["policy", "check", "/etc/runway/policy.yaml"]
    assert pod["containers"][0]["image"] == container(objects)["image"]
    assert pod["automountServiceAccountToken"] is False


def test_changed_policy_changes_the_pod_and_nothing_else_does(helm: Helm, tmp_path: Path) -> None:
    changed = tmp_path / "policy,with a comma.yaml"
    changed.write_text(POLICY.read_text().replace("jobs: 100", "jobs: 99"))
    templates = [
        one(rendered(helm, policy=policy_option(file)), "Deployment")["spec"]["template"]
        for file in (POLICY, POLICY, changed)
    ]
    assert templates[0] == templates[1]
    differing = {key for key in templates[0]["metadata"]["annotations"] if templates[2]["metadata"] != templates[0]}
    assert differing == {"runway.internal/policy-sha256"}
    assert templates[0]["spec"] == templates[2]["spec"]


@pytest.mark.parametrize(("values", "namespace"), [(LOCAL, "default"), (EKS, "runway")])
def test_lease_role_is_in_the_configured_namespace(helm: Helm, values: str, namespace: str) -> None:
    objects = rendered(helm, values)
    environment = {item["name"]: item.get("value") for item in container(objects)["env"]}
    assert environment["RUNWAY_LEASE_NAMESPACE"] == namespace
    for kind in ("Role", "RoleBinding"):
        assert one(objects, kind, "runway-lease")["metadata"]["namespace"] == namespace


def test_name_of_digits_stays_text(helm: Helm) -> None:
    """A namespace may be called 2026; unquoted, YAML reads a number, which Kubernetes refuses."""
    name = "2026"
    values = ("leaseNamespace", "prometheus.namespace", "priorityClass.name")
    objects = rendered(helm, *(f"--set-string={value}={name}" for value in values))
    assert {item["name"]: item.get("value") for item in container(objects)["env"]}["RUNWAY_LEASE_NAMESPACE"] == name
    for kind in ("Role", "RoleBinding"):
        assert one(objects, kind, "runway-lease")["metadata"]["namespace"] == name
    assert one(objects, "PriorityClass", name)
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["priorityClassName"] == name
    peers = [peer for rule in one(objects, "NetworkPolicy")["spec"]["egress"] for peer in rule["to"]]
    assert {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}} in peers


def test_service_account_is_the_one_that_the_tenants_name(helm: Helm) -> None:
    objects = rendered(helm)
    account = one(objects, "ServiceAccount")["metadata"]
    assert f"system:serviceaccount:{account['namespace']}:{account['name']}" == RUNWAY_USER
    assert one(objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == account["name"]
    with pytest.raises(HelmFailed, match="the namespace must be runway"):
        helm.run("template", "runway", str(CHART), policy_option(POLICY), "--namespace=other")


def test_runway_can_read_no_secret_and_jobs_have_no_right_at_all(helm: Helm) -> None:
    tenants = [dict[str, Any](item) for item in render(parse_policy(POLICY.read_text(encoding="utf-8")))]
    objects = [*rendered(helm, MONITORING), *tenants]
    granted = {resource for item in objects for rule in item.get("rules", []) for resource in rule["resources"]}
    assert granted == {"jobs", "pods", "pods/log", "events", "nodes", "leases"}
    subjects = {subject["name"] for item in objects for subject in item.get("subjects", [])}
    assert subjects == {"runway"}


def test_release_contains_no_object_of_a_tenant(helm: Helm) -> None:
    objects = rendered(helm, MONITORING)
    assert "Namespace" not in {item["kind"] for item in objects}
    places = {item["metadata"].get("namespace") for item in objects}
    assert places == {None, "runway"}


def test_graceful_shutdown_fits_into_termination_grace_period(helm: Helm) -> None:
    """Otherwise the kubelet kills a process that still holds the Lease, and the next one waits for its expiry."""
    objects = rendered(helm)
    drain = container(objects)["lifecycle"]["preStop"]["sleep"]["seconds"]
    grace = one(objects, "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    lease = 2 * 2.5
    assert drain + SHUTDOWN_SECONDS + lease < grace


def test_deployment_has_one_replica_and_mounts_no_secret(helm: Helm) -> None:
    spec = one(rendered(helm), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    volumes = spec["template"]["spec"]["volumes"]
    assert [next(iter(volume.keys() - {"name"})) for volume in volumes] == ["configMap"]


def test_pods_satisfy_restricted_pod_security(helm: Helm) -> None:
    objects = rendered(helm)
    for item in (one(objects, "Deployment"), one(objects, "Job", "runway-policy-check")):
        pod = item["spec"]["template"]["spec"]
        assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
        (only,) = pod["containers"]
        assert only["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert only["securityContext"]["allowPrivilegeEscalation"] is False
        assert only["securityContext"]["readOnlyRootFilesystem"] is True


def test_ports_of_service_container_and_network_policy_are_equal(helm: Helm) -> None:
    objects = rendered(helm, MONITORING)
    (port,) = one(objects, "Service")["spec"]["ports"]
    (of_container,) = container(objects)["ports"]
    (ingress,) = one(objects, "NetworkPolicy")["spec"]["ingress"]
    assert port["port"] == of_container["containerPort"] == ingress["ports"][0]["port"] == 8000
    assert port["targetPort"] == of_container["name"]
    (endpoint,) = one(objects, "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]


def test_selectors_match_the_pod_and_not_the_policy_check(helm: Helm) -> None:
    objects = rendered(helm, MONITORING)
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    check = one(objects, "Job", "runway-policy-check")["spec"]["template"]["metadata"]["labels"]
    service, policy, monitor = (one(objects, kind) for kind in ("Service", "NetworkPolicy", "ServiceMonitor"))
    selectors = [service["spec"]["selector"], policy["spec"]["podSelector"]["matchLabels"]]
    assert all(selector.items() <= labels.items() for selector in selectors)
    assert not any(selector.items() <= check.items() for selector in selectors)
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()


def test_only_labelled_and_listed_namespaces_are_clients(helm: Helm) -> None:
    objects = rendered(helm, "--set=networkPolicy.clients={portal,ci}", "--set=networkPolicy.clientCidrs={10.1.0.0/24}")
    (rule,) = one(objects, "NetworkPolicy")["spec"]["ingress"]
    labelled, listed, addresses = rule["from"]
    no_tenant = {"key": "runway.internal/tenant", "operator": "DoesNotExist"}
    assert labelled["namespaceSelector"]["matchExpressions"] == [
        {"key": "runway.internal/client", "operator": "In", "values": ["true"]},
        no_tenant,
    ]
    names, excluded = listed["namespaceSelector"]["matchExpressions"]
    assert (names["values"], excluded) == (["portal", "ci", "monitoring"], no_tenant)
    assert addresses == {"ipBlock": {"cidr": "10.1.0.0/24"}}


@pytest.mark.parametrize(("options", "ports"), [((), {443, 6443}), ((LOCAL,), {443, 6443, 16443})])
def test_egress_reaches_the_api_server_and_of_link_local_only_dns(
    helm: Helm, options: tuple[str, ...], ports: set[int]
) -> None:
    egress = one(rendered(helm, *options), "NetworkPolicy")["spec"]["egress"]
    (outside,) = [rule for rule in egress if "ipBlock" in rule["to"][0]]
    assert {port["port"] for port in outside["ports"]} == ports
    assert outside["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]
    (link_local,) = [rule for rule in egress if {"ipBlock": {"cidr": "169.254.0.0/16"}} in rule["to"]]
    assert {port["port"] for port in link_local["ports"]} == {53}, "only NodeLocal DNSCache"


def test_eks_values_query_the_installed_prometheus(helm: Helm) -> None:
    objects = rendered(helm, EKS)
    environment = {item["name"]: item.get("value") for item in container(objects)["env"]}
    url = urlsplit(str(environment["RUNWAY_PROMETHEUS_URL"]))
    stack = yaml.safe_load((CHECKOUT / "infra/kubernetes/monitoring/kube-prometheus-stack.values.yaml").read_text())
    # https://github.com/prometheus-community/helm-charts/blob/main/charts/kube-prometheus-stack/templates/prometheus/service.yaml
    service, _, namespace = str(url.hostname).partition(".")
    assert service == f"{stack['fullnameOverride']}-prometheus"
    egress = one(objects, "NetworkPolicy")["spec"]["egress"]
    ways = {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in egress
        for peer in rule["to"]
        if "namespaceSelector" in peer
        for port in rule["ports"]
    }
    assert (namespace, url.port) in ways


def test_placement_values_reach_both_pods(helm: Helm) -> None:
    objects = rendered(
        helm,
        EKS,
        '--set-json=tolerations=[{"key": "system", "operator": "Exists"}]',
        "--set=imagePullSecrets[0].name=registry",
    )
    for item in (one(objects, "Deployment"), one(objects, "Job", "runway-policy-check")):
        pod = item["spec"]["template"]["spec"]
        assert pod["nodeSelector"] == {"runway.internal/pool": "system"}
        assert pod["tolerations"] == [{"key": "system", "operator": "Exists"}]
        assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_priority_class_is_created_named_or_left_out(helm: Helm) -> None:
    objects = rendered(helm)
    created = one(objects, "PriorityClass", "runway-control-plane")
    assert created["value"] == 100_000_000
    for options, name in (
        (("--set=priorityClass.create=false,priorityClass.name=mine",), "mine"),
        (("--set=priorityClass.name=",), None),
    ):
        objects = rendered(helm, *options)
        assert "PriorityClass" not in {item["kind"] for item in objects}
        assert one(objects, "Deployment")["spec"]["template"]["spec"].get("priorityClassName") == name


def test_image_is_pinned_by_digest_if_one_is_given(helm: Helm) -> None:
    digest = f"sha256:{'0a' * 32}"
    objects = rendered(helm, f"--set=image.digest={digest}", "--set=image.tag=ignored")
    assert container(objects)["image"] == f"ghcr.io/example-org/runway@{digest}"
    assert container(rendered(helm))["image"] == f"ghcr.io/example-org/runway:{__version__}"


def test_monitoring_objects_are_rendered_only_if_enabled(helm: Helm) -> None:
    kinds = {item["kind"] for item in rendered(helm)}
    assert kinds.isdisjoint({"ServiceMonitor", "PrometheusRule"})
    objects = rendered(helm, MONITORING)
    assert one(objects, "ConfigMap", "runway-dashboard")["metadata"]["labels"]["grafana_dashboard"] == "1"
    groups = one(objects, "PrometheusRule")["spec"]["groups"]
    assert groups == rule_file()["groups"]


def test_runbook_links_of_rules_and_dashboard_are_those_of_the_installation(helm: Helm) -> None:
    base = "https://docs.example.com/runway"
    objects = rendered(helm, MONITORING, f"--set=runbookBaseUrl={base}/")
    groups = one(objects, "PrometheusRule")["spec"]["groups"]
    links = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"]]
    links += re.findall(r"\((https://[^)]*)\)", one(objects, "ConfigMap", "runway-dashboard")["data"]["runway.json"])
    assert links
    assert {link.split("#")[0] for link in links} == {f"{base}/runbooks.md", f"{base}/operations.md"}


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        ("--set=replicas=2", "additional properties 'replicas' not allowed"),
        ("--set=image.pullPolicy=Sometimes", "/image/pullPolicy"),
        ("--set=image.digest=latest", "/image/digest"),
        ("--set=networkPolicy.apiServerPorts={0}", "/networkPolicy/apiServerPorts/0"),
        ("--set=networkPolicy.apiServerPorts={https}", "/networkPolicy/apiServerPorts/0"),
        ("--set=networkPolicy.clients={Portal}", "/networkPolicy/clients/0"),
        ("--set=networkPolicy.clientCidrs={10.1.0.0}", "/networkPolicy/clientCidrs/0"),
        ("--set=networkPolicy.clientCidrs={10.1.0.0/99}", "/networkPolicy/clientCidrs/0"),
        ("--set=prometheus.url=monitoring:9090", "/prometheus/url"),
        ("--set=priorityClass.value=2000000000", "/priorityClass/value"),
        ("--set=nodeSelector.pool=true", "/nodeSelector/pool"),
        ("--set=env[0].name=RUNWAY_POLICY", "/env/0/name"),
        ("--set=runbookBaseUrl=docs", "/runbookBaseUrl"),
        ("--set=runbookBaseUrl=https://docs\\\\runway", "/runbookBaseUrl"),
        ("--set=rules.enabled=maybe", "/rules/enabled"),
        # A key without a value is null, and removes the default.
        ("--set=networkPolicy.enabled=null", "missing property 'enabled'"),
        ("--set=networkPolicy.clients=null", "missing property 'clients'"),
        ("--set=networkPolicy=null", "missing property 'networkPolicy'"),
        ("--set=resources=null", "missing property 'resources'"),
        ("--set=prometheus=null", "missing property 'prometheus'"),
        ("--set=image.repository=null", "missing property 'repository'"),
        ("--set=serviceMonitor.enabled=null", "missing property 'enabled'"),
    ],
)
def test_schema_refuses_invalid_values_and_names_them(helm: Helm, option: str, fault: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        rendered(helm, option)
    assert fault in str(refused.value)


def test_every_fault_of_the_values_is_named_at_once(helm: Helm) -> None:
    with pytest.raises(HelmFailed) as refused:
        rendered(helm, "--set=image.digest=latest,prometheus.port=0,rules.enabled=3")
    assert all(field in str(refused.value) for field in ("/image/digest", "/prometheus/port", "/rules/enabled"))


def test_policy_is_required(helm: Helm) -> None:
    with pytest.raises(HelmFailed, match="the value `policy` is required: --set-file policy=FILE"):
        rendered(helm, policy="--set=policy=")
    with pytest.raises(HelmFailed, match="/policy"):
        rendered(helm, policy="--set-json=policy=[]")
