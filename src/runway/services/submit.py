"""The submit path: validation, quota reservation, manifest, Kubernetes.

1. This process must be the leader.
2. Unless the idempotency key may have a job already:
   - The specification must satisfy the policy. Every violation is reported at once, and nothing is counted yet.
   - Submissions must be open: no emergency stop, contact with Kubernetes.
3. The tenant's rate limit counts the submission.
4. A job that exists under the key is answered again if the request is the same, or is a conflict.
5. Submissions must still be open.
6. The ledger checks and reserves quota in one step.
7. Kubernetes creates the Job. Its name is a hash of tenant and key, so this create is the transaction.
8. The reservation ends once the Job is in the store, or certainly does not exist. Until then, see `resolve_outcome`.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import structlog

from runway import errors
from runway.admission.rate_limit import RateLimiter
from runway.admission.validation import ValidatedSpec, validate
from runway.controllers.leadership import Leadership
from runway.controllers.sync import ClusterSync
from runway.jobs.idempotency import is_same_request, request_hash
from runway.jobs.manifest import Placement, job_id, job_manifest, keyed_job_id
from runway.jobs.models import JobView
from runway.jobs.resources import ResourceVector, vector_of
from runway.jobs.spec import read_draft
from runway.kube.client import KubeClient
from runway.kube.objects import Job
from runway.policy import Policy
from runway.services.resolve_outcome import KeyLocks, OutcomeResolver
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey
from runway.telemetry import Metrics

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Submission:
    """An accepted submission; `replayed` if the job existed before."""

    view: JobView
    replayed: bool


class Submitter:
    """Accepts submissions; one process does so for the whole cluster. `close` cancels its background tasks."""

    def __init__(
        self,
        policy: Policy,
        kubernetes: KubeClient,
        cluster: ClusterState,
        sync: ClusterSync,
        leadership: Leadership,
        metrics: Metrics,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
        token: Callable[[], str] = secrets.token_hex,
    ) -> None:
        self.policy = policy
        self.kubernetes = kubernetes
        self.cluster = cluster
        self.leadership = leadership
        self._metrics = metrics
        self._clock = clock
        self.now = now
        self._token = token
        self._limiters: dict[str, RateLimiter] = {}
        self._key_locks: KeyLocks = KeyLocks()
        self._outcomes = OutcomeResolver(cluster, sync, self._key_locks, sleep, jitter)

    async def submit(self, tenant: str, document: object, idempotency_key: str | None) -> Submission:
        """Admit a job and create it. Raises the PublicError that explains a refusal."""
        started = self._clock()
        try:
            submission = await self._submit(tenant, document, idempotency_key)
        except errors.PublicError as error:
            self._metrics.submissions.labels(tenant, error.code).inc()
            log.info("submission refused", tenant=tenant, decision=error.code, detail=error.detail)
            raise
        except Exception:
            self._metrics.submissions.labels(tenant, errors.InternalError.code).inc()
            raise
        decision = "replayed" if submission.replayed else "created"
        self._metrics.submissions.labels(tenant, decision).inc()
        self._observe_stage("total", started)
        # The log line of the request has these: one line for an accepted submission.
        structlog.contextvars.bind_contextvars(tenant=tenant, decision=decision, job_id=submission.view.id)
        return submission

    async def _submit(self, tenant: str, document: object, idempotency_key: str | None) -> Submission:
        started = self._clock()
        self.leadership.require_leader()
        key = self.job_key(tenant, idempotency_key)
        validated = None
        if self._stored_job(key) is None and key not in self._outcomes.unresolved:
            validated = self.validate(tenant, document)
            self.leadership.require_submissions_open()
        self.check_rate(tenant)
        async with self._key_locks.setdefault(key, asyncio.Lock()):
            existing = self._stored_job(key)
            if existing is None and key in self._outcomes.unresolved:
                existing = await self._outcomes.get_job(key)
            if existing is not None:
                return self._replay(key, existing, document)
            validated = validated or self.validate(tenant, document)
            # Checked again, without an await until the create is sent: the Lease may have expired meanwhile.
            self.leadership.require_leader()
            self.leadership.require_submissions_open()
            self._reserve(tenant, key, vector_of(validated.spec.resources, validated.price))
            self._observe_stage("admit", started)
            return await self._create(tenant, key, document, validated)

    def _reserve(self, tenant: str, key: JobKey, request: ResourceVector) -> None:
        """Reserve quota. Raises QuotaExceeded with the names of the jobs that use it."""
        try:
            self.cluster.ledger.reserve(tenant, key.name, request, self.now())
        except errors.QuotaExceeded as error:
            listed = cast("list[str]", error.extra["held_by"])
            named = ((job_id, self.cluster.name_of(JobKey(key.namespace, job_id))) for job_id in listed)
            error.extra["held_by_names"] = {job_id: name for job_id, name in named if name is not None}
            raise

    async def _create(self, tenant: str, key: JobKey, document: object, validated: ValidatedSpec) -> Submission:
        started = self._clock()
        manifest = self.build_manifest(tenant, key, document, validated)
        self._observe_stage("build", started)
        started = self._clock()
        try:
            job = await self.kubernetes.create_job(key.namespace, manifest)
        except errors.AlreadyExists:
            return self._replay(key, await self._outcomes.read_back(tenant, key), document)
        except errors.AmbiguousOutcome as error:
            log.warning("create is ambiguous", tenant=tenant, job_id=key.name, reason=str(error))
            # Not a replay: if an earlier submission had made this Job, the store would have it.
            return self._replay(key, await self._outcomes.read_back(tenant, key), document, replayed=False)
        except (errors.ClusterError, errors.PublicError) as error:
            self._outcomes.confirm_not_created(tenant, key)
            raise (create_failed(error, key) if isinstance(error, errors.ClusterError) else error) from error
        except BaseException:
            # Cancelled, or an internal error: Kubernetes may have received the create.
            self._outcomes.resolve_in_background(tenant, key)
            raise
        self._observe_stage("create", started)
        self._outcomes.confirm_created(tenant, key, job)
        return self._answer(key, replayed=False)

    async def close(self) -> None:
        await self._outcomes.close()

    def job_key(self, tenant: str, idempotency_key: str | None) -> JobKey:
        """Return the key of the new job. Without an idempotency key it has a random name."""
        name = job_id(tenant, self._token()) if idempotency_key is None else keyed_job_id(tenant, idempotency_key)
        return JobKey(self.policy.tenants[tenant].namespace, name)

    def check_rate(self, tenant: str) -> None:
        """Count one submission of the tenant. Raises RateLimited with the seconds until the next one is allowed."""
        wait = (self._limiters.get(tenant) or self._new_limiter(tenant)).try_acquire(self._clock())
        if wait:
            self._metrics.rate_limited.labels(tenant).inc()
            rate = self.policy.tenants[tenant].rate
            raise errors.RateLimited(
                f"tenant {tenant} may submit {rate.per_minute} jobs a minute, {rate.burst} at once; retry in {wait} s",
                retry_after=wait,
            )

    def validate(self, tenant: str, document: object) -> ValidatedSpec:
        """Validate a request against the policy. Raises InvalidSpec with every violation."""
        return validate(read_draft(document), self.policy, tenant)

    def build_manifest(self, tenant: str, key: JobKey, document: object, validated: ValidatedSpec) -> dict[str, object]:
        pool, volumes = self.policy.pools[validated.pool], self.policy.tenants[tenant].volumes
        request, price = request_hash(document), validated.price
        placement = Placement(key.name, tenant, key.namespace, request, pool, price, volumes)
        return job_manifest(validated.spec, placement, self.policy.limits)

    def _new_limiter(self, tenant: str) -> RateLimiter:
        """Create the tenant's limiter, and count the jobs that the tenant created recently."""
        limiter = self._limiters[tenant] = RateLimiter(self.policy.tenants[tenant].rate)
        moment, now, namespace = self._clock(), self.now(), self.policy.tenants[tenant].namespace
        for created in self.cluster.created_since(namespace, now - timedelta(seconds=limiter.window_seconds)):
            # Kubernetes truncates creation times to the second, so the job may be up to one second younger.
            age = max(0.0, (now - created).total_seconds() - 1)
            limiter.backfill(moment - int(age * 1e9))
        return limiter

    def _stored_job(self, key: JobKey) -> Job | None:
        record = self.cluster.store.get(key)
        return record.job if record else None

    def _replay(self, key: JobKey, job: Job, document: object, *, replayed: bool = True) -> Submission:
        if not is_same_request(job, document):
            raise errors.IdempotencyConflict(f"job {key.name} was submitted under this key with another request")
        return self._answer(key, replayed=replayed)

    def _answer(self, key: JobKey, *, replayed: bool) -> Submission:
        view = self.cluster.view(key)
        if view is None:
            raise errors.OutcomeUnknown("the job was deleted before Runway could return it", extra={"id": key.name})
        return Submission(view, replayed)

    def _observe_stage(self, stage: str, since: int) -> None:
        self._metrics.stage_seconds[stage].observe((self._clock() - since) / 1e9)


def create_failed(error: errors.ClusterError, key: JobKey) -> errors.PublicError:
    """Map the error of a create that did nothing. A missing namespace means that the tenant was never rendered."""
    if isinstance(error, errors.NotFound):
        return errors.KubernetesUnavailable(
            f"namespace {key.namespace} does not exist: apply the output of `runway tenants render`", retry_after=30
        )
    return errors.KubernetesUnavailable(str(error), retry_after=min(error.retry_after or 2, 60))
