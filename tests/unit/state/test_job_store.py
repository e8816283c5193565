"""The job store keeps the newest version, in any order of events and responses."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from runway.jobs.annotations import ANNOTATION_RECORD, ANNOTATION_SPEC
from runway.kube.objects import Job, Pod
from runway.state.job_store import MAX_DELETED_PODS, MAX_SPEC_BYTES, JobKey, JobStore
from tests.support.builders import NAMESPACE, ended, job, moment, pod, running


class RecordingStore(JobStore):
    """A store that records the names of the jobs that its mutators return."""

    def __init__(self, max_spec_bytes: int = MAX_SPEC_BYTES) -> None:
        super().__init__(max_spec_bytes)
        self.changed: list[str] = []

    def _record(self, keys: list[JobKey]) -> list[JobKey]:
        self.changed += [key.name for key in keys]
        return keys

    def upsert_job(self, job: Job) -> list[JobKey]:
        return self._record(super().upsert_job(job)) + self._record(self.drop_excess_specs())

    def delete_job(self, job: Job) -> list[JobKey]:
        return self._record(super().delete_job(job))

    def upsert_pod(self, pod: Pod) -> list[JobKey]:
        return self._record(super().upsert_pod(pod))

    def delete_pod(self, pod: Pod) -> list[JobKey]:
        return self._record(super().delete_pod(pod))

    def mark_pods_listed(self, uids: Iterable[str]) -> list[JobKey]:
        return self._record(super().mark_pods_listed(uids))


class World:
    """A store, and short ways to read it."""

    def __init__(self, max_spec_bytes: int = MAX_SPEC_BYTES) -> None:
        self.store = RecordingStore(max_spec_bytes)

    @property
    def changed(self) -> list[str]:
        return self.store.changed

    def job(self, name: str = "a") -> Job | None:
        record = self.store.get(key(name))
        return record.job if record else None

    def version(self, name: str = "a") -> str | None:
        found = self.job(name)
        return found.metadata.resource_version if found else None

    def pods(self, name: str = "a") -> list[str]:
        record = self.store.get(key(name))
        return [item.metadata.name for item in record.all_pods()] if record else []

    def deleted_pods(self, name: str = "a") -> list[str]:
        record = self.store.get(key(name))
        return list(record.deleted_pods) if record else []

    def names(self) -> list[str]:
        return [found.name for _, found in self.store.newest_first()]


@pytest.fixture
def world() -> World:
    return World()


def test_only_the_same_version_of_the_same_readable_job_is_known() -> None:
    store, stored = JobStore(), job("a", version=5)
    assert not store.has_job_version(stored.metadata)
    store.upsert_job(stored)
    assert store.has_job_version(stored.metadata)
    others = (job("a", version=4), job("a", version=6), job("a", version=5, uid="another"), job("b", version=5))
    assert not any(store.has_job_version(other.metadata) for other in others)
    partly_read = replace(job("b", version=6).metadata, unreadable=("status",))
    store.upsert_job(replace(job("b", version=6), metadata=partly_read))
    assert not store.has_job_version(partly_read)
    store.delete_job(job("a", version=7))
    assert not store.has_job_version(stored.metadata)


def key(name: str) -> JobKey:
    return JobKey(NAMESPACE, name)


def of(name: str, pod_name: str, version: int = 1, created: float = 1) -> Pod:
    return pod(pod_name, of=name, version=version, created=created, state=running())


def test_new_job_is_stored_and_reported_as_changed(world: World) -> None:
    world.store.upsert_job(job("a", version=5))
    assert (world.version(), world.changed, len(world.store)) == ("5", ["a"], 1)
    assert world.store.get(key("b")) is None


@pytest.mark.parametrize(("seen", "kept"), [([5, 7], "7"), ([7, 5], "7"), ([5, 5], "5"), ([9, 10], "10")])
def test_newer_version_wins_in_any_order(world: World, seen: list[int], kept: str) -> None:
    for version in seen:
        world.store.upsert_job(job("a", version=version))
    assert world.version() == kept


def test_stale_event_changes_nothing(world: World) -> None:
    world.store.upsert_job(job("a", version=7))
    world.store.upsert_pod(of("a", "a-1", version=7))
    world.changed.clear()
    world.store.upsert_job(job("a", version=5, outcome="Complete"))
    world.store.upsert_pod(of("a", "a-1", version=5))
    world.store.delete_job(job("a", version=5))
    assert (world.version(), world.changed) == ("7", [])


def test_deleted_finished_job_without_pods_leaves_no_entry(world: World) -> None:
    world.store.upsert_job(job("a", version=5, outcome="Complete"))
    world.store.delete_job(job("a", version=6, outcome="Complete"))
    assert (world.store.get(key("a")), world.names(), world.changed) == (None, [], ["a", "a"])


def test_deleted_unfinished_job_counts_until_pods_are_listed(world: World) -> None:
    world.store.upsert_job(job("a", version=5, uid="first"))
    world.store.delete_job(job("a", version=6, uid="first"))
    assert (world.job(), world.names(), world.store.jobs_awaiting_pod_list()) == (None, [], frozenset({"first"}))
    record = world.store.get(key("a"))
    assert record is not None
    assert list(record.deleted_jobs) == ["first"]
    world.changed.clear()
    world.store.mark_pods_listed(world.store.jobs_awaiting_pod_list())
    assert (world.store.get(key("a")), world.store.jobs_awaiting_pod_list(), world.changed) == (
        None,
        frozenset(),
        ["a"],
    )


def test_pod_list_for_deleted_job_keeps_its_successor(world: World) -> None:
    world.store.upsert_job(job("a", version=5, uid="first"))
    world.store.upsert_job(job("a", version=9, uid="second"))
    assert world.store.jobs_awaiting_pod_list() == {"first"}
    world.store.mark_pods_listed({"first"})
    assert (world.version(), world.names()) == ("9", ["a"])


def test_deletion_of_unknown_object_is_ignored(world: World) -> None:
    world.store.delete_job(job("a"))
    world.store.delete_pod(of("a", "a-1"))
    assert len(world.store) == 0


def test_deletion_of_earlier_job_keeps_its_successor(world: World) -> None:
    world.store.upsert_job(job("a", uid="new", version=20))
    world.store.delete_job(job("a", uid="old", version=15))
    assert world.version() == "20"


def test_successor_replaces_job_after_missed_deletion(world: World) -> None:
    world.store.upsert_job(job("a", uid="old", version=5, created=1))
    world.store.upsert_pod(of("a", "a-1"))
    world.store.delete_pod(of("a", "a-1", version=2))
    world.store.upsert_job(job("b", version=6, created=2))
    world.store.upsert_job(job("a", uid="new", version=9, created=3))
    assert (world.names(), world.deleted_pods(), len(world.store)) == (["a", "b"], [], 2)


def test_response_after_deletion_does_not_resurrect_job(world: World) -> None:
    """A stale response would hold quota forever."""
    world.store.upsert_job(job("a", version=5))
    world.store.delete_job(job("a", version=7))
    world.store.upsert_job(job("a", version=6))
    assert world.job() is None


def test_response_older_than_list_does_not_resurrect_job(world: World) -> None:
    world.store.upsert_job(job("a", version=5))
    deque(world.store.replace_jobs([], version=10), maxlen=0)
    world.store.upsert_job(job("a", version=6))
    assert world.job() is None


def test_pods_of_deleted_job_stay_until_deleted(world: World) -> None:
    world.store.upsert_job(job("a", version=5))
    world.store.upsert_pod(of("a", "a-1"))
    world.store.delete_job(job("a", version=6))
    world.store.mark_pods_listed(world.store.jobs_awaiting_pod_list())
    assert (world.job(), world.pods(), world.names()) == (None, ["a-1"], [])
    world.store.delete_pod(of("a", "a-1", version=2))
    assert world.store.get(key("a")) is None


def test_pod_may_arrive_before_its_job(world: World) -> None:
    world.store.upsert_pod(of("a", "a-1"))
    assert (world.pods(), world.names()) == (["a-1"], [])
    world.store.upsert_job(job("a"))
    assert (world.pods(), world.names()) == (["a-1"], ["a"])


def test_deleted_pod_is_remembered_with_last_status(world: World) -> None:
    world.store.upsert_job(job("a"))
    world.store.upsert_pod(of("a", "a-1"))
    world.store.delete_pod(pod("a-1", of="a", version=2, state=ended(143), deleted=50))
    record = world.store.get(key("a"))
    assert record is not None
    assert (record.pods, list(record.deleted_pods)) == ({}, ["a-1"])
    assert record.deleted_pods["a-1"].is_terminal


def test_remembered_deleted_pods_are_bounded_to_the_latest(world: World) -> None:
    world.store.upsert_job(job("a"))
    for number in range(MAX_DELETED_PODS + 5):
        world.store.upsert_pod(of("a", f"a-{number}", created=number))
        world.store.delete_pod(of("a", f"a-{number}", version=2, created=number))
    assert world.deleted_pods() == [f"a-{number}" for number in range(5, MAX_DELETED_PODS + 5)]


def test_attempts_are_ordered_by_creation(world: World) -> None:
    world.store.upsert_job(job("a"))
    for name, created in (("z", 1), ("m", 2), ("b", 3), ("a", 3)):
        world.store.upsert_pod(of("a", name, created=created))
    world.store.delete_pod(of("a", "m", version=2, created=2))
    assert world.pods() == ["z", "m", "a", "b"]


def test_jobs_are_listed_newest_first_from_a_cursor(world: World) -> None:
    for name, created in (("b", 1), ("a", 3), ("d", 2), ("c", 2)):
        world.store.upsert_job(job(name, created=created))
    assert world.names() == ["a", "d", "c", "b"]
    cursor = (moment(2), key("d"))
    assert [found.name for _, found in world.store.newest_first(cursor)] == ["c", "b"]
    world.store.delete_job(job("d", version=2))
    assert [found.name for _, found in world.store.newest_first(cursor)] == ["c", "b"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.integers(0, 9), st.booleans()), max_size=40))
def test_jobs_of_a_namespace_are_those_of_the_whole_list(steps: list[tuple[str, bool, int, bool]]) -> None:
    store, namespaces = JobStore(), (NAMESPACE, "runway-speech")
    for version, (name, is_first, created, is_deleted) in enumerate(steps, start=1):
        changed = job(name, namespace=namespaces[is_first], uid=f"{name}-{created}", created=created, version=version)
        (store.delete_job if is_deleted else store.upsert_job)(changed)
        for namespace in namespaces:
            expected = [place for place in store.newest_first() if place[1].namespace == namespace]
            assert list(store.newest_first(namespace=namespace)) == expected
            assert list(store.newest_first(expected[0], namespace) if expected else ()) == expected[1:]


def test_stale_pod_lookup_does_not_resurrect_deleted_pod(world: World) -> None:
    deque(world.store.replace_pods([of("a", "stays", version=5)], version=10), maxlen=0)
    for name, version in (("gone", 9), ("stays", 6), ("new", 11)):
        world.store.upsert_looked_up_pod(of("a", name, version=version))
    record = world.store.get(key("a"))
    assert record is not None
    assert {name: pod.metadata.resource_version for name, pod in record.pods.items()} == {"stays": "6", "new": "11"}


def test_job_list_removes_absent_jobs_and_keeps_newer_ones(world: World) -> None:
    world.store.upsert_job(job("stays", version=5))
    world.store.upsert_job(job("deleted", version=10))
    world.store.upsert_job(job("created-since", version=11))
    corrected = sum(map(len, world.store.replace_jobs([job("stays", version=5), job("missed", version=8)], version=10)))
    assert sorted(world.names()) == ["created-since", "missed", "stays"]
    assert corrected == 2


def test_pod_list_removes_absent_pods_and_remembers_them(world: World) -> None:
    world.store.upsert_job(job("a"))
    for name, version in (("stays", 5), ("deleted", 10), ("created-since", 11)):
        world.store.upsert_pod(of("a", name, version=version))
    corrected = sum(
        map(len, world.store.replace_pods([of("a", "stays", version=5), of("a", "missed", version=8)], version=10))
    )
    record = world.store.get(key("a"))
    assert record is not None
    assert sorted(record.pods) == ["created-since", "missed", "stays"]
    assert list(record.deleted_pods) == ["deleted"]
    assert corrected == 2


@pytest.mark.parametrize(
    "relist", [lambda s: s.replace_jobs([job("a", version=5)], version=10), lambda s: s.replace_pods([], version=10)]
)
def test_list_of_known_objects_corrects_nothing(
    world: World, relist: Callable[[JobStore], Iterator[list[JobKey]]]
) -> None:
    world.store.upsert_job(job("a", version=5))
    assert [*chain(*relist(world.store))] == []


def test_list_older_than_known_version_corrects_nothing(world: World) -> None:
    """A response is often newer than a list in flight."""
    world.store.upsert_job(job("a", version=12))
    assert [*chain(*world.store.replace_jobs([job("a", version=9)], version=10))] == []
    assert world.version() == "12"


def test_same_name_in_two_namespaces_is_two_jobs(world: World) -> None:
    world.store.upsert_job(job("a", namespace="one"))
    world.store.upsert_job(job("a", namespace="two"))
    assert len(world.store) == 2


def test_pod_without_job_label_has_its_own_key(world: World) -> None:
    stray = pod("stray")
    stray.metadata.labels.clear()
    world.store.upsert_pod(stray)
    assert world.pods("stray") == ["stray"]


EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 4)), max_size=15)


@given(EVENTS)
def test_responses_later_than_watch_change_nothing(events: list[tuple[str, bool, int]]) -> None:
    """The watch reports each write in order; the response to its writer arrives some events later."""
    plain, noisy = World(), World()
    answers: list[tuple[int, Job]] = []
    lives = dict.fromkeys("abc", 0)
    for version, (name, deleted, late) in enumerate(events, start=1):
        found = job(name, version=version, uid=f"{name}-{lives[name]}", created=lives[name])
        for world in (plain, noisy):
            (world.store.delete_job if deleted else world.store.upsert_job)(found)
        if deleted:
            lives[name] += 1
        else:
            answers.append((version + late, found))
        for due, answer in answers:
            if due == version:
                noisy.store.upsert_job(answer)
    assert noisy.names() == plain.names()
    assert [noisy.version(name) for name in "abc"] == [plain.version(name) for name in "abc"]


LOST_WORDS = 'Error on reading termination message from logs: failed to try resolving symlinks in path "0.log"'


def test_termination_message_survives_log_removal(world: World) -> None:
    """The kubelet updates the status of a deleted pod again after it removed the log."""
    world.store.upsert_job(job("a"))
    world.store.upsert_pod(pod("a-1", of="a", version=2, state=ended(143, message="saved")))
    world.store.upsert_pod(pod("a-1", of="a", version=3, state=ended(143, message=LOST_WORDS)))
    world.store.delete_pod(pod("a-1", of="a", version=4, state=ended(143, message=LOST_WORDS)))
    record = world.store.get(key("a"))
    assert record is not None
    (last,) = record.all_pods()
    assert last.container.terminated is not None
    assert last.container.terminated.termination_message == "saved"


def test_kubelet_log_error_is_no_termination_message() -> None:
    found = pod(state=ended(143, message=LOST_WORDS)).container.terminated
    assert found is not None
    assert found.termination_message is None


def test_first_deletion_timestamp_survives_final_delete(world: World) -> None:
    """Recorded on Kubernetes 1.35.4: the final delete sets a new timestamp and a grace period of 0."""
    world.store.upsert_job(job("a"))
    world.store.upsert_pod(pod("a-1", of="a", version=2, state=running(), deleted=70, grace=10))
    last = pod("a-1", of="a", version=3, phase="Failed", state=ended(137, finished=70), deleted=73, grace=0)
    world.store.upsert_pod(last)
    world.store.delete_pod(last)
    record = world.store.get(key("a"))
    assert record is not None
    (kept,) = record.all_pods()
    assert (kept.metadata.deletion_timestamp, kept.metadata.deletion_grace_period_seconds) == (moment(70), 10)


def test_shorter_deletion_of_running_pod_is_stored(world: World) -> None:
    world.store.upsert_job(job("a"))
    world.store.upsert_pod(pod("a-1", of="a", version=2, state=running(), deleted=70, grace=10))
    world.store.upsert_pod(pod("a-1", of="a", version=3, state=running(), deleted=62, grace=0))
    record = world.store.get(key("a"))
    assert record is not None
    assert record.pods["a-1"].metadata.deletion_grace_period_seconds == 0


def test_specs_of_finished_jobs_are_bounded_fairly() -> None:
    world = World(max_spec_bytes=100_000)

    def finished(name: str, size: int, namespace: str = NAMESPACE) -> Job:
        notes = {ANNOTATION_SPEC: "s" * size, ANNOTATION_RECORD: "{}"}
        return job(name, uid=name, namespace=namespace, outcome="Complete", annotations=notes)

    def has_spec(name: str, namespace: str = NAMESPACE) -> bool:
        record = world.store.get(JobKey(namespace, name))
        return record is not None and record.job is not None and ANNOTATION_SPEC in record.job.metadata.annotations

    world.store.upsert_job(finished("small", 20_000, "runway-speech"))
    for number in range(20):
        world.store.upsert_job(finished(f"large-{number}", 20_000))
    assert has_spec("small", "runway-speech")
    assert [has_spec(f"large-{number}") for number in range(20)] == [False] * 16 + [True] * 4
    assert len(world.store) == 21
    assert world.changed.count("large-0") == 2


def test_specs_of_unfinished_jobs_are_bounded() -> None:
    store = RecordingStore(max_spec_bytes=50_000)
    for number in range(5):
        store.upsert_job(job(f"j{number}", annotations={ANNOTATION_SPEC: "s" * 20_000}))
    records = [store.get(key(f"j{number}")) for number in range(5)]
    known = [
        found is not None and found.job is not None and ANNOTATION_SPEC in found.job.metadata.annotations
        for found in records
    ]
    assert known == [False, False, False, True, True]


def test_repaired_creation_time_moves_job_in_order(world: World) -> None:
    world.store.upsert_job(job("a", version=1, created=50))
    world.store.upsert_job(job("b", version=2, created=100))
    world.store.upsert_job(job("a", version=3, created=200))
    assert world.names() == ["a", "b"]
    world.store.delete_job(job("a", version=4, created=200))
    assert world.names() == ["b"]
