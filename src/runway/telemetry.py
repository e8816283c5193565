"""Logs as JSON on stdout, and every metric with its name, type and labels.

The policy and enums bound the labels; a job id is never a label. Gauges are read from state at each scrape, at a cost
that depends on the number of tenants, not of jobs.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_WHOLE_SECOND_BUCKETS: Final = (1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


def configure_logging(level: str) -> None:
    """Set up logging for this process, and for libraries from level `warning` up."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING)


class _ToStructlog(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        exception = record.exc_info or None
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, exc_info=exception)


class GaugeSample(NamedTuple):
    """One value that is read from state at a scrape."""

    metric: str
    labels: tuple[str, ...]
    value: float


GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "runway_quota_limit": ("Quota of a tenant", ("tenant", "resource")),
    "runway_quota_used": ("Quota in use by a tenant's jobs", ("tenant", "resource")),
    "runway_quota_reserved": ("Quota reserved for creates in flight", ("tenant", "resource")),
    "runway_quota_terminating": ("Quota held by terminating pods", ("tenant", "resource")),
    "runway_orphaned_pods": ("Pods that run on although their Job was deleted", ("tenant",)),
    "runway_jobs": ("Jobs by state", ("tenant", "state")),
    "runway_oldest_pending_seconds": ("Age of the oldest pending job", ("tenant",)),
    "runway_waiting_jobs": ("Pending jobs by condition; none: without a condition", ("tenant", "condition")),
    "runway_pool_nodes": ("Nodes of a pool by state: ready, not_ready", ("pool", "state")),
    "runway_pool_max_nodes": ("Maximum number of nodes that the policy gives", ("pool",)),
    "runway_pool_allocatable": ("Resources of the ready nodes of a pool", ("pool", "resource")),
    "runway_pool_requested": ("Requests of all pods on the ready nodes of a pool", ("pool", "resource")),
    "runway_pool_hourly_usd": ("Hourly price of the nodes of a pool that run", ("pool",)),
    "runway_pool_charged_hourly_usd": ("Hourly price of the jobs on the nodes of a pool", ("pool",)),
    "runway_pool_undersized_nodes": ("Ready nodes that are smaller than the policy says", ("pool",)),
    "runway_pool_nodes_without_gpus": ("Ready nodes of a pool with GPUs that offer none", ("pool",)),
    "runway_pool_nodes_without_gpu_pods": ("Ready GPU nodes without a pod that requests a GPU", ("pool",)),
    "runway_pool_faulty_gpu_nodes": ("Nodes whose health monitor reports faulty GPUs", ("pool",)),
    "runway_idle_gpus": ("GPUs of running jobs that were idle for the policy's time", ("tenant", "gpu_type")),
    "runway_idle_gpu_hourly_usd": ("Hourly price of those GPUs' share of their jobs", ("tenant", "gpu_type")),
    "runway_pool_stranded_gpus": ("Free GPUs without their share of the node's free CPU or memory", ("pool",)),
    "runway_active_cost_ceiling_usd": ("Maximum cost of all unfinished jobs", ("tenant",)),
    "runway_watch_age_seconds": ("Seconds since the last event of a watch", ("kind",)),
    "runway_jobs_not_starting": ("Jobs that cannot start, by the start deadline of their cause", ("tenant", "cause")),
    "runway_start_timeout_lag_seconds": ("Delay of the start deadline that is most overdue", ()),
    "runway_record_lag_seconds": ("Age of the oldest finished job without a record", ()),
    "runway_open_streams": ("Open log and event streams", ()),
    "runway_tasks": ("Tasks of the event loop; constant without load", ()),
    "runway_synced": ("1 after Jobs and pods were listed", ()),
    "runway_is_writer": ("1 on the leader", ()),
    "runway_submissions_stopped": ("1 during an emergency stop", ()),
    "runway_undecodable_objects": ("Kubernetes objects with undecodable fields", ("kind",)),
    "runway_tenant_info": ("Always 1: the namespace of each tenant", ("tenant", "namespace")),
}
"""Resources are in GPUs, CPUs, bytes, jobs and USD; an unlimited one has no limit. `gpu_types.NAME` are GPUs of a type,
`usd_per_hour` hourly prices, `budget` the cost of jobs that finished in the window and the ceilings of the others."""
STAGES: Final = ("admit", "build", "create", "total")
"""The stages of a submission."""
UNCHARGED: Final = ("late_end", "node_lost")
"""Reasons of a cost beyond the ceiling: an attempt ended after its grace period, or its node stopped responding."""


