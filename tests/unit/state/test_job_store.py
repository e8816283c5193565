"""The store: whatever order news comes in, it ends with what Kubernetes said last."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.identity import ANNOTATION_RECORD, ANNOTATION_SPEC
from runway.kube.objects import Job, Pod
from runway.state.job_store import MAX_DELETED_PODS, JobKey, JobStore
from tests.support.builders import NAMESPACE, ended, job, moment, pod, running


class Watched:
    """A store and the keys it said had changed."""

    def __init__(self) -> None:
        self.changed: list[str] = []
        self.store = JobStore(lambda key: self.changed.append(key.name))

    def job(self, name: str = "a") -> Job | None:
        record = self.store.get(key(name))
        return record.job if record else None

    def version(self, name: str = "a") -> str | None:
        found = self.job(name)
        return found.metadata.resource_version if found else None

    def pods(self, name: str = "a") -> list[str]:
        record = self.store.get(key(name))
        return [item.metadata.name for item in record.all_pods()] if record else []

    def gone(self, name: str = "a") -> list[str]:
        record = self.store.get(key(name))
        return list(record.deleted_pods) if record else []

    def names(self) -> list[str]:
        return [found.name for _, found in self.store.newest_first()]


@pytest.fixture
def watched() -> Watched:
    return Watched()


def key(name: str) -> JobKey:
    return JobKey(NAMESPACE, name)


def of(name: str, pod_name: str, version: int = 1, created: float = 1) -> Pod:
    return pod(pod_name, of=name, version=version, created=created, state=running())


def test_a_job_is_kept_and_its_change_told(watched: Watched) -> None:
    watched.store.upsert_job(job("a", version=5))
    assert (watched.version(), watched.changed, len(watched.store)) == ("5", ["a"], 1)
    assert watched.store.get(key("b")) is None


@pytest.mark.parametrize(("seen", "kept"), [([5, 7], "7"), ([7, 5], "7"), ([5, 5], "5"), ([9, 10], "10")])
def test_the_newer_version_wins_whichever_comes_first(watched: Watched, seen: list[int], kept: str) -> None:
    for version in seen:
        watched.store.upsert_job(job("a", version=version))
    assert watched.version() == kept


def test_stale_news_changes_nothing_and_is_not_told(watched: Watched) -> None:
    watched.store.upsert_job(job("a", version=7))
    watched.store.upsert_pod(of("a", "a-1", version=7))
    watched.changed.clear()
    watched.store.upsert_job(job("a", version=5, verdict="Complete"))
    watched.store.upsert_pod(of("a", "a-1", version=5))
    watched.store.delete_job(job("a", version=5))
    assert (watched.version(), watched.changed) == ("7", [])


def test_a_finished_job_that_is_deleted_without_pods_leaves_nothing(watched: Watched) -> None:
    watched.store.upsert_job(job("a", version=5, verdict="Complete"))
    watched.store.delete_job(job("a", version=6, verdict="Complete"))
    assert (watched.store.get(key("a")), watched.names(), watched.changed) == (None, [], ["a", "a"])


def test_an_unfinished_job_that_is_deleted_is_kept_until_its_pods_are_known(watched: Watched) -> None:
    watched.store.upsert_job(job("a", version=5, uid="first"))
    watched.store.delete_job(job("a", version=6, uid="first"))
    assert (watched.job(), watched.names(), watched.store.jobs_awaiting_pod_list()) == (None, [], frozenset({"first"}))
    record = watched.store.get(key("a"))
    assert record is not None
    assert list(record.deleted_jobs) == ["first"]
    watched.changed.clear()
    watched.store.mark_pods_listed(watched.store.jobs_awaiting_pod_list())
    assert (watched.store.get(key("a")), watched.store.jobs_awaiting_pod_list(), watched.changed) == (
        None,
        frozenset(),
        ["a"],
    )


def test_what_is_confirmed_of_a_job_leaves_its_successor(watched: Watched) -> None:
    watched.store.upsert_job(job("a", version=5, uid="first"))
    watched.store.upsert_job(job("a", version=9, uid="second"))
    assert watched.store.jobs_awaiting_pod_list() == {"first"}
    watched.store.mark_pods_listed({"first"})
    assert (watched.version(), watched.names()) == ("9", ["a"])


def test_what_was_never_seen_can_be_dropped(watched: Watched) -> None:
    watched.store.delete_job(job("a"))
    watched.store.delete_pod(of("a", "a-1"))
    assert len(watched.store) == 0


def test_the_deletion_of_an_earlier_job_does_not_take_its_successor(watched: Watched) -> None:
    watched.store.upsert_job(job("a", uid="new", version=20))
    watched.store.delete_job(job("a", uid="old", version=15))
    assert watched.version() == "20"


def test_a_successor_replaces_a_job_whose_deletion_was_missed(watched: Watched) -> None:
    watched.store.upsert_job(job("a", uid="old", version=5, created=1))
    watched.store.upsert_pod(of("a", "a-1"))
    watched.store.delete_pod(of("a", "a-1", version=2))
    watched.store.upsert_job(job("b", version=6, created=2))
    watched.store.upsert_job(job("a", uid="new", version=9, created=3))
    assert (watched.names(), watched.gone(), len(watched.store)) == (["a", "b"], [], 2)


def test_an_answer_that_comes_after_the_deletion_does_not_bring_a_job_back(watched: Watched) -> None:
    """The answer to a patch can be read after the watch has told of a later deletion; quota would be held for ever."""
    watched.store.upsert_job(job("a", version=5))
    watched.store.delete_job(job("a", version=7))
    watched.store.upsert_job(job("a", version=6))
    assert watched.job() is None


def test_an_answer_older_than_a_list_that_lacks_the_job_does_not_bring_it_back(watched: Watched) -> None:
    watched.store.upsert_job(job("a", version=5))
    sum(watched.store.replace_jobs([], at=10))
    watched.store.upsert_job(job("a", version=6))
    assert watched.job() is None


def test_pods_outlive_their_job_until_they_are_deleted(watched: Watched) -> None:
    watched.store.upsert_job(job("a", version=5))
    watched.store.upsert_pod(of("a", "a-1"))
    watched.store.delete_job(job("a", version=6))
    watched.store.mark_pods_listed(watched.store.jobs_awaiting_pod_list())
    assert (watched.job(), watched.pods(), watched.names()) == (None, ["a-1"], [])
    watched.store.delete_pod(of("a", "a-1", version=2))
    assert watched.store.get(key("a")) is None


def test_pods_may_come_before_their_job(watched: Watched) -> None:
    watched.store.upsert_pod(of("a", "a-1"))
    assert (watched.pods(), watched.names()) == (["a-1"], [])
    watched.store.upsert_job(job("a"))
    assert (watched.pods(), watched.names()) == (["a-1"], ["a"])


def test_a_deleted_pod_is_remembered_with_its_last_status(watched: Watched) -> None:
    watched.store.upsert_job(job("a"))
    watched.store.upsert_pod(of("a", "a-1"))
    watched.store.delete_pod(pod("a-1", of="a", version=2, state=ended(143), deleted=50))
    record = watched.store.get(key("a"))
    assert record is not None
    assert (record.pods, list(record.deleted_pods)) == ({}, ["a-1"])
    assert record.deleted_pods["a-1"].is_terminal


def test_the_pods_remembered_are_bounded_and_the_latest_stay(watched: Watched) -> None:
    watched.store.upsert_job(job("a"))
    for number in range(MAX_DELETED_PODS + 5):
        watched.store.upsert_pod(of("a", f"a-{number}", created=number))
        watched.store.delete_pod(of("a", f"a-{number}", version=2, created=number))
    assert watched.gone() == [f"a-{number}" for number in range(5, MAX_DELETED_PODS + 5)]


def test_attempts_are_in_the_order_they_were_created(watched: Watched) -> None:
    watched.store.upsert_job(job("a"))
    for name, created in (("z", 1), ("m", 2), ("b", 3), ("a", 3)):
        watched.store.upsert_pod(of("a", name, created=created))
    watched.store.delete_pod(of("a", "m", version=2, created=2))
    assert watched.pods() == ["z", "m", "a", "b"]


def test_jobs_come_newest_first_and_a_cursor_goes_on_from_there(watched: Watched) -> None:
    for name, created in (("b", 1), ("a", 3), ("d", 2), ("c", 2)):
        watched.store.upsert_job(job(name, created=created))
    assert watched.names() == ["a", "d", "c", "b"]
    cursor = (moment(2), key("d"))
    assert [found.name for _, found in watched.store.newest_first(cursor)] == ["c", "b"]
    watched.store.delete_job(job("d", version=2))
    assert [found.name for _, found in watched.store.newest_first(cursor)] == ["c", "b"]


def test_a_pod_that_was_looked_up_before_a_list_that_lacks_it_is_gone(watched: Watched) -> None:
    sum(watched.store.replace_pods([of("a", "stays", version=5)], at=10))
    for name, version in (("gone", 9), ("stays", 6), ("new", 11)):
        watched.store.upsert_looked_up_pod(of("a", name, version=version))
    record = watched.store.get(key("a"))
    assert record is not None
    assert {name: pod.metadata.resource_version for name, pod in record.pods.items()} == {"stays": "6", "new": "11"}


def test_a_list_drops_what_is_absent_and_keeps_what_is_newer_than_itself(watched: Watched) -> None:
    watched.store.upsert_job(job("stays", version=5))
    watched.store.upsert_job(job("deleted", version=10))
    watched.store.upsert_job(job("created-since", version=11))
    corrected = sum(watched.store.replace_jobs([job("stays", version=5), job("missed", version=8)], at=10))
    assert sorted(watched.names()) == ["created-since", "missed", "stays"]
    assert corrected == 2


def test_a_list_of_pods_does_the_same_and_remembers_the_dropped(watched: Watched) -> None:
    watched.store.upsert_job(job("a"))
    for name, version in (("stays", 5), ("deleted", 10), ("created-since", 11)):
        watched.store.upsert_pod(of("a", name, version=version))
    corrected = sum(watched.store.replace_pods([of("a", "stays", version=5), of("a", "missed", version=8)], at=10))
    record = watched.store.get(key("a"))
    assert record is not None
    assert sorted(record.pods) == ["created-since", "missed", "stays"]
    assert list(record.deleted_pods) == ["deleted"]
    assert corrected == 2


@pytest.mark.parametrize(
    "relist", [lambda s: s.replace_jobs([job("a", version=5)], at=10), lambda s: s.replace_pods([], at=10)]
)
def test_a_list_that_says_what_is_known_corrects_nothing(
    watched: Watched, relist: Callable[[JobStore], Iterator[int]]
) -> None:
    watched.store.upsert_job(job("a", version=5))
    assert sum(relist(watched.store)) == 0


def test_a_list_older_than_what_is_known_corrects_nothing(watched: Watched) -> None:
    """The answer to a create or a patch is often newer than a list that was under way."""
    watched.store.upsert_job(job("a", version=12))
    assert sum(watched.store.replace_jobs([job("a", version=9)], at=10)) == 0
    assert watched.version() == "12"


def test_objects_of_one_name_in_two_namespaces_are_two(watched: Watched) -> None:
    watched.store.upsert_job(job("a", namespace="one"))
    watched.store.upsert_job(job("a", namespace="two"))
    assert len(watched.store) == 2


def test_a_pod_without_the_label_stands_for_itself(watched: Watched) -> None:
    stray = pod("stray")
    stray.metadata.labels.clear()
    watched.store.upsert_pod(stray)
    assert watched.pods("stray") == ["stray"]


EVENTS = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(0, 4)), max_size=15)


@given(EVENTS)
def test_answers_that_come_later_than_the_watch_change_nothing(events: list[tuple[str, bool, int]]) -> None:
    """Each write is told by the watch, in order, and by the answer to its writer, so many events later."""
    plain, noisy = Watched(), Watched()
    answers: list[tuple[int, Job]] = []
    lives = dict.fromkeys("abc", 0)
    for version, (name, deleted, late) in enumerate(events, start=1):
        found = job(name, version=version, uid=f"{name}-{lives[name]}", created=lives[name])
        for watched in (plain, noisy):
            (watched.store.delete_job if deleted else watched.store.upsert_job)(found)
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


def test_last_words_outlive_the_kubelets_failure_to_read_them_again(watched: Watched) -> None:
    """The kubelet builds a deleted pod's status once more after it has removed its log."""
    watched.store.upsert_job(job("a"))
    watched.store.upsert_pod(pod("a-1", of="a", version=2, state=ended(143, message="saved")))
    watched.store.upsert_pod(pod("a-1", of="a", version=3, state=ended(143, message=LOST_WORDS)))
    watched.store.delete_pod(pod("a-1", of="a", version=4, state=ended(143, message=LOST_WORDS)))
    record = watched.store.get(key("a"))
    assert record is not None
    (last,) = record.all_pods()
    assert last.container.terminated is not None
    assert last.container.terminated.termination_message == "saved"


