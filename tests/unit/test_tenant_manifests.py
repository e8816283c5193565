"""Rendered objects of the tenants, against a golden file (tests/unit/golden.py)."""

from __future__ import annotations

from typing import Any

from runway.tenant_manifests import render
from tests.support.builders import policy
from tests.unit.golden import assert_golden


def rendered(kind: str, namespace: str = "runway-vision") -> list[dict[str, Any]]:
    """Return the objects of one kind in one tenant's namespace."""
    objects: list[dict[str, Any]] = render(policy())
    return [item for item in objects if item["kind"] == kind and item["metadata"].get("namespace") == namespace]


def test_all_objects_match_golden_file() -> None:
    assert_golden("tenants", render(policy()))


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
    (block,) = [to["ipBlock"] for item in policies for rule in item["spec"].get("egress", []) for to in rule["to"]]
    assert block["except"] == ["169.254.0.0/16"]
