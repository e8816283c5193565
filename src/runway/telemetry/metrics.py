"""Every metric Runway has: names, types and labels in one place.

Labels are bounded by the policy and by enums; a job id is never a label. What can be read from state (quota, jobs,
watch age) is read at the scrape, at a cost that grows with the tenants and not with the jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_SECOND_BUCKETS = (1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Sample(NamedTuple):
    """One value read from state at a scrape."""

    metric: str
    labels: tuple[str, ...]
    value: float


GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "runway_quota_limit": ("What a tenant may hold", ("tenant", "resource")),
    "runway_quota_used": ("What a tenant's jobs hold", ("tenant", "resource")),
    "runway_quota_reserved": ("What creates in flight have reserved", ("tenant", "resource")),
    "runway_quota_terminating": ("What pods hold that were told to end", ("tenant", "resource")),
    "runway_jobs": ("Jobs known, by state", ("tenant", "state")),
    "runway_oldest_pending_seconds": ("For how long the pending job waits that has waited longest", ("tenant",)),
    "runway_active_cost_ceiling_usd": ("The most that jobs which are not over can cost", ("tenant",)),
    "runway_watch_age_seconds": ("Seconds since a watch last heard from Kubernetes", ("kind",)),
    "runway_record_lag_seconds": ("For how long the job has been over that has waited longest for its record", ()),
    "runway_open_streams": ("Log and event streams that are open", ()),
    "runway_tasks": ("Tasks of the event loop: without load a number that stays", ()),
    "runway_synced": ("1 once everything was listed", ()),
    "runway_is_writer": ("1 where this process may write", ()),
    "runway_submissions_stopped": ("1 while an operator has stopped all submissions", ()),
    "runway_undecodable_objects": ("Kubernetes objects of which a part cannot be read", ("kind",)),
    "runway_tenant_info": ("Always 1: the namespace of each tenant", ("tenant", "namespace")),
}
"""Read at the scrape: resources in GPUs, CPUs, bytes and jobs."""
STAGES: Final = ("admit", "build", "create", "total")
"""Of a submission."""


class Metrics:
    """The metrics of one app, in a registry of their own."""

    def __init__(self) -> None:
        # When each series began nobody asks, and it would be a series more for each counter and histogram.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        # CPU, memory, start and open files of this process, under the names that all clients of Prometheus share.
        # https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics
        ProcessCollector(registry=self.registry)
        self.submissions = Counter(
            "runway_submissions_total",
            "Submissions by outcome: created, replayed, or the code of the refusal",
            ("tenant", "outcome"),
            registry=self.registry,
        )
        self.submission_seconds = Histogram(
            "runway_submission_seconds",
            "Seconds of a submission, by stage: " + ", ".join(STAGES),
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        # From 0 on, or the first would not show as an increase.
        self.stage_seconds = {stage: self.submission_seconds.labels(stage) for stage in STAGES}
        self.rate_limited = Counter(
            "runway_rate_limited_total", "Submissions refused for their rate", ("tenant",), registry=self.registry
        )
        self.http_seconds = Histogram(
            "runway_http_request_seconds",
            "Seconds of a request to Runway until its answer began",
            ("route", "method", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.internal_errors = Counter(
            "runway_internal_errors_total",
            "Requests that met a defect of Runway's own: answered 500, or broken off where the answer had begun",
            registry=self.registry,
        )
        self.corrections = Counter(
            "runway_resync_corrections_total",
            "Records that a list found other than the watch had left them",
            ("kind",),
            registry=self.registry,
        )
        self.watch_losses = Counter(
            "runway_watch_losses_total", "Times contact with Kubernetes was lost", ("kind",), registry=self.registry
        )
        self.kubernetes_requests = Counter(
            "runway_kubernetes_requests_total",
            "Calls to Kubernetes that have ended by outcome: ok, missing, conflict, expired, refused (another 4xx), "
            "not_done (no connection, or 429), ambiguous (no answer, or 5xx), "
            "too_large (listed again in smaller pages), too_busy (never sent)",
            ("verb", "kind", "outcome"),
            registry=self.registry,
        )
        self.quota_release_seconds = Histogram(
            "runway_quota_release_seconds",
            "Seconds from a job's end as Kubernetes dates it (a successful container's end, else the Job's verdict) to "
            "the release of its quota. Those times are other clocks' and cut to whole seconds: up to 1 s too long",
            buckets=_SECOND_BUCKETS,
            registry=self.registry,
        )
        self.records = Counter(
            "runway_records_total",
            "Writes of kept evidence by outcome: kept, conflict, gone, failed; log_lost: kept without the log",
            ("outcome",),
            registry=self.registry,
        )
        self.jobs_finished = Counter(
            "runway_jobs_finished_total", "Jobs that are over, each once", ("tenant", "state"), registry=self.registry
        )
        self.failures = Counter(
            "runway_failures_total",
            "Failed jobs by the verdict, each once",
            ("tenant", "code", "category"),
            registry=self.registry,
        )
        self.actual_cost = Counter(
            "runway_actual_cost_usd_total",
            "What jobs that are over have cost, each once",
            ("tenant",),
            registry=self.registry,
        )

    def initialise_counters(
        self, tenants: Iterable[str], *, states: Sequence[str], failures: Sequence[tuple[str, str]]
    ) -> None:
        """Show the counters of each tenant's jobs before the first: a series that begins at 1 has not increased.

        https://prometheus.io/docs/practices/instrumentation/#avoid-missing-metrics
        """
        self.records.labels("kept")
        for tenant in tenants:
            self.submissions.labels(tenant, "created")
            self.rate_limited.labels(tenant)
            self.actual_cost.labels(tenant)
            for state in states:
                self.jobs_finished.labels(tenant, state)
            for code, category in failures:
                self.failures.labels(tenant, code, category)

    def register_collector(self, read: Callable[[], Iterable[Sample]]) -> None:
        """Have `read` called at each scrape for the metrics of `GAUGES`."""
        self.registry.register(_StateCollector(read))


class _StateCollector(Collector):
    def __init__(self, read: Callable[[], Iterable[Sample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        families = {name: GaugeMetricFamily(name, text, labels=labels) for name, (text, labels) in GAUGES.items()}
        for sample in self._read():
            families[sample.metric].add_metric(sample.labels, sample.value)
        yield from families.values()

    def describe(self) -> Iterator[Metric]:
        return iter(())
