"""The nodes of each pool against the policy, and whether NetworkPolicies are enforced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runway.doctor.findings import Finding, failed, ok, unknown, warning
from runway.errors import Rejected
from runway.jobs.resources import ResourceVector, amounts_of
from runway.kube.client import NODES
from runway.kube.objects import GPU_RESOURCE, Node
from runway.kube.operator_client import Json, OperatorClient
from runway.kube.server_version import ServerVersion
from runway.policy import Policy, Pool
from runway.quantity import format_bytes, format_cpu
from runway.state.node_capacity import is_ready, lasting_taints, pool_of_node, untolerated_taints

ENFORCERS: Final = (
    "antrea-agent", "anetd", "azure-npm", "calico-node", "canal", "cilium", "kindnet", "kube-router", "ovnkube-node",
    "weave-net",
)  # fmt: skip
"""DaemonSets of network plugins that enforce NetworkPolicies."""
AWS_AGENT: Final = "aws-eks-nodeagent"
"""The container of the DaemonSet aws-node that enforces them, if its argument says so.
https://docs.aws.amazon.com/eks/latest/userguide/cni-network-policy.html"""
DAEMON_SETS: Final = "/apis/apps/v1/daemonsets"


async def check_nodes(client: OperatorClient, policy: Policy) -> list[Finding]:
    """Check the nodes of each pool: labels, taints, number, allocatable, GPUs.

    A node belongs to one pool, as in Runway's metrics (`runway.state.node_capacity`).
    """
    try:
        nodes = (await client.list(NODES)).items
    except Rejected as error:
        return [unknown("pools", "nodes", str(error), "use credentials that may list nodes")]
    owners = [(node, pool_of_node(node, policy.pools)) for node in nodes]
    findings = [finding for name, pool in policy.pools.items() for finding in _pool(name, pool, owners)]
    return [*findings, *_stray_gpus(policy, nodes)]


def _pool(name: str, pool: Pool, owners: Sequence[tuple[Node, str | None]]) -> list[Finding]:
    found = [node for node, owner in owners if owner == name]
    # A selector that names no label matches every tainted node of the cluster: no fault.
    closed = [node for node, owner in owners if owner is None and pool.node_selector and _matches(node, pool)]
    if not found and not closed:
        return [_absence(name, pool, owners)]
    faults = [_closed(name, pool, node) for node in closed]
    faults += [fault for node in found if (fault := _node_fault(name, pool, node))]
    if pool.max_nodes is not None and len(found) > pool.max_nodes:
        fix = f"raise pools.{name}.max_nodes to what the autoscaler can start"
        faults.append(warning("pools", name, f"{len(found)} nodes (max_nodes: {pool.max_nodes})", fix))
    return [*(faults or [_without_fault(name, pool, found)]), *_registered_gpus(name, pool, found)]


def _matches(node: Node, pool: Pool) -> bool:
    return node.metadata.labels.items() >= pool.node_selector.items()


def _selector(pool: Pool) -> str:
    return ", ".join(f"{key}={value}" for key, value in pool.node_selector.items()) or "no selector"


def _absence(name: str, pool: Pool, owners: Sequence[tuple[Node, str | None]]) -> Finding:
    owned = [(node, owner) for node, owner in owners if owner is not None and _matches(node, pool)]
    if not pool.node_selector:
        owned = [(node, owner) for node, owner in owned if not untolerated_taints(node, pool)]
    if others := sorted({owner for _, owner in owned}):
        observed = f"no node of its own: nodes that match ({_selector(pool)}) count for {', '.join(others)}"
        fix = f"add nodes that match no other pool, or give pools.{name}.node_selector a label that only its nodes have"
        return warning("pools", name, observed, fix)
    if not pool.node_selector:
        fix = f"add nodes without taints, or add the tolerations of the nodes to pools.{name}.tolerations"
        return warning("pools", name, "no node without a taint that the pool does not tolerate", fix)
    fix = f"add nodes that match pools.{name}.node_selector, unless the pool starts from zero"
    return warning("pools", name, f"no node matches: {_selector(pool)}", fix)


def _without_fault(name: str, pool: Pool, found: Sequence[Node]) -> Finding:
    if pool.gpu and not all(map(lasting_taints, found)):
        observed = "nodes without a taint: pods without GPUs can occupy them"
        return warning("pools", name, observed, f"taint them, and add the toleration to pools.{name}.tolerations")
    return ok("pools", name, f"{len(found)} nodes match: {_selector(pool)}")


