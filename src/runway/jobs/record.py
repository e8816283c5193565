"""The record of a job, an annotation that outlives its pods and logs. Pure.

- An interim record of an unfinished job has the attempts whose pods are deleted or about to be.
- A final record of a finished job has the outcome, all attempts, the log excerpt and the actual cost.
- Runway ignores a record that is undecodable, of another Job or impossible: anyone with access can edit annotations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from runway.jobs.annotations import ANNOTATION_CANCELLED_AT, ANNOTATION_RECORD, cost_of, price_of, read_annotation, usd
from runway.jobs.cost import Charge, actual_cost
from runway.jobs.diagnosis.attempts import (
    IMAGE_DIGEST,
    MAX_ATTEMPTS,
    attempts_of,
    container_started,
    disruptions,
)
from runway.jobs.diagnosis.codes import Category, Diagnosis, FailureCode
from runway.jobs.diagnosis.log_hints import with_log_hint
from runway.jobs.diagnosis.outcome import diagnose, failure_of
from runway.jobs.diagnosis.start_timeout import diagnose_start_timeout, start_timeout_of
from runway.jobs.ending import ending_of
from runway.jobs.log_excerpt import EXCERPT_BYTES, excerpt_of, redact, secrets_of
from runway.jobs.models import Attempt, Excerpt, Failure, Usage
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.usage import with_usage
from runway.kube.objects import Job, Pod, is_possible_year
from runway.quantity import micro_usd
from runway.text import LAST_WORDS, end_states, escape

VERSION_0_7: Final = 1
VERSION: Final = 2
"""The version of a record with a code that version 0.7 does not know; others have `VERSION_0_7`.

Version 0.7 overwrites a record with an unknown code, but no record of a later version. So a roll back loses none.
"""
MAX_BYTES: Final = 16 * 1024
"""Bytes of a record. Kubernetes limits all annotations of an object together to 256 KiB.

https://kubernetes.io/docs/concepts/overview/working-with-objects/annotations/
"""
_MAX_TEXT: Final = 1024  # Characters of one text of a record, other than the excerpt and the termination message.
_UNKNOWN: Final = datetime.min.replace(tzinfo=UTC)  # Sorts attempts without a creation time first.
_CODES: Final = {str(code): code for code in FailureCode}
_CODES_SINCE_0_8: Final = frozenset(
    {
        FailureCode.DISRUPTED_TOO_OFTEN, FailureCode.GPU_HARDWARE, FailureCode.GPU_IDLE,
        FailureCode.OTHER_CONTAINER_FAILED, FailureCode.OTHER_CONTAINER_RUNNING, FailureCode.POD_CREATION_FAILED,
        FailureCode.SECRET_MISSING,
        FailureCode.SHARED_MEMORY_EXCEEDED, FailureCode.START_TIMEOUT, FailureCode.VOLUME_MISSING,
        FailureCode.VOLUME_MOUNT_FAILED, FailureCode.VOLUME_NOT_BOUND, FailureCode.VOLUME_ZONE_CONFLICT,
    }
)  # fmt: skip
_ENDED: Final = frozenset({"succeeded", "failed"})

FinalState = Literal["succeeded", "failed", "cancelled"]


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """The record of a job. `state` and the fields after it are set in a final record only."""

    version: int
    uid: str
    """The Job's uid, to detect a record that was copied from another Job."""
    kept_at: datetime
    attempts: tuple[Attempt, ...] = ()
    attempts_left_out: int = 0
    """The number of older attempts, and of disruptions among them."""
    disruptions_left_out: int = 0
    started_at: datetime | None = None
    """The start of the first of all attempts."""
    excerpt: Excerpt | None = None
    state: FinalState | None = None
    failure: Failure | None = None
    actual: str | None = None
    """USD; None if unknown."""
    usage: Usage | None = None
    finished_at: datetime | None = None


class _Head(msgspec.Struct, frozen=True):
    version: int = 0


