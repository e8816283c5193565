"""Rendered objects of the tenants, against a golden file (tests/unit/golden.py)."""

from __future__ import annotations

from typing import Any

from runway.jobs.manifest import SERVICE_ACCOUNT
from runway.tenant_manifests import render
from tests.support.builders import policy
from tests.unit.golden import assert_golden

TENANTS = ("vision", "speech")


def rendered(kind: str, namespace: str = "runway-vision") -> list[dict[str, Any]]:
    """Return the objects of one kind in one tenant's namespace."""
    objects: list[dict[str, Any]] = render(IDENTITY)
    return [item for item in objects if item["kind"] == kind and item["metadata"].get("namespace") == namespace]


RATE = "    rate: {per_minute: 600, burst: 100}\n"
ROLE = "arn:aws:iam::123456789012:role/vision"
IDENTITY = policy(
    (
        RATE,
        f"""{RATE}    service_account: {{annotations: {{eks.amazonaws.com/role-arn: "{ROLE}"}}, pod_identity: true}}
    image_pull_secrets: [registry-credentials]
    secrets: [huggingface]
    volumes: {{datasets: {{claim: datasets, path: /data}}}}
""",
    )
)
"""Only vision has an identity."""


def test_all_objects_match_golden_file() -> None:
    assert_golden("tenants", render(IDENTITY))


def test_each_namespace_precedes_its_objects() -> None:
    known: set[str] = set()
    objects: list[dict[str, Any]] = render(policy())
    for item in objects:
        if item["kind"] == "Namespace":
            known.add(item["metadata"]["name"])
        else:
            assert item["metadata"]["namespace"] in known
    assert known == {"runway-vision", "runway-speech"}


def test_pod_security_is_enforced() -> None:
    objects: list[dict[str, Any]] = render(policy())
    for namespace in (item for item in objects if item["kind"] == "Namespace"):
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        assert labels["app.kubernetes.io/managed-by"] == "runway"


def test_resource_quota_equals_tenant_quota() -> None:
    (quota,) = rendered("ResourceQuota", "runway-speech")
    assert quota["spec"]["hard"] == {
        "requests.nvidia.com/gpu": "2",
        "requests.cpu": "16",
        "limits.cpu": "16",
        "requests.memory": "64Gi",
        "limits.memory": "64Gi",
        "pods": "50",
    }


def test_disk_quota_bounds_requests_and_has_default_for_pods_created_outside_runway() -> None:
    """A ResourceQuota rejects a container without a request and a limit for each resource that it bounds."""
    vision = policy().tenants["vision"]
    limited = vision.model_copy(update={"quota": vision.quota.model_copy(update={"disk": 1 << 40})})
    objects: list[dict[str, Any]] = render(policy().model_copy(update={"tenants": {"vision": limited}}))
    specs = {item["kind"]: item["spec"] for item in objects if "spec" in item}
    hard = specs["ResourceQuota"]["hard"]
    assert (hard["requests.ephemeral-storage"], hard["limits.ephemeral-storage"]) == ("1Ti", "1Ti")
    (container,) = specs["LimitRange"]["limits"]
    for default in ("default", "defaultRequest"):
        assert container[default] == container["min"] | {"ephemeral-storage": "1Gi"}


def test_limit_range_equals_policy_limits() -> None:
    (limits,) = rendered("LimitRange")
    (container,) = limits["spec"]["limits"]
    assert container["type"] == "Container"
    assert (container["min"], container["max"]) == ({"cpu": "100m", "memory": "32Mi"}, {"cpu": "16", "memory": "128Gi"})


def test_ingress_and_metadata_address_are_denied() -> None:
    policies = rendered("NetworkPolicy")
    assert all(item["spec"]["podSelector"] == {} for item in policies)
    assert all("ingress" not in item["spec"] for item in policies)
    assert {kind for item in policies for kind in item["spec"]["policyTypes"]} == {"Ingress", "Egress"}
    for namespace in ("runway-vision", "runway-speech"):
        open_to_all = [to for to, ports in egress(namespace) if ports is None]
        assert open_to_all == [{"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}]


def egress(namespace: str) -> list[tuple[dict[str, Any], list[tuple[str, int]] | None]]:
    """Return each address block that a tenant's pods may reach, with its ports; None for all ports."""
    rules = [rule for item in rendered("NetworkPolicy", namespace) for rule in item["spec"].get("egress", [])]
    found = []
    for rule in rules:
        ports = [(port["protocol"], port["port"]) for port in rule["ports"]] if "ports" in rule else None
        found += [(to["ipBlock"], ports) for to in rule["to"]]
    return found


def test_link_local_addresses_are_open_for_dns_only() -> None:
    """NodeLocal DNSCache listens at 169.254.20.10: https://github.com/tektoncd/operator/issues/4000"""
    link_local = [(to, ports) for to, ports in egress("runway-speech") if to["cidr"].startswith("169.254.")]
    assert link_local == [({"cidr": "169.254.0.0/16"}, [("UDP", 53), ("TCP", 53)])]


def test_pod_identity_opens_only_its_agent_for_that_tenant() -> None:
    assert [both for both in egress("runway-vision") if both not in egress("runway-speech")] == [
        ({"cidr": "169.254.170.23/32"}, [("TCP", 80)])
    ]


def test_policies_of_all_tenants_have_the_same_names() -> None:
    """`kubectl apply` does not delete a policy that is no longer rendered."""
    names = [[item["metadata"]["name"] for item in rendered("NetworkPolicy", f"runway-{name}")] for name in TENANTS]
    assert names[0] == names[1]


def test_service_account_has_annotations_and_pull_secrets_and_no_token() -> None:
    (vision,), (speech,) = (rendered("ServiceAccount", f"runway-{name}") for name in TENANTS)
    for account in (vision, speech):
        assert account["metadata"]["name"] == SERVICE_ACCOUNT
        assert account["automountServiceAccountToken"] is False
    assert vision["metadata"]["annotations"] == {"eks.amazonaws.com/role-arn": ROLE}
    assert vision["imagePullSecrets"] == [{"name": "registry-credentials"}]
    assert (speech["metadata"]["annotations"], speech["imagePullSecrets"]) == ({}, [])


def test_tenants_give_rights_to_runway_alone() -> None:
    """tests/chart has the rights of the whole installation."""
    objects = [dict[str, Any](item) for item in render(IDENTITY)]
    granted = {resource for item in objects for rule in item.get("rules", []) for resource in rule["resources"]}
    assert granted == {"jobs", "pods/log"}
    subjects = {subject["name"] for item in objects for subject in item.get("subjects", [])}
    assert subjects == {"runway"}
