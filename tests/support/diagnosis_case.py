"""Statuses that Kubernetes and its runtimes really write, and what must be told of each: the tables are `told_*.py`.

Where a text comes from stands above it: Kubernetes' own source at v1.35.4 (`K8S` and a path), containerd's, or a
report of it in the wild. Times are seconds; a pod's deletion timestamp is when its grace period ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runway.jobs.diagnosis.codes import Category, FailureCode
from runway.jobs.snapshot import JobSnapshot
from runway.kube.objects import Event, Job, Node, Pod
from tests.support.builders import Json, condition, disrupted, ended, job, pod, spec

USER, INFRA, POLICY, RUNWAY = Category.USER, Category.INFRA, Category.POLICY, Category.RUNWAY
C = FailureCode


# K8S pkg/controller/job/job_controller.go: newFailureCondition.
BACKOFF = job(verdict="Failed", reason="BackoffLimitExceeded", message="Job has reached the specified backoff limit")
# The timeout is 60 s; Kubernetes takes the Job up at 10, so the deadline is at 70. FailureTarget comes first.
ADMITTED = spec(timeout_seconds=60)
DEADLINE = job(
    verdict="Failed", reason="DeadlineExceeded", message="Job was active longer than specified deadline",
    conditions=[condition("FailureTarget", reason="DeadlineExceeded", since=70)],
    admitted=ADMITTED, started=10, deadline=60,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """A failed Job with what surrounds it, and what must be told of it. `hint` and `evidence` are parts of theirs."""

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
    def case(self) -> JobSnapshot:
        """Everything that is known of the job."""
        nodes = {item.metadata.name: item for item in self.nodes}
        return JobSnapshot("vision", self.job, tuple(self.pods), frozenset(self.gone), tuple(self.events), nodes)


def evicted(message: str, *, counts: bool = False) -> Pod:
    """A pod that the kubelet evicted, as a disruption unless it counts.

    K8S pkg/kubelet/eviction/eviction_manager.go: evictPod.
    """
    conditions = [] if counts else [disrupted("TerminationByKubelet", message)]
    return pod(state=ended(137), phase="Failed", reason="Evicted", message=message, conditions=conditions)


def rejected(reason: str, message: str) -> Pod:
    """A pod that its node refused. K8S pkg/kubelet/kubelet.go: rejectPod."""
    return pod(phase="Failed", reason=reason, message=f"Pod was rejected: {message}")


def overdue(state: Json | None = None, **more: object) -> Pod:
    """A pod that the Job controller told to end at the deadline (70), with a grace period of 30 s."""
    return pod(state=state, deleted=100, grace=30, **more)  # type: ignore[arg-type]


def not_started(message: str) -> Pod:
    """containerd internal/cri/server/container_start.go: StartError and 128; the kubelet writes 1970 for the start."""
    return pod(state=ended(128, "StartError", message, started=-1795507200, finished=20))


RUNC = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: "
)
