"""The attempts of a job: each pod with where and when it ran, how it ended, and why it did not succeed. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.attempt_failure import attempt_failure, counts_against_retries
from runway.jobs.diagnosis.codes import FailureCode
from runway.jobs.diagnosis.container_exit import diagnose_exit, signal_of, started_at
from runway.jobs.diagnosis.disruption import disruption, rejection_of
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Pod
from runway.text import one_line

MAX_ATTEMPTS: Final = 20
"""Attempts that a view shows; disruptions are not counted, so there may be any number of them."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One pod of the job: where it ran, how it ended, whether that counted against the retries, and why.

    `bound_at` is when the scheduler gave it its node; `cause` and `message` say why it did not succeed.
    """

    pod: str
    node: str | None
    state: str
    exit_code: int | None
    signal: str | None
    reason: str | None
    created_at: datetime | None
    bound_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    counted: bool
    cause: FailureCode | None
    message: str | None


def attempts_of(case: JobSnapshot) -> list[Attempt]:
    """Every attempt that is known of, oldest first."""
    return [_attempt(case, pod) for pod in case.pods]


def disruptions(attempts: Sequence[Attempt]) -> int:
    """How many attempts the cluster ended; they do not count against the retries."""
    return sum(attempt.state == "failed" and not attempt.counted for attempt in attempts)


def _attempt(case: JobSnapshot, pod: Pod) -> Attempt:
    ended, running = pod.container.terminated, pod.container.running
    target, cause = disruption(pod), attempt_failure(case, pod)
    state = _state(case, pod)
    started = started_at(ended) if ended else running.started_at if running else None
    return Attempt(
        pod=pod.metadata.name,
        node=pod.spec.node_name,
        state=state,
        exit_code=ended.exit_code if ended else None,
        signal=signal_of(ended) if ended else None,
        reason=pod.status.reason or (target.reason if target else None) or (ended.reason if ended else None),
        created_at=pod.metadata.creation_timestamp,
        bound_at=_bound_at(pod),
        started_at=started,
        finished_at=_finished_at(case, pod),
        counted=state == "failed" and counts_against_retries(pod),
        cause=cause.finding.code if cause and cause.finding else None,
        message=cause.message if cause else _suspicious_success(case, pod) if state == "succeeded" else None,
    )


def _state(case: JobSnapshot, pod: Pod) -> str:
    if pod.status.phase == "Succeeded":
        return "succeeded"
    if case.has_ended(pod):
        return "failed"
    if pod.terminating:
        return "terminating"
    return "running" if pod.container.running else "waiting"


def _bound_at(pod: Pod) -> datetime | None:
    """https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions"""
    scheduled = pod.condition("PodScheduled")
    return scheduled.last_transition_time if scheduled is not None and scheduled.status == "True" else None


def _finished_at(case: JobSnapshot, pod: Pod) -> datetime | None:
    """When the container ended; where no end was seen, the next best that Kubernetes wrote."""
    ended, target = pod.container.terminated, disruption(pod)
    if ended is not None and ended.finished_at is not None and ended.finished_at.year > 1970:
        return ended.finished_at
    if not case.has_ended(pod):
        return None
    if pod.metadata.deletion_timestamp is not None:
        return pod.metadata.deletion_timestamp
    if target is not None:
        return target.last_transition_time
    # A node refuses a pod as soon as it hears of it, and writes no time.
    return _bound_at(pod) if rejection_of(pod) else None


def _suspicious_success(case: JobSnapshot, pod: Pod) -> str | None:
    """What speaks against an exit code of 0, by which Kubernetes calls the attempt a success."""
    ended, target = pod.container.terminated, disruption(pod)
    if ended is not None and ended.reason == "OOMKilled":
        spec = spec_of(case.job)
        found = diagnose_exit(ended, spec.resources.memory if spec else None)
        return found.message if found else None
    if target is not None:
        words = one_line(target.message or target.reason, 120)
        return f"it was told to end ({words}) and ended with exit code 0: its work may not be done"
    return None
