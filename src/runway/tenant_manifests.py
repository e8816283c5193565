"""The Kubernetes objects of each tenant, rendered from the policy: what holds even where Runway is passed by.

One namespace per tenant with Pod Security "restricted", a ResourceQuota equal to the tenant's quota (a backstop: Runway
refuses earlier and says why), a LimitRange equal to the policy's bounds, NetworkPolicies that close everything
inwards and the node's metadata address outwards, and what Runway itself may do there.
"""

from __future__ import annotations

from typing import Final

from runway.jobs.identity import LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY
from runway.jobs.manifest import GPU_RESOURCE
from runway.policy import RUNWAY_NAMESPACE, Limits, Policy, Quota
from runway.quantity import format_bytes, format_cpu

LINK_LOCAL: Final = "169.254.0.0/16"
"""Holds the instance metadata service (169.254.169.254) and the pod identity agent (169.254.170.23) of EKS nodes."""


RUNWAY_ACCOUNT: Final = "runway"
"""The service account that Runway runs under where it is deployed in the cluster (deploy/kustomize/base). Where Runway
runs elsewhere, under a kubeconfig, it need not exist."""


def render(policy: Policy) -> list[dict[str, object]]:
    """Every tenant's objects, ready for `kubectl apply`, in an order that can be applied as it stands."""
    objects: list[dict[str, object]] = []
    for name, tenant in policy.tenants.items():
        labels = {LABEL_MANAGED_BY: MANAGED_BY, LABEL_TENANT: name}
        objects.append(_namespace(tenant.namespace, labels))
        inside: dict[str, object] = {"namespace": tenant.namespace, "labels": labels}
        objects.append(_resource_quota(inside, tenant.quota))
        objects.append(_limit_range(inside, policy.limits))
        objects.extend(_network_policies(inside))
        objects.extend(_permissions(inside))
    return objects


def _namespace(name: str, labels: dict[str, str]) -> dict[str, object]:
    """https://kubernetes.io/docs/concepts/security/pod-security-admission/"""
    modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {**labels, **modes}}}


def _resource_quota(inside: dict[str, object], quota: Quota) -> dict[str, object]:
    """https://kubernetes.io/docs/concepts/policy/resource-quotas/

    Jobs are not counted as objects, since finished ones stay until their time to live; pods that have not ended are.
    """
    hard = {
        f"requests.{GPU_RESOURCE}": str(quota.gpu),
        "requests.cpu": format_cpu(quota.cpu),
        "limits.cpu": format_cpu(quota.cpu),
        "requests.memory": format_bytes(quota.memory),
        "limits.memory": format_bytes(quota.memory),
        "pods": str(quota.jobs),
    }
    return {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "runway-quota", **inside},
        "spec": {"hard": hard},
    }


def _limit_range(inside: dict[str, object], limits: Limits) -> dict[str, object]:
    """https://kubernetes.io/docs/concepts/policy/limit-range/"""
    low = {"cpu": format_cpu(limits.cpu.min), "memory": format_bytes(limits.memory.min)}
    high = {"cpu": format_cpu(limits.cpu.max), "memory": format_bytes(limits.memory.max)}
    return {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "runway-limits", **inside},
        "spec": {
            "limits": [{"type": "Container", "min": low, "max": high, "default": low, "defaultRequest": low}],
        },
    }


def _network_policies(inside: dict[str, object]) -> list[dict[str, object]]:
    """Nothing may come in; out may go what does not go to link-local addresses.

    https://kubernetes.io/docs/concepts/services-networking/network-policies/#default-policies
    """
    kind = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}
    everyone: dict[str, object] = {}
    outside = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [LINK_LOCAL]}}]}
    return [
        {
            **kind,
            "metadata": {"name": "default-deny", **inside},
            "spec": {"podSelector": everyone, "policyTypes": ["Ingress", "Egress"]},
        },
        {
            **kind,
            "metadata": {"name": "allow-egress-but-metadata", **inside},
            "spec": {"podSelector": everyone, "policyTypes": ["Egress"], "egress": [outside]},
        },
    ]


def _permissions(inside: dict[str, object]) -> list[dict[str, object]]:
    """What Runway does with a tenant's jobs, and no more: it never deletes one, since its time to live does.

    A Role in each namespace, not one for all of them: nothing can be bound by mistake to more than it is meant for.
    https://kubernetes.io/docs/concepts/security/rbac-good-practices/#least-privilege
    """
    group = "rbac.authorization.k8s.io"
    metadata = {"name": "runway", **inside}
    rules = [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "patch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    account = {"kind": "ServiceAccount", "name": RUNWAY_ACCOUNT, "namespace": RUNWAY_NAMESPACE}
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "runway"},
            "subjects": [account],
        },
    ]
