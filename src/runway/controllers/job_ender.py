"""End jobs that waste nodes: for idle GPUs, or after too many disruptions in a spot pool.

Kubernetes retries disrupted pods without limit, and a job of a spot pool may never get far enough to finish. So after
`MAX_SPOT_DISRUPTIONS` the leader ends it. `controllers.idle_gpus` decides about idle GPUs. The patch is that of a
cancel, with an annotation that has the reason (`jobs.ending`).
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from runway import errors
from runway.admission.quota import pod_succeeded
from runway.backoff import Timing
from runway.controllers.leadership import Leadership
from runway.fair_share import FairQueue
from runway.jobs.annotations import ANNOTATION_ENDED, cost_of, pool_of, spec_of
from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.ending import Ending, encode
from runway.jobs.manifest import deadline_patch
from runway.jobs.record import merge_attempts, record_of
from runway.kube.client import KubeClient
from runway.policy import Policy
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
from runway.state.subscriptions import JobQueue
from runway.telemetry import Metrics

log = structlog.get_logger()

MAX_SPOT_DISRUPTIONS: Final = 10
"""Disruptions of one job in a spot pool that Kubernetes retries."""
RETRY_SECONDS: Final = 5.0
"""Interval of the attempts to end the jobs that exceeded it."""
MAX_ENDS_PER_SWEEP: Final = 8


class JobEnder:
    """Ends jobs. `run` is its only task."""

    def __init__(
        self,
        kubernetes: KubeClient,
        cluster: ClusterState,
        leadership: Leadership,
        metrics: Metrics,
        policy: Policy,
        timing: Timing,
    ) -> None:
        self._kubernetes = kubernetes
        self._cluster = cluster
        self._leadership = leadership
        self._metrics = metrics
        self._timing = timing
        self._spot_pools = frozenset(name for name, pool in policy.pools.items() if pool.spot)
        # Without spot pools there are no jobs to look at: this queue stays empty.
        self._changed = cluster.subscriptions.subscribe_all() if self._spot_pools else JobQueue()
        self._disrupted: dict[JobKey, int] = {}
        """The disruptions of the jobs that exceeded the limit."""
        self._due: FairQueue[JobKey] = FairQueue()
        """The same jobs, by namespace."""
        for code in (FailureCode.GPU_IDLE, FailureCode.DISRUPTED_TOO_OFTEN):
            metrics.jobs_ended.labels(code)  # From 0 on: the first one shows as an increase.

    async def run(self) -> None:
        for key in self._disrupted:  # One may have been in progress when a defect ended the last run.
            self._due.put(key.namespace, key)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._process_changes())
            tasks.create_task(self._end_disrupted())

    async def _process_changes(self) -> None:
        while True:
            key = await self._changed.take()
            try:
                self._count_disruptions(key)
            except Exception:
                log.exception("cannot count the disruptions of the job", job_id=key.name)

    def _count_disruptions(self, key: JobKey) -> None:
        self._disrupted.pop(key, None)
        self._due.discard(key.namespace, key)
        job = self._cluster.job(key)
        if not self._spot_pools or job is None or pool_of(spec_of(job), cost_of(job)) not in self._spot_pools:
            return
        snapshot = self._cluster.snapshot(key)
        if snapshot is not None and not self._is_decided(key):
            disruptions = merge_attempts(snapshot, record_of(job)).disruptions
            if disruptions > MAX_SPOT_DISRUPTIONS:
                self._disrupted[key] = disruptions
                self._due.put(key.namespace, key)

    async def _end_disrupted(self) -> None:
        while True:
            await self._timing.sleep(RETRY_SECONDS)
            for key in self._due.take_up_to(MAX_ENDS_PER_SWEEP):
                disruptions = self._disrupted.get(key)
                if disruptions is None:
                    continue  # It finished while the others were ended.
                message = (
                    f"Runway ended the job after {disruptions} disruptions in a spot pool, "
                    f"of which Kubernetes may retry {MAX_SPOT_DISRUPTIONS}"
                )
                evidence = {"disruptions": str(disruptions), "limit": str(MAX_SPOT_DISRUPTIONS)}
                try:
                    await self.end(key, FailureCode.DISRUPTED_TOO_OFTEN, message, evidence)
                except Exception:
                    log.exception("job not ended", job_id=key.name)
                if key in self._disrupted:  # The other jobs are next: a namespace may refuse every patch.
                    self._due.put(key.namespace, key)

    async def end(self, key: JobKey, code: FailureCode, message: str, evidence: dict[str, str]) -> None:
        """End a job, unless its outcome is decided or this process may not write. A failed attempt is only logged."""
        job = self._cluster.job(key)
        if job is None or self._is_decided(key) or not self._leadership.may_end_jobs:
            return
        ending = Ending(code, self._timing.now(), message, evidence)
        try:
            patch = deadline_patch(job, ANNOTATION_ENDED, encode(ending))
            self._cluster.apply_job(await self._kubernetes.patch_job(key.namespace, key.name, patch))
        except (errors.ClusterError, errors.PublicError) as error:
            # A late patch does no harm, because it names a version. The caller tries again.
            log.warning("job not ended", job_id=key.name, code=code, reason=str(error))
            return
        self._metrics.jobs_ended.labels(code).inc()
        log.info("job ended", tenant=self._cluster.tenant_of(key), job_id=key.name, code=code)

    def _is_decided(self, key: JobKey) -> bool:
        """Return whether the job has finished, succeeded, or got a deadline of zero."""
        job = self._cluster.job(key)
        return (
            job is None
            or job.spec.active_deadline_seconds == 0
            or job.has_outcome
            or any(pod_succeeded(job, pod) for pod in self._cluster.attempts(key))
        )
