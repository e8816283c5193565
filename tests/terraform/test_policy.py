"""The example policy matches the node groups of the Terraform module."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from typing import Any

import hcl2
import pytest
import yaml

from runway.policy import Policy, Pool, load_policy
from runway.quantity import parse_bytes, parse_cpu
from testbed.waiting import GUARD_SECONDS
from tests.terraform.hcl import CHECKOUT, MODULE, Module, plain

EXAMPLE = CHECKOUT / "config" / "policy.eks.example.yaml"
GIB = 1 << 30
MIB = 1 << 20
# Requests of the add-ons' own DaemonSets (CNI with its policy agent, pod identity, node monitoring), rounded up.
EKS_DAEMON_MILLICPU = 250
EKS_DAEMON_MEMORY = 256 * MIB
KUBE_PROXY_MILLICPU = 100
"""The autoscaler adds a kube-proxy pod of its own to every simulated node."""

# vCPUs, GiB and maximum pods of the instance types: https://aws.amazon.com/ec2/instance-types/ and
# https://github.com/awslabs/amazon-eks-ami/blob/main/templates/shared/runtime/eni-max-pods.txt
NOMINAL = {"m6i.4xlarge": (16, 64, 234), "g5.12xlarge": (48, 192, 737)}


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(EXAMPLE)


def test_policy_check_accepts_eks_example() -> None:
    command = [sys.executable, "-c", "from runway.cli.main import main; main()", "policy", "check", str(EXAMPLE)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=GUARD_SECONDS, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "g5.12xlarge" in checked.stdout


def test_policy_pools_match_node_groups(policy: Policy, defaults: dict[str, Any]) -> None:
    assert {name: node_group_of(pool) for name, pool in policy.pools.items()} == defaults["policy_pools"]


@pytest.mark.parametrize("name", ["cpu", "a10g"])
def test_job_pod_schedules_only_on_nodes_of_its_pool(name: str, policy: Policy, defaults: dict[str, Any]) -> None:
    pool, groups = policy.pools[name], defaults["node_groups"]
    selected = [group for group, body in groups.items() if pool.node_selector.items() <= body["labels"].items()]
    assert selected == [name]
    taint = groups[name]["taint"]
    assert [(t.key, t.operator, t.value, t.effect) for t in pool.tolerations] == [
        (taint["key"], "Equal", taint["value"], "NoSchedule")
    ]


@pytest.mark.parametrize("name", ["cpu", "a10g"])
def test_largest_job_of_pool_fits_real_node(name: str, policy: Policy) -> None:
    """A pool larger than the allocatable resources of a node admits jobs that stay pending until their deadline.

    The kubelet's reservation: https://github.com/awslabs/amazon-eks-ami/blob/main/nodeadm/internal/kubelet/config.go.
    Karpenter estimates 7.5 % of the memory for the hypervisor. Half a CPU and 1 GiB are for the daemons.
    """
    pool = policy.pools[name]
    cpus, gib, pods = NOMINAL[pool.instance_type]
    assert pool.cpu <= cpus * 1000 - kubelet_cpu(cpus) - 500
    assert pool.memory <= Fraction(gib * GIB * 925, 1000) - kubelet_memory(pods) - GIB


@pytest.mark.parametrize("name", ["cpu", "a10g"])
def test_largest_job_starts_a_node_from_zero(name: str, policy: Policy, defaults: dict[str, Any]) -> None:
    """The autoscaler simulates a node of an empty group from its hints, minus kube-proxy and every DaemonSet.

    https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/simulator/node_info_utils.go
    """
    pool, hints = policy.pools[name], defaults["node_groups"][name]["resources"]
    daemons = [container(manifest)["resources"]["requests"] for manifest in daemon_sets()]
    taken_cpu = EKS_DAEMON_MILLICPU + KUBE_PROXY_MILLICPU + sum(parse_cpu(requests["cpu"]) for requests in daemons)
    taken_memory = EKS_DAEMON_MEMORY + sum(parse_bytes(requests["memory"]) for requests in daemons)
    assert pool.cpu + taken_cpu <= parse_cpu(hints["cpu"])
    assert pool.memory + taken_memory <= parse_bytes(hints["memory"])
    cpus, gib, pods = NOMINAL[pool.instance_type]
    assert parse_cpu(hints["cpu"]) <= cpus * 1000 - kubelet_cpu(cpus), "more than a real node has"
    assert parse_bytes(hints["memory"]) <= Fraction(gib * GIB * 925, 1000) - kubelet_memory(pods)


@pytest.mark.parametrize("name", ["cpu", "a10g"])
def test_node_disk_holds_largest_disk_of_a_job(name: str, policy: Policy, defaults: dict[str, Any]) -> None:
    assert parse_bytes(defaults["node_groups"][name]["resources"]["ephemeral-storage"]) >= policy.limits.disk.max


def test_largest_allowed_job_fits_some_pool(policy: Policy) -> None:
    assert policy.limits.cpu.max == max(pool.cpu for pool in policy.pools.values())
    assert policy.limits.memory.max == max(pool.memory for pool in policy.pools.values())
    assert policy.limits.gpu.max == max(pool.gpu for pool in policy.pools.values())


def test_sum_of_quotas_fits_maximum_pool_size(policy: Policy, defaults: dict[str, Any]) -> None:
    sizes = {name: group["max_size"] for name, group in defaults["node_groups"].items()}
    quotas = [tenant.quota for tenant in policy.tenants.values()]
    cpu_pool = policy.pools["cpu"]
    assert sum(quota.gpu for quota in quotas) <= sum(sizes[name] * pool.gpu for name, pool in policy.pools.items())
    assert sum(quota.cpu for quota in quotas) <= sizes["cpu"] * cpu_pool.cpu
    assert sum(quota.memory for quota in quotas) <= sizes["cpu"] * cpu_pool.memory


def test_job_repositories_are_allowed_and_runway_repository_is_not(policy: Policy, module: Module) -> None:
    registry = "123456789012.dkr.ecr.us-east-1.amazonaws.com"
    prefixes = tuple(pattern.removesuffix("*") for pattern in policy.images.allow)
    repositories = module.variables["repositories"]["default"]
    allowed = [name for name in repositories if f"{registry}/{name}".startswith(prefixes)]
    assert set(repositories) - set(allowed) == {"runway"}


def test_tenants_with_pod_identity_are_those_that_terraform_gives_a_role(policy: Policy) -> None:
    example = plain(hcl2.loads((MODULE / "terraform.tfvars.example").read_text(encoding="utf-8")))
    identified = {name: t.namespace for name, t in policy.tenants.items() if t.service_account.pod_identity}
    assert example["tenants"] == identified


def test_images_of_a_tenant_are_repositories_of_terraform(policy: Policy, module: Module) -> None:
    repositories = set(module.variables["repositories"]["default"])
    own = [image for tenant in policy.tenants.values() if tenant.images for image in tenant.images.allow]
    assert own
    assert {image.partition("/")[2] for image in own} <= repositories - {"runway"}


def test_readme_prices_match_policy(policy: Policy) -> None:
    rows = (CHECKOUT / "infra" / "terraform" / "README.md").read_text(encoding="utf-8").splitlines()
    for name, pool in policy.pools.items():
        [row] = [row for row in rows if row.startswith(f"| {pool.instance_type}, pool `{name}`")]
        assert f"| {pool.hourly_usd} /h |" in row


def kubelet_cpu(cpus: int) -> int:
    """Return the milli-CPU that EKS reserves for the kubelet of a node with more than four CPUs."""
    return 60 + 10 + 2 * 5 + (cpus - 4) * 5 // 2


def kubelet_memory(pods: int) -> int:
    """Return the bytes that EKS reserves for the kubelet of a node with this maximum of pods, eviction included."""
    return (255 + 11 * pods + 100) * MIB


def daemon_sets() -> list[dict[str, Any]]:
    """Return the DaemonSets of infra/kubernetes, all of which run on a GPU node."""
    files = (CHECKOUT / "infra" / "kubernetes").glob("*.yaml")
    objects = [item for path in files for item in yaml.safe_load_all(path.read_text(encoding="utf-8"))]
    return [item for item in objects if item["kind"] == "DaemonSet"]


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    [only] = manifest["spec"]["template"]["spec"]["containers"]
    return dict(only)


def node_group_of(pool: Pool) -> dict[str, object]:
    assert pool.cpu % 1000 == 0
    assert pool.memory % GIB == 0
    gpus: dict[str, object] = {"gpu": pool.gpu, "gpu_type": pool.gpu_type} if pool.gpu else {}
    return {
        "instance_type": pool.instance_type,
        "cpu": str(pool.cpu // 1000),
        "memory": f"{pool.memory // GIB}Gi",
        "node_selector": dict(pool.node_selector),
        "tolerations": [toleration.model_dump() for toleration in pool.tolerations],
        **gpus,
    }
