"""The resource usage of a job, from its pods and Prometheus.

All metrics are those of the pod's cgroup, the series without a container name in cAdvisor. Requests equal limits and
there is one container, so pod and container have the same limits. Whichever cgroup runs out first throttles a process,
so the container's own count of throttled periods is often too low. A pod with injected containers has a larger cgroup,
so its metrics are those of the job's container.
https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

import structlog

from runway.errors import JobNotFound, PrometheusUnavailable
from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.attempts import container_started_at
from runway.jobs.models import Usage
from runway.jobs.usage import PodFigure, limits_of, usage_of
from runway.kube.objects import Pod
from runway.prometheus import Prometheus, SeriesValue, matching, matching_any
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

log = structlog.get_logger()

MAX_PODS: Final = 20  # The newest attempts that a query covers: bounds the query and its response.
CLOCK_SKEW: Final = timedelta(seconds=60)
"""Added before the first pod's creation, because clocks differ. No other pod has had these names."""
WHOLE_SECOND: Final = timedelta(seconds=1)  # Kubernetes truncates times to the second.


@dataclass(frozen=True, slots=True)
class UsageReport:
    """A job's usage, its source, and the problem if it is unknown."""

    usage: Usage
    source: Literal["prometheus", "kept"] | None
    problem: str | None = None


async def report_usage(
    cluster: ClusterState,
    prometheus: Prometheus | None,
    key: JobKey,
    kept: Usage | None,
    *,
    now: Callable[[], datetime],
) -> UsageReport:
    """Return a job's usage: from its record if it has been measured, else from Prometheus now. Raises JobNotFound."""
    if kept is not None and kept.measured:
        return UsageReport(kept, "kept")
    if prometheus is None:
        return UsageReport(_unmeasured(cluster, key), None)
    try:
        return UsageReport(await query_usage(cluster, prometheus, key, now=now), "prometheus")
    except PrometheusUnavailable as error:
        log.warning("usage unknown", job_id=key.name, reason=str(error))
        return UsageReport(_unmeasured(cluster, key), "prometheus", str(error))


async def query_usage(
    cluster: ClusterState, prometheus: Prometheus, key: JobKey, *, now: Callable[[], datetime]
) -> Usage:
    """Query the metrics of the last attempt that started, and the memory peak of all attempts.

    Raises JobNotFound and PrometheusUnavailable.
    """
    snapshot = cluster.snapshot(key)
    if snapshot is None:
        raise JobNotFound(key.name)
    pods, spec = [pod for pod in snapshot.pods if container_started_at(pod)][-MAX_PODS:], spec_of(snapshot.job)
    if not pods:
        return limits_of(spec)
    ended = pods[-1].container.terminated
    ended_at = ended.finished_at + WHOLE_SECOND if ended and ended.finished_at else None
    first = min(pod.metadata.creation_timestamp or now() for pod in pods)
    window = (ended_at or now()) - first + CLOCK_SKEW
    query = promql(key.namespace, {pod.metadata.name: _cgroup(pod) for pod in pods}, math.ceil(window.total_seconds()))
    figures = figures_by_pod(await prometheus.query(query, key.namespace, ended_at))
    of_pods = [figures.get(pod.metadata.name, {}) for pod in pods]
    out_of_memory = any(ended.reason == "OOMKilled" for pod in pods if (ended := pod.container.terminated))
    return usage_of(spec, of_pods[-1], container_started_at(pods[-1]), of_pods, out_of_memory=out_of_memory)


def _cgroup(pod: Pod) -> str:
    """Return the container whose cgroup is the job's; empty for that of the pod."""
    is_shared = len(pod.spec.containers or ()) > 1 or bool(pod.spec.init_containers)
    return pod.container_name if is_shared else ""


def promql(namespace: str, pods: Mapping[str, str], seconds: int) -> str:
    """Write one query for all metrics of these pods: each series has the labels `pod` and `figure`.

    The values of `pods` are the containers that are measured, empty for the pods' own cgroups.
    """
    in_pods = f"{matching('namespace', namespace)},{matching_any('pod', pods)}"
    parts: list[str] = []
    for container in sorted(set(pods.values())):
        names = [pod for pod, measured in pods.items() if measured == container]
        of = f"{matching('namespace', namespace)},{matching_any('pod', names)},{matching('container', container)}"
        parts += _cadvisor(f"{{{of}}}" if container else f'{{{of},image=""}}', seconds)
    # DCGM's exporter names the pod that uses the GPU. A scrape prefixes these labels if its target has labels of the
    # same name, as a pod does: https://github.com/NVIDIA/dcgm-exporter and
    # https://prometheus.io/docs/prometheus/latest/configuration/configuration/#scrape_config (honor_labels)
    exported = f"{matching('exported_namespace', namespace)},{matching_any('exported_pod', pods)}"
    gpu = f"avg_over_time(DCGM_FI_DEV_GPU_UTIL{{{in_pods}}}[{seconds}s])"
    gpu_exported = f"avg_over_time(DCGM_FI_DEV_GPU_UTIL{{{exported}}}[{seconds}s])"
    parts.append(_named(PodFigure.GPU_PERCENT, f"avg by (pod) ({gpu})"))
    renamed = f'label_replace({gpu_exported}, "pod", "$1", "exported_pod", "(.*)")'
    parts.append(_named(PodFigure.GPU_PERCENT, f"avg by (pod) ({renamed})"))
    return " or ".join(parts)


def _cadvisor(cgroup: str, seconds: int) -> list[str]:
    by_figure = {
        PodFigure.CPU_SECONDS: f"last_over_time(container_cpu_usage_seconds_total{cgroup}[{seconds}s])",
        PodFigure.CPU_SAMPLED_AT: f"timestamp(container_cpu_usage_seconds_total{cgroup})",
        PodFigure.CPU_PERIODS: f"last_over_time(container_cpu_cfs_periods_total{cgroup}[{seconds}s])",
        PodFigure.CPU_PERIODS_THROTTLED: (
            f"last_over_time(container_cpu_cfs_throttled_periods_total{cgroup}[{seconds}s])"
        ),
        # A second earlier: the last sample may be that of a pod whose container has ended.
        PodFigure.MEMORY: f"last_over_time(container_memory_working_set_bytes{cgroup}[{seconds}s] offset 1s)",
        PodFigure.MEMORY_PEAK: f"max_over_time(container_memory_working_set_bytes{cgroup}[{seconds}s])",
        PodFigure.MEMORY_MOST: f"max_over_time(container_memory_max_usage_bytes{cgroup}[{seconds}s])",
        PodFigure.CACHE_PEAK: f"max_over_time(container_memory_cache{cgroup}[{seconds}s])",
    }
    return [_named(figure, f"max by (pod) ({series})") for figure, series in by_figure.items()]


def figures_by_pod(samples: Sequence[SeriesValue]) -> dict[str, dict[PodFigure, float]]:
    """Group the response to `promql` by pod; unknown series are ignored."""
    found: dict[str, dict[PodFigure, float]] = {}
    known = {str(figure): figure for figure in PodFigure}
    for sample in samples:
        pod, figure = sample.labels.get("pod"), known.get(sample.labels.get("figure", ""))
        if pod and figure:
            found.setdefault(pod, {})[figure] = sample.value
    return found


def _named(figure: PodFigure, expression: str) -> str:
    return f'label_replace({expression}, "figure", "{figure}", "", "")'


def _unmeasured(cluster: ClusterState, key: JobKey) -> Usage:
    job = cluster.job(key)
    if job is None:
        raise JobNotFound(key.name)
    return limits_of(spec_of(job))
