"""What Kubernetes says, by job: the Job and its pods as last seen. Rebuilt from a list at any time.

The store is fed by one reflector for Jobs and one for pods, and by the answers to Runway's own creates and patches, so
that a caller sees what it just did. The newer resource version wins, whichever way it came.

A list is taken in step by step, an object at each, so that whoever takes it in can let others work in between. Events
and answers may come between any two steps, but lists of one kind must come one after another.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

from msgspec.structs import replace

from runway.jobs.identity import ANNOTATION_SPEC
from runway.kube.interning import intern_object
from runway.kube.objects import LABEL_JOB_NAME, Job, Pod, merge_pod_status, resource_version_number
from runway.state.byte_budget import ByteBudget

MAX_SPEC_BYTES: Final = 96 << 20
"""Characters of the specifications that are cached, those of usual size left aside. Beyond that the oldest of the
namespace with most of them are no longer shown; Kubernetes has them until the Job's time to live ends."""
USUAL_SPEC: Final = 1024
"""Characters of a specification that is not worth the count."""
MAX_DELETED_PODS: Final = 16
"""Deleted pods remembered per job: a deadline or a drain deletes the pod, and with it the only trace of the attempt."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_Item = TypeVar("_Item")


class JobKey(NamedTuple):
    """A Job's place in the cluster."""

    namespace: str
    name: str


@dataclass(slots=True)
class JobEntry:
    """A Job, the pods it has, and those it had. `job` is None for pods whose Job is gone or not yet seen."""

    job: Job | None = None
    pods: dict[str, Pod] = field(default_factory=dict)
    deleted_pods: dict[str, Pod] = field(default_factory=dict)
    deleted_jobs: dict[str, Job] = field(default_factory=dict)
    """By uid, Jobs that were deleted before they had finished, and whose pods may not all be known yet."""

    def all_pods(self) -> list[Pod]:
        """Every pod known of, oldest first."""
        return sorted(
            [*self.deleted_pods.values(), *self.pods.values()], key=lambda pod: (_created(pod), pod.metadata.name)
        )


