"""Cases of diagnosis: statuses that Kubernetes writes and the expected failure.

The tables are in `tests/unit/jobs/diagnosis/cases/`. A comment above a text names its source: Kubernetes' code at
v1.35.4 (`K8S` and a path), containerd's code, or a public report. Times are seconds. A pod's deletion timestamp is the
end of its grace period.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from runway.jobs.diagnosis.codes import Category, FailureCode
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Event, Job, Node, Pod
from tests.support.builders import JOB, Json, condition, disrupted, ended, job, pod, spec, start_timeout

USER, INFRA, POLICY, RUNWAY = Category.USER, Category.INFRA, Category.POLICY, Category.RUNWAY
C = FailureCode


# K8S pkg/controller/job/job_controller.go: newFailureCondition.
BACKOFF = job(outcome="Failed", reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit")
# The timeout is 60 s and Kubernetes starts the Job at 10, so the deadline is at 70. FailureTarget comes first.
ADMITTED = spec(timeout_seconds=60)
DEADLINE = job(
    outcome="Failed", reason="DeadlineExceeded", message="Job was active longer than specified deadline",
    conditions=[condition("FailureTarget", reason="DeadlineExceeded", since=70)],
    admitted=ADMITTED, started=10, deadline=60,
)  # fmt: skip

# K8S pkg/controller/job/job_controller.go: JobReasonPodFailurePolicy; the message is of pod_failure_policy.go.
EXITED = job(
    outcome="Failed", reason="PodFailurePolicy", backoff_limit=3,
    message="Container job for pod runway-vision/a failed with exit code 3 matching FailJob rule at index 1",
)  # fmt: skip


def ended_by_start_deadline(**timeout: Any) -> Job:
    """Build a Job that Runway ended at a start deadline: its deadline is zero."""
    return job(
        outcome="Failed", reason="DeadlineExceeded", message="Job was active longer than specified deadline",
        conditions=[condition("FailureTarget", reason="DeadlineExceeded", since=70)],
        admitted=ADMITTED, started=10, deadline=0, annotations=start_timeout(**timeout),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DiagnosisCase:
    """A failed Job with its pods, events and nodes, and the expected failure.

    `message`, `hint` and `evidence` are parts of the expected values.
    """

    code: FailureCode
    category: Category
    retryable: bool
    message: str
    pods: Sequence[Pod] = ()
    job: Job = BACKOFF
    events: Sequence[Event] = ()
    nodes: Sequence[Node] = ()
    gone: Sequence[str] = ()
    hint: str = ""
    evidence: Json = field(default_factory=dict)

    @property
    def snapshot(self) -> JobSnapshot:
        """Build the snapshot that the diagnosis reads."""
        nodes = {item.metadata.name: item for item in self.nodes}
        return JobSnapshot("vision", self.job, tuple(self.pods), frozenset(self.gone), tuple(self.events), nodes)


def evicted(message: str, *, counts: bool = False) -> Pod:
    """Build a pod that the kubelet evicted, as a disruption unless it counts.

    K8S pkg/kubelet/eviction/eviction_manager.go: evictPod.
    """
    conditions = [] if counts else [disrupted("TerminationByKubelet", message)]
    return pod(state=ended(137), phase="Failed", reason="Evicted", message=message, conditions=conditions)


def rejected(reason: str, message: str, name: str = f"{JOB}-first") -> Pod:
    """Build a pod that its node rejected. K8S pkg/kubelet/kubelet.go: rejectPod."""
    return pod(name, phase="Failed", reason=reason, message=f"Pod was rejected: {message}")


def overdue(state: Json | None = None, **more: object) -> Pod:
    """Build a pod that the Job controller deleted at the deadline (70), with a grace period of 30 s."""
    return pod(state=state, deleted=100, grace=30, **more)  # type: ignore[arg-type]


def not_started(message: str) -> Pod:
    """Build a pod whose container failed to start; the kubelet writes 1970 for the start.

    containerd internal/cri/server/container_start.go: StartError and 128.
    """
    return pod(state=ended(128, "StartError", message, started=-1795507200, finished=20))


RUNC = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: "
)
