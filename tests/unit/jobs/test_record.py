"""Job records: they replace deleted pods and survive edits of the annotation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runway.jobs.annotations import ANNOTATION_COST, ANNOTATION_RECORD, ANNOTATION_SPEC, ANNOTATION_SPEC_HASH
from runway.jobs.cost import Charge
from runway.jobs.diagnosis.attempts import MAX_ATTEMPTS
from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.models import Excerpt, Failure, JobView, Usage
from runway.jobs.record import (
    MAX_BYTES,
    VERSION,
    VERSION_0_7,
    Record,
    charge_of,
    encode,
    final_record,
    had_final_record,
    interim_record,
    merge_attempts,
    missing_attempts,
    needs_interim_record,
    record_of,
    uncharged_cost_of,
    written_by_newer_version,
)
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.spec import AdmittedSpec
from runway.jobs.view import job_view
from runway.kube.objects import Job, Pod
from runway.text import last_lines
from tests.support.builders import JOB, Json, condition, disrupted, ended, job, moment, pod, running, spec
from tests.support.jobs_0_7 import FAILURE_CODES
from tests.unit.jobs.diagnosis.cases.deadline import DEADLINES
from tests.unit.jobs.diagnosis.cases.node import NODE
from tests.unit.jobs.diagnosis.cases.process import PROCESS
from tests.unit.jobs.diagnosis.cases.waste import WASTE

CASES = {
    name: replace(
        case.snapshot,
        deleted_pods=frozenset(pod.metadata.name for pod in case.snapshot.pods if not pod.is_terminal),
    )
    for name, case in (PROCESS | NODE | DEADLINES | WASTE).items()
}
"""Every diagnosis case after the job finished: pods that were not terminal are deleted."""
NOW = moment(200)
END = Excerpt(f"{JOB}-0", "the end\n", truncated=False)
BOUND = condition("PodScheduled", since=5)
DEADLINE: Json = {"outcome": "Failed", "reason": "DeadlineExceeded"}


def snapshot_of(found: Job, *pods: Pod, gone: Sequence[str] = ()) -> JobSnapshot:
    return JobSnapshot("vision", found, pods, frozenset(gone))


def with_record(found: Job, record: Record | str) -> Job:
    """Return the Job with this record as its annotation."""
    text = record if isinstance(record, str) else encode(record, found)
    notes = found.metadata.annotations | {ANNOTATION_RECORD: text}
    return msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, annotations=notes))


def final(snapshot: JobSnapshot, excerpt: Excerpt | None = None, usage: Usage | None = None) -> Record:
    return final_record(snapshot, record_of(snapshot.job), excerpt, usage, NOW)


def attempt_pod(number: int, code: int = 1, *, deleted: float | None = None, created: float | None = None) -> Pod:
    """Return a terminated pod of the attempt; with `deleted`, Kubernetes deleted it first."""
    begun = number * 100 + 1 if created is None else created
    state = ended(code, started=begun + 9, finished=begun + 80)
    conditions = [condition("PodScheduled", since=begun + 4)]
    return pod(f"{JOB}-{number}", created=begun, state=state, conditions=conditions, deleted=deleted, grace=30)


def story(view: JobView) -> dict[str, Any]:
    """Return the view of a finished job without the evidence that only the pod's status has."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(view))
    return found


@pytest.mark.parametrize("name", CASES)
def test_view_is_the_same_without_pods_and_events(name: str) -> None:
    snapshot = CASES[name]
    before = story(job_view(snapshot))
    record = final(snapshot, job_view(snapshot).excerpt)
    after = job_view(snapshot_of(with_record(snapshot.job, record)))
    assert story(after) == before
    still_there = job_view(replace(snapshot, job=with_record(snapshot.job, record)))
    assert story(still_there) == before


@pytest.mark.parametrize("name", CASES)
def test_record_round_trip_is_bounded(name: str) -> None:
    record = final(CASES[name], END, Usage(cpu_seconds=1.5, sampled_at=NOW))
    assert len(encode(record, CASES[name].job).encode()) <= MAX_BYTES
    assert record_of(with_record(CASES[name].job, record)) == record


