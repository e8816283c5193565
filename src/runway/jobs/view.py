"""The job view: what a caller sees of a job, derived anew each time from what Kubernetes says. Pure.

The record that is kept on the Job (`record`) stands in for what cannot be seen any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from runway.jobs.annotations import CostView, SpecView, cost_of, spec_of
from runway.jobs.diagnosis.attempt_failure import container_started, counts_against_retries
from runway.jobs.diagnosis.attempts import Attempt
from runway.jobs.diagnosis.codes import Failure
from runway.jobs.diagnosis.conditions import Condition, conditions_between_pods, conditions_of_pod
from runway.jobs.identity import ANNOTATION_CANCELLED_AT, LABEL_NAME
from runway.jobs.log_excerpt import Excerpt, secrets_of
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
from runway.jobs.usage import Usage
from runway.kube.objects import Job, Pod


class JobState(StrEnum):
    """Where a job is in its life. The last three are for good, except `cancelling`."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_finished(self) -> bool:
        """Whether the job will never change state again."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True, slots=True)
class KubernetesRef:
    """Where `kubectl` finds the job."""

    namespace: str
    job: str


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as callers see it. `spec` and `cost` are null for a Job that did not come through Runway.

    `attempts` are the newest, oldest first; `attempts_left_out` says how many came before them. `disruptions` is how
    many attempts the cluster ended, which does not count against the retries. `excerpt` is the end of the log, as far
    as it is kept; `usage` what the job used, where that was measured.
    """

    id: str
    tenant: str
    name: str | None
    state: JobState
    spec: SpecView | None
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    conditions: list[Condition]
    attempts: list[Attempt]
    attempts_left_out: int
    disruptions: int
    failure: Failure | None
    cost: CostView | None
    kubernetes: KubernetesRef
    excerpt: Excerpt | None
    usage: Usage | None


def job_view(case: JobSnapshot) -> JobView:
    """The view of a job as far as it is known."""
    job, pods, gone = case.job, case.pods, case.deleted_pods
    spec = spec_of(job)
    retries = spec.retries if spec else 0
    state = state_of(job, pods, gone, retries)
    kept = record_of(job)
    known = merge_attempts(case, kept)
    final = kept if kept is not None and kept.state is not None else None
    attempts = known.attempts
    verdict = job.condition("Complete") or job.condition("Failed")
    return JobView(
        id=job.metadata.name,
        tenant=case.tenant,
        name=job.metadata.labels.get(LABEL_NAME),
        state=state,
        spec=spec,
        created_at=job.metadata.creation_timestamp,
        started_at=known.started_at,
        finished_at=verdict.last_transition_time if verdict and state.is_finished else None,
        conditions=_conditions(case, state, retries),
        attempts=list(attempts),
        attempts_left_out=known.left_out,
        disruptions=known.disruptions,
        failure=final.failure if final else _failure(case, known),
        cost=_cost(job, state, known, final),
        kubernetes=KubernetesRef(job.metadata.namespace, job.metadata.name),
        excerpt=final.excerpt if final else excerpt_from_status(case) or (kept.excerpt if kept else None),
        usage=kept.usage if kept else None,
    )


def without_env_values(view: JobView) -> JobView:
    """The view with the length of each environment value in place of the value: `<hidden: 12 characters>`."""
    if view.spec is None or not view.spec.env:
        return view
    hidden = {name: f"<hidden: {len(value)} characters>" for name, value in view.spec.env.items()}
    return replace(view, spec=replace(view.spec, env=hidden))


def state_of(job: Job, pods: Sequence[Pod], gone: frozenset[str], retries: int) -> JobState:
    """The state of a job.

    It is over only when Kubernetes has given its verdict *and* every pod has ended. Until then it runs once a container
    has started, and between two attempts it is pending.
    """
    live = _live(pods, gone)
    # What Kubernetes has completed has succeeded, cancelled or not.
    cancelled = ANNOTATION_CANCELLED_AT in job.metadata.annotations and not job.condition("Complete")
    if job.finished and not live:
        if job.condition("Complete"):
            return JobState.SUCCEEDED
        return JobState.CANCELLED if cancelled else JobState.FAILED
    if cancelled:
        return JobState.CANCELLING
    if live:
        return JobState.RUNNING if any(map(container_started, live)) else JobState.PENDING
    # Between the end of the last attempt and Kubernetes' verdict a job is still running, not waiting for anything.
    return (
        JobState.RUNNING
        if any(map(container_started, pods)) and not _will_retry(job, pods, retries)
        else JobState.PENDING
    )


def pending_since(job: Job, pods: Sequence[Pod]) -> datetime | None:
    """Since when a pending job waits: its creation, or the end of the last attempt that ran.

    A pod that never ran does not begin the wait anew: a node may refuse one after the other.
    """
    moments = [job.metadata.creation_timestamp]
    for pod in filter(container_started, pods):
        ended = pod.container.terminated
        moments.append(ended.finished_at if ended else pod.metadata.deletion_timestamp)
    return max((moment for moment in moments if moment is not None), default=None)


def _failure(case: JobSnapshot, known: AttemptHistory) -> Failure | None:
    failure = failure_from_history(case, known)
    return None if failure is None else failure_without_secrets(failure, secrets_of(case.job))


def _cost(job: Job, state: JobState, known: AttemptHistory, final: Record | None) -> CostView | None:
    """The price as admitted, and what the job cost once it is over."""
    cost = cost_of(job)
    if cost is None:
        return None
    actual = final.actual if final else actual_cost_of(job, known) if state.is_finished else None
    return replace(cost, actual=actual)


def _conditions(case: JobSnapshot, state: JobState, retries: int) -> list[Condition]:
    if state.is_finished:
        return []
    live = _live(case.pods, case.deleted_pods)
    found = [condition for pod in live for condition in conditions_of_pod(case, pod)]
    if state is JobState.PENDING and not live:
        retrying = bool(case.pods) and _will_retry(case.job, case.pods, retries)
        found += conditions_between_pods(case, retrying=retrying)
    return found


def _live(pods: Sequence[Pod], gone: frozenset[str]) -> list[Pod]:
    return [pod for pod in pods if not pod.is_terminal and pod.metadata.name not in gone]


def _will_retry(job: Job, pods: Sequence[Pod], retries: int) -> bool:
    """Whether Kubernetes will start another attempt after these, all of which have ended.

    FailureTarget announces the verdict: https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
    """
    if pods[-1].status.phase == "Succeeded" or job.condition("FailureTarget"):
        return False
    return sum(counts_against_retries(pod) for pod in pods) <= retries
