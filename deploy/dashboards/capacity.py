"""Rows about the nodes: capacity and cost, GPUs, and why jobs wait."""

from __future__ import annotations

from deploy.dashboards.panels import SELECTED, Panel, Row, bars, graph, or_none_yet, rising, see

CEILING = f"max by (tenant) (runway_active_cost_ceiling_usd{{{SELECTED}}})"
SPENT = f"sum by (tenant) (increase(runway_actual_cost_usd_total{{{SELECTED}}}[24h]))"
NAMESPACES = f"max by (namespace, tenant) (runway_tenant_info{{{SELECTED}}})"
OFFERED_GPUS = 'max by (pool) (runway_pool_allocatable{resource="gpu"})'


def capacity_and_cost() -> Row:
    """Return the row of nodes, autoscaler and cost."""
    return "Capacity and cost", [*_nodes(), *_cost()]


def _nodes() -> list[Panel]:
    return [
        graph(
            "Nodes by pool",
            "Ready and not ready nodes, the policy's maximum, and nodes that are smaller than the policy says. "
            + see("RunwayPoolNodesUndersized"),
            "short",
            ("max by (pool, state) (runway_pool_nodes)", "{{pool}} {{state}}"),
            ("max by (pool) (runway_pool_undersized_nodes)", "{{pool}} too small"),
        ),
        graph(
            "CPUs of ready nodes",
            "Offered by the nodes, and requested by all their pods. "
            + see("RunwayJobsPendingLong", "RunwayNodeCostUncharged"),
            "short",
            ('max by (pool) (runway_pool_allocatable{resource="cpu"})', "{{pool}} offered"),
            ('max by (pool) (runway_pool_requested{resource="cpu"})', "{{pool}} requested"),
        ),
        graph(
            "Time since the autoscaler's last loop",
            "It runs every 10 s, and a scale-up can take minutes. Longer: no node starts, and none is removed. "
            + see("RunwayAutoscalerDown"),
            "s",
            ('time() - max(cluster_autoscaler_last_activity{activity="main"})', "age"),
            steps=rising(300, 900),
        ),
        graph(
            "Failed scale-ups, last hour",
            f"The cloud started no node: no capacity, a quota, or a permission. {see('RunwayScaleUpsFailing')}",
            "short",
            ("sum by (reason) (increase(cluster_autoscaler_failed_scale_ups_total[1h]))", "{{reason}}"),
            steps=rising(1, 2),
        ),
        graph(
            "Node price and charged price",
            "USD an hour of the nodes that run, and of the jobs on them. A wide gap: empty or badly filled nodes. "
            + see("RunwayNodeCostUncharged"),
            "currencyUSD",
            ("max by (pool) (runway_pool_hourly_usd)", "{{pool}} nodes"),
            ("max by (pool) (runway_pool_charged_hourly_usd)", "{{pool}} jobs"),
        ),
    ]


def _cost() -> list[Panel]:
    return [
        graph(
            "Cost ceiling of unfinished jobs",
            "The most that unfinished jobs can cost until their timeouts. High with few jobs: ask the owners for "
            f"shorter timeouts. {see('RunwayCostBurn')}",
            "currencyUSD",
            (CEILING, "{{tenant}}"),
        ),
        bars(
            "Spent in 24 hours",
            "Actual cost of finished jobs: each attempt, from its binding to a node until its end. Running jobs are "
            f"not included. {see('RunwayCostBurn')}",
            "currencyUSD",
            (SPENT, "{{tenant}}"),
        ),
        bars(
            "Spent in 24 hours, plus cost ceiling",
            "RunwayCostBurn compares this sum with the amount in its rule. Set that amount to your budget. "
            + see("RunwayCostBurn"),
            "currencyUSD",
            (f"{CEILING} + {SPENT}", "{{tenant}}"),
            rising(200, 250),
        ),
        graph(
            "Spent, by hour",
            "Actual cost of the jobs that finished in the last hour. A jump without more jobs: they are longer or "
            f"larger. {see('RunwayCostBurn')}",
            "currencyUSD",
            (f"sum by (tenant) (increase(runway_actual_cost_usd_total{{{SELECTED}}}[1h]))", "{{tenant}}"),
        ),
    ]


def gpus() -> Row:
    """Return the row of GPUs: use, faults and errors."""
    return "GPUs", [*_gpu_use(), *_gpu_faults()]