def test_final_record_has_outcome_and_evidence() -> None:
    snapshot = snapshot_of(job(outcome="Complete", finished=99), attempt_pod(0, 0))
    view = job_view(snapshot_of(with_record(snapshot.job, final(snapshot, END, Usage(memory_peak_bytes=7)))))
    assert (view.started_at, view.finished_at) == (moment(10), moment(99))
    assert view.excerpt == END
    assert view.usage == Usage(memory_peak_bytes=7)
    # 76 s from binding to the end, at 0.036706 USD an hour.
    assert view.cost is not None
    assert view.cost.actual == "0.000775"


def test_failure_mentions_usage_near_the_memory_limit() -> None:
    snapshot = snapshot_of(job(outcome="Failed", reason="BackoffLimitExceeded"), attempt_pod(0, 3))
    near = Usage(memory_peak_bytes=95, memory_limit_bytes=100)
    failure = job_view(snapshot_of(with_record(snapshot.job, final(snapshot, usage=near)))).failure
    assert failure is not None
    assert failure.hint.endswith("memory peaked at 95% of its limit")
    assert failure.evidence["memory_peak_bytes"] == "95"


MODULE: Final = "ModuleNotFoundError: No module named 'numpy'\n"


def test_hint_from_the_log_is_recorded() -> None:
    failed = job(outcome="Failed", reason="BackoffLimitExceeded")
    attempt = pod(f"{JOB}-0", state=ended(1, message=MODULE, finished=81), conditions=[BOUND])
    snapshot = snapshot_of(failed, attempt)
    live = job_view(snapshot).failure
    assert live is not None
    assert "a Python module is missing: install it" in live.hint
    assert (live.evidence["log_hint"], live.evidence["log_line"]) == ("missing_module", MODULE.strip())
    record = final(snapshot, job_view(snapshot).excerpt)
    assert job_view(snapshot_of(with_record(failed, record))).failure == live
    # The log that the recorder read has more lines than the pod's status.
    silent = snapshot_of(failed, pod(f"{JOB}-0", state=ended(1, finished=81), conditions=[BOUND]))
    assert job_view(silent).failure == failure_without_hint(live)
    record = final(silent, Excerpt(f"{JOB}-0", MODULE, truncated=True))
    assert record.failure is not None
    assert record.failure.hint == live.hint


def failure_without_hint(failure: Failure) -> Failure:
    evidence = {
        name: text for name, text in failure.evidence.items() if name not in ("log_hint", "log_line", "last_words")
    }
    return replace(failure, hint=FailureCode.EXIT_NONZERO.advice, evidence=evidence)


def test_hint_comes_from_the_attempt_that_failed_the_job() -> None:
    failed = job(outcome="Failed", reason="BackoffLimitExceeded")
    drained = pod(f"{JOB}-1", created=100, state=ended(143, message=MODULE, started=110), conditions=[disrupted()])
    view = job_view(snapshot_of(failed, attempt_pod(0, 3), drained))
    assert view.excerpt is not None
    assert view.excerpt.pod == f"{JOB}-1"
    assert view.failure is not None
    assert "log_hint" not in view.failure.evidence


def test_hint_shows_no_secret() -> None:
    secret = "s3cr3t-value"  # pragma: allowlist secret
    failed = job(outcome="Failed", reason="BackoffLimitExceeded", admitted=spec(env={"API_TOKEN": secret}))
    message = f"curl: (6) Could not resolve host: {secret}.example.com\n"
    snapshot = snapshot_of(failed, pod(state=ended(1, message=message)))
    live = job_view(snapshot).failure
    recorded = final(snapshot, job_view(snapshot).excerpt).failure
    assert live is not None
    assert live == recorded
    assert live.evidence["log_line"] == "curl: (6) Could not resolve host: ***.example.com"


def test_record_of_version_0_7_is_read() -> None:
    """Version 0.7 wrote no image_id and no hint from the log, and ignores fields that it does not know."""
    failed = job(outcome="Failed", reason="BackoffLimitExceeded")
    image = "sha256:" + "ab" * 32
    attempt = pod(f"{JOB}-0", state=ended(1, message=MODULE), conditions=[BOUND], image_id=image)
    snapshot = snapshot_of(failed, attempt)
    written: Json = json.loads(encode(final(snapshot, job_view(snapshot).excerpt), failed))
    for each in written["attempts"]:
        assert each.pop("image_id") == image
    written["failure"]["hint"] = FailureCode.EXIT_NONZERO.advice
    del written["failure"]["evidence"]["log_hint"], written["failure"]["evidence"]["log_line"]
    old = with_record(failed, json.dumps(written))
    view = job_view(snapshot_of(old))
    assert view.failure is not None
    assert (view.failure.hint, view.attempts[0].image_id) == (FailureCode.EXIT_NONZERO.advice, None)
    # While the pod exists, it adds the image.
    assert job_view(snapshot_of(old, attempt)).attempts[0].image_id == image


