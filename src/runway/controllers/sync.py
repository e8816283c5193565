"""The observe path: Kubernetes watch -> store -> ledger. Read it top to bottom.

1. One reflector for Jobs and one for pods list, then watch, everything in the tenants' namespaces, whoever made it.
2. Each snapshot replaces, and each change updates, the store. A snapshot is taken in by slices with requests answered
   in between, and counts as taken in once it is in as a whole.
3. Each changed record is booked in the ledger and counted by state, at once: quota is released by what is observed.
4. Runway is synced when both reflectors have brought their first snapshot, Jobs first and then pods.
5. When an unfinished Job was deleted, the pods are listed once more: one of its own may not have been told of yet, and
   until then the Job counts. Jobs first, then pods: so no pod is missed whose Job is gone already.
6. Every few minutes everything is listed once more beside the watch; what differs is corrected, and counted as drift.

What stands around the jobs, warnings and nodes, is watched apart (`flow/surroundings.py`): none of the above needs it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Set
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import structlog

from runway.admission.observed_usage import finished_at, observed_usage
from runway.admission.quota import ZERO, Amounts, Ledger
from runway.controllers.diagnostics_sync import DiagnosticsSync
from runway.errors import ClusterError, NotReady, PublicError
from runway.jobs.identity import LABEL_MANAGED_BY, MANAGED_BY
from runway.jobs.record import record_of
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.view import JobView, job_view
from runway.kube.api_types import Object
from runway.kube.backoff import Backoff
from runway.kube.client import JOBS, NODES, PODS, WARNINGS, KubeClient, Resource
from runway.kube.objects import Event, Job, Node, Pod
from runway.kube.reflector import Bookmark, Disconnected, Relisted, reflect
from runway.policy import Policy
from runway.state.job_stats import JobStats, job_stat
from runway.state.job_store import JobEntry, JobKey, JobStore, drain, job_key_of
from runway.state.subscriptions import Subscription, Subscriptions
from runway.state.undecodable_objects import UndecodableObjects
from runway.state.watch_status import WatchStatus
from runway.telemetry.metrics import Metrics

log = structlog.get_logger()

DRIFT_GRACE_SECONDS: Final = 5.0
"""How far a watch may lag behind a list before the difference counts as drift."""

OBJECTS_PER_SLICE: Final = 100
"""Steps of a list's take-in, some 4 ms of work, after which all others have a turn: an answer takes a few of them."""


