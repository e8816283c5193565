"""Whether a job can still start, and the cause that keeps it from starting. Pure.

Only statuses decide: anyone can forge events, and Kubernetes drops them. A pull without an error has no cause.
Whatever is unknown is no cause: an unread part of an object, a node that does not respond, an attempt that Runway did
not see.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from runway.jobs.diagnosis.attempts import attempt_failure
from runway.jobs.diagnosis.codes import Diagnosis, FailureCode
from runway.jobs.diagnosis.container_start import diagnose_container_start, diagnose_pod_creation
from runway.jobs.models import Attempt
from runway.jobs.record import AttemptHistory, merge_attempts, record_of
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Job, Pod

FIRST_POD_SECONDS: Final = 60.0
"""The first pod usually follows its Job within this time. Before a later one there may have been another attempt."""


@dataclass(frozen=True, slots=True)
class StartWait:
    """An unfinished job of which no container ever started.

    `pod` is its live pod, None before Kubernetes creates it. `cause` is the pod's cause by its status, or None.
    """

    pod: Pod | None
    cause: Diagnosis | None


def start_wait(
    snapshot: JobSnapshot, *, has_history: bool = False, known: AttemptHistory | None = None
) -> StartWait | None:
    """Return the wait of this job; None if it is finished, a container of it started, or either is unknown.

    `has_history`: every attempt since the job's creation is known. `known`: the merged attempts, if at hand.
    """
    job = snapshot.job
    if job.has_outcome or job.metadata.unreadable or any(pod.metadata.unreadable for pod in snapshot.pods):
        return None
    known = known or merge_attempts(snapshot, record_of(job))
    if any(not pod.is_terminal for pod in snapshot.pods if pod.metadata.name in snapshot.deleted_pods):
        return None  # The last known status of a pod that was deleted meanwhile does not show whether it started.
    ended = sum(attempt.state in ("failed", "succeeded") for attempt in known.attempts)
    if known.started_at is not None or known.left_out or job.status.failed + job.status.succeeded > ended:
        return None
    if known.attempts and not has_history and not _is_first(known.attempts[0], job):
        return None
    live = [pod for pod in snapshot.pods if not snapshot.has_ended(pod)]
    if len(live) > 1:
        return None
    pod = live[0] if live else None
    return StartWait(pod, start_cause(snapshot, pod) if pod is not None else None)


def _is_first(attempt: Attempt, job: Job) -> bool:
    """Return whether the attempt followed its Job so closely that no other preceded it."""
    created, accepted = attempt.created_at, job.metadata.creation_timestamp
    return created is not None and accepted is not None and created - accepted <= timedelta(seconds=FIRST_POD_SECONDS)


def node_responds(snapshot: JobSnapshot, pod: Pod) -> bool:
    """Return whether the pod has no node, or its node is ready: only then its status is current."""
    node = snapshot.node_of(pod)
    ready = node.condition("Ready") if node is not None else None
    return pod.spec.node_name is None or (ready is not None and ready.status == "True")


def explain(snapshot: JobSnapshot, pod: Pod | None) -> Diagnosis:
    """Explain why a job has not started, with events too. The code is `start_timeout` if Kubernetes reports nothing."""
    found = diagnose_pod_creation(snapshot) if pod is None else diagnose_container_start(snapshot, pod)
    if found is None and pod is None and snapshot.pods:
        ended = attempt_failure(snapshot, snapshot.pods[-1])
        found = ended.finding if ended else None
    return found or Diagnosis(FailureCode.START_TIMEOUT, "")


def start_cause(snapshot: JobSnapshot, pod: Pod) -> Diagnosis | None:
    """Return what keeps this version of a pod from starting; None if nothing does, or if its status is old."""
    if pod.metadata.deletion_timestamp is not None or not node_responds(snapshot, pod):
        return None
    return diagnose_container_start(replace(snapshot, events=()), pod)