def test_the_kubelets_failure_to_read_the_log_is_nobodys_last_words() -> None:
    found = pod(state=ended(143, message=LOST_WORDS)).container.terminated
    assert found is not None
    assert found.termination_message is None


def test_when_a_pod_was_told_to_end_outlives_the_kubelets_last_delete(watched: Watched) -> None:
    """Recorded on Kubernetes 1.35.4: the last delete sets the timestamp to its own moment and the period to 0."""
    watched.store.upsert_job(job("a"))
    watched.store.upsert_pod(pod("a-1", of="a", version=2, state=running(), deleted=70, grace=10))
    last = pod("a-1", of="a", version=3, phase="Failed", state=ended(137, finished=70), deleted=73, grace=0)
    watched.store.upsert_pod(last)
    watched.store.delete_pod(last)
    record = watched.store.get(key("a"))
    assert record is not None
    (kept,) = record.all_pods()
    assert (kept.metadata.deletion_timestamp, kept.metadata.deletion_grace_period_seconds) == (moment(70), 10)


def test_a_pod_that_is_told_to_end_sooner_is_taken_at_its_word(watched: Watched) -> None:
    watched.store.upsert_job(job("a"))
    watched.store.upsert_pod(pod("a-1", of="a", version=2, state=running(), deleted=70, grace=10))
    watched.store.upsert_pod(pod("a-1", of="a", version=3, state=running(), deleted=62, grace=0))
    record = watched.store.get(key("a"))
    assert record is not None
    assert record.pods["a-1"].metadata.deletion_grace_period_seconds == 0


