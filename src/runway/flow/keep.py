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

from runway.cluster.client import Kubernetes
from runway.cluster.store import Key
from runway.errors import (
    Ambiguous,
    ClusterError,
    NotDone,
    ObjectExists,
    ObjectMissing,
    PublicError,
    Refused,
    RunwayError,
)
from runway.flow.endings import Endings
from runway.flow.lead import Writer
from runway.flow.observe import Observer
from runway.flow.tail import READ_SECONDS, read_end
from runway.jobs.case import Case
from runway.jobs.excerpt import Excerpt, excerpt_of, secrets_of
from runway.jobs.failures import MEANINGS
from runway.jobs.identity import ANNOTATION_RECORD
from runway.jobs.record import (
    Record,
    encode,
    excerpt_seen,
    final_record,
    known_of,
    last_that_ran,
    newer,
    passing,
    passing_record,
    record_of,
    unseen,
    was_final,
)
from runway.jobs.usage import Usage
from runway.jobs.view import State
from runway.objects import Job
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()

WORKERS: Final = 8
"""Records that are worked on at once."""
SETTLE_SECONDS: Final = 2.0
"""Before an attempt is kept while its job lives. The Job controller is just counting it, and a write in between would
make it start over after a second (DefaultJobApiBackOff); mostly the job is over meanwhile, and one record is enough."""
PATIENCE_SECONDS: Final = 10.0
"""How long is waited for pods that Kubernetes has counted and the watch has not told of."""
SWEEP_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
LOG_TRIES: Final = 3
"""A node that does not answer must not keep the rest of the evidence from being kept."""
MAX_SENT: Final = 4
"""Records of one job that may still come to stand on it without an answer."""
USAGE_SECONDS: Final = 5.0


class Need(StrEnum):
    """What has to be kept of a job."""

    ATTEMPT = "attempt"
    FINAL = "final"


@dataclass(slots=True)
class _Due:
    """What is due of one job. `since` and `not_before` are monotonic seconds."""

    need: Need
    since: float
    not_before: float
    failures: int = 0
    log_failures: int = 0
    queued: bool = False
    sent: dict[str, Record] = field(default_factory=dict)
    """Records that were sent, by their text: one of them may come to stand on the Job without an answer."""
    counted: bool = False
    """Whether the Job had a final record before, which was spoilt by hand: the job was counted with that one."""


