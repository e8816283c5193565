"""Why a job that is not over is not further along. Pure.

Each condition stands for itself; several can hold at once. Lost contact with a node is a condition, never a failure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from runway.jobs.diagnosis.attempt_failure import attempt_failure, termination_requested_at
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.diagnosis.container_start import diagnose_container_start, diagnose_pod_creation
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Pod
from runway.text import one_line


class ConditionCode(StrEnum):
    """Stable codes of why a job waits. In the order of `CONDITIONS`."""

    POD_NOT_CREATED = "pod_not_created"
    QUOTA_BACKSTOP = "quota_backstop"
    POD_SECURITY_REFUSED = "pod_security_refused"
    POD_CREATION_REFUSED = "pod_creation_refused"
    SUSPENDED = "suspended"
    UNSCHEDULABLE = "unschedulable"
    IMAGE_PULL_FAILING = "image_pull_failing"
    CONTAINER_NOT_STARTING = "container_not_starting"
    NODE_UNREACHABLE = "node_unreachable"
    TERMINATING = "terminating"
    RETRYING = "retrying"


CONDITIONS: Final[Mapping[ConditionCode, str]] = {
    ConditionCode.POD_NOT_CREATED: "Kubernetes has not created the pod yet",
    ConditionCode.QUOTA_BACKSTOP: "the namespace's ResourceQuota refuses the pod; Kubernetes keeps trying",
    ConditionCode.POD_SECURITY_REFUSED: "the namespace's Pod Security level refuses the pod",
    ConditionCode.POD_CREATION_REFUSED: "the API server refuses the pod for another reason",
    ConditionCode.SUSPENDED: "somebody suspended the Job past Runway",
    ConditionCode.UNSCHEDULABLE: "no node takes the pod: for want of what, what it asks for, and what is free",
    ConditionCode.IMAGE_PULL_FAILING: "the node cannot pull the image; the message is the registry's",
    ConditionCode.CONTAINER_NOT_STARTING: "the sandbox or the container cannot be set up; the message is the node's",
    ConditionCode.NODE_UNREACHABLE: "the pod's node does not answer, or is not ready: nothing is decided by that",
    ConditionCode.TERMINATING: "the pod was told to end and has not yet",
    ConditionCode.RETRYING: "the last attempt failed, and another follows after Kubernetes' back-off",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """Why a job that is not over is not further along."""

    code: ConditionCode
    message: str
    since: datetime | None


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


def conditions_of_pod(case: JobSnapshot, pod: Pod) -> Iterator[Condition]:
    """Why this pod, which has not ended, does not run or does not end."""
    if (finding := diagnose_container_start(case, pod)) is not None:
        yield Condition(_code(finding), finding.message, _waiting_since(pod, finding))
    if (unreachable := _unreachable(case, pod)) is not None:
        yield unreachable
    if pod.terminating:
        asked = termination_requested_at(pod, case.job)
        message = f"pod {pod.metadata.name} was told to end"
        if pod.metadata.deletion_timestamp is not None:
            message += f" and has until {pod.metadata.deletion_timestamp:%H:%M:%S} UTC"
        yield Condition(ConditionCode.TERMINATING, message, asked)


def conditions_between_pods(case: JobSnapshot, *, retrying: bool) -> Iterator[Condition]:
    """Why a job without a live pod has none. `retrying` says whether another attempt will follow."""
    last = case.pods[-1] if case.pods else None
    if last is not None and not retrying:
        return
    if last is not None:
        cause, ended = attempt_failure(case, last), last.container.terminated
        why = f": {cause.message}" if cause else ""
        message = f"attempt {len(case.pods)} did not succeed{why}; another follows"
        yield Condition(
            ConditionCode.RETRYING, message, ended.finished_at if ended else last.metadata.deletion_timestamp
        )
    if case.job.spec.suspend:
        suspended = case.job.condition("Suspended")
        yield Condition(
            ConditionCode.SUSPENDED,
            "the Job is suspended: Kubernetes creates no pod until it is resumed",
            suspended.last_transition_time if suspended else None,
        )
        return
    refused = diagnose_pod_creation(case, last.metadata.creation_timestamp if last else None)
    if refused is not None:
        yield Condition(_code(refused), refused.message, case.job.metadata.creation_timestamp)
    elif last is None:
        message = "Kubernetes has not created the pod yet"
        yield Condition(ConditionCode.POD_NOT_CREATED, message, case.job.metadata.creation_timestamp)


def _code(finding: Diagnosis) -> ConditionCode:
    return _OF_FINDING.get(finding.code, ConditionCode.CONTAINER_NOT_STARTING)


def _waiting_since(pod: Pod, finding: Diagnosis) -> datetime | None:
    scheduled = pod.condition("PodScheduled")
    if finding.code is FailureCode.UNSCHEDULABLE and scheduled is not None:
        return scheduled.last_transition_time
    return pod.status.start_time


def _unreachable(case: JobSnapshot, pod: Pod) -> Condition | None:
    """https://kubernetes.io/docs/concepts/architecture/nodes/#condition"""
    node = case.node_of(pod)
    ready = node.condition("Ready") if node is not None else None
    if node is None or ready is None or ready.status == "True":
        return None
    name = node.metadata.name
    said = one_line(ready.message or ready.reason)
    told = f" ({said})" if said else ""
    if ready.status == "Unknown":
        message = (
            f"node {name} does not answer{told}; the job may still run there, and keeps what it holds until it is known"
        )
    else:
        message = f"node {name} is not ready{told}"
    return Condition(ConditionCode.NODE_UNREACHABLE, message, ready.last_transition_time)