def test_specifications_of_finished_jobs_are_bounded_and_a_small_tenant_loses_none() -> None:
    watched = Watched()
    watched.store = JobStore(lambda key: watched.changed.append(key.name), max_spec_bytes=100_000)

    def finished(name: str, size: int, namespace: str = NAMESPACE) -> Job:
        notes = {ANNOTATION_SPEC: "s" * size, ANNOTATION_RECORD: "{}"}
        return job(name, uid=name, namespace=namespace, verdict="Complete", annotations=notes)

    def has_spec(name: str, namespace: str = NAMESPACE) -> bool:
        record = watched.store.get(JobKey(namespace, name))
        return record is not None and record.job is not None and ANNOTATION_SPEC in record.job.metadata.annotations

    watched.store.upsert_job(finished("small", 20_000, "runway-speech"))
    for number in range(20):
        watched.store.upsert_job(finished(f"large-{number}", 20_000))
    assert has_spec("small", "runway-speech")
    assert [has_spec(f"large-{number}") for number in range(20)] == [False] * 16 + [True] * 4
    assert len(watched.store) == 21
    assert watched.changed.count("large-0") == 2


def test_specifications_of_unfinished_jobs_are_bounded_too() -> None:
    store = JobStore(lambda _: None, max_spec_bytes=50_000)
    for number in range(5):
        store.upsert_job(job(f"j{number}", annotations={ANNOTATION_SPEC: "s" * 20_000}))
    records = [store.get(key(f"j{number}")) for number in range(5)]
    known = [
        found is not None and found.job is not None and ANNOTATION_SPEC in found.job.metadata.annotations
        for found in records
    ]
    assert known == [False, False, False, True, True]


def test_a_creation_time_that_is_repaired_moves_the_job_to_its_place(watched: Watched) -> None:
    watched.store.upsert_job(job("a", version=1, created=50))
    watched.store.upsert_job(job("b", version=2, created=100))
    watched.store.upsert_job(job("a", version=3, created=200))
    assert watched.names() == ["a", "b"]
    watched.store.delete_job(job("a", version=4, created=200))
    assert watched.names() == ["b"]
