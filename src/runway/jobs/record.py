"""The record of a job, kept on the Job itself as an annotation: what pods, logs and events would take away with them.

While a job lives it holds the attempts whose pods are gone or were told to end. Once the job is over it is final, and
holds the verdict, every attempt, the end of the log and the actual cost. Pure.

A record that cannot be read, is not of this very Job or cannot be true is ignored: whoever may write annotations can
change one, but cannot make Runway fail by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from runway.jobs.actual_cost import actual_cost
from runway.jobs.annotations import cost_of, read_annotation, usd
from runway.jobs.diagnosis.attempt_failure import container_started
from runway.jobs.diagnosis.attempts import MAX_ATTEMPTS, Attempt, attempts_of, disruptions
from runway.jobs.diagnosis.codes import Diagnosis, Failure, failure_of
from runway.jobs.diagnosis.outcome import diagnose
from runway.jobs.identity import ANNOTATION_CANCELLED_AT, ANNOTATION_RECORD
from runway.jobs.log_excerpt import EXCERPT_BYTES, Excerpt, excerpt_of, redact, secrets_of
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.usage import Usage, with_usage
from runway.kube.objects import Job, Pod, is_possible_year
from runway.text import visible

VERSION: Final = 1
MAX_BYTES: Final = 16 * 1024
"""Of the whole record; all annotations of an object together may have 256 KiB.

https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
"""
_MAX_TEXT: Final = 1024
"""Characters of any one text in a record but the excerpt and the last words."""
_ENDED: Final = frozenset({"succeeded", "failed"})

Over = Literal["succeeded", "failed", "cancelled"]


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is kept of a job. `state` is None until it is over; the fields after it belong to the end."""

    version: int
    uid: str
    """The Job's: a record that was copied from another Job says nothing of this one."""
    kept_at: datetime
    attempts: tuple[Attempt, ...] = ()
    attempts_left_out: int = 0
    """Older attempts than those, and how many of them were disruptions."""
    disruptions_left_out: int = 0
    started_at: datetime | None = None
    """When the first of all attempts started."""
    excerpt: Excerpt | None = None
    state: Over | None = None
    failure: Failure | None = None
    actual: str | None = None
    """USD; None where it cannot be known."""
    usage: Usage | None = None
    finished_at: datetime | None = None


class _Head(msgspec.Struct, frozen=True):
    """What every version of a record has."""

    version: int = 0


class AttemptHistory(msgspec.Struct, frozen=True):
    """Everything known of a job's attempts: those that are kept and those that can be seen, oldest first."""

    attempts: tuple[Attempt, ...]
    left_out: int
    disruptions_left_out: int
    started_at: datetime | None
    """When the first of all started."""

    @property
    def total(self) -> int:
        """How many attempts there were, as far as is known."""
        return len(self.attempts) + self.left_out

    @property
    def disruptions(self) -> int:
        """How many of them the cluster ended; they do not count against the retries."""
        return disruptions(self.attempts) + self.disruptions_left_out


_decoder = msgspec.json.Decoder(Record)
_head_decoder = msgspec.json.Decoder(_Head)


def record_of(job: Job) -> Record | None:
    """The record that is kept on a Job; None where there is none that can be used."""
    text = job.metadata.annotations.get(ANNOTATION_RECORD)
    if text is None or len(text) > MAX_BYTES:
        return None
    record = read_annotation(_decoder, text)
    if record is None or not _is_valid(record, job):
        return None
    record = _escaped(record)
    if record.state not in (None, terminal_state(job)):
        # Written before the verdict became another one, as by a cancel that came too late: what was seen still holds.
        return msgspec.structs.replace(record, state=None, failure=None, finished_at=None)
    return record


def written_by_newer_version(job: Job) -> bool:
    """Whether the record was written by a later version of Runway, which knew better."""
    head = read_annotation(_head_decoder, job.metadata.annotations.get(ANNOTATION_RECORD))
    return head is not None and head.version > VERSION


def had_final_record(job: Job) -> bool:
    """Whether a final record was kept on this Job before, whatever has become of it: it has been counted."""
    text = job.metadata.annotations.get(ANNOTATION_RECORD)
    if text is None:
        return False
    record = read_annotation(_decoder, text)
    return record is None or record.state is not None


