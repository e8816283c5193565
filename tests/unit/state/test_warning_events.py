"""The store of warnings: what is kept of them, for whom they are news, and that there is an end to them."""

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


def reasons(kept: WarningEventCache) -> list[str | None]:
    return [event.reason for event in kept.for_job(job(), [pod()])]


def test_a_warning_is_found_by_its_job_and_by_the_jobs_pods_oldest_first() -> None:
    kept = WarningEventCache([NAMESPACE])
    assert kept.put(warning(pod(), "Failed", "no such image", at=20)) == KEY
    assert kept.put(warning(job(), "FailedCreate", "exceeded quota", at=10)) == KEY
    assert reasons(kept) == ["FailedCreate", "Failed"]


def test_one_of_an_earlier_job_or_pod_of_the_same_name_is_not_shown() -> None:
    kept = WarningEventCache([NAMESPACE])
    kept.put(warning(job(uid="uid-of-another"), "FailedCreate", "exceeded quota"))
    assert reasons(kept) == []


def test_only_jobs_and_pods_of_tenants_are_kept() -> None:
    kept = WarningEventCache([NAMESPACE])
    for event in (about("Node", NAMESPACE), about("Pod", "kube-system"), about("Job", "")):
        assert kept.put(event) is None
    assert len(kept) == 0


def test_an_event_in_one_namespace_explains_no_job_of_another() -> None:
    kept = WarningEventCache([NAMESPACE, "runway-speech"])
    event = warning(job(), "Failed", "it failed")
    elsewhere = msgspec.structs.replace(event.metadata, namespace="runway-speech")
    assert kept.put(msgspec.structs.replace(event, metadata=elsewhere)) is None
    assert reasons(kept) == []


def test_one_told_again_takes_the_place_of_itself_and_one_that_faded_is_gone() -> None:
    kept = WarningEventCache([NAMESPACE])
    first = warning(job(), "FailedCreate", "first")
    again = msgspec.structs.replace(first, message="again")
    kept.put(first)
    kept.put(again)
    assert [event.message for event in kept.for_job(job(), [])] == ["again"]
    assert kept.drop(again) == KEY
    assert kept.drop(again) is None
    assert reasons(kept) == []


def test_the_newest_of_a_reason_are_kept_and_do_not_drive_other_reasons_out() -> None:
    kept = WarningEventCache([NAMESPACE])
    kept.put(warning(pod(), "Failed", "registry says no", at=1))
    for at in range(2, 40):
        kept.put(warning(pod(), "BackOff", f"try {at}", at=at))
    assert reasons(kept) == ["Failed", *["BackOff"] * MAX_EVENTS_PER_REASON]
    assert kept.for_job(job(), [pod()])[-1].message == "try 39"


def test_a_list_replaces_everything_and_names_only_the_jobs_it_has_news_of() -> None:
    kept = WarningEventCache([NAMESPACE])
    other = job("rw-" + "b" * 20, uid="other")
    same, fades, comes = warning(other, "A", "same"), warning(job(), "B", "fades"), warning(job(), "C", "comes")
    kept.replace([same, fades])
    assert kept.replace([same, comes]) == {KEY}
    assert reasons(kept) == ["C"]
    assert kept.replace([same, comes]) == set()


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.booleans()), max_size=200))
def test_whatever_comes_there_is_an_end_to_it(history: list[tuple[int, int, bool]]) -> None:
    most, kept = 20, WarningEventCache([NAMESPACE], max_bytes=20 * BASE_BYTES)
    for item, number, drop in history:
        event = about("Pod", NAMESPACE, f"{JOB}-{item}", f"{item}.{number}")
        unnamed = ObjectReference("Pod", NAMESPACE, f"{JOB}-{item}")
        event = msgspec.structs.replace(event, reason=f"reason {number % 7}", involved_object=unnamed)
        (kept.drop if drop else kept.put)(event)
        found = [len(kept.for_job(job(), [pod(f"{JOB}-{n}")])) for n in range(6)]
        assert sum(found) == len(kept) <= most
        assert max(found) <= MAX_EVENTS_PER_OBJECT


def test_the_oldest_of_all_goes_first() -> None:
    kept = WarningEventCache([NAMESPACE], max_bytes=3 * BASE_BYTES + 500)
    for number in range(5):
        kept.put(about("Pod", NAMESPACE, f"{JOB}-{number}", f"e{number}"))
    assert len(kept) == 3
    assert kept.drop(about("Pod", NAMESPACE, f"{JOB}-0", "e0")) is None
    assert kept.drop(about("Pod", NAMESPACE, f"{JOB}-4", "e4")) == KEY


def test_a_flood_of_long_warnings_takes_nothing_from_another_tenant() -> None:
    kept = WarningEventCache([NAMESPACE, "runway-speech"], max_bytes=100 * BASE_BYTES)
    quiet = [about("Job", "runway-speech", f"{JOB}-{n}", f"quiet{n}") for n in range(50)]
    for event in quiet:
        kept.put(event)
    for number in range(2000):
        loud = about("Pod", NAMESPACE, f"{JOB}-{number}", f"loud{number}")
        kept.put(msgspec.structs.replace(loud, message="m" * 2000))
    assert all(kept.drop(event) is not None for event in quiet)
    assert len(kept) < 50
