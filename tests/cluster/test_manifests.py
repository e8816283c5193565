"""The rendered kustomize overlays: values that several objects must agree on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import manifests
from runway.policy import load_policy
from testbed.kubectl import Kubectl, KubectlFailed
from testbed.server import CHECKOUT
from tests.support.operator_kinds import operator_kinds

pytestmark = pytest.mark.cluster

OVERLAYS = ("local", "eks")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_policy_loads(overlay: str, tmp_path: Path) -> None:
    (config,) = of_kind(manifests.render(overlay), "ConfigMap")
    (tmp_path / "policy.yaml").write_text(config["data"]["policy.yaml"])
    assert load_policy(tmp_path / "policy.yaml").tenants


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_lease_role_is_in_configured_lease_namespace(overlay: str) -> None:
    rendered = manifests.render(overlay)
    environment = {item["name"]: item.get("value") for item in container(rendered)["env"]}
    for kind in ("Role", "RoleBinding"):
        (item,) = of_kind(rendered, kind)
        assert item["metadata"]["namespace"] == environment["RUNWAY_LEASE_NAMESPACE"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_graceful_shutdown_fits_into_termination_grace_period(overlay: str) -> None:
    """Otherwise the kubelet kills a process that still holds the Lease, and the next one waits for its expiry."""
    (deployment,) = of_kind(manifests.render(overlay), "Deployment")
    command = (CHECKOUT / "deploy" / "Dockerfile").read_text()
    requests = int(command.split("--timeout-graceful-shutdown=")[1].split('"')[0])
    drain = container(manifests.render(overlay))["lifecycle"]["preStop"]["sleep"]["seconds"]
    lease = 2 * 2.5
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert drain + requests + lease < grace


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_deployment_mounts_no_secrets_and_has_one_replica(overlay: str) -> None:
    (deployment,) = of_kind(manifests.render(overlay), "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert [next(iter(volume.keys() - {"name"})) for volume in deployment["spec"]["template"]["spec"]["volumes"]] == [
        "configMap"
    ]


def test_changed_policy_rolls_the_deployment(kubernetes: Kubectl, tmp_path: Path) -> None:
    for folder in ("config", "deploy/kustomize"):
        shutil.copytree(CHECKOUT / folder, tmp_path / folder)
    overlay = str(tmp_path / "deploy/kustomize/overlays/local")
    policy = tmp_path / "config/policy.local.yaml"
    render = ("kustomize", "--load-restrictor=LoadRestrictionsNone", overlay)
    before = of_kind(kubernetes.run(*render), "Deployment")
    assert of_kind(kubernetes.run(*render), "Deployment") == before
    policy.write_text(policy.read_text().replace("jobs: 100", "jobs: 99"))
    (after,) = of_kind(kubernetes.run(*render), "Deployment")

    assert after["spec"]["template"] != before[0]["spec"]["template"]
    (config,) = of_kind(kubernetes.run(*render), "ConfigMap")
    assert after["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == config["metadata"]["name"]


def test_api_server_accepts_manifests_of_the_terraform_cluster(kubernetes: Kubectl) -> None:
    """All but `privileged`, which EKS allows and this API server does not (--allow-privileged)."""
    rendered = kubernetes.run("kustomize", str(CHECKOUT / "infra" / "kubernetes"))
    with pytest.raises(KubectlFailed) as refused:
        try_to_apply(kubernetes, rendered)
    assert str(refused.value).count("is invalid") == rendered.count("privileged: true") == 2
    assert str(refused.value).count("privileged: Forbidden: disallowed by cluster policy") == 2
    try_to_apply(kubernetes, rendered.replace("privileged: true", "privileged: false"))


@pytest.mark.parametrize("folder", ["deploy/observability", "infra/kubernetes/monitoring"])
def test_prometheus_operator_crds_accept_monitoring_manifests(kubernetes: Kubectl, folder: str) -> None:
    """Use an existing namespace; `runway` exists only while Runway is deployed."""
    rendered = kubernetes.run("kustomize", str(CHECKOUT / folder)).replace(
        "namespace: runway\n", "namespace: default\n"
    )
    with operator_kinds(kubernetes):
        try_to_apply(kubernetes, rendered)
        with pytest.raises(KubectlFailed, match="unknown field"):
            try_to_apply(kubernetes, rendered.replace("  endpoints:", "  endpoint: []\n  endpoints:"))


def try_to_apply(kubernetes: Kubectl, manifests: str) -> None:
    """Apply every object as a server-side dry run, with defaults and admission."""
    output = kubernetes.run("apply", "--dry-run=server", "--filename=-", stdin=manifests, timeout=60)
    assert output.count("server dry run") == len(output.splitlines()) == len(list(yaml.safe_load_all(manifests)))


def of_kind(rendered: str, kind: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(rendered) if item["kind"] == kind]


def container(rendered: str) -> dict[str, Any]:
    (deployment,) = of_kind(rendered, "Deployment")
    (one,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(one)
