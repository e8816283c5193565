"""The parts of Kubernetes objects that Runway reads, and nothing else: decoding is most of the work of a watch.

Names follow the API: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec

Time = Annotated[datetime, msgspec.Meta(tz=True)]
"""A time with its zone: one without cannot be compared with others."""
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2200


def is_possible_year(year: int) -> bool:
    """Whether a time of this year can be true. Arithmetic with other years can overflow."""
    return FIRST_YEAR <= year <= LAST_YEAR


LABEL_CONTROLLER: Final = "batch.kubernetes.io/controller-uid"
"""Put on every pod of a Job by the Job controller.

https://kubernetes.io/docs/reference/labels-annotations-taints/#batchkubernetesio-controller-uid
"""
LABEL_JOB_NAME: Final = "batch.kubernetes.io/job-name"
"""So is this one: https://kubernetes.io/docs/reference/labels-annotations-taints/#batchkubernetesio-job-name"""

CONTAINER: Final = "job"
"""The name of the container that runs the job."""

_LOG_ALREADY_GONE: Final = "Error on reading termination message from logs"
"""What the kubelet writes in place of the last lines when it has removed the log of a deleted pod already."""


class _KubeObject(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Fields that Kubernetes leaves out when they are empty have the empty value as their default.

    What comes from JSON cannot hold itself, so the garbage collector need not look at it (`gc=False`).
    """


class Metadata(_KubeObject, frozen=True):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = "0"
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    unreadable: tuple[str, ...] = msgspec.field(name="runway.internal/unreadable", default=())
    """The parts of the object that could not be read. Runway's own note: the API has no such field."""


class Condition(_KubeObject, frozen=True):
    type: str
    status: str
    reason: str | None = None
    message: str | None = None
    last_transition_time: Time | None = None


class ResourceRequirements(_KubeObject, frozen=True):
    requests: dict[str, str] = {}


class Container(_KubeObject, frozen=True):
    name: str
    resources: ResourceRequirements = ResourceRequirements()
    restart_policy: str | None = None


class Toleration(_KubeObject, frozen=True):
    """https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/"""

    key: str | None = None
    operator: str | None = None
    value: str | None = None
    effect: str | None = None


class PodSpec(_KubeObject, frozen=True):
    node_name: str | None = None
    resources: ResourceRequirements = ResourceRequirements()
    """Of the pod as a whole: what they name takes the place of the containers' requests.

    https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#pod-level-resource-specification
    """
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    termination_grace_period_seconds: int | None = None


class PodTemplate(_KubeObject, frozen=True):
    spec: PodSpec = PodSpec()


class JobSpec(_KubeObject, frozen=True):
    template: PodTemplate = PodTemplate()
    parallelism: int | None = None
    completions: int | None = None
    suspend: bool | None = None
    active_deadline_seconds: int | None = None


class JobStatus(_KubeObject, frozen=True):
    conditions: tuple[Condition, ...] = ()
    start_time: Time | None = None
    completion_time: Time | None = None
    active: int = 0
    failed: int = 0
    succeeded: int = 0
    terminating: int | None = None


class Job(_KubeObject, frozen=True):
    metadata: Metadata
    spec: JobSpec = JobSpec()
    status: JobStatus = JobStatus()

    def condition(self, type_: str) -> Condition | None:
        """The condition of this type where its status is True."""
        for item in self.status.conditions:
            if item.type == type_ and item.status == "True":
                return item
        return None

    @property
    def finished(self) -> bool:
        """Whether Kubernetes has given its verdict: no pod of the Job will be created any more.

        https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions
        """
        return self.condition("Complete") is not None or self.condition("Failed") is not None


class Waiting(_KubeObject, frozen=True):
    reason: str | None = None
    message: str | None = None


class Running(_KubeObject, frozen=True):
    started_at: Time | None = None


class Terminated(_KubeObject, frozen=True):
    exit_code: int = 0
    signal: int | None = None
    reason: str | None = None
    message: str | None = None
    started_at: Time | None = None
    finished_at: Time | None = None

    @property
    def termination_message(self) -> str | None:
        """The end of the log as the kubelet kept it; None where it kept none, or only its own failure to read it.

        https://kubernetes.io/docs/tasks/debug/debug-application/determine-reason-pod-failure/
        """
        return None if (self.message or "").startswith(_LOG_ALREADY_GONE) else self.message or None


class ContainerState(_KubeObject, frozen=True):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_KubeObject, frozen=True):
    name: str
    state: ContainerState = ContainerState()
    container_id: str | None = msgspec.field(default=None, name="containerID")
    """Empty until the runtime has created a container."""


