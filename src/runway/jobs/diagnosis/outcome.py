"""Diagnosis of a failed job, from its snapshot. Pure.

Precedence, first match wins:

1. Kubernetes has not failed the Job, or the job was cancelled: no failure.
2. Runway ended the Job while it ran: the code of the reason, such as `gpu_idle`.
3. A start deadline ended the Job: the code is its cause, or `start_timeout` if a container started at that moment.
4. The Job failed at its deadline:
   a. an attempt ran at the deadline: `deadline_exceeded`, whatever exit code SIGTERM caused; its own end if only
      another container of its pod ran then;
   b. an attempt ran before and was not disrupted: `deadline_exceeded`, with the reason for the wait since;
   c. no attempt could run: the code is the reason that the last one did not start;
   d. Kubernetes never created a pod: the reason for the rejection;
   e. `deadline_exceeded`, if Kubernetes reports nothing more.
5. The Job failed by its attempts: the last one that counts decides, by the precedence of `attempt_failure`.
6. The Job has no attempt: the reason that Kubernetes rejected the pod.
7. Anything else: `unknown`, with Kubernetes' message as evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from runway.jobs.annotations import ANNOTATION_CANCELLED_AT, spec_of
from runway.jobs.diagnosis import attempts
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.diagnosis.container_start import diagnose_container_start, diagnose_pod_creation
from runway.jobs.diagnosis.disruption import disruption, disruption_of
from runway.jobs.diagnosis.start_timeout import diagnose_start_timeout, start_timeout_of
from runway.jobs.ending import diagnose_ending, ending_of
from runway.jobs.models import Failure
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Job
from runway.text import one_line


def diagnose(snapshot: JobSnapshot) -> Failure | None:
    """Diagnose this job; None unless Kubernetes has failed it and nobody cancelled it."""
    failed = snapshot.job.condition("Failed")
    if failed is None or ANNOTATION_CANCELLED_AT in snapshot.job.metadata.annotations:
        return None
    reason, message = one_line(failed.reason), one_line(failed.message)
    finding = _by_deadline(snapshot) if failed.reason == "DeadlineExceeded" else _by_attempts(snapshot)
    if finding is None:
        words = f"{reason or 'no reason given'}: {message}".rstrip(": ")
        finding = Diagnosis(FailureCode.UNKNOWN, f"Kubernetes failed the job: {words}")
    return failure_of(finding, {"job_reason": reason, "job_message": message})


def failure_of(finding: Diagnosis, evidence: Mapping[str, str]) -> Failure:
    """Add the facts of the code and further evidence to a diagnosis."""
    code, hint = finding.code, finding.hint or finding.code.advice
    return Failure(code, code.category, code.retryable, finding.message, hint, {**evidence, **finding.evidence})


def _by_deadline(snapshot: JobSnapshot) -> Diagnosis:
    if (ending := ending_of(snapshot.job)) is not None:
        last = snapshot.pods[-1] if snapshot.pods else None
        at_end = last is not None and attempts.termination_reason(snapshot, last) == "deadline"
        return diagnose_ending(ending, attempts.describe_termination(snapshot.job, last) if last and at_end else "")
    if (timeout := start_timeout_of(snapshot.job)) is not None:
        ran = next((pod for pod in snapshot.pods if attempts.container_started(pod)), None)
        reaction = attempts.describe_termination(snapshot.job, ran) if ran else ""
        return diagnose_start_timeout(timeout, started=ran is not None, reaction=reaction)
    for pod in reversed(snapshot.pods):
        at_deadline = attempts.termination_reason(snapshot, pod) == "deadline" and attempts.container_started(pod)
        if at_deadline or attempts.ended_at_own_deadline(pod):
            return attempts.deadline_of(snapshot, pod)
        if (outlived := attempts.outlived_by_other(snapshot, pod)) is not None:
            return outlived
    if not snapshot.pods:
        return _not_run(snapshot.job, diagnose_pod_creation(snapshot), "before it could start")
    last, started = snapshot.pods[-1], [pod for pod in snapshot.pods if attempts.container_started(pod)]
    if any(disruption(pod) is None for pod in started):
        return _between_attempts(snapshot)
    if (finding := diagnose_container_start(snapshot, last)) is not None:
        return _not_run(snapshot.job, finding, "before it could run again" if started else "before it could run")
    cause = attempts.attempt_failure(snapshot, last)
    finding = disruption_of(last, snapshot.node_of(last)) or (cause.finding if cause else None)
    return _not_run(snapshot.job, finding, "before Kubernetes replaced its last attempt")


def _by_attempts(snapshot: JobSnapshot) -> Diagnosis | None:
    counted = [pod for pod in snapshot.pods if attempts.counts_against_retries(pod)]
    if not snapshot.pods:
        return diagnose_pod_creation(snapshot)
    cause = attempts.attempt_failure(snapshot, (counted or snapshot.pods)[-1])
    if cause is None or cause.finding is None:
        return None
    return replace(cause.finding, evidence={**cause.finding.evidence, "counted_attempts": str(len(counted))})


def _between_attempts(snapshot: JobSnapshot) -> Diagnosis:
    last, spec = snapshot.pods[-1], spec_of(snapshot.job)
    finding = diagnose_container_start(snapshot, last)
    finding = finding or diagnose_pod_creation(snapshot, last.metadata.creation_timestamp)
    cause = None if finding else attempts.attempt_failure(snapshot, last)
    finding = finding or (cause.finding if cause else None)
    message = f"{attempts.describe_timeout(snapshot.job)} between two attempts"
    if reason := finding or cause:
        message += f": {reason.message}"
    evidence = dict(finding.evidence) if finding else {}
    if spec is not None:
        evidence["timeout_seconds"] = str(spec.timeout_seconds)
    return Diagnosis(FailureCode.DEADLINE_EXCEEDED, message, evidence)


def _not_run(job: Job, finding: Diagnosis | None, when: str) -> Diagnosis:
    if finding is None or finding.code is FailureCode.DEADLINE_EXCEEDED:
        return attempts.NEVER_STARTED
    return replace(finding, message=f"{attempts.describe_timeout(job)} {when}: {finding.message}")
