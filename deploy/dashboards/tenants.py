"""The row of the selected tenants: quota, budget, jobs and failures."""

from __future__ import annotations

from deploy.dashboards.panels import SELECTED, Panel, Row, bars, graph, rising, see

GPU_USED, GPU_RESERVED, GPU_LIMIT, BUDGET_USED, BUDGET_RESERVED, BUDGET_LIMIT = (
    f'max by (tenant) (runway_quota_{part}{{{SELECTED}, resource="{resource}"}})'
    for resource in ("gpu", "budget")
    for part in ("used", "reserved", "limit")
)


def row() -> Row:
    """Return the row."""
    return "Tenants", [*_quotas(), *_jobs()]


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
        bars(
            "Budget in use",
            "Share of each tenant's budget: the cost of jobs that finished in its window, and the ceilings of others. "
            f"Tenants without a budget are not shown. {see('RunwayBudgetNearlySpent')}",
            "percentunit",
            (f"({BUDGET_USED} + {BUDGET_RESERVED}) / ({BUDGET_LIMIT} > 0)", "{{tenant}}"),
            rising(0.6, 0.8),
            full=1,
        ),
        _quota("gpu", "GPU quota", "short", "RunwayGpuQuotaNearFull"),
        _quota("cpu", "CPU quota", "short", "RunwayJobsPendingLong"),
        _quota("memory", "Memory quota", "bytes", "RunwayJobsPendingLong"),
        _quota("jobs", "Job quota", "short", "RunwayJobsPendingLong"),
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
