"""The record of a job: after the pods are gone it tells what was told before, and nobody can break it by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.diagnosis.attempts import MAX_ATTEMPTS
from runway.jobs.identity import ANNOTATION_COST, ANNOTATION_RECORD, ANNOTATION_SPEC, ANNOTATION_SPEC_HASH
from runway.jobs.log_excerpt import Excerpt
from runway.jobs.record import (
    MAX_BYTES,
    Record,
    encode,
    final_record,
    had_final_record,
    interim_record,
    merge_attempts,
    missing_attempts,
    needs_interim_record,
    record_of,
    written_by_newer_version,
)
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.spec import JobSpec
from runway.jobs.usage import Usage
from runway.jobs.view import JobView, job_view
from runway.kube.objects import Job, Pod
from runway.text import last_lines
from tests.support.builders import JOB, Json, condition, disrupted, ended, job, moment, pod, running, spec
from tests.unit.jobs.diagnosis.cases.deadline import DEADLINES
from tests.unit.jobs.diagnosis.cases.node import NODE
from tests.unit.jobs.diagnosis.cases.process import PROCESS

TOLD = {
    name: replace(told.case, deleted_pods=frozenset(pod.metadata.name for pod in told.case.pods if not pod.is_terminal))
    for name, told in (PROCESS | NODE | DEADLINES).items()
}
"""Every status that a verdict is tested with, once the job is over: pods that had not ended are gone."""
NOW = moment(200)
END = Excerpt(f"{JOB}-0", "the end\n", truncated=False)
BOUND = condition("PodScheduled", since=5)
DEADLINE: Json = {"verdict": "Failed", "reason": "DeadlineExceeded"}


def case_of(found: Job, *pods: Pod, gone: Sequence[str] = ()) -> JobSnapshot:
    return JobSnapshot("vision", found, pods, frozenset(gone))


def kept_on(found: Job, record: Record | str) -> Job:
    """The Job with this record on it."""
    text = record if isinstance(record, str) else encode(record, found)
    notes = found.metadata.annotations | {ANNOTATION_RECORD: text}
    return msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, annotations=notes))


def final(case: JobSnapshot, excerpt: Excerpt | None = None, usage: Usage | None = None) -> Record:
    return final_record(case, record_of(case.job), excerpt, usage, NOW)


def told(number: int, code: int = 1, *, deleted: float | None = None, created: float | None = None) -> Pod:
    """The attempt of that number, which ended by itself, or after it was told to end."""
    begun = number * 100 + 1 if created is None else created
    state = ended(code, started=begun + 9, finished=begun + 80)
    conditions = [condition("PodScheduled", since=begun + 4)]
    return pod(f"{JOB}-{number}", created=begun, state=state, conditions=conditions, deleted=deleted, grace=30)


def story(view: JobView) -> dict[str, Any]:
    """What a caller sees of a job that is over, but for the words that only the pod's status had."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(view))
    return found


@pytest.mark.parametrize("name", TOLD)
def test_the_story_is_the_same_when_pods_and_events_are_gone(name: str) -> None:
    case = TOLD[name]
    before = story(job_view(case))
    record = final(case, job_view(case).excerpt)
    after = job_view(case_of(kept_on(case.job, record)))
    assert story(after) == before
    still_there = job_view(replace(case, job=kept_on(case.job, record)))
    assert story(still_there) == before


@pytest.mark.parametrize("name", TOLD)
def test_a_record_survives_its_annotation_and_is_small(name: str) -> None:
    record = final(TOLD[name], END, Usage(cpu_seconds=1.5, sampled_at=NOW))
    assert len(encode(record, TOLD[name].job).encode()) <= MAX_BYTES
    assert record_of(kept_on(TOLD[name].job, record)) == record


def test_everything_of_the_end_is_kept() -> None:
    case = case_of(job(verdict="Complete", finished=99), told(0, 0))
    view = job_view(case_of(kept_on(case.job, final(case, END, Usage(memory_peak_bytes=7)))))
    assert (view.started_at, view.finished_at) == (moment(10), moment(99))
    assert view.excerpt == END
    assert view.usage == Usage(memory_peak_bytes=7)
    # 76 s from when it was bound until it ended, at 0.036706 USD an hour.
    assert view.cost is not None
    assert view.cost.actual == "0.000775"


def test_the_verdict_says_that_the_job_was_near_its_memory_limit() -> None:
    case = case_of(job(verdict="Failed", reason="BackoffLimitExceeded"), told(0, 3))
    near = Usage(memory_peak_bytes=95, memory_limit_bytes=100)
    failure = job_view(case_of(kept_on(case.job, final(case, usage=near)))).failure
    assert failure is not None
    assert failure.hint.endswith("memory peaked at 95% of its limit")
    assert failure.evidence["memory_peak_bytes"] == "95"


