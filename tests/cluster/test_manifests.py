"""The overlays as kubectl renders them: what must be alike in several objects is."""

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
def test_the_policy_is_one_that_runway_starts_with(overlay: str, tmp_path: Path) -> None:
    (config,) = of_kind(manifests.render(overlay), "ConfigMap")
    (tmp_path / "policy.yaml").write_text(config["data"]["policy.yaml"])
    assert load_policy(tmp_path / "policy.yaml").tenants


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_lease_may_be_held_where_it_is_looked_for(overlay: str) -> None:
    rendered = manifests.render(overlay)
    environment = {item["name"]: item.get("value") for item in container(rendered)["env"]}
    for kind in ("Role", "RoleBinding"):
        (item,) = of_kind(rendered, kind)
        assert item["metadata"]["namespace"] == environment["RUNWAY_LEASE_NAMESPACE"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_end_takes_no_longer_than_kubernetes_waits_for_it(overlay: str) -> None:
    """Else the process is killed with its Lease in hand, and the next one waits until that has run out."""
    (deployment,) = of_kind(manifests.render(overlay), "Deployment")
    command = (CHECKOUT / "deploy" / "Dockerfile").read_text()
    requests = int(command.split("--timeout-graceful-shutdown=")[1].split('"')[0])
    drain = next(
        item["value"] for item in container(manifests.render(overlay))["env"] if item["name"] == "RUNWAY_DRAIN_SECONDS"
    )
    lease = 2 * 2.5
    grace = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert float(drain) + requests + lease < grace


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nothing_is_mounted_from_secrets_and_one_process_writes(overlay: str) -> None:
    (deployment,) = of_kind(manifests.render(overlay), "Deployment")
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    assert [next(iter(volume.keys() - {"name"})) for volume in deployment["spec"]["template"]["spec"]["volumes"]] == [
        "configMap"
    ]


def test_a_changed_policy_rolls_the_deployment(kubernetes: Kubectl, tmp_path: Path) -> None:
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


def test_the_api_server_takes_what_the_terraform_cluster_needs(kubernetes: Kubectl) -> None:
    """All but `privileged`, which this API server allows to nobody (--allow-privileged) and EKS's does."""
    rendered = kubernetes.run("kustomize", str(CHECKOUT / "infra" / "kubernetes"))
    with pytest.raises(KubectlFailed) as refused:
        try_to_apply(kubernetes, rendered)
    assert str(refused.value).count("is invalid") == rendered.count("privileged: true") == 2
    assert str(refused.value).count("privileged: Forbidden: disallowed by cluster policy") == 2
    try_to_apply(kubernetes, rendered.replace("privileged: true", "privileged: false"))


@pytest.mark.parametrize("folder", ["deploy/observability", "infra/kubernetes/monitoring"])
def test_the_api_server_takes_what_is_monitored_by_the_operators_own_definitions(
    kubernetes: Kubectl, folder: str
) -> None:
    """In a namespace that is there: `runway` is only while Runway is deployed."""
    rendered = kubernetes.run("kustomize", str(CHECKOUT / folder)).replace(
        "namespace: runway\n", "namespace: default\n"
    )
    with operator_kinds(kubernetes):
        try_to_apply(kubernetes, rendered)
        with pytest.raises(KubectlFailed, match="unknown field"):
            try_to_apply(kubernetes, rendered.replace("  endpoints:", "  endpoint: []\n  endpoints:"))


def try_to_apply(kubernetes: Kubectl, manifests: str) -> None:
    """Have the API server check every object, defaults and admission included, and keep none."""
    told = kubernetes.run("apply", "--dry-run=server", "--filename=-", stdin=manifests, timeout=60)
    assert told.count("server dry run") == len(told.splitlines()) == len(list(yaml.safe_load_all(manifests)))


def of_kind(rendered: str, kind: str) -> list[dict[str, Any]]:
    return [item for item in yaml.safe_load_all(rendered) if item["kind"] == kind]


def container(rendered: str) -> dict[str, Any]:
    (deployment,) = of_kind(rendered, "Deployment")
    (one,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(one)
