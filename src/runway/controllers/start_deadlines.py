"""End jobs that cannot start, so that their GPUs become free.

A job has a policy limit for the cause that keeps it from starting (`limits.start_timeout_seconds`), and its own limit
from its acceptance (`start_timeout_seconds`).

1. `_process_changes` reads each changed job that waits for its start (`jobs.start`), and times its cause.
2. Each second, `_end_due` takes the waits whose limit has passed, of each tenant in turn. It reads the job's pods
   again, and ends the job with the patch of a cancel and an annotation.

Every process times the waits; only the leader patches. These rules lengthen a wait and never shorten it:

- Times are monotonic and start when this process first sees the job or cause. A clock that jumps ends no job.
- Another cause, pod or unknown state restarts the time of a cause. So does a new list after a lost watch, an emergency
  stop, and a pod version that only the read before the patch shows: the cause may have changed in between.
- Every version of a pod that the watch reports counts, even if a list or lookup has shown a newer one before. Until the
  watch has reported the newest one, no job is ended for a cause. A list alone restarts no time.
- Without contact with Kubernetes, with an unready node, or during an emergency stop, Runway ends no job.

A container can start between the read and the patch. It is then ended, and the failure code is `start_timeout`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from runway import errors
from runway.backoff import Backoff, Timing
from runway.controllers.leadership import Leadership
from runway.fair_share import FairQueue
from runway.jobs.annotations import ANNOTATION_START_TIMEOUT, spec_of
from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.diagnosis.start_timeout import StartLimit, StartTimeout, encode, limit_of, start_timeout_of
from runway.jobs.manifest import deadline_patch
from runway.jobs.models import JobState
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.start import FIRST_POD_SECONDS, StartWait, explain, node_responds, start_cause, start_wait
from runway.kube.client import NODES, PODS, KubeClient
from runway.kube.objects import Job, Pod, resource_version_number
from runway.policy import StartTimeouts
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
from runway.telemetry import Metrics
from runway.text import one_line

log = structlog.get_logger()

TICK_SECONDS: Final = 1.0
MAX_CHECKS_PER_TICK: Final = 200
"""Waits that one tick looks at; more wait for the next tick."""
MAX_ENDS_PER_TICK: Final = 8
"""Jobs that one tick ends, at the same time. Each takes two calls to Kubernetes."""
RECHECK_SECONDS: Final = 5.0
"""Time to the next look at a wait that is due and cannot be ended now."""
MAX_BACKOFF_SECONDS: Final = 60.0


@dataclass(slots=True)
class _Wait:
    """A job that waits for its start. Times are monotonic seconds of this process."""

    uid: str
    accepted: float
    """When this process first saw the job."""
    is_new: bool
    """Whether this process knows the job since its creation, so that no attempt preceded it."""
    backoff: Backoff
    own_seconds: int | None = None
    """The job's own limit. Kept here, because its specification can leave the memory (`state.job_store`)."""
    code: FailureCode | None = None
    pod: str = ""
    """The uid of the pod with the cause."""
    since: float = 0.0
    since_time: datetime | None = None
    failing_since: float | None = None
    """When the first of the failed attempts to end the job was made; None without one."""
    not_before: float = 0.0
    scheduled: float = float("inf")
    """The time of its entry in the heap, or in the queue of those that are due."""
    is_sent: bool = False
    """Whether this process has sent a patch that may have had its effect."""

    def forget_cause(self) -> None:
        """The next observation of a cause then restarts its timer."""
        self.code, self.pod = None, ""


