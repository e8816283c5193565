"""The annotation of a start deadline: what it proves, and edited or hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.annotations import ANNOTATION_START_TIMEOUT
from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.diagnosis.outcome import diagnose
from runway.jobs.diagnosis.start_timeout import StartLimit, StartTimeout, encode, limit_of, start_timeout_of
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.view import job_view
from runway.kube.objects import Job
from runway.policy import StartTimeouts
from tests.support.builders import Json, condition, ended, job, moment, pod, start_timeout, waiting
from tests.support.diagnosis_case import ended_by_start_deadline, overdue


def annotated(text: str, **fields: object) -> Job:
    return job(annotations={ANNOTATION_START_TIMEOUT: text}, **{"deadline": 0, **fields})  # type: ignore[arg-type]


@given(
    st.builds(
        StartTimeout,
        limit=st.sampled_from(StartLimit),
        limit_seconds=st.integers(1, 31_536_000),
        cause=st.sampled_from(FailureCode).map(str),
        since=st.floats(0, 10**9).map(moment),
        message=st.text(st.characters(codec="utf-8"), max_size=400),
    )
)
def test_annotation_is_read_as_it_was_written(timeout: StartTimeout) -> None:
    assert start_timeout_of(annotated(encode(timeout))) == timeout


@pytest.mark.parametrize(
    "changes",
    [
        {"cause": "no_such_code"},
        {"limit": "gpu"},
        {"limit_seconds": 0},
        {"limit_seconds": -5},
        {"limit_seconds": 10**30},
        {"limit_seconds": "300"},
        {"since": "yesterday"},
        {"since": "2026-11-24T08:00:05"},
        {"since": "9999-11-24T08:00:05Z"},
        {"message": None},
    ],
    ids=str,
)
def test_invalid_annotation_is_ignored(changes: Json) -> None:
    edited = ended_by_start_deadline(**changes)
    assert start_timeout_of(edited) is None
    found = diagnose(JobSnapshot("vision", edited, (overdue(waiting("ErrImagePull", "x: manifest unknown")),)))
    assert found is not None
    assert found.code is FailureCode.IMAGE_NOT_FOUND
    assert "reached its timeout" in found.message


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert start_timeout_of(annotated(text)) is None


def test_annotation_without_deadline_of_zero_is_ignored() -> None:
    """Somebody annotates a job that then runs into its own deadline."""
    edited = job(
        outcome="Failed", reason="DeadlineExceeded", started=10, deadline=60, annotations=start_timeout(),
        conditions=[condition("FailureTarget", reason="DeadlineExceeded", since=70)],
    )  # fmt: skip
    found = diagnose(JobSnapshot("vision", edited, (overdue(ended(143, finished=71)),)))
    assert found is not None
    assert found.code is FailureCode.DEADLINE_EXCEEDED


def test_job_that_failed_for_another_reason_keeps_it() -> None:
    """Its last retry was rejected before the Job controller saw the deadline."""
    failed = job(outcome="Failed", reason="BackoffLimitExceeded", deadline=0, annotations=start_timeout())
    rejected = pod(phase="Failed", reason="OutOfcpu", message="Pod was rejected: no CPU")
    found = diagnose(JobSnapshot("vision", failed, (rejected,)))
    assert found is not None
    assert found.code is FailureCode.ADMISSION_REJECTED


def test_hostile_message_is_bounded_and_escaped() -> None:
    found = diagnose(JobSnapshot("vision", ended_by_start_deadline(message="\x1b[2J\u202e" * 300)))
    assert found is not None
    assert found.message.isprintable()
    assert len(found.message) < 600


def test_attempt_has_the_cause_of_the_start_deadline() -> None:
    gone = overdue(waiting("ContainerCreating"), name="a")
    (attempt,) = job_view(JobSnapshot("vision", ended_by_start_deadline(), (gone,), frozenset({"a"}))).attempts
    assert attempt.cause == "image_not_found"
    assert "had not started for 300 s" in (attempt.message or "")


def test_cancel_during_the_start_deadline_is_a_cancel() -> None:
    cancelled = job(
        outcome="Failed", reason="DeadlineExceeded", started=10, deadline=0, annotations=start_timeout(), cancelled=True
    )
    view = job_view(JobSnapshot("vision", cancelled, (pod(state=ended(137), deleted=100, grace=30),)))
    assert (view.state, view.failure) == ("cancelled", None)


def test_every_policy_limit_has_a_cause() -> None:
    limits = {limit_of(code) for code in FailureCode}
    assert limits == set(StartLimit) - {StartLimit.JOB} == set(map(StartLimit, StartTimeouts.model_fields))
