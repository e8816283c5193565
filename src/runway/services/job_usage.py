"""What a job uses: its pods as Kubernetes knows them, their figures as Prometheus has them.

All figures are those of the pod's cgroup, which cAdvisor gives as the series without a container name. Requests equal
limits and there is one container, so the pod's cgroup has the same limits as the container's; but a busy process is
held back by whichever of the two runs out first, so the container's own count of throttled periods is often too low.
https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

import structlog

from runway.controllers.sync import Observer
from runway.errors import JobNotFound, PrometheusUnavailable
from runway.jobs.annotations import spec_of
from runway.jobs.usage import Figure, Usage, limits_of, usage_of
from runway.kube.objects import Pod
from runway.prometheus import Prometheus, Sample, matching, matching_any
from runway.state.job_store import JobKey

log = structlog.get_logger()

MAX_PODS: Final = 20
"""Attempts that are asked for, the newest: bounds the query and its answer."""
CLOCK_SKEW: Final = timedelta(seconds=60)
"""How much further back than the first pod is looked, since clocks differ. No other pod has had these names."""
WHOLE_SECOND: Final = timedelta(seconds=1)
"""Kubernetes tells times in whole seconds, rounded down."""


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A job's usage, where it comes from, and what kept it from being known."""

    usage: Usage
    source: Literal["prometheus", "kept"] | None
    problem: str | None = None


async def report_usage(
    observer: Observer,
    prometheus: Prometheus | None,
    key: JobKey,
    kept: Usage | None,
    *,
    now: Callable[[], datetime],
) -> UsageReport:
    """A job's usage as far as it is known: what was `kept` when the job ended, else what Prometheus has now.

    Raises JobNotFound; Prometheus being away is a problem that is told, not an error.
    """
    if kept is not None and kept.measured:
        return UsageReport(kept, "kept")
    if prometheus is None:
        return UsageReport(_unmeasured(observer, key), None)
    try:
        return UsageReport(await query_usage(observer, prometheus, key, now=now), "prometheus")
    except PrometheusUnavailable as error:
        log.warning("usage unknown", job_id=key.name, reason=str(error))
        return UsageReport(_unmeasured(observer, key), "prometheus", str(error))


async def query_usage(observer: Observer, prometheus: Prometheus, key: JobKey, *, now: Callable[[], datetime]) -> Usage:
    """What Prometheus has of a job: the figures of the last attempt that started, and the memory peak of all.

    Raises JobNotFound and PrometheusUnavailable. The newest sample may be a few seconds old, and a job that was shorter
    than that may have none.
    """
    case = observer.snapshot(key)
    if case is None:
        raise JobNotFound(key.name)
    pods, spec = [pod for pod in case.pods if _started_at(pod)][-MAX_PODS:], spec_of(case.job)
    if not pods:
        return limits_of(spec)
    ended_at = _ended_at(pods[-1])
    first = min(pod.metadata.creation_timestamp or now() for pod in pods)
    window = (ended_at or now()) - first + CLOCK_SKEW
    query = promql(key.namespace, [pod.metadata.name for pod in pods], math.ceil(window.total_seconds()))
    figures = figures_by_pod(await prometheus.query(query, at=ended_at))
    of_pods = [figures.get(pod.metadata.name, {}) for pod in pods]
    return usage_of(spec, of_pods[-1], _started_at(pods[-1]), of_pods)


def promql(namespace: str, pods: Sequence[str], seconds: int) -> str:
    """One query for every figure of these pods over so many seconds: each series carries its `pod` and its `figure`."""
    in_pods = f"{matching('namespace', namespace)},{matching_any('pod', pods)}"
    cgroup = f'{{{in_pods},container="",image=""}}'
    # DCGM's exporter names the pod that holds the GPU. A scrape prefixes these labels where its target has some of the
    # same name, as a pod does: https://github.com/NVIDIA/dcgm-exporter and
    # https://prometheus.io/docs/prometheus/latest/configuration/configuration/#scrape_config (honor_labels)
    exported = f"{matching('exported_namespace', namespace)},{matching_any('exported_pod', pods)}"
    gpu = f"avg_over_time(DCGM_FI_DEV_GPU_UTIL{{{in_pods}}}[{seconds}s])"
    gpu_exported = f"avg_over_time(DCGM_FI_DEV_GPU_UTIL{{{exported}}}[{seconds}s])"
    by_figure = {
        Figure.CPU_SECONDS: f"last_over_time(container_cpu_usage_seconds_total{cgroup}[{seconds}s])",
        Figure.CPU_SAMPLED_AT: f"timestamp(container_cpu_usage_seconds_total{cgroup})",
        Figure.CPU_PERIODS: f"last_over_time(container_cpu_cfs_periods_total{cgroup}[{seconds}s])",
        Figure.CPU_PERIODS_THROTTLED: (
            f"last_over_time(container_cpu_cfs_throttled_periods_total{cgroup}[{seconds}s])"
        ),
        # A second earlier: what is left of a pod when its container has ended is not what the job used.
        Figure.MEMORY: f"last_over_time(container_memory_working_set_bytes{cgroup}[{seconds}s] offset 1s)",
        Figure.MEMORY_PEAK: f"max_over_time(container_memory_working_set_bytes{cgroup}[{seconds}s])",
        Figure.MEMORY_MOST: f"max_over_time(container_memory_max_usage_bytes{cgroup}[{seconds}s])",
        Figure.CACHE_PEAK: f"max_over_time(container_memory_cache{cgroup}[{seconds}s])",
    }
    parts = [_named(figure, f"max by (pod) ({series})") for figure, series in by_figure.items()]
    parts.append(_named(Figure.GPU_PERCENT, f"avg by (pod) ({gpu})"))
    renamed = f'label_replace({gpu_exported}, "pod", "$1", "exported_pod", "(.*)")'
    parts.append(_named(Figure.GPU_PERCENT, f"avg by (pod) ({renamed})"))
    return " or ".join(parts)


def figures_by_pod(samples: Sequence[Sample]) -> dict[str, dict[Figure, float]]:
    """The answer to `promql`, by pod; whatever does not belong in it is left out."""
    found: dict[str, dict[Figure, float]] = {}
    known = {str(figure): figure for figure in Figure}
    for sample in samples:
        pod, figure = sample.labels.get("pod"), known.get(sample.labels.get("figure", ""))
        if pod and figure:
            found.setdefault(pod, {})[figure] = sample.value
    return found


def _named(figure: Figure, expression: str) -> str:
    return f'label_replace({expression}, "figure", "{figure}", "", "")'


def _unmeasured(observer: Observer, key: JobKey) -> Usage:
    job = observer.job(key)
    if job is None:
        raise JobNotFound(key.name)
    return limits_of(spec_of(job))


def _started_at(pod: Pod) -> datetime | None:
    container = pod.container
    state = container.running or container.terminated
    started = state.started_at if state else None
    # What the kubelet writes for a container that never started: kubernetes/kubernetes#120331
    return started if started and started > datetime(1971, 1, 1, tzinfo=UTC) else None


def _ended_at(pod: Pod) -> datetime | None:
    ended = pod.container.terminated
    return ended.finished_at + WHOLE_SECOND if ended and ended.finished_at else None