class StartDeadlines:
    """Ends jobs that cannot start. `run` is its only task."""

    def __init__(
        self,
        kubernetes: KubeClient,
        cluster: ClusterState,
        leadership: Leadership,
        metrics: Metrics,
        limits: StartTimeouts,
        timing: Timing,
    ) -> None:
        self._kubernetes = kubernetes
        self._cluster = cluster
        self._leadership = leadership
        self._metrics = metrics
        self._limits = limits
        self._timing = timing
        self._changed = cluster.subscriptions.subscribe_all()
        cluster.pod_observers.append(self._observe_version)
        self._waits: dict[JobKey, _Wait] = {}
        self._heap: list[tuple[float, JobKey]] = []
        self._due: FairQueue[JobKey] = FairQueue()
        """The jobs whose entry in the heap has passed."""
        self._stopped_at = float("-inf")
        """When an emergency stop was last in force."""
        for limit in StartLimit:
            # From 0 on: the first one shows as an increase.
            metrics.start_timeouts.labels(limit)
        for outcome in ("conflict", "failed"):
            metrics.start_timeout_errors.labels(outcome)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._process_changes())
            tasks.create_task(self._end_due())

    @property
    def lag(self) -> float:
        """Seconds since the oldest failed attempt to end a job that still waits."""
        now, failing = self._timing.clock(), (wait.failing_since for wait in self._waits.values())
        return max((now - since for since in failing if since is not None), default=0.0)

    def waiting(self) -> Counter[tuple[str, StartLimit]]:
        """Count the jobs with a cause by tenant and limit."""
        causes = ((self._cluster.tenant_of(key), wait.code) for key, wait in self._waits.items())
        return Counter((tenant, limit_of(code)) for tenant, code in causes if code is not None)

    async def _process_changes(self) -> None:
        while True:
            key = await self._changed.take()
            try:
                self._observe(key)
            except Exception:
                log.exception("cannot decide whether the job can start", job_id=key.name)

    def _observe(self, key: JobKey) -> _Wait | None:
        """Update the timers of a job; None if it does not wait for its start."""
        job, wait = self._cluster.job(key), self._waits.get(key)
        if job is not None and wait is not None and wait.is_sent:
            self._confirm(key, job)
        is_pending = self._cluster.stats.state(key) is JobState.PENDING
        if job is None or not is_pending or job.spec.active_deadline_seconds == 0:
            self._waits.pop(key, None)
            return None
        if wait is None or wait.uid != job.metadata.uid:
            wait = self._waits[key] = self._new_wait(job.metadata.uid, job.metadata.creation_timestamp)
        if (spec := spec_of(job)) is not None:
            wait.own_seconds = spec.start_timeout_seconds
        # Without a pod there is no cause.
        snapshot = self._cluster.snapshot(key) if self._cluster.attempts(key) else None
        self._time_cause(wait, None if snapshot is None else self._start_wait(snapshot, wait))
        self._schedule(key, wait)
        return wait

    def _start_wait(self, snapshot: JobSnapshot, wait: _Wait) -> StartWait | None:
        return start_wait(snapshot, has_history=self._has_history(wait))

    def _observe_version(self, key: JobKey, pod: Pod) -> None:
        """Restart the timer at a pod version with another cause: `_observe` sees only the newest version."""
        wait = self._waits.get(key)
        if wait is None or wait.pod != pod.metadata.uid or self._cause_due_at(wait) == float("inf"):
            return
        snapshot = self._cluster.snapshot(key)
        cause = start_cause(snapshot, pod) if snapshot is not None and not pod.metadata.unreadable else None
        if cause is None or cause.code != wait.code:
            wait.forget_cause()

    def _new_wait(self, uid: str, created: datetime | None) -> _Wait:
        age = None if created is None else self._timing.now() - created
        is_new = age is not None and abs(age) <= timedelta(seconds=FIRST_POD_SECONDS)
        backoff = Backoff(self._timing.jitter, first=2.0, longest=MAX_BACKOFF_SECONDS)
        return _Wait(uid, self._timing.clock(), is_new, backoff)

    def _has_history(self, wait: _Wait) -> bool:
        """Return whether this process knows every attempt of the job: it has watched pods since the job's creation."""
        return wait.is_new and self._cluster.watches[PODS.name].continuous_since <= wait.accepted

    def _time_cause(self, wait: _Wait, found: StartWait | None) -> None:
        cause = found.cause.code if found is not None and found.cause is not None else None
        pod = found.pod.metadata.uid if found is not None and found.pod is not None else ""
        if (cause, pod) != (wait.code, wait.pod):
            wait.code, wait.pod = cause, pod
            wait.since, wait.since_time = self._timing.clock(), self._timing.now()

    def _schedule(self, key: JobKey, wait: _Wait) -> None:
        """Enter the wait into the heap, unless an earlier entry looks at it."""
        due = max(self._due_at(wait), wait.not_before)
        if due < wait.scheduled:
            wait.scheduled = due
            heapq.heappush(self._heap, (due, key))

    def _due_at(self, wait: _Wait) -> float:
        return min(self._cause_due_at(wait), self._job_due_at(wait))

    def _cause_due_at(self, wait: _Wait) -> float:
        seconds = None if wait.code is None else getattr(self._limits, limit_of(wait.code))
        if seconds is None:
            return float("inf")
        watches = (self._cluster.watches[PODS.name], self._cluster.diagnostic_watches[NODES.name])
        return float(max(wait.since, self._stopped_at, *(watch.continuous_since for watch in watches)) + seconds)

    def _job_due_at(self, wait: _Wait) -> float:
        return float("inf") if wait.own_seconds is None else wait.accepted + wait.own_seconds

    async def _end_due(self) -> None:
        while True:
            await self._timing.sleep(TICK_SECONDS)
            try:
                if self._leadership.stop_reason is not None:
                    self._stopped_at = self._timing.clock()
                due = list(self._take_due())
            except Exception:
                log.exception("cannot decide which jobs cannot start")
                continue
            async with asyncio.TaskGroup() as tasks:
                for key in due:
                    tasks.create_task(self._end(key))

    def _take_due(self) -> Iterator[JobKey]:
        """Yield the jobs to end in this tick."""
        now, ends = self._timing.clock(), 0
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            if (wait := self._waits.get(key)) is not None and wait.scheduled == at:  # No other entry replaces this one.
                self._due.put(key.namespace, key)
        for _ in range(MAX_CHECKS_PER_TICK):
            if ends == MAX_ENDS_PER_TICK or (taken := self._due.take()) is None:
                return
            _, key = taken
            wait = self._waits.get(key)
            if wait is None:
                continue
            wait.scheduled = float("inf")
            if max(self._due_at(wait), wait.not_before) <= now:
                wait.not_before = now + RECHECK_SECONDS
                if self._leadership.may_end_jobs and self._passed_limit(key) is not None:
                    ends += 1
                    yield key
            self._schedule(key, wait)

    async def _end(self, key: JobKey) -> None:
        wait, outcome = self._waits.get(key), "failed"
        if wait is None:
            return
        try:
            await self._try_to_end(key)
        except errors.Conflict:
            outcome = "conflict"
        except errors.NotFound:
            return  # The watch reports the deletion.
        except (errors.ClusterError, errors.PublicError) as error:
            log.warning("job that cannot start not ended", job_id=key.name, reason=str(error))
        except Exception:
            log.exception("job that cannot start not ended", job_id=key.name)
        else:
            wait.failing_since = None
            return
        now = self._timing.clock()
        wait.failing_since = now if wait.failing_since is None else wait.failing_since
        wait.not_before = now + wait.backoff.next()
        self._metrics.start_timeout_errors.labels(outcome).inc()

    async def _try_to_end(self, key: JobKey) -> None:
        """End the job if its limit has passed by the newest state of its pods. Raises the errors of a call."""
        if not await self._read_pods(key):
            return
        timeout, job, wait = self._passed_limit(key), self._cluster.job(key), self._waits.get(key)
        if timeout is None or job is None or wait is None or not self._leadership.may_end_jobs:
            return
        patch = deadline_patch(job, ANNOTATION_START_TIMEOUT, encode(timeout))
        try:
            patched = await self._kubernetes.patch_job(key.namespace, key.name, patch)
        except (errors.Conflict, errors.AmbiguousOutcome) as error:
            # A late patch does no harm, because it names a version.
            wait.is_sent = wait.is_sent or isinstance(error, errors.AmbiguousOutcome)
            if (found := await self._kubernetes.get_job(key.namespace, key.name)) is not None:
                self._cluster.apply_job(found)
            raise
        wait.is_sent = True
        self._cluster.apply_job(patched)

    async def _read_pods(self, key: JobKey) -> bool:
        """Read the job's pods; return whether the watch has reported the same. If not, restart the timer of its cause.

        A pod that is gone may have started before, until the watch reports how it ended.
        """
        store, before = self._cluster.store, self._versions(key)
        with store.track_deletions() as deleted:
            pods = await self._kubernetes.list_pods_of_job(key.namespace, key.name)
            for pod in pods:
                if pod.metadata.uid not in deleted:
                    self._cluster.refresh(store.upsert_looked_up_pod(pod))
        known, wait, found = self._versions(key), self._waits.get(key), {pod.metadata.uid for pod in pods}
        if known == before and known.keys() <= found:
            return True
        if wait is not None:
            wait.forget_cause()
        return False

    def _versions(self, key: JobKey) -> dict[str, int]:
        """Return the known versions of the job's existing pods by uid."""
        deleted = self._cluster.deleted_pods(key)
        pods = (pod for pod in self._cluster.attempts(key) if pod.metadata.name not in deleted)
        return {pod.metadata.uid: resource_version_number(pod) for pod in pods}

    def _passed_limit(self, key: JobKey) -> StartTimeout | None:
        """Return the limit of the job that has passed; None without one, or if something is unknown."""
        wait, snapshot = self._observe(key), self._cluster.snapshot(key)
        found = None if wait is None or snapshot is None else self._start_wait(snapshot, wait)
        if wait is None or snapshot is None or found is None or not self._is_current(snapshot, found.pod):
            return None
        now, job = self._timing.clock(), snapshot.job
        is_due = self._cause_due_at(wait) <= now and self._is_reported(found.pod)
        if found.cause is not None and wait.since_time is not None and is_due:
            limit = limit_of(found.cause.code)
            seconds = int(getattr(self._limits, limit))
            return StartTimeout(limit, seconds, found.cause.code, wait.since_time, one_line(found.cause.message))
        accepted, has_history = job.metadata.creation_timestamp, bool(snapshot.pods) or self._has_history(wait)
        if wait.own_seconds is None or accepted is None or not has_history or self._job_due_at(wait) > now:
            return None
        cause = explain(snapshot, found.pod)
        return StartTimeout(StartLimit.JOB, wait.own_seconds, cause.code, accepted, one_line(cause.message))

    def _is_reported(self, pod: Pod | None) -> bool:
        """Return whether the watch has reported every version of the pod up to this one."""
        return pod is not None and resource_version_number(pod) <= self._cluster.watches[PODS.name].version

    def _is_current(self, snapshot: JobSnapshot, pod: Pod | None) -> bool:
        """Return whether the pod's status is current: its node is ready, by a connected watch."""
        if pod is None or pod.spec.node_name is None:
            return True
        watch = self._cluster.diagnostic_watches[NODES.name]
        return watch.synced and watch.disconnect_reason is None and node_responds(snapshot, pod)

    def _confirm(self, key: JobKey, job: Job) -> None:
        """Count and log a job once, when the result of this process's patch is on it."""
        timeout = start_timeout_of(job)
        if timeout is None:
            return
        self._waits[key].is_sent = False
        self._metrics.start_timeouts.labels(timeout.limit).inc()
        log.info(
            "job that cannot start ended", tenant=self._cluster.tenant_of(key), job_id=key.name,
            limit=timeout.limit, limit_seconds=timeout.limit_seconds, cause=timeout.cause,
        )  # fmt: skip
