"""Attempts of a job: each pod with its times, exit and cause. Pure.

The cause of an attempt that did not succeed, first match wins:

1. The pod has not ended, or it succeeded: no cause.
2. A cancellation or the job's deadline terminated the pod. The deadline takes precedence over the exit code that it
   causes. For a pod that never started, the cause is the reason that it did not start. A start deadline names it.
3. The cluster disrupted the pod (condition DisruptionTarget): by the reason of the condition.
4. The kubelet evicted the pod without a disruption (local disk limit), or ended it at the pod's own deadline.
5. The node rejected the pod.
6. The pod was deleted outside Runway.
7. The container exited: by the precedence of `container_exit`.
8. The container succeeded, but another container kept the pod alive until the deadline, or failed.
9. The container did not start: by the precedence of `container_start`.

A fault of the node's GPUs replaces the causes 3 to 9 that it explains (`gpu_health`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from runway.jobs.annotations import ANNOTATION_CANCELLED_AT, spec_of
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.diagnosis.container_exit import diagnose_exit, memory_limit, signal_of, started_at, was_never_created
from runway.jobs.diagnosis.container_start import IN_PROGRESS, diagnose_container_start
from runway.jobs.diagnosis.disruption import disruption, disruption_of, eviction_of, rejection_of, status_evidence
from runway.jobs.diagnosis.gpu_health import with_gpu_fault
from runway.jobs.diagnosis.other_containers import failed_other, kept_alive_by, still_alive_at
from runway.jobs.diagnosis.start_timeout import diagnose_start_timeout, start_timeout_of
from runway.jobs.ending import diagnose_ending, ending_of
from runway.jobs.models import DIGEST_GRAMMAR, Attempt
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Job, Pod, Terminated, is_possible_year
from runway.text import one_line

_CLOCK_SKEW: Final = timedelta(seconds=2)
"""Difference allowed between the clocks of two machines, which write whole seconds."""
NEVER_STARTED: Final = Diagnosis(
    FailureCode.DEADLINE_EXCEEDED,
    "the job reached its timeout before it could start; Kubernetes does not report the reason",
)
IMAGE_DIGEST: Final = re.compile(DIGEST_GRAMMAR)
_IMAGE_ID: Final = re.compile(rf"(?:^|[@/])(?P<digest>{DIGEST_GRAMMAR}|[0-9a-f]{{64}})$")
"""Runtimes report `repository@sha256:...`, `docker://sha256:...`, `sha256:...` or only the hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """Why an attempt did not succeed. `finding` is None if that is no failure, as after a cancellation."""

    message: str
    finding: Diagnosis | None


def attempt_failure(snapshot: JobSnapshot, pod: Pod) -> AttemptFailure | None:
    """Diagnose why this attempt did not succeed; None if it did or still can."""
    if not snapshot.has_ended(pod):
        return None
    reason = termination_reason(snapshot, pod)
    if reason == "cancel":
        return AttemptFailure(f"the job was cancelled{describe_termination(snapshot.job, pod)}", None)
    outlived = outlived_by_other(snapshot, pod)
    if outlived is not None and ANNOTATION_CANCELLED_AT in snapshot.job.metadata.annotations:
        return AttemptFailure(f"the job was cancelled; {outlived.message}", None)
    if reason == "deadline":
        finding = _diagnose_at_deadline(snapshot, pod)
    elif outlived is not None:
        finding = outlived
    elif pod.status.phase == "Succeeded":
        return None
    else:
        finding = _diagnose(snapshot, pod) or _unexplained(pod)
        finding = with_gpu_fault(snapshot, pod, finding, container_started_at(pod), _finished_at(snapshot, pod))
    return AttemptFailure(finding.message, finding)


def _diagnose_at_deadline(snapshot: JobSnapshot, pod: Pod) -> Diagnosis:
    started = container_started(pod)
    if (ending := ending_of(snapshot.job)) is not None:
        return diagnose_ending(ending, describe_termination(snapshot.job, pod))
    if (timeout := start_timeout_of(snapshot.job)) is not None:
        reaction = describe_termination(snapshot.job, pod)
        return diagnose_start_timeout(timeout, started=started, reaction=reaction)
    return deadline_of(snapshot, pod) if started else diagnose_container_start(snapshot, pod) or NEVER_STARTED


def container_started(pod: Pod) -> bool:
    return pod.container.running is not None or container_started_at(pod) is not None


def container_started_at(pod: Pod) -> datetime | None:
    ended, running = pod.container.terminated, pod.container.running
    return started_at(ended) if ended else running.started_at if running else None


def counts_against_retries(pod: Pod) -> bool:
    """Return whether the pod, once ended, counts against the retries: it failed, but not by a disruption.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    """
    return pod.status.phase != "Succeeded" and disruption(pod) is None