def terminal_state(job: Job) -> Over | None:
    """What Kubernetes, and whoever cancelled the job, made of it; None before."""
    if job.condition("Complete"):
        return "succeeded"
    if job.condition("Failed"):
        return "cancelled" if ANNOTATION_CANCELLED_AT in job.metadata.annotations else "failed"
    return None


def merge_attempts(case: JobSnapshot, kept: Record | None) -> AttemptHistory:
    """The attempts that are kept and those that can be seen, one by one: what is seen wins where it knows more."""
    seen = attempts_of(case)
    if kept is None:
        return _newest(seen)
    by_pod = {attempt.pod: attempt for attempt in kept.attempts}
    for attempt in seen:
        if attempt.pod in by_pod:
            by_pod[attempt.pod] = _merge_attempt(attempt, by_pod[attempt.pod])
        elif not _left_out(kept, attempt.created_at):
            by_pod[attempt.pod] = attempt
    known = _newest(by_pod.values())
    return AttemptHistory(
        known.attempts,
        known.left_out + kept.attempts_left_out,
        known.disruptions_left_out + kept.disruptions_left_out,
        min((time for time in (known.started_at, kept.started_at) if time), default=None),
    )


def needs_interim_record(case: JobSnapshot, kept: Record | None) -> bool:
    """Whether there is an attempt that cannot be seen for much longer, and is not kept yet."""
    names = {attempt.pod for attempt in kept.attempts} if kept else set()
    return any(
        _is_disappearing(case, pod)
        and pod.metadata.name not in names
        and not (kept and _left_out(kept, pod.metadata.creation_timestamp))
        for pod in case.pods
    )


def missing_attempts(job: Job, known: AttemptHistory) -> int:
    """How many attempts Kubernetes has counted that nothing is known of."""
    return max(0, job.status.failed + job.status.succeeded - known.total)


def interim_record(case: JobSnapshot, kept: Record | None, excerpt: Excerpt | None, now: datetime) -> Record:
    """The record of a job that is not over: the attempts that are kept, and those that are about to go."""
    names = {attempt.pod for attempt in kept.attempts} if kept else set()
    names |= {pod.metadata.name for pod in case.pods if _is_disappearing(case, pod)}
    known = merge_attempts(case, kept)
    attempts = [attempt for attempt in known.attempts if attempt.pod in names]
    return _limit_size(
        Record(
            version=VERSION,
            uid=case.job.metadata.uid,
            kept_at=now,
            attempts=tuple(attempts),
            attempts_left_out=known.left_out,
            disruptions_left_out=known.disruptions_left_out,
            started_at=known.started_at,
            excerpt=excerpt or (kept.excerpt if kept else None),
            usage=kept.usage if kept else None,
        ),
        case.job,
    )


def final_record(
    case: JobSnapshot, kept: Record | None, excerpt: Excerpt | None, usage: Usage | None, now: datetime
) -> Record:
    """The record of a job that is over."""
    known = merge_attempts(case, kept)
    verdict = case.job.condition("Complete") or case.job.condition("Failed")
    usage = usage or (kept.usage if kept else None)
    failure = failure_from_history(case, known)
    return _limit_size(
        Record(
            version=VERSION,
            uid=case.job.metadata.uid,
            kept_at=now,
            attempts=known.attempts,
            attempts_left_out=known.left_out,
            disruptions_left_out=known.disruptions_left_out,
            started_at=known.started_at,
            excerpt=excerpt or (kept.excerpt if kept else None),
            state=terminal_state(case.job),
            failure=with_usage(failure, usage) if failure and usage else failure,
            actual=actual_cost_of(case.job, known),
            usage=usage,
            finished_at=verdict.last_transition_time if verdict else None,
        ),
        case.job,
    )


