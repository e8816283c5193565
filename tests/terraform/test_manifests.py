"""infra/kubernetes matches the nodes, names and versions of the Terraform module."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
import yaml

from runway.policy import load_policy
from tests.terraform.hcl import CHECKOUT, Module
from tests.terraform.test_policy import EXAMPLE, NOMINAL

DIRECTORY = CHECKOUT / "infra" / "kubernetes"
PINNED = re.compile(r"^[a-z0-9.-]+\.[a-z]+/[a-z0-9/-]+:v?[0-9]+\.[0-9]+\.[0-9]+[-a-z0-9.]*$")
DAEMONS = ("nvidia-device-plugin", "dcgm-exporter")

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def manifests() -> dict[tuple[str, str], Manifest]:
    """Return every object of the kustomization by kind and name."""
    kustomization = yaml.safe_load((DIRECTORY / "kustomization.yaml").read_text(encoding="utf-8"))
    found = [
        manifest
        for name in kustomization["resources"]
        for manifest in yaml.safe_load_all((DIRECTORY / name).read_text(encoding="utf-8"))
    ]
    return {(manifest["kind"], manifest["metadata"]["name"]): manifest for manifest in found}


def test_every_manifest_file_is_in_kustomization() -> None:
    for directory in (DIRECTORY, DIRECTORY / "monitoring"):
        # Values files are input for Helm.
        files = {path.name for path in directory.glob("*.yaml") if not path.name.endswith(".values.yaml")}
        files -= {"kustomization.yaml"}
        assert set(yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]) == files


def test_images_are_pinned_to_versions(manifests: dict[tuple[str, str], Manifest]) -> None:
    images = [container(manifest)["image"] for manifest in manifests.values() if "template" in manifest.get("spec", {})]
    assert len(images) == 3
    assert [image for image in images if not PINNED.match(image)] == []


@pytest.mark.parametrize("name", DAEMONS)
def test_gpu_daemons_run_on_every_gpu_node(
    name: str, manifests: dict[tuple[str, str], Manifest], defaults: dict[str, Any]
) -> None:
    pod = manifests["DaemonSet", name]["spec"]["template"]["spec"]
    [term] = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    [expression] = term["matchExpressions"]
    assert expression["operator"] == "Exists"
    tolerated = [(toleration["key"], toleration["operator"], toleration["effect"]) for toleration in pod["tolerations"]]
    for group in defaults["node_groups"].values():
        assert (expression["key"] in group["labels"]) == group["gpu"]
        assert ((group["taint"]["key"], "Exists", "NoSchedule") in tolerated) == group["gpu"]


def test_device_plugin_passes_gpus_as_volume_mounts(manifests: dict[tuple[str, str], Manifest]) -> None:
    environment = variables(manifests["DaemonSet", "nvidia-device-plugin"])
    assert environment["DEVICE_LIST_STRATEGY"] == "volume-mounts"


def test_autoscaler_matches_cluster_version_name_region_and_role(
    manifests: dict[tuple[str, str], Manifest], module: Module
) -> None:
    autoscaler = manifests["Deployment", "cluster-autoscaler"]
    default = {name: body.get("default") for name, body in module.variables.items()}
    assert container(autoscaler)["image"].rpartition(":")[2].startswith(f"v{default['kubernetes_version']}.")
    assert flags(autoscaler)["node-group-auto-discovery"].endswith(f"k8s.io/cluster-autoscaler/{default['name']}")
    assert variables(autoscaler)["AWS_REGION"] == default["region"]

    association = module.resources["aws_eks_pod_identity_association.autoscaler"]
    assert autoscaler["metadata"]["namespace"] == association["namespace"]
    assert autoscaler["spec"]["template"]["spec"]["serviceAccountName"] == association["service_account"]


def test_autoscaler_runs_on_system_nodes(
    manifests: dict[tuple[str, str], Manifest], module: Module, defaults: dict[str, Any]
) -> None:
    selector = manifests["Deployment", "cluster-autoscaler"]["spec"]["template"]["spec"]["nodeSelector"]
    assert selector == {defaults["pool_label"]: "system"}
    assert module.resources["aws_eks_node_group.system"]["labels"] == {"${(local.pool_label)}": "system"}


def test_autoscaler_keeps_nodes_with_running_jobs(manifests: dict[tuple[str, str], Manifest]) -> None:
    """Scale-down considers only nodes below the threshold; the smallest job on the largest node is above it.

    https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md#how-does-scale-down-work
    """
    given = flags(manifests["Deployment", "cluster-autoscaler"])
    smallest = load_policy(EXAMPLE).limits.cpu.min
    largest = max(cpus * 1000 for cpus, _, _ in NOMINAL.values())
    threshold = Decimal(given["scale-down-utilization-threshold"])
    assert 0 < threshold < Decimal(smallest) / largest
    assert 0 < Decimal(given["scale-down-gpu-utilization-threshold"]) < Decimal(1) / 16
    assert given["ignore-daemonsets-utilization"] == "true"


def test_autoscaler_role_has_no_secrets_and_no_wildcards(manifests: dict[tuple[str, str], Manifest]) -> None:
    for kind in ("ClusterRole", "Role"):
        for rule in manifests[kind, "cluster-autoscaler"]["rules"]:
            assert "secrets" not in rule["resources"]
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def monitoring(file: str) -> dict[str, Manifest]:
    path = DIRECTORY / "monitoring" / file
    return {manifest["kind"]: manifest for manifest in yaml.safe_load_all(path.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("name", ["dcgm-exporter", "cluster-autoscaler"])
def test_prometheus_finds_the_port_of_the_exporter(name: str, manifests: dict[tuple[str, str], Manifest]) -> None:
    found = monitoring(f"{name}.yaml")
    monitor, service = found["ServiceMonitor"], found.get("Service") or manifests["Service", name]
    assert monitor["metadata"]["namespace"] == service["metadata"]["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    [workload] = [
        each for (kind, own), each in manifests.items() if own == name and kind in {"Deployment", "DaemonSet"}
    ]
    assert service["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
    [endpoint], [port] = monitor["spec"]["endpoints"], container(workload)["ports"]
    assert [each["targetPort"] for each in service["spec"]["ports"] if each["name"] == endpoint["port"]] == [
        port["name"]
    ]


def test_exporter_scrape_keeps_original_labels() -> None:
    [endpoint] = monitoring("dcgm-exporter.yaml")["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["honorLabels"] is True, "the pod that holds the GPU, not the exporter's own"


def container(manifest: Manifest) -> Manifest:
    [only] = manifest["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def variables(manifest: Manifest) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container(manifest)["env"] if "value" in variable}


def flags(manifest: Manifest) -> dict[str, str]:
    given = [flag.removeprefix("--").partition("=") for flag in container(manifest)["command"] if flag.startswith("--")]
    return {name: value for name, _, value in given}