def has_exited(pod: Pod) -> bool:
    """Return whether a container of the pod has an exit code other than 0, which fails a Job without retries."""
    ended = [status.state.terminated for status in pod.status.container_statuses]
    return any(exit_ is not None and exit_.exit_code != 0 for exit_ in ended)


def termination_reason(snapshot: JobSnapshot, pod: Pod) -> str | None:
    """Return `"cancel"` or `"deadline"` if the Job controller deleted the pod for it, otherwise None."""
    job, requested = snapshot.job, termination_requested_at(pod, snapshot.job)
    if not _failed_at_deadline(job) or _ended_before_deletion(pod):
        return None
    if requested is None and not _deletion_was_missed(snapshot, pod):
        return None
    ending = ending_of(job)
    if ANNOTATION_CANCELLED_AT in job.metadata.annotations:
        reason, since = "cancel", _parse_time(job.metadata.annotations[ANNOTATION_CANCELLED_AT])
    else:
        reason, since = "deadline", ending.at if ending is not None else deadline_at(job)
    if requested is None or since is None or requested >= since - _CLOCK_SKEW:
        return reason
    return None


def termination_requested_at(pod: Pod, job: Job) -> datetime | None:
    """Return when the pod's deletion was requested: its deletion timestamp is the end of its grace period.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/
    """
    until = pod.metadata.deletion_timestamp
    if until is None:
        return None
    grace, spec = pod.metadata.deletion_grace_period_seconds, spec_of(job)
    if grace is None:
        grace = spec.grace_period_seconds if spec else 0
    return until - timedelta(seconds=grace)


def deadline_at(job: Job) -> datetime | None:
    """Return when the job's timeout passes; None before Kubernetes has started the Job."""
    start, seconds = job.status.start_time, job.spec.active_deadline_seconds
    return start + timedelta(seconds=seconds) if start is not None and seconds is not None else None


def ended_at_own_deadline(pod: Pod) -> bool:
    """Return whether the kubelet ended a running pod, because no Job controller had done so at the job's deadline.

    https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-active-deadline
    """
    return pod.status.phase == "Failed" and pod.status.reason == "DeadlineExceeded" and container_started(pod)


def describe_timeout(job: Job) -> str:
    """Return the start of a message about the job's deadline, with its timeout if known."""
    spec = spec_of(job)
    return "the job reached its timeout" + (f" of {spec.timeout_seconds} s" if spec else "")


def deadline_of(snapshot: JobSnapshot, pod: Pod) -> Diagnosis:
    """Diagnose a pod that ran until the deadline, with its reaction to SIGTERM."""
    job, spec = snapshot.job, spec_of(snapshot.job)
    ended, evidence, hint = pod.container.terminated, dict[str, str](), None
    if ended is not None:
        found = diagnose_exit(ended, memory_limit(job))
        evidence |= found.evidence if found else {"exit_code": str(ended.exit_code)}
    if spec is not None:
        timeout, grace = str(spec.timeout_seconds), str(spec.grace_period_seconds)
        evidence |= {"timeout_seconds": timeout, "grace_period_seconds": grace}
        hint = f"raise timeout_seconds above {timeout}, which includes waiting and retries, or shorten the job"
        if _exceeded_grace_period(job, pod):
            evidence["grace_period"] = "overrun"
            hint = (
                f"raise timeout_seconds above {timeout}, or shorten the job; to save work before the kill, handle "
                f"SIGTERM within {grace} s (grace_period_seconds)"
            )
    message = f"{describe_timeout(job)} and was terminated{describe_termination(job, pod)}"
    return Diagnosis(FailureCode.DEADLINE_EXCEEDED, message, evidence, hint)


def outlived_by_other(snapshot: JobSnapshot, pod: Pod) -> Diagnosis | None:
    """Diagnose a pod that another container kept alive until the job's deadline or cancel; None for any other pod."""
    ended, requested = pod.container.terminated, termination_requested_at(pod, snapshot.job)
    if ended is None or requested is None or not _failed_at_deadline(snapshot.job):
        return None
    others = still_alive_at(pod, requested, _CLOCK_SKEW)
    if others is None:
        return None
    found = diagnose_exit(ended, memory_limit(snapshot.job))
    if found is not None:
        return replace(found, message=f"{found.message}; {others} then kept the pod alive until it was terminated")
    message = f"the job's container exited with code 0, but {others} kept the pod alive until it was terminated"
    return Diagnosis(FailureCode.OTHER_CONTAINER_RUNNING, message, {"exit_code": "0", "other_containers": others})