class Metrics:
    """The metrics of one app, in their own registry."""

    def __init__(self) -> None:
        # Creation times are unused, and would add a series per counter and histogram.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        # https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
        ProcessCollector(registry=self.registry)
        self.submissions = self._counter(
            "runway_submissions_total",
            "Submissions by outcome: created, replayed, or the error code",
            "tenant",
            "outcome",
        )
        self.submission_seconds = self._histogram(
            "runway_submission_seconds", "Duration of a submission by stage: " + ", ".join(STAGES), "stage"
        )
        # From 0 on: the first one shows as an increase.
        self.stage_seconds = {stage: self.submission_seconds.labels(stage) for stage in STAGES}
        self.rate_limited = self._counter(
            "runway_rate_limited_total", "Submissions rejected by the rate limit", "tenant"
        )
        self.http_seconds = self._histogram(
            "runway_http_request_seconds",
            "Seconds from a request to the start of its response",
            "route",
            "method",
            "status",
        )
        self.internal_errors = self._counter(
            "runway_internal_errors_total",
            "Defects: requests with status 500 or a response that was cut off, and controllers that ended",
        )
        self.corrections = self._counter(
            "runway_resync_corrections_total", "Objects that a list corrected after the watch missed a change", "kind"
        )
        self.watch_losses = self._counter("runway_watch_losses_total", "Lost watch connections", "kind")
        self.kubernetes_requests = self._counter(
            "runway_kubernetes_requests_total",
            "Finished calls to Kubernetes by outcome: ok, missing, conflict, expired, refused (another 4xx), "
            "not_done (no connection, or 429), ambiguous (no response, or 5xx), "
            "too_large (listed again in smaller pages), too_busy (never sent)",
            "verb",
            "kind",
            "outcome",
        )
        self.quota_release_seconds = self._histogram(
            "runway_quota_release_seconds",
            "Seconds from the end of a job, by Kubernetes' timestamps, to the release of its quota. Timestamps have "
            "whole seconds, so values are up to 1 s too long",
            buckets=_WHOLE_SECOND_BUCKETS,
        )
        self.records = self._counter(
            "runway_records_total",
            "Writes of job records by outcome: kept, conflict, gone, failed; log_lost: kept without the log",
            "outcome",
        )
        self.start_timeouts = self._counter(
            "runway_start_timeouts_total",
            "Jobs that a start deadline ended: image, registry, config, unschedulable, or job (its own)",
            "cause",
        )
        self.start_timeout_errors = self._counter(
            "runway_start_timeout_errors_total",
            "Failed attempts to end a job at a start deadline: conflict, failed",
            "outcome",
        )
        self.jobs_finished = self._counter(
            "runway_jobs_finished_total", "Finished jobs, each counted once", "tenant", "state"
        )
        self.incomplete_successes = self._counter(
            "runway_incomplete_successes_total",
            "Succeeded jobs whose work may be incomplete, each counted once: the cluster ended the pod, or the kernel "
            "killed a process, and the job exited with 0",
            "tenant",
        )
        self.failures = self._counter(
            "runway_failures_total", "Failed jobs by failure code, each counted once", "tenant", "code", "category"
        )
        self.actual_cost = self._counter(
            "runway_actual_cost_usd_total", "Actual cost of finished jobs, each counted once", "tenant"
        )
        self.uncharged_cost = self._counter(
            "runway_uncharged_cost_usd_total",
            "Cost of finished jobs beyond their ceilings, each counted once, by reason: " + ", ".join(UNCHARGED),
            "tenant",
            "reason",
        )

        self.jobs_ended = self._counter(
            "runway_jobs_ended_total", "Running jobs that Runway ended, by failure code", "code"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float] = _REQUEST_BUCKETS) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def initialise_counters(
        self, tenants: Iterable[str], *, states: Sequence[str], failures: Sequence[tuple[str, str]]
    ) -> None:
        """Create the counters of each tenant at 0: a series that starts at 1 shows no increase.

        https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics
        """
        self.records.labels("kept")
        for tenant in tenants:
            self.submissions.labels(tenant, "created")
            self.rate_limited.labels(tenant)
            self.actual_cost.labels(tenant)
            self.incomplete_successes.labels(tenant)
            for reason in UNCHARGED:
                self.uncharged_cost.labels(tenant, reason)
            for state in states:
                self.jobs_finished.labels(tenant, state)
            for code, category in failures:
                self.failures.labels(tenant, code, category)

    def register_collector(self, read: Callable[[], Iterable[GaugeSample]]) -> None:
        """Call `read` at each scrape for the values of `GAUGES`."""
        self.registry.register(_StateCollector(read))


class _StateCollector(Collector):
    def __init__(self, read: Callable[[], Iterable[GaugeSample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        families = {name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in GAUGES.items()}
        for sample in self._read():
            families[sample.metric].add_metric(sample.labels, sample.value)
        yield from families.values()

    def describe(self) -> Iterator[Metric]:
        return iter(())
