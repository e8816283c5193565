"""Store the Jobs and pods that Kubernetes reported, by job.

The newer resource version wins, whatever its source. Every mutator returns the keys of the jobs that it changed.

`replace_jobs` and `replace_pods` apply a list one object per step. Events and responses may arrive between two steps;
two lists of one kind must not overlap. docs/decisions/006-relist.md explains the order of the steps.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from runway.fair_share import FairBudget
from runway.jobs.annotations import ANNOTATION_SPEC
from runway.kube.objects import LABEL_JOB_NAME, Job, Metadata, Pod, merge_pod_status, resource_version_number

MAX_SPEC_BYTES: Final = 96 << 20
"""Characters of all cached large specs. Beyond it, the oldest specs of the largest namespace leave the memory."""
USUAL_SPEC: Final = 1024
"""Characters of a spec that does not count against `MAX_SPEC_BYTES`."""
MAX_DELETED_PODS: Final = 16
"""Deleted pods remembered per job: a deadline or a drain deletes the pod, the only trace of the attempt."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
"""Shared by the entries without deletions, which are most."""
_Item = TypeVar("_Item")


class JobKey(NamedTuple):
    """The namespace and name of a Job."""

    namespace: str
    name: str


@dataclass(slots=True)
class JobEntry:
    """A Job with its pods. `job` is None while only pods of this name are known."""

    job: Job | None = None
    pods: dict[str, Pod] = field(default_factory=dict)
    deleted_pods: Mapping[str, Pod] = field(default_factory=lambda: _NOTHING)
    deletions_seen: Mapping[str, datetime] = field(default_factory=lambda: _NOTHING)
    """When the deletions were observed, in whole seconds as Kubernetes dates them."""
    deleted_jobs: Mapping[str, Job] = field(default_factory=lambda: _NOTHING)
    """Jobs by uid that were deleted unfinished, and of which a pod may be unknown."""

    def all_pods(self) -> list[Pod]:
        """Return every known pod, oldest first."""
        if not self.pods and not self.deleted_pods:
            return []
        pods = [*self.deleted_pods.values(), *self.pods.values()]
        return sorted(pods, key=lambda pod: (_created(pod), pod.metadata.name))


