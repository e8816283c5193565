"""Build the view of a job from its snapshot: state, conditions and all else. Pure.

Conditions are independent; several can hold at once. A lost node is a condition, never a failure.

The record on the Job (`jobs.record`) replaces the pods and events that Kubernetes has deleted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from runway.jobs.annotations import ANNOTATION_CANCELLED_AT, LABEL_NAME, cost_of, spec_of
from runway.jobs.diagnosis.attempts import (
    attempt_failure,
    container_started,
    counts_against_retries,
    deadline_at,
    has_exited,
    incomplete_success,
    termination_requested_at,
)
from runway.jobs.diagnosis.codes import ConditionCode, Diagnosis, FailureCode
from runway.jobs.diagnosis.container_start import diagnose_container_start, diagnose_pod_creation
from runway.jobs.diagnosis.gpu_health import describe_fault, gpu_fault_of
from runway.jobs.diagnosis.other_containers import kept_alive_by
from runway.jobs.diagnosis.scaling import scaling_of
from runway.jobs.diagnosis.start_timeout import limit_of
from runway.jobs.log_excerpt import secrets_of
from runway.jobs.log_link import log_url
from runway.jobs.models import ConditionView, CostView, Excerpt, Failure, JobState, JobView, KubernetesRef
from runway.jobs.record import (
    AttemptHistory,
    Record,
    actual_cost_of,
    excerpt_from_status,
    failure_from_history,
    failure_without_secrets,
    merge_attempts,
    record_of,
)
from runway.jobs.snapshot import JobSnapshot
from runway.jobs.start import start_wait
from runway.kube.objects import Job, Pod
from runway.policy import StartTimeouts
from runway.text import one_line, show_duration

FIRST_BACKOFF: Final = timedelta(seconds=10)
LONGEST_BACKOFF: Final = timedelta(minutes=10)
"""The Job controller's delays before the next attempt."""

_OF_FINDING: Final = {
    FailureCode.QUOTA_BACKSTOP: ConditionCode.QUOTA_BACKSTOP,
    FailureCode.POD_SECURITY_REFUSED: ConditionCode.POD_SECURITY_REFUSED,
    FailureCode.POD_CREATION_REFUSED: ConditionCode.POD_CREATION_REFUSED,
    FailureCode.POD_CREATION_FAILED: ConditionCode.POD_CREATION_FAILED,
    FailureCode.UNSCHEDULABLE: ConditionCode.UNSCHEDULABLE,
    FailureCode.IMAGE_NOT_FOUND: ConditionCode.IMAGE_PULL_FAILING,
    FailureCode.IMAGE_ACCESS_DENIED: ConditionCode.IMAGE_PULL_FAILING,
    FailureCode.IMAGE_NAME_INVALID: ConditionCode.IMAGE_PULL_FAILING,
    FailureCode.REGISTRY_UNAVAILABLE: ConditionCode.IMAGE_PULL_FAILING,
    FailureCode.IMAGE_PULL_FAILED: ConditionCode.IMAGE_PULL_FAILING,
    FailureCode.SECRET_MISSING: ConditionCode.SECRET_MISSING,
    FailureCode.VOLUME_MISSING: ConditionCode.VOLUME_NOT_READY,
    FailureCode.VOLUME_NOT_BOUND: ConditionCode.VOLUME_NOT_READY,
    FailureCode.VOLUME_ZONE_CONFLICT: ConditionCode.VOLUME_NOT_READY,
    FailureCode.VOLUME_MOUNT_FAILED: ConditionCode.VOLUME_NOT_READY,
}