class AttemptHistory(msgspec.Struct, frozen=True):
    """All known attempts of a job, from its record and its pods, oldest first."""

    attempts: tuple[Attempt, ...]
    left_out: int
    disruptions_left_out: int
    started_at: datetime | None
    """The start of the first of all attempts."""

    @property
    def disruptions(self) -> int:
        """The number of attempts that the cluster ended, which do not count against the retries."""
        return disruptions(self.attempts) + self.disruptions_left_out


_decoder = msgspec.json.Decoder(Record)
_head_decoder = msgspec.json.Decoder(_Head)


def record_of(job: Job) -> Record | None:
    """Return the valid record of a Job, or None."""
    text = job.metadata.annotations.get(ANNOTATION_RECORD)
    if text is None or len(text) > MAX_BYTES:
        return None
    record = read_annotation(_decoder, text)
    if record is None or not _is_valid(record, job):
        return None
    record = _escaped(record)
    if record.state not in (None, terminal_state(job)):
        # The outcome has changed since, as after a late cancel. The attempts are still valid.
        return msgspec.structs.replace(record, state=None, failure=None, finished_at=None)
    return record


def written_by_newer_version(job: Job) -> bool:
    """Return whether a later version of Runway wrote the record."""
    head = read_annotation(_head_decoder, job.metadata.annotations.get(ANNOTATION_RECORD))
    return head is not None and head.version > VERSION


def had_final_record(job: Job) -> bool:
    """Return whether the Job ever had a final record, even one that was edited since: the job has been counted."""
    text = job.metadata.annotations.get(ANNOTATION_RECORD)
    if text is None:
        return False
    record = read_annotation(_decoder, text)
    return record is None or record.state is not None


def terminal_state(job: Job) -> FinalState | None:
    """Return the final state of a job; None if Kubernetes has not completed or failed it."""
    if job.condition("Complete"):
        return "succeeded"
    if job.condition("Failed"):
        return "cancelled" if ANNOTATION_CANCELLED_AT in job.metadata.annotations else "failed"
    return None


def merge_attempts(snapshot: JobSnapshot, earlier: Record | None) -> AttemptHistory:
    """Merge the attempts of the record with those of the pods; a pod's own data takes precedence."""
    seen = attempts_of(snapshot)
    if earlier is None:
        return _newest(seen)
    by_pod = {attempt.pod: attempt for attempt in earlier.attempts}
    for attempt in seen:
        if attempt.pod in by_pod:
            by_pod[attempt.pod] = _merge_attempt(attempt, by_pod[attempt.pod])
        elif not _left_out(earlier, attempt.created_at):
            by_pod[attempt.pod] = attempt
    known = _newest(by_pod.values())
    return AttemptHistory(
        known.attempts,
        known.left_out + earlier.attempts_left_out,
        known.disruptions_left_out + earlier.disruptions_left_out,
        min((time for time in (known.started_at, earlier.started_at) if time), default=None),
    )


def needs_interim_record(snapshot: JobSnapshot, earlier: Record | None) -> bool:
    """Return whether the record lacks an attempt whose pod is deleted or about to be."""
    names = {attempt.pod for attempt in earlier.attempts} if earlier else set()
    return any(
        _is_disappearing(snapshot, pod)
        and pod.metadata.name not in names
        and not (earlier and _left_out(earlier, pod.metadata.creation_timestamp))
        for pod in snapshot.pods
    )


def missing_attempts(job: Job, known: AttemptHistory) -> int:
    """Return the number of attempts that Kubernetes has counted, but Runway does not know."""
    return max(0, job.status.failed + job.status.succeeded - len(known.attempts) - known.left_out)