@pytest.mark.parametrize("name", CASES)
def test_version_0_7_leaves_a_record_that_it_cannot_read(name: str) -> None:
    """It overwrites a record with an unknown failure code, unless a later version wrote it."""
    record = final(CASES[name])
    codes = {attempt.cause for attempt in record.attempts} | {record.failure.code if record.failure else None}
    assert record.version == (VERSION_0_7 if codes <= FAILURE_CODES | {None} else VERSION)
    assert record_of(with_record(CASES[name].job, record)) is not None


def test_edited_image_of_a_recorded_attempt_is_ignored() -> None:
    done = job(outcome="Complete")
    record = final(snapshot_of(done, attempt_pod(0, 0)))
    text = spoilt(record, attempts=[json.loads(msgspec.json.encode(record.attempts[0])) | {"image_id": "<script>\x1b"}])
    view = job_view(snapshot_of(with_record(done, text)))
    assert (view.state, view.attempts[0].image_id) == ("succeeded", None)


def test_largest_record_with_images_is_bounded() -> None:
    image = "sha256:" + "ab" * 32
    pods = [
        pod(f"{JOB}-{n:02}", created=n, state=ended(1, message="\x1b" * 4000), image_id=image, reason="R" * 256)
        for n in range(MAX_ATTEMPTS)
    ]
    failed = job(outcome="Failed", reason="BackoffLimitExceeded")
    record = final(snapshot_of(failed, *pods), Excerpt(f"{JOB}-19", "x" * 4096, truncated=True))
    assert len(encode(record, failed).encode()) <= MAX_BYTES
    assert {attempt.image_id for attempt in record.attempts} == {image}


def test_unfinished_job_has_no_actual_cost() -> None:
    view = job_view(snapshot_of(job(), pod(state=running(), conditions=[BOUND])))
    assert view.cost is not None
    assert view.cost.actual is None


def test_actual_cost_is_known_before_the_record() -> None:
    view = job_view(snapshot_of(job(outcome="Complete"), attempt_pod(0, 0)))
    assert view.cost is not None
    assert view.cost.actual == "0.000775"


def test_impossible_hourly_price_costs_at_most_the_ceiling() -> None:
    found = job(outcome="Complete", finished=10_000)
    price = json.loads(found.metadata.annotations[ANNOTATION_COST]) | {"hourly": "999999999999"}
    notes = found.metadata.annotations | {ANNOTATION_COST: json.dumps(price)}
    edited = msgspec.structs.replace(found, metadata=msgspec.structs.replace(found.metadata, annotations=notes))
    snapshot = snapshot_of(edited, pod(state=ended(finished=10_000), conditions=[BOUND]))
    kept = record_of(with_record(edited, final(snapshot)))
    assert kept is not None
    assert (kept.state, kept.actual) == ("succeeded", "0.036706")


def overdue(seconds: float) -> JobSnapshot:
    """Return a failed job whose attempt ended so long after it was bound; the ceiling is an hour's price."""
    found = job(**DEADLINE, finished=5 + seconds, managed=True)
    return snapshot_of(found, pod(state=ended(137, finished=5 + seconds), conditions=[BOUND]))


def test_cost_is_capped_at_the_ceiling_and_the_rest_is_not_charged() -> None:
    snapshot = overdue(3600 + 50)
    record = final(snapshot)
    assert record.actual == "0.036706"
    assert uncharged_cost_of(snapshot.job, record) == Decimal("0.000510")
    within = overdue(1800)
    assert (final(within).actual, uncharged_cost_of(within.job, final(within))) == ("0.018353", Decimal())


def test_budget_charges_recorded_cost_and_the_ceiling_until_it_is_known() -> None:
    snapshot = overdue(1800)
    end = int(moment(1805).timestamp())
    assert charge_of(snapshot.job) == Charge(end, 36_706)
    assert charge_of(with_record(snapshot.job, final(snapshot))) == Charge(end, 18_353)
    unknown = msgspec.structs.replace(final(snapshot), actual=None)
    assert charge_of(with_record(snapshot.job, unknown)) == Charge(end, 36_706)
    dear = msgspec.structs.replace(final(snapshot), actual="99")
    assert charge_of(with_record(snapshot.job, dear)) == Charge(end, 36_706)


