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

from runway.jobs.admitted import spec_of
from runway.jobs.case import Case
from runway.jobs.causes import NEVER_STARTED, Cause, cause_of, counts, deadline_of, ran, told_to_end_by
from runway.jobs.disruptions import disruption, disruption_of
from runway.jobs.failures import Failure, FailureCode, Finding, failure_of
from runway.jobs.identity import ANNOTATION_CANCELLED_AT
from runway.jobs.starts import refusal_of, start_of_pod
from runway.jobs.wording import one_line
from runway.objects import Condition


def diagnose(case: Case) -> Failure | None:
    """The verdict on this job; None unless Kubernetes has failed it, and nobody cancelled it."""
    failed = case.job.condition("Failed")
    if failed is None or ANNOTATION_CANCELLED_AT in case.job.metadata.annotations:
        return None
    evidence = {"job_reason": one_line(failed.reason), "job_message": one_line(failed.message)}
    finding = _by_deadline(case) if failed.reason == "DeadlineExceeded" else _by_attempts(case)
    return failure_of(finding or _unknown(failed), evidence)


def _by_deadline(case: Case) -> Finding:
    last = case.pods[-1] if case.pods else None
    for pod in reversed(case.pods):
        if ran(pod) and told_to_end_by(case, pod) == "deadline":
            return deadline_of(case, pod)
    if last is None:
        return _kept_from_running(refusal_of(case), "before it could start")
    if any(ran(pod) and disruption(pod) is None for pod in case.pods):
        return _between_attempts(case)
    if (kept := start_of_pod(case, last)) is not None:
        return _kept_from_running(kept, "before it could run" + (" again" if any(map(ran, case.pods)) else ""))
    cause = cause_of(case, last)
    found = disruption_of(last, case.node_of(last)) or (cause.finding if cause else None)
    return _kept_from_running(found, "and its attempt had not been replaced")


def _by_attempts(case: Case) -> Finding | None:
    counted = [pod for pod in case.pods if counts(pod)]
    blamed = counted[-1] if counted else case.pods[-1] if case.pods else None
    if blamed is None:
        return refusal_of(case)
    cause = cause_of(case, blamed)
    if cause is None or cause.finding is None:
        return None
    found = cause.finding
    return Finding(found.code, found.message, {**found.evidence, "counted_attempts": str(len(counted))}, found.hint)


def _between_attempts(case: Case) -> Finding:
    last = case.pods[-1]
    kept = start_of_pod(case, last) or refusal_of(case, last.metadata.creation_timestamp)
    cause = Cause(kept.message, kept) if kept else cause_of(case, last)
    since = f": {cause.message}" if cause else ""
    spec = spec_of(case.job)
    timeout = f" of {spec.timeout_seconds} s" if spec else ""
    evidence = dict(cause.finding.evidence) if cause and cause.finding else {}
    if spec is not None:
        evidence["timeout_seconds"] = str(spec.timeout_seconds)
    return Finding(
        FailureCode.DEADLINE_EXCEEDED,
        f"the job reached its timeout{timeout} between two attempts{since}",
        evidence,
    )


def _kept_from_running(finding: Finding | None, when: str) -> Finding:
    if finding is None or finding.code is FailureCode.DEADLINE_EXCEEDED:
        return NEVER_STARTED
    message = f"the job reached its timeout {when}: {finding.message}"
    return Finding(finding.code, message, finding.evidence, finding.hint)


def _unknown(failed: Condition) -> Finding:
    words = f"{one_line(failed.reason) or 'no reason given'}: {one_line(failed.message)}".rstrip(": ")
    return Finding(FailureCode.UNKNOWN, f"Kubernetes failed the job: {words}")
