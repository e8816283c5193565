"""Cache the warnings about Jobs and pods, and the events of autoscalers, in bounded memory.

Only events report some rejections, such as an image pull error, and that an autoscaler starts a node. Anyone can create
any number of them, so the cache is bounded in bytes, shared fairly between the namespaces, and used for explanations
only.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final, NamedTuple

from runway.fair_share import FairBudget
from runway.jobs.diagnosis.scaling import AUTOSCALER_REASONS
from runway.kube.objects import Event, Job, Pod
from runway.state.job_store import JobKey

MAX_BYTES: Final = 16 << 20
"""Memory of all warnings. Beyond it the oldest warnings of the largest namespace are dropped."""
BASE_BYTES: Final = 2048
"""Memory of a warning besides its message."""
MAX_EVENTS_PER_OBJECT: Final = 8
MAX_EVENTS_PER_REASON: Final = 3
"""One reason can have several texts: `Failed` is the registry's error, then the kubelet's."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class _ObjectRef(NamedTuple):
    namespace: str
    kind: str
    name: str


class WarningEventCache:
    """Warnings by the object that they concern. Each mutator returns the keys of the jobs that it changed."""

    def __init__(self, namespaces: Iterable[str], max_bytes: int = MAX_BYTES) -> None:
        self._namespaces = frozenset(namespaces)
        self._max_bytes = max_bytes
        self._by_object: dict[_ObjectRef, dict[str, Event]] = {}
        self._budget: FairBudget[tuple[_ObjectRef, str]] = FairBudget(max_bytes)

    def __len__(self) -> int:
        return sum(map(len, self._by_object.values()))

    def for_job(self, job: Job, pods: Iterable[Pod]) -> tuple[Event, ...]:
        """Return the warnings about this Job and these pods, oldest first."""
        found = [*self._of("Job", job), *(event for pod in pods for event in self._of("Pod", pod))]
        return tuple(sorted(found, key=_last_seen))

    def upsert(self, event: Event) -> list[JobKey]:
        ref = self._ref(event)
        if ref is None or not (event.is_warning or event.reason in AUTOSCALER_REASONS):
            return []
        known = self._by_object.setdefault(ref, {})
        name = event.metadata.name
        known[name] = event
        self._budget.put(ref.namespace, (ref, name), BASE_BYTES + 4 * len(event.message or ""))
        same_reason = [other for other in known.values() if other.reason == event.reason]
        if len(same_reason) > MAX_EVENTS_PER_REASON:
            self._remove(ref, min(same_reason, key=_last_seen).metadata.name)
        if len(known) > MAX_EVENTS_PER_OBJECT:
            self._remove(ref, min(known.values(), key=_last_seen).metadata.name)
        for _, (excess, oldest) in self._budget.excess():
            self._remove(excess, oldest)
        return [_job_key_of(ref)]

    def delete(self, event: Event) -> list[JobKey]:
        ref = self._ref(event)
        if ref is None or event.metadata.name not in self._by_object.get(ref, {}):
            return []
        self._remove(ref, event.metadata.name)
        return [_job_key_of(ref)]

    def replace(self, events: Iterable[Event]) -> set[JobKey]:
        before = self._by_object
        self._by_object, self._budget = {}, FairBudget(self._max_bytes)
        for event in sorted(events, key=_last_seen):
            self.upsert(event)
        refs = before.keys() | self._by_object.keys()
        return {_job_key_of(ref) for ref in refs if before.get(ref) != self._by_object.get(ref)}

    def _of(self, kind: str, item: Job | Pod) -> Iterable[Event]:
        known = self._by_object.get(_ObjectRef(item.metadata.namespace, kind, item.metadata.name), {})
        return (event for event in known.values() if event.involved_object.uid in ("", item.metadata.uid))

    def _ref(self, event: Event) -> _ObjectRef | None:
        about = event.involved_object
        if about.kind not in ("Job", "Pod") or about.namespace not in self._namespaces or not about.name:
            return None
        if event.metadata.namespace != about.namespace:
            return None  # The right to create events in one namespace gives none over jobs of another.
        return _ObjectRef(about.namespace, about.kind, about.name)

    def _remove(self, ref: _ObjectRef, name: str) -> None:
        self._budget.discard(ref.namespace, (ref, name))
        del self._by_object[ref][name]
        if not self._by_object[ref]:
            del self._by_object[ref]


def _job_key_of(ref: _ObjectRef) -> JobKey:
    """Return the job that a warning concerns. The Job controller names a pod `<job>-<five letters>`."""
    return JobKey(ref.namespace, ref.name if ref.kind == "Job" else ref.name.rpartition("-")[0])


def _last_seen(event: Event) -> datetime:
    return event.last_seen or _EPOCH
