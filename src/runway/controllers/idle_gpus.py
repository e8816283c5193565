"""Find idle GPUs by the utilisation that DCGM reports to Prometheus, and free them if the policy says so.

Each minute one query per `PODS_PER_QUERY` running GPU jobs reads the highest utilisation of each GPU, and the minutes
with a sample, over the policy's time and its first part (`jobs.gpu_idle`). Every process measures, so that each shows
the condition; only the leader ends jobs. Without an answer nothing is idle.

A query needs labels of the pod: DCGM's exporter has `pod` and `namespace`, which a scrape may prefix with `exported_`.
https://github.com/NVIDIA/dcgm-exporter
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog

from runway.backoff import Timing
from runway.controllers.job_ender import JobEnder
from runway.errors import PrometheusUnavailable
from runway.fair_share import FairQueue
from runway.jobs.diagnosis.attempts import container_started_at
from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.gpu_idle import SLOT_SECONDS, GpuFigure, GpuFigures, IdleGpus, early_seconds, judge
from runway.jobs.resources import requests_of
from runway.kube.objects import Pod
from runway.policy import IdleGpuLimit
from runway.prometheus import SeriesValue, matching, matching_any
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

log = structlog.get_logger()

CHECK_SECONDS: Final = 60.0
PODS_PER_QUERY: Final = 40
"""With 8 GPUs each, the response has about 400 KB of the 1 MiB that Runway reads."""
MAX_ENDS_PER_CHECK: Final = 20
Query = Callable[[str], Awaitable[Sequence[SeriesValue]]]
"""Returns the samples of an instant query, outside the shares of the tenants. Raises PrometheusUnavailable.

In the share of its namespace, a tenant could hide its idle GPUs by many reads of usage.
"""


class IdleGpuController:
    """Measures the GPUs of running jobs. `run` is its only task."""

    def __init__(
        self, cluster: ClusterState, query: Query, ender: JobEnder, limit: IdleGpuLimit, timing: Timing
    ) -> None:
        self._cluster = cluster
        self._query = query
        self._ender = ender
        self._limit = limit
        self._timing = timing
        self._problem: str | None = None
        self._to_end: FairQueue[JobKey] = FairQueue()
        """The jobs that were idle for the whole time. Those not tried are next: a namespace may refuse every patch."""

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            await self._timing.sleep(CHECK_SECONDS)
            await self.check()

    async def check(self) -> None:
        """Measure the GPUs of all running jobs once, and end those that were idle for the whole time."""
        jobs, idle = self._running(), dict[JobKey, IdleGpus]()
        for batch in _batches(jobs):
            idle |= await self._measure(batch)
        self._cluster.set_idle_gpus(idle)
        if self._limit.action == "cancel":
            whole = {key: found for key, found in idle.items() if found.is_full and found.idle == found.gpus}
            for key in sorted(whole):
                self._to_end.put(key.namespace, key)
            for key in self._to_end.take_up_to(MAX_ENDS_PER_CHECK):
                if key in whole and self._is_running(key, jobs[key][0]):
                    message = f"Runway ended the job: {whole[key].message.partition(';')[0]}"
                    await self._ender.end(key, FailureCode.GPU_IDLE, message, whole[key].evidence)

    def _running(self) -> dict[JobKey, tuple[Pod, int]]:
        """Return the running GPU jobs that can have been idle long enough, with pod and number of GPUs."""
        now, early = self._timing.now(), early_seconds(self._limit.for_seconds)
        found = {}
        for key in self._cluster.stats.on_nodes:
            pods = self._cluster.attempts(key)
            started = container_started_at(pods[-1]) if pods else None
            # The pod's request: the specification of a job may have left the memory (`state.job_store`).
            gpus = requests_of(pods[-1].spec).gpu if pods else 0
            if gpus == 0 or started is None or not self._is_running(key, pods[-1]):
                continue
            # A tenth less than the time: nine tenths of it suffice. Clocks may differ, so this only saves queries.
            if (now - started).total_seconds() >= 0.8 * early:
                found[key] = (pods[-1], gpus)
        return found

    def _is_running(self, key: JobKey, pod: Pod) -> bool:
        """Return whether this pod is still the job's newest, and its container runs."""
        pods, deleted = self._cluster.attempts(key), self._cluster.deleted_pods(key)
        newest = pods[-1] if pods else None
        return (
            newest is not None
            and newest.metadata.uid == pod.metadata.uid
            and newest.container.running is not None
            and not newest.terminating
            and newest.metadata.name not in deleted
        )

    async def _measure(self, jobs: dict[JobKey, tuple[Pod, int]]) -> dict[JobKey, IdleGpus]:
        namespace = next(iter(jobs)).namespace
        query = promql(namespace, [pod.metadata.name for pod, _ in jobs.values()], self._limit.for_seconds)
        try:
            figures = figures_by_pod(await self._query(query))
        except PrometheusUnavailable as error:
            if self._problem != str(error):
                log.warning("GPU utilisation unknown", reason=str(error))
            self._problem = str(error)
            return {}
        self._problem = None
        limit, found = self._limit, {}
        for key, (pod, gpus) in jobs.items():
            idle = judge(
                list(figures.get(pod.metadata.name, {}).values()),
                gpus,
                below_percent=limit.below_percent,
                for_seconds=limit.for_seconds,
                cancels=limit.action == "cancel",
            )
            if idle is not None:
                found[key] = idle
        return found