def job_view(
    snapshot: JobSnapshot, log_template: str | None = None, start_timeouts: StartTimeouts | None = None
) -> JobView:
    """Build the view. The policy has the template of links to stored logs, and the limits on a job's start."""
    job, spec, record = snapshot.job, spec_of(snapshot.job), record_of(snapshot.job)
    retries = spec.retries if spec else 0
    state = state_of(job, snapshot.pods, snapshot.deleted_pods, retries)
    known = merge_attempts(snapshot, record)
    final = record if record is not None and record.state is not None else None
    condition = job.condition("Complete") or job.condition("Failed")
    conditions = conditions_of(snapshot, state, retries, known)
    excerpt = final.excerpt if final else excerpt_from_status(snapshot) or (record.excerpt if record else None)
    view = JobView(
        id=job.metadata.name,
        tenant=snapshot.tenant,
        name=job.metadata.labels.get(LABEL_NAME),
        state=state,
        spec=spec,
        created_at=job.metadata.creation_timestamp,
        started_at=known.started_at,
        finished_at=condition.last_transition_time if condition and state.is_finished else None,
        conditions=_with_start_timeout(conditions, snapshot, known, start_timeouts),
        attempts=list(known.attempts),
        attempts_left_out=known.left_out,
        disruptions=known.disruptions,
        failure=final.failure if final else _failure(snapshot, known, excerpt),
        cost=_cost(job, state, known, final),
        kubernetes=KubernetesRef(job.metadata.namespace, job.metadata.name),
        excerpt=excerpt,
        usage=record.usage if record else None,
        may_be_incomplete=incomplete_success(known.attempts) if state is JobState.SUCCEEDED else None,
        images_differ=len({attempt.image_id for attempt in known.attempts if attempt.image_id}) > 1,
    )
    return view if log_template is None else replace(view, logs_url=log_url(log_template, view))


def without_env_values(view: JobView) -> JobView:
    """Replace each environment value by its length: `<hidden: 12 characters>`."""
    if view.spec is None or not view.spec.env:
        return view
    hidden = {name: f"<hidden: {len(value)} characters>" for name, value in view.spec.env.items()}
    return replace(view, spec=replace(view.spec, env=hidden))


def state_of(job: Job, pods: Sequence[Pod], deleted_pods: frozenset[str], retries: int) -> JobState:
    """Return the state of a job.

    It is finished when Kubernetes has set the final condition *and* every pod has ended.
    """
    live = _live(pods, deleted_pods)
    # A Job that Kubernetes completed has succeeded, even after a cancel.
    cancelled = ANNOTATION_CANCELLED_AT in job.metadata.annotations and not job.condition("Complete")
    if job.finished and not live:
        if job.condition("Complete"):
            return JobState.SUCCEEDED
        return JobState.CANCELLED if cancelled else JobState.FAILED
    if cancelled:
        return JobState.CANCELLING
    if live:
        return JobState.RUNNING if any(map(container_started, live)) else JobState.PENDING
    # Between the end of the last attempt and the final condition a job waits for nothing: it is still running.
    has_run = any(map(container_started, pods)) and not _will_retry(job, pods, retries)
    return JobState.RUNNING if has_run else JobState.PENDING


def pending_since(job: Job, pods: Sequence[Pod]) -> datetime | None:
    """Return the start of the wait of a pending job: its creation, or the end of the last attempt that ran."""
    moments = [job.metadata.creation_timestamp, *map(_ended_at, filter(container_started, pods))]
    return max((moment for moment in moments if moment is not None), default=None)


def _failure(snapshot: JobSnapshot, known: AttemptHistory, excerpt: Excerpt | None) -> Failure | None:
    failure = failure_from_history(snapshot, known, excerpt)
    return None if failure is None else failure_without_secrets(failure, secrets_of(snapshot.job))


def _cost(job: Job, state: JobState, known: AttemptHistory, final: Record | None) -> CostView | None:
    cost = cost_of(job)
    if cost is None:
        return None
    actual = final.actual if final else actual_cost_of(job, known) if state.is_finished else None
    return cost if actual == cost.actual else replace(cost, actual=actual)


