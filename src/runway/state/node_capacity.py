"""Compute the free capacity of nodes, for diagnosis, and the nodes of each pool, for metrics.

Free capacity explains why a job is pending; it never rejects one. Pods of all namespaces count. The free capacity of a
node is computed on demand and cached until the node or a pod on it changes.

A node belongs to the pool whose node selector it has and whose tolerations cover its taints, with the longest selector
if there are several. Taints that Kubernetes and autoscalers set for a time do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from runway.jobs.diagnosis.gpu_health import gpu_fault
from runway.jobs.resources import ZERO, ResourceVector, amounts_of, requests_of
from runway.jobs.snapshot import FreeCapacity, PoolSize
from runway.kube.objects import Node, Pod, Taint, Toleration
from runway.policy import Pool
from runway.state.job_store import JobKey

log = structlog.get_logger()

_SCHEDULING_TAINT_EFFECTS: Final = frozenset({"NoSchedule", "NoExecute"})
_PASSING_TAINTS: Final = (
    "node.kubernetes.io/", "node.cloudprovider.kubernetes.io/", "karpenter.sh/", "node.cilium.io/",
    "ToBeDeletedByClusterAutoscaler", "DeletionCandidateOfClusterAutoscaler",
)  # fmt: skip
"""Prefixes of the keys of taints that come and go with the state of a node."""


@dataclass(slots=True)
class PoolNodes:
    """The nodes of a pool. Amounts are sums over the ready nodes, in the units of `ResourceVector`."""

    ready: int = 0
    not_ready: int = 0
    allocatable: ResourceVector = ZERO
    requested: ResourceVector = ZERO
    """The requests of all pods on the nodes, daemons included."""
    undersized: int = 0
    """Ready nodes with less CPU, memory or GPUs than the policy gives a node of the pool."""
    smallest: ResourceVector = ZERO
    """The least CPU, memory and GPUs of any of them."""
    without_gpus: int = 0
    """Ready nodes of a pool with GPUs that have no allocatable GPU."""
    without_gpu_pods: int = 0
    """Ready nodes with GPUs, of which no pod requests one."""
    faulty_gpu_nodes: int = 0
    """Nodes whose health monitor reports faulty GPUs, ready or not."""
    stranded_gpus: int = 0
    """Free GPUs of schedulable nodes without their even share of the node's CPU or memory."""

    @property
    def total(self) -> int:
        return self.ready + self.not_ready


_LOGGED: Final = ("gpu", "cpu", "memory")


class _PodUsage(msgspec.Struct, frozen=True, gc=False):
    node: str
    amounts: ResourceVector
    key: JobKey | None
    """The job of the pod, if it is in a tenant's namespace."""