def _diagnose(snapshot: JobSnapshot, pod: Pod) -> Diagnosis | None:
    if ended_at_own_deadline(pod):
        return deadline_of(snapshot, pod)
    finding = disruption_of(pod, snapshot.node_of(pod)) or eviction_of(pod) or rejection_of(pod)
    if finding is not None:
        return finding
    deleted = pod.metadata.deletion_timestamp
    if deleted is not None and not _ended_before_deletion(pod):
        how = describe_termination(snapshot.job, pod) if container_started(pod) else " before it started"
        message = f"the pod was deleted outside Runway{how}"
        return Diagnosis(FailureCode.POD_DELETED, message, {"deleted": deleted.isoformat()})
    if (ended := pod.container.terminated) is not None:
        found = diagnose_exit(ended, memory_limit(snapshot.job)) or failed_other(pod)
        return None if found is None else replace(found, evidence={**status_evidence(pod), **found.evidence})
    if pod.metadata.name in snapshot.deleted_pods:
        return Diagnosis(FailureCode.POD_DELETED, "the pod was deleted; Runway did not see how it ended")
    return diagnose_container_start(snapshot, pod) or failed_other(pod)


def _unexplained(pod: Pod) -> Diagnosis:
    """Quote the pod's own reason and message, which may be those of a later Kubernetes."""
    evidence = status_evidence(pod)
    words = ": ".join(evidence.values()) or "Kubernetes does not report the reason"
    return Diagnosis(FailureCode.UNKNOWN, f"the pod failed; {words}", evidence)


def _failed_at_deadline(job: Job) -> bool:
    """Return whether the Job controller failed the Job at its deadline; a cancellation moves the deadline to now."""
    target = job.condition("FailureTarget") or job.condition("Failed")
    return target is not None and target.reason == "DeadlineExceeded"


def _deletion_was_missed(snapshot: JobSnapshot, pod: Pod) -> bool:
    """Return whether the job's last pod is gone and the watch did not report its termination."""
    return pod.metadata.name in snapshot.deleted_pods and not pod.is_terminal and pod is snapshot.pods[-1]


def _ended_before_deletion(pod: Pod) -> bool:
    ended, until = pod.container.terminated, pod.metadata.deletion_timestamp
    if ended is None or ended.finished_at is None:
        return False
    if until is None:
        return True
    grace = pod.metadata.deletion_grace_period_seconds
    skew = _CLOCK_SKEW if signal_of(ended) in ("SIGTERM", "SIGKILL") else timedelta()
    return grace is not None and ended.finished_at < until - timedelta(seconds=grace) - skew


def _exceeded_grace_period(job: Job, pod: Pod) -> bool:
    ended, requested, spec = pod.container.terminated, termination_requested_at(pod, job), spec_of(job)
    if ended is None or requested is None or spec is None:
        return False
    if signal_of(ended) != "SIGKILL" or ended.reason == "OOMKilled":
        return False
    until = requested + timedelta(seconds=spec.grace_period_seconds)
    return ended.finished_at is None or ended.finished_at >= until - _CLOCK_SKEW


def describe_termination(job: Job, pod: Pod) -> str:
    """Return how the process reacted to its termination, as the end of a sentence."""
    ended, spec = pod.container.terminated, spec_of(job)
    if ended is None or not container_started(pod):
        return ""
    if spec is not None and _exceeded_grace_period(job, pod):
        grace = spec.grace_period_seconds
        return f"; the process did not exit on SIGTERM and was killed after its grace period of {grace} s"
    if ended.reason == "OOMKilled":
        return "; the kernel killed the process during termination because it exceeded its memory limit"
    if name := signal_of(ended):
        return f"; the process ended on {name} (exit code {ended.exit_code})"
    return f"; the process exited with code {ended.exit_code} within its grace period"


