"""Who holds, waits for and spends what."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.panels import Panel, assemble, bars, choice, graph, rising, see

THESE = 'tenant=~"$tenant"'
CEILING = f"max by (tenant) (runway_active_cost_ceiling_usd{{{THESE}}})"
SPENT = f"sum by (tenant) (increase(runway_actual_cost_usd_total{{{THESE}}}[24h]))"
RESOURCES = (
    ("gpu", "GPUs", "short", "RunwayGpuQuotaNearFull"),
    ("cpu", "CPUs", "short", "RunwayJobsPendingLong"),
    ("memory", "Memory", "bytes", "RunwayJobsPendingLong"),
    ("jobs", "Jobs", "short", "RunwayJobsPendingLong"),
)


def dashboard() -> Dashboard:
    return assemble(
        "runway-tenants",
        "Runway / Tenants and cost",
        "What each tenant holds, waits for, is refused and spends.",
        [
            ("Quota", [_quota(*resource) for resource in RESOURCES]),
            ("Cost", _cost()),
            ("Demand", _demand()),
            ("Failures", _failures()),
        ],
        choice("tenant", "Tenant", "label_values(runway_tenant_info, tenant)"),
    )


def _quota(resource: str, title: str, unit: str, alert: str) -> Panel:
    def amount(part: str) -> str:
        return f'max by (tenant) (runway_quota_{part}{{{THESE}, resource="{resource}"}})'

    return graph(
        title,
        "used: by unfinished jobs and by pods that have not ended; terminating: the part of it that pods hold that "
        "were told to end; reserved: by creates in flight. At the limit submissions are refused with quota_exceeded: "
        f"`runway quota` says which jobs hold it. {see(alert, 'RunwayGpusHeldByTerminating')}",
        unit,
        (amount("used"), "{{tenant}} used"),
        (amount("reserved"), "{{tenant}} reserved"),
        (amount("terminating"), "{{tenant}} terminating"),
        (amount("limit"), "{{tenant}} limit"),
    )


def _cost() -> list[Panel]:
    return [
        graph(
            "What may yet be spent",
            "The most that jobs that are not over can cost until their timeouts. High with few jobs: ask the owners "
            f"for honest timeouts. {see('RunwayCostBurn')}",
            "currencyUSD",
            (CEILING, "{{tenant}}"),
        ),
        bars(
            "Spent in 24 hours",
            "Actual cost of jobs that ended, from bound to a node to ended, each attempt. Jobs that still run are not "
            f"in it. {see('RunwayCostBurn')}",
            "currencyUSD",
            (SPENT, "{{tenant}}"),
        ),
        bars(
            "Spent, and yet to be spent",
            "The sum of both, which the alert compares with the amount in its rule: set it to what is right for you. "
            + see("RunwayCostBurn"),
            "currencyUSD",
            (f"{CEILING} + {SPENT}", "{{tenant}}"),
            rising(200, 250),
        ),
        graph(
            "Spent, by hour",
            "Actual cost of the jobs that ended in the hour before. A jump without a jump in jobs: longer or larger "
            "ones. " + see("RunwayCostBurn"),
            "currencyUSD",
            (f"sum by (tenant) (increase(runway_actual_cost_usd_total{{{THESE}}}[1h]))", "{{tenant}}"),
        ),
    ]


def _demand() -> list[Panel]:
    return [
        graph(
            "Submissions by outcome",
            "A minute. quota_exceeded: too little quota, or jobs that hold it for too long; invalid_spec: the answer "
            f"names every fault. {see('RunwaySubmissionsLimited', 'RunwayGpuQuotaNearFull')}",
            "cpm",
            (
                f"sum by (tenant, outcome) (rate(runway_submissions_total{{{THESE}}}[$__rate_interval])) * 60",
                "{{tenant}} {{outcome}}",
            ),
        ),
        graph(
            "Rate limited",
            "Submissions a minute that got 429. A client that does not wait as Retry-After says, or a rate too low for "
            f"honest work. {see('RunwaySubmissionsLimited')}",
            "cpm",
            (f"sum by (tenant) (rate(runway_rate_limited_total{{{THESE}}}[$__rate_interval])) * 60", "{{tenant}}"),
        ),
        graph(
            "Jobs by state",
            "As Kubernetes has them now. `runway ls --state pending` lists those that wait. "
            + see("RunwayJobsPendingLong"),
            "short",
            (f"max by (tenant, state) (runway_jobs{{{THESE}}})", "{{tenant}} {{state}}"),
        ),
        graph(
            "Longest wait",
            f"Of the jobs that are pending now. `runway status ID` says why. {see('RunwayJobsPendingLong')}",
            "s",
            (f"max by (tenant) (runway_oldest_pending_seconds{{{THESE}}})", "{{tenant}}"),
            steps=rising(900, 1800),
        ),
    ]


def _failures() -> list[Panel]:
    return [
        bars(
            "Failures by code",
            "The ten most frequent in the time shown. docs/features.md says what each code means; `runway status ID` "
            f"gives the hint for one job. {see('RunwayJobsFailing')}",
            "short",
            (f"topk(10, sum by (code) (increase(runway_failures_total{{{THESE}}}[$__range])))", "{{code}}"),
        ),
        graph(
            "Finished jobs, last hour",
            f"By how they ended. Only failed and none succeeded: look at the codes. {see('RunwayJobsFailing')}",
            "short",
            (
                f"sum by (tenant, state) (increase(runway_jobs_finished_total{{{THESE}}}[1h]))",
                "{{tenant}} {{state}}",
            ),
        ),
    ]
