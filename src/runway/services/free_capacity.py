"""The free capacity of a pool's nodes, and the warning for a job that no node has room for now.

It warns and never rejects: pods end, and nodes start, at any time.
"""

from __future__ import annotations

from runway.jobs.snapshot import FreeCapacity
from runway.jobs.spec import Resources
from runway.kube.objects import Metadata, Pod, PodSpec, Toleration
from runway.policy import Pool
from runway.state.cluster_state import ClusterState
from runway.text import amounts_in_words


def free_capacity_of(cluster: ClusterState, pool: Pool) -> FreeCapacity | None:
    """Return the free capacity of the nodes that jobs of a pool can be scheduled on; None if no node is known."""
    tolerations = tuple(Toleration(item.key, item.operator, item.value, item.effect) for item in pool.tolerations)
    spec = PodSpec(node_selector=dict(pool.node_selector), tolerations=tolerations)
    return cluster.nodes.free_capacity_for(Pod(Metadata(), spec))


def warn_of_wait(cluster: ClusterState, name: str, pool: Pool, wanted: Resources) -> str | None:
    """Say that no node of the pool has room for a job now; None if one has, or if no node is known."""
    free = free_capacity_of(cluster, pool)
    if free is None or (wanted.gpu <= free.gpu and wanted.cpu <= free.cpu and wanted.memory <= free.memory):
        return None
    gpu = free.gpu if pool.gpu else None
    asked = amounts_in_words(wanted.gpu if pool.gpu else None, wanted.cpu, wanted.memory)
    if not free.nodes:
        return f"pool {name} has no ready node now: a job would wait until one starts"
    most = amounts_in_words(gpu, free.cpu, free.memory)
    return f"no node of pool {name} has {asked} free now (at most {most}): the job would wait"
