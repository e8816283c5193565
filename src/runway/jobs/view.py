"""The job view: what a caller sees of a job, derived anew each time from what Kubernetes says. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from runway.jobs.admitted import CostView, SpecView, cost_of, spec_of
from runway.jobs.case import Case
from runway.jobs.diagnosis import Condition, Failure, diagnose, signal_of, waiting_condition
from runway.jobs.identity import ANNOTATION_CANCELLED_AT, LABEL_NAME
from runway.objects import Job, Pod


class State(StrEnum):
    """Where a job is in its life. The last three are for good, except `cancelling`."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether the job will never change state again."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One pod of the job: where it ran, how it ended, and whether that counted against the retries."""

    pod: str
    node: str | None
    state: str
    exit_code: int | None
    signal: str | None
    reason: str | None
    started_at: datetime | None
    finished_at: datetime | None
    counted: bool


@dataclass(frozen=True, slots=True)
class KubernetesRef:
    """Where `kubectl` finds the job."""

    namespace: str
    job: str


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as callers see it. `spec` and `cost` are null for a Job that did not come through Runway."""

    id: str
    tenant: str
    name: str | None
    state: State
    spec: SpecView | None
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    conditions: list[Condition]
    attempts: list[Attempt]
    failure: Failure | None
    cost: CostView | None
    kubernetes: KubernetesRef


def job_view(case: Case) -> JobView:
    """The view of a job as far as it is known."""
    job, pods, gone = case.job, case.pods, case.gone
    spec = spec_of(job)
    retries = spec.retries if spec else 0
    state = state_of(job, pods, gone, retries)
    attempts = [_attempt(pod, pod.metadata.name in gone) for pod in pods]
    verdict = job.condition("Complete") or job.condition("Failed")
    return JobView(
        id=job.metadata.name,
        tenant=case.tenant,
        name=job.metadata.labels.get(LABEL_NAME),
        state=state,
        spec=spec,
        created_at=job.metadata.creation_timestamp,
        started_at=min((item.started_at for item in attempts if item.started_at), default=None),
        finished_at=verdict.last_transition_time if verdict and state.over else None,
        conditions=_conditions(job, pods, gone, state, retries),
        attempts=attempts,
        failure=diagnose(case),
        cost=cost_of(job),
        kubernetes=KubernetesRef(job.metadata.namespace, job.metadata.name),
    )


def state_of(job: Job, pods: Sequence[Pod], gone: frozenset[str], retries: int) -> State:
    """The state of a job.

    It is over only when Kubernetes has given its verdict *and* every pod has ended. Until then it runs once a container
    has started, and between two attempts it is pending.
    """
    live = _live(pods, gone)
    # What Kubernetes has completed has succeeded, cancelled or not.
    cancelled = ANNOTATION_CANCELLED_AT in job.metadata.annotations and not job.condition("Complete")
    if job.finished and not live:
        if job.condition("Complete"):
            return State.SUCCEEDED
        return State.CANCELLED if cancelled else State.FAILED
    if cancelled:
        return State.CANCELLING
    if live:
        return State.RUNNING if any(_started(pod) for pod in live) else State.PENDING
    # Between the end of the last attempt and Kubernetes' verdict a job is still running, not waiting for anything.
    return (
        State.RUNNING if any(_started(pod) for pod in pods) and not _will_retry(job, pods, retries) else State.PENDING
    )


def _conditions(job: Job, pods: Sequence[Pod], gone: frozenset[str], state: State, retries: int) -> list[Condition]:
    if state.over:
        return []
    live = _live(pods, gone)
    found = [condition for pod in live if (condition := waiting_condition(pod))]
    found += [
        Condition("terminating", f"pod {pod.metadata.name} was told to end", pod.metadata.deletion_timestamp)
        for pod in live
        if pod.terminating
    ]
    if state is State.PENDING and pods and not live and _will_retry(job, pods, retries):
        ended = pods[-1].container.terminated
        found.append(
            Condition("retrying", "the last attempt failed; another follows", ended.finished_at if ended else None)
        )
    if state is State.PENDING and not pods:
        found.append(
            Condition("pod_not_created", "Kubernetes has not created the pod yet", job.metadata.creation_timestamp)
        )
    return found


def _attempt(pod: Pod, gone: bool) -> Attempt:
    ended = pod.container.terminated
    running = pod.container.running
    disruption = pod.condition("DisruptionTarget")
    disrupted = disruption is not None and disruption.status == "True"
    succeeded = pod.status.phase == "Succeeded"
    failed = pod.status.phase == "Failed" or (gone and not succeeded)
    if failed or succeeded:
        state = "failed" if failed else "succeeded"
    elif pod.terminating:
        state = "terminating"
    else:
        state = "running" if running else "waiting"
    started = ended.started_at if ended else running.started_at if running else None
    if started is not None and started.year == 1970:
        started = None  # What the kubelet writes for a container that never started: kubernetes/kubernetes#120331
    return Attempt(
        pod=pod.metadata.name,
        node=pod.spec.node_name,
        state=state,
        exit_code=ended.exit_code if ended else None,
        signal=signal_of(ended) if ended else None,
        reason=(disruption.reason if disruption and disrupted else None)
        or (ended.reason if ended else pod.status.reason),
        started_at=started,
        finished_at=ended.finished_at if ended else None,
        counted=failed and not disrupted,
    )


def _started(pod: Pod) -> bool:
    return pod.container.running is not None or pod.container.terminated is not None


def _live(pods: Sequence[Pod], gone: frozenset[str]) -> list[Pod]:
    return [pod for pod in pods if not pod.ended and pod.metadata.name not in gone]


def _will_retry(job: Job, pods: Sequence[Pod], retries: int) -> bool:
    """Whether Kubernetes will start another attempt after these, all of which have ended.

    FailureTarget announces the verdict: https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
    """
    if pods[-1].status.phase == "Succeeded" or job.condition("FailureTarget"):
        return False
    counted = sum(_attempt(pod, gone=True).counted for pod in pods)
    return counted <= retries
