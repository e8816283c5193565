"""Security rules of the module: nodes, access, encryption, network, IAM, budget."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from runway.jobs.manifest import SERVICE_ACCOUNT
from tests.terraform.conftest import UserData
from tests.terraform.hcl import Body, Module

EVERYWHERE = {"0.0.0.0/0", "::/0"}
READ_ONLY = re.compile(r"^[a-z0-9]+:(Describe|Get|List)[A-Za-z]+$")


def test_imds_requires_tokens_and_is_unreachable_from_pods(module: Module) -> None:
    for address, template in module.of_type("aws_launch_template").items():
        [options] = template["metadata_options"]
        assert options == {"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1}, (
            address
        )


def test_node_disks_are_encrypted_gp3(module: Module) -> None:
    for address, template in module.of_type("aws_launch_template").items():
        for mapping in template["block_device_mappings"]:
            [disk] = mapping["ebs"]
            assert (disk["encrypted"], disk["volume_type"], disk["delete_on_termination"]) == (True, "gp3", True), (
                address
            )


def test_nodes_have_private_addresses_only(module: Module) -> None:
    groups = module.of_type("aws_eks_node_group")
    assert groups["aws_eks_node_group.system"]["subnet_ids"] == "${[for subnet in aws_subnet.private : subnet.id]}"
    assert groups["aws_eks_node_group.jobs"]["subnet_ids"] == ["${aws_subnet.private[each.value.zone].id}"]
    assert [address for address, group in groups.items() if "remote_access" in group] == []
    assert [name for name, subnet in module.of_type("aws_subnet").items() if subnet["map_public_ip_on_launch"]] == []
    assert all("network_interfaces" not in template for template in module.of_type("aws_launch_template").values())


@pytest.mark.parametrize(("group", "key"), [("system", '"system"'), ("jobs", "each.value.pool")])
def test_every_node_group_uses_its_launch_template(group: str, key: str, module: Module) -> None:
    [used] = module.resources[f"aws_eks_node_group.{group}"]["launch_template"]
    assert used["id"] == f"${{aws_launch_template.node[{key}].id}}"


def test_job_node_groups_start_at_zero_and_are_tainted(module: Module) -> None:
    group = module.resources["aws_eks_node_group.jobs"]
    [scaling], [taint], [lifecycle] = group["scaling_config"], group["taint"], group["lifecycle"]
    assert (scaling["min_size"], scaling["desired_size"]) == (0, 0)
    assert taint["effect"] == "NO_SCHEDULE"
    assert lifecycle["ignore_changes"] == ["${scaling_config[0].desired_size}"], (
        "an apply must not take nodes from jobs"
    )
    assert "taint" not in module.resources["aws_eks_node_group.system"], "CoreDNS tolerates no taint"


def test_control_plane_is_private_logged_and_encrypted(module: Module) -> None:
    cluster = module.the("aws_eks_cluster")
    [network], [access], [encryption] = cluster["vpc_config"], cluster["access_config"], cluster["encryption_config"]
    assert network["endpoint_private_access"] is True
    assert network["endpoint_public_access"] == "${length(var.api_public_cidrs) > 0}"
    assert access == {"authentication_mode": "API", "bootstrap_cluster_creator_admin_permissions": False}
    assert set(cluster["enabled_cluster_log_types"]) == {
        "api", "audit", "authenticator", "controllerManager", "scheduler",
    }  # fmt: skip
    assert encryption["resources"] == ["secrets"]
    assert encryption["provider"] == [{"key_arn": "${aws_kms_key.cluster.arn}"}]


def test_network_policies_are_enforced(module: Module) -> None:
    addon = module.resources["aws_eks_addon.vpc_cni"]
    assert addon["configuration_values"] == '${jsonencode({enableNetworkPolicy = "true"})}'


def test_kms_keys_rotate_and_logs_are_encrypted(module: Module) -> None:
    assert all(key["enable_key_rotation"] is True for key in module.of_type("aws_kms_key").values())
    for address, group in module.of_type("aws_cloudwatch_log_group").items():
        assert group["kms_key_id"] == "${aws_kms_key.logs.arn}", address
        assert group["retention_in_days"] == "${var.log_retention_days}", address


def test_vpc_flow_logs_are_enabled(module: Module) -> None:
    flows = module.the("aws_flow_log")
    assert (flows["vpc_id"], flows["traffic_type"]) == ("${aws_vpc.this.id}", "${var.flow_log_traffic}")


def test_security_groups_have_no_open_ingress(module: Module) -> None:
    rules = module.of_type("aws_vpc_security_group_ingress_rule")
    assert [name for name, rule in rules.items() if EVERYWHERE & {rule.get("cidr_ipv4"), rule.get("cidr_ipv6")}] == []
    assert {rule["from_port"] for rule in rules.values()} == {rule["to_port"] for rule in rules.values()} == {443}
    assert not {"ingress", "egress"} & module.the("aws_default_security_group").keys()
    elsewhere = {"aws_security_group", "aws_security_group_rule", "aws_network_acl_rule"}
    assert [address for address in module.resources if address.split(".")[0] in elsewhere] == []


def test_public_subnets_have_no_load_balancer_tag(module: Module) -> None:
    assert all("kubernetes.io/role/elb" not in subnet["tags"] for subnet in module.of_type("aws_subnet").values())


def test_no_iam_policy_allows_wildcards_on_all_resources(module: Module) -> None:
    """Key policies are exempt: there "*" is the key itself, and each statement names its principal."""
    for address, statement in statements(module):
        assert "not_actions" not in statement, address
        assert "not_resources" not in statement, address
        if "principals" in statement:
            continue
        actions, resources = statement["actions"], statement["resources"]
        assert [action for action in actions if "*" in action] == [], address
        if "*" in resources:
            assert [action for action in actions if not READ_ONLY.match(action)] == [], address


def test_roles_are_assumable_only_by_own_services(module: Module) -> None:
    trusts = [(address, statement) for address, statement in statements(module) if address.endswith("_trust")]
    assert len(trusts) == 4
    for address, statement in trusts:
        [principal] = statement["principals"]
        assert principal["type"] == "Service", address
        checked = {condition["variable"]: condition["values"] for condition in statement.get("condition", [])}
        if principal["identifiers"] != ["ec2.amazonaws.com"]:  # EC2 acts only for the instance's account
            assert checked["aws:SourceAccount"] == ["${var.account_id}"], address


def test_log_key_is_limited_to_own_log_groups(module: Module) -> None:
    [services] = module.data["data.aws_iam_policy_document.key_of_logs"]["statement"]
    [condition] = services["condition"]
    assert condition["variable"] == "kms:EncryptionContext:aws:logs:arn"
    assert all(value.startswith("arn:aws:logs:${var.region}:${var.account_id}:") for value in condition["values"])


def test_autoscaler_may_scale_only_its_own_groups(module: Module) -> None:
    document = module.data["data.aws_iam_policy_document.autoscaler"]
    [writing] = [
        statement for statement in document["statement"] if not all(READ_ONLY.match(a) for a in statement["actions"])
    ]
    [condition] = writing["condition"]
    assert condition["variable"] == "aws:ResourceTag/k8s.io/cluster-autoscaler/${var.name}"
    assert condition["values"] == ["owned"]
    assert set(writing["actions"]) == {
        "autoscaling:SetDesiredCapacity",
        "autoscaling:TerminateInstanceInAutoScalingGroup",
    }


def test_roles_have_only_required_managed_policies(module: Module) -> None:
    attached = module.of_type("aws_iam_role_policy_attachment")
    arns = {address.rpartition(".")[2]: attachment["policy_arn"] for address, attachment in attached.items()}
    assert arns == {
        "cluster": "arn:aws:iam::aws:policy/AmazonEKSClusterPolicy",
        "node": "arn:aws:iam::aws:policy/${each.value}",
        "vpc_cni": "arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy",
    }
    nodes = attached["aws_iam_role_policy_attachment.node"]["for_each"]
    expected = ["AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodePolicy", "AmazonSSMManagedInstanceCore"]
    assert nodes == f"${{toset({json.dumps(expected)})}}"


def test_only_autoscaler_network_and_listed_tenants_have_aws_permissions(module: Module) -> None:
    associations = module.of_type("aws_eks_pod_identity_association")
    holders = {(body["namespace"], body["service_account"]) for body in associations.values()}
    assert holders == {("kube-system", "cluster-autoscaler"), ("${each.value}", SERVICE_ACCOUNT)}
    assert module.resources["aws_eks_pod_identity_association.tenant"]["for_each"] == "${var.tenants}"
    assert module.variables["tenants"]["default"] == {}
    by_addon = [
        body for addon in module.of_type("aws_eks_addon").values() for body in addon.get("pod_identity_association", [])
    ]
    assert [body["service_account"] for body in by_addon] == ["aws-node"]
    assert "aws_iam_openid_connect_provider.this" not in module.resources
    assert [address for address in module.resources if address.startswith(("aws_iam_user", "aws_iam_access_key"))] == []


def test_tenant_role_reaches_only_its_own_prefix(module: Module) -> None:
    document = module.data["data.aws_iam_policy_document.tenant"]
    listing, objects = document["statement"]
    [condition] = listing["condition"]
    assert (document["for_each"], listing["actions"]) == ("${var.tenants}", ["s3:ListBucket"])
    assert (condition["variable"], condition["values"]) == ("s3:prefix", ["${each.key}/*"])
    assert objects["resources"] == ["arn:aws:s3:::${var.data_bucket}/${each.key}/*"]
    assert {action.partition(":")[0] for action in objects["actions"]} == {"s3"}


def test_ecr_images_are_immutable_and_scanned(module: Module) -> None:
    repository = module.the("aws_ecr_repository")
    assert repository["image_tag_mutability"] == "IMMUTABLE"
    assert repository["image_scanning_configuration"] == [{"scan_on_push": True}]
    assert repository["encryption_configuration"] == [{"encryption_type": "KMS"}]
    assert "force_delete" not in repository
    assert module.the("aws_ecr_lifecycle_policy")["for_each"] == "${aws_ecr_repository.this}"


def test_budget_notifies_subscribers(module: Module) -> None:
    budget = module.the("aws_budgets_budget")
    assert (budget["budget_type"], budget["time_unit"]) == ("COST", "MONTHLY")
    [dynamic] = budget["dynamic"]
    assert dynamic["notification"]["for_each"] == "${local.budget_alarms}"
    [content] = dynamic["notification"]["content"]
    assert content["subscriber_email_addresses"] == "${var.budget_emails}"


def test_terraform_state_is_encrypted_and_locked(module: Module) -> None:
    [backend] = [backend for settings in module.settings for backend in settings["backend"]]
    assert backend == {"s3": {"encrypt": True, "use_lockfile": True}}


def test_terraform_uses_only_the_aws_provider(module: Module) -> None:
    """A provider configured from a cluster of the same apply breaks plans."""
    assert module.providers.keys() == {"aws"}
    assert module.providers["aws"]["allowed_account_ids"] == ["${var.account_id}"]
    assert module.modules == {}


@pytest.mark.parametrize("flag", ["envvar-when-unprivileged=false", "as-volume-mounts=true"])
def test_gpu_nodes_ignore_visible_devices_of_containers(flag: str, user_data: UserData) -> None:
    script = user_data(gpu=True, local_disk=False)["text/x-shellscript"]
    assert script.startswith("#!/bin/bash\n")
    assert f"nvidia-ctk config --in-place --set accept-nvidia-visible-devices-{flag}\n" in script


def test_nodes_with_local_disks_use_them(user_data: UserData) -> None:
    """https://awslabs.github.io/amazon-eks-ami/nodeadm/doc/api/"""
    parts = user_data(gpu=True, local_disk=True)
    assert parts.keys() == {"application/node.eks.aws", "text/x-shellscript"}
    config = yaml.safe_load(parts["application/node.eks.aws"])
    assert (config["apiVersion"], config["kind"]) == ("node.eks.aws/v1alpha1", "NodeConfig")
    assert config["spec"] == {"instance": {"localStorage": {"strategy": "RAID0"}}}
    assert user_data(gpu=False, local_disk=True).keys() == {"application/node.eks.aws"}


def test_broken_nodes_are_repaired_one_at_a_time(module: Module) -> None:
    for group in ("system", "jobs"):
        [repair] = module.resources[f"aws_eks_node_group.{group}"]["node_repair_config"]
        assert repair["enabled"] is True
    assert repair["max_parallel_nodes_repaired_count"] == 1
    assert module.resources["aws_eks_addon.node_monitoring"]["addon_name"] == "eks-node-monitoring-agent"


def statements(module: Module) -> list[tuple[str, Body]]:
    documents: dict[str, Any] = module.of_type("aws_iam_policy_document")
    return [(address, statement) for address, document in documents.items() for statement in document["statement"]]