def test_a_job_that_is_not_over_has_no_actual_cost() -> None:
    view = job_view(case_of(job(), pod(state=running(), conditions=[BOUND])))
    assert view.cost is not None
    assert view.cost.actual is None


def test_the_actual_cost_is_known_before_the_record_is_kept() -> None:
    view = job_view(case_of(job(verdict="Complete"), told(0, 0)))
    assert view.cost is not None
    assert view.cost.actual == "0.000775"


def test_an_absurd_hourly_price_leaves_the_cost_unknown_and_the_record_is_still_kept() -> None:
    found = job(verdict="Complete", finished=10_000)
    price = json.loads(found.metadata.annotations[ANNOTATION_COST]) | {"hourly": "999999999999"}
    notes = found.metadata.annotations | {ANNOTATION_COST: json.dumps(price)}
    edited = msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, annotations=notes))
    case = case_of(edited, pod(state=ended(finished=10_000), conditions=[BOUND]))
    kept = record_of(kept_on(edited, final(case)))
    assert kept is not None
    assert (kept.state, kept.actual) == ("succeeded", None)


def test_an_attempt_that_kubernetes_counted_and_nobody_saw_leaves_the_cost_unknown() -> None:
    found = job(verdict="Failed", reason="BackoffLimitExceeded")
    lost = msgspec.structs.replace(found, status=msgspec.structs.replace(found.status, failed=2))
    case = case_of(lost, told(1))
    assert missing_attempts(lost, merge_attempts(case, None)) == 1
    assert final(case).actual is None
    both = case_of(lost, told(0), told(1))
    assert missing_attempts(lost, merge_attempts(both, None)) == 0
    assert final(both).actual is not None


def test_an_attempt_that_is_about_to_go_is_kept_while_the_job_lives() -> None:
    ending = told(0, 143, deleted=120)
    assert not needs_interim_record(case_of(job(), told(0)), None)
    assert not needs_interim_record(case_of(job(), pod(state=running(), deleted=120)), None)
    case = case_of(job(), ending)
    assert needs_interim_record(case, None)
    record = interim_record(case, None, END, NOW)
    assert [attempt.exit_code for attempt in record.attempts] == [143]
    assert (record.state, record.failure, record.actual) == (None, None, None)
    after = kept_on(job(), record)
    assert not needs_interim_record(case_of(after, ending), record)
    gone = case_of(after, ending, gone=[ending.metadata.name])
    assert not needs_interim_record(gone, record)
    assert needs_interim_record(case_of(job(), told(0), gone=[f"{JOB}-0"]), None)


def test_what_was_kept_before_joins_what_can_be_seen() -> None:
    first, second = told(0, 143, deleted=120), told(1, 0)
    record = interim_record(case_of(job(), first), None, END, NOW)
    view = job_view(case_of(kept_on(job(), record), second))
    assert [(attempt.pod, attempt.exit_code) for attempt in view.attempts] == [(f"{JOB}-0", 143), (f"{JOB}-1", 0)]
    assert view.started_at == moment(10)
    done = kept_on(job(verdict="Complete", finished=300), record)
    last = final(case_of(done, second))
    assert [attempt.pod for attempt in last.attempts] == [f"{JOB}-0", f"{JOB}-1"]
    assert last.actual == "0.001550"
    assert last.excerpt == END


def test_of_very_many_disruptions_the_newest_are_kept_and_all_are_counted() -> None:
    pods = [
        pod(f"{JOB}-{n:02}", created=n + 1, state=ended(143, started=n + 10), conditions=[disrupted()], deleted=n + 2)
        for n in range(30)
    ]
    record, seen = None, list[Pod]()
    for number in range(0, 30, 6):
        seen = pods[max(0, number - 10) : number + 6]
        record = interim_record(case_of(job(), *seen), record, None, NOW)
    assert record is not None
    view = job_view(case_of(kept_on(job(), record), *seen))
    assert (len(view.attempts), view.attempts_left_out, view.disruptions) == (20, 10, 30)
    assert view.started_at == moment(10)
    assert view.attempts[-1].pod == f"{JOB}-29"
    done = final(case_of(kept_on(job(verdict="Complete"), record), *seen))
    assert (done.attempts_left_out, done.disruptions_left_out, done.actual) == (10, 10, None)


