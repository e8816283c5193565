"""Keep the evidence of each job on the Job itself, before pods, logs and events take it away. Read it top to bottom.

1. The observer tells of each change. What has to be kept is noted: the record of a job that is over, or an attempt that
   was told to end, since its pod will be gone. Either stays noted until the record is seen on the Job.
2. Where a pod is told to end, its log is followed to its end (`endings`).
3. A few workers take what is noted, one at a time: they read the end of the log, work the record out, and patch it onto
   the version of the Job that it was worked out from. Should the Job have changed meanwhile, it is read and worked out
   anew. What fails is noted still, and tried again after a pause.

Only the writer keeps anything; whatever another process, or this one before a restart, has left is noted again when the
jobs are listed. Nothing here changes a job's state: without its record a job is only explained less well.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

import structlog

from runway.controllers.leadership import Leadership
from runway.controllers.log_capture import LogCapture
from runway.controllers.sync import Observer
from runway.errors import (
    AmbiguousOutcome,
    ClusterError,
    NotExecuted,
    NotFound,
    ObjectExists,
    PublicError,
    Rejected,
    RunwayError,
)
from runway.jobs.diagnosis.codes import MEANINGS
from runway.jobs.identity import ANNOTATION_RECORD
from runway.jobs.log_excerpt import Excerpt, excerpt_of, secrets_of
from runway.jobs.record import (
    Record,
    encode,
    excerpt_from_status,
    final_record,
    had_final_record,
    interim_record,
    last_started_pod,
    merge_attempts,
    missing_attempts,
    needs_interim_record,
    record_of,
    written_by_newer_version,
)
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.usage import Usage
from runway.jobs.view import JobState
from runway.kube.client import KubeClient
from runway.kube.log_tail import READ_SECONDS, read_tail
from runway.kube.objects import Job
from runway.state.job_store import JobKey
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()

WORKERS: Final = 8
"""Records that are worked on at once."""
SETTLE_SECONDS: Final = 2.0
"""Before an attempt is kept while its job lives. The Job controller is just counting it, and a write in between would
make it start over after a second (DefaultJobApiBackOff); mostly the job is over meanwhile, and one record is enough."""
MISSING_POD_TIMEOUT_SECONDS: Final = 10.0
"""How long is waited for pods that Kubernetes has counted and the watch has not told of."""
SWEEP_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 60.0
MAX_LOG_ATTEMPTS: Final = 3
"""A node that does not answer must not keep the rest of the evidence from being kept."""
MAX_WRITE_ATTEMPTS: Final = 4
"""Records of one job that may still come to stand on it without an answer."""
USAGE_SECONDS: Final = 5.0


class RecordKind(StrEnum):
    """What has to be kept of a job."""

    ATTEMPT = "attempt"
    FINAL = "final"


@dataclass(slots=True)
class _PendingRecord:
    """What is due of one job. `since` and `not_before` are monotonic seconds."""

    need: RecordKind
    since: float
    not_before: float
    failures: int = 0
    log_failures: int = 0
    queued: bool = False
    sent: dict[str, Record] = field(default_factory=dict)
    """Records that were sent, by their text: one of them may come to stand on the Job without an answer."""
    counted: bool = False
    """Whether the Job had a final record before, which was spoilt by hand: the job was counted with that one."""


class JobRecorder:
    """Writes the records. `run` is the one task that does; the observer tells it of each change.

    `usage` tells what a job used; it may fail with any error of Runway's own, and the record then has none.
    """

    def __init__(
        self,
        kubernetes: KubeClient,
        observer: Observer,
        writer: Leadership,
        metrics: Metrics,
        *,
        usage: Callable[[JobKey], Awaitable[Usage | None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._kubernetes = kubernetes
        self._observer = observer
        self._writer = writer
        self._metrics = metrics
        self._usage = usage
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._jitter = jitter
        self._changed: dict[JobKey, None] = {}
        self._news = asyncio.Event()
        self._due: dict[JobKey, _PendingRecord] = {}
        self._ready: asyncio.Queue[JobKey] = asyncio.Queue()
        """Each job at most once, so it is bounded by the jobs there are."""
        self._endings = LogCapture(kubernetes, sleep=sleep, jitter=jitter)
        observer.listeners.append(self._mark_changed)
        metrics.initialise_counters(
            observer.ledger.accounts,
            states=[state for state in JobState if state.is_finished],
            failures=[(code, meaning.category) for code, meaning in MEANINGS.items()],
        )

    async def run(self) -> None:
        """Keep what is to be kept until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._process_changes())
                tasks.create_task(self._requeue_delayed())
                for _ in range(WORKERS):
                    tasks.create_task(self._worker())
        finally:
            await self._endings.close()

    @property
    def lag(self) -> float:
        """For how many seconds the job has been over that has waited longest for its record."""
        now = self._clock()
        return max((now - due.since for due in self._due.values() if due.need is RecordKind.FINAL), default=0.0)

    def _mark_changed(self, key: JobKey) -> None:
        """Called by the observer, whose work nothing here may delay or break."""
        self._changed[key] = None
        self._news.set()

    async def _process_changes(self) -> None:
        """See what is due of each job that has changed."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._changed:
                key = next(iter(self._changed))
                del self._changed[key]
                try:
                    self._update_pending(key)
                    self._capture_logs(key)
                except Exception:
                    log.exception("cannot tell what to keep", job_id=key.name)
                await asyncio.sleep(0)

    def _update_pending(self, key: JobKey) -> None:
        job, need, due = self._observer.job(key), self._record_kind(key), self._due.get(key)
        if due is not None and job is not None:
            self._complete(key, due, job)
        if need is None:
            self._due.pop(key, None)
            return
        now = self._clock()
        if due is None:
            due = self._due[key] = _PendingRecord(need, now, now + (0 if need is RecordKind.FINAL else SETTLE_SECONDS))
        elif due.need is not need:
            due.need, due.since, due.not_before, due.failures = need, now, now, 0
        self._enqueue(key, due)

    def _capture_logs(self, key: JobKey) -> None:
        """Follow the logs of this job's pods that were told to end."""
        job, gone = self._observer.job(key), self._observer.deleted_pods(key)
        if job is None or not self._writer.is_leader:
            return
        for pod in self._observer.attempts(key):
            if pod.terminating and pod.metadata.name not in gone:
                self._endings.follow(pod, secrets_of(job), lambda: self._mark_changed(key))

    def _record_kind(self, key: JobKey) -> RecordKind | None:
        job, state = self._observer.job(key), self._observer.tallies.state(key)
        if job is None or state is None:
            return None
        kept = record_of(job)
        if kept is None and written_by_newer_version(job):
            return None
        if state.is_finished:
            return None if kept is not None and kept.state is not None else RecordKind.FINAL
        ending = any(pod.metadata.deletion_timestamp for pod in self._observer.attempts(key))
        if not ending and not self._observer.deleted_pods(key):
            return None
        case = self._observer.snapshot(key)
        return RecordKind.ATTEMPT if case is not None and needs_interim_record(case, kept) else None

    def _enqueue(self, key: JobKey, due: _PendingRecord) -> None:
        if not due.queued and due.not_before <= self._clock() and self._writer.is_leader:
            due.queued = True
            self._ready.put_nowait(key)

    async def _requeue_delayed(self) -> None:
        """Hand over what waits for its time, or for this process to become the writer."""
        while True:
            await self._sleep(SWEEP_SECONDS)
            for key, due in self._due.items():
                self._enqueue(key, due)

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            due = self._due.get(key)
            if due is None:
                continue
            try:
                await self._record(key, due)
            except ObjectExists:
                self._failed(due, "conflict")
            except NotFound:
                self._failed(due, "gone")  # The watch tells of the deletion, and then nothing is due.
            except (ClusterError, PublicError) as error:
                self._failed(due, "failed")
                log.warning("record not kept", job_id=key.name, need=due.need, reason=str(error), tries=due.failures)
            except Exception:
                self._failed(due, "failed")
                log.exception("record not kept", job_id=key.name, need=due.need)
            finally:
                due.queued = False

    def _failed(self, due: _PendingRecord, outcome: str) -> None:
        self._metrics.records.labels(outcome).inc()
        pause = min(MAX_BACKOFF_SECONDS, float(1 << min(due.failures, 16)))
        due.failures += 1
        due.not_before = self._clock() + pause * (0.5 + 0.5 * self._jitter())

    async def _record(self, key: JobKey, due: _PendingRecord) -> None:
        """Write what is due of one job, if this is the time. Raises the errors of a call to Kubernetes."""
        need, case = due.need, self._observer.snapshot(key)
        if case is None or self._too_early(case, due):
            return
        excerpt = await self._excerpt(case, due)
        usage = await self._usage_of(key) if need is RecordKind.FINAL else None
        # Time has passed. The record is worked out from what is known now, and is meant for this version of the Job.
        case = self._observer.snapshot(key)
        if case is None or self._record_kind(key) is not need or not self._writer.is_leader:
            return
        kept, now = record_of(case.job), self._now()
        final = need is RecordKind.FINAL
        record = final_record(case, kept, excerpt, usage, now) if final else interim_record(case, kept, excerpt, now)
        await self._write(key, due, case.job, record)

    def _too_early(self, case: JobSnapshot, due: _PendingRecord) -> bool:
        """Whether more will be known soon; the sweep comes back to it."""
        now, ended = self._clock(), [pod for pod in case.pods if case.has_ended(pod)]
        lost = any(watch.disconnect_reason for watch in self._observer.watches.values())
        if lost or any(map(self._endings.follows, ended)):
            due.not_before = now + SWEEP_SECONDS
        elif due.need is RecordKind.FINAL and missing_attempts(case.job, merge_attempts(case, record_of(case.job))):
            due.not_before = max(due.not_before, due.since + MISSING_POD_TIMEOUT_SECONDS)
        return due.not_before > now

    async def _excerpt(self, case: JobSnapshot, due: _PendingRecord) -> Excerpt | None:
        """The end of the log of the last attempt that ran, as far as it can be had."""
        pod = last_started_pod(case)
        if pod is None:
            return None
        ending = self._endings.of(pod)
        followed = ending.excerpt if ending else None
        known = followed if ending and ending.whole else excerpt_from_status(case)
        if known is not None or pod.metadata.name in case.deleted_pods:
            return known or followed
        try:
            end = await read_tail(self._kubernetes, pod.metadata.namespace, pod.metadata.name)
        except (NotFound, Rejected) as error:
            log.info("no log to read", job_id=case.job.metadata.name, pod=pod.metadata.name, reason=str(error))
            return followed
        except (ClusterError, PublicError, TimeoutError) as error:
            reason = str(error) or f"it took longer than {READ_SECONDS:g} s"
            due.log_failures += 1
            if due.log_failures < MAX_LOG_ATTEMPTS:
                raise NotExecuted(f"the log could not be read: {reason}") from error
            log.warning("log not kept", job_id=case.job.metadata.name, pod=pod.metadata.name, reason=reason)
            self._metrics.records.labels("log_lost").inc()
            return followed
        return excerpt_of(pod.metadata.name, end.log, secrets_of(case.job), cut=end.cut)

    async def _usage_of(self, key: JobKey) -> Usage | None:
        if self._usage is None:
            return None
        try:
            async with asyncio.timeout(USAGE_SECONDS):
                usage = await self._usage(key)
        except (RunwayError, TimeoutError) as error:
            log.warning("usage not kept", job_id=key.name, reason=str(error) or "it took too long")
            return None
        return usage if usage is not None and usage.measured else None

    async def _write(self, key: JobKey, due: _PendingRecord, job: Job, record: Record) -> None:
        """Patch the record onto the version of the Job that it was worked out from.

        Raises ObjectExists where the Job has changed meanwhile, and has been read anew; ObjectMissing where it is gone.
        """
        text = encode(record, job)
        due.sent[text] = record
        due.counted = had_final_record(job)
        metadata = {
            "uid": job.metadata.uid,
            "resourceVersion": job.metadata.resource_version,
            "annotations": {ANNOTATION_RECORD: text},
        }
        try:
            written = await self._kubernetes.patch_job(key.namespace, key.name, {"metadata": metadata})
        except AmbiguousOutcome:
            if len(due.sent) > MAX_WRITE_ATTEMPTS:
                del due.sent[next(iter(due.sent))]
            raise
        except (ClusterError, PublicError) as error:
            del due.sent[text]
            if isinstance(error, ObjectExists):
                found = await self._kubernetes.get_job(key.namespace, key.name)
                if found is not None:
                    self._observer.store.upsert_job(found)
            raise
        self._observer.store.upsert_job(written)

    def _complete(self, key: JobKey, due: _PendingRecord, job: Job) -> None:
        """Where a record of ours has come to stand on the Job: count it, and with a final one the job, once.

        The record is the transaction. Its text is nobody else's, since the moment of writing is in it. Should this
        process die before it comes here, the job is missing in the counters; it is never in them twice.
        """
        record = due.sent.get(job.metadata.annotations.get(ANNOTATION_RECORD, ""))
        if record is None:
            return
        due.sent.clear()
        self._metrics.records.labels("kept").inc()
        if record.state is None or due.counted:
            return
        tenant = self._observer.tenant_of(key)
        self._metrics.jobs_finished.labels(tenant, record.state).inc()
        if record.failure is not None:
            self._metrics.failures.labels(tenant, record.failure.code, record.failure.category).inc()
        if record.actual is not None:
            self._metrics.actual_cost.labels(tenant).inc(float(record.actual))
        log.info(
            "job over", tenant=tenant, job_id=key.name, state=record.state, actual_usd=record.actual,
            failure=record.failure.code if record.failure else None, attempts=len(record.attempts),
        )  # fmt: skip
