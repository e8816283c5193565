"""The namespaces, ResourceQuotas and service accounts, against what the policy renders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

from runway.doctor.findings import Finding, failed, ok, unknown, warning
from runway.errors import Rejected
from runway.jobs.annotations import LABEL_TENANT
from runway.kube.operator_client import Json, OperatorClient, for_all
from runway.policy import RUNWAY_NAMESPACE, Policy
from runway.quantity import ceil_units
from runway.tenant_manifests import render

APPLY: Final = "run `runway tenants apply`"
READ: Final = "use credentials that may read it"
ENFORCE: Final = "pod-security.kubernetes.io/enforce"
RESTRICTED: Final = "restricted"


async def check_tenants(client: OperatorClient, policy: Policy) -> list[Finding]:
    """Compare every object of the tenants: that it exists, and what the policy renders into it."""
    manifests: list[dict[str, Any]] = list(render(policy))
    found = await for_all(manifests, lambda manifest: _get(client, manifest))
    missing: dict[str, list[str]] = defaultdict(list)
    findings: list[Finding] = []
    for manifest, item in zip(manifests, found, strict=True):
        kind, metadata = manifest["kind"], manifest["metadata"]
        namespace = metadata.get("namespace", metadata["name"])
        if isinstance(item, Rejected):
            findings.append(unknown("tenant objects", namespace, f"{kind} {metadata['name']}: {item}", READ))
        elif item is None:
            missing[namespace].append(f"{kind} {metadata['name']}")
        elif _is_terminating(item):
            fix = "wait until it is deleted, and run `runway tenants apply`"
            findings.append(failed("tenant objects", namespace, f"{kind} {metadata['name']} is being deleted", fix))
        else:
            findings += _content(namespace, manifest, item)
    findings += [_missing(namespace, names) for namespace, names in missing.items()]
    if not missing:
        findings.append(ok("tenant objects", f"{len(policy.tenants)} tenants", "all that could be read exist"))
    return findings


async def check_claims(client: OperatorClient, policy: Policy) -> list[Finding]:
    """Check that the claims of the policy's volumes exist and are usable. It does not read Secrets."""
    claims = {(each.namespace, volume.claim) for each in policy.tenants.values() for volume in each.volumes.values()}
    manifests: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": namespace}}
        for namespace, name in sorted(claims)
    ]
    found = await for_all(manifests, lambda manifest: _get(client, manifest))
    findings = []
    for (namespace, name), item in zip(sorted(claims), found, strict=True):
        if isinstance(item, Rejected):
            findings.append(unknown("volumes", namespace, f"claim {name}: {item}", READ))
        elif item is None:
            fix = "create the claim, or remove it from the tenant's volumes"
            findings.append(warning("volumes", namespace, f"there is no claim {name}", fix))
        elif _is_terminating(item) or (item.get("status") or {}).get("phase") == "Lost":
            state = "is being deleted" if _is_terminating(item) else "has lost its volume"
            fix = "replace the claim, or remove it from the tenant's volumes"
            findings.append(warning("volumes", namespace, f"claim {name} {state}", fix))
    return findings or ([ok("volumes", "claims", f"all {len(claims)} exist")] if claims else [])


async def check_runway_namespace(client: OperatorClient) -> list[Finding]:
    """Check the namespace and the service account of Runway itself. Without them Runway is not installed there."""
    place = f"/api/v1/namespaces/{RUNWAY_NAMESPACE}"
    install = "install the chart, unless Runway runs outside the cluster"
    try:
        namespace = await client.get_path(place)
        account = await client.get_path(f"{place}/serviceaccounts/runway")
    except Rejected as error:
        return [unknown("service account", RUNWAY_NAMESPACE, str(error), READ)]
    if namespace is None:
        return [warning("service account", RUNWAY_NAMESPACE, "there is no such namespace", install)]
    label = f"run `kubectl label namespace {RUNWAY_NAMESPACE} {ENFORCE}={RESTRICTED}`"
    security = _pod_security(RUNWAY_NAMESPACE, namespace, warning, label)
    if account is None:
        return [security, warning("service account", RUNWAY_NAMESPACE, "there is no service account runway", install)]
    return [security, ok("service account", RUNWAY_NAMESPACE, "runway exists")]


async def check_lease_namespace(client: OperatorClient, namespace: str) -> list[Finding]:
    """Check that the namespace of the Lease exists: an operator may create Leases in one that does not."""
    if namespace == RUNWAY_NAMESPACE:
        return []  # `check_runway_namespace` checks it.
    try:
        found = await client.get_path(f"/api/v1/namespaces/{quote(namespace, safe='')}")
    except Rejected as error:
        return [unknown("lease", namespace, str(error), READ)]
    fix = "correct --lease-namespace, or create the namespace"
    return [] if found else [failed("lease", namespace, "there is no such namespace", fix)]


async def _get(client: OperatorClient, manifest: dict[str, Any]) -> Json | Rejected | None:
    try:
        return await client.get_object(manifest)
    except Rejected as error:
        return error


def _content(namespace: str, manifest: dict[str, Any], item: Json) -> list[Finding]:
    match manifest["kind"]:
        case "Namespace":
            tenant = manifest["metadata"]["labels"][LABEL_TENANT]
            return [_pod_security(namespace, item, failed, APPLY), *_ownership(namespace, tenant, item)]
        case "ResourceQuota":
            return [_quota(namespace, manifest["spec"]["hard"], item)]
        case "LimitRange":
            return _limits(namespace, manifest["spec"]["limits"][0], item)
        case "NetworkPolicy":
            return _network_policy(namespace, manifest, item)
        case "ServiceAccount":
            return _job_account(namespace, manifest, item)
    return []  # `doctor --as-runway` checks Role and RoleBinding by what they allow.


