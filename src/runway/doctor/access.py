"""The API server's version and clock, and the permissions that Runway needs."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from runway.controllers.leadership import LEASE_NAME
from runway.doctor.findings import Finding, failed, ok, unknown, warning
from runway.errors import Rejected
from runway.kube.operator_client import OperatorClient, Permission, for_all
from runway.kube.server_version import MIN_VERSION_NAME, ServerVersion
from runway.policy import RUNWAY_NAMESPACE, Policy

MAX_CLOCK_SECONDS: Final = 5.0
"""The API server's date has whole seconds, and the call takes a moment. TLS and tokens tolerate minutes."""
SERVICE_ACCOUNT: Final = (RUNWAY_NAMESPACE, "runway")

CLUSTER_NEEDS: Final = tuple(
    Permission(verb, resource, group)
    for group, resource in (("batch", "jobs"), ("", "pods"), ("", "events"), ("", "nodes"))
    for verb in ("list", "watch")
)


def check_version(server: ServerVersion) -> Finding:
    if server.is_too_old:
        return failed("version", "API server", f"{server.name}; Runway needs {MIN_VERSION_NAME}", "upgrade the cluster")
    if server.number is None:
        fix = f"make sure that it is {MIN_VERSION_NAME} or later: see `kubectl version`"
        return unknown("version", "API server", "its response has no version", fix)
    return ok("version", "API server", f"{server.name}; at least {MIN_VERSION_NAME}")


def check_clock(server: ServerVersion, now: datetime) -> Finding:
    """Compare this machine's clock with that of the API server."""
    if server.date is None:
        return unknown("clock", "API server", "its response has no date", "compare the clocks with `date`")
    seconds = (now - server.date).total_seconds()
    if abs(seconds) > MAX_CLOCK_SECONDS:
        observed = f"this machine is {abs(seconds):.0f} s {'ahead' if seconds > 0 else 'behind'}"
        return warning("clock", "API server", observed, "repair NTP on this machine and on the nodes")
    return ok("clock", "API server", f"differs by at most {MAX_CLOCK_SECONDS:.0f} s")


async def check_permissions(
    client: OperatorClient, policy: Policy, lease_namespace: str, *, as_runway: bool
) -> list[Finding]:
    """Ask for every permission of a running Runway: those of the caller, or of Runway's service account."""
    account = SERVICE_ACCOUNT if as_runway else None
    of_chart = "install the chart, which grants it" if as_runway else "use credentials with it; the chart grants it"
    of_tenants = "run `runway tenants apply`, which grants it" if as_runway else "use credentials with it"
    places = [("all namespaces", CLUSTER_NEEDS, of_chart), (lease_namespace, _lease_needs(lease_namespace), of_chart)]
    places += [(tenant.namespace, _tenant_needs(tenant.namespace), of_tenants) for tenant in policy.tenants.values()]

    async def missing(needs: Iterable[Permission]) -> list[str]:
        return [need.words for need in needs if not await client.is_allowed(need, account)]

    try:
        lists = await for_all([needs for _, needs, _ in places], missing)
    except Rejected as error:
        fix = "use credentials that may create access reviews"
        return [unknown("permissions", "all namespaces", str(error), fix)]
    findings = [
        failed("permissions", place, f"not allowed: {', '.join(words)}", fix)
        for (place, _, fix), words in zip(places, lists, strict=True)
        if words
    ]
    count = sum(len(needs) for _, needs, _ in places)
    return findings or [ok("permissions", "Runway" if as_runway else "these credentials", f"all {count} allowed")]


def _lease_needs(namespace: str) -> tuple[Permission, ...]:
    group = "coordination.k8s.io"
    named = (Permission(verb, "leases", group, namespace=namespace, name=LEASE_NAME) for verb in ("get", "update"))
    return (Permission("create", "leases", group, namespace=namespace), *named)


def _tenant_needs(namespace: str) -> tuple[Permission, ...]:
    jobs = (Permission(verb, "jobs", "batch", namespace=namespace) for verb in ("create", "get", "patch"))
    return (*jobs, Permission("get", "pods", subresource="log", namespace=namespace))
