"""Build the view of a job from its snapshot. Pure.

The record on the Job (`jobs.record`) replaces the pods and events that Kubernetes has deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from runway.jobs.annotations import ANNOTATION_CANCELLED_AT, LABEL_NAME, cost_of, spec_of
from runway.jobs.diagnosis.attempts import container_started, counts_against_retries
from runway.jobs.diagnosis.conditions import conditions_between_pods, conditions_of_pod
from runway.jobs.log_excerpt import secrets_of
from runway.jobs.models import ConditionView, CostView, Failure, JobState, JobView, KubernetesRef
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
from runway.kube.objects import Job, Pod


def job_view(snapshot: JobSnapshot) -> JobView:
    job, pods, deleted_pods = snapshot.job, snapshot.pods, snapshot.deleted_pods
    spec = spec_of(job)
    retries = spec.retries if spec else 0
    state = state_of(job, pods, deleted_pods, retries)
    record = record_of(job)
    known = merge_attempts(snapshot, record)
    final = record if record is not None and record.state is not None else None
    attempts = known.attempts
    condition = job.condition("Complete") or job.condition("Failed")
    return JobView(
        id=job.metadata.name,
        tenant=snapshot.tenant,
        name=job.metadata.labels.get(LABEL_NAME),
        state=state,
        spec=spec,
        created_at=job.metadata.creation_timestamp,
        started_at=known.started_at,
        finished_at=condition.last_transition_time if condition and state.is_finished else None,
        conditions=_conditions(snapshot, state, retries),
        attempts=list(attempts),
        attempts_left_out=known.left_out,
        disruptions=known.disruptions,
        failure=final.failure if final else _failure(snapshot, known),
        cost=_cost(job, state, known, final),
        kubernetes=KubernetesRef(job.metadata.namespace, job.metadata.name),
        excerpt=final.excerpt if final else excerpt_from_status(snapshot) or (record.excerpt if record else None),
        usage=record.usage if record else None,
    )


def without_env_values(view: JobView) -> JobView:
    """Replace each environment value by its length: `<hidden: 12 characters>`."""
    if view.spec is None or not view.spec.env:
        return view
    hidden = {name: f"<hidden: {len(value)} characters>" for name, value in view.spec.env.items()}
    return replace(view, spec=replace(view.spec, env=hidden))


def state_of(job: Job, pods: Sequence[Pod], deleted_pods: frozenset[str], retries: int) -> JobState:
    """Return the state of a job.

    It is finished when Kubernetes has set the final condition *and* every pod has ended. Before that it is running once
    a container has started, and pending between two attempts.
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
    return (
        JobState.RUNNING
        if any(map(container_started, pods)) and not _will_retry(job, pods, retries)
        else JobState.PENDING
    )


def pending_since(job: Job, pods: Sequence[Pod]) -> datetime | None:
    """Return the start of the wait of a pending job: its creation, or the end of the last attempt that ran.

    A pod that never ran does not restart the wait: a node may reject several in a row.
    """
    moments = [job.metadata.creation_timestamp]
    for pod in filter(container_started, pods):
        ended = pod.container.terminated
        moments.append(ended.finished_at if ended else pod.metadata.deletion_timestamp)
    return max((moment for moment in moments if moment is not None), default=None)


def _failure(snapshot: JobSnapshot, known: AttemptHistory) -> Failure | None:
    failure = failure_from_history(snapshot, known)
    return None if failure is None else failure_without_secrets(failure, secrets_of(snapshot.job))


def _cost(job: Job, state: JobState, known: AttemptHistory, final: Record | None) -> CostView | None:
    """Return the estimated cost, and the actual cost of a finished job."""
    cost = cost_of(job)
    if cost is None:
        return None
    actual = final.actual if final else actual_cost_of(job, known) if state.is_finished else None
    return replace(cost, actual=actual)


def _conditions(snapshot: JobSnapshot, state: JobState, retries: int) -> list[ConditionView]:
    if state.is_finished:
        return []
    live = _live(snapshot.pods, snapshot.deleted_pods)
    found = [condition for pod in live for condition in conditions_of_pod(snapshot, pod)]
    if state is JobState.PENDING and not live:
        retrying = bool(snapshot.pods) and _will_retry(snapshot.job, snapshot.pods, retries)
        found += conditions_between_pods(snapshot, retrying=retrying)
    return found


def _live(pods: Sequence[Pod], deleted_pods: frozenset[str]) -> list[Pod]:
    return [pod for pod in pods if not pod.is_terminal and pod.metadata.name not in deleted_pods]


def _will_retry(job: Job, pods: Sequence[Pod], retries: int) -> bool:
    """Return whether Kubernetes will start another attempt after these finished ones.

    FailureTarget announces the failure: https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
    """
    if pods[-1].status.phase == "Succeeded" or job.condition("FailureTarget"):
        return False
    return sum(counts_against_retries(pod) for pod in pods) <= retries