def failure_from_history(case: JobSnapshot, known: AttemptHistory) -> Failure | None:
    """The verdict, from what can be seen; from the kept attempt where the one to blame cannot be seen any more."""
    failure = diagnose(case)
    failed = case.job.condition("Failed")
    if failure is None or failed is None or not known.attempts:
        return failure
    counted = [attempt for attempt in known.attempts if attempt.counted]
    blamed = counted[-1] if counted and failed.reason != "DeadlineExceeded" else known.attempts[-1]
    if blamed.cause is None or any(pod.metadata.name == blamed.pod for pod in case.pods):
        return failure
    evidence = {name: value for name, value in failure.evidence.items() if name in ("job_reason", "job_message")}
    if blamed.exit_code is not None:
        evidence["exit_code"] = str(blamed.exit_code)
    return failure_of(Diagnosis(blamed.cause, blamed.message or "", evidence), {})


def actual_cost_of(job: Job, known: AttemptHistory) -> str | None:
    """What the job cost, in USD; None where an attempt or a time of it is not known."""
    cost = cost_of(job)
    hourly = usd(cost.hourly) if cost else None
    if hourly is None or known.left_out or missing_attempts(job, known):
        return None
    amount = actual_cost(hourly, known.attempts)
    text = "" if amount is None else f"{amount:f}"
    # An hourly price that was edited by hand can make more of it than a record may hold.
    return text if usd(text) is not None else None


def last_started_pod(case: JobSnapshot) -> Pod | None:
    """The last attempt that has ended and has a log."""
    return next((pod for pod in reversed(case.pods) if container_started(pod) and case.has_ended(pod)), None)


def excerpt_from_status(case: JobSnapshot) -> Excerpt | None:
    """What the status of the last attempt that ran holds of the end of its log."""
    pod = last_started_pod(case)
    ended = pod.container.terminated if pod else None
    if pod is None or ended is None or ended.termination_message is None:
        return None
    return excerpt_of(pod.metadata.name, ended.termination_message, secrets_of(case.job))


def encode(record: Record, job: Job) -> str:
    """The text of the annotation for this Job. Raises ValueError for one that would be ignored when it is read."""
    if not _is_valid(record, job):
        raise ValueError("the record cannot be true")
    return _text(record)


def _is_disappearing(case: JobSnapshot, pod: Pod) -> bool:
    """Whether an attempt has ended and its pod is gone, or will be as soon as everyone has seen its end."""
    gone = pod.metadata.name in case.deleted_pods
    return gone or (pod.is_terminal and pod.metadata.deletion_timestamp is not None)


def _left_out(kept: Record, created: datetime | None) -> bool:
    """Whether an attempt of that age is one of those that the record had no room for."""
    oldest = min((attempt.created_at for attempt in kept.attempts if attempt.created_at), default=None)
    return kept.attempts_left_out > 0 and oldest is not None and created is not None and created < oldest


def _merge_attempt(seen: Attempt, kept: Attempt) -> Attempt:
    if seen.state not in _ENDED:
        return kept
    names = ("node", "exit_code", "signal", "reason", "created_at", "bound_at", "started_at", "finished_at", "message")
    missing = {name: getattr(kept, name) for name in names if getattr(seen, name) is None}
    return replace(seen, **missing, cause=seen.cause or kept.cause)


def _newest(attempts: Iterable[Attempt]) -> AttemptHistory:
    in_order = sorted(attempts, key=_order)
    older, newest = in_order[:-MAX_ATTEMPTS], in_order[-MAX_ATTEMPTS:]
    started_at = min((attempt.started_at for attempt in in_order if attempt.started_at), default=None)
    return AttemptHistory(tuple(newest), len(older), disruptions(older), started_at)


def _order(attempt: Attempt) -> tuple[bool, float, str]:
    created = attempt.created_at
    return created is not None, created.timestamp() if created else 0.0, attempt.pod


def _is_valid(record: Record, job: Job) -> bool:
    """Whether a record that could be read can be true, and does no harm where times are compared."""
    excerpt = record.excerpt
    times = [record.kept_at, record.started_at, record.finished_at, record.usage.sampled_at if record.usage else None]
    for attempt in record.attempts:
        times += [attempt.created_at, attempt.bound_at, attempt.started_at, attempt.finished_at]
    return (
        (record.version, record.uid) == (VERSION, job.metadata.uid)
        and (record.state is None or job.finished)
        and (record.actual is None or usd(record.actual) is not None)
        and len(record.attempts) <= MAX_ATTEMPTS
        and 0 <= record.disruptions_left_out <= record.attempts_left_out < 1_000_000
        and all(attempt.state in _ENDED and _is_exit_code(attempt.exit_code) for attempt in record.attempts)
        and all(time is None or (time.tzinfo is not None and is_possible_year(time.year)) for time in times)
        and (record.usage is None or record.usage.is_possible)
        and (excerpt is None or len(excerpt.text.encode("utf-8", "replace")) <= EXCERPT_BYTES)
    )