def _parse_time(text: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None and is_possible_year(moment.year) else None


MAX_ATTEMPTS: Final = 20
"""Attempts in a view. Disruptions do not count against the retries, so a job can have any number of attempts."""


def attempts_of(snapshot: JobSnapshot) -> list[Attempt]:
    return [_attempt(snapshot, pod) for pod in snapshot.pods]


def disruptions(attempts: Sequence[Attempt]) -> int:
    """Return the number of disrupted attempts, which do not count against the retries."""
    return sum(attempt.state == "failed" and not attempt.counted for attempt in attempts)


def incomplete_success(attempts: Sequence[Attempt]) -> str | None:
    """Return why the work of a succeeded job with these attempts may be incomplete; None without a reason."""
    return next((attempt.message for attempt in reversed(attempts) if attempt.state == "succeeded"), None)


def _attempt(snapshot: JobSnapshot, pod: Pod) -> Attempt:
    ended, cause, state = _exit(pod), attempt_failure(snapshot, pod), _state(snapshot, pod)
    return Attempt(
        pod=pod.metadata.name,
        node=pod.spec.node_name,
        state=state,
        exit_code=ended.exit_code if ended else None,
        signal=signal_of(ended) if ended else None,
        reason=_reason(pod),
        created_at=pod.metadata.creation_timestamp,
        bound_at=_bound_at(pod),
        started_at=container_started_at(pod),
        finished_at=_finished_at(snapshot, pod),
        counted=state == "failed" and counts_against_retries(pod),
        cause=cause.finding.code if cause and cause.finding else None,
        message=cause.message if cause else _remark(snapshot, pod, state),
        image_id=_image_digest(pod),
    )


def _exit(pod: Pod) -> Terminated | None:
    """Return the end of the container; None also for one that never existed, whose exit the kubelet invents."""
    ended = pod.container.terminated
    return None if ended is not None and was_never_created(ended) else ended


def _reason(pod: Pod) -> str | None:
    """Return the reason of the node, of the disruption, of the container's state or of the scheduler, in this order."""
    target, container, scheduled = disruption(pod), pod.container, pod.condition("PodScheduled")
    if reason := pod.status.reason or (target.reason if target else None):
        return reason
    if (ended := _exit(pod)) is not None:
        return ended.reason
    if container.waiting is not None and container.waiting.reason not in IN_PROGRESS:
        return container.waiting.reason
    return scheduled.reason if scheduled is not None and scheduled.status == "False" else None


def _image_digest(pod: Pod) -> str | None:
    found = _IMAGE_ID.search(pod.image_id or "")
    if found is None:
        return None
    digest = found["digest"]
    return digest if ":" in digest else f"sha256:{digest}"


def _state(snapshot: JobSnapshot, pod: Pod) -> str:
    if pod.status.phase == "Succeeded":
        return "succeeded"
    if snapshot.has_ended(pod):
        return "failed"
    if pod.terminating:
        return "terminating"
    return "running" if container_started(pod) else "waiting"


def _bound_at(pod: Pod) -> datetime | None:
    """https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions"""
    scheduled = pod.condition("PodScheduled")
    return scheduled.last_transition_time if scheduled is not None and scheduled.status == "True" else None


def _finished_at(snapshot: JobSnapshot, pod: Pod) -> datetime | None:
    """Return when the container exited, or the best time that Kubernetes reports instead."""
    ended, target = pod.container.terminated, disruption(pod)
    if ended is not None and ended.finished_at is not None and ended.finished_at.year > 1970:
        return ended.finished_at
    if not snapshot.has_ended(pod):
        return None
    if pod.metadata.deletion_timestamp is not None:
        return _end_of_deletion(snapshot, pod)
    if target is not None:
        return target.last_transition_time
    # A node rejects a pod as soon as it is bound and writes no time.
    return _bound_at(pod) if rejection_of(pod) else None


def _remark(snapshot: JobSnapshot, pod: Pod, state: str) -> str | None:
    if state == "succeeded":
        return _suspicious_success(snapshot, pod)
    others, ended = kept_alive_by(pod), pod.container.terminated
    if others is None or ended is None or snapshot.has_ended(pod):
        return None
    return f"the job's container has exited with code {ended.exit_code}; {others} keeps the pod alive"


def _end_of_deletion(snapshot: JobSnapshot, pod: Pod) -> datetime | None:
    """Return the end of a pod without a termination time, between the request of its deletion and its observed end.

    Its deletion timestamp is the end of its grace period, which a pod without a running container does not use. The pod
    garbage collector dates the end of a pod on a lost node with its disruption.
    """
    requested, until = termination_requested_at(pod, snapshot.job), pod.metadata.deletion_timestamp
    if requested is None or until is None:
        return None
    # An edited grace period can be any number of years.
    earliest = max(requested, pod.metadata.creation_timestamp or until)
    if not container_started(pod):
        return earliest
    target = disruption(pod) if pod.is_terminal else None
    ends = (until, snapshot.deletions_seen.get(pod.metadata.name), target.last_transition_time if target else None)
    return max(earliest, min(end for end in ends if end is not None))


def _suspicious_success(snapshot: JobSnapshot, pod: Pod) -> str | None:
    """Explain why an attempt with exit code 0, a success to Kubernetes, may be incomplete."""
    ended, target = pod.container.terminated, disruption(pod)
    if ended is not None and ended.reason == "OOMKilled":
        found = diagnose_exit(ended, memory_limit(snapshot.job))
        return found.message if found else None
    if target is not None:
        words = one_line(target.message or target.reason, 120)
        return f"the pod was terminated ({words}) but exited with code 0; its work may be incomplete"
    if _deleted_while_running(snapshot.job, pod):
        return "the pod was deleted while its process ran, which then exited with code 0; its work may be incomplete"
    return None


def _deleted_while_running(job: Job, pod: Pod) -> bool:
    """Return whether a deletion ended the process. A terminal pod is deleted without a grace period."""
    requested, ended = termination_requested_at(pod, job), pod.container.terminated
    if requested is None or ended is None or ended.finished_at is None:
        return False
    return pod.metadata.deletion_grace_period_seconds != 0 and ended.finished_at >= requested