def _closed(name: str, pool: Pool, node: Node) -> Finding:
    shown = ", ".join(f"{taint.key}={taint.value or ''}:{taint.effect}" for taint in untolerated_taints(node, pool))
    fix = f"add the toleration to pools.{name}.tolerations"
    return failed("pools", f"{name}/{node.metadata.name}", f"not tolerated: {shown}", fix)


def _node_fault(name: str, pool: Pool, node: Node) -> Finding | None:
    """Return what keeps the largest job of the pool from running on this node."""
    subject = f"{name}/{node.metadata.name}"
    if node.spec.unschedulable or not is_ready(node):
        state = "cordoned" if node.spec.unschedulable else "not ready"
        return warning("pools", subject, f"the node is {state}", "repair or uncordon the node")
    has = _allocatable(node)
    short = []
    if has.cpu < pool.cpu:
        short.append(f"cpu {format_cpu(has.cpu)} (policy: {format_cpu(pool.cpu)})")
    if has.memory < pool.memory:
        short.append(f"memory {format_bytes(has.memory)} (policy: {format_bytes(pool.memory)})")
    if short:
        fix = f"lower pools.{name} to what a node allocates, less what daemons request"
        return failed("pools", subject, f"allocatable is less than the policy: {', '.join(short)}", fix)
    return None


def _registered_gpus(name: str, pool: Pool, found: Sequence[Node]) -> list[Finding]:
    if not pool.gpu or not found:
        return []
    unregistered = [_gpu_fault(name, pool, node) for node in found if _gpus(node) < pool.gpu]
    return unregistered or [ok("gpus", name, f"{pool.gpu} or more on each of {len(found)} nodes")]


def _gpu_fault(name: str, pool: Pool, node: Node) -> Finding:
    observed = f"{_gpus(node)} of {pool.gpu} {GPU_RESOURCE} are registered"
    return failed("gpus", f"{name}/{node.metadata.name}", observed, "install the GPU driver and the device plugin")


def _stray_gpus(policy: Policy, nodes: Sequence[Node]) -> list[Finding]:
    """Name nodes with GPUs that no pool of the policy uses."""
    pools = [pool for pool in policy.pools.values() if pool.gpu]
    stray = [node.metadata.name for node in nodes if _gpus(node) and not any(_matches(node, pool) for pool in pools)]
    if not stray:
        return []
    observed = f"GPUs in no pool of the policy: {', '.join(stray[:5])}{', ...' if len(stray) > 5 else ''}"
    return [warning("gpus", f"{len(stray)} nodes", observed, "add a pool for them, or correct its node_selector")]


def _allocatable(node: Node) -> ResourceVector:
    try:
        return amounts_of(node.status.allocatable)
    except ValueError:
        return ResourceVector()


def _gpus(node: Node) -> int:
    return _allocatable(node).gpu


async def check_network_policies(client: OperatorClient, server: ServerVersion) -> Finding:
    """Look for a network plugin that is known to enforce NetworkPolicies. Sends no traffic."""
    check = "network policy"
    fix = "install a network plugin that enforces NetworkPolicies, or verify that yours does"
    try:
        document = await client.get_path(DAEMON_SETS)
    except Rejected as error:
        return unknown(check, "cluster", str(error), "use credentials that may list DaemonSets")
    for item in (document or {}).get("items") or []:
        name = (item.get("metadata") or {}).get("name", "")
        if name in ENFORCERS or (name == "aws-node" and _aws_enforces(item)):
            return ok(check, "cluster", f"DaemonSet {name} enforces them")
    # The k3s process itself enforces them: https://docs.k3s.io/networking/networking-services#network-policy-controller
    if "+k3s" in server.name:
        return ok(check, "cluster", "k3s enforces them, unless it was started with --disable-network-policy")
    return warning(check, "cluster", "no network plugin that is known to enforce them", fix)


def _aws_enforces(item: Json) -> bool:
    containers = item.get("spec", {}).get("template", {}).get("spec", {}).get("containers") or []
    return any(
        container.get("name") == AWS_AGENT and "--enable-network-policy=true" in (container.get("args") or [])
        for container in containers
    )
