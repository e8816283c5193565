"""The sync path: list and watch the cluster, and keep the cluster state current.

1. `_sync_jobs` and `_sync_pods` list, then watch, every Job and pod in the tenants' namespaces.
2. Each list replaces, and each event updates, the store. A list is applied in slices (docs/decisions/006-relist.md).
3. `ClusterState.refresh` then updates observed usage, statistics and subscribers of each changed job.
4. Runway is synced when the first lists are applied: Jobs first, then pods.
5. After an unfinished Job is deleted, pods are listed again: the watch may not have reported one of its pods yet. Until
   then the Job counts. Jobs are read first, so no pod of a deleted Job is missed.
6. Every few minutes everything is listed again beside the watches; differences are corrected and counted as drift.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Set
from itertools import islice
from typing import Final

import structlog

from runway.backoff import Backoff, Timing
from runway.errors import ClusterError, PublicError
from runway.kube.client import EVENTS, JOBS, NODES, PODS, KubeClient, Resource
from runway.kube.decode import IsKnown
from runway.kube.objects import Event, Job, Metadata, Node, Object, Pod, WatchEvent, resource_version_number
from runway.kube.reflector import MAX_BACKOFF_SECONDS, Bookmark, Disconnected, Relisted, reflect
from runway.state.cluster_state import ClusterState, WatchStatus
from runway.state.job_store import JobKey, drain, job_key_of
from runway.telemetry import Metrics

log = structlog.get_logger()

DRIFT_GRACE_SECONDS: Final = 5.0
"""The lag of a watch behind a list beyond which a difference is drift."""
OBJECTS_PER_SLICE: Final = 100
"""Steps of a list that are applied between two turns of the event loop: about 4 ms of work."""
MAX_DIAGNOSTIC_BACKOFF_SECONDS: Final = 60.0
"""Longer than for Jobs and pods, because quota does not depend on events and nodes."""


class ClusterSync:
    """Feeds the Jobs and pods of the cluster state. `run` is its only task."""

    def __init__(
        self,
        kubernetes: KubeClient,
        cluster: ClusterState,
        metrics: Metrics,
        timing: Timing,
        *,
        resync_seconds: float,
        slice_steps: int = OBJECTS_PER_SLICE,
    ) -> None:
        self._kubernetes = kubernetes
        self._cluster = cluster
        self._metrics = metrics
        self._resync_seconds = resync_seconds
        self._slice_steps = slice_steps
        self._timing = timing
        self._relist_locks = {kind.name: asyncio.Lock() for kind in (JOBS, PODS)}
        """Lists of a kind never overlap: neither of two mixed lists could prove an object missing."""
        self._jobs_listed = asyncio.Event()
        self._pods_listed = asyncio.Event()
        for kind in cluster.watches:
            # From 0 on: the first one shows as an increase.
            metrics.corrections.labels(kind)
            metrics.watch_losses.labels(kind)

    async def run(self) -> None:
        """Sync until cancelled. A defect marks the cluster state as failed."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sync_jobs())
                tasks.create_task(self._sync_pods())
                tasks.create_task(self._relist_pods_of_deleted_jobs())
                tasks.create_task(self._resync())
        except Exception as error:
            self._cluster.failure = f"the sync loop failed: {error!r}"
            self._metrics.internal_errors.inc()
            log.critical("sync loop failed", exc_info=True)
            raise

    async def _sync_jobs(self) -> None:
        store = self._cluster.store
        async for update in self._follow(JOBS, self._is_known_job):
            if isinstance(update, Relisted):
                jobs = self._in_tenant_namespaces(update.items)
                await self._apply_relist(JOBS, update, store.replace_jobs(jobs, update.version))
                self._jobs_listed.set()
            elif self._is_in_tenant_namespace(update.object):
                is_deleted = update.type == "DELETED"
                changed = store.delete_job(update.object) if is_deleted else store.upsert_job(update.object)
                self._cluster.refresh(changed)

    def _is_known_job(self, metadata: Metadata) -> bool:
        """Return whether the response to one of Runway's own calls already had this version, and all of it was read."""
        undecodable = self._cluster.watches[JOBS.name].undecodable
        is_readable = (metadata.namespace, metadata.name) not in undecodable
        return is_readable and self._cluster.store.has_job_version(metadata)

    async def _sync_pods(self) -> None:
        await self._jobs_listed.wait()
        nodes, store = self._cluster.nodes, self._cluster.store
        async for update in self._follow(PODS):
            if isinstance(update, Relisted):
                await self._apply_relist(PODS, update, self._replace_pods(update.items, update.version))
                self._pods_listed.set()
                continue
            pod = update.object
            is_deleted, is_tenants = update.type == "DELETED", self._is_in_tenant_namespace(pod)
            if is_deleted:
                nodes.delete_pod(pod.metadata.uid)
            else:
                nodes.upsert_pod(pod, job_key_of(pod) if is_tenants else None)
            if is_tenants and is_deleted:
                self._cluster.refresh(store.delete_pod(pod))
            elif is_tenants:
                self._cluster.apply_pod_event(pod)

    def _replace_pods(self, pods: deque[Pod], version: int) -> Iterator[list[JobKey]]:
        with_keys = ((pod, job_key_of(pod) if self._is_in_tenant_namespace(pod) else None) for pod in pods)
        for _ in self._cluster.nodes.replace_pods(with_keys):
            yield []
        yield from self._cluster.store.replace_pods(self._in_tenant_namespaces(pods), version)

    def _follow(
        self, kind: Resource[Object], is_known: IsKnown = lambda _: False
    ) -> AsyncGenerator[Relisted[Object] | WatchEvent[Object], None]:
        watch = self._cluster.watches[kind.name]
        return _follow(self._kubernetes, kind, watch, self._metrics, self._timing, is_known=is_known)

    async def _apply_relist(
        self, kind: Resource[Object], update: Relisted[Object], steps: Iterator[list[JobKey]]
    ) -> None:
        objects = len(update.items)  # The steps drain the list.
        changed = await self._apply_list(kind, steps, update.requested_at)
        log.info("listed", kind=kind.name, objects=objects, changed=changed, version=update.version)

    async def _apply_list(self, kind: Resource[Object], steps: Iterator[list[JobKey]], requested_at: float) -> int:
        """Apply a list in slices; return the number of corrected objects."""
        corrected = 0
        async with self._relist_locks[kind.name]:
            while applied := list(islice(steps, self._slice_steps)):
                changed = [key for keys in applied for key in keys]
                self._cluster.refresh(changed)
                corrected += len(changed)
                await self._timing.sleep(0)
        watch = self._cluster.watches[kind.name]
        watch.listed_at = max(watch.listed_at, requested_at)
        return corrected

    async def ensure_listed_since(self, moment: float) -> None:
        """Return once everything written before `moment` is known; list again if necessary.

        Raises the errors of a call to Kubernetes.

        A list without a resource version reads from etcd, so it contains everything written before.
        https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list
        """
        await self._pods_listed.wait()
        if self._cluster.watches[JOBS.name].listed_at < moment:
            await self._relist(JOBS, self._cluster.store.replace_jobs)
            moment = self._timing.clock()
        if self._cluster.watches[PODS.name].listed_at < moment:
            await self._relist(PODS, self._cluster.store.replace_pods)

    async def refresh_job(self, key: JobKey) -> Job | None:
        """Get and store the Job of this name; without one, list and store the pods that an earlier Job left.

        Raises the errors of a call to Kubernetes.
        """
        job = await self._kubernetes.get_job(key.namespace, key.name)
        if job is not None:
            self._cluster.apply_job(job)
            return job
        store = self._cluster.store
        with store.track_deletions() as deleted:
            for pod in await self._kubernetes.list_pods_of_job(key.namespace, key.name):
                if pod.metadata.uid not in deleted:
                    self._cluster.refresh(store.upsert_looked_up_pod(pod))
        return None

    async def _relist_pods_of_deleted_jobs(self) -> None:
        """List all pods after an unfinished Job was deleted: only then the usage of its pods is known."""
        backoff = Backoff(self._timing.jitter)
        while True:
            await self._cluster.pod_list_needed.wait()
            self._cluster.pod_list_needed.clear()
            await self._timing.sleep(backoff.next())  # One list covers all Jobs that are deleted together.
            deleted = self._cluster.store.jobs_awaiting_pod_list()
            if not deleted:
                continue
            try:
                await self._relist(PODS, self._cluster.store.replace_pods)
            except (ClusterError, PublicError) as error:
                log.warning("pods of deleted jobs not listed yet", jobs=len(deleted), reason=str(error))
                self._cluster.pod_list_needed.set()
            else:
                self._cluster.refresh(self._cluster.store.mark_pods_listed(deleted))
                backoff.reset()

    async def _resync(self) -> None:
        while True:
            await self._timing.sleep(self._resync_seconds * (0.9 + 0.2 * self._timing.jitter()))
            if not self._cluster.synced or any(watch.disconnect_reason for watch in self._cluster.watches.values()):
                continue  # The reflectors list again anyway.
            try:
                await self._relist(JOBS, self._cluster.store.replace_jobs, DRIFT_GRACE_SECONDS)
                await self._relist(PODS, self._cluster.store.replace_pods, DRIFT_GRACE_SECONDS)
            except (ClusterError, PublicError) as error:
                log.warning("resync failed", reason=str(error))

    async def _relist(
        self,
        kind: Resource[Object],
        replace: Callable[[Iterable[Object], int, Set[str]], Iterator[list[JobKey]]],
        grace_seconds: float = 0.0,
    ) -> None:
        """List beside the watch. The watch has `grace_seconds` to report the same before a difference is drift."""
        requested_at = self._timing.clock()
        with self._cluster.store.track_deletions() as deleted:
            found = await self._kubernetes.list(kind)
            if grace_seconds:
                await self._timing.sleep(grace_seconds)
            items, version = deque(found.items), int(found.metadata.resource_version)
            del found
            steps = replace(self._in_tenant_namespaces(items), version, deleted)
            corrected = await self._apply_list(kind, steps, requested_at)
        if grace_seconds and corrected:
            self._metrics.corrections.labels(kind.name).inc(corrected)
            log.warning("drift corrected", kind=kind.name, records=corrected)

    def _in_tenant_namespaces(self, items: deque[Object]) -> Iterator[Object]:
        return filter(self._is_in_tenant_namespace, drain(items))

    def _is_in_tenant_namespace(self, item: Job | Pod | Event | Node) -> bool:
        return item.metadata.namespace in self._cluster.tenants


