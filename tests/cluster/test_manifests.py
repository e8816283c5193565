"""The API server accepts the manifests of the Terraform cluster and the monitoring objects of the chart."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from deploy.helm import Helm, policy_option
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.server import CHECKOUT
from tests.cluster.conftest import POLICY
from tests.support.operator_kinds import operator_kinds
from tests.support.panels import dashboard

pytestmark = pytest.mark.cluster


def test_api_server_accepts_manifests_of_the_terraform_cluster(kubernetes: Kubectl) -> None:
    """All but `privileged`, which EKS allows and this API server does not (--allow-privileged)."""
    rendered = kubernetes.run("kustomize", str(CHECKOUT / "infra" / "kubernetes"))
    with pytest.raises(KubectlFailed) as refused:
        try_to_apply(kubernetes, rendered)
    assert str(refused.value).count("is invalid") == rendered.count("privileged: true") == 2
    assert str(refused.value).count("privileged: Forbidden: disallowed by cluster policy") == 2
    try_to_apply(kubernetes, rendered.replace("privileged: true", "privileged: false"))


def test_prometheus_operator_crds_accept_monitoring_manifests(kubernetes: Kubectl, helm: Helm) -> None:
    """Use an existing namespace; `runway` exists only while Runway is deployed, and `monitoring` does not."""
    options = ("--show-only=templates/monitoring.yaml", "--set=serviceMonitor.enabled=true,rules.enabled=true")
    chart = helm.template(policy_option(POLICY), *options, "--set=dashboard.enabled=true")
    folder = kubernetes.run("kustomize", str(CHECKOUT / "infra/kubernetes/monitoring"))
    with operator_kinds(kubernetes):
        for rendered in (chart, folder):
            used = re.sub(r"namespace: (runway|monitoring)\n", "namespace: default\n", rendered)
            try_to_apply(kubernetes, used)
            with pytest.raises(KubectlFailed, match="unknown field"):
                try_to_apply(kubernetes, used.replace("  endpoints:", "  endpoint: []\n  endpoints:"))


def test_grafana_dashboard_arrives_unchanged_in_its_config_map(kubernetes: Kubectl, helm: Helm) -> None:
    options = ("--show-only=templates/monitoring.yaml", "--set=dashboard.enabled=true")
    rendered = helm.template(policy_option(POLICY), *options).replace("namespace: runway\n", "namespace: default\n")
    created = json.loads(kubernetes.run("create", "--dry-run=server", "--output=json", "-f", "-", stdin=rendered))
    (content,) = created["data"].values()
    assert json.loads(content) == dashboard()


@pytest.fixture(scope="session")
def helm() -> Helm:
    return Helm()


def try_to_apply(kubernetes: Kubectl, manifests: str) -> None:
    """Apply every object as a server-side dry run, with defaults and admission."""
    output = kubernetes.run("apply", "--dry-run=server", "--filename=-", stdin=manifests)
    objects = [item for item in yaml.safe_load_all(manifests) if item]
    assert output.count("server dry run") == len(output.splitlines()) == len(objects)
