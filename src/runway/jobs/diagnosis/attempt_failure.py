"""Why one pod of a job, that is one attempt, did not succeed. Pure.

Precedence, first match wins:

1. The pod has not ended, or ended well: no cause.
2. It was told to end by a cancel, or by the job's deadline. The deadline beats the exit code that its SIGTERM causes; a
   pod that never started has what kept it from starting as its cause.
3. The cluster took it away (pod condition DisruptionTarget): by the reason of the condition.
4. The kubelet evicted it without calling that a disruption (over its disk limit).
5. The node refused it.
6. Somebody deleted the pod.
7. The container's end, by the precedence of `exits`.
8. What kept it from starting, by the precedence of `starts`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.diagnosis.container_exit import diagnose_exit, signal_of, started_at
from runway.jobs.diagnosis.container_start import diagnose_container_start
from runway.jobs.diagnosis.disruption import disruption, disruption_of, eviction_of, rejection_of
from runway.jobs.identity import ANNOTATION_CANCELLED_AT
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Job, Pod

_CLOCK_SKEW: Final = timedelta(seconds=2)
"""How far two machines' clocks, which write whole seconds, may differ."""
NEVER_STARTED: Final = Diagnosis(
    FailureCode.DEADLINE_EXCEEDED,
    "the job reached its timeout before it could start; Kubernetes does not say what kept it",
)
_UNEXPLAINED: Final = Diagnosis(FailureCode.UNKNOWN, "the pod failed, and Kubernetes does not say why")


@dataclass(frozen=True, slots=True)
class AttemptFailure:
    """Why an attempt did not succeed, in plain words. `finding` is None where it is no failure, as after a cancel."""

    message: str
    finding: Diagnosis | None


def attempt_failure(case: JobSnapshot, pod: Pod) -> AttemptFailure | None:
    """Why this attempt did not succeed; None while it may still, and where it did."""
    if not case.has_ended(pod):
        return None
    if (by := termination_reason(case, pod)) is not None:
        if by == "cancel":
            return AttemptFailure(f"the job was cancelled{_sigterm_outcome(case, pod)}", None)
        return _caused(
            deadline_of(case, pod) if container_started(pod) else diagnose_container_start(case, pod) or NEVER_STARTED
        )
    if pod.status.phase == "Succeeded":
        return None
    return _caused(_diagnose(case, pod) or _UNEXPLAINED)


def container_started(pod: Pod) -> bool:
    """Whether the pod's container has really started."""
    ended = pod.container.terminated
    return pod.container.running is not None or (ended is not None and started_at(ended) is not None)


def counts_against_retries(pod: Pod) -> bool:
    """Whether the pod, once it has ended, counts against the retries: it failed, and not by a disruption.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    """
    return pod.status.phase != "Succeeded" and disruption(pod) is None


def termination_reason(case: JobSnapshot, pod: Pod) -> str | None:
    """`"cancel"` or `"deadline"` where the Job controller deleted the pod for it; None where it did not."""
    asked, job = termination_requested_at(pod, case.job), case.job
    if not _past_deadline(job) or _ended_before(pod) or (asked is None and not _gone_unseen(case, pod)):
        return None
    if ANNOTATION_CANCELLED_AT in job.metadata.annotations:
        since = _moment(job.metadata.annotations[ANNOTATION_CANCELLED_AT])
        return "cancel" if _not_before(asked, since) else None
    return "deadline" if _not_before(asked, deadline_at(job)) else None


def termination_requested_at(pod: Pod, job: Job) -> datetime | None:
    """When the pod was told to end: its deletion timestamp is when its grace period runs out.

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
    """When the job's timeout passes; None before Kubernetes has taken the Job up."""
    start, seconds = job.status.start_time, job.spec.active_deadline_seconds
    return start + timedelta(seconds=seconds) if start is not None and seconds is not None else None