def interim_record(snapshot: JobSnapshot, earlier: Record | None, excerpt: Excerpt | None, now: datetime) -> Record:
    """Make the record of an unfinished job: its recorded attempts, and those whose pods are about to be deleted."""
    names = {attempt.pod for attempt in earlier.attempts} if earlier else set()
    names |= {pod.metadata.name for pod in snapshot.pods if _is_disappearing(snapshot, pod)}
    record = _base_record(snapshot, earlier, merge_attempts(snapshot, earlier), excerpt, now)
    attempts = tuple(attempt for attempt in record.attempts if attempt.pod in names)
    return _limit_size(msgspec.structs.replace(record, attempts=attempts), snapshot.job)


def final_record(
    snapshot: JobSnapshot, earlier: Record | None, excerpt: Excerpt | None, usage: Usage | None, now: datetime
) -> Record:
    known = merge_attempts(snapshot, earlier)
    record = _base_record(snapshot, earlier, known, excerpt, now)
    condition = snapshot.job.condition("Complete") or snapshot.job.condition("Failed")
    usage, failure = usage or record.usage, failure_from_history(snapshot, known, record.excerpt)
    final = msgspec.structs.replace(
        record,
        state=terminal_state(snapshot.job),
        failure=with_usage(failure, usage) if failure and usage else failure,
        actual=actual_cost_of(snapshot.job, known),
        usage=usage,
        finished_at=condition.last_transition_time if condition else None,
    )
    return _limit_size(final, snapshot.job)


def _base_record(
    snapshot: JobSnapshot, earlier: Record | None, known: AttemptHistory, excerpt: Excerpt | None, now: datetime
) -> Record:
    return Record(
        version=VERSION_0_7,
        uid=snapshot.job.metadata.uid,
        kept_at=now,
        attempts=known.attempts,
        attempts_left_out=known.left_out,
        disruptions_left_out=known.disruptions_left_out,
        started_at=known.started_at,
        excerpt=excerpt or (earlier.excerpt if earlier else None),
        usage=earlier.usage if earlier else None,
    )


def failure_from_history(snapshot: JobSnapshot, known: AttemptHistory, excerpt: Excerpt | None) -> Failure | None:
    """Diagnose the failure from the pods, or from the recorded attempt if the pod that failed no longer exists.

    The hint from the log is that of the attempt that failed the job.
    """
    failure = diagnose(snapshot)
    failed = snapshot.job.condition("Failed")
    if failure is None or failed is None or not known.attempts:
        return failure
    evidence = {name: value for name, value in failure.evidence.items() if name in ("job_reason", "job_message")}
    if failed.reason == "DeadlineExceeded" and ending_of(snapshot.job) is not None:
        return failure
    timeout = start_timeout_of(snapshot.job) if failed.reason == "DeadlineExceeded" else None
    if timeout is not None:
        if known.started_at is None or failure.code is FailureCode.START_TIMEOUT:
            return failure
        return failure_of(diagnose_start_timeout(timeout, started=True), evidence)
    counted = [attempt for attempt in known.attempts if attempt.counted]
    blamed = counted[-1] if counted and failed.reason != "DeadlineExceeded" else known.attempts[-1]
    if blamed.cause is not None and all(pod.metadata.name != blamed.pod for pod in snapshot.pods):
        failure = _failure_of_recorded(blamed, blamed.cause, evidence)
    if excerpt is None or excerpt.pod != blamed.pod:
        return failure
    return with_log_hint(_with_longer_last_words(failure, excerpt.text), excerpt.text)


def _with_longer_last_words(failure: Failure, text: str) -> Failure:
    """Take the last words from the log if a progress bar filled the termination message."""
    words, longer = failure.evidence.get("last_words"), text[-LAST_WORDS:]
    if words is None or len(longer) <= len(words) or not longer.rstrip().endswith(words.rstrip()):
        return failure
    return replace(failure, evidence=failure.evidence | {"last_words": longer})


def _failure_of_recorded(blamed: Attempt, cause: str, evidence: dict[str, str]) -> Failure:
    if blamed.exit_code is not None:
        evidence["exit_code"] = str(blamed.exit_code)
    return failure_of(Diagnosis(_CODES[cause], blamed.message or "", evidence), {})


