"""Kubernetes objects of each tenant, rendered from the policy.

They also bind users who bypass Runway. Each tenant gets:

- a namespace with Pod Security "restricted";
- a ResourceQuota equal to the tenant's quota, as a backstop;
- a LimitRange equal to the policy's limits;
- NetworkPolicies that deny ingress, and egress to the node's metadata address;
- the service account of its jobs;
- a Role and RoleBinding for Runway.

`render_admission_policy` adds an optional backstop for all of them: only Runway and the Job controller create Jobs and
pods there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from runway.jobs.annotations import LABEL_MANAGED_BY, LABEL_TENANT, MANAGED_BY
from runway.jobs.manifest import SERVICE_ACCOUNT
from runway.kube.objects import DISK_RESOURCE, GPU_RESOURCE
from runway.policy import RUNWAY_NAMESPACE, Limits, Policy, Quota, Tenant
from runway.quantity import format_bytes, format_cpu

RBAC: Final = "rbac.authorization.k8s.io"
LINK_LOCAL: Final = "169.254.0.0/16"
"""An EKS node has its metadata service and its Pod Identity agent at link-local addresses."""
POD_IDENTITY_AGENT: Final = "169.254.170.23/32"
"""https://docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html"""
RUNWAY_USER: Final = f"system:serviceaccount:{RUNWAY_NAMESPACE}:runway"
JOB_CONTROLLERS: Final = ("system:serviceaccount:kube-system:job-controller", "system:kube-controller-manager")
"""The users of the Job controller: with a service account for each controller, which is usual, and without.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/#controller-roles
"""
ADMISSION_POLICY: Final = "runway-only-runway-creates-jobs"

Manifest = dict[str, object]


def render(policy: Policy) -> list[Manifest]:
    """Return every tenant's objects for `kubectl apply`, each namespace before its objects."""
    objects: list[Manifest] = []
    for name, tenant in policy.tenants.items():
        labels = {LABEL_MANAGED_BY: MANAGED_BY, LABEL_TENANT: name}
        namespaced: Manifest = {"namespace": tenant.namespace, "labels": labels}
        objects += [_namespace(tenant.namespace, labels), _resource_quota(namespaced, tenant.quota)]
        limits = _limit_range(namespaced, policy.limits, disk=tenant.quota.disk is not None)
        objects += [limits, *_network_policies(namespaced, tenant)]
        objects += [_service_account(namespaced, tenant), *_permissions(namespaced)]
    return objects


def _manifest(api_version: str, kind: str, name: str, metadata: Manifest, **content: object) -> Manifest:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **metadata}, **content}


def _namespace(name: str, labels: dict[str, str]) -> Manifest:
    """https://kubernetes.io/docs/concepts/security/pod-security-admission/"""
    modes = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    return _manifest("v1", "Namespace", name, {"labels": {**labels, **modes}})


def _resource_quota(namespaced: Manifest, quota: Quota) -> Manifest:
    """https://kubernetes.io/docs/concepts/policy/resource-quotas/"""
    hard = {
        f"requests.{GPU_RESOURCE}": str(quota.gpu),
        "requests.cpu": format_cpu(quota.cpu),
        "limits.cpu": format_cpu(quota.cpu),
        "requests.memory": format_bytes(quota.memory),
        "limits.memory": format_bytes(quota.memory),
        # Unfinished pods, not Jobs: finished Jobs exist until their time to live.
        "pods": str(quota.jobs),
    }
    if quota.disk is not None:
        hard |= dict.fromkeys((f"requests.{DISK_RESOURCE}", f"limits.{DISK_RESOURCE}"), format_bytes(quota.disk))
    return _manifest("v1", "ResourceQuota", "runway-quota", namespaced, spec={"hard": hard})


def _limit_range(namespaced: Manifest, limits: Limits, *, disk: bool) -> Manifest:
    """Render the bounds of a container; with a quota of `disk`, also the disk of a container that requests none.

    https://kubernetes.io/docs/concepts/policy/limit-range/
    """
    low = {"cpu": format_cpu(limits.cpu.min), "memory": format_bytes(limits.memory.min)}
    high = {"cpu": format_cpu(limits.cpu.max), "memory": format_bytes(limits.memory.max)}
    # A ResourceQuota rejects a container without a request and a limit for each resource that it bounds.
    default = low | ({DISK_RESOURCE: format_bytes(limits.disk.min)} if disk else {})
    container = {"type": "Container", "min": low, "max": high, "default": default, "defaultRequest": default}
    return _manifest("v1", "LimitRange", "runway-limits", namespaced, spec={"limits": [container]})


