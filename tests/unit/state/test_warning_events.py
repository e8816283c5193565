"""The cache of warning events: contents, changed jobs, and bounds."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from runway.kube.objects import Event, ObjectReference
from runway.state.job_store import JobKey
from runway.state.warning_events import BASE_BYTES, MAX_EVENTS_PER_OBJECT, MAX_EVENTS_PER_REASON, WarningEventCache
from tests.support.builders import JOB, NAMESPACE, job, pod, warning

KEY = JobKey(NAMESPACE, JOB)


def about(kind: str, namespace: str, name: str = JOB, event: str = "e") -> Event:
    found = warning(job(), "Failed", "it failed")
    metadata = msgspec.structs.replace(found.metadata, name=event, namespace=namespace)
    return msgspec.structs.replace(
        found, metadata=metadata, involved_object=ObjectReference(kind, namespace, name, "some-uid")
    )


def reasons(cache: WarningEventCache) -> list[str | None]:
    return [event.reason for event in cache.for_job(job(), [pod()])]


def test_warnings_of_job_and_pods_are_returned_oldest_first() -> None:
    cache = WarningEventCache([NAMESPACE])
    assert cache.upsert(warning(pod(), "Failed", "no such image", at=20)) == [KEY]
    assert cache.upsert(warning(job(), "FailedCreate", "exceeded quota", at=10)) == [KEY]
    assert reasons(cache) == ["FailedCreate", "Failed"]


def test_warning_of_earlier_job_of_same_name_is_hidden() -> None:
    cache = WarningEventCache([NAMESPACE])
    cache.upsert(warning(job(uid="uid-of-another"), "FailedCreate", "exceeded quota"))
    assert reasons(cache) == []


def test_only_warnings_about_tenant_jobs_and_pods_are_cached() -> None:
    cache = WarningEventCache([NAMESPACE])
    for event in (about("Node", NAMESPACE), about("Pod", "kube-system"), about("Job", "")):
        assert cache.upsert(event) == []
    assert len(cache) == 0


def test_event_about_other_namespace_is_ignored() -> None:
    cache = WarningEventCache([NAMESPACE, "runway-speech"])
    event = warning(job(), "Failed", "it failed")
    elsewhere = msgspec.structs.replace(event.metadata, namespace="runway-speech")
    assert cache.upsert(msgspec.structs.replace(event, metadata=elsewhere)) == []
    assert reasons(cache) == []


def test_repeated_warning_replaces_itself_and_deleted_one_is_removed() -> None:
    cache = WarningEventCache([NAMESPACE])
    first = warning(job(), "FailedCreate", "first")
    again = msgspec.structs.replace(first, message="again")
    cache.upsert(first)
    cache.upsert(again)
    assert [event.message for event in cache.for_job(job(), [])] == ["again"]
    assert cache.delete(again) == [KEY]
    assert cache.delete(again) == []
    assert reasons(cache) == []


def test_frequent_reason_does_not_evict_other_reasons() -> None:
    cache = WarningEventCache([NAMESPACE])
    cache.upsert(warning(pod(), "Failed", "registry says no", at=1))
    for at in range(2, 40):
        cache.upsert(warning(pod(), "BackOff", f"try {at}", at=at))
    assert reasons(cache) == ["Failed", *["BackOff"] * MAX_EVENTS_PER_REASON]
    assert cache.for_job(job(), [pod()])[-1].message == "try 39"


def test_list_replaces_all_warnings_and_returns_changed_jobs() -> None:
    cache = WarningEventCache([NAMESPACE])
    other = job("rw-" + "b" * 20, uid="other")
    same, fades, comes = warning(other, "A", "same"), warning(job(), "B", "fades"), warning(job(), "C", "comes")
    cache.replace([same, fades])
    assert cache.replace([same, comes]) == {KEY}
    assert reasons(cache) == ["C"]
    assert cache.replace([same, comes]) == set()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.booleans()), max_size=200))
def test_cache_is_bounded(history: list[tuple[int, int, bool]]) -> None:
    most, cache = 20, WarningEventCache([NAMESPACE], max_bytes=20 * BASE_BYTES)
    for item, number, drop in history:
        event = about("Pod", NAMESPACE, f"{JOB}-{item}", f"{item}.{number}")
        unnamed = ObjectReference("Pod", NAMESPACE, f"{JOB}-{item}")
        event = msgspec.structs.replace(event, reason=f"reason {number % 7}", involved_object=unnamed)
        (cache.delete if drop else cache.upsert)(event)
        found = [len(cache.for_job(job(), [pod(f"{JOB}-{n}")])) for n in range(6)]
        assert sum(found) == len(cache) <= most
        assert max(found) <= MAX_EVENTS_PER_OBJECT


def test_oldest_warning_is_evicted_first() -> None:
    cache = WarningEventCache([NAMESPACE], max_bytes=3 * BASE_BYTES + 500)
    for number in range(5):
        cache.upsert(about("Pod", NAMESPACE, f"{JOB}-{number}", f"e{number}"))
    assert len(cache) == 3
    assert cache.delete(about("Pod", NAMESPACE, f"{JOB}-0", "e0")) == []
    assert cache.delete(about("Pod", NAMESPACE, f"{JOB}-4", "e4")) == [KEY]


def test_flood_of_warnings_evicts_nothing_of_other_tenant() -> None:
    cache = WarningEventCache([NAMESPACE, "runway-speech"], max_bytes=100 * BASE_BYTES)
    quiet = [about("Job", "runway-speech", f"{JOB}-{n}", f"quiet{n}") for n in range(50)]
    for event in quiet:
        cache.upsert(event)
    for number in range(2000):
        loud = about("Pod", NAMESPACE, f"{JOB}-{number}", f"loud{number}")
        cache.upsert(msgspec.structs.replace(loud, message="m" * 2000))
    assert all(cache.delete(event) for event in quiet)
    assert len(cache) < 50
