"""The nodes, what every pod holds on them, and so what is free: advice for whoever waits, never a reason to refuse.

Of a pod only its node and its requests are kept, whatever namespace it is in. What is free on a node is worked out when
it is asked for, and remembered until the node or a pod on it changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec
import structlog

from runway.jobs.resources import Requests, amounts_of, requests_of
from runway.jobs.snapshot import FreeCapacity
from runway.kube.objects import Node, Pod, Taint, Toleration
from runway.state.job_store import JobKey

log = structlog.get_logger()

_SCHEDULING_TAINT_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})


class _PodUsage(msgspec.Struct, frozen=True, gc=False):
    node: str
    amounts: Requests
    key: JobKey | None
    """The job that the pod belongs to, where it is in a tenant's namespace."""


class NodeCache:
    """Nodes by name, and what is held on each. Each change of a node returns the jobs that it is news for."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._pods: dict[str, _PodUsage] = {}
        self._on: dict[str, dict[str, _PodUsage]] = {}
        """What is held on each node, by the pod's uid."""
        self._free: dict[str, Requests] = {}
        self._rooms: dict[tuple[object, ...], FreeCapacity] = {}

    def of(self, pods: Iterable[Pod]) -> Mapping[str, Node]:
        """The nodes that these pods are bound to, by name, as far as they exist."""
        names = (pod.spec.node_name for pod in pods)
        return {name: self._nodes[name] for name in names if name is not None and name in self._nodes}

    def free_capacity_for(self, pod: Pod) -> FreeCapacity | None:
        """What is free on the nodes that this pod may go to; None where no node is known at all."""
        if not self._nodes:
            return None
        like = (*sorted(pod.spec.node_selector.items()), *pod.spec.tolerations)
        if like not in self._rooms:
            self._rooms[like] = self._free_capacity(pod)
        return self._rooms[like]

    def upsert_node(self, node: Node) -> set[JobKey]:
        """Take in a node. A heartbeat is news for nobody."""
        name = node.metadata.name
        known = self._nodes.get(name)
        self._nodes[name] = node
        if known is not None and _same(node, known):
            return set()
        return self._changed(name)

    def delete_node(self, node: Node) -> set[JobKey]:
        """Take in that a node no longer exists."""
        self._nodes.pop(node.metadata.name, None)
        return self._changed(node.metadata.name)

    def replace_nodes(self, nodes: Iterable[Node]) -> set[JobKey]:
        """Take in a list of all nodes."""
        listed = {node.metadata.name: node for node in nodes}
        gone = [node for name, node in self._nodes.items() if name not in listed]
        told = [self.delete_node(node) for node in gone] + [self.upsert_node(node) for node in listed.values()]
        return set[JobKey]().union(*told)

    def upsert_pod(self, pod: Pod, key: JobKey | None) -> None:
        """Take in a pod of any namespace."""
        node = pod.spec.node_name
        held = None if node is None or pod.is_terminal else _PodUsage(node, _requests(pod), key)
        if held == self._pods.get(pod.metadata.uid):
            return
        self.delete_pod(pod)
        if held is None or node is None:
            return
        self._pods[pod.metadata.uid] = held
        self._on.setdefault(node, {})[pod.metadata.uid] = held
        self._forget_free(node)

    def delete_pod(self, pod: Pod) -> None:
        """Take in that a pod was deleted."""
        self._drop(pod.metadata.uid)

    def replace_pods(self, pods: Iterable[tuple[Pod, JobKey | None]]) -> Iterator[None]:
        """Take in a list of all pods, each with its job, a pod at each step."""
        listed: set[str] = set()
        for pod, key in pods:
            listed.add(pod.metadata.uid)
            self.upsert_pod(pod, key)
            yield
        for uid in tuple(self._pods):
            if uid not in listed:
                self._drop(uid)
            yield

    def _drop(self, uid: str) -> None:
        held = self._pods.pop(uid, None)
        if held is None:
            return
        del self._on[held.node][uid]
        if not self._on[held.node]:
            del self._on[held.node]
        self._forget_free(held.node)

    def _free_capacity(self, pod: Pod) -> FreeCapacity:
        free = [self._free_on(node) for node in self._nodes.values() if _can_schedule(node, pod)]
        return FreeCapacity(
            nodes=len(free),
            cpu=max((amounts.cpu for amounts in free), default=0),
            memory=max((amounts.memory for amounts in free), default=0),
            gpu=max((amounts.gpu for amounts in free), default=0),
            gpu_in_all=sum(amounts.gpu for amounts in free),
        )

    def _free_on(self, node: Node) -> Requests:
        name = node.metadata.name
        if name not in self._free:
            held = sum((pod.amounts for pod in self._on.get(name, {}).values()), Requests())
            self._free[name] = (_allocatable(node) - held).maximum(Requests())
        return self._free[name]

    def _changed(self, name: str) -> set[JobKey]:
        self._forget_free(name)
        return {held.key for held in self._on.get(name, {}).values() if held.key is not None}

    def _forget_free(self, name: str) -> None:
        self._free.pop(name, None)
        self._rooms.clear()


def _can_schedule(node: Node, pod: Pod) -> bool:
    """Whether the scheduler would look at this node for this pod at all.

    https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodeselector
    """
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


def _same(node: Node, known: Node) -> bool:
    """Whether nothing that is read of a node has changed: the times of its heartbeats are not."""
    return (node.spec, node.status, node.metadata.labels) == (known.spec, known.status, known.metadata.labels)


def _requests(pod: Pod) -> Requests:
    """What a pod holds. One that cannot be read counts as nothing: advice must not stop what decides."""
    try:
        return requests_of(pod.spec)
    except ValueError as error:
        log.warning("requests of a pod not understood", pod=pod.metadata.name, reason=str(error))
        return Requests()


def _allocatable(node: Node) -> Requests:
    try:
        return amounts_of(node.status.allocatable)
    except ValueError as error:
        log.warning("allocatable of a node not understood", node=node.metadata.name, reason=str(error))
        return Requests()
