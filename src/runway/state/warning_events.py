"""The warnings that Kubernetes has given about jobs: a small, bounded store of events.

Events are the only place where some refusals are told: a pod that a quota or Pod Security does not let be created, the
words of an image registry, a volume that cannot be mounted. They fade after an hour, and anyone may write any number
of them, so the cache is bounded in bytes, shared fairly between the namespaces, and only explanations depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from runway.kube.objects import Event, Job, Pod
from runway.state.byte_budget import ByteBudget
from runway.state.job_store import JobKey

MAX_BYTES: Final = 16 << 20
"""Bytes of all warnings, as they take memory; beyond that the oldest of the namespace with most of them go."""
BASE_BYTES: Final = 2048
"""Bytes that a warning takes besides its message."""
MAX_EVENTS_PER_OBJECT: Final = 8
MAX_EVENTS_PER_REASON: Final = 3
"""One reason can have several texts at once: `Failed` is the registry's words, and then what became of them."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _ObjectRef(NamedTuple):
    namespace: str
    kind: str
    name: str


class WarningEventCache:
    """Warnings by the object that they are about. Each change returns the jobs that it is news for."""

    def __init__(self, namespaces: Iterable[str], max_bytes: int = MAX_BYTES) -> None:
        self._namespaces = frozenset(namespaces)
        self._max_bytes = max_bytes
        self._places: dict[_ObjectRef, dict[str, Event]] = {}
        self._budget: ByteBudget[tuple[_ObjectRef, str]] = ByteBudget(max_bytes)
        """By namespace, every warning that is kept, the least recently reported first."""

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def for_job(self, job: Job, pods: Iterable[Pod]) -> tuple[Event, ...]:
        """The warnings about this Job and these pods, oldest first."""
        found = [*self._of("Job", job), *(event for pod in pods for event in self._of("Pod", pod))]
        return tuple(sorted(found, key=_when))

    def put(self, event: Event) -> JobKey | None:
        """Take in a warning, new or again; returns the job that it is about, if it is kept."""
        place = self._place(event)
        if place is None:
            return None
        known = self._places.setdefault(place, {})
        name = event.metadata.name
        known[name] = event
        self._budget.put(place.namespace, (place, name), _size(event))
        same = [other for other in known.values() if other.reason == event.reason]
        if len(same) > MAX_EVENTS_PER_REASON:
            self._forget(place, min(same, key=_when).metadata.name)
        if len(known) > MAX_EVENTS_PER_OBJECT:
            self._forget(place, min(known.values(), key=_when).metadata.name)
        for _, (excess, oldest) in self._budget.excess():
            self._forget(excess, oldest)
        return _job_of(place)

    def drop(self, event: Event) -> JobKey | None:
        """Take in that a warning has faded; returns the job that it was about, if it was kept."""
        place = self._place(event)
        if place is None or event.metadata.name not in self._places.get(place, {}):
            return None
        self._forget(place, event.metadata.name)
        return _job_of(place)

    def replace(self, events: Iterable[Event]) -> set[JobKey]:
        """Take in a list of all warnings; returns the jobs that it has news of."""
        before = self._places
        self._places, self._budget = {}, ByteBudget(self._max_bytes)
        for event in sorted(events, key=_when):
            self.put(event)
        places = before.keys() | self._places.keys()
        return {_job_of(place) for place in places if before.get(place) != self._places.get(place)}

    def _of(self, kind: str, item: Job | Pod) -> Iterable[Event]:
        known = self._places.get(_ObjectRef(item.metadata.namespace, kind, item.metadata.name), {})
        return (event for event in known.values() if event.involved_object.uid in ("", item.metadata.uid))

    def _place(self, event: Event) -> _ObjectRef | None:
        about = event.involved_object
        if about.kind not in ("Job", "Pod") or about.namespace not in self._namespaces or not about.name:
            return None
        if event.metadata.namespace != about.namespace:
            return None  # Who may create events in one namespace explains no job of another.
        return _ObjectRef(about.namespace, about.kind, about.name)

    def _forget(self, place: _ObjectRef, name: str) -> None:
        self._budget.discard(place.namespace, (place, name))
        del self._places[place][name]
        if not self._places[place]:
            del self._places[place]


def _job_of(place: _ObjectRef) -> JobKey:
    """The job that a warning is about. The Job controller names its pods after the Job: `<job>-<five letters>`.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#writing-a-job-spec
    """
    return JobKey(place.namespace, place.name if place.kind == "Job" else place.name.rpartition("-")[0])


def _size(event: Event) -> int:
    return BASE_BYTES + 4 * len(event.message or "")


def _when(event: Event) -> datetime:
    return event.last_seen or _EPOCH