def _is_exit_code(code: int | None) -> bool:
    return code is None or -(2**31) <= code < 2**31


def _escaped(record: Record) -> Record:
    """The record with nothing in its texts that hides text or steers a terminal: it can have been changed by hand."""
    excerpt, failure = record.excerpt, record.failure
    return msgspec.structs.replace(
        record,
        attempts=tuple(_escaped_attempt(attempt) for attempt in record.attempts),
        excerpt=excerpt and replace(excerpt, pod=visible(excerpt.pod), text=visible(excerpt.text, keep="\n\t")),
        failure=failure
        and replace(
            failure,
            message=visible(failure.message),
            hint=visible(failure.hint),
            evidence={visible(name): visible(text, keep="\n\t") for name, text in failure.evidence.items()},
        ),
    )


def _escaped_attempt(attempt: Attempt) -> Attempt:
    texts: dict[str, Any] = {}
    for name in ("pod", "node", "signal", "reason", "message"):
        text = getattr(attempt, name)
        if text is not None and not text.isprintable():
            texts[name] = visible(text)
    return replace(attempt, **texts) if texts else attempt


def _limit_size(record: Record, job: Job) -> Record:
    """The record without secrets, and small enough: of what is too much, the least telling goes first."""
    secrets = secrets_of(job)
    record = msgspec.structs.replace(
        record,
        attempts=tuple(_without_secrets(attempt, secrets) for attempt in record.attempts),
        failure=record.failure and failure_without_secrets(record.failure, secrets),
    )
    while len(_text(record).encode()) > MAX_BYTES:
        record = _shrink(record)
    return record


def _shrink(record: Record) -> Record:
    excerpt, failure = record.excerpt, record.failure
    if excerpt is not None and len(excerpt.text) > _MAX_TEXT:
        halved = replace(excerpt, text=excerpt.text[-(len(excerpt.text) // 2) :], truncated=True)
        return msgspec.structs.replace(record, excerpt=halved)
    if len(record.attempts) > 1:
        return msgspec.structs.replace(
            record,
            attempts=record.attempts[1:],
            attempts_left_out=record.attempts_left_out + 1,
            disruptions_left_out=record.disruptions_left_out + disruptions(record.attempts[:1]),
        )
    if failure is not None and failure.evidence:
        return msgspec.structs.replace(record, failure=replace(failure, evidence={}))
    return msgspec.structs.replace(record, attempts=(), excerpt=None, usage=None)


def _without_secrets(attempt: Attempt, secrets: Sequence[str] | None) -> Attempt:
    message, reason = attempt.message, attempt.reason
    return replace(
        attempt,
        message=None if message is None else _redact_and_truncate(message, secrets),
        reason=None if reason is None else reason[:_MAX_TEXT],
    )


def failure_without_secrets(failure: Failure, secrets: Sequence[str] | None) -> Failure:
    """The failure with `***` for each secret; without the end of the log where the secrets are not known."""
    evidence = {
        name: _redact_and_truncate(value, secrets, 2 * _MAX_TEXT)
        for name, value in failure.evidence.items()
        if secrets is not None or name != "last_words"
    }
    message, hint = _redact_and_truncate(failure.message, secrets), _redact_and_truncate(failure.hint, secrets)
    return replace(failure, message=message, hint=hint, evidence=evidence)


def _text(record: Record) -> str:
    return msgspec.json.encode(record).decode()


def _redact_and_truncate(text: str, secrets: Sequence[str] | None, most: int = _MAX_TEXT) -> str:
    """The end of a text, without secrets: a message ends with what matters, and a log with what happened last."""
    return redact(text, secrets or ())[-most:]