def test_the_verdict_blames_a_kept_attempt_that_cannot_be_seen_any_more() -> None:
    stopped = job(conditions=[condition("FailureTarget", reason="DeadlineExceeded", since=70)], started=10, deadline=60)
    ending = pod(f"{JOB}-0", state=ended(143, started=20, finished=75), conditions=[BOUND], deleted=100, grace=30)
    record = interim_record(case_of(stopped, ending), None, END, NOW)
    failed = kept_on(job(**DEADLINE, started=10, deadline=60), record)
    failure = job_view(case_of(failed)).failure
    assert failure is not None
    assert failure.code == "deadline_exceeded"
    assert "ended on SIGTERM" in failure.message
    assert failure.evidence["exit_code"] == "143"
    assert final(case_of(failed)).failure == failure


def test_what_is_seen_wins_where_it_knows_more() -> None:
    record = interim_record(case_of(job(), told(0, 1, deleted=120)), None, None, NOW)
    poorer = replace(record.attempts[0], exit_code=None, finished_at=None, node="node-9")
    kept = msgspec.structs.replace(record, attempts=(poorer,))
    (merged,) = merge_attempts(case_of(job(), told(0, 137)), kept).attempts
    assert (merged.exit_code, merged.node, merged.finished_at) == (137, "node-1", moment(81))
    # A watch that lags shows it running still.
    (merged,) = merge_attempts(case_of(job(), pod(f"{JOB}-0", state=running())), record).attempts
    assert (merged.exit_code, merged.state) == (1, "failed")
    # It was deleted before anyone saw the end.
    bare = pod(f"{JOB}-0", phase="Failed", node=None)
    (merged,) = merge_attempts(case_of(job(), bare), record).attempts
    assert (merged.exit_code, merged.node) == (1, "node-1")


def spoilt(record: Record, **changes: Any) -> str:
    return json.dumps(json.loads(msgspec.json.encode(record)) | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"uid": "another-job"},
        {"version": 0},
        {"version": "one"},
        {"actual": "-1"},
        {"actual": "NaN"},
        {"attempts_left_out": -1},
        {"finished_at": "2026-11-24T08:00:00"},
        {"excerpt": {"pod": "p", "text": "x" * 5000, "truncated": False}},
        {"failure": {"code": "made_up"}},
        {"attempts": [{}]},
        {"attempts": "none"},
    ],
)
def test_a_record_that_cannot_be_true_is_ignored(changes: dict[str, Any]) -> None:
    case = case_of(job(verdict="Failed", reason="BackoffLimitExceeded"), told(0, 3))
    changed = kept_on(case.job, spoilt(final(case, END), **changes))
    assert record_of(changed) is None
    assert story(job_view(replace(case, job=changed))) == story(job_view(case))
    assert not written_by_newer_version(changed)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "\ud800", '{"version": 1}', "x" * 20_000, "1" * 5000])
def test_a_text_that_is_no_record_is_ignored(text: str) -> None:
    changed = kept_on(job(verdict="Complete"), text)
    assert record_of(changed) is None
    assert not written_by_newer_version(changed)
    assert had_final_record(changed)


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 60))
def test_no_change_by_hand_breaks_the_view(put: bytes, start: int, size: int) -> None:
    case = case_of(job(verdict="Failed", reason="BackoffLimitExceeded"), told(0, 3))
    text = encode(final(case, END), case.job).encode()
    changed = (text[:start] + put + text[start + size :]).decode("utf-8", "replace")
    found = replace(case, job=kept_on(case.job, changed))
    msgspec.json.encode(job_view(found))
    final(found)
    needs_interim_record(found, record_of(found.job))


def test_a_record_of_a_job_that_is_not_over_cannot_be_final() -> None:
    case = case_of(job(verdict="Complete"), told(0, 0))
    assert record_of(kept_on(job(), encode(final(case), case.job))) is None


def test_a_record_of_a_later_version_is_left_alone() -> None:
    case = case_of(job(verdict="Complete"), told(0, 0))
    later = kept_on(case.job, spoilt(final(case), version=2))
    assert written_by_newer_version(later)
    assert record_of(later) is None
    assert not written_by_newer_version(kept_on(case.job, final(case)))


def test_a_verdict_that_changed_after_the_record_wins_over_it() -> None:
    failed = case_of(job(verdict="Failed", reason="DeadlineExceeded"), told(0, 143, deleted=120))
    record = final(failed, END)
    cancelled = kept_on(job(verdict="Failed", reason="DeadlineExceeded", cancelled=True), record)
    view = job_view(case_of(cancelled))
    assert (view.state, view.failure) == ("cancelled", None)
    assert view.excerpt == END
    assert [attempt.exit_code for attempt in view.attempts] == [143]
    assert had_final_record(cancelled)
    assert final(case_of(cancelled)).state == "cancelled"


