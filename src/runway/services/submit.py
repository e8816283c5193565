"""The submit path: request -> decision -> manifest -> Kubernetes. Read `submit` top to bottom.

0. This process must be the writer (`flow/lead.py`).
1. The specification is held against the policy: every violation at once, nothing taken yet.
2. Submissions must not be stopped, nor contact with Kubernetes lost. A job that exists under the same idempotency key
   is still answered: nothing is created, and its caller learns the outcome of a submission that was made before.
3. The tenant's rate limit takes one.
4. A job that exists under the same idempotency key is answered again, or is a conflict.
5. Quota is checked and reserved in one step.
6. Kubernetes creates the Job. Its name is a hash of tenant and key, so this create is the transaction.
7. The reservation ends: the job is in the store and booked, or it certainly does not exist. Where neither is known, the
   Job is read back by name; as long as that fails too, the reservation stays and the reading goes on.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

import structlog

from runway.admission.quota import amounts_of
from runway.admission.rate_limit import RateLimiter
from runway.admission.validation import ValidatedSpec, validate
from runway.controllers.leadership import Leadership
from runway.controllers.sync import Observer
from runway.errors import (
    AmbiguousOutcome,
    ClusterError,
    IdempotencyConflict,
    InternalError,
    InvalidSpec,
    KubernetesUnavailable,
    NotFound,
    ObjectExists,
    OutcomeUnknown,
    PublicError,
    QuotaExceeded,
    RateLimited,
    SubmissionsStopped,
    Violation,
)
from runway.jobs.identity import ANNOTATION_SPEC_HASH, job_id, spec_hash
from runway.jobs.manifest import Placement, job_manifest
from runway.jobs.spec import read_draft
from runway.jobs.view import JobView
from runway.kube.backoff import Backoff
from runway.kube.client import KubeClient
from runway.kube.objects import Job
from runway.policy import Policy
from runway.state.job_store import JobKey
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()

RESOLVE_PAUSE_SECONDS: Final = 5.0
"""Seconds, at most, between two reads that are to settle an unknown outcome; at least half of it."""
ABSENCE_CONFIRMED_AFTER_SECONDS: Final = 65.0
"""For how long Kubernetes must go on saying "not there": the API server spends at most 60 s on any request
(`--request-timeout`), and this process's clock may be a little fast."""


@dataclass(frozen=True, slots=True)
class Submission:
    """An accepted submission; `replayed` if the job was there before."""

    view: JobView
    replayed: bool