class Keeper:
    """Writes the records. `run` is the one task that does; the observer tells it of each change.

    `usage` tells what a job used; it may fail with any error of Runway's own, and the record then has none.
    """

    def __init__(
        self,
        kubernetes: Kubernetes,
        observer: Observer,
        writer: Writer,
        metrics: Metrics,
        *,
        usage: Callable[[Key], Awaitable[Usage | None]] | None = None,
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
        self._changed: dict[Key, None] = {}
        self._news = asyncio.Event()
        self._due: dict[Key, _Due] = {}
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        """Each job at most once, so it is bounded by the jobs there are."""
        self._endings = Endings(kubernetes, sleep=sleep, jitter=jitter)
        observer.listeners.append(self._notice)
        metrics.count_from_zero(
            observer.ledger.accounts,
            states=[state for state in State if state.over],
            failures=[(code, meaning.category) for code, meaning in MEANINGS.items()],
        )

    async def run(self) -> None:
        """Keep what is to be kept until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look())
                tasks.create_task(self._sweep())
                for _ in range(WORKERS):
                    tasks.create_task(self._work())
        finally:
            await self._endings.close()

    @property
    def lag(self) -> float:
        """For how many seconds the job has been over that has waited longest for its record."""
        now = self._clock()
        return max((now - due.since for due in self._due.values() if due.need is Need.FINAL), default=0.0)

    def _notice(self, key: Key) -> None:
        """Called by the observer, whose work nothing here may delay or break."""
        self._changed[key] = None
        self._news.set()

    async def _look(self) -> None:
        """See what is due of each job that has changed."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._changed:
                key = next(iter(self._changed))
                del self._changed[key]
                try:
                    self._note(key)
                    self._follow(key)
                except Exception:
                    log.exception("cannot tell what to keep", job_id=key.name)
                await asyncio.sleep(0)

    def _note(self, key: Key) -> None:
        job, need, due = self._observer.job(key), self._need(key), self._due.get(key)
        if due is not None and job is not None:
            self._settle(key, due, job)
        if need is None:
            self._due.pop(key, None)
            return
        now = self._clock()
        if due is None:
            due = self._due[key] = _Due(need, now, now + (0 if need is Need.FINAL else SETTLE_SECONDS))
        elif due.need is not need:
            due.need, due.since, due.not_before, due.failures = need, now, now, 0
        self._hand_over(key, due)

    def _follow(self, key: Key) -> None:
        """Follow the logs of this job's pods that were told to end."""
        job, gone = self._observer.job(key), self._observer.gone(key)
        if job is None or not self._writer.is_writer:
            return
        for pod in self._observer.attempts(key):
            if pod.terminating and pod.metadata.name not in gone:
                self._endings.follow(pod, secrets_of(job), lambda: self._notice(key))

    def _need(self, key: Key) -> Need | None:
        job, state = self._observer.job(key), self._observer.tallies.state(key)
        if job is None or state is None:
            return None
        kept = record_of(job)
        if kept is None and newer(job):
            return None
        if state.over:
            return None if kept is not None and kept.state is not None else Need.FINAL
        ending = any(pod.metadata.deletion_timestamp for pod in self._observer.attempts(key))
        if not ending and not self._observer.gone(key):
            return None
        case = self._observer.case(key)
        return Need.ATTEMPT if case is not None and passing(case, kept) else None

    def _hand_over(self, key: Key, due: _Due) -> None:
        if not due.queued and due.not_before <= self._clock() and self._writer.is_writer:
            due.queued = True
            self._ready.put_nowait(key)

    async def _sweep(self) -> None:
        """Hand over what waits for its time, or for this process to become the writer."""
        while True:
            await self._sleep(SWEEP_SECONDS)
            for key, due in self._due.items():
                self._hand_over(key, due)

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            due = self._due.get(key)
            if due is None:
                continue
            try:
                await self._keep(key, due)
            except ObjectExists:
                self._failed(due, "conflict")
            except ObjectMissing:
                self._failed(due, "gone")  # The watch tells of the deletion, and then nothing is due.
            except (ClusterError, PublicError) as error:
                self._failed(due, "failed")
                log.warning("record not kept", job_id=key.name, need=due.need, reason=str(error), tries=due.failures)
            except Exception:
                self._failed(due, "failed")
                log.exception("record not kept", job_id=key.name, need=due.need)
            finally:
                due.queued = False

    def _failed(self, due: _Due, outcome: str) -> None:
        self._metrics.records.labels(outcome).inc()
        pause = min(LONGEST_PAUSE_SECONDS, float(1 << min(due.failures, 16)))
        due.failures += 1
        due.not_before = self._clock() + pause * (0.5 + 0.5 * self._jitter())

    async def _keep(self, key: Key, due: _Due) -> None:
        """Write what is due of one job, if this is the time. Raises the errors of a call to Kubernetes."""
        need, case = due.need, self._observer.case(key)
        if case is None or self._too_early(case, due):
            return
        excerpt = await self._excerpt(case, due)
        usage = await self._usage_of(key) if need is Need.FINAL else None
        # Time has passed. The record is worked out from what is known now, and is meant for this version of the Job.
        case = self._observer.case(key)
        if case is None or self._need(key) is not need or not self._writer.is_writer:
            return
        kept, now = record_of(case.job), self._now()
        final = need is Need.FINAL
        record = final_record(case, kept, excerpt, usage, now) if final else passing_record(case, kept, excerpt, now)
        await self._write(key, due, case.job, record)

    def _too_early(self, case: Case, due: _Due) -> bool:
        """Whether more will be known soon; the sweep comes back to it."""
        now, ended = self._clock(), [pod for pod in case.pods if case.has_ended(pod)]
        lost = any(watch.lost for watch in self._observer.watches.values())
        if lost or any(map(self._endings.follows, ended)):
            due.not_before = now + SWEEP_SECONDS
        elif due.need is Need.FINAL and unseen(case.job, known_of(case, record_of(case.job))):
            due.not_before = max(due.not_before, due.since + PATIENCE_SECONDS)
        return due.not_before > now

    async def _excerpt(self, case: Case, due: _Due) -> Excerpt | None:
        """The end of the log of the last attempt that ran, as far as it can be had."""
        pod = last_that_ran(case)
        if pod is None:
            return None
        ending = self._endings.of(pod)
        followed = ending.excerpt if ending else None
        known = followed if ending and ending.whole else excerpt_seen(case)
        if known is not None or pod.metadata.name in case.gone:
            return known or followed
        try:
            end = await read_end(self._kubernetes, pod.metadata.namespace, pod.metadata.name)
        except (ObjectMissing, Refused) as error:
            log.info("no log to read", job_id=case.job.metadata.name, pod=pod.metadata.name, reason=str(error))
            return followed
        except (ClusterError, PublicError, TimeoutError) as error:
            reason = str(error) or f"it took longer than {READ_SECONDS:g} s"
            due.log_failures += 1
            if due.log_failures < LOG_TRIES:
                raise NotDone(f"the log could not be read: {reason}") from error
            log.warning("log not kept", job_id=case.job.metadata.name, pod=pod.metadata.name, reason=reason)
            self._metrics.records.labels("log_lost").inc()
            return followed
        return excerpt_of(pod.metadata.name, end.log, secrets_of(case.job), cut=end.cut)

    async def _usage_of(self, key: Key) -> Usage | None:
        if self._usage is None:
            return None
        try:
            async with asyncio.timeout(USAGE_SECONDS):
                usage = await self._usage(key)
        except (RunwayError, TimeoutError) as error:
            log.warning("usage not kept", job_id=key.name, reason=str(error) or "it took too long")
            return None
        return usage if usage is not None and usage.measured else None

    async def _write(self, key: Key, due: _Due, job: Job, record: Record) -> None:
        """Patch the record onto the version of the Job that it was worked out from.

        Raises ObjectExists where the Job has changed meanwhile, and has been read anew; ObjectMissing where it is gone.
        """
        text = encode(record, job)
        due.sent[text] = record
        due.counted = was_final(job)
        metadata = {
            "uid": job.metadata.uid,
            "resourceVersion": job.metadata.resource_version,
            "annotations": {ANNOTATION_RECORD: text},
        }
        try:
            written = await self._kubernetes.patch_job(key.namespace, key.name, {"metadata": metadata})
        except Ambiguous:
            if len(due.sent) > MAX_SENT:
                del due.sent[next(iter(due.sent))]
            raise
        except (ClusterError, PublicError) as error:
            del due.sent[text]
            if isinstance(error, ObjectExists):
                found = await self._kubernetes.read_job(key.namespace, key.name)
                if found is not None:
                    self._observer.store.put_job(found)
            raise
        self._observer.store.put_job(written)

    def _settle(self, key: Key, due: _Due, job: Job) -> None:
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