SECRET: JobSpec = spec(env=(("API_TOKEN", "tok-123456"), ("LR", "0.001")))


def test_no_secret_of_the_environment_is_in_a_record() -> None:
    words = "cannot log in with tok-123456\nLR=0.001"
    dead = pod(f"{JOB}-0", state=ended(1, message=words), conditions=[BOUND])
    case = case_of(job(verdict="Failed", reason="BackoffLimitExceeded", admitted=SECRET), dead)
    text = encode(final(case, job_view(case).excerpt), case.job)
    assert "tok-123456" not in text
    assert "***" in text
    assert "LR=0.001" in text
    assert "API_TOKEN" not in text
    excerpt = job_view(case).excerpt
    assert excerpt is not None
    assert excerpt.text == "cannot log in with ***\nLR=0.001"


@given(st.text(max_size=5000), st.text(max_size=3000), st.integers(1, 40))
def test_a_record_is_bounded_whatever_stands_in_it(log: str, message: str, attempts: int) -> None:
    pods = [
        pod(f"{JOB}-{n}", created=n + 1, phase="Failed", reason="Evicted", message=message * 3, deleted=n + 2)
        for n in range(attempts)
    ]
    case = case_of(job(verdict="Failed", reason="BackoffLimitExceeded", message=message * 5), *pods)
    excerpt = Excerpt("pod", last_lines(log, 1000), truncated=True)
    for record in (final(case, excerpt), interim_record(case, None, excerpt, NOW)):
        found = kept_on(case.job, record)
        assert len(encode(record, case.job).encode()) <= MAX_BYTES
        assert record_of(found) == record
        assert len(record.attempts) <= MAX_ATTEMPTS
        assert len(record.attempts) + record.attempts_left_out == attempts
        # What there was no room for is not found missing again.
        assert not needs_interim_record(replace(case, job=found), record)


LIVES = st.lists(
    st.tuples(st.integers(0, 25), st.sampled_from(["see", "keep", "forget"]), st.booleans()), min_size=1, max_size=80
)


@given(LIVES)
def test_keeping_again_changes_nothing_and_no_attempt_is_lost_or_twice(life: list[tuple[int, str, bool]]) -> None:
    """Pods come, are told to end, vanish from sight (a restart); the record is kept at any moment in between."""
    seen, record, kept = dict[str, Pod](), None, set[str]()
    for number, what, deleted in life:
        name = f"{JOB}-{number}"
        if what == "see" and name not in kept:
            seen[name] = told(number, deleted=number * 100 + 90 if deleted else None)
        elif what == "forget":
            seen.pop(name, None)
        else:
            case = case_of(job(), *sorted(seen.values(), key=lambda item: item.metadata.creation_timestamp or NOW))
            due = needs_interim_record(case, record)
            after = interim_record(case, record, None, NOW)
            kept |= {attempt.pod for attempt in after.attempts}
            assert interim_record(case, after, None, NOW) == after
            assert due or record is None or after.attempts == record.attempts
            record = after
    case = case_of(job(verdict="Complete"), *seen.values())
    known = merge_attempts(case, record)
    names = [attempt.pod for attempt in known.attempts]
    assert len(names) == len(set(names)) == min(known.total, MAX_ATTEMPTS)
    once = final_record(case, record, None, None, NOW)
    assert final_record(case, once, None, None, NOW) == once
    assert final_record(case_of(job(verdict="Complete")), once, None, None, NOW).attempts == once.attempts


def test_where_the_secrets_are_not_known_no_end_of_a_log_is_shown_or_recorded() -> None:
    dead = pod(f"{JOB}-0", state=ended(1, message="cannot log in with tok-123456"), conditions=[BOUND])
    notes = {ANNOTATION_SPEC: "no longer cached", ANNOTATION_SPEC_HASH: "0" * 64}
    case = case_of(job(verdict="Failed", reason="BackoffLimitExceeded", annotations=notes), dead)
    view, record = job_view(case), final(case)
    assert (view.excerpt, record.excerpt) == (None, None)
    assert "tok-123456" not in repr(view)
    assert "tok-123456" not in encode(record, case.job)
    assert view.failure is not None
    assert view.failure.code == "exit_nonzero"


def test_a_view_hides_secrets_in_the_evidence_before_the_record_is_written() -> None:
    dead = pod(f"{JOB}-0", state=ended(1, message="cannot log in with tok-123456"), conditions=[BOUND])
    view = job_view(case_of(job(verdict="Failed", reason="BackoffLimitExceeded", admitted=SECRET), dead))
    assert view.failure is not None
    assert view.failure.evidence["last_words"] == "cannot log in with ***"