def _gpu_use() -> list[Panel]:
    return [
        graph(
            "GPUs of ready nodes",
            "Offered by the nodes, and requested by all their pods. "
            + see("RunwayGpuQuotaNearFull", "RunwayGpusStranded"),
            "short",
            (OFFERED_GPUS, "{{pool}} offered"),
            ('max by (pool) (runway_pool_requested{resource="gpu"})', "{{pool}} requested"),
        ),
        graph(
            "GPU utilisation by tenant",
            "Mean of the GPUs of running jobs, from the DCGM exporter. `runway top ID` shows one job. "
            + see("RunwayGpuIdle"),
            "percent",
            (
                f"avg by (tenant) (DCGM_FI_DEV_GPU_UTIL * on (namespace) group_left (tenant) {NAMESPACES})",
                "{{tenant}}",
            ),
        ),
        graph(
            "GPUs without use",
            "stranded: free, without CPU or memory beside them. empty nodes: GPU nodes without a GPU pod. idle: of "
            f"jobs that do not use them. {see('RunwayGpusStranded', 'RunwayGpuNodesEmpty', 'RunwayGpuIdle')}",
            "short",
            ("max by (pool) (runway_pool_stranded_gpus)", "{{pool}} stranded"),
            ("max by (pool) (runway_pool_nodes_without_gpu_pods)", "{{pool}} empty nodes"),
            (or_none_yet(f"sum(max by (tenant, gpu_type) (runway_idle_gpus{{{SELECTED}}}))"), "idle"),
        ),
    ]


def _gpu_faults() -> list[Panel]:
    return [
        graph(
            "Faulty GPU nodes",
            "faulty: the node's health monitor reports its GPUs. no GPU: the device plugin has registered none. "
            + see("RunwayGpuHardware", "RunwayGpusNotRegistered"),
            "short",
            ("max by (pool) (runway_pool_faulty_gpu_nodes)", "{{pool}} faulty"),
            ("max by (pool) (runway_pool_nodes_without_gpus)", "{{pool}} no GPU"),
        ),
        graph(
            "Last Xid by GPU",
            "Up to 45 mostly a fault of the job, above a fault of the GPU. 0: none since the exporter started. "
            + see("RunwayGpuXid"),
            "short",
            ("max by (Hostname, gpu) (DCGM_FI_DEV_XID_ERRORS)", "{{Hostname}} GPU {{gpu}}"),
            steps=((None, "green"), (45, "red")),
        ),
        graph(
            "Uncorrectable memory errors by GPU",
            "Rows that the GPU remapped in its life, and failed remaps, which need a new GPU. "
            + see("RunwayGpuMemoryErrors"),
            "short",
            ("max by (Hostname, gpu) (DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS)", "{{Hostname}} GPU {{gpu}}"),
            ("max by (Hostname, gpu) (DCGM_FI_DEV_ROW_REMAP_FAILURE)", "{{Hostname}} GPU {{gpu}} failed"),
        ),
        graph(
            "GPUs without metrics",
            f"GPUs that no DCGM exporter measures. Must be 0. {see('RunwayGpuMetricsMissing')}",
            "short",
            (
                f"sum({OFFERED_GPUS}) - (count(count by (UUID) (DCGM_FI_DEV_GPU_UTIL)) or vector(0))",
                "GPUs",
            ),
        ),
    ]


def waiting() -> Row:
    """Return the row of waiting jobs and their reasons."""
    return "Waiting by reason", _waiting()


def _waiting() -> list[Panel]:
    return [
        graph(
            "Waiting jobs by condition",
            "node_starting: the autoscaler starts a node. pool_at_maximum: raise max_nodes or lower quotas. "
            "no_capacity: the cloud has none. quota_backstop: the ResourceQuota is not the policy's. none: a container "
            f"is being created. {see('RunwayJobsPendingLong', 'RunwayQuotaMismatch')}",
            "short",
            (f"sum by (condition) (max by (tenant, condition) (runway_waiting_jobs{{{SELECTED}}}))", "{{condition}}"),
        ),
        graph(
            "Longest wait by tenant",
            "Age of the oldest pending job. A steady rise: the cluster cannot run admitted jobs. "
            f"`runway status ID` gives the reason. {see('RunwayJobsPendingLong')}",
            "s",
            (f"max by (tenant) (runway_oldest_pending_seconds{{{SELECTED}}})", "{{tenant}}"),
            steps=rising(900, 1800),
        ),
        graph(
            "Jobs that cannot start",
            "Pending jobs by the start deadline of their cause. Only registry: the registry fails for all. "
            f"{see('RunwayRegistryFailing')}",
            "short",
            (f"max by (tenant, cause) (runway_jobs_not_starting{{{SELECTED}}})", "{{tenant}} {{cause}}"),
        ),
        graph(
            "Jobs ended at a start deadline, last hour",
            "By the limit: a cause of the policy, or job for the job's own start_timeout_seconds. "
            f"{see('RunwayStartDeadlinesFailing')}",
            "short",
            ("sum by (cause) (increase(runway_start_timeouts_total[1h]))", "{{cause}}"),
            ("sum by (outcome) (increase(runway_start_timeout_errors_total[1h]))", "failed attempts: {{outcome}}"),
        ),
    ]