def _missing(namespace: str, names: list[str]) -> Finding:
    is_whole = any(name.startswith("Namespace ") for name in names)
    observed = "there is no such namespace" if is_whole else f"missing: {', '.join(names)}"
    return failed("tenant objects", namespace, observed, APPLY)


def _ownership(namespace: str, tenant: str, item: Json) -> list[Finding]:
    """Check the label by which the NetworkPolicy of Runway and the admission policy know a tenant's namespace."""
    found = _labels(item).get(LABEL_TENANT)
    if found == tenant:
        return []
    observed = f"label {LABEL_TENANT}: {found or 'not set'}, not {tenant}"
    label = f"run `kubectl label --overwrite namespace {namespace} {LABEL_TENANT}={tenant}` if nobody else uses it"
    return [failed("tenant objects", namespace, observed, label)]


def _labels(item: Json) -> Json:
    return (item.get("metadata") or {}).get("labels") or {}


def _pod_security(namespace: str, item: Json, problem: Callable[[str, str, str, str], Finding], fix: str) -> Finding:
    """https://kubernetes.io/docs/concepts/security/pod-security-admission/"""
    level = _labels(item).get(ENFORCE)
    if level == RESTRICTED:
        return ok("pod security", namespace, f"enforce: {RESTRICTED}")
    return problem("pod security", namespace, f"enforce: {level or 'not set'}, not {RESTRICTED}", fix)


def _job_account(namespace: str, manifest: dict[str, Any], item: Json) -> list[Finding]:
    """Compare the identity and the pull secrets of the tenant's jobs; other annotations and secrets are no fault."""
    subject = f"{namespace}/{manifest['metadata']['name']}"
    annotations = (item.get("metadata") or {}).get("annotations") or {}
    wanted = manifest["metadata"]["annotations"]
    differing = [f"annotation {key}" for key, value in wanted.items() if annotations.get(key) != value]
    has = [secret.get("name") for secret in item.get("imagePullSecrets") or []]
    differing += [f"pull secret {each['name']}" for each in manifest["imagePullSecrets"] if each["name"] not in has]
    if differing:
        observed = f"missing or different: {', '.join(differing)}"
        return [failed("service account", subject, observed, APPLY)]
    return []


def _quota(namespace: str, wanted: dict[str, str], item: Json) -> Finding:
    """A lower ResourceQuota makes admitted jobs wait; a higher one is no backstop."""
    hard = (item.get("spec") or {}).get("hard") or {}
    low = [name for name, value in wanted.items() if name in hard and _amount(hard[name]) < _amount(value)]
    high = [name for name, value in wanted.items() if name not in hard or _amount(hard[name]) > _amount(value)]
    extra = sorted(hard.keys() - wanted.keys())
    if low:
        shown = ", ".join(f"{name} {hard[name]} (policy: {wanted[name]})" for name in low)
        return failed("quota", namespace, f"lower than the policy: {shown}", APPLY)
    if high:
        shown = ", ".join(f"{name} {hard.get(name, 'not set')} (policy: {wanted[name]})" for name in high)
        return warning("quota", namespace, f"higher than the policy: {shown}", APPLY)
    if extra:
        fix = "remove it from the ResourceQuota, or add it to the tenant's quota"
        return warning("quota", namespace, f"not in the policy: {', '.join(extra)}", fix)
    return ok("quota", namespace, "ResourceQuota equals the policy")


def _network_policy(namespace: str, manifest: dict[str, Any], item: Json) -> list[Finding]:
    """Compare the rules that the policy renders: a job can reach the node's metadata without them."""
    wanted, has = manifest["spec"], item.get("spec") or {}
    if all(has.get(field) == value for field, value in wanted.items()):
        return []
    return [warning("network policy", namespace, f"{manifest['metadata']['name']} differs from the policy", APPLY)]


def _is_terminating(item: Json) -> bool:
    return (item.get("metadata") or {}).get("deletionTimestamp") is not None


def _limits(namespace: str, wanted: dict[str, Any], item: Json) -> list[Finding]:
    """A narrower LimitRange rejects the pods of admitted jobs; a wider one is no backstop."""
    limits = (item.get("spec") or {}).get("limits") or []
    found: Json = next((each for each in limits if each.get("type") == wanted["type"]), {})
    narrow, wide = list[str](), list[str]()
    for bound, sign in (("min", 1), ("max", -1)):
        has = found.get(bound) or {}
        for name, value in wanted[bound].items():
            excess = sign * (_amount(has[name]) - _amount(value)) if name in has else -1
            if excess:
                shown = f"{bound} {name} {has.get(name, 'not set')} (policy: {value})"
                (narrow if excess > 0 else wide).append(shown)
    if narrow:
        return [failed("limits", namespace, f"narrower than the policy: {', '.join(narrow)}", APPLY)]
    return [warning("limits", namespace, f"wider than the policy: {', '.join(wide)}", APPLY)] if wide else []


def _amount(quantity: object) -> int:
    """Return thousandths; an unreadable quantity is less than any."""
    try:
        return ceil_units(str(quantity), 1000)
    except ValueError:
        return -1
