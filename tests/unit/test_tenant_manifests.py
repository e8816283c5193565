"""The tenants' namespaces as rendered: whole against a golden file (tests/unit/golden.py says how to renew it)."""

from __future__ import annotations

from typing import Any

from runway.tenant_manifests import render
from tests.support.builders import policy
from tests.unit.golden import assert_golden


def rendered(kind: str, namespace: str = "runway-vision") -> list[dict[str, Any]]:
    """The objects of one kind in one tenant's namespace."""
    objects: list[dict[str, Any]] = render(policy())
    return [item for item in objects if item["kind"] == kind and item["metadata"].get("namespace") == namespace]


def test_the_objects_of_every_tenant() -> None:
    assert_golden("tenants", render(policy()))


def test_each_namespace_comes_before_what_is_in_it() -> None:
    known: set[str] = set()
    objects: list[dict[str, Any]] = render(policy())
    for item in objects:
        if item["kind"] == "Namespace":
            known.add(item["metadata"]["name"])
        else:
            assert item["metadata"]["namespace"] in known
    assert known == {"runway-vision", "runway-speech"}


def test_pod_security_is_enforced_not_only_reported() -> None:
    objects: list[dict[str, Any]] = render(policy())
    for namespace in (item for item in objects if item["kind"] == "Namespace"):
        labels = namespace["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
        assert labels["app.kubernetes.io/managed-by"] == "runway"


def test_the_backstop_is_the_tenants_quota() -> None:
    (quota,) = rendered("ResourceQuota", "runway-speech")
    assert quota["spec"]["hard"] == {
        "requests.nvidia.com/gpu": "2",
        "requests.cpu": "16",
        "limits.cpu": "16",
        "requests.memory": "64Gi",
        "limits.memory": "64Gi",
        "pods": "50",
    }


def test_containers_are_held_to_the_bounds_of_the_policy() -> None:
    (limits,) = rendered("LimitRange")
    (container,) = limits["spec"]["limits"]
    assert container["type"] == "Container"
    assert (container["min"], container["max"]) == ({"cpu": "100m", "memory": "32Mi"}, {"cpu": "16", "memory": "128Gi"})


def test_the_network_is_closed_inwards_and_towards_the_node_metadata_address() -> None:
    policies = rendered("NetworkPolicy")
    assert all(item["spec"]["podSelector"] == {} for item in policies)
    assert all("ingress" not in item["spec"] for item in policies)
    assert {kind for item in policies for kind in item["spec"]["policyTypes"]} == {"Ingress", "Egress"}
    (block,) = [to["ipBlock"] for item in policies for rule in item["spec"].get("egress", []) for to in rule["to"]]
    assert block["except"] == ["169.254.0.0/16"]