class JobStore:
    """Records by key. `changed` is called with the key after each change of a record, the last one included."""

    def __init__(self, changed: Callable[[JobKey], None], max_spec_bytes: int = MAX_SPEC_BYTES) -> None:
        self._changed = changed
        self._records: dict[JobKey, JobEntry] = {}
        self._order: list[tuple[datetime, JobKey]] = []
        self._jobs_through = 0
        self._jobs_listed, self._pods_listed = 0, 0
        """As of which version the newest list was that is in."""
        self._notes: list[set[str]] = []
        self._unconfirmed: dict[str, JobKey] = {}
        self._specs: ByteBudget[JobKey] = ByteBudget(max_spec_bytes)

    def get(self, key: JobKey) -> JobEntry | None:
        """The record of a job, or None where nothing of it is known."""
        return self._records.get(key)

    def newest_first(self, before: tuple[datetime, JobKey] | None = None) -> Iterator[tuple[datetime, JobKey]]:
        """Creation time and key of every Job, newest first, from after `before` on."""
        end = len(self._order) if before is None else bisect_left(self._order, before)
        return (self._order[index] for index in range(end - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._order)

    def upsert_job(self, job: Job) -> None:
        """Take in a Job as a watch or an answer shows it, unless something newer is known.

        An answer can be read after the watch has told of the Job's deletion: what is not known, and is no newer than
        the last deletion or list, is gone.
        """
        key = JobKey(job.metadata.namespace, job.metadata.name)
        record = self._records.get(key)
        known = record.job if record else None
        # A Job that Runway has just written comes a second time with the watch.
        if resource_version_number(job) > (self._jobs_through if known is None else resource_version_number(known)):
            self._store_job(key, intern_object(job))

    def _store_job(self, key: JobKey, job: Job) -> bool:
        record = self._records.setdefault(key, JobEntry())
        if record.job is not None and resource_version_number(job) <= resource_version_number(record.job):
            return False
        if record.job is None:
            insort(self._order, (_created(job), key))
        elif record.job.metadata.uid != job.metadata.uid:
            self._end_job(key, record, record.job)
            insort(self._order, (_created(job), key))
        elif _created(job) != _created(record.job):  # A creation time that could not be read, and was repaired.
            self._forget_order(key, record.job)
            insort(self._order, (_created(job), key))
        record.job = job
        self._changed(key)
        self._bound_specs(key, job)
        return True

    def _bound_specs(self, key: JobKey, job: Job) -> None:
        """Count the specification of a job, and drop what exceeds the bound.

        Without it the secrets of a job are not known, so no end of its log is shown or recorded from then on.
        """
        size = len(job.metadata.annotations.get(ANNOTATION_SPEC, ""))
        if size <= USUAL_SPEC:
            self._specs.discard(key.namespace, key)
            return
        self._specs.put(key.namespace, key, size)
        for _, excess in self._specs.excess():
            record = self._records.get(excess)
            if record is not None and record.job is not None:
                record.job = _without_spec(record.job)
                self._changed(excess)

    def delete_job(self, job: Job) -> None:
        """Take in that a Job was deleted."""
        self._jobs_through = max(self._jobs_through, resource_version_number(job))
        self._note_deleted(job)
        key = JobKey(job.metadata.namespace, job.metadata.name)
        record = self._records.get(key)
        if record is None or record.job is None or resource_version_number(job) < resource_version_number(record.job):
            return
        self._end_job(key, record, record.job)
        record.job = None
        self._drop_if_empty(key, record)

    def jobs_awaiting_pod_list(self) -> frozenset[str]:
        """The uids of Jobs that were deleted before they had finished, and whose pods may not all be known yet.

        Jobs and pods are told of by two watches, and one may be behind the other.
        """
        return frozenset(self._unconfirmed)

    def mark_pods_listed(self, uids: Iterable[str]) -> None:
        """Every pod of these deleted Jobs is known: all pods were listed after the deletion was."""
        for uid in uids:
            key = self._unconfirmed.pop(uid)
            record = self._records[key]
            del record.deleted_jobs[uid]
            self._drop_if_empty(key, record)

    def upsert_pod(self, pod: Pod) -> None:
        """Take in a pod as seen, unless a newer version of it is known."""
        self._store_pod(job_key_of(pod), intern_object(pod))

    def upsert_looked_up_pod(self, pod: Pod) -> None:
        """Take in a pod that was looked up: one that is not known, and is no newer than the last list, is gone."""
        key = job_key_of(pod)
        record = self._records.get(key)
        if (record is not None and pod.metadata.name in record.pods) or resource_version_number(
            pod
        ) > self._pods_listed:
            self._store_pod(key, intern_object(pod))

    def _store_pod(self, key: JobKey, pod: Pod) -> bool:
        record = self._records.setdefault(key, JobEntry())
        known = record.pods.get(pod.metadata.name)
        if known is not None and resource_version_number(pod) <= resource_version_number(known):
            return False
        record.pods[pod.metadata.name] = pod if known is None else merge_pod_status(pod, known)
        self._changed(key)
        return True

    def delete_pod(self, pod: Pod) -> None:
        """Take in that a pod was deleted. Its last status is remembered as long as its Job exists."""
        self._note_deleted(pod)
        key = job_key_of(pod)
        record = self._records.get(key)
        known = record.pods.pop(pod.metadata.name, None) if record else None
        if record is None or known is None:
            return
        if record.job is not None:
            record.deleted_pods[pod.metadata.name] = intern_object(merge_pod_status(pod, known))
            if len(record.deleted_pods) > MAX_DELETED_PODS:
                del record.deleted_pods[next(iter(record.deleted_pods))]
        self._drop_if_empty(key, record)

    @contextmanager
    def track_deletions(self) -> Iterator[set[str]]:
        """The uids of what is deleted meanwhile, so that a list which was taken before does not bring it back."""
        note: set[str] = set()
        self._notes.append(note)
        try:
            yield note
        finally:
            self._notes = [other for other in self._notes if other is not note]

    def replace_jobs(self, jobs: Iterable[Job], at: int, deleted: Set[str] = frozenset()) -> Iterator[int]:
        """Take in a list of all Jobs as of version `at`. Each step yields how many records it has corrected.

        `deleted` is what `noting_deletes` notes, looked at anew at each step: what came between two steps is heeded.

        - A listed Job is taken where it is newer than what is known at its step.
        - What may hold quota comes before what releases it, so between two steps never less is held than in the list.
        - Until all are taken, an answer older than the list is welcome: it may be of a Job whose step is to come, and
          its caller wants to see it. From then on it is turned away where its Job is not known, so that of what is not
          in the list nothing can come in any more but what is newer.
        - What is missing from the list is judged last, by what is known of it at its own step.
        - A list older than one that is in already is left out. It could bring back what is gone, of which nothing would
          tell again; whatever else it holds is known.
        """
        if at < self._jobs_listed:
            return
        listed: set[JobKey] = set()
        for job in _active_first(jobs, lambda job: job.finished):
            if job is None or job.metadata.uid in deleted:
                yield 0
                continue
            key = JobKey(job.metadata.namespace, job.metadata.name)
            listed.add(key)
            yield self._store_job(key, job)
        self._jobs_through = max(self._jobs_through, at)
        for key in tuple(self._records):
            record = self._records.get(key)
            known = record.job if record and key not in listed else None
            # A Job created while the list was under way is newer than the list, and not in it.
            missing = known is not None and resource_version_number(known) <= at
            if known is not None and missing:
                self.delete_job(known)
            yield missing
        self._jobs_listed = at

    def replace_pods(self, pods: Iterable[Pod], at: int, deleted: Set[str] = frozenset()) -> Iterator[int]:
        """Take in a list of all pods as of version `at`, as `replace_jobs` does with one of Jobs."""
        if at < self._pods_listed:
            return
        listed: set[tuple[JobKey, str]] = set()
        for pod in _active_first(pods, lambda pod: pod.is_terminal):
            if pod is None or pod.metadata.uid in deleted:
                yield 0
                continue
            key = job_key_of(pod)
            listed.add((key, pod.metadata.name))
            yield self._store_pod(key, pod)
        # From here on a pod that was looked up before the list, and is not in it, is turned away.
        self._pods_listed = at
        for key in tuple(self._records):
            record = self._records.get(key)
            known = record.pods.items() if record else ()
            missing = [pod for name, pod in known if (key, name) not in listed and resource_version_number(pod) <= at]
            for pod in missing:
                self.delete_pod(pod)
            yield len(missing)

    def _drop_if_empty(self, key: JobKey, record: JobEntry) -> None:
        if record.job is None and not record.pods and not record.deleted_jobs:
            del self._records[key]
        self._changed(key)

    def _note_deleted(self, item: Job | Pod) -> None:
        for note in self._notes:
            note.add(item.metadata.uid)

    def _end_job(self, key: JobKey, record: JobEntry, job: Job) -> None:
        """The Job of a record is no more, and with it what was remembered of pods that it had."""
        self._forget_order(key, job)
        self._specs.discard(key.namespace, key)
        record.deleted_pods.clear()
        if not job.finished:
            record.deleted_jobs[job.metadata.uid] = job
            self._unconfirmed[job.metadata.uid] = key

    def _forget_order(self, key: JobKey, job: Job) -> None:
        del self._order[bisect_left(self._order, (_created(job), key))]


def job_key_of(pod: Pod) -> JobKey:
    """The place of the Job that a pod belongs to; a pod of anything else stands under its own name."""
    return JobKey(pod.metadata.namespace, pod.metadata.labels.get(LABEL_JOB_NAME, pod.metadata.name))


def _active_first(items: Iterable[_Item], over: Callable[[_Item], bool]) -> Iterator[_Item | None]:
    """What is not over, then what is; None for a step at which something was only put off."""
    put_off: deque[_Item] = deque()
    for item in items:
        if over(item):
            put_off.append(item)
            yield None
        else:
            yield item
    yield from drain(put_off)


def drain(items: deque[_Item]) -> Iterator[_Item]:
    """Each item in turn, let go of when it is handed over: to free a long list all at once takes long."""
    while items:
        yield items.popleft()


def _without_spec(job: Job) -> Job:
    annotations = {name: text for name, text in job.metadata.annotations.items() if name != ANNOTATION_SPEC}
    return replace(job, metadata=replace(job.metadata, annotations=annotations))


def _created(item: Job | Pod) -> datetime:
    return item.metadata.creation_timestamp or _EPOCH