def conditions_of(
    snapshot: JobSnapshot, state: JobState, retries: int, known: AttemptHistory | None = None
) -> list[ConditionView]:
    """Return why an unfinished job makes no progress. `known` adds the attempts whose pods are deleted."""
    if state.is_finished:
        return []
    live = _live(snapshot.pods, snapshot.deleted_pods)
    found = [condition for pod in live for condition in _conditions_of_pod(snapshot, pod)]
    if not live and state is JobState.PENDING and _will_create_pod(snapshot, retries):
        failures = known.left_out + len(known.attempts) if known else len(snapshot.pods)
        found += _conditions_between_pods(snapshot, failures)
    elif not live:
        found.append(_outcome_pending(snapshot))
    if snapshot.idle_gpus is not None and state is JobState.RUNNING:
        found.append(ConditionView(ConditionCode.GPU_IDLE, snapshot.idle_gpus.message, None))
    return found


def _with_start_timeout(
    conditions: list[ConditionView], snapshot: JobSnapshot, known: AttemptHistory, limits: StartTimeouts | None
) -> list[ConditionView]:
    """Add the policy's limit to the condition that keeps a job from its first start."""
    wait = start_wait(snapshot, known=known) if conditions and limits else None
    if wait is None or wait.cause is None:
        return conditions
    code, seconds = _code(wait.cause), getattr(limits, limit_of(wait.cause.code))
    return [replace(each, start_timeout_seconds=seconds) if each.code == code else each for each in conditions]


def _live(pods: Sequence[Pod], deleted_pods: frozenset[str]) -> list[Pod]:
    return [pod for pod in pods if not pod.is_terminal and pod.metadata.name not in deleted_pods]


def _will_retry(job: Job, pods: Sequence[Pod], retries: int) -> bool:
    """Return whether Kubernetes will start another attempt after these finished ones.

    FailureTarget announces the failure: https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
    Without retries, the Job's `backoffLimit` is for pods that never ran (`jobs.manifest`).
    """
    if pods[-1].status.phase == "Succeeded" or job.condition("FailureTarget"):
        return False
    counted = [pod for pod in pods if counts_against_retries(pod)]
    if retries == 0 and any(map(has_exited, counted)):
        return False
    return len(counted) <= (retries if job.spec.backoff_limit is None else job.spec.backoff_limit)


def _conditions_of_pod(snapshot: JobSnapshot, pod: Pod) -> Iterator[ConditionView]:
    """Yield why this pod, which has not ended, does not run or does not end."""
    if (finding := diagnose_container_start(snapshot, pod)) is not None:
        since = _waiting_since(pod)
        yield ConditionView(_code(finding), finding.message, since)
        scaling = scaling_of(snapshot, pod) if finding.code is FailureCode.UNSCHEDULABLE else None
        if scaling is not None:
            yield ConditionView(scaling.code, scaling.message, scaling.since or since)
    ended = pod.container.terminated
    if ended is not None and (others := kept_alive_by(pod)) is not None:
        message = (
            f"the job's container has exited with code {ended.exit_code}, but {others} keeps pod {pod.metadata.name} "
            "alive; the job keeps its quota until the pod ends"
        )
        yield ConditionView(ConditionCode.OTHER_CONTAINER_RUNNING, message, ended.finished_at)
    if (unreachable := _unreachable(snapshot, pod)) is not None:
        yield unreachable
    if (fault := gpu_fault_of(snapshot, pod)) is not None:
        yield ConditionView(ConditionCode.GPU_HARDWARE, describe_fault(pod, fault), fault.last_transition_time)
    if pod.terminating:
        requested = termination_requested_at(pod, snapshot.job)
        message = f"pod {pod.metadata.name} is terminating"
        if pod.metadata.deletion_timestamp is not None:
            message += f"; its grace period ends at {pod.metadata.deletion_timestamp:%H:%M:%S} UTC"
        yield ConditionView(ConditionCode.TERMINATING, message, requested)


def _will_create_pod(snapshot: JobSnapshot, retries: int) -> bool:
    return not snapshot.pods or _will_retry(snapshot.job, snapshot.pods, retries)