class PodStatus(_KubeObject, frozen=True):
    phase: str = "Pending"
    reason: str | None = None
    message: str | None = None
    start_time: Time | None = None
    conditions: tuple[Condition, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()


class Pod(_KubeObject, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def is_terminal(self) -> bool:
        """Whether no container of the pod runs or will run.

        https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
        """
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def terminating(self) -> bool:
        """Whether the pod was told to end and has not yet."""
        return self.metadata.deletion_timestamp is not None and not self.is_terminal

    @property
    def controller_uid(self) -> str | None:
        """The uid of the Job that the pod belongs to; None for a pod of something else."""
        return self.metadata.labels.get(LABEL_CONTROLLER)

    @property
    def container(self) -> ContainerState:
        """The state of the container that runs the job; empty before the kubelet has reported it.

        Statuses are sorted by name, so that of an injected container can come first. A pod that was created outside
        Runway may have none of that name; then it is the first.
        """
        own = job_container_status(self.status.container_statuses)
        return own.state if own else ContainerState()

    @property
    def never_had_a_container(self) -> bool:
        """Whether the pod has ended, or is ending, and the runtime never created its container.

        The kubelet reports such a container as terminated with 137, ContainerStatusUnknown, and without an id:
        https://github.com/kubernetes/kubernetes/blob/v1.35.0/pkg/kubelet/status/status_manager.go (TerminatePod)
        """
        ended = self.container.terminated
        return (
            ended is not None
            and ended.reason == "ContainerStatusUnknown"
            and not any(status.container_id for status in self.status.container_statuses)
        )

    def condition(self, type_: str) -> Condition | None:
        """The condition of this type, whatever its status."""
        return next((item for item in self.status.conditions if item.type == type_), None)


def job_container_status(statuses: tuple[ContainerStatus, ...]) -> ContainerStatus | None:
    """The status of the container that runs the job, or else the first."""
    for status in statuses:
        if status.name == CONTAINER:
            return status
    return statuses[0] if statuses else None


def merge_pod_status(pod: Pod, known: Pod) -> Pod:
    """A newer state of a pod, with what the one before told and the kubelet has written over since."""
    return _keep_termination_message(_keep_deletion_timestamp(pod, known), known)


def _keep_termination_message(pod: Pod, known: Pod) -> Pod:
    """The kubelet reads the log anew for each status that it builds, also after it has removed a deleted pod's log."""
    now, before = pod.container.terminated, known.container.terminated
    if now is None or before is None or now.termination_message is not None or before.termination_message is None:
        return pod
    told = msgspec.structs.replace(now, message=before.message)
    own = job_container_status(pod.status.container_statuses)
    statuses = tuple(
        msgspec.structs.replace(status, state=msgspec.structs.replace(status.state, terminated=told))
        if status is own
        else status
        for status in pod.status.container_statuses
    )
    return msgspec.structs.replace(pod, status=msgspec.structs.replace(pod.status, container_statuses=statuses))


def _keep_deletion_timestamp(pod: Pod, known: Pod) -> Pod:
    """When all has ended the kubelet deletes the pod once more, at once: what was told first is when it had to end."""
    now, before = pod.metadata, known.metadata
    if not pod.is_terminal or before.deletion_timestamp is None:
        return pod
    told = msgspec.structs.replace(
        now,
        deletion_timestamp=before.deletion_timestamp,
        deletion_grace_period_seconds=before.deletion_grace_period_seconds,
    )
    return msgspec.structs.replace(pod, metadata=told)


def resource_version_number(item: Job | Pod | Event | Node) -> int:
    """The resource version as a number: comparable within one collection since Kubernetes 1.35.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions
    """
    return int(item.metadata.resource_version)


class ObjectReference(_KubeObject, frozen=True):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class EventSeries(_KubeObject, frozen=True):
    count: int = 0
    last_observed_time: Time | None = None


class Event(_KubeObject, frozen=True):
    """https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/

    Events are seldom kept for longer than an hour, and repeated ones are counted in one object.
    """

    metadata: Metadata
    involved_object: ObjectReference = ObjectReference()
    reason: str | None = None
    message: str | None = None
    type: str | None = None
    count: int | None = None
    first_timestamp: Time | None = None
    last_timestamp: Time | None = None
    event_time: Time | None = None
    series: EventSeries | None = None

    @property
    def last_seen(self) -> datetime | None:
        """When it happened last: clients of the two event APIs fill in different fields."""
        return (
            (self.series.last_observed_time if self.series else None)
            or self.last_timestamp
            or self.event_time
            or self.metadata.creation_timestamp
        )


class Taint(_KubeObject, frozen=True):
    key: str
    effect: str = ""
    value: str | None = None


class NodeSpec(_KubeObject, frozen=True):
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()


class NodeStatus(_KubeObject, frozen=True):
    conditions: tuple[Condition, ...] = ()
    allocatable: dict[str, str] = {}


class Node(_KubeObject, frozen=True):
    """https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/node-v1/"""

    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    def condition(self, type_: str) -> Condition | None:
        """The condition of this type, whatever its status."""
        return next((item for item in self.status.conditions if item.type == type_), None)


class LeaseSpec(_KubeObject, frozen=True):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class Lease(_KubeObject, frozen=True):
    """https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/lease-v1/"""

    metadata: Metadata
    spec: LeaseSpec = LeaseSpec()
