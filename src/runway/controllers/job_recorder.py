"""Record the outcome of each job before Kubernetes deletes its pods and logs.

The record is an annotation of the Job.

1. `_process_changes` reads each changed job. A record is pending if the job is finished, or if an attempt's pod is
   terminating or deleted. It stays pending until the Job has the record.
2. `log_capture` follows the log of each terminating pod.
3. Workers take pending records, of each tenant in turn: they read the end of the log, compute the record, and patch it
   onto the version of the Job that they read. After a conflict or an error the record is pending again, after a pause.

Only the leader writes. The first list makes pending what another process, or this one before a restart, left. A missing
record changes no job state; it only makes the explanation less precise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import structlog

from runway import errors
from runway.backoff import Backoff, Timing
from runway.controllers.leadership import Leadership
from runway.controllers.log_capture import LogCapture
from runway.jobs import record as records
from runway.jobs.annotations import ANNOTATION_RECORD
from runway.jobs.diagnosis.attempts import incomplete_success
from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.log_excerpt import RAW_BYTES, excerpt_of, secrets_of
from runway.jobs.models import Excerpt, JobState, Usage
from runway.jobs.record import Record
from runway.jobs.snapshot import JobSnapshot
from runway.kube.client import KubeClient
from runway.kube.log_tail import TAIL_SECONDS, read_tail
from runway.kube.objects import Job
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
from runway.state.subscriptions import JobQueue
from runway.telemetry import Metrics

log = structlog.get_logger()

WORKERS: Final = 16
"""Records in progress, divided fairly: at most half of them for one tenant, whose kubelets may be slow."""
SETTLE_SECONDS: Final = 2.0
"""Delay of an interim record: an earlier write delays the Job controller, and most jobs finish in that time."""
MISSING_POD_TIMEOUT_SECONDS: Final = 10.0
"""Maximum wait for pods that the Job counts and the watch has not reported."""
SWEEP_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 60.0
MAX_LOG_ATTEMPTS: Final = 3
"""After these the record is written without the log: a node that does not respond must not block it."""
MAX_WRITE_ATTEMPTS: Final = 4
"""Ambiguous writes of one job that are remembered."""
USAGE_SECONDS: Final = 5.0


class RecordKind(StrEnum):
    """An interim record keeps attempts whose pods disappear; the final record keeps the outcome."""

    INTERIM = "attempt"
    FINAL = "final"


@dataclass(slots=True)
class _PendingRecord:
    """A record that is still to be written. Times are monotonic seconds."""

    kind: RecordKind
    since: float
    not_before: float
    backoff: Backoff
    log_failures: int = 0
    queued: bool = False
    sent: dict[str, Record] = field(default_factory=dict)
    """Sent records by their text: after an ambiguous write one of them can appear on the Job."""
    is_counted: bool = False
    """True if the job was counted with an earlier final record, which somebody edited."""


class JobRecorder:
    """Writes the records. `run` is its only task.

    `usage` returns the resource usage of a job. It may raise any RunwayError; the record is then written without usage.
    """

    def __init__(
        self,
        kubernetes: KubeClient,
        cluster: ClusterState,
        leadership: Leadership,
        metrics: Metrics,
        timing: Timing,
        usage: Callable[[JobKey], Awaitable[Usage | None]] | None = None,
    ) -> None:
        self._kubernetes = kubernetes
        self._cluster = cluster
        self._leadership = leadership
        self._metrics = metrics
        self._usage = usage
        self._timing = timing
        self._changed = cluster.subscriptions.subscribe_all()
        self._pending: dict[JobKey, _PendingRecord] = {}
        self._ready = JobQueue(WORKERS)
        self._log_capture = LogCapture(kubernetes, timing)
        metrics.initialise_counters(
            cluster.ledger.accounts,
            states=[state for state in JobState if state.is_finished],
            failures=[(code, code.category) for code in FailureCode],
        )

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._process_changes())
                tasks.create_task(self._requeue_delayed())
                for _ in range(WORKERS):
                    tasks.create_task(self._worker())
        finally:
            await self._log_capture.close()

    @property
    def lag(self) -> float:
        now = self._timing.clock()
        return max((now - due.since for due in self._pending.values() if due.kind is RecordKind.FINAL), default=0.0)

    async def _process_changes(self) -> None:
        while True:
            key = await self._changed.take()
            try:
                self._update_pending(key)
                self._capture_logs(key)
            except Exception:
                log.exception("cannot decide what to record", job_id=key.name)

    def _update_pending(self, key: JobKey) -> None:
        job, kind, due = self._cluster.job(key), self._record_kind(key), self._pending.get(key)
        if due is not None and job is not None:
            self._confirm(key, due, job)
        if kind is None:
            self._pending.pop(key, None)
            return
        now = self._timing.clock()
        if due is None:
            delay = 0.0 if kind is RecordKind.FINAL else SETTLE_SECONDS
            backoff = Backoff(self._timing.jitter, first=1.0, longest=MAX_BACKOFF_SECONDS)
            due = self._pending[key] = _PendingRecord(kind, now, now + delay, backoff)
        elif due.kind is not kind:
            due.kind, due.since, due.not_before = kind, now, now
            due.backoff.reset()
        self._enqueue(key, due)

    def _capture_logs(self, key: JobKey) -> None:
        job, deleted = self._cluster.job(key), self._cluster.deleted_pods(key)
        if job is None or not self._leadership.is_leader:
            return
        for pod in self._cluster.attempts(key):
            if pod.terminating and pod.metadata.name not in deleted:
                self._log_capture.follow(pod, secrets_of(job), lambda: self._changed.add(key))

    def _record_kind(self, key: JobKey) -> RecordKind | None:
        job, state = self._cluster.job(key), self._cluster.stats.state(key)
        if job is None or state is None:
            return None
        record = records.record_of(job)
        if record is None and records.written_by_newer_version(job):
            return None
        if state.is_finished:
            return None if record is not None and record.state is not None else RecordKind.FINAL
        has_terminating = any(pod.metadata.deletion_timestamp for pod in self._cluster.attempts(key))
        if not has_terminating and not self._cluster.deleted_pods(key):
            return None
        snapshot = self._cluster.snapshot(key)
        return RecordKind.INTERIM if snapshot is not None and records.needs_interim_record(snapshot, record) else None

    def _enqueue(self, key: JobKey, due: _PendingRecord) -> None:
        if not due.queued and due.not_before <= self._timing.clock() and self._leadership.is_leader:
            due.queued = True
            self._ready.add(key)

    async def _requeue_delayed(self) -> None:
        """Enqueue records whose delay is over, and all of them after this process became the leader."""
        while True:
            await self._timing.sleep(SWEEP_SECONDS)
            for key, due in self._pending.items():
                self._enqueue(key, due)

    async def _worker(self) -> None:
        while True:
            key = await self._ready.take()
            due = self._pending.get(key)
            try:
                if due is not None:
                    await self._try_to_record(key, due)
            finally:  # `run` can start again after a defect.
                if due is not None:
                    due.queued = False
                self._ready.done(key)

    async def _try_to_record(self, key: JobKey, due: _PendingRecord) -> None:
        try:
            await self._record(key, due)
        except errors.Conflict:
            self._failed(due, "conflict")
        except errors.NotFound:
            self._failed(due, "gone")  # The watch reports the deletion, and ends the pending record.
        except (errors.ClusterError, errors.PublicError) as error:
            self._failed(due, "failed")
            log.warning("record not kept", job_id=key.name, need=due.kind, reason=str(error))
        except Exception:
            self._failed(due, "failed")
            log.exception("record not kept", job_id=key.name, need=due.kind)

    def _failed(self, due: _PendingRecord, outcome: str) -> None:
        self._metrics.records.labels(outcome).inc()
        due.not_before = self._timing.clock() + due.backoff.next()

    async def _record(self, key: JobKey, due: _PendingRecord) -> None:
        kind, snapshot = due.kind, self._cluster.snapshot(key)
        if snapshot is None or self._is_too_early(snapshot, due):
            return
        excerpt = await self._excerpt(snapshot, due)
        usage = await self._usage_of(key) if kind is RecordKind.FINAL else None
        # Time has passed: compute the record from the current snapshot, and patch exactly its version of the Job.
        snapshot = self._cluster.snapshot(key)
        if snapshot is None or self._record_kind(key) is not kind or not self._leadership.is_leader:
            return
        earlier, now = records.record_of(snapshot.job), self._timing.now()
        if kind is RecordKind.FINAL:
            record = records.final_record(snapshot, earlier, excerpt, usage, now)
        else:
            record = records.interim_record(snapshot, earlier, excerpt, now)
        await self._write(key, due, snapshot.job, record)

    def _is_too_early(self, snapshot: JobSnapshot, due: _PendingRecord) -> bool:
        """Return whether more evidence is expected soon; `_requeue_delayed` retries then."""
        now, ended = self._timing.clock(), [pod for pod in snapshot.pods if snapshot.has_ended(pod)]
        is_disconnected = any(watch.disconnect_reason for watch in self._cluster.watches.values())
        if is_disconnected or any(map(self._log_capture.follows, ended)):
            due.not_before = now + SWEEP_SECONDS
        elif due.kind is RecordKind.FINAL:
            known = records.merge_attempts(snapshot, records.record_of(snapshot.job))
            if records.missing_attempts(snapshot.job, known):
                due.not_before = max(due.not_before, due.since + MISSING_POD_TIMEOUT_SECONDS)
        return due.not_before > now

    async def _excerpt(self, snapshot: JobSnapshot, due: _PendingRecord) -> Excerpt | None:
        pod = records.last_started_pod(snapshot)
        if pod is None:
            return None
        job_id, pod_name = snapshot.job.metadata.name, pod.metadata.name
        captured = self._log_capture.of(pod)
        followed = captured.excerpt if captured else None
        known = followed if captured and captured.whole else records.excerpt_from_status(snapshot)
        is_known = known is not None and not records.status_has_progress_bar(snapshot)
        followed = followed or known
        if is_known or pod_name in snapshot.deleted_pods:
            return known or followed
        try:
            tail = await read_tail(self._kubernetes, pod, RAW_BYTES)
        except (errors.NotFound, errors.Rejected) as error:
            log.info("no log to read", job_id=job_id, pod=pod_name, reason=str(error))
            return followed
        except (errors.ClusterError, errors.PublicError, TimeoutError) as error:
            reason = str(error) or f"it took longer than {TAIL_SECONDS:g} s"
            due.log_failures += 1
            if due.log_failures < MAX_LOG_ATTEMPTS:
                raise errors.NotExecuted(f"the log could not be read: {reason}") from error
            log.warning("log not kept", job_id=job_id, pod=pod_name, reason=reason)
            self._metrics.records.labels("log_lost").inc()
            return followed
        return excerpt_of(pod_name, tail.log, secrets_of(snapshot.job), cut=tail.cut)

    async def _usage_of(self, key: JobKey) -> Usage | None:
        if self._usage is None:
            return None
        try:
            async with asyncio.timeout(USAGE_SECONDS):
                usage = await self._usage(key)
        except (errors.RunwayError, TimeoutError) as error:
            log.warning("usage not kept", job_id=key.name, reason=str(error) or "it took too long")
            return None
        return usage if usage is not None and usage.measured else None

    async def _write(self, key: JobKey, due: _PendingRecord, job: Job, record: Record) -> None:
        """Patch the record onto the version of the Job that it was computed from; after a conflict read the Job."""
        text = records.encode(record, job)
        due.sent[text] = record
        due.is_counted = records.had_final_record(job)
        metadata = {
            "uid": job.metadata.uid,
            "resourceVersion": job.metadata.resource_version,
            "annotations": {ANNOTATION_RECORD: text},
        }
        try:
            written = await self._kubernetes.patch_job(key.namespace, key.name, {"metadata": metadata})
        except errors.AmbiguousOutcome:
            if len(due.sent) > MAX_WRITE_ATTEMPTS:
                del due.sent[next(iter(due.sent))]
            raise
        except (errors.ClusterError, errors.PublicError) as error:
            del due.sent[text]
            if isinstance(error, errors.Conflict):
                found = await self._kubernetes.get_job(key.namespace, key.name)
                if found is not None:
                    self._cluster.apply_job(found)
            raise
        self._cluster.apply_job(written)

    def _confirm(self, key: JobKey, due: _PendingRecord, job: Job) -> None:
        """Count a record that appeared on the Job, and with a final one the job, at most once: its text is unique."""
        record = due.sent.get(job.metadata.annotations.get(ANNOTATION_RECORD, ""))
        if record is None:
            return
        due.sent.clear()
        self._metrics.records.labels("kept").inc()
        if record.state is None or due.is_counted:
            return
        tenant = self._cluster.tenant_of(key)
        self._metrics.jobs_finished.labels(tenant, record.state).inc()
        if record.state == "succeeded" and incomplete_success(record.attempts):
            self._metrics.incomplete_successes.labels(tenant).inc()
        if record.failure is not None:
            self._metrics.failures.labels(tenant, record.failure.code, record.failure.category).inc()
        if record.actual is not None:
            self._metrics.actual_cost.labels(tenant).inc(float(record.actual))
        if uncharged := records.uncharged_cost_of(job, record):
            is_lost = any(attempt.cause == FailureCode.NODE_LOST for attempt in record.attempts)
            self._metrics.uncharged_cost.labels(tenant, "node_lost" if is_lost else "late_end").inc(float(uncharged))
        log.info(
            "job over", tenant=tenant, job_id=key.name, state=record.state, actual_usd=record.actual,
            failure=record.failure.code if record.failure else None, attempts=len(record.attempts),
        )  # fmt: skip