@pytest.mark.parametrize(
    "found",
    [
        job(managed=True),
        job(**DEADLINE),
        job(**DEADLINE, managed=True, annotations={ANNOTATION_COST: "edited"}),
        job(managed=True, conditions=[{"type": "Failed", "status": "True"}]),
    ],
    ids=["unfinished", "created outside Runway", "with an edited price", "finished at an unknown time"],
)
def test_job_has_no_charge(found: Job) -> None:
    assert charge_of(found) is None


def test_unseen_attempt_makes_cost_unknown() -> None:
    found = job(outcome="Failed", reason="BackoffLimitExceeded")
    lost = msgspec.structs.replace(found, status=msgspec.structs.replace(found.status, failed=2))
    snapshot = snapshot_of(lost, attempt_pod(1))
    assert missing_attempts(lost, merge_attempts(snapshot, None)) == 1
    assert final(snapshot).actual is None
    both = snapshot_of(lost, attempt_pod(0), attempt_pod(1))
    assert missing_attempts(lost, merge_attempts(both, None)) == 0
    assert final(both).actual is not None


def test_interim_record_has_attempts_about_to_be_deleted() -> None:
    ending = attempt_pod(0, 143, deleted=120)
    assert not needs_interim_record(snapshot_of(job(), attempt_pod(0)), None)
    assert not needs_interim_record(snapshot_of(job(), pod(state=running(), deleted=120)), None)
    snapshot = snapshot_of(job(), ending)
    assert needs_interim_record(snapshot, None)
    record = interim_record(snapshot, None, END, NOW)
    assert [attempt.exit_code for attempt in record.attempts] == [143]
    assert (record.state, record.failure, record.actual) == (None, None, None)
    after = with_record(job(), record)
    assert not needs_interim_record(snapshot_of(after, ending), record)
    gone = snapshot_of(after, ending, gone=[ending.metadata.name])
    assert not needs_interim_record(gone, record)
    assert needs_interim_record(snapshot_of(job(), attempt_pod(0), gone=[f"{JOB}-0"]), None)


def test_recorded_attempts_are_merged_with_pods() -> None:
    first, second = attempt_pod(0, 143, deleted=120), attempt_pod(1, 0)
    record = interim_record(snapshot_of(job(), first), None, END, NOW)
    view = job_view(snapshot_of(with_record(job(), record), second))
    assert [(attempt.pod, attempt.exit_code) for attempt in view.attempts] == [(f"{JOB}-0", 143), (f"{JOB}-1", 0)]
    assert view.started_at == moment(10)
    done = with_record(job(outcome="Complete", finished=300), record)
    last = final(snapshot_of(done, second))
    assert [attempt.pod for attempt in last.attempts] == [f"{JOB}-0", f"{JOB}-1"]
    assert last.actual == "0.001550"
    assert last.excerpt == END


def test_newest_disruptions_are_recorded_and_all_are_counted() -> None:
    pods = [
        pod(f"{JOB}-{n:02}", created=n + 1, state=ended(143, started=n + 10), conditions=[disrupted()], deleted=n + 2)
        for n in range(30)
    ]
    record, seen = None, list[Pod]()
    for number in range(0, 30, 6):
        seen = pods[max(0, number - 10) : number + 6]
        record = interim_record(snapshot_of(job(), *seen), record, None, NOW)
    assert record is not None
    view = job_view(snapshot_of(with_record(job(), record), *seen))
    assert (len(view.attempts), view.attempts_left_out, view.disruptions) == (20, 10, 30)
    assert view.started_at == moment(10)
    assert view.attempts[-1].pod == f"{JOB}-29"
    done = final(snapshot_of(with_record(job(outcome="Complete"), record), *seen))
    assert (done.attempts_left_out, done.disruptions_left_out, done.actual) == (10, 10, None)


def test_failure_can_come_from_a_recorded_attempt() -> None:
    stopped = job(conditions=[condition("FailureTarget", reason="DeadlineExceeded", since=70)], started=10, deadline=60)
    ending = pod(f"{JOB}-0", state=ended(143, started=20, finished=75), conditions=[BOUND], deleted=100, grace=30)
    record = interim_record(snapshot_of(stopped, ending), None, END, NOW)
    failed = with_record(job(**DEADLINE, started=10, deadline=60), record)
    failure = job_view(snapshot_of(failed)).failure
    assert failure is not None
    assert failure.code == "deadline_exceeded"
    assert "ended on SIGTERM" in failure.message
    assert failure.evidence["exit_code"] == "143"
    assert final(snapshot_of(failed)).failure == failure