class JobStore:
    def __init__(
        self, max_spec_bytes: int = MAX_SPEC_BYTES, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._now = now
        self._entries: dict[JobKey, JobEntry] = {}
        self.get = self._entries.get
        self._order: list[tuple[datetime, JobKey]] = []
        self._order_in: dict[str, list[tuple[datetime, JobKey]]] = {}
        """The same for each namespace, so that the list of one does not depend on the jobs of others."""
        self._jobs_through = 0
        """The resource version of the last deletion or list of Jobs."""
        self._jobs_listed, self._pods_listed = 0, 0
        """The resource versions of the newest applied lists."""
        self._trackers: list[set[str]] = []
        self._awaiting_pod_list: dict[str, JobKey] = {}
        self._specs: FairBudget[JobKey] = FairBudget(max_spec_bytes)

    def newest_first(
        self, before: tuple[datetime, JobKey] | None = None, namespace: str | None = None
    ) -> Iterator[tuple[datetime, JobKey]]:
        """Yield creation time and key of every Job, or those of a namespace, newest first, starting after `before`."""
        order = self._order if namespace is None else self._order_in.get(namespace, [])
        end = len(order) if before is None else bisect_left(order, before)
        return (order[index] for index in range(end - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._order)

    def has_job_version(self, metadata: Metadata) -> bool:
        """Return whether this version of a Job is stored, and every field of it was readable."""
        entry = self._entries.get(JobKey(metadata.namespace, metadata.name))
        if entry is None or entry.job is None or entry.job.metadata.unreadable:
            return False
        known = entry.job.metadata
        return (known.uid, known.resource_version) == (metadata.uid, metadata.resource_version)

    def upsert_job(self, job: Job) -> list[JobKey]:
        """Store a Job of an event or a response, unless a newer version is known.

        Ignore an unknown Job that is no newer than the last deletion or list: the watch has reported its deletion.
        """
        entry = self._entries.get(JobKey(job.metadata.namespace, job.metadata.name))
        if (entry is None or entry.job is None) and resource_version_number(job) <= self._jobs_through:
            return []
        return self._store_job(job)

    def _store_job(self, job: Job) -> list[JobKey]:
        key = JobKey(job.metadata.namespace, job.metadata.name)
        entry = self._entries.setdefault(key, JobEntry())
        known = entry.job
        if known is not None and resource_version_number(job) <= resource_version_number(known):
            return []
        if known is None:
            self._add_to_order(key, job)
        elif known.metadata.uid != job.metadata.uid:
            self._end_job(key, entry, known)
            self._add_to_order(key, job)
        elif _created(job) != _created(known):  # An unreadable creation time was repaired.
            self._remove_from_order(key, known)
            self._add_to_order(key, job)
        entry.job = job
        spec_size = len(job.metadata.annotations.get(ANNOTATION_SPEC, ""))
        if spec_size > USUAL_SPEC:
            self._specs.put(key.namespace, key, spec_size)
        else:
            self._specs.discard(key.namespace, key)
        return [key]

    def drop_excess_specs(self) -> list[JobKey]:
        """Drop the specs that exceed the bound. Without its spec no part of a job's log is shown or recorded."""
        changed = []
        for _, key in self._specs.excess():
            entry = self._entries.get(key)
            if entry is not None and entry.job is not None:
                metadata = entry.job.metadata
                annotations = {name: text for name, text in metadata.annotations.items() if name != ANNOTATION_SPEC}
                entry.job = replace(entry.job, metadata=replace(metadata, annotations=annotations))
                changed.append(key)
        return changed

    def delete_job(self, job: Job) -> list[JobKey]:
        self._jobs_through = max(self._jobs_through, resource_version_number(job))
        for tracker in self._trackers:
            tracker.add(job.metadata.uid)
        key = JobKey(job.metadata.namespace, job.metadata.name)
        entry = self._entries.get(key)
        if entry is None or entry.job is None or resource_version_number(job) < resource_version_number(entry.job):
            return []
        self._end_job(key, entry, entry.job)
        entry.job = None
        self._drop_if_empty(key, entry)
        return [key]

    def jobs_awaiting_pod_list(self) -> frozenset[str]:
        """Return the uids of Jobs that were deleted unfinished, and of which the watch may not have reported a pod."""
        return frozenset(self._awaiting_pod_list)

    def mark_pods_listed(self, uids: Iterable[str]) -> list[JobKey]:
        """Forget these deleted Jobs: a list of all pods, requested after their deletion, is applied."""
        changed = []
        for uid in uids:
            key = self._awaiting_pod_list.pop(uid)
            entry = self._entries[key]
            entry.deleted_jobs = {other: job for other, job in entry.deleted_jobs.items() if other != uid}
            self._drop_if_empty(key, entry)
            changed.append(key)
        return changed

    def upsert_pod(self, pod: Pod) -> list[JobKey]:
        """Store a pod, unless a newer version is known."""
        key = job_key_of(pod)
        entry = self._entries.setdefault(key, JobEntry())
        known = entry.pods.get(pod.metadata.name)
        if known is not None and resource_version_number(pod) <= resource_version_number(known):
            return []
        entry.pods[pod.metadata.name] = pod if known is None else merge_pod_status(pod, known)
        return [key]

    def upsert_looked_up_pod(self, pod: Pod) -> list[JobKey]:
        """Store a pod of a lookup; ignore an unknown one that is no newer than the last list, because it is deleted."""
        entry = self._entries.get(job_key_of(pod))
        is_known = entry is not None and pod.metadata.name in entry.pods
        return self.upsert_pod(pod) if is_known or resource_version_number(pod) > self._pods_listed else []

    def delete_pod(self, pod: Pod) -> list[JobKey]:
        """Remove a pod that was deleted, and remember its last status as long as its Job exists."""
        for tracker in self._trackers:
            tracker.add(pod.metadata.uid)
        key = job_key_of(pod)
        entry = self._entries.get(key)
        known = entry.pods.pop(pod.metadata.name, None) if entry else None
        if entry is None or known is None:
            return []
        if entry.job is not None:
            name, seen = pod.metadata.name, self._now().replace(microsecond=0)
            entry.deleted_pods = _newest({**entry.deleted_pods, name: merge_pod_status(pod, known)})
            entry.deletions_seen = _newest({**entry.deletions_seen, name: seen})
        self._drop_if_empty(key, entry)
        return [key]

    @contextmanager
    def track_deletions(self) -> Iterator[set[str]]:
        """Collect the uids of deleted objects, so that a list or lookup in flight does not bring them back."""
        tracker: set[str] = set()
        self._trackers.append(tracker)
        try:
            yield tracker
        finally:
            self._trackers = [other for other in self._trackers if other is not tracker]

    def replace_jobs(
        self, jobs: Iterable[Job], version: int, deleted: Set[str] = frozenset()
    ) -> Iterator[list[JobKey]]:
        """Apply a list of all Jobs as of a resource version; yield the corrected jobs of each step.

        Each step reads `deleted`, the set of `track_deletions`, to respect deletions during the relist.
        """
        if version < self._jobs_listed:
            return
        listed: set[JobKey] = set()
        for job in _active_first(jobs, lambda job: job.finished):
            if job is None or job.metadata.uid in deleted:
                yield []
                continue
            listed.add(JobKey(job.metadata.namespace, job.metadata.name))
            yield self._store_job(job)
        self._jobs_through = max(self._jobs_through, version)
        for key in tuple(self._entries):
            entry = None if key in listed else self._entries.get(key)
            known = entry.job if entry else None
            # A Job created during the list call is newer than the list, and not in it.
            yield self.delete_job(known) if known and resource_version_number(known) <= version else []
        self._jobs_listed = version

    def replace_pods(
        self, pods: Iterable[Pod], version: int, deleted: Set[str] = frozenset()
    ) -> Iterator[list[JobKey]]:
        """Apply a list of all pods as of a resource version, as `replace_jobs` does; a key per corrected pod."""
        if version < self._pods_listed:
            return
        listed: set[tuple[JobKey, str]] = set()
        for pod in _active_first(pods, lambda pod: pod.is_terminal):
            if pod is None or pod.metadata.uid in deleted:
                yield []
                continue
            listed.add((job_key_of(pod), pod.metadata.name))
            yield self.upsert_pod(pod)
        # From here on `upsert_looked_up_pod` ignores a pod that is older than the list and not in it.
        self._pods_listed = version
        for key in tuple(self._entries):
            entry = self._entries.get(key)
            known = entry.pods.items() if entry else ()
            missing = [
                pod for name, pod in known if (key, name) not in listed and resource_version_number(pod) <= version
            ]
            yield [changed for pod in missing for changed in self.delete_pod(pod)]

    def _drop_if_empty(self, key: JobKey, entry: JobEntry) -> None:
        if entry.job is None and not entry.pods and not entry.deleted_jobs:
            del self._entries[key]

    def _end_job(self, key: JobKey, entry: JobEntry, job: Job) -> None:
        self._remove_from_order(key, job)
        self._specs.discard(key.namespace, key)
        entry.deleted_pods = entry.deletions_seen = _NOTHING
        if not job.finished:
            entry.deleted_jobs = {**entry.deleted_jobs, job.metadata.uid: job}
            self._awaiting_pod_list[job.metadata.uid] = key

    def _add_to_order(self, key: JobKey, job: Job) -> None:
        place = (_created(job), key)
        for order in (self._order, self._order_in.setdefault(key.namespace, [])):
            insort(order, place)

    def _remove_from_order(self, key: JobKey, job: Job) -> None:
        for order in (self._order, self._order_in[key.namespace]):
            del order[bisect_left(order, (_created(job), key))]


def job_key_of(pod: Pod) -> JobKey:
    """Return the key of the Job that a pod belongs to; a pod without a Job has a key of its own name."""
    return JobKey(pod.metadata.namespace, pod.metadata.labels.get(LABEL_JOB_NAME, pod.metadata.name))


def _active_first(items: Iterable[_Item], is_finished: Callable[[_Item], bool]) -> Iterator[_Item | None]:
    """Yield unfinished items, then finished ones; None for each step that only defers an item."""
    deferred: deque[_Item] = deque()
    for item in items:
        if is_finished(item):
            deferred.append(item)
            yield None
        else:
            yield item
    yield from drain(deferred)


def drain(items: deque[_Item]) -> Iterator[_Item]:
    """Pop each item: freeing a long list at once blocks the event loop."""
    while items:
        yield items.popleft()


def _newest(items: dict[str, _Item]) -> dict[str, _Item]:
    """Return the last `MAX_DELETED_PODS` items."""
    return dict(islice(items.items(), max(0, len(items) - MAX_DELETED_PODS), None))


def _created(item: Job | Pod) -> datetime:
    return item.metadata.creation_timestamp or _EPOCH