def actual_cost_of(job: Job, known: AttemptHistory) -> str | None:
    """Return the actual cost in USD, at most the ceiling; None if an attempt or one of its times is unknown."""
    cost = cost_of(job)
    if cost is None or known.left_out or missing_attempts(job, known):
        return None
    amount = actual_cost(Decimal(cost.hourly), known.attempts)
    return None if amount is None else f"{min(amount, Decimal(cost.ceiling)):f}"


def uncharged_cost_of(job: Job, record: Record) -> Decimal:
    """Return what the recorded attempts cost beyond the ceiling, in USD: the tenant is not charged for it."""
    cost = cost_of(job)
    amount = None if cost is None or record.actual is None else actual_cost(Decimal(cost.hourly), record.attempts)
    return Decimal() if cost is None or amount is None else max(Decimal(), amount - Decimal(cost.ceiling))


def finish_second(job: Job) -> int | None:
    """Return when Kubernetes finished the Job, in seconds since 1970; None before, and without a readable time."""
    condition = job.condition("Complete") or job.condition("Failed")
    moment = condition.last_transition_time if condition else None
    return None if moment is None else int(moment.timestamp())


def charge_of(job: Job) -> Charge | None:
    """Return what a finished job counts in a budget: its recorded cost, or its ceiling until that is known.

    The Job alone decides, so every process has the same charge.
    """
    finished, price = finish_second(job), price_of(job)
    if finished is None or price is None:
        return None
    record = record_of(job)
    actual = record.actual if record is not None else None
    return Charge(finished, price.ceiling if actual is None else min(micro_usd(actual), price.ceiling))


def last_started_pod(snapshot: JobSnapshot) -> Pod | None:
    """Return the last attempt that ended and has a log."""
    return next((pod for pod in reversed(snapshot.pods) if container_started(pod) and snapshot.has_ended(pod)), None)


def excerpt_from_status(snapshot: JobSnapshot) -> Excerpt | None:
    """Return the excerpt from the termination message of the last attempt that started."""
    pod = last_started_pod(snapshot)
    ended = pod.container.terminated if pod else None
    if pod is None or ended is None or ended.termination_message is None:
        return None
    return excerpt_of(pod.metadata.name, ended.termination_message, secrets_of(snapshot.job))


def status_has_progress_bar(snapshot: JobSnapshot) -> bool:
    """Return whether a progress bar fills the termination message, which has only the last 2 KiB of the log."""
    pod = last_started_pod(snapshot)
    ended = pod.container.terminated if pod else None
    message = (ended.termination_message if ended else None) or ""
    return len(end_states(message)) < len(message.replace("\r\n", "\n")) // 2


def encode(record: Record, job: Job) -> str:
    """Encode the annotation for this Job. Raises ValueError for a record that `record_of` would ignore."""
    if not _is_valid(record, job):
        raise ValueError("the record is not valid")
    return _text(record)


def _is_disappearing(snapshot: JobSnapshot, pod: Pod) -> bool:
    gone = pod.metadata.name in snapshot.deleted_pods
    return gone or (pod.is_terminal and pod.metadata.deletion_timestamp is not None)


def _left_out(earlier: Record, created: datetime | None) -> bool:
    oldest = min((attempt.created_at for attempt in earlier.attempts if attempt.created_at), default=None)
    return earlier.attempts_left_out > 0 and oldest is not None and created is not None and created < oldest


def _merge_attempt(seen: Attempt, earlier: Attempt) -> Attempt:
    if seen.state not in _ENDED:
        return earlier
    names = (
        "node", "exit_code", "signal", "reason", "created_at", "bound_at", "started_at", "finished_at", "message",
        "image_id",
    )  # fmt: skip
    missing = {name: getattr(earlier, name) for name in names if getattr(seen, name) is None}
    return replace(seen, **missing, cause=seen.cause or earlier.cause)