class DiagnosticsSync:
    """Feeds the warnings and nodes of the cluster state. `run` is its only task.

    Quota, readiness and job states never depend on these watches. A failure, such as missing RBAC, is retried with
    back-off, and only makes explanations less precise.
    """

    def __init__(self, kubernetes: KubeClient, cluster: ClusterState, metrics: Metrics, timing: Timing) -> None:
        self._kubernetes = kubernetes
        self._cluster = cluster
        self._metrics = metrics
        self._timing = timing
        for kind in cluster.diagnostic_watches:
            metrics.watch_losses.labels(kind)  # From 0 on: the first loss shows as an increase.

    async def run(self) -> None:
        """Watch until cancelled. After a defect both watches count as lost: nothing updates what they reported."""
        warnings, nodes = self._cluster.warnings, self._cluster.nodes
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._sync(EVENTS, warnings.replace, warnings.upsert, warnings.delete))
                tasks.create_task(self._sync(NODES, nodes.replace_nodes, nodes.upsert_node, nodes.delete_node))
        except Exception:
            for watch in self._cluster.diagnostic_watches.values():
                watch.mark_disconnected("a defect ended the watch", self._timing.clock())
            raise

    async def _sync(
        self,
        kind: Resource[Object],
        replace: Callable[[Iterable[Object]], Collection[JobKey]],
        upsert: Callable[[Object], Collection[JobKey]],
        delete: Callable[[Object], Collection[JobKey]],
    ) -> None:
        watch = self._cluster.diagnostic_watches[kind.name]
        longest = MAX_DIAGNOSTIC_BACKOFF_SECONDS
        async for update in _follow(self._kubernetes, kind, watch, self._metrics, self._timing, longest):
            if isinstance(update, Relisted):
                changed = replace(update.items)
            else:
                changed = delete(update.object) if update.type == "DELETED" else upsert(update.object)
            self._cluster.notify(changed)