def _conditions_between_pods(snapshot: JobSnapshot, failures: int) -> Iterator[ConditionView]:
    """Yield why a job whose next attempt will follow has no live pod."""
    last = snapshot.pods[-1] if snapshot.pods else None
    if last is not None:
        cause, ended_at = attempt_failure(snapshot, last), _ended_at(last)
        why = f": {cause.message}" if cause else ""
        message = f"attempt {failures} failed{why}; {_next_attempt(snapshot.job, failures, ended_at)}"
        yield ConditionView(ConditionCode.RETRYING, message, ended_at)
    if snapshot.job.spec.suspend:
        suspended = snapshot.job.condition("Suspended")
        yield ConditionView(
            ConditionCode.SUSPENDED,
            "the Job is suspended; Kubernetes creates no pod until someone resumes it",
            suspended.last_transition_time if suspended else None,
        )
        return
    refused = diagnose_pod_creation(snapshot, last.metadata.creation_timestamp if last else None)
    if refused is not None:
        yield ConditionView(_code(refused), refused.message, snapshot.job.metadata.creation_timestamp)
    elif last is None:
        message = "Kubernetes has not created the pod yet"
        yield ConditionView(ConditionCode.POD_NOT_CREATED, message, snapshot.job.metadata.creation_timestamp)


def _outcome_pending(snapshot: JobSnapshot) -> ConditionView:
    """Explain the wait for the Job's final condition: usually a second, or as long as no controller runs."""
    message = (
        f"{ConditionCode.OUTCOME_PENDING.meaning}; if this lasts, the platform operators must check the controller, "
        "which is part of kube-controller-manager"
    )
    return ConditionView(
        ConditionCode.OUTCOME_PENDING, message, _ended_at(snapshot.pods[-1]) if snapshot.pods else None
    )


def _ended_at(pod: Pod) -> datetime | None:
    ended = pod.container.terminated
    return ended.finished_at if ended else pod.metadata.deletion_timestamp


def _next_attempt(job: Job, failures: int, ended_at: datetime | None) -> str:
    """Say when Kubernetes creates the next pod: its back-off doubles with each failed pod, disrupted ones included.

    https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-backoff-failure-policy
    https://github.com/kubernetes/kubernetes/blob/v1.35.0/pkg/controller/job/backoff_utils.go
    """
    wait = min(FIRST_BACKOFF * 2 ** min(max(failures - 1, 0), 16), LONGEST_BACKOFF)
    count = "a failed attempt" if failures == 1 else f"{failures} failed attempts"
    text = f"after {count} Kubernetes waits {show_duration(wait.total_seconds())}"
    if ended_at is None:
        return text
    due, deadline = ended_at + wait, deadline_at(job)
    text += f", so the next one is due at {due:%H:%M:%S} UTC"
    return f"{text}, past the job's timeout" if deadline is not None and deadline <= due else text


def _code(finding: Diagnosis) -> ConditionCode:
    return _OF_FINDING.get(finding.code, ConditionCode.CONTAINER_NOT_STARTING)


def _waiting_since(pod: Pod) -> datetime | None:
    scheduled = pod.condition("PodScheduled")
    if scheduled is not None and scheduled.status == "False":
        return scheduled.last_transition_time
    return pod.status.start_time


def _unreachable(snapshot: JobSnapshot, pod: Pod) -> ConditionView | None:
    """https://kubernetes.io/docs/concepts/architecture/nodes/#condition"""
    node = snapshot.node_of(pod)
    ready = node.condition("Ready") if node is not None else None
    if node is None or ready is None or ready.status == "True":
        return None
    name = node.metadata.name
    reason = one_line(ready.message or ready.reason)
    quoted = f" ({reason})" if reason else ""
    if ready.status == "Unknown":
        message = f"node {name} does not respond{quoted}; the job may still run there and keeps its quota"
    else:
        message = f"node {name} is not ready{quoted}"
    return ConditionView(ConditionCode.NODE_UNREACHABLE, message, ready.last_transition_time)
