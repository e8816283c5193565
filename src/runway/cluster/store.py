"""What Kubernetes says, by job: the Job and its pods as last seen. Rebuilt from a list at any time.

The store is fed by one reflector for Jobs and one for pods, and by the answers to Runway's own creates and patches, so
that a caller sees what it just did. The newer resource version wins, whichever way it came.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from runway.objects import LABEL_JOB_NAME, Job, Pod, keeping, version

MAX_GONE: Final = 16
"""Deleted pods remembered per job: a deadline or a drain deletes the pod, and with it the only trace of the attempt."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Key(NamedTuple):
    """A Job's place in the cluster."""

    namespace: str
    name: str


@dataclass(slots=True)
class Record:
    """A Job, the pods it has, and those it had. `job` is None for pods whose Job is gone or not yet seen."""

    job: Job | None = None
    pods: dict[str, Pod] = field(default_factory=dict)
    gone: dict[str, Pod] = field(default_factory=dict)
    deleted_jobs: dict[str, Job] = field(default_factory=dict)
    """By uid, Jobs that were deleted before they had finished, and whose pods may not all be known yet."""

    def all_pods(self) -> list[Pod]:
        """Every pod known of, oldest first."""
        return sorted([*self.gone.values(), *self.pods.values()], key=lambda pod: (_created(pod), pod.metadata.name))