def _newest(attempts: Iterable[Attempt]) -> AttemptHistory:
    in_order = sorted(attempts, key=lambda attempt: (attempt.created_at or _UNKNOWN, attempt.pod))
    older, newest = in_order[:-MAX_ATTEMPTS], in_order[-MAX_ATTEMPTS:]
    started_at = min((attempt.started_at for attempt in in_order if attempt.started_at), default=None)
    return AttemptHistory(tuple(newest), len(older), disruptions(older), started_at)


def _is_valid(record: Record, job: Job) -> bool:
    excerpt, failure = record.excerpt, record.failure
    times = [record.kept_at, record.started_at, record.finished_at, record.usage.sampled_at if record.usage else None]
    for attempt in record.attempts:
        times += [attempt.created_at, attempt.bound_at, attempt.started_at, attempt.finished_at]
    return (
        record.version in (VERSION_0_7, VERSION)
        and record.uid == job.metadata.uid
        and (record.state is None or job.finished)
        and (record.actual is None or usd(record.actual) is not None)
        and len(record.attempts) <= MAX_ATTEMPTS
        and 0 <= record.disruptions_left_out <= record.attempts_left_out < 1_000_000
        and all(attempt.state in _ENDED for attempt in record.attempts)
        and all(-(2**31) <= (attempt.exit_code or 0) < 2**31 for attempt in record.attempts)
        and all(attempt.cause is None or attempt.cause in _CODES for attempt in record.attempts)
        and (failure is None or (failure.code in _CODES and failure.category in list(Category)))
        and all(time is None or (time.tzinfo is not None and is_possible_year(time.year)) for time in times)
        and (record.usage is None or record.usage.is_possible)
        and (excerpt is None or len(excerpt.text.encode("utf-8", "replace")) <= EXCERPT_BYTES)
    )


def _escaped(record: Record) -> Record:
    """Escape control characters: anyone with access can edit the annotation."""
    excerpt, failure = record.excerpt, record.failure
    return msgspec.structs.replace(
        record,
        attempts=tuple(_escaped_attempt(attempt) for attempt in record.attempts),
        excerpt=excerpt and replace(excerpt, pod=escape(excerpt.pod), text=escape(excerpt.text, keep="\n\t")),
        failure=failure
        and replace(
            failure,
            message=escape(failure.message),
            hint=escape(failure.hint),
            evidence={escape(name): escape(text, keep="\n\t") for name, text in failure.evidence.items()},
        ),
    )


def _escaped_attempt(attempt: Attempt) -> Attempt:
    texts: dict[str, Any] = {}
    for name in ("pod", "node", "signal", "reason", "message"):
        text = getattr(attempt, name)
        if text is not None and not text.isprintable():
            texts[name] = escape(text)
    if attempt.image_id is not None and not IMAGE_DIGEST.fullmatch(attempt.image_id):
        texts["image_id"] = None
    return replace(attempt, **texts) if texts else attempt


def _limit_size(record: Record, job: Job) -> Record:
    """Redact secrets, then drop the least useful parts until the record is small enough."""
    secrets = secrets_of(job)
    record = msgspec.structs.replace(
        record,
        attempts=tuple(_without_secrets(attempt, secrets) for attempt in record.attempts),
        failure=record.failure and failure_without_secrets(record.failure, secrets),
    )
    while len(_text(record).encode()) > MAX_BYTES:
        record = _shrink(record)
    codes = {attempt.cause for attempt in record.attempts} | {record.failure.code if record.failure else None}
    return record if codes.isdisjoint(_CODES_SINCE_0_8) else msgspec.structs.replace(record, version=VERSION)


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
    """Redact secrets; if they are unknown, drop the end of the log."""
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
    """Redact and keep the end: the most useful part of a message or log is its end."""
    return redact(text, secrets or ())[-most:]