def deadline_of(case: JobSnapshot, pod: Pod) -> Diagnosis:
    """The deadline of a pod that ran until it came, and how the process took its SIGTERM."""
    spec = spec_of(case.job)
    ended, evidence = pod.container.terminated, dict[str, str]()
    if ended is not None:
        found = diagnose_exit(ended, spec.resources.memory if spec else None)
        evidence |= found.evidence if found else {"exit_code": str(ended.exit_code)}
    timeout = f" of {spec.timeout_seconds} s" if spec else ""
    message = f"the job reached its timeout{timeout} and was told to end{_sigterm_outcome(case, pod)}"
    hint = None
    if spec is not None:
        evidence |= {
            "timeout_seconds": str(spec.timeout_seconds),
            "grace_period_seconds": str(spec.grace_period_seconds),
        }
        if _exceeded_grace_period(case, pod):
            evidence["grace_period"] = "overrun"
            hint = (
                f"raise timeout_seconds above {spec.timeout_seconds}, or make the job shorter; to save its work at the "
                f"end it must act on SIGTERM within grace_period_seconds ({spec.grace_period_seconds})"
            )
        else:
            hint = (
                f"raise timeout_seconds above {spec.timeout_seconds} (it counts from acceptance: waiting and retries "
                "included), or make the job shorter"
            )
    return Diagnosis(FailureCode.DEADLINE_EXCEEDED, message, evidence, hint)


def _diagnose(case: JobSnapshot, pod: Pod) -> Diagnosis | None:
    spec = spec_of(case.job)
    found = disruption_of(pod, case.node_of(pod)) or eviction_of(pod) or rejection_of(pod)
    if found is not None:
        return found
    if pod.metadata.deletion_timestamp is not None and not _ended_before(pod):
        message = "somebody deleted the pod" + (
            _sigterm_outcome(case, pod) if container_started(pod) else " before it had started"
        )
        return Diagnosis(FailureCode.POD_DELETED, message, {"deleted": pod.metadata.deletion_timestamp.isoformat()})
    if (ended := pod.container.terminated) is not None:
        return diagnose_exit(ended, spec.resources.memory if spec else None)
    if pod.metadata.name in case.deleted_pods:
        return Diagnosis(FailureCode.POD_DELETED, "the pod was deleted, and how it ended was not seen")
    return diagnose_container_start(case, pod)


def _caused(finding: Diagnosis) -> AttemptFailure:
    return AttemptFailure(finding.message, finding)


def _past_deadline(job: Job) -> bool:
    """Whether the Job controller has ended the Job for its deadline; a cancel moves the deadline to now."""
    target = job.condition("FailureTarget") or job.condition("Failed")
    return target is not None and target.reason == "DeadlineExceeded"


def _gone_unseen(case: JobSnapshot, pod: Pod) -> bool:
    """Whether the job's last pod is gone, and the watch was lost while it was told to end."""
    return pod.metadata.name in case.deleted_pods and not pod.is_terminal and pod is case.pods[-1]


def _not_before(asked: datetime | None, since: datetime | None) -> bool:
    """Whether that was asked for after `since`, as far as both are known."""
    return asked is None or since is None or asked >= since - _CLOCK_SKEW


def _ended_before(pod: Pod) -> bool:
    """Whether the container had ended by itself before the pod was told to end."""
    ended, until = pod.container.terminated, pod.metadata.deletion_timestamp
    if ended is None or ended.finished_at is None:
        return False
    if until is None:
        return True
    grace = pod.metadata.deletion_grace_period_seconds
    slack = _CLOCK_SKEW if signal_of(ended) in ("SIGTERM", "SIGKILL") else timedelta()
    return grace is not None and ended.finished_at < until - timedelta(seconds=grace) - slack


def _exceeded_grace_period(case: JobSnapshot, pod: Pod) -> bool:
    """Whether the process had to be killed when its grace period was over."""
    ended, asked, spec = pod.container.terminated, termination_requested_at(pod, case.job), spec_of(case.job)
    if ended is None or asked is None or spec is None or signal_of(ended) != "SIGKILL" or ended.reason == "OOMKilled":
        return False
    return (
        ended.finished_at is None
        or ended.finished_at >= asked + timedelta(seconds=spec.grace_period_seconds) - _CLOCK_SKEW
    )


def _sigterm_outcome(case: JobSnapshot, pod: Pod) -> str:
    """How the process took being told to end, as the end of a sentence."""
    ended, spec = pod.container.terminated, spec_of(case.job)
    if ended is None or not container_started(pod):
        return ""
    if _exceeded_grace_period(case, pod) and spec is not None:
        grace = spec.grace_period_seconds
        return f"; it did not end on SIGTERM and was killed after its grace period of {grace} s"
    if ended.reason == "OOMKilled":
        return "; while it ended, the kernel killed it for its memory limit"
    name = signal_of(ended)
    return f"; it ended on {name}" if name else f"; it ended in its grace period with exit code {ended.exit_code}"


def _moment(text: str | None) -> datetime | None:
    """An RFC 3339 time with its zone; None for anything else."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment if moment is not None and moment.tzinfo is not None else None