def test_data_of_the_pod_takes_precedence() -> None:
    record = interim_record(snapshot_of(job(), attempt_pod(0, 1, deleted=120)), None, None, NOW)
    poorer = replace(record.attempts[0], exit_code=None, finished_at=None, node="node-9")
    kept = msgspec.structs.replace(record, attempts=(poorer,))
    (merged,) = merge_attempts(snapshot_of(job(), attempt_pod(0, 137)), kept).attempts
    assert (merged.exit_code, merged.node, merged.finished_at) == (137, "node-1", moment(81))
    # A lagging watch still shows the pod as running.
    (merged,) = merge_attempts(snapshot_of(job(), pod(f"{JOB}-0", state=running())), record).attempts
    assert (merged.exit_code, merged.state) == (1, "failed")
    # Kubernetes deleted the pod before Runway saw its end.
    bare = pod(f"{JOB}-0", phase="Failed", node=None)
    (merged,) = merge_attempts(snapshot_of(job(), bare), record).attempts
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
def test_impossible_record_is_ignored(changes: dict[str, Any]) -> None:
    snapshot = snapshot_of(job(outcome="Failed", reason="BackoffLimitExceeded"), attempt_pod(0, 3))
    changed = with_record(snapshot.job, spoilt(final(snapshot, END), **changes))
    assert record_of(changed) is None
    assert story(job_view(replace(snapshot, job=changed))) == story(job_view(snapshot))
    assert not written_by_newer_version(changed)


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "\ud800", '{"version": 1}', "x" * 20_000, "1" * 5000])
def test_undecodable_record_is_ignored(text: str) -> None:
    changed = with_record(job(outcome="Complete"), text)
    assert record_of(changed) is None
    assert not written_by_newer_version(changed)
    assert had_final_record(changed)


@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 60))
def test_edited_record_never_breaks_the_view(put: bytes, start: int, size: int) -> None:
    snapshot = snapshot_of(job(outcome="Failed", reason="BackoffLimitExceeded"), attempt_pod(0, 3))
    text = encode(final(snapshot, END), snapshot.job).encode()
    changed = (text[:start] + put + text[start + size :]).decode("utf-8", "replace")
    found = replace(snapshot, job=with_record(snapshot.job, changed))
    msgspec.json.encode(job_view(found))
    final(found)
    needs_interim_record(found, record_of(found.job))


def test_record_of_unfinished_job_cannot_be_final() -> None:
    snapshot = snapshot_of(job(outcome="Complete"), attempt_pod(0, 0))
    assert record_of(with_record(job(), encode(final(snapshot), snapshot.job))) is None


def test_record_of_later_version_is_left_unchanged() -> None:
    snapshot = snapshot_of(job(outcome="Complete"), attempt_pod(0, 0))
    later = with_record(snapshot.job, spoilt(final(snapshot), version=VERSION + 1))
    assert written_by_newer_version(later)
    assert record_of(later) is None
    assert not written_by_newer_version(with_record(snapshot.job, final(snapshot)))


def test_changed_outcome_takes_precedence_over_the_record() -> None:
    failed = snapshot_of(job(outcome="Failed", reason="DeadlineExceeded"), attempt_pod(0, 143, deleted=120))
    record = final(failed, END)
    cancelled = with_record(job(outcome="Failed", reason="DeadlineExceeded", cancelled=True), record)
    view = job_view(snapshot_of(cancelled))
    assert (view.state, view.failure) == ("cancelled", None)
    assert view.excerpt == END
    assert [attempt.exit_code for attempt in view.attempts] == [143]
    assert had_final_record(cancelled)
    assert final(snapshot_of(cancelled)).state == "cancelled"


SECRET: AdmittedSpec = spec(env=(("API_TOKEN", "tok-123456"), ("LR", "0.001")))