class Submitter:
    """Takes submissions, one process for the whole cluster. `close` ends the tasks that settle unknown outcomes."""

    def __init__(
        self,
        policy: Policy,
        kubernetes: KubeClient,
        observer: Observer,
        writer: Leadership,
        metrics: Metrics,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        token: Callable[[], str] = secrets.token_hex,
    ) -> None:
        self._policy = policy
        self._kubernetes = kubernetes
        self._observer = observer
        self._writer = writer
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._jitter = jitter
        self._token = token
        self._limiters: dict[str, RateLimiter] = {}
        self._locks: WeakValueDictionary[JobKey, asyncio.Lock] = WeakValueDictionary()
        self._settling: dict[JobKey, asyncio.Task[None]] = {}

    async def submit(self, tenant: str, document: object, idempotency_key: str | None) -> Submission:
        """Admit a job and create it, or raise the PublicError that says why not."""
        started = self._clock()
        try:
            submission = await self._submit(tenant, document, idempotency_key)
        except PublicError as error:
            self._metrics.submissions.labels(tenant, error.code).inc()
            log.info("submission refused", tenant=tenant, decision=error.code, detail=error.detail)
            raise
        except Exception:
            self._metrics.submissions.labels(tenant, InternalError.code).inc()
            raise
        outcome = "replayed" if submission.replayed else "created"
        self._metrics.submissions.labels(tenant, outcome).inc()
        self._observe_stage("total", started)
        log.info("submission accepted", tenant=tenant, decision=outcome, job_id=submission.view.id)
        return submission

    async def _submit(self, tenant: str, document: object, idempotency_key: str | None) -> Submission:
        started = self._clock()
        self._writer.require_leader()
        passed = validate(read_draft(document), self._policy)
        # A key of the caller's and a random one cannot meet: only the former can hold a space before its text.
        seed = self._token() if idempotency_key is None else f"key {idempotency_key}"
        key = JobKey(self._policy.tenants[tenant].namespace, job_id(tenant, seed))
        if self._stored_job(key) is None:
            self._writer.require_submissions_open()
        self._take_rate(tenant)
        async with self._key_lock(key):
            existing = self._stored_job(key)
            if existing is None and key in self._settling:
                existing = await self._get_job(key)
            if existing is not None:
                return self._replay(key, existing, passed)
            # Again, and with no wait until the create is sent: the Lease may have run out, or a stop been put on it.
            self._writer.require_leader()
            self._writer.require_submissions_open()
            self._observer.ledger.reserve(tenant, key.name, amounts_of(passed.spec.resources))
            self._observe_stage("admit", started)
            return await self._create(tenant, key, passed)

    async def _create(self, tenant: str, key: JobKey, passed: ValidatedSpec) -> Submission:
        started = self._clock()
        manifest = self._manifest(tenant, key, passed)
        self._observe_stage("build", started)
        started = self._clock()
        try:
            job = await self._kubernetes.create_job(key.namespace, manifest)
        except ObjectExists:
            return self._replay(key, await self._read_back(tenant, key), passed)
        except AmbiguousOutcome as error:
            log.warning("create is ambiguous", tenant=tenant, job_id=key.name, reason=str(error))
            # New: a twin that was told of this Job would have left it in the store, and this create unsent.
            return self._replay(key, await self._read_back(tenant, key), passed, replayed=False)
        except (ClusterError, PublicError) as error:
            self._confirm_not_created(tenant, key)
            raise (_unavailable(error, key) if isinstance(error, ClusterError) else error) from error
        except BaseException:
            # Cancelled, or a fault of our own: the create may have gone out, so find out in the background.
            self._resolve_in_background(tenant, key)
            raise
        self._observe_stage("create", started)
        self._confirm_created(tenant, key, job)
        return self._answer(key, replayed=False)

    async def dry_run(self, tenant: str, document: object) -> dict[str, object]:
        """What `submit` would decide, by the same checks and the API server's own; nothing is kept or reserved.

        A stop, or lost contact, is one of the reasons to refuse, beside all others. The API server is still asked, so
        an operator can try the whole path before a stop is ended.
        """
        self._writer.require_leader()
        violations = tuple(map(_refusal, self._writer.refusals))
        try:
            passed = validate(read_draft(document), self._policy)
        except InvalidSpec as error:
            return decision_json(violations + error.violations, None, self._quota(tenant), None, ())
        self._take_rate(tenant)
        key = JobKey(self._policy.tenants[tenant].namespace, job_id(tenant, self._token()))
        manifest = self._manifest(tenant, key, passed)
        try:
            self._observer.ledger.reserve(tenant, key.name, amounts_of(passed.spec.resources))
        except QuotaExceeded as error:
            violations += error.violations
        else:
            self._observer.ledger.release(tenant, key.name)
        try:
            warnings = await self._kubernetes.create_job_dry_run(key.namespace, manifest)
        except ClusterError as error:
            raise _unavailable(error, key) from error
        return decision_json(violations, cost_json(passed), self._quota(tenant), manifest, warnings)

    async def close(self) -> None:
        """Cancel what still waits for an unknown outcome; the next start finds out from Kubernetes."""
        tasks = list(self._settling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _take_rate(self, tenant: str) -> None:
        wait = self._limiter(tenant).try_acquire(self._clock())
        if wait:
            self._metrics.rate_limited.labels(tenant).inc()
            rate = self._policy.tenants[tenant].rate
            raise RateLimited(
                f"tenant {tenant} may submit {rate.per_minute} jobs a minute, {rate.burst} at once; "
                f"the next one will be taken in {wait} s",
                retry_after=wait,
            )

    def _limiter(self, tenant: str) -> RateLimiter:
        """The tenant's limiter, made when it is first needed: as full as the jobs it has created lately make it."""
        limiter = self._limiters.get(tenant)
        if limiter is None:
            limiter = RateLimiter(self._policy.tenants[tenant].rate)
            self._limiters[tenant] = limiter
            moment, now = self._clock(), self._now()
            for created in self._observer.created_since(tenant, now - timedelta(seconds=limiter.window_seconds)):
                # Kubernetes cuts creation times to the second, so the job may be up to one second younger than it says.
                age = max(0.0, (now - created).total_seconds() - 1)
                limiter.backfill(moment - int(age * 1e9))
        return limiter

    def _manifest(self, tenant: str, key: JobKey, passed: ValidatedSpec) -> dict[str, object]:
        placement = Placement(key.name, tenant, key.namespace, self._policy.pools[passed.pool], cost_json(passed))
        return job_manifest(passed.spec, placement, self._policy.limits)

    def _stored_job(self, key: JobKey) -> Job | None:
        record = self._observer.store.get(key)
        return record.job if record else None

    async def _read_back(self, tenant: str, key: JobKey) -> Job:
        """The Job under this name after a create that did not say what it did; settles the reservation.

        Raises KubernetesUnavailable where there is none, and OutcomeUnknown where even that cannot be told.
        """
        try:
            job = await self._get_job(key)
        except BaseException:
            self._resolve_in_background(tenant, key)
            raise
        if job is None:
            # Kubernetes may still be working on the create that timed out, so "not there" is not yet an answer.
            self._resolve_in_background(tenant, key)
            raise OutcomeUnknown(
                "the create did not end in time; whether it will is not known yet", extra={"id": key.name}
            )
        self._confirm_created(tenant, key, job)
        return job

    async def _get_job(self, key: JobKey) -> Job | None:
        """The Job under this name now; where there is none, its pods are booked that an earlier one has left behind.

        A create that is sent next finds them counted. Raises OutcomeUnknown where Kubernetes does not tell.
        """
        try:
            return await self._observer.refresh_job(key)
        except (ClusterError, PublicError) as error:
            raise OutcomeUnknown(
                f"{error}; the job may exist as {key.name}. Its quota stays reserved until that is known",
                extra={"id": key.name},
            ) from error

    def _confirm_created(self, tenant: str, key: JobKey, job: Job) -> None:
        """The Job exists: it is booked in place of the reservation.

        It is not where its deletion was told of before its create was answered: a pod of it may run on, unknown yet.
        """
        self._observer.store.upsert_job(job)
        if self._stored_job(key) is None:
            self._resolve_in_background(tenant, key)
        else:
            self._observer.ledger.release(tenant, key.name)

    def _confirm_not_created(self, tenant: str, key: JobKey) -> None:
        """This create did nothing; the reservation ends unless an earlier create of the name is still open."""
        if key not in self._settling:
            self._observer.ledger.release(tenant, key.name)

    def _resolve_in_background(self, tenant: str, key: JobKey) -> None:
        """Find out what became of a create, from now on: what was read before it was open says nothing of it."""
        if earlier := self._settling.get(key):
            earlier.cancel()
        task = self._settling[key] = asyncio.create_task(self._resolve(tenant, key))
        task.add_done_callback(lambda task: self._finish_resolving(key, task))

    def _finish_resolving(self, key: JobKey, task: asyncio.Task[None]) -> None:
        if self._settling.get(key) is task:
            del self._settling[key]

    async def _resolve(self, tenant: str, key: JobKey) -> None:
        """Look a Job up by name until Kubernetes says whether it exists; only then let go of its reservation.

        "Not there" counts only after pauses that add up to `DENIED_SECONDS`, so that no create can land after it.
        """
        backoff = Backoff(self._jitter, first=RESOLVE_PAUSE_SECONDS, longest=RESOLVE_PAUSE_SECONDS)
        denied = 0.0
        while denied < ABSENCE_CONFIRMED_AFTER_SECONDS and self._stored_job(key) is None:
            pause = backoff.next()
            await self._sleep(pause)
            try:
                job = await self._observer.refresh_job(key)
            except (ClusterError, PublicError) as error:
                log.warning("outcome still unknown", tenant=tenant, job_id=key.name, reason=str(error))
                continue
            if job is None:
                denied += pause
        async with self._key_lock(key):
            self._observer.ledger.release(tenant, key.name)
        log.info("outcome settled", tenant=tenant, job_id=key.name, exists=self._stored_job(key) is not None)

    def _replay(self, key: JobKey, job: Job, passed: ValidatedSpec, *, replayed: bool = True) -> Submission:
        if job.metadata.annotations.get(ANNOTATION_SPEC_HASH) != spec_hash(passed.spec):
            raise IdempotencyConflict(f"job {key.name} was submitted under this key with another specification")
        return self._answer(key, replayed=replayed)

    def _answer(self, key: JobKey, *, replayed: bool) -> Submission:
        view = self._observer.view(key)
        if view is None:
            raise OutcomeUnknown("the job was deleted while it was being answered", extra={"id": key.name})
        return Submission(view, replayed)

    def _quota(self, tenant: str) -> dict[str, object]:
        account = self._observer.ledger.accounts[tenant]
        parts = {"limit": account.limit, "used": account.used, "reserved": account.reserved}
        return {name: amounts.to_json() for name, amounts in parts.items()}

    def _observe_stage(self, stage: str, since: int) -> None:
        self._metrics.stage_seconds[stage].observe((self._clock() - since) / 1e9)

    @asynccontextmanager
    async def _key_lock(self, key: JobKey) -> AsyncIterator[None]:
        """One submission at a time per name: its twins wait for its outcome and are then answered with it.

        The lock lives as long as one of them refers to it. Whether it is locked does not tell: it is not, for a moment,
        when it passes to one that has waited.
        """
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield


def cost_json(passed: ValidatedSpec) -> dict[str, object]:
    """The price as it stands in the job view and on the Job; the actual cost is not known before the end."""
    return {
        "currency": "USD",
        "rate_card": passed.price.rate_card,
        "hourly": f"{passed.price.hourly:f}",
        "ceiling": f"{passed.price.ceiling:f}",
        "actual": None,
        "lines": [
            {"resource": line.resource, "quantity": line.quantity, "hourly": f"{line.hourly:f}"}
            for line in passed.price.lines
        ],
    }


def _refusal(error: PublicError) -> Violation:
    """A reason to admit no job at all, as a dry run shows it: of no field of the specification."""
    again = f"submit again in {error.retry_after} s"
    hint = SubmissionsStopped.hint if isinstance(error, SubmissionsStopped) else again
    return Violation("submissions", error.code, error.detail, hint=hint)


def decision_json(
    violations: tuple[Violation, ...],
    cost: dict[str, object] | None,
    quota: dict[str, object],
    manifest: dict[str, object] | None,
    warnings: tuple[str, ...],
) -> dict[str, object]:
    """What a dry run answers."""
    return {
        "decision": "refused" if violations else "admitted",
        "violations": list(violations),
        "cost": cost,
        "quota": quota,
        "manifest": manifest,
        "warnings": list(warnings),
    }


def _unavailable(error: ClusterError, key: JobKey) -> PublicError:
    """A create that certainly did nothing. A missing namespace is worth naming: the tenant was never rendered."""
    if isinstance(error, NotFound):
        return KubernetesUnavailable(
            f"namespace {key.namespace} does not exist: apply the output of `runway tenants render`", retry_after=30
        )
    return KubernetesUnavailable(str(error), retry_after=min(error.retry_after or 2, 60))
