"""Rows for the selected tenants: quota, jobs and failures, cost."""

from __future__ import annotations

from deploy.dashboards.panels import Panel, Row, bars, graph, rising, see

SELECTED = 'tenant=~"$tenant"'
GPU_USED, GPU_RESERVED, GPU_LIMIT, BUDGET_USED, BUDGET_RESERVED, BUDGET_LIMIT = (
    f'max by (tenant) (runway_quota_{part}{{{SELECTED}, resource="{resource}"}})'
    for resource in ("gpu", "budget")
    for part in ("used", "reserved", "limit")
)
CEILING = f"max by (tenant) (runway_active_cost_ceiling_usd{{{SELECTED}}})"
SPENT = f"sum by (tenant) (increase(runway_actual_cost_usd_total{{{SELECTED}}}[24h]))"


def rows() -> list[Row]:
    """Return the rows in the order in which Grafana shows them."""
    return [("Quota", _quotas()), ("Jobs and failures", _jobs()), ("Nodes", _nodes()), ("Cost", _cost())]


def _quotas() -> list[Panel]:
    return [
        bars(
            "GPU quota in use",
            "Share of each tenant's GPU limit that is used or reserved. Tenants without GPUs are not shown. "
            + see("RunwayGpuQuotaNearFull"),
            "percentunit",
            (f"({GPU_USED} + {GPU_RESERVED}) / ({GPU_LIMIT} > 0)", "{{tenant}}"),
            rising(0.7, 0.9),
            full=1,
        ),
        _quota("gpu", "GPUs", "short", "RunwayGpuQuotaNearFull"),
        _quota("cpu", "CPUs", "short", "RunwayJobsPendingLong"),
        _quota("memory", "Memory", "bytes", "RunwayJobsPendingLong"),
        _quota("jobs", "Jobs", "short", "RunwayJobsPendingLong"),
    ]


def _quota(resource: str, title: str, unit: str, alert: str) -> Panel:
    def amount(part: str) -> str:
        return f'max by (tenant) (runway_quota_{part}{{{SELECTED}, resource="{resource}"}})'

    return graph(
        title,
        "used: unfinished jobs and pods. terminating: the part of it that terminating pods use. reserved: creates in "
        "flight. At the limit Runway rejects submissions with quota_exceeded; `runway quota` lists the jobs that use "
        f"the quota. {see(alert, 'RunwayGpusHeldByTerminating')}",
        unit,
        (amount("used"), "{{tenant}} used"),
        (amount("reserved"), "{{tenant}} reserved"),
        (amount("terminating"), "{{tenant}} terminating"),
        (amount("limit"), "{{tenant}} limit"),
    )


def _jobs() -> list[Panel]:
    return [
        graph(
            "Submissions by outcome",
            "Per minute. quota_exceeded: the quota is small, or jobs use it for long. invalid_spec: the response lists "
            "every violation. rate_limited: the client ignores Retry-After, or the rate is low. "
            + see("RunwaySubmissionsLimited", "RunwaySubmissionsFailing", "RunwayGpuQuotaNearFull"),
            "cpm",
            (
                f"sum by (tenant, outcome) (rate(runway_submissions_total{{{SELECTED}}}[$__rate_interval])) * 60",
                "{{tenant}} {{outcome}}",
            ),
        ),
        graph(
            "Jobs by state",
            "Jobs in Kubernetes now. Kubernetes deletes finished jobs after their time to live. "
            f"`runway ls --state pending` lists the pending jobs. {see('RunwayJobsPendingLong')}",
            "short",
            (f"max by (tenant, state) (runway_jobs{{{SELECTED}}})", "{{tenant}} {{state}}"),
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
        graph(
            "Finished jobs, last hour",
            f"By final state. If jobs only fail, look at the failure codes. {see('RunwayJobsFailing')}",
            "short",
            (
                f"sum by (tenant, state) (increase(runway_jobs_finished_total{{{SELECTED}}}[1h]))",
                "{{tenant}} {{state}}",
            ),
        ),
        graph(
            "Failures by category, last hour",
            "user: the job failed, and its owner can fix it. infra, runway: the operator fixes it. policy: the cluster "
            f"rejects the pods; render the tenants again. {see('RunwayJobsFailing')}",
            "short",
            (f"sum by (category) (increase(runway_failures_total{{{SELECTED}}}[1h]))", "{{category}}"),
        ),
        bars(
            "Failures by code",
            "The ten most frequent codes in the time range. docs/features.md explains each code. "
            f"`runway status ID` gives the hint for one job. {see('RunwayJobsFailing')}",
            "short",
            (f"topk(10, sum by (code) (increase(runway_failures_total{{{SELECTED}}}[$__range])))", "{{code}}"),
        ),
    ]


def _nodes() -> list[Panel]:
    return [
        graph(
            "Waiting jobs by condition",
            "node_starting: the autoscaler starts a node. pool_at_maximum: raise max_nodes or lower quotas. "
            f"no_capacity: the cloud has none. none: a container is being created. {see('RunwayJobsPendingLong')}",
            "short",
            (f"sum by (condition) (max by (tenant, condition) (runway_waiting_jobs{{{SELECTED}}}))", "{{condition}}"),
        ),
        graph(
            "Nodes by pool",
            "Ready and not ready nodes, smaller ones than the policy says, and nodes with faulty GPUs. "
            + see("RunwayPoolNodesUndersized", "RunwayGpuHardware"),
            "short",
            ("max by (pool, state) (runway_pool_nodes)", "{{pool}} {{state}}"),
            ("max by (pool) (runway_pool_undersized_nodes)", "{{pool}} too small"),
            ("max by (pool) (runway_pool_faulty_gpu_nodes)", "{{pool}} faulty"),
        ),
        graph(
            "Node price and charged price",
            "USD an hour of the nodes that run, and of the jobs on them. A wide gap: empty or badly filled nodes. "
            + see("RunwayNodeCostUncharged"),
            "currencyUSD",
            ("max by (pool) (runway_pool_hourly_usd)", "{{pool}} nodes"),
            ("max by (pool) (runway_pool_charged_hourly_usd)", "{{pool}} jobs"),
        ),
        graph(
            "GPUs without use",
            "stranded: free, without CPU or memory beside them. empty nodes: GPU nodes without a GPU pod. "
            + see("RunwayGpusStranded", "RunwayGpuNodesEmpty"),
            "short",
            ("max by (pool) (runway_pool_stranded_gpus)", "{{pool}} stranded"),
            ("max by (pool) (runway_pool_nodes_without_gpu_pods)", "{{pool}} empty nodes"),
        ),
    ]


def _cost() -> list[Panel]:
    return [
        bars(
            "Budget in use",
            "Share of each tenant's budget: the cost of jobs that finished in its window, and the ceilings of others. "
            f"Tenants without a budget are not shown. {see('RunwayBudgetNearlySpent')}",
            "percentunit",
            (f"({BUDGET_USED} + {BUDGET_RESERVED}) / ({BUDGET_LIMIT} > 0)", "{{tenant}}"),
            rising(0.6, 0.8),
            full=1,
        ),
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