class Observer:
    """Owns the store, the ledger and the two reflectors. `run` is the one task that feeds them."""

    def __init__(
        self,
        kubernetes: KubeClient,
        policy: Policy,
        metrics: Metrics,
        *,
        resync_seconds: float,
        slice_steps: int = OBJECTS_PER_SLICE,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._kubernetes = kubernetes
        self._tenants = {tenant.namespace: name for name, tenant in policy.tenants.items()}
        self._metrics = metrics
        self._resync_seconds = resync_seconds
        self._slice_steps = slice_steps
        self._turns = {kind.name: asyncio.Lock() for kind in (JOBS, PODS)}
        """Lists of a kind are taken in one after another: of two that mix, neither could say what is missing."""
        self._jobs_listed = asyncio.Event()
        self._first_lists = asyncio.Event()
        self._doubt = asyncio.Event()
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._jitter = jitter
        self._changes = Subscriptions()
        for kind in (JOBS, PODS):
            # From 0 on, or the first would not show as an increase.
            metrics.corrections.labels(kind.name)
            metrics.watch_losses.labels(kind.name)
        self.store = JobStore(self._changed)
        self.listeners: list[Callable[[JobKey], None]] = []
        """Each is called with a job after anything that is known of it has changed."""
        self.ledger = Ledger({name: tenant.quota for name, tenant in policy.tenants.items()})
        self.watches = {kind.name: WatchStatus(last_event_at=clock()) for kind in (JOBS, PODS)}
        self.tallies = JobStats(policy.tenants)
        self.broken: str | None = None
        self.undecodable = UndecodableObjects((kind.name for kind in (JOBS, PODS, WARNINGS, NODES)), self._tenants)
        self.surroundings = DiagnosticsSync(
            kubernetes, self._tenants, metrics, self._notify, self.undecodable, clock=clock, sleep=sleep, jitter=jitter
        )

    async def run(self) -> None:
        """Keep up with Kubernetes until cancelled. Should it ever fail, Runway is broken and says so."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._follow(JOBS, self._replace_jobs, self._change_job))
                tasks.create_task(self._follow(PODS, self._replace_pods, self._change_pod))
                tasks.create_task(self._relist_pods_of_deleted_jobs())
                tasks.create_task(self._resync())
                tasks.create_task(self.surroundings.run())
        except Exception as error:
            self.broken = f"the observe loop failed: {error!r}"
            log.critical("observe loop failed", exc_info=True)
            raise

    @property
    def synced(self) -> bool:
        """Whether everything was listed once, so that use can be told."""
        return all(watch.synced for watch in self.watches.values())

    def require_synced(self) -> None:
        """Raise NotReady until everything was listed once, and when the view of the cluster has stopped for good."""
        if self.broken:
            raise NotReady(self.broken, retry_after=30)
        if not self.synced:
            raise NotReady("the jobs in the cluster are still being listed")

    def age(self, watch: WatchStatus) -> float:
        """Seconds since a watch last heard from Kubernetes."""
        return max(0.0, self._clock() - watch.last_event_at)

    def lost_seconds(self, watch: WatchStatus) -> float:
        """For how many seconds a watch has been out of contact; 0 while it is not."""
        return 0.0 if watch.disconnected_at is None else self._clock() - watch.disconnected_at

    def subscribe(self, key: JobKey) -> AbstractContextManager[Subscription]:
        """A reader of this job's changes: look, wait, look again."""
        return self._changes.subscribe(key)

    @property
    def readers(self) -> int:
        """How many jobs have a reader of their changes."""
        return len(self._changes)

    def tenant_of(self, key: JobKey) -> str:
        """The tenant whose namespace this is."""
        return self._tenants[key.namespace]

    def view(self, key: JobKey) -> JobView | None:
        """The view of a job as it is known now; None where there is no such Job, or it is not one of Runway's."""
        case = self.snapshot(key)
        return None if case is None else job_view(case)

    def snapshot(self, key: JobKey) -> JobSnapshot | None:
        """Everything that is known of a job; None where there is no such Job, or it is not one of Runway's."""
        job = self.job(key)
        if job is None:
            return None
        pods, gone, around = tuple(self.attempts(key)), self.deleted_pods(key), self.surroundings
        events, nodes, room = around.events(job, pods), around.nodes.of(pods), around.free_capacity(pods)
        return JobSnapshot(self.tenant_of(key), job, pods, gone, events, nodes, room)

    def job(self, key: JobKey) -> Job | None:
        """The Job by this name, if it is one of Runway's: others count for quota, but are not shown as jobs."""
        record = self.store.get(key)
        job = record.job if record else None
        return job if job and job.metadata.labels.get(LABEL_MANAGED_BY) == MANAGED_BY else None

    def has_final_record(self, key: JobKey) -> bool:
        """Whether the record of a job that is over stands on its Job."""
        job = self.job(key)
        record = record_of(job) if job else None
        return record is not None and record.state is not None

    def attempts(self, key: JobKey) -> list[Pod]:
        """The pods of the Job by this name, those that are gone included, oldest first."""
        record = self.store.get(key)
        if record is None or record.job is None:
            return []
        return [pod for pod in record.all_pods() if pod.controller_uid == record.job.metadata.uid]

    def deleted_pods(self, key: JobKey) -> frozenset[str]:
        """The names of this job's pods that no longer exist."""
        record = self.store.get(key)
        return frozenset(record.deleted_pods) if record else frozenset()

    def created_since(self, tenant: str, moment: datetime) -> list[datetime]:
        """When a tenant's jobs were created that are younger than `moment`, oldest first."""
        found = []
        for created, key in self.store.newest_first():
            if created < moment:
                break
            if self.tenant_of(key) == tenant and self.job(key) is not None:
                found.append(created)
        return found[::-1]

    async def ensure_listed_since(self, moment: float) -> None:
        """Return once everything is known that was written before `moment`, listing it again where it must.

        Raises the errors of a call to Kubernetes.

        A list without a resource version is answered from etcd itself, so it holds everything that was written before.
        https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list
        """
        await self._first_lists.wait()
        if self.watches[JOBS.name].listed_at < moment:
            await self._relist(JOBS, self.store.replace_jobs, grace=0.0)
            moment = self._clock()
        if self.watches[PODS.name].listed_at < moment:
            await self._relist(PODS, self.store.replace_pods, grace=0.0)

    async def refresh_job(self, key: JobKey) -> Job | None:
        """Take in the Job of this name as Kubernetes has it now, or else the pods that an earlier one has left behind.

        Raises the errors of a call to Kubernetes.
        """
        job = await self._kubernetes.get_job(key.namespace, key.name)
        if job is not None:
            self.store.upsert_job(job)
            return job
        with self.store.track_deletions() as deleted:
            for pod in await self._kubernetes.list_pods_of_job(key.namespace, key.name):
                if pod.metadata.uid not in deleted:
                    self.store.upsert_looked_up_pod(pod)
        return None

    async def _relist_pods_of_deleted_jobs(self) -> None:
        """List all pods after an unfinished Job was deleted; only then is it known what it still holds."""
        backoff = Backoff(self._jitter)
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            await self._sleep(backoff.next())  # What is deleted together is confirmed by one list.
            deleted = self.store.jobs_awaiting_pod_list()
            if not deleted:
                continue
            try:
                await self._relist(PODS, self.store.replace_pods, grace=0.0)
            except (ClusterError, PublicError) as error:
                log.warning("pods of deleted jobs not listed yet", jobs=len(deleted), reason=str(error))
                self._doubt.set()
            else:
                self.store.mark_pods_listed(deleted)
                backoff.reset()

    async def _resync(self) -> None:
        while True:
            await self._sleep(self._resync_seconds * (0.9 + 0.2 * self._jitter()))
            if not self.synced or any(watch.disconnect_reason for watch in self.watches.values()):
                continue  # The reflectors are about to list by themselves.
            try:
                await self._relist(JOBS, self.store.replace_jobs, grace=DRIFT_GRACE_SECONDS)
                await self._relist(PODS, self.store.replace_pods, grace=DRIFT_GRACE_SECONDS)
            except (ClusterError, PublicError) as error:
                log.warning("resync failed", reason=str(error))

    async def _relist(
        self,
        kind: Resource[Object],
        replace: Callable[[Iterable[Object], int, Set[str]], Iterator[int]],
        grace: float,
    ) -> None:
        """List beside the watch, which has `grace` seconds to bring the same before a difference counts as drift."""
        asked = self._clock()
        with self.store.track_deletions() as deleted:
            listing = await self._kubernetes.list(kind)
            if grace:
                await self._sleep(grace)
            items, at = deque(listing.items), int(listing.metadata.resource_version)
            del listing
            ours = (item for item in drain(items) if self._in_tenant_namespace(item))
            corrected = await self._apply_list(kind, replace(ours, at, deleted), asked)
        if grace and corrected:
            self._metrics.corrections.labels(kind.name).inc(corrected)
            log.warning("drift corrected", kind=kind.name, records=corrected)

    async def _apply_list(self, kind: Resource[Object], steps: Iterator[int], asked: float) -> int:
        """Take in a list that was asked for at `asked`, by slices. Returns how many records it corrected."""
        corrected = 0
        async with self._turns[kind.name]:
            while taken := list(islice(steps, self._slice_steps)):
                corrected += sum(taken)
                await self._sleep(0)
        watch = self.watches[kind.name]
        watch.listed_at = max(watch.listed_at, asked)
        return corrected

    async def _follow(
        self,
        kind: Resource[Object],
        replace: Callable[[deque[Object], int], Iterator[int]],
        change: Callable[[str, Object], None],
    ) -> None:
        watch = self.watches[kind.name]
        if kind.name != JOBS.name:
            await self._jobs_listed.wait()
        async for news in reflect(self._kubernetes, kind, sleep=self._sleep, jitter=self._jitter, clock=self._clock):
            if isinstance(news, Disconnected):
                watch.mark_disconnected(news.reason, self._clock())
                self._metrics.watch_losses.labels(kind.name).inc()
                log.warning("watch lost", kind=kind.name, reason=news.reason)
                continue
            watch.last_event_at = self._clock()
            if isinstance(news, Relisted):
                # Nothing of this kind is told meanwhile: the watch goes on from the list when it is in.
                objects = len(news.items)
                self.undecodable.replace(kind.name, news.items)
                changed = await self._apply_list(kind, replace(news.items, news.version), news.asked)
                watch.synced = True
                self._jobs_listed.set()
                if self.synced:
                    self._first_lists.set()
                log.info("listed", kind=kind.name, objects=objects, changed=changed, version=news.version)
            elif not isinstance(news, Bookmark):
                self.undecodable.change(kind.name, news.object, deleted=news.type == "DELETED")
                change(news.type, news.object)
            watch.mark_connected()

    def _in_tenant_namespace(self, item: Job | Pod | Event | Node) -> bool:
        """Whether an object is in a tenant's namespace: labels can be copied, a namespace cannot be claimed."""
        return item.metadata.namespace in self._tenants

    def _replace_jobs(self, jobs: deque[Job], at: int) -> Iterator[int]:
        return self.store.replace_jobs(filter(self._in_tenant_namespace, drain(jobs)), at)

    def _replace_pods(self, pods: deque[Pod], at: int) -> Iterator[int]:
        yield from (0 for _ in self.surroundings.nodes.replace_pods((pod, self._key_of(pod)) for pod in pods))
        yield from self.store.replace_pods(filter(self._in_tenant_namespace, drain(pods)), at)

    def _change_job(self, type_: str, job: Job) -> None:
        if self._in_tenant_namespace(job):
            (self.store.delete_job if type_ == "DELETED" else self.store.upsert_job)(job)

    def _change_pod(self, type_: str, pod: Pod) -> None:
        if type_ == "DELETED":
            self.surroundings.nodes.delete_pod(pod)
        else:
            self.surroundings.nodes.upsert_pod(pod, self._key_of(pod))
        if self._in_tenant_namespace(pod):
            (self.store.delete_pod if type_ == "DELETED" else self.store.upsert_pod)(pod)

    def _key_of(self, pod: Pod) -> JobKey | None:
        return job_key_of(pod) if self._in_tenant_namespace(pod) else None

    def _changed(self, key: JobKey) -> None:
        record = self.store.get(key) or JobEntry()
        tenant = self.tenant_of(key)
        booking = observed_usage(record.job, record.pods.values(), record.deleted_jobs.values())
        held = self.ledger.observed(tenant, key.name)
        self.ledger.set_observed(tenant, key.name, booking)
        if held != ZERO and self.ledger.observed(tenant, key.name) == ZERO:
            self._released(key)
        if record.deleted_jobs:
            self._doubt.set()
        job = self.job(key)
        self.tallies.put(tenant, key, job_stat(job, self.attempts(key), self.deleted_pods(key)) if job else None)
        self._notify(key)

    def _released(self, key: JobKey) -> None:
        """Time the release of a job's quota. What the first lists show is no news: it may have ended long ago."""
        job = self.job(key)
        if not self.synced or job is None or (ended := finished_at(job, self.attempts(key))) is None:
            return
        # Clocks differ, and a time may lie a moment ahead of this process's own.
        self._metrics.quota_release_seconds.observe(max(0.0, (self._now() - ended).total_seconds()))

    def _notify(self, key: JobKey) -> None:
        """The one place where it is told that what is known of a job has changed."""
        self._changes.notify(key)
        for listener in self.listeners:
            listener(key)


def amounts_by_resource(amounts: Amounts) -> dict[str, float]:
    """Amounts in the units of the metrics: GPUs, CPUs, bytes, jobs."""
    return {"gpu": amounts.gpu, "cpu": amounts.cpu / 1000, "memory": amounts.memory, "jobs": amounts.jobs}
