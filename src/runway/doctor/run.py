"""Run every check, and apply the tenants: the entry points of the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from runway.doctor.access import check_clock, check_permissions, check_version
from runway.doctor.findings import Finding, failed
from runway.doctor.metrics import check_prometheus
from runway.doctor.nodes import check_network_policies, check_nodes
from runway.doctor.tenants import check_claims, check_lease_namespace, check_runway_namespace, check_tenants
from runway.errors import ClusterError, NotFound, TooBusy
from runway.jobs.annotations import LABEL_TENANT
from runway.kube.operator_client import OperatorClient, connect, for_all
from runway.policy import Policy


@dataclass(frozen=True, slots=True)
class Question:
    """What to check. `as_runway`: the permissions of Runway's service account, not those of the caller."""

    policy: Policy
    prometheus_url: str | None
    lease_namespace: str
    as_runway: bool


def diagnose(question: Question) -> list[Finding]:
    """Check the cluster of the kubeconfig. Raises ConfigurationError."""

    async def run() -> list[Finding]:
        async with connect() as client:
            return await check_all(client, question, datetime.now(UTC))

    return asyncio.run(run())


async def check_all(client: OperatorClient, question: Question, now: datetime) -> list[Finding]:
    """Run the checks in the order of the report. If the API server does not respond, there is only that finding."""
    policy = question.policy
    try:
        server = await client.version()
    except (ClusterError, TooBusy) as error:
        fix = "correct KUBECONFIG or the network, and run the command again"
        return [failed("version", "API server", str(error), fix)]
    findings = [check_version(server), check_clock(server, now)]
    try:
        findings += await check_permissions(client, policy, question.lease_namespace, as_runway=question.as_runway)
        findings += await check_runway_namespace(client)
        findings += await check_lease_namespace(client, question.lease_namespace)
        findings += await check_tenants(client, policy)
        findings += await check_claims(client, policy)
        findings += await check_nodes(client, policy)
        findings.append(await check_network_policies(client, server))
    except (ClusterError, TooBusy) as error:
        fix = "repair the API server, and run the command again"
        findings.append(failed("version", "API server", str(error), fix))
    return [*findings, *await check_prometheus(question.prometheus_url, policy)]


def apply(manifests: Sequence[Mapping[str, Any]], *, dry_run: bool = False) -> list[tuple[str, str | None]]:
    """Apply manifests with the operator's rights: return each object's name, and the reason if it failed.

    Raises ConfigurationError.
    """

    async def run() -> list[tuple[str, str | None]]:
        async with connect() as client:
            return await apply_all(client, manifests, dry_run=dry_run)

    return asyncio.run(run())


async def apply_all(
    client: OperatorClient, manifests: Sequence[Mapping[str, Any]], *, dry_run: bool
) -> list[tuple[str, str | None]]:
    """Apply every manifest, whether or not another one fails: namespaces first, and each binding after its role.

    A caller without the verb `bind` can only bind a role that exists.
    https://kubernetes.io/docs/reference/access-authn-authz/rbac/#restrictions-on-role-binding-creation-or-update
    A dry run creates no namespace, so the API server cannot check the objects of a new one: these count as accepted.
    A namespace that exists without the label of a tenant is left alone: the policies would break other workloads in it.
    """
    foreign: set[str] = set()

    async def check(namespace: Mapping[str, Any]) -> None:
        with suppress(ClusterError, TooBusy):  # The object itself reports it.
            found = await client.get_object(namespace)
            labels = (found or {}).get("metadata", {}).get("labels") or {}
            if found is not None and LABEL_TENANT not in labels:
                foreign.add(namespace["metadata"]["name"])

    async def one(manifest: Mapping[str, Any]) -> tuple[str, str | None]:
        metadata = manifest["metadata"]
        place = f"{metadata['namespace']}/" if "namespace" in metadata else ""
        name = f"{manifest['kind']} {place}{metadata['name']}"
        if (namespace := metadata.get("namespace", metadata["name"])) in foreign:
            return name, f"namespace {namespace} exists without the label {LABEL_TENANT}; set it if nobody else uses it"
        try:
            await client.apply(manifest, dry_run=dry_run)
        except NotFound as error:
            return name, None if dry_run and metadata.get("namespace") in new else str(error)
        except (ClusterError, TooBusy) as error:
            return name, str(error)
        return name, None

    waves: tuple[list[Mapping[str, Any]], ...] = ([], [], [])
    for manifest in manifests:
        kind = manifest["kind"]
        waves[0 if kind == "Namespace" else 2 if kind.endswith("Binding") else 1].append(manifest)
    new = {manifest["metadata"]["name"] for manifest in waves[0]}
    await for_all(waves[0], check)
    return [result for wave in waves for result in await for_all(wave, one)]
