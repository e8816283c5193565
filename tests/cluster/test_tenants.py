"""The backstop objects of a tenant's namespace, and the pods that they reject."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from testbed.context import Context
from testbed.http_client import IMAGE, Document
from testbed.kubectl import Kubectl, KubectlFailed

pytestmark = pytest.mark.cluster

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "runAsNonRoot": True,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.mark.parametrize("tenant", ["vision", "speech", "research"])
def test_namespace_has_quota_and_limit_range_of_tenant(tenant: str, context: Context) -> None:
    policy = context.runway.policy()
    namespace, quota = policy["tenants"][tenant]["namespace"], policy["tenants"][tenant]["quota"]

    labels = found(context.kubernetes, "namespace", namespace)["metadata"]["labels"]
    modes = {mode: labels[f"pod-security.kubernetes.io/{mode}"] for mode in ("enforce", "audit", "warn")}
    assert modes == {"enforce": "restricted", "audit": "restricted", "warn": "restricted"}
    [backstop] = context.kubernetes.select("resourcequotas", f"--namespace={namespace}")
    assert backstop["spec"]["hard"] == {
        "requests.nvidia.com/gpu": str(quota["gpu"]),
        "requests.cpu": quota["cpu"],
        "limits.cpu": quota["cpu"],
        "requests.memory": quota["memory"],
        "limits.memory": quota["memory"],
        "pods": str(quota["jobs"]),
    }
    [limits] = context.kubernetes.select("limitranges", f"--namespace={namespace}")
    [bounds] = limits["spec"]["limits"]
    assert bounds["max"] == {name: policy["limits"][name]["max"] for name in ("cpu", "memory")}
    assert bounds["min"] == {name: policy["limits"][name]["min"] for name in ("cpu", "memory")}
    network = context.kubernetes.select("networkpolicies", f"--namespace={namespace}")
    assert {name["metadata"]["name"] for name in network} == {"default-deny", "allow-egress-but-metadata"}
    accounts = {
        account["metadata"]["name"]: account
        for account in context.kubernetes.select("serviceaccounts", f"--namespace={namespace}")
    }
    assert accounts["runway-job"]["automountServiceAccountToken"] is False


PODS: dict[str, tuple[Document, Document, str]] = {
    "privileged": ({"securityContext": {"privileged": True}}, {}, "violates PodSecurity|disallowed by cluster policy"),
    "not restricted": ({"securityContext": {}}, {}, "violates PodSecurity"),
    "root": ({"securityContext": RESTRICTED | {"runAsUser": 0}}, {}, "violates PodSecurity"),
    "in the host's network": ({}, {"hostNetwork": True}, "violates PodSecurity"),
    "with a path of the host": (
        {},
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
        "violates PodSecurity",
    ),
    "on a GPU that the tenant has not": (
        {"resources": {"limits": {"cpu": "100m", "memory": "32Mi", "nvidia.com/gpu": "1"}}},
        {},
        "exceeded quota: runway-quota",
    ),
    "larger than a job may be": (
        {"resources": {"limits": {"cpu": "100m", "memory": "200Gi"}}},
        {},
        "maximum memory usage per Container is 128Gi",
    ),
}


@pytest.mark.parametrize(("container", "spec", "reason"), PODS.values(), ids=PODS.keys())
def test_invalid_pod_created_with_kubectl_is_rejected(
    container: Document, spec: Document, reason: str, kubernetes: Kubectl, namespaces: Mapping[str, str]
) -> None:
    with pytest.raises(KubectlFailed, match=reason):
        kubernetes.run("create", "--filename=-", stdin=pod(namespaces["research"], container, spec))


def test_valid_pod_created_with_kubectl_is_accepted(kubernetes: Kubectl, namespaces: Mapping[str, str]) -> None:
    """The control case: the pods above differ from this one only in the rejected field."""
    kubernetes.run("create", "--dry-run=server", "--filename=-", stdin=pod(namespaces["research"], {}, {}))


def pod(namespace: str, container: Document, spec: Document) -> str:
    main = {
        "name": "main",
        "image": IMAGE,
        "resources": {"limits": {"cpu": "100m", "memory": "32Mi"}},
        "securityContext": RESTRICTED,
        **container,
    }
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "by-hand", "namespace": namespace},
        "spec": {"restartPolicy": "Never", "containers": [main], **spec},
    }
    return json.dumps(document)


def found(kubernetes: Kubectl, kind: str, name: str) -> Document:
    item = kubernetes.get(kind, name)
    assert item is not None, f"there is no {kind} {name}"
    return item
