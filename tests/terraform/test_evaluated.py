"""Validation of variables and values of locals, evaluated by Terraform."""

from __future__ import annotations

import shutil
from ipaddress import IPv4Network
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.support.documented import blocks, environment, played
from tests.terraform.conftest import REQUIRED, Evaluate
from tests.terraform.hcl import MODULE, Module

GPU_POOL = {
    "instance_type": "p5.48xlarge",
    "cpu": 180,
    "memory_gib": 1800,
    "gpus": 8,
    "gpu_type": "h100",
    "max_nodes": 1,
}
ADMIN = REQUIRED["admin_role_arns"][0]


def pools(**changes: Any) -> dict[str, Any]:
    return {"pools": {"h100": {**GPU_POOL, **changes}}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an account that is none": ({"account_id": "1234"}, "account_id"),
    "another partition's region": ({"region": "us-gov-west-1"}, "region"),
    "one zone": ({"availability_zones": ["us-east-1a"]}, "availability_zones"),
    "the same zone twice": ({"availability_zones": ["us-east-1a", "us-east-1a"]}, "availability_zones"),
    "a zone of another region": ({"availability_zones": ["us-east-1a", "eu-west-1a"]}, "availability_zones"),
    "a name with capitals": ({"name": "Runway"}, "name"),
    "public addresses in the VPC": ({"vpc_cidr": "52.0.0.0/16"}, "vpc_cidr"),
    "a VPC that is too small for the plan": ({"vpc_cidr": "10.80.0.0/20"}, "vpc_cidr"),
    "the internet at the private endpoint": ({"api_private_cidrs": ["0.0.0.0/0"]}, "api_private_cidrs"),
    "a public network at the private endpoint": ({"api_private_cidrs": ["52.1.0.0/16"]}, "api_private_cidrs"),
    "the internet at the public endpoint": ({"api_public_cidrs": ["0.0.0.0/0"]}, "api_public_cidrs"),
    "half of the internet at the public endpoint": ({"api_public_cidrs": ["0.0.0.0/1"]}, "api_public_cidrs"),
    "no administrator": ({"admin_role_arns": []}, "admin_role_arns"),
    "a user as administrator": ({"admin_role_arns": ["arn:aws:iam::123456789012:user/a"]}, "admin_role_arns"),
    "an administrator who only reads": ({"viewer_role_arns": [ADMIN]}, "viewer_role_arns"),
    "a patch version": ({"kubernetes_version": "1.35.4"}, "kubernetes_version"),
    "an add-on that is not installed": ({"addon_versions": {"aws-ebs-csi-driver": "v1"}}, "addon_versions"),
    "logs for five days": ({"log_retention_days": 5}, "log_retention_days"),
    "flow logs of everything": ({"flow_log_traffic": "all"}, "flow_log_traffic"),
    "a single system node": (
        {"system_nodes": {"instance_type": "m6i.xlarge", "count": 1, "disk_gib": 100}},
        "system_nodes",
    ),
    "no pool": ({"pools": {}}, "pools"),
    "a pool called system": ({"pools": {"system": GPU_POOL}}, "system"),
    "a pool without a bound": (pools(max_nodes=0), "max_nodes"),
    "a pool that could buy anything": (pools(max_nodes=1000), "max_nodes"),
    "GPUs without a type": (pools(gpu_type=None), "gpu_type"),
    "a type without GPUs": (pools(gpus=0), "gpu_type"),
    "half a GPU": (pools(gpus=0.5), "gpus"),
    "a disk that images alone would fill": (pools(disk_gib=20), "disk_gib"),
    "half a CPU": (pools(cpu=0.5), "cpu"),
    "a local disk that images alone would fill": (pools(local_disk_gib=20), "local_disk_gib"),
    "a pool in a zone without a subnet": (pools(zones=["us-east-1f"]), "zones of a pool"),
    "a pool without a zone": (pools(zones=[]), "zones of a pool"),
    "a repository with capitals": ({"repositories": ["Runway"]}, "repositories"),
    "a bucket with capitals": ({"data_bucket": "Data"}, "data_bucket"),
    "tenants without a bucket": ({"tenants": {"vision": "runway-vision"}}, "tenants"),
    "a tenant with a slash": ({"data_bucket": "acme-data", "tenants": {"a/*": "runway-a"}}, "tenants"),
    "a tenant too long for a role's name": ({"data_bucket": "acme-data", "tenants": {"a" * 26: "runway-a"}}, "tenants"),
    "a namespace with capitals": ({"data_bucket": "acme-data", "tenants": {"a": "Runway"}}, "tenants"),
    "two tenants in one namespace": (
        {"data_bucket": "acme-data", "tenants": {"a": "runway-a", "b": "runway-a"}},
        "tenants",
    ),
    "a budget of nothing": ({"monthly_budget_usd": 0}, "monthly_budget_usd"),
    "an alarm that nobody hears": ({"budget_emails": []}, "budget_emails"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_variable_is_rejected_by_name(case: str, evaluate: Evaluate) -> None:
    variables, named = REFUSED[case]
    refusal = evaluate(**variables).refusal
    assert "Invalid value for variable" in refusal
    assert named in refusal.partition("Invalid value for variable")[2]


def test_every_validated_variable_has_a_rejection_test(module: Module) -> None:
    validated = {name for name, body in module.variables.items() if "validation" in body}
    tried = {name for variables, _ in REFUSED.values() for name in variables}
    assert validated - tried == set()


def test_variables_and_outputs_have_description_and_type(module: Module) -> None:
    assert [name for name, body in module.variables.items() if not {"description", "type"} <= body.keys()] == []
    assert [name for name, body in module.outputs.items() if "description" not in body] == []
    without_default = {name for name, body in module.variables.items() if "default" not in body}
    assert without_default == REQUIRED.keys()


def test_subnets_are_in_vpc_and_do_not_overlap(evaluate: Evaluate) -> None:
    values = evaluate(vpc_cidr="172.20.0.0/16").values
    subnets = [IPv4Network(cidr) for kind in ("private_subnets", "public_subnets") for cidr in values[kind].values()]
    assert len(subnets) == 6
    assert all(subnet.subnet_of(IPv4Network("172.20.0.0/16")) for subnet in subnets)
    assert not any(one.overlaps(other) for one, other in combinations(subnets, 2))


def test_each_zone_has_nat_gateway_unless_single_is_set(evaluate: Evaluate, defaults: dict[str, Any]) -> None:
    assert defaults["nat_zone"] == {f"us-east-1{zone}": f"us-east-1{zone}" for zone in "abc"}
    shared = evaluate(single_nat_gateway=True).values["nat_zone"]
    assert shared == {f"us-east-1{zone}": "us-east-1a" for zone in "abc"}


def test_gpu_pool_has_drivers_and_taint(evaluate: Evaluate) -> None:
    group = evaluate(**pools(spot=True)).values["node_groups"]["h100"]
    assert group["ami_type"] == "AL2023_x86_64_NVIDIA"
    assert group["capacity_type"] == "SPOT"
    assert group["taint"] == {"key": "nvidia.com/gpu", "value": "true"}
    assert group["labels"] == {"runway.internal/pool": "h100", "k8s.amazonaws.com/accelerator": "h100"}


def test_cpu_pool_is_tainted(defaults: dict[str, Any]) -> None:
    group = defaults["node_groups"]["cpu"]
    assert group["ami_type"] == "AL2023_x86_64_STANDARD"
    assert group["capacity_type"] == "ON_DEMAND"
    assert group["taint"] == {"key": "runway.internal/pool", "value": "cpu"}


def test_launch_templates_have_gpu_setup_local_disk_and_disk_throughput(defaults: dict[str, Any]) -> None:
    assert defaults["launch_templates"] == {
        "system": {"disk_gib": 100, "throughput": 125, "gpu": False, "local_disk": False},
        "cpu": {"disk_gib": 200, "throughput": 500, "gpu": False, "local_disk": False},
        "a10g": {"disk_gib": 200, "throughput": 500, "gpu": True, "local_disk": True},
    }


@pytest.mark.parametrize(("max_nodes", "zones"), [(1, None), (2, None), (7, None), (5, ["us-east-1b"])])
def test_pool_has_one_group_per_zone_and_max_nodes_in_all(
    max_nodes: int, zones: list[str] | None, evaluate: Evaluate
) -> None:
    """An Auto Scaling group over several zones ends nodes, and their jobs, to balance the zones."""
    groups = evaluate(**pools(max_nodes=max_nodes, zones=zones)).values["zonal_groups"]
    assert [name for name, group in groups.items() if name != f"h100-{group['zone']}"] == []
    sizes = [group["max_size"] for group in groups.values()]
    assert sum(sizes) == max_nodes
    assert max(sizes) - min(sizes) <= 1
    assert {group["zone"] for group in groups.values()} <= set(zones or ["us-east-1a", "us-east-1b", "us-east-1c"])


def test_autoscaler_tags_describe_nodes_of_empty_groups(defaults: dict[str, Any]) -> None:
    """https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/cloudprovider/aws/README.md"""
    prefix = "k8s.io/cluster-autoscaler/node-template/"
    tags = [tag for tag in defaults["autoscaler_tags"].values() if tag["group"] == "a10g-us-east-1a"]
    assert {tag["key"].removeprefix(prefix): tag["value"] for tag in tags} == {
        "label/runway.internal/pool": "a10g",
        "label/k8s.amazonaws.com/accelerator": "a10g",
        "taint/nvidia.com/gpu": "true:NoSchedule",
        "resources/cpu": "46500m",
        "resources/memory": "165Gi",
        "resources/ephemeral-storage": "2800Gi",
        "resources/nvidia.com/gpu": "4",
    }
    cpu = {tag["key"] for tag in defaults["autoscaler_tags"].values() if tag["group"] == "cpu-us-east-1c"}
    assert f"{prefix}resources/ephemeral-storage" in cpu
    assert f"{prefix}resources/nvidia.com/gpu" not in cpu


def test_tags_respect_aws_length_limits(evaluate: Evaluate) -> None:
    """https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html"""
    tags = evaluate(pools={"p" * 30: GPU_POOL}).values["autoscaler_tags"].values()
    assert max(len(tag["key"]) for tag in tags) <= 128
    assert max(len(tag["value"]) for tag in tags) <= 256


def test_budget_notifies_below_and_above_limit(defaults: dict[str, Any]) -> None:
    alarms = {(alarm["type"], alarm["threshold"]) for alarm in defaults["budget_alarms"].values()}
    assert {("FORECASTED", 100), ("ACTUAL", 80), ("ACTUAL", 100)} <= alarms
    assert len(alarms) <= 5, "AWS takes five notifications a budget"


def test_documented_commands_work_without_provider(tmp_path: Path) -> None:
    """Run the commands with the unchanged examples in a module of only variables and locals."""
    place = tmp_path / "infra" / "terraform"
    place.mkdir(parents=True)
    for name in ("variables.tf", "locals.tf", "terraform.tfvars.example"):
        shutil.copy(MODULE / name, place)
    shutil.copy(MODULE / "backend.hcl.example", place / "backend.hcl")
    alone = environment(TF_CLI_CONFIG_FILE="/dev/null", CHECKPOINT_DISABLE="1")
    readme = "infra/terraform/README.md"
    [making] = blocks(readme, "Init, plan, apply")
    [destroying] = blocks(readme, "Destroy", skip=("kubectl delete",))
    assert "Apply complete!" in played(making, alone, cwd=tmp_path)
    assert "Destroy complete!" in played(destroying, alone, cwd=place)
