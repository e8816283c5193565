"""The metrics of capacity: why jobs wait, the nodes of each pool, and idle GPUs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

from runway.jobs.annotations import cost_of, spec_of, usd
from runway.policy import Policy
from runway.state.cluster_state import ClusterState
from runway.telemetry import GaugeSample


def capacity_samples(policy: Policy, cluster: ClusterState) -> Iterator[GaugeSample]:
    """Yield the metrics, in O(tenants + nodes + jobs with idle GPUs)."""
    for (tenant, condition), waiting in cluster.stats.waiting.items():
        if waiting:
            yield GaugeSample("runway_waiting_jobs", (tenant, condition), waiting)
    yield from _pool_samples(policy, cluster)
    yield from _idle_gpu_samples(cluster)


def _pool_samples(policy: Policy, cluster: ClusterState) -> Iterator[GaugeSample]:
    for name, nodes in cluster.nodes.pools().items():
        pool = policy.pools[name]
        yield GaugeSample("runway_pool_nodes", (name, "ready"), nodes.ready)
        yield GaugeSample("runway_pool_nodes", (name, "not_ready"), nodes.not_ready)
        if pool.max_nodes is not None:
            yield GaugeSample("runway_pool_max_nodes", (name,), pool.max_nodes)
        for metric, amounts in (
            ("runway_pool_allocatable", nodes.allocatable),
            ("runway_pool_requested", nodes.requested),
        ):
            yield GaugeSample(metric, (name, "gpu"), amounts.gpu)
            yield GaugeSample(metric, (name, "cpu"), amounts.cpu / 1000)
            yield GaugeSample(metric, (name, "memory"), amounts.memory)
        yield GaugeSample("runway_pool_hourly_usd", (name,), float(pool.hourly_usd * nodes.total))
        yield GaugeSample("runway_pool_charged_hourly_usd", (name,), float(cluster.stats.charged.get(name, 0)))
        yield GaugeSample("runway_pool_undersized_nodes", (name,), nodes.undersized)
        if pool.gpu:
            yield GaugeSample("runway_pool_faulty_gpu_nodes", (name,), nodes.faulty_gpu_nodes)
            yield GaugeSample("runway_pool_nodes_without_gpus", (name,), nodes.without_gpus)
            yield GaugeSample("runway_pool_nodes_without_gpu_pods", (name,), nodes.without_gpu_pods)
            yield GaugeSample("runway_pool_stranded_gpus", (name,), nodes.stranded_gpus)


def _idle_gpu_samples(cluster: ClusterState) -> Iterator[GaugeSample]:
    """Yield the GPUs that were idle for the policy's whole time, with their part of the price of their jobs."""
    gpus: Counter[tuple[str, str]] = Counter()
    price: dict[tuple[str, str], Decimal] = {}
    for key, idle in cluster.idle_gpus.items():
        job = cluster.job(key)
        spec, cost = (spec_of(job), cost_of(job)) if job is not None else (None, None)
        if not idle.is_full or spec is None or spec.resources.gpu_type is None:
            continue
        labels = (cluster.tenant_of(key), spec.resources.gpu_type)
        hourly = (usd(cost.hourly) if cost is not None else None) or Decimal()
        gpus[labels] += idle.idle
        price[labels] = price.get(labels, Decimal()) + hourly * idle.idle / idle.gpus
    for labels, count in gpus.items():
        yield GaugeSample("runway_idle_gpus", labels, count)
        yield GaugeSample("runway_idle_gpu_hourly_usd", labels, float(price[labels]))
