"""The verdict on a failed job. Pure, from everything that is known of it.

Precedence, first match wins:

1. Kubernetes has not failed the Job, or the job was cancelled: no failure.
2. The Job failed by its deadline:
   a. an attempt ran when the deadline came: `deadline_exceeded`, whatever exit code its SIGTERM caused;
   b. an attempt had run before and was not taken away: `deadline_exceeded`, with what the job waited for since;
   c. otherwise the job never got to run: what kept its last attempt from it is the code;
   d. no pod was ever created: why Kubernetes refused it;
   e. `deadline_exceeded`, where Kubernetes says nothing more.
3. The Job failed by its attempts: the last attempt that counted is to blame, by the precedence of `causes`.
4. There is no attempt to look at: why Kubernetes refused the pod.
5. Anything else: `unknown`, with Kubernetes' own words as evidence.
"""

from __future__ import annotations

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.attempt_failure import (
    NEVER_STARTED,
    AttemptFailure,
    attempt_failure,
    container_started,
    counts_against_retries,
    deadline_of,
    termination_reason,
)
from runway.jobs.diagnosis.codes import Diagnosis, Failure, FailureCode, failure_of
from runway.jobs.diagnosis.container_start import diagnose_container_start, diagnose_pod_creation
from runway.jobs.diagnosis.disruption import disruption, disruption_of
from runway.jobs.identity import ANNOTATION_CANCELLED_AT
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Condition
from runway.text import one_line


def diagnose(case: JobSnapshot) -> Failure | None:
    """The verdict on this job; None unless Kubernetes has failed it, and nobody cancelled it."""
    failed = case.job.condition("Failed")
    if failed is None or ANNOTATION_CANCELLED_AT in case.job.metadata.annotations:
        return None
    evidence = {"job_reason": one_line(failed.reason), "job_message": one_line(failed.message)}
    finding = _by_deadline(case) if failed.reason == "DeadlineExceeded" else _by_attempts(case)
    return failure_of(finding or _unknown(failed), evidence)


def _by_deadline(case: JobSnapshot) -> Diagnosis:
    last = case.pods[-1] if case.pods else None
    for pod in reversed(case.pods):
        if container_started(pod) and termination_reason(case, pod) == "deadline":
            return deadline_of(case, pod)
    if last is None:
        return _kept_from_running(diagnose_pod_creation(case), "before it could start")
    if any(container_started(pod) and disruption(pod) is None for pod in case.pods):
        return _between_attempts(case)
    if (kept := diagnose_container_start(case, last)) is not None:
        return _kept_from_running(
            kept, "before it could run" + (" again" if any(map(container_started, case.pods)) else "")
        )
    cause = attempt_failure(case, last)
    found = disruption_of(last, case.node_of(last)) or (cause.finding if cause else None)
    return _kept_from_running(found, "and its attempt had not been replaced")


def _by_attempts(case: JobSnapshot) -> Diagnosis | None:
    counted = [pod for pod in case.pods if counts_against_retries(pod)]
    blamed = counted[-1] if counted else case.pods[-1] if case.pods else None
    if blamed is None:
        return diagnose_pod_creation(case)
    cause = attempt_failure(case, blamed)
    if cause is None or cause.finding is None:
        return None
    found = cause.finding
    return Diagnosis(found.code, found.message, {**found.evidence, "counted_attempts": str(len(counted))}, found.hint)


def _between_attempts(case: JobSnapshot) -> Diagnosis:
    last = case.pods[-1]
    kept = diagnose_container_start(case, last) or diagnose_pod_creation(case, last.metadata.creation_timestamp)
    cause = AttemptFailure(kept.message, kept) if kept else attempt_failure(case, last)
    since = f": {cause.message}" if cause else ""
    spec = spec_of(case.job)
    timeout = f" of {spec.timeout_seconds} s" if spec else ""
    evidence = dict(cause.finding.evidence) if cause and cause.finding else {}
    if spec is not None:
        evidence["timeout_seconds"] = str(spec.timeout_seconds)
    return Diagnosis(
        FailureCode.DEADLINE_EXCEEDED,
        f"the job reached its timeout{timeout} between two attempts{since}",
        evidence,
    )


def _kept_from_running(finding: Diagnosis | None, when: str) -> Diagnosis:
    if finding is None or finding.code is FailureCode.DEADLINE_EXCEEDED:
        return NEVER_STARTED
    message = f"the job reached its timeout {when}: {finding.message}"
    return Diagnosis(finding.code, message, finding.evidence, finding.hint)


def _unknown(failed: Condition) -> Diagnosis:
    words = f"{one_line(failed.reason) or 'no reason given'}: {one_line(failed.message)}".rstrip(": ")
    return Diagnosis(FailureCode.UNKNOWN, f"Kubernetes failed the job: {words}")