def promql(namespace: str, pods: Sequence[str], for_seconds: int) -> str:
    """Write one query for all figures of the GPUs of these pods: labels `pod`, `UUID`, `gpu`, `Hostname`, `figure`."""
    early, parts = early_seconds(for_seconds), []
    for prefix in ("", "exported_"):
        labels = f"{matching(f'{prefix}namespace', namespace)},{matching_any(f'{prefix}pod', pods)}"
        series = f"DCGM_FI_DEV_GPU_UTIL{{{labels}}}"
        by_figure = {
            GpuFigure.PEAK: f"max_over_time({series}[{for_seconds}s])",
            GpuFigure.SLOTS: _slots(series, for_seconds),
            GpuFigure.EARLY_PEAK: f"max_over_time({series}[{early}s])",
            GpuFigure.EARLY_SLOTS: _slots(series, early),
            GpuFigure.AGE: f"time() - timestamp({series})",
        }
        for figure, expression in by_figure.items():
            renamed = expression if not prefix else f'label_replace({expression}, "pod", "$1", "{prefix}pod", "(.*)")'
            of_gpu = f"max by (pod, UUID, gpu, Hostname) ({renamed})"
            parts.append(f'label_replace({of_gpu}, "figure", "{figure}", "", "")')
    return " or ".join(parts)


def figures_by_pod(samples: Sequence[SeriesValue]) -> dict[str, dict[tuple[str, ...], GpuFigures]]:
    """Group the response to `promql` by pod and GPU; unknown series are ignored."""
    found: dict[str, dict[tuple[str, ...], dict[GpuFigure, float]]] = {}
    known = {str(figure): figure for figure in GpuFigure}
    for sample in samples:
        pod, figure = sample.labels.get("pod"), known.get(sample.labels.get("figure", ""))
        gpu = tuple(sample.labels.get(name, "") for name in ("UUID", "gpu", "Hostname"))
        if pod and figure and any(gpu):
            found.setdefault(pod, {}).setdefault(gpu, {})[figure] = sample.value
    return {pod: dict(gpus) for pod, gpus in found.items()}


def _slots(series: str, seconds: int) -> str:
    """Count the minutes with a sample: https://prometheus.io/docs/prometheus/latest/querying/basics/#subquery"""
    return f"count_over_time(count_over_time({series}[{SLOT_SECONDS}s])[{seconds}s:{SLOT_SECONDS}s])"


def _batches(jobs: dict[JobKey, tuple[Pod, int]]) -> Iterable[dict[JobKey, tuple[Pod, int]]]:
    """Divide the jobs into batches of one namespace each."""
    batch: dict[JobKey, tuple[Pod, int]] = {}
    for key in sorted(jobs):
        if batch and (len(batch) == PODS_PER_QUERY or next(iter(batch)).namespace != key.namespace):
            yield batch
            batch = {}
        batch[key] = jobs[key]
    if batch:
        yield batch