class NodeCache:
    """Nodes by name, and pods by node. A change of a node returns the keys of the jobs with a pod on it."""

    def __init__(self, pools: Mapping[str, Pool] | None = None) -> None:
        self._pools = dict(pools or {})
        self._pool_of: dict[str, str | None] = {}
        """The pool of each node that was looked up."""
        self._sizes: Counter[str | None] = Counter()
        """The number of nodes of each pool; empty after a change."""
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

    def pools(self) -> dict[str, PoolNodes]:
        """Return the nodes of every pool of the policy. O(nodes)."""
        found = {name: PoolNodes() for name in self._pools}
        for name, node in self._nodes.items():
            if (pool := self._pool(node)) is not None:
                self._add_to_pool(found[pool], self._pools[pool], name, node)
        return found

    def pool_size(self, pool: str) -> PoolSize | None:
        """Return the number of nodes of a pool; None if the policy has no such pool, or no node is known."""
        if pool not in self._pools or not self._nodes:
            return None
        if not self._sizes:
            self._sizes.update(map(self._pool, self._nodes.values()))
        return PoolSize(pool, self._sizes[pool], self._pools[pool].max_nodes)

    def _pool(self, node: Node) -> str | None:
        name = node.metadata.name
        if name not in self._pool_of:
            self._pool_of[name] = pool_of_node(node, self._pools)
        return self._pool_of[name]

    def _add_to_pool(self, found: PoolNodes, pool: Pool, name: str, node: Node) -> None:
        found.faulty_gpu_nodes += gpu_fault(node) is not None
        if not is_ready(node):
            found.not_ready += 1
            return
        allocatable, free = _allocatable(node), self._free_on(node)
        found.ready += 1
        found.allocatable += allocatable
        found.requested += sum((pod.amounts for pod in self._by_node.get(name, {}).values()), ZERO)
        if is_undersized(allocatable, pool):
            found.smallest = allocatable.minimum(found.smallest) if found.undersized else allocatable
            found.undersized += 1
        if pool.gpu:
            found.without_gpus += allocatable.gpu == 0
            found.without_gpu_pods += allocatable.gpu > 0 and free.gpu >= allocatable.gpu
            # An undersized node is counted already, and has no even shares.
            usable = min(free.cpu * allocatable.gpu // pool.cpu, free.memory * allocatable.gpu // pool.memory)
            is_even = not node.spec.unschedulable and not is_undersized(allocatable, pool)
            found.stranded_gpus += max(0, free.gpu - usable) if is_even else 0

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
        self._report_undersized()
        return set[JobKey]().union(*changed)

    def _report_undersized(self) -> None:
        """Log each pool whose nodes are smaller than the policy says: Runway admits jobs that no node fits."""
        for name, found in self.pools().items():
            if found.undersized:
                pool, smallest = self._pools[name], found.smallest.to_json()
                given = ResourceVector(pool.gpu, pool.cpu, pool.memory).to_json()
                least, most = ({name: amounts[name] for name in _LOGGED} for amounts in (smallest, given))
                log.warning(
                    "nodes smaller than in the policy", pool=name, nodes=found.undersized, least=least, policy=most
                )

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
        nodes = [node for node in self._nodes.values() if _can_schedule(node, pod)]
        free = [self._free_on(node) for node in nodes]
        return FreeCapacity(
            nodes=len(free),
            cpu=max((amounts.cpu for amounts in free), default=0),
            memory=max((amounts.memory for amounts in free), default=0),
            gpu=max((amounts.gpu for amounts in free), default=0),
            gpu_in_all=sum(amounts.gpu for amounts in free),
            without_gpus=sum(map(self._lacks_gpus, nodes)),
        )

    def _lacks_gpus(self, node: Node) -> bool:
        pool = self._pool(node)
        return pool is not None and self._pools[pool].gpu > 0 and _allocatable(node).gpu == 0

    def _free_on(self, node: Node) -> ResourceVector:
        name = node.metadata.name
        if name not in self._free:
            used = sum((pod.amounts for pod in self._by_node.get(name, {}).values()), ZERO)
            self._free[name] = (_allocatable(node) - used).maximum(ZERO)
        return self._free[name]

    def _changed(self, name: str) -> set[JobKey]:
        self._invalidate(name)
        self._pool_of.pop(name, None)
        self._sizes.clear()
        return {usage.key for usage in self._by_node.get(name, {}).values() if usage.key is not None}

    def _invalidate(self, name: str) -> None:
        self._free.pop(name, None)
        self._free_capacity.clear()


def pool_of_node(node: Node, pools: Mapping[str, Pool]) -> str | None:
    """Return the pool that a node belongs to; None for a node that runs no jobs of the policy."""
    labels, found, longest = node.metadata.labels, None, -1
    for name, pool in pools.items():
        if len(pool.node_selector) <= longest or not pool.node_selector.items() <= labels.items():
            continue
        if not untolerated_taints(node, pool):
            found, longest = name, len(pool.node_selector)
    return found


def lasting_taints(node: Node) -> list[Taint]:
    """Return the taints that keep pods away and do not come and go with the state of the node."""
    return [
        taint
        for taint in node.spec.taints
        if taint.effect in _SCHEDULING_TAINT_EFFECTS and not taint.key.startswith(_PASSING_TAINTS)
    ]


def untolerated_taints(node: Node, pool: Pool) -> list[Taint]:
    """Return the lasting taints that keep the jobs of a pool away from a node."""
    tolerations = [Toleration(item.key, item.operator, item.value, item.effect) for item in pool.tolerations]
    return [taint for taint in lasting_taints(node) if not _is_tolerated(taint, tolerations)]


def is_undersized(allocatable: ResourceVector, pool: Pool) -> bool:
    """Return whether a node offers less than the policy says, so that an admitted job may never fit."""
    return allocatable.cpu < pool.cpu or allocatable.memory < pool.memory or allocatable.gpu < pool.gpu


def is_ready(node: Node) -> bool:
    ready = node.condition("Ready")
    return ready is not None and ready.status == "True"


def _can_schedule(node: Node, pod: Pod) -> bool:
    """https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#nodeselector"""
    taints = [taint for taint in node.spec.taints if taint.effect in _SCHEDULING_TAINT_EFFECTS]
    return (
        is_ready(node)
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