class Store:
    """Records by key. `changed` is called with the key after each change of a record, the last one included."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._records: dict[Key, Record] = {}
        self._order: list[tuple[datetime, Key]] = []
        self._jobs_through = 0
        self._notes: list[set[str]] = []
        self._unconfirmed: dict[str, Key] = {}

    def get(self, key: Key) -> Record | None:
        """The record of a job, or None where nothing of it is known."""
        return self._records.get(key)

    def newest_first(self, before: tuple[datetime, Key] | None = None) -> Iterator[tuple[datetime, Key]]:
        """Creation time and key of every Job, newest first, from after `before` on."""
        end = len(self._order) if before is None else bisect_left(self._order, before)
        return (self._order[index] for index in range(end - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._order)

    def put_job(self, job: Job) -> None:
        """Take in a Job as a watch or an answer shows it, unless something newer is known.

        An answer can be read after the watch has told of the Job's deletion: what is not known, and is no newer than
        the last deletion or list, is gone.
        """
        key = Key(job.metadata.namespace, job.metadata.name)
        record = self._records.get(key)
        if (record is None or record.job is None) and version(job) <= self._jobs_through:
            return
        self._take_job(key, job)

    def _take_job(self, key: Key, job: Job) -> None:
        record = self._records.setdefault(key, Record())
        if record.job is not None and version(job) <= version(record.job):
            return  # A Job that Runway has just written comes a second time with the watch.
        if record.job is None:
            insort(self._order, (_created(job), key))
        elif record.job.metadata.uid != job.metadata.uid:
            self._end_job(key, record, record.job)
            insort(self._order, (_created(job), key))
        record.job = job
        self._changed(key)

    def drop_job(self, job: Job) -> None:
        """Take in that a Job was deleted."""
        self._jobs_through = max(self._jobs_through, version(job))
        self._note_deleted(job)
        key = Key(job.metadata.namespace, job.metadata.name)
        record = self._records.get(key)
        if record is None or record.job is None or version(job) < version(record.job):
            return
        self._end_job(key, record, record.job)
        record.job = None
        self._settle(key, record)

    def unconfirmed(self) -> frozenset[str]:
        """The uids of Jobs that were deleted before they had finished, and whose pods may not all be known yet.

        Jobs and pods are told of by two watches, and one may be behind the other.
        """
        return frozenset(self._unconfirmed)

    def confirm(self, uids: Iterable[str]) -> None:
        """Every pod of these deleted Jobs is known: all pods were listed after the deletion was."""
        for uid in uids:
            key = self._unconfirmed.pop(uid)
            record = self._records[key]
            del record.deleted_jobs[uid]
            self._settle(key, record)

    def put_pod(self, pod: Pod) -> None:
        """Take in a pod as seen, unless a newer version of it is known."""
        key = owner_of(pod)
        record = self._records.setdefault(key, Record())
        known = record.pods.get(pod.metadata.name)
        if known is not None and version(pod) <= version(known):
            return
        record.pods[pod.metadata.name] = pod if known is None else keeping(pod, known)
        self._changed(key)

    def drop_pod(self, pod: Pod) -> None:
        """Take in that a pod was deleted. Its last status is remembered as long as its Job exists."""
        self._note_deleted(pod)
        key = owner_of(pod)
        record = self._records.get(key)
        known = record.pods.pop(pod.metadata.name, None) if record else None
        if record is None or known is None:
            return
        if record.job is not None:
            record.gone[pod.metadata.name] = keeping(pod, known)
            if len(record.gone) > MAX_GONE:
                del record.gone[next(iter(record.gone))]
        self._settle(key, record)

    @contextmanager
    def noting_deletes(self) -> Iterator[set[str]]:
        """The uids of what is deleted meanwhile, so that a list which was taken before does not bring it back."""
        note: set[str] = set()
        self._notes.append(note)
        try:
            yield note
        finally:
            self._notes = [other for other in self._notes if other is not note]

    def replace_jobs(self, jobs: Iterable[Job], at: int) -> int:
        """Take in a list of all Jobs as of version `at`. Returns how many records it corrected."""
        before = {key: version(record.job) for key, record in self._records.items() if record.job}
        listed = {Key(job.metadata.namespace, job.metadata.name): job for job in jobs}
        corrected = sum(before.get(key, -1) < version(job) for key, job in listed.items())
        for key, job in listed.items():
            self._take_job(key, job)
        for key in before.keys() - listed.keys():
            known = self._records[key].job
            # A Job created while the list was under way is newer than the list, and not in it.
            if known is not None and version(known) <= at:
                self.drop_job(known)
                corrected += 1
        self._jobs_through = max(self._jobs_through, at)
        return corrected

    def replace_pods(self, pods: Iterable[Pod], at: int) -> int:
        """Take in a list of all pods as of version `at`. Returns how many records it corrected."""
        before = {(key, name): pod for key, record in self._records.items() for name, pod in record.pods.items()}
        listed = {(owner_of(pod), pod.metadata.name): pod for pod in pods}
        corrected = sum(place not in before or version(before[place]) < version(pod) for place, pod in listed.items())
        for pod in listed.values():
            self.put_pod(pod)
        for place in before.keys() - listed.keys():
            if version(before[place]) <= at:
                self.drop_pod(before[place])
                corrected += 1
        return corrected

    def _settle(self, key: Key, record: Record) -> None:
        if record.job is None and not record.pods and not record.deleted_jobs:
            del self._records[key]
        self._changed(key)

    def _note_deleted(self, item: Job | Pod) -> None:
        for note in self._notes:
            note.add(item.metadata.uid)

    def _end_job(self, key: Key, record: Record, job: Job) -> None:
        """The Job of a record is no more, and with it what was remembered of pods that it had."""
        self._forget_order(key, job)
        record.gone.clear()
        if not job.finished:
            record.deleted_jobs[job.metadata.uid] = job
            self._unconfirmed[job.metadata.uid] = key

    def _forget_order(self, key: Key, job: Job) -> None:
        del self._order[bisect_left(self._order, (_created(job), key))]


def owner_of(pod: Pod) -> Key:
    """The place of the Job that a pod belongs to; a pod of anything else stands under its own name."""
    return Key(pod.metadata.namespace, pod.metadata.labels.get(LABEL_JOB_NAME, pod.metadata.name))


def _created(item: Job | Pod) -> datetime:
    return item.metadata.creation_timestamp or _EPOCH
