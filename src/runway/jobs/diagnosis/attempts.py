"""The attempts of a job: each pod with its node, times, exit and cause. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from runway.jobs.annotations import spec_of
from runway.jobs.diagnosis.attempt_failure import attempt_failure, counts_against_retries
from runway.jobs.diagnosis.container_exit import diagnose_exit, signal_of, started_at
from runway.jobs.diagnosis.disruption import disruption, rejection_of
from runway.jobs.models import Attempt
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Pod
from runway.text import one_line

MAX_ATTEMPTS: Final = 20
"""Attempts in a view. Disruptions do not count against the retries, so a job can have any number of attempts."""


def attempts_of(case: JobSnapshot) -> list[Attempt]:
    """Return every known attempt, oldest first."""
    return [_attempt(case, pod) for pod in case.pods]


def disruptions(attempts: Sequence[Attempt]) -> int:
    """Return the number of disrupted attempts, which do not count against the retries."""
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
    """Return when the container exited, or the best time that Kubernetes reports instead."""
    ended, target = pod.container.terminated, disruption(pod)
    if ended is not None and ended.finished_at is not None and ended.finished_at.year > 1970:
        return ended.finished_at
    if not case.has_ended(pod):
        return None
    if pod.metadata.deletion_timestamp is not None:
        return pod.metadata.deletion_timestamp
    if target is not None:
        return target.last_transition_time
    # A node rejects a pod as soon as it is bound and writes no time.
    return _bound_at(pod) if rejection_of(pod) else None


def _suspicious_success(case: JobSnapshot, pod: Pod) -> str | None:
    """Explain why an attempt with exit code 0, a success to Kubernetes, may be incomplete."""
    ended, target = pod.container.terminated, disruption(pod)
    if ended is not None and ended.reason == "OOMKilled":
        spec = spec_of(case.job)
        found = diagnose_exit(ended, spec.resources.memory if spec else None)
        return found.message if found else None
    if target is not None:
        words = one_line(target.message or target.reason, 120)
        return f"the pod was terminated ({words}) but exited with code 0; its work may be incomplete"
    return None
