"""Is it safe, is it up: the first thing to look at."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from deploy.dashboards.panels import (
    MUST_BE_ONE,
    OWN_REFUSALS,
    Panel,
    assemble,
    bars,
    graph,
    number,
    or_none_yet,
    rising,
    see,
)

HELD = 'max by (tenant) (runway_quota_used{resource="gpu"}) + max by (tenant) (runway_quota_reserved{resource="gpu"})'
LIMIT = 'max by (tenant) (runway_quota_limit{resource="gpu"})'


def dashboard() -> Dashboard:
    return assemble(
        "runway-overview",
        "Runway / Overview",
        "Is Runway safe and up? Start here; every panel names its runbook.",
        [
            ("Safe and up", _safe_and_up()),
            ("GPUs", _gpus()),
            ("Jobs", _jobs()),
        ],
    )


def _safe_and_up() -> list[Panel]:
    return [
        number(
            "A process may write",
            f"No: submissions and cancels get 503, running jobs go on. {see('RunwayNoWriter')}",
            "short",
            ("max(runway_is_writer) or vector(0)", "writer"),
            MUST_BE_ONE,
            words=True,
        ),
        number(
            "All jobs and pods listed",
            f"No: this process admits nothing until its first lists are done. {see('RunwayNotSynced')}",
            "short",
            ("min(runway_synced) or vector(0)", "synced"),
            MUST_BE_ONE,
            words=True,
        ),
        number(
            "Last news of jobs and pods",
            "Bookmarks come about once a minute. Beyond two minutes nothing is released and states are old. "
            + see("RunwayWatchStale"),
            "s",
            ('max(runway_watch_age_seconds{kind=~"jobs|pods"})', "age"),
            rising(90, 120),
        ),
        number(
            "Turned away by Runway, 5 min",
            "Share of submissions that got 503, or 500, for a reason that is not the tenants'. "
            + see("RunwaySubmissionsFailing"),
            "percentunit",
            (
                or_none_yet(
                    or_none_yet(f'sum(rate(runway_submissions_total{{outcome=~"{OWN_REFUSALS}"}}[5m]))')
                    + " / (sum(rate(runway_submissions_total[5m])) > 0)"
                ),
                "share",
            ),
            rising(0.01, 0.05),
        ),
        number(
            "Longest wait",
            "Of an admitted job for a node. A GPU node that has to be started takes some ten minutes. "
            + see("RunwayJobsPendingLong"),
            "s",
            ("max(runway_oldest_pending_seconds)", "wait"),
            rising(900, 1800),
        ),
        number(
            "Submissions are open",
            "No: an operator has stopped all submissions, on purpose; the reason is in /readyz and in every refusal. "
            + see("RunwaySubmissionsStopped"),
            "short",
            ("1 - max(runway_submissions_stopped)", "open"),
            MUST_BE_ONE,
            words=True,
        ),
    ]


def _gpus() -> list[Panel]:
    return [
        graph(
            "GPUs held",
            "By unfinished jobs, by pods that have not ended, and by creates in flight. At its limit a tenant is "
            "refused. " + see("RunwayGpuQuotaNearFull"),
            "short",
            (HELD, "{{tenant}}"),
            (f"sum({LIMIT})", "all limits"),
        ),
        bars(
            "GPU quota in use",
            "Share of each tenant's limit that is held now; a tenant without GPUs is not shown. "
            + see("RunwayGpuQuotaNearFull"),
            "percentunit",
            (f"({HELD}) / ({LIMIT} > 0)", "{{tenant}}"),
            rising(0.7, 0.9),
            full=1,
        ),
        graph(
            "GPUs held by pods that were told to end",
            "They count until Kubernetes says that the pod is gone. A line that stays up is a pod that hangs. "
            + see("RunwayGpusHeldByTerminating"),
            "short",
            ('max by (tenant) (runway_quota_terminating{resource="gpu"})', "{{tenant}}"),
        ),
        graph(
            "Longest wait by tenant",
            "Of the jobs that are pending now. Rising steadily: the cluster does not run what was admitted. "
            + see("RunwayJobsPendingLong"),
            "s",
            ("max by (tenant) (runway_oldest_pending_seconds)", "{{tenant}}"),
            steps=rising(900, 1800),
        ),
    ]


def _jobs() -> list[Panel]:
    return [
        graph(
            "Submissions by outcome",
            "A minute. created and replayed are good, invalid_spec and quota_exceeded are the tenant's to mend, "
            "rate_limited is its client's pace; the rest is Runway's or Kubernetes'. "
            + see("RunwaySubmissionsFailing"),
            "cpm",
            ("sum by (outcome) (rate(runway_submissions_total[$__rate_interval])) * 60", "{{outcome}}"),
        ),
        graph(
            "Jobs by state",
            "Jobs that Kubernetes still has; finished ones go when their time to live is over. Many pending: see the "
            "longest wait. " + see("RunwayJobsPendingLong"),
            "short",
            ("sum by (state) (max by (tenant, state) (runway_jobs))", "{{state}}"),
        ),
        graph(
            "Failures by category, last hour",
            "user: the job's own doing, and its owner's to mend. infra, runway: yours. policy: what the cluster "
            "refuses; render the tenants again. " + see("RunwayJobsFailing"),
            "short",
            ("sum by (category) (increase(runway_failures_total[1h]))", "{{category}}"),
        ),
        graph(
            "What may yet be spent",
            "The most that all jobs that are not over can cost until their timeouts. A jump is a large job or a long "
            "timeout. " + see("RunwayCostBurn"),
            "currencyUSD",
            ("max by (tenant) (runway_active_cost_ceiling_usd)", "{{tenant}}"),
        ),
    ]