def _network_policies(namespaced: Manifest, tenant: Tenant) -> list[Manifest]:
    """Deny all ingress, and egress to link-local addresses other than DNS and, if the policy says so, Pod Identity.

    One object has all egress rules, since `kubectl apply` does not delete an object that is no longer rendered.
    NodeLocal DNSCache listens at a link-local address.
    https://kubernetes.io/docs/concepts/services-networking/network-policies/#default-policies
    https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/
    """
    dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    egress: list[Manifest] = [
        {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [LINK_LOCAL]}}]},
        {"to": [{"ipBlock": {"cidr": LINK_LOCAL}}], "ports": dns},
    ]
    if tenant.service_account.pod_identity:
        agent = [{"ipBlock": {"cidr": POD_IDENTITY_AGENT}}]
        egress.append({"to": agent, "ports": [{"protocol": "TCP", "port": 80}]})
    specs: dict[str, Manifest] = {
        "default-deny": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]},
        "allow-egress-but-metadata": {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress},
    }
    return [
        _manifest("networking.k8s.io/v1", "NetworkPolicy", name, namespaced, spec=spec) for name, spec in specs.items()
    ]


def _service_account(namespaced: Manifest, tenant: Tenant) -> Manifest:
    """Return the account of the tenant's jobs, which has no right and no token in the Kubernetes API.

    A pod without pull secrets of its own gets those of its account.
    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
    """
    metadata = {**namespaced, "annotations": dict(tenant.service_account.annotations)}
    pull_secrets = [{"name": name} for name in tenant.image_pull_secrets]
    return _manifest(
        "v1",
        "ServiceAccount",
        SERVICE_ACCOUNT,
        metadata,
        automountServiceAccountToken=False,
        imagePullSecrets=pull_secrets,
    )


def _permissions(namespaced: Manifest) -> list[Manifest]:
    """Allow only the verbs that Runway uses. It never deletes a Job: the time to live does.

    A Role in each namespace, since a wrong binding of a ClusterRole would grant too much.
    https://kubernetes.io/docs/concepts/security/rbac-good-practices/#least-privilege
    """
    rules = [
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["create", "get", "patch"]},
        {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
    ]
    role = {"apiGroup": RBAC, "kind": "Role", "name": "runway"}
    # The account of deploy/chart. It need not exist if Runway runs outside the cluster.
    account = {"kind": "ServiceAccount", "name": "runway", "namespace": RUNWAY_NAMESPACE}
    return [
        _manifest(f"{RBAC}/v1", "Role", "runway", namespaced, rules=rules),
        _manifest(f"{RBAC}/v1", "RoleBinding", "runway", namespaced, roleRef=role, subjects=[account]),
    ]


def render_admission_policy(runway_users: Sequence[str] = (RUNWAY_USER,)) -> list[Manifest]:
    """Return a ValidatingAdmissionPolicy for the namespaces of all tenants, and its binding.

    Only these users create Jobs, and only the Job controller creates pods, for a Job. It needs no webhook, and binds
    cluster administrators too. https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/
    """
    users, controllers = json.dumps(list(runway_users)), json.dumps(JOB_CONTROLLERS)
    rules = [
        {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs", "cronjobs"]},
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
    ]
    is_pod = "request.kind.kind == 'Pod'"
    of_job = "has(object.metadata.ownerReferences) && object.metadata.ownerReferences.exists(o, o.kind == 'Job')"
    spec: Manifest = {
        "failurePolicy": "Fail",
        "matchConstraints": {
            "namespaceSelector": {"matchExpressions": [{"key": LABEL_TENANT, "operator": "Exists"}]},
            "resourceRules": rules,
        },
        "validations": [
            {
                "expression": f"{is_pod} || request.userInfo.username in {users}",
                "message": "only Runway creates Jobs in the namespace of a tenant",
                "reason": "Forbidden",
            },
            {
                "expression": f"!({is_pod}) || (request.userInfo.username in {controllers} && {of_job})",
                "message": "only the Job controller creates pods in the namespace of a tenant",
                "reason": "Forbidden",
            },
        ],
    }
    binding: Manifest = {"policyName": ADMISSION_POLICY, "validationActions": ["Deny"]}
    metadata: Manifest = {"labels": {LABEL_MANAGED_BY: MANAGED_BY}}
    version = "admissionregistration.k8s.io/v1"
    return [
        _manifest(version, "ValidatingAdmissionPolicy", ADMISSION_POLICY, metadata, spec=spec),
        _manifest(version, "ValidatingAdmissionPolicyBinding", ADMISSION_POLICY, metadata, spec=binding),
    ]
