"""Conditions: why an unfinished job does not progress. Pure.

Conditions are independent; several can hold at once. A lost node is a condition, never a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from runway.jobs.diagnosis.attempts import attempt_failure, termination_requested_at
from runway.jobs.diagnosis.codes import ConditionCode, Diagnosis, FailureCode
from runway.jobs.diagnosis.container_start import diagnose_container_start, diagnose_pod_creation
from runway.jobs.models import ConditionView
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Pod
from runway.text import one_line

_OF_FINDING: Final = {
    FailureCode.QUOTA_BACKSTOP: ConditionCode.QUOTA_BACKSTOP,
    FailureCode.POD_SECURITY_REFUSED: ConditionCode.POD_SECURITY_REFUSED,
    FailureCode.POD_CREATION_REFUSED: ConditionCode.POD_CREATION_REFUSED,
    FailureCode.UNSCHEDULABLE: ConditionCode.UNSCHEDULABLE,
    FailureCode.IMAGE_NOT_FOUND: ConditionCode.IMAGE_PULL_FAILING,
    FailureCode.IMAGE_ACCESS_DENIED: ConditionCode.IMAGE_PULL_FAILING,
    FailureCode.IMAGE_NAME_INVALID: ConditionCode.IMAGE_PULL_FAILING,
    FailureCode.REGISTRY_UNAVAILABLE: ConditionCode.IMAGE_PULL_FAILING,
    FailureCode.IMAGE_PULL_FAILED: ConditionCode.IMAGE_PULL_FAILING,
}


def conditions_of_pod(snapshot: JobSnapshot, pod: Pod) -> Iterator[ConditionView]:
    """Yield why this pod, which has not ended, does not run or does not end."""
    if (finding := diagnose_container_start(snapshot, pod)) is not None:
        yield ConditionView(_code(finding), finding.message, _waiting_since(pod, finding))
    if (unreachable := _unreachable(snapshot, pod)) is not None:
        yield unreachable
    if pod.terminating:
        requested = termination_requested_at(pod, snapshot.job)
        message = f"pod {pod.metadata.name} is terminating"
        if pod.metadata.deletion_timestamp is not None:
            message += f"; its grace period ends at {pod.metadata.deletion_timestamp:%H:%M:%S} UTC"
        yield ConditionView(ConditionCode.TERMINATING, message, requested)


def conditions_between_pods(snapshot: JobSnapshot, *, retrying: bool) -> Iterator[ConditionView]:
    """Yield why a job has no live pod. `retrying` says whether another attempt will follow."""
    last = snapshot.pods[-1] if snapshot.pods else None
    if last is not None and not retrying:
        return
    if last is not None:
        cause, ended = attempt_failure(snapshot, last), last.container.terminated
        why = f": {cause.message}" if cause else ""
        message = f"attempt {len(snapshot.pods)} failed{why}; the next attempt follows"
        yield ConditionView(
            ConditionCode.RETRYING, message, ended.finished_at if ended else last.metadata.deletion_timestamp
        )
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


def _code(finding: Diagnosis) -> ConditionCode:
    return _OF_FINDING.get(finding.code, ConditionCode.CONTAINER_NOT_STARTING)


def _waiting_since(pod: Pod, finding: Diagnosis) -> datetime | None:
    scheduled = pod.condition("PodScheduled")
    if finding.code is FailureCode.UNSCHEDULABLE and scheduled is not None:
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
