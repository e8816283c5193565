"""Compute the free capacity of nodes, for diagnosis.

Free capacity explains why a job is pending; it never rejects one. Pods of all namespaces count. The free capacity of a
node is computed on demand and cached until the node or a pod on it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
import structlog

from runway.jobs.resources import ZERO, ResourceVector, amounts_of, requests_of
from runway.jobs.snapshot import FreeCapacity
from runway.kube.objects import Node, Pod, Taint, Toleration
from runway.state.job_store import JobKey

log = structlog.get_logger()

_SCHEDULING_TAINT_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})


class _PodUsage(msgspec.Struct, frozen=True, gc=False):
    node: str
    amounts: ResourceVector
    key: JobKey | None
    """The job of the pod, if it is in a tenant's namespace."""


class NodeCache:
    """Nodes by name, and pods by node. A change of a node returns the keys of the jobs with a pod on it."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._pods: dict[str, _PodUsage] = {}
        self._by_node: dict[str, dict[str, _PodUsage]] = {}
        self._free: dict[str, ResourceVector] = {}
        self._free_capacity: dict[tuple[object, ...], FreeCapacity] = {}

    def of(self, pods: Iterable[Pod]) -> Mapping[str, Node]:
        """Return the existing nodes that these pods are bound to, by name."""
        names = (pod.spec.node_name for pod in pods)
        return {name: self._nodes[name] for name in names if name is not None and name in self._nodes}

    def free_capacity_for(self, pod: Pod) -> FreeCapacity | None:
        """Return the free capacity of the nodes that this pod can be scheduled on; None if no node is known."""
        if not self._nodes:
            return None
        constraints = (*sorted(pod.spec.node_selector.items()), *pod.spec.tolerations)
        if constraints not in self._free_capacity:
            self._free_capacity[constraints] = self._compute_free_capacity(pod)
        return self._free_capacity[constraints]

    def upsert_node(self, node: Node) -> set[JobKey]:
        """Add or update a node. A heartbeat changes no job."""
        name = node.metadata.name
        known = self._nodes.get(name)
        self._nodes[name] = node
        return set() if known and _differs_in_heartbeats_only(node, known) else self._changed(name)

    def delete_node(self, node: Node) -> set[JobKey]:
        self._nodes.pop(node.metadata.name, None)
        return self._changed(node.metadata.name)

    def replace_nodes(self, nodes: Iterable[Node]) -> set[JobKey]:
        listed = {node.metadata.name: node for node in nodes}
        deleted = [node for name, node in self._nodes.items() if name not in listed]
        changed = [self.delete_node(node) for node in deleted] + [self.upsert_node(node) for node in listed.values()]
        return set[JobKey]().union(*changed)

    def upsert_pod(self, pod: Pod, key: JobKey | None) -> None:
        node = pod.spec.node_name
        usage = None if node is None or pod.is_terminal else _PodUsage(node, _requests(pod), key)
        if usage == self._pods.get(pod.metadata.uid):
            return
        self.delete_pod(pod.metadata.uid)
        if usage is None or node is None:
            return
        self._pods[pod.metadata.uid] = usage
        self._by_node.setdefault(node, {})[pod.metadata.uid] = usage
        self._invalidate(node)

    def replace_pods(self, pods: Iterable[tuple[Pod, JobKey | None]]) -> Iterator[None]:
        """Apply a list of all pods, each with its job, one pod per step."""
        listed: set[str] = set()
        for pod, key in pods:
            listed.add(pod.metadata.uid)
            self.upsert_pod(pod, key)
            yield
        for uid in tuple(self._pods):
            if uid not in listed:
                self.delete_pod(uid)
            yield

    def delete_pod(self, uid: str) -> None:
        usage = self._pods.pop(uid, None)
        if usage is None:
            return
        del self._by_node[usage.node][uid]
        if not self._by_node[usage.node]:
            del self._by_node[usage.node]
        self._invalidate(usage.node)

    def _compute_free_capacity(self, pod: Pod) -> FreeCapacity:
        free = [self._free_on(node) for node in self._nodes.values() if _can_schedule(node, pod)]
        return FreeCapacity(
            nodes=len(free),
            cpu=max((amounts.cpu for amounts in free), default=0),
            memory=max((amounts.memory for amounts in free), default=0),
            gpu=max((amounts.gpu for amounts in free), default=0),
            gpu_in_all=sum(amounts.gpu for amounts in free),
        )

    def _free_on(self, node: Node) -> ResourceVector:
        name = node.metadata.name
        if name not in self._free:
            used = sum((pod.amounts for pod in self._by_node.get(name, {}).values()), ZERO)
            self._free[name] = (_allocatable(node) - used).maximum(ZERO)
        return self._free[name]

    def _changed(self, name: str) -> set[JobKey]:
        self._invalidate(name)
        return {usage.key for usage in self._by_node.get(name, {}).values() if usage.key is not None}

    def _invalidate(self, name: str) -> None:
        self._free.pop(name, None)
        self._free_capacity.clear()


def _can_schedule(node: Node, pod: Pod) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodeselector"""
    ready = node.condition("Ready")
    taints = [taint for taint in node.spec.taints if taint.effect in _SCHEDULING_TAINT_EFFECTS]
    return (
        ready is not None
        and ready.status == "True"
        and not node.spec.unschedulable
        and node.metadata.labels.items() >= pod.spec.node_selector.items()
        and all(_is_tolerated(taint, pod.spec.tolerations) for taint in taints)
    )


def _is_tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/#concepts"""
    return any(
        (item.effect or taint.effect) == taint.effect
        and (
            (not item.key and item.operator == "Exists")
            or (item.key == taint.key and (item.operator == "Exists" or (item.value or "") == (taint.value or "")))
        )
        for item in tolerations
    )


def _differs_in_heartbeats_only(node: Node, known: Node) -> bool:
    return (node.spec, node.status, node.metadata.labels) == (known.spec, known.status, known.metadata.labels)


def _requests(pod: Pod) -> ResourceVector:
    """Return the requests of a pod; zero if they are invalid, because diagnosis must not stop the sync."""
    try:
        return requests_of(pod.spec)
    except ValueError as error:
        log.warning("requests of a pod not understood", pod=pod.metadata.name, reason=str(error))
        return ZERO


def _allocatable(node: Node) -> ResourceVector:
    try:
        return amounts_of(node.status.allocatable)
    except ValueError as error:
        log.warning("allocatable of a node not understood", node=node.metadata.name, reason=str(error))
        return ZERO
