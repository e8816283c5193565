"""Resolve ambiguous creates: read the Job back, now or in the background.

A create may have made its Job although its response was lost, or may make it later. Until Kubernetes says which, the
reservation stays. A reservation ends in one of two ways:

- The Job exists. It is in the store, and its observed usage replaces the reservation.
- The Job certainly does not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

import structlog

from runway.backoff import Backoff
from runway.controllers.sync import ClusterSync
from runway.errors import ClusterError, OutcomeUnknown, PublicError
from runway.kube.objects import Job
from runway.state.cluster_state import ClusterState
from runway.state.job_store import JobKey

log = structlog.get_logger()

RESOLVE_PAUSE_SECONDS: Final = 5.0
"""The longest pause between two reads that resolve an outcome; the shortest is half of it."""
ABSENCE_CONFIRMED_AFTER_SECONDS: Final = 65.0
"""Kubernetes must report "not found" for this long: the API server spends at most 60 s on a request
(`--request-timeout`), and this process's clock may be slightly fast."""


KeyLocks = WeakValueDictionary[JobKey, asyncio.Lock]
"""A lock per name, under which at most one create is in flight. It exists as long as a submission refers to it."""


@dataclass(slots=True)
class OutcomeResolver:
    """Resolves ambiguous creates. `close` cancels the background tasks."""

    _cluster: ClusterState
    _sync: ClusterSync
    _key_locks: KeyLocks
    _sleep: Callable[[float], Awaitable[None]]
    _jitter: Callable[[], float]
    unresolved: dict[JobKey, asyncio.Task[None]] = field(default_factory=dict)
    """The names that have a create without a known outcome, and the tasks that resolve them."""

    async def get_job(self, key: JobKey) -> Job | None:
        """Read the Job of this name; if there is none, count the pods of an earlier one. Raises OutcomeUnknown."""
        try:
            return await self._sync.refresh_job(key)
        except (ClusterError, PublicError) as error:
            raise OutcomeUnknown(
                f"{error}; the job may exist as {key.name}. Its quota stays reserved until that is known",
                extra={"id": key.name},
            ) from error

    async def read_back(self, tenant: str, key: JobKey) -> Job:
        """Read the Job of an ambiguous create, and end its reservation. Raises OutcomeUnknown if there is none yet."""
        try:
            job = await self.get_job(key)
        except BaseException:
            self.resolve_in_background(tenant, key)
            raise
        if job is None:
            # Kubernetes may still be working on the create that timed out, so "not found" proves nothing yet.
            self.resolve_in_background(tenant, key)
            raise OutcomeUnknown(
                "the create timed out, and it is not known yet whether the job will exist", extra={"id": key.name}
            )
        self.confirm_created(tenant, key, job)
        return job

    def confirm_created(self, tenant: str, key: JobKey, job: Job) -> None:
        """Store the Job, whose observed usage replaces the reservation.

        If the watch has reported its deletion already, the reservation stays: an unknown pod may still run.
        """
        self._cluster.apply_job(job)
        if self._is_stored(key):
            self._cluster.ledger.release(tenant, key.name)
        else:
            self.resolve_in_background(tenant, key)

    def confirm_not_created(self, tenant: str, key: JobKey) -> None:
        """End the reservation of a create that failed, unless an earlier create of the name is unresolved."""
        if key not in self.unresolved:
            self._cluster.ledger.release(tenant, key.name)

    def resolve_in_background(self, tenant: str, key: JobKey) -> None:
        """Start to resolve a create. Reads from before this create prove nothing, so an earlier task is cancelled."""
        if earlier := self.unresolved.get(key):
            earlier.cancel()
        task = self.unresolved[key] = asyncio.create_task(self._resolve(tenant, key))
        task.add_done_callback(lambda task: self._forget(key, task))

    async def close(self) -> None:
        """Cancel the background tasks; the next start lists the Jobs from Kubernetes."""
        tasks = list(self.unresolved.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _resolve(self, tenant: str, key: JobKey) -> None:
        """Read a Job until it exists, or is absent for so long that no create can still make it; then release."""
        backoff = Backoff(self._jitter, first=RESOLVE_PAUSE_SECONDS, longest=RESOLVE_PAUSE_SECONDS)
        absent_seconds = 0.0
        while absent_seconds < ABSENCE_CONFIRMED_AFTER_SECONDS and not self._is_stored(key):
            pause = backoff.next()
            await self._sleep(pause)
            try:
                job = await self._sync.refresh_job(key)
            except (ClusterError, PublicError) as error:
                log.warning("outcome still unknown", tenant=tenant, job_id=key.name, reason=str(error))
                continue
            except Exception:  # The end of this task would keep the reservation until the next start.
                log.exception("outcome still unknown", tenant=tenant, job_id=key.name)
                continue
            if job is None:
                absent_seconds += pause
        async with self._key_locks.setdefault(key, asyncio.Lock()):
            self._cluster.ledger.release(tenant, key.name)
        log.info("outcome resolved", tenant=tenant, job_id=key.name, exists=self._is_stored(key))

    def _is_stored(self, key: JobKey) -> bool:
        record = self._cluster.store.get(key)
        return record is not None and record.job is not None

    def _forget(self, key: JobKey, task: asyncio.Task[None]) -> None:
        if self.unresolved.get(key) is task:
            del self.unresolved[key]