async def _follow(
    kubernetes: KubeClient,
    kind: Resource[Object],
    watch: WatchStatus,
    metrics: Metrics,
    timing: Timing,
    max_backoff_seconds: float = MAX_BACKOFF_SECONDS,
    is_known: IsKnown = lambda _: False,
) -> AsyncGenerator[Relisted[Object] | WatchEvent[Object], None]:
    """Yield every list and every event of a kind, forever.

    `watch` counts as synced and connected only after the consumer has applied the list.
    """
    async for update in reflect(kubernetes, kind, timing, max_backoff_seconds, is_known):
        if isinstance(update, Disconnected):
            if watch.disconnect_reason != update.reason:
                log.warning("watch lost", kind=kind.name, reason=update.reason)
            watch.mark_disconnected(update.reason, timing.clock())
            metrics.watch_losses.labels(kind.name).inc()
            continue
        watch.last_event_at = timing.clock()
        if isinstance(update, Relisted):
            watch.replace_undecodable(update.items)
            yield update
            watch.synced = True
            watch.continuous_since = timing.clock()
            watch.version = update.version
        elif isinstance(update, Bookmark):
            watch.version = max(watch.version, update.version)
        else:
            watch.update_undecodable(update.object, deleted=update.type == "DELETED")
            yield update
            watch.version = max(watch.version, resource_version_number(update.object))
        if watch.disconnect_reason is not None:
            log.info("watch restored", kind=kind.name)
        watch.mark_connected()