def test_record_has_no_secret_of_the_environment() -> None:
    words = "cannot log in with tok-123456\nLR=0.001"
    dead = pod(f"{JOB}-0", state=ended(1, message=words), conditions=[BOUND])
    snapshot = snapshot_of(job(outcome="Failed", reason="BackoffLimitExceeded", admitted=SECRET), dead)
    text = encode(final(snapshot, job_view(snapshot).excerpt), snapshot.job)
    assert "tok-123456" not in text
    assert "***" in text
    assert "LR=0.001" in text
    assert "API_TOKEN" not in text
    excerpt = job_view(snapshot).excerpt
    assert excerpt is not None
    assert excerpt.text == "cannot log in with ***\nLR=0.001"


@given(st.text(max_size=5000), st.text(max_size=3000), st.integers(1, 40))
def test_record_is_bounded_for_any_content(log: str, message: str, attempts: int) -> None:
    pods = [
        pod(f"{JOB}-{n}", created=n + 1, phase="Failed", reason="Evicted", message=message * 3, deleted=n + 2)
        for n in range(attempts)
    ]
    snapshot = snapshot_of(job(outcome="Failed", reason="BackoffLimitExceeded", message=message * 5), *pods)
    excerpt = Excerpt("pod", last_lines(log, 1000), truncated=True)
    for record in (final(snapshot, excerpt), interim_record(snapshot, None, excerpt, NOW)):
        found = with_record(snapshot.job, record)
        assert len(encode(record, snapshot.job).encode()) <= MAX_BYTES
        assert record_of(found) == record
        assert len(record.attempts) <= MAX_ATTEMPTS
        assert len(record.attempts) + record.attempts_left_out == attempts
        # The omitted attempts do not make the record due again.
        assert not needs_interim_record(replace(snapshot, job=found), record)


LIVES = st.lists(
    st.tuples(st.integers(0, 25), st.sampled_from(["see", "keep", "forget"]), st.booleans()), min_size=1, max_size=80
)


@given(LIVES)
def test_recording_again_loses_and_repeats_no_attempt(life: list[tuple[int, str, bool]]) -> None:
    """Pods appear, terminate and disappear (a restart), and Runway records at random times."""
    seen, record, kept = dict[str, Pod](), None, set[str]()
    for number, what, deleted in life:
        name = f"{JOB}-{number}"
        if what == "see" and name not in kept:
            seen[name] = attempt_pod(number, deleted=number * 100 + 90 if deleted else None)
        elif what == "forget":
            seen.pop(name, None)
        else:
            snapshot = snapshot_of(
                job(), *sorted(seen.values(), key=lambda item: item.metadata.creation_timestamp or NOW)
            )
            due = needs_interim_record(snapshot, record)
            after = interim_record(snapshot, record, None, NOW)
            kept |= {attempt.pod for attempt in after.attempts}
            assert interim_record(snapshot, after, None, NOW) == after
            assert due or record is None or after.attempts == record.attempts
            record = after
    snapshot = snapshot_of(job(outcome="Complete"), *seen.values())
    known = merge_attempts(snapshot, record)
    names = [attempt.pod for attempt in known.attempts]
    assert len(names) == len(set(names)) == min(len(known.attempts) + known.left_out, MAX_ATTEMPTS)
    once = final_record(snapshot, record, None, None, NOW)
    assert final_record(snapshot, once, None, None, NOW) == once
    assert final_record(snapshot_of(job(outcome="Complete")), once, None, None, NOW).attempts == once.attempts


def test_log_is_not_shown_if_secrets_are_unknown() -> None:
    dead = pod(f"{JOB}-0", state=ended(1, message="cannot log in with tok-123456"), conditions=[BOUND])
    notes = {ANNOTATION_SPEC: "no longer cached", ANNOTATION_SPEC_HASH: "0" * 64}
    snapshot = snapshot_of(job(outcome="Failed", reason="BackoffLimitExceeded", annotations=notes), dead)
    view, record = job_view(snapshot), final(snapshot)
    assert (view.excerpt, record.excerpt) == (None, None)
    assert "tok-123456" not in repr(view)
    assert "tok-123456" not in encode(record, snapshot.job)
    assert view.failure is not None
    assert view.failure.code == "exit_nonzero"


def test_view_redacts_secrets_in_evidence() -> None:
    dead = pod(f"{JOB}-0", state=ended(1, message="cannot log in with tok-123456"), conditions=[BOUND])
    view = job_view(snapshot_of(job(outcome="Failed", reason="BackoffLimitExceeded", admitted=SECRET), dead))
    assert view.failure is not None
    assert view.failure.evidence["last_words"] == "cannot log in with ***"
